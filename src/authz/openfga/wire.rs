//! The answer to `BatchCheck` as it is on the wire, accounted for strictly.

use std::sync::Arc;

use openfga_client::client::{
    BatchCheckRequest, CheckError, ContextualTupleKeys, ErrorCode, InternalErrorCode, RelationshipCondition, TupleKey,
    check_error,
};
use openfga_client::prost_wkt_types::Struct;
use prost::Message;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status, TimeoutExpired};
use tonic_prost::ProstCodec;

use super::MESSAGE_BYTES_MAX;
use crate::authz::decider::{Answered, Outcome};
use crate::authz::{AuthzError, Check, Source};
use crate::backend::{BackendChannel, is_of_the_connection};
use crate::engine::Contextual;
use crate::language::RelationshipTuple;

const BATCH_CHECK: &str = "/openfga.v1.OpenFGAService/BatchCheck";
/// How `OpenFGA` begins what it says of a condition that cannot be evaluated.
const CONDITION_FAILED: &str = "failed to evaluate relationship condition: ";

/// `BatchCheckResponse`. The generated type reads the results into a map, in which the second of two answers to one
/// question silently replaces the first; as a list, both are seen.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchCheckAnswer {
    #[prost(message, repeated, tag = "1")]
    pub(super) results: Vec<ResultEntry>,
}

/// One entry of the map `result`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ResultEntry {
    #[prost(string, tag = "1")]
    pub(super) correlation_id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) result: Option<SingleResult>,
}

/// `BatchCheckSingleResult`, with the two sides of its `oneof` apart for the same reason.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SingleResult {
    #[prost(bool, optional, tag = "1")]
    pub(super) allowed: Option<bool>,
    #[prost(message, optional, tag = "2")]
    pub(super) error: Option<CheckError>,
}

/// Calls `BatchCheck`.
pub(super) async fn batch_check(
    channel: BackendChannel,
    request: Request<BatchCheckRequest>,
) -> Result<BatchCheckAnswer, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let codec = ProstCodec::<BatchCheckRequest, BatchCheckAnswer>::default();
    let response = grpc.unary(request, PathAndQuery::from_static(BATCH_CHECK), codec).await?;
    Ok(response.into_inner())
}

/// A tuple as it is sent.
pub(super) fn tuple_key(tuple: &RelationshipTuple) -> Result<TupleKey, AuthzError> {
    let condition = tuple.condition.as_ref().map(|condition| {
        let context = serde_json::from_str(condition.context_json());
        let context = context.map_err(|e| AuthzError::Refused(format!("tuple `{tuple}`: its context: {e}")))?;
        Ok(RelationshipCondition { name: condition.name().to_owned(), context: Some(context) })
    });
    Ok(TupleKey {
        user: tuple.user.to_string(),
        relation: tuple.relation.to_string(),
        object: tuple.object.to_string(),
        condition: condition.transpose()?,
    })
}

/// What a request adds to the stored relationships, as it is sent.
pub(super) type SentContextual = (Option<ContextualTupleKeys>, Option<Struct>);

/// Makes the contextual part, unless `known` is the same already.
pub(super) fn contextual<'a>(
    known: &mut Option<(&'a Arc<Contextual>, SentContextual)>,
    contextual: &'a Arc<Contextual>,
) -> Result<SentContextual, AuthzError> {
    match known {
        Some((same, sent)) if Arc::ptr_eq(same, contextual) => Ok(sent.clone()),
        Some(_) | None => {
            let sent = new_contextual(contextual)?;
            *known = Some((contextual, sent.clone()));
            Ok(sent)
        }
    }
}

/// The same for one request.
pub(super) fn new_contextual(contextual: &Contextual) -> Result<SentContextual, AuthzError> {
    let tuple_keys: Vec<TupleKey> = contextual.tuples.iter().map(tuple_key).collect::<Result<_, _>>()?;
    let tuples = (!tuple_keys.is_empty()).then_some(ContextualTupleKeys { tuple_keys });
    if contextual.context.is_empty() {
        return Ok((tuples, None));
    }
    let context = serde_json::from_value(contextual.context.clone().into());
    Ok((tuples, Some(context.map_err(|e| AuthzError::Refused(format!("the context of the request: {e}")))?)))
}

/// One outcome for each of the checks that were `sent`, each under its position as correlation id, in rising order.
///
/// INVARIANT (one answer each): every id comes back exactly once with either a decision or an error; anything else fails
/// the whole call. Of the errors, three are denials to the port: no such type or relation, too deep to decide, and a
/// condition that cannot be evaluated. They are about the one object; all others are about the request or the server.
pub(super) fn account(
    sent: &[(usize, &Check)],
    as_of: Instant,
    answer: BatchCheckAnswer,
) -> Result<Vec<Answered>, AuthzError> {
    let mut answers = Vec::with_capacity(sent.len());
    let mut answered = vec![false; sent.len()];
    for entry in answer.results {
        let id = entry.correlation_id;
        let unknown = || AuthzError::BadAnswer(format!("it answered `{id}`, which was not asked"));
        let position = position(&id).ok_or_else(unknown)?;
        let Ok(index) = sent.binary_search_by_key(&position, |(position, _)| *position) else { return Err(unknown()) };
        let ((_, check), answered) = sent.get(index).zip(answered.get_mut(index)).ok_or_else(unknown)?;
        if std::mem::replace(answered, true) {
            return Err(AuthzError::BadAnswer(format!("it answered `{id}` twice")));
        }
        let outcome = match entry.result.map(|result| (result.allowed, result.error)) {
            Some((Some(allowed), None)) => Outcome::Decided { allowed, as_of, source: Source::Authority },
            Some((None, Some(error))) if absent_from_model(&error, check) => {
                Outcome::Decided { allowed: false, as_of, source: Source::Authority }
            }
            Some((None, Some(error))) if too_complex(&error) || condition_failed(&error) => {
                tracing::debug!(object = %check.object, detail = error.message, "not decided");
                tracing::warn!(relation = %check.relation, "not decided, so denied; object and reason are told at debug");
                Outcome::Undecidable
            }
            Some((None, Some(error))) => Outcome::Failed(item_failed(&error)),
            Some((Some(_), Some(_)) | (None, None)) | None => {
                return Err(AuthzError::BadAnswer(format!("its answer to `{id}` is not a decision")));
            }
        };
        answers.push(Answered { position, outcome });
    }
    if answers.len() != sent.len() {
        let counts = format!("it answered {} of {} checks", answers.len(), sent.len());
        return Err(AuthzError::BadAnswer(counts));
    }
    Ok(answers)
}

