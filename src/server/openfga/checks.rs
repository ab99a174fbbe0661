//! Decides checks, alone (`Check`) and in batches (`BatchCheck`).

use std::collections::{HashMap, HashSet};

use openfga_client::client as api;
use openfga_client::client::batch_check_single_result::CheckResult;
use openfga_client::client::check_error::Code;
use openfga_client::prost_wkt_types::Struct;

use super::error::{ErrorNumber, OpenFgaError};
use super::{Resolved, tuples};
use crate::engine::evaluator::CheckError;
use crate::language::{Object, Relation, User};

/// The largest number of checks in one batch (`OpenFGA`'s default limit).
const CHECKS_MAX: usize = 50;

/// Decides one check, for as long as `go_on` gives `true`.
pub(super) fn check(
    resolved: &Resolved,
    key: &api::CheckRequestTupleKey,
    contextual_tuples: Option<&api::ContextualTupleKeys>,
    context: Option<&Struct>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<bool, OpenFgaError> {
    let user = User::parse(&key.user)?;
    let relation = Relation::parse(&key.relation)?;
    let object = Object::parse(&key.object)?;
    let model = resolved.snapshot.model();
    model.knows(&user, &relation, object.type_name())?;
    let contextual = contextual_tuples.map(|keys| keys.tuple_keys.as_slice()).unwrap_or_default();
    let contextual = tuples::contextual(model, contextual, ErrorNumber::InvalidTuple)?;
    tuples::check_context(context)?;
    let snapshot = resolved.for_request(&contextual, context)?;
    let mut evaluation = snapshot.evaluation(&user).map_err(undecided)?;
    evaluation.check(&relation, &object, go_on).map_err(undecided)
}

/// Returns the error of a check that has no decision.
pub(super) fn undecided(error: CheckError) -> OpenFgaError {
    match error {
        CheckError::Unknown(misfit) => misfit.into(),
        // A malformed request gets the same error number, so clients tell this error from that one by how its text
        // begins.
        CheckError::Condition(_) => {
            OpenFgaError::validation(format!("failed to evaluate relationship condition: {error}"))
        }
        CheckError::TooDeep | CheckError::TooMuchWork => {
            OpenFgaError::new(ErrorNumber::ResolutionTooComplex, error.to_string())
        }
        CheckError::Interrupted => OpenFgaError::late(),
    }
}

/// Decides the checks of a batch one after the other. An error answers only the check that failed.
pub(super) fn batch_check(
    resolved: &Resolved,
    request: &api::BatchCheckRequest,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<api::BatchCheckResponse, OpenFgaError> {
    let count = request.checks.len();
    if count > CHECKS_MAX {
        let message = format!("batchCheck received {count} checks, the maximum allowed is {CHECKS_MAX}");
        return Err(OpenFgaError::validation(message));
    }
    let mut seen = HashSet::new();
    for item in &request.checks {
        if !seen.insert(item.correlation_id.as_str()) {
            return Err(OpenFgaError::validation(format!(
                "received duplicate correlation id: {}",
                item.correlation_id
            )));
        }
    }
    let mut result = HashMap::new();
    for item in &request.checks {
        let key = item.tuple_key.clone().unwrap_or_default();
        let decided = if go_on() {
            check(resolved, &key, item.contextual_tuples.as_ref(), item.context.as_ref(), go_on)
        } else {
            Err(OpenFgaError::late())
        };
        let check_result = match decided {
            Ok(allowed) => CheckResult::Allowed(allowed),
            Err(refusal) => CheckResult::Error(item_error(refusal)),
        };
        let answer = api::BatchCheckSingleResult { check_result: Some(check_result) };
        result.insert(item.correlation_id.clone(), answer);
    }
    Ok(api::BatchCheckResponse { result })
}

fn item_error(refusal: OpenFgaError) -> api::CheckError {
    let number = refusal.number as i32;
    let code = match refusal.number {
        ErrorNumber::InternalError | ErrorNumber::DeadlineExceeded => Code::InternalError(number),
        ErrorNumber::Aborted
        | ErrorNumber::ValidationError
        | ErrorNumber::AuthorizationModelNotFound
        | ErrorNumber::ResolutionTooComplex
        | ErrorNumber::InvalidWriteInput
        | ErrorNumber::DuplicateTuples
        | ErrorNumber::InvalidContinuationToken
        | ErrorNumber::InvalidExpandInput
        | ErrorNumber::WriteFailedDueToInvalidInput
        | ErrorNumber::LatestAuthorizationModelNotFound
        | ErrorNumber::TypeNotFound
        | ErrorNumber::RelationNotFound
        | ErrorNumber::InvalidTuple
        | ErrorNumber::ContinuationTokenMismatch
        | ErrorNumber::ExceededEntityLimit
        | ErrorNumber::InvalidAuthorizationModel
        | ErrorNumber::InvalidStartTime
        | ErrorNumber::StoreIdNotFound => Code::InputError(number),
    };
    api::CheckError { message: refusal.message, code: Some(code) }
}
