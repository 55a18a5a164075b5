//! Who attacks `/connect`, and what becomes of it.

use anyhow::{Context as _, Result};
use mcp_mux::config::{IssuerConfig, LoginConfig};
use serde_json::{Value, json};
use tenant_store::{GrantSpec, Level, TenantSpec};
use url::Url;

use crate::connect::account;
use crate::support::accounts::lists_for_all;
use crate::support::browser::{Browser, Page, query};
use crate::support::identity::Idp;
use crate::support::provider::Provider;
use crate::support::server::{Setup, TestServer};
use crate::support::tokens::TokenGuard;
use crate::support::upstreams::RealUpstream;

/// Two tenants with an upstream each that takes accounts, and one of `acme` that takes none.
struct Bed {
    server: TestServer,
    _provider: Provider,
}

impl Bed {
    async fn new(name: &str) -> Result<Self> {
        let provider = Provider::start().await?;
        let guard = TokenGuard::of(&provider).await?;
        let server = TestServer::start_with(name, &[], |config| {
            config.issuers[0].login = Some(LoginConfig::new("login"));
            Ok(())
        })
        .await?;
        for (tenant, upstream) in [("acme", "desk"), ("acme", "wiki"), ("globex", "desk")] {
            let (url, _) = RealUpstream::named(tenant).serve_to(lists_for_all(&guard), false).await?;
            let setup = Setup { tenant, upstream, url: &url, key: None, level: Level::Write };
            server.add(&setup, account(&provider)?, &[]).await?;
        }
        let (url, _) = RealUpstream::named("acme").serve_to(lists_for_all(&guard), false).await?;
        let setup = Setup { tenant: "acme", upstream: "open", url: &url, key: None, level: Level::Write };
        server.add(&setup, tenant_store::UpstreamAuth::None, &[]).await?;
        Ok(Self { server, _provider: provider })
    }

    fn url(&self, path: &str) -> Result<Url> {
        Ok(Url::parse(&self.server.url(path))?)
    }

    fn origin(&self) -> Result<String> {
        Ok(self.url("/")?.origin().ascii_serialization())
    }

    /// A browser in which alice of acme is signed in, and her page of an upstream.
    async fn alice(&self, path: &str) -> Result<(Browser, Page)> {
        let mut browser = Browser::new()?;
        let page = browser.sign_in(&self.server, path, "alice", &["acme"]).await?;
        assert_eq!(page.status, 200, "{}", page.text);
        Ok((browser, page))
    }

    /// Goes through the consent of whoever `hint` names at the authorization server; where that sends the browser back to.
    async fn consent(&self, browser: &mut Browser, page: &Page, path: &str, hint: &str) -> Result<Url> {
        let mut at = browser.press(page, path).await?.refresh()?;
        at.query_pairs_mut().append_pair("login_hint", hint);
        for _ in 0..12 {
            at = browser.get(&at).await?.location()?;
            if at.origin() == self.url("/")?.origin() {
                return Ok(at);
            }
        }
        anyhow::bail!("no end: {at}")
    }
}

#[tokio::test]
async fn a_callback_in_another_browser_connects_nothing() -> Result<()> {
    let bed = Bed::new("attack_other_browser").await?;
    let (mut alice, page) = bed.alice("/connect/acme/desk").await?;
    let back = bed.consent(&mut alice, &page, "/connect/acme/desk", "alice").await?;
    // Without a sign-in, and with somebody else's: neither has the cookie.
    let stranger = Browser::new()?.get(&back).await?;
    assert_eq!(stranger.status, 403);
    let mut bob = Browser::new()?;
    bob.sign_in(&bed.server, "/connect", "bob", &["acme"]).await?;
    let refused = bob.get(&back).await?;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("belongs to no consent that you began in this browser"), "{}", refused.text);
    // It is good for the one who began it.
    let done = alice.open(&back).await?;
    assert!(done.text.contains("Connected since"), "{}", done.text);
    Ok(())
}

