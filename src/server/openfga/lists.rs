//! Lists of objects and of users (`ListObjects`, `StreamedListObjects`, `ListUsers`).

use std::time::Duration;

use openfga_client::client as api;
use openfga_client::client::user::User as ApiUser;
use tokio::time::Instant;

use super::checks::undecided;
use super::error::{ErrorNumber, OpenFgaError};
use super::{Resolved, tuples};
use crate::engine::evaluator::CheckError;
use crate::engine::snapshot::UserFilter;
use crate::language::validate::ValidModel;
use crate::language::{Object, Relation, TypeName, User};

/// The largest number of objects or users in one answer (`OpenFGA`'s default limit).
pub(super) const RESULTS_MAX: usize = 1_000;

/// The longest that a list may take (`OpenFGA`'s default limit). The answer is then what was found.
const LIST_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the moment at which a list ends: at its own limit, or at the request's deadline if that is earlier.
pub(super) fn list_deadline(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + LIST_TIMEOUT)
}

/// Calls `take` with each object on which the user holds the relation, until `take` gives `false` or the deadline
/// passes. As in `OpenFGA`, the deadline is no error: the list then has what was found in time.
pub(super) fn list_objects(
    resolved: &Resolved,
    request: &api::ListObjectsRequest,
    deadline: Instant,
    take: &mut dyn FnMut(&Object) -> bool,
) -> Result<(), OpenFgaError> {
    let model = resolved.snapshot.model();
    let contextual = request.contextual_tuples.as_ref().map(|keys| keys.tuple_keys.as_slice());
    let contextual = tuples::contextual(model, contextual.unwrap_or_default(), ErrorNumber::ValidationError)?;
    let relation = known_relation(model, &request.r#type, &request.relation)?;
    let type_name = TypeName::parse(&request.r#type)?;
    let user = User::parse(&request.user)?;
    let snapshot = resolved.for_request(&contextual, request.context.as_ref())?;
    let mut in_time = || Instant::now() < deadline;
    let mut take_in_time = |object: &Object| Instant::now() < deadline && take(object);
    match snapshot.for_listed(&user, &relation, &type_name, &mut in_time, &mut take_in_time) {
        Ok(()) | Err(CheckError::Interrupted) => Ok(()),
        Err(error) => Err(undecided(error)),
    }
}

/// Lists the users who hold the relation on an object, with the limits of [`list_objects`].
pub(super) fn list_users(
    resolved: &Resolved,
    request: &api::ListUsersRequest,
    deadline: Instant,
) -> Result<api::ListUsersResponse, OpenFgaError> {
    let model = resolved.snapshot.model();
    let contextual = tuples::contextual(model, &request.contextual_tuples, ErrorNumber::ValidationError)?;
    let asked = request.user_filters.first().cloned().unwrap_or_default();
    known_type(model, &asked.r#type)?;
    let user_relation =
        if asked.relation.is_empty() { None } else { Some(known_relation(model, &asked.r#type, &asked.relation)?) };
    let object = request.object.clone().unwrap_or_default();
    let relation = known_relation(model, &object.r#type, &request.relation)?;
    // No tuple is about an object whose name is malformed.
    let Ok(object) = Object::parse(&format!("{}:{}", object.r#type, object.id)) else {
        return Ok(api::ListUsersResponse { users: Vec::new() });
    };
    let type_name = TypeName::parse(&asked.r#type)?;
    let snapshot = resolved.for_request(&contextual, request.context.as_ref())?;
    let filter = UserFilter { type_name, relation: user_relation };
    let mut found = Vec::new();
    let listed = snapshot.for_users(&object, &relation, &filter, &mut || Instant::now() < deadline, &mut |user| {
        found.push(user);
        found.len() < RESULTS_MAX
    });
    match listed {
        Ok(()) | Err(CheckError::Interrupted) => {}
        Err(error) => return Err(undecided(error)),
    }
    found.sort_unstable();
    Ok(api::ListUsersResponse { users: found.iter().map(user_message).collect() })
}

fn known_type(model: &ValidModel, type_name: &str) -> Result<(), OpenFgaError> {
    match model.source().type_definition(type_name) {
        Some(_) => Ok(()),
        None => Err(OpenFgaError::new(ErrorNumber::TypeNotFound, format!("type '{type_name}' not found"))),
    }
}

fn known_relation(model: &ValidModel, type_name: &str, relation: &str) -> Result<Relation, OpenFgaError> {
    known_type(model, type_name)?;
    let defined = model.source().type_definition(type_name).and_then(|definition| definition.relation(relation));
    if defined.is_none() {
        let message = format!("relation '{type_name}#{relation}' not found");
        return Err(OpenFgaError::new(ErrorNumber::RelationNotFound, message));
    }
    Ok(Relation::parse(relation)?)
}

fn user_message(user: &User) -> api::User {
    let user = match user {
        User::Object(object) => {
            ApiUser::Object(api::Object { r#type: object.type_name().to_owned(), id: object.id().to_owned() })
        }
        User::Userset(object, relation) => ApiUser::Userset(api::UsersetUser {
            r#type: object.type_name().to_owned(),
            id: object.id().to_owned(),
            relation: relation.to_string(),
        }),
        User::Wildcard(type_name) => ApiUser::Wildcard(api::TypedWildcard { r#type: type_name.to_string() }),
    };
    api::User { user: Some(user) }
}
