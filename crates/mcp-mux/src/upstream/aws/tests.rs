//! The vectors of AWS's own test suite for signatures (`aws-sig-v4-test-suite`), each calculated a second time by another program.

use http::Method;

use super::*;

/// 2015-08-30T12:36:00Z
const SUITE_TIME_MS: i64 = 1_440_938_160_000;
const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
const FORM: &str = "application/x-www-form-urlencoded";

/// Name, method, path and query, headers, body, signature.
type Vector<'v> = (&'v str, Method, &'v str, &'v [(&'v str, &'v str)], &'v str, &'v str);

#[rustfmt::skip]
const VECTORS: &[Vector<'_>] = &[
    ("get-vanilla", Method::GET, "/", &[], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("get-vanilla-empty-query-key", Method::GET, "/?Param1=value1", &[], "", "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"),
    ("get-vanilla-query-order-key", Method::GET, "/?Param1=value2&Param1=Value1", &[], "", "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1"),
    ("get-vanilla-query-order-key-case", Method::GET, "/?Param2=value2&Param1=value1", &[], "", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ("get-vanilla-query-order-value", Method::GET, "/?Param1=value2&Param1=value1", &[], "", "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694"),
    ("get-vanilla-query-unreserved", Method::GET, "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", &[], "", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"),
    ("get-vanilla-utf8-query", Method::GET, "/?ሴ=bar", &[], "", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
    ("get-unreserved", Method::GET, "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", &[], "", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"),
    ("get-slash", Method::GET, "//", &[], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("get-slashes", Method::GET, "//example//", &[], "", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"),
    ("get-slash-pointless-dot", Method::GET, "/./example", &[], "", "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"),
    ("get-relative", Method::GET, "/example/..", &[], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("get-header-key-duplicate", Method::GET, "/", &[("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")], "", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"),
    ("get-header-value-order", Method::GET, "/", &[("My-Header1", "value4"), ("My-Header1", "value1"), ("My-Header1", "value3"), ("My-Header1", "value2")], "", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"),
    ("get-header-value-trim", Method::GET, "/", &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")], "", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"),
    ("post-vanilla", Method::POST, "/", &[], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ("post-vanilla-query", Method::POST, "/?Param1=value1", &[], "", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"),
    ("post-header-key-sort", Method::POST, "/", &[("My-Header1", "value1")], "", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"),
    ("post-header-value-case", Method::POST, "/", &[("My-Header1", "VALUE1")], "", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"),
    ("post-x-www-form-urlencoded", Method::POST, "/", &[("Content-Type", FORM)], "Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
    ("post-x-www-form-urlencoded-parameters", Method::POST, "/", &[("Content-Type", "application/x-www-form-urlencoded; charset=utf8")], "Param1=value1", "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe"),
];

fn signer(session_token: Option<&str>) -> Signer {
    Signer {
        access_key_id: "AKIDEXAMPLE".parse().unwrap(),
        secret_access_key: SecretString::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session_token: session_token.map(SecretString::from),
        region: "us-east-1".parse().unwrap(),
        service: "service".parse().unwrap(),
    }
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Outgoing {
    let url = Url::parse(&format!("https://example.amazonaws.com{path}")).unwrap();
    let mut request = Outgoing { method, url, headers: HeaderMap::new(), body: body.to_owned() };
    for (name, value) in headers {
        request.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    request
}

fn signed(signer: &Signer, mut request: Outgoing) -> String {
    signer.sign(&mut request, Timestamp::from_millis(SUITE_TIME_MS)).unwrap();
    request.headers.get(AUTHORIZATION).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn every_published_vector_is_signed_as_published() {
    for (name, method, path, headers, body, signature) in VECTORS {
        let authorization = signed(&signer(None), request(method.clone(), path, headers, body));
        assert!(authorization.ends_with(&format!("Signature={signature}")), "{name}: {authorization}");
    }
    let temporary = signed(&signer(Some(TOKEN)), request(Method::POST, "/", &[], ""));
    assert_eq!(
        temporary,
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-security-token, \
         Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
    );
}

#[test]
fn a_path_that_is_escaped_is_escaped_again() {
    assert_eq!(canonical_path("/runtimes/arn%3Aaws%3Ax/invocations"), "/runtimes/arn%253Aaws%253Ax/invocations");
    assert_eq!(canonical_path("/a:b"), "/a%3Ab");
}

#[test]
fn a_query_is_escaped_once_however_it_is_written() {
    for (query, canonical) in [
        ("qualifier=DEFAULT", "qualifier=DEFAULT"),
        ("b&a=%2f:%zz&a=%2", "a=%252&a=%2F%3A%25zz&b="),
        ("&&x=a=b", "x=a%3Db"),
    ] {
        let url = Url::parse(&format!("https://example.amazonaws.com/?{query}")).unwrap();
        assert_eq!(canonical_query(&url), canonical);
    }
}

#[test]
fn the_day_is_that_of_the_calendar() {
    for (seconds, text) in [
        (0, "19700101T000000Z"),
        (951_782_399, "20000228T235959Z"),
        (951_782_400, "20000229T000000Z"),
        (951_868_800, "20000301T000000Z"),
        (1_709_164_800, "20240229T000000Z"),
        (1_735_689_599, "20241231T235959Z"),
        (4_107_542_400, "21000301T000000Z"),
    ] {
        assert_eq!(civil::basic(Timestamp::from_millis(seconds * 1_000)), text);
    }
}

#[test]
fn a_port_that_is_sent_is_signed() {
    for (url, host) in [
        ("https://a.example/", "a.example"),
        ("https://a.example:443/", "a.example"),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080"),
        ("http://[::1]:81/", "[::1]:81"),
    ] {
        assert_eq!(host_of(&Url::parse(url).unwrap()).as_deref(), Some(host));
    }
}
