//! Reads the answer to `BatchCheck` from the wire, and makes sure that it answers every question exactly once.

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
use crate::authz::decider::{NumberedOutcome, Outcome};
use crate::authz::{AuthzError, Check, Source};
use crate::backend::{BackendChannel, is_of_the_connection};
use crate::engine::Contextual;
use crate::language::RelationshipTuple;

const BATCH_CHECK: &str = "/openfga.v1.OpenFGAService/BatchCheck";
/// The beginning of the message by which `OpenFGA` reports a condition that cannot be evaluated.
const CONDITION_FAILED: &str = "failed to evaluate relationship condition: ";

/// The message `BatchCheckResponse`. The generated type reads the results into a map, where the second of two answers
/// to one question silently replaces the first. A list keeps both, so that [`account`] finds them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchCheckAnswer {
    #[prost(message, repeated, tag = "1")]
    pub(super) results: Vec<ResultEntry>,
}

/// One entry of the message's map `result`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ResultEntry {
    #[prost(string, tag = "1")]
    pub(super) correlation_id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) result: Option<SingleResult>,
}

/// The message `BatchCheckSingleResult`. The two sides of its `oneof` are two fields, so that an answer with both is seen.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SingleResult {
    #[prost(bool, optional, tag = "1")]
    pub(super) allowed: Option<bool>,
    #[prost(message, optional, tag = "2")]
    pub(super) error: Option<CheckError>,
}

/// Makes one call of `BatchCheck`.
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

/// Makes the message of a tuple.
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

/// The messages that hold what a request adds to the stored relationships.
pub(super) type SentContextual = (Option<ContextualTupleKeys>, Option<Struct>);

/// Makes the messages of a contextual part, or takes them from `known` if they were made for the same part.
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

/// Makes the messages of a contextual part.
pub(super) fn new_contextual(contextual: &Contextual) -> Result<SentContextual, AuthzError> {
    let tuple_keys: Vec<TupleKey> = contextual.tuples.iter().map(tuple_key).collect::<Result<_, _>>()?;
    let tuples = (!tuple_keys.is_empty()).then_some(ContextualTupleKeys { tuple_keys });
    if contextual.context.is_empty() {
        return Ok((tuples, None));
    }
    let context = serde_json::from_value(contextual.context.clone().into());
    Ok((tuples, Some(context.map_err(|e| AuthzError::Refused(format!("the context of the request: {e}")))?)))
}

/// Returns one outcome for each of the `sent` checks. The checks are in rising order of their positions, which are the
/// correlation ids.
///
/// INVARIANT (one answer each): every id comes back exactly once, with either a decision or an error. Anything else
/// fails the whole call.
///
/// Three errors are about the one object, and deny it: the model lacks the type or relation, the relationships are too
/// deep, or a condition cannot be evaluated. All other errors fail the request. They are about the request itself (its
/// user, its context) or about the server (late, throttled, an internal error), and an error of the server cannot be
/// told from an outage.
pub(super) fn account(
    sent: &[(usize, &Check)],
    as_of: Instant,
    answer: BatchCheckAnswer,
) -> Result<Vec<NumberedOutcome>, AuthzError> {
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
                tracing::warn!(relation = %check.relation, "denied, because it could not be decided; the debug log has the object and the reason");
                Outcome::Undecidable
            }
            Some((None, Some(error))) => Outcome::Failed(item_failed(&error)),
            Some((Some(_), Some(_)) | (None, None)) | None => {
                return Err(AuthzError::BadAnswer(format!("its answer to `{id}` is not a decision")));
            }
        };
        answers.push(NumberedOutcome { position, outcome });
    }
    if answers.len() != sent.len() {
        let counts = format!("it answered {} of {} checks", answers.len(), sent.len());
        return Err(AuthzError::BadAnswer(counts));
    }
    Ok(answers)
}

/// Returns the position that one of our correlation ids stands for. Other spellings of the same number (`+1`, `01`) are not
/// ours.
fn position(id: &str) -> Option<usize> {
    let position: usize = id.parse().ok()?;
    (position.to_string() == id).then_some(position)
}

/// Returns whether the server says that it can never decide this, because the relationships are too deep.
fn too_complex(error: &CheckError) -> bool {
    error.code == Some(check_error::Code::InputError(ErrorCode::AuthorizationModelResolutionTooComplex.into()))
}

/// Returns whether the server says that a condition on the way cannot be evaluated, because a value is missing or has
/// the wrong type. The server sends the code of a malformed request for this, so the text decides. If a later server
/// words it differently, the check fails, which is safe.
fn condition_failed(error: &CheckError) -> bool {
    error.code == Some(check_error::Code::InputError(ErrorCode::ValidationError.into()))
        && error.message.starts_with(CONDITION_FAILED)
}

/// Returns whether the server says that the model lacks the user's type, the object's type or the relation. Then the
/// check is denied.
///
/// The server sends the same code for several other errors, so the text decides. It must name exactly what was asked.
/// If a later server words it differently, the check fails, which is safe.
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

/// Parses `OpenFGA`'s message about too many checks: `batchCheck received 51 checks, the maximum allowed is 50`.
fn too_many_checks(message: &str) -> Option<AuthzError> {
    let (_, maximum) = message.strip_prefix("batchCheck received ")?.split_once(" checks, the maximum allowed is ")?;
    Some(AuthzError::TooManyChecks { checks_max: maximum.trim().parse().ok() })
}

/// Returns whether the status says that the message had too many bytes, in the words of a server in Go or in Rust.
fn too_large(status: &Status) -> bool {
    let says = |beginning| status.message().starts_with(beginning);
    status.code() == Code::ResourceExhausted && says("grpc: received message larger than max")
        || status.code() == Code::OutOfRange && says("Error, decoded message length too large")
}

/// Turns the status of a failed call into an error, according to what can be done about it.
pub(super) fn failed(status: &Status) -> AuthzError {
    let message = status.message().to_owned();
    if let Some(too_many) = too_many_checks(&message) {
        return too_many;
    }
    if too_large(status) {
        let remedy = "have fewer or shorter claims become tuples, or raise the server's `grpc-max-recv-msg-bytes`";
        return AuthzError::MessageTooLarge(format!("{message}; {remedy}"));
    }
    // tonic reports a passed `grpc-timeout` as cancelled, and a broken connection as well.
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
        // `OpenFGA` numbers its own codes from 2000, and tonic cannot tell these apart. Those that are not about the question
        // have fixed texts.
        Code::Unknown => match message.as_str() {
            "Request Deadline Exceeded" | "Request Cancelled" => AuthzError::DeadlineExceeded,
            "Internal Server Error" | "timeout due to throttling on complex request" => {
                AuthzError::Unavailable(message)
            }
            _ => AuthzError::Refused(message),
        },
        // A server answers so, without a word, to calls of a service that it does not have.
        Code::Unimplemented if message.is_empty() => AuthzError::Refused(
            "it does not serve OpenFGA's API; Ragward does if its embedded engine decides".to_owned(),
        ),
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
