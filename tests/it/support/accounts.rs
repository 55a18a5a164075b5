//! People who connect accounts at an upstream, with the real authorization server in between.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::routing::get;
use mcp_mux::caller::Principal;
use mcp_mux::{AccountError, AccountPlace, App, Callback, Consent};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tenant_store::{
    AccountAuth, AccountClient, AccountListing, ClientProof, CredentialKind, CredentialOwner, CredentialSlot, Level,
    SealedCredential, TenantStore, Upstream, UpstreamAuth,
};
use tokio::net::TcpListener;
use url::Url;

use super::client::Http;
use super::provider::Provider;
use super::server::{self, Setup, TestServer, scope};
use super::tokens::{RESOURCE, TokenGuard};
use super::upstreams::{Guard, RealUpstream};

pub(crate) const CLIENT_SECRET: &str = "CANARY-secret-of-the-client-for-accounts";

/// A server with the upstream `desk` of `acme`, which wants each caller's own account at the provider.
pub(crate) struct Bed {
    /// The upstream's authorization server.
    pub provider: Provider,
    /// What the upstream sees of tokens.
    pub guard: TokenGuard,
    /// The server.
    pub server: TestServer,
}

/// Accounts at `issuer`, or at whoever the upstream names, through a client that registers itself.
pub(crate) fn account_auth(issuer: Option<&str>) -> Result<AccountAuth> {
    Ok(AccountAuth {
        issuer: issuer.map(str::parse).transpose()?,
        client: None,
        scope: Some("openid offline_access mcp:use".parse()?),
        resource: Some(RESOURCE.parse()?),
        listing: AccountListing::None,
    })
}

/// The same through the client that the provider knows.
pub(crate) fn configured(issuer: &str) -> Result<AccountAuth> {
    let proof = Some(ClientProof::Basic { secret: "client".parse()? });
    let client = Some(AccountClient { client_id: "accounts".parse()?, proof });
    Ok(AccountAuth { client, ..account_auth(Some(issuer))? })
}

/// Lists for everybody and lets only good tokens call.
pub(crate) fn lists_for_all(guard: &TokenGuard) -> Guard {
    let tokens = guard.guard();
    Arc::new(move |parts, body| {
        let text = String::from_utf8_lossy(body);
        let is_call = text.contains("tools/call");
        tokens(parts, body) || (!is_call && !parts.headers.contains_key("authorization"))
    })
}

/// Serves `upstream`, whose metadata names `issuer` as the authorization server that it trusts.
pub(crate) async fn serve_naming(upstream: RealUpstream, guard: Guard, issuer: &str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let metadata = json!({"resource": url, "authorization_servers": [issuer]}).to_string();
    let (routes, _) = upstream.routes(guard, false);
    let describe = get(move || async move { ([("content-type", "application/json")], metadata) });
    let routes: Router = routes.route("/.well-known/oauth-protected-resource/mcp", describe);
    server::serve(listener, routes);
    Ok(url)
}

