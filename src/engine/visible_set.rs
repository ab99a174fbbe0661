//! The visible set: on which objects of a type a user holds a relation, found from the user outwards, so that its cost
//! follows what the user may see and not how much there is.
//!
//! Two sets are found by following tuples from their users to their objects (`spread`). *Possible* leaves out what
//! `but not` takes away, and counts tuples whose condition fails: whatever a check allows is in it. *Certain* goes no
//! deeper than a check does and takes in nothing of which that is not sure: whatever is in it, a check allows. The
//! objects between the two are asked of the evaluator one by one. So the set is exactly what checks allow; where one
//! set is all that is needed, as without `but not`, nothing is asked.
//!
//! Where only some objects are asked about, such as the candidates of a search, the relations that count for nothing else
//! are not followed to every object: the tuples about each candidate are held against what was found of the rest
//! (`among`).
//!
//! One difference remains, and it grants nothing that is not held: a check that gives up after
//! [`STEPS_MAX`](super::evaluator::STEPS_MAX) steps is not repeated for an object that is certain.

mod among;
mod denial;
mod graph;
mod spread;
#[cfg(test)]
mod tests;

use roaring::RoaringBitmap;
use serde_json::{Map, Value};

use self::among::Among;
use self::graph::Graph;
use self::spread::{Extent, Rule, Spread, Spreading};
use super::evaluator::{CheckError, Evaluation};
use super::index::{Index, Node, ObjectId, StoredCondition, Subject};
use crate::language::program::{Program, RelationId, ResolvedUser};
use crate::language::tuple::User;

/// So many steps for each candidate cost about what a check of it does.
const STEPS_PER_CANDIDATE: u64 = 64;

/// What is asked, and of what.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) program: &'a Program,
    pub(super) index: &'a Index,
    /// Values for the parameters of conditions.
    pub(super) context: &'a Map<String, Value>,
    pub(super) user: &'a User,
    pub(super) relation: RelationId,
}

/// Two bounds of a visible set, as numbers of objects. They have nothing in common.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bounds {
    /// What a check allows.
    pub(super) certain: RoaringBitmap,
    /// What a check has to decide. It allows nothing that is in neither.
    pub(super) undecided: RoaringBitmap,
}

/// A visible set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VisibleSet {
    /// The numbers of the objects: [`Snapshot::object_number`](super::snapshot::Snapshot::object_number).
    pub objects: RoaringBitmap,
    /// An object that could not be decided, and why; it is not in the set. There may be more of them.
    pub failure: Option<(u32, CheckError)>,
}

/// What a user holds of the relations that are not outermost: of groups and folders, where documents are asked about.
#[derive(Debug, Default)]
pub(super) struct Inner {
    possible: Spread,
    /// `None` where it is the same.
    certain: Option<Spread>,
}

impl Inner {
    /// How many bytes it takes, about.
    pub(super) fn size(&self) -> usize {
        self.possible.size() + self.certain.as_ref().map_or(0, Spread::size)
    }
}

/// The user who asks, by number.
#[derive(Clone, Copy)]
enum Asker {
    Individual(Subject, Subject),
    Wildcard(Subject),
    Userset(Node),
}

impl<'a> Question<'a> {
    /// The bounds of the set. `go_on` is asked now and then.
    ///
    /// # Errors
    /// When the model does not know the user's type or relation, or `go_on` said to stop.
    pub(super) fn bounds(self, go_on: &mut dyn FnMut() -> bool) -> Result<Bounds, CheckError> {
        let Some((asker, graph)) = self.asker_and_graph()? else { return Ok(Bounds::default()) };
        let named_for_asker = graph.named_for(self.program, &self.program.user(self.user)?);
        let mut spreading = Spreading::new(&self, &graph, (asker, named_for_asker), Extent::All, go_on);
        let possible = spreading.run(Rule::Possible)?;
        if !graph.subtracts && !possible.is_deep() && !possible.has_failed {
            return Ok(Bounds { certain: possible.into_held(Graph::TARGET), undecided: RoaringBitmap::new() });
        }
        let certain = spreading.run(Rule::Certain(&possible))?.into_held(Graph::TARGET);
        let undecided = possible.into_held(Graph::TARGET) - &certain;
        Ok(Bounds { certain, undecided })
    }

