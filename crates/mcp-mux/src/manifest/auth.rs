//! An upstream's `auth`: `none`, or the one way that a map names.

use std::collections::BTreeMap;

use tenant_store::{
    AccountAuth, AccountClient, AccountListing, AuthorizationServer, ClientProof, HeaderText, Listing, RequestedType,
    SecretName, TokenExchange, TokenRequest, UpstreamAuth,
};

use super::error::Problem;
use super::field::{Field, Fields, suggestion};
use crate::upstream::check_ca;

/// The ways there are, but for the certificate that may go along with some of them.
const WAYS: [&str; 8] =
    ["bearer", "headers", "basic", "query", "clientCredentials", "tokenExchange", "account", "awsSigV4"];
const MTLS: &str = "mtls";

/// How the token request of an upstream is written, whichever grant it is for.
const TOKEN_REQUEST: [&str; 10] =
    ["issuer", "tokenUrl", "clientId", "secret", "privateKey", "keyId", "clientAuth", "scope", "resource", "audience"];

/// How an upstream wants to be shown who calls.
pub(super) fn auth(spec: &Fields<'_>) -> Result<UpstreamAuth, Problem> {
    let Some(field) = spec.find("auth") else {
        return Err(spec.missing("auth", "is missing: an upstream that asks for no proof has `auth: none`"));
    };
    if let Ok(word) = field.text() {
        return match word {
            "none" => Ok(UpstreamAuth::None),
            _ => Err(field.problem(format!("must be `none`, or a map with one of {}", ways()))),
        };
    }
    let mut known = WAYS.to_vec();
    known.push(MTLS);
    let fields = field.fields(&known)?;
    let named: Vec<&str> = WAYS.into_iter().filter(|way| fields.find(way).is_some()).collect();
    let with = match named[..] {
        [] => None,
        [way] => Some(one(way, &fields.get(way)?)?),
        _ => return Err(field.problem(format!("must have one of {}, and this has {}", ways(), named.len()))),
    };
    match (fields.find(MTLS), with) {
        (Some(field), with) => mtls(&field, with.unwrap_or(UpstreamAuth::None)),
        (None, Some(auth)) => Ok(auth),
        (None, None) => Err(field.problem(format!("must have one of {}", ways()))),
    }
}

fn ways() -> String {
    let quoted: Vec<_> = WAYS.iter().chain([&MTLS]).map(|way| format!("`{way}`")).collect();
    quoted.join(", ")
}

fn one(way: &str, field: &Field<'_>) -> Result<UpstreamAuth, Problem> {
    match way {
        "bearer" => Ok(UpstreamAuth::Bearer { secret: secret(field)? }),
        "headers" => headers(field),
        "basic" => {
            let fields = field.fields(&["username", "secret"])?;
            Ok(UpstreamAuth::Basic {
                username: fields.get("username")?.parse()?,
                secret: fields.get("secret")?.parse()?,
            })
        }
        "query" => {
            let fields = field.fields(&["parameter", "secret"])?;
            Ok(UpstreamAuth::Query {
                parameter: fields.get("parameter")?.parse()?,
                secret: fields.get("secret")?.parse()?,
            })
        }
        "clientCredentials" => {
            Ok(UpstreamAuth::ClientCredentials(Box::new(token_request(&field.fields(&TOKEN_REQUEST)?)?)))
        }
        "tokenExchange" => token_exchange(field),
        "account" => account(field),
        _ => aws(field),
    }
}

fn headers(field: &Field<'_>) -> Result<UpstreamAuth, Problem> {
    let mut headers = BTreeMap::<HeaderText, SecretName>::new();
    for (key, value) in field.entries()? {
        // Names of headers that differ in capitals only are the same.
        if headers.insert(key.parse()?, secret(&value)?).is_some() {
            return Err(value.problem("is the same header as an earlier one"));
        }
    }
    Ok(UpstreamAuth::Headers { headers })
}

fn token_exchange(field: &Field<'_>) -> Result<UpstreamAuth, Problem> {
    let mut known = TOKEN_REQUEST.to_vec();
    known.extend(["requestedTokenType", "listing"]);
    let fields = field.fields(&known)?;
    let requested_type = match fields.find("requestedTokenType") {
        None => RequestedType::AccessToken,
        Some(field) => word(&field, &[("accessToken", RequestedType::AccessToken), ("jwt", RequestedType::Jwt)])?,
    };
    let listing = match fields.find("listing") {
        None => Listing::ClientCredentials,
        Some(field) => word(&field, &[("clientCredentials", Listing::ClientCredentials), ("none", Listing::None)])?,
    };
    let request = token_request(&fields)?;
    Ok(UpstreamAuth::TokenExchange(Box::new(TokenExchange { request, requested_type, listing })))
}

fn account(field: &Field<'_>) -> Result<UpstreamAuth, Problem> {
    // An account that is written as `{}` has everything found from the upstream.
    let fields = field.fields(&["issuer", "client", "scope", "resource", "listing"])?;
    let client = fields.find("client").map(|field| account_client(&field)).transpose()?;
    let listing = match fields.find("listing") {
        None => AccountListing::None,
        Some(field) => account_listing(&field)?,
    };
    Ok(UpstreamAuth::Account(Box::new(AccountAuth {
        issuer: fields.find("issuer").map(|field| field.parse()).transpose()?,
        client,
        scope: fields.find("scope").map(|field| field.parse()).transpose()?,
        resource: fields.find("resource").map(|field| field.parse()).transpose()?,
        listing,
    })))
}

