//! Encodes the fields of a request that an approval is bound to: all that decide which chunks the request can give.
//!
//! INVARIANT (injective): two requests have the same bytes only if they ask for the same. Every part is typed by its
//! position or by a tag, and every text and list carries its length. The page token is left out, since the pages of one
//! search are one request, and so is the consistency, which changes no chunk's right to be seen.

use super::page::{write_asked, write_option};
use super::request::{FetchRequest, RecheckRequest, RetrievalRequest};
use crate::authz::decision_key::{write_contextual, write_count, write_text};
use crate::engine::Contextual;
use crate::identity::Principal;
use crate::identity::approvable::{Action, ApprovableRequest};

/// The most ids that stand in the words of a request. A person reads no more of them.
const NAMED_IDS_MAX: usize = 10;
/// The first byte. It changes whenever the form of the bytes does.
const VERSION: u8 = 1;

impl RetrievalRequest {
    /// Returns what an approval of this retrieval is bound to. `classification_max` is the ceiling that the request names, and
    /// `top_k_max` the most chunks of one page: as many may be approved for all pages together.
    #[must_use]
    pub fn approvable(&self, classification_max: &str, top_k_max: u32) -> ApprovableRequest {
        let mut encoded = begun(Action::Retrieve);
        write_asked(&mut encoded, self);
        write_bounds(&mut encoded, &self.principal, classification_max);
        let one_page = u64::try_from(self.top_k).unwrap_or(u64::MAX);
        ApprovableRequest {
            action: Action::Retrieve,
            collection: self.collection.clone(),
            classification_max: named(classification_max),
            chunks_max: if self.page.is_some() { one_page.max(top_k_max.into()) } else { one_page },
            words: self.query.words().map(str::to_owned),
            encoded,
            page_token: self.page.clone().filter(|token| !token.is_empty()),
        }
    }

    /// Returns the principal that the retrieval is for.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns the same retrieval for the principal that an approval leaves.
    #[must_use]
    pub fn approved_for(self, principal: Principal) -> Self {
        Self { principal, ..self }
    }
}

impl RecheckRequest {
    /// Returns what an approval of this re-check is bound to. A re-check names no ceiling.
    #[must_use]
    pub fn approvable(&self) -> ApprovableRequest {
        let mut encoded = begun(Action::Recheck);
        write_text(&mut encoded, &self.collection);
        write_ids(&mut encoded, &self.chunk_ids);
        write_bounds(&mut encoded, &self.principal, "");
        ApprovableRequest {
            action: Action::Recheck,
            collection: self.collection.clone(),
            classification_max: None,
            chunks_max: u64::try_from(self.chunk_ids.len()).unwrap_or(u64::MAX),
            words: first_of(self.chunk_ids.iter()),
            encoded,
            page_token: None,
        }
    }

    /// Returns the principal that the re-check is for.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns the same re-check for the principal that an approval leaves.
    #[must_use]
    pub fn approved_for(self, principal: Principal) -> Self {
        Self { principal, ..self }
    }
}

impl FetchRequest {
    /// Returns what an approval of this fetch is bound to. `classification_max` is the ceiling that the request names, and
    /// `chunks_max` the most chunks of any answer.
    #[must_use]
    pub fn approvable(&self, classification_max: &str, chunks_max: usize) -> ApprovableRequest {
        let mut encoded = begun(Action::Fetch);
        write_text(&mut encoded, &self.collection);
        write_ids(&mut encoded, &self.chunk_ids);
        write_ids(&mut encoded, &self.document_ids);
        write_bounds(&mut encoded, &self.principal, classification_max);
        ApprovableRequest {
            action: Action::Fetch,
            collection: self.collection.clone(),
            classification_max: named(classification_max),
            chunks_max: u64::try_from(self.chunks_max(chunks_max)).unwrap_or(u64::MAX),
            words: first_of(self.chunk_ids.iter().chain(&self.document_ids)),
            encoded,
            page_token: None,
        }
    }

    /// Returns the principal that the fetch is for.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns the same fetch for the principal that an approval leaves.
    #[must_use]
    pub fn approved_for(self, principal: Principal) -> Self {
        Self { principal, ..self }
    }
}

/// Returns the bytes that those of every request of an action begin with.
fn begun(action: Action) -> Vec<u8> {
    let mut encoded = vec![VERSION];
    write_text(&mut encoded, action.as_str());
    encoded
}

/// Writes the values that the request states for conditions, and its ceiling.
fn write_bounds(out: &mut Vec<u8>, principal: &Principal, classification_max: &str) {
    let all = &principal.contextual().context;
    let stated = principal.stated_keys().iter().filter_map(|key| Some((key.clone(), all.get(key)?.clone())));
    write_contextual(out, &Contextual { tuples: Vec::new(), context: stated.collect() });
    write_option(out, named(classification_max), |out, name| write_text(out, &name));
}

fn write_ids(out: &mut Vec<u8>, ids: &[String]) {
    write_count(out, ids.len());
    for id in ids {
        write_text(out, id);
    }
}

/// Returns the first ids in words.
fn first_of<'i>(ids: impl Iterator<Item = &'i String>) -> Option<String> {
    let ids: Vec<&str> = ids.take(NAMED_IDS_MAX).map(String::as_str).collect();
    Some(ids.join(", ")).filter(|words| !words.is_empty())
}

fn named(classification_max: &str) -> Option<String> {
    Some(classification_max.to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
