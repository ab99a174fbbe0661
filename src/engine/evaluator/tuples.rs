//! Reads the tuples of a node: whether they name the asker, and whether their conditions are met.

use std::sync::Arc;

use super::{Asker, Evaluation, Outcome, Purpose, STEPS_PER_CONDITION, Verdict};
use crate::engine::index::{Node, StoredCondition, Subject, Subjects};
use crate::language::program::RelationId;

/// The result of reading the tuples of a relation that have no condition.
pub(super) enum Plain<'a> {
    Decided(Outcome),
    /// The tuples do not name the asker, but they name usersets.
    Usersets(Subjects<'a>),
}

/// The result of reading all tuples of a relation.
pub(super) enum Direct<'a> {
    Decided(Outcome),
    /// The asker may still be in one of these usersets.
    Undecided {
        /// The usersets of tuples without a condition.
        usersets: Subjects<'a>,
        /// The usersets of tuples whose condition is met.
        met: Vec<Subject>,
        /// The outcome before any of them is asked.
        so_far: Outcome,
    },
}

impl<'a> Evaluation<'a> {
    /// Decides a relation by its tuples alone, if they decide.
    #[inline]
    pub(super) fn direct(&mut self, node: Node, go_on: &mut dyn FnMut() -> bool) -> Direct<'a> {
        let usersets = match self.plain(node) {
            Plain::Decided(Outcome { verdict: Verdict::Allowed, .. }) => return Direct::Decided(Outcome::ALLOWED),
            Plain::Decided(_) => Subjects::default(),
            Plain::Usersets(usersets) => usersets,
        };
        let conditioned = self.index.conditioned(node);
        if conditioned.is_empty() {
            return if usersets.is_empty() {
                Direct::Decided(Outcome::DENIED)
            } else {
                Direct::Undecided { usersets, met: Vec::new(), so_far: Outcome::DENIED }
            };
        }
        let mut so_far = Outcome::DENIED;
        for (subject, condition) in conditioned {
            if !self.counts_for_asker(node, *subject, Some(condition)) {
                continue;
            }
            match self.is_met(condition, go_on) {
                Ok(true) => return Direct::Decided(Outcome::ALLOWED),
                Ok(false) => {}
                Err(failed) => so_far = so_far.or(failed),
            }
        }
        let asked = conditioned.iter().filter(|(subject, _)| matches!(subject, Subject::Userset(_)));
        let (met, failed) = self.met(asked, usersets, Some(node.relation), go_on);
        Direct::Undecided { usersets, met, so_far: so_far.or(failed) }
    }

    /// Returns whether a tuple with this user means the asker, by name or as one of everybody.
    pub(in crate::engine) fn names_asker(&self, subject: Subject) -> bool {
        match self.asker {
            Asker::Object(type_id, object) => {
                subject == Subject::Object(type_id, object) || subject == Subject::Wildcard(type_id)
            }
            Asker::Wildcard(type_id) => subject == Subject::Wildcard(type_id),
            Asker::Userset(asker) => subject == Subject::Userset(asker),
        }
    }

    /// Returns whether this is the very object that asks.
    pub(super) fn is_asker_itself(&self, subject: Subject) -> bool {
        matches!(self.asker, Asker::Object(type_id, object) if subject == Subject::Object(type_id, object))
    }

    /// Returns whether a tuple about this node, with this user and condition, means the asker.
    pub(in crate::engine) fn counts_for_asker(
        &self,
        node: Node,
        subject: Subject,
        condition: Option<&Arc<StoredCondition>>,
    ) -> bool {
        if !self.names_asker(subject) {
            return false;
        }
        match (subject, self.purpose) {
            (Subject::Object(..), Purpose::Check) => {
                self.index.of_request(node, subject).is_none_or(|of_request| of_request.is(condition))
            }
            (Subject::Object(..) | Subject::Userset(_) | Subject::Wildcard(_), _) => true,
        }
    }

    /// Returns the usersets or parents whose condition is met, and the combined outcome of the failed conditions. As in
    /// `OpenFGA`, a failed condition only counts if no userset or parent counts that is read together with its own.
    /// Otherwise it makes the answer doubted.
    pub(super) fn met(
        &mut self,
        conditioned: impl Iterator<Item = &'a (Subject, Arc<StoredCondition>)>,
        others: Subjects<'a>,
        relation: Option<RelationId>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> (Vec<Subject>, Outcome) {
        let (mut met, mut failed, mut so_far) = (Vec::new(), Vec::new(), Outcome::DENIED);
        for (subject, condition) in conditioned {
            match self.is_met(condition, go_on) {
                Ok(true) => met.push(*subject),
                Ok(false) => {}
                Err(Outcome { verdict: Verdict::Failed(position), .. }) => failed.push((*subject, position)),
                Err(unknown) => so_far = so_far.or(unknown),
            }
        }
        for (subject, position) in failed {
            let is_passed_over = self.is_passed_over(relation, subject, others.iter().chain(met.iter().copied()));
            let verdict = if is_passed_over { Verdict::Doubted(position) } else { Verdict::Failed(position) };
            so_far = so_far.or(Outcome { verdict, ..Outcome::DENIED });
        }
        (met, so_far)
    }

    /// Returns whether a failed condition of a tuple that names `failed` is passed over, because another of the
    /// usersets or parents that are read together with it counts.
    pub(in crate::engine) fn is_passed_over(
        &self,
        relation: Option<RelationId>,
        failed: Subject,
        mut counting: impl Iterator<Item = Subject>,
    ) -> bool {
        let group = self.read_apart(relation, failed);
        counting.any(|other| self.read_apart(relation, other) == group)
    }

    pub(super) fn is_met(
        &mut self,
        stored: &StoredCondition,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Outcome> {
        // Evaluating a condition takes as long as many steps, and one object may have many conditions.
        self.count(STEPS_PER_CONDITION, go_on);
        if self.stopped {
            return Err(Outcome::TOO_DEEP);
        }
        let met = stored.is_met(self.context);
        if met.is_err() && self.purpose == Purpose::Sets {
            return Ok(false);
        }
        met.map_err(|error| {
            let position = u32::try_from(self.condition_errors.len()).unwrap_or(u32::MAX);
            self.condition_errors.push(error);
            Outcome { verdict: Verdict::Failed(position), ..Outcome::DENIED }
        })
    }

    /// Decides a relation by its tuples without a condition, if they decide.
    #[inline] // Most checks end here.
    pub(super) fn plain(&self, node: Node) -> Plain<'a> {
        let subjects = self.index.subjects(node);
        let holds = |subject: Subject| subjects.contains(subject);
        let named = match self.asker {
            Asker::Object(type_id, object) => {
                let own = Subject::Object(type_id, object);
                (holds(own) && self.counts_for_asker(node, own, None)) || holds(Subject::Wildcard(type_id))
            }
            Asker::Wildcard(type_id) => holds(Subject::Wildcard(type_id)),
            // INVARIANT (no wildcard for usersets): `user:*` means users, never a userset that asks.
            Asker::Userset(asker) => holds(Subject::Userset(asker)),
        };
        if named {
            return Plain::Decided(Outcome::ALLOWED);
        }
        let usersets = subjects.usersets();
        if usersets.is_empty() { Plain::Decided(Outcome::DENIED) } else { Plain::Usersets(usersets) }
    }
}
