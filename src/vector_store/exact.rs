//! The embedded engine. It keeps chunks in one redb file and searches them in memory: by a full scan of what is visible
//! (cosine) or with an inverted index (BM25). Results are exact, and depend on the query and the visible set alone.
//!
//! The index is our own, because this engine exists for the statistics of the visible set, and no search library
//! computes them for an arbitrary set at query time.
//!
//! A write is prepared without a lock, committed to the file, and then applied in memory under the write lock. Searches
//! hold the read lock, so they see each write wholly or not at all. The engine is made for up to about a million
//! chunks; with more, use Qdrant.

mod cancellation;
mod change;
mod chunk_number;
mod chunk_set;
mod durable;
mod fields;
mod guards;
mod hybrid_search;
mod index;
mod model_note;
mod postings;
mod query_words;
mod record;
mod search;
#[cfg(feature = "qdrant")]
pub(super) mod served_terms;
mod stated_language;
mod text_search;
mod top_k;
mod vector_search;
mod vectors;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use async_trait::async_trait;

use self::cancellation::{CancelOnDrop, CancelSignal};
use self::change::{Change, StoredText};
use self::chunk_number::ChunkNumber;
use self::durable::{Durable, Snapshot};
use self::index::{Index, Write};
use self::search::Eligible;
use self::top_k::Selection;
use super::validation;
use super::{
    CollectionInfo, CollectionLanguages, DocumentPage, DocumentStore, GuardTable, ListedDocument, Query, Rest, Search,
    SearchCosts, Searched, VectorModel, VectorOrigin, VectorStore, VectorStoreError,
};
use crate::blocking_pool::BlockingPool;
use crate::chunk::{Candidate, Chunk, ChunkMetadata, Document, FoundChunk, SOURCE_KEY, Value, Version, Written};
use crate::language::Object;
use crate::storage::StorageError;

/// The name of the engine's file in the data directory.
pub const FILE_NAME: &str = "chunks.redb";

/// The most writes that are prepared or wait at the same time. They are made durable one after the other.
const WRITES_MAX: usize = 4;

/// The embedded engine as a store.
#[derive(Clone)]
pub struct ExactStore {
    engine: Arc<Engine>,
    reads: BlockingPool,
    /// A pool of its own, because a write waits for the disk and for other writes, and must not hold up reads.
    writes: BlockingPool,
}

struct Engine {
    languages: CollectionLanguages,
    state: RwLock<SearchState>,
    /// Held from the decision about a change until the change is applied.
    writer: Mutex<WriteState>,
}

struct SearchState {
    collections: BTreeMap<String, Index>,
    /// The file as it was when `collections` was last changed, so that both always agree.
    snapshot: Arc<Snapshot>,
    /// The last write that is in `collections`.
    write: Write,
}

struct WriteState {
    durable: Durable,
    unsettled: Option<Unsettled>,
}

/// A change that is not in memory yet.
enum Unsettled {
    /// The change may be in the file or not. That is known once the file is opened again.
    OnItsWay(Change),
    /// The change is in the file.
    InFile(Change),
}

impl ExactStore {
    /// Opens or creates the store in a data directory, and reads the index into memory. This blocks the thread; call it at the
    /// start.
    ///
    /// # Errors
    /// When the file is in use, newer than this program, or damaged, and when the disk fails.
    pub fn open(directory: &Path) -> Result<Self, VectorStoreError> {
        Self::open_configured(directory, CollectionLanguages::default())
    }

    /// Like [`ExactStore::open`], with settings. Texts that were indexed by another version of the analysis, or for other
    /// languages, are analyzed anew. That takes about as long as it took to put them in.
    ///
    /// # Errors
    /// As for [`ExactStore::open`].
    pub fn open_configured(directory: &Path, languages: CollectionLanguages) -> Result<Self, VectorStoreError> {
        let durable = Durable::open(&directory.join(FILE_NAME), &languages)?;
        let snapshot = durable.snapshot()?;
        let write = Write::before_start();
        let state = SearchState { collections: snapshot.load(write)?, snapshot: Arc::new(snapshot), write };
        let writer = WriteState { durable, unsettled: None };
        let engine = Arc::new(Engine { languages, state: RwLock::new(state), writer: Mutex::new(writer) });
        Ok(Self { engine, reads: BlockingPool::cpu_bound(), writes: BlockingPool::with_slots(WRITES_MAX) })
    }

