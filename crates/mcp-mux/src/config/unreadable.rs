//! What is wrong with a configuration that cannot be read, without anything of what it says: the values around a mistake may be
//! keys and passwords, and an error goes into logs.

use config::ConfigError;

/// The place and the kind of the mistake.
pub(super) fn words(error: &ConfigError) -> String {
    match error {
        ConfigError::FileParse { cause, .. } => {
            // The library goes on with the line itself.
            let text = cause.to_string();
            let place = text.lines().next().and_then(|line| line.split_once(" at ")).map(|(_, place)| place);
            format!("it is no TOML{}", place.map(|place| format!(", at {place}")).unwrap_or_default())
        }
        ConfigError::Type { expected, key, .. } => format!("{}expected {expected}", place_of(key.as_ref())),
        ConfigError::At { error, key, .. } => format!("{}{}", place_of(key.as_ref()), words(error)),
        ConfigError::Message(text) => without_value(text),
        ConfigError::NotFound(key) => format!("`{key}` is missing"),
        _ => "it cannot be read".to_owned(),
    }
}

fn place_of(key: Option<&String>) -> String {
    key.map(|key| format!("`{key}`: ")).unwrap_or_default()
}

/// serde quotes a value of the wrong type; what it expected is enough.
fn without_value(text: &str) -> String {
    let quotes = text.starts_with("invalid type:") || text.starts_with("invalid value:");
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if quotes => format!("expected {expected}"),
        _ if quotes => "a value is of the wrong kind".to_owned(),
        _ => text.to_owned(),
    }
}
