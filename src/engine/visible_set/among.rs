//! Finds out which of some objects are in a visible set, by the tuples about each object.
//!
//! An earlier search, from the user outwards, has found the groups, folders and the like that the user holds
//! ([`Inner`]). The remaining relations only count for the target on the same object. So this module decides each
//! object by itself: whether it is possible and whether it is certain, as in [`super::spread`]. It reads a part of a
//! definition only as long as that part can matter.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::denial::{At, FormulaPart, is_surely_denied};
use super::graph::{Dependency, Formula, Graph, Relation};
use super::spread::Spread;
use super::{Asker, Bounds, Inner, Question};
use crate::engine::evaluator::{CheckError, LEVELS_MAX, STEPS_BETWEEN_INTERRUPTS, STEPS_PER_CONDITION};
use crate::engine::index::{Node, ObjectId, StoredCondition, Subject, Subjects};
use crate::language::program::{Expression, RelationId};

/// The deepest nesting of parts of definitions. It bounds the recursion.
const DEPTH_MAX: usize = 100;

/// The objects that are asked about, and what is known for all of them.
pub(super) struct Among<'a, 'g> {
    question: Question<'a>,
    graph: &'g Graph<'a>,
    asker: Asker,
    inner: &'g Inner,
    /// Whether everything that is possible is also certain, unless a condition fails.
    is_plain: bool,
    /// The number of steps after which the work is given up.
    steps_max: u64,
    go_on: &'g mut dyn FnMut() -> bool,
    steps: u64,
    /// How many parts of definitions are being looked at, each inside the one before.
    depth: usize,
    /// Whether conditions are met, by their address in the index; `None` if one could not be evaluated.
    conditions: HashMap<usize, Option<bool>>,
    /// The object that is being looked at.
    object: ObjectId,
    possible: Answers,
    certain: Answers,
    /// Whether a condition failed for this object.
    has_failed: bool,
}

/// Says which of the two bounds a question is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Possible,
    Certain,
}

/// The answers about one object so far.
struct Answers {
    /// The answer for each relation, by the relation's position in the graph.
    relations: Vec<Option<bool>>,
    /// The answer for each leaf, by the position of its relation and its own position there.
    leaves: Vec<Vec<Option<bool>>>,
}

impl Answers {
    fn none(graph: &Graph<'_>) -> Self {
        let leaves = graph.relations.iter().map(|relation| vec![None; relation.leaves.len()]).collect();
        Self { relations: vec![None; graph.relations.len()], leaves }
    }

    fn forget(&mut self) {
        self.relations.fill(None);
        for leaves in &mut self.leaves {
            leaves.fill(None);
        }
    }
}

impl<'a, 'g> Among<'a, 'g> {
    pub(super) fn new(
        question: Question<'a>,
        graph: &'g Graph<'a>,
        asker: Asker,
        inner: &'g Inner,
        steps_max: u64,
        go_on: &'g mut dyn FnMut() -> bool,
    ) -> Self {
        let is_plain = !graph.subtracts && !inner.possible.has_failed && !is_beyond(&inner.possible);
        Self {
            question,
            graph,
            asker,
            inner,
            is_plain,
            steps_max,
            go_on,
            steps: 0,
            depth: 0,
            conditions: HashMap::new(),
            object: ObjectId::UNKNOWN,
            possible: Answers::none(graph),
            certain: Answers::none(graph),
            has_failed: false,
        }
    }

    /// Returns the bounds of the set among the objects.
    ///
    /// # Errors
    /// When `go_on` returns `false`, or when the work takes too many steps.
    pub(super) fn bounds(mut self, objects: &RoaringBitmap) -> Result<Bounds, CheckError> {
        let mut bounds = Bounds::default();
        for object in objects {
            self.object = ObjectId(object);
            self.has_failed = false;
            self.possible.forget();
            if !self.relation(Bound::Possible, Graph::TARGET)? {
                continue;
            }
            let is_certain = self.is_plain && !self.has_failed || {
                self.certain.forget();
                self.relation(Bound::Certain, Graph::TARGET)?
            };
            // The objects come in order, so this appends.
            if is_certain {
                bounds.certain.insert(object);
            } else {
                bounds.undecided.insert(object);
            }
        }
        Ok(bounds)
    }

