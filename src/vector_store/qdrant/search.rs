//! Searching: one call as a rule, more when points are in the way that must not be returned.

use std::collections::HashSet;

use qdrant_client::qdrant::{
    Condition, Filter as QdrantFilter, PayloadIncludeSelector, Query as QdrantQuery, QueryPointsBuilder, ScoredPoint,
    SearchParamsBuilder, VectorInput, with_payload_selector::SelectorOptions,
};

use super::QdrantStore;
use super::filter::{self, Clause};
use super::payload::{CHUNK_ID, GUARD, to_candidate};
use crate::chunk::Candidate;
use crate::vector_store::{Query, Scope, Search, VectorStoreError, validation};

/// A longer list of guards is searched in parts, whose results are merged: the best of all are among the best of each.
const GUARDS_PER_CALL_MAX: usize = 10_000;
/// Their names together: names may be long, and a gRPC server takes 4 MiB in one message unless configured otherwise.
const GUARD_BYTES_PER_CALL_MAX: usize = 1 << 20;
/// How often a search is widened past points without a usable guard. Each time asks for twice as many, so this is room
/// for 63 unusable points among each usable one.
const ROUNDS_MAX: usize = 7;

impl QdrantStore {
    pub(super) async fn find_nearest(&self, search: &Search) -> Result<Vec<Candidate>, VectorStoreError> {
        validation::check_query(&search.query)?;
        let vector = match &search.query {
            Query::Vector(vector) => vector,
            Query::Text(_) | Query::Hybrid { .. } => {
                let text = "the Qdrant store takes vector queries only; text queries need the embedded engine";
                return Err(VectorStoreError::Unsupported(text.to_owned()));
            }
        };
        let wanted = match search.filter.as_ref().map_or(Clause::Always, filter::translate) {
            Clause::Always => None,
            Clause::Never => return Ok(Vec::new()),
            Clause::When(condition) => Some(*condition),
        };
        if search.limit == 0 {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for scope in scopes(&search.scope) {
            let conditions: Vec<Condition> = scope.into_iter().chain(wanted.clone()).collect();
            found.extend(self.find_nearest_where(search, vector, conditions).await?);
        }
        found.retain(|candidate| search.min_score.is_none_or(|score| f64::from(candidate.score) >= score));
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.chunk_id.cmp(&b.chunk_id)));
        found.truncate(search.limit);
        Ok(found)
    }

    async fn find_nearest_where(
        &self,
        search: &Search,
        vector: &[f32],
        conditions: Vec<Condition>,
    ) -> Result<Vec<Candidate>, VectorStoreError> {
        let mut asked = search.limit;
        for _ in 0..ROUNDS_MAX {
            let points = self.query(search, vector, conditions.clone(), asked).await?;
            let exhausted = points.len() < asked;
            let mut candidates = account(points, asked)?;
            if exhausted || candidates.len() >= search.limit {
                candidates.truncate(search.limit);
                return Ok(candidates);
            }
            asked = asked.saturating_mul(2);
        }
        let text = format!("collection `{}` has too many points without a well-formed guard", search.collection);
        Err(VectorStoreError::BadAnswer(text))
    }

    async fn query(
        &self,
        search: &Search,
        vector: &[f32],
        conditions: Vec<Condition>,
        limit: usize,
    ) -> Result<Vec<ScoredPoint>, VectorStoreError> {
        let collection = search.collection.as_str();
        let fields = PayloadIncludeSelector { fields: vec![CHUNK_ID.to_owned(), GUARD.to_owned()] };
        let mut request = QueryPointsBuilder::new(collection)
            .query(QdrantQuery::new_nearest(VectorInput::new_dense(vector.to_vec())))
            .limit(u64::try_from(limit).unwrap_or(u64::MAX))
            .params(SearchParamsBuilder::default().exact(self.exact))
            .with_payload(SelectorOptions::Include(fields))
            .with_vectors(false);
        if let Some(score) = search.min_score {
            // Not above it; what is a little below is taken out afterwards.
            #[expect(clippy::cast_possible_truncation, reason = "rounded down below where it was rounded up here")]
            let nearest = score as f32;
            request = request.score_threshold(if f64::from(nearest) > score { nearest.next_down() } else { nearest });
        }
        if let Some(name) = &self.vector_name {
            request = request.using(name.clone());
        }
        if !conditions.is_empty() {
            request = request.filter(QdrantFilter::must(conditions));
        }
        let mut points = self.points();
        match self.call(collection, points.query(request.build())).await {
            Ok(answer) => Ok(answer.result),
            Err(VectorStoreError::Refused(text)) => Err(self.why_refused(collection, vector.len(), text).await),
            Err(e) => Err(e),
        }
    }

    /// Qdrant says in a sentence that a dimension is wrong; the caller is told in numbers.
    async fn why_refused(&self, collection: &str, found: usize, text: String) -> VectorStoreError {
        match self.expected_dimension(collection).await {
            Ok(Some(expected)) if expected != found => {
                VectorStoreError::Dimension { collection: collection.to_owned(), expected, found }
            }
            Ok(_) => VectorStoreError::Refused(text),
            Err(e) => e,
        }
    }
}

