//! Callers' own accounts at an upstream: each call carries its caller's, never another's; and what becomes of calls when tokens end,
//! are refused or taken back.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use mcp_mux::manifest::{Options, apply, parse};
use mcp_mux::policy::Administration;
use serde_json::{Value, json};
use tenant_store::{AccountAuth, AccountListing};

use crate::oauth::text;
use crate::support::accounts::{Bed, account_auth, configured, owner, principal};
use crate::support::client::Http;
use crate::support::provider::Provider;

/// What a call is told that has no account.
const MISSING: &str = "your own account";

async fn call(client: &Http, who: &str) -> Result<String> {
    Ok(text(&client.call("acme__whoami", json!({"as": who})).await?))
}

fn expected(who: &str) -> String {
    format!("whoami at acme with {{\"as\":\"{who}\"}}")
}

fn token(tokens: &Value, name: &str) -> Result<String> {
    Ok(tokens[name].as_str().with_context(|| format!("a token `{name}`"))?.to_owned())
}

impl Bed {
    fn alice(&self) -> Result<Http> {
        self.client_of(&self.server.app, "alice")
    }

    /// How often the provider refreshed.
    async fn refreshes(&self) -> Result<u64> {
        self.provider.asked("refresh").await
    }
}

#[tokio::test]
async fn each_caller_calls_with_its_own_account_and_nobody_else_with_any() -> Result<()> {
    let bed = Bed::new("accounts_own").await?;
    let people = ["alice", "bob", "carol"];
    let clients: Vec<_> = people.iter().map(|who| bed.client_of(&bed.server.app, who)).collect::<Result<_>>()?;
    bed.connect("alice").await?;
    bed.connect("bob").await?;
    let calls = (0..10).flat_map(|_| people.iter().zip(&clients)).map(|(who, client)| async move {
        let answer = call(client, who).await?;
        let is_right = if *who == "carol" { answer.contains(MISSING) } else { answer == expected(who) };
        anyhow::ensure!(is_right, "{who}: {answer}");
        Ok(())
    });
    try_join_all(calls).await?;
    let shown = bed.guard.shown();
    assert_eq!(
        shown.iter().filter(|shown| shown.body.contains("tools/call")).count(),
        20,
        "carol's calls went nowhere"
    );
    for who in people {
        for shown in shown.iter().filter(|shown| shown.body.contains(&format!("\"as\":\"{who}\""))) {
            assert_eq!(shown.subject, who, "{}", shown.body);
        }
    }
    assert_eq!(bed.provider.asked("registration").await?, 1, "one client serves all");
    let log = bed.server.logged()?;
    assert!(log.contains("an account was connected"));
    for who in ["alice", "bob"] {
        let tokens = bed.tokens(who).await?;
        assert!(!log.contains(&token(&tokens, "access")?) && !log.contains(&token(&tokens, "refresh")?));
    }
    Ok(())
}

#[tokio::test]
async fn accounts_that_changed_owners_in_the_database_are_nobodys() -> Result<()> {
    let bed = Bed::new("accounts_swapped").await?;
    for who in ["alice", "bob"] {
        bed.connect(who).await?;
    }
    let (alice, bob) = (owner("alice")?, owner("bob")?);
    for (from, to) in [(alice.to_string(), "principal:corp/x".to_owned()), (bob.to_string(), alice.to_string())] {
        bed.server.alter(&format!("UPDATE credential SET owner = '{to}' WHERE owner = '{from}'")).await?;
    }
    bed.server.alter(&format!("UPDATE credential SET owner = '{bob}' WHERE owner = 'principal:corp/x'")).await?;
    for who in ["alice", "bob"] {
        let answer = call(&bed.client_of(&bed.server.app, who)?, who).await?;
        assert!(answer.contains(MISSING), "{answer}");
    }
    assert!(bed.guard.shown().is_empty(), "no token was shown");
    // Connecting again mends it.
    bed.connect("alice").await?;
    assert_eq!(call(&bed.alice()?, "alice").await?, expected("alice"));
    Ok(())
}

#[tokio::test]
async fn one_refresh_serves_all_calls_that_wait() -> Result<()> {
    let bed = Bed::new("accounts_refresh").await?;
    bed.connect("alice").await?;
    bed.expire("alice").await?;
    bed.provider.set("tokenDelayMs=300").await?;
    let before = bed.tokens("alice").await?;
    let client = bed.alice()?;
    let answers = try_join_all((0..50).map(|_| call(&client, "alice"))).await?;
    assert!(answers.iter().all(|answer| *answer == expected("alice")), "{answers:?}");
    assert_eq!(bed.refreshes().await?, 1);
    let after = bed.tokens("alice").await?;
    assert!(before["access"] != after["access"] && before["refresh"] != after["refresh"], "both were rotated");
    assert!(bed.guard.shown().iter().all(|shown| shown.token == after["access"]), "the ended token was never shown");
    Ok(())
}

