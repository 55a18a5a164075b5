//! `mcp-mux get`, `describe` and `schema` through the program.

use super::*;

const ALL: &str = "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: { displayName: Acme }\n---\n\
    kind: Tenant\nmetadata: { name: globex }\nspec: {}\n---\n\
    kind: Upstream\nmetadata: { tenant: acme, name: jira, managedBy: ops }\nspec: { http: { url: 'http://127.0.0.1:1/mcp' }, \
    auth: { bearer: { secret: token } } }\n---\n\
    kind: Upstream\nmetadata: { tenant: globex, name: wiki }\nspec: { http: { url: 'http://127.0.0.1:1/mcp' }, auth: none, enabled: false }\n---\n\
    kind: Grant\nmetadata: { tenant: acme, name: staff }\nspec: { issuer: corp, groups: [a, b, c, d], level: read, tools: { allow: ['*'] } }\n---\n\
    kind: AccessTest\nmetadata: { tenant: globex, name: apart }\nspec: { as: { issuer: corp, groups: [a] }, cannot: ['globex__*'] }\n";

fn answered(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(folder, arguments)?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

fn bed() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    configure(folder.path(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    fs::write(folder.path().join("all.yaml"), ALL)?;
    answered(folder.path(), &["apply", "-f", "all.yaml"])?;
    Ok(folder)
}

#[test]
fn what_there_is_is_listed_and_can_be_applied_again() -> Result<()> {
    let folder = bed()?;
    let folder = folder.path();
    assert_eq!(
        answered(folder, &["get", "upstreams"])?,
        "acme/jira    MCP  http://127.0.0.1:1/mcp  bearer                  managed by ops\n\
         globex/wiki  MCP  http://127.0.0.1:1/mcp  no proof  switched off\n"
    );
    assert_eq!(answered(folder, &["get", "grant"])?, "acme/staff  corp: a, b, c and 1 more  read  *\n");
    let apart = "globex/apart  corp: a  can nothing  cannot globex__*\n";
    assert_eq!(answered(folder, &["get", "tests", "--tenant", "globex"])?, apart);
    assert_eq!(answered(folder, &["get", "tests", "--tenant", "acme"])?, "");
    assert_eq!(answered(folder, &["get", "tenants"])?, "acme    Acme\nglobex  globex\n");

    let documents: Value = serde_json::from_str(&answered(folder, &["get", "upstream", "acme/jira", "-o", "json"])?)?;
    assert_eq!(documents[0]["metadata"], json!({"tenant": "acme", "name": "jira", "managedBy": "ops"}));
    let text = answered(folder, &["get", "upstream", "acme/jira", "-o", "yaml"])?;
    let again = run_with(folder, &["apply", "-f", "-"], &text)?;
    assert!(said(&again).contains("0 created, 0 changed, 1 unchanged"), "{}", said(&again));

    for (arguments, why) in [
        (["get", "upstream", "acme"], "write it as TENANT/NAME"),
        (["get", "upstream", "acme/wiki"], "there is no Upstream `wiki` in tenant `acme`"),
        (["get", "tenant", "initech"], "there is no tenant `initech`"),
        (["describe", "grant", "globex/staff"], "there is no Grant `staff` in tenant `globex`"),
    ] {
        let refused = run(folder, &arguments)?;
        assert!(!refused.status.success() && refused.stdout.is_empty());
        assert!(said(&refused).contains(why), "{}", said(&refused));
    }
    Ok(())
}

#[test]
fn what_documents_do_not_say_is_described() -> Result<()> {
    let folder = bed()?;
    let folder = folder.path();
    let jira = answered(folder, &["describe", "upstream", "acme/jira"])?;
    for line in [
        "    url: http://127.0.0.1:1/mcp",
        "# health  it was not asked for its lists yet, at this address",
        "# tools   0",
        "# secret  token: missing, so calls fail; `mcp-mux secret set acme/jira/token`",
    ] {
        assert!(jira.lines().any(|shown| shown == line), "{line}\n{jira}");
    }
    // Whatever it says, it is a manifest still.
    let again = run_with(folder, &["apply", "-f", "-"], &jira)?;
    assert!(said(&again).contains("0 created, 0 changed, 1 unchanged"), "{}", said(&again));

    ensure!(run_with(folder, &["secret", "set", "acme/jira/token"], "CANARY-token")?.status.success());
    answered(folder, &["revoke", "upstream", "acme/jira", "--reason", "it lies", "--wait", "0"])?;
    let jira = answered(folder, &["describe", "upstream", "acme/jira"])?;
    assert!(jira.contains("token: version 1 is stored") && !jira.contains("CANARY"), "{jira}");
    assert!(jira.contains("the upstream, since ") && jira.contains(": it lies"), "{jira}");
    let described: Value =
        serde_json::from_str(&answered(folder, &["describe", "upstream", "acme/jira", "-o", "json"])?)?;
    assert_eq!(described["document"]["metadata"]["name"], "jira");
    assert_eq!(described["known"]["secrets"], json!([{"name": "token", "version": 1}]));
    assert_eq!(described["known"]["revocations"][0]["reason"], "it lies");
    assert_eq!(described["known"]["health"], Value::Null);

    let globex = answered(folder, &["describe", "tenant", "globex"])?;
    assert!(globex.contains("# upstreams     1") && !globex.contains("it lies"), "{globex}");
    let apart = answered(folder, &["describe", "test", "globex/apart"])?;
    assert!(apart.contains("# test  holds, as if nothing were revoked"), "{apart}");
    let staff = answered(folder, &["describe", "grant", "acme/staff"])?;
    assert!(staff.contains("# opens  `mcp-mux explain --as corp --group d`"), "{staff}");
    Ok(())
}

#[test]
fn the_schema_needs_neither_a_database_nor_a_configuration() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let schema: Value = serde_json::from_str(&answered(folder.path(), &["schema"])?)?;
    assert_eq!(schema["properties"]["kind"]["enum"], json!(["Tenant", "Upstream", "Grant", "AccessTest"]));
    Ok(())
}
