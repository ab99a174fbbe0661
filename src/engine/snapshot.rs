//! One state of the relationships: a model, and the tuples that count under it. A snapshot never changes, so all
//! questions of a request see the same state.

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

/// Selects the users to list: the objects of a type and, if `relation` is set, also the usersets of that type. As in
/// `OpenFGA`, the objects and the type's wildcard are listed in both cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFilter {
    /// The type of the users.
    pub type_name: TypeName,
    /// The relation of the usersets, if they are wanted.
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

/// Says why a request's contextual tuples are refused.
#[derive(Debug, thiserror::Error)]
pub enum ContextualTuplesError {
    /// There are more than [`CONTEXTUAL_TUPLES_MAX`].
    #[error("the request has {0} contextual tuples, at most {CONTEXTUAL_TUPLES_MAX} are allowed")]
    TooMany(usize),
    /// A tuple does not fit the model.
    #[error(transparent)]
    Misfit(#[from] Box<MisfitTuple>),
}

/// A model with its tuples, ready to answer questions. Clones share their content, so they are cheap.
#[derive(Clone, Debug)]
pub struct Snapshot {
    model_id: Arc<str>,
    model: Arc<ValidModel>,
    index: Arc<Index>,
    numbering: Numbering,
    /// Values for the parameters of conditions.
    context: Arc<Map<String, Value>>,
}

/// Tells which objects have the same number in two states. States that grew from one state by writes number objects
/// alike. A state with contextual tuples has numbers of its own for objects that only these tuples name.
#[derive(Clone, Debug)]
pub struct Numbering {
    /// Identifies the state that all of them grew from.
    origin: Arc<()>,
    common: Option<u32>,
}

impl Numbering {
    /// Returns whether both states grew from the same state.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin)
    }

    /// Returns the number below which all numbers mean the same object in every state that grew from the same one;
    /// `None` if that is so for all numbers.
    #[must_use]
    pub fn common(&self) -> Option<u32> {
        self.common
    }
}

/// The objects on which a user holds relations in one state, without the objects that a check is about. They are
/// typically groups and folders. A reach is valid for that state only.
#[derive(Debug)]
pub struct Reach {
    /// Identifies the state. As long as this exists, no other state gets the same allocation.
    index: Weak<Index>,
    context: Arc<Map<String, Value>>,
    user: User,
    relation: RelationId,
    inner: Inner,
}

impl Reach {
    /// Returns roughly how many bytes this takes.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.inner.size()
    }
}

impl Snapshot {
    /// Makes a snapshot of a model without tuples. The snapshot only stores `model_id`, for [`Self::model_id`] to
    /// return.
    #[must_use]
    pub fn new(model_id: &str, model: Arc<ValidModel>) -> Self {
        let numbering = Numbering { origin: Arc::default(), common: None };
        Self { model_id: model_id.into(), model, index: Arc::new(Index::new()), numbering, context: Arc::default() }
    }

    /// Returns the id of the model.
    #[must_use]
    pub fn model_id(&self) -> &str {
        &self.model_id
    }

    /// Returns the model that decides.
    #[must_use]
    pub fn model(&self) -> &ValidModel {
        &self.model
    }

    /// Returns how many tuples count under the model.
    #[must_use]
    pub fn tuple_count(&self) -> usize {
        self.index.len()
    }

    /// Returns this state with more tuples. A new tuple replaces an existing one with the same user, relation and
    /// object.
    ///
    /// # Errors
    /// Returns the first tuple that does not fit the model, and the reason.
    pub fn with_tuples(&self, tuples: &[RelationshipTuple]) -> Result<Self, Box<MisfitTuple>> {
        self.model.stores_all(tuples)?;
        let mut with = self.clone();
        with.numbering.common.get_or_insert(self.object_count());
        with.change(&[], tuples);
        Ok(with)
    }

    /// Returns the state that decides one request: this state with the request's contextual tuples and its context,
    /// which no other request sees. As in `OpenFGA`, a contextual tuple stands beside a stored one with the same names,
    /// and both count. There is one exception: if both name as their user the very object that a check asks about, the
    /// check takes the contextual tuple alone. So a check and a list may differ, as they may in `OpenFGA`.
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

    /// Returns this state with values for the parameters of conditions, such as a request's context.
    #[must_use]
    pub fn with_context(&self, context: Map<String, Value>) -> Self {
        Self { context: Arc::new(context), ..self.clone() }
    }

    /// Prepares many checks of one user. They share what they find out.
    ///
    /// # Errors
    /// When the model does not know the user's type or relation.
    pub fn evaluation<'a>(&'a self, user: &'a User) -> Result<Evaluation<'a>, CheckError> {
        Evaluation::new(self.model.program(), &self.index, &self.context, user)
    }

