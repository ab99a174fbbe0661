//! Embedders: which collections have one, and how an endpoint in the form of `OpenAI`'s API is asked.
//!
//! INVARIANT (whole answers): an answer counts only if it has one vector for each text, all of one dimension, finite and not zero.

use std::collections::BTreeMap;
#[cfg(feature = "server")]
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "server")]
use async_trait::async_trait;

#[cfg(feature = "server")]
use super::endpoint::{EndpointSettings, ModelEndpoint};
#[cfg(all(feature = "server", feature = "static-embeddings"))]
use super::static_model::StaticEmbedder;
use super::{Ceiling, Embedder, InferenceError, ModelFault, ModelTask, SentRecord, SentTexts};
#[cfg(feature = "server")]
use super::{EmbeddingConfig, InferenceSetupError};
use crate::chunk::Document;
#[cfg(feature = "server")]
use crate::identity::details::DetailsConfig;

/// The most texts that one call asks an embedder for. Larger documents take several calls, so that no answer takes much memory.
const TEXTS_MAX: usize = 256;
/// The word that a model is asked for to learn the dimension of its vectors. It is nobody's text.
const FIXED_WORD: &str = "dimension";
/// The most bytes of texts in one request to an endpoint. Endpoints limit requests by their tokens.
#[cfg(feature = "server")]
const REQUEST_BYTES_MAX: usize = 256 * 1_024;
/// The most bytes of one vector in an answer: 4,096 numbers, as wide as stores take them, of 32 characters each with white space.
#[cfg(feature = "server")]
const ANSWERED_VECTOR_BYTES_MAX: usize = 4_096 * 32;
/// The most bytes of an answer beside its vectors.
#[cfg(feature = "server")]
const ANSWER_FRAME_BYTES_MAX: usize = 64 * 1_024;

/// The embedder of a collection, and what it may be sent.
#[derive(Clone)]
pub struct CollectionEmbedder {
    embedder: Arc<dyn Embedder>,
    model: Arc<str>,
    /// The host and port that texts are sent to; `None` if the model computes here.
    host: Option<Arc<str>>,
    ceiling: Ceiling,
}

/// The embedders of collections. A collection that is not among them has none, and nothing of it is sent anywhere.
#[derive(Clone, Default)]
pub struct Embeddings {
    by_collection: BTreeMap<String, CollectionEmbedder>,
}

impl Embeddings {
    /// Prepares the embedders of a configuration. None is called yet. `details` has the classifications of chunks.
    ///
    /// # Errors
    /// When a setting cannot be used.
    #[cfg(feature = "server")]
    pub fn new(configured: &[EmbeddingConfig], details: &DetailsConfig) -> Result<Self, InferenceSetupError> {
        let mut by_collection = BTreeMap::new();
        for settings in configured {
            let of_collection = CollectionEmbedder::configured(settings, details)?;
            by_collection.extend(settings.collections.iter().map(|name| (name.clone(), of_collection.clone())));
        }
        Ok(Self { by_collection })
    }

    /// Makes the embedders of these collections.
    #[must_use]
    pub fn of(by_collection: BTreeMap<String, CollectionEmbedder>) -> Self {
        Self { by_collection }
    }

    /// Returns the embedder of a collection, if it has one.
    #[must_use]
    pub fn get(&self, collection: &str) -> Option<&CollectionEmbedder> {
        self.by_collection.get(collection)
    }

    /// Lists the collections that have an embedder, by name.
    pub fn collections(&self) -> impl Iterator<Item = &str> {
        self.by_collection.keys().map(String::as_str)
    }
}

impl CollectionEmbedder {
    /// Makes the embedder of a collection. `model` is the name that is kept with the vectors. `host` is where texts go, and `None`
    /// if they go nowhere.
    #[must_use]
    pub fn new(embedder: Arc<dyn Embedder>, model: &str, host: Option<&str>, ceiling: Ceiling) -> Self {
        Self { embedder, model: model.into(), host: host.map(Arc::from), ceiling }
    }

    #[cfg(feature = "server")]
    fn configured(settings: &EmbeddingConfig, details: &DetailsConfig) -> Result<Self, InferenceSetupError> {
        let max = settings.classification_max.as_deref();
        let model = settings.model.as_str();
        if let Some(folder) = &settings.folder {
            // Texts that go nowhere need no ceiling.
            let ceiling = if max.is_none() { Ceiling::None } else { Ceiling::new("embedding", max, details)? };
            return Ok(Self::new(of_folder(folder)?, model, None, ceiling));
        }
        let ceiling = Ceiling::new("embedding", max, details)?;
        let embedder = HttpEmbedder::new(settings)?;
        let host = embedder.endpoint.host();
        Ok(Self::new(Arc::new(embedder), model, Some(&host), ceiling))
    }