    /// What the user holds apart from so many objects that are asked about; `None` where a check of each is cheaper.
    ///
    /// # Errors
    /// As [`Question::bounds`].
    pub(super) fn inner(self, objects: u64, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Inner>, CheckError> {
        if self.index.has_doubles() {
            // Of a request's tuple and a stored one with its names, a check knows which one counts.
            return Ok(None);
        }
        let Some((asker, graph)) = self.asker_and_graph()? else { return Ok(Some(Inner::default())) };
        let named_for_asker = graph.named_for(self.program, &self.program.user(self.user)?);
        let extent = Extent::Inner { steps_max: steps_max(objects) };
        let mut spreading = Spreading::new(&self, &graph, (asker, named_for_asker), extent, go_on);
        let mut inner = || -> Result<Inner, CheckError> {
            let possible = spreading.run(Rule::Possible)?;
            let is_certain = !graph.inner_subtracts && !possible.is_deep() && !possible.has_failed;
            let certain = if is_certain { None } else { Some(spreading.run(Rule::Certain(&possible))?) };
            Ok(Inner { possible, certain })
        };
        match inner() {
            Ok(inner) => Ok(Some(inner)),
            Err(CheckError::TooMuchWork) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` where nothing is held.
    fn asker_and_graph(self) -> Result<Option<(Asker, Graph<'a>)>, CheckError> {
        let resolved = self.program.user(self.user)?;
        let Some(asker) = self.asker(&resolved) else { return Ok(None) };
        let graph = Graph::new(self.program, self.relation, &self.program.reachable_from(&resolved));
        Ok(graph.map(|graph| (asker, graph)))
    }

    /// The whole set.
    ///
    /// # Errors
    /// As [`Question::bounds`].
    pub(super) fn visible_set(self, go_on: &mut dyn FnMut() -> bool) -> Result<VisibleSet, CheckError> {
        self.decided(self.bounds(go_on)?, go_on)
    }

    /// The part of the set that is among some objects, by what the user holds apart from them; `None` where a check of each
    /// is cheaper.
    ///
    /// # Errors
    /// As [`Question::bounds`].
    pub(super) fn visible_among(
        self,
        inner: &Inner,
        objects: &RoaringBitmap,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<VisibleSet>, CheckError> {
        let Some((asker, graph)) = self.asker_and_graph()? else { return Ok(Some(VisibleSet::default())) };
        let among = Among::new(self, &graph, (asker, inner), steps_max(objects.len()), go_on);
        match among.bounds(objects) {
            Ok(bounds) => self.decided(bounds, go_on).map(Some),
            Err(CheckError::TooMuchWork) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the condition of a tuple is met; `None` where that cannot be told.
    fn is_met(self, stored: &StoredCondition) -> Option<bool> {
        let condition = self.program.condition(stored.condition)?;
        condition.is_met(stored.context.as_ref().ok()?, self.context).ok()
    }

    /// Asks what the bounds leave open.
    fn decided(
        self,
        Bounds { certain, undecided }: Bounds,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<VisibleSet, CheckError> {
        let mut visible = VisibleSet { objects: certain, failure: None };
        let mut evaluation = self.evaluation()?;
        for object in undecided {
            match evaluation.check_number(self.relation, ObjectId(object), go_on) {
                Ok(true) => {
                    visible.objects.insert(object);
                }
                Ok(false) => {}
                Err(CheckError::Interrupted) => return Err(CheckError::Interrupted),
                Err(
                    error @ (CheckError::Unknown(_)
                    | CheckError::Condition(_)
                    | CheckError::TooDeep
                    | CheckError::TooMuchWork),
                ) => {
                    visible.failure.get_or_insert((object, error));
                }
            }
        }
        Ok(visible)
    }

    /// At least and at most so many objects are in the set, from a look at the tuples that name the user: an exact number
    /// where nothing else can count, no upper bound where that takes following them.
    ///
    /// # Errors
    /// When the model does not know the user's type or relation.
    pub(super) fn size_hint(self) -> Result<(usize, Option<usize>), CheckError> {
        let resolved = self.program.user(self.user)?;
        let none = (0, Some(0));
        let Some(asker) = self.asker(&resolved) else { return Ok(none) };
        let reachable = self.program.reachable_from(&resolved);
        let Some(graph) = Graph::new(self.program, self.relation, &reachable) else { return Ok(none) };
        let Asker::Individual(..) = asker else { return Ok((0, None)) };
        let is_named = |subject| {
            self.index.nodes(subject).next().is_some() || self.index.conditioned_nodes(subject).next().is_some()
        };
        if !asker.subjects().any(is_named) {
            return Ok(none);
        }
        if !graph.is_direct() || self.index.has_doubles() {
            return Ok((0, None));
        }
        let about_target = |node: &Node| node.relation == self.relation;
        let (mut plain, mut conditioned) = (RoaringBitmap::new(), 0);
        for subject in asker.subjects() {
            plain.extend(self.index.nodes(subject).filter(about_target).map(|node| node.object.0));
            conditioned += self.index.conditioned_nodes(subject).filter(|(node, _)| about_target(node)).count();
        }
        let plain = usize::try_from(plain.len()).unwrap_or(usize::MAX);
        Ok((plain, Some(plain.saturating_add(conditioned))))
    }

    pub(super) fn evaluation(self) -> Result<Evaluation<'a>, CheckError> {
        Evaluation::new(self.program, self.index, self.context, self.user)
    }

    /// `None` when no tuple names the user, nor everybody of the user's type: then nothing is held.
    fn asker(&self, user: &ResolvedUser<'_>) -> Option<Asker> {
        match user {
            ResolvedUser::Object(type_id, object) => {
                let number = self.index.object(object).unwrap_or(ObjectId::UNKNOWN_ASKER);
                Some(Asker::Individual(Subject::Object(*type_id, number), Subject::Wildcard(*type_id)))
            }
            ResolvedUser::Wildcard(type_id) => Some(Asker::Wildcard(Subject::Wildcard(*type_id))),
            ResolvedUser::Userset(relation, object) => {
                Some(Asker::Userset(Node { relation: *relation, object: self.index.object(object)? }))
            }
        }
    }
}

/// So many steps cost about what checks of so many objects do.
fn steps_max(objects: u64) -> u64 {
    STEPS_PER_CANDIDATE.saturating_mul(objects)
}

impl Asker {
    /// The users of tuples that mean this one. INVARIANT (no wildcard for usersets): `user:*` means users, never a userset
    /// that asks.
    fn subjects(self) -> impl Iterator<Item = Subject> {
        let (first, second) = match self {
            Self::Individual(object, wildcard) => (object, Some(wildcard)),
            Self::Wildcard(wildcard) => (wildcard, None),
            Self::Userset(node) => (Subject::Userset(node), None),
        };
        [Some(first), second].into_iter().flatten()
    }
}
