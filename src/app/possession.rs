//! Makes the checks of proofs that come with tokens which are bound to a key, from the configuration.

use super::AppError;
use crate::identity::NonceKey;
use crate::identity::config::{IdentityConfig, ProofNonces};
use crate::server::{Nonces, Possession};

/// Makes the checks of proofs.
///
/// # Errors
/// When the secret of nonces cannot be used, or there is one and nobody looks at nonces.
pub(super) fn of(identity: &IdentityConfig) -> Result<Possession, AppError> {
    Ok(Possession::new(identity.leeway.as_secs(), nonces(identity)?))
}

/// Makes the nonces that proofs have to repeat.
fn nonces(identity: &IdentityConfig) -> Result<Nonces, AppError> {
    let setting = "`identity.dpop.nonce_key_file`";
    match (identity.dpop.nonces, &identity.dpop.nonce_key_file) {
        (ProofNonces::Unused, None) => Ok(Nonces::Unused),
        (ProofNonces::Unused, Some(_)) => Err(AppError::Identity(format!(
            "{setting} has no effect with `identity.dpop.nonces = \"unused\"`: leave one of them out"
        ))),
        (ProofNonces::Required, None) => {
            NonceKey::random().map(Nonces::Own).map_err(|error| AppError::Identity(error.to_string()))
        }
        (ProofNonces::Required, Some(file)) => {
            Nonces::shared(file).map_err(|error| AppError::Identity(format!("{setting}: {error}")))
        }
    }
}
