//! Describes collections, counts their points, and makes new ones.

use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::{
    CollectionInfo as QdrantCollectionInfo, CountPoints, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder,
    CreateVectorNameRequest, Distance, FieldType, Filter, GetCollectionInfoRequest, KeywordIndexParamsBuilder,
    Modifier, PayloadSchemaType, SparseVectorConfig, SparseVectorCreationConfig, SparseVectorParams, VectorParams,
    VectorParamsBuilder, VectorParamsMap, VectorsConfig, create_vector_name_request, vectors_config,
};

use super::fields::{DOCUMENT_ID, GUARD, POSITION, TEXT_ANALYSIS};
use super::sparse_text::TEXT_VECTOR;
use super::{QdrantStore, filter};
use crate::vector_store::VectorStoreError;
use crate::vector_store::remote::limits::CallLimits;

/// The payload fields that filters name, with the types of their indexes.
const INDEXES: [(&str, FieldType); 3] =
    [(GUARD, FieldType::Keyword), (DOCUMENT_ID, FieldType::Keyword), (POSITION, FieldType::Integer)];

/// A collection that documents can be put into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepared {
    /// The dimension of its vectors; `None` if its points have no vector of the configured name.
    pub(super) dimension: Option<usize>,
    pub(super) limits: CallLimits,
    /// Whether its points have a vector for their texts.
    pub(super) takes_texts: bool,
}

/// Reads the limits of a collection's strict mode. Requests beyond these limits are not made, because Qdrant would
/// refuse them. A search that may have too few candidates because of a limit says so.
pub(super) fn limits_of(info: &QdrantCollectionInfo) -> CallLimits {
    let strict = info.config.as_ref().and_then(|config| config.strict_mode_config.as_ref());
    let Some(strict) = strict.filter(|strict| strict.enabled()) else { return CallLimits::NONE };
    let max = |max: u64| usize::try_from(max).unwrap_or(usize::MAX).max(1);
    CallLimits {
        answer_max: strict.max_query_limit.map_or(usize::MAX, |limit| max(limit.into())),
        values_max: strict.condition_max_size.map_or(usize::MAX, max),
        allows_scans: strict.search_allow_exact.unwrap_or(true),
    }
}

/// The way in which points are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// Counts every point.
    Exact,
    /// Counts from statistics, which is fast and may be wrong while points are moved.
    Approximate,
}

impl Counting {
    /// Counts exactly, where the collection's limits allow that.
    pub(super) fn within(limits: CallLimits) -> Self {
        if limits.allows_scans { Self::Exact } else { Self::Approximate }
    }

    pub(super) fn is_exact(self) -> bool {
        self == Self::Exact
    }
}

impl QdrantStore {
    /// Returns the limits that the last overview tells. Before the first overview a request may be too large, and
    /// Qdrant may refuse it.
    pub(super) fn limits(&self, name: &str) -> CallLimits {
        self.overviews.last_known(name).map_or(CallLimits::NONE, |overview| overview.limits)
    }

    /// Returns how many documents a collection has, or a rough number if exact counts are not allowed. Returns 0 for
    /// the collection of another program, whose points have no positions to count documents by.
    pub(super) async fn count_documents(&self, name: &str, limits: CallLimits) -> Result<u64, VectorStoreError> {
        if !self.layout(name).is_own() {
            return Ok(0);
        }
        self.count_points(name, Some(Filter::must([filter::first_of_document()])), Counting::within(limits)).await
    }

    pub(super) async fn count_points(
        &self,
        name: &str,
        filter: Option<Filter>,
        counting: Counting,
    ) -> Result<u64, VectorStoreError> {
        let request = CountPoints {
            collection_name: name.to_owned(),
            filter,
            exact: Some(counting.is_exact()),
            read_consistency: self.read_consistency(),
            ..CountPoints::default()
        };
        let mut points = self.points();
        Ok(self.call(name, points.count(request)).await?.result.unwrap_or_default().count)
    }

