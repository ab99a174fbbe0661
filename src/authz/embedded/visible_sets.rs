//! Keeps visible sets of guards until something that they depend on changes.
//!
//! A set depends on the state of the relationships ([`SnapshotCache`]), the table of guards, the user and the relation.
//! A new guard makes another table, which is recognized by its address too. Sets that rest on contextual tuples or a
//! context are not kept: they serve one request only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::guard_positions::GuardPositions;
use super::snapshot_cache::SnapshotCache;
use crate::authz::{AuthzError, VisibleSetQuery};
use crate::engine::evaluator::CheckError;
use crate::engine::snapshot::Snapshot;
use crate::language::{Object, Relation, User};

/// The most sets that are kept: one for each user who was active lately.
const SETS_MAX: usize = 4_096;
/// The most bytes that the kept sets take.
const BYTES_MAX: usize = 64 << 20;
/// The most tables of guards whose positions are kept. Each collection has one.
const TABLES_MAX: usize = 64;

/// The kept sets, and the positions of guards by which sets are translated.
#[derive(Debug)]
pub(super) struct VisibleSets {
    kept: Mutex<SnapshotCache<VisibleSetKey, KeptSet>>,
    positions: Mutex<Vec<Arc<GuardPositions>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct VisibleSetKey {
    user: Object,
    relation: Relation,
    /// The address of the table. The kept set prevents another table from getting this address.
    guards: usize,
}

#[derive(Clone, Debug)]
struct KeptSet {
    positions: Arc<RoaringBitmap>,
    /// Prevents another table from getting the address of this one.
    _guards: Weak<Vec<Object>>,
}

impl Default for VisibleSets {
    fn default() -> Self {
        Self { kept: Mutex::new(SnapshotCache::at_most(SETS_MAX, BYTES_MAX)), positions: Mutex::default() }
    }
}

impl VisibleSets {
    /// Returns the set, if it is kept.
    pub(super) fn kept(&self, snapshot: &Arc<Snapshot>, query: &VisibleSetQuery) -> Option<Arc<RoaringBitmap>> {
        if !query.contextual.is_empty() {
            return None;
        }
        lock(&self.kept).get(snapshot, &VisibleSetKey::of(query)).map(|set| set.positions)
    }

    /// Finds the set and keeps it. `with` is `snapshot` together with what the request adds. This blocks the thread.
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
                        tracing::warn!(relation = %query.relation, "not visible, because it could not be decided; the debug log has the object and the reason");
                    }
                    positions.positions(&visible.objects, with, &mut found);
                }
                // If the model lacks the user's type, or the relation on this type, the user holds nothing here.
                Err(CheckError::Unknown(_)) => {}
                Err(CheckError::Interrupted) => return Err(AuthzError::DeadlineExceeded),
                Err(error @ (CheckError::Condition(_) | CheckError::TooDeep | CheckError::TooMuchWork)) => {
                    tracing::debug!(%error, "not decided");
                    tracing::warn!(relation = %query.relation, "no object of the type is visible, because it could not be decided; the debug log has the reason");
                }
            }
        }
        found.sort_unstable();
        let set: Arc<RoaringBitmap> = Arc::new(found.into_iter().collect());
        if query.contextual.is_empty() {
            let kept = KeptSet { positions: Arc::clone(&set), _guards: Arc::downgrade(&query.guards) };
            lock(&self.kept).keep(snapshot, VisibleSetKey::of(query), kept, set.serialized_size());
        }
        Ok(set)
    }

    fn positions(&self, snapshot: &Snapshot, query: &VisibleSetQuery) -> Arc<GuardPositions> {
        let mut tables = lock(&self.positions);
        let known = tables.iter().position(|known| known.are_of(&query.guards, snapshot));
        let mut positions = match known {
            Some(index) => tables.remove(index),
            None => Arc::new(GuardPositions::new(&query.guards, snapshot)),
        };
        if !positions.is_current(&query.guards, snapshot) {
            // Usually nobody else holds these positions, so nothing is copied.
            Arc::make_mut(&mut positions).update(&query.guards, snapshot);
        }
        // The table that was used last comes last.
        tables.push(Arc::clone(&positions));
        if tables.len() > TABLES_MAX {
            tables.remove(0);
        }
        positions
    }
}

impl VisibleSetKey {
    fn of(query: &VisibleSetQuery) -> Self {
        let guards = Arc::as_ptr(&query.guards).addr();
        Self { user: query.user.clone(), relation: query.relation.clone(), guards }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
