//! Follows tuples from a user outwards, level by level, and notes which objects each relation is held on.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::graph::{Formula, Graph, Leaf, Relation};
use super::{Asker, Question};
use crate::relationship::evaluator::{CheckError, LEVELS_MAX, STEPS_BETWEEN_INTERRUPTS, STEPS_PER_CONDITION};
use crate::relationship::index::{Node, ObjectId, StoredCondition, Subject};
use crate::relationship::program::{Expression, RelationId};

/// So many computed relations are looked through for a sure denial.
const LOOKS_MAX: u8 = 8;

/// What counts.
#[derive(Clone, Copy)]
pub(super) enum Rule<'p> {
    /// Whatever might: tuples whose condition fails, bases without what is taken away from them, any number of levels.
    Possible,
    /// What a check is sure to allow, by what is possible.
    Certain(&'p Spread),
}

/// What one run found.
pub(super) struct Spread {
    relations: Vec<Sets>,
    /// Something is further away than a check goes.
    pub(super) is_deep: bool,
    /// A condition failed, or a check may leave out a tuple that was followed.
    pub(super) has_failed: bool,
}

#[derive(Clone, Default)]
struct Sets {
    held: RoaringBitmap,
    /// What each leaf of the formula says, where that is kept.
    leaves: Vec<RoaringBitmap>,
}

/// What several runs share.
pub(super) struct Spreading<'a, 'g> {
    question: &'g Question<'a>,
    graph: &'g Graph<'a>,
    asker: Asker,
    go_on: &'g mut dyn FnMut() -> bool,
    steps: u64,
    /// Whether conditions are met, by their place in the index; `None`: it failed.
    conditions: HashMap<usize, Option<bool>>,
}

/// The state of one run.
struct Run<'p> {
    rule: Rule<'p>,
    spread: Spread,
    /// What was found to be held at this level and not followed yet.
    held: Vec<(usize, ObjectId)>,
    /// What tuples say one level further on.
    next: Vec<(Leaf, ObjectId)>,
}

/// A place in a formula, and the object it is about.
#[derive(Clone, Copy)]
struct At<'p> {
    possible: &'p Spread,
    place: usize,
    relation: RelationId,
    object: ObjectId,
    /// So many computed relations may still be looked through.
    looks: u8,
}

impl At<'_> {
    fn is_possible(self, formula: &Formula<'_>) -> bool {
        formula.holds(&|leaf| self.possible.leaf_holds(self.place, leaf, self.object), &|_, _| true)
    }
}

impl Spread {
    pub(super) fn into_held(self, place: usize) -> RoaringBitmap {
        self.relations.into_iter().nth(place).map(|sets| sets.held).unwrap_or_default()
    }

    fn leaf_holds(&self, place: usize, leaf: usize, object: ObjectId) -> bool {
        let leaf = self.relations.get(place).and_then(|sets| sets.leaves.get(leaf));
        leaf.is_some_and(|objects| objects.contains(object.0))
    }
}

impl<'a, 'g> Spreading<'a, 'g> {
    pub(super) fn new(
        question: &'g Question<'a>,
        graph: &'g Graph<'a>,
        asker: Asker,
        go_on: &'g mut dyn FnMut() -> bool,
    ) -> Self {
        Self { question, graph, asker, go_on, steps: 0, conditions: HashMap::new() }
    }

    /// Follows everything that counts by a rule.
    ///
    /// # Errors
    /// When it was told to stop.
    pub(super) fn run(&mut self, rule: Rule<'_>) -> Result<Spread, CheckError> {
        let relations = self.graph.relations.iter().map(|relation| Sets {
            held: RoaringBitmap::new(),
            leaves: if relation.is_union { Vec::new() } else { vec![RoaringBitmap::new(); relation.leaves] },
        });
        let spread = Spread { relations: relations.collect(), is_deep: false, has_failed: false };
        let mut run = Run { rule, spread, held: Vec::new(), next: Vec::new() };
        for subject in self.asker.subjects() {
            self.follow_tuples(&mut run, subject, None)?;
        }
        if let Asker::Userset(node) = self.asker
            && let Some(place) = self.graph.place(node.relation)
        {
            // Whoever is in the userset holds the userset's relation.
            hold(&mut run, place, node.object);
        }
        let mut level = 0_u32;
        loop {
            run.spread.is_deep = level > LEVELS_MAX;
            if run.spread.is_deep && matches!(run.rule, Rule::Certain(_)) {
                return Ok(run.spread);
            }
            for (leaf, object) in std::mem::take(&mut run.next) {
                self.count(&mut run, leaf, object);
            }
            while let Some((place, object)) = run.held.pop() {
                self.follow(&mut run, place, object)?;
            }
            if run.next.is_empty() {
                return Ok(run.spread);
            }
            level = level.saturating_add(1);
        }
    }

