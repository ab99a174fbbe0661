//! Text queries: BM25 over the visible set, by Lucene's formula with k1 = 1.2 and b = 0.75.
//!
//! The number of chunks N, the document frequency df and the average length are those of the visible chunks with text.
//! The caller's filter selects among these and changes no statistic. The score of a chunk is the sum, over the distinct
//! words of the query, of `occurrences in the query · idf · tf / (tf + k1 · (1 − b + b · length / average length))`
//! with `idf = ln(1 + (N − df + 0.5) / (df + 0.5))`. It is added up as f64 in the order of the query, and rounded once
//! to f32. So the score does not depend on when a chunk was stored, nor on its neighbours.
//!
//! A word of the query stands for its stem in several languages. A chunk has the word if it has one of these terms. It
//! has the word as often as the most frequent of them, because each occurrence may have counted for several.
//!
//! For a large visible set the posting lists are read through, in blocks of chunks. For a small one its chunks are
//! looked up in the lists. Both ways add in the order of the query, so they give the same bits.
//!
//! INVARIANT (visible set alone): nothing else enters a score, and ties are broken by chunk id. So what is hidden
//! cannot change a byte of the answer.

use std::borrow::Cow;

use rayon::prelude::*;

use super::chunk_number::ChunkNumber;
use super::chunk_set::ChunkSet;
use super::postings::Posting;
use super::search::{BLOCK_CHUNKS, Eligible, Statistics};
use super::top_k::{Bar, Hit, Selection, TopK};
use crate::analysis::QueryWord;

pub(super) const K1: f64 = 1.2;
pub(super) const B: f64 = 0.75;

/// Chunks are looked up in the lists if at most one guard in this many, and one chunk in this many, is visible.
const LOOKED_UP_FACTOR: usize = 8;

/// Norms are computed ahead for lengths below this.
const LENGTHS: u32 = 2_048;

/// Finds the selected chunks that have at least one of the words, best first.
///
/// INVARIANT (hidden as absent): a word that no visible chunk has is dropped before anything is scored, and a term that
/// is not in the dictionary does not end the search earlier. So a word that only hidden chunks have costs no more than
/// one walk through the list of these chunks, and the time of an answer tells no more about the word.
pub(super) fn search(eligible: &Eligible<'_>, words: &[QueryWord], selection: Selection) -> Vec<Hit> {
    let statistics = eligible.statistics();
    if statistics.chunks == 0 {
        return Vec::new();
    }
    let lists = words.iter().map(|word| WordLists {
        lists: word
            .terms
            .iter()
            .map(|term| eligible.index.postings.list(term))
            .filter(|list| !list.is_empty())
            .collect(),
        occurrences: word.count,
    });
    let lists: Vec<WordLists<'_>> = lists.collect();
    let scoring = Scoring { eligible, selection, bar: Bar::new(selection), norms: Norms::new(statistics), statistics };
    if eligible.is_dense(LOOKED_UP_FACTOR) { scoring.scan_lists(&lists) } else { scoring.look_up(&lists) }
}

/// A word of the query.
struct WordLists<'l> {
    /// The chunks that have each term of the word, deleted ones included. No list is empty.
    lists: Vec<&'l [Posting]>,
    /// How often the query has the word.
    occurrences: u32,
}

/// A word of the query that some visible chunk has.
struct WeighedWord<'l> {
    /// The chunks that have the word. Hidden and deleted ones may be among them.
    postings: Cow<'l, [Posting]>,
    weight: f64,
}

struct Scoring<'a> {
    eligible: &'a Eligible<'a>,
    selection: Selection,
    bar: Bar,
    norms: Norms,
    statistics: Statistics,
}

