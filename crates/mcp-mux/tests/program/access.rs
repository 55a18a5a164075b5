//! The example in `examples/access`: a grant that would show one company's tools to another's people is shown by `diff` and refused by
//! `apply`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tenant_store::{NewTool, TenantScope};

use super::{configure, run, said};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/access");

/// What the upstreams of the example list, as a server would store it.
#[expect(clippy::disallowed_methods, reason = "a test prepares the database as a server would")]
async fn list(folder: &Path) -> Result<()> {
    let store = mcp_mux::open_store(&mcp_mux::config::Config::load(&folder.join("mcp-mux.toml"))?).await?;
    for (tenant, upstream, name) in
        [("acme", "jira", "search_issues"), ("acme", "jira", "create_issue"), ("globex", "wiki", "search_pages")]
    {
        let found = store.find_tenant(&tenant.parse()?).await?.context("the tenant")?;
        let rows = store.tenant(TenantScope::of(found.id));
        let upstream = rows.find_upstream(&upstream.parse()?).await?.context("the upstream")?;
        let looks = name.starts_with("search");
        let definition = format!(r#"{{"name":"{name}","inputSchema":{{}},"annotations":{{"readOnlyHint":{looks}}}}}"#);
        let tool = NewTool {
            local: name.parse()?,
            exposed: format!("{tenant}__{name}").parse()?,
            definition: serde_json::value::RawValue::from_string(definition)?,
            looks_like_another: false,
        };
        let mut tools: Vec<NewTool> = rows
            .tools()
            .await?
            .into_iter()
            .filter(|tool| tool.upstream == upstream.id)
            .map(|tool| NewTool {
                local: tool.local,
                exposed: tool.exposed,
                definition: tool.definition,
                looks_like_another: false,
            })
            .collect();
        tools.push(tool);
        rows.replace_tools(&upstream, &tools).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_grant_that_would_let_one_company_see_anothers_tools_is_shown_and_stopped() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let file = |name: &str| format!("{EXAMPLE}/{name}.yaml");
    let good = run(folder, &["apply", "-f", &file("companies")])?;
    ensure!(good.status.success(), "{}", said(&good));
    list(folder).await?;
    let tests = run(folder, &["apply", "-f", &file("tests")])?;
    assert!(said(&tests).contains("2 access tests: none fails"), "{}", said(&tests));

    let valid = run(folder, &["validate", "-f", EXAMPLE])?;
    assert!(said(&valid).contains("is defined at") && !valid.status.success(), "{}", said(&valid));
    let valid = run(folder, &["validate", "-f", &file("mistake")])?;
    assert!(valid.status.success() && said(&valid).contains("1 documents are well formed"), "{}", said(&valid));

    // Without the tests, which nobody has to write, it is seen still.
    for test in ["acme/analysts-only-look", "globex/staff-stay-at-home"] {
        ensure!(run(folder, &["delete", "access-test", test])?.status.success());
    }
    let shown = run(folder, &["diff", "--exit-code", "-f", &file("mistake")])?;
    assert_eq!(shown.status.code(), Some(2));
    let wanted = "in acme, group globex-staff of corp, whom no grant covered there\n  + tool acme__search_issues\n";
    assert!(said(&shown).contains(wanted), "{}", said(&shown));
    let same = run(folder, &["diff", "--exit-code", "-f", &file("companies")])?;
    assert_eq!(same.status.code(), Some(0), "{}", said(&same));
    let told = run(folder, &["apply", "--dry-run", "-o", "json", "-f", &file("mistake")])?;
    let report: Value = serde_json::from_slice(&told.stdout)?;
    assert_eq!(report.pointer("/applied"), Some(&Value::Bool(false)));
    let gained = report.pointer("/effects/0/gained/0/name").and_then(Value::as_str);
    assert_eq!(gained, Some("acme__search_issues"), "{report}");

    ensure!(run(folder, &["apply", "-f", &file("tests")])?.status.success());
    for command in ["diff", "apply"] {
        let refused = run(folder, &[command, "-f", &file("mistake")])?;
        assert_eq!(refused.status.code(), Some(1));
        let why = "globex/staff-stay-at-home: they must not be able to use `acme__*`, and can use `acme__search_issues` by grant analysts";
        assert!(said(&refused).contains(why), "{}", said(&refused));
    }
    let explained =
        run(folder, &["explain", "--as", "corp", "--group", "globex-staff", "--tool", "acme__search_issues"])?;
    assert!(String::from_utf8(explained.stdout)?.contains("denied"));
    Ok(())
}
