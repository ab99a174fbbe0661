//! Orders the chunks of an answer by a model.
//!
//! Only chunks of the answer are sent: every one of them was permitted, and released by its source. The pages of a search are
//! those of the search itself, so each page is ordered for itself.

use std::collections::BTreeMap;

use tokio::time::{Instant, timeout_at};

use super::answer::{Retrieval, Retrieved};
use super::error::{RetrievalError, within};
use super::request::RetrievalRequest;
use super::shared::Shared;
use crate::chunk::Chunk;
use crate::inference::{OnRerankFailure, SentRecord};

/// One part in this many of the time that is left is kept for the answer, where the order is kept if the model fails. A model that
/// takes all the time would otherwise fail the request, too.
const TIME_KEPT: u32 = 4;

/// Orders the chunks of an answer, if the collection has a model for that and the query has words. `record` notes what is sent.
///
/// # Errors
/// When the model gives no scores that count, unless its settings say that the order is kept then.
pub(super) async fn rerank(
    shared: &Shared,
    request: &RetrievalRequest,
    retrieval: Retrieval,
    deadline: Instant,
    record: &dyn SentRecord,
) -> Result<Retrieval, RetrievalError> {
    let reranker = shared.systems.rerankers.get(&request.collection);
    let (Some(reranker), Some(words)) = (reranker, request.query.words()) else { return Ok(retrieval) };
    let chunks: Vec<&Chunk> = retrieval.chunks.iter().map(|retrieved| retrieved.chunk.item()).collect();
    let scoring = reranker.scores(words, &chunks, record);
    let scores = match reranker.on_failure() {
        OnRerankFailure::Error => within(deadline, scoring).await?,
        OnRerankFailure::KeepOrder => {
            let scored = timeout_at(before(deadline), scoring).await;
            let scored = scored.inspect_err(|_elapsed| tracing::debug!("a model took too long to order an answer"));
            scored.unwrap_or_else(|_elapsed| Ok(BTreeMap::new()))?
        }
    };
    let Retrieval { chunks, .. } = retrieval;
    Ok(Retrieval { chunks: ordered(chunks, &scores), ..retrieval })
}

/// Returns the moment until which a model may take, so that there is time for an answer without it.
fn before(deadline: Instant) -> Instant {
    let kept = deadline.saturating_duration_since(Instant::now()) / TIME_KEPT;
    deadline.checked_sub(kept).unwrap_or(deadline)
}

/// Puts the chunks that have a score into the order of their scores, best first. The others keep their places, and so do chunks of
/// equal score among each other.
fn ordered(chunks: Vec<Retrieved>, scores: &BTreeMap<usize, f64>) -> Vec<Retrieved> {
    let mut best_first: Vec<(usize, f64)> = scores.iter().map(|(place, score)| (*place, *score)).collect();
    best_first.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let mut best_first = best_first.into_iter().map(|(place, _)| place);
    let mut waiting: Vec<Option<Retrieved>> = chunks.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(waiting.len());
    for place in 0..waiting.len() {
        let from = if scores.contains_key(&place) { best_first.next() } else { Some(place) };
        let taken = from.and_then(|from| waiting.get_mut(from)).and_then(Option::take);
        let rerank_score = from.and_then(|from| scores.get(&from)).copied();
        ordered.extend(taken.map(|retrieved| Retrieved { rerank_score, ..retrieved }));
    }
    ordered
}
