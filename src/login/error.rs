//! The reasons why nobody is logged in. None of them holds a token, a code or the body of an answer.

/// The reason why a login failed, or why a stored login cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// The command, or what a server or an issuer says of itself, is wrong.
    #[error("{0}")]
    Setup(String),
    /// The person or the issuer said no.
    #[error("{0}")]
    Refused(String),
    /// The server or the issuer did not answer in time.
    #[error("{0}")]
    Unreachable(String),
    /// The file of the tokens cannot be used.
    #[error("{0}")]
    File(String),
}
