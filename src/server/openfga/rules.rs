//! The form that every request must have, as `OpenFGA`'s API declares it beside its messages: lengths, patterns, required
//! fields. A request that breaks a rule is refused as `INVALID_ARGUMENT` before anything else is looked at.

mod models;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openfga_client::client as api;
use openfga_client::prost_wkt_types::Timestamp;

use super::form::{Checked, broken, is_name, is_space, is_text, require};
use crate::language::limits::{
    ASSERTIONS_MAX, CONTEXTUAL_TUPLES_MAX, CONTEXTUAL_TUPLES_OF_ASSERTION_MAX, OBJECT_CHARS_MAX, RELATION_CHARS_MAX,
    TUPLE_CONDITION_CHARS_MIN, TYPE_CHARS_MAX, USER_BYTES_MAX,
};

pub(super) use models::write_authorization_model;

/// The most entries that a request may ask for in one page.
const PAGE_SIZE_MAX: i32 = 100;
/// The longest continuation token in bytes.
const TOKEN_BYTES_MAX: usize = 5_120;
/// The longest condition name in a tuple, in characters. The conditions of models have shorter names
/// ([`RELATION_CHARS_MAX`]), so a longer name passes here and is then unknown.
const CONDITION_NAME_CHARS_MAX: usize = 256;
/// The shortest object or user, in characters. Whether it has a type and an id is checked later.
const NAME_CHARS_MIN: usize = 2;
/// The length of an id of a store or a model: a ULID.
const ULID_CHARS: usize = 26;

fn is_id(text: &str) -> bool {
    text.len() == ULID_CHARS
        && text.chars().all(|c| c.is_ascii_digit() || (c.is_ascii_uppercase() && !matches!(c, 'I' | 'L' | 'O' | 'U')))
}

fn is_store_name(text: &str) -> bool {
    let good =
        |c: char| c.is_ascii_alphanumeric() || is_space(c) || matches!(c, '.' | '-' | '/' | '^' | '_' | '&' | '@');
    (3..=64).contains(&text.len()) && text.chars().all(good)
}

fn is_past(time: &Timestamp) -> bool {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(time.seconds), u32::try_from(time.nanos)) else {
        // The time is before 1970.
        return true;
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())) < since_1970
}