    /// Returns whether the relation is held on the object.
    fn relation(&mut self, bound: Bound, place: usize) -> Result<bool, CheckError> {
        let graph = self.graph;
        let Some(relation) = graph.relations.get(place) else { return Ok(false) };
        if !relation.is_outermost {
            return Ok(self.inner.of(bound).holds(place, self.object));
        }
        if let Some(known) = self.answers(bound).relations.get(place).copied().flatten() {
            return Ok(known);
        }
        let is_itself = matches!(self.asker, Asker::Userset(node) if node == self.node(relation.id));
        let held = match bound {
            Bound::Certain if !relation.adds || is_beyond(self.inner.of(bound)) => false,
            Bound::Possible | Bound::Certain => is_itself || self.holds(bound, place, relation, &relation.formula)?,
        };
        if let Some(answer) = self.answers(bound).relations.get_mut(place) {
            *answer = Some(held);
        }
        Ok(held)
    }

    /// Returns whether a part of a relation's formula holds. It calls itself; formulas that are nested too deeply are
    /// left to checks.
    fn holds(
        &mut self,
        bound: Bound,
        place: usize,
        relation: &'g Relation<'a>,
        formula: &'g Formula<'a>,
    ) -> Result<bool, CheckError> {
        if self.depth >= DEPTH_MAX {
            return Err(CheckError::TooMuchWork);
        }
        self.depth += 1;
        let holds = self.part_holds(bound, place, relation, formula);
        self.depth -= 1;
        holds
    }

