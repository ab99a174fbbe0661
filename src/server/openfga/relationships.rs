//! `Write`, `Read` and `ReadChanges`.

use openfga_client::client as api;

use super::refusal::{Number, Refusal};
use super::{Resolved, page_size, store_of, token, tuples};
use crate::relationship::RelationshipTuple;
use crate::relationship::store::{ChangeFilter, OnConflict, Operation, RelationshipStores, TupleFilter, TupleWrite};

pub(super) fn write(resolved: &Resolved, request: &api::WriteRequest) -> Result<api::WriteResponse, Refusal> {
    let writes = request.writes.as_ref();
    let deletes = request.deletes.as_ref();
    let mut write = TupleWrite::default();
    for key in writes.map(|writes| writes.tuple_keys.as_slice()).unwrap_or_default() {
        write.writes.push(tuples::read(key)?);
    }
    for key in deletes.map(|deletes| deletes.tuple_keys.as_slice()).unwrap_or_default() {
        let tuple = RelationshipTuple::parse(&key.user, &key.relation, &key.object);
        write.deletes.push(tuple?);
    }
    write.on_duplicate = on_conflict("on_duplicate", writes.map_or("", |writes| &writes.on_duplicate))?;
    write.on_missing = on_conflict("on_missing", deletes.map_or("", |deletes| &deletes.on_missing))?;
    resolved.store.write_under(Some(resolved.model_id), &write)?;
    Ok(api::WriteResponse {})
}

fn on_conflict(name: &str, value: &str) -> Result<OnConflict, Refusal> {
    match value {
        "" | "error" => Ok(OnConflict::Refuse),
        "ignore" => Ok(OnConflict::Ignore),
        other => Err(Refusal::validation(format!("invalid {name} option: {other}"))),
    }
}

pub(super) fn read(stores: &RelationshipStores, request: &api::ReadRequest) -> Result<api::ReadResponse, Refusal> {
    let filter = request.tuple_key.as_ref().map(filter).transpose()?.unwrap_or_default();
    let after = match token::read(token::List::Tuples, &request.continuation_token)? {
        Some(last) => last.parse().map_err(|_not_a_number| token::invalid())?,
        None => 0,
    };
    let size = page_size(request.page_size);
    let mut found = store_of(stores, &request.store_id)?.tuples(&filter, after, size + 1)?;
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| more);
    let continuation_token = last.map(|last| token::write(token::List::Tuples, &last.sequence.to_string()));
    let messages = found.iter().map(|stored| api::Tuple {
        key: Some(tuples::write(&stored.tuple)),
        timestamp: Some(tuples::timestamp(stored.unix_ms)),
    });
    Ok(api::ReadResponse { tuples: messages.collect(), continuation_token: continuation_token.unwrap_or_default() })
}

fn filter(key: &api::ReadRequestTupleKey) -> Result<TupleFilter, Refusal> {
    let names_type = key.object.split_once(':').filter(|(type_name, _)| !type_name.is_empty());
    match names_type {
        Some((_, id)) if !id.is_empty() || !key.user.is_empty() => {}
        Some(_) | None => {
            return Err(Refusal::validation(
                "the `tuple_key` must name the type of the object, and the object's id or a user",
            ));
        }
    }
    Ok(TupleFilter { object: key.object.clone(), relation: key.relation.clone(), user: key.user.clone() })
}

pub(super) fn read_changes(
    stores: &RelationshipStores,
    request: &api::ReadChangesRequest,
) -> Result<api::ReadChangesResponse, Refusal> {
    let mut filter = ChangeFilter::default();
    filter.type_name = Some(request.r#type.clone()).filter(|type_name| !type_name.is_empty());
    match token::read(token::List::Changes, &request.continuation_token)? {
        Some(last) => {
            let (sequence, type_name) = last.split_once('|').ok_or_else(token::invalid)?;
            filter.after = sequence.parse().map_err(|_not_a_number| token::invalid())?;
            if type_name != request.r#type {
                let message = "the continuation token is of a list of another type";
                return Err(Refusal::new(Number::ContinuationTokenMismatch, message));
            }
        }
        None => filter.since_unix_ms = request.start_time.as_ref().map_or(0, unix_ms),
    }
    let found = store_of(stores, &request.store_id)?.changes(&filter, page_size(request.page_size))?;
    let continuation_token = match found.last() {
        Some(last) => token::write(token::List::Changes, &format!("{}|{}", last.sequence, request.r#type)),
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

fn unix_ms(time: &openfga_client::prost_wkt_types::Timestamp) -> u64 {
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    let nanos = u64::try_from(time.nanos).unwrap_or_default();
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}
