//! From a stored secret to the header that carries it. This is where a credential is opened, and the header it becomes goes
//! into one request and nowhere else. The secrets themselves are noted, so that the upstream's answer can be searched for them.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::{KekError, SealedCredential, SecretName, StoreError, TenantStore, Upstream, UpstreamAuth};

use super::error::UpstreamError;
use super::redact::Secrets;

/// What proves us to an upstream in one call.
pub(super) struct Credential {
    /// The headers that carry it.
    pub(super) headers: HeaderMap,
    /// Every secret that travels with the call.
    pub(super) secrets: Secrets,
}

/// What proves us to `upstream`: nothing if it wants nothing. A secret that is missing is an error; nothing stands in for
/// it.
pub(super) async fn credential(
    rows: &TenantStore,
    upstream: &Upstream,
    stored: &[&SealedCredential],
) -> Result<Credential, UpstreamError> {
    let open = async |name: &SecretName| {
        let mut matching = stored.iter().filter(|sealed| sealed.is_for(upstream) && sealed.name() == name);
        let sealed = matching.next().ok_or_else(|| UpstreamError::CredentialMissing(name.clone()))?;
        rows.open_credential(sealed).await.map_err(|error| {
            tracing::error!(
                upstream.id = %upstream.id,
                error = &error as &dyn std::error::Error,
                "a stored secret does not open"
            );
            match error {
                StoreError::DataKey { source: KekError::Unreachable, .. } => UpstreamError::SecretsUnavailable,
                _ => UpstreamError::CredentialUnusable(name.clone()),
            }
        })
    };
    let (mut headers, mut secrets) = (HeaderMap::new(), Secrets::default());
    match &upstream.spec.auth {
        UpstreamAuth::None => {}
        UpstreamAuth::Bearer { secret } => {
            let token = open(secret).await?;
            secrets.add(&token);
            let value = SecretString::from(format!("Bearer {}", token.expose_secret()));
            headers.insert(AUTHORIZATION, header_value(secret, &value)?);
        }
        UpstreamAuth::Headers { headers: wanted } => {
            for (header, secret) in wanted {
                let name = HeaderName::from_bytes(header.as_str().as_bytes())
                    .map_err(|_| UpstreamError::CredentialUnusable(secret.clone()))?;
                let value = open(secret).await?;
                secrets.add_header(&value);
                headers.insert(name, header_value(secret, &value)?);
            }
        }
    }
    Ok(Credential { headers, secrets })
}

/// Only visible ASCII and inner spaces: anything else in a stored secret could end the header and begin another.
fn header_value(name: &SecretName, value: &SecretString) -> Result<HeaderValue, UpstreamError> {
    let text = value.expose_secret();
    let clean = !text.is_empty() && text.trim() == text && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let header = HeaderValue::from_str(text).ok().filter(|_| clean);
    let mut header = header.ok_or_else(|| UpstreamError::CredentialUnusable(name.clone()))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_could_break_out_of_its_header_is_refused() {
        let name: SecretName = "key".parse().unwrap();
        for text in ["", " a", "a ", "a\r\nX-Evil: 1", "a\nb", "a\0b", "ü", "a\tb", "\u{7f}"] {
            assert!(header_value(&name, &SecretString::from(text)).is_err(), "{text:?}");
        }
        let value = header_value(&name, &SecretString::from("Token abc=")).unwrap();
        assert!(value.is_sensitive());
    }
}
