//! One collection in memory: what a search looks at. Chunks are numbered in the order of their arrival and kept as
//! columns; a deleted chunk keeps its number, without a guard, until the deleted outnumber the living.

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
    /// Shared with the chunk before when it is the same.
    pub(super) metadata: Arc<Metadata>,
    /// Of length 1; empty when there is none.
    pub(super) vector: Vec<f32>,
    /// Ascending by term id.
    pub(super) terms: Vec<(TermId, u32)>,
}

/// A call that changed the store, as memory counts it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    /// Later ones have greater numbers, for as long as the process runs.
    pub(super) number: u64,
    /// Nothing that it wrote was to be found before.
    pub(super) at: Instant,
}

impl Write {
    /// Of everything that was in the file when it was opened.
    pub(super) fn before_start() -> Self {
        Self { number: 0, at: Instant::now() }
    }

    /// The one after it.
    pub(super) fn next(self) -> Self {
        Self { number: self.number + 1, at: Instant::now() }
    }
}

/// Where the chunks of a document are.
pub(super) struct DocumentEntry {
    pub(super) title: Box<str>,
    /// The write that put it in.
    pub(super) write: Write,
    pub(super) first: ChunkNumber,
    pub(super) chunks: u32,
}

/// One collection.
pub(super) struct Index {
    /// Its number in the data directory.
    pub(super) number: u32,
    /// The length of its vectors; fixed by the first one, for as long as there is one.
    pub(super) dimension: Option<usize>,
    /// How many living chunks have a vector.
    pub(super) living_vectors: usize,
    /// Words of living chunks, and of deleted ones whose postings are still there.
    words: Words,
    pub(super) guards: Guards,
    pub(super) postings: Postings,
    pub(super) documents: HashMap<Arc<str>, DocumentEntry>,
    /// Living chunks by id.
    pub(super) numbers: HashMap<Arc<str>, ChunkNumber>,
    pub(super) columns: Columns,
}

#[derive(Clone, Copy, Debug, Default)]
struct Words {
    living: u64,
    deleted: u64,
}

/// By chunk number.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) ids: Vec<Arc<str>>,
    pub(super) documents: Vec<Arc<str>>,
    /// Positions in the guard table; [`NONE`] when deleted.
    pub(super) guards: Vec<u32>,
    /// Those that are not deleted.
    pub(super) living: ChunkSet,
    /// Words of the text.
    pub(super) lengths: Vec<u32>,
    /// Positions in `metadata_values`.
    pub(super) metadata: Vec<u32>,
    /// Positions in `vectors`; [`NONE`] when there is none.
    pub(super) vector_slots: Vec<u32>,
    /// The distinct metadata of each document, one document after the other.
    pub(super) metadata_values: Vec<Arc<Metadata>>,
    pub(super) vectors: Vectors,
}

