//! The place of a chunk: the id of a result, and the URI of a resource.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::chunk::ID_BYTES_MAX;
use crate::retrieval::request::check_collection;

/// The characters of an id that stand in a URI as they are: those that RFC 3986 reserves for nothing.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The beginning of a chunk's URI. The id follows it.
pub(super) const SCHEME: &str = "ragward://";

/// The place of a chunk, as the id of a result names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) collection: String,
    pub(super) chunk: String,
}

impl Place {
    /// Reads the id of a result.
    pub(super) fn of_id(id: &str) -> Option<Self> {
        let (collection, chunk) = id.split_once('/').filter(|(_, chunk)| !chunk.contains('/'))?;
        let plain = |part: &str| percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned);
        let place = Self { collection: plain(collection)?, chunk: plain(chunk)? };
        // One chunk has one id, so another spelling of it is no id.
        (place.id() == id && place.may_exist()).then_some(place)
    }

    /// Returns whether a collection and a chunk may have these names. Otherwise nothing is there, and it has to look so.
    fn may_exist(&self) -> bool {
        let mut violations = Vec::new();
        check_collection(&self.collection, &mut violations);
        violations.is_empty() && !self.chunk.is_empty() && self.chunk.len() <= ID_BYTES_MAX
    }

    pub(super) fn id(&self) -> String {
        let Self { collection, chunk } = self;
        format!("{}/{}", utf8_percent_encode(collection, ENCODED), utf8_percent_encode(chunk, ENCODED))
    }

    pub(super) fn uri(&self) -> String {
        format!("{SCHEME}{}", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_result_is_an_id_for_fetch() {
        for chunk in ["leave#1", "ä/ö", "a b%c", "..", "?x=1&y", "\u{202e}"] {
            let place = Place { collection: "hand-book_1.a".to_owned(), chunk: chunk.to_owned() };
            assert_eq!(Place::of_id(&place.id()), Some(place), "{chunk}");
        }
    }
}