    fn part_holds(
        &mut self,
        bound: Bound,
        place: usize,
        relation: &'g Relation<'a>,
        formula: &'g Formula<'a>,
    ) -> Result<bool, CheckError> {
        match formula {
            Formula::Leaf(leaf) => self.leaf(bound, place, relation, *leaf),
            Formula::Any(operands) => {
                for operand in operands {
                    if self.holds(bound, place, relation, operand)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Formula::All(operands) => {
                for operand in operands {
                    if !self.holds(bound, place, relation, operand)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Formula::Minus(operands, definition) => {
                let (base, taken_away) = &**operands;
                if !self.holds(bound, place, relation, base)? {
                    return Ok(false);
                }
                match bound {
                    Bound::Possible => Ok(true),
                    Bound::Certain => Ok(!self.holds(Bound::Possible, place, relation, taken_away)?
                        && self.is_surely_denied(place, relation.id, taken_away, definition)?),
                }
            }
        }
    }

    fn is_surely_denied(
        &mut self,
        place: usize,
        relation: RelationId,
        formula: &'g Formula<'a>,
        definition: &Expression,
    ) -> Result<bool, CheckError> {
        let (question, graph) = (self.question, self.graph);
        let at = At::new(place, relation, self.object);
        is_surely_denied(&question, graph, at, FormulaPart { formula, definition }, &mut |place, formula| {
            let relation = graph.relations.get(place);
            relation.map_or(Ok(false), |relation| self.holds(Bound::Possible, place, relation, formula))
        })
    }

    /// Returns whether a leaf of a relation is true for the object.
    fn leaf(
        &mut self,
        bound: Bound,
        place: usize,
        relation: &'g Relation<'a>,
        leaf: usize,
    ) -> Result<bool, CheckError> {
        let Some(dependency) = relation.leaves.get(leaf) else { return Ok(false) };
        if let Dependency::Computed(used) = dependency {
            return self.graph.place(*used).map_or(Ok(false), |used| self.relation(bound, used));
        }
        if let Some(known) =
            self.answers(bound).leaves.get(place).and_then(|leaves| leaves.get(leaf)).copied().flatten()
        {
            return Ok(known);
        }
        let possible = self.possible.leaves.get(place).and_then(|leaves| leaves.get(leaf)).copied().flatten();
        let counts = match possible {
            // A leaf that is not possible is not certain. If nothing failed, a possible one is also certain.
            Some(possible) if !possible || (self.inner.certain.is_none() && !self.has_failed) => possible,
            Some(_) | None => self.counts(bound, relation.id, *dependency)?,
        };
        if let Some(answer) = self.answers(bound).leaves.get_mut(place).and_then(|leaves| leaves.get_mut(leaf)) {
            *answer = Some(counts);
        }
        Ok(counts)
    }

    /// Returns whether a tuple about the object makes a leaf true.
    fn counts(&mut self, bound: Bound, relation: RelationId, dependency: Dependency<'a>) -> Result<bool, CheckError> {
        self.step(1)?;
        let node = match dependency {
            Dependency::OwnTuples => self.node(relation),
            Dependency::FromParent(tupleset, _) => self.node(tupleset),
            Dependency::Computed(_) => return Ok(false),
        };
        let index = self.question.index;
        if self.is_named(bound, index.subjects(node), dependency)? {
            return Ok(true);
        }
        for (subject, condition) in index.conditioned(node) {
            if self.names(bound, *subject, dependency) && self.may_count(bound, condition)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether one of the users makes a leaf true: it is the asker, or it is a userset or parent through which
    /// the asker holds what the leaf asks about.
    fn is_named(
        &mut self,
        bound: Bound,
        subjects: Subjects<'_>,
        dependency: Dependency<'a>,
    ) -> Result<bool, CheckError> {
        let others = match dependency {
            Dependency::OwnTuples if self.asker.subjects().any(|asker| subjects.contains(asker)) => return Ok(true),
            Dependency::OwnTuples => subjects.usersets(),
            Dependency::FromParent(..) | Dependency::Computed(_) => subjects,
        };
        for subject in others.iter() {
            self.step(1)?;
            if self.names(bound, subject, dependency) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn names(&self, bound: Bound, subject: Subject, dependency: Dependency<'a>) -> bool {
        let spread = self.inner.of(bound);
        let holds = |relation: RelationId, object: ObjectId| {
            self.graph.place(relation).is_some_and(|place| spread.holds(place, object))
        };
        match (dependency, subject) {
            (Dependency::OwnTuples, Subject::Userset(node)) => {
                holds(node.relation, node.object) || self.asker.subjects().any(|asker| asker == subject)
            }
            (Dependency::OwnTuples, Subject::Object(..) | Subject::Wildcard(_)) => {
                self.asker.subjects().any(|asker| asker == subject)
            }
            (Dependency::FromParent(_, computed), Subject::Object(type_id, parent)) => {
                let mut asked = computed.iter().filter(|(of, _)| *of == type_id);
                asked.any(|(_, relation)| holds(*relation, parent))
            }
            (Dependency::FromParent(..) | Dependency::Computed(_), _) => false,
        }
    }

    /// Returns whether a tuple with a condition counts for this bound.
    fn may_count(&mut self, bound: Bound, stored: &StoredCondition) -> Result<bool, CheckError> {
        let place = std::ptr::from_ref(stored).addr();
        let known = self.conditions.get(&place).copied();
        let met = if let Some(known) = known {
            known
        } else {
            self.step(STEPS_PER_CONDITION)?;
            let met = self.question.is_met(stored);
            self.conditions.insert(place, met);
            met
        };
        self.has_failed |= met.is_none();
        Ok(met.unwrap_or(bound == Bound::Possible))
    }

    fn node(&self, relation: RelationId) -> Node {
        Node { relation, object: self.object }
    }

    fn answers(&mut self, bound: Bound) -> &mut Answers {
        match bound {
            Bound::Possible => &mut self.possible,
            Bound::Certain => &mut self.certain,
        }
    }

    fn step(&mut self, steps: u64) -> Result<(), CheckError> {
        let before = self.steps / STEPS_BETWEEN_INTERRUPTS;
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.steps_max {
            return Err(CheckError::TooMuchWork);
        }
        if self.steps / STEPS_BETWEEN_INTERRUPTS > before && !(self.go_on)() {
            return Err(CheckError::Interrupted);
        }
        Ok(())
    }
}

impl Inner {
    fn of(&self, bound: Bound) -> &Spread {
        match bound {
            Bound::Possible => &self.possible,
            Bound::Certain => self.certain.as_ref().unwrap_or(&self.possible),
        }
    }
}

/// Returns whether one level further on is more than a check descends.
fn is_beyond(spread: &Spread) -> bool {
    spread.level >= LEVELS_MAX
}
