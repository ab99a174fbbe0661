//! Values that depend on the state of the relationships, kept until that changes.
//!
//! Any write makes another state. A state is known by its allocation, which a weak reference keeps from being used again.
//! So a write invalidates everything that is kept, and nothing else has to be noticed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::engine::snapshot::Snapshot;

/// INVARIANT (one state): all values are of the state that is named here.
#[derive(Debug)]
pub(super) struct Kept<K, V> {
    snapshot: Weak<Snapshot>,
    values: HashMap<K, Entry<V>>,
    /// One more value or byte pushes the value out that was asked for least lately.
    values_max: usize,
    bytes_max: usize,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    last_use: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Kept<K, V> {
    pub(super) fn at_most(values_max: usize, bytes_max: usize) -> Self {
        let (snapshot, values) = (Weak::new(), HashMap::new());
        Self { snapshot, values, values_max, bytes_max, bytes: 0, uses: 0 }
    }

    /// The value, if it is known.
    pub(super) fn get(&mut self, snapshot: &Arc<Snapshot>, key: &K) -> Option<V> {
        if !self.is_of(snapshot) {
            return None;
        }
        self.uses += 1;
        let entry = self.values.get_mut(key)?;
        entry.last_use = self.uses;
        Some(entry.value.clone())
    }

    pub(super) fn keep(&mut self, snapshot: &Arc<Snapshot>, key: K, value: V, bytes: usize) {
        if !self.is_of(snapshot) {
            let empty = Self::at_most(self.values_max, self.bytes_max);
            *self = Self { snapshot: Arc::downgrade(snapshot), ..empty };
        }
        self.uses += 1;
        self.bytes += bytes;
        if let Some(before) = self.values.insert(key, Entry { value, bytes, last_use: self.uses }) {
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