    /// Returns the dimension of the vectors that are searched.
    pub(super) async fn expected_dimension(&self, name: &str) -> Result<Option<usize>, VectorStoreError> {
        self.dimension(name, &self.info(name).await?)
    }

    /// Makes the collection if it does not exist, its vector for texts, and its missing indexes.
    pub(super) async fn prepare(&self, name: &str, dimension: Option<usize>) -> Result<Prepared, VectorStoreError> {
        let info = match self.info(name).await {
            Err(VectorStoreError::UnknownCollection(_)) => {
                self.create(name, dimension).await?;
                self.info(name).await?
            }
            known => known?,
        };
        for (field, field_type) in INDEXES.into_iter().filter(|(field, _)| !info.payload_schema.contains_key(*field)) {
            self.create_index(name, field, field_type).await?;
        }
        let takes_texts = has_text_vector(&info) || self.add_text_vector(name).await?;
        if takes_texts && !info.payload_schema.contains_key(TEXT_ANALYSIS) {
            self.create_mark_index(name).await?;
        }
        Ok(Prepared { dimension: self.dimension(name, &info)?, limits: limits_of(&info), takes_texts })
    }

    /// Gives the points of a collection that an older version made a vector for their texts. Returns whether the server could do
    /// that.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) async fn add_text_vector(&self, name: &str) -> Result<bool, VectorStoreError> {
        let config = SparseVectorCreationConfig { modifier: Some(Modifier::Idf.into()), datatype: None };
        let request = CreateVectorNameRequest {
            collection_name: name.to_owned(),
            wait: Some(true),
            vector_name: TEXT_VECTOR.to_owned(),
            vector_config: Some(create_vector_name_request::VectorConfig::SparseConfig(config)),
            ..CreateVectorNameRequest::default()
        };
        let mut points = self.points();
        match self.call(name, points.create_vector_name(request)).await {
            Ok(_) => Ok(true),
            // An older server cannot do it.
            Err(VectorStoreError::Refused(text)) => {
                tracing::warn!(collection = name, %text, "the collection gets no vector for texts");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the index on the marks of texts. It also serves [`filter::of_no_mark`], which a strict mode may refuse without an
    /// index.
    pub(super) async fn create_mark_index(&self, name: &str) -> Result<(), VectorStoreError> {
        let params = KeywordIndexParamsBuilder::default().prefix(true).build();
        let index = CreateFieldIndexCollectionBuilder::new(name, TEXT_ANALYSIS, FieldType::Keyword)
            .field_index_params(IndexParams::KeywordIndexParams(params))
            .wait(true);
        let mut points = self.points();
        self.call(name, points.create_field_index(index.build())).await?;
        Ok(())
    }

    pub(super) async fn create_index(
        &self,
        name: &str,
        field: &str,
        field_type: FieldType,
    ) -> Result<(), VectorStoreError> {
        let index = CreateFieldIndexCollectionBuilder::new(name, field, field_type).wait(true);
        let mut points = self.points();
        self.call(name, points.create_field_index(index.build())).await?;
        Ok(())
    }

    pub(super) async fn info(&self, name: &str) -> Result<QdrantCollectionInfo, VectorStoreError> {
        let request = GetCollectionInfoRequest { collection_name: name.to_owned() };
        let mut collections = self.collections();
        let answer = self.call(name, collections.get(request)).await?;
        answer.result.ok_or_else(|| VectorStoreError::BadAnswer(format!("no description of collection `{name}`")))
    }

    /// Makes a collection for vectors of this dimension, and for texts. Without a dimension, it is for texts alone.
    async fn create(&self, name: &str, dimension: Option<usize>) -> Result<(), VectorStoreError> {
        let text = SparseVectorParams { modifier: Some(Modifier::Idf.into()), ..SparseVectorParams::default() };
        let texts = SparseVectorConfig { map: [(TEXT_VECTOR.to_owned(), text)].into() };
        let mut request = CreateCollectionBuilder::new(name).sparse_vectors_config(texts);
        if let Some(dimension) = dimension {
            let size = u64::try_from(dimension).unwrap_or(u64::MAX);
            let params = VectorParamsBuilder::new(size, Distance::Cosine).build();
            let config = match self.config.vector_name_of(name) {
                None => vectors_config::Config::Params(params),
                Some(vector) => {
                    vectors_config::Config::ParamsMap(VectorParamsMap { map: [(vector.to_owned(), params)].into() })
                }
            };
            request = request.vectors_config(VectorsConfig { config: Some(config) });
        }
        let mut collections = self.collections();
        // The collection does not exist yet, so its name cannot be checked. Qdrant refuses a name that is an alias.
        let created = self.answer(name, collections.create(request.build())).await;
        match (created, self.info(name).await) {
            // Another process made it at the same time.
            (Ok(_) | Err(_), Ok(_)) => Ok(()),
            (Ok(_), Err(e)) | (Err(e), Err(_)) => Err(e),
        }
    }

    pub(super) fn dimension(&self, name: &str, info: &QdrantCollectionInfo) -> Result<Option<usize>, VectorStoreError> {
        let config = vectors_of(info);
        let vector: Option<&VectorParams> = match (config, self.config.vector_name_of(name)) {
            (Some(vectors_config::Config::Params(params)), None) => Some(params),
            (Some(vectors_config::Config::ParamsMap(map)), Some(vector)) => map.map.get(vector),
            (Some(vectors_config::Config::Params(_)), Some(_))
            | (Some(vectors_config::Config::ParamsMap(_)), None)
            | (None, _) => None,
        };
        let Some(vector) = vector else { return Ok(None) };
        // Other distances have other scales. With some of them the best score is the lowest.
        if vector.distance() != Distance::Cosine || vector.multivector_config.is_some() {
            let text = format!("collection `{name}` must have one vector per point, compared by cosine similarity");
            return Err(VectorStoreError::Unsupported(text));
        }
        match usize::try_from(vector.size) {
            Ok(size) => Ok(Some(size)),
            Err(_) => Err(VectorStoreError::BadAnswer(format!("vectors of {} dimensions", vector.size))),
        }
    }
}

/// Returns whether the points of a collection have a vector for texts.
pub(super) fn has_text_vector(info: &QdrantCollectionInfo) -> bool {
    text_vector(info).is_some_and(|vector| vector.modifier() == Modifier::Idf)
}

/// Returns the settings of the vector for texts, if a collection has it.
pub(super) fn text_vector(info: &QdrantCollectionInfo) -> Option<&SparseVectorParams> {
    let params = info.config.as_ref()?.params.as_ref()?;
    params.sparse_vectors_config.as_ref()?.map.get(TEXT_VECTOR)
}

/// Returns the refusal of vectors where the points have none of the configured name.
pub(super) fn no_vector(collection: &str) -> VectorStoreError {
    VectorStoreError::Unsupported(format!(
        "the points of collection `{collection}` have no vector of this name \
         (`vector_store.qdrant.vector_name`, `vector_store.qdrant.vector_names`)"
    ))
}

/// Returns whether the points of a collection may have vectors beside those of their texts, whatever their names are.
pub(super) fn has_vectors(info: &QdrantCollectionInfo) -> bool {
    match vectors_of(info) {
        None => false,
        Some(vectors_config::Config::Params(_)) => true,
        Some(vectors_config::Config::ParamsMap(map)) => !map.map.is_empty(),
    }
}

fn vectors_of(info: &QdrantCollectionInfo) -> Option<&vectors_config::Config> {
    info.config.as_ref()?.params.as_ref()?.vectors_config.as_ref()?.config.as_ref()
}

/// Returns whether a field has the index that filters and facets on texts need.
pub(super) fn has_keyword_index(info: &QdrantCollectionInfo, field: &str) -> bool {
    info.payload_schema.get(field).is_some_and(|index| index.data_type() == PayloadSchemaType::Keyword)
}
