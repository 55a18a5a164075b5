//! MCPHub's servers that are described by an OpenAPI document.

use tenant_store::{UpstreamProtocol, UpstreamSlug};
use url::Url;

use super::Draft;
use super::auth::Wanted;
use super::left_out;
use super::secret::Form;
use super::server::{Upstream, add, address};
use super::source::{Fields, ImportError};

pub(super) fn api(
    draft: &mut Draft<'_>,
    slug: &UpstreamSlug,
    server: &mut Fields<'_>,
    enabled: bool,
) -> Result<(), ImportError> {
    let mut fields = server.need("openapi")?.fields()?;
    let mut wanted = Wanted::default();
    if let Some(security) = fields.take("security") {
        read_security(draft, security.fields()?, &mut wanted)?;
    }
    wanted.add_headers(server)?;
    let Some(at) = fields.take("url") else {
        let instead =
            "put its document where mcp-mux can fetch it, and name it as `openapi.document` (docs/openapi.md)";
        draft.note(fields.map().name(), "has no `url`: its document is in the file itself", instead);
        return Ok(());
    };
    if let Some(document) = address(draft, &at)? {
        let base = base(&document);
        let instead = "compare it with `servers` in the document, and correct `openapi.url`";
        draft.note(at.name(), format!("is where the document is; calls go to {base}"), instead);
        let mut document = document;
        if document.query().is_some() {
            // It may hold a key, and a key for the document is none for calls.
            document.set_query(None);
            draft.note(
                at.name(),
                "has parameters, which are left out",
                "add those to `openapi.document` that are no secrets",
            );
        }
        let upstream = Upstream { slug, protocol: UpstreamProtocol::OpenApi { document }, enabled };
        add(draft, upstream, (base, &at), wanted)?;
    }
    left_out::note(draft, fields);
    Ok(())
}

/// Where the API is that a document describes: below the place of the document, or at its host.
fn base(document: &Url) -> Url {
    let mut base = document.clone();
    let path = document.path().strip_suffix("/openapi.json").unwrap_or_default().to_owned();
    base.set_path(&path);
    base.set_query(None);
    // It is told, and a password in it is not.
    base.set_username("").ok();
    base.set_password(None).ok();
    base
}

fn read_security<'s>(
    draft: &mut Draft<'_>,
    mut security: Fields<'s>,
    wanted: &mut Wanted<'s>,
) -> Result<(), ImportError> {
    let kind = security.take("type").map(|field| field.text()).transpose()?.unwrap_or("none");
    let details = security.take(kind).map(|field| field.fields()).transpose()?;
    let about = security.map().name();
    let Some(mut details) = details else {
        if kind != "none" {
            draft.note(about, "does not say with what", "write `auth` of the upstream by hand");
        }
        return Ok(());
    };
    let is_read = match kind {
        "apiKey" => api_key(&mut details, wanted)?,
        "http" => http(&mut details, wanted)?,
        "oauth2" | "openIdConnect" => token(&mut details, wanted),
        _ => false,
    };
    if !is_read {
        draft.note(
            about,
            "proves itself in a way that has no counterpart",
            "write `auth` of the upstream by hand (docs/credentials.md)",
        );
    }
    left_out::note(draft, details);
    Ok(())
}

fn api_key<'s>(details: &mut Fields<'s>, wanted: &mut Wanted<'s>) -> Result<bool, ImportError> {
    let name = details.need("name")?.text()?.to_owned();
    let place = details.need("in")?;
    let value = details.need("value")?;
    match place.text()? {
        "header" => wanted.headers.push((name, value, Form::Whole)),
        "query" => wanted.parameter = Some((name, value)),
        _ => return Ok(false),
    }
    Ok(true)
}

fn http<'s>(details: &mut Fields<'s>, wanted: &mut Wanted<'s>) -> Result<bool, ImportError> {
    let scheme = details.need("scheme")?;
    let (Some(value), form) = (details.take("credentials"), scheme.text()?) else { return Ok(false) };
    let form = match form {
        "bearer" => Form::Behind("Bearer"),
        "basic" => Form::Behind("Basic"),
        _ => return Ok(false),
    };
    wanted.headers.push(("authorization".to_owned(), value, form));
    Ok(true)
}

fn token<'s>(details: &mut Fields<'s>, wanted: &mut Wanted<'s>) -> bool {
    let client = (details.take("tokenUrl"), details.take("clientId"), details.take("clientSecret"));
    let scopes = details.take("scopes");
    let token = details.take("token");
    match (client, token) {
        ((Some(url), Some(id), Some(secret)), _) => wanted.client = Some((url, id, secret, scopes)),
        (_, Some(token)) => wanted.headers.push(("authorization".to_owned(), token, Form::Behind("Bearer"))),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_calls_go_is_told_without_a_password() {
        let document = "https://anna:CANARY@api.example/v2/openapi.json?key=CANARY".parse().unwrap();
        assert_eq!(base(&document).as_str(), "https://api.example/v2");
    }
}
