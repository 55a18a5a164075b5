//! Each way to prove ourselves to an upstream, written well and badly.

use tenant_store::{
    AccountListing, AuthorizationServer, ClientProof, Listing, RequestedType, SecretForm, TokenExchange, TokenRequest,
    UpstreamAuth,
};

use super::super::{Object, parse};

/// An upstream with that `auth`, at line 5.
fn read(auth: &str) -> Result<UpstreamAuth, String> {
    let text = format!(
        "apiVersion: mcp-mux/v1\nkind: Upstream\nmetadata: {{ tenant: acme, name: jira }}\nspec:\n  auth: {auth}\n  \
         http: {{ url: 'https://mcp.acme.example/mcp?key=x' }}\n"
    );
    let manifest = parse("acme.yaml", &text).map_err(|error| error.to_string())?;
    match manifest.documents()[0].object() {
        Object::Upstream { spec, .. } => Ok(spec.auth.clone()),
        other => Err(format!("{other:?}")),
    }
}

fn request(server: AuthorizationServer, proof: ClientProof) -> TokenRequest {
    TokenRequest { server, client_id: "mux".parse().unwrap(), proof, scope: None, resource: None, audience: None }
}

fn issuer() -> AuthorizationServer {
    AuthorizationServer::Issuer("https://as.example/acme".parse().unwrap())
}

fn basic() -> ClientProof {
    ClientProof::Basic { secret: "client".parse().unwrap() }
}

#[test]
fn whose_account_lists_is_read_as_it_is_meant() {
    let read = |text: &str| match read(&format!("{{ account: {text} }}")) {
        Ok(UpstreamAuth::Account(account)) => Ok(account.listing),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error),
    };
    assert_eq!(read("{}"), Ok(AccountListing::None));
    assert_eq!(read("{ listing: none }"), Ok(AccountListing::None));
    let carol = AccountListing::Account { issuer: "corp".parse().unwrap(), subject: "carol/1".parse().unwrap() };
    assert_eq!(read("{ listing: { account: { issuer: corp, subject: carol/1 } } }"), Ok(carol));
}

#[test]
fn each_way_with_access_tokens_is_read_as_it_is_meant() {
    let token_url = AuthorizationServer::TokenUrl("https://as.example/token".parse().unwrap());
    let signed = |key_id: Option<&str>| ClientProof::PrivateKeyJwt {
        private_key: "key".parse().unwrap(),
        key_id: key_id.map(|key_id| key_id.parse().unwrap()),
    };
    let post = ClientProof::Post { secret: "client".parse().unwrap() };
    let credentials = |request| UpstreamAuth::ClientCredentials(Box::new(request));
    let exchange = |requested_type, listing| {
        let request = request(issuer(), basic());
        UpstreamAuth::TokenExchange(Box::new(TokenExchange { request, requested_type, listing }))
    };
    are_read(vec![
        (
            "{ clientCredentials: { issuer: 'https://as.example/acme', clientId: mux, secret: client } }",
            credentials(request(issuer(), basic())),
        ),
        (
            "{ clientCredentials: { tokenUrl: 'https://as.example/token', clientId: mux, secret: client, clientAuth: post } }",
            credentials(request(token_url.clone(), post)),
        ),
        (
            "{ clientCredentials: { tokenUrl: 'https://as.example/token', clientId: mux, privateKey: { secret: key }, keyId: k1, \
             clientAuth: privateKeyJwt, scope: a b, resource: 'https://mcp.acme.example/mcp', audience: mcp } }",
            credentials(TokenRequest {
                scope: Some("a b".parse().unwrap()),
                resource: Some("https://mcp.acme.example/mcp".parse().unwrap()),
                audience: Some("mcp".parse().unwrap()),
                ..request(token_url.clone(), signed(Some("k1")))
            }),
        ),
        (
            "{ clientCredentials: { tokenUrl: 'https://as.example/token', clientId: mux, privateKey: { secret: key } } }",
            credentials(request(token_url, signed(None))),
        ),
        (
            "{ tokenExchange: { issuer: 'https://as.example/acme', clientId: mux, secret: client } }",
            exchange(RequestedType::AccessToken, Listing::ClientCredentials),
        ),
        (
            "{ tokenExchange: { issuer: 'https://as.example/acme', clientId: mux, secret: client, requestedTokenType: jwt, \
             listing: none } }",
            exchange(RequestedType::Jwt, Listing::None),
        ),
    ]);
}

