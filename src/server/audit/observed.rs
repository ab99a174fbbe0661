//! Describes, for the record of an observing re-check, how much Ragward would have withheld. If the operator asks for that, the
//! description names the chunks.
//!
//! INVARIANT (operator only): nothing of this is in an answer. It is made after the answer was decided, from the same
//! decisions, and goes into the record alone.

use std::collections::HashSet;

use crate::audit::{Observed, ObservedChunk, ObservedDetail};
use crate::retrieval::{Rechecked, WithheldChunk};

/// The most bytes of ids in one record. A thousand ids of 100 bytes fit, with those of their documents. Without a limit, a
/// caller could make the log grow by a megabyte with each call.
const IDS_BYTES_MAX: usize = 256 * 1_024;

/// Describes the ids of a re-check that its answer lacks. An id that no chunk has is apart from a chunk that is withheld.
pub(super) fn observed(detail: ObservedDetail, asked: &[String], rechecked: &Rechecked) -> Observed {
    let permitted = rechecked.candidates.iter().map(|candidate| candidate.item().chunk_id.as_str());
    let withheld = rechecked.withheld.iter().map(|chunk| chunk.chunk_id.as_str());
    // An id that comes again was seen before, and counts once.
    let mut seen: HashSet<&str> = permitted.chain(withheld).collect();
    let unknown: Vec<&String> = asked.iter().filter(|id| seen.insert(id.as_str())).collect();
    let counts =
        Observed { withheld: rechecked.withheld.len() as u64, unknown: unknown.len() as u64, ..Observed::default() };
    match detail {
        ObservedDetail::Counts => counts,
        ObservedDetail::Ids => {
            let mut room = Room { bytes: IDS_BYTES_MAX };
            // Withheld chunks come first, so that unknown ids cannot take their room.
            let withheld_chunks = rechecked.withheld.iter().filter(|chunk| room.takes(bytes_of(chunk)));
            let withheld_chunks = withheld_chunks.map(observed_chunk).collect();
            let unknown_ids = unknown.into_iter().filter(|id| room.takes(id.len())).cloned().collect();
            Observed { withheld_chunks, unknown_ids, ..counts }
        }
    }
}

/// The room that is left for ids in a record.
struct Room {
    bytes: usize,
}

impl Room {
    /// Takes room for some bytes, if there is enough.
    fn takes(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

fn bytes_of(chunk: &WithheldChunk) -> usize {
    let document_bytes = chunk.document_id.as_ref().map_or(0, String::len);
    chunk.chunk_id.len().saturating_add(document_bytes)
}

fn observed_chunk(chunk: &WithheldChunk) -> ObservedChunk {
    ObservedChunk { chunk_id: chunk.chunk_id.clone(), document_id: chunk.document_id.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::StageTimes;

    fn withheld(chunk_id: &str, document_id: Option<&str>) -> WithheldChunk {
        WithheldChunk { chunk_id: chunk_id.to_owned(), document_id: document_id.map(str::to_owned) }
    }

    /// Returns what is recorded if nothing is permitted.
    fn of(detail: ObservedDetail, asked: &[&str], withheld: Vec<WithheldChunk>) -> Observed {
        let asked: Vec<String> = asked.iter().map(|id| (*id).to_owned()).collect();
        let (sources, stages) = (Vec::new(), StageTimes::default());
        let rechecked = Rechecked { candidates: Vec::new(), withheld, sources, decided_by: None, stages };
        observed(detail, &asked, &rechecked)
    }

    #[test]
    fn unknown_ids_are_apart_from_withheld_chunks() {
        let asked = ["a#0", "b", "a#1", "b", "a#0"];
        let chunks = || vec![withheld("a#0", Some("a")), withheld("a#1", None)];
        let counts = Observed { withheld: 2, unknown: 1, ..Observed::default() };
        let chunk = |id: &str, document_id: Option<&str>| observed_chunk(&withheld(id, document_id));
        let ids = Observed {
            withheld_chunks: vec![chunk("a#0", Some("a")), chunk("a#1", None)],
            unknown_ids: vec!["b".to_owned()],
            ..counts.clone()
        };
        let rows = [
            ("counts", of(ObservedDetail::Counts, &asked, chunks()), counts),
            ("ids", of(ObservedDetail::Ids, &asked, chunks()), ids),
            ("nothing", of(ObservedDetail::Ids, &[], Vec::new()), Observed::default()),
        ];
        for (row, observed, expected) in rows {
            assert_eq!(observed, expected, "{row}");
        }
    }

    #[test]
    fn a_record_has_room_for_so_many_ids() {
        let long = |number: usize| format!("{number:0512}");
        let fit = IDS_BYTES_MAX / 1_024;
        let chunks = (0..fit + 5).map(|number| withheld(&long(number), Some(&long(number)))).collect();
        let unknown: Vec<String> = (10_000..10_005).map(long).collect();
        let asked: Vec<&str> = unknown.iter().map(String::as_str).collect();
        let observed = of(ObservedDetail::Ids, &asked, chunks);
        assert_eq!((observed.withheld, observed.unknown), (fit as u64 + 5, 5), "the numbers are whole");
        assert_eq!((observed.withheld_chunks.len(), observed.unknown_ids.len()), (fit, 0));
    }
}