    /// Returns the name of the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the host and port that texts are sent to; `None` if the model computes in this process.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Makes the vector of a query. `record` notes first that its text is sent. The vector is empty if the model knows nothing of the
    /// text.
    ///
    /// # Errors
    /// When the model gives no vector that counts.
    pub async fn embed_query(&self, text: &str, record: &dyn SentRecord) -> Result<Vec<f32>, InferenceError> {
        self.note(ModelTask::EmbedQuery, 1, &[], record)?;
        let vectors = self.embedder.embed(&[text]).await.map_err(|fault| self.failed(fault))?;
        let [vector] = <[Vec<f32>; 1]>::try_from(vectors).map_err(|_other| self.failed(ModelFault::Count))?;
        Ok(vector)
    }

    /// Returns the dimension of the model's vectors, by asking it for that of a fixed word. `record` notes first that this is sent. There
    /// is none if the model does not know the word.
    ///
    /// # Errors
    /// When the model gives no vector that counts.
    pub async fn dimension(&self, record: &dyn SentRecord) -> Result<Option<usize>, InferenceError> {
        let vector = self.embed_query(FIXED_WORD, record).await?;
        Ok(Some(vector.len()).filter(|dimension| *dimension > 0))
    }

    /// Gives a vector to each chunk of the documents that has words and may be sent, unless the model knows none of them. Returns how
    /// many were embedded. `record` notes first what is sent.
    ///
    /// # Errors
    /// When the model does not give a vector that counts for each of them.
    pub async fn embed_documents(
        &self,
        documents: &mut [Document],
        record: &dyn SentRecord,
    ) -> Result<usize, InferenceError> {
        let mut chunks: Vec<ChunkToEmbed<'_>> = Vec::new();
        for document in documents {
            let title = document.title.as_str();
            for chunk in &mut document.chunks {
                if !chunk.text.trim().is_empty() && self.ceiling.admits(&chunk.metadata) {
                    let text = embedded_text(title, &chunk.heading_path, &chunk.text);
                    chunks.push(ChunkToEmbed { id: &chunk.id, text, vector: &mut chunk.vector });
                }
            }
        }
        for part in chunks.chunks_mut(TEXTS_MAX) {
            let ids: Vec<String> = part.iter().map(|chunk| chunk.id.to_owned()).collect();
            self.note(ModelTask::EmbedChunks, ids.len(), &ids, record)?;
            let texts: Vec<&str> = part.iter().map(|chunk| chunk.text.as_str()).collect();
            let vectors = self.embedder.embed(&texts).await.map_err(|fault| self.failed(fault))?;
            if vectors.len() != part.len() {
                return Err(self.failed(ModelFault::Count));
            }
            for (chunk, vector) in part.iter_mut().zip(vectors) {
                *chunk.vector = vector;
            }
        }
        Ok(chunks.len())
    }

    /// Returns the error of an answer that does not count.
    #[must_use]
    pub fn failed(&self, fault: ModelFault) -> InferenceError {
        InferenceError::Embedding { model: self.model.to_string(), fault }
    }

    /// Notes texts that are about to be sent, if they are sent anywhere.
    fn note(
        &self,
        task: ModelTask,
        texts: usize,
        chunk_ids: &[String],
        record: &dyn SentRecord,
    ) -> Result<(), InferenceError> {
        let Some(host) = &self.host else { return Ok(()) };
        let sent = SentTexts { task, model: &self.model, host, texts, chunk_ids };
        record.about_to_send(sent).map_err(|fault| self.failed(fault))
    }
}

/// Reads the model of a folder.
#[cfg(all(feature = "server", feature = "static-embeddings"))]
fn of_folder(folder: &Path) -> Result<Arc<dyn Embedder>, InferenceSetupError> {
    Ok(Arc::new(StaticEmbedder::open(folder)?))
}

/// Refuses a folder, because nothing here reads models.
#[cfg(all(feature = "server", not(feature = "static-embeddings")))]
fn of_folder(folder: &Path) -> Result<Arc<dyn Embedder>, InferenceSetupError> {
    Err(InferenceSetupError(format!(
        "`embedding.folder` is `{}`, and models in folders need the feature `static-embeddings`, which this program was built without",
        folder.display()
    )))
}

/// A chunk that gets a vector.
struct ChunkToEmbed<'d> {
    id: &'d str,
    text: String,
    vector: &'d mut Vec<f32>,
}

