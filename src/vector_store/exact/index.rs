//! The index of one collection in memory, which searches look at.
//!
//! Chunks are numbered in the order of their arrival and kept as columns. A deleted chunk keeps its number, without a
//! guard, until there are more deleted chunks than living ones.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::chunk_number::{ChunkNumber, NONE};
use super::chunk_set::ChunkSet;
use super::guards::Guards;
use super::postings::{Posting, Postings, TermId};
use super::vectors::Vectors;
use crate::chunk::Metadata;
use crate::language::Object;

/// A document as it is indexed and stored, without its texts.
#[derive(Clone, Debug)]
pub(super) struct IndexedDocument {
    pub(super) id: Arc<str>,
    pub(super) title: Box<str>,
    pub(super) chunks: Vec<IndexedChunk>,
}

/// A chunk as it is indexed and stored, without its text.
#[derive(Clone, Debug)]
pub(super) struct IndexedChunk {
    pub(super) id: Arc<str>,
    pub(super) guard: Object,
    /// The metadata; shared with the chunk before if that has the same.
    pub(super) metadata: Arc<Metadata>,
    /// The vector, scaled to length 1; empty if there is none.
    pub(super) vector: Vec<f32>,
    /// The terms of the text, ascending by id.
    pub(super) terms: Vec<IndexedTerm>,
}

/// A term of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IndexedTerm {
    pub(super) id: TermId,
    /// How often the chunk has the term.
    pub(super) count: u32,
}

/// A call that changed the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    /// The number of the write. Later writes have greater numbers, for as long as the process runs.
    pub(super) number: u64,
    /// When the write was applied. No search could find anything of it before.
    pub(super) at: Instant,
}

impl Write {
    /// Returns the write that stands for everything that was in the file when it was opened.
    pub(super) fn before_start() -> Self {
        Self { number: 0, at: Instant::now() }
    }

    /// Returns the write after this one.
    pub(super) fn next(self) -> Self {
        Self { number: self.number + 1, at: Instant::now() }
    }
}

/// A document and the numbers of its chunks.
pub(super) struct DocumentEntry {
    pub(super) title: Box<str>,
    /// The write that put the document in.
    pub(super) write: Write,
    pub(super) first: ChunkNumber,
    pub(super) chunks: u32,
    /// The positions of the distinct guards of its chunks, ascending. They are kept here so that the time to read them
    /// does not tell how many chunks are under them.
    pub(super) guards: Box<[u32]>,
}

/// The index of one collection.
pub(super) struct Index {
    /// The number of the collection in the data directory.
    pub(super) number: u32,
    /// The dimension of the vectors. The first vector fixes it, for as long as there is a vector.
    pub(super) dimension: Option<usize>,
    /// The model that makes the vectors; `None` if writers send them.
    pub(super) model: Option<Arc<str>>,
    /// How many living chunks have a vector.
    pub(super) living_vectors: usize,
    /// Counts the words of living chunks, and of deleted ones whose postings are still there.
    words: Words,
    pub(super) guards: Guards,
    pub(super) postings: Postings,
    pub(super) documents: HashMap<Arc<str>, DocumentEntry>,
    /// The numbers of living chunks by id.
    pub(super) numbers: HashMap<Arc<str>, ChunkNumber>,
    pub(super) columns: Columns,
}

#[derive(Clone, Copy, Debug, Default)]
struct Words {
    living: u64,
    deleted: u64,
}

/// The facts about each chunk, by its number.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) ids: Vec<Arc<str>>,
    pub(super) documents: Vec<Arc<str>>,
    /// The positions of guards in the guard table; [`NONE`] for a deleted chunk.
    pub(super) guards: Vec<u32>,
    /// The chunks that are not deleted.
    pub(super) living: ChunkSet,
    /// The numbers of words of the texts.
    pub(super) lengths: Vec<u32>,
    /// Positions in `metadata_values`, which documents share among their chunks.
    pub(super) metadata: Vec<u32>,
    /// Positions in `vectors`; [`NONE`] for a chunk without a vector.
    pub(super) vector_slots: Vec<u32>,
    /// The distinct metadata of each document, document by document.
    pub(super) metadata_values: Vec<Arc<Metadata>>,
    pub(super) vectors: Vectors,
}

