//! What a collection holds: its size and its distinct guards, asked for once and shared for a short time.
//!
//! A plan needs both for every request, and Qdrant goes through an index to count them. An overview that is a little old
//! hides what others have written since, and shows nothing that is not checked. How many chunks a guard has is only
//! estimated: while Qdrant moves a point it may count twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use qdrant_client::qdrant::{CollectionInfo as QdrantCollectionInfo, FacetHit, facet_value::Variant};
use roaring::RoaringBitmap;
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::collection::{Limits, has_keyword_index};
use super::{QdrantStore, failed};
use crate::language::Object;
use crate::vector_store::{CollectionInfo, GuardTable, SearchCosts, VectorStoreError};

/// Collections that are known at a time. A name only counts once Qdrant has answered for it.
const COLLECTIONS_MAX: usize = 1_000;
/// Between two overviews, at least so many times as long as the last one took: asking takes a tenth of the time at most.
const REST: u32 = 10;
/// For how long guards that were too many, or did not come in time, are not asked for again.
const UNLISTED_FOR: Duration = Duration::from_mins(1);
/// Guards without chunks that are kept in a table, besides as many as it has with chunks.
const UNUSED_GUARDS_MAX: usize = 1_000;

/// What was known of a collection at some moment.
#[derive(Debug)]
pub(super) struct Overview {
    pub(super) info: CollectionInfo,
    pub(super) limits: Limits,
    /// `None`: not known.
    pub(super) table: Option<GuardTable>,
    /// By position in the table.
    chunks_of_guards: Vec<u64>,
    /// When guards that are not known may be asked for.
    ask_after: Option<Instant>,
}

/// By collection.
#[derive(Debug, Default)]
pub(super) struct Overviews {
    entries: Mutex<HashMap<String, Arc<Entry>>>,
}

#[derive(Debug, Default)]
struct Entry {
    known: RwLock<Option<Known>>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<()>,
    /// Calls of this process that changed the collection.
    changes: AtomicU64,
}

#[derive(Clone, Debug)]
struct Known {
    overview: Arc<Overview>,
    /// Those that the overview has seen.
    changes: u64,
    until: Instant,
}

