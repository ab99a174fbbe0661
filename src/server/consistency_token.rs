//! The consistency token of every answer.
//!
//! It travels as metadata and not in the messages: `OpenFGA`'s have no place for it, and equal answers stay equal bytes.

use std::sync::Arc;

use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Response};

use crate::authz::consistency_token::ConsistencyTokens;

/// The name of the metadata.
pub(crate) const HEADER: &str = "ragward-consistency-token";

/// Puts the token of the moment on an answer, once it is ready: whatever was written for it was written before.
pub(super) fn adding(tokens: Arc<ConsistencyTokens>) -> impl Fn(Response<Body>) -> Response<Body> + Clone + Send {
    move |mut response| {
        // Letters, digits, `-` and `_` are always a header's value.
        if let Ok(token) = HeaderValue::from_str(&tokens.issue()) {
            response.headers_mut().insert(HEADER, token);
        }
        response
    }
}