impl Index {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            dimension: None,
            model: None,
            living_vectors: 0,
            words: Words::default(),
            guards: Guards::default(),
            postings: Postings::default(),
            documents: HashMap::new(),
            numbers: HashMap::new(),
            columns: Columns::default(),
        }
    }

    /// Puts a document in. Neither its id nor the ids of its chunks may be in use.
    pub(super) fn insert(&mut self, document: IndexedDocument, write: Write) {
        let first = self.columns.next_number();
        let chunks = length(&document.chunks);
        let mut guards = Vec::new();
        for chunk in document.chunks {
            let number = self.columns.next_number();
            let words = chunk.terms.iter().map(|term| term.count).sum();
            let guard = self.guards.position(&chunk.guard);
            self.guards.add(guard, number, words);
            if guards.last() != Some(&guard) {
                guards.push(guard);
            }
            self.words.living += u64::from(words);
            self.living_vectors += usize::from(!chunk.vector.is_empty());
            for term in &chunk.terms {
                self.postings.add(term.id, Posting { chunk: number, count: term.count });
            }
            self.numbers.insert(Arc::clone(&chunk.id), number);
            let is_first = number == first;
            self.columns.push(Row { chunk, document: Arc::clone(&document.id), is_first, guard, words });
        }
        guards.sort_unstable();
        guards.dedup();
        let guards = guards.into_boxed_slice();
        self.documents.insert(document.id, DocumentEntry { title: document.title, write, first, chunks, guards });
    }

    /// Deletes a document, if it exists.
    pub(super) fn remove(&mut self, document_id: &str) {
        let Some(entry) = self.documents.remove(document_id) else { return };
        for number in entry.first..entry.first + entry.chunks {
            let place = number as usize;
            let (Some(id), Some(words)) = (self.columns.ids.get(place), self.columns.lengths.get(place)) else {
                continue;
            };
            self.numbers.remove(id);
            self.words.living -= u64::from(*words);
            self.words.deleted += u64::from(*words);
            if let Some(slot) = self.columns.vector_slots.get_mut(place).filter(|slot| **slot != NONE) {
                self.living_vectors -= 1;
                *slot = NONE;
            }
            if let Some(guard) = self.columns.guards.get_mut(place) {
                self.guards.remove(*guard, *words);
                *guard = NONE;
                self.columns.living.remove(number..number + 1);
            }
        }
    }

    /// Counts the chunks of a document that have a vector.
    pub(super) fn vectors_of(&self, document_id: &str) -> usize {
        let Some(entry) = self.documents.get(document_id) else { return 0 };
        let chunks = entry.first..entry.first + entry.chunks;
        chunks.filter(|chunk| self.columns.vector_slot(*chunk).is_some()).count()
    }

    /// Sets the dimension of the vectors that come next. It may change only while there are no vectors.
    pub(super) fn set_dimension(&mut self, dimension: Option<usize>) {
        debug_assert!(self.dimension == dimension || self.living_vectors == 0, "vectors of two dimensions");
        if self.dimension != dimension {
            self.columns.vectors = Vectors::default();
        }
        self.dimension = dimension;
    }

    /// Frees what deleted chunks left behind: their numbers once deleted chunks outnumber living ones, and their
    /// postings once those are the majority. These are two conditions, because a document that is replaced over and
    /// over has few chunks and may have many words.
    pub(super) fn compact(&mut self) {
        let deleted = self.columns.ids.len() - self.numbers.len();
        if deleted > self.numbers.len() {
            self.renumber();
        } else if self.words.deleted > self.words.living.max(u64::from(self.postings.terms_len()) / 2) {
            // INVARIANT (bounded dictionary): an id is added only while all others are in use. So there are never more
            // ids than twice the words that the collection held at one time, plus those of one call. Compaction goes
            // through the whole dictionary. The bound of half the dictionary keeps that cost in proportion to the words
            // that were deleted.
            let columns = &self.columns;
            self.postings.renumber(|chunk| columns.is_living(chunk).then_some(chunk));
        } else {
            return;
        }
        self.words.deleted = 0;
    }

    /// Numbers the living chunks anew.
    fn renumber(&mut self) {
        let new_numbers = self.columns.compact();
        let new_number = |old: ChunkNumber| new_numbers.get(old as usize).copied().filter(|number| *number != NONE);
        self.guards.renumber(new_number);
        self.postings.renumber(new_number);
        for number in self.numbers.values_mut() {
            *number = new_number(*number).unwrap_or(NONE);
        }
        for entry in self.documents.values_mut() {
            entry.first = new_number(entry.first).unwrap_or(NONE);
        }
    }
}

/// One chunk on its way into the columns.
struct Row {
    chunk: IndexedChunk,
    document: Arc<str>,
    /// Whether it is the first chunk of its document.
    is_first: bool,
    guard: u32,
    words: u32,
}

