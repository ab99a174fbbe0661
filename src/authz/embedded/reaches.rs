//! Remembers the reaches of users until the relationships change. A reach is the set of objects on which a user holds
//! relations, without the objects that are checked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roaring::RoaringBitmap;

use super::snapshot_cache::SnapshotCache;
use crate::engine::evaluator::CheckError;
use crate::engine::snapshot::{Reach, Snapshot};
use crate::engine::visible_set::VisibleSet;
use crate::language::{Relation, TypeName, User};

/// The most reaches that are remembered. One takes a few kilobytes for a user in tens of groups and hundreds of folders.
const REACHES_MAX: usize = 4_096;
/// The most bytes that all of them take.
const BYTES_MAX: usize = 32 << 20;

/// The subject of a reach: the objects of one type on which one user holds one relation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReachKey {
    pub(super) user: User,
    pub(super) relation: Relation,
    pub(super) type_name: TypeName,
}

/// The reaches that are remembered, until a write makes another state.
#[derive(Debug)]
pub(super) struct Reaches {
    kept: Mutex<SnapshotCache<ReachKey, Arc<Reach>>>,
}

impl Default for Reaches {
    fn default() -> Self {
        Self { kept: Mutex::new(SnapshotCache::at_most(REACHES_MAX, BYTES_MAX)) }
    }
}

impl Reaches {
    /// Like [`Snapshot::visible_among`], but remembers the user's reach for the next call.
    ///
    /// # Errors
    /// Like [`Snapshot::visible_among`].
    pub(super) fn visible_among(
        &self,
        snapshot: &Arc<Snapshot>,
        key: ReachKey,
        objects: &RoaringBitmap,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<VisibleSet>, CheckError> {
        let kept = self.kept().get(snapshot, &key);
        let reach = if let Some(kept) = kept {
            kept
        } else {
            let ReachKey { user, relation, type_name } = &key;
            let found = snapshot.reach(user, relation, type_name, objects.len(), go_on)?;
            let Some(found) = found.map(Arc::new) else { return Ok(None) };
            self.kept().keep(snapshot, key, Arc::clone(&found), found.size());
            found
        };
        snapshot.visible_by_reach(&reach, objects, go_on)
    }

    fn kept(&self) -> MutexGuard<'_, SnapshotCache<ReachKey, Arc<Reach>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
