//! A call that changes a collection. It is prepared without a lock, then checked against what is stored, then made
//! durable, and then applied in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::chunk_number::NONE;
use super::fields::Fields;
use super::index::{Index, IndexedChunk, IndexedDocument, IndexedTerm, Write};
use super::postings::TermId;
use super::stated_language::stated_language;
use crate::analysis::{Analyzer, Languages, TermCount};
use crate::chunk::{Chunk, Document, Metadata};
use crate::vector_store::VectorStoreError;
use crate::vector_store::direction::normalized;

/// A document whose texts are analyzed and whose vectors are normalized.
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

/// The effect of a call on its collection. All of it happens, or nothing.
pub(super) struct Change {
    pub(super) collection: String,
    /// The number of the collection.
    pub(super) number: u32,
    /// The dimension of the collection after the change.
    pub(super) dimension: Option<usize>,
    pub(super) model: ModelNote,
    /// The documents that are deleted or replaced.
    pub(super) removed: Vec<RemovedDocument>,
    pub(super) added: Vec<AddedDocument>,
    /// The terms that are new in the dictionary, in the order of [`Postings::next_ids`](super::postings::Postings::next_ids).
    pub(super) terms: Vec<NewTerm>,
}

/// The note of the model that makes the vectors of a collection.
pub(super) enum ModelNote {
    /// It stays as it is.
    Kept,
    /// It is this model from now on, or writers send the vectors.
    Replaced(Option<Arc<str>>),
}

/// A document that is deleted or replaced.
pub(super) struct RemovedDocument {
    pub(super) id: Arc<str>,
    /// The number of its chunks.
    pub(super) chunks: u32,
}

/// A term that is new in the dictionary.
pub(super) struct NewTerm {
    pub(super) id: TermId,
    pub(super) term: Arc<str>,
}

/// A document that is put in.
pub(super) struct AddedDocument {
    pub(super) document: IndexedDocument,
    /// The texts of its chunks in their order.
    pub(super) texts: Vec<StoredText>,
}

/// What is read of a chunk once it is permitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredText {
    /// The headings above the text.
    pub(super) heading_path: Vec<String>,
    /// The text; empty if the chunk has none.
    pub(super) text: String,
}

/// Does, on all cores, the part of ingesting that does not depend on the collection. If several documents have one id,
/// it keeps the last.
pub(super) fn prepare(documents: Vec<Document>, languages: &Languages) -> Vec<PreparedDocument> {
    let mut seen = HashSet::new();
    let mut last: Vec<Document> =
        documents.into_iter().rev().filter(|document| seen.insert(document.id.clone())).collect();
    last.reverse();
    let prepare = |analyzer: &mut Analyzer, document| prepare_document(analyzer, document, languages);
    last.into_par_iter().map_init(Analyzer::new, prepare).collect()
}

fn prepare_document(analyzer: &mut Analyzer, document: Document, languages: &Languages) -> PreparedDocument {
    let mut chunks: Vec<PreparedChunk> = Vec::with_capacity(document.chunks.len());
    for mut chunk in document.chunks {
        let metadata = std::mem::take(&mut chunk.metadata);
        let shared = chunks.last().map(|last| &last.metadata).filter(|last| ***last == metadata).cloned();
        let metadata = shared.unwrap_or_else(|| Arc::new(metadata));
        if !chunk.vector.is_empty() {
            chunk.vector = normalized(&chunk.vector);
        }
        let own = stated_language(&metadata).map(|language| languages.of_text_in(language));
        let languages = own.as_ref().unwrap_or(languages);
        let fields = Fields { title: &document.title, heading_path: &chunk.heading_path, text: &chunk.text };
        let terms = fields.terms(|text| analyzer.terms(text, languages));
        chunks.push(PreparedChunk { chunk, metadata, terms });
    }
    PreparedDocument { id: document.id.into(), title: document.title.into(), chunks }
}

