//! One state of the relationships: a model and the tuples that count under it. It never changes, so all questions of a
//! request see the same state.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::evaluator::{CheckError, Evaluation, conditions};
use super::explain::{self, Explanation};
use super::index::{Index, Node};
use super::program::MisfitTuple;
use super::tuple::{Object, Relation, RelationshipTuple, TypeName, User};
use super::validate::ValidModel;

/// Which users a list is about: the objects of a type, or the usersets of a type's relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFilter {
    /// The type.
    pub type_name: TypeName,
    /// The relation, for usersets.
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

/// Most contextual tuples of one request (`OpenFGA`'s limit).
pub const CONTEXTUAL_TUPLES_MAX: usize = 100;

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
    /// Values for the parameters of conditions.
    context: Arc<Map<String, Value>>,
}

impl Snapshot {
    /// A model without tuples.
    #[must_use]
    pub fn new(model_id: &str, model: Arc<ValidModel>) -> Self {
        Self { model_id: model_id.into(), model, index: Arc::new(Index::new()), context: Arc::default() }
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

    /// The same state with more tuples, such as a request's contextual ones. A tuple takes the place of one with the same
    /// names.
    ///
    /// # Errors
    /// The first tuple that does not fit the model, and why.
    pub fn with_tuples(&self, tuples: &[RelationshipTuple]) -> Result<Self, Box<MisfitTuple>> {
        self.model.admits_all(tuples)?;
        let mut with = self.clone();
        with.insert_all(tuples);
        Ok(with)
    }

    /// The state that one request is decided from: with its contextual tuples and its context, which no other request sees.
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
        Ok(self.with_tuples(contextual_tuples)?.with_context(context))
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

    /// The objects of a type that the user holds the relation on, sorted. Asks about every object that a tuple names, so
    /// its cost is that of the type.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn list_objects(
        &self,
        user: &User,
        relation: &Relation,
        type_name: &TypeName,
    ) -> Result<Vec<Object>, CheckError> {
        let mut evaluation = self.evaluation(user)?;
        self.model.program().relation_id(type_name.as_str(), relation.as_str())?;
        let mut objects = Vec::new();
        for object in self.objects_of(type_name) {
            if evaluation.check(relation, object, &mut || true)? {
                objects.push(object.clone());
            }
        }
        objects.sort_unstable();
        Ok(objects)
    }

    /// The users of a kind that hold the relation on the object, sorted: those that tuples name and, where everybody of the
    /// type holds it, the wildcard. Asks about every one of them, so its cost is that of the type.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn list_users(
        &self,
        object: &Object,
        relation: &Relation,
        filter: &UserFilter,
    ) -> Result<Vec<User>, CheckError> {
        self.check_conditions(object, relation, filter)?;
        let everybody = User::Wildcard(filter.type_name.clone());
        let mut users = Vec::new();
        let open_to_all = filter.relation.is_none() && self.check(&everybody, relation, object)?;
        if open_to_all {
            users.push(everybody);
        }
        for named in self.objects_of(&filter.type_name) {
            let user = match &filter.relation {
                Some(relation) => User::Userset(named.clone(), relation.clone()),
                None => User::Object(named.clone()),
            };
            // Where the wildcard is listed, only those are listed beside it who would hold the relation without it.
            let listed = self.check(&user, relation, object)?
                && (!open_to_all
                    || self.evaluation(&user)?.without_wildcards().check(relation, object, &mut || true)?);
            if listed {
                users.push(user);
            }
        }
        users.sort_unstable();
        Ok(users)
    }

    /// Fails where a condition fails that the users of the object depend on.
    fn check_conditions(&self, object: &Object, relation: &Relation, filter: &UserFilter) -> Result<(), CheckError> {
        let program = self.model.program();
        let relation = program.relation_id(object.type_name(), relation.as_str())?;
        let possible = match &filter.relation {
            Some(of) => program
                .relation_id(filter.type_name.as_str(), of.as_str())
                .map(|of| program.userset_reaches(of, relation))?,
            None => program.type_reaches(program.type_id(filter.type_name.as_str())?, relation),
        };
        match self.index.object(object) {
            Some(object) if possible => {
                conditions::check_all(program, &self.index, &self.context, Node { relation, object })
            }
            _ => Ok(()),
        }
    }

    /// The objects of a type that tuples name, in no order.
    pub fn objects_of(&self, type_name: &TypeName) -> impl Iterator<Item = &Object> {
        self.index.objects().filter(|object| object.type_name() == type_name.as_str())
    }

    pub(super) fn insert_all<T: Borrow<RelationshipTuple>>(&mut self, tuples: impl IntoIterator<Item = T>) {
        Arc::make_mut(&mut self.index).insert_all(self.model.program(), tuples);
    }

    pub(super) fn remove(&mut self, tuple: &RelationshipTuple) {
        Arc::make_mut(&mut self.index).remove(self.model.program(), tuple);
    }
}