#[tokio::test]
async fn a_consent_ends_with_the_account_of_who_began_it_or_not_at_all() -> Result<()> {
    let bed = Bed::new("attack_other_person").await?;
    let (mut browser, page) = bed.alice("/connect/acme/desk").await?;
    let back = bed.consent(&mut browser, &page, "/connect/acme/desk", "alice").await?;
    // Meanwhile bob signs in, in the same browser.
    browser.post(&bed.url("/connect/sign-out")?, Some(&bed.origin()?), &[("token", page.token()?)]).await?;
    browser.sign_in(&bed.server, "/connect", "bob", &["acme"]).await?;
    let refused = browser.get(&back).await?;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("belongs to no consent that you began here"), "{}", refused.text);
    let page = browser.get(&bed.url("/connect/acme/desk")?).await?;
    assert!(page.text.contains("Not connected"), "{}", page.text);
    Ok(())
}

#[tokio::test]
async fn two_flows_do_not_take_each_others_answers() -> Result<()> {
    let bed = Bed::new("attack_swapped").await?;
    let (mut alice, page) = bed.alice("/connect/acme/desk").await?;
    let wiki = alice.get(&bed.url("/connect/acme/wiki")?).await?;
    let mut desk_back = bed.consent(&mut alice, &page, "/connect/acme/desk", "alice").await?;
    let wiki_back = bed.consent(&mut alice, &wiki, "/connect/acme/wiki", "alice").await?;
    // The wiki's answer, brought to the desk.
    desk_back.set_query(wiki_back.query());
    let refused = alice.get(&desk_back).await?;
    assert_eq!(refused.status, 403, "{}", refused.text);
    // The other flow is none the worse.
    let done = alice.open(&wiki_back).await?;
    assert!(done.text.contains("Connected since"), "{}", done.text);
    // A cookie under the name of another upstream is nothing there.
    let (mut alice, page) = bed.alice("/connect/acme/desk").await?;
    let mut back = bed.consent(&mut alice, &page, "/connect/acme/desk", "alice").await?;
    alice.rename(&back, "mcp-mux-consent.acme.desk", "mcp-mux-consent.acme.wiki")?;
    back.set_path("/connect/acme/wiki/callback");
    assert_eq!(alice.get(&back).await?.status, 403);
    Ok(())
}

#[tokio::test]
async fn a_cookie_of_one_purpose_is_none_of_another() -> Result<()> {
    let bed = Bed::new("attack_purpose").await?;
    let (mut alice, page) = bed.alice("/connect/acme/desk").await?;
    let back = bed.consent(&mut alice, &page, "/connect/acme/desk", "alice").await?;
    alice.rename(&back, "mcp-mux-consent.acme.desk", "mcp-mux-visitor")?;
    let asked = alice.get(&bed.url("/connect/acme/desk")?).await?;
    assert_eq!(asked.status, 303, "nobody is signed in: {}", asked.text);
    let mut mallory = Browser::new()?;
    mallory.begin_sign_in(&bed.server, "/connect", "mallory", &["acme"]).await?;
    mallory.rename(&back, "mcp-mux-signin", "mcp-mux-visitor")?;
    assert_eq!(mallory.get(&bed.url("/connect")?).await?.status, 303);
    Ok(())
}

#[tokio::test]
async fn an_attackers_sign_in_does_not_end_in_the_victims_browser() -> Result<()> {
    let bed = Bed::new("attack_login_csrf").await?;
    let back = Browser::new()?.begin_sign_in(&bed.server, "/connect", "mallory", &["acme"]).await?;
    // The victim has no sign-in that runs, or one of their own.
    let mut victim = Browser::new()?;
    assert_eq!(victim.get(&back).await?.status, 403);
    victim.begin_sign_in(&bed.server, "/connect", "alice", &["acme"]).await?;
    let refused = victim.get(&back).await?;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("belongs to no sign-in that began in this browser"), "{}", refused.text);
    assert!(!victim.cookies(&back).contains(&"mcp-mux-visitor"));
    Ok(())
}