impl Change {
    /// Checks a call that puts documents in. If the collection is new, it gets this `number`.
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
            model: ModelNote::Kept,
            removed,
            added: documents.into_iter().map(|document| numbering.document(document)).collect(),
            terms: numbering.terms,
        })
    }

    /// Makes the change that notes the model of a collection. If the collection is new, it gets this `number`.
    pub(super) fn of_model(collection: &str, index: Option<&Index>, number: u32, model: Option<&str>) -> Self {
        Self {
            collection: collection.to_owned(),
            number: index.map_or(number, |index| index.number),
            dimension: index.and_then(|index| index.dimension),
            model: ModelNote::Replaced(model.map(Arc::from)),
            removed: Vec::new(),
            added: Vec::new(),
            terms: Vec::new(),
        }
    }

    /// Makes the change that deletes these documents.
    pub(super) fn delete(collection: &str, index: &Index, document_ids: &BTreeSet<String>) -> Self {
        let removed = present(index, document_ids.iter().map(String::as_str));
        Self {
            collection: collection.to_owned(),
            number: index.number,
            dimension: dimension_without(index, &removed),
            model: ModelNote::Kept,
            removed,
            added: Vec::new(),
            terms: Vec::new(),
        }
    }

    /// Applies the change in memory. It cannot fail, because it is durable already.
    pub(super) fn apply(self, index: &mut Index, write: Write) {
        for removed in &self.removed {
            index.remove(&removed.id);
        }
        index.set_dimension(self.dimension);
        if let ModelNote::Replaced(model) = self.model {
            index.model = model;
        }
        for new in self.terms {
            index.postings.add_term(new.term);
        }
        for added in self.added {
            index.insert(added.document, write);
        }
        index.compact();
    }
}

/// Finds those of these documents that exist.
fn present<'a>(index: &Index, ids: impl Iterator<Item = &'a str>) -> Vec<RemovedDocument> {
    let found = ids.filter_map(|id| index.documents.get_key_value(id));
    found.map(|(id, entry)| RemovedDocument { id: Arc::clone(id), chunks: entry.chunks }).collect()
}

/// Returns the dimension of the collection without these documents. The dimension goes with the last vector, so one
/// wrong document does not fix it for good.
fn dimension_without(index: &Index, removed: &[RemovedDocument]) -> Option<usize> {
    let vectors: usize = removed.iter().map(|removed| index.vectors_of(&removed.id)).sum();
    index.dimension.filter(|_| vectors < index.living_vectors)
}

/// Checks that there are numbers for all chunks. Deleted chunks keep their numbers for a while.
fn check_room(collection: &str, index: &Index, documents: &[PreparedDocument]) -> Result<(), VectorStoreError> {
    let added: usize = documents.iter().map(|document| document.chunks.len()).sum();
    if index.columns.ids.len() + added < NONE as usize {
        return Ok(());
    }
    Err(VectorStoreError::Unsupported(format!("collection `{collection}` is full")))
}

/// Checks that each chunk id belongs to one document, among those that stay and those that are put in.
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

/// Gives terms their ids. A new term gets the next free one.
struct Numbering<'a, I> {
    index: &'a Index,
    ids: I,
    fresh: HashMap<Arc<str>, TermId>,
    terms: Vec<NewTerm>,
}

impl<I: Iterator<Item = TermId>> Numbering<'_, I> {
    fn document(&mut self, document: PreparedDocument) -> AddedDocument {
        let mut chunks = Vec::with_capacity(document.chunks.len());
        let mut texts = Vec::with_capacity(document.chunks.len());
        for PreparedChunk { chunk, metadata, terms } in document.chunks {
            let with_id = |TermCount { term, count }| IndexedTerm { id: self.term_id(term), count };
            let mut terms: Vec<IndexedTerm> = terms.into_iter().map(with_id).collect();
            terms.sort_unstable();
            let Chunk { id, guard, heading_path, text, vector, .. } = chunk;
            texts.push(StoredText { heading_path, text });
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
        self.terms.push(NewTerm { id, term: Arc::clone(&term) });
        self.fresh.insert(term, id);
        id
    }
}
