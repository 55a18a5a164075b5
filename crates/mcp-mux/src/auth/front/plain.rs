//! Plain headers of a front that proved itself by its shared key: who the user is, and its groups. Open WebUI percent-encodes
//! both and separates groups by commas.

use http::HeaderName;
use http::header::HeaderMap;
use tenant_store::{Group, IssuerName, Timestamp};

use super::super::claims::{GROUPS_MAX, group};
use super::super::error::{AuthError, Refusal};
use super::{FrontUser, KEYED_LIFE, is_pending};

const ROLE: HeaderName = HeaderName::from_static("x-openwebui-user-role");

/// Where a front names its user.
#[derive(Debug)]
pub(in crate::auth) struct Headers {
    pub(super) name: IssuerName,
    pub(super) user: HeaderName,
    pub(super) groups: Option<HeaderName>,
}

impl Headers {
    /// The user, if one is named.
    pub(super) fn user(&self, headers: &HeaderMap, now: Timestamp) -> Result<Option<FrontUser>, AuthError> {
        let Some(id) = only(headers, &self.user)?.filter(|id| !id.is_empty()) else { return Ok(None) };
        if is_pending(only(headers, &ROLE)?.as_deref()) {
            return Err(Refusal::Pending.into());
        }
        let groups = groups(headers, self.groups.as_ref())?;
        Ok(Some(FrontUser { id, email: None, groups, expires_at: now.plus(KEYED_LIFE) }))
    }
}

/// The groups in `header`. Each is decoded after the commas were found, so that an encoded comma belongs to a group.
pub(super) fn groups(headers: &HeaderMap, header: Option<&HeaderName>) -> Result<Vec<Group>, AuthError> {
    let Some(header) = header else { return Ok(Vec::new()) };
    let Some(text) = one(headers, header)? else { return Ok(Vec::new()) };
    let texts: Vec<&str> = text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
    if texts.len() > GROUPS_MAX {
        return Err(Refusal::Groups.into());
    }
    texts.into_iter().map(|text| Ok(group(&decoded(text)?)?)).collect()
}

fn only(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, AuthError> {
    one(headers, name)?.map(decoded).transpose()
}

/// A header that comes once. Two are two claims to be somebody.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, AuthError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| AuthError::Malformed)
}

/// Percent-decoded (RFC 3986 §2.1), strictly: a text that is not UTF-8, or a lone percent sign, names nobody.
fn decoded(text: &str) -> Result<String, AuthError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(AuthError::Malformed);
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| AuthError::Malformed)?);
    }
    String::from_utf8(bytes).map_err(|_| AuthError::Malformed)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GROUPS: HeaderName = HeaderName::from_static("x-user-group-ids");

    fn named(value: &'static str) -> Result<Vec<String>, AuthError> {
        let headers = HeaderMap::from_iter([(GROUPS, HeaderValue::from_static(value))]);
        Ok(groups(&headers, Some(&GROUPS))?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_encoded_comma_belongs_to_a_group() {
        assert_eq!(named("a%2Cb,Gr%C3%BC%C3%9Fe , d").unwrap(), ["a,b", "Grüße", "d"]);
        assert_eq!(named("").unwrap(), [""; 0]);
    }

    #[test]
    fn what_cannot_be_decoded_names_nobody() {
        for value in ["a%", "a%2", "a%zz", "%ff", "%00", "role:admin", "a%0Ab"] {
            assert!(named(value).is_err(), "{value}");
        }
    }
}