/// The conditions of the calls that cover a scope; none for an empty set of guards, so that it never becomes a search
/// over everything.
fn scopes(scope: &Scope) -> Vec<Option<Condition>> {
    match scope {
        Scope::Everything => vec![None],
        Scope::Guards { table, positions } => {
            let guard = |position: u32| table.guards.get(usize::try_from(position).ok()?).map(ToString::to_string);
            let parts = parts(positions.iter().filter_map(guard));
            parts.into_iter().map(|part| Some(filter::guard_in(part))).collect()
        }
    }
}

/// The guards in lists that one call can carry.
fn parts(guards: impl Iterator<Item = String>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for guard in guards {
        bytes += guard.len();
        match parts.last_mut() {
            Some(part) if part.len() < GUARDS_PER_CALL_MAX && bytes <= GUARD_BYTES_PER_CALL_MAX => part.push(guard),
            Some(_) | None => {
                bytes = guard.len();
                parts.push(vec![guard]);
            }
        }
    }
    parts
}

/// The candidates among the points of an answer to `asked` points, which must be plausible as a whole.
fn account(points: Vec<ScoredPoint>, asked: usize) -> Result<Vec<Candidate>, VectorStoreError> {
    let bad = |text: String| Err(VectorStoreError::BadAnswer(text));
    if points.len() > asked {
        return bad(format!("{} points, {asked} were asked for", points.len()));
    }
    let mut seen = HashSet::with_capacity(points.len());
    let mut best_left = f32::INFINITY;
    let mut candidates = Vec::with_capacity(points.len());
    for point in points {
        if !point.score.is_finite() {
            return bad(format!("a score of {}", point.score));
        }
        if point.score > best_left {
            return bad("a better score after a worse one".to_owned());
        }
        best_left = point.score;
        let candidate = to_candidate(point.id.as_ref(), &point.payload, point.score);
        let Some(candidate) = candidate else {
            tracing::debug!(point = ?point.id, "not a chunk");
            tracing::warn!("a point is not a chunk with a well-formed guard; it is not returned, and is told at debug");
            continue;
        };
        if !seen.insert(candidate.chunk_id.clone()) {
            return bad(format!("chunk `{}` twice", candidate.chunk_id));
        }
        candidates.push(candidate);
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_sent_in_parts_that_fit_a_message() {
        let rows = [(0, 10), (1, 10), (10_000, 10), (10_001, 10), (25_000, 40), (5_000, 512)];
        for (count, length) in rows {
            let guards: Vec<String> = (0..count).map(|number| format!("{number:0length$}")).collect();
            let parts = parts(guards.iter().cloned());
            assert_eq!(parts.concat(), guards, "{count} of {length}");
            for part in &parts {
                assert!((1..=GUARDS_PER_CALL_MAX).contains(&part.len()), "{count} of {length}");
                assert!(part.concat().len() <= GUARD_BYTES_PER_CALL_MAX, "{count} of {length}");
            }
        }
    }
}
