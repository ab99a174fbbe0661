//! The section `[retrieval]`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::language::Relation;
use crate::settings::{PositiveDuration, SecretFile, at_least_one};

/// The limits of retrieval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalConfig {
    /// The relation on a chunk's guard that a user must hold to see the chunk. It is a setting and never a part of the
    /// request: a caller that could choose it could choose a weaker one.
    #[schemars(with = "String")]
    pub relation: Relation,
    /// The most chunks of one answer.
    #[serde(deserialize_with = "at_least_one")]
    pub top_k_max: u32,
    /// The most candidates of one search, at least `top_k_max`. A search that would need more ends as `LIMITED`.
    #[serde(deserialize_with = "at_least_one")]
    pub candidates_max: usize,
    /// The most guards that Ragward checks before the search of one request. It does so if the authorizer cannot list
    /// what the user may see: for example, an `OpenFGA` server without a replica that is fresh and trusted. If the
    /// collection has more guards, a text query is refused (`RESOURCE_EXHAUSTED`), and a vector query searches
    /// everything and checks what it finds. Raise this for text queries on larger collections. Lower it to spare the
    /// server: each guard is one check.
    #[serde(deserialize_with = "at_least_one")]
    pub guards_checked_max: usize,
    /// A file with the secret of page tokens, at least 32 bytes, that all replicas share. It is read again when it changes; page
    /// tokens of the old secret are refused then. When unset, each start makes a random one.
    pub page_token_key_file: Option<SecretFile>,
    /// How long a page token stays valid.
    #[serde(with = "PositiveDuration")]
    pub page_token_lifetime: Duration,
    /// Tell callers that ask for it how a retrieval was searched. The plan counts what is withheld from the user, so leave
    /// this off where users call.
    pub explain_plan: bool,
}

impl RetrievalConfig {
    /// Checks what concerns several settings.
    ///
    /// # Errors
    /// Returns a sentence that names both settings.
    pub fn check(&self) -> Result<(), String> {
        if usize::try_from(self.top_k_max).is_ok_and(|top_k_max| self.candidates_max >= top_k_max) {
            return Ok(());
        }
        Err("`retrieval.candidates_max` must be at least `retrieval.top_k_max`".to_owned())
    }
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self {
            relation: Relation::from_static("can_read"),
            top_k_max: 100,
            candidates_max: 10_000,
            guards_checked_max: 200_000,
            page_token_key_file: None,
            page_token_lifetime: Duration::from_mins(10),
            explain_plan: false,
        }
    }
}
