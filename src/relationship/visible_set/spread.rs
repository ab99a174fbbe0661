//! Follows tuples from a user outwards, level by level, and notes which objects each relation is held on.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::graph::{Dependency, Formula, Graph, Leaf, Relation};
use super::{Asker, Question};
use crate::relationship::evaluator::{CheckError, LEVELS_MAX, STEPS_BETWEEN_INTERRUPTS, STEPS_PER_CONDITION};
use crate::relationship::index::{Node, ObjectId, StoredCondition, Subject, Subjects};
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
#[derive(Clone)]
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
    /// The relations whose own tuples may name the asker.
    named_for_asker: Vec<usize>,
    /// The objects that are asked about; all of them when `None`.
    candidates: Option<&'g Candidates<'g>>,
    /// What is held apart from the candidates, and at which level that ended, where it is both possible and certain.
    inner: Option<(Spread, u32)>,
    go_on: &'g mut dyn FnMut() -> bool,
    steps: u64,
    /// Whether conditions are met, by their place in the index; `None`: it failed.
    conditions: HashMap<usize, Option<bool>>,
}

/// The objects that are asked about, where it is not all.
#[derive(Clone, Copy)]
pub(super) struct Candidates<'c> {
    pub(super) objects: &'c RoaringBitmap,
    /// A run gives up after so many steps.
    pub(super) steps_max: u64,
}

