//! Merges the hits of several calls to a server into one ranking, and counts them by document.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use crate::chunk::Candidate;
use crate::vector_store::Search;

/// A candidate and its document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hit {
    pub(crate) candidate: Candidate,
    /// The document, where chunks are counted by document and the chunk names one.
    pub(crate) document_id: Option<String>,
}

/// Sorts by score, best first, and equal scores by chunk id.
pub(super) fn rank(hits: &mut [Hit]) {
    hits.sort_by(|Hit { candidate: a, .. }, Hit { candidate: b, .. }| {
        b.score.total_cmp(&a.score).then_with(|| a.chunk_id.cmp(&b.chunk_id))
    });
}

/// Returns the hits whose chunk is not among those already taken.
pub(super) fn without(mut hits: Vec<Hit>, taken: &[Hit]) -> Vec<Hit> {
    let taken: HashSet<&str> = taken.iter().map(|hit| hit.candidate.chunk_id.as_str()).collect();
    hits.retain(|hit| !taken.contains(hit.candidate.chunk_id.as_str()));
    hits
}

/// Returns the first hits of each document, at most `per_document_max`. A chunk that names no document counts as a
/// document of its own.
pub(super) fn first_of_documents(mut hits: Vec<Hit>, per_document_max: Option<NonZeroUsize>) -> Vec<Hit> {
    let Some(max) = per_document_max else { return hits };
    let mut counts: HashMap<String, usize> = HashMap::new();
    hits.retain(|hit| {
        let Some(document_id) = &hit.document_id else { return true };
        let count = counts.entry(document_id.clone()).or_default();
        *count += 1;
        *count <= max.get()
    });
    hits
}

/// Documents that already have as many hits as are wanted of each. The next calls leave them out.
#[derive(Debug, Default)]
pub(super) struct CompleteDocuments {
    pub(super) hits: Vec<Hit>,
    pub(super) document_ids: Vec<String>,
}

impl CompleteDocuments {
    /// Takes over the hits of those documents that are complete now, up to `documents_max` documents in all.
    pub(super) fn take(
        &mut self,
        hits: impl Iterator<Item = Hit>,
        per_document_max: Option<NonZeroUsize>,
        documents_max: usize,
    ) {
        let Some(max) = per_document_max else { return };
        let mut by_document: HashMap<String, Vec<Hit>> = HashMap::new();
        for hit in hits {
            if let Some(document_id) = hit.document_id.clone() {
                by_document.entry(document_id).or_default().push(hit);
            }
        }
        let room = documents_max.saturating_sub(self.document_ids.len());
        let complete = by_document.into_iter().filter(|(_, hits)| hits.len() >= max.get()).take(room);
        for (document_id, hits) in complete {
            self.document_ids.push(document_id);
            self.hits.extend(hits);
        }
    }
}

/// Returns the best hits of all parts of a search space.
///
/// The best hits of the whole space are among the best hits of its parts, even with a maximum per document. If the
/// guard of a chunk changes between two calls, two parts may have the chunk, which is then returned once. It may also
/// happen that no part has it, and this one request misses it.
pub(super) fn merge(mut hits: Vec<Hit>, search: &Search, per_document_max: Option<NonZeroUsize>) -> Vec<Candidate> {
    hits.retain(|hit| search.min_score.is_none_or(|score| f64::from(hit.candidate.score) >= score));
    rank(&mut hits);
    let mut seen = HashSet::with_capacity(hits.len());
    hits.retain(|hit| seen.insert(hit.candidate.chunk_id.clone()));
    let mut hits = first_of_documents(hits, per_document_max);
    hits.truncate(search.limit);
    hits.into_iter().map(|hit| hit.candidate).collect()
}
