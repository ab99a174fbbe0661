//! Replaces the terms of a file that another version of the analysis wrote.
//!
//! A query finds a chunk only if both have the same stems. A file keeps the stems of its chunks, and another version of
//! the stemmer may make other stems from the same words. Then a query would no longer find such a chunk, and nothing
//! would say so.

use std::collections::HashMap;
use std::sync::Arc;

use redb::{ReadableTable, WriteTransaction};

use super::super::index::IndexedTerm;
use super::super::postings::TermId;
use super::super::record;
use super::super::terms::{Analyzer, TermCount};
use super::{COLLECTIONS, DOCUMENTS, TERMS, TEXTS};

/// Analyzes the texts of all collections again. It takes as long as ingesting the texts did, without the vectors.
pub(super) fn reanalyze(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut collections = Vec::new();
    for entry in transaction.open_table(COLLECTIONS)?.iter()? {
        let (_, value) = entry?;
        let (number, _) = value.value();
        collections.push(number);
    }
    collections.into_iter().try_for_each(|collection| reanalyze_collection(transaction, collection))
}

fn reanalyze_collection(transaction: &WriteTransaction, collection: u32) -> Result<(), redb::Error> {
    let texts = transaction.open_table(TEXTS)?;
    let mut documents = transaction.open_table(DOCUMENTS)?;
    let mut ids = Vec::new();
    for entry in documents.range((collection, "")..(collection.saturating_add(1), ""))? {
        let (key, _) = entry?;
        ids.push(key.value().1.to_owned());
    }
    let mut analyzer = Analyzer::new();
    let mut dictionary = Dictionary::default();
    for id in ids {
        let mut terms_of_chunk = |place: u32| -> Result<Vec<IndexedTerm>, redb::Error> {
            let text = texts.get((collection, id.as_str(), place))?;
            let text = text.as_ref().map(redb::AccessGuard::value).unwrap_or_default();
            Ok(dictionary.number(analyzer.terms(text)))
        };
        let replaced = match documents.get((collection, id.as_str()))? {
            Some(stored) => record::replace_terms(stored.value(), &mut terms_of_chunk)?,
            None => continue,
        };
        documents.insert((collection, id.as_str()), replaced.as_slice())?;
    }
    let mut terms = transaction.open_table(TERMS)?;
    terms.retain_in((collection, 0)..=(collection, TermId::MAX), |_, _| false)?;
    for (number, term) in (0..).zip(&dictionary.terms) {
        terms.insert((collection, number), &**term)?;
    }
    Ok(())
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
            // The stored dictionary had an id for each word of these texts, so there are enough ids.
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
