//! Visible sets of guards, kept until something changes that they depend on.
//!
//! A set depends on the state of the relationships, the table of guards, the user and the relation. Any write makes
//! another state, and any new guard another table; both are known by their allocation, which a weak reference keeps from
//! being used again. So a write invalidates every set that is kept, and nothing else has to be noticed. What rests on
//! contextual tuples or a context is not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::guard_positions::GuardPositions;
use crate::authz::{AuthzError, VisibleSetQuery};
use crate::relationship::evaluator::CheckError;
use crate::relationship::snapshot::Snapshot;
use crate::relationship::{Object, Relation, User};

/// Most sets that are kept; one more pushes the one out that was asked for least lately.
const SETS_MAX: usize = 4_096;
/// Most bytes of the sets that are kept.
const BYTES_MAX: usize = 64 << 20;
/// Tables of guards (one for each collection) whose positions are kept.
const TABLES_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct VisibleSets {
    kept: Mutex<Kept>,
    positions: Mutex<Vec<Arc<GuardPositions>>>,
}

/// INVARIANT (one state): all sets are of the state and of tables that are named here.
#[derive(Debug, Default)]
struct Kept {
    snapshot: Weak<Snapshot>,
    sets: HashMap<Key, Set>,
    bytes: usize,
    uses: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    user: Object,
    relation: Relation,
    /// The address of the table; the set holds on to it.
    guards: usize,
}

#[derive(Debug)]
struct Set {
    positions: Arc<RoaringBitmap>,
    /// Keeps the address from being used for another table.
    _guards: Weak<Vec<Object>>,
    bytes: usize,
    last_use: u64,
}

impl VisibleSets {
    /// The set, if it is known.
    pub(super) fn kept(&self, snapshot: &Arc<Snapshot>, query: &VisibleSetQuery) -> Option<Arc<RoaringBitmap>> {
        if !query.contextual.is_empty() {
            return None;
        }
        let mut kept = lock(&self.kept);
        if !std::ptr::eq(kept.snapshot.as_ptr(), Arc::as_ptr(snapshot)) {
            return None;
        }
        kept.uses += 1;
        let now = kept.uses;
        let set = kept.sets.get_mut(&Key::of(query))?;
        set.last_use = now;
        Some(Arc::clone(&set.positions))
    }

    /// Finds the set and keeps it. `with` is the state with what the request adds to it. Blocks.
    ///
    /// # Errors
    /// When the deadline passes.
    pub(super) fn find(
        &self,
        snapshot: &Arc<Snapshot>,
        with: &Snapshot,
        query: &VisibleSetQuery,
    ) -> Result<Arc<RoaringBitmap>, AuthzError> {
        let positions = self.positions(snapshot, query);
        let user = User::Object(query.user.clone());
        let mut found = Vec::new();
        for type_name in positions.types() {
            let mut in_time = || Instant::now() < query.deadline;
            match with.visible_set(&user, &query.relation, type_name, &mut in_time) {
                Ok(visible) => {
                    if let Some((object, error)) = &visible.failure {
                        let object = with.object(*object).map(|object| object.to_string());
                        tracing::debug!(object, %error, "not decided");
                        tracing::warn!(relation = %query.relation, "not decided, so not visible; object and reason are told at debug");
                    }
                    positions.positions(&visible.objects, with, &mut found);
                }
                // Nobody of a type that the model does not have holds anything, nor on a type without the relation.
                Err(CheckError::Unknown(_)) => {}
                Err(CheckError::Interrupted) => return Err(AuthzError::DeadlineExceeded),
                Err(error @ (CheckError::Condition(_) | CheckError::TooDeep | CheckError::TooMuchWork)) => {
                    tracing::debug!(%error, "not decided");
                    tracing::warn!(relation = %query.relation, "not decided, so nothing of the type is visible; the reason is told at debug");
                }
            }
        }
        found.sort_unstable();
        let set: Arc<RoaringBitmap> = Arc::new(found.into_iter().collect());
        if query.contextual.is_empty() {
            lock(&self.kept).keep(snapshot, query, &set);
        }
        Ok(set)
    }

    fn positions(&self, snapshot: &Snapshot, query: &VisibleSetQuery) -> Arc<GuardPositions> {
        let mut tables = lock(&self.positions);
        let known = tables.iter().position(|known| known.are_of(&query.guards, snapshot));
        let mut positions = match known {
            Some(place) => tables.remove(place),
            None => Arc::new(GuardPositions::new(&query.guards, snapshot)),
        };
        if !positions.is_current(&query.guards, snapshot) {
            // Nobody else uses it but for a moment; then it is copied.
            Arc::make_mut(&mut positions).update(&query.guards, snapshot);
        }
        // The last is the latest.
        tables.push(Arc::clone(&positions));
        if tables.len() > TABLES_MAX {
            tables.remove(0);
        }
        positions
    }
}

impl Kept {
    fn keep(&mut self, snapshot: &Arc<Snapshot>, query: &VisibleSetQuery, positions: &Arc<RoaringBitmap>) {
        if !std::ptr::eq(self.snapshot.as_ptr(), Arc::as_ptr(snapshot)) {
            *self = Self { snapshot: Arc::downgrade(snapshot), ..Self::default() };
        }
        let bytes = positions.serialized_size();
        self.uses += 1;
        let set = Set {
            positions: Arc::clone(positions),
            _guards: Arc::downgrade(&query.guards),
            bytes,
            last_use: self.uses,
        };
        self.bytes += bytes;
        if let Some(before) = self.sets.insert(Key::of(query), set) {
            self.bytes -= before.bytes;
        }
        while self.sets.len() > SETS_MAX || self.bytes > BYTES_MAX {
            let oldest = self.sets.iter().min_by_key(|(_, set)| set.last_use).map(|(key, _)| key.clone());
            let Some(removed) = oldest.and_then(|key| self.sets.remove(&key)) else { break };
            self.bytes -= removed.bytes;
        }
    }
}

impl Key {
    fn of(query: &VisibleSetQuery) -> Self {
        let guards = Arc::as_ptr(&query.guards).addr();
        Self { user: query.user.clone(), relation: query.relation.clone(), guards }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
