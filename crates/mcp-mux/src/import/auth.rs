//! From headers, keys and addresses to an upstream's `auth`, the names of its secrets, and where their values are.

use std::collections::BTreeMap;

use tenant_store::{
    AuthorizationServer, ClientProof, HeaderText, OAuthScope, QueryParameter, SecretName, TokenRequest, UpstreamAuth,
};
use url::Url;

use super::names::Names;
use super::secret::{Form, Found};
use super::source::{Field, Fields, ImportError};

/// How many headers an upstream may want.
const HEADERS_MAX: usize = 8;
/// Length of the longest name of a secret, in bytes.
const SECRET_NAME_BYTES_MAX: usize = 40;
/// A value of this length without a word in it is taken for a secret, whatever its parameter is called.
const OPAQUE_BYTES_MIN: usize = 20;
/// What parameters that carry secrets are called, as a part of their names.
const SECRET_WORDS: &[&str] =
    &["key", "token", "secret", "auth", "pass", "pwd", "cred", "sig", "code", "jwt", "session", "bearer"];

/// What a server wants to be shown.
#[derive(Debug, Default)]
pub(super) struct Wanted<'s> {
    /// Headers: what each is called, where its value is, and in which form.
    pub(super) headers: Vec<(String, Field<'s>, Form)>,
    /// A parameter of the address.
    pub(super) parameter: Option<(String, Field<'s>)>,
    /// A client of an authorization server: its token endpoint, id, secret and scopes.
    pub(super) client: Option<(Field<'s>, Field<'s>, Field<'s>, Option<Field<'s>>)>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) auth: UpstreamAuth,
    pub(super) secrets: Vec<(SecretName, Found)>,
    /// What could not be carried over: which part, and why.
    pub(super) lost: Vec<(String, &'static str)>,
    names: Names,
    /// The way to the address.
    at: String,
}

impl<'s> Wanted<'s> {
    /// Adds the headers of a server.
    pub(super) fn add_headers(&mut self, server: &mut Fields<'s>) -> Result<(), ImportError> {
        let Some(headers) = server.take("headers") else { return Ok(()) };
        for (name, value) in headers.entries()? {
            value.text()?;
            self.headers.push((name.to_owned(), value, Form::Whole));
        }
        Ok(())
    }

    /// What an upstream at `url` is shown. Whatever may be a secret is taken out of the address.
    pub(super) fn show(self, url: &mut Url, at: &Field<'s>) -> Result<Shown, ImportError> {
        let mut shown = Shown {
            auth: UpstreamAuth::None,
            secrets: Vec::new(),
            lost: Vec::new(),
            names: Names::default(),
            at: at.name(),
        };
        if let Some((token_url, id, secret, scope)) = self.client {
            shown.client(&token_url, &id, &secret, scope.as_ref())?;
        }
        shown.headers(self.headers)?;
        if let Some((name, value)) = self.parameter {
            let found = found(&value, Form::Whole)?;
            shown.parameter(&name, found);
        }
        shown.user(url);
        shown.query(url, at);
        Ok(shown)
    }
}

impl Shown {
    fn lose(&mut self, what: impl Into<String>, why: &'static str) {
        self.lost.push((what.into(), why));
    }

    fn secret(&mut self, wanted: &str, found: Found) -> SecretName {
        let name: SecretName = self.names.give(wanted, "secret", SECRET_NAME_BYTES_MAX);
        self.secrets.push((name.clone(), found));
        name
    }

    fn client(
        &mut self,
        token_url: &Field<'_>,
        id: &Field<'_>,
        secret: &Field<'_>,
        scope: Option<&Field<'_>>,
    ) -> Result<(), ImportError> {
        let scopes = scope.map(Field::texts).transpose()?.unwrap_or_default().join(" ");
        let (Ok(server), Ok(client_id)) = (token_url.text()?.parse(), id.text()?.parse()) else {
            self.lose(
                token_url.name(),
                "the address or the id of the client is none: write `auth: clientCredentials` by hand",
            );
            return Ok(());
        };
        let scope: Option<OAuthScope> = scopes.parse().ok();
        let name = self.secret("client", found(secret, Form::Whole)?);
        let request = TokenRequest {
            server: AuthorizationServer::TokenUrl(server),
            client_id,
            proof: ClientProof::Basic { secret: name },
            scope,
            resource: None,
            audience: None,
        };
        self.auth = UpstreamAuth::ClientCredentials(Box::new(request));
        Ok(())
    }

    fn headers(&mut self, wanted: Vec<(String, Field<'_>, Form)>) -> Result<(), ImportError> {
        let mut headers: BTreeMap<HeaderText, (Found, bool)> = BTreeMap::new();
        for (name, value, form) in wanted {
            let is_bearer = form == Form::Behind("Bearer") || starts_with_bearer(value.text()?);
            match name.parse::<HeaderText>() {
                _ if self.auth != UpstreamAuth::None => self.lose(value.name(), ONE_WAY),
                Err(_) => self.lose(value.name(), "mcp-mux writes that header itself, or its name is none"),
                Ok(header) if headers.contains_key(&header) => {
                    self.lose(value.name(), "the same header is there already");
                }
                Ok(_) if headers.len() == HEADERS_MAX => self.lose(value.name(), "an upstream has at most 8 headers"),
                Ok(header) => {
                    headers.insert(header, (found(&value, form)?, is_bearer));
                }
            }
        }
        if headers.is_empty() {
            return Ok(());
        }
        if let (1, Some((found, true))) = (headers.len(), headers.get("authorization")) {
            let secret = self.secret("token", found.clone().without_bearer());
            self.auth = UpstreamAuth::Bearer { secret };
            return Ok(());
        }
        let named = headers.into_iter().map(|(header, (found, _))| {
            let secret = self.secret(header.as_str(), found);
            (header, secret)
        });
        self.auth = UpstreamAuth::Headers { headers: named.collect() };
        Ok(())
    }

    fn parameter(&mut self, name: &str, found: Found) {
        let about = format!("{}: the parameter `{}`", self.at, name.escape_debug());
        match name.parse::<QueryParameter>() {
            _ if self.auth != UpstreamAuth::None => self.lose(about, ONE_WAY),
            Err(_) => self.lose(about, "no parameter may have that name"),
            Ok(parameter) => {
                let secret = self.secret(name, found);
                self.auth = UpstreamAuth::Query { parameter, secret };
            }
        }
    }

    /// Takes user name and password out of the address.
    fn user(&mut self, url: &mut Url) {
        if url.username().is_empty() && url.password().is_none() {
            return;
        }
        let user = percent_encoding::percent_decode_str(url.username()).decode_utf8_lossy().into_owned();
        let has_password = url.password().is_some_and(|password| !password.is_empty());
        let taken_out = url.set_username("").is_ok() && url.set_password(None).is_ok();
        match user.parse() {
            Ok(username) if taken_out && has_password && self.auth == UpstreamAuth::None => {
                let secret = self.secret("password", Found::Nowhere("the password is in the address"));
                self.auth = UpstreamAuth::Basic { username, secret };
            }
            _ => self.lose(format!("{}: the user", self.at), "an address holds no user name and no password"),
        }
    }

    /// Takes parameters that may be secrets out of the address.
    fn query(&mut self, url: &mut Url, at: &Field<'_>) {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let (secret, plain): (Vec<_>, Vec<_>) =
            pairs.iter().partition(|(name, value)| is_secret_name(name) || is_opaque(value));
        if secret.is_empty() {
            return;
        }
        if plain.is_empty() {
            url.set_query(None);
        } else {
            url.query_pairs_mut().clear().extend_pairs(plain);
        }
        // What is called a secret goes before what only looks like one.
        let (named, others): (Vec<_>, Vec<_>) = secret.into_iter().partition(|(name, _)| is_secret_name(name));
        for (name, value) in named.into_iter().chain(others) {
            let is_plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
            let found = match variable(value) {
                Variable::Environment(variable) => Found::Environment(variable.to_owned(), ""),
                Variable::None if is_plain => Found::File(at.path.clone(), Form::Parameter(name.clone())),
                _ => Found::Nowhere("the value is in the address, encoded or asked for"),
            };
            self.parameter(name, found);
        }
    }
}

const ONE_WAY: &str = "an upstream is shown headers, a parameter or a token of a client, and no two of these";

impl Found {
    /// The same without the word `Bearer` before it.
    fn without_bearer(self) -> Self {
        match self {
            Self::File(path, Form::Behind("Bearer")) => Self::File(path, Form::Whole),
            Self::File(path, _) => Self::File(path, Form::WithoutBearer),
            Self::Environment(variable, _) => Self::Environment(variable, ""),
            Self::Nowhere(why) => Self::Nowhere(why),
        }
    }
}

fn starts_with_bearer(value: &str) -> bool {
    value.trim_start().split_once(' ').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
}

/// Where the value of a header is: in the file, or wherever the file says.
fn found(value: &Field<'_>, form: Form) -> Result<Found, ImportError> {
    let text = value.text()?;
    let (word, rest) = match text.trim().split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => ("Bearer", rest.trim()),
        _ => (if let Form::Behind(word) = form { word } else { "" }, text),
    };
    Ok(match variable(rest) {
        Variable::None => Found::File(value.path.clone(), form),
        Variable::Environment(variable) => Found::Environment(variable.to_owned(), word),
        Variable::Asked => Found::Nowhere("the file does not hold the value, and says where it comes from"),
    })
}

/// What a text stands for.
enum Variable<'t> {
    /// Itself.
    None,
    /// A variable of the environment.
    Environment(&'t str),
    /// What somebody types, or texts with variables in them.
    Asked,
}

/// `${NAME}`, `${env:NAME}` and `$NAME` are variables; `${input:…}` is asked for.
fn variable(text: &str) -> Variable<'_> {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or_else(|| text.strip_prefix('$'));
    let name = name.map(|name| name.strip_prefix("env:").unwrap_or(name));
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match name {
        Some(name) if !name.is_empty() && is_name(name) => Variable::Environment(name),
        _ if text.contains("${") => Variable::Asked,
        _ => Variable::None,
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Whether a text looks made by a machine, to be known by nobody.
pub(super) fn is_opaque(text: &str) -> bool {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let has = |wanted: fn(&u8) -> bool| text.as_bytes().iter().any(wanted);
    (text.len() >= OPAQUE_BYTES_MIN && is_word && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic))
        || text.contains("${")
}
