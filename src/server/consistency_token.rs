//! The consistency token of every answer and of every refusal.
//!
//! It travels as metadata, because `OpenFGA`'s messages have no place for it. Ragward's own messages that somebody may want
//! to wait for hold it as well, for clients that do not see metadata.
//!
//! INVARIANT (one token): the metadata of an answer has the token of its message, if the message holds one. All tokens have
//! one length, so equal answers have equal lengths.

use std::sync::Arc;

use tonic::Response;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderValue};

use super::refusal::Refusal;
use crate::authz::consistency_token::ConsistencyTokens;
use crate::proto::{ingest, retrieval};

/// The name of the metadata that carries the token.
pub(crate) const HEADER: &str = "ragward-consistency-token";

/// A message that holds the token of its answer.
pub(super) trait HoldsToken {
    fn consistency_token(&self) -> &str;
}

impl HoldsToken for retrieval::RetrieveResponse {
    fn consistency_token(&self) -> &str {
        &self.consistency_token
    }
}

impl HoldsToken for retrieval::RecheckResponse {
    fn consistency_token(&self) -> &str {
        &self.consistency_token
    }
}

impl HoldsToken for retrieval::FetchResponse {
    fn consistency_token(&self) -> &str {
        &self.consistency_token
    }
}

impl HoldsToken for ingest::UpsertDocumentsResponse {
    fn consistency_token(&self) -> &str {
        &self.consistency_token
    }
}

impl HoldsToken for ingest::DeleteDocumentsResponse {
    fn consistency_token(&self) -> &str {
        &self.consistency_token
    }
}

/// The token that the message of an answer holds, on its way to [`stamp`].
#[derive(Clone)]
struct TokenOfMessage(HeaderValue);

/// Makes the answer of a message that holds a token.
pub(super) fn answer<A: HoldsToken>(message: A) -> Response<A> {
    // A token is made of letters, digits, `-` and `_`, which are always a header's value.
    let token = HeaderValue::from_str(message.consistency_token()).ok();
    let mut response = Response::new(message);
    if let Some(token) = token {
        response.extensions_mut().insert(TokenOfMessage(token));
    }
    response
}

/// Puts a consistency token on each answer and refusal as soon as it is ready: the one that its message holds, or a new one.
/// The token covers everything that the call wrote, because that was written before.
pub(super) fn stamp(
    tokens: Arc<ConsistencyTokens>,
) -> impl Fn(Result<http::Response<Body>, Refusal>) -> Result<http::Response<Body>, Refusal> + Clone + Send + Sync {
    move |answered| {
        let new = || HeaderValue::from_str(&tokens.issue()).ok();
        match answered {
            Ok(mut answer) => {
                let told = answer.extensions_mut().remove::<TokenOfMessage>().map(|TokenOfMessage(token)| token);
                if let Some(token) = told.or_else(new) {
                    answer.headers_mut().insert(HEADER, token);
                }
                Ok(answer)
            }
            Err(refusal) => Err(refusal.with_consistency_token(new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_message_have_one_token() {
        let tokens = Arc::new(ConsistencyTokens::new().unwrap());
        let held = tokens.issue();
        let response = answer(retrieval::RecheckResponse {
            consistency_token: held.clone(),
            ..retrieval::RecheckResponse::default()
        });
        let mut http = http::Response::new(Body::empty());
        *http.extensions_mut() = response.extensions().clone();
        let stamped = stamp(Arc::clone(&tokens))(Ok(http)).unwrap();
        assert_eq!(stamped.headers()[HEADER], held);
        assert!(stamped.extensions().is_empty());

        let stamped = stamp(Arc::clone(&tokens))(Ok(http::Response::new(Body::empty()))).unwrap();
        let new = stamped.headers()[HEADER].to_str().unwrap();
        assert!(tokens.moment(new).is_ok());
        assert_eq!(new.len(), held.len());
    }
}
