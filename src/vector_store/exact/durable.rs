//! The engine's tables in `chunks.redb`. A call is one transaction, so a crash leaves the state before the call or after it.
//!
//! Everything that a search needs is read when the store is opened: a record for each document (ids, guards, metadata,
//! postings), the vectors of each document end to end, and the dictionary. Texts have a table of their own and are read one by
//! one.

mod reanalysis;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::change::{Change, ModelNote, StoredText};
use super::index::{Index, Write};
use super::record;
use crate::storage::{StorageError, StoredFile};
use crate::vector_store::CollectionLanguages;

/// The size of the cache of pages, through which the texts of every answer are read.
const CACHE_BYTES: usize = 1 << 30;

/// Collection → its number and dimension, where 0 stands for no dimension.
const COLLECTIONS: TableDefinition<'_, &str, (u32, u32)> = TableDefinition::new("collections");
/// Collection number, term id → term. A free id keeps its last term until it gets another one.
const TERMS: TableDefinition<'_, (u32, u32), &str> = TableDefinition::new("terms");
/// Collection number, document id → record.
const DOCUMENTS: TableDefinition<'_, (u32, &str), &[u8]> = TableDefinition::new("documents");
/// Collection number, document id → the vectors of those chunks that have one, as little-endian f32 end to end.
const VECTORS: TableDefinition<'_, (u32, &str), &[u8]> = TableDefinition::new("vectors");
/// Collection number, document id, position of the chunk in the document → text.
const TEXTS: TableDefinition<'_, TextKey<'_>, &str> = TableDefinition::new("texts");

/// The key of [`TEXTS`] → the headings above the text. A chunk without headings has no row.
const HEADING_PATHS: TableDefinition<'_, TextKey<'_>, &[u8]> = TableDefinition::new("heading_paths");

/// Collection number, document id, position of the chunk in the document.
type TextKey<'k> = (u32, &'k str, u32);

/// Collection → the name of the model that makes its vectors. It is missing for a collection whose vectors writers send.
const MODELS: TableDefinition<'_, &str, &str> = TableDefinition::new("models");

/// The number of the last change, under the only key. It is missing in a file of an earlier version.
const CHANGES: TableDefinition<'_, (), u64> = TableDefinition::new("changes");

/// The version of the analysis that made the terms, under one key. It is missing in a file from before there were
/// versions.
const ANALYSIS: TableDefinition<'_, (), u32> = TableDefinition::new("analysis");

/// Collection → the languages that were set for its texts when they were analyzed. A collection without a setting has no row.
const LANGUAGES: TableDefinition<'_, &str, &str> = TableDefinition::new("languages");

/// The open file.
pub(super) struct Durable {
    path: PathBuf,
    file: StoredFile,
    /// The number of the last change that is known to be in the file.
    change: u64,
}

/// The file as it was at one moment.
pub(super) struct Snapshot {
    path: PathBuf,
    transaction: ReadTransaction,
}

impl Durable {
    pub(super) fn open(path: &Path, languages: &CollectionLanguages) -> Result<Self, StorageError> {
        let mut durable = Self { path: path.to_owned(), file: StoredFile::open(path, CACHE_BYTES)?, change: 0 };
        durable.in_transaction(|transaction| {
            transaction.open_table(COLLECTIONS)?;
            transaction.open_table(TERMS)?;
            transaction.open_table(DOCUMENTS)?;
            transaction.open_table(VECTORS)?;
            transaction.open_table(TEXTS)?;
            transaction.open_table(HEADING_PATHS)?;
            transaction.open_table(MODELS)?;
            transaction.open_table(CHANGES)?;
            reanalysis::bring_up_to_date(transaction, languages)
        })?;
        durable.change = durable.stored_change()?;
        Ok(durable)
    }

    /// Returns whether an access failed, so that the file cannot be used until it is opened again.
    pub(super) fn has_failed(&self) -> bool {
        self.file.has_failed()
    }

    /// Opens the file again after a failure. Returns whether the file has the change that was on its way.
    pub(super) fn reopen(&mut self) -> Result<bool, StorageError> {
        self.file.reopen()?;
        // Another file may be there now, and nothing may be written into it.
        self.caught_up().inspect_err(|_other_file| self.file.distrust())
    }

    fn caught_up(&mut self) -> Result<bool, StorageError> {
        let stored = self.stored_change()?;
        let has_next = stored == self.change + 1;
        if !has_next && stored != self.change {
            return Err(StorageError::damaged(&self.path, "it is not as this process left it"));
        }
        self.change = stored;
        Ok(has_next)
    }

