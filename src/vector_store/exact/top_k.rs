//! Keeps the best k of many hits: best score first, ties by chunk id, and no more hits of one document than are wanted.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{self, AtomicU32};

use super::chunk_number::ChunkNumber;
use super::index::Columns;
use crate::vector_store::Search;

/// When this many hits are collected, or twice the limit if that is more, the best of them are picked. Sorting many at
/// once is cheaper than keeping each in order. The number is small, because worse hits are ruled out only after the
/// first sorting.
const ROOM_MIN: usize = 16;

/// The sign bit of a float.
const SIGN: u32 = 1 << 31;

/// A chunk and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hit {
    pub(super) score: f32,
    pub(super) chunk: ChunkNumber,
}

/// The hits that are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection {
    pub(super) limit: usize,
    pub(super) per_document_max: Option<NonZeroUsize>,
    /// The lowest score of a hit that is wanted.
    pub(super) score_min: f32,
}

impl Selection {
    /// Selects the best `limit` hits of all.
    pub(super) fn best(limit: usize) -> Self {
        Self { limit, per_document_max: None, score_min: f32::NEG_INFINITY }
    }

    pub(super) fn of(search: &Search) -> Self {
        let score_min = search.min_score.map_or(f32::NEG_INFINITY, lowest_at_least);
        Self { limit: search.limit, per_document_max: search.per_document_max, score_min }
    }
}

/// Returns the lowest f32 that is not below `number`.
fn lowest_at_least(number: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounded up below where it was rounded down here")]
    let nearest = number as f32;
    if f64::from(nearest) < number { nearest.next_up() } else { nearest }
}

/// A score that rises during a search. A hit that scores less is not among the best. The threads of one search share
/// the bar, so a good hit that one thread finds saves the others work.
///
/// INVARIANT (bars change no answer): the bar is never above the score of the k-th best hit of all, and hits with the
/// same score are kept. So how threads take turns decides what is skipped, and never what is found.
pub(super) struct Bar(AtomicU32);

impl Bar {
    pub(super) fn new(selection: Selection) -> Self {
        Self(AtomicU32::new(ordered(selection.score_min)))
    }

    pub(super) fn score(&self) -> f32 {
        let ordered = self.0.load(atomic::Ordering::Relaxed);
        f32::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN })
    }

    fn raise(&self, score: f32) {
        self.0.fetch_max(ordered(score), atomic::Ordering::Relaxed);
    }
}

/// Maps a float to bits that have the same order.
fn ordered(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// Keeps the best of the hits that are pushed, in whatever order they come.
///
/// INVARIANT (visible set alone): hits are ordered by score and chunk id. They are never ordered by chunk number, which
/// depends on what else was ingested and when.
pub(super) struct TopK<'a> {
    selection: Selection,
    columns: &'a Columns,
    bar: &'a Bar,
    hits: Vec<Hit>,
}

impl<'a> TopK<'a> {
    pub(super) fn new(selection: Selection, columns: &'a Columns, bar: &'a Bar) -> Self {
        Self { selection, columns, bar, hits: Vec::new() }
    }

    pub(super) fn push(&mut self, hit: Hit) {
        if hit.score < self.bar.score() {
            return;
        }
        self.hits.push(hit);
        if self.hits.len() >= self.selection.limit.saturating_mul(2).max(ROOM_MIN) {
            self.condense();
        }
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        for hit in other.hits {
            self.push(hit);
        }
        self
    }

    /// Returns the best hits, best first.
    pub(super) fn into_hits(mut self) -> Vec<Hit> {
        self.condense();
        self.hits
    }

    /// Drops all but the best hits, and sorts them, best first.
    fn condense(&mut self) {
        let columns = self.columns;
        self.hits.sort_unstable_by(|a, b| compare(columns, *a, *b));
        if let Some(max) = self.selection.per_document_max {
            let mut of_document: HashMap<&str, usize> = HashMap::new();
            self.hits.retain(|hit| {
                let chunks = of_document.entry(columns.document(hit.chunk)).or_default();
                *chunks += 1;
                *chunks <= max.get()
            });
        }
        self.hits.truncate(self.selection.limit);
        if let Some(last) = self.hits.last().filter(|_| self.hits.len() == self.selection.limit) {
            self.bar.raise(last.score);
        }
    }
}

/// Compares two hits; the lesser one is the better one.
fn compare(columns: &Columns, a: Hit, b: Hit) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| columns.id(a.chunk).cmp(columns.id(b.chunk)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_only_rises_and_keeps_every_score() {
        let scores = [f32::NEG_INFINITY, f32::MIN, -1.5, -1e-45, 0.0, 1e-45, 0.25, f32::MAX, f32::INFINITY];
        let bar = Bar::new(Selection::best(1));
        for score in scores {
            bar.raise(score);
            bar.raise(score.next_down());
            assert_eq!(bar.score().to_bits(), score.to_bits());
        }
    }

    #[test]
    fn the_lowest_score_is_not_below_what_is_asked_for() {
        for number in [0.5, 0.1, -0.1, 0.0, 1e300, -1e300] {
            let lowest = lowest_at_least(number);
            assert!(f64::from(lowest) >= number, "{number}: {lowest}");
            assert!(f64::from(lowest.next_down()) < number, "{number}: {lowest}");
        }
    }
}
