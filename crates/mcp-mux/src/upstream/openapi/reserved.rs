//! What no argument may set: where the credential is shown, what frames a request, and what would make it another request.

use std::collections::HashSet;

use tenant_store::UpstreamAuth;
use url::Url;

use super::document::Document;
use super::parameter::ParameterPlace;

/// Headers that frame a request, prove somebody, or are read by proxies as if they said where or how the request is meant.
const HEADERS: [&str; 48] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-type",
    "cookie",
    "cookie2",
    "dpop",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "origin",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "user-agent",
    "via",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-url",
];
/// What the names of other such headers begin with.
const HEADER_BEGINNINGS: [&str; 3] = ["x-forwarded-", "sec-", "cf-"];
/// Parameters of an address by which some servers take a request for one of another method.
const PARAMETERS: [&str; 1] = ["_method"];

/// The names that are out of reach of arguments.
#[derive(Debug)]
pub(super) struct Reserved {
    headers: HashSet<String>,
    parameters: HashSet<String>,
    cookies: Cookies,
}

#[derive(Debug)]
enum Cookies {
    All,
    These(HashSet<String>),
}

impl Reserved {
    /// What is out of reach at an upstream with that address and that way to prove ourselves.
    pub(super) fn new(document: &Document, base: &Url, auth: &UpstreamAuth) -> Self {
        let mut headers: HashSet<String> = HEADERS.into_iter().map(str::to_owned).collect();
        let mut parameters: HashSet<String> = PARAMETERS.into_iter().map(str::to_owned).collect();
        let mut cookies = HashSet::new();
        for (place, name) in document.security_names() {
            match place.as_str() {
                "header" => headers.insert(header(&name)),
                "query" => parameters.insert(parameter(&name)),
                _ => cookies.insert(name),
            };
        }
        parameters.extend(base.query_pairs().map(|(name, _)| parameter(&name)));
        let auth = match auth {
            UpstreamAuth::Mtls { with, .. } => with,
            auth => auth,
        };
        if let UpstreamAuth::Query { parameter: own, .. } = auth {
            parameters.insert(parameter(own.as_str()));
        }
        let mut all_cookies = false;
        if let UpstreamAuth::Headers { headers: own } = auth {
            all_cookies = own.keys().any(|name| name.as_str() == "cookie");
            headers.extend(own.keys().map(|name| header(name.as_str())));
        }
        Self { headers, parameters, cookies: if all_cookies { Cookies::All } else { Cookies::These(cookies) } }
    }

    /// Whether an argument may not set that.
    pub(super) fn holds(&self, place: ParameterPlace, name: &str) -> bool {
        match place {
            ParameterPlace::Path => false,
            ParameterPlace::Query => {
                let flat = name.trim().to_ascii_lowercase().replace(['.', ' ', '['], "_");
                self.parameters.contains(&parameter(name)) || self.parameters.contains(&flat)
            }
            ParameterPlace::Header => {
                let name = header(name);
                self.headers.contains(&name) || HEADER_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
            }
            ParameterPlace::Cookie => match &self.cookies {
                Cookies::All => true,
                Cookies::These(names) => names.contains(&name.to_ascii_lowercase()),
            },
        }
    }
}

/// A header's name as servers see it that know no hyphens or no capitals.
fn header(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('_', "-")
}

/// A parameter's name as servers see it that read lists and maps out of names.
fn parameter(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    name.split('[').next().unwrap_or_default().replace(['.', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(auth: &UpstreamAuth) -> Reserved {
        let text = r#"{"openapi":"3.0.0","components":{"securitySchemes":{
            "a":{"type":"apiKey","in":"header","name":"X-Token"},"b":{"type":"apiKey","in":"query","name":"sig"},
            "c":{"type":"apiKey","in":"cookie","name":"SID"},"d":{"type":"http","scheme":"bearer"}}}}"#;
        let document = Document::parse(text.as_bytes()).unwrap();
        Reserved::new(&document, &"https://api.example/?tenant=acme".parse().unwrap(), auth)
    }

    #[test]
    fn what_proves_us_or_frames_a_request_is_out_of_reach() {
        let key = UpstreamAuth::Query { parameter: "api_key".parse().unwrap(), secret: "key".parse().unwrap() };
        let own = [("X-Own-Key".parse().unwrap(), "key".parse().unwrap())];
        let mtls = UpstreamAuth::Mtls {
            secret: "pair".parse().unwrap(),
            ca: None,
            with: Box::new(UpstreamAuth::Headers { headers: own.into() }),
        };
        for name in [
            "Authorization",
            "COOKIE",
            "Host",
            "content_length",
            "Transfer-Encoding",
            "Connection",
            "X-Token",
            "x_token",
        ] {
            assert!(reserved(&UpstreamAuth::None).holds(ParameterPlace::Header, name), "{name}");
        }
        for name in ["X-HTTP-Method-Override", "X-Forwarded-Host", "Proxy-Authorization", "Sec-Fetch-Site", "x_own_key"]
        {
            assert!(reserved(&mtls).holds(ParameterPlace::Header, name), "{name}");
        }
        for name in ["api_key", "API_KEY", "api_key[]", "api.key", "tenant", "Sig", "_method"] {
            assert!(reserved(&key).holds(ParameterPlace::Query, name), "{name}");
        }
        assert!(reserved(&key).holds(ParameterPlace::Cookie, "sid"));
        for (place, name) in [
            (ParameterPlace::Header, "X-Request-Id"),
            (ParameterPlace::Query, "api"),
            (ParameterPlace::Cookie, "theme"),
            (ParameterPlace::Path, "host"),
        ] {
            assert!(!reserved(&key).holds(place, name), "{name}");
        }
    }
}
