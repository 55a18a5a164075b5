//! The settings as files and the environment give them.

use super::*;

const SMALLEST: &str = r#"
    public_url = "https://mcp.example.com"
    [database]
    url = "sqlite::memory:"
    [keys]
    primary_file = "/run/secrets/key"
    [[issuers]]
    name = "corp"
    url = "https://idp.example.com"
"#;

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let source = Environment::with_prefix("MCP_MUX").prefix_separator("__").separator("__").source(Some(variables));
    Config::parse(text, source)
}

#[test]
fn a_small_file_is_enough() {
    let config = parse(SMALLEST, &[]).unwrap();
    assert_eq!(config.public_url.join("/mcp"), "https://mcp.example.com/mcp");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = parse(SMALLEST, &[("MCP_MUX__HTTP__LISTEN", "0.0.0.0:9000")]).unwrap();
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:9000");
}

#[test]
fn nobody_listens_for_probes_unless_it_is_said_where() {
    assert_eq!(parse(SMALLEST, &[]).unwrap().admin.listen, None);
    let config = parse(SMALLEST, &[("MCP_MUX__ADMIN__LISTEN", "0.0.0.0:8081")]).unwrap();
    assert_eq!(config.admin.listen, Some("0.0.0.0:8081".parse().unwrap()));
}

