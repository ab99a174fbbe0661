//! Rerankers: which collections have one, and how an endpoint in the form of Cohere, Jina or Text Embeddings Inference is asked.
//!
//! INVARIANT (whole answers): an answer counts only if it has one finite score for each text.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

#[cfg(feature = "server")]
use super::endpoint::{EndpointSettings, ModelEndpoint};
use super::{Ceiling, InferenceError, ModelFault, ModelTask, OnRerankFailure, SentRecord, SentTexts};
#[cfg(feature = "server")]
use super::{InferenceSetupError, RerankConfig, RerankForm};
use crate::chunk::Chunk;
#[cfg(feature = "server")]
use crate::identity::details::DetailsConfig;

/// Says how well texts answer a query.
#[async_trait]
pub trait Reranker: Send + Sync {
    /// Makes one score for each text, in the order of the texts. Higher is better. There is at least one text.
    ///
    /// # Errors
    /// When there is no score that counts for one of the texts.
    async fn score(&self, query: &str, texts: &[&str]) -> Result<Vec<f64>, ModelFault>;
}

/// The reranker of a collection, and what it may be sent.
#[derive(Clone)]
pub struct CollectionReranker {
    reranker: Arc<dyn Reranker>,
    model: Arc<str>,
    host: Arc<str>,
    ceiling: Ceiling,
    on_failure: OnRerankFailure,
}

/// The rerankers of collections. A collection that is not among them has none, and nothing of it is sent anywhere.
#[derive(Clone, Default)]
pub struct Rerankers {
    by_collection: BTreeMap<String, CollectionReranker>,
}

impl Rerankers {
    /// Prepares the rerankers of a configuration. None is called yet. `details` has the classifications of chunks.
    ///
    /// # Errors
    /// When a setting cannot be used.
    #[cfg(feature = "server")]
    pub fn new(configured: &[RerankConfig], details: &DetailsConfig) -> Result<Self, InferenceSetupError> {
        let mut by_collection = BTreeMap::new();
        for settings in configured {
            let ceiling = Ceiling::new("rerank", settings.classification_max.as_deref(), details)?;
            let reranker = HttpReranker::new(settings)?;
            let host = reranker.endpoint.host();
            let of_collection =
                CollectionReranker::new(Arc::new(reranker), &settings.model, &host, ceiling, settings.on_failure);
            by_collection.extend(settings.collections.iter().map(|name| (name.clone(), of_collection.clone())));
        }
        Ok(Self { by_collection })
    }

    /// Makes the rerankers of these collections.
    #[must_use]
    pub fn of(by_collection: BTreeMap<String, CollectionReranker>) -> Self {
        Self { by_collection }
    }

    /// Returns the reranker of a collection, if it has one.
    #[must_use]
    pub fn get(&self, collection: &str) -> Option<&CollectionReranker> {
        self.by_collection.get(collection)
    }
}

impl CollectionReranker {
    /// Makes the reranker of a collection. `host` is where the texts go.
    #[must_use]
    pub fn new(
        reranker: Arc<dyn Reranker>,
        model: &str,
        host: &str,
        ceiling: Ceiling,
        on_failure: OnRerankFailure,
    ) -> Self {
        Self { reranker, model: model.into(), host: host.into(), ceiling, on_failure }
    }

    /// Returns what happens if the model gives no answer that counts.
    #[must_use]
    pub const fn on_failure(&self) -> OnRerankFailure {
        self.on_failure
    }

    /// Returns the scores of those chunks that may be sent, by their places. `record` notes first what is sent. If the model fails,
    /// and the settings say that the order is kept then, there are none.
    ///
    /// # Errors
    /// When the model does not give a score that counts for each of them.
    pub async fn scores(
        &self,
        query: &str,
        chunks: &[&Chunk],
        record: &dyn SentRecord,
    ) -> Result<BTreeMap<usize, f64>, InferenceError> {
        let may_be_sent =
            |(_, chunk): &(usize, &&Chunk)| !chunk.text.trim().is_empty() && self.ceiling.admits(&chunk.metadata);
        let (places, sent): (Vec<usize>, Vec<&Chunk>) =
            chunks.iter().enumerate().filter(may_be_sent).map(|(place, chunk)| (place, *chunk)).unzip();
        if sent.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<String> = sent.iter().map(|chunk| chunk.id.clone()).collect();
        let texts: Vec<&str> = sent.iter().map(|chunk| chunk.text.as_str()).collect();
        let (model, host) = (&*self.model, &*self.host);
        let noted =
            record.about_to_send(SentTexts { task: ModelTask::Rerank, model, host, texts: ids.len(), chunk_ids: &ids });
        let answer = match noted {
            Ok(()) => self.reranker.score(query, &texts).await,
            Err(fault) => Err(fault),
        };
        let answer =
            answer.and_then(|scores| if scores.len() == places.len() { Ok(scores) } else { Err(ModelFault::Count) });
        match (answer, self.on_failure) {
            (Ok(scores), _) => Ok(places.into_iter().zip(scores).collect()),
            (Err(_), OnRerankFailure::KeepOrder) => Ok(BTreeMap::new()),
            (Err(fault), OnRerankFailure::Error) => Err(InferenceError::Rerank { model: model.to_owned(), fault }),
        }
    }
}