/// A word, or the principal whose account lists tools.
fn account_listing(field: &Field<'_>) -> Result<AccountListing, Problem> {
    if field.text().is_ok() {
        let words = [("clientCredentials", true), ("none", false)];
        let is_client = word(field, &words)?;
        return Ok(if is_client { AccountListing::ClientCredentials } else { AccountListing::None });
    }
    let account = field.fields(&["account"])?.get("account")?.fields(&["issuer", "subject"])?;
    Ok(AccountListing::Account { issuer: account.get("issuer")?.parse()?, subject: account.get("subject")?.parse()? })
}

/// A registered client: one without a secret or a key is public.
fn account_client(field: &Field<'_>) -> Result<AccountClient, Problem> {
    let fields = field.fields(&["clientId", "secret", "privateKey", "keyId", "clientAuth"])?;
    let proves = ["secret", "privateKey", "keyId", "clientAuth"].iter().any(|name| fields.find(name).is_some());
    let proof = proves.then(|| client_proof(&fields)).transpose()?;
    Ok(AccountClient { client_id: fields.get("clientId")?.parse()?, proof })
}

fn token_request(fields: &Fields<'_>) -> Result<TokenRequest, Problem> {
    Ok(TokenRequest {
        server: authorization_server(fields)?,
        client_id: fields.get("clientId")?.parse()?,
        proof: client_proof(fields)?,
        scope: fields.find("scope").map(|field| field.parse()).transpose()?,
        resource: fields.find("resource").map(|field| field.parse()).transpose()?,
        audience: fields.find("audience").map(|field| field.parse()).transpose()?,
    })
}

fn authorization_server(fields: &Fields<'_>) -> Result<AuthorizationServer, Problem> {
    match (fields.find("issuer"), fields.find("tokenUrl")) {
        (Some(issuer), None) => Ok(AuthorizationServer::Issuer(issuer.parse()?)),
        (None, Some(url)) => Ok(AuthorizationServer::TokenUrl(url.parse()?)),
        (Some(_), Some(url)) => {
            Err(url.problem("is one too many: the issuer's metadata says where its token endpoint is"))
        }
        (None, None) => {
            Err(fields.missing("issuer", "is missing: name the authorization server by `issuer` or by `tokenUrl`"))
        }
    }
}

/// The one secret that a client has, and how it is used: as `clientAuth` says, or as the secret suggests.
fn client_proof(fields: &Fields<'_>) -> Result<ClientProof, Problem> {
    let way = fields.find("clientAuth");
    let word = match &way {
        None => None,
        Some(field) => Some(word(field, &[("basic", "basic"), ("post", "post"), (SIGNED, SIGNED)])?),
    };
    let key_id = fields.find("keyId");
    match (fields.find("secret"), fields.find("privateKey")) {
        (Some(_), Some(key)) => Err(key.problem("is one too many: a client has either `secret` or `privateKey`")),
        (None, None) => Err(fields.missing("secret", "is missing: name the client's `secret`, or its `privateKey`")),
        (Some(secret), None) => match (key_id, way.filter(|_| word == Some(SIGNED))) {
            (Some(field), _) => Err(field.problem("goes with `privateKey` only")),
            (_, Some(field)) => Err(field.problem("needs a `privateKey` in place of `secret`")),
            _ if word == Some("post") => Ok(ClientProof::Post { secret: secret.parse()? }),
            _ => Ok(ClientProof::Basic { secret: secret.parse()? }),
        },
        (None, Some(key)) => match way.filter(|_| word != Some(SIGNED)) {
            Some(field) => Err(field.problem("needs a `secret` in place of `privateKey`")),
            None => Ok(ClientProof::PrivateKeyJwt {
                private_key: secret(&key)?,
                key_id: key_id.map(|field| field.parse()).transpose()?,
            }),
        },
    }
}

/// How a client that signs is called.
const SIGNED: &str = "privateKeyJwt";

fn mtls(field: &Field<'_>, with: UpstreamAuth) -> Result<UpstreamAuth, Problem> {
    let fields = field.fields(&["secret", "ca"])?;
    let ca = match fields.find("ca") {
        None => None,
        Some(field) => {
            let text = field.text()?;
            check_ca(text).map_err(|problem| field.problem(problem))?;
            Some(text.to_owned())
        }
    };
    Ok(UpstreamAuth::Mtls { secret: fields.get("secret")?.parse()?, ca, with: Box::new(with) })
}

fn aws(field: &Field<'_>) -> Result<UpstreamAuth, Problem> {
    let fields = field.fields(&["accessKeyId", "secretAccessKey", "sessionToken", "region", "service"])?;
    Ok(UpstreamAuth::AwsSigV4 {
        access_key_id: fields.get("accessKeyId")?.parse()?,
        secret_access_key: secret(&fields.get("secretAccessKey")?)?,
        session_token: fields.find("sessionToken").map(|field| secret(&field)).transpose()?,
        region: fields.get("region")?.parse()?,
        service: fields.get("service")?.parse()?,
    })
}

/// A map with nothing but the name of a secret, never its value.
fn secret(field: &Field<'_>) -> Result<SecretName, Problem> {
    field.fields(&["secret"])?.get("secret")?.parse()
}

/// One of a few words, as what it stands for.
fn word<T: Copy>(field: &Field<'_>, words: &[(&str, T)]) -> Result<T, Problem> {
    let text = field.text()?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    found.ok_or_else(|| field.problem(format!("`{}` is unknown; {}", text.escape_debug(), suggestion(text, &known))))
}
