//! One call that changes a collection: prepared without any lock, then decided against what is there, then stored, then
//! applied in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::chunk_number::NONE;
use super::index::{Index, IndexedChunk, IndexedDocument, Write};
use super::postings::TermId;
use super::terms::{Analyzer, TermCount};
use crate::chunk::{Chunk, Document, Metadata};
use crate::vector_store::VectorStoreError;
use crate::vector_store::direction::normalized;

/// A document whose texts were analyzed and whose vectors were normalized.
pub(super) struct PreparedDocument {
    id: Arc<str>,
    title: Box<str>,
    chunks: Vec<PreparedChunk>,
}

struct PreparedChunk {
    chunk: Chunk,
    metadata: Arc<Metadata>,
    terms: Vec<TermCount>,
}

/// What a call does to its collection; all of it or nothing.
pub(super) struct Change {
    pub(super) collection: String,
    /// The collection's number and dimension afterwards.
    pub(super) number: u32,
    pub(super) dimension: Option<usize>,
    /// Documents that go, or are replaced, with their numbers of chunks.
    pub(super) removed: Vec<(Arc<str>, u32)>,
    pub(super) added: Vec<AddedDocument>,
    /// New in the dictionary, with their ids: in the order of [`Postings::next_ids`](super::postings::Postings::next_ids).
    pub(super) terms: Vec<(TermId, Arc<str>)>,
}

/// A document that comes.
pub(super) struct AddedDocument {
    pub(super) document: IndexedDocument,
    /// By chunk; empty when it has none.
    pub(super) texts: Vec<String>,
}

/// Does the work of ingesting that needs no look at the collection, on all cores. Of several documents with one id the last
/// stays.
pub(super) fn prepare(documents: Vec<Document>) -> Vec<PreparedDocument> {
    let mut seen = HashSet::new();
    let mut last: Vec<Document> =
        documents.into_iter().rev().filter(|document| seen.insert(document.id.clone())).collect();
    last.reverse();
    last.into_par_iter().map_init(Analyzer::new, prepare_document).collect()
}

fn prepare_document(analyzer: &mut Analyzer, document: Document) -> PreparedDocument {
    let mut chunks: Vec<PreparedChunk> = Vec::with_capacity(document.chunks.len());
    for mut chunk in document.chunks {
        let metadata = std::mem::take(&mut chunk.metadata);
        let shared = chunks.last().map(|last| &last.metadata).filter(|last| ***last == metadata).cloned();
        let metadata = shared.unwrap_or_else(|| Arc::new(metadata));
        if !chunk.vector.is_empty() {
            chunk.vector = normalized(&chunk.vector);
        }
        let terms = analyzer.terms(&chunk.text);
        chunks.push(PreparedChunk { chunk, metadata, terms });
    }
    PreparedDocument { id: document.id.into(), title: document.title.into(), chunks }
}

impl Change {
    /// Puts documents in. `number` is the collection's if it is new.
    pub(super) fn upsert(
        collection: &str,
        index: Option<&Index>,
        number: u32,
        documents: Vec<PreparedDocument>,
    ) -> Result<Self, VectorStoreError> {
        let empty = Index::new(number);
        let index = index.unwrap_or(&empty);
        check_room(collection, index, &documents)?;
        check_owners(index, &documents)?;
        let removed = present(index, documents.iter().map(|document| &*document.id));
        let dimension = common_dimension(collection, dimension_without(index, &removed), &documents)?;
        let ids = index.postings.next_ids();
        let mut numbering = Numbering { index, ids, fresh: HashMap::new(), terms: Vec::new() };
        Ok(Self {
            collection: collection.to_owned(),
            number: index.number,
            dimension,
            removed,
            added: documents.into_iter().map(|document| numbering.document(document)).collect(),
            terms: numbering.terms,
        })
    }

    /// Takes documents out.
    pub(super) fn delete(collection: &str, index: &Index, document_ids: &BTreeSet<String>) -> Self {
        let removed = present(index, document_ids.iter().map(String::as_str));
        Self {
            collection: collection.to_owned(),
            number: index.number,
            dimension: dimension_without(index, &removed),
            removed,
            added: Vec::new(),
            terms: Vec::new(),
        }
    }

