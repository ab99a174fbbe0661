//! The states that questions are asked of, in memory: those of the stores and models that were asked about lately.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::ids::{ModelId, StoreId};
use crate::engine::snapshot::Snapshot;

/// Most states that are kept. One more pushes the one out that was asked least lately; it is built again when needed.
const SNAPSHOTS_MAX: usize = 256;

/// INVARIANT (durable first): a state is put in or replaced only after the commit that it shows, by whoever holds the
/// lock for writing to the file; so it is always that of the file.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    snapshots: RwLock<HashMap<(StoreId, ModelId), Entry>>,
    latest: RwLock<HashMap<StoreId, ModelId>>,
    uses: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    snapshot: Arc<Snapshot>,
    last_use: AtomicU64,
}

impl Loaded {
    pub(super) fn latest(&self, store: StoreId) -> Option<ModelId> {
        self.latest.read().unwrap_or_else(PoisonError::into_inner).get(&store).copied()
    }

    /// Notes a store's latest model. Ids only grow, so a slow reader cannot put an older one back.
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

    /// The states of one store.
    pub(super) fn of_store(&self, store: StoreId) -> Vec<(ModelId, Arc<Snapshot>)> {
        let snapshots = self.snapshots.read().unwrap_or_else(PoisonError::into_inner);
        let of_store = snapshots.iter().filter(|((of, _), _)| *of == store);
        of_store.map(|((_, model), entry)| (*model, Arc::clone(&entry.snapshot))).collect()
    }

    pub(super) fn put(&self, store: StoreId, model: ModelId, snapshot: Arc<Snapshot>) {
        let entry = Entry { snapshot, last_use: AtomicU64::new(self.next_use()) };
        let mut snapshots = self.snapshots.write().unwrap_or_else(PoisonError::into_inner);
        let before = snapshots.insert((store, model), entry);
        let pushed_out = if snapshots.len() > SNAPSHOTS_MAX {
            let oldest = snapshots.iter().min_by_key(|(_, entry)| entry.last_use.load(Ordering::Relaxed));
            oldest.map(|(key, _)| *key).and_then(|key| snapshots.remove(&key))
        } else {
            None
        };
        // What is no longer used is freed after the lock, not under it.
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
