//! Asks questions whose answers are known, and tells which documents came. `ragward eval` and `ragward test` share it. What a
//! search text is compared by is here, too, for every command that searches.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;

use super::Failure;
use crate::client::Client;
use crate::proto::retrieval::retrieve_request::Query;
use crate::proto::retrieval::{self as message, FetchRequest, RetrieveRequest};

/// A choice of what a search compares: words, meaning, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// Its words.
    #[default]
    Words,
    /// Its meaning.
    Meaning,
    /// Its words and its meaning.
    Both,
}

impl By {
    /// Returns the query that compares a text like this.
    pub(super) fn query(self, text: String) -> Query {
        match self {
            Self::Words => Query::Text(text),
            Self::Meaning => Query::Semantic(message::Semantic { text }),
            Self::Both => Query::Hybrid(message::Hybrid { text, vector: None }),
        }
    }
}

/// A question to a collection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The user who asks; empty if a server takes the user from the token.
    pub(super) user: &'a str,
    /// The search text; empty if there is only a vector.
    pub(super) query: &'a str,
    /// The embedding to search by; empty if there is only a text.
    pub(super) vector: &'a [f32],
    /// How many documents are asked for.
    pub(super) documents: u32,
}

/// Asks one collection. It remembers what a user may see, so that no document is asked for twice.
pub(super) struct Asker<'a> {
    client: &'a Client,
    collection: &'a str,
    /// The choice for questions that have no vector.
    by: By,
    seen: BTreeMap<String, BTreeMap<String, bool>>,
}

impl<'a> Asker<'a> {
    pub(super) fn new(client: &'a Client, collection: &'a str, by: By) -> Self {
        Self { client, collection, by, seen: BTreeMap::new() }
    }

    /// Returns the ids of the best documents, best first. Each document comes once, with its best chunk.
    pub(super) async fn ranking(&self, asked: Asked<'_>) -> Result<Vec<String>, Failure> {
        let vector = || message::Vector { values: asked.vector.to_vec() };
        let query = match (asked.query.is_empty(), asked.vector.is_empty()) {
            (true, _) => Query::Vector(vector()),
            (false, true) => self.by.query(asked.query.to_owned()),
            (false, false) => Query::Hybrid(message::Hybrid { text: asked.query.to_owned(), vector: Some(vector()) }),
        };
        let request = RetrieveRequest {
            user: asked.user.to_owned(),
            collection: self.collection.to_owned(),
            query: Some(query),
            top_k: asked.documents,
            per_document_max: 1,
            ..RetrieveRequest::default()
        };
        let response = self.client.retrieval().retrieve(request).await?.into_inner();
        let mut known = BTreeSet::new();
        let ids = response.chunks.into_iter().map(|chunk| chunk.document_id);
        Ok(ids.filter(|id| known.insert(id.clone())).collect())
    }

    /// Returns whether a user may see a chunk of the document. A document that is not there looks the same as one that the
    /// user may not see.
    pub(super) async fn sees(&mut self, user: &str, document_id: &str) -> Result<bool, Failure> {
        let known = self.seen.entry(user.to_owned()).or_default();
        if let Some(sees) = known.get(document_id) {
            return Ok(*sees);
        }
        let request = FetchRequest {
            user: user.to_owned(),
            collection: self.collection.to_owned(),
            document_ids: vec![document_id.to_owned()],
            ..FetchRequest::default()
        };
        let sees = !self.client.retrieval().fetch(request).await?.into_inner().chunks.is_empty();
        known.insert(document_id.to_owned(), sees);
        Ok(sees)
    }
}
