//! Accounts of callers' own, the whole way: a call that lacks one, its link, the sign-in with a browser, the consent at the upstream's
//! authorization server, and the call that then works.

use anyhow::{Context as _, Result, ensure};
use mcp_mux::config::LoginConfig;
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_store::{Level, UpstreamAuth};
use url::Url;

use crate::audit::{events, of, stopped};
use crate::oauth::text;
use crate::support::accounts::{account_auth, lists_for_all};
use crate::support::browser::{Browser, Page, query};
use crate::support::client::Http;
use crate::support::provider::Provider;
use crate::support::server::{Setup, TestServer};
use crate::support::tokens::TokenGuard;
use crate::support::upstreams::RealUpstream;

/// What a client says that opens links for its user.
fn opens_links() -> Value {
    json!({"elicitation": {"form": {}, "url": {}}})
}

/// Accounts at `provider`, with a client that registers itself there.
pub(crate) fn account(provider: &Provider) -> Result<UpstreamAuth> {
    Ok(UpstreamAuth::Account(Box::new(account_auth(Some(&provider.url))?)))
}

/// A server whose people sign in at the provider, and an upstream of `acme` at which they have accounts of the same provider.
struct Bed {
    provider: Provider,
    guard: TokenGuard,
    server: TestServer,
}

impl Bed {
    async fn new(name: &str) -> Result<Self> {
        let provider = Provider::start().await?;
        let guard = TokenGuard::of(&provider).await?;
        let mut corp = provider.issuer()?;
        corp.login = Some(LoginConfig {
            client_secret: Some(SecretString::from("CANARY-login-secret-of-the-tests+/=")),
            scopes: vec!["groups".to_owned(), "email".to_owned()],
            ..LoginConfig::new("login")
        });
        let server = TestServer::start_with(name, &[], |config| {
            config.issuers = vec![corp];
            Ok(())
        })
        .await?;
        let bed = Self { provider, guard, server };
        bed.add("acme", "desk").await?;
        Ok(bed)
    }

    async fn add(&self, tenant: &str, upstream: &str) -> Result<()> {
        let (url, _) = RealUpstream::named(tenant).serve_to(lists_for_all(&self.guard), false).await?;
        let setup = Setup { tenant, upstream, url: &url, key: None, level: Level::Write };
        self.server.add(&setup, account(&self.provider)?, &[]).await
    }

    async fn client(&self, subject: &str, groups: &[&str]) -> Result<Http> {
        let claims = json!({"claims": {"aud": self.server.app.endpoint(), "sub": subject, "groups": groups}});
        Http::new(&self.server.url("/mcp"), Some(&self.provider.mint(&claims).await?))
    }

    fn link(&self) -> String {
        self.server.url("/connect/acme/desk")
    }

    /// Opens an address of ours as somebody who is not signed in at the provider yet.
    async fn open_as(&self, browser: &mut Browser, url: &str, who: &str) -> Result<Page> {
        let mut sent = browser.get(&Url::parse(url)?).await?.location()?;
        sent.query_pairs_mut().append_pair("login_hint", who);
        browser.open(&sent).await
    }

    /// Connects the account of whoever `browser` is signed in as.
    async fn connect(&self, browser: &mut Browser, page: &Page) -> Result<Page> {
        let leaving = browser.press(page, "/connect/acme/desk").await?;
        ensure!(leaving.status == 200, "{}", leaving.text);
        browser.open(&leaving.refresh()?).await
    }
}

