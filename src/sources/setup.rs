//! The reasons why sources cannot be asked as configured.

use crate::client_tls::CaFileError;

/// The reason why a source cannot be asked as configured.
#[derive(Debug, thiserror::Error)]
pub enum SourceSetupError {
    /// A setting of a source cannot be used.
    #[error("{0}")]
    Setting(String),
    /// A file of authorities cannot be used.
    #[error(transparent)]
    CaFile(#[from] CaFileError),
    /// One source cannot be asked.
    #[error("source `{name}`: {error}")]
    Source {
        /// The name of the source.
        name: String,
        /// The reason, which names the setting.
        error: Box<SourceSetupError>,
    },
}
