//! Plain headers of a front that proved itself by its shared key: who the user is, and its groups. Open WebUI sends ids as they
//! are; the names of groups it percent-encodes. It separates groups by commas.

use http::HeaderName;
use http::header::HeaderMap;
use tenant_store::{Group, IssuerName, Timestamp};

use super::super::claims::{GROUPS_MAX, group};
use super::super::error::{AuthError, HeaderFault, Refusal};
use super::{FrontUser, KEYED_LIFE, is_pending};

const ROLE: HeaderName = HeaderName::from_static("x-openwebui-user-role");
/// What stands around the name of a variable in Open WebUI's templates.
const TEMPLATE_MARKS: [&str; 2] = ["{{", "}}"];

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
        let Some(id) = one(headers, &self.user)?.filter(|id| !id.is_empty()) else { return Ok(None) };
        if is_pending(one(headers, &ROLE)?) {
            return Err(Refusal::Pending.into());
        }
        let groups = groups(headers, self.groups.as_ref())?;
        Ok(Some(FrontUser { id: id.to_owned(), email: None, groups, expires_at: now.plus(KEYED_LIFE) }))
    }
}

/// The groups in `header`. Each is decoded after the commas were found, so that an encoded comma belongs to a group. An id is the
/// same decoded.
pub(super) fn groups(headers: &HeaderMap, header: Option<&HeaderName>) -> Result<Vec<Group>, HeaderFault> {
    let Some(header) = header else { return Ok(Vec::new()) };
    let Some(text) = one(headers, header)? else { return Ok(Vec::new()) };
    let texts: Vec<&str> = text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
    if texts.len() > GROUPS_MAX {
        return Err(HeaderFault::Groups);
    }
    texts.into_iter().map(|text| group(&decoded(text)?).map_err(|_| HeaderFault::Groups)).collect()
}

/// The text of a header that comes once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, HeaderFault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeaderFault::Twice);
    }
    let text = value.to_str().map_err(|_| HeaderFault::Text)?;
    if TEMPLATE_MARKS.iter().any(|mark| text.contains(mark)) {
        tracing::warn!(header = %name, "a front sent a template that it did not fill in: it does not know that variable");
        return Err(HeaderFault::Template);
    }
    Ok(Some(text.trim()))
}

/// Percent-decoded (RFC 3986 §2.1), strictly: a text that is not UTF-8, or a lone percent sign, names nobody.
fn decoded(text: &str) -> Result<String, HeaderFault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(HeaderFault::Encoding);
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| HeaderFault::Encoding)?);
    }
    String::from_utf8(bytes).map_err(|_| HeaderFault::Encoding)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GROUPS: HeaderName = HeaderName::from_static("x-user-group-ids");

    fn named(value: &'static str) -> Result<Vec<String>, HeaderFault> {
        let headers = HeaderMap::from_iter([(GROUPS, HeaderValue::from_static(value))]);
        Ok(groups(&headers, Some(&GROUPS))?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_encoded_comma_belongs_to_a_group() {
        assert_eq!(named("a%2Cb,Gr%C3%BC%C3%9Fe , d").unwrap(), ["a,b", "Grüße", "d"]);
        assert_eq!(named("%7B%7Ba%7D%7D").unwrap(), ["{{a}}"], "a name may look like a template");
        assert_eq!(named("").unwrap(), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_names_nobody() {
        for value in ["a%", "a%2", "a%zz", "%ff", "%00", "role:admin", "a%0Ab", "{{USER_GROUP_IDS}}", "a,{{", "a}}"] {
            assert!(named(value).is_err(), "{value}");
        }
    }
}
