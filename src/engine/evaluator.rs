//! Decides checks. The evaluator does no I/O and reads no clock; its only state is what this evaluation has found out
//! so far.
//!
//! A question is about a *node*: one relation of one object. The asker stays the same. An answer is allowed, denied or
//! unknown. It is unknown if it depends on itself, is too deep, or rests on a condition that failed. The other operands
//! can still decide: one allowed operand decides `or`, and one denied operand decides `and`. An answer that is unknown
//! in the end is never allowed. A cycle is denied, as in `OpenFGA`; the other kinds are errors.
//!
//! The model decides how `OpenFGA` evaluates, and some answers show it. `levels` has the details; the numbers are in
//! `language::program::weights`.
//!
//! INVARIANT (cycles before failures): under `and` and `but not`, an operand that depends on itself wins over one that
//! failed, so the answer is denied as in `OpenFGA`. An error inside a cycle is never remembered as a cycle, so the
//! order of questions does not change the answers.
//!
//! INVARIANT (doubt): `OpenFGA` reads the usersets or parents of an object together, and passes over a failed condition
//! if another userset or parent counts. The evaluator does so, too, but marks the answer as *doubted*. A doubted answer
//! is denied. `but not` turns it into an error, where `OpenFGA` would allow somebody whom the failed condition may
//! exclude.
//!
//! The work is a list of frames and not a recursion, so no model and no tuples can exhaust the stack.

pub(super) mod candidates;
pub(super) mod expansion;
mod frame;
mod levels;
mod memo;
mod named;
mod outcome;
mod search;
#[cfg(test)]
mod tests;
mod tuples;

use serde_json::{Map, Value};

use self::expansion::Loops;
use self::frame::{Frame, Subquestion, Task};
pub(super) use self::levels::{OWN_END, below};
use self::memo::Memo;
use self::outcome::Outcome;
pub(super) use self::outcome::Verdict;
use self::search::Recursion;
use self::tuples::{Direct, Plain};
use super::index::{Index, Node, ObjectId, Subject};
use crate::language::condition::ConditionError;
use crate::language::program::{Expression, Program, RelationId, ResolvedUser, TupleMisfit, TypeId};
use crate::language::tuple::{Object, Relation, User};

/// How many usersets and `from` steps may lie between a question and its answer in any case. `OpenFGA` resolves 25
/// levels, and counts the question's own as one.
pub const LEVELS_MAX: u32 = 24;
/// One level more than [`LEVELS_MAX`]. The evaluator descends to this last level only where `OpenFGA` reads the
/// usersets or parents of an object together with the tuples that name their users (see `levels`).
pub(super) const LEVELS_WITH_LAST: u32 = LEVELS_MAX + 1;
/// The number of levels for lists, which `OpenFGA` does not limit by levels.
pub(super) const LEVELS_UNBOUNDED: u32 = u32::MAX;
/// The greatest number of steps for one question. A step takes some tens of nanoseconds, so the longest question ends
/// within a second.
pub const STEPS_MAX: u64 = 10_000_000;
/// The number of steps that evaluating a condition counts as.
pub(super) const STEPS_PER_CONDITION: u64 = 64;
/// How many steps pass until the caller is asked whether to go on.
pub const STEPS_BETWEEN_INTERRUPTS: u64 = 4_096;

/// Says why a check has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The model has no such type or relation.
    #[error(transparent)]
    Unknown(#[from] TupleMisfit),
    /// The answer depends on a condition that cannot be evaluated.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// The answer lies more than [`LEVELS_MAX`] levels away.
    #[error("the answer is more than {LEVELS_MAX} usersets or parents away")]
    TooDeep,
    /// The answer takes more than [`STEPS_MAX`] steps.
    #[error("the answer takes more than {STEPS_MAX} steps")]
    TooMuchWork,
    /// The caller said to stop.
    #[error("the check was interrupted")]
    Interrupted,
}

/// Decides checks of one user against one state of the relationships. Each check reuses what earlier ones found out.
pub struct Evaluation<'a> {
    program: &'a Program,
    index: &'a Index,
    /// The request's values for the parameters of conditions.
    context: &'a Map<String, Value>,
    /// The conditions that failed so far. A [`Verdict`] refers to one by its position.
    condition_errors: Vec<ConditionError>,
    asker: Asker,
    asker_object: Option<&'a Object>,
    purpose: Purpose,
    /// The loops below the object whose users are listed; `None` for other purposes.
    loops: Option<&'a Loops>,
    /// Whether any tuple could make the asker hold a relation, by relation.
    reachable: Vec<bool>,
    memo: Memo,
    frames: Vec<Frame<'a>>,
    /// The recursions in progress. Each one lies inside the one before it.
    recursions: Vec<Recursion>,
    /// The results of [`Evaluation::is_named_in`] so far, by relation.
    named_in: Vec<(RelationId, bool)>,
    /// How many relations of objects are in progress.
    path_length: u32,
    /// The steps of all questions together.
    steps: u64,
    /// The number of steps at which the caller is asked again whether to go on.
    next_interrupt: u64,
    /// Whether the caller said to stop.
    stopped: bool,
}

