//! One state of the relationships: a model and the tuples that count under it. It never changes, so all questions of a
//! request see the same state.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Weak};

use roaring::RoaringBitmap;
use serde_json::{Map, Value};

use super::evaluator::expansion::{Expansion, Loops};
use super::evaluator::{CheckError, Evaluation, LEVELS_UNBOUNDED, candidates};
use super::explain::{self, Explanation};
use super::index::{Index, Node, ObjectId};
use super::visible_set::{Inner, Question, VisibleSet};
use crate::language::model::TypeDefinition;
use crate::language::program::{MisfitTuple, RelationId};
use crate::language::tuple::{Object, Relation, RelationshipTuple, TypeName, User};
use crate::language::validate::ValidModel;

/// Which users a list is about: the objects of a type and, with a relation, its usersets beside them, as in `OpenFGA`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFilter {
    /// The type.
    pub type_name: TypeName,
    /// The relation of the usersets.
    pub relation: Option<Relation>,
}

impl fmt::Display for UserFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.relation {
            Some(relation) => write!(f, "{}#{relation}", self.type_name),
            None => write!(f, "{}", self.type_name),
        }
    }
}

pub use crate::language::limits::CONTEXTUAL_TUPLES_MAX;

/// Why a request's contextual tuples were refused.
#[derive(Debug, thiserror::Error)]
pub enum ContextualTuplesError {
    /// There are too many.
    #[error("the request has {0} contextual tuples, at most {CONTEXTUAL_TUPLES_MAX} are allowed")]
    TooMany(usize),
    /// One does not fit the model.
    #[error(transparent)]
    Misfit(#[from] Box<MisfitTuple>),
}

/// See the module. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Snapshot {
    model_id: Arc<str>,
    model: Arc<ValidModel>,
    index: Arc<Index>,
    numbering: Numbering,
    /// Values for the parameters of conditions.
    context: Arc<Map<String, Value>>,
}

/// How far two states number objects alike. All that come from one by writes do; one with contextual tuples has numbers of
/// its own for what only they name.
#[derive(Clone, Debug)]
pub struct Numbering {
    /// Of the state that all came from.
    origin: Arc<()>,
    common: Option<u32>,
}

impl Numbering {
    /// Whether two states came from one.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin)
    }

    /// The numbers below this mean the same in every state that came from one and has them; all of them when `None`.
    #[must_use]
    pub fn common(&self) -> Option<u32> {
        self.common
    }
}

/// What a user holds in one state, apart from the objects that a relation is asked of: of groups and folders. It holds for
/// that state alone.
#[derive(Debug)]
pub struct Reach {
    /// Whose allocation no other state gets meanwhile.
    index: Weak<Index>,
    context: Arc<Map<String, Value>>,
    user: User,
    relation: RelationId,
    inner: Inner,
}

impl Reach {
    /// How many bytes it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.inner.size()
    }
}

impl Snapshot {
    /// A model without tuples.
    #[must_use]
    pub fn new(model_id: &str, model: Arc<ValidModel>) -> Self {
        let numbering = Numbering { origin: Arc::default(), common: None };
        Self { model_id: model_id.into(), model, index: Arc::new(Index::new()), numbering, context: Arc::default() }
    }

    /// The id of the model.
    #[must_use]
    pub fn model_id(&self) -> &str {
        &self.model_id
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ValidModel {
        &self.model
    }

    /// How many tuples count under the model.
    #[must_use]
    pub fn tuple_count(&self) -> usize {
        self.index.len()
    }

    /// The same state with more tuples. A tuple takes the place of one with the same names.
    ///
    /// # Errors
    /// The first tuple that does not fit the model, and why.
    pub fn with_tuples(&self, tuples: &[RelationshipTuple]) -> Result<Self, Box<MisfitTuple>> {
        self.model.stores_all(tuples)?;
        let mut with = self.clone();
        with.numbering.common.get_or_insert(self.object_count());
        with.change(&[], tuples);
        Ok(with)
    }

    /// The state that one request is decided from: with its contextual tuples and its context, which no other request sees.
    /// A contextual tuple stands beside a stored one with the same names, as in `OpenFGA`: both count, but for a check of
    /// the very object that they name as the user, which asks the contextual one alone.
    ///
    /// # Errors
    /// See [`ContextualTuplesError`].
    pub fn for_request(
        &self,
        contextual_tuples: &[RelationshipTuple],
        context: Map<String, Value>,
    ) -> Result<Self, ContextualTuplesError> {
        if contextual_tuples.len() > CONTEXTUAL_TUPLES_MAX {
            return Err(ContextualTuplesError::TooMany(contextual_tuples.len()));
        }
        if contextual_tuples.is_empty() {
            return Ok(self.with_context(context));
        }
        self.model.admits_all(contextual_tuples)?;
        let mut with = self.with_context(context);
        with.numbering.common.get_or_insert(self.object_count());
        Arc::make_mut(&mut with.index).put_beside(self.model.program(), contextual_tuples);
        Ok(with)
    }

    /// The same state with values for the parameters of conditions, such as a request's context.
    #[must_use]
    pub fn with_context(&self, context: Map<String, Value>) -> Self {
        Self { context: Arc::new(context), ..self.clone() }
    }

    /// A place to check many relations and objects for one user.
    ///
    /// # Errors
    /// When the model does not know the user's type or relation.
    pub fn evaluation<'a>(&'a self, user: &'a User) -> Result<Evaluation<'a>, CheckError> {
        Evaluation::new(self.model.program(), &self.index, &self.context, user)
    }

    /// One check.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn check(&self, user: &User, relation: &Relation, object: &Object) -> Result<bool, CheckError> {
        self.evaluation(user)?.check(relation, object, &mut || true)
    }