    /// Follows what holding a relation on an object leads to.
    fn follow(&mut self, run: &mut Run<'_>, place: usize, object: ObjectId) -> Result<(), CheckError> {
        self.step(1)?;
        let graph = self.graph;
        let Some(relation) = graph.relations.get(place) else { return Ok(()) };
        for leaf in &relation.computed {
            self.count(run, *leaf, object);
        }
        if relation.is_userset {
            self.follow_tuples(run, Subject::Userset(Node { relation: relation.id, object }), None)?;
        }
        for (tupleset, type_id, leaf) in &relation.from_parent {
            self.follow_tuples(run, Subject::Object(*type_id, object), Some((*tupleset, *leaf)))?;
        }
        Ok(())
    }

    /// Follows the tuples whose user this is: those of relations that are followed themselves, or those of a tupleset to a
    /// leaf that looks through it.
    fn follow_tuples(
        &mut self,
        run: &mut Run<'_>,
        subject: Subject,
        tupleset: Option<(RelationId, Leaf)>,
    ) -> Result<(), CheckError> {
        let index = self.question.index;
        // A check of the asker may leave out a tuple that has the names of one of the request's.
        let names_asker = tupleset.is_none() && matches!(subject, Subject::Object(..)) && index.has_doubles();
        let is_unsure = |run: &mut Run<'_>, node: Node| {
            let is_double = names_asker && index.of_request(node, subject).is_some();
            run.spread.has_failed |= is_double;
            is_double && matches!(run.rule, Rule::Certain(_))
        };
        for node in index.nodes(subject) {
            self.step(1)?;
            if !is_unsure(run, node) {
                self.note(run, node, tupleset);
            }
        }
        for (node, condition) in index.conditioned_nodes(subject) {
            if is_unsure(run, node) {
                continue;
            }
            let counts = match tupleset {
                Some((tupleset, _)) => node.relation == tupleset,
                None => self.graph.place(node.relation).is_some(),
            };
            if !counts {
                continue;
            }
            match (self.is_met(condition)?, run.rule) {
                (Some(true), _) => self.note(run, node, tupleset),
                (Some(false), _) | (None, Rule::Certain(_)) => {}
                (None, Rule::Possible) => {
                    run.spread.has_failed = true;
                    self.note(run, node, tupleset);
                }
            }
        }
        Ok(())
    }

    /// Notes what a tuple about a node says.
    fn note(&self, run: &mut Run<'_>, node: Node, tupleset: Option<(RelationId, Leaf)>) {
        match tupleset {
            Some((tupleset, leaf)) if tupleset == node.relation => run.next.push((leaf, node.object)),
            Some(_) => {}
            None => {
                let Some(place) = self.graph.place(node.relation) else { return };
                let direct = self.graph.relations.get(place).into_iter().flat_map(|relation| &relation.direct);
                run.next.extend(direct.map(|leaf| (Leaf { relation: place, leaf: *leaf }, node.object)));
            }
        }
    }

    /// Counts a leaf as true for an object, and the relation as held when that makes its formula true.
    fn count(&self, run: &mut Run<'_>, Leaf { relation: place, leaf }: Leaf, object: ObjectId) {
        let Some(relation) = self.graph.relations.get(place) else { return };
        if matches!(run.rule, Rule::Certain(_)) && !relation.adds {
            return;
        }
        if !relation.is_union {
            let sets = run.spread.relations.get_mut(place).and_then(|sets| sets.leaves.get_mut(leaf));
            let is_new = sets.is_some_and(|objects| objects.insert(object.0));
            if !is_new || !self.holds(run, place, relation, object) {
                return;
            }
        }
        hold(run, place, object);
    }

    fn holds(&self, run: &Run<'_>, place: usize, relation: &Relation<'_>, object: ObjectId) -> bool {
        let leaf = |leaf: usize| run.spread.leaf_holds(place, leaf, object);
        match run.rule {
            Rule::Possible => relation.formula.holds(&leaf, &|_, _| true),
            Rule::Certain(possible) => relation.formula.holds(&leaf, &|taken_away, definition| {
                let at = At { possible, place, relation: relation.id, object, looks: LOOKS_MAX };
                !at.is_possible(taken_away) && self.is_surely_denied(at, taken_away, definition)
            }),
        }
    }

    /// Whether a check of what the user does not possibly hold would say *denied*, and not fail on a condition, a cycle or
    /// too many levels: where there are no usersets or parents that it would have to follow.
    fn is_surely_denied(&self, at: At<'_>, formula: &Formula<'_>, definition: &Expression) -> bool {
        let Question { index, program, .. } = self.question;
        match (formula, definition) {
            (_, Expression::Direct) => {
                let node = Node { relation: at.relation, object: at.object };
                // Usersets come first in the order of subjects.
                let has_usersets = !index.subjects(node).usersets().is_empty();
                !has_usersets && index.conditioned(node).is_empty()
            }
            (_, Expression::TupleToUserset { tupleset, .. }) => {
                let node = Node { relation: *tupleset, object: at.object };
                index.subjects(node).is_empty() && index.conditioned(node).is_empty()
            }
            (_, Expression::Computed(computed)) => {
                let Some(place) = self.graph.place(*computed) else {
                    // The graph has everything that the user could hold at all.
                    return true;
                };
                match (self.graph.relations.get(place), program.expression(*computed), at.looks.checked_sub(1)) {
                    (Some(relation), Some(definition), Some(looks)) => {
                        let at = At { place, relation: *computed, looks, ..at };
                        self.is_surely_denied(at, &relation.formula, definition)
                    }
                    _ => false,
                }
            }
            (Formula::Any(formulas), Expression::Union(definitions)) => {
                formulas.iter().zip(definitions).all(|(formula, definition)| {
                    // What is not possible has no operand that is.
                    self.is_surely_denied(at, formula, definition)
                })
            }
            (Formula::All(formulas), Expression::Intersection(definitions)) => {
                formulas.iter().zip(definitions).any(|(formula, definition)| {
                    !at.is_possible(formula) && self.is_surely_denied(at, formula, definition)
                })
            }
            (Formula::Minus(formulas, _), Expression::Difference(definitions)) => {
                let ((base, _), [definition, _]) = (&**formulas, &**definitions);
                self.is_surely_denied(at, base, definition)
            }
            // A formula has the shape of its definition.
            (_, Expression::Union(_) | Expression::Intersection(_) | Expression::Difference(_)) => false,
        }
    }

    fn is_met(&mut self, stored: &StoredCondition) -> Result<Option<bool>, CheckError> {
        let place = std::ptr::from_ref(stored).addr();
        if let Some(known) = self.conditions.get(&place) {
            return Ok(*known);
        }
        self.step(STEPS_PER_CONDITION)?;
        let condition = self.question.program.condition(stored.condition);
        let met = match (condition, &stored.context) {
            (Some(condition), Ok(context)) => condition.is_met(context, self.question.context).ok(),
            _ => None,
        };
        self.conditions.insert(place, met);
        Ok(met)
    }

    fn step(&mut self, steps: u64) -> Result<(), CheckError> {
        let before = self.steps / STEPS_BETWEEN_INTERRUPTS;
        self.steps = self.steps.saturating_add(steps);
        if self.steps / STEPS_BETWEEN_INTERRUPTS > before && !(self.go_on)() {
            return Err(CheckError::Interrupted);
        }
        Ok(())
    }
}

/// Notes that a relation is held on an object, if that is new.
fn hold(run: &mut Run<'_>, place: usize, object: ObjectId) {
    if let Some(sets) = run.spread.relations.get_mut(place)
        && sets.held.insert(object.0)
    {
        run.held.push((place, object));
    }
}