    /// Applies it in memory; cannot fail, because it is durable already.
    pub(super) fn apply(self, index: &mut Index, write: Write) {
        for (id, _) in &self.removed {
            index.remove(id);
        }
        index.set_dimension(self.dimension);
        for (_, term) in self.terms {
            index.postings.add_term(term);
        }
        for added in self.added {
            index.insert(added.document, write);
        }
        index.compact();
    }
}

/// Those of the documents that are there, with their numbers of chunks.
fn present<'a>(index: &Index, ids: impl Iterator<Item = &'a str>) -> Vec<(Arc<str>, u32)> {
    let found = ids.filter_map(|id| index.documents.get_key_value(id));
    found.map(|(id, entry)| (Arc::clone(id), entry.chunks)).collect()
}

/// The dimension once these documents are gone: the last vector takes it along.
fn dimension_without(index: &Index, removed: &[(Arc<str>, u32)]) -> Option<usize> {
    let vectors: usize = removed.iter().map(|(id, _)| index.vectors_of(id)).sum();
    index.dimension.filter(|_| vectors < index.living_vectors)
}

/// Chunk numbers must fit, deleted ones included.
fn check_room(collection: &str, index: &Index, documents: &[PreparedDocument]) -> Result<(), VectorStoreError> {
    let added: usize = documents.iter().map(|document| document.chunks.len()).sum();
    if index.columns.ids.len() + added < NONE as usize {
        return Ok(());
    }
    Err(VectorStoreError::Unsupported(format!("collection `{collection}` is full")))
}

/// A chunk id belongs to one document: among those that stay and those that come.
fn check_owners(index: &Index, documents: &[PreparedDocument]) -> Result<(), VectorStoreError> {
    let coming: HashSet<&str> = documents.iter().map(|document| &*document.id).collect();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for document in documents {
        for PreparedChunk { chunk, .. } in &document.chunks {
            let stays = |owner: &&str| !coming.contains(owner);
            let number = index.numbers.get(chunk.id.as_str());
            let stored = number.and_then(|number| index.columns.documents.get(*number as usize)).map(|owner| &**owner);
            let owner = stored.filter(stays).or_else(|| owners.insert(&chunk.id, &document.id));
            if let Some(owner) = owner {
                return Err(VectorStoreError::DuplicateChunk {
                    chunk_id: chunk.id.clone(),
                    document_id: document.id.to_string(),
                    owner: Some(owner.to_owned()),
                });
            }
        }
    }
    Ok(())
}

fn common_dimension(
    collection: &str,
    mut dimension: Option<usize>,
    documents: &[PreparedDocument],
) -> Result<Option<usize>, VectorStoreError> {
    let chunks = documents.iter().flat_map(|document| &document.chunks);
    for found in chunks.map(|chunk| chunk.chunk.vector.len()).filter(|length| *length > 0) {
        let expected = *dimension.get_or_insert(found);
        if found != expected {
            return Err(VectorStoreError::Dimension { collection: collection.to_owned(), expected, found });
        }
    }
    Ok(dimension)
}

/// Gives terms their ids; new ones get the next.
struct Numbering<'a, I> {
    index: &'a Index,
    ids: I,
    fresh: HashMap<Arc<str>, TermId>,
    terms: Vec<(TermId, Arc<str>)>,
}

impl<I: Iterator<Item = TermId>> Numbering<'_, I> {
    fn document(&mut self, document: PreparedDocument) -> AddedDocument {
        let mut chunks = Vec::with_capacity(document.chunks.len());
        let mut texts = Vec::with_capacity(document.chunks.len());
        for PreparedChunk { chunk, metadata, terms } in document.chunks {
            let mut terms: Vec<(TermId, u32)> =
                terms.into_iter().map(|(term, count)| (self.term_id(term), count)).collect();
            terms.sort_unstable();
            let Chunk { id, guard, text, vector, .. } = chunk;
            texts.push(text);
            chunks.push(IndexedChunk { id: id.into(), guard, metadata, vector, terms });
        }
        AddedDocument { document: IndexedDocument { id: document.id, title: document.title, chunks }, texts }
    }

    fn term_id(&mut self, term: Arc<str>) -> TermId {
        if let Some(id) = self.index.postings.term_id(&term).or_else(|| self.fresh.get(&term).copied()) {
            return id;
        }
        // A dictionary of 2^32 terms would be larger than the chunks that it is made from.
        let id = self.ids.next().unwrap_or(TermId::MAX);
        self.terms.push((id, Arc::clone(&term)));
        self.fresh.insert(term, id);
        id
    }
}