#[tokio::test]
async fn an_id_token_that_is_not_for_this_sign_in_makes_nobody() -> Result<()> {
    let bed = Bed::new("attack_id_token").await?;
    let now = bed.server.idp.claims("alice", &[], "login")["iat"].as_i64().context("a time")?;
    for (claim, value) in [
        ("nonce", json!("another")),
        ("nonce", Value::Null),
        ("aud", json!("another")),
        ("aud", json!(["login", "another"])),
        ("iss", json!("http://127.0.0.1:1")),
        ("exp", json!(now - 31)),
        ("iat", json!(now + 120)),
        ("sub", json!("")),
        ("groups", Value::Null),
        ("groups", json!({"a": 1})),
        ("_claim_names", json!({"groups": "src1"})),
    ] {
        let mut browser = Browser::new()?;
        let sent = browser.get(&bed.url("/connect")?).await?.location()?;
        let mut claims = bed.server.idp.claims("alice", &["acme"], "login");
        claims["nonce"] = json!(query(&sent, "nonce")?);
        claims[claim] = value.clone();
        let claims = claims.as_object_mut().context("an object")?;
        claims.retain(|_, value| !value.is_null());
        bed.server.idp.give_claims(&json!(claims))?;
        let back = format!("/sign-in/corp/callback?code=CANARY-code&state={}", query(&sent, "state")?);
        let page = browser.get(&bed.url(&back)?).await?;
        assert_eq!(page.status, 403, "{claim} {value}: {}", page.text);
        assert!(browser.cookies(&page.url).is_empty(), "{claim} {value}");
    }
    // A foreign key, and an access token of the provider itself; then a good one, which serves once.
    for (kind, status) in [("foreign", 403), ("access token", 403), ("good", 303)] {
        let mut claims = bed.server.idp.claims("alice", &["acme"], "login");
        let mut browser = Browser::new()?;
        let sent = browser.get(&bed.url("/connect")?).await?.location()?;
        claims["nonce"] = json!(query(&sent, "nonce")?);
        let back = bed.url(&format!("/sign-in/corp/callback?code=CANARY-code&state={}", query(&sent, "state")?))?;
        match kind {
            "foreign" => bed.server.idp.give(Idp::sign_with_foreign_key(&claims)?),
            "good" => bed.server.idp.give_claims(&claims)?,
            _ => bed.server.idp.give(bed.server.idp.sign(&claims)?),
        }
        let mut again = browser.clone();
        assert_eq!(browser.get(&back).await?.status, status, "{kind}");
        assert_eq!(browser.cookies(&back).contains(&"mcp-mux-visitor"), status == 303, "{kind}");
        // Somebody who kept the cookie, or copied it.
        let refused = again.get(&back).await?;
        assert_eq!(refused.status, 403, "{kind}");
        assert!(refused.text.contains("belongs to no sign-in that began in this browser"), "{}", refused.text);
    }
    Ok(())
}

#[tokio::test]
async fn a_sign_in_ends_at_the_address_of_its_issuer_only() -> Result<()> {
    let bed = Bed::new("attack_sign_in_address").await?;
    let mut alice = Browser::new()?;
    let good = alice.begin_sign_in(&bed.server, "/connect", "alice", &["acme"]).await?;
    for issuer in ["partner", "CORP", "%00", "corp%2F"] {
        let mut back = good.clone();
        back.set_path(&format!("/sign-in/{issuer}/callback"));
        assert_eq!(alice.clone().get(&back).await?.status, 403, "{issuer}");
    }
    assert_eq!(alice.get(&good).await?.status, 303);
    Ok(())
}