impl Scoring<'_> {
    /// Reads each list from end to end. This is for many visible chunks. Each thread takes blocks of chunks of its own.
    fn scan_lists(&self, lists: &[WordLists<'_>]) -> Vec<Hit> {
        let visible = self.eligible.visible_set();
        let weighed = self.weighed(lists, &visible);
        if weighed.is_empty() {
            return Vec::new();
        }
        let end = self.eligible.index.columns.next_number();
        let blocks = (0..end.div_ceil(BLOCK_CHUNKS)).into_par_iter().filter(|_| self.eligible.is_wanted());
        let blocks = blocks.map(|block| block * BLOCK_CHUNKS..end.min((block + 1) * BLOCK_CHUNKS));
        let best = blocks.fold(
            || (self.best(), Vec::new()),
            |(mut best, mut sums), block| {
                sums.clear();
                sums.resize(block.len(), 0.0);
                for WeighedWord { postings, weight } in &weighed {
                    let from = postings.partition_point(|posting| posting.chunk < block.start);
                    let postings = postings.iter().skip(from).take_while(|posting| posting.chunk < block.end);
                    for posting in postings.filter(|posting| visible.contains(posting.chunk)) {
                        if let Some(sum) = sums.get_mut((posting.chunk - block.start) as usize) {
                            *sum += weight * self.share(*posting);
                        }
                    }
                }
                self.push_all(&mut best, block.zip(sums.iter().copied()));
                (best, sums)
            },
        );
        best.map(|(best, _)| best).reduce(|| self.best(), TopK::merge).into_hits()
    }

    /// Weighs the words that some visible chunk has.
    fn weighed<'l>(&self, lists: &[WordLists<'l>], visible: &ChunkSet) -> Vec<WeighedWord<'l>> {
        let weighed = lists.par_iter().filter_map(|WordLists { lists, occurrences }| {
            let (postings, frequency) = match lists.as_slice() {
                [] => return None,
                [postings] => (Cow::Borrowed(*postings), count_visible(postings, visible)),
                several => {
                    let is_visible = |posting: &&Posting| visible.contains(posting.chunk);
                    let merged = merged(several.iter().flat_map(|list| list.iter().filter(is_visible).copied()));
                    let frequency = merged.len();
                    (Cow::Owned(merged), frequency)
                }
            };
            (frequency > 0).then(|| WeighedWord { postings, weight: self.weight(frequency, *occurrences) })
        });
        weighed.collect()
    }

    /// Looks for the visible chunks in each list. This is for few visible chunks.
    fn look_up(&self, lists: &[WordLists<'_>]) -> Vec<Hit> {
        let visible = self.eligible.visible();
        let mut sums = vec![0.0; visible.len()];
        for WordLists { lists, occurrences } in lists {
            if !self.eligible.is_wanted() {
                break;
            }
            let mut found: Vec<FoundPosting> = Vec::new();
            for list in lists {
                found.append(&mut intersection(&visible, list));
            }
            if lists.len() > 1 {
                found.sort_by_key(|found| found.position);
                found.dedup_by(|next, kept| kept.takes_in(next));
            }
            let weight = self.weight(found.len(), *occurrences);
            for FoundPosting { position, posting } in found {
                if let Some(sum) = sums.get_mut(position) {
                    *sum += weight * self.share(posting);
                }
            }
        }
        let mut best = self.best();
        self.push_all(&mut best, visible.into_iter().zip(sums));
        best.into_hits()
    }

    fn best(&self) -> TopK<'_> {
        TopK::new(self.selection, &self.eligible.index.columns, &self.bar)
    }

    /// Offers the chunks that have a term. Their sums are above zero, because every weight is.
    fn push_all(&self, best: &mut TopK<'_>, sums: impl Iterator<Item = (ChunkNumber, f64)>) {
        for (chunk, sum) in sums.filter(|(_, sum)| *sum > 0.0) {
            #[expect(clippy::cast_possible_truncation, reason = "the score's type is f32; rounded here, once")]
            let hit = Hit { score: sum as f32, chunk };
            if self.eligible.passes(chunk) {
                best.push(hit);
            }
        }
    }

    /// Returns the weight of a term that `frequency` visible chunks have.
    fn weight(&self, frequency: usize, occurrences: u32) -> f64 {
        let (total, frequency) = (exact(self.statistics.chunks), exact(frequency as u64));
        let idf = (1.0 + (total - frequency + 0.5) / (frequency + 0.5)).ln();
        f64::from(occurrences) * idf
    }

    /// Returns the part of a term's weight that a chunk gets.
    fn share(&self, posting: Posting) -> f64 {
        let count = f64::from(posting.count);
        count / (count + self.norms.of(self.eligible.index.columns.length(posting.chunk)))
    }
}

/// The number that the formula adds to the term frequency, for each length of a chunk.
struct Norms {
    average_length: f64,
    short: Vec<f64>,
}

impl Norms {
    fn new(statistics: Statistics) -> Self {
        let mut norms = Self { average_length: exact(statistics.words) / exact(statistics.chunks), short: Vec::new() };
        norms.short = (0..LENGTHS).map(|length| norms.compute(length)).collect();
        norms
    }

    fn of(&self, length: u32) -> f64 {
        self.short.get(length as usize).copied().unwrap_or_else(|| self.compute(length))
    }

    fn compute(&self, length: u32) -> f64 {
        K1 * (1.0 - B + B * f64::from(length) / self.average_length)
    }
}

fn count_visible(list: &[Posting], visible: &ChunkSet) -> usize {
    list.par_iter().with_min_len(BLOCK_CHUNKS as usize).filter(|posting| visible.contains(posting.chunk)).count()
}

/// Merges the postings of the terms of a word into one list.
fn merged(postings: impl Iterator<Item = Posting>) -> Vec<Posting> {
    let mut merged: Vec<Posting> = postings.collect();
    // Each list ascends, and a stable sort finds that out.
    merged.sort_by_key(|posting| posting.chunk);
    merged.dedup_by(|next, kept| {
        let is_same = next.chunk == kept.chunk;
        if is_same {
            kept.count = kept.count.max(next.count);
        }
        is_same
    });
    merged
}

/// A posting, and the position of its chunk among those that were looked up.
struct FoundPosting {
    position: usize,
    posting: Posting,
}

impl FoundPosting {
    /// Takes another posting in, if it is of the same chunk. Returns whether it was.
    fn takes_in(&mut self, other: &Self) -> bool {
        let is_same = self.position == other.position;
        if is_same {
            self.posting.count = self.posting.count.max(other.posting.count);
        }
        is_same
    }
}