fn is_correlation_id(text: &str) -> bool {
    (1..=36).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

fn store_id(message: &str, id: &str) -> Checked {
    require(is_id(id), message, "StoreId", "must be a ULID")
}

fn model_id(message: &str, id: &str) -> Checked {
    require(is_id(id), message, "AuthorizationModelId", "must be a ULID")
}

fn optional_model_id(message: &str, id: &str) -> Checked {
    if id.is_empty() { Ok(()) } else { model_id(message, id) }
}

fn page(message: &str, size: Option<i32>, token: &str) -> Checked {
    let in_range = size.is_none_or(|size| (1..=PAGE_SIZE_MAX).contains(&size));
    require(in_range, message, "PageSize", format_args!("value must be inside range [1, {PAGE_SIZE_MAX}]"))?;
    require(
        token.len() <= TOKEN_BYTES_MAX,
        message,
        "ContinuationToken",
        format_args!("value length must be at most {TOKEN_BYTES_MAX} bytes"),
    )?;
    let digits = token.trim_end_matches('=');
    let padding = token.len() - digits.len();
    let good = digits.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let well_formed = token.is_empty() || (good && !digits.is_empty() && padding <= 2);
    require(well_formed, message, "ContinuationToken", "must be URL-safe base64")
}

fn consistency(message: &str, value: i32) -> Checked {
    let known = api::ConsistencyPreference::try_from(value).is_ok();
    require(known, message, "Consistency", "value must be one of the defined enum values")
}

fn relation(message: &str, name: &str) -> Checked {
    require(
        is_name(name, RELATION_CHARS_MAX),
        message,
        "Relation",
        format_args!("must have 1 to {RELATION_CHARS_MAX} characters without `:`, `#`, `@`, space"),
    )
}

fn object(message: &str, object: &str) -> Checked {
    require(
        is_text(object, NAME_CHARS_MIN, OBJECT_CHARS_MAX),
        message,
        "Object",
        format_args!("must have {NAME_CHARS_MIN} to {OBJECT_CHARS_MAX} characters without space"),
    )
}

fn type_name(message: &str, name: &str) -> Checked {
    require(
        is_name(name, TYPE_CHARS_MAX),
        message,
        "Type",
        format_args!("must have 1 to {TYPE_CHARS_MAX} characters without `:`, `#`, `@`, space"),
    )
}

/// Checks the key of a tuple. Relation and object may be empty here; no stored tuple fits such a key.
fn tuple_key(message: &str, user: &str, relation_name: &str, object_name: &str) -> Checked {
    require(
        user.len() <= USER_BYTES_MAX,
        message,
        "User",
        format_args!("value length must be at most {USER_BYTES_MAX} bytes"),
    )?;
    if !relation_name.is_empty() {
        relation(message, relation_name)?;
    }
    if !object_name.is_empty() {
        object(message, object_name)?;
    }
    Ok(())
}

fn tuple_keys(keys: &[api::TupleKey]) -> Checked {
    for key in keys {
        tuple_key("TupleKey", &key.user, &key.relation, &key.object)?;
        if let Some(condition) = &key.condition {
            let good = is_text(&condition.name, TUPLE_CONDITION_CHARS_MIN, CONDITION_NAME_CHARS_MAX);
            let (min, max) = (TUPLE_CONDITION_CHARS_MIN, CONDITION_NAME_CHARS_MAX);
            let rule = format_args!("must have {min} to {max} characters without space");
            require(good, "RelationshipCondition", "Name", rule)?;
        }
    }
    Ok(())
}

fn contextual_tuples(tuples: Option<&api::ContextualTupleKeys>) -> Checked {
    let Some(tuples) = tuples else { return Ok(()) };
    let few = tuples.tuple_keys.len() <= CONTEXTUAL_TUPLES_MAX;
    require(
        few,
        "ContextualTupleKeys",
        "TupleKeys",
        format_args!("value must contain no more than {CONTEXTUAL_TUPLES_MAX} item(s)"),
    )?;
    tuple_keys(&tuples.tuple_keys)
}

fn check_tuple_key(message: &str, key: Option<&api::CheckRequestTupleKey>) -> Checked {
    const KEY: &str = "CheckRequestTupleKey";
    let Some(key) = key else { return Err(broken(message, "TupleKey", "value is required")) };
    require(
        is_text(&key.user, NAME_CHARS_MIN, USER_BYTES_MAX),
        KEY,
        "User",
        format_args!("must have {NAME_CHARS_MIN} to {USER_BYTES_MAX} characters without space"),
    )?;
    relation(KEY, &key.relation)?;
    object(KEY, &key.object)
}

pub(super) fn create_store(request: &api::CreateStoreRequest) -> Checked {
    require(is_store_name(&request.name), "CreateStoreRequest", "Name", STORE_NAME_RULE)
}

const STORE_NAME_RULE: &str = "must have 3 to 64 letters, digits, spaces or `.-/^_&@`";

pub(super) fn update_store(request: &api::UpdateStoreRequest) -> Checked {
    store_id("UpdateStoreRequest", &request.store_id)?;
    require(is_store_name(&request.name), "UpdateStoreRequest", "Name", STORE_NAME_RULE)
}

pub(super) fn delete_store(request: &api::DeleteStoreRequest) -> Checked {
    store_id("DeleteStoreRequest", &request.store_id)
}

pub(super) fn get_store(request: &api::GetStoreRequest) -> Checked {
    store_id("GetStoreRequest", &request.store_id)
}

pub(super) fn list_stores(request: &api::ListStoresRequest) -> Checked {
    const MESSAGE: &str = "ListStoresRequest";
    page(MESSAGE, request.page_size, &request.continuation_token)?;
    require(request.name.is_empty() || is_store_name(&request.name), MESSAGE, "Name", STORE_NAME_RULE)
}

pub(super) fn read_authorization_model(request: &api::ReadAuthorizationModelRequest) -> Checked {
    const MESSAGE: &str = "ReadAuthorizationModelRequest";
    store_id(MESSAGE, &request.store_id)?;
    require(is_id(&request.id), MESSAGE, "Id", "must be a ULID")
}

pub(super) fn read_authorization_models(request: &api::ReadAuthorizationModelsRequest) -> Checked {
    const MESSAGE: &str = "ReadAuthorizationModelsRequest";
    store_id(MESSAGE, &request.store_id)?;
    page(MESSAGE, request.page_size, &request.continuation_token)
}

pub(super) fn write(request: &api::WriteRequest) -> Checked {
    const MESSAGE: &str = "WriteRequest";
    const AT_LEAST_ONE: &str = "value must contain at least 1 item(s)";
    store_id(MESSAGE, &request.store_id)?;
    if let Some(writes) = &request.writes {
        require(!writes.tuple_keys.is_empty(), "WriteRequestWrites", "TupleKeys", AT_LEAST_ONE)?;
        tuple_keys(&writes.tuple_keys)?;
    }
    if let Some(deletes) = &request.deletes {
        require(!deletes.tuple_keys.is_empty(), "WriteRequestDeletes", "TupleKeys", AT_LEAST_ONE)?;
        for key in &deletes.tuple_keys {
            tuple_key("TupleKeyWithoutCondition", &key.user, &key.relation, &key.object)?;
        }
    }
    optional_model_id(MESSAGE, &request.authorization_model_id)
}

pub(super) fn read(request: &api::ReadRequest) -> Checked {
    const MESSAGE: &str = "ReadRequest";
    const KEY: &str = "ReadRequestTupleKey";
    store_id(MESSAGE, &request.store_id)?;
    if let Some(key) = &request.tuple_key {
        let user = key.user.as_str();
        let two_parts = user.split_once(':').is_some_and(|(before, after)| !before.is_empty() && !after.is_empty());
        let good = user.is_empty() || (user.len() <= USER_BYTES_MAX && two_parts && is_text(user, 1, USER_BYTES_MAX));
        require(
            good,
            KEY,
            "User",
            format_args!("must have the form `type:id`, at most {USER_BYTES_MAX} bytes without space"),
        )?;
        tuple_key(KEY, user, &key.relation, &key.object)?;
    }
    page(MESSAGE, request.page_size, &request.continuation_token)?;
    consistency(MESSAGE, request.consistency)
}

pub(super) fn read_changes(request: &api::ReadChangesRequest) -> Checked {
    const MESSAGE: &str = "ReadChangesRequest";
    store_id(MESSAGE, &request.store_id)?;
    let type_name = request.r#type.as_str();
    let good = type_name.is_empty() || (is_text(type_name, 1, TYPE_CHARS_MAX) && !type_name.contains([':', '#']));
    require(good, MESSAGE, "Type", format_args!("must have 1 to {TYPE_CHARS_MAX} characters without `:`, `#`, space"))?;
    if let Some(start) = &request.start_time {
        let past = is_past(start);
        require(past, MESSAGE, "StartTime", "value must be less than now")?;
    }
    // The rule of this message has another text than that of the others, and so another name over HTTP.
    let is_positive = request.page_size.is_none_or(|size| size >= 1);
    require(is_positive, MESSAGE, "PageSize", "value must be greater than or equal to 1")?;
    page(MESSAGE, request.page_size, &request.continuation_token)
}

pub(super) fn check(request: &api::CheckRequest) -> Checked {
    const MESSAGE: &str = "CheckRequest";
    store_id(MESSAGE, &request.store_id)?;
    check_tuple_key(MESSAGE, request.tuple_key.as_ref())?;
    contextual_tuples(request.contextual_tuples.as_ref())?;
    optional_model_id(MESSAGE, &request.authorization_model_id)?;
    consistency(MESSAGE, request.consistency)
}

pub(super) fn batch_check(request: &api::BatchCheckRequest) -> Checked {
    const MESSAGE: &str = "BatchCheckRequest";
    store_id(MESSAGE, &request.store_id)?;
    require(!request.checks.is_empty(), MESSAGE, "Checks", "value must contain at least 1 item(s)")?;
    for item in &request.checks {
        check_tuple_key("BatchCheckItem", item.tuple_key.as_ref())?;
        contextual_tuples(item.contextual_tuples.as_ref())?;
        let good = is_correlation_id(&item.correlation_id);
        require(good, "BatchCheckItem", "CorrelationId", "must have 1 to 36 letters, digits, `_` or `-`")?;
    }
    optional_model_id(MESSAGE, &request.authorization_model_id)?;
    consistency(MESSAGE, request.consistency)
}

pub(super) fn expand(request: &api::ExpandRequest) -> Checked {
    const MESSAGE: &str = "ExpandRequest";
    store_id(MESSAGE, &request.store_id)?;
    let Some(key) = &request.tuple_key else { return Err(broken(MESSAGE, "TupleKey", "value is required")) };
    tuple_key("ExpandRequestTupleKey", "", &key.relation, &key.object)?;
    optional_model_id(MESSAGE, &request.authorization_model_id)?;
    consistency(MESSAGE, request.consistency)?;
    contextual_tuples(request.contextual_tuples.as_ref())
}

pub(super) fn list_objects(request: &api::ListObjectsRequest) -> Checked {
    const MESSAGE: &str = "ListObjectsRequest";
    store_id(MESSAGE, &request.store_id)?;
    optional_model_id(MESSAGE, &request.authorization_model_id)?;
    type_name(MESSAGE, &request.r#type)?;
    relation(MESSAGE, &request.relation)?;
    let good = (1..=USER_BYTES_MAX).contains(&request.user.len());
    require(
        good,
        MESSAGE,
        "User",
        format_args!("value length must be between 1 and {USER_BYTES_MAX} bytes, inclusive"),
    )?;
    contextual_tuples(request.contextual_tuples.as_ref())?;
    consistency(MESSAGE, request.consistency)
}

pub(super) fn list_users(request: &api::ListUsersRequest) -> Checked {
    const MESSAGE: &str = "ListUsersRequest";
    store_id(MESSAGE, &request.store_id)?;
    optional_model_id(MESSAGE, &request.authorization_model_id)?;
    let Some(object) = &request.object else { return Err(broken(MESSAGE, "Object", "value is required")) };
    type_name("Object", &object.r#type)?;
    let good = object.id.chars().last().is_some_and(|last| !matches!(last, '#' | ':') && !is_space(last));
    require(good, "Object", "Id", "must not be empty nor end with `#`, `:` or space")?;
    relation(MESSAGE, &request.relation)?;
    require(request.user_filters.len() == 1, MESSAGE, "UserFilters", "value must contain exactly 1 item(s)")?;
    for filter in &request.user_filters {
        type_name("UserTypeFilter", &filter.r#type)?;
        if !filter.relation.is_empty() {
            relation("UserTypeFilter", &filter.relation)?;
        }
    }
    let few = request.contextual_tuples.len() <= CONTEXTUAL_TUPLES_MAX;
    require(
        few,
        MESSAGE,
        "ContextualTuples",
        format_args!("value must contain no more than {CONTEXTUAL_TUPLES_MAX} item(s)"),
    )?;
    tuple_keys(&request.contextual_tuples)?;
    consistency(MESSAGE, request.consistency)
}

pub(super) fn write_assertions(request: &api::WriteAssertionsRequest) -> Checked {
    const MESSAGE: &str = "WriteAssertionsRequest";
    const KEY: &str = "AssertionTupleKey";
    store_id(MESSAGE, &request.store_id)?;
    model_id(MESSAGE, &request.authorization_model_id)?;
    let few = request.assertions.len() <= ASSERTIONS_MAX;
    require(few, MESSAGE, "Assertions", format_args!("value must contain no more than {ASSERTIONS_MAX} item(s)"))?;
    for assertion in &request.assertions {
        let Some(key) = &assertion.tuple_key else {
            return Err(broken("Assertion", "TupleKey", "value is required"));
        };
        object(KEY, &key.object)?;
        relation(KEY, &key.relation)?;
        require(
            is_text(&key.user, NAME_CHARS_MIN, USER_BYTES_MAX),
            KEY,
            "User",
            format_args!("must have {NAME_CHARS_MIN} to {USER_BYTES_MAX} characters without space"),
        )?;
        let few = assertion.contextual_tuples.len() <= CONTEXTUAL_TUPLES_OF_ASSERTION_MAX;
        require(
            few,
            "Assertion",
            "ContextualTuples",
            format_args!("value must contain no more than {CONTEXTUAL_TUPLES_OF_ASSERTION_MAX} item(s)"),
        )?;
        tuple_keys(&assertion.contextual_tuples)?;
    }
    Ok(())
}

pub(super) fn read_assertions(request: &api::ReadAssertionsRequest) -> Checked {
    const MESSAGE: &str = "ReadAssertionsRequest";
    store_id(MESSAGE, &request.store_id)?;
    model_id(MESSAGE, &request.authorization_model_id)
}
