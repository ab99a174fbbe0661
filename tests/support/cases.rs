//! The form of `OpenFGA`'s own test cases: tests, their stages, and in each stage a model, tuples and assertions. An
//! unknown name is an error, so that nothing in a file is left out without notice.

use ragward::language::{RelationshipTuple, TupleCondition};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cases {
    pub(crate) tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The stages share one store: tuples accumulate, and models follow each other.
    pub(crate) stages: Vec<Stage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Stage {
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) model: String,
    #[serde(default)]
    pub(crate) tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    pub(crate) check_assertions: Option<Vec<CheckAssertion>>,
    #[serde(default)]
    pub(crate) list_objects_assertions: Option<Vec<ListAssertion<ListObjectsRequest>>>,
    #[serde(default)]
    pub(crate) list_users_assertions: Option<Vec<ListAssertion<ListUsersRequest>>>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tuple {
    pub(crate) user: String,
    pub(crate) relation: String,
    pub(crate) object: String,
    #[serde(default)]
    pub(crate) condition: Option<Condition>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) context: Option<Map<String, Value>>,
}

/// A case about one check. An error code of zero means no error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CheckAssertion {
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) tuple: Tuple,
    #[serde(default)]
    pub(crate) contextual_tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    pub(crate) context: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) expectation: Option<bool>,
    #[serde(default)]
    pub(crate) error_code: u32,
    /// The error code if the same question is asked as a list.
    #[serde(default)]
    pub(crate) list_objects_error_code: u32,
    #[serde(default)]
    pub(crate) list_users_error_code: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ListAssertion<R> {
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) request: R,
    #[serde(default)]
    pub(crate) contextual_tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    pub(crate) context: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) expectation: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) error_code: u32,
    /// The reason why `OpenFGA` itself does not pass this case.
    #[serde(default)]
    pub(crate) temporarily_skip_reason: Option<String>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListObjectsRequest {
    pub(crate) user: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    pub(crate) relation: String,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListUsersRequest {
    /// Filters such as `user` or `group#member`.
    pub(crate) filters: Vec<String>,
    pub(crate) object: String,
    pub(crate) relation: String,
}

impl Cases {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        // A number that is not a double becomes a string, which is refused where a number is expected.
        let options =
            serde_saphyr::options! { non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
    }
}

impl Tuple {
    pub(crate) fn key(&self) -> (&str, &str, &str) {
        (&self.user, &self.relation, &self.object)
    }

    /// Returns the tuple as a message of the API.
    pub(crate) fn json(&self) -> Value {
        let mut message = json!({ "user": self.user, "relation": self.relation, "object": self.object });
        if let Some(Condition { name, context }) = &self.condition {
            message["condition"] = json!({ "name": name, "context": context.clone().unwrap_or_default() });
        }
        message
    }

    /// Parses the tuple, or says why it is malformed.
    pub(crate) fn parsed(&self) -> Result<RelationshipTuple, String> {
        let parsed =
            RelationshipTuple::parse(&self.user, &self.relation, &self.object).map_err(|error| error.to_string())?;
        let Some(Condition { name, context }) = &self.condition else { return Ok(parsed) };
        let condition = TupleCondition::new(name, context.clone().unwrap_or_default());
        Ok(parsed.with_condition(condition.map_err(|error| error.to_string())?))
    }
}
