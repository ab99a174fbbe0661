//! Writes relationship tuples (`Write`), and reads them (`Read`) and the log of their changes (`ReadChanges`).

use std::collections::HashSet;

use openfga_client::client as api;
use openfga_client::prost_wkt_types::Timestamp;

use super::error::{ErrorNumber, OpenFgaError};
use super::{Resolved, page_size, store_of, token, tuples};
use crate::language::RelationshipTuple;
use crate::language::tuple::shown;
use crate::tuple_store::{
    ChangeFilter, OnConflict, Operation, RelationshipStores, StoreError, TUPLES_PER_WRITE_MAX, TupleFilter, TupleWrite,
};

/// The year 1 in seconds since 1970: 0001-01-01T00:00:00Z.
const YEAR_ONE_SECONDS: i64 = -62_135_596_800;

/// Writes and deletes tuples. If there are several mistakes, the refusal names the first one in `OpenFGA`'s order:
/// tuples to write, tuples to delete, duplicates, the number of tuples, options, and at last conflicts with what is
/// stored.
pub(super) fn write(resolved: &Resolved, request: &api::WriteRequest) -> Result<api::WriteResponse, OpenFgaError> {
    let writes = request.writes.as_ref().map(|writes| writes.tuple_keys.as_slice()).unwrap_or_default();
    let deletes = request.deletes.as_ref().map(|deletes| deletes.tuple_keys.as_slice()).unwrap_or_default();
    if writes.is_empty() && deletes.is_empty() {
        return Err(StoreError::Empty.into());
    }
    let model = resolved.snapshot.model();
    let mut write = TupleWrite::default();
    for key in writes {
        write.writes.push(tuples::to_write(model, key)?);
    }
    if let Some(key) = deletes.iter().find(|key| !tuples::is_user(&key.user)) {
        return Err(OpenFgaError::validation(format!("the 'user' field is malformed: `{}`", shown(&key.user))));
    }
    refuse_duplicates(writes, deletes)?;
    let count = writes.len() + deletes.len();
    if count > TUPLES_PER_WRITE_MAX {
        return Err(StoreError::TooMany(count).into());
    }
    write.on_duplicate =
        on_conflict("on_duplicate", request.writes.as_ref().map_or("", |writes| &writes.on_duplicate))?;
    write.on_missing = on_conflict("on_missing", request.deletes.as_ref().map_or("", |deletes| &deletes.on_missing))?;
    for key in deletes {
        match (RelationshipTuple::parse(&key.user, &key.relation, &key.object), write.on_missing) {
            (Ok(tuple), _) => write.deletes.push(tuple),
            // No stored tuple can have such a name, so there is nothing to delete.
            (Err(_), OnConflict::Ignore) => {}
            (Err(_), OnConflict::Refuse) => return Err(OpenFgaError::not_there(key)),
        }
    }
    if !write.writes.is_empty() || !write.deletes.is_empty() {
        resolved.store.write_under(Some(resolved.model_id), &write)?;
    }
    Ok(api::WriteResponse {})
}

fn refuse_duplicates(writes: &[api::TupleKey], deletes: &[api::TupleKeyWithoutCondition]) -> Result<(), OpenFgaError> {
    let deletes = deletes.iter().map(|key| (&key.user, &key.relation, &key.object));
    let writes = writes.iter().map(|key| (&key.user, &key.relation, &key.object));
    let mut seen = HashSet::new();
    for key in deletes.chain(writes) {
        if !seen.insert(key) {
            let (user, relation, object) = key;
            let message =
                format!("duplicate tuple in write: user: '{user}', relation: '{relation}', object: '{object}'");
            return Err(OpenFgaError::new(ErrorNumber::DuplicateTuples, message));
        }
    }
    Ok(())
}

fn on_conflict(name: &str, value: &str) -> Result<OnConflict, OpenFgaError> {
    match value {
        "" | "error" => Ok(OnConflict::Refuse),
        "ignore" => Ok(OnConflict::Ignore),
        other => Err(OpenFgaError::validation(format!("invalid {name} option: {other}"))),
    }
}

