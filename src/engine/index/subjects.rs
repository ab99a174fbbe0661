//! The users of tuples, in eight bytes each.

use super::{Node, ObjectId, Subject};
use crate::language::program::{RelationId, TypeId};

/// A [`Subject`] in eight bytes, with the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Packed {
    /// The kind in the two upper bits, and the number of the relation or type in the others. A model with 2^30
    /// relations would be far too large to be accepted.
    kind: u32,
    object: u32,
}

const USERSET: u32 = 0;
const WILDCARD: u32 = 1 << 30;
const OBJECT: u32 = 2 << 30;
const KINDS: u32 = 3 << 30;

impl From<Subject> for Packed {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Userset(node) => Self { kind: USERSET | node.relation.0, object: node.object.0 },
            Subject::Wildcard(type_id) => Self { kind: WILDCARD | type_id.0, object: 0 },
            Subject::Object(type_id, object) => Self { kind: OBJECT | type_id.0, object: object.0 },
        }
    }
}

impl From<Packed> for Subject {
    fn from(packed: Packed) -> Self {
        let number = packed.kind & !KINDS;
        match packed.kind & KINDS {
            USERSET => Self::Userset(Node { relation: RelationId(number), object: ObjectId(packed.object) }),
            WILDCARD => Self::Wildcard(TypeId(number)),
            _ => Self::Object(TypeId(number), ObjectId(packed.object)),
        }
    }
}

/// The users of the tuples about one node. Each is there once, and usersets come first.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Subjects<'a>(pub(super) &'a [Packed]);

impl<'a> Subjects<'a> {
    pub(in crate::engine) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::engine) fn contains(self, subject: Subject) -> bool {
        self.0.binary_search(&subject.into()).is_ok()
    }

    /// Returns the usersets among them.
    pub(in crate::engine) fn usersets(self) -> Self {
        let count = self.0.partition_point(|packed| packed.kind & KINDS == USERSET);
        Self(self.0.get(..count).unwrap_or_default())
    }

    pub(in crate::engine) fn iter(self) -> impl Iterator<Item = Subject> + use<'a> {
        self.0.iter().map(|packed| (*packed).into())
    }

    /// Removes and returns the first one.
    pub(in crate::engine) fn split_off_first(&mut self) -> Option<Subject> {
        self.0.split_off_first().map(|packed| (*packed).into())
    }
}
