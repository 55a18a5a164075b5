//! Logs, and where traces go: the standard variables of OpenTelemetry say that, as they do for every other program.

use std::time::Duration;

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use url::Url;

use super::ConfigError;
use super::secret::setting;

/// How long the collector may take, where nothing else is said.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The one protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";

/// Logs and traces.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// `text` for people, `json` for machines.
    pub log_format: LogFormat,
    /// What is logged, in the syntax of `RUST_LOG`.
    pub log: String,
    /// Where traces go; from the environment only, and nowhere if that says nothing.
    #[serde(skip)]
    pub traces: Option<OtlpConfig>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, log: "info".to_owned(), traces: None }
    }
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line.
    Text,
    /// One JSON object a line.
    Json,
}

/// A collector that takes traces by OTLP, as protobuf over HTTP.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// Where it takes them.
    pub url: Url,
    /// What proves us there, marked as secret.
    pub headers: HeaderMap,
    /// How long it may take.
    pub timeout: Duration,
    /// What this process is called there, if it is not its usual name.
    pub service: Option<String>,
}

impl OtlpConfig {
    /// A collector at that address.
    pub fn at(url: Url) -> Self {
        Self { url, headers: HeaderMap::new(), timeout: EXPORT_TIMEOUT, service: None }
    }

    /// The one that the environment names, if it names one.
    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
    pub fn from_environment() -> Result<Option<Self>, ConfigError> {
        Self::of(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ConfigError> {
        let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").as_deref() == Some("none");
        // What is said of traces wins.
        let said = |end: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{end}"), format!("OTEL_EXPORTER_OTLP_{end}")];
            names.into_iter().find_map(|name| variable(&name).map(|value| (name, value)))
        };
        let Some((name, address)) = said("ENDPOINT").filter(|_| !is_off) else { return Ok(None) };
        let is_whole = name.contains("TRACES");
        let address = if is_whole { address } else { format!("{}/v1/traces", address.trim_end_matches('/')) };
        let url = Url::parse(&address).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let url = url.ok_or_else(|| setting(name, "must be an address such as http://localhost:4318"))?;
        if let Some((name, _)) = said("PROTOCOL").filter(|(_, protocol)| protocol != PROTOCOL) {
            return Err(setting(name, format!("must be `{PROTOCOL}`, which is all that mcp-mux speaks")));
        }
        let headers = said("HEADERS").map(|(name, text)| headers(&text).ok_or(name)).transpose();
        let headers = headers.map_err(|name| setting(name, "must be pairs such as `api-key=VALUE,other=VALUE`"))?;
        let timeout = said("TIMEOUT").map(|(name, text)| text.parse().map_err(|_| name)).transpose();
        let timeout = timeout.map_err(|name| setting(name, "must be a number of milliseconds"))?;
        let timeout = timeout.map_or(EXPORT_TIMEOUT, Duration::from_millis);
        Ok(Some(Self { url, headers: headers.unwrap_or_default(), timeout, service: variable("OTEL_SERVICE_NAME") }))
    }
}

/// `name=value` pairs with commas between them, the values percent-encoded.
fn headers(text: &str) -> Option<HeaderMap> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let headers = pairs.map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
    });
    headers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<OtlpConfig>, String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        OtlpConfig::of(variable).map_err(|error| error.to_string())
    }

    fn url(variables: &[(&str, &str)]) -> Option<String> {
        read(variables).unwrap().map(|config| config.url.to_string())
    }

    #[test]
    fn traces_go_where_the_standard_variables_say_and_nowhere_by_default() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector.example/own");
        assert_eq!(url(&[]), None);
        assert_eq!(url(&[endpoint]).as_deref(), Some("http://collector:4318/v1/traces"));
        assert_eq!(url(&[endpoint, traces]).as_deref(), Some("https://collector.example/own"));
        assert_eq!(url(&[endpoint, ("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(url(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), None);
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x-tenant=ours");
        let read_whole = read(&[endpoint, headers, ("OTEL_EXPORTER_OTLP_TIMEOUT", "500")]).unwrap().unwrap();
        assert_eq!((&read_whole.headers["api-key"], read_whole.timeout.as_millis()), (&"a b".parse().unwrap(), 500));
        assert!(!format!("{read_whole:?}").contains("a b"), "what proves us is not printed");
    }

    #[test]
    fn what_cannot_work_names_its_variable() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "SECRET"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ] {
            let error = read(&[endpoint, (name, value)]).unwrap_err();
            assert!(error.contains(name) && !error.contains("SECRET"), "{error}");
        }
    }
}