    /// Returns whether the user holds the relation on the object.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn check(&self, user: &User, relation: &Relation, object: &Object) -> Result<bool, CheckError> {
        self.evaluation(user)?.check(relation, object, &mut || true)
    }

    /// Explains why a check comes out as it does. `go_on` is called now and then; `false` ends the work.
    ///
    /// # Errors
    /// When the model does not know the names, or `go_on` returns `false`. A check that has no answer is explained,
    /// too.
    pub fn explain(
        &self,
        user: &User,
        relation: &Relation,
        object: &Object,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Explanation, CheckError> {
        let state = explain::ExplainedState {
            model: self.model.source(),
            program: self.model.program(),
            index: &self.index,
            context: &self.context,
        };
        explain::explain(&state, self.evaluation(user)?, user, relation, object, go_on)
    }

    /// Lists the objects of a type on which the user holds the relation, sorted.
    ///
    /// # Errors
    /// See [`CheckError`] and [`Self::for_listed`].
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

    /// Calls `take` with each object that [`Self::list_objects`] would list, in no order, until `take` or `go_on`
    /// returns `false`. As in `OpenFGA`, the list fails if a condition fails on a path from the user to the objects. A
    /// condition off these paths cannot make the list fail. Objects that are further away than a check descends are
    /// listed if `OpenFGA` lists them (see `evaluator::candidates`).
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

    /// Returns the numbers of all objects of a type on which the user holds the relation. The cost grows with what the
    /// user holds. An object that cannot be decided is not in the set, and is reported beside it. `go_on` is called now
    /// and then; `false` ends the work.
    ///
    /// # Errors
    /// When the model does not know the type or relation, or `go_on` returns `false`.
    pub fn visible_set(
        &self,
        user: &User,
        relation: &Relation,
        type_name: &TypeName,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<VisibleSet, CheckError> {
        self.question(user, relation, type_name)?.visible_set(go_on)
    }

    /// Returns those of the given objects on which a check would allow the relation. The cost grows with the number of
    /// objects and with what the user holds apart from them, such as groups and folders. Returns `None` if checking
    /// each object is likely to cost less.
    ///
    /// # Errors
    /// Returns the errors of [`Self::visible_set`].
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

    /// Finds the objects that the user holds apart from those that are asked about, for [`Self::visible_by_reach`].
    /// `objects` is the number of objects that are asked about. Returns `None` if checking each object is likely to
    /// cost less.
    ///
    /// # Errors
    /// Returns the errors of [`Self::visible_set`].
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

    /// Like [`Self::visible_among`], for the user and relation of a reach that was found before. Also returns `None` if
    /// the reach belongs to another state.
    ///
    /// # Errors
    /// Returns the errors of [`Self::visible_set`].
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

    /// Returns the numbering of this state's objects.
    #[must_use]
    pub fn numbering(&self) -> &Numbering {
        &self.numbering
    }

    /// Returns how many objects have a number. The numbers start at 0.
    #[must_use]
    pub fn object_count(&self) -> u32 {
        self.index.object_count()
    }

    /// Returns the number of an object, if a tuple names it.
    #[must_use]
    pub fn object_number(&self, object: &Object) -> Option<u32> {
        self.index.object(object).map(|number| number.0)
    }

    /// Like [`Self::object_number`], for many objects at once, which is faster than one at a time.
    #[must_use]
    pub fn object_numbers<'o>(&self, objects: impl Iterator<Item = &'o Object>) -> Vec<Option<u32>> {
        self.index.objects_of(objects).into_iter().map(|found| found.map(|number| number.0)).collect()
    }

    /// Returns the object with this number.
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

    /// Lists, sorted, the users that the filter selects and that hold the relation on the object: users that tuples
    /// name and, if everybody of the type holds it, the wildcard. A check decides about each user, so the cost grows
    /// with the number of users of the type. The list has everybody whom a check allows, unless a loop leaves somebody
    /// out, as in `OpenFGA` (see `evaluator::expansion`).
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

    /// Calls `take` with each user that [`Self::list_users`] would list, in no order, until `take` or `go_on` returns
    /// `false`.
    ///
    /// # Errors
    /// See [`CheckError`]. Users that were handed over before the error are right.
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
        // The object itself is asked as well: it may hold its own relation although no tuple names it.
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
                // The wildcard stands for everybody of the type. Beside it, the list holds only those whom tuples name.
                // The wildcard does not stand for usersets.
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

    /// Returns the loops below the object. Returns `None` if no path leads from the users of the filter to the
    /// relation; then the list is empty, whatever the conditions say. Fails if a condition fails on any path from the
    /// object, or if a path is too long.
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

    /// Returns the names of the conditions on tuples about the object, sorted.
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
            names.extend(conditioned.iter().map(|(_, stored)| stored.condition.name()));
        }
        names.into_iter().collect()
    }

    /// Returns the objects of a type that tuples name, in no order.
    pub fn objects_of(&self, type_name: &TypeName) -> impl Iterator<Item = Object> {
        let is_of = |name: &&str| name.split_once(':').is_some_and(|(of, _)| of == type_name.as_str());
        self.index.objects().filter(is_of).filter_map(named)
    }

    /// Inserts any number of tuples that fit the model.
    pub(crate) fn load<T: Borrow<RelationshipTuple>>(&mut self, tuples: impl IntoIterator<Item = T>) {
        Arc::make_mut(&mut self.index).load(self.model.program(), tuples);
    }

    /// Removes tuples, and inserts those that fit the model.
    pub(crate) fn change<T: Borrow<RelationshipTuple>>(&mut self, removed: &[RelationshipTuple], added: &[T]) {
        Arc::make_mut(&mut self.index).change(self.model.program(), removed, added);
    }

    /// Bounds the memory and the cost of the changes since the last call. Whoever keeps a state calls this after each
    /// change.
    pub(crate) fn compact(&mut self) {
        Arc::make_mut(&mut self.index).compact();
    }
}

/// Parses the name of an object in the index.
fn named(name: &str) -> Option<Object> {
    // The index also knows objects that only occur as users, and those may have longer names.
    Object::parse_any_length(name).ok()
}
