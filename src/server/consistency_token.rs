//! The consistency token of every answer and of every refusal in gRPC.
//!
//! It travels as metadata and not in the messages: `OpenFGA`'s messages have no place for it, and equal answers stay equal
//! bytes.

use std::sync::Arc;

use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Response};

use super::refusal::Refusal;
use crate::authz::consistency_token::ConsistencyTokens;

/// The name of the metadata that carries the token.
pub(crate) const HEADER: &str = "ragward-consistency-token";

/// Puts a consistency token on each answer and refusal as soon as it is ready. The token covers everything that the
/// call wrote, because that was written before.
pub(super) fn stamp(
    tokens: Arc<ConsistencyTokens>,
) -> impl Fn(Result<Response<Body>, Refusal>) -> Result<Response<Body>, Refusal> + Clone + Send + Sync {
    move |answered| {
        // A token is made of letters, digits, `-` and `_`, which are always a header's value.
        let token = HeaderValue::from_str(&tokens.issue()).ok();
        match answered {
            Ok(mut answer) => {
                if let Some(token) = token {
                    answer.headers_mut().insert(HEADER, token);
                }
                Ok(answer)
            }
            Err(refusal) => Err(refusal.with_consistency_token(token)),
        }
    }
}
