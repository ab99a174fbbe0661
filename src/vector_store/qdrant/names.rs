//! Knows which names are collections, and not aliases.
//!
//! Qdrant takes an alias wherever it takes a collection. Rules for logins, layouts and the details of a token are
//! written for the collection's own name, so an alias would get past them. To resolve aliases, Ragward would have to
//! call Qdrant before it looks at the rules. Instead, it asks now and then for the list of collections, which holds no
//! aliases, and refuses a name that is not in the list. To switch to a new collection, change the name that callers
//! use.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use qdrant_client::qdrant::{ListAliasesRequest, ListCollectionsRequest};
use tokio::time::Instant;

use super::QdrantStore;
use crate::vector_store::VectorStoreError;

/// The names of the server's collections, asked for once and shared for a short time.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: RwLock<Option<Arc<Known>>>,
    /// Held by the request that asks. The others wait for the answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known {
    names: HashSet<String>,
    until: Instant,
}

impl Names {
    fn hold(&self, name: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        known.is_some_and(|known| Instant::now() < known.until && known.names.contains(name))
    }
}

impl QdrantStore {
    /// Checks that a name is a collection's own.
    ///
    /// INVARIANT (no alias): every call on a collection comes after this check. A name that was a collection and becomes an
    /// alias is refused once the list is older than [`super::QdrantConfig::overview_age_max`].
    pub(super) async fn check_name(&self, name: &str) -> Result<(), VectorStoreError> {
        if self.names.hold(name) {
            return Ok(());
        }
        let _asking = self.names.asking.lock().await;
        // Another request may have asked while this one waited.
        if self.names.hold(name) {
            return Ok(());
        }
        let until = Instant::now() + self.config.overview_age_max;
        let listed = self.answer(name, self.collections().list(ListCollectionsRequest {})).await?.collections;
        let names: HashSet<String> = listed.into_iter().map(|collection| collection.name).collect();
        // A name that is not in the list is no collection, whatever else it is.
        let is_collection = names.contains(name);
        *self.names.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Known { names, until }));
        if is_collection { Ok(()) } else { Err(self.why_no_collection(name).await) }
    }

    async fn why_no_collection(&self, name: &str) -> VectorStoreError {
        let aliases = match self.answer(name, self.collections().list_aliases(ListAliasesRequest {})).await {
            Ok(answer) => answer.aliases,
            Err(error) => return error,
        };
        match aliases.into_iter().find(|alias| alias.alias_name == name) {
            Some(alias) => VectorStoreError::Unsupported(format!(
                "`{name}` is an alias, and rules go by the collection's own name; use `{}`",
                alias.collection_name
            )),
            None => VectorStoreError::UnknownCollection(name.to_owned()),
        }
    }
}