#[tokio::test]
async fn somebody_connects_an_account_uses_it_and_ends_it() -> Result<()> {
    let bed = Bed::new("connect_whole_way").await?;
    bed.add("globex", "bureau").await?;
    let alice = bed.client("alice", &["acme"]).await?;
    let refused = alice.call("acme__whoami", json!({})).await?;
    assert!(text(&refused).contains(&bed.link()), "{refused}");

    let mut browser = Browser::new()?;
    let page = bed.open_as(&mut browser, &bed.link(), "alice").await?;
    assert_eq!((page.status, page.url.as_str()), (200, bed.link().as_str()), "{}", page.text);
    assert!(page.text.contains("alice@corp.example") && page.text.contains("Not connected"), "{}", page.text);

    let page = bed.connect(&mut browser, &page).await?;
    assert_eq!((page.status, page.url.as_str()), (200, bed.link().as_str()), "{}", page.text);
    assert!(page.text.contains("Connected since"), "{}", page.text);
    assert_eq!(browser.cookies(&page.url), ["mcp-mux-visitor"], "what has served is gone");

    assert_eq!(text(&alice.call("acme__whoami", json!({})).await?), "whoami at acme with {}");
    assert_eq!(bed.guard.last()?.subject, "alice");

    let list = browser.open(&Url::parse(&bed.server.url("/connect"))?).await?;
    assert!(list.text.contains("Connected since"), "{}", list.text);
    let ended = browser.press(&list, "/connect/acme/desk/disconnect").await?;
    let page = browser.open(&ended.location()?).await?;
    assert!(page.text.contains("Not connected"), "{}", page.text);
    assert!(text(&alice.call("acme__whoami", json!({})).await?).contains(&bed.link()));

    let gone = browser.press(&page, "/connect/sign-out").await?;
    assert_eq!((gone.status, browser.cookies(&page.url).len()), (200, 0));

    let left = stopped(bed.server).await?;
    let recorded = events(&left.store, Some("acme")).await?;
    let acts: Vec<_> = of(&recorded, "account").iter().map(|event| (&event["action"], &event["outcome"])).collect();
    let done = json!("done");
    assert_eq!(acts, [(&json!("begin"), &done), (&json!("connect"), &done), (&json!("disconnect"), &done)]);
    let first = of(&recorded, "account")[0];
    assert_eq!((&first["who"]["subject"], &first["upstream"]), (&json!("alice"), &json!("desk")));
    // No neighbour learns of it, and the call with the account says so.
    for other in [Some("globex"), None] {
        assert!(of(&events(&left.store, other).await?, "account").is_empty(), "{other:?}");
    }
    let calls = of(&recorded, "call").into_iter().filter(|call| call["outcome"] == "ok");
    let used: Vec<_> =
        calls.map(|call| (&call["credential"]["owner"], call["credential"]["version"].is_u64())).collect();
    assert_eq!(used, [(&json!("account"), true)]);
    Ok(())
}

#[tokio::test]
async fn a_link_in_somebody_elses_hands_connects_their_own_account() -> Result<()> {
    let bed = Bed::new("connect_others_link").await?;
    let alice = bed.client("alice", &["acme"]).await?;
    let carol = bed.client("carol", &["acme", "globex"]).await?;
    // Carol opens what Alice was told to open.
    let mut browser = Browser::new()?;
    let page = bed.open_as(&mut browser, &bed.link(), "carol").await?;
    let page = bed.connect(&mut browser, &page).await?;
    assert!(page.text.contains("Connected since"), "{}", page.text);
    assert!(text(&alice.call("acme__whoami", json!({})).await?).contains(&bed.link()), "alice has none");
    assert_eq!(text(&carol.call("acme__whoami", json!({})).await?), "whoami at acme with {}");
    assert!(bed.guard.shown().iter().all(|shown| shown.subject == "carol"));
    Ok(())
}