#[test]
fn what_the_listener_waits_for_has_an_end() {
    for (settings, accepted) in [
        ("drain_delay_seconds = 0", true),
        ("drain_delay_seconds = 601", false),
        ("drain_timeout_seconds = 1", true),
        ("drain_timeout_seconds = 0", false),
        ("drain_timeout_seconds = 601", false),
        ("header_timeout_seconds = 1", true),
        ("header_timeout_seconds = 0", false),
        ("header_timeout_seconds = 301", false),
        ("connections_max = 1", true),
        ("connections_max = 0", false),
        ("connections_max = 1000001", false),
    ] {
        assert_eq!(parse(&format!("http.{settings}\n{SMALLEST}"), &[]).is_ok(), accepted, "{settings}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let error = parse(&format!("colour = 1\n{SMALLEST}"), &[]).unwrap_err();
    assert!(error.to_string().contains("colour"), "{error}");
}

#[test]
fn a_mistake_is_placed_and_no_value_around_it_is_repeated() {
    let key = r#"primary = "CANARY-key""#;
    let whole = SMALLEST.replace(r#"primary_file = "/run/secrets/key""#, key);
    assert!(parse(&whole, &[]).is_ok());
    for (from, to, said) in [
        (key, r#"primary = "CANARY-key"#, "at line 6"),
        (key, "primary = CANARY-key", "at line 6"),
        ("[database]", "keys = \"CANARY-key\"\n[database]", "expected struct KeysConfig"),
        (key, "primary = [\"CANARY-key\"]", "keys.primary"),
        ("sqlite::memory:", "CANARY-url\"\nurl = \"twice", "at line 5"),
    ] {
        let text = whole.replace(from, to);
        let text = if from == "[database]" { text.replace("[keys]", "").replace(key, "") } else { text };
        let error = parse(&text, &[]).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("CANARY"), "{error}");
    }
}

#[test]
fn no_issuer_is_an_error() {
    let text = SMALLEST.replace("[[issuers]]", "[catalog]\nrefresh_seconds = 5\n[[nobody]]");
    assert!(parse(&text, &[]).is_err());
}

#[test]
fn a_public_url_is_https_unless_it_is_loopback() {
    for (url, accepted) in [
        ("https://mcp.example.com", true),
        ("http://127.0.0.1:8080", true),
        ("http://localhost", true),
        ("http://mcp.example.com", false),
        ("https://mcp.example.com/mcp", false),
        ("https://me@mcp.example.com", false),
        ("ftp://mcp.example.com", false),
    ] {
        let parsed = PublicUrl::try_from(Url::parse(url).unwrap());
        assert_eq!(parsed.is_ok(), accepted, "{url}");
    }
}

/// The smallest configuration with more settings of its issuer.
fn issuer(settings: &str) -> Result<Config, ConfigError> {
    parse(&format!("{SMALLEST}\n{settings}"), &[])
}

#[test]
fn a_clients_id_is_an_audience_only_where_something_tells_id_tokens_apart() {
    for (settings, accepted) in [
        (r#"audiences = ["open-webui"]"#, false),
        (r#"audiences = ["https://mcp.example.com/mcp", "66666666-7777-8888-9999-000000000000"]"#, false),
        ("preset = \"keycloak\"\naudiences = [\"open-webui\"]", false),
        (r#"audiences = ["https://mcp.example.com/mcp", "api://mcp", "urn:mcp"]"#, true),
        ("audiences = [\"open-webui\"]\nrequired_scopes = [\"mcp:use\"]", true),
        ("audiences = [\"open-webui\"]\naccess_claims = [\"scope\"]", true),
        ("audiences = [\"open-webui\"]\ntoken_types = [\"at+jwt\"]", true),
        ("preset = \"okta\"\naudiences = [\"open-webui\"]", true),
    ] {
        assert_eq!(issuer(settings).is_ok(), accepted, "{settings}");
    }
}

#[test]
fn a_sign_in_with_a_browser_needs_a_client_that_can_be() {
    let login = |settings: &str| issuer(&format!("[issuers.login]\n{settings}"));
    let secret = "client_secret = \"CANARY-login\"";
    assert!(login("client_id = \"mux\"").is_ok(), "a public client");
    assert!(login(&format!("client_id = \"mux\"\n{secret}\nscopes = [\"profile\"]")).is_ok());
    for settings in [
        String::new(),
        "client_id = \" \"".to_owned(),
        "client_id = \"mux\"\nscopes = [\"a b\"]".to_owned(),
        "client_id = \"mux\"\nsubject_claims = []".to_owned(),
        format!("client_id = \"mux\"\n{secret}\nclient_secret_file = \"/run/secrets/login\""),
        "client_id = \"mux\"\nredirect_uri = \"https://evil.example.com\"".to_owned(),
    ] {
        let error = login(&settings).unwrap_err().to_string();
        assert!(!error.contains("CANARY"), "{error}");
    }
}

#[test]
fn a_scope_is_one_that_a_challenge_can_name() {
    for (scope, accepted) in [
        ("mcp:use", true),
        ("https://mcp.example.com/mcp/mcp.access", true),
        ("", false),
        ("mcp use", false),
        ("mcp\u{e4}", false),
        ("mcp\\\"", false),
        ("mcp\\n", false),
    ] {
        for key in ["scopes", "required_scopes"] {
            assert_eq!(issuer(&format!("{key} = [\"{scope}\"]")).is_ok(), accepted, "{key} {scope}");
        }
    }
}

#[test]
fn an_allowed_origin_is_what_browsers_send() {
    let with = |origin: &str| parse(&format!("http.allowed_origins = [\"{origin}\"]\n{SMALLEST}"), &[]);
    for origin in ["https://webui.example.com", "http://localhost:6274", "https://WebUI.example.com"] {
        assert!(with(origin).is_ok(), "{origin}");
    }
    for origin in ["*", "null", "", "webui.example.com", "https://webui.example.com/", "https://a.example.com:443"] {
        assert!(with(origin).is_err(), "{origin}");
    }
}

#[test]
fn a_secret_of_two_fronts_is_an_error() {
    let front = |name: &str| {
        format!(
            "[[fronts]]\nname = \"{name}\"\nmode = \"headers\"\nkey = \"CANARY-0123456789abcdef0123456789abcdef\"\n"
        )
    };
    assert!(parse(&format!("{SMALLEST}\n{}", front("a")), &[]).is_ok());
    assert!(parse(&format!("{SMALLEST}\n{}{}", front("a"), front("b")), &[]).is_err());
}