impl Columns {
    pub(super) fn next_number(&self) -> ChunkNumber {
        length(&self.ids)
    }

    pub(super) fn is_living(&self, chunk: ChunkNumber) -> bool {
        self.guard(chunk) != NONE
    }

    /// Returns the position of the guard; [`NONE`] for a deleted chunk.
    pub(super) fn guard(&self, chunk: ChunkNumber) -> u32 {
        self.guards.get(chunk as usize).copied().unwrap_or(NONE)
    }

    pub(super) fn id(&self, chunk: ChunkNumber) -> &str {
        self.ids.get(chunk as usize).map(|id| &**id).unwrap_or_default()
    }

    /// Returns the id of the chunk's document.
    pub(super) fn document(&self, chunk: ChunkNumber) -> &str {
        self.documents.get(chunk as usize).map(|id| &**id).unwrap_or_default()
    }

    pub(super) fn length(&self, chunk: ChunkNumber) -> u32 {
        self.lengths.get(chunk as usize).copied().unwrap_or_default()
    }

    /// Returns the position of the metadata in `metadata_values`.
    pub(super) fn metadata_position(&self, chunk: ChunkNumber) -> usize {
        self.metadata.get(chunk as usize).map_or(usize::MAX, |position| *position as usize)
    }

    pub(super) fn metadata(&self, chunk: ChunkNumber) -> Option<&Metadata> {
        self.metadata_values.get(self.metadata_position(chunk)).map(|metadata| &**metadata)
    }

    /// Returns the position of the vector, if the chunk has one.
    pub(super) fn vector_slot(&self, chunk: ChunkNumber) -> Option<usize> {
        self.vector_slots.get(chunk as usize).filter(|slot| **slot != NONE).map(|slot| *slot as usize)
    }

    fn push(&mut self, row: Row) {
        let Row { chunk, document, is_first, guard, words } = row;
        let slot = if chunk.vector.is_empty() { NONE } else { position(self.vectors.len()) };
        if slot != NONE {
            self.vectors.push(&chunk.vector);
        }
        let is_shared = self.metadata_values.last().is_some_and(|last| Arc::ptr_eq(last, &chunk.metadata));
        if is_first || !is_shared {
            self.metadata_values.push(chunk.metadata);
        }
        self.metadata.push(position(self.metadata_values.len() - 1));
        self.living.push(self.next_number());
        self.ids.push(chunk.id);
        self.documents.push(document);
        self.guards.push(guard);
        self.lengths.push(words);
        self.vector_slots.push(slot);
    }

    /// Moves the living chunks down over the deleted ones. Returns the new number of each old one, or [`NONE`].
    fn compact(&mut self) -> Vec<ChunkNumber> {
        let mut old = std::mem::take(self);
        let mut new_numbers = Vec::with_capacity(old.ids.len());
        // The vectors are most of the memory, so they are moved in place.
        self.vectors = std::mem::take(&mut old.vectors);
        let mut vectors_kept = 0;
        let mut last_metadata = NONE;
        for place in 0..old.ids.len() {
            let number = position(place);
            if !old.is_living(number) {
                new_numbers.push(NONE);
                continue;
            }
            new_numbers.push(self.next_number());
            let (Some(id), Some(document), Some(metadata), Some(slot)) = (
                old.ids.get_mut(place),
                old.documents.get_mut(place),
                old.metadata.get(place).copied(),
                old.vector_slots.get(place).copied(),
            ) else {
                continue;
            };
            if metadata != last_metadata {
                last_metadata = metadata;
                self.metadata_values.extend(old.metadata_values.get(metadata as usize).cloned());
            }
            if slot == NONE {
                self.vector_slots.push(NONE);
            } else {
                self.vectors.relocate(slot as usize, vectors_kept);
                self.vector_slots.push(position(vectors_kept));
                vectors_kept += 1;
            }
            self.metadata.push(position(self.metadata_values.len() - 1));
            self.living.push(self.next_number());
            self.ids.push(std::mem::take(id));
            self.documents.push(std::mem::take(document));
            self.guards.push(old.guard(number));
            self.lengths.push(old.length(number));
        }
        self.vectors.truncate(vectors_kept);
        new_numbers
    }
}

fn length<T>(items: &[T]) -> u32 {
    position(items.len())
}

/// Returns an index as a position in a column. `change` refuses whatever would not fit, so the largest number never
/// occurs.
fn position(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}
