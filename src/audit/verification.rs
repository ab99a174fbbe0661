//! What is remembered of one verification of a decision. A contract, as [`super::record`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A question that a copy of the relationships decided, and that the `OpenFGA` server was asked as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The trace of the call that was answered by the copy: that of its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Who was asked about.
    pub user: String,
    /// The relation.
    pub relation: String,
    /// The object.
    pub object: String,
    /// What kind of question it is, beside its types and relation.
    pub kind: VerifiedKind,
    /// Keyed digest of user, relation and object, by which the log of the process names the question.
    pub question_digest: String,
    /// The authorization model.
    pub model_id: String,
    /// `agreed`; `copy_allowed` or `copy_denied` where the server answered otherwise, which lag may explain; `undecided` where the
    /// server did not answer.
    pub outcome: String,
}

/// What a question is decided by.
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
