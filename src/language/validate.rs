//! Refuses the models that `OpenFGA` refuses, so that the evaluator never meets an ill-formed one. Only this module
//! makes a [`ValidModel`].

mod entrypoints;
mod limits;
mod references;
#[cfg(test)]
mod tests;
mod wire_size;

use super::condition::CompileError;
use super::limits::TUPLE_CONDITION_CHARS_MIN;
use super::model::{AuthorizationModel, RelationDefinition, Rewrite};
use super::program::{MisfitTuple, Program, TupleMisfit};
use super::tuple::{Relation, RelationshipTuple, User};

pub use wire_size::MODEL_ID_BYTES;
#[cfg(test)]
pub(crate) use wire_size::of_model as model_wire_bytes;

/// The deepest nesting of `or`, `and` and `but not` in one relation. It bounds recursive walks over a rewrite. It also
/// keeps a stored model readable: each level takes three levels of JSON, and the JSON reader stops at 128.
pub const NESTING_MAX: usize = 40;

/// The position of a relation in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationPlace {
    /// The type's position in [`AuthorizationModel::types`].
    pub type_index: usize,
    /// The relation's position among the relations of its type.
    pub relation_index: usize,
}

/// The part of a model that a mistake is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelPart {
    /// The model as a whole.
    Model,
    /// The version of the schema.
    Schema,
    /// The name of the type at this position.
    Type(usize),
    /// The name of a relation.
    Relation(RelationPlace),
    /// An entry of a relation's `[…]`.
    Restriction {
        /// The relation that has the entry.
        relation: RelationPlace,
        /// The entry's position in `[…]`.
        index: usize,
    },
    /// The condition of an entry of a relation's `[…]`.
    RestrictionCondition {
        /// The relation that has the entry.
        relation: RelationPlace,
        /// The entry's position in `[…]`.
        index: usize,
    },
    /// A leaf of a relation's rewrite ([`Rewrite::leaves`]).
    Operand {
        /// The relation that has the leaf.
        relation: RelationPlace,
        /// The leaf's position among the leaves.
        index: usize,
    },
    /// The relation after `from` in a leaf.
    Tupleset {
        /// The relation that has the leaf.
        relation: RelationPlace,
        /// The leaf's position among the leaves.
        index: usize,
    },
    /// The name of the condition at this position, in the order of the names.
    Condition(usize),
}

impl ModelPart {
    /// Returns the relation that this is a part of.
    #[must_use]
    pub fn relation(self) -> Option<RelationPlace> {
        match self {
            Self::Model | Self::Schema | Self::Type(_) | Self::Condition(_) => None,
            Self::Relation(relation)
            | Self::Restriction { relation, .. }
            | Self::RestrictionCondition { relation, .. }
            | Self::Operand { relation, .. }
            | Self::Tupleset { relation, .. } => Some(relation),
        }
    }

    /// Returns the same part of another relation.
    #[must_use]
    pub fn of(self, relation: RelationPlace) -> Self {
        match self {
            other @ (Self::Model | Self::Schema | Self::Type(_) | Self::Condition(_)) => other,
            Self::Relation(_) => Self::Relation(relation),
            Self::Restriction { index, .. } => Self::Restriction { relation, index },
            Self::RestrictionCondition { index, .. } => Self::RestrictionCondition { relation, index },
            Self::Operand { index, .. } => Self::Operand { relation, index },
            Self::Tupleset { index, .. } => Self::Tupleset { relation, index },
        }
    }

    /// Returns the part that encloses this one.
    #[must_use]
    pub fn around(self) -> Option<Self> {
        match self {
            Self::Model => None,
            Self::Schema | Self::Type(_) | Self::Condition(_) => Some(Self::Model),
            Self::Relation(relation) => Some(Self::Type(relation.type_index)),
            Self::Restriction { relation, .. } | Self::Operand { relation, .. } => Some(Self::Relation(relation)),
            Self::RestrictionCondition { relation, index } => Some(Self::Restriction { relation, index }),
            Self::Tupleset { relation, index } => Some(Self::Operand { relation, index }),
        }
    }
}

/// A mistake in a model, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// The part of the model that the mistake is in.
    pub place: ModelPart,
    /// A sentence that says what is wrong.
    pub message: String,
    /// Whether this is a slip: `OpenFGA`'s modeling language refuses such a model, but a server takes it.
    pub slip: bool,
}

impl ModelError {
    fn new(place: ModelPart, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), slip: false }
    }
}

/// A model that can be evaluated. INVARIANT (valid model): every name in it is defined, every relation can be held by
/// somebody, no relation is defined by itself alone, and relations after `from` hold plain objects only.
#[derive(Debug)]
pub struct ValidModel {
    source: AuthorizationModel,
    program: Program,
}

impl ValidModel {
    /// Validates and compiles a model.
    ///
    /// # Errors
    /// All mistakes that were found. References are checked only once all names are right.
    pub fn new(model: AuthorizationModel) -> Result<Self, Vec<ModelError>> {
        Self::within_limits(model, |_any| true)
    }

