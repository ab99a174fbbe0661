//! Kinds of questions. A fault of the copy concerns some kinds and not others, so each kind is verified.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::authz::Check;
use crate::engine::Contextual;

/// A kind of question. It names types and relations of the model, and no user or object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stratum {
    /// The type of the object.
    pub object_type: String,
    /// The relation.
    pub relation: String,
    /// The type of the user: a person, an agent, a client.
    pub subject_type: String,
    /// The conditions on the object's own tuples, by name.
    pub conditions: Vec<String>,
    /// Whether the request adds tuples.
    pub contextual_tuples: bool,
    /// Whether the request gives values for conditions.
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

    /// Whether both are about one relation of one type, for one type of user.
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
