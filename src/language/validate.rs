//! Refuses what `OpenFGA` refuses, so that the evaluator never meets an ill-formed model: a [`ValidModel`] is only made
//! here.

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

/// Deepest nesting of `or`, `and` and `but not` in one relation: code that walks a rewrite may call itself, and the JSON in
/// which a model is stored (three levels for each) is read with a bound of 128.
pub const NESTING_MAX: usize = 40;

/// The relation at a position in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationPlace {
    /// In [`AuthorizationModel::types`].
    pub type_index: usize,
    /// In the type's relations.
    pub relation_index: usize,
}

/// The part of a model that a mistake is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The whole model.
    Model,
    /// The schema version.
    Schema,
    /// The name of the type at a position.
    Type(usize),
    /// The name of a relation.
    Relation(RelationPlace),
    /// An entry of the relation's `[…]`.
    Restriction {
        /// The relation.
        relation: RelationPlace,
        /// The position of the entry.
        index: usize,
    },
    /// The condition of an entry of the relation's `[…]`.
    RestrictionCondition {
        /// The relation.
        relation: RelationPlace,
        /// The position of the entry.
        index: usize,
    },
    /// A leaf of the relation's rewrite ([`Rewrite::leaves`]).
    Operand {
        /// The relation.
        relation: RelationPlace,
        /// The position of the leaf.
        index: usize,
    },
    /// The relation after `from` in a leaf.
    Tupleset {
        /// The relation.
        relation: RelationPlace,
        /// The position of the leaf.
        index: usize,
    },
    /// The name of the condition at a position (in the order of the names).
    Condition(usize),
}

impl Place {
    /// The relation that it is a part of.
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

    /// The same part of another relation.
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

    /// The part that this one belongs to.
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

/// One mistake of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// The part that it is in.
    pub place: Place,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Whether only `OpenFGA`'s language refuses it, for what is written is most likely a slip; a server takes it.
    pub slip: bool,
}

impl ModelError {
    fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), slip: false }
    }
}

/// A model that can be evaluated. INVARIANT (valid model): every name in it is defined, every relation can be held by
/// somebody, no relation is defined in terms of itself alone, and relations after `from` hold plain objects only.
#[derive(Debug)]
pub struct ValidModel {
    source: AuthorizationModel,
    program: Program,
}

impl ValidModel {
    /// Validates and compiles a model.
    ///
    /// # Errors
    /// Every mistake found, at least one.
    pub fn new(model: AuthorizationModel) -> Result<Self, Vec<ModelError>> {
        Self::within_limits(model, |_any| true)
    }

    /// Validates and compiles a model as an `OpenFGA` server does, which lets slips pass.
    ///
    /// # Errors
    /// Every mistake found, at least one.
    pub fn with_slips(model: AuthorizationModel) -> Result<Self, Vec<ModelError>> {
        Self::within_limits(model, |error| !error.slip)
    }

    /// Validates and compiles a model that is stored, here or by a server. It decides already, so limits on how large a new
    /// one may be do not hold for it.
    ///
    /// # Errors
    /// Every mistake found, at least one.
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
            // The next checks follow the names, so these must be right.
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

    /// The model as it was written.
    #[must_use]
    pub fn source(&self) -> &AuthorizationModel {
        &self.source
    }

    /// Whether a tuple counts under the model, stored or of a request.
    ///
    /// # Errors
    /// Why it does not.
    pub fn admits(&self, tuple: &RelationshipTuple) -> Result<(), TupleMisfit> {
        let admitted = self.program.admit(tuple)?;
        if let Some((id, condition)) = admitted.condition
            && let Some(compiled) = self.program.condition(id)
        {
            compiled.tuple_context(&condition.context())?;
        }
        Ok(())
    }

    /// Whether a question is about types and relations that the model has.
    ///
    /// # Errors
    /// What it does not have.
    pub fn knows(&self, user: &User, relation: &Relation, object_type: &str) -> Result<(), TupleMisfit> {
        self.program.user(user)?;
        self.program.relation_id(object_type, relation.as_str()).map(|_| ())
    }

    /// Whether all tuples count under the model.
    ///
    /// # Errors
    /// The first that does not, and why.
    pub fn admits_all(&self, tuples: &[RelationshipTuple]) -> Result<(), Box<MisfitTuple>> {
        all(tuples, |tuple| self.admits(tuple))
    }

    /// Whether a tuple may be stored: it counts, and is within the limits on what is stored.
    ///
    /// # Errors
    /// Why it may not.
    pub fn stores(&self, tuple: &RelationshipTuple) -> Result<(), TupleMisfit> {
        self.admits(tuple)?;
        let Some(condition) = &tuple.condition else { return Ok(()) };
        if condition.name().chars().count() < TUPLE_CONDITION_CHARS_MIN {
            return Err(TupleMisfit::ShortCondition(condition.name().to_owned()));
        }
        condition.excess_bytes().map_or(Ok(()), |bytes| Err(TupleMisfit::LongContext(bytes)))
    }

    /// Whether all tuples may be stored.
    ///
    /// # Errors
    /// The first that may not, and why.
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
    ModelError::new(index.map_or(Place::Model, Place::Condition), error.to_string())
}

/// Every relation with its place.
fn relations(model: &AuthorizationModel) -> impl Iterator<Item = (RelationPlace, &str, &RelationDefinition)> {
    model.types.iter().enumerate().flat_map(|(type_index, type_definition)| {
        type_definition.relations.iter().enumerate().map(move |(relation_index, relation)| {
            (RelationPlace { type_index, relation_index }, type_definition.name.as_str(), relation)
        })
    })
}

/// How deep set operations are nested; 0 for a leaf.
fn nesting(rewrite: &Rewrite) -> usize {
    let mut deepest = 0;
    let mut pending = vec![(rewrite, 0)];
    while let Some((rewrite, depth)) = pending.pop() {
        deepest = deepest.max(depth);
        pending.extend(rewrite.operands().into_iter().map(|operand| (operand, depth + 1)));
    }
    deepest
}