    /// Runs work that may take long or wait for a lock, on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        pool: &BlockingPool,
        work: impl FnOnce(&Engine, &CancelSignal) -> Result<T, VectorStoreError> + Send + 'static,
    ) -> Result<T, VectorStoreError> {
        let engine = Arc::clone(&self.engine);
        let cancel_on_drop = CancelOnDrop::default();
        let cancel = cancel_on_drop.signal();
        let finished = pool.run(move || {
            if cancel.is_cancelled() {
                return Err(VectorStoreError::Unavailable("the caller has gone".to_owned()));
            }
            work(&engine, &cancel)
        });
        let finished = finished.await;
        drop(cancel_on_drop);
        finished.map_err(|e| VectorStoreError::Unavailable(e.to_string()))?
    }
}

#[async_trait]
impl VectorStore for ExactStore {
    async fn collection(&self, name: &str) -> Result<CollectionInfo, VectorStoreError> {
        let name = name.to_owned();
        self.blocking(&self.reads, move |engine, _| Ok(engine.read()?.index(&name)?.info())).await
    }

    async fn vector_origin(&self, collection: &str) -> Result<VectorOrigin, VectorStoreError> {
        let name = collection.to_owned();
        self.blocking(&self.reads, move |engine, _| Ok(engine.read()?.index(&name)?.vector_origin())).await
    }

    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        let name = collection.to_owned();
        self.blocking(&self.reads, move |engine, _| Ok(Some(engine.read()?.index(&name)?.guards.table()))).await
    }

    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        let search = search.clone();
        let limit = search.limit;
        let candidates = self.blocking(&self.reads, move |engine, cancel| engine.search(&search, cancel)).await?;
        let rest = if candidates.len() < limit { Rest::Nothing } else { Rest::Further };
        Ok(Searched { candidates, exact: true, rest })
    }

    async fn find(&self, collection: &str, chunk_ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError> {
        let (name, ids) = (collection.to_owned(), chunk_ids.to_vec());
        self.blocking(&self.reads, move |engine, _| {
            let state = engine.read()?;
            let index = state.index(&name)?;
            let found = ids.iter().filter_map(|id| index.numbers.get(id.as_str()));
            Ok(found.filter_map(|number| index.found(*number)).collect())
        })
        .await
    }

    async fn document_guards(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<Vec<Object>>, VectorStoreError> {
        let (name, ids) = (collection.to_owned(), document_ids.to_vec());
        self.blocking(&self.reads, move |engine, _| {
            let state = engine.read()?;
            let index = state.index(&name)?;
            Ok(ids.iter().map(|id| index.guards_of(id)).collect())
        })
        .await
    }

    async fn find_in_document(
        &self,
        collection: &str,
        document_id: &str,
        guards: &HashSet<Object>,
    ) -> Result<Vec<Candidate>, VectorStoreError> {
        let (name, id, guards) = (collection.to_owned(), document_id.to_owned(), guards.clone());
        self.blocking(&self.reads, move |engine, _| {
            let state = engine.read()?;
            let index = state.index(&name)?;
            let is_under = |chunk: &ChunkNumber| {
                index.guards.get(index.columns.guard(*chunk)).is_some_and(|guard| guards.contains(guard))
            };
            // A document has no more chunks than this, because every write checks it.
            let chunks = index.chunks_of(&id).filter(is_under).take(validation::CHUNKS_PER_DOCUMENT_MAX);
            Ok(chunks.filter_map(|chunk| index.candidate(chunk, 0.0)).collect())
        })
        .await
    }

    async fn read_metadata(
        &self,
        collection: &str,
        _search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError> {
        let (name, found) = (collection.to_owned(), found.to_vec());
        self.blocking(&self.reads, move |engine, _| {
            let state = engine.read()?;
            let index = state.index(&name)?;
            let located = found.iter().filter_map(|found| index.locate(found));
            Ok(located.filter_map(|located| index.metadata(located)).collect())
        })
        .await
    }

    /// The search is not needed here. If a candidate's version is the same, so is everything that the search has looked
    /// at.
    async fn read(
        &self,
        collection: &str,
        _search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        let (name, found) = (collection.to_owned(), found.to_vec());
        self.blocking(&self.reads, move |engine, _| match engine.read_chunks(&name, &found) {
            Err(VectorStoreError::Storage(StorageError::Io { .. })) => {
                engine.mend()?;
                engine.read_chunks(&name, &found)
            }
            read => read,
        })
        .await
    }
}

#[async_trait]
impl DocumentStore for ExactStore {
    async fn note_model(&self, collection: &str, model: Option<VectorModel<'_>>) -> Result<(), VectorStoreError> {
        let (name, model) = (collection.to_owned(), model.map(|model| model.name.to_owned()));
        self.blocking(&self.writes, move |engine, _| engine.note_model(&name, model.as_deref())).await
    }

    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError> {
        let name = collection.to_owned();
        self.blocking(&self.writes, move |engine, _| engine.upsert(&name, documents, None)).await
    }

    async fn upsert_under(
        &self,
        collection: &str,
        documents: Vec<Document>,
        guards: &BTreeSet<Object>,
    ) -> Result<(), VectorStoreError> {
        let (name, guards) = (collection.to_owned(), guards.clone());
        self.blocking(&self.writes, move |engine, _| engine.upsert(&name, documents, Some(&guards))).await
    }

    async fn delete(&self, collection: &str, document_ids: &BTreeSet<String>) -> Result<u64, VectorStoreError> {
        let (name, ids) = (collection.to_owned(), document_ids.clone());
        self.blocking(&self.writes, move |engine, _| engine.delete(&name, &ids, None)).await
    }

    async fn delete_under(
        &self,
        collection: &str,
        document_ids: &BTreeSet<String>,
        guards: &BTreeSet<Object>,
    ) -> Result<u64, VectorStoreError> {
        let (name, ids, guards) = (collection.to_owned(), document_ids.clone(), guards.clone());
        self.blocking(&self.writes, move |engine, _| engine.delete(&name, &ids, Some(&guards))).await
    }

    async fn documents(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<(String, u32)>, VectorStoreError> {
        let (name, ids) = (collection.to_owned(), document_ids.to_vec());
        self.blocking(&self.reads, move |engine, _| {
            let state = engine.read()?;
            let index = state.index(&name)?;
            let found = ids.into_iter().filter_map(|id| {
                let chunks = index.documents.get(id.as_str())?.chunks;
                Some((id, chunks))
            });
            Ok(found.collect())
        })
        .await
    }

    async fn collection_names(&self) -> Result<Vec<String>, VectorStoreError> {
        self.blocking(&self.reads, |engine, _| Ok(engine.read()?.collections.keys().cloned().collect())).await
    }

    /// The order is that of the ids' bytes.
    async fn list(&self, collection: &str, from: Option<&str>, limit: usize) -> Result<DocumentPage, VectorStoreError> {
        let (name, from) = (collection.to_owned(), from.unwrap_or_default().to_owned());
        self.blocking(&self.reads, move |engine, _| match engine.list(&name, &from, limit) {
            Err(VectorStoreError::Storage(StorageError::Io { .. })) => {
                engine.mend()?;
                engine.list(&name, &from, limit)
            }
            listed => listed,
        })
        .await
    }

    async fn guards_of(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Option<BTreeSet<Object>>, VectorStoreError> {
        let (name, ids) = (collection.to_owned(), document_ids.to_vec());
        self.blocking(&self.reads, move |engine, _| {
            let state = engine.read()?;
            let index = state.index(&name)?;
            Ok(Some(ids.iter().flat_map(|id| index.guards_of(id)).collect()))
        })
        .await
    }
}

impl Engine {
    fn read(&self) -> Result<RwLockReadGuard<'_, SearchState>, VectorStoreError> {
        self.state.read().map_err(|poisoned| broken(&poisoned))
    }

    fn search(&self, search: &Search, cancel: &CancelSignal) -> Result<Vec<Candidate>, VectorStoreError> {
        validation::check_query(&search.query)?;
        let state = self.read()?;
        let index = state.index(&search.collection)?;
        let selection = Selection::of(search);
        let eligible = Eligible::new(index, search, cancel);
        let languages = self.languages.of(&search.collection);
        let by_text = |text: &str, selection| {
            query_words::of(text, &languages).map(|words| text_search::search(&eligible, &words, selection))
        };
        let by_vector = |vector: &[f32], selection| match index.dimension {
            None => Ok(Vec::new()),
            Some(expected) if expected != vector.len() => {
                let (collection, found) = (search.collection.clone(), vector.len());
                Err(VectorStoreError::Dimension { collection, expected, found })
            }
            Some(_) => Ok(vector_search::search(&eligible, vector, selection)),
        };
        let hits = match &search.query {
            Query::Text(text) => by_text(text, selection)?,
            Query::Vector(vector) => by_vector(vector, selection)?,
            Query::Hybrid { text, vector } => {
                let depth = hybrid_search::depth();
                hybrid_search::fuse(&eligible, [by_text(text, depth)?, by_vector(vector, depth)?], selection)
            }
        };
        Ok(hits.into_iter().filter_map(|hit| index.candidate(hit.chunk, hit.score)).collect())
    }

    /// INVARIANT (one version): index and file are read as they were after the same write, and a chunk is left out if
    /// its version is not the one that was found.
    fn read_chunks(&self, collection: &str, found: &[Candidate]) -> Result<Vec<Chunk>, VectorStoreError> {
        let (snapshot, number, mut found) = {
            let state = self.read()?;
            let index = state.index(collection)?;
            let located = found.iter().filter_map(|found| index.locate(found));
            let found: Vec<(Chunk, u32)> = located.filter_map(|located| index.chunk_without_text(located)).collect();
            (Arc::clone(&state.snapshot), index.number, found)
        };
        // The lock is released here, because reading from the file may take long.
        for (chunk, position) in &mut found {
            let StoredText { heading_path, text } = snapshot.text(number, &chunk.document_id, *position)?;
            (chunk.heading_path, chunk.text) = (heading_path, text);
        }
        Ok(found.into_iter().map(|(chunk, _)| chunk).collect())
    }

    fn list(&self, collection: &str, from: &str, limit: usize) -> Result<DocumentPage, VectorStoreError> {
        let (snapshot, number) = {
            let state = self.read()?;
            (Arc::clone(&state.snapshot), state.index(collection)?.number)
        };
        // The index knows no order of ids, and the file does. It is read without the lock, because that may take long.
        let mut ids = snapshot.document_ids(number, from, limit.saturating_add(1))?;
        let next = if ids.len() > limit { ids.pop() } else { None };
        let state = self.read()?;
        let index = state.index(collection)?;
        // A document that is gone by now is left out, and one that was replaced is listed as it is now.
        Ok(DocumentPage { documents: ids.into_iter().filter_map(|id| index.listed(id)).collect(), next })
    }

    /// Puts documents in. With `guards`, each document that is replaced must be under these alone.
    fn upsert(
        &self,
        collection: &str,
        documents: Vec<Document>,
        guards: Option<&BTreeSet<Object>>,
    ) -> Result<(), VectorStoreError> {
        validation::check_collection_name(collection)?;
        documents.iter().try_for_each(validation::check_document)?;
        if documents.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = documents.iter().map(|document| document.id.clone()).collect();
        let prepared = change::prepare(documents, &self.languages.of(collection));
        let mut writer = self.writer()?;
        let change = {
            let state = self.read()?;
            let index = state.collections.get(collection);
            if !ids.iter().all(|id| index.is_none_or(|index| index.is_under(id, guards))) {
                return Err(VectorStoreError::OtherGuard);
            }
            Change::upsert(collection, index, state.next_number(), prepared)?
        };
        self.perform(&mut writer, change)
    }

    /// Deletes documents. With `guards`, only those that are under these alone.
    fn delete(
        &self,
        collection: &str,
        document_ids: &BTreeSet<String>,
        guards: Option<&BTreeSet<Object>>,
    ) -> Result<u64, VectorStoreError> {
        let mut writer = self.writer()?;
        let change = {
            let state = self.read()?;
            let index = state.index(collection)?;
            let ids = document_ids.iter().filter(|id| index.is_under(id, guards)).cloned().collect();
            Change::delete(collection, index, &ids)
        };
        let removed = change.removed.len() as u64;
        if removed > 0 {
            self.perform(&mut writer, change)?;
        }
        Ok(removed)
    }

    /// Takes the lock for writing, and first settles what an earlier write left unsettled.
    fn writer(&self) -> Result<MutexGuard<'_, WriteState>, VectorStoreError> {
        let mut writer = self.writer.lock().map_err(|poisoned| broken(&poisoned))?;
        let has_failed = writer.durable.has_failed();
        let came_in = has_failed && writer.durable.reopen()?;
        match writer.unsettled.take() {
            Some(Unsettled::InFile(change)) => self.show(&mut writer, Some(change))?,
            Some(Unsettled::OnItsWay(change)) if came_in => self.show(&mut writer, Some(change))?,
            Some(Unsettled::OnItsWay(_)) | None if has_failed => self.show(&mut writer, None)?,
            Some(Unsettled::OnItsWay(_)) | None => {}
        }
        Ok(writer)
    }

    fn perform(&self, writer: &mut WriteState, change: Change) -> Result<(), VectorStoreError> {
        if let Err(error) = writer.durable.commit(&change) {
            writer.unsettled = writer.durable.has_failed().then_some(Unsettled::OnItsWay(change));
            return Err(error.into());
        }
        self.show(writer, Some(change))
    }

    /// Makes searches see the file as it is now, with this change.
    fn show(&self, writer: &mut WriteState, change: Option<Change>) -> Result<(), VectorStoreError> {
        let snapshot = match writer.durable.snapshot() {
            Ok(snapshot) => Arc::new(snapshot),
            Err(error) => {
                writer.unsettled = change.map(Unsettled::InFile);
                return Err(error.into());
            }
        };
        let mut state = self.state.write().map_err(|poisoned| broken(&poisoned))?;
        state.snapshot = snapshot;
        if let Some(change) = change {
            // The write gets its time under the lock. So nobody can have found anything of it before that time.
            let write = state.write.next();
            state.write = write;
            let new_index = || Index::new(change.number);
            let index = state.collections.entry(change.collection.clone()).or_insert_with(new_index);
            change.apply(index, write);
        }
        Ok(())
    }

    /// Opens the file again after it failed. Reads need that as well, because texts are read from the file.
    fn mend(&self) -> Result<(), VectorStoreError> {
        self.writer().map(drop)
    }
}

impl SearchState {
    /// Returns the number of the next new collection.
    fn next_number(&self) -> u32 {
        self.collections.values().map(|index| index.number + 1).max().unwrap_or_default()
    }

    fn index(&self, collection: &str) -> Result<&Index, VectorStoreError> {
        let unknown = || VectorStoreError::UnknownCollection(collection.to_owned());
        self.collections.get(collection).ok_or_else(unknown)
    }
}

impl Index {
    fn info(&self) -> CollectionInfo {
        CollectionInfo {
            dimension: self.dimension,
            text_queries: true,
            // A search looks at the chunks of its space alone, however many guards name them.
            search_costs: SearchCosts::FREE,
            candidates_max: None,
            chunks: self.numbers.len() as u64,
            documents: self.documents.len() as u64,
        }
    }

    fn listed(&self, id: String) -> Option<ListedDocument> {
        let entry = self.documents.get(id.as_str())?;
        let guards: Option<BTreeSet<Object>> =
            entry.guards.iter().map(|position| self.guards.get(*position).cloned()).collect();
        let source = self.columns.metadata(entry.first).and_then(|metadata| match metadata.get(SOURCE_KEY)? {
            Value::Text(source) => Some(source.clone()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::List(_) => None,
        });
        let (title, place) = (entry.title.to_string(), id.clone());
        Some(ListedDocument { id, title, chunks: entry.chunks, source, guards, place })
    }

    fn candidate(&self, chunk: ChunkNumber, score: f32) -> Option<Candidate> {
        let chunk_id = self.columns.ids.get(chunk as usize)?.to_string();
        let guard = self.guards.get(self.columns.guard(chunk))?.clone();
        let Write { number, at } = self.documents.get(self.columns.document(chunk))?.write;
        let version = Some(Version(number.into()));
        Some(Candidate { chunk_id, guard, score, version, written: Written::By(at) })
    }

    fn found(&self, chunk: ChunkNumber) -> Option<FoundChunk> {
        let document_id = Some(self.columns.document(chunk).to_owned());
        Some(FoundChunk { candidate: self.candidate(chunk, 0.0)?, document_id })
    }

    /// Returns the chunks of a document, in the order of the document; none if there is no such document.
    fn chunks_of(&self, document_id: &str) -> Range<ChunkNumber> {
        self.documents.get(document_id).map_or(0..0, |entry| entry.first..entry.first + entry.chunks)
    }

    /// Returns the distinct guards of a document's chunks.
    fn guards_of(&self, document_id: &str) -> Vec<Object> {
        let positions = self.documents.get(document_id).map_or(&[][..], |entry| &entry.guards);
        positions.iter().filter_map(|position| self.guards.get(*position)).cloned().collect()
    }

    /// Returns whether a document has no other guards than these. One that is not there has none.
    fn is_under(&self, document_id: &str, guards: Option<&BTreeSet<Object>>) -> bool {
        guards.is_none_or(|guards| self.guards_of(document_id).iter().all(|guard| guards.contains(guard)))
    }

    /// Returns the number of a candidate's chunk, if its document was not written since it was found.
    fn locate(&self, found: &Candidate) -> Option<ChunkNumber> {
        let chunk = *self.numbers.get(found.chunk_id.as_str())?;
        let version = self.candidate(chunk, 0.0)?.version;
        (version == found.version).then_some(chunk)
    }

    fn metadata(&self, chunk: ChunkNumber) -> Option<ChunkMetadata> {
        let Candidate { chunk_id, guard, .. } = self.candidate(chunk, 0.0)?;
        let document_id = self.columns.document(chunk).to_owned();
        let metadata = self.columns.metadata(chunk)?.clone();
        Some(ChunkMetadata { chunk_id, document_id, guard, metadata })
    }

    /// Returns a chunk without its text, and its position in its document.
    fn chunk_without_text(&self, chunk: ChunkNumber) -> Option<(Chunk, u32)> {
        let ChunkMetadata { chunk_id, document_id, guard, metadata } = self.metadata(chunk)?;
        let document = self.documents.get(document_id.as_str())?;
        let (title, position) = (document.title.to_string(), chunk - document.first);
        let (heading_path, text, vector) = (Vec::new(), String::new(), Vec::new());
        Some((Chunk { id: chunk_id, document_id, guard, title, heading_path, text, metadata, vector }, position))
    }
}

/// Returns the error after a panic in the middle of a change. Nothing may be answered from a state that may be half
/// changed.
fn broken(detail: &dyn Display) -> VectorStoreError {
    VectorStoreError::Unavailable(format!("an earlier write ended half-way, so restart ({detail})"))
}

#[cfg(test)]
mod tests;
