//! `BatchCheckResponse` as a list, so that it can hold one id twice, which its map cannot.

use openfga_client::client::CheckError;
use openfga_client::client::check_error::Code::{InputError, InternalError};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reply {
    #[prost(message, repeated, tag = "1")]
    pub(crate) results: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) result: Option<Decision>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Decision {
    #[prost(bool, optional, tag = "1")]
    pub(crate) allowed: Option<bool>,
    #[prost(message, optional, tag = "2")]
    pub(crate) error: Option<CheckError>,
}

impl Decision {
    pub(crate) fn of(allowed: bool) -> Self {
        Self { allowed: Some(allowed), error: None }
    }

    /// Returns the error of one check. Codes below 4,000 are the caller's, all others the server's.
    pub(crate) fn failed(code: i32, message: &str) -> Self {
        let code = if code < 4_000 { InputError(code) } else { InternalError(code) };
        Self { allowed: None, error: Some(CheckError { message: message.to_owned(), code: Some(code) }) }
    }
}