impl Bed {
    /// One whose client registers itself.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        let provider = Provider::start().await?;
        let auth = account_auth(Some(&provider.url))?;
        Self::at(name, provider, auth).await
    }

    /// One that is configured by hand.
    pub(crate) async fn with(name: &str, auth: AccountAuth) -> Result<Self> {
        let provider = Provider::start().await?;
        Self::at(name, provider, auth).await
    }

    /// The same at a provider that runs.
    pub(crate) async fn at(name: &str, provider: Provider, auth: AccountAuth) -> Result<Self> {
        let guard = TokenGuard::of(&provider).await?;
        let lets_in = lists_for_all(&guard);
        Self::guarded(name, (provider, guard), auth, lets_in).await
    }

    /// One whose upstream shows nothing at all without a token.
    pub(crate) async fn closed(name: &str, provider: Provider, auth: AccountAuth) -> Result<Self> {
        let guard = TokenGuard::of(&provider).await?;
        let lets_in = guard.guard();
        Self::guarded(name, (provider, guard), auth, lets_in).await
    }

    async fn guarded(
        name: &str,
        (provider, guard): (Provider, TokenGuard),
        auth: AccountAuth,
        lets_in: Guard,
    ) -> Result<Self> {
        let url = serve_naming(RealUpstream::named("acme"), lets_in, &provider.url).await?;
        let server = TestServer::start(name, &[]).await?;
        let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Write };
        let secrets: &[_] = if auth.client.is_some() { &[("client", CLIENT_SECRET)] } else { &[] };
        server.add(&setup, UpstreamAuth::Account(Box::new(auth)), secrets).await?;
        Ok(Self { provider, guard, server })
    }

    /// The tenant's rows.
    pub(crate) async fn rows(&self) -> Result<TenantStore> {
        self.server.rows("acme").await
    }

    /// The upstream as it is configured now.
    pub(crate) async fn upstream(&self) -> Result<Arc<Upstream>> {
        let found = self.rows().await?.find_upstream(&"desk".parse()?).await?;
        Ok(Arc::new(found.context("the upstream exists")?))
    }

    /// What a snapshot knows of the upstream.
    pub(crate) async fn place(&self) -> Result<AccountPlace> {
        let upstream = self.upstream().await?;
        let stored = self.rows().await?.sealed_credentials().await?;
        Ok(AccountPlace { scope: scope(upstream.tenant), tenant: "acme".parse()?, upstream, stored, hosts: None })
    }

    /// Begins `who`'s consent.
    pub(crate) async fn begin(&self, who: &str) -> Result<Result<Consent, AccountError>> {
        Ok(self.server.app.accounts().begin(&principal(who)?, &self.place().await?).await)
    }

    /// Ends a consent of `who`.
    pub(crate) async fn finish(&self, who: &str, consent: Consent, way_back: &Url) -> Result<Result<(), AccountError>> {
        let place = self.place().await?;
        let accounts = self.server.app.accounts();
        Ok(accounts.finish(&principal(who)?, &place, consent.flow, callback(way_back)).await)
    }

    /// Connects `who`'s account, as the person of the same name at the provider.
    pub(crate) async fn connect(&self, who: &str) -> Result<()> {
        let consent = self.begin(who).await??;
        let way_back = self.provider.consent(&consent.url, who).await?;
        Ok(self.finish(who, consent, &way_back).await??)
    }

    /// A client of `app` for `who`.
    pub(crate) fn client_of(&self, app: &App, who: &str) -> Result<Http> {
        let idp = &self.server.idp;
        let token = idp.sign(&idp.claims(who, &["acme"], &app.endpoint()))?;
        Http::new(&format!("http://{}/mcp", app.address()), Some(&token))
    }

    /// The row of `who`'s account.
    pub(crate) async fn row(&self, who: &str) -> Result<Option<SealedCredential>> {
        let (owner, name) = (owner(who)?, "account".parse()?);
        let upstream = self.upstream().await?.id;
        let slot = CredentialSlot { upstream, owner: &owner, name: &name, kind: CredentialKind::Tokens };
        Ok(self.rows().await?.find_credential(slot).await?)
    }

    /// What lies in that row.
    pub(crate) async fn tokens(&self, who: &str) -> Result<Value> {
        let row = self.row(who).await?.context("an account")?;
        let text = self.rows().await?.open_credential(&row).await?;
        Ok(serde_json::from_str(text.expose_secret())?)
    }

    /// Lets the access token of `who` end, as far as we know.
    pub(crate) async fn expire(&self, who: &str) -> Result<()> {
        let mut tokens = self.tokens(who).await?;
        tokens["givenAtMs"] = json!(0);
        tokens["endsAtMs"] = json!(1);
        let row = self.row(who).await?.context("an account")?;
        let text = SecretString::from(tokens.to_string());
        self.rows().await?.renew_credential(&row, &text).await?.context("the row is as it was read").map(drop)
    }
}

pub(crate) fn principal(who: &str) -> Result<Principal> {
    Ok(Principal { issuer: "corp".parse()?, subject: who.parse()? })
}

pub(crate) fn owner(who: &str) -> Result<CredentialOwner> {
    Ok(CredentialOwner::Principal { issuer: "corp".parse()?, subject: who.parse()? })
}

/// What the address says with which a browser comes back.
pub(crate) fn callback(url: &Url) -> Callback {
    let part = |wanted: &str| url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
    Callback {
        code: part("code").map(SecretString::from),
        state: part("state"),
        iss: part("iss"),
        error: part("error"),
    }
}