impl Index {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            dimension: None,
            living_vectors: 0,
            words: Words::default(),
            guards: Guards::default(),
            postings: Postings::default(),
            documents: HashMap::new(),
            numbers: HashMap::new(),
            columns: Columns::default(),
        }
    }

    /// Puts a document in; none with its id or the ids of its chunks is there.
    pub(super) fn insert(&mut self, document: IndexedDocument, write: Write) {
        let first = self.columns.next_number();
        let entry = DocumentEntry { title: document.title, write, first, chunks: length(&document.chunks) };
        for chunk in document.chunks {
            let number = self.columns.next_number();
            let words = chunk.terms.iter().map(|(_, count)| count).sum();
            let guard = self.guards.position(&chunk.guard);
            self.guards.add(guard, number, words);
            self.words.living += u64::from(words);
            self.living_vectors += usize::from(!chunk.vector.is_empty());
            for (term, count) in &chunk.terms {
                self.postings.add(*term, Posting { chunk: number, count: *count });
            }
            self.numbers.insert(Arc::clone(&chunk.id), number);
            self.columns.push(Row { chunk, document: Arc::clone(&document.id), guard, words }, number == first);
        }
        self.documents.insert(document.id, entry);
    }

    /// Takes a document out, if it is there.
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

    /// How many chunks of a document have a vector.
    pub(super) fn vectors_of(&self, document_id: &str) -> usize {
        let Some(entry) = self.documents.get(document_id) else { return 0 };
        let chunks = entry.first..entry.first + entry.chunks;
        chunks.filter(|chunk| self.columns.vector_slot(*chunk).is_some()).count()
    }

    /// Takes what the next vectors are as long as. Another one than before only while there are no vectors.
    pub(super) fn set_dimension(&mut self, dimension: Option<usize>) {
        debug_assert!(self.dimension == dimension || self.living_vectors == 0, "vectors of two dimensions");
        if self.dimension != dimension {
            self.columns.vectors = Vectors::default();
        }
        self.dimension = dimension;
    }

    /// Gives up what the deleted left behind: their numbers when they outnumber the living, and their words' postings when
    /// these do. One document that is replaced over and over is few chunks and may be many words.
    pub(super) fn compact(&mut self) {
        let deleted = self.columns.ids.len() - self.numbers.len();
        if deleted > self.numbers.len() {
            self.renumber();
        } else if self.words.deleted > self.words.living.max(u64::from(self.postings.terms_len()) / 2) {
            // INVARIANT (bounded dictionary): ids are added only when all are in use, so there are never more than twice the
            // words that the collection held at one time, and those of one call. The other bound keeps the cost of going
            // through the dictionary in proportion to the words that were deleted.
            let columns = &self.columns;
            self.postings.renumber(|chunk| columns.is_living(chunk).then_some(chunk));
        } else {
            return;
        }
        self.words.deleted = 0;
    }

    /// Numbers the living anew.
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

    /// The position of the guard; [`NONE`] when the chunk was deleted.
    pub(super) fn guard(&self, chunk: ChunkNumber) -> u32 {
        self.guards.get(chunk as usize).copied().unwrap_or(NONE)
    }

    pub(super) fn id(&self, chunk: ChunkNumber) -> &str {
        self.ids.get(chunk as usize).map(|id| &**id).unwrap_or_default()
    }

    /// The id of the document.
    pub(super) fn document(&self, chunk: ChunkNumber) -> &str {
        self.documents.get(chunk as usize).map(|id| &**id).unwrap_or_default()
    }

    pub(super) fn length(&self, chunk: ChunkNumber) -> u32 {
        self.lengths.get(chunk as usize).copied().unwrap_or_default()
    }

    /// The position of the metadata in `metadata_values`.
    pub(super) fn metadata_place(&self, chunk: ChunkNumber) -> usize {
        self.metadata.get(chunk as usize).map_or(usize::MAX, |place| *place as usize)
    }

    pub(super) fn metadata(&self, chunk: ChunkNumber) -> Option<&Metadata> {
        self.metadata_values.get(self.metadata_place(chunk)).map(|metadata| &**metadata)
    }

    /// Where its vector is, if it has one.
    pub(super) fn vector_slot(&self, chunk: ChunkNumber) -> Option<usize> {
        self.vector_slots.get(chunk as usize).filter(|slot| **slot != NONE).map(|slot| *slot as usize)
    }

    fn push(&mut self, row: Row, is_first: bool) {
        let Row { chunk, document, guard, words } = row;
        let slot = if chunk.vector.is_empty() { NONE } else { position(self.vectors.len()) };
        if slot != NONE {
            self.vectors.push(&chunk.vector);
        }
        let is_shared = self.metadata_values.last().is_some_and(|last| Arc::ptr_eq(last, &chunk.metadata));
        if is_first || !is_shared {
            self.metadata_values.push(chunk.metadata);
        }
        self.metadata.push(position(self.metadata_values.len() - 1));
        self.living.push(self.next_number(), true);
        self.ids.push(chunk.id);
        self.documents.push(document);
        self.guards.push(guard);
        self.lengths.push(words);
        self.vector_slots.push(slot);
    }

    /// Moves the living down over the deleted; gives the new number of each old one, or [`NONE`].
    fn compact(&mut self) -> Vec<ChunkNumber> {
        let mut old = std::mem::take(self);
        let mut new_numbers = Vec::with_capacity(old.ids.len());
        // The vectors are most of the memory: they are moved in place.
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
            self.living.push(self.next_number(), true);
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

/// A place in a column. `change` refuses what would not fit, so the largest number never occurs.
fn position(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}
