//! The access token that a command shows to a server. It is never an argument: every process of the machine can see those.

use std::path::Path;

use super::ConfigError;
use crate::settings::{Secret, SecretFile};

/// The environment variable that may hold the token.
pub(super) const VARIABLE: &str = "RAGWARD_TOKEN";

/// Reads the access token from a file, or from the variable `RAGWARD_TOKEN` if no file is named. Returns `None` without
/// both.
///
/// # Errors
/// When the file cannot be read, or the file or variable is empty. Going on without a token would make the request as
/// somebody else.
pub fn access_token(file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let (token, from) = match file {
        Some(file) => (SecretFile::new(file).read()?, file.display().to_string()),
        None => match std::env::var_os(VARIABLE) {
            // A variable that is not UTF-8 is no token either.
            Some(value) => (Secret::new(value.into_string().unwrap_or_default().trim_end()), VARIABLE.to_owned()),
            None => return Ok(None),
        },
    };
    if token.expose().is_empty() {
        return Err(ConfigError::Invalid(format!("`{from}` holds no access token")));
    }
    Ok(Some(token))
}