/// Returns a page of the stored tuples that a filter lets through, in the order of writing.
pub(super) fn read(stores: &RelationshipStores, request: &api::ReadRequest) -> Result<api::ReadResponse, OpenFgaError> {
    let filter = request.tuple_key.as_ref().map(filter).transpose()?.unwrap_or_default();
    let after = token::read_tuples(&request.continuation_token)?;
    let size = page_size(request.page_size);
    let mut found = store_of(stores, &request.store_id).tuples(&filter, after, size + 1)?;
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| more);
    let continuation_token = last.map(|last| token::of_tuples(last.sequence));
    let messages = found.iter().map(|stored| api::Tuple {
        key: Some(tuples::write(&stored.tuple)),
        timestamp: Some(tuples::timestamp(stored.unix_ms)),
    });
    Ok(api::ReadResponse { tuples: messages.collect(), continuation_token: continuation_token.unwrap_or_default() })
}

fn filter(key: &api::ReadRequestTupleKey) -> Result<TupleFilter, OpenFgaError> {
    let names_type = key.object.split_once(':').filter(|(type_name, _)| !type_name.is_empty());
    match names_type {
        Some((_, id)) if !id.is_empty() || !key.user.is_empty() => {}
        Some(_) | None => {
            return Err(OpenFgaError::validation(
                "the `tuple_key` must name the type of the object, and the object's id or a user",
            ));
        }
    }
    Ok(TupleFilter { object: key.object.clone(), relation: key.relation.clone(), user: key.user.clone() })
}

/// Returns a page of the log of changes.
pub(super) fn read_changes(
    stores: &RelationshipStores,
    request: &api::ReadChangesRequest,
) -> Result<api::ReadChangesResponse, OpenFgaError> {
    let mut filter = ChangeFilter::default();
    filter.type_name = Some(request.r#type.clone()).filter(|type_name| !type_name.is_empty());
    match token::read_changes(&request.continuation_token)? {
        Some(last) if last.type_name == request.r#type => {
            (filter.after, filter.since_unix_ms) = (last.sequence, last.unix_ms);
        }
        Some(_) => {
            let message = "The type in the querystring and the continuation token don't match";
            return Err(OpenFgaError::new(ErrorNumber::ContinuationTokenMismatch, message));
        }
        None => filter.since_unix_ms = request.start_time.as_ref().map_or(Ok(0), unix_ms)?,
    }
    let found = store_of(stores, &request.store_id).changes(&filter, page_size(request.page_size))?;
    let continuation_token = match found.last() {
        Some(last) => token::of_changes(last.unix_ms, last.sequence, &request.r#type),
        None => request.continuation_token.clone(),
    };
    let messages = found.iter().map(|change| api::TupleChange {
        tuple_key: Some(tuples::write(&change.tuple)),
        operation: match change.operation {
            Operation::Write => api::TupleOperation::Write.into(),
            Operation::Delete => api::TupleOperation::Delete.into(),
        },
        timestamp: Some(tuples::timestamp(change.unix_ms)),
    });
    Ok(api::ReadChangesResponse { changes: messages.collect(), continuation_token })
}

/// Converts a time to milliseconds since 1970. As in Go, the year 1 stands for no time and gives 0. Any other time
/// before 1970 is refused.
fn unix_ms(time: &Timestamp) -> Result<u64, OpenFgaError> {
    if (time.seconds, time.nanos) == (YEAR_ONE_SECONDS, 0) {
        return Ok(0);
    }
    let early = |_negative| OpenFgaError::new(ErrorNumber::InvalidStartTime, "Invalid start time");
    let seconds = u64::try_from(time.seconds).map_err(early)?;
    let nanos = u64::try_from(time.nanos).map_err(early)?;
    Ok(seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000))
}
