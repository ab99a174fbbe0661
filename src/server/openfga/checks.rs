//! `Check` and `BatchCheck`.

use std::collections::{HashMap, HashSet};

use openfga_client::client as api;
use openfga_client::client::batch_check_single_result::CheckResult;
use openfga_client::client::check_error::Code;
use openfga_client::prost_wkt_types::Struct;

use super::refusal::{Number, Refusal};
use super::{Resolved, tuples};
use crate::engine::evaluator::CheckError;
use crate::language::{Object, Relation, User};

/// Most checks of one batch (`OpenFGA`'s default limit).
const CHECKS_MAX: usize = 50;

pub(super) fn check(
    resolved: &Resolved,
    key: &api::CheckRequestTupleKey,
    contextual_tuples: Option<&api::ContextualTupleKeys>,
    context: Option<&Struct>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<bool, Refusal> {
    let user = User::parse(&key.user)?;
    let relation = Relation::parse(&key.relation)?;
    let object = Object::parse(&key.object)?;
    let model = resolved.snapshot.model();
    model.knows(&user, &relation, object.type_name())?;
    let contextual = contextual_tuples.map(|keys| keys.tuple_keys.as_slice()).unwrap_or_default();
    let contextual = tuples::contextual(model, contextual, Number::InvalidTuple)?;
    tuples::check_context(context)?;
    let snapshot = resolved.for_request(&contextual, context)?;
    let mut evaluation = snapshot.evaluation(&user).map_err(undecided)?;
    evaluation.check(&relation, &object, go_on).map_err(undecided)
}

pub(super) fn undecided(error: CheckError) -> Refusal {
    match error {
        CheckError::Unknown(misfit) => misfit.into(),
        // Clients tell it by this beginning from what is wrong with their request: the number is the same.
        CheckError::Condition(_) => Refusal::validation(format!("failed to evaluate relationship condition: {error}")),
        CheckError::TooDeep | CheckError::TooMuchWork => Refusal::new(Number::ResolutionTooComplex, error.to_string()),
        CheckError::Interrupted => Refusal::late(),
    }
}

pub(super) fn batch_check(
    resolved: &Resolved,
    request: &api::BatchCheckRequest,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<api::BatchCheckResponse, Refusal> {
    let count = request.checks.len();
    if count > CHECKS_MAX {
        let message = format!("batchCheck received {count} checks, the maximum allowed is {CHECKS_MAX}");
        return Err(Refusal::validation(message));
    }
    let mut seen = HashSet::new();
    for item in &request.checks {
        if !seen.insert(item.correlation_id.as_str()) {
            return Err(Refusal::validation(format!("received duplicate correlation id: {}", item.correlation_id)));
        }
    }
    let mut result = HashMap::new();
    for item in &request.checks {
        let key = item.tuple_key.clone().unwrap_or_default();
        let decided = if go_on() {
            check(resolved, &key, item.contextual_tuples.as_ref(), item.context.as_ref(), go_on)
        } else {
            Err(Refusal::late())
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

fn item_error(refusal: Refusal) -> api::CheckError {
    let number = refusal.number as i32;
    let code = match refusal.number {
        Number::InternalError | Number::DeadlineExceeded => Code::InternalError(number),
        Number::Aborted
        | Number::ValidationError
        | Number::AuthorizationModelNotFound
        | Number::ResolutionTooComplex
        | Number::InvalidWriteInput
        | Number::DuplicateTuples
        | Number::InvalidContinuationToken
        | Number::InvalidExpandInput
        | Number::WriteFailedDueToInvalidInput
        | Number::LatestAuthorizationModelNotFound
        | Number::TypeNotFound
        | Number::RelationNotFound
        | Number::InvalidTuple
        | Number::ContinuationTokenMismatch
        | Number::ExceededEntityLimit
        | Number::InvalidAuthorizationModel
        | Number::InvalidStartTime
        | Number::StoreIdNotFound => Code::InputError(number),
    };
    api::CheckError { message: refusal.message, code: Some(code) }
}