/// Says what the answers are for. `OpenFGA` finds answers for these purposes in different ways, and the answers can
/// differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A check. A tuple of the request that names the asker replaces a stored one.
    Check,
    /// A list of users. All tuples count, and a `but not` that leads into a loop leaves nobody.
    Users,
    /// A list of objects that is found as sets. All tuples count. A failed condition is passed over, because the walk
    /// to the objects comes to every tuple that matters, and fails there. An answer that depends on itself is denied,
    /// even under `but not`.
    Sets,
}

#[derive(Clone, Copy)]
enum Asker {
    Object(TypeId, ObjectId),
    Wildcard(TypeId),
    Userset(Node),
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(
        program: &'a Program,
        index: &'a Index,
        context: &'a Map<String, Value>,
        user: &'a User,
    ) -> Result<Self, CheckError> {
        let resolved = program.user(user)?;
        let number = |object: &Object| index.object(object).unwrap_or(ObjectId::UNKNOWN_ASKER);
        let (asker, asker_object) = match &resolved {
            ResolvedUser::Object(type_id, object) => (Asker::Object(*type_id, number(object)), Some(*object)),
            ResolvedUser::Wildcard(type_id) => (Asker::Wildcard(*type_id), None),
            ResolvedUser::Userset(relation, object) => {
                (Asker::Userset(Node { relation: *relation, object: number(object) }), Some(*object))
            }
        };
        Ok(Self {
            program,
            index,
            context,
            condition_errors: Vec::new(),
            asker,
            asker_object,
            purpose: Purpose::Check,
            loops: None,
            reachable: program.reachable_from(&resolved),
            memo: Memo::default(),
            frames: Vec::new(),
            recursions: Vec::new(),
            named_in: Vec::new(),
            path_length: 0,
            steps: 0,
            next_interrupt: STEPS_BETWEEN_INTERRUPTS,
            stopped: false,
        })
    }

    /// Prepares the evaluation for a list of users, given the loops below the object that the list is about.
    pub(super) fn for_users(self, loops: &'a Loops) -> Self {
        Self { purpose: Purpose::Users, loops: Some(loops), ..self }
    }

