//! Asks Qdrant what a collection holds: its size, its limits and its guards.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use qdrant_client::qdrant::{CollectionInfo as QdrantCollectionInfo, FacetHit, facet_value::Variant};
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::collection::{Counting, has_keyword_index, has_vectors, limits_of};
use super::{QdrantStore, failed};
use crate::language::Object;
use crate::vector_store::remote::guard_counts::GuardCounts;
use crate::vector_store::remote::limits::CallLimits;
use crate::vector_store::remote::overview::Overview;
use crate::vector_store::remote::text_support::TextSupport;
use crate::vector_store::{CollectionInfo, SearchCosts, VectorStoreError};

/// How long guards are not asked for again if they were too many or did not come in time.
const UNLISTED_FOR: Duration = Duration::from_mins(1);

impl QdrantStore {
    /// Returns the overview of a collection, as fresh as [`super::QdrantConfig::overview_age_max`] asks for.
    pub(super) async fn overview(&self, collection: &str) -> Result<Arc<Overview>, VectorStoreError> {
        let ask = |before: Option<Arc<Overview>>| async move { self.ask(collection, before.as_deref()).await };
        self.overviews.get(collection, ask).await
    }

    async fn ask(&self, collection: &str, before: Option<&Overview>) -> Result<Overview, VectorStoreError> {
        let info = self.info(collection).await?;
        let limits = limits_of(&info);
        let documents = self.count_documents(collection, limits).await?;
        let text = self.text_support(collection, &info, limits).await?;
        let has_unmarked_texts = match text {
            TextSupport::Whole | TextSupport::InParts => self.count_unmarked(collection, Vec::new()).await? > 0,
            TextSupport::Absent | TextSupport::Refused(_) => false,
        };
        let unlisted_until = before.and_then(|before| before.guards_unlisted_until);
        let listed = match unlisted_until.filter(|moment| Instant::now() < *moment) {
            Some(moment) => Listed::NotUntil(moment),
            None => self.list_guards(collection, &info, limits).await?,
        };
        let (guards, guards_unlisted_until) = match listed {
            Listed::Guards(counted) => {
                let before = before.and_then(|before| before.guards.as_ref());
                (Some(GuardCounts::following(before, counted)), None)
            }
            Listed::NotUntil(moment) => (None, Some(moment)),
            Listed::Unknown => (None, None),
        };
        let has_vectors = has_vectors(&info);
        let info = CollectionInfo {
            dimension: self.dimension(collection, &info)?,
            text_queries: text != TextSupport::Absent,
            search_costs: self.search_costs(),
            candidates_max: Some(limits.answer_max).filter(|max| *max < usize::MAX),
            chunks: info.points_count.unwrap_or_default(),
            documents,
        };
        Ok(Overview { info, limits, text, has_unmarked_texts, has_vectors, guards, guards_unlisted_until })
    }

    /// Returns the measured costs of a search among some guards.
    ///
    /// A guard costs a hash look-up for each point that is compared, and a candidate costs the sending of its payload.
    /// The chunks of a search space are scanned, because the index does not help there: under a filter that passes a
    /// tenth of the chunks, a walk of Qdrant's graph finds a tenth of the best.
    fn search_costs(&self) -> SearchCosts {
        let per_chunk = if self.config.exact { 0.0 } else { 1.0 / 32.0 };
        SearchCosts { per_guard: 1.0 / 16.0, per_chunk }
    }

    /// Lists the guards with their numbers of chunks.
    ///
    /// INVARIANT (cut is not known): a list that may lack guards counts as no list.
    async fn list_guards(
        &self,
        collection: &str,
        info: &QdrantCollectionInfo,
        limits: CallLimits,
    ) -> Result<Listed, VectorStoreError> {
        let field = self.layout(collection).guard.key();
        if !has_keyword_index(info, &field) {
            tracing::warn!(collection, field, "no keyword index on the guard; `ragward attach` makes one");
            return Ok(Listed::Unknown);
        }
        let guards_max = self.config.guards_max.min(limits.answer_max.saturating_sub(1));
        let asked = guards_max.saturating_add(1);
        // Only the counts are approximate. All values come, unless the limit cuts them off. For an exact facet Qdrant
        // makes a search for each value, which takes seconds for some thousands.
        let limit = u64::try_from(asked).unwrap_or(u64::MAX);
        let request = self.facet_request(collection, &field, None, limit, Counting::Approximate);
        let mut points = self.points();
        let later = Listed::NotUntil(Instant::now() + UNLISTED_FOR);
        let hits = match timeout(self.config.timeout, points.facet(request)).await {
            Ok(Ok(answer)) => answer.into_inner().hits,
            // The guards do not fit a message, or listing them takes too long, or the server does not know facets.
            Ok(Err(status)) if is_for_good(status.code()) => {
                tracing::warn!(collection, %status, "the guards cannot be listed");
                return Ok(later);
            }
            Ok(Err(status)) => return Err(failed(collection, &status)),
            Err(_elapsed) => {
                tracing::warn!(collection, "the guards were not listed in time");
                return Ok(later);
            }
        };
        if hits.len() > asked {
            return Err(VectorStoreError::BadAnswer(format!("{} guards, {asked} were asked for", hits.len())));
        }
        if hits.len() > guards_max {
            tracing::warn!(collection, guards_max, "more guards than are listed");
            return Ok(later);
        }
        Ok(Listed::Guards(count(hits)?))
    }
}

/// Returns whether asking once more would most likely end the same way. A search may still be answered.
fn is_for_good(code: Code) -> bool {
    matches!(
        code,
        Code::OutOfRange
            | Code::DeadlineExceeded
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

/// The outcome of listing the guards.
enum Listed {
    /// All guards, each with its number of chunks. The numbers are estimates: Qdrant may count a point twice while it moves it.
    Guards(HashMap<Object, u64>),
    /// The guards are not known, and not worth asking for before this moment.
    NotUntil(Instant),
    /// The guards are not known.
    Unknown,
}

/// Takes the well-formed guards of a facet. Points with other guards are never returned.
fn count(hits: Vec<FacetHit>) -> Result<HashMap<Object, u64>, VectorStoreError> {
    let mut counted = HashMap::with_capacity(hits.len());
    for hit in hits {
        let Some(Variant::StringValue(guard)) = hit.value.and_then(|value| value.variant) else {
            return Err(VectorStoreError::BadAnswer("a guard that is not a text".to_owned()));
        };
        let Ok(guard) = Object::parse(&guard) else { continue };
        if let Some(earlier) = counted.insert(guard, hit.count) {
            return Err(VectorStoreError::BadAnswer(format!("a guard twice, with {earlier} and {} chunks", hit.count)));
        }
    }
    Ok(counted)
}
