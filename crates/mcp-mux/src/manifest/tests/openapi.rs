//! Upstreams that are APIs.

use tenant_store::UpstreamProtocol;

use super::*;

const HEAD: &str =
    "apiVersion: mcp-mux/v1\nkind: Upstream\nmetadata: { tenant: acme, name: shop }\nspec:\n  auth: none\n";

fn protocol(openapi: &str) -> (String, UpstreamProtocol) {
    let manifest = parse("acme.yaml", &format!("{HEAD}  openapi: {openapi}\n")).unwrap();
    match manifest.documents()[0].object() {
        Object::Upstream { spec, .. } => (spec.url.to_string(), spec.protocol.clone()),
        other => panic!("{other:?}"),
    }
}

fn refused(lines: &str) -> String {
    error(&format!("{HEAD}{lines}"))
}

#[test]
fn an_api_has_a_base_and_a_document() {
    for (openapi, base, document) in [
        ("{ url: https://api.example/v2 }", "https://api.example/v2", "https://api.example/v2/openapi.json"),
        (
            "{ url: https://api.example, document: https://docs.example/api.yaml }",
            "https://api.example/",
            "https://docs.example/api.yaml",
        ),
    ] {
        let document = UpstreamProtocol::OpenApi { document: document.parse().unwrap() };
        assert_eq!(protocol(openapi), (base.to_owned(), document));
    }
}

#[test]
fn an_upstream_is_one_or_the_other() {
    assert_snapshot!(refused(""), @"acme.yaml:5:3: `spec.http`: is missing: say `http: { url: … }` for an MCP server, or `openapi: { url: … }` for an API");
    assert_snapshot!(refused("  http: { url: https://api.example }\n  openapi: { url: https://api.example }\n"), @"acme.yaml:7:12: `spec.openapi`: must not stand beside `http`: an upstream is an MCP server or an API");
    assert_snapshot!(refused("  openapi: { document: https://api.example/openapi.json }\n"), @"acme.yaml:6:12: `spec.openapi.url`: is missing");
    assert_snapshot!(refused("  openapi: { url: https://api.example, documents: x }\n"), @"acme.yaml:6:40: `spec.openapi.documents`: is unknown; did you mean `document`?");
    assert_snapshot!(refused("  openapi: { url: 'ftp://api.example' }\n"), @"acme.yaml:6:19: `spec.openapi.url`: must begin with `https://` or `http://`");
    assert_snapshot!(refused("  openapi: { url: https://api.example, document: 'file:///etc/passwd' }\n"), @"acme.yaml:6:50: `spec.openapi.document`: must begin with `https://` or `http://`");
}

#[tokio::test]
async fn both_addresses_must_be_among_the_tenants_hosts() -> anyhow::Result<()> {
    let store = store().await?;
    let tenant = "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: { displayName: Acme, egress: { hosts: [api.example] } }\n---\n";
    let apply = async |openapi: &str| apply_all(&store, &[&format!("{tenant}{HEAD}  openapi: {openapi}\n")]).await;
    assert_snapshot!(apply("{ url: https://other.example }").await.unwrap_err(), @"one.yaml:11:19: `spec.openapi.url`: is at a host that the tenant's `spec.egress.hosts` does not list: add the host there");
    assert_snapshot!(apply("{ url: https://api.example, document: https://other.example/x }").await.unwrap_err(), @"one.yaml:11:19: `spec.openapi.document`: is at a host that the tenant's `spec.egress.hosts` does not list: add the host there");
    apply("{ url: https://api.example }").await?;
    Ok(())
}