#[tokio::test]
async fn two_replicas_refresh_once_and_both_go_on() -> Result<()> {
    let bed = Bed::new("accounts_replicas").await?;
    bed.connect("alice").await?;
    let other = bed.server.replica().await?;
    bed.provider.set("tokenDelayMs=300").await?;
    let clients = [bed.alice()?, bed.client_of(&other, "alice")?];
    for round in 1..=2 {
        bed.expire("alice").await?;
        // What a replica holds in memory is refused upstream, so that both look at the row again.
        if let Ok(last) = bed.guard.last() {
            bed.guard.refuse(&last.token);
        }
        let calls = (0..10).flat_map(|_| &clients).map(|client| call(client, "alice"));
        let answers = try_join_all(calls).await?;
        assert!(answers.iter().all(|answer| *answer == expected("alice")), "{answers:?}");
        assert_eq!(bed.refreshes().await?, round);
    }
    // The provider takes an account for stolen when it sees a refresh token twice.
    bed.expire("alice").await?;
    bed.provider.set("tokenDelayMs=0").await?;
    let third = bed.server.replica().await?;
    assert_eq!(call(&bed.client_of(&third, "alice")?, "alice").await?, expected("alice"));
    Ok(())
}

#[tokio::test]
async fn tokens_that_cannot_be_stored_serve_and_are_stored_as_soon_as_they_can() -> Result<()> {
    let bed = Bed::new("accounts_unsaved").await?;
    bed.connect("alice").await?;
    bed.expire("alice").await?;
    let before = bed.tokens("alice").await?;
    bed.server.refuse_renewals(true).await?;
    let client = bed.alice()?;
    for _ in 0..3 {
        assert_eq!(call(&client, "alice").await?, expected("alice"));
    }
    assert_eq!((bed.refreshes().await?, bed.tokens("alice").await?), (1, before.clone()));
    assert!(bed.server.logged()?.contains("the new tokens of an account cannot be stored"));
    bed.server.refuse_renewals(false).await?;
    let stored = async {
        while bed.tokens("alice").await? == before {}
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(Duration::from_secs(30), stored).await.context("they are stored")??;
    // The provider takes an account for stolen when it sees a refresh token twice.
    bed.expire("alice").await?;
    let other = bed.server.replica().await?;
    assert_eq!(call(&bed.client_of(&other, "alice")?, "alice").await?, expected("alice"));
    assert_eq!(bed.refreshes().await?, 2);
    Ok(())
}

#[tokio::test]
async fn an_account_whose_upstream_lists_with_it_lists_for_all_and_calls_for_nobody_else() -> Result<()> {
    let provider = Provider::start().await?;
    let listing = AccountListing::Account { issuer: "corp".parse()?, subject: "carol".parse()? };
    let auth = AccountAuth { listing, ..account_auth(Some(&provider.url))? };
    let bed = Bed::closed("accounts_listing", provider, auth).await?;
    // Whoever it is, only the principal whom the operator named lists.
    bed.connect("bob").await?;
    bed.server.app.refresher().refresh_all().await;
    assert!(bed.alice()?.tools().await?.is_empty() && bed.guard.shown().is_empty());
    bed.connect("carol").await?;
    bed.server.app.refresher().refresh_all().await;
    assert!(bed.alice()?.tools().await?.contains(&"acme__whoami".to_owned()));
    assert!(bed.guard.shown().iter().all(|shown| shown.subject == "carol"));
    assert!(call(&bed.alice()?, "alice").await?.contains(MISSING));
    assert!(bed.guard.shown().iter().all(|shown| shown.subject == "carol"), "nothing of alice's reached the upstream");
    assert_eq!(call(&bed.client_of(&bed.server.app, "bob")?, "bob").await?, expected("bob"));
    assert_eq!(bed.guard.last()?.subject, "bob");
    Ok(())
}

#[tokio::test]
async fn an_account_that_the_authorization_server_took_back_is_gone() -> Result<()> {
    let bed = Bed::new("accounts_revoked").await?;
    bed.connect("alice").await?;
    bed.connect("bob").await?;
    let tokens = bed.tokens("alice").await?;
    let client_id = tokens["source"]["clientId"].as_str().context("a client")?;
    let form = format!("token={}&client_id={client_id}", token(&tokens, "refresh")?);
    let endpoint = format!("{}/token/revocation", bed.provider.url);
    let http = Http::new(&endpoint, None)?.with("content-type", "application/x-www-form-urlencoded")?;
    assert_eq!(http.post(form).await?.status, 200);
    bed.expire("alice").await?;
    let answer = call(&bed.alice()?, "alice").await?;
    assert!(answer.contains(MISSING), "{answer}");
    assert!(bed.row("alice").await?.is_none() && bed.row("bob").await?.is_some());
    assert!(bed.server.logged()?.contains("an account is refused and was deleted"));
    assert_eq!(call(&bed.client_of(&bed.server.app, "bob")?, "bob").await?, expected("bob"));
    Ok(())
}

#[tokio::test]
async fn an_authorization_server_that_cannot_answer_costs_no_account() -> Result<()> {
    let bed = Bed::new("accounts_outage").await?;
    bed.connect("alice").await?;
    bed.expire("alice").await?;
    bed.provider.set("tokenDown=1").await?;
    let asked = bed.provider.asked("token").await?;
    for _ in 0..3 {
        let answer = call(&bed.alice()?, "alice").await?;
        assert!(answer.contains("authorization server cannot answer now"), "{answer}");
    }
    assert_eq!(bed.provider.asked("token").await?, asked + 1, "the failure answers for a while");
    bed.provider.set("tokenDown=0").await?;
    let other = bed.server.replica().await?;
    assert_eq!(call(&bed.client_of(&other, "alice")?, "alice").await?, expected("alice"), "the lease was given back");
    Ok(())
}

#[tokio::test]
async fn a_token_that_the_upstream_refuses_is_refreshed_once() -> Result<()> {
    let bed = Bed::new("accounts_forced").await?;
    bed.connect("alice").await?;
    let client = bed.alice()?;
    assert_eq!(call(&client, "alice").await?, expected("alice"));
    bed.guard.refuse(&bed.guard.last()?.token);
    assert_eq!(call(&client, "alice").await?, expected("alice"));
    assert_eq!(bed.refreshes().await?, 1);
    bed.guard.refuse_all(true);
    for _ in 0..3 {
        assert!(call(&client, "alice").await?.contains("refused the access token"));
    }
    assert_eq!(bed.refreshes().await?, 1, "not again so soon");
    assert!(bed.row("alice").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_disconnected_account_stops_at_once_and_is_taken_back() -> Result<()> {
    let provider = Provider::start().await?;
    let auth = configured(&provider.url)?;
    let bed = Bed::at("accounts_disconnect", provider, auth).await?;
    bed.connect("alice").await?;
    let client = bed.alice()?;
    assert_eq!(call(&client, "alice").await?, expected("alice"));
    let (place, alice) = (bed.place().await?, principal("alice")?);
    let accounts = bed.server.app.accounts();
    let held = accounts.held(&alice, &place).await?.context("an account")?;
    assert!(held.scope.is_some_and(|scope| scope.contains("mcp:use")) && held.connected_at.as_millis() > 0);
    assert!(accounts.held(&principal("bob")?, &place).await?.is_none());

    assert!(accounts.disconnect(&alice, &place).await?);
    assert!(!accounts.disconnect(&alice, &place).await?);
    assert_eq!(bed.provider.asked("revocation").await?, 1);
    assert!(call(&client, "alice").await?.contains(MISSING));
    assert!(accounts.held(&alice, &place).await?.is_none());
    let log = bed.server.logged()?;
    assert!(log.contains("an account was disconnected") && !log.contains("did not take back"));
    Ok(())
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test applies as an operator does")]
async fn an_upstream_that_moves_takes_no_account_along_and_apply_says_so() -> Result<()> {
    let bed = Bed::new("accounts_moved").await?;
    for who in ["alice", "bob"] {
        bed.connect(who).await?;
    }
    let moved = "kind: Upstream\nmetadata: { tenant: acme, name: desk }\nspec:\n  http: { url: 'http://127.0.0.1:9/mcp' }\n  auth: { account: {} }\n";
    let manifest = parse("moved.yaml", &format!("apiVersion: mcp-mux/v1\n{moved}"))?;
    let administration = Administration::for_the_platform();
    let report = apply(bed.server.app.store(), &[manifest], administration, Options::default()).await?;
    assert!(report.to_string().contains("2 accounts of callers were for another address and are gone"), "{report}");
    assert!(bed.rows().await?.accounts().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_shredded_tenant_has_no_accounts() -> Result<()> {
    let bed = Bed::new("accounts_shred").await?;
    bed.connect("alice").await?;
    assert_eq!(call(&bed.alice()?, "alice").await?, expected("alice"));
    bed.server.app.store().shred(&"acme".parse()?, "a test").await?;
    bed.server.app.follow().await?;
    let answer = bed.alice()?.call("acme__whoami", json!({})).await?;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    assert!(bed.rows().await?.accounts().await?.is_empty());
    assert!(bed.row("alice").await?.is_none());
    Ok(())
}