impl Overviews {
    /// Makes the next overview one that was asked for after this moment.
    pub(super) fn changed(&self, collection: &str) {
        if let Some(entry) = self.lock().get(collection) {
            entry.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What was last known of a collection, without asking.
    pub(super) fn last_known(&self, collection: &str) -> Option<Arc<Overview>> {
        let entry = self.lock().get(collection).map(Arc::clone)?;
        entry.last_known().map(|known| known.overview)
    }

    fn entry(&self, collection: &str) -> Arc<Entry> {
        let mut entries = self.lock();
        if entries.len() >= COLLECTIONS_MAX && !entries.contains_key(collection) {
            entries.clear();
        }
        Arc::clone(entries.entry(collection.to_owned()).or_default())
    }

    /// Names that are none must not fill the memory.
    fn forget(&self, collection: &str) {
        self.lock().remove(collection);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn last_known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known, if it is no older than it may be by more than this.
    fn fresh(&self, grace: Duration) -> Option<Arc<Overview>> {
        let known = self.last_known()?;
        let is_fresh = known.changes == self.changes.load(Ordering::SeqCst) && Instant::now() < known.until + grace;
        is_fresh.then_some(known.overview)
    }
}

impl QdrantStore {
    /// The overview of a collection, fresh as [`super::QdrantConfig::overview_age_max`] says.
    pub(super) async fn overview(&self, collection: &str) -> Result<Arc<Overview>, VectorStoreError> {
        let entry = self.overviews.entry(collection);
        if let Some(overview) = entry.fresh(Duration::ZERO) {
            return Ok(overview);
        }
        // While one request asks, the others go on with what was known, unless this process has written since.
        let _asking = match (entry.asking.try_lock(), entry.fresh(self.config.timeout)) {
            (Ok(asking), _) => asking,
            (Err(_), Some(overview)) => return Ok(overview),
            (Err(_), None) => entry.asking.lock().await,
        };
        // Somebody else may have asked meanwhile.
        if let Some(overview) = entry.fresh(Duration::ZERO) {
            return Ok(overview);
        }
        // Both are read before Qdrant is asked: a change that comes after may not be in its answer.
        let (changes, started) = (entry.changes.load(Ordering::SeqCst), Instant::now());
        let before = entry.last_known().map(|known| known.overview);
        match self.ask(collection, before.as_deref()).await {
            Ok(overview) => {
                let overview = Arc::new(overview);
                let rest = started.elapsed().saturating_mul(REST).max(self.config.overview_age_max);
                let known = Known { overview: Arc::clone(&overview), changes, until: started + rest };
                *entry.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
                Ok(overview)
            }
            Err(error) => {
                if matches!(error, VectorStoreError::UnknownCollection(_)) {
                    self.overviews.forget(collection);
                }
                Err(error)
            }
        }
    }

    async fn ask(&self, collection: &str, before: Option<&Overview>) -> Result<Overview, VectorStoreError> {
        let info = self.info(collection).await?;
        let limits = Limits::of(&info);
        let documents = self.count_documents(collection, limits).await?;
        let ask_after = before.and_then(|before| before.ask_after).filter(|moment| Instant::now() < *moment);
        let listed = match ask_after {
            Some(moment) => Listed::NotUntil(moment),
            None => self.list_guards(collection, &info, limits).await?,
        };
        let (counted, ask_after) = match listed {
            Listed::Guards(counted) => (Some(counted), None),
            Listed::NotUntil(moment) => (None, Some(moment)),
            Listed::Unknown => (None, None),
        };
        let (table, chunks_of_guards) = match counted {
            Some(counted) => {
                let (table, chunks) = tabulate(before.and_then(|before| before.table.as_ref()), counted);
                (Some(table), chunks)
            }
            None => (None, Vec::new()),
        };
        let info = CollectionInfo {
            dimension: self.dimension(collection, &info)?,
            text_queries: false,
            search_costs: search_costs(self.config.exact),
            candidates_max: Some(limits.answer_max).filter(|max| *max < usize::MAX),
            chunks: info.points_count.unwrap_or_default(),
            documents,
        };
        Ok(Overview { info, limits, table, chunks_of_guards, ask_after })
    }

    /// INVARIANT (cut is not known): a list of guards that may lack some is no list.
    async fn list_guards(
        &self,
        collection: &str,
        info: &QdrantCollectionInfo,
        limits: Limits,
    ) -> Result<Listed, VectorStoreError> {
        let field = self.layout(collection).guard.key();
        if !has_keyword_index(info, &field) {
            tracing::warn!(collection, field, "no keyword index on the guard; `ragward attach` makes one");
            return Ok(Listed::Unknown);
        }
        let guards_max = self.config.guards_max.min(limits.answer_max.saturating_sub(1));
        let asked = guards_max.saturating_add(1);
        // Not exact in its counts alone: all values come, unless they are cut off at the limit. An exact facet is a search for
        // each value, which takes seconds for some thousands.
        let limit = u64::try_from(asked).unwrap_or(u64::MAX);
        let request = self.facet_request(collection, &field, None, limit, false);
        let mut points = self.points();
        let later = Listed::NotUntil(Instant::now() + UNLISTED_FOR);
        let hits = match timeout(self.config.timeout, points.facet(request)).await {
            Ok(Ok(answer)) => answer.into_inner().hits,
            // Too many for a message, too slow, or asked of a server that knows no facets.
            Ok(Err(status)) if is_for_good(status.code()) => {
                tracing::warn!(collection, %status, "the guards cannot be listed");
                return Ok(later);
            }
            Ok(Err(status)) => return Err(failed(collection, &status)),
            Err(_elapsed) => {
                tracing::warn!(collection, "the guards were not listed in time");
                return Ok(later);
            }
        };
        if hits.len() > asked {
            return Err(VectorStoreError::BadAnswer(format!("{} guards, {asked} were asked for", hits.len())));
        }
        if hits.len() > guards_max {
            tracing::warn!(collection, guards_max, "more guards than are listed");
            return Ok(later);
        }
        Ok(Listed::Guards(count(hits)?))
    }
}

/// What a search within a space costs: each guard lengthens the filter, and the chunks of a space are scanned.
///
/// Both numbers were measured. A guard is a hash look-up for each point that is compared, while a candidate comes with its
/// payload. A scan is no slower than the index here: a walk of Qdrant's graph under a filter that passes a tenth of the
/// chunks finds a tenth of the best.
fn search_costs(everything_is_scanned: bool) -> SearchCosts {
    SearchCosts { per_guard: 1.0 / 16.0, per_chunk: if everything_is_scanned { 0.0 } else { 1.0 / 32.0 } }
}

/// Whether asking once more would most likely end the same way, while a search may still be answered.
fn is_for_good(code: Code) -> bool {
    matches!(
        code,
        Code::OutOfRange
            | Code::DeadlineExceeded
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

/// What came of listing the guards.
enum Listed {
    /// All of them, each with its number of chunks.
    Guards(HashMap<Object, u64>),
    /// They are not known and not worth asking for before this moment.
    NotUntil(Instant),
    /// They are not known.
    Unknown,
}

/// The well-formed guards of a facet. Others are on points that are never returned.
fn count(hits: Vec<FacetHit>) -> Result<HashMap<Object, u64>, VectorStoreError> {
    let mut counted = HashMap::with_capacity(hits.len());
    for hit in hits {
        let Some(Variant::StringValue(guard)) = hit.value.and_then(|value| value.variant) else {
            return Err(VectorStoreError::BadAnswer("a guard that is not a text".to_owned()));
        };
        let Ok(guard) = Object::parse(&guard) else { continue };
        if let Some(earlier) = counted.insert(guard, hit.count) {
            return Err(VectorStoreError::BadAnswer(format!("a guard twice, with {earlier} and {} chunks", hit.count)));
        }
    }
    Ok(counted)
}

/// The table of these guards, with the chunks of each. Those of the table before keep their positions; new ones are
/// appended. Once most have no chunks any more, a new table begins.
fn tabulate(before: Option<&GuardTable>, mut counted: HashMap<Object, u64>) -> (GuardTable, Vec<u64>) {
    counted.retain(|_, chunks| *chunks > 0);
    let is_worth_keeping =
        |table: &&GuardTable| table.guards.len() / 2 <= counted.len().saturating_add(UNUSED_GUARDS_MAX);
    let mut guards = before.filter(is_worth_keeping).map(|table| Arc::clone(&table.guards)).unwrap_or_default();
    let mut chunks_of_guards: Vec<u64> = guards.iter().map(|guard| counted.remove(guard).unwrap_or_default()).collect();
    let mut new: Vec<(Object, u64)> = counted.into_iter().collect();
    if !new.is_empty() {
        new.sort_unstable();
        let (objects, chunks): (Vec<Object>, Vec<u64>) = new.into_iter().unzip();
        // A new allocation: whoever knows the old one by its address must not take this one for it.
        guards = Arc::new(guards.iter().cloned().chain(objects).collect());
        chunks_of_guards.extend(chunks);
    }
    let used = (0..).zip(&chunks_of_guards).filter(|(_, chunks)| **chunks > 0);
    let in_use: RoaringBitmap = used.map(|(position, _)| position).collect();
    let in_use = match before {
        Some(before) if Arc::ptr_eq(&before.guards, &guards) && *before.in_use == in_use => Arc::clone(&before.in_use),
        Some(_) | None => Arc::new(in_use),
    };
    (GuardTable { guards, in_use }, chunks_of_guards)
}

impl Overview {
    /// The chunks of these guards, if the table is this overview's.
    pub(super) fn chunks_of(&self, table: &GuardTable, positions: &RoaringBitmap) -> Option<u64> {
        let own = self.table.as_ref()?;
        let chunks = |position: u32| {
            self.chunks_of_guards.get(usize::try_from(position).unwrap_or(usize::MAX)).copied().unwrap_or_default()
        };
        Arc::ptr_eq(&own.guards, &table.guards).then(|| positions.iter().map(chunks).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(before: Option<&GuardTable>, guards: impl IntoIterator<Item = (usize, u64)>) -> (GuardTable, Vec<u64>) {
        let guard = |number: usize| Object::parse(&format!("document:{number:05}")).expect("an object");
        tabulate(before, guards.into_iter().map(|(number, chunks)| (guard(number), chunks)).collect())
    }

    fn names(table: &GuardTable) -> Vec<&str> {
        table.guards.iter().map(Object::id).collect()
    }

    #[test]
    fn positions_are_stable_and_new_guards_are_appended() {
        let (first, chunks) = table(None, [(2, 5), (1, 7)]);
        assert_eq!((names(&first), chunks), (vec!["00001", "00002"], vec![7, 5]));
        let (same, _) = table(Some(&first), [(1, 1), (2, 1)]);
        assert!(Arc::ptr_eq(&same.guards, &first.guards) && Arc::ptr_eq(&same.in_use, &first.in_use));
        let (grown, chunks) = table(Some(&first), [(0, 1), (2, 9), (7, 0)]);
        assert_eq!((names(&grown), chunks), (vec!["00001", "00002", "00000"], vec![0, 9, 1]));
        assert_eq!(grown.in_use.iter().collect::<Vec<u32>>(), [1, 2]);
        assert_eq!(names(&first), ["00001", "00002"]);
    }

    #[test]
    fn a_table_of_guards_that_are_gone_ends() {
        let many = 3 * UNUSED_GUARDS_MAX;
        let (full, _) = table(None, (0..many).map(|number| (number, 1)));
        let (kept, _) = table(Some(&full), (0..UNUSED_GUARDS_MAX).map(|number| (number, 1)));
        assert!(Arc::ptr_eq(&kept.guards, &full.guards));
        let (new, _) = table(Some(&kept), [(many, 1)]);
        assert_eq!(names(&new), [format!("{many:05}")]);
    }

    #[test]
    fn chunks_are_counted_in_their_own_table_only() {
        let (own, chunks_of_guards) = table(None, [(0, 10), (1, 20), (2, 40)]);
        let info = CollectionInfo {
            dimension: None,
            text_queries: false,
            search_costs: search_costs(false),
            candidates_max: None,
            chunks: 0,
            documents: 0,
        };
        let overview =
            Overview { info, limits: Limits::NONE, table: Some(own.clone()), chunks_of_guards, ask_after: None };
        assert_eq!(overview.chunks_of(&own, &RoaringBitmap::from([0, 2, 9])), Some(50));
        let (other, _) = table(None, [(0, 10), (1, 20), (2, 40)]);
        assert_eq!(overview.chunks_of(&other, &RoaringBitmap::from([0])), None);
    }
}
