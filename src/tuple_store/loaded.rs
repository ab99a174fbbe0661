//! The snapshots in memory: one for each store and model that was asked about lately.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::ids::{ModelId, StoreId};
use crate::engine::snapshot::Snapshot;

/// The greatest number of snapshots in memory. One more drops the one that was used least recently. A question about a
/// dropped snapshot builds it again from the file and keeps it, so an old model costs one rebuild and not one for each
/// question.
const SNAPSHOTS_MAX: usize = 256;

/// The snapshots, and the latest model of each store.
///
/// INVARIANT (durable first): a snapshot is inserted or replaced only after the commit that it shows, and only by
/// whoever holds the lock for writing. So memory always shows what the file holds.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    snapshots: RwLock<HashMap<(StoreId, ModelId), LoadedSnapshot>>,
    latest: RwLock<HashMap<StoreId, ModelId>>,
    uses: AtomicU64,
}

#[derive(Debug)]
struct LoadedSnapshot {
    snapshot: Arc<Snapshot>,
    last_use: AtomicU64,
}

impl Loaded {
    pub(super) fn latest(&self, store: StoreId) -> Option<ModelId> {
        self.latest.read().unwrap_or_else(PoisonError::into_inner).get(&store).copied()
    }

    /// Notes the latest model of a store. Ids only grow, so a slow reader cannot put an older one back.
    pub(super) fn set_latest(&self, store: StoreId, model: ModelId) {
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        let known = latest.entry(store).or_insert(model);
        *known = model.max(*known);
    }

    pub(super) fn get(&self, store: StoreId, model: ModelId) -> Option<Arc<Snapshot>> {
        let snapshots = self.snapshots.read().unwrap_or_else(PoisonError::into_inner);
        let entry = snapshots.get(&(store, model))?;
        entry.last_use.store(self.next_use(), Ordering::Relaxed);
        Some(Arc::clone(&entry.snapshot))
    }

    /// Returns all snapshots of a store, each with its model.
    pub(super) fn of_store(&self, store: StoreId) -> Vec<(ModelId, Arc<Snapshot>)> {
        let snapshots = self.snapshots.read().unwrap_or_else(PoisonError::into_inner);
        let of_store = snapshots.iter().filter(|((of, _), _)| *of == store);
        of_store.map(|((_, model), entry)| (*model, Arc::clone(&entry.snapshot))).collect()
    }

    pub(super) fn put(&self, store: StoreId, model: ModelId, snapshot: Arc<Snapshot>) {
        let entry = LoadedSnapshot { snapshot, last_use: AtomicU64::new(self.next_use()) };
        let mut snapshots = self.snapshots.write().unwrap_or_else(PoisonError::into_inner);
        let before = snapshots.insert((store, model), entry);
        let pushed_out = if snapshots.len() > SNAPSHOTS_MAX {
            let oldest = snapshots.iter().min_by_key(|(_, entry)| entry.last_use.load(Ordering::Relaxed));
            oldest.map(|(key, _)| *key).and_then(|key| snapshots.remove(&key))
        } else {
            None
        };
        // Freeing a large snapshot takes a while, so it happens after the lock is released.
        drop(snapshots);
        drop((before, pushed_out));
    }

    pub(super) fn forget(&self, store: StoreId) {
        self.latest.write().unwrap_or_else(PoisonError::into_inner).remove(&store);
        self.snapshots.write().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| *of != store);
    }

    pub(super) fn forget_all(&self) {
        self.latest.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.snapshots.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }
}