#[test]
fn each_way_with_something_that_stays_is_read_as_it_is_meant() {
    let aws = |session_token: Option<&str>| UpstreamAuth::AwsSigV4 {
        access_key_id: "AKIDEXAMPLE".parse().unwrap(),
        secret_access_key: "aws".parse().unwrap(),
        session_token: session_token.map(|name| name.parse().unwrap()),
        region: "eu-central-1".parse().unwrap(),
        service: "bedrock-agentcore".parse().unwrap(),
    };
    let mtls = |with| UpstreamAuth::Mtls { secret: "pair".parse().unwrap(), ca: None, with: Box::new(with) };
    are_read(vec![
        (
            "{ basic: { username: svc, secret: pw } }",
            UpstreamAuth::Basic { username: "svc".parse().unwrap(), secret: "pw".parse().unwrap() },
        ),
        (
            "{ query: { parameter: api_key, secret: key } }",
            UpstreamAuth::Query { parameter: "api_key".parse().unwrap(), secret: "key".parse().unwrap() },
        ),
        ("{ mtls: { secret: pair } }", mtls(UpstreamAuth::None)),
        (
            "{ mtls: { secret: pair }, bearer: { secret: key } }",
            mtls(UpstreamAuth::Bearer { secret: "key".parse().unwrap() }),
        ),
        (
            "{ awsSigV4: { accessKeyId: AKIDEXAMPLE, secretAccessKey: { secret: aws }, region: eu-central-1, \
             service: bedrock-agentcore } }",
            aws(None),
        ),
        (
            "{ awsSigV4: { accessKeyId: AKIDEXAMPLE, secretAccessKey: { secret: aws }, sessionToken: { secret: session }, \
             region: eu-central-1, service: bedrock-agentcore } }",
            aws(Some("session")),
        ),
    ]);
}

/// Each text is read as what it means, and so is what is stored of it.
fn are_read(ways: Vec<(&str, UpstreamAuth)>) {
    for (text, auth) in ways {
        assert_eq!(read(text), Ok(auth.clone()), "{text}");
        let stored = serde_json::to_string(&auth).unwrap();
        assert_eq!(serde_json::from_str::<UpstreamAuth>(&stored).unwrap(), auth, "{stored}");
    }
}

#[test]
fn every_secret_of_a_way_is_known_with_its_form() {
    let auth = read("{ mtls: { secret: pair }, headers: { X-A: { secret: a }, X-B: { secret: b } } }").unwrap();
    let secrets: Vec<_> = auth.secrets().into_iter().map(|(name, form)| (name.to_string(), form)).collect();
    assert_eq!(
        secrets,
        [
            ("pair".to_owned(), SecretForm::CertificatePair),
            ("a".to_owned(), SecretForm::HeaderValue),
            ("b".to_owned(), SecretForm::HeaderValue)
        ]
    );
}

#[test]
fn what_is_wrong_with_a_way_is_said_with_its_field() {
    for (auth, said) in MISTAKES {
        assert_eq!(read(auth).unwrap_err(), format!("acme.yaml:{said}"), "{auth}");
    }
}

