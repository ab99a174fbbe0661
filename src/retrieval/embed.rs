//! Makes a query that a store can search for of the one that a caller states.
//!
//! The text of a query is sent to a model once it is certain that the caller may ask, and that the collection takes such a query.
//! Nothing of the answer is kept.

use tokio::time::Instant;

use super::error::{RetrievalError, within};
use super::request::{FieldViolation, RetrievalRequest, StatedQuery};
use super::shared::Shared;
use crate::inference::{CollectionEmbedder, ModelFault, SentRecord};
use crate::vector_store::{CollectionInfo, Query, VectorOrigin, VectorStoreError};

/// Returns the query that a store can search for. `record` notes what is sent to a model.
///
/// # Errors
/// When the collection takes no such query, or its model gives no vector of the collection's dimension.
pub(super) async fn searchable(
    shared: &Shared,
    request: &RetrievalRequest,
    info: &CollectionInfo,
    deadline: Instant,
    record: &dyn SentRecord,
) -> Result<Query, RetrievalError> {
    let collection = request.collection.as_str();
    if request.query.is_by_words() && !info.text_queries {
        let text = format!("collection `{collection}` takes no text queries; send a vector");
        return Err(RetrievalError::Unsupported(text));
    }
    match &request.query {
        StatedQuery::Searchable(query) => {
            check_dimension(query, info, collection)?;
            Ok(query.clone())
        }
        StatedQuery::Semantic(text) => Ok(Query::Vector(vector(shared, request, text, info, deadline, record).await?)),
        StatedQuery::Hybrid(text) => {
            let vector = vector(shared, request, text, info, deadline, record).await?;
            Ok(Query::Hybrid { text: text.clone(), vector })
        }
    }
}

/// Returns the vector of a text, which the model of the collection makes.
async fn vector(
    shared: &Shared,
    request: &RetrievalRequest,
    text: &str,
    info: &CollectionInfo,
    deadline: Instant,
    record: &dyn SentRecord,
) -> Result<Vec<f32>, RetrievalError> {
    let collection = request.collection.as_str();
    let embedder = shared.systems.embeddings.get(collection).ok_or_else(|| no_model(request))?;
    let origin = within(deadline, shared.vector_store.vector_origin(collection)).await?;
    check_origin(embedder, collection, &origin)?;
    let vector = within(deadline, embedder.embed_query(text, record)).await?;
    if vector.is_empty() {
        return Err(no_meaning(request));
    }
    match info.dimension {
        Some(expected) if expected != vector.len() => Err(embedder.failed(ModelFault::Dimension).into()),
        Some(_) | None => Ok(vector),
    }
}

/// Checks that the vectors of a collection were made with its model.
fn check_origin(
    embedder: &CollectionEmbedder,
    collection: &str,
    origin: &VectorOrigin,
) -> Result<(), VectorStoreError> {
    match origin {
        VectorOrigin::NoVectors | VectorOrigin::Unnoted => Ok(()),
        VectorOrigin::Model(model) if model == embedder.model() => Ok(()),
        VectorOrigin::Model(_) | VectorOrigin::Writers => {
            Err(VectorStoreError::OtherModel { collection: collection.to_owned() })
        }
    }
}

/// Checks that the vector of a caller fits the collection.
fn check_dimension(query: &Query, info: &CollectionInfo, collection: &str) -> Result<(), RetrievalError> {
    let (field, vector) = match query {
        Query::Text(_) => return Ok(()),
        Query::Vector(vector) => ("vector.values", vector),
        Query::Hybrid { vector, .. } => ("hybrid.vector.values", vector),
    };
    match info.dimension {
        Some(expected) if expected != vector.len() => {
            let description = format!("has {} values, collection `{collection}` has {expected}", vector.len());
            Err(RetrievalError::Invalid(vec![FieldViolation::new(field, description)]))
        }
        Some(_) | None => Ok(()),
    }
}

/// Returns the refusal of a text of which the model knows nothing.
fn no_meaning(request: &RetrievalRequest) -> RetrievalError {
    let field = if matches!(request.query, StatedQuery::Hybrid(_)) { "hybrid.text" } else { "semantic.text" };
    let description = "has nothing that the collection's model knows; ask with other words, or by `text`";
    RetrievalError::Invalid(vec![FieldViolation::new(field, description)])
}

/// Returns the refusal of a query that a model would have to turn into a vector.
fn no_model(request: &RetrievalRequest) -> RetrievalError {
    let collection = &request.collection;
    match &request.query {
        StatedQuery::Hybrid(_) => {
            let description =
                format!("is missing, and collection `{collection}` has no model (`embedding`) to make one");
            RetrievalError::Invalid(vec![FieldViolation::new("hybrid.vector", description)])
        }
        StatedQuery::Semantic(_) | StatedQuery::Searchable(_) => RetrievalError::Unsupported(format!(
            "collection `{collection}` has no model (`embedding`) that makes vectors of queries; send a text or a vector"
        )),
    }
}