/// Returns the text that stands for a chunk: a piece of a document says more about itself below the document's title and the
/// headings above it.
fn embedded_text(title: &str, heading_path: &[String], text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in [title].into_iter().chain(heading_path.iter().map(String::as_str)) {
        // A chunk may begin with its heading, and a document's first heading is mostly its title.
        if !line.is_empty() && !lines.contains(&line) && !text.contains(line) {
            lines.push(line);
        }
    }
    if lines.is_empty() { text.to_owned() } else { format!("{}\n\n{text}", lines.join("\n")) }
}

/// An endpoint in the form of `OpenAI`'s API.
#[cfg(feature = "server")]
struct HttpEmbedder {
    endpoint: ModelEndpoint,
    model: String,
    dimensions: Option<u32>,
    batch: usize,
}

/// The request to an endpoint.
#[cfg(feature = "server")]
#[derive(serde::Serialize)]
struct EmbeddingsRequest<'r> {
    model: &'r str,
    input: &'r [&'r str],
    encoding_format: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

/// The answer of an endpoint, as far as it is looked at.
#[cfg(feature = "server")]
#[derive(serde::Deserialize)]
struct EmbeddingsAnswer {
    data: Vec<IndexedVector>,
}

#[cfg(feature = "server")]
#[derive(serde::Deserialize)]
struct IndexedVector {
    index: usize,
    embedding: Vec<f32>,
}

#[cfg(feature = "server")]
impl HttpEmbedder {
    fn new(settings: &EmbeddingConfig) -> Result<Self, InferenceSetupError> {
        let endpoint = ModelEndpoint::new(EndpointSettings {
            table: "embedding",
            url: settings.url.as_deref().unwrap_or_default(),
            path: "embeddings",
            api_key_file: settings.api_key_file.as_ref(),
            ca_file: settings.ca_file.as_deref(),
            timeout: settings.timeout,
            concurrency: settings.concurrency,
        })?;
        let batch = usize::try_from(settings.batch).unwrap_or(usize::MAX);
        Ok(Self { endpoint, model: settings.model.clone(), dimensions: settings.dimensions, batch })
    }
}

#[cfg(feature = "server")]
#[async_trait]
impl Embedder for HttpEmbedder {
    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ModelFault> {
        let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch_len(rest, self.batch));
            let request = EmbeddingsRequest {
                model: &self.model,
                input: now,
                encoding_format: "float",
                dimensions: self.dimensions,
            };
            let answer_bytes_max = ANSWER_FRAME_BYTES_MAX + now.len() * ANSWERED_VECTOR_BYTES_MAX;
            let answer: EmbeddingsAnswer = self.endpoint.post(&request, answer_bytes_max).await?;
            vectors.extend(in_order(answer, now.len())?);
            rest = later;
        }
        let asked = self.dimensions.map(|dimensions| usize::try_from(dimensions).unwrap_or(usize::MAX));
        check_vectors(&vectors, asked)?;
        Ok(vectors)
    }
}

/// Returns how many of these texts go into one request: at least one.
#[cfg(feature = "server")]
fn batch_len(texts: &[&str], texts_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |text: &&&str| {
        bytes += text.len();
        bytes <= REQUEST_BYTES_MAX
    };
    texts.iter().take(texts_max).take_while(fits).count().max(1)
}

/// Returns the vectors in the order of the texts.
#[cfg(feature = "server")]
fn in_order(answer: EmbeddingsAnswer, texts: usize) -> Result<Vec<Vec<f32>>, ModelFault> {
    if answer.data.len() != texts {
        return Err(ModelFault::Count);
    }
    let mut by_text: Vec<Option<Vec<f32>>> = vec![None; texts];
    for IndexedVector { index, embedding } in answer.data {
        let place = by_text.get_mut(index).ok_or(ModelFault::Index)?;
        if place.replace(embedding).is_some() {
            return Err(ModelFault::Index);
        }
    }
    by_text.into_iter().collect::<Option<Vec<Vec<f32>>>>().ok_or(ModelFault::Index)
}

/// Checks that vectors have one dimension, which may be known, and a direction.
#[cfg(feature = "server")]
fn check_vectors(vectors: &[Vec<f32>], dimension: Option<usize>) -> Result<(), ModelFault> {
    let Some(first) = vectors.first() else { return Ok(()) };
    let expected = dimension.unwrap_or(first.len());
    if expected == 0 || vectors.iter().any(|vector| vector.len() != expected) {
        return Err(ModelFault::Dimension);
    }
    let has_direction = |vector: &Vec<f32>| vector.iter().all(|x| x.is_finite()) && vector.iter().any(|x| *x != 0.0);
    if vectors.iter().all(has_direction) { Ok(()) } else { Err(ModelFault::Number) }
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