    /// Validates and compiles a model as an `OpenFGA` server does, which lets slips pass.
    ///
    /// # Errors
    /// All mistakes that were found.
    pub fn with_slips(model: AuthorizationModel) -> Result<Self, Vec<ModelError>> {
        Self::within_limits(model, |error| !error.slip)
    }

    /// Validates and compiles a model that is stored already, here or by a server. Such a model is in use, so the
    /// limits on the size of a new model do not apply.
    ///
    /// # Errors
    /// All mistakes that were found.
    pub fn stored(model: AuthorizationModel) -> Result<Self, Vec<ModelError>> {
        Self::checked(model, Vec::new(), |error| !error.slip)
    }

    fn within_limits(model: AuthorizationModel, counts: impl Fn(&ModelError) -> bool) -> Result<Self, Vec<ModelError>> {
        let errors = limits::check(&model);
        Self::checked(model, errors, counts)
    }

    fn checked(
        model: AuthorizationModel,
        mut errors: Vec<ModelError>,
        counts: impl Fn(&ModelError) -> bool,
    ) -> Result<Self, Vec<ModelError>> {
        errors.extend(references::check(&model));
        errors.retain(counts);
        if errors.is_empty() {
            // The next checks follow names, so they run only once all names are right.
            errors = entrypoints::check(&model);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        match Program::compile(&model) {
            Ok(program) => Ok(Self { source: model, program }),
            Err(errors) => Err(errors.into_iter().map(|error| uncompiled(&model, &error)).collect()),
        }
    }

    /// Returns the model as it was written.
    #[must_use]
    pub fn source(&self) -> &AuthorizationModel {
        &self.source
    }

    /// Checks whether a tuple counts under the model, be it stored or sent with a request.
    ///
    /// # Errors
    /// The reason why it does not count.
    pub fn admits(&self, tuple: &RelationshipTuple) -> Result<(), TupleMisfit> {
        let admitted = self.program.admit(tuple)?;
        if let Some((id, condition)) = admitted.condition
            && let Some(compiled) = self.program.condition(id)
        {
            compiled.tuple_context(&condition.context())?;
        }
        Ok(())
    }

    /// Checks whether the model has the types and the relation that a question names.
    ///
    /// # Errors
    /// The first name that the model lacks.
    pub fn knows(&self, user: &User, relation: &Relation, object_type: &str) -> Result<(), TupleMisfit> {
        self.program.user(user)?;
        self.program.relation_id(object_type, relation.as_str()).map(|_| ())
    }

    /// Checks whether all tuples count under the model.
    ///
    /// # Errors
    /// The first tuple that does not count, and the reason.
    pub fn admits_all(&self, tuples: &[RelationshipTuple]) -> Result<(), Box<MisfitTuple>> {
        all(tuples, |tuple| self.admits(tuple))
    }

    /// Checks whether a tuple may be stored: it must count under the model and keep the limits on stored tuples.
    ///
    /// # Errors
    /// The reason why it may not be stored.
    pub fn stores(&self, tuple: &RelationshipTuple) -> Result<(), TupleMisfit> {
        self.admits(tuple)?;
        let Some(condition) = &tuple.condition else { return Ok(()) };
        if condition.name().chars().count() < TUPLE_CONDITION_CHARS_MIN {
            return Err(TupleMisfit::ShortCondition(condition.name().to_owned()));
        }
        condition.excess_bytes().map_or(Ok(()), |bytes| Err(TupleMisfit::LongContext(bytes)))
    }

    /// Checks whether all tuples may be stored.
    ///
    /// # Errors
    /// The first tuple that may not be stored, and the reason.
    pub fn stores_all(&self, tuples: &[RelationshipTuple]) -> Result<(), Box<MisfitTuple>> {
        all(tuples, |tuple| self.stores(tuple))
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}

fn all(
    tuples: &[RelationshipTuple],
    fits: impl Fn(&RelationshipTuple) -> Result<(), TupleMisfit>,
) -> Result<(), Box<MisfitTuple>> {
    for tuple in tuples {
        fits(tuple).map_err(|misfit| Box::new(MisfitTuple { tuple: tuple.clone(), misfit }))?;
    }
    Ok(())
}

fn uncompiled(model: &AuthorizationModel, error: &CompileError) -> ModelError {
    let index = model.conditions.keys().position(|name| *name == error.condition);
    ModelError::new(index.map_or(ModelPart::Model, ModelPart::Condition), error.to_string())
}

/// Iterates over the relations of all types, each with its position.
fn relations(model: &AuthorizationModel) -> impl Iterator<Item = (RelationPlace, &str, &RelationDefinition)> {
    model.types.iter().enumerate().flat_map(|(type_index, type_definition)| {
        type_definition.relations.iter().enumerate().map(move |(relation_index, relation)| {
            (RelationPlace { type_index, relation_index }, type_definition.name.as_str(), relation)
        })
    })
}

/// Returns how deep set operations are nested; 0 for a leaf.
fn nesting(rewrite: &Rewrite) -> usize {
    let mut deepest = 0;
    let mut pending = vec![(rewrite, 0)];
    while let Some((rewrite, depth)) = pending.pop() {
        deepest = deepest.max(depth);
        pending.extend(rewrite.operands().into_iter().map(|operand| (operand, depth + 1)));
    }
    deepest
}
