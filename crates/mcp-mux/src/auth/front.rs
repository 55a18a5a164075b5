//! Trusted fronts: a program that proves itself and names the user it speaks for.
//!
//! Nothing of a front's headers is read before the front has proved itself, and what it names is a user of that front: a
//! namespace of its own in grants, never a user of an identity provider.

mod plain;
mod session;
mod user_jwt;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tenant_store::{Group, IssuerName, Subject, Timestamp};

use self::session::Session;
use self::user_jwt::UserJwt;
use super::Identity;
use super::error::{AuthError, Refusal};
use crate::caller::{Bounds, Principal};
use crate::config::{ConfigError, Front, FrontConfig, FrontProof};
use crate::egress::Egress;

/// The subject under which a front asks that has proved itself and named nobody. It reaches nothing, whatever grants say.
const NOBODY: &str = "(nobody)";

/// All configured fronts.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    /// By the hash of the shared key.
    by_key: HashMap<[u8; 32], Arc<Keyed>>,
    /// Those whose JWT is proof enough.
    by_jwt: Vec<UserJwt>,
    session: Option<Session>,
    names: Vec<IssuerName>,
    identity_headers: Vec<HeaderName>,
}

/// A front that proves itself by its key, and how it then names its user.
#[derive(Debug)]
pub(super) enum Keyed {
    Plain(plain::Headers),
    Jwt(UserJwt),
}

/// For how long a front that proved itself by its key may go on without proving itself again; each request proves it anew.
const KEYED_LIFE: Duration = Duration::from_hours(1);

/// A user as a front names it.
#[derive(Debug)]
struct FrontUser {
    id: String,
    email: Option<String>,
    groups: Vec<Group>,
    expires_at: Timestamp,
}

impl Fronts {
    pub(super) fn new(configs: &[FrontConfig], egress: &Egress) -> Result<Self, ConfigError> {
        let mut fronts = Self::default();
        for config in configs {
            let Front { name, proof } = config.resolve()?;
            fronts.names.push(name.clone());
            fronts.identity_headers.extend(proof.identity_headers().cloned());
            match proof {
                FrontProof::Session { url } => fronts.session = Some(Session::new(name, &url, egress.client([&url]))),
                FrontProof::Headers { key, user_header, groups_header } => {
                    tracing::warn!(
                        front = %name,
                        "whoever has this front's key can name any of its users: keep the link private, or use `mode = \"jwt\"`"
                    );
                    let front = Keyed::Plain(plain::Headers { name, user: user_header, groups: groups_header });
                    fronts.by_key.insert(Sha256::digest(key.expose_secret()).into(), Arc::new(front));
                }
                FrontProof::Jwt { secret, leeway, audience, key, groups_header } => {
                    let front = UserJwt { name, groups_header, key: user_jwt::key(&secret), leeway, audience };
                    match key {
                        Some(key) => {
                            let hash = Sha256::digest(key.expose_secret()).into();
                            fronts.by_key.insert(hash, Arc::new(Keyed::Jwt(front)));
                        }
                        None => fronts.by_jwt.push(front),
                    }
                }
            }
        }
        Ok(fronts)
    }