/// The state of one run.
struct Run<'p> {
    rule: Rule<'p>,
    spread: Spread,
    /// So many usersets or parents are between the user and what is held now.
    level: u32,
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

    fn holds(&self, place: usize, object: ObjectId) -> bool {
        self.relations.get(place).is_some_and(|sets| sets.held.contains(object.0))
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
        (asker, named_for_asker): (Asker, Vec<usize>),
        candidates: Option<&'g Candidates<'g>>,
        go_on: &'g mut dyn FnMut() -> bool,
    ) -> Self {
        let (inner, steps, conditions) = (None, 0, HashMap::new());
        Self { question, graph, asker, named_for_asker, candidates, inner, go_on, steps, conditions }
    }

    /// Follows everything that counts by a rule.
    ///
    /// # Errors
    /// When it was told to stop.
    pub(super) fn run(&mut self, rule: Rule<'_>) -> Result<Spread, CheckError> {
        let mut run = match (rule, self.inner.take()) {
            (Rule::Certain(_), Some((spread, level))) => {
                Run { rule, spread, level, held: Vec::new(), next: Vec::new() }
            }
            (Rule::Certain(_) | Rule::Possible, _) => self.run_from_asker(rule)?,
        };
        let Some(candidates) = self.candidates else { return Ok(run.spread) };
        match rule {
            Rule::Possible => {
                let is_certain = !self.graph.inner_subtracts && !run.spread.is_deep && !run.spread.has_failed;
                // A userset that asks may itself be one of the outermost relations.
                if is_certain && !matches!(self.asker, Asker::Userset(_)) {
                    self.inner = Some((run.spread.clone(), run.level));
                }
                self.note_candidates(&mut run, candidates.objects)?;
            }
            Rule::Certain(possible) => {
                let held = possible.relations.get(Graph::TARGET).map(|sets| &sets.held & candidates.objects);
                self.note_candidates(&mut run, &held.unwrap_or_default())?;
            }
        }
        run.level = run.level.saturating_add(1);
        self.follow_all(&mut run)?;
        Ok(run.spread)
    }

    fn run_from_asker<'p>(&mut self, rule: Rule<'p>) -> Result<Run<'p>, CheckError> {
        let relations = self.graph.relations.iter().map(|relation| Sets {
            held: RoaringBitmap::new(),
            leaves: if relation.is_union { Vec::new() } else { vec![RoaringBitmap::new(); relation.leaves.len()] },
        });
        let spread = Spread { relations: relations.collect(), is_deep: false, has_failed: false };
        let mut run = Run { rule, spread, level: 0, held: Vec::new(), next: Vec::new() };
        let named_for_asker = std::mem::take(&mut self.named_for_asker);
        for subject in self.asker.subjects() {
            self.follow_named(&mut run, subject, &named_for_asker)?;
        }
        self.named_for_asker = named_for_asker;
        if let Asker::Userset(node) = self.asker
            && let Some(place) = self.graph.place(node.relation)
        {
            // Whoever is in the userset holds the userset's relation.
            hold(&mut run, place, node.object);
        }
        self.follow_all(&mut run)?;
        Ok(run)
    }

    /// Follows, level by level, until nothing is left.
    fn follow_all(&mut self, run: &mut Run<'_>) -> Result<(), CheckError> {
        loop {
            run.spread.is_deep = run.level > LEVELS_MAX;
            if run.spread.is_deep && matches!(run.rule, Rule::Certain(_)) {
                return Ok(());
            }
            for (leaf, object) in std::mem::take(&mut run.next) {
                self.count(run, leaf, object);
            }
            while let Some((place, object)) = run.held.pop() {
                self.follow(run, place, object)?;
            }
            if run.next.is_empty() {
                return Ok(());
            }
            run.level = run.level.saturating_add(1);
        }
    }

    /// Follows what holding a relation on an object leads to.
    fn follow(&mut self, run: &mut Run<'_>, place: usize, object: ObjectId) -> Result<(), CheckError> {
        self.step(1)?;
        let graph = self.graph;
        let Some(relation) = graph.relations.get(place) else { return Ok(()) };
        for leaf in &relation.computed {
            // Those that are not followed are looked at from the candidates.
            if self.is_followed(leaf.relation) == self.is_followed(place) {
                self.count(run, *leaf, object);
            }
        }
        self.follow_named(run, Subject::Userset(Node { relation: relation.id, object }), &relation.named_by)?;
        for (tupleset, type_id, leaf) in &relation.from_parent {
            if self.is_followed(leaf.relation) {
                self.follow_tuples(run, Subject::Object(*type_id, object), *tupleset, &[*leaf])?;
            }
        }
        Ok(())
    }

    /// Follows the tuples that name a user, to the relations that they are about.
    fn follow_named(&mut self, run: &mut Run<'_>, subject: Subject, named_by: &[usize]) -> Result<(), CheckError> {
        let graph = self.graph;
        for place in named_by.iter().copied() {
            let Some(relation) = graph.relations.get(place).filter(|_| self.is_followed(place)) else { continue };
            let direct = relation.direct.iter().map(|leaf| Leaf { relation: place, leaf: *leaf });
            self.follow_tuples(run, subject, relation.id, &direct.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Follows a relation's tuples that name a user, to leaves that look at them.
    fn follow_tuples(
        &mut self,
        run: &mut Run<'_>,
        subject: Subject,
        relation: RelationId,
        leaves: &[Leaf],
    ) -> Result<(), CheckError> {
        let index = self.question.index;
        // A check of the asker may leave out a tuple that has the names of one of the request's.
        let may_be_left_out = index.has_doubles()
            && matches!(subject, Subject::Object(..))
            && self.asker.subjects().any(|asker| asker == subject);
        let is_unsure = |run: &mut Run<'_>, node: Node| {
            let is_double = may_be_left_out && index.of_request(node, subject).is_some();
            run.spread.has_failed |= is_double;
            is_double && matches!(run.rule, Rule::Certain(_))
        };
        for node in index.nodes_of(subject, relation) {
            self.step(1)?;
            if !is_unsure(run, node) {
                run.next.extend(leaves.iter().map(|leaf| (*leaf, node.object)));
            }
        }
        for (node, condition) in index.conditioned_nodes_of(subject, relation) {
            if !is_unsure(run, node) && self.may_count(run, condition)? {
                run.next.extend(leaves.iter().map(|leaf| (*leaf, node.object)));
            }
        }
        Ok(())
    }

    /// Whether a tuple with a condition counts by the rule.
    fn may_count(&mut self, run: &mut Run<'_>, condition: &StoredCondition) -> Result<bool, CheckError> {
        Ok(match (self.is_met(condition)?, run.rule) {
            (Some(is_met), _) => is_met,
            (None, Rule::Certain(_)) => false,
            (None, Rule::Possible) => {
                run.spread.has_failed = true;
                true
            }
        })
    }

    /// Whether a relation is followed to all objects. Where candidates are named, the outermost ones are not: there the
    /// tuples about each candidate are looked at.
    fn is_followed(&self, place: usize) -> bool {
        self.candidates.is_none() || self.graph.relations.get(place).is_some_and(|relation| !relation.is_outermost)
    }

    /// Notes what counts for the candidates: what is held of everything else on the same object, and what the tuples about it
    /// say.
    fn note_candidates(&mut self, run: &mut Run<'_>, objects: &RoaringBitmap) -> Result<(), CheckError> {
        let graph = self.graph;
        let is_wanted =
            |relation: &Relation<'_>| relation.is_outermost && (relation.adds || matches!(run.rule, Rule::Possible));
        let wanted: Vec<(usize, &Relation<'_>)> =
            graph.relations.iter().enumerate().filter(|(_, relation)| is_wanted(relation)).collect();
        for object in objects.iter().map(ObjectId) {
            for (place, relation) in &wanted {
                for (leaf, dependency) in relation.leaves.iter().enumerate() {
                    if self.counts_for(run, (relation.id, object), *dependency)? {
                        run.next.push((Leaf { relation: *place, leaf }, object));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a leaf of a relation counts for a candidate.
    fn counts_for(
        &mut self,
        run: &mut Run<'_>,
        (relation, object): (RelationId, ObjectId),
        dependency: Dependency<'_>,
    ) -> Result<bool, CheckError> {
        self.step(1)?;
        let relation = match dependency {
            Dependency::OwnTuples => relation,
            Dependency::FromParent(tupleset, _) => tupleset,
            Dependency::Computed(used) => {
                let place = self.graph.place(used).filter(|place| self.is_followed(*place));
                return Ok(place.is_some_and(|place| run.spread.holds(place, object)));
            }
        };
        let (index, node) = (self.question.index, Node { relation, object });
        if self.is_named(run, index.subjects(node), dependency)? {
            return Ok(true);
        }
        for (subject, condition) in index.conditioned(node) {
            if self.names(run, *subject, dependency) && self.may_count(run, condition)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether one of the users of a node's tuples is the asker, or one that the asker holds what the leaf asks of.
    fn is_named(
        &mut self,
        run: &Run<'_>,
        subjects: Subjects<'_>,
        dependency: Dependency<'_>,
    ) -> Result<bool, CheckError> {
        let others = match dependency {
            Dependency::OwnTuples if self.asker.subjects().any(|asker| subjects.contains(asker)) => return Ok(true),
            Dependency::OwnTuples => subjects.usersets(),
            Dependency::FromParent(..) | Dependency::Computed(_) => subjects,
        };
        for subject in others.iter() {
            self.step(1)?;
            if self.names(run, subject, dependency) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn names(&self, run: &Run<'_>, subject: Subject, dependency: Dependency<'_>) -> bool {
        let holds = |relation: RelationId, object: ObjectId| {
            self.graph.place(relation).is_some_and(|place| run.spread.holds(place, object))
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
        if self.candidates.is_some_and(|candidates| self.steps > candidates.steps_max) {
            return Err(CheckError::TooMuchWork);
        }
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