    /// Sets the purpose of the answers.
    pub(super) fn with_purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// Returns whether the user holds the relation on the object. `go_on` is called every [`STEPS_BETWEEN_INTERRUPTS`]
    /// steps; `false` ends the check.
    ///
    /// # Errors
    /// See [`CheckError`]. An error is never an answer. The evaluation can answer further questions afterwards.
    pub fn check(
        &mut self,
        relation: &Relation,
        object: &Object,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, CheckError> {
        let question = self.question(relation, object)?;
        self.check_node(question, LEVELS_WITH_LAST, go_on)
    }

    /// Like [`Self::check`], for names that are already resolved.
    pub(super) fn check_number(
        &mut self,
        relation: RelationId,
        object: ObjectId,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, CheckError> {
        self.check_node(Node { relation, object }, LEVELS_WITH_LAST, go_on)
    }

    /// Like [`Self::check`], for a resolved node and a number of levels to descend.
    pub(super) fn check_node(
        &mut self,
        question: Node,
        levels: u32,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, CheckError> {
        match self.verdict(question, levels, go_on)? {
            Verdict::Allowed => Ok(true),
            Verdict::Denied | Verdict::Doubted(_) | Verdict::Cyclic => Ok(false),
            Verdict::Failed(position) => {
                let error = usize::try_from(position).ok().and_then(|position| self.condition_errors.get(position));
                Err(error.map_or(CheckError::TooMuchWork, |error| error.clone().into()))
            }
            Verdict::TooDeep => Err(CheckError::TooDeep),
        }
    }

    /// Resolves the names of a question.
    pub(super) fn question(&self, relation: &Relation, object: &Object) -> Result<Node, CheckError> {
        let relation = self.program.relation_id(object.type_name(), relation.as_str())?;
        let object = self.index.object(object).unwrap_or_else(|| {
            if self.asker_object == Some(object) { ObjectId::UNKNOWN_ASKER } else { ObjectId::UNKNOWN }
        });
        Ok(Node { relation, object })
    }

    /// Returns the verdict about a node, descending at most `levels` levels.
    pub(super) fn verdict(
        &mut self,
        question: Node,
        levels: u32,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Verdict, CheckError> {
        let outcome = self.run(question, levels, go_on);
        if outcome.is_err() {
            self.give_up();
        }
        Ok(outcome?.verdict)
    }

    /// Returns whether the node is the userset that asks. Everybody in a userset holds its relation, so such a node is
    /// allowed.
    pub(super) fn is_asker(&self, node: Node) -> bool {
        matches!(self.asker, Asker::Userset(asker) if asker == node)
    }

    /// Returns whether any tuple could make the asker hold the relation.
    pub(super) fn can_hold(&self, relation: RelationId) -> bool {
        self.reachable.get(relation.index()).copied().unwrap_or(false)
    }

    fn run(&mut self, question: Node, levels: u32, go_on: &mut dyn FnMut() -> bool) -> Result<Outcome, CheckError> {
        let first_step = self.steps;
        self.stopped = false;
        let mut answer = self.relation(question, levels);
        loop {
            self.count(1, go_on);
            if self.stopped {
                return Err(CheckError::Interrupted);
            }
            if self.steps - first_step > STEPS_MAX {
                return Err(CheckError::TooMuchWork);
            }
            answer = answer.map(|answer| self.at_end_of_own(answer));
            let Some(frame) = self.frames.last_mut() else {
                // The frames only run out when there is an answer. Should that ever fail, nothing is allowed.
                return Ok(answer.unwrap_or(Outcome::TOO_DEEP));
            };
            let decided = answer.take().is_some_and(|answer| frame.take(answer));
            let of = frame.node.relation;
            let next = match &mut frame.task {
                _ if decided => None,
                Task::Search { down } => search::next(&mut self.recursions, self.program, frame.remaining, down),
                Task::Relation { .. } | Task::Union(_) | Task::Intersection { .. } | Task::Level { .. } => frame.next(),
            };
            answer = match next {
                Some(Subquestion::Expression(expression, node, remaining)) => {
                    self.expression(expression, node, remaining, go_on)
                }
                Some(Subquestion::Relation(node, remaining)) => self.relation(node, remaining),
                Some(Subquestion::TooDeep) if self.is_searching() => {
                    let verdict = self.beyond_levels(of);
                    Some(Outcome { verdict, ..Outcome::TOO_DEEP })
                }
                Some(Subquestion::TooDeep) => Some(Outcome::TOO_DEEP),
                None => self.finish(),
            };
        }
    }

    /// Turns a denied answer about one of a relation's own usersets or parents into *too deep* near the last level.
    /// There `OpenFGA` cannot find out that no more of them follow. A search counts the levels itself, so its answers
    /// stay.
    fn at_end_of_own(&self, answer: Outcome) -> Outcome {
        let Some(Frame { task: Task::Level { own: true, .. }, remaining, .. }) = self.frames.last() else {
            return answer;
        };
        match answer.verdict {
            Verdict::Denied | Verdict::Doubted(_) | Verdict::Cyclic
                if *remaining <= OWN_END && !self.is_searching() =>
            {
                Outcome { verdict: Verdict::TooDeep, ..answer }
            }
            Verdict::Allowed
            | Verdict::Denied
            | Verdict::Doubted(_)
            | Verdict::Cyclic
            | Verdict::Failed(_)
            | Verdict::TooDeep => answer,
        }
    }

    /// Counts steps, and asks the caller now and then whether to go on. The count spans all questions, so that many
    /// short ones can be interrupted, too.
    fn count(&mut self, steps: u64, go_on: &mut dyn FnMut() -> bool) {
        if self.stopped {
            return;
        }
        self.steps += steps;
        if self.steps >= self.next_interrupt {
            self.next_interrupt = self.steps + STEPS_BETWEEN_INTERRUPTS;
            self.stopped |= !go_on();
        }
    }

    /// Answers a question about a node, or pushes a frame that will.
    fn relation(&mut self, node: Node, remaining: u32) -> Option<Outcome> {
        if self.is_asker(node) {
            return Some(Outcome::ALLOWED);
        }
        if !self.can_hold(node.relation) {
            return Some(Outcome::DENIED);
        }
        let Some(expression) = self.program.expression(node.relation) else {
            // Relation ids come from this very program, so this cannot happen. Unknown is the one safe answer.
            return Some(Outcome::TOO_DEEP);
        };
        if let Expression::Direct = expression
            && self.index.conditioned(node).is_empty()
            && let Plain::Decided(outcome) = self.plain(node)
        {
            return Some(outcome);
        }
        if let Some(found) = self.found_by_search(node, remaining) {
            return Some(found);
        }
        if let Some(known) = self.memo.recall(node, remaining) {
            return Some(known);
        }
        self.enter_recursion(node.relation);
        let position = self.path_length;
        self.path_length += 1;
        let mark = self.memo.enter(node, position);
        let task = Task::Relation { expression: Some(expression), position, mark };
        self.frames.push(Frame { task, node, remaining, so_far: Outcome::DENIED });
        None
    }

    /// Answers a question about a part of a relation's definition, or pushes a frame that will.
    fn expression(
        &mut self,
        expression: &'a Expression,
        node: Node,
        remaining: u32,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Outcome> {
        let (task, so_far) = match expression {
            Expression::Direct => match self.direct(node, go_on) {
                Direct::Decided(outcome) => return Some(outcome),
                Direct::Undecided { usersets: left, met, so_far } => {
                    let to_last = self.usersets_to_last(node.relation, remaining);
                    let own = self.has_own_usersets(node.relation);
                    (Task::Level { left, met, computed: &[], to_last, own, may_be_last: false }, so_far)
                }
            },
            Expression::Computed(relation) => {
                return self.relation(Node { relation: *relation, object: node.object }, remaining);
            }
            Expression::TupleToUserset { tupleset, computed } => {
                let tupleset = Node { relation: *tupleset, object: node.object };
                let left = self.index.subjects(tupleset);
                let (met, so_far) = self.met(self.index.conditioned(tupleset).iter(), left, None, go_on);
                let to_last = self.parents_to_last(node.relation, computed, remaining);
                let own = self.has_own_parents(node.relation);
                (Task::Level { left, met, computed, to_last, own, may_be_last: false }, so_far)
            }
            Expression::Union(operands) => (Task::Union(operands), Outcome::DENIED),
            Expression::Intersection(operands) => {
                (Task::Intersection { left: operands, subtract_last: false }, Outcome::ALLOWED)
            }
            Expression::Difference(operands) => {
                let [base, subtract] = &**operands;
                if self.is_loop(subtract, node, go_on) {
                    // A loop leaves nobody. Its answer is a cycle, which allows nobody even if this `but not` is itself
                    // subtracted: no list contains anybody whom a check denies.
                    (Task::Intersection { left: std::slice::from_ref(base), subtract_last: false }, Outcome::CYCLIC)
                } else {
                    (Task::Intersection { left: &**operands, subtract_last: true }, Outcome::ALLOWED)
                }
            }
        };
        self.frames.push(Frame { task, node, remaining, so_far });
        None
    }

    /// Returns whether a part of a relation's definition leads into a cycle, so that a `but not` that subtracts the
    /// part leaves nobody in a list of users (see [`Loops`]).
    fn is_loop(&mut self, part: &Expression, node: Node, go_on: &mut dyn FnMut() -> bool) -> bool {
        let Some(loops) = self.loops else { return false };
        let is_loop = |subject: Subject| matches!(subject, Subject::Userset(userset) if loops.contains(userset));
        match part {
            Expression::Computed(relation) => loops.contains(Node { relation: *relation, object: node.object }),
            Expression::Direct => {
                let mut conditioned = self.index.conditioned(node).iter();
                self.index.subjects(node).iter().any(is_loop)
                    || conditioned.any(|(subject, stored)| {
                        is_loop(*subject) && self.is_met(stored, go_on).is_ok_and(|is_met| is_met)
                    })
            }
            Expression::TupleToUserset { .. }
            | Expression::Union(_)
            | Expression::Intersection(_)
            | Expression::Difference(_) => false,
        }
    }

    /// Pops the last frame, and returns its answer if it is final.
    fn finish(&mut self) -> Option<Outcome> {
        let frame = self.frames.pop()?;
        match frame.task {
            Task::Relation { position, mark, .. } => {
                if self.is_to_be_searched(frame.node.relation, frame.so_far) {
                    self.frames.push(frame);
                    self.begin_search();
                    return None;
                }
                self.leave_recursion();
                self.path_length = position;
                Some(self.memo.settle(frame.node, frame.so_far, frame.remaining, position, mark))
            }
            Task::Search { .. } => Some(self.end_search(&frame)),
            Task::Union(_) | Task::Intersection { .. } | Task::Level { .. } => Some(frame.so_far),
        }
    }

    fn give_up(&mut self) {
        self.drop_frames(0);
        self.memo.forget(0);
        self.recursions.clear();
        self.path_length = 0;
    }

    /// Drops the frames from a position on.
    fn drop_frames(&mut self, from: usize) {
        for frame in self.frames.drain(from..) {
            if let Task::Relation { .. } = frame.task {
                self.memo.leave(frame.node);
            }
        }
    }
}