    /// The front whose shared key this is. Only hashes are compared, so that time tells nothing about the key.
    pub(super) fn of_key(&self, bearer: &str) -> Option<&Keyed> {
        if self.by_key.is_empty() {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(bearer).into();
        self.by_key.get(&hash).map(Arc::as_ref)
    }

    /// The front that is asked about sessions.
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The headers in which fronts name their users, as far as the settings name them.
    pub(super) fn identity_headers(&self) -> &[HeaderName] {
        &self.identity_headers
    }

    /// The user that a JWT of a front names, where such a JWT is proof enough; nothing when the request carries none.
    pub(super) fn by_jwt(&self, headers: &HeaderMap, now: Timestamp) -> Option<Result<Identity, AuthError>> {
        if self.by_jwt.is_empty() {
            return None;
        }
        let text = user_jwt::header(headers)?;
        Some(text.and_then(|text| {
            let mut refusal = Refusal::Signature;
            for front in &self.by_jwt {
                match front.verify(text, now) {
                    Ok(user) => return user.identity(&front.name),
                    // The front whose signature it is knows best what is wrong.
                    Err(Refusal::Signature) => {}
                    Err(other) => refusal = other,
                }
            }
            Err(refusal.into())
        }))
    }

    /// Refuses a request in which a front proves that it speaks for somebody else than the verified `identity`. A JWT that does
    /// not verify proves nothing, and is not read: a long turn outlives one.
    pub(super) fn agree(&self, identity: &Identity, headers: &HeaderMap, now: Timestamp) -> Result<(), AuthError> {
        let keyed = self.by_key.values().filter_map(|front| match front.as_ref() {
            Keyed::Jwt(front) => Some(front),
            Keyed::Plain(_) => None,
        });
        let mut signing = self.by_jwt.iter().chain(keyed).peekable();
        if signing.peek().is_none() {
            return Ok(());
        }
        let Some(text) = user_jwt::header(headers).transpose()? else { return Ok(()) };
        let is_of_a_front = self.names.contains(&identity.principal.issuer);
        let mut named = signing.filter_map(|front| front.verify(text, now).ok());
        if named.any(|user| user.is_somebody_else(identity, is_of_a_front)) {
            return Err(Refusal::Contradiction.into());
        }
        Ok(())
    }
}

impl Keyed {
    /// Whom the front speaks for; nobody, if it names none: so it may look whether its connection works.
    pub(super) fn identity(&self, headers: &HeaderMap, now: Timestamp) -> Result<Identity, AuthError> {
        match self {
            Self::Plain(front) => match front.user(headers, now)? {
                Some(user) => user.identity(&front.name),
                None => nobody(&front.name, now),
            },
            Self::Jwt(front) => match user_jwt::header(headers) {
                Some(text) => {
                    let mut user = front.verify(text?, now)?;
                    user.groups = plain::groups(headers, front.groups_header.as_ref())?;
                    user.identity(&front.name)
                }
                None => nobody(&front.name, now),
            },
        }
    }
}

impl FrontUser {
    /// Whether this is certainly not the user of `identity`. Fronts tell users apart by their ids: where two of them speak in one
    /// request, both must mean the same id. An issuer's subject is in another namespace, so what can tell there is an e-mail
    /// address, where both name one.
    fn is_somebody_else(&self, identity: &Identity, is_of_a_front: bool) -> bool {
        if is_of_a_front {
            return self.id != identity.principal.subject.as_str();
        }
        match (&self.email, &identity.email) {
            (Some(theirs), Some(ours)) => !theirs.eq_ignore_ascii_case(ours),
            _ => false,
        }
    }

    fn identity(self, front: &IssuerName) -> Result<Identity, AuthError> {
        let subject: Subject = self.id.parse().map_err(|_| Refusal::ClaimShape)?;
        if subject.as_str() == NOBODY {
            return Err(Refusal::ClaimShape.into());
        }
        Ok(Identity {
            principal: Principal { issuer: front.clone(), subject },
            client: None,
            by_access_token: false,
            email: self.email.map(Into::into),
            groups: self.groups.into(),
            bounds: Bounds::Everything,
            expires_at: self.expires_at,
        })
    }
}

fn nobody(front: &IssuerName, now: Timestamp) -> Result<Identity, AuthError> {
    let subject = NOBODY.parse().map_err(|_| Refusal::ClaimShape)?;
    Ok(Identity {
        principal: Principal { issuer: front.clone(), subject },
        client: None,
        by_access_token: false,
        email: None,
        groups: Arc::default(),
        bounds: Bounds::nothing(),
        expires_at: now.plus(KEYED_LIFE),
    })
}

/// A role that Open WebUI gives to those who signed up and were not let in yet.
fn is_pending(role: Option<&str>) -> bool {
    role == Some("pending")
}
