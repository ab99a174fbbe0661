//! Follows tuples from a user outwards, level by level, and collects the objects on which each relation is held.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::denial::{At, FormulaPart, is_surely_denied};
use super::graph::{Formula, Graph, Leaf, Relation};
use super::{Asker, Question};
use crate::engine::evaluator::{CheckError, LEVELS_MAX, STEPS_BETWEEN_INTERRUPTS, STEPS_PER_CONDITION};
use crate::engine::index::{Node, ObjectId, StoredCondition, Subject};
use crate::language::program::RelationId;

/// Says what counts as held.
#[derive(Clone, Copy)]
pub(super) enum Rule<'p> {
    /// Follows everything that may be held: tuples count even if their condition fails, nothing is subtracted, and
    /// levels have no limit.
    Possible,
    /// Follows only what a check certainly allows, given what is possible.
    Certain(&'p Spread),
}

/// The result of one run.
#[derive(Debug, Default)]
pub(super) struct Spread {
    relations: Vec<Sets>,
    /// How many usersets or parents lie between the user and the furthest object.
    pub(super) level: u32,
    /// Whether a condition failed, or a check may ignore a tuple that was followed.
    pub(super) has_failed: bool,
}

#[derive(Debug, Default)]
struct Sets {
    held: RoaringBitmap,
    /// The objects that each leaf of the formula is true for. It is empty if any one leaf is enough.
    leaves: Vec<RoaringBitmap>,
}

/// The state that the runs for one question share.
pub(super) struct Spreading<'a, 'g> {
    question: &'g Question<'a>,
    graph: &'g Graph<'a>,
    asker: Asker,
    /// The relations whose own tuples may name the asker.
    named_for_asker: Vec<usize>,
    extent: Extent,
    go_on: &'g mut dyn FnMut() -> bool,
    steps: u64,
    /// Whether conditions are met, by their address in the index; `None` if one could not be evaluated.
    conditions: HashMap<usize, Option<bool>>,
}

/// Says how far tuples are followed.
#[derive(Clone, Copy)]
pub(super) enum Extent {
    /// Tuples are followed to all objects.
    All,
    /// Tuples are followed to all objects of the relations that are not outermost. The work is given up after this many
    /// steps.
    Inner { steps_max: u64 },
}

/// The state of one run.
struct Run<'p> {
    rule: Rule<'p>,
    spread: Spread,
    /// The objects that are held at this level and were not followed yet.
    held: Vec<(usize, ObjectId)>,
    /// The leaves that tuples make true one level further on.
    next: Vec<(Leaf, ObjectId)>,
}

impl Spread {
    pub(super) fn into_held(self, place: usize) -> RoaringBitmap {
        self.relations.into_iter().nth(place).map(|sets| sets.held).unwrap_or_default()
    }

    pub(super) fn holds(&self, place: usize, object: ObjectId) -> bool {
        self.relations.get(place).is_some_and(|sets| sets.held.contains(object.0))
    }

    /// Returns whether this goes further than a check does.
    pub(super) fn is_deep(&self) -> bool {
        self.level > LEVELS_MAX
    }

    /// Returns roughly how many bytes this takes.
    pub(super) fn size(&self) -> usize {
        let sets = self.relations.iter().flat_map(|sets| std::iter::once(&sets.held).chain(&sets.leaves));
        sets.map(|set| size_of::<RoaringBitmap>() + set.serialized_size()).sum()
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
        named_for_asker: Vec<usize>,
        extent: Extent,
        go_on: &'g mut dyn FnMut() -> bool,
    ) -> Self {
        Self { question, graph, asker, named_for_asker, extent, go_on, steps: 0, conditions: HashMap::new() }
    }

