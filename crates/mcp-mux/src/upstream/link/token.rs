//! What a link shows its upstream: what was stored, or the access token that it gets for it.

use std::sync::Arc;

use tenant_store::{Listing, TokenRequest, UpstreamAuth};
use tokio::time::Instant;

use super::super::account::Account;
use super::super::credential::{Actor, Credential, Proofs};
use super::super::error::UpstreamError;
use super::super::oauth::{AccessToken, AuthorizationGrant, Getting, OAuthError, Occasion, Question};
use super::Link;
use crate::audit::{Owner, Purpose, Used};

impl Link {
    /// What the next requests are proved with. `refused` is the access token that the upstream did not take, if that is why.
    pub(in crate::upstream) async fn credential(
        &self,
        proofs: &Proofs<'_>,
        refused: Option<u64>,
        deadline: Instant,
    ) -> Result<Credential, UpstreamError> {
        let http = self.line.http(proofs).await?;
        let token = match &self.upstream().spec.auth {
            UpstreamAuth::ClientCredentials(request) => {
                Some(Box::pin(self.access_token(proofs, request, (refused, deadline))).await?)
            }
            UpstreamAuth::Account(account) => match (&self.actor, proofs.caller) {
                (Some(actor), _) => Some(Box::pin(self.account_token(proofs, actor, (refused, deadline))).await?),
                // Nobody's account stands in for a caller's.
                (None, Some(_)) => return Err(UpstreamError::AccountMissing),
                (None, None) => match account.listing_request(&self.upstream().spec.url) {
                    Some(request) => Some(Box::pin(self.access_token(proofs, &request, (refused, deadline))).await?),
                    None => None,
                },
            },
            UpstreamAuth::TokenExchange(exchange) if self.actor.is_some() || exchange.listing != Listing::None => {
                Some(Box::pin(self.access_token(proofs, &exchange.request, (refused, deadline))).await?)
            }
            _ => None,
        };
        proofs.credential(self.upstream(), http, token.as_deref()).await
    }

    /// The token of the actor's own account. It is looked for under that actor's name, and nobody else's.
    async fn account_token(
        &self,
        proofs: &Proofs<'_>,
        actor: &Actor,
        (refused, deadline): (Option<u64>, Instant),
    ) -> Result<Arc<AccessToken>, UpstreamError> {
        let account = || Account {
            rows: proofs.rows.clone(),
            stored: proofs.stored.iter().map(|sealed| (*sealed).clone()).collect(),
            upstream: Arc::clone(self.line.upstream_shared()),
            principal: actor.principal.clone(),
            http: self.line.authorization_http(),
            clock: Arc::clone(self.line.clock()),
            uses: self.line.uses().clone(),
        };
        if let Some(token) = self.account.usable().filter(|_| refused.is_none()) {
            if self.account.claim_renewal(&token) {
                self.account.renew(account(), self.line.tasks());
            }
            return Ok(token);
        }
        self.account.get(account(), (refused, deadline), self.line.tasks()).await
    }

    async fn access_token(
        &self,
        proofs: &Proofs<'_>,
        request: &TokenRequest,
        (refused, deadline): (Option<u64>, Instant),
    ) -> Result<Arc<AccessToken>, UpstreamError> {
        if let Some(token) = self.token.usable().filter(|_| refused.is_none()) {
            if let Some(renewal) = self.token.claim_renewal(&token)
                && let Ok(question) = self.question(proofs, request).await
            {
                renewal.ask(question, self.line.tasks());
            }
            return Ok(token);
        }
        let question = self.question(proofs, request).await?;
        self.token.get(question, &Getting { tasks: self.line.tasks(), deadline, refused }).await
    }

    /// What the authorization server is asked. The caller's token goes into it where the link acts for that caller, and nowhere else.
    async fn question(&self, proofs: &Proofs<'_>, request: &TokenRequest) -> Result<Question, UpstreamError> {
        let upstream = self.upstream();
        let secret = proofs.client_secret(upstream, &request.proof).await?;
        let grant = match (&upstream.spec.auth, &self.actor) {
            (UpstreamAuth::TokenExchange(_), Some(actor)) if !self.line.may_exchange(actor.issuer()) => {
                return Err(UpstreamError::NoToken(OAuthError::NotTrusted));
            }
            (UpstreamAuth::TokenExchange(exchange), Some(actor)) => AuthorizationGrant::TokenExchange {
                subject: proofs.token_of(actor).ok_or(UpstreamError::CallerTokenMissing)?,
                requested: exchange.requested_type,
            },
            _ => AuthorizationGrant::ClientCredentials,
        };
        let caller = proofs.caller.map(|caller| (caller.principal.clone(), caller.request_id.clone()));
        let using = self.line.uses().begin(proofs.rows.scope(), &upstream.slug, Purpose::Token);
        let secrets = proofs.used_secrets(upstream);
        let used = Arc::new(Used { owner: Owner::Tenant, secrets, version: None, of: None });
        Ok(Question {
            server: Arc::clone(self.line.server().ok_or(UpstreamError::Setup)?),
            request: request.clone(),
            secret,
            grant,
            occasion: Occasion { tenant: upstream.tenant, upstream: upstream.id, caller, using, used },
            clock: Arc::clone(self.line.clock()),
        })
    }
}
