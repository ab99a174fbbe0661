//! Replaces the terms of a file that another version of the analysis wrote, or that were made for other languages.
//!
//! A query finds a chunk only if both have the same stems. A file keeps the stems of its chunks, and another version of
//! the analysis may make other stems from the same words. Then a query would no longer find such a chunk, and nothing
//! would say so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use redb::{ReadableTable, WriteTransaction};

use super::super::change::StoredText;
use super::super::fields::{Fields, INDEX_VERSION};
use super::super::index::IndexedTerm;
use super::super::postings::TermId;
use super::super::record;
use super::{ANALYSIS, COLLECTIONS, DOCUMENTS, HEADING_PATHS, LANGUAGES, TERMS, TEXTS, stored_text};
use crate::analysis::{Analyzer, Language, Languages, TermCount};
use crate::vector_store::CollectionLanguages;

/// The size of the records and texts that are in memory at the same time, in bytes. One document more may be.
const BATCH_BYTES: usize = 16 << 20;
/// The most documents that are in memory at the same time.
const BATCH_DOCUMENTS: usize = 4_096;

/// A collection whose texts are analyzed again.
struct Outdated {
    name: String,
    number: u32,
    languages: Languages,
}

/// A document as it is stored.
struct StoredDocument {
    id: String,
    record: Vec<u8>,
    /// The texts of its chunks with their headings, by their positions. A chunk without text has none.
    texts: BTreeMap<u32, StoredText>,
}

/// Analyzes the texts of those collections again whose terms are of another version, or of other languages than those
/// that are set now. It takes as long as putting the texts in did, without the vectors.
pub(super) fn bring_up_to_date(
    transaction: &WriteTransaction,
    configured: &CollectionLanguages,
) -> Result<(), redb::Error> {
    let stored = transaction.open_table(ANALYSIS)?.insert((), INDEX_VERSION)?.map(|version| version.value());
    let is_current = stored == Some(INDEX_VERSION);
    let mut languages_before = BTreeMap::new();
    let mut languages = transaction.open_table(LANGUAGES)?;
    for entry in languages.iter()? {
        let (name, value) = entry?;
        languages_before.insert(name.value().to_owned(), value.value().to_owned());
    }
    languages.retain(|_, _| false)?;
    for name in configured.collections() {
        languages.insert(name, configured.of(name).to_string().as_str())?;
    }
    let mut outdated = Vec::new();
    for entry in transaction.open_table(COLLECTIONS)?.iter()? {
        let (name, value) = entry?;
        let (name, (number, _)) = (name.value().to_owned(), value.value());
        let languages = configured.of(&name);
        let before = languages_before.get(&name).map(String::as_str).unwrap_or_default();
        if !is_current || before != languages.to_string() {
            outdated.push(Outdated { name, number, languages });
        }
    }
    outdated.iter().try_for_each(|collection| reanalyze(transaction, collection))
}

fn reanalyze(transaction: &WriteTransaction, collection: &Outdated) -> Result<(), redb::Error> {
    let number = collection.number;
    let mut ids = Vec::new();
    for entry in transaction.open_table(DOCUMENTS)?.range((number, "")..(number.saturating_add(1), ""))? {
        let (key, _) = entry?;
        ids.push(key.value().1.to_owned());
    }
    let total = ids.len();
    let name = collection.name.as_str();
    tracing::info!(
        collection = name,
        documents = total,
        "indexing the texts anew, for this version or other languages"
    );
    let mut dictionary = Dictionary::default();
    let mut rest = ids.as_slice();
    while !rest.is_empty() {
        let batch = read_batch(transaction, number, rest)?;
        rest = rest.get(batch.len()..).unwrap_or_default();
        let analyzed: Result<Vec<Vec<Vec<TermCount>>>, redb::Error> = batch
            .par_iter()
            .map_init(Analyzer::new, |analyzer, document| analyze(analyzer, document, &collection.languages))
            .collect();
        let mut documents = transaction.open_table(DOCUMENTS)?;
        for (document, chunks) in batch.iter().zip(analyzed?) {
            let mut chunks = chunks.into_iter();
            let replaced =
                record::replace_terms(&document.record, || dictionary.number(chunks.next().unwrap_or_default()))?;
            documents.insert((number, document.id.as_str()), replaced.as_slice())?;
        }
        tracing::info!(collection = name, documents = total - rest.len(), of = total, "indexing the texts anew");
    }
    let mut terms = transaction.open_table(TERMS)?;
    terms.retain_in((number, 0)..=(number, TermId::MAX), |_, _| false)?;
    for (id, term) in (0..).zip(&dictionary.terms) {
        terms.insert((number, id), &**term)?;
    }
    Ok(())
}

