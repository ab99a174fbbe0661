//! Maps the evaluator's numbers of objects to positions among the guards of a collection. So a visible set is
//! translated for a search without looking up names.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::engine::snapshot::{Numbering, Snapshot};
use crate::language::{Object, TypeName};

/// Stands for an object that is not a guard of the collection.
const NO_GUARD: u32 = u32::MAX;

/// The positions of the guards in one table. They are worked out once for a table and a store. New guards and new objects are
/// added later.
#[derive(Clone, Debug)]
pub(super) struct GuardPositions {
    guards: Arc<Vec<Object>>,
    by_name: HashMap<Object, u32>,
    types: Vec<TypeName>,
    numbering: Numbering,
    /// The position of each object, by its number.
    by_number: Vec<u32>,
}

impl GuardPositions {
    /// Works the positions out. The snapshot must have no contextual tuples.
    pub(super) fn new(guards: &Arc<Vec<Object>>, snapshot: &Snapshot) -> Self {
        let mut positions = Self {
            guards: Arc::default(),
            by_name: HashMap::new(),
            types: Vec::new(),
            numbering: snapshot.numbering().clone(),
            by_number: Vec::new(),
        };
        positions.update(guards, snapshot);
        positions
    }

    /// Returns whether these positions belong to this table, or to one that it continues.
    pub(super) fn are_of(&self, guards: &Arc<Vec<Object>>, snapshot: &Snapshot) -> bool {
        self.numbering.is_of(snapshot.numbering())
            && (Arc::ptr_eq(&self.guards, guards) || guards.starts_with(&self.guards))
    }

    /// Returns whether these positions are complete for this table and state.
    pub(super) fn is_current(&self, guards: &Arc<Vec<Object>>, snapshot: &Snapshot) -> bool {
        Arc::ptr_eq(&self.guards, guards)
            && u32::try_from(self.by_number.len()).is_ok_and(|known| known >= snapshot.object_count())
    }

    /// Returns the types of the guards.
    pub(super) fn types(&self) -> &[TypeName] {
        &self.types
    }

    /// Adds the guards and the objects that are new. The snapshot must have no contextual tuples.
    pub(super) fn update(&mut self, guards: &Arc<Vec<Object>>, snapshot: &Snapshot) {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        for number in (0..snapshot.object_count()).skip(self.by_number.len()) {
            // The first time there are no guards yet, so there is nothing to look up.
            let name = if self.by_name.is_empty() { None } else { snapshot.object(number) };
            self.by_number.push(name.and_then(|name| self.by_name.get(&name).copied()).unwrap_or(NO_GUARD));
        }
        if Arc::ptr_eq(&self.guards, guards) {
            return;
        }
        for (position, guard) in (0..).zip(guards.iter()).skip(self.guards.len()) {
            self.by_name.insert(guard.clone(), position);
            if let Some(number) = snapshot.object_number(guard)
                && let Some(known) = self.by_number.get_mut(count(number))
            {
                *known = position;
            }
            if self.types.iter().all(|known| known.as_str() != guard.type_name()) {
                // A guard is an object, so its type always parses.
                self.types.extend(TypeName::parse(guard.type_name()));
            }
        }
        self.guards = Arc::clone(guards);
    }

    /// Adds the positions of these objects to `found`, and leaves out objects that are no guards. The snapshot may have
    /// contextual tuples.
    pub(super) fn positions(&self, objects: &RoaringBitmap, snapshot: &Snapshot, found: &mut Vec<u32>) {
        let common = snapshot.numbering().common().unwrap_or(u32::MAX);
        for number in objects {
            let known = usize::try_from(number).ok().filter(|_| number < common).and_then(|n| self.by_number.get(n));
            match known {
                Some(&NO_GUARD) => {}
                Some(position) => found.push(*position),
                None => {
                    found.extend(snapshot.object(number).and_then(|name| self.by_name.get(&name).copied()));
                }
            }
        }
    }
}
