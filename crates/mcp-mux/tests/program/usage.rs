//! What tenants use, as the program prints it.

use super::*;

use tenant_store::{TenantScope, Used};

const TENANTS: &str = "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n---\n\
    kind: Tenant\nmetadata: { name: globex }\nspec: {}\n";

fn used(day: &str, tool: &str, (calls, errors, duration_ms): (u64, u64, u64)) -> Result<Used> {
    let (day, upstream, tool) = (day.to_owned(), "desk".parse()?, tool.parse()?);
    Ok(Used { day, upstream, tool, calls, errors, duration_ms })
}

/// Two tenants that have used something, as a server would write it.
#[tokio::main(flavor = "current_thread")]
#[expect(clippy::disallowed_methods, reason = "a test prepares the database as a server would")]
async fn fill(folder: &Path) -> Result<()> {
    let store = mcp_mux::open_store(&mcp_mux::config::Config::load(&folder.join("mcp-mux.toml"))?).await?;
    let mut all = Vec::new();
    for (slug, used) in [
        ("acme", vec![used("2026-11-01", "find", (2, 1, 30))?, used("2026-11-30", "=1+1", (1, 0, 5))?]),
        ("globex", vec![used("2026-11-30", "a,\"b\"", (7, 7, 70))?, used("2026-12-01", "find", (1, 0, 1))?]),
    ] {
        let tenant = store.find_tenant(&slug.parse()?).await?.context("the tenant")?;
        all.push((TenantScope::of(tenant.id), used));
    }
    store.add_usage(&all).await?;
    let (acme, _) = all.first().context("a tenant")?;
    Ok(store.add_usage(&[(*acme, vec![used("2026-11-30", "find", (1, 0, 10))?])]).await?)
}

fn told(folder: &Path, more: &[&str]) -> Result<String> {
    let output = run(folder, &[&["usage"], more].concat())?;
    ensure!(output.status.success(), "{more:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn what_was_used_in_a_month_is_printed_for_people_programs_and_spreadsheets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    fs::write(folder.join("tenants.yaml"), TENANTS)?;
    ensure!(run(folder, &["apply", "-f", "tenants.yaml"])?.status.success());
    fill(folder)?;

    let november = ["--month", "2026-11"];
    let of_acme = [&november[..], &["--tenant", "acme"]].concat();
    assert_eq!(
        told(folder, &of_acme)?,
        "acme  desk  =1+1  1 calls  0 failed  5 ms\nacme  desk  find  3 calls  1 failed  40 ms\n"
    );
    assert_eq!(
        told(folder, &[&of_acme[..], &["--daily"]].concat())?,
        "acme  2026-11-01  desk  find  2 calls  1 failed  30 ms\n\
         acme  2026-11-30  desk  =1+1  1 calls  0 failed  5 ms\n\
         acme  2026-11-30  desk  find  1 calls  0 failed  10 ms\n"
    );
    assert_eq!(
        told(folder, &[&november[..], &["-o", "csv"]].concat())?,
        "tenant,upstream,tool,calls,errors,durationMs\r\nacme,desk,\"'=1+1\",1,0,5\r\nacme,desk,find,3,1,40\r\n\
         globex,desk,\"a,\"\"b\"\"\",7,7,70\r\n"
    );
    assert_eq!(
        told(folder, &["--month", "2026-12", "--daily", "-o", "csv"])?,
        "tenant,day,upstream,tool,calls,errors,durationMs\r\nglobex,2026-12-01,desk,find,1,0,1\r\n"
    );
    let rows: Value = serde_json::from_str(&told(folder, &[&of_acme[..], &["-o", "json"]].concat())?)?;
    assert_eq!(
        rows,
        json!([
            {"tenant": "acme", "upstream": "desk", "tool": "=1+1", "calls": 1, "errors": 0, "durationMs": 5},
            {"tenant": "acme", "upstream": "desk", "tool": "find", "calls": 3, "errors": 1, "durationMs": 40},
        ])
    );
    let nothing = run(folder, &["usage", "--month", "2025-01"])?;
    assert_eq!(
        (nothing.status.success(), said(&nothing).as_str(), nothing.stdout.len()),
        (true, "no tool was called in 2025-01\n", 0)
    );
    for (arguments, wanted) in [
        (["--month", "2026-11", "--tenant", "initech"], "there is no tenant `initech`: `mcp-mux get tenants` lists"),
        (["--month", "2026-13", "--tenant", "acme"], "a month is written as `2026-11`"),
    ] {
        let output = run(folder, &[&["usage"], &arguments[..]].concat())?;
        assert!(!output.status.success() && said(&output).contains(wanted), "{}", said(&output));
    }
    // No tenant is ever deleted: one whose keys were destroyed keeps its name, and what it has used.
    let of_globex = [&november[..], &["--tenant", "globex"]].concat();
    let before = told(folder, &of_globex)?;
    let shredded = run(folder, &["keys", "shred", "globex", "--yes"])?;
    ensure!(shredded.status.success(), "{}", said(&shredded));
    assert_eq!(told(folder, &of_globex)?, before);
    Ok(())
}
