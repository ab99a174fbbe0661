//! The access token that a command shows to a server. It is never a command-line argument, because every process of the
//! machine can read those.

use std::path::Path;

use super::ConfigError;
use crate::settings::{Secret, SecretFile};

/// The environment variable that may hold the token.
pub(super) const VARIABLE: &str = "RAGWARD_TOKEN";

/// Reads the access token from a file, or from the variable `RAGWARD_TOKEN` if no file is named. Returns `None` if
/// there is neither.
///
/// # Errors
/// When the file cannot be read, or the file or the variable is empty. Without its token, the request would be made as
/// somebody else.
pub fn access_token(file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let (token, from) = match file {
        Some(file) => (SecretFile::new(file).read()?, file.display().to_string()),
        None => match std::env::var_os(VARIABLE) {
            // A variable that is not UTF-8 counts as empty.
            Some(value) => (Secret::new(value.into_string().unwrap_or_default().trim_end()), VARIABLE.to_owned()),
            None => return Ok(None),
        },
    };
    if token.expose().is_empty() {
        return Err(ConfigError::Invalid(format!("`{from}` holds no access token")));
    }
    Ok(Some(token))
}