/// Finds the postings of these chunks, each with the position of its chunk. Both lists ascend. The cost is the length
/// of the shorter list, times a logarithm.
fn intersection(chunks: &[ChunkNumber], list: &[Posting]) -> Vec<FoundPosting> {
    let mut found = Vec::new();
    let (mut position, mut rest) = (0, list);
    while let (Some(chunk), Some(posting)) = (chunks.get(position), rest.first()) {
        if chunk == &posting.chunk {
            found.push(FoundPosting { position, posting: *posting });
            position += 1;
        } else if *chunk < posting.chunk {
            position += leap(chunks.get(position..).unwrap_or_default(), |chunk| *chunk < posting.chunk);
        } else {
            rest = rest.get(leap(rest, |posting| posting.chunk < *chunk)..).unwrap_or_default();
        }
    }
    found
}

/// Counts the first items that are below a mark: in strides that double, and then by halving the last stride.
fn leap<T>(items: &[T], is_below: impl Fn(&T) -> bool) -> usize {
    let mut stride = 1;
    while items.get(stride).is_some_and(&is_below) {
        stride *= 2;
    }
    let within = items.get(stride / 2..items.len().min(stride + 1)).unwrap_or_default();
    stride / 2 + within.partition_point(is_below)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53, so each has an exact float")]
fn exact(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chunk::Metadata;
    use crate::language::Object;
    use crate::vector_store::exact::cancellation::CancelOnDrop;
    use crate::vector_store::exact::index::{Index, IndexedChunk, IndexedDocument, IndexedTerm, Write};
    use crate::vector_store::{Query, Search, SearchSpace};

    const VISIBLE: u32 = 8;

    /// Returns an index of chunks that all have the word `every`. The first half of them are visible and have the word
    /// `visible`; the others have the word `hidden`.
    fn index() -> Index {
        let mut index = Index::new(0);
        for term in ["every", "visible", "hidden"] {
            index.postings.add_term(term.into());
        }
        for number in 0..2 * VISIBLE {
            let chunk = IndexedChunk {
                id: format!("{number}#0").into(),
                guard: Object::parse(&format!("document:{number}")).unwrap(),
                metadata: Arc::new(Metadata::new()),
                vector: Vec::new(),
                terms: [0, if number < VISIBLE { 1 } else { 2 }].map(|id| IndexedTerm { id, count: 1 }).to_vec(),
            };
            let document = IndexedDocument { id: number.to_string().into(), title: "".into(), chunks: vec![chunk] };
            index.insert(document, Write::before_start());
        }
        index
    }

    /// A word that only hidden chunks have is scored no more than a word that no chunk has, so it takes no more time.
    #[test]
    fn words_of_hidden_chunks_alone_are_scored_no_more_than_words_of_none() {
        let index = index();
        let search = Search {
            collection: "c".to_owned(),
            query: Query::Text(String::new()),
            filter: None,
            space: SearchSpace::Guards { table: index.guards.table(), positions: (0..VISIBLE).collect() },
            narrowing: None,
            min_score: None,
            per_document_max: None,
            limit: 10,
            enough: 10,
        };
        let (cancel_on_drop, selection) = (CancelOnDrop::default(), Selection::of(&search));
        let cancel = cancel_on_drop.signal();
        let eligible = Eligible::new(&index, &search, &cancel);
        let statistics = eligible.statistics();
        let norms = Norms::new(statistics);
        let scoring = Scoring { eligible: &eligible, selection, bar: Bar::new(selection), norms, statistics };
        let rows: [(&str, &[&str], &[&str]); 5] = [
            ("a word of hidden chunks", &["hidden"], &[]),
            ("a word of none", &["none"], &[]),
            ("a word of visible chunks", &["visible"], &["visible"]),
            ("one of hidden chunks beside others", &["every", "hidden", "visible"], &["every", "visible"]),
            ("one of none beside others", &["every", "none", "visible"], &["every", "visible"]),
        ];
        for (row, terms, scored) in rows {
            let list = |term: &&str| {
                let lists = [index.postings.list(term)].into_iter().filter(|list| !list.is_empty()).collect();
                WordLists { lists, occurrences: 1 }
            };
            let lists: Vec<WordLists<'_>> = terms.iter().map(list).collect();
            let weighed = scoring.weighed(&lists, &eligible.visible_set());
            let weighed: Vec<&[Posting]> = weighed.iter().map(|word| &*word.postings).collect();
            let expected: Vec<&[Posting]> = scored.iter().map(|term| index.postings.list(term)).collect();
            assert_eq!(weighed, expected, "{row}");
            let word = |term: &&str| QueryWord { terms: vec![(*term).into()], count: 1 };
            let words: Vec<QueryWord> = terms.iter().map(word).collect();
            let found = super::search(&eligible, &words, selection).len();
            assert_eq!(found, if scored.is_empty() { 0 } else { VISIBLE as usize }, "{row}");
        }
    }
}
