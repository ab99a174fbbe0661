//! Keeps values that depend on the state of the relationships, until that state changes.
//!
//! Every write makes another state, so a write invalidates everything that is kept; no value is brought up to date. A
//! state is recognized by the address of its allocation. A weak reference keeps that address from being used again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::engine::snapshot::Snapshot;

/// Values of one state, by key. The value that was asked for longest ago makes room for a new one.
///
/// INVARIANT (one state): all values belong to `snapshot`.
#[derive(Debug)]
pub(super) struct SnapshotCache<K, V> {
    snapshot: Weak<Snapshot>,
    values: HashMap<K, CachedValue<V>>,
    values_max: usize,
    bytes_max: usize,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct CachedValue<V> {
    value: V,
    bytes: usize,
    last_use: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> SnapshotCache<K, V> {
    pub(super) fn at_most(values_max: usize, bytes_max: usize) -> Self {
        let (snapshot, values) = (Weak::new(), HashMap::new());
        Self { snapshot, values, values_max, bytes_max, bytes: 0, uses: 0 }
    }

    /// Returns the value, if it is kept for this state.
    pub(super) fn get(&mut self, snapshot: &Arc<Snapshot>, key: &K) -> Option<V> {
        if !self.is_of(snapshot) {
            return None;
        }
        self.uses += 1;
        let cached = self.values.get_mut(key)?;
        cached.last_use = self.uses;
        Some(cached.value.clone())
    }

    pub(super) fn keep(&mut self, snapshot: &Arc<Snapshot>, key: K, value: V, bytes: usize) {
        if !self.is_of(snapshot) {
            let empty = Self::at_most(self.values_max, self.bytes_max);
            *self = Self { snapshot: Arc::downgrade(snapshot), ..empty };
        }
        self.uses += 1;
        self.bytes += bytes;
        if let Some(before) = self.values.insert(key, CachedValue { value, bytes, last_use: self.uses }) {
            self.bytes -= before.bytes;
        }
        while self.values.len() > self.values_max || self.bytes > self.bytes_max {
            let oldest = self.values.iter().min_by_key(|(_, value)| value.last_use).map(|(key, _)| key.clone());
            let Some(removed) = oldest.and_then(|key| self.values.remove(&key)) else { break };
            self.bytes -= removed.bytes;
        }
    }

    fn is_of(&self, snapshot: &Arc<Snapshot>) -> bool {
        std::ptr::eq(self.snapshot.as_ptr(), Arc::as_ptr(snapshot))
    }
}
