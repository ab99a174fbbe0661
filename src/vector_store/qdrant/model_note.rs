//! The note of the model that makes the vectors of a collection. It is kept in the metadata of the collection, which Qdrant has since
//! 1.16. An older server forgets it, and then the operator answers for the model.

use std::collections::HashMap;

use qdrant_client::qdrant::{CollectionInfo as QdrantCollectionInfo, UpdateCollection, Value as Payload};

use super::QdrantStore;
use super::collection::no_vector;
use super::fields::string;
use crate::vector_store::{VectorModel, VectorOrigin, VectorStoreError};

/// The key of the note in the metadata of a collection.
const MODEL: &str = "ragward_embedding_model";

impl QdrantStore {
    /// Tells who made the vectors of a collection. A note counts only while there are points.
    ///
    /// # Errors
    /// When the server does not answer, and when the collection is for texts alone. So no text is sent to a model for vectors that
    /// could be neither stored nor searched.
    pub(super) async fn origin(&self, collection: &str) -> Result<VectorOrigin, VectorStoreError> {
        let info = self.info(collection).await?;
        match self.dimension(collection, &info)? {
            Some(_) => Ok(origin_of(&info)),
            None => Err(no_vector(collection)),
        }
    }

    /// Notes the model, and makes the collection if it does not exist. The caller holds the lock for writing.
    pub(super) async fn note(&self, collection: &str, model: Option<VectorModel<'_>>) -> Result<(), VectorStoreError> {
        self.check_own(collection)?;
        let origin = match self.origin(collection).await {
            Err(VectorStoreError::UnknownCollection(_)) => VectorOrigin::NoVectors,
            known => known?,
        };
        match (model, origin) {
            (Some(model), VectorOrigin::Model(noted)) if noted == model.name => Ok(()),
            (_, VectorOrigin::Model(_)) => Err(VectorStoreError::OtherModel { collection: collection.to_owned() }),
            // A note of writers would say no more than none.
            (None, VectorOrigin::NoVectors | VectorOrigin::Writers | VectorOrigin::Unnoted) => Ok(()),
            (Some(model), VectorOrigin::NoVectors | VectorOrigin::Writers | VectorOrigin::Unnoted) => {
                Box::pin(self.prepare(collection, Some(model.dimension))).await?;
                let request = UpdateCollection {
                    collection_name: collection.to_owned(),
                    metadata: HashMap::from([(MODEL.to_owned(), Payload::from(model.name))]),
                    ..UpdateCollection::default()
                };
                let mut collections = self.collections();
                Box::pin(self.call(collection, collections.update(request))).await.map(drop)
            }
        }
    }
}

fn origin_of(info: &QdrantCollectionInfo) -> VectorOrigin {
    let noted = info.config.as_ref().and_then(|config| string(&config.metadata, MODEL));
    match noted {
        _ if info.points_count == Some(0) => VectorOrigin::NoVectors,
        Some(model) => VectorOrigin::Model(model.to_owned()),
        None => VectorOrigin::Unnoted,
    }
}
