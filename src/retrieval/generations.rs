//! A map of bounded size that forgets what is not used. It holds two generations. An entry that is not written for a whole
//! generation is gone.

use std::collections::HashMap;
use std::hash::Hash;

/// A map that forgets entries which were not written during a whole generation.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    current: HashMap<K, V>,
    before: HashMap<K, V>,
}

impl<K, V> Default for Generations<K, V> {
    fn default() -> Self {
        Self { current: HashMap::new(), before: HashMap::new() }
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.current.get(key).or_else(|| self.before.get(key))
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.current.get_mut(key).or_else(|| self.before.get_mut(key))
    }

    /// Puts a value in. When the current generation already has `generation_max` entries, a new one begins.
    pub(super) fn insert(&mut self, key: K, value: V, generation_max: usize) {
        if self.current.len() >= generation_max && !self.current.contains_key(&key) {
            self.before = std::mem::take(&mut self.current);
        }
        self.current.insert(key, value);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.current.len() + self.before.len()
    }
}
