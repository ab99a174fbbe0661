//! What users hold apart from the objects that are checked, kept until the relationships change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roaring::RoaringBitmap;

use super::kept::Kept;
use crate::engine::evaluator::CheckError;
use crate::engine::snapshot::{Reach, Snapshot};
use crate::engine::visible_set::VisibleSet;
use crate::language::{Relation, TypeName, User};

/// Most that are kept. One is some kilobytes where the user is in tens of groups and hundreds of folders.
const REACHES_MAX: usize = 4_096;
/// Most bytes of them.
const BYTES_MAX: usize = 32 << 20;

type Key = (User, Relation, TypeName);

/// See the module.
#[derive(Debug)]
pub(super) struct Reaches {
    kept: Mutex<Kept<Key, Arc<Reach>>>,
}

impl Default for Reaches {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept::at_most(REACHES_MAX, BYTES_MAX)) }
    }
}

impl Reaches {
    /// As [`Snapshot::visible_among`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn visible_among(
        &self,
        snapshot: &Arc<Snapshot>,
        (user, relation, type_name): (&User, &Relation, &TypeName),
        objects: &RoaringBitmap,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<VisibleSet>, CheckError> {
        let key = (user.clone(), relation.clone(), type_name.clone());
        let kept = self.kept().get(snapshot, &key);
        let reach = if let Some(kept) = kept {
            kept
        } else {
            let found = snapshot.reach(user, relation, type_name, objects.len(), go_on)?;
            let Some(found) = found.map(Arc::new) else { return Ok(None) };
            self.kept().keep(snapshot, key, Arc::clone(&found), found.size());
            found
        };
        snapshot.visible_by_reach(&reach, objects, go_on)
    }

    fn kept(&self) -> MutexGuard<'_, Kept<Key, Arc<Reach>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
