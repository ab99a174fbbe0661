//! Gives the chunks of a batch their vectors, where a model makes those of the collection.

use super::IngestApi;
use super::batch::Batch;
use crate::inference::CollectionEmbedder;
use crate::proto::ingest as message;
use crate::retrieval::FieldViolation;
use crate::server::audit::Draft;
use crate::server::refusal::Refusal;
use crate::vector_store::{VectorModel, VectorOrigin, VectorStoreError};

impl IngestApi {
    /// Embeds a batch whose writer may write it, and notes the model. `draft` learns what is sent, before it is sent. A batch holds
    /// its turn meanwhile, so the texts that are on their way are bounded.
    ///
    /// # Errors
    /// When the collection has vectors of another origin, when writers send vectors that the model should make, and when the model
    /// does not answer. Then nothing of the batch is written.
    pub(super) async fn embed(&self, batch: &mut Batch, draft: &Draft) -> Result<Option<message::Embedded>, Refusal> {
        let collection = batch.collection().to_owned();
        let Some(embedder) = self.embeddings.get(&collection) else {
            if batch.has_vectors() {
                self.admit_own_vectors(&collection).await?;
            }
            return Ok(None);
        };
        if batch.has_vectors() {
            let description = "must be empty: the server makes the vectors of this collection (`embedding`)";
            return Err(FieldViolation::new("document.chunks.vector", description).into());
        }
        // Nothing is sent for vectors that could not be stored.
        let origin = self.origin(&collection).await?;
        if origin.as_ref().is_some_and(|origin| !fits(embedder, origin)) {
            return Err(VectorStoreError::OtherModel { collection }.into());
        }
        let chunks = embedder.embed_documents(batch.documents_mut(), draft).await?;
        let dimension = match batch.dimension() {
            // A store may make a new collection for texts alone if its first chunks have no vectors, and then never takes any.
            None if origin.is_none() => embedder.dimension(draft).await?,
            dimension => dimension,
        };
        // Without any vector, there is nothing to note in a collection that is there.
        if let Some(dimension) = dimension {
            let model = VectorModel { name: embedder.model(), dimension };
            // A write before this one may take long, and this one runs to its end, too.
            self.documents.note_model(&collection, Some(model)).await?;
        }
        let (model, host) = (embedder.model().to_owned(), embedder.host().unwrap_or_default().to_owned());
        Ok(Some(message::Embedded { model, host, chunks: chunks as u64 }))
    }

    /// Lets the vectors of a writer into a collection that has none of a model.
    async fn admit_own_vectors(&self, collection: &str) -> Result<(), Refusal> {
        match self.origin(collection).await? {
            Some(VectorOrigin::Writers | VectorOrigin::Unnoted) => Ok(()),
            Some(VectorOrigin::NoVectors) | None => Ok(self.documents.note_model(collection, None).await?),
            Some(VectorOrigin::Model(_)) => {
                Err(VectorStoreError::OtherModel { collection: collection.to_owned() }.into())
            }
        }
    }

    /// Tells who made the vectors of a collection; `None` if it is not there yet.
    async fn origin(&self, collection: &str) -> Result<Option<VectorOrigin>, Refusal> {
        match self.within(self.vector_store.vector_origin(collection)).await {
            Err(refusal) if refusal.code() == tonic::Code::NotFound => Ok(None),
            origin => origin.map(Some),
        }
    }
}

/// Returns whether vectors of the model may stand beside those that are there.
fn fits(embedder: &CollectionEmbedder, origin: &VectorOrigin) -> bool {
    match origin {
        VectorOrigin::NoVectors | VectorOrigin::Unnoted => true,
        VectorOrigin::Model(model) => model == embedder.model(),
        VectorOrigin::Writers => false,
    }
}

/// Adds what a further batch sent.
pub(super) fn sum(before: Option<message::Embedded>, batch: Option<message::Embedded>) -> Option<message::Embedded> {
    match (before, batch) {
        (Some(before), Some(batch)) => {
            Some(message::Embedded { chunks: before.chunks.saturating_add(batch.chunks), ..batch })
        }
        (before, batch) => batch.or(before),
    }
}