    /// Why a check comes out as it does. `go_on` is asked now and then.
    ///
    /// # Errors
    /// When the model does not know the names, or the caller said to stop. What cannot be decided is explained, too.
    pub fn explain(
        &self,
        user: &User,
        relation: &Relation,
        object: &Object,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Explanation, CheckError> {
        let state = explain::State {
            model: self.model.source(),
            program: self.model.program(),
            index: &self.index,
            context: &self.context,
        };
        explain::explain(&state, self.evaluation(user)?, (user, relation, object), go_on)
    }

    /// The objects of a type that the user holds the relation on, sorted.
    ///
    /// # Errors
    /// As [`Self::for_listed`].
    pub fn list_objects(
        &self,
        user: &User,
        relation: &Relation,
        type_name: &TypeName,
    ) -> Result<Vec<Object>, CheckError> {
        let mut objects = Vec::new();
        self.for_listed(user, relation, type_name, &mut || true, &mut |object| {
            objects.push(object.clone());
            true
        })?;
        objects.sort_unstable();
        Ok(objects)
    }

    /// Hands over the same objects, in no order, until `take` or `go_on` says to stop. As in `OpenFGA`, it fails where a
    /// condition fails on the way from the user to the objects; a condition that the way does not come to fails nothing.
    /// What is further away than a check goes is listed, too, where that is so in `OpenFGA` (see `evaluator::candidates`).
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn for_listed(
        &self,
        user: &User,
        relation: &Relation,
        type_name: &TypeName,
        go_on: &mut dyn FnMut() -> bool,
        take: &mut dyn FnMut(&Object) -> bool,
    ) -> Result<(), CheckError> {
        let program = self.model.program();
        let target = program.relation_id(type_name.as_str(), relation.as_str())?;
        let user_of_list = program.user(user)?;
        let list = candidates::List { program, index: &self.index, context: &self.context, user: user_of_list, target };
        let own = match user {
            User::Object(object) | User::Userset(object, _) => Some(object),
            User::Wildcard(_) => None,
        };
        list.for_objects(self.evaluation(user)?, go_on, &mut |number| {
            let object = if number == ObjectId::UNKNOWN_ASKER { own.cloned() } else { self.object(number.0) };
            object.is_none_or(|object| take(&object))
        })
    }

    /// The objects of a type that the user holds the relation on, by number. Its cost follows what the user holds. What
    /// cannot be decided is not in the set, and is told beside it. `go_on` is asked now and then.
    ///
    /// # Errors
    /// When the model does not know the type or relation, or `go_on` said to stop.
    pub fn visible_set(
        &self,
        user: &User,
        relation: &Relation,
        type_name: &TypeName,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<VisibleSet, CheckError> {
        self.question(user, relation, type_name)?.visible_set(go_on)
    }

    /// The part of the visible set that is among some objects: what a check of each allows. Its cost follows how many they
    /// are and what the user holds apart from them (groups, folders); `None` where a check of each is likely to cost less.
    ///
    /// # Errors
    /// As [`Self::visible_set`].
    pub fn visible_among(
        &self,
        user: &User,
        relation: &Relation,
        type_name: &TypeName,
        objects: &RoaringBitmap,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<VisibleSet>, CheckError> {
        match self.reach(user, relation, type_name, objects.len(), go_on)? {
            Some(reach) => self.visible_by_reach(&reach, objects, go_on),
            None => Ok(None),
        }
    }

    /// What the user holds apart from so many objects that are asked about, for [`Self::visible_by_reach`]; `None` where a
    /// check of each is likely to cost less.
    ///
    /// # Errors
    /// As [`Self::visible_set`].
    pub fn reach(
        &self,
        user: &User,
        relation: &Relation,
        type_name: &TypeName,
        objects: u64,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Reach>, CheckError> {
        let question = self.question(user, relation, type_name)?;
        let (index, context) = (Arc::downgrade(&self.index), Arc::clone(&self.context));
        let (user, relation) = (user.clone(), question.relation);
        let inner = question.inner(objects, go_on)?;
        Ok(inner.map(|inner| Reach { index, context, user, relation, inner }))
    }

    /// As [`Self::visible_among`], about the user and relation of a reach that was found before. `None` also where that was
    /// found in another state.
    ///
    /// # Errors
    /// As [`Self::visible_set`].
    pub fn visible_by_reach(
        &self,
        reach: &Reach,
        objects: &RoaringBitmap,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<VisibleSet>, CheckError> {
        let Reach { index, context, user, relation, inner } = reach;
        let is_of_this = std::ptr::eq(index.as_ptr(), Arc::as_ptr(&self.index)) && Arc::ptr_eq(context, &self.context);
        if !is_of_this {
            return Ok(None);
        }
        let question = self.question_by_number(user, *relation);
        question.visible_among(inner, objects, go_on)
    }

    /// At least and at most so many objects are in the visible set, without following tuples: exact where only direct ones
    /// count; no upper bound where only following them would tell.
    ///
    /// # Errors
    /// When the model does not know the type or relation.
    pub fn visible_size_hint(
        &self,
        user: &User,
        relation: &Relation,
        type_name: &TypeName,
    ) -> Result<(usize, Option<usize>), CheckError> {
        self.question(user, relation, type_name)?.size_hint()
    }

    /// How the objects are numbered.
    #[must_use]
    pub fn numbering(&self) -> &Numbering {
        &self.numbering
    }

    /// So many objects have a number, from 0 on.
    #[must_use]
    pub fn object_count(&self) -> u32 {
        self.index.object_count()
    }

    /// The number of an object that tuples name.
    #[must_use]
    pub fn object_number(&self, object: &Object) -> Option<u32> {
        self.index.object(object).map(|number| number.0)
    }

    /// The same for many objects, in less time than one by one.
    #[must_use]
    pub fn object_numbers<'o>(&self, objects: impl Iterator<Item = &'o Object>) -> Vec<Option<u32>> {
        self.index.objects_of(objects).into_iter().map(|found| found.map(|number| number.0)).collect()
    }

    /// The object of a number.
    #[must_use]
    pub fn object(&self, number: u32) -> Option<Object> {
        self.index.name(ObjectId(number)).and_then(named)
    }

    pub(super) fn question<'a>(
        &'a self,
        user: &'a User,
        relation: &Relation,
        type_name: &TypeName,
    ) -> Result<Question<'a>, CheckError> {
        let relation = self.model.program().relation_id(type_name.as_str(), relation.as_str())?;
        Ok(self.question_by_number(user, relation))
    }

    fn question_by_number<'a>(&'a self, user: &'a User, relation: RelationId) -> Question<'a> {
        Question { program: self.model.program(), index: &self.index, context: &self.context, user, relation }
    }

    /// The users of a kind that hold the relation on the object, sorted: those that tuples name and, where everybody of the
    /// type holds it, the wildcard. Whether one is in the list, a check says; only the `Loops` of `OpenFGA`'s lists leave
    /// out whom a check allows. Asks about every one of them, so its cost is that of the type.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn list_users(
        &self,
        object: &Object,
        relation: &Relation,
        filter: &UserFilter,
    ) -> Result<Vec<User>, CheckError> {
        let mut users = Vec::new();
        self.for_users(object, relation, filter, &mut || true, &mut |user| {
            users.push(user);
            true
        })?;
        users.sort_unstable();
        Ok(users)
    }

    /// Hands over the same users as they are found, in no order, until `take` or `go_on` says to stop.
    ///
    /// # Errors
    /// See [`CheckError`]; what was handed over before it holds all the same.
    pub fn for_users(
        &self,
        object: &Object,
        relation: &Relation,
        filter: &UserFilter,
        go_on: &mut dyn FnMut() -> bool,
        take: &mut dyn FnMut(User) -> bool,
    ) -> Result<(), CheckError> {
        let Some(loops) = self.can_list_users(object, relation, filter, go_on)? else { return Ok(()) };
        let everybody = User::Wildcard(filter.type_name.clone());
        let mut evaluation = self.evaluation(&everybody)?.for_users(&loops);
        let question = evaluation.question(relation, object)?;
        let open_to_all = evaluation.check_node(question, LEVELS_UNBOUNDED, go_on)?;
        if open_to_all && !take(everybody) {
            return Ok(());
        }
        // The object itself is asked, too: it may hold its own relation where no tuple names it.
        let itself = (object.type_name() == filter.type_name.as_str()).then(|| object.clone());
        let others = self.objects_of(&filter.type_name).filter(|named| named != object);
        for named in itself.into_iter().chain(others) {
            let userset = filter.relation.clone().map(|relation| User::Userset(named.clone(), relation));
            for user in std::iter::once(User::Object(named)).chain(userset) {
                if !go_on() {
                    return Err(CheckError::Interrupted);
                }
                let mut evaluation = self.evaluation(&user)?.for_users(&loops);
                let question = evaluation.question(relation, object)?;
                // Beside the wildcard only those are listed whom tuples name. It means no userset.
                let is_covered = open_to_all && matches!(user, User::Object(_));
                let listed = evaluation.check_node(question, LEVELS_UNBOUNDED, go_on)?
                    && (!is_covered || evaluation.is_named_below(question, go_on)?);
                if listed && !take(user) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The loops below the object, if such users can be on it at all. Fails where a condition fails on the way from the
    /// object to them, and where a way is too long.
    fn can_list_users(
        &self,
        object: &Object,
        relation: &Relation,
        filter: &UserFilter,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Loops>, CheckError> {
        let program = self.model.program();
        let target = program.relation_id(object.type_name(), relation.as_str())?;
        let type_id = program.type_id(filter.type_name.as_str())?;
        let userset = filter.relation.as_ref().map(|of| program.relation_id(filter.type_name.as_str(), of.as_str()));
        if !candidates::leads_to(program, type_id, userset.transpose()?, target) {
            return Ok(None);
        }
        let object = self.index.object(object).unwrap_or(ObjectId::UNKNOWN);
        let expansion = Expansion::new(program, &self.index, &self.context, go_on);
        expansion.look_through(Node { relation: target, object }).map(Some)
    }

    /// The names of the conditions on tuples that name the object, sorted.
    #[must_use]
    pub fn conditions_on(&self, object: &Object) -> Vec<&str> {
        let program = self.model.program();
        let Some(number) = self.index.object(object) else { return Vec::new() };
        let of_type = |definition: &&TypeDefinition| definition.name.as_str() == object.type_name();
        let Some(definition) = self.model.source().types.iter().find(of_type) else { return Vec::new() };
        let mut names = BTreeSet::new();
        for relation in &definition.relations {
            let Ok(relation) = program.relation_id(object.type_name(), &relation.name) else { continue };
            let conditioned = self.index.conditioned(Node { relation, object: number });
            names.extend(conditioned.iter().filter_map(|(_, stored)| program.condition_name(stored.condition)));
        }
        names.into_iter().collect()
    }

    /// The objects of a type that tuples name, in no order.
    pub fn objects_of(&self, type_name: &TypeName) -> impl Iterator<Item = Object> {
        let is_of = |name: &&str| name.split_once(':').is_some_and(|(of, _)| of == type_name.as_str());
        self.index.objects().filter(is_of).filter_map(named)
    }

    /// Puts in any number of tuples that fit the model.
    pub(crate) fn load<T: Borrow<RelationshipTuple>>(&mut self, tuples: impl IntoIterator<Item = T>) {
        Arc::make_mut(&mut self.index).load(self.model.program(), tuples);
    }

    /// Takes tuples out and puts those in that fit the model.
    pub(crate) fn change<T: Borrow<RelationshipTuple>>(&mut self, removed: &[RelationshipTuple], added: &[T]) {
        Arc::make_mut(&mut self.index).change(self.model.program(), removed, added);
    }

    /// Bounds what the changes since the last time take and cost; for states that are kept.
    pub(crate) fn compact(&mut self) {
        Arc::make_mut(&mut self.index).compact();
    }
}

/// An object by its name in the index.
fn named(name: &str) -> Option<Object> {
    // Some are known as users only, and those may have longer names.
    Object::parse_any_length(name).ok()
}
