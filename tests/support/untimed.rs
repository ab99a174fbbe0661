//! Takes out of answers what differs between equal ones: the consistency token, which holds the moment of the answer.

use ragward::proto::retrieval::{FetchResponse, RecheckResponse, RetrieveResponse};

/// The length of every consistency token: 41 bytes in base64.
const TOKEN_LENGTH: usize = 55;

/// An answer that is compared with another one.
pub(crate) trait Untimed {
    /// Takes out the consistency token. Everything else stays.
    fn untimed(self) -> Self;
}

impl Untimed for RetrieveResponse {
    fn untimed(self) -> Self {
        Self { consistency_token: untimed(&self.consistency_token), ..self }
    }
}

impl Untimed for RecheckResponse {
    fn untimed(self) -> Self {
        Self { consistency_token: untimed(&self.consistency_token), ..self }
    }
}

impl Untimed for FetchResponse {
    fn untimed(self) -> Self {
        Self { consistency_token: untimed(&self.consistency_token), ..self }
    }
}

/// Checks the token of an answer, and returns what stands in its place.
fn untimed(token: &str) -> String {
    assert_eq!(token.len(), TOKEN_LENGTH, "an answer has a token, and all tokens have one length");
    String::new()
}
