//! A provider that signs access tokens as companies have them: 25 groups, about 2 KB.

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tenant_store::{Clock as _, SystemClock};

/// How many groups a token names.
const GROUPS: usize = 25;

/// A provider's key and how it signs.
#[derive(Debug)]
pub(crate) struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
}

/// Whom a token is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder<'h> {
    /// Who issues it.
    pub(crate) issuer: &'h str,
    /// The endpoint that it is good at.
    pub(crate) audience: &'h str,
    /// Who holds it.
    pub(crate) subject: &'h str,
    /// The groups that grants name; others are added.
    pub(crate) groups: &'h [String],
    /// What tells two tokens of a holder apart.
    pub(crate) number: u64,
}

impl Signer {
    /// With a new key: RSA of 2048 bits for RS256, P-256 for ES256.
    pub(crate) fn new(algorithm: Algorithm) -> Result<Self> {
        let key = match algorithm {
            Algorithm::RS256 => {
                let document = KeyPair::generate(KeySize::Rsa2048)?.as_der()?;
                // The key itself (RFC 8017) without the envelope around it (RFC 5208), which is as long for every key of this size.
                EncodingKey::from_rsa_der(document.as_ref().get(26..).context("a PKCS #8 document")?)
            }
            Algorithm::ES256 => {
                let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
                EncodingKey::from_ec_der(EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new())?.as_ref())
            }
            other => bail!("there is no key for {other:?}"),
        };
        Ok(Self { algorithm, key })
    }

    fn id(&self) -> String {
        format!("{:?}", self.algorithm)
    }

    /// The public key.
    pub(crate) fn jwk(&self) -> Result<Value> {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm)?)?;
        jwk.as_object_mut().context("a JWK is an object")?.insert("kid".to_owned(), json!(self.id()));
        Ok(jwk)
    }

    /// A token that is good for an hour.
    pub(crate) fn token(&self, holder: Holder<'_>) -> Result<String> {
        let now = SystemClock.now().as_millis() / 1000;
        let others = (holder.groups.len()..GROUPS).map(|number| format!("0c5a1e34-0f55-4a8e-9f5e-2f6f1c7b{number:04}"));
        let groups: Vec<String> = others.chain(holder.groups.iter().cloned()).collect();
        let claims = json!({
            "iss": holder.issuer, "sub": holder.subject, "aud": holder.audience, "iat": now, "exp": now + 3600,
            "client_id": "open-webui", "scope": "mcp:use", "groups": groups, "jti": holder.number,
        });
        let header = Header { kid: Some(self.id()), typ: Some("at+jwt".to_owned()), ..Header::new(self.algorithm) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}