/// The largest answer in bytes. Some endpoints repeat the texts of a request, which nobody looks at.
#[cfg(feature = "server")]
const ANSWER_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// An endpoint that orders texts.
#[cfg(feature = "server")]
struct HttpReranker {
    endpoint: ModelEndpoint,
    model: String,
    form: RerankForm,
}

/// The request in the form of Cohere and Jina.
#[cfg(feature = "server")]
#[derive(serde::Serialize)]
struct DocumentsRequest<'r> {
    model: &'r str,
    query: &'r str,
    documents: &'r [&'r str],
    top_n: usize,
}

/// The answer in the form of Cohere and Jina, as far as it is looked at.
#[cfg(feature = "server")]
#[derive(serde::Deserialize)]
struct ResultsAnswer {
    results: Vec<IndexedScore>,
}

/// The request in the form of Text Embeddings Inference.
#[cfg(feature = "server")]
#[derive(serde::Serialize)]
struct TextsRequest<'r> {
    query: &'r str,
    texts: &'r [&'r str],
    truncate: bool,
}

#[cfg(feature = "server")]
#[derive(serde::Deserialize)]
struct IndexedScore {
    index: usize,
    #[serde(alias = "relevance_score")]
    score: f64,
}

#[cfg(feature = "server")]
impl HttpReranker {
    fn new(settings: &RerankConfig) -> Result<Self, InferenceSetupError> {
        let endpoint = ModelEndpoint::new(EndpointSettings {
            table: "rerank",
            url: &settings.url,
            path: "rerank",
            api_key_file: settings.api_key_file.as_ref(),
            ca_file: settings.ca_file.as_deref(),
            timeout: settings.timeout,
            concurrency: settings.concurrency,
        })?;
        Ok(Self { endpoint, model: settings.model.clone(), form: settings.form })
    }
}

#[cfg(feature = "server")]
#[async_trait]
impl Reranker for HttpReranker {
    async fn score(&self, query: &str, texts: &[&str]) -> Result<Vec<f64>, ModelFault> {
        let results: Vec<IndexedScore> = match self.form {
            RerankForm::Cohere => {
                let request = DocumentsRequest { model: &self.model, query, documents: texts, top_n: texts.len() };
                let answer: ResultsAnswer = self.endpoint.post(&request, ANSWER_BYTES_MAX).await?;
                answer.results
            }
            // A text that is too long for the model is cut there, and not refused.
            RerankForm::Tei => {
                self.endpoint.post(&TextsRequest { query, texts, truncate: true }, ANSWER_BYTES_MAX).await?
            }
        };
        in_order(results, texts.len())
    }
}

/// Returns the scores in the order of the texts.
#[cfg(feature = "server")]
fn in_order(results: Vec<IndexedScore>, texts: usize) -> Result<Vec<f64>, ModelFault> {
    if results.len() != texts {
        return Err(ModelFault::Count);
    }
    let mut by_text: Vec<Option<f64>> = vec![None; texts];
    for IndexedScore { index, score } in results {
        if !score.is_finite() {
            return Err(ModelFault::Number);
        }
        let place = by_text.get_mut(index).ok_or(ModelFault::Index)?;
        if place.replace(score).is_some() {
            return Err(ModelFault::Index);
        }
    }
    by_text.into_iter().collect::<Option<Vec<f64>>>().ok_or(ModelFault::Index)
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests {
    use super::*;

    #[test]
    fn each_text_needs_one_score() {
        type Row<'a> = (&'a str, &'a [(usize, f64)], Result<Vec<f64>, ModelFault>);
        let rows: [Row<'_>; 7] = [
            ("in order", &[(0, 0.5), (1, 0.25)], Ok(vec![0.5, 0.25])),
            ("best first", &[(1, 0.9), (0, 0.1)], Ok(vec![0.1, 0.9])),
            ("one is missing", &[(0, 0.5)], Err(ModelFault::Count)),
            ("one too many", &[(0, 0.5), (1, 0.5), (2, 0.5)], Err(ModelFault::Count)),
            ("one twice", &[(1, 0.5), (1, 0.5)], Err(ModelFault::Index)),
            ("one that was not sent", &[(0, 0.5), (2, 0.5)], Err(ModelFault::Index)),
            ("infinite", &[(0, f64::INFINITY), (1, 0.5)], Err(ModelFault::Number)),
        ];
        for (row, results, expected) in rows {
            let results = results.iter().map(|(index, score)| IndexedScore { index: *index, score: *score }).collect();
            assert_eq!(in_order(results, 2), expected, "{row}");
        }
    }

    #[test]
    fn both_forms_of_answers_are_read() {
        let cohere: ResultsAnswer =
            serde_json::from_str(r#"{"id": "1", "results": [{"index": 0, "relevance_score": 0.5, "document": null}]}"#)
                .unwrap();
        let tei: Vec<IndexedScore> = serde_json::from_str(r#"[{"index": 0, "score": 0.5}]"#).unwrap();
        assert_eq!(in_order(cohere.results, 1), Ok(vec![0.5]));
        assert_eq!(in_order(tei, 1), Ok(vec![0.5]));
    }
}
