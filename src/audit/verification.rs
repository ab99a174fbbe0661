//! The record of one verification of a decision. Like [`super::record`], it is a contract.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A question that a copy of the relationships decided, and that the `OpenFGA` server was asked as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The trace of the call that the copy answered, which its record has too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The user of the question.
    pub user: String,
    /// The relation of the question.
    pub relation: String,
    /// The object of the question.
    pub object: String,
    /// The kind of the question, beside its types and relation.
    pub kind: VerifiedKind,
    /// The keyed digest of user, relation and object, by which the log of the process names the question.
    pub question_digest: String,
    /// The authorization model that the copy decided by.
    pub model_id: String,
    /// `agreed`; `copy_allowed` or `copy_denied` if the server answered otherwise, which lag may explain; `undecided` if the server did not answer.
    pub outcome: String,
}

/// The facts that a question is decided by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VerifiedKind {
    /// The conditions on the object's own tuples.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Whether the request added tuples.
    pub contextual_tuples: bool,
    /// Whether the request gave values for conditions.
    pub context: bool,
}
