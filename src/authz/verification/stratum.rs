//! Kinds of questions. A fault of the copy usually concerns some kinds and not others, so each kind is verified.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::authz::Check;
use crate::engine::Contextual;

/// A kind of question. It names types, relations and conditions of the model, but no user and no object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stratum {
    /// The type of the object that is asked about.
    pub object_type: String,
    /// The relation that is asked about.
    pub relation: String,
    /// The type of the user who is asked about: a person, an agent or a client.
    pub subject_type: String,
    /// The names of the conditions on the object's own tuples.
    pub conditions: Vec<String>,
    /// Whether the request adds tuples.
    pub contextual_tuples: bool,
    /// Whether the request adds values for conditions.
    pub context: bool,
}

impl Stratum {
    pub(super) fn of(check: &Check, contextual: &Contextual, conditions: Vec<String>) -> Self {
        Self {
            object_type: check.object.type_name().to_owned(),
            relation: check.relation.to_string(),
            subject_type: check.user.type_name().to_owned(),
            conditions,
            contextual_tuples: !contextual.tuples.is_empty(),
            context: !contextual.context.is_empty(),
        }
    }

    /// Returns whether both are about the same relation of the same type, for the same type of user.
    pub(super) fn is_akin(&self, other: &Self) -> bool {
        self.object_type == other.object_type
            && self.relation == other.relation
            && self.subject_type == other.subject_type
    }
}

impl fmt::Display for Stratum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} for {}", self.object_type, self.relation, self.subject_type)?;
        if !self.conditions.is_empty() {
            write!(f, ", under {}", self.conditions.join(" and "))?;
        }
        if self.contextual_tuples {
            write!(f, ", with contextual tuples")?;
        }
        if self.context {
            write!(f, ", with context")?;
        }
        Ok(())
    }
}