/// Reads the first of these documents: as many as may be in memory, and at least one.
fn read_batch(
    transaction: &WriteTransaction,
    collection: u32,
    ids: &[String],
) -> Result<Vec<StoredDocument>, redb::Error> {
    let (documents, texts) = (transaction.open_table(DOCUMENTS)?, transaction.open_table(TEXTS)?);
    let heading_paths = transaction.open_table(HEADING_PATHS)?;
    let mut batch = Vec::new();
    let mut bytes = 0;
    for id in ids.iter().take(BATCH_DOCUMENTS) {
        let Some(stored) = documents.get((collection, id.as_str()))? else {
            return Err(redb::Error::Corrupted(format!("document `{id}` has gone")));
        };
        // The metadata of many chunks may be larger than their texts.
        bytes += stored.value().len();
        let mut document = StoredDocument { id: id.clone(), record: stored.value().to_vec(), texts: BTreeMap::new() };
        for entry in texts.range((collection, id.as_str(), 0)..=(collection, id.as_str(), u32::MAX))? {
            let (key, text) = entry?;
            let text_stored = stored_text(&texts, &heading_paths, key.value())?;
            bytes += text.value().len() + text_stored.heading_path.iter().map(String::len).sum::<usize>();
            document.texts.insert(key.value().2, text_stored);
        }
        batch.push(document);
        if bytes >= BATCH_BYTES {
            break;
        }
    }
    Ok(batch)
}

/// Returns the terms of each chunk of a document.
fn analyze(
    analyzer: &mut Analyzer,
    document: &StoredDocument,
    languages: &Languages,
) -> Result<Vec<Vec<TermCount>>, redb::Error> {
    let title = record::title(&document.record)?;
    let stated = record::stated_languages(&document.record)?;
    let terms_of = |(place, stated): (u32, Option<Language>)| {
        let Some(StoredText { heading_path, text }) = document.texts.get(&place) else { return Vec::new() };
        let own = stated.map(|stated| languages.of_text_in(stated));
        let languages = own.as_ref().unwrap_or(languages);
        Fields { title, heading_path, text }.terms(|text| analyzer.terms(text, languages))
    };
    Ok((0..).zip(stated).map(terms_of).collect())
}

/// The terms of a collection, numbered from 0 in the order in which they come.
#[derive(Default)]
struct Dictionary {
    ids: HashMap<Arc<str>, TermId>,
    terms: Vec<Arc<str>>,
}

impl Dictionary {
    /// Returns the terms of a chunk as a record keeps them: by ascending id.
    fn number(&mut self, counted: Vec<TermCount>) -> Vec<IndexedTerm> {
        let mut numbered = Vec::with_capacity(counted.len());
        for TermCount { term, count } in counted {
            // A dictionary of 2^32 terms would be larger than the texts that it is made from.
            let next = TermId::try_from(self.terms.len()).unwrap_or(TermId::MAX);
            let id = *self.ids.entry(Arc::clone(&term)).or_insert(next);
            if id == next {
                self.terms.push(term);
            }
            numbered.push(IndexedTerm { id, count });
        }
        numbered.sort_unstable();
        numbered
    }
}
