//! Visible sets of guards, kept until something changes that they depend on.
//!
//! A set depends on the state of the relationships ([`Kept`]), the table of guards, the user and the relation. Any new
//! guard makes another table, which is known by its allocation, too. What rests on contextual tuples or a context is not
//! kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::guard_positions::GuardPositions;
use super::kept::Kept;
use crate::authz::{AuthzError, VisibleSetQuery};
use crate::engine::evaluator::CheckError;
use crate::engine::snapshot::Snapshot;
use crate::language::{Object, Relation, User};

/// Most sets that are kept.
const SETS_MAX: usize = 4_096;
/// Most bytes of the sets that are kept.
const BYTES_MAX: usize = 64 << 20;
/// Tables of guards (one for each collection) whose positions are kept.
const TABLES_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct VisibleSets {
    kept: Mutex<Kept<Key, Set>>,
    positions: Mutex<Vec<Arc<GuardPositions>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    user: Object,
    relation: Relation,
    /// The address of the table; the set holds on to it.
    guards: usize,
}

#[derive(Clone, Debug)]
struct Set {
    positions: Arc<RoaringBitmap>,
    /// Keeps the address from being used for another table.
    _guards: Weak<Vec<Object>>,
}

impl Default for VisibleSets {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept::at_most(SETS_MAX, BYTES_MAX)), positions: Mutex::default() }
    }
}

impl VisibleSets {
    /// The set, if it is known.
    pub(super) fn kept(&self, snapshot: &Arc<Snapshot>, query: &VisibleSetQuery) -> Option<Arc<RoaringBitmap>> {
        if !query.contextual.is_empty() {
            return None;
        }
        lock(&self.kept).get(snapshot, &Key::of(query)).map(|set| set.positions)
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
            let kept = Set { positions: Arc::clone(&set), _guards: Arc::downgrade(&query.guards) };
            lock(&self.kept).keep(snapshot, Key::of(query), kept, set.serialized_size());
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

impl Key {
    fn of(query: &VisibleSetQuery) -> Self {
        let guards = Arc::as_ptr(&query.guards).addr();
        Self { user: query.user.clone(), relation: query.relation.clone(), guards }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
