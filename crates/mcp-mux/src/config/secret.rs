//! Secrets of the process: in the setting itself or, better, in a file that it names. Never in a message.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::ConfigError;

const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The secret that `name` or `name_file` holds; exactly one of the two.
pub(super) fn resolve(
    name: &str,
    inline: Option<&SecretString>,
    file: Option<&PathBuf>,
) -> Result<SecretString, ConfigError> {
    match (inline, file) {
        (Some(secret), None) => Ok(secret.clone()),
        (None, Some(file)) => read(&format!("{name}_file"), file),
        (Some(_), Some(_)) => Err(setting(name, "is there twice, once as a `_file`: keep one")),
        (None, None) => Err(setting(name, "is missing; so is its `_file`, which is the better place")),
    }
}

/// The text of a file, without the white space around it.
pub(super) fn read(setting: &str, path: &Path) -> Result<SecretString, ConfigError> {
    let failed = |source| ConfigError::File { setting: setting.to_owned(), path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > SECRET_FILE_BYTES_MAX {
        let problem = format!("names {}, which is too long to hold a secret", path.display());
        return Err(self::setting(setting, problem));
    }
    let text = SecretString::from(std::fs::read_to_string(path).map_err(failed)?);
    Ok(SecretString::from(text.expose_secret().trim()))
}

/// An error about a setting.
pub(super) fn setting(setting: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Setting { setting: setting.into(), problem: problem.into() }
}
