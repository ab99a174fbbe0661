//! The visible set: all objects of a type on which a user holds a relation. It is found from the user outwards, so its
//! cost grows with what the user may see and not with how much there is.
//!
//! `spread` follows tuples from their users to their objects, twice:
//!
//! - *Possible* ignores what `but not` subtracts, counts tuples whose condition fails, and has no limit of levels.
//!   It contains everything that a check allows.
//! - *Certain* descends no deeper than a check does, and leaves out whatever is not sure. A check allows everything in
//!   it.
//!
//! The evaluator then checks the objects that are only possible, one by one. So the set is exactly what checks allow.
//! Without `but not`, deep nesting and failing conditions, the first set is already the answer and nothing is checked.
//!
//! If only some objects are asked about, such as the candidates of a search, the outermost relations are not followed
//! to every object. Instead `among` compares the tuples about each candidate with what was found for the other
//! relations.
//!
//! One difference from checks remains, and it grants nothing that is not held: an object that is certain is not checked
//! again, even if a check of it would give up after [`STEPS_MAX`](super::evaluator::STEPS_MAX) steps.

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

/// About the number of steps that a check of one candidate takes. If finding what a user holds takes more steps than
/// this for each candidate, the candidates are checked one by one.
const STEPS_PER_CANDIDATE: u64 = 64;

/// A question about a visible set, and the state that it is asked of.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) program: &'a Program,
    pub(super) index: &'a Index,
    /// Values for the parameters of conditions.
    pub(super) context: &'a Map<String, Value>,
    pub(super) user: &'a User,
    pub(super) relation: RelationId,
}

/// The bounds of a visible set: the objects in its lower bound, and those between the two bounds, both as numbers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bounds {
    /// The objects that a check allows.
    pub(super) certain: RoaringBitmap,
    /// The objects that a check has to decide. It denies all objects that are in neither part.
    pub(super) undecided: RoaringBitmap,
}

/// The objects on which a user holds a relation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VisibleSet {
    /// The numbers of the objects, as [`Snapshot::object_number`](super::snapshot::Snapshot::object_number) gives them.
    pub objects: RoaringBitmap,
    /// An object that could not be decided, with the reason. It is not in the set. There may be more such objects.
    pub failure: Option<(u32, CheckError)>,
}

/// The objects that a user holds relations on, for all relations that are not outermost. If documents are asked about,
/// these are typically groups and folders.
#[derive(Debug, Default)]
pub(super) struct Inner {
    possible: Spread,
    /// `None` if everything that is possible is also certain.
    certain: Option<Spread>,
}

impl Inner {
    /// Returns roughly how many bytes this takes.
    pub(super) fn size(&self) -> usize {
        self.possible.size() + self.certain.as_ref().map_or(0, Spread::size)
    }
}

/// The user who asks, in numbers.
#[derive(Clone, Copy)]
enum Asker {
    Individual(Subject, Subject),
    Wildcard(Subject),
    Userset(Node),
}

impl<'a> Question<'a> {
    /// Returns the bounds of the set. `go_on` is called now and then; `false` ends the work.
    ///
    /// # Errors
    /// When the model does not know the user's type or relation, or `go_on` returns `false`.
    pub(super) fn bounds(self, go_on: &mut dyn FnMut() -> bool) -> Result<Bounds, CheckError> {
        let Some((asker, graph)) = self.asker_and_graph()? else { return Ok(Bounds::default()) };
        let named_for_asker = graph.named_for(self.program, &self.program.user(self.user)?);
        let mut spreading = Spreading::new(&self, &graph, asker, named_for_asker, Extent::All, go_on);
        let possible = spreading.run(Rule::Possible)?;
        if !graph.subtracts && !possible.is_deep() && !possible.has_failed {
            return Ok(Bounds { certain: possible.into_held(Graph::TARGET), undecided: RoaringBitmap::new() });
        }
        let certain = spreading.run(Rule::Certain(&possible))?.into_held(Graph::TARGET);
        let undecided = possible.into_held(Graph::TARGET) - &certain;
        Ok(Bounds { certain, undecided })
    }

    /// Finds the objects that the user holds apart from those that are asked about. `objects` is the number of objects
    /// that are asked about. Returns `None` if checking each of them is cheaper.
    ///
    /// # Errors
    /// Returns the errors of [`Question::bounds`].
    pub(super) fn inner(self, objects: u64, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Inner>, CheckError> {
        if self.index.has_doubles() {
            // If a request's tuple has the names of a stored one, only a check knows which of the two counts.
            return Ok(None);
        }
        let Some((asker, graph)) = self.asker_and_graph()? else { return Ok(Some(Inner::default())) };
        let named_for_asker = graph.named_for(self.program, &self.program.user(self.user)?);
        let extent = Extent::Inner { steps_max: steps_max(objects) };
        let mut spreading = Spreading::new(&self, &graph, asker, named_for_asker, extent, go_on);
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

    /// Returns the asker and the graph of the question, or `None` if the user can hold nothing.
    fn asker_and_graph(self) -> Result<Option<(Asker, Graph<'a>)>, CheckError> {
        let resolved = self.program.user(self.user)?;
        let Some(asker) = self.asker(&resolved) else { return Ok(None) };
        let graph = Graph::new(self.program, self.relation, &self.program.reachable_from(&resolved));
        Ok(graph.map(|graph| (asker, graph)))
    }

    /// Returns the whole set.
    ///
    /// # Errors
    /// Returns the errors of [`Question::bounds`].
    pub(super) fn visible_set(self, go_on: &mut dyn FnMut() -> bool) -> Result<VisibleSet, CheckError> {
        self.decided(self.bounds(go_on)?, go_on)
    }

    /// Returns those of the given objects that are in the set, given the other objects that the user holds. Returns
    /// `None` if checking each object is cheaper.
    ///
    /// # Errors
    /// Returns the errors of [`Question::bounds`].
    pub(super) fn visible_among(
        self,
        inner: &Inner,
        objects: &RoaringBitmap,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<VisibleSet>, CheckError> {
        let Some((asker, graph)) = self.asker_and_graph()? else { return Ok(Some(VisibleSet::default())) };
        let among = Among::new(self, &graph, asker, inner, steps_max(objects.len()), go_on);
        match among.bounds(objects) {
            Ok(bounds) => self.decided(bounds, go_on).map(Some),
            Err(CheckError::TooMuchWork) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the condition of a tuple is met, or `None` if it cannot be evaluated.
    fn is_met(self, stored: &StoredCondition) -> Option<bool> {
        stored.is_met(self.context).ok()
    }

    /// Checks the objects that the bounds leave undecided.
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

    pub(super) fn evaluation(self) -> Result<Evaluation<'a>, CheckError> {
        Evaluation::new(self.program, self.index, self.context, self.user)
    }

    /// Returns the user as an asker, or `None` if no tuple can name this user, so that it holds nothing.
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

/// Returns about as many steps as checking so many objects takes.
fn steps_max(objects: u64) -> u64 {
    STEPS_PER_CANDIDATE.saturating_mul(objects)
}

impl Asker {
    /// Returns the users of tuples that mean this asker.
    ///
    /// INVARIANT (no wildcard for usersets): `user:*` means users, never a userset that asks.
    fn subjects(self) -> impl Iterator<Item = Subject> {
        let (first, second) = match self {
            Self::Individual(object, wildcard) => (object, Some(wildcard)),
            Self::Wildcard(wildcard) => (wildcard, None),
            Self::Userset(node) => (Subject::Userset(node), None),
        };
        [Some(first), second].into_iter().flatten()
    }
}