/// What is written, and what is said about it.
const MISTAKES: &[(&str, &str)] = &[
    (
        "{ basic: { username: 'a:b', secret: pw } }",
        "5:30: `spec.auth.basic.username`: a user name is 1 to 256 bytes without control characters and without `:`, which would end it, but this has `:` as character 2",
    ),
    ("{ basic: { secret: pw } }", "5:18: `spec.auth.basic.username`: is missing"),
    (
        "{ basic: { username: svc, password: CANARY-pw } }",
        "5:35: `spec.auth.basic.password`: is unknown; known here: `username`, `secret`",
    ),
    (
        "{ query: { parameter: 'a=b', secret: key } }",
        "5:31: `spec.auth.query.parameter`: a parameter is 1 to 64 of `A-Z`, `a-z`, `0-9`, `-`, `.`, `_` and `~`, but this has `=` as character 2",
    ),
    (
        "{ query: { parameter: key, secret: key } }",
        "5:31: `spec.auth.query.parameter`: must not be in the upstream's URL already",
    ),
    (
        "{ clientCredentials: { clientId: mux, secret: a } }",
        "5:30: `spec.auth.clientCredentials.issuer`: is missing: name the authorization server by `issuer` or by `tokenUrl`",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', tokenUrl: 'https://a.example', clientId: mux, secret: a } }",
        "5:71: `spec.auth.clientCredentials.tokenUrl`: is one too many: the issuer's metadata says where its token endpoint is",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', secret: a } }",
        "5:30: `spec.auth.clientCredentials.clientId`: is missing",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux } }",
        "5:30: `spec.auth.clientCredentials.secret`: is missing: name the client's `secret`, or its `privateKey`",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux, secret: a, privateKey: { secret: b } } }",
        "5:99: `spec.auth.clientCredentials.privateKey`: is one too many: a client has either `secret` or `privateKey`",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux, secret: a, clientAuth: privateKeyJwt } }",
        "5:99: `spec.auth.clientCredentials.clientAuth`: needs a `privateKey` in place of `secret`",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux, privateKey: { secret: b }, clientAuth: post } }",
        "5:115: `spec.auth.clientCredentials.clientAuth`: needs a `secret` in place of `privateKey`",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux, secret: a, keyId: k } }",
        "5:94: `spec.auth.clientCredentials.keyId`: goes with `privateKey` only",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux, secret: a, clientAuth: pst } }",
        "5:99: `spec.auth.clientCredentials.clientAuth`: `pst` is unknown; did you mean `post`?",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example/?x', clientId: mux, secret: a } }",
        "5:40: `spec.auth.clientCredentials.issuer`: an issuer is a web address of up to 2048 visible ASCII characters, without user name, query (`?…`) and fragment (`#…`), but this is none",
    ),
    (
        "{ clientCredentials: { tokenUrl: 'https://u:CANARY-p@a.example/', clientId: mux, secret: a } }",
        "5:42: `spec.auth.clientCredentials.tokenUrl`: a token endpoint is a web address of up to 2048 visible ASCII characters, without user name and fragment (`#…`), but this is none",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux, secret: a, scope: 'a  b' } }",
        "5:94: `spec.auth.clientCredentials.scope`: a scope is 1 to 1024 bytes: words of visible ASCII without `\"` and `\\`, with single spaces between them, but this has ` ` as character 3",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux, secret: a, resource: mcp } }",
        "5:97: `spec.auth.clientCredentials.resource`: a resource is an absolute address of up to 2048 visible ASCII characters, without a fragment (`#…`), but this is none",
    ),
    (
        "{ clientCredentials: { issuer: 'https://a.example', clientId: mux, secret: a, listing: none } }",
        "5:87: `spec.auth.clientCredentials.listing`: is unknown; known here: `issuer`, `tokenUrl`, `clientId`, `secret`, `privateKey`, `keyId`, `clientAuth`, `scope`, `resource`, `audience`",
    ),
    (
        "{ tokenExchange: { issuer: 'https://a.example', clientId: mux, secret: a, listing: all } }",
        "5:92: `spec.auth.tokenExchange.listing`: `all` is unknown; known here: `clientCredentials`, `none`",
    ),
    (
        "{ tokenExchange: { issuer: 'https://a.example', clientId: mux, secret: a, requestedTokenType: id_token } }",
        "5:103: `spec.auth.tokenExchange.requestedTokenType`: `id_token` is unknown; known here: `accessToken`, `jwt`",
    ),
    (
        "{ account: { listing: all } }",
        "5:31: `spec.auth.account.listing`: `all` is unknown; known here: `clientCredentials`, `none`",
    ),
    (
        "{ account: { listing: { account: { issuer: corp } } } }",
        "5:42: `spec.auth.account.listing.account.subject`: is missing",
    ),
    ("{ account: [] }", "5:20: `spec.auth.account`: must be a map (`key: value`)"),
    (
        "{ account: { client: { clientId: mux } } }",
        "5:30: `spec.auth.account.client`: needs an `issuer` beside it: what proves a client goes to no server that others name",
    ),
    (
        "{ account: { issuer: 'https://a.example', client: { clientId: mux }, listing: clientCredentials } }",
        "5:87: `spec.auth.account.listing`: must not be `clientCredentials` where no `client` with a `secret` or `privateKey` is registered",
    ),
    (
        "{ account: { issuer: 'https://a.example', client: { secret: a } } }",
        "5:59: `spec.auth.account.client.clientId`: is missing",
    ),
    (
        "{ account: { issuer: 'https://a.example', client: { clientId: mux, keyId: k } } }",
        "5:59: `spec.auth.account.client.secret`: is missing: name the client's `secret`, or its `privateKey`",
    ),
    ("{ mtls: {} }", "5:17: `spec.auth.mtls.secret`: is missing"),
    (
        "{ mtls: { secret: a, ca: 'CANARY-no' } }",
        "5:34: `spec.auth.mtls.ca`: must be certificates as PEM (`-----BEGIN CERTIFICATE-----`)",
    ),
    (
        "{ mtls: { secret: a }, awsSigV4: { accessKeyId: A, secretAccessKey: { secret: b }, region: r, service: s } }",
        "5:9: `spec.auth`: must be `bearer`, `basic`, `headers` or `query`, or nothing",
    ),
    (
        "{ awsSigV4: { accessKeyId: A, secretAccessKey: CANARY-aws, region: r, service: s } }",
        "5:56: `spec.auth.awsSigV4.secretAccessKey`: must be a map (`key: value`)",
    ),
    (
        "{ awsSigV4: { accessKeyId: A, secretAccessKey: { secret: b }, region: EU, service: s } }",
        "5:79: `spec.auth.awsSigV4.region`: a region or service of AWS is 1 to 64 of `a-z` and `0-9`, with single hyphens between them, but this has `E` as character 1",
    ),
    ("{ barer: { secret: a } }", "5:11: `spec.auth.barer`: is unknown; did you mean `bearer`?"),
];
