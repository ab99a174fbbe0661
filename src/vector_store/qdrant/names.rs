//! Which names are collections. Qdrant takes an alias wherever it takes a collection, but rules (logins, layouts, the details
//! of a token) are written for a collection's own name, so an alias would pass them.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use qdrant_client::qdrant::{ListAliasesRequest, ListCollectionsRequest};
use tokio::time::Instant;

use super::QdrantStore;
use crate::vector_store::VectorStoreError;

/// The collections of the server, asked for once and shared for a short time.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: RwLock<Option<Arc<Known>>>,
    /// Held by whoever asks; the others wait for what it learns.
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
    /// INVARIANT (no alias): every call on a collection comes after this. A name that has become an alias since it was a
    /// collection is refused once [`super::QdrantConfig::overview_age_max`] is over.
    pub(super) async fn check_name(&self, name: &str) -> Result<(), VectorStoreError> {
        if self.names.hold(name) {
            return Ok(());
        }
        let _asking = self.names.asking.lock().await;
        // Somebody else may have asked meanwhile.
        if self.names.hold(name) {
            return Ok(());
        }
        let until = Instant::now() + self.config.overview_age_max;
        let listed = self.answer(name, self.collections().list(ListCollectionsRequest {})).await?.collections;
        let names: HashSet<String> = listed.into_iter().map(|collection| collection.name).collect();
        // What the list does not name is no collection, whatever else it may be.
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
                "`{name}` is an alias, and rules go by the collection's own name; name `{}`",
                alias.collection_name
            )),
            None => VectorStoreError::UnknownCollection(name.to_owned()),
        }
    }
}
