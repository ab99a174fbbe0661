//! BM25 over the visible set: Lucene's formula with k1 = 1.2 and b = 0.75, where the number of chunks, the document
//! frequencies and the average length are those of the visible chunks with text. The caller's filter selects among them and
//! changes no statistic.
//!
//! A chunk's score is the sum over the query's distinct terms, in the order of their first occurrence in the query, of
//! `occurrences in the query · idf · tf / (tf + k1 · (1 − b + b · length / average length))` with
//! `idf = ln(1 + (N − df + 0.5) / (df + 0.5))`; summed as f64, rounded once to f32.
//!
//! INVARIANT (visible set alone): nothing else enters a score, and ties go by chunk id, so what is hidden cannot change a
//! byte of the answer.

use std::num::Saturating;

use super::index::ChunkNumber;
use super::postings::Posting;
use super::search::Eligible;
use super::terms::TermCount;
use super::top_k::{Bar, Hit, Selection, TopK};

const K1: f64 = 1.2;
const B: f64 = 0.75;

/// A posting list this many times longer than the visible set is searched for each visible chunk, not read through.
const LONG_LIST_FACTOR: usize = 8;

/// After so many chunks a search looks whether its caller is still there.
const CHUNKS_BETWEEN_LOOKS: u32 = 4_096;

/// One term of the query with its postings in the visible set.
struct Cursor {
    /// Occurrences in the query times idf.
    weight: f64,
    postings: Vec<Posting>,
    next: Saturating<usize>,
}

impl Cursor {
    fn head(&self) -> Option<Posting> {
        self.postings.get(self.next.0).copied()
    }
}

/// The selected chunks that hold at least one of the terms, best first.
pub(super) fn search(eligible: &Eligible<'_>, terms: &[TermCount], selection: Selection) -> Vec<Hit> {
    let index = eligible.index;
    let statistics = eligible.statistics();
    if statistics.chunks == 0 {
        return Vec::new();
    }
    let mut cursors = cursors(eligible, terms);
    let average_length = exact(statistics.words) / exact(statistics.chunks);
    let bar = Bar::new(selection);
    let mut best = TopK::new(selection, &index.columns, &bar);
    // One chunk at a time: the lists all ascend, so the lowest head is the next chunk that holds any of the terms.
    let mut chunks_until_look = CHUNKS_BETWEEN_LOOKS;
    while let Some(chunk) = cursors.iter().filter_map(Cursor::head).map(|posting| posting.chunk).min() {
        chunks_until_look -= 1;
        if chunks_until_look == 0 {
            if !eligible.is_wanted() {
                break;
            }
            chunks_until_look = CHUNKS_BETWEEN_LOOKS;
        }
        let norm = K1 * (1.0 - B + B * f64::from(index.columns.length(chunk)) / average_length);
        let hit = Hit { score: take_score(&mut cursors, chunk, norm), chunk };
        if eligible.passes(chunk) {
            best.push(hit);
        }
    }
    best.into_hits()
}

/// Adds up what each term gives for this chunk, in the order of the query, and moves on.
fn take_score(cursors: &mut [Cursor], chunk: ChunkNumber, norm: f64) -> f32 {
    let mut sum = 0.0;
    for cursor in cursors {
        if let Some(posting) = cursor.head().filter(|posting| posting.chunk == chunk) {
            let count = f64::from(posting.count);
            sum += cursor.weight * (count / (count + norm));
            cursor.next += 1;
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "the score's type is f32; rounded here, once")]
    let score = sum as f32;
    score
}

fn cursors(eligible: &Eligible<'_>, terms: &[TermCount]) -> Vec<Cursor> {
    let total = exact(eligible.statistics().chunks);
    let chunks_max = eligible.chunks_max();
    let is_visible = eligible.visibility();
    // Made when the first long list asks for it.
    let mut visible_chunks: Option<Vec<ChunkNumber>> = None;
    let mut cursors = Vec::with_capacity(terms.len());
    for (term, occurrences) in terms {
        let list = eligible.index.postings.list(term);
        let postings: Vec<Posting> = if list.len() / LONG_LIST_FACTOR > chunks_max {
            let chunks = visible_chunks.get_or_insert_with(|| eligible.visible());
            let found = |chunk: &ChunkNumber| list.binary_search_by_key(chunk, |posting| posting.chunk).ok();
            chunks.iter().filter_map(found).filter_map(|place| list.get(place).copied()).collect()
        } else {
            list.iter().copied().filter(|posting| is_visible(posting.chunk)).collect()
        };
        if !postings.is_empty() {
            let frequency = exact(postings.len() as u64);
            let idf = (1.0 + (total - frequency + 0.5) / (frequency + 0.5)).ln();
            cursors.push(Cursor { weight: f64::from(*occurrences) * idf, postings, next: Saturating(0) });
        }
    }
    cursors
}

/// Counts here are far below 2^53, so each has an exact float.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn exact(count: u64) -> f64 {
    count as f64
}
