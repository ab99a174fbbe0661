//! The sections `[[embedding]]` and `[[rerank]]`: which model serves which collections, and what it may be sent.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{PositiveDuration, SecretFile, at_least_one};

/// The model that makes the vectors of some collections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingConfig {
    /// The collections whose texts and queries are sent to this model. A collection has one.
    pub collections: Vec<String>,
    /// The address of an endpoint in the form of `OpenAI`'s API, without `/embeddings`, such as `https://api.example.com/v1`. It
    /// needs `https`, except on loopback. Either this or `folder` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A folder with a model of one vector for each token (`Model2Vec`, `WordLlama`): `tokenizer.json` and `model.safetensors`. Then
    /// nothing is sent anywhere. It needs the feature `static-embeddings`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The name of the model. It is kept with the vectors, and vectors of another model are refused.
    pub model: String,
    /// The dimension to ask for, for models that can choose. When unset, the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
    /// A file with the key, which is sent as `Authorization: Bearer …`. It may change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<SecretFile>,
    /// The highest classification (`identity.details.classifications`) whose chunks are sent. Other chunks are found by their words
    /// alone. With `url`, it must be set if chunks have classifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification_max: Option<String>,
    /// The most texts of one request to the endpoint.
    #[serde(default = "batch", deserialize_with = "at_least_one")]
    pub batch: u32,
    /// The longest that one answer of the endpoint may take.
    #[serde(default = "timeout", with = "PositiveDuration")]
    pub timeout: Duration,
    /// The most requests to the endpoint at a time. More wait.
    #[serde(default = "concurrency", deserialize_with = "at_least_one")]
    pub concurrency: u32,
    /// A PEM file with the only authorities whose certificates are accepted from the endpoint. When unset, those that the system
    /// trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// The model that orders the permitted chunks of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RerankConfig {
    /// The collections whose answers are ordered by this model. A collection has one.
    pub collections: Vec<String>,
    /// The address of the endpoint, without `/rerank`, such as `https://api.example.com/v2`. It needs `https`, except on loopback.
    pub url: String,
    /// The name of the model, as the endpoint knows it.
    pub model: String,
    /// The form of its requests and answers.
    #[serde(default)]
    pub form: RerankForm,
    /// The answer to a user whose chunks the endpoint could not order.
    #[serde(default)]
    pub on_failure: OnRerankFailure,
    /// A file with the key, which is sent as `Authorization: Bearer …`. It may change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<SecretFile>,
    /// The highest classification (`identity.details.classifications`) whose chunks are sent. Other chunks keep their places in the
    /// answer. It must be set if chunks have classifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification_max: Option<String>,
    /// The longest that one answer of the endpoint may take. Keep it below `server.request_timeout`.
    #[serde(default = "rerank_timeout", with = "PositiveDuration")]
    pub timeout: Duration,
    /// The most requests to the endpoint at a time. More wait.
    #[serde(default = "concurrency", deserialize_with = "at_least_one")]
    pub concurrency: u32,
    /// A PEM file with the only authorities whose certificates are accepted from the endpoint. When unset, those that the system
    /// trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// The form of an endpoint that orders texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RerankForm {
    /// The form of Cohere and Jina: `documents`, and `results` with a `relevance_score`.
    #[default]
    Cohere,
    /// The form of Text Embeddings Inference: `texts`, and a list with a `score`.
    Tei,
}

/// The answer to a user whose chunks could not be ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRerankFailure {
    /// The request is refused as UNAVAILABLE.
    #[default]
    Error,
    /// The chunks stay in the order in which they were found.
    KeepOrder,
}

/// Checks what concerns several settings of the sections.
///
/// # Errors
/// Returns a sentence that names the settings.
pub fn check(embedding: &[EmbeddingConfig], rerank: &[RerankConfig]) -> Result<(), String> {
    embedding.iter().try_for_each(EmbeddingConfig::check)?;
    let of_embedding = embedding.iter().map(|settings| (settings.collections.as_slice(), settings.model.as_str()));
    check_table("embedding", of_embedding)?;
    check_table("rerank", rerank.iter().map(|settings| (settings.collections.as_slice(), settings.model.as_str())))
}