/// The position that an id of ours stands for. Other ways to write the same number (`+1`, `01`) are not ours.
fn position(id: &str) -> Option<usize> {
    let position: usize = id.parse().ok()?;
    (position.to_string() == id).then_some(position)
}

/// Whether the server says that it can never decide this, for the depth of the relationships: see the port.
fn too_complex(error: &CheckError) -> bool {
    error.code == Some(check_error::Code::InputError(ErrorCode::AuthorizationModelResolutionTooComplex.into()))
}

/// Whether the server says that a condition on the way cannot be evaluated, because a value is missing or is of no use. It
/// sends the code for this that it sends for a malformed request, so the text decides; worded differently, the check fails.
fn condition_failed(error: &CheckError) -> bool {
    error.code == Some(check_error::Code::InputError(ErrorCode::ValidationError.into()))
        && error.message.starts_with(CONDITION_FAILED)
}

/// Whether the server says that the model lacks the user's type, the object's type or the relation: it is then denied.
///
/// The server sends one code for this and for several other errors, so the text decides. It must name exactly what was
/// asked; when a later server words it differently, the check fails, which is safe.
fn absent_from_model(error: &CheckError, check: &Check) -> bool {
    let codes = [ErrorCode::ValidationError, ErrorCode::TypeNotFound, ErrorCode::RelationNotFound];
    let expected_code = match error.code {
        Some(check_error::Code::InputError(code)) => codes.iter().any(|expected| *expected as i32 == code),
        Some(check_error::Code::InternalError(_)) | None => false,
    };
    let text = error.message.strip_prefix("invalid relation: ").unwrap_or(&error.message);
    let (user_type, object_type) = (check.user.type_name(), check.object.type_name());
    expected_code
        && [
            format!("type '{user_type}' not found"),
            format!("type '{object_type}' not found"),
            format!("relation '{object_type}#{}' not found", check.relation),
        ]
        .contains(&text.to_owned())
}

fn item_failed(error: &CheckError) -> AuthzError {
    let message = error.message.clone();
    match error.code {
        Some(check_error::Code::InputError(code)) => match ErrorCode::try_from(code) {
            Ok(_) | Err(_) if message.starts_with("throttled") => AuthzError::Unavailable(message),
            Ok(_) | Err(_) => AuthzError::Refused(message),
        },
        Some(check_error::Code::InternalError(code)) => match InternalErrorCode::try_from(code) {
            Ok(InternalErrorCode::DeadlineExceeded) => AuthzError::DeadlineExceeded,
            Ok(_) | Err(_) => AuthzError::Unavailable(message),
        },
        None => AuthzError::BadAnswer(format!("an error without a code: {message}")),
    }
}

/// What `OpenFGA` says to a batch that is too large: `batchCheck received 51 checks, the maximum allowed is 50`.
fn too_many_checks(message: &str) -> Option<AuthzError> {
    let (_, maximum) = message.strip_prefix("batchCheck received ")?.split_once(" checks, the maximum allowed is ")?;
    Some(AuthzError::TooManyChecks { checks_max: maximum.trim().parse().ok() })
}

/// Whether the message had too many bytes, as a server in Go says it or one in Rust.
fn too_large(status: &Status) -> bool {
    let says = |beginning| status.message().starts_with(beginning);
    status.code() == Code::ResourceExhausted && says("grpc: received message larger than max")
        || status.code() == Code::OutOfRange && says("Error, decoded message length too large")
}

/// Why a call failed, by what can be done about it.
pub(super) fn failed(status: &Status) -> AuthzError {
    let message = status.message().to_owned();
    if let Some(too_many) = too_many_checks(&message) {
        return too_many;
    }
    if too_large(status) {
        return AuthzError::MessageTooLarge(message);
    }
    // tonic reports a passed `grpc-timeout` as cancelled, and a connection that broke as well.
    if status.code() == Code::Cancelled && message == TimeoutExpired(()).to_string() {
        return AuthzError::DeadlineExceeded;
    }
    if is_of_the_connection(status) {
        return AuthzError::Unavailable(message);
    }
    match status.code() {
        Code::DeadlineExceeded => AuthzError::DeadlineExceeded,
        Code::Cancelled
        | Code::Unavailable
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => AuthzError::Unavailable(message),
        Code::Ok | Code::OutOfRange => AuthzError::BadAnswer(message),
        // `OpenFGA` numbers its own codes from 2000, which tonic cannot tell apart; the texts of those that are not about
        // the question are fixed.
        Code::Unknown => match message.as_str() {
            "Request Deadline Exceeded" | "Request Cancelled" => AuthzError::DeadlineExceeded,
            "Internal Server Error" | "timeout due to throttling on complex request" => {
                AuthzError::Unavailable(message)
            }
            _ => AuthzError::Refused(message),
        },
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Unauthenticated => AuthzError::Refused(message),
    }
}

#[cfg(test)]
mod tests;