    /// Follows everything that counts under a rule.
    ///
    /// # Errors
    /// When `go_on` returns `false`, or when the work takes too many steps.
    pub(super) fn run(&mut self, rule: Rule<'_>) -> Result<Spread, CheckError> {
        let relations = self.graph.relations.iter().map(|relation| Sets {
            held: RoaringBitmap::new(),
            leaves: if relation.is_union { Vec::new() } else { vec![RoaringBitmap::new(); relation.leaves.len()] },
        });
        let spread = Spread { relations: relations.collect(), level: 0, has_failed: false };
        let mut run = Run { rule, spread, held: Vec::new(), next: Vec::new() };
        let named_for_asker = std::mem::take(&mut self.named_for_asker);
        for subject in self.asker.subjects() {
            self.follow_named(&mut run, subject, &named_for_asker)?;
        }
        self.named_for_asker = named_for_asker;
        if let Asker::Userset(node) = self.asker
            && let Some(place) = self.graph.place(node.relation).filter(|place| self.is_followed(*place))
        {
            // Everybody in the userset holds its relation.
            hold(&mut run, place, node.object);
        }
        self.follow_all(&mut run)?;
        Ok(run.spread)
    }

    /// Follows tuples level by level until nothing is left.
    fn follow_all(&mut self, run: &mut Run<'_>) -> Result<(), CheckError> {
        loop {
            if run.spread.is_deep() && matches!(run.rule, Rule::Certain(_)) {
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
            run.spread.level = run.spread.level.saturating_add(1);
        }
    }

    /// Follows everything that the user holds by holding a relation on an object.
    fn follow(&mut self, run: &mut Run<'_>, place: usize, object: ObjectId) -> Result<(), CheckError> {
        self.step(1)?;
        let graph = self.graph;
        let Some(relation) = graph.relations.get(place) else { return Ok(()) };
        for leaf in &relation.computed {
            if self.is_followed(leaf.relation) {
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

    /// Follows the tuples that name a user to the relations that they are about.
    fn follow_named(&mut self, run: &mut Run<'_>, subject: Subject, named_by: &[usize]) -> Result<(), CheckError> {
        let graph = self.graph;
        for place in named_by.iter().copied() {
            let Some(relation) = graph.relations.get(place).filter(|_| self.is_followed(place)) else { continue };
            let direct = relation.direct.iter().map(|leaf| Leaf { relation: place, leaf: *leaf });
            self.follow_tuples(run, subject, relation.id, &direct.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Follows a relation's tuples that name a user, and notes the leaves that look at them.
    fn follow_tuples(
        &mut self,
        run: &mut Run<'_>,
        subject: Subject,
        relation: RelationId,
        leaves: &[Leaf],
    ) -> Result<(), CheckError> {
        let index = self.question.index;
        // A check of the asker ignores a stored tuple if a tuple of the request has the same names.
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

    /// Returns whether a tuple with a condition counts under the rule.
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

    fn is_followed(&self, place: usize) -> bool {
        match self.extent {
            Extent::All => true,
            Extent::Inner { .. } => self.graph.relations.get(place).is_some_and(|relation| !relation.is_outermost),
        }
    }

    /// Makes a leaf true for an object, and notes the relation as held if its formula is true now.
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
                let at = At::new(place, relation.id, object);
                let part = FormulaPart { formula: taken_away, definition };
                let mut is_possible = |place: usize, formula: &Formula<'_>| {
                    Ok(formula.holds(&|leaf| possible.leaf_holds(place, leaf, object), &|_, _| true))
                };
                is_possible(place, taken_away).is_ok_and(|is_possible| !is_possible)
                    && is_surely_denied(self.question, self.graph, at, part, &mut is_possible).unwrap_or(false)
            }),
        }
    }

    fn is_met(&mut self, stored: &StoredCondition) -> Result<Option<bool>, CheckError> {
        let place = std::ptr::from_ref(stored).addr();
        if let Some(known) = self.conditions.get(&place) {
            return Ok(*known);
        }
        self.step(STEPS_PER_CONDITION)?;
        let met = self.question.is_met(stored);
        self.conditions.insert(place, met);
        Ok(met)
    }

    fn step(&mut self, steps: u64) -> Result<(), CheckError> {
        let before = self.steps / STEPS_BETWEEN_INTERRUPTS;
        self.steps = self.steps.saturating_add(steps);
        if let Extent::Inner { steps_max } = self.extent
            && self.steps > steps_max
        {
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
