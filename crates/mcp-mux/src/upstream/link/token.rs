//! What a link shows its upstream: what was stored, or the access token that it gets for it.

use std::sync::Arc;

use tenant_store::{ClientProof, Listing, TokenRequest, UpstreamAuth};
use tokio::time::Instant;

use super::super::credential::{Credential, Proofs};
use super::super::error::UpstreamError;
use super::super::oauth::{AccessToken, AuthorizationGrant, ClientSecret, Getting, Occasion, Question};
use super::super::pem::SigningKey;
use super::Link;

impl Link {
    /// What the next requests are proved with. `refused` is the access token that the upstream did not take, if that is why.
    pub(super) async fn credential(
        &self,
        proofs: &Proofs<'_>,
        refused: Option<u64>,
        deadline: Instant,
    ) -> Result<Credential, UpstreamError> {
        let http = self.line.http(proofs).await?;
        let token = match &self.upstream().spec.auth {
            UpstreamAuth::ClientCredentials(request) => {
                Some(self.access_token(proofs, request, (refused, deadline)).await?)
            }
            UpstreamAuth::Account(_) if proofs.caller.is_some() => return Err(UpstreamError::AccountMissing),
            UpstreamAuth::TokenExchange(exchange) if self.actor.is_some() || exchange.listing != Listing::None => {
                Some(self.access_token(proofs, &exchange.request, (refused, deadline)).await?)
            }
            _ => None,
        };
        proofs.credential(self.upstream(), http, token.as_deref()).await
    }

    async fn access_token(
        &self,
        proofs: &Proofs<'_>,
        request: &TokenRequest,
        (refused, deadline): (Option<u64>, Instant),
    ) -> Result<Arc<AccessToken>, UpstreamError> {
        if let Some(token) = self.token.usable().filter(|_| refused.is_none()) {
            if self.token.claim_renewal(&token) {
                match self.question(proofs, request).await {
                    Ok(question) => self.token.renew(&token, question, self.line.tasks()),
                    Err(_) => self.token.release_renewal(),
                }
            }
            return Ok(token);
        }
        let question = self.question(proofs, request).await?;
        self.token.get(question, &Getting { tasks: self.line.tasks(), deadline, refused }).await
    }

    /// What the authorization server is asked. The caller's token goes into it where the link acts for that caller, and nowhere else.
    async fn question(&self, proofs: &Proofs<'_>, request: &TokenRequest) -> Result<Question, UpstreamError> {
        let upstream = self.upstream();
        let (name, form) = request.proof.secret();
        let opened = proofs.open_as(upstream, name, form).await?;
        let secret = match &request.proof {
            ClientProof::Basic { .. } => ClientSecret::Basic(opened),
            ClientProof::Post { .. } => ClientSecret::Post(opened),
            ClientProof::PrivateKeyJwt { key_id, .. } => {
                let key = SigningKey::parse(&opened).map_err(|_| UpstreamError::CredentialUnusable(name.clone()))?;
                ClientSecret::Signed(key, key_id.clone())
            }
        };
        let grant = match (&upstream.spec.auth, &self.actor) {
            (UpstreamAuth::TokenExchange(exchange), Some(actor)) => AuthorizationGrant::TokenExchange {
                subject: proofs.token_of(actor).ok_or(UpstreamError::CallerTokenMissing)?,
                requested: exchange.requested_type,
            },
            _ => AuthorizationGrant::ClientCredentials,
        };
        let caller = proofs.caller.map(|caller| (caller.principal.clone(), caller.request_id.clone()));
        Ok(Question {
            server: Arc::clone(self.line.server().ok_or(UpstreamError::Setup)?),
            request: request.clone(),
            secret,
            grant,
            occasion: Occasion { tenant: upstream.tenant, upstream: upstream.id, caller },
            clock: Arc::clone(self.line.clock()),
        })
    }
}