    fn stored_change(&self) -> Result<u64, StorageError> {
        self.snapshot()?.read(|transaction| {
            let change = transaction.open_table(CHANGES)?.get(())?;
            Ok(change.map(|change| change.value()).unwrap_or_default())
        })
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, StorageError> {
        let transaction = self.file.database()?.begin_read().map_err(|e| StorageError::redb(&self.path, e))?;
        Ok(Snapshot { path: self.path.clone(), transaction })
    }

    /// Stores a change. It is durable when this returns.
    pub(super) fn commit(&mut self, change: &Change) -> Result<(), StorageError> {
        let next = self.change + 1;
        self.in_transaction(|transaction| {
            transaction.open_table(CHANGES)?.insert((), next)?;
            let dimension = u32::try_from(change.dimension.unwrap_or_default()).unwrap_or_default();
            transaction.open_table(COLLECTIONS)?.insert(change.collection.as_str(), (change.number, dimension))?;
            match &change.model {
                ModelNote::Kept => {}
                ModelNote::Replaced(Some(model)) => {
                    transaction.open_table(MODELS)?.insert(change.collection.as_str(), &**model)?;
                }
                ModelNote::Replaced(None) => {
                    transaction.open_table(MODELS)?.remove(change.collection.as_str())?;
                }
            }
            let mut terms = transaction.open_table(TERMS)?;
            for new in &change.terms {
                terms.insert((change.number, new.id), &*new.term)?;
            }
            replace_documents(transaction, change)
        })?;
        self.change = next;
        Ok(())
    }

    /// Makes the file look as if an older stemmer had written it, for a test: one term is another, and no version is
    /// stored.
    #[cfg(test)]
    pub(super) fn age(&self, term: &str, old: &str) -> Result<(), StorageError> {
        self.in_transaction(|transaction| {
            transaction.open_table(ANALYSIS)?.remove(())?;
            let mut terms = transaction.open_table(TERMS)?;
            let mut found = Vec::new();
            for entry in terms.iter()? {
                let (key, value) = entry?;
                if value.value() == term {
                    found.push(key.value());
                }
            }
            found.into_iter().try_for_each(|key| terms.insert(key, old).map(drop))?;
            Ok(())
        })
    }

    /// Replaces the text of a document's first chunk as a version that knows no headings does, for a test.
    #[cfg(test)]
    pub(super) fn replace_text(&self, document_id: &str, text: &str) -> Result<(), StorageError> {
        self.in_transaction(|transaction| {
            transaction.open_table(TEXTS)?.insert((0, document_id, 0), text)?;
            Ok(())
        })
    }

    /// Fills the disk for a test.
    #[cfg(test)]
    pub(super) fn fill_disk(&self) {
        self.file.fill_disk();
    }

    /// Frees a disk that a test has filled.
    #[cfg(test)]
    pub(super) fn free_disk(&self) {
        self.file.free_disk();
    }

    fn in_transaction(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StorageError> {
        let failed = |e: redb::Error| StorageError::redb(&self.path, e);
        let transaction = self.file.database()?.begin_write().map_err(|e| failed(e.into()))?;
        work(&transaction).map_err(failed)?;
        transaction.commit().map_err(|e| failed(e.into()))
    }
}

fn replace_documents(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    let mut documents = transaction.open_table(DOCUMENTS)?;
    let mut vectors = transaction.open_table(VECTORS)?;
    let mut texts = transaction.open_table(TEXTS)?;
    let mut heading_paths = transaction.open_table(HEADING_PATHS)?;
    for removed in &change.removed {
        let id = &*removed.id;
        documents.remove((change.number, id))?;
        vectors.remove((change.number, id))?;
        for position in 0..removed.chunks {
            texts.remove((change.number, id, position))?;
            heading_paths.remove((change.number, id, position))?;
        }
    }
    for added in &change.added {
        let id = &*added.document.id;
        documents.insert((change.number, id), record::encode(&added.document)?.as_slice())?;
        let bytes = record::encode_vectors(&added.document);
        if !bytes.is_empty() {
            vectors.insert((change.number, id), bytes.as_slice())?;
        }
        for (position, StoredText { heading_path, text }) in (0..).zip(&added.texts) {
            let key = (change.number, id, position);
            if !text.is_empty() {
                texts.insert(key, text.as_str())?;
            }
            if !heading_path.is_empty() {
                heading_paths.insert(key, record::encode_heading_path(heading_path, text)?.as_slice())?;
            }
        }
    }
    Ok(())
}

impl Snapshot {
    /// Reads all collections as they were after one write.
    pub(super) fn load(&self, write: Write) -> Result<BTreeMap<String, Index>, StorageError> {
        self.read(|transaction| {
            let mut indexes = BTreeMap::new();
            let models = transaction.open_table(MODELS)?;
            for entry in transaction.open_table(COLLECTIONS)?.iter()? {
                let (name, value) = entry?;
                let (number, dimension) = value.value();
                let mut index = Index::new(number);
                index.model = models.get(name.value())?.map(|model| model.value().into());
                index.dimension = Some(dimension as usize).filter(|dimension| *dimension > 0);
                let terms = load_terms(transaction, &index)?;
                index.postings.reserve(terms.len());
                load_documents(transaction, &mut index, write)?;
                index.postings.name(terms);
                // The last vector may be gone, and with it the dimension.
                let dimension = index.dimension.filter(|_| index.living_vectors > 0);
                index.set_dimension(dimension);
                indexes.insert(name.value().to_owned(), index);
            }
            Ok(indexes)
        })
    }

    /// Reads the ids of the documents of a collection from this one on, in the order of their bytes.
    pub(super) fn document_ids(&self, collection: u32, from: &str, limit: usize) -> Result<Vec<String>, StorageError> {
        self.read(|transaction| {
            let mut ids = Vec::new();
            let (first, end) = ((collection, from), (collection.saturating_add(1), ""));
            for entry in transaction.open_table(DOCUMENTS)?.range(first..end)?.take(limit) {
                let (key, _) = entry?;
                let (_, id) = key.value();
                ids.push(id.to_owned());
            }
            Ok(ids)
        })
    }

    /// Reads the text of the chunk at a position of a document; empty if it has none.
    pub(super) fn text(&self, collection: u32, document_id: &str, position: u32) -> Result<StoredText, StorageError> {
        self.read(|transaction| {
            let texts = transaction.open_table(TEXTS)?;
            let heading_paths = transaction.open_table(HEADING_PATHS)?;
            stored_text(&texts, &heading_paths, (collection, document_id, position))
        })
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StorageError> {
        work(&self.transaction).map_err(|e| StorageError::redb(&self.path, e))
    }
}

fn stored_text(
    texts: &impl ReadableTable<TextKey<'static>, &'static str>,
    heading_paths: &impl ReadableTable<TextKey<'static>, &'static [u8]>,
    key: TextKey<'_>,
) -> Result<StoredText, redb::Error> {
    let text = texts.get(key)?.map(|text| text.value().to_owned()).unwrap_or_default();
    let heading_path = match heading_paths.get(key)? {
        Some(stored) => record::decode_heading_path(stored.value(), &text)?,
        None => Vec::new(),
    };
    Ok(StoredText { heading_path, text })
}

/// Reads the dictionary of a collection, in the order of ids from 0 on.
fn load_terms(transaction: &ReadTransaction, index: &Index) -> Result<Vec<Arc<str>>, redb::Error> {
    let mut terms: Vec<Arc<str>> = Vec::new();
    for entry in transaction.open_table(TERMS)?.range((index.number, 0)..=(index.number, u32::MAX))? {
        let (key, term) = entry?;
        if usize::try_from(key.value().1) != Ok(terms.len()) {
            return Err(redb::Error::Corrupted("the dictionary has a gap".to_owned()));
        }
        terms.push(Arc::from(term.value()));
    }
    Ok(terms)
}

fn load_documents(transaction: &ReadTransaction, index: &mut Index, write: Write) -> Result<(), redb::Error> {
    let vectors = transaction.open_table(VECTORS)?;
    let (first, end) = ((index.number, ""), (index.number.saturating_add(1), ""));
    for entry in transaction.open_table(DOCUMENTS)?.range(first..end)? {
        let (key, value) = entry?;
        let (_, id) = key.value();
        let bytes = vectors.get((index.number, id))?;
        let bytes = bytes.as_ref().map(redb::AccessGuard::value).unwrap_or_default();
        let document = record::decode(id, value.value(), bytes, index)
            .map_err(|detail| redb::Error::Corrupted(format!("document `{id}`: {detail}")))?;
        index.insert(document, write);
    }
    Ok(())
}
