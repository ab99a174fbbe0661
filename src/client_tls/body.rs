//! Reads the bodies of HTTP answers, which others send, within a bound.

use reqwest::Response;

/// The reason why a body was not read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The connection broke, or the time was over.
    Lost(reqwest::Error),
    /// The body has more bytes than its reader takes.
    TooLarge,
}

/// Reads the body of an answer, which has at most `bytes_max` bytes.
///
/// # Errors
/// When the body does not arrive, or is larger.
pub(crate) async fn bounded_body(mut answer: Response, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(BodyError::Lost)? {
        if bytes.len() + piece.len() > bytes_max {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
