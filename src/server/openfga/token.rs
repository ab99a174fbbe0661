//! Continuation tokens. A token says where a list goes on, is opaque to clients, and is checked when it comes back.
//!
//! Tokens have the forms of those that `OpenFGA` gives with its default datastore: the base64 of an id (stores,
//! models), of `sequence|` (tuples), or of `ULID|type` (changes; the ULID holds time and sequence). So a token of
//! another list, or one that nobody gave, is refused with the number that `OpenFGA` refuses it with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use ulid::Ulid;

use super::error::{ErrorNumber, OpenFgaError};

/// The change at which a page of the log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LastChange {
    pub(super) unix_ms: u64,
    pub(super) sequence: u64,
    pub(super) type_name: String,
}

/// Returns the token of a page of stores or models. The id is that of the last store on the page, or of the first model
/// on the next page.
pub(super) fn of_id(id: &str) -> String {
    URL_SAFE.encode(id)
}

/// Returns the id in a token; `None` for an empty token, which begins a list.
pub(super) fn read_id<T>(token: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, OpenFgaError> {
    if token.is_empty() {
        return Ok(None);
    }
    parse(&decoded(token)?).map(Some).ok_or_else(of_another_list)
}

/// Returns the token of a page of tuples that ended at this place in the order of writing.
pub(super) fn of_tuples(sequence: u64) -> String {
    URL_SAFE.encode(format!("{sequence}|"))
}

/// Returns the place in the order of writing that a token names; 0 for an empty token.
pub(super) fn read_tuples(token: &str) -> Result<u64, OpenFgaError> {
    if token.is_empty() {
        return Ok(0);
    }
    let text = decoded(token)?;
    let (sequence, _) = text.split_once('|').filter(|(place, _)| !place.is_empty()).ok_or_else(invalid)?;
    sequence.parse().map_err(|_not_a_number| of_another_list())
}

/// Returns the token of a page of changes.
pub(super) fn of_changes(unix_ms: u64, sequence: u64, type_name: &str) -> String {
    URL_SAFE.encode(format!("{}|{type_name}", Ulid::from_parts(unix_ms, sequence.into())))
}

/// Returns the change that a token names; `None` for an empty token, which begins the log.
pub(super) fn read_changes(token: &str) -> Result<Option<LastChange>, OpenFgaError> {
    if token.is_empty() {
        return Ok(None);
    }
    let text = decoded(token)?;
    let (place, type_name) = text.split_once('|').ok_or_else(invalid)?;
    let place = Ulid::from_string(place).map_err(|_no_ulid| invalid())?;
    let unix_ms = place.timestamp_ms();
    // An id that is not ours still holds a time.
    let sequence = u64::try_from(place.random()).unwrap_or_default();
    Ok(Some(LastChange { unix_ms, sequence, type_name: type_name.to_owned() }))
}

fn invalid() -> OpenFgaError {
    OpenFgaError::new(ErrorNumber::InvalidContinuationToken, "Invalid continuation token")
}

/// Returns the error of a token of another list. `OpenFGA` fails internally on these.
fn of_another_list() -> OpenFgaError {
    tracing::warn!("a continuation token is of another list");
    OpenFgaError::internal()
}

fn decoded(token: &str) -> Result<String, OpenFgaError> {
    let bytes = URL_SAFE.decode(token).map_err(|_not_base64| invalid())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back() {
        assert_eq!(read_tuples(&of_tuples(17)), Ok(17));
        assert_eq!(read_tuples(""), Ok(0));
        for type_name in ["", "document", "a|b"] {
            let last = LastChange { unix_ms: 1_700_000_000_000, sequence: 17, type_name: type_name.to_owned() };
            assert_eq!(read_changes(&of_changes(last.unix_ms, 17, type_name)), Ok(Some(last)), "{type_name}");
        }
        assert_eq!(read_changes(""), Ok(None));
        assert_eq!(read_id(&of_id("x"), |id| Some(id.to_owned())), Ok(Some("x".to_owned())));
        assert_eq!(read_id("", |id| Some(id.to_owned())), Ok(None));
    }

    #[test]
    fn a_token_continues_only_its_own_list() {
        let changes = of_changes(1_700_000_000_000, 1, "");
        assert_eq!(read_tuples(&changes), Err(of_another_list()));
        assert_eq!(read_changes(&of_tuples(1)), Err(invalid()));
        assert_eq!(read_id(&of_tuples(1), |id| id.parse::<Ulid>().ok()), Err(of_another_list()));
        for foreign in ["Zm9v", "a", "====", "fA==", "é"] {
            assert_eq!(read_tuples(foreign), Err(invalid()), "`{foreign}`");
            assert_eq!(read_changes(foreign), Err(invalid()), "`{foreign}`");
        }
    }
}