impl EmbeddingConfig {
    /// Checks the settings of one model against each other.
    fn check(&self) -> Result<(), String> {
        let model = &self.model;
        match (&self.url, &self.folder) {
            (None, None) => Err(format!("`embedding.url` of `{model}` is not set; set it, or `embedding.folder`")),
            (Some(_), Some(_)) => {
                Err(format!("`embedding.url` and `embedding.folder` of `{model}` are both set; set one of them"))
            }
            (None, Some(_)) if self.dimensions.is_some() || self.api_key_file.is_some() || self.ca_file.is_some() => {
                Err(format!(
                    "`embedding.dimensions`, `embedding.api_key_file` and `embedding.ca_file` of `{model}` are for `embedding.url`"
                ))
            }
            (Some(_), None) | (None, Some(_)) => Ok(()),
        }
    }
}

fn check_table<'s>(table: &str, settings: impl Iterator<Item = (&'s [String], &'s str)>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for (collections, model) in settings {
        if model.is_empty() {
            return Err(format!("`{table}.model` is empty; name the model"));
        }
        if collections.is_empty() {
            return Err(format!("`{table}.collections` of `{model}` is empty; name the collections that it serves"));
        }
        if let Some(twice) = collections.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(format!("`{table}.collections` names `{twice}` twice; a collection has one model"));
        }
    }
    Ok(())
}

/// Text Embeddings Inference refuses more unless it is told otherwise.
const fn batch() -> u32 {
    32
}

const fn timeout() -> Duration {
    Duration::from_secs(10)
}

/// A request waits for the order of its answer, so half of the time that it may take by default.
const fn rerank_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn concurrency() -> u32 {
    4
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(embedding: &[Value]) -> Option<String> {
        let read: Result<Vec<EmbeddingConfig>, _> = serde_json::from_value(json!(embedding));
        read.map_err(|error| error.to_string()).and_then(|embedding| check(&embedding, &[])).err()
    }

    #[test]
    fn the_defaults_suit_common_endpoints() {
        let minimal = json!({ "collections": ["a"], "url": "https://models.example/v1", "model": "m" });
        let embedding: EmbeddingConfig = serde_json::from_value(minimal.clone()).unwrap();
        assert_eq!((embedding.batch, embedding.timeout), (32, Duration::from_secs(10)));
        let rerank: RerankConfig = serde_json::from_value(minimal).unwrap();
        assert_eq!(rerank.timeout, Duration::from_secs(5), "below the time of a request");
    }

    #[test]
    fn a_collection_has_one_model() {
        let of = |collections: &[&str], more: Value| {
            let mut settings = json!({ "collections": collections, "url": "https://models.example/v1", "model": "m" });
            for (key, value) in more.as_object().unwrap() {
                settings[key] = value.clone();
            }
            settings
        };
        let none = || json!({});
        let rows = [
            ("one", vec![of(&["a"], none())], None),
            ("two", vec![of(&["a"], none()), of(&["b", "c"], none())], None),
            ("twice", vec![of(&["a"], none()), of(&["b", "a"], none())], Some("names `a` twice")),
            ("twice in one", vec![of(&["a", "a"], none())], Some("names `a` twice")),
            ("no collection", vec![of(&[], none())], Some("is empty")),
            ("no model", vec![of(&["a"], json!({ "model": "" }))], Some("`embedding.model` is empty")),
            ("a folder", vec![of(&["a"], json!({ "url": null, "folder": "/m" }))], None),
            ("nowhere", vec![of(&["a"], json!({ "url": null }))], Some("`embedding.url` of `m` is not set")),
            ("two places", vec![of(&["a"], json!({ "folder": "/m" }))], Some("both set")),
            (
                "a key for a folder",
                vec![of(&["a"], json!({ "url": null, "folder": "/m", "api_key_file": "/k" }))],
                Some("are for `embedding.url`"),
            ),
            ("no batch", vec![of(&["a"], json!({ "batch": 0 }))], Some("at least 1")),
            ("no time", vec![of(&["a"], json!({ "timeout": "0s" }))], Some("at least `1ms`")),
            ("an unknown key", vec![of(&["a"], json!({ "redirects": true }))], Some("unknown field")),
        ];
        for (row, settings, expected) in rows {
            let refused = refused(&settings);
            assert_eq!(refused.is_some(), expected.is_some(), "{row}: {refused:?}");
            assert!(refused.unwrap_or_default().contains(expected.unwrap_or_default()), "{row}");
        }
    }
}
