//! Remembers what the collections of a server hold. The server is asked once, and the answer is shared for a short
//! time.
//!
//! Every request is planned by the size and the guards of its collection, and a server goes through an index to count
//! them. An overview that is a little old lacks what other programs have written since. That leaks nothing: everything
//! that an overview leads to is checked afterwards.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::guard_counts::GuardCounts;
use super::limits::CallLimits;
use super::text_support::TextSupport;
use crate::vector_store::{CollectionInfo, VectorStoreError};

/// How many collections are remembered. When one more comes, all are forgotten. A name that the server does not know is
/// forgotten at once.
const COLLECTIONS_MAX: usize = 1_000;
/// An overview is used for at least this many times as long as it took to make. So asking takes at most a tenth of the
/// time.
const USED_PER_ASKED: u32 = 10;

/// The state of a collection at one moment.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) info: CollectionInfo,
    pub(crate) limits: CallLimits,
    pub(crate) text: TextSupport,
    /// Whether some points, seen by anybody or not, lack the vector of their text, or have one of another analysis.
    pub(crate) has_unmarked_texts: bool,
    /// Whether its points may have vectors beside those of their texts, whatever their names are.
    pub(crate) has_vectors: bool,
    /// The guards, if the server could list all of them.
    pub(crate) guards: Option<GuardCounts>,
    /// When it is worth asking for the guards again, if they could not be listed.
    pub(crate) guards_unlisted_until: Option<Instant>,
}

/// The overviews of a server's collections.
#[derive(Debug)]
pub(crate) struct Overviews {
    entries: Mutex<HashMap<String, Arc<KnownCollection>>>,
    age_max: Duration,
    /// The time beyond `age_max` for which an old overview is used while one request asks for the next.
    grace: Duration,
}

#[derive(Debug, Default)]
struct KnownCollection {
    known: RwLock<Option<Known>>,
    /// Held by the request that asks.
    asking: tokio::sync::Mutex<()>,
    /// Counts the calls of this process that changed the collection.
    changes: AtomicU64,
}

#[derive(Clone, Debug)]
struct Known {
    overview: Arc<Overview>,
    /// The changes that the overview has seen.
    changes: u64,
    until: Instant,
}

impl Overviews {
    pub(crate) fn new(age_max: Duration, grace: Duration) -> Self {
        Self { entries: Mutex::default(), age_max, grace }
    }

    /// Returns the overview of a collection. If no fresh one is known, `ask` makes one, and receives the last known
    /// one.
    ///
    /// While one request asks, the others go on with the old overview, unless this process has written since.
    pub(crate) async fn get<F>(
        &self,
        collection: &str,
        ask: impl FnOnce(Option<Arc<Overview>>) -> F,
    ) -> Result<Arc<Overview>, VectorStoreError>
    where
        F: Future<Output = Result<Overview, VectorStoreError>>,
    {
        let entry = self.entry(collection);
        if let Some(overview) = entry.fresh(Duration::ZERO) {
            return Ok(overview);
        }
        let _asking = match (entry.asking.try_lock(), entry.fresh(self.grace)) {
            (Ok(asking), _) => asking,
            (Err(_), Some(overview)) => return Ok(overview),
            (Err(_), None) => entry.asking.lock().await,
        };
        // Another request may have asked while this one waited.
        if let Some(overview) = entry.fresh(Duration::ZERO) {
            return Ok(overview);
        }
        // Both are read before the server is asked, because the server's answer may lack a change that comes later.
        let (changes, started) = (entry.changes.load(Ordering::SeqCst), Instant::now());
        match ask(entry.last_known().map(|known| known.overview)).await {
            Ok(overview) => {
                let overview = Arc::new(overview);
                let used_for = started.elapsed().saturating_mul(USED_PER_ASKED).max(self.age_max);
                let known = Known { overview: Arc::clone(&overview), changes, until: started + used_for };
                *entry.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
                Ok(overview)
            }
            Err(error) => {
                // Names of collections that do not exist must not fill the memory.
                if matches!(error, VectorStoreError::UnknownCollection(_)) {
                    self.entries().remove(collection);
                }
                Err(error)
            }
        }
    }

    /// Notes that this process changed the collection. An overview that was asked for before this moment is no longer
    /// used.
    pub(crate) fn note_change(&self, collection: &str) {
        if let Some(entry) = self.entries().get(collection) {
            entry.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Returns the last overview of a collection, however old. The server is not asked.
    pub(crate) fn last_known(&self, collection: &str) -> Option<Arc<Overview>> {
        let entry = self.entries().get(collection).map(Arc::clone)?;
        entry.last_known().map(|known| known.overview)
    }

    fn entry(&self, collection: &str) -> Arc<KnownCollection> {
        let mut entries = self.entries();
        if entries.len() >= COLLECTIONS_MAX && !entries.contains_key(collection) {
            entries.clear();
        }
        Arc::clone(entries.entry(collection.to_owned()).or_default())
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Arc<KnownCollection>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownCollection {
    fn last_known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the overview, unless it is too old by more than `grace` or this process has changed the collection
    /// since.
    fn fresh(&self, grace: Duration) -> Option<Arc<Overview>> {
        let known = self.last_known()?;
        let is_fresh = known.changes == self.changes.load(Ordering::SeqCst) && Instant::now() < known.until + grace;
        is_fresh.then_some(known.overview)
    }
}