#[tokio::test]
async fn a_form_of_another_page_changes_nothing() -> Result<()> {
    let bed = Bed::new("attack_csrf").await?;
    let (mut alice, page) = bed.alice("/connect/acme/desk").await?;
    let (ours, token) = (bed.origin()?, page.token()?.to_owned());
    let (_, others) = bed.alice("/connect/acme/desk").await?;
    let foreign = ["https://evil.example.com", "null", "http://127.0.0.1:1"];
    for path in ["/connect/acme/desk", "/connect/acme/desk/disconnect", "/connect/sign-out"] {
        let url = bed.url(path)?;
        for origin in foreign.into_iter().map(Some).chain([None]) {
            let refused = alice.post(&url, origin, &[("token", &token)]).await?;
            assert_eq!(refused.status, 403, "{path} {origin:?}");
        }
        for form in
            [vec![], vec![("token", "")], vec![("token", others.token()?)], vec![("token", &token), ("token", &token)]]
        {
            assert_eq!(alice.post(&url, Some(&ours), &form).await?.status, 403, "{path} {form:?}");
        }
        let nobody = Browser::new()?.post(&url, Some(&ours), &[("token", &token)]).await?;
        assert_eq!(nobody.status, 403, "{path}");
    }
    assert_eq!(alice.post(&bed.url("/connect/acme/desk")?, Some(&ours), &[("token", &token)]).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn an_upstream_out_of_reach_looks_like_none() -> Result<()> {
    let bed = Bed::new("attack_out_of_reach").await?;
    let (mut alice, page) = bed.alice("/connect/acme/desk").await?;
    let (ours, token) = (bed.origin()?, page.token()?.to_owned());
    let token = [("token", token.as_str())];
    let unknown = alice.get(&bed.url("/connect/nobody/desk")?).await?.all();
    assert_eq!(unknown.0, 404);
    for there in ["globex/desk", "acme/open", "acme/nothing", "acme/DESK", "%00/desk"] {
        let url = |rest: &str| bed.url(&format!("/connect/{there}{rest}"));
        assert_eq!(alice.get(&url("")?).await?.all(), unknown, "{there}");
        for rest in ["", "/disconnect"] {
            assert_eq!(alice.post(&url(rest)?, Some(&ours), &token).await?.all(), unknown, "{there}{rest}");
        }
    }
    let callback = async |alice: &mut Browser, there: &str| {
        Ok::<_, anyhow::Error>(alice.get(&bed.url(&format!("/connect/{there}/callback?code=x&state=y"))?).await?.all())
    };
    assert_eq!(callback(&mut alice, "globex/desk").await?, {
        let mut nobody = callback(&mut alice, "nobody/desk").await?;
        let cleared = nobody.2.get_mut("set-cookie");
        assert!(cleared.is_none(), "nothing names the path");
        nobody
    });
    let list = alice.get(&bed.url("/connect")?).await?;
    assert!(list.text.contains("desk") && list.text.contains("wiki"), "{}", list.text);
    assert!(!list.text.contains("globex") && !list.text.contains("open"), "{}", list.text);
    Ok(())
}

#[tokio::test]
async fn grants_that_were_taken_away_count_no_more() -> Result<()> {
    let bed = Bed::new("attack_grants").await?;
    let (mut alice, page) = bed.alice("/connect/acme/desk").await?;
    let back = bed.consent(&mut alice, &page, "/connect/acme/desk", "alice").await?;
    let rows = bed.server.rows("acme").await?;
    for grant in rows.grants().await? {
        rows.remove_grant(grant.id).await?;
    }
    bed.server.app.follow().await?;
    let pressed = alice.press(&page, "/connect/acme/desk").await?;
    assert_eq!(pressed.status, 404, "{}", pressed.text);
    assert_eq!(alice.get(&back).await?.status, 404, "nor does a consent that runs");
    // A grant of nothing that can be called is none either.
    let denies = GrantSpec {
        issuer: "corp".parse()?,
        groups: vec!["acme".parse()?],
        subjects: Vec::new(),
        level: Level::Write,
        allow: vec!["*".parse()?],
        deny: vec!["*".parse()?],
    };
    rows.put_grant(&"team".parse()?, &denies).await?;
    bed.server.app.follow().await?;
    assert_eq!(alice.get(&bed.url("/connect/acme/desk")?).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn who_lost_the_grants_sees_and_ends_the_account_and_connects_none() -> Result<()> {
    let bed = Bed::new("attack_left_behind").await?;
    let (mut alice, page) = bed.alice("/connect/acme/desk").await?;
    let back = bed.consent(&mut alice, &page, "/connect/acme/desk", "alice").await?;
    let page = alice.open(&back).await?;
    assert!(page.text.contains("Connected since") && page.text.contains("Connect again"), "{}", page.text);
    let rows = bed.server.rows("acme").await?;
    for grant in rows.grants().await? {
        rows.remove_grant(grant.id).await?;
    }
    bed.server.app.follow().await?;
    let list = alice.get(&bed.url("/connect")?).await?;
    assert!(list.text.contains("Connected since") && !list.text.contains("wiki"), "{}", list.text);
    assert!(!list.text.contains("Connect again"), "{}", list.text);
    // Neither a form that was kept connects, nor is it there for anybody else.
    assert_eq!(alice.press(&page, "/connect/acme/desk").await?.status, 404);
    let mut bob = Browser::new()?;
    let other = bob.sign_in(&bed.server, "/connect/acme/desk", "bob", &["acme"]).await?;
    assert_eq!(other.status, 404, "{}", other.text);
    let ended = alice.press(&list, "/connect/acme/desk/disconnect").await?;
    assert_eq!(alice.get(&ended.location()?).await?.status, 404, "there is nothing left to see");
    assert!(rows.accounts().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn nothing_that_others_wrote_is_markup_and_every_page_is_guarded() -> Result<()> {
    let bed = Bed::new("attack_markup").await?;
    for name in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</title></style><svg onload=alert(1)>",
        "&lt;b&gt; <!--",
        "javascript:alert(1)",
    ] {
        let change = bed.server.app.store().begin().await?;
        change.put_tenant(&"acme".parse()?, &TenantSpec::named(name)).await?;
        change.commit().await?;
        bed.server.app.follow().await?;
        let mut browser = Browser::new()?;
        let list = browser.sign_in(&bed.server, "/connect", name, &["acme"]).await?;
        let page = browser.get(&bed.url("/connect/acme/desk")?).await?;
        let leaving = browser.press(&page, "/connect/acme/desk").await?;
        let nothing = browser.get(&bed.url("/connect/nobody/desk")?).await?;
        let refused = browser.post(&bed.url("/connect/acme/desk")?, None, &[]).await?;
        let not_allowed = browser.post(&bed.url("/connect")?, None, &[]).await?;
        let sent = Browser::new()?.get(&bed.url("/connect")?).await?;
        let failed =
            Browser::new()?.get(&bed.url("/sign-in/corp/callback?error=%3Cscript%3E&state=%3Cscript%3E")?).await?;
        for page in [&list, &page] {
            assert!(page.text.contains("acme") || page.text.contains("desk"), "{}", page.text);
        }
        for page in [&list, &page, &leaving, &nothing, &refused, &not_allowed, &sent, &failed] {
            assert_guarded(page);
            for markup in ["<script", "<img", "<svg", "<!--", " onmouseover='", "href=\"javascript"] {
                assert!(!page.text.contains(markup), "{name}: {}", page.text);
            }
        }
    }
    Ok(())
}

fn assert_guarded(page: &Page) {
    let header = |name: &str| page.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let policy = header("content-security-policy");
    for part in ["default-src 'none'; ", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{}: {policy}", page.url);
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("cache-control"), "no-store", "{}", page.url);
    assert_eq!(header("referrer-policy"), "same-origin", "{}", page.url);
    assert_eq!(header("x-content-type-options"), "nosniff", "{}", page.url);
    assert_eq!(header("x-frame-options"), "DENY", "{}", page.url);
}

#[tokio::test]
async fn a_sign_in_leads_nowhere_but_to_pages_of_ours() -> Result<()> {
    let bed = Bed::new("attack_redirect").await?;
    for asked in
        ["/connect?next=https://evil.example.com", "/connect?issuer=//evil.example.com", "/connect//evil.example.com"]
    {
        let mut browser = Browser::new()?;
        let answer = browser.get(&bed.url(asked)?).await?;
        if answer.status != 303 {
            assert_eq!(answer.status, 404, "{asked}");
            continue;
        }
        assert_eq!(answer.location()?.origin(), Url::parse(&bed.server.idp.url)?.origin(), "{asked}");
        let mut back = browser.begin_sign_in(&bed.server, asked, "alice", &["acme"]).await?;
        back.query_pairs_mut().append_pair("next", "https://evil.example.com");
        let landed = browser.get(&back).await?;
        assert_eq!(landed.location()?, bed.url("/connect")?, "{asked}");
    }
    Ok(())
}

#[tokio::test]
async fn groups_of_one_issuer_are_nothing_at_another() -> Result<()> {
    let other = Idp::start().await?;
    let server = TestServer::start_with("attack_issuers", &[], |config| {
        config.issuers[0].login = Some(LoginConfig::new("login"));
        let mut partner = IssuerConfig::new("partner".parse()?, &other.url);
        partner.login = Some(LoginConfig::new("login"));
        config.issuers.push(partner);
        Ok(())
    })
    .await?;
    let provider = Provider::start().await?;
    let guard = TokenGuard::of(&provider).await?;
    let (url, _) = RealUpstream::named("acme").serve_to(lists_for_all(&guard), false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
    server.add(&setup, account(&provider)?, &[]).await?;

    let mut browser = Browser::new()?;
    let choice = browser.get(&Url::parse(&server.url("/connect/acme/desk"))?).await?;
    assert_eq!(choice.status, 200);
    assert!(choice.text.contains("href=\"/connect/acme/desk?issuer=corp\""), "{}", choice.text);
    let page = browser.sign_in(&server, "/connect/acme/desk?issuer=corp", "alice", &["acme"]).await?;
    assert_eq!(page.status, 200, "{}", page.text);

    let mut browser = Browser::new()?;
    let sent = browser.get(&Url::parse(&server.url("/connect/acme/desk?issuer=partner"))?).await?.location()?;
    let mut claims = other.claims("alice", &["acme"], "login");
    claims["nonce"] = json!(query(&sent, "nonce")?);
    other.give_claims(&claims)?;
    let back = format!("/sign-in/partner/callback?code=CANARY-code&state={}", query(&sent, "state")?);
    let page = browser.open(&Url::parse(&server.url(&back))?).await?;
    assert_eq!(page.status, 404, "{}", page.text);
    Ok(())
}

#[tokio::test]
async fn only_groups_that_grants_name_are_kept_so_that_any_number_fits() -> Result<()> {
    let bed = Bed::new("connect_many_groups").await?;
    let groups: Vec<String> = (0..1_500).map(|number| format!("{number:036}")).chain(["acme".to_owned()]).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut browser = Browser::new()?;
    let page = browser.sign_in(&bed.server, "/connect/acme/desk", "alice", &groups).await?;
    assert_eq!(page.status, 200, "{}", page.text);
    // Those that are named are kept all, or nobody is signed in: a grant could deny.
    let rows = bed.server.rows("acme").await?;
    for (part, named) in groups.chunks(100).enumerate() {
        let grant = GrantSpec {
            issuer: "corp".parse()?,
            groups: named.iter().map(|group| group.parse()).collect::<Result<_, _>>()?,
            subjects: Vec::new(),
            level: Level::Read,
            allow: vec!["*".parse()?],
            deny: Vec::new(),
        };
        rows.put_grant(&format!("part-{part}").parse()?, &grant).await?;
    }
    bed.server.app.follow().await?;
    let mut browser = Browser::new()?;
    let back = browser.begin_sign_in(&bed.server, "/connect", "alice", &groups).await?;
    let refused = browser.get(&back).await?;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("Too many of your groups are named by grants"), "{}", refused.text);
    assert!(!browser.cookies(&back).contains(&"mcp-mux-visitor"));
    Ok(())
}
