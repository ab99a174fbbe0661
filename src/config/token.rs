//! The access token that a command shows to a server. Never an argument: those are seen by every process of the machine.

use std::path::Path;

use super::{ConfigError, read_secret};

/// The variable that holds it.
pub(super) const VARIABLE: &str = "RAGWARD_TOKEN";

/// The token from a file, or else from the variable `RAGWARD_TOKEN`; `None` without both.
///
/// # Errors
/// When the file cannot be read, or what holds the token is empty: without it, the request would be somebody else's.
pub fn access_token(file: Option<&Path>) -> Result<Option<String>, ConfigError> {
    let (token, from) = match file {
        Some(file) => (read_secret(file)?, file.display().to_string()),
        None => match std::env::var_os(VARIABLE) {
            Some(value) => (value.into_string().ok().map(|text| text.trim_end().to_owned()), VARIABLE.to_owned()),
            None => return Ok(None),
        },
    };
    let token = token.filter(|token| !token.is_empty());
    token.map(Some).ok_or_else(|| ConfigError::Invalid(format!("`{from}` holds no access token")))
}