#[tokio::test]
async fn a_modern_client_is_asked_to_open_the_link() -> Result<()> {
    let bed = Bed::new("connect_modern").await?;
    let alice = bed.client("alice", &["acme"]).await?;
    let call = json!({"name": "acme__whoami"});
    let asked = alice.modern_that_can(&opens_links(), "tools/call", call.clone()).await?;
    let result = asked.json()?["result"].clone();
    assert_eq!((asked.status, &result["resultType"]), (200, &json!("input_required")), "{result}");
    let request = &result["inputRequests"]["mcp-mux/account"];
    assert_eq!(request["method"], "elicitation/create");
    assert_eq!((&request["params"]["mode"], &request["params"]["url"]), (&json!("url"), &json!(bed.link())));
    // What rmcp reads, other clients do.
    let parsed: rmcp::model::InputRequiredResult = serde_json::from_value(result)?;
    assert_eq!(parsed.input_requests.context("requests")?.len(), 1);

    // Who did not want to is not asked again, and who did but has not connected is.
    for (action, kind) in [("decline", "complete"), ("cancel", "complete"), ("accept", "input_required")] {
        let mut again = call.clone();
        again["inputResponses"] = json!({"mcp-mux/account": {"action": action}});
        let answer = alice.modern_that_can(&opens_links(), "tools/call", again).await?.json()?;
        assert_eq!(answer["result"]["resultType"], kind, "{action}: {answer}");
    }
    for can in [json!({}), json!({"elicitation": {}}), json!({"elicitation": {"form": {}}})] {
        let answer = alice.modern_that_can(&can, "tools/call", call.clone()).await?.json()?;
        assert_eq!((&answer["result"]["resultType"], &answer["result"]["isError"]), (&json!("complete"), &json!(true)));
        assert!(text(&answer).contains(&bed.link()), "{can}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_legacy_client_is_told_what_it_declared_that_it_understands() -> Result<()> {
    let bed = Bed::new("connect_legacy").await?;
    let call = json!({"name": "acme__whoami"});
    let alice = bed.client("alice", &["acme"]).await?;
    for can in [json!({}), json!({"elicitation": {}})] {
        let session = alice.begin_session_that_can(&can).await?;
        let client = bed.client("alice", &["acme"]).await?.with("mcp-session-id", &session)?;
        let answer = client.legacy("tools/call", &call).await?.json()?;
        assert_eq!(answer["result"]["isError"], true, "{can}: {answer}");
        assert!(text(&answer).contains(&bed.link()));
    }
    let session = alice.begin_session_that_can(&opens_links()).await?;
    let client = bed.client("alice", &["acme"]).await?.with("mcp-session-id", &session)?;
    let answer = client.legacy("tools/call", &call).await?;
    let error = answer.json()?["error"].clone();
    assert_eq!((answer.status, &error["code"]), (200, &json!(-32042)), "{error}");
    let elicitation = &error["data"]["elicitations"][0];
    assert_eq!((&elicitation["mode"], &elicitation["url"]), (&json!("url"), &json!(bed.link())));
    assert!(elicitation["elicitationId"].as_str().is_some_and(|id| !id.is_empty()));
    Ok(())
}

#[tokio::test]
async fn who_cannot_sign_in_with_a_browser_is_told_so_and_gets_no_link() -> Result<()> {
    let bed = Bed::new("connect_robot").await?;
    let (robot, _) = bed.server.robot("acme", Level::Write).await?;
    for can in [json!({}), opens_links()] {
        let params = json!({"name": "acme__whoami"});
        let answer = robot.modern_that_can(&can, "tools/call", params).await?.json()?;
        let said = text(&answer);
        assert!(said.contains("nobody signs in with a browser as a user of `scripts`"), "{answer}");
        assert!(!answer.to_string().contains("/connect/"), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn who_says_no_at_the_authorization_server_is_told_and_nothing_is_connected() -> Result<()> {
    let bed = Bed::new("connect_declined").await?;
    let mut browser = Browser::new()?;
    let page = bed.open_as(&mut browser, &bed.link(), "alice").await?;
    let leaving = browser.press(&page, "/connect/acme/desk").await?.refresh()?;
    let state = query(&leaving, "state")?;
    let back = format!("{}/callback?error=access_denied&state={state}&iss={}", bed.link(), bed.provider.url);
    let page = browser.get(&Url::parse(&back)?).await?;
    assert_eq!(page.status, 403);
    assert!(page.text.contains("you did not allow it"), "{}", page.text);
    assert_eq!(browser.cookies(&page.url), ["mcp-mux-visitor"]);
    Ok(())
}

#[tokio::test]
async fn whose_id_token_leaves_groups_out_sees_nothing() -> Result<()> {
    let bed = Bed::new("connect_overage").await?;
    let mut browser = Browser::new()?;
    let page = bed.open_as(&mut browser, &bed.server.url("/connect"), "many").await?;
    assert_eq!(page.status, 403);
    assert!(page.text.contains("does not say which groups you are in"), "{}", page.text);
    assert!(browser.cookies(&page.url).is_empty(), "nobody is signed in");
    Ok(())
}

#[tokio::test]
async fn an_answer_of_another_provider_signs_nobody_in() -> Result<()> {
    let bed = Bed::new("connect_iss").await?;
    let mut browser = Browser::new()?;
    let link = Url::parse(&bed.link())?;
    let mut at = browser.get(&link).await?.location()?;
    at.query_pairs_mut().append_pair("login_hint", "alice");
    while at.origin() != link.origin() {
        at = browser.get(&at).await?.location()?;
    }
    let good = at.clone();
    // The provider says that it names itself in its answers.
    for iss in [None, Some("http://127.0.0.1:1"), Some("")] {
        let mut back = good.clone();
        back.query_pairs_mut().clear();
        for (name, value) in good.query_pairs().filter(|(name, _)| name != "iss") {
            back.query_pairs_mut().append_pair(&name, &value);
        }
        if let Some(iss) = iss {
            back.query_pairs_mut().append_pair("iss", iss);
        }
        let mut other = browser.clone();
        let refused = other.get(&back).await?;
        assert_eq!(refused.status, 403, "{iss:?}");
        assert!(refused.text.contains("does not come from the identity provider"), "{}", refused.text);
        assert!(!other.cookies(&back).contains(&"mcp-mux-visitor"));
    }
    assert_eq!(browser.open(&good).await?.status, 200);
    Ok(())
}
