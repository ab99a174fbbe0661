//! Searching: one call as a rule, more when points are in the way that must not be returned, when a document has more
//! chunks than are wanted of it, or when the guards of a space do not fit one filter.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use futures::{StreamExt, TryStreamExt, stream};
use qdrant_client::qdrant::{
    Condition, Filter as QdrantFilter, PayloadIncludeSelector, Query as QdrantQuery, QueryPoints, ScoredPoint,
    SearchParams, VectorInput, with_payload_selector::SelectorOptions,
};

use super::QdrantStore;
use super::collection::Limits;
use super::filter::{self, Clause};
use super::layout::Layout;
use crate::chunk::Candidate;
use crate::language::Object;
use crate::vector_store::direction::normalized;
use crate::vector_store::{GuardTable, Query, Rest, Search, SearchSpace, Searched, VectorStoreError, validation};

/// The names of one filter together: they may be long, and a gRPC server takes 4 MiB in one message unless configured
/// otherwise.
const NAME_BYTES_PER_FILTER_MAX: usize = 1 << 20;
/// Documents that one filter leaves out.
const DOCUMENTS_LEFT_OUT_MAX: usize = 1_000;
/// How often a search is widened. Each time asks for twice as many, so this is room for 63 unusable points among each
/// usable one.
const ROUNDS_MAX: usize = 7;
/// Points of one call, unless more candidates are wanted: an answer must fit a message.
const POINTS_PER_CALL_MAX: usize = 20_000;
/// Parts of one space that are searched at a time.
const PARTS_AT_ONCE: usize = 4;

/// A search without its space.
struct Nearest<'a> {
    search: &'a Search,
    vector: &'a [f32],
    /// The caller's filter.
    wanted: Option<Condition>,
    exact: bool,
    per_document_max: Option<NonZeroUsize>,
    /// Whether Qdrant leaves out what has no guard. It is the longer way, so it is taken when such points are in the way.
    guarded_only: bool,
    /// How many points the space holds, where that is known and nothing narrows it.
    points: Option<usize>,
    /// How many hits are enough where the others take another call. Only with one space: the best of several are not known
    /// before each of them has given all.
    enough: usize,
    layout: &'a Layout,
    limits: Limits,
}

#[derive(Clone, Debug, PartialEq)]
struct Hit {
    candidate: Candidate,
    /// Known where chunks are counted by document.
    document_id: Option<String>,
}

/// Of nothing there is nothing better.
fn nothing() -> Searched {
    Searched { candidates: Vec::new(), exact: true, rest: Rest::Nothing }
}

/// What one call found.
#[derive(Debug)]
struct Found {
    /// Best first, ties by chunk id.
    hits: Vec<Hit>,
    /// The score of the last point; hits that equal it may have been cut off.
    worst: f32,
    /// How many points there were, hits or not.
    points: usize,
}

/// The best of one space.
#[derive(Debug)]
struct Part {
    hits: Vec<Hit>,
    /// Whether all of it comes from scans.
    exact: bool,
    /// What a wider search of the space would find.
    rest: Rest,
}

impl QdrantStore {
    pub(super) async fn find_nearest(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        validation::check_query(&search.query)?;
        let vector = match &search.query {
            Query::Vector(vector) => normalized(vector),
            Query::Text(_) | Query::Hybrid { .. } => {
                let text = "the Qdrant store takes vector queries only; text queries need the embedded engine";
                return Err(VectorStoreError::Unsupported(text.to_owned()));
            }
        };
        let layout = self.layout(&search.collection);
        let wanted = search.filter.as_ref().map_or(Clause::Always, |filter| filter::translate(filter, layout));
        let wanted = match wanted {
            Clause::Always => None,
            Clause::Never => return Ok(nothing()),
            Clause::When(condition) => Some(*condition),
        };
        if search.limit == 0 {
            return Ok(Searched { rest: Rest::Further, ..nothing() });
        }
        let limits = self.limits(&search.collection);
        let spaces = self.spaces(layout, &search.space, limits);
        let chunks = self.known_chunks(search);
        let is_small = !matches!(search.space, SearchSpace::Everything)
            && chunks.is_some_and(|chunks| chunks <= self.config.scanned_chunks_max);
        let mut nearest = Nearest {
            search,
            vector: &vector,
            exact: self.config.exact || (limits.scans && is_small),
            per_document_max: search.per_document_max,
            guarded_only: false,
            points: chunks
                .filter(|_| spaces.len() == 1 && wanted.is_none())
                .and_then(|chunks| usize::try_from(chunks).ok()),
            enough: if spaces.len() == 1 { search.enough.min(search.limit) } else { search.limit },
            wanted,
            layout,
            limits,
        };
        let mut found = self.search_scopes(&nearest, &spaces).await?;
        if found.is_none() {
            nearest.guarded_only = true;
            found = self.search_scopes(&nearest, &spaces).await?;
        }
        if found.is_none() && nearest.per_document_max.is_some() {
            // Too many chunks of too few documents: who asked counts again and asks on.
            nearest.per_document_max = None;
            found = self.search_scopes(&nearest, &spaces).await?;
        }
        let Some(parts) = found else {
            let text = format!("collection `{}` has too many points with a malformed guard", search.collection);
            return Err(VectorStoreError::BadAnswer(text));
        };
        let exact = parts.iter().all(|part| part.exact);
        let rests = [Rest::Further, Rest::Unknown];
        let rest = rests.into_iter().find(|rest| parts.iter().any(|part| part.rest == *rest));
        let hits = parts.into_iter().flat_map(|part| part.hits).collect();
        let candidates = merge(hits, search, nearest.per_document_max);
        let candidates: Vec<Candidate> = candidates.into_iter().map(|found| self.writes.dated(found)).collect();
        let rest = if candidates.len() < search.limit { rest.unwrap_or(Rest::Nothing) } else { Rest::Further };
        Ok(Searched { candidates, exact, rest })
    }

    /// How many chunks the space holds, as far as the last overview tells.
    fn known_chunks(&self, search: &Search) -> Option<u64> {
        let overview = self.overviews.last_known(&search.collection)?;
        match &search.space {
            SearchSpace::Everything => Some(overview.info.chunks),
            SearchSpace::Guards { table, positions } => overview.chunks_of(table, positions),
        }
    }

    /// The conditions of the calls that cover a space.
    ///
    /// INVARIANT (nothing visible, nothing found): none for an empty set of guards, so that it never becomes a search over
    /// everything.
    fn spaces(&self, layout: &Layout, space: &SearchSpace, limits: Limits) -> Vec<Option<Condition>> {
        let SearchSpace::Guards { table, positions } = space else { return vec![None] };
        let per_filter = self.config.guards_per_filter_max.min(limits.values_max).max(1);
        let visible = parts(names(table, positions.iter()), per_filter);
        if visible.len() > 1 {
            // What is not in space may be the shorter list.
            let hidden = &*table.in_use - positions;
            let mut hidden = parts(names(table, hidden.iter()), per_filter);
            if hidden.len() <= 1 {
                let hidden = hidden.pop().map(|part| filter::not(filter::guard_in(layout, part)));
                return vec![hidden];
            }
        }
        visible.into_iter().map(|part| Some(filter::guard_in(layout, part))).collect()
    }

    /// What each space holds: the best of all are among the best of each. `None` when one has too much in the way.
    async fn search_scopes(
        &self,
        nearest: &Nearest<'_>,
        spaces: &[Option<Condition>],
    ) -> Result<Option<Vec<Part>>, VectorStoreError> {
        let calls: Vec<_> = spaces.iter().map(|space| self.search_scope(nearest, space.as_ref())).collect();
        let parts: Vec<Option<Part>> = stream::iter(calls).buffered(PARTS_AT_ONCE).try_collect().await?;
        Ok(parts.into_iter().collect())
    }

    /// The best of one space, at least as many as are wanted unless there are fewer.
    ///
    /// Fewer points than were asked for need not be all. A walk through the index may end early, replicas of which several are
    /// read give only what they agree on, and what is deleted meanwhile leaves a gap. So few points are asked for again,
    /// with a scan if the collection takes one, until a scan finds no more than the answer before it.
    async fn search_scope(
        &self,
        nearest: &Nearest<'_>,
        space: Option<&Condition>,
    ) -> Result<Option<Part>, VectorStoreError> {
        let Nearest { search, per_document_max, .. } = *nearest;
        let limit = search.limit;
        let Limits { answer_max, values_max, scans } = nearest.limits;
        // One more shows whether equal scores were cut off at the end.
        let least = if limit < answer_max { limit.saturating_add(1) } else { limit };
        let most = least.max(POINTS_PER_CALL_MAX.min(answer_max));
        let mut asked = least;
        let mut exact = nearest.exact;
        // How many points there were when there were too few.
        let mut few: Option<usize> = None;
        // Chunks of documents of which there are as many as are wanted; they are left out of what follows.
        let mut complete: Vec<Hit> = Vec::new();
        let mut left_out: Vec<String> = Vec::new();
        let mut all_exact = true;
        for round in 1..=ROUNDS_MAX {
            let found = self.search_once(nearest, space, &left_out, asked, exact).await?;
            // A document whose id the filter does not match is found again.
            let hits = first_of_documents(without(found.hits, &complete), per_document_max);
            let below_min_score = search.min_score.is_some_and(|min| f64::from(found.worst) < min);
            if found.points < asked && !below_min_score {
                let is_known = left_out.is_empty() && nearest.points.is_some_and(|points| points <= found.points);
                let is_again = exact && few.is_some_and(|before| found.points <= before);
                let is_all = is_again || (is_known && (exact || !scans));
                if is_all || round == ROUNDS_MAX || (few.is_some() && !exact) {
                    complete.extend(hits);
                    let exact = all_exact && exact && is_all;
                    let rest = if is_all { Rest::Nothing } else { Rest::Unknown };
                    return Ok(Some(Part { hits: complete, exact, rest }));
                }
                few = Some(found.points);
                exact |= scans;
                asked = asked.saturating_mul(2).min(most);
                continue;
            }
            all_exact &= exact;
            let is_certain = |hit: &Hit| below_min_score || hit.candidate.score > found.worst;
            let all = complete.len() + hits.len();
            let certain = complete.len() + hits.iter().filter(|hit| is_certain(hit)).count();
            let is_last = round == ROUNDS_MAX || asked == most;
            if below_min_score || certain >= limit || (is_last && all >= limit) {
                complete.extend(hits);
                let rest = if below_min_score { Rest::Nothing } else { Rest::Further };
                return Ok(Some(Part { hits: complete, exact: all_exact, rest }));
            }
            if certain >= nearest.enough {
                complete.extend(hits.into_iter().filter(is_certain));
                return Ok(Some(Part { hits: complete, exact: all_exact, rest: Rest::Further }));
            }
            if is_last {
                return Ok(None);
            }
            let certain = hits.into_iter().filter(is_certain);
            let documents_max = DOCUMENTS_LEFT_OUT_MAX.min(values_max);
            complete.extend(take_complete(certain, per_document_max, documents_max, &mut left_out));
            asked = asked.saturating_mul(2).min(most);
            few = None;
        }
        Ok(None)
    }

    async fn search_once(
        &self,
        nearest: &Nearest<'_>,
        space: Option<&Condition>,
        left_out: &[String],
        limit: usize,
        exact: bool,
    ) -> Result<Found, VectorStoreError> {
        let Nearest { search, vector, wanted, per_document_max, guarded_only, layout, .. } = nearest;
        let collection = search.collection.as_str();
        let mut fields = layout.candidate_keys();
        fields.extend(per_document_max.map(|_| layout.document_id.key()));
        // Ours and the caller's must both hold, so the caller's can only shrink what is found.
        let must: Vec<Condition> = space.into_iter().chain(wanted).cloned().collect();
        let left_out = filter::of_documents(layout, left_out);
        let unguarded = guarded_only.then(|| Condition::is_empty(layout.guard.key()));
        let must_not: Vec<Condition> = left_out.into_iter().chain(unguarded).collect();
        let is_filtered = !must.is_empty() || !must_not.is_empty();
        let request = QueryPoints {
            collection_name: collection.to_owned(),
            query: Some(QdrantQuery::new_nearest(VectorInput::new_dense(vector.to_vec()))),
            using: self.config.vector_name.clone(),
            filter: is_filtered.then(|| QdrantFilter { must, must_not, ..QdrantFilter::default() }),
            params: Some(SearchParams { exact: Some(exact), ..SearchParams::default() }),
            limit: Some(u64::try_from(limit).unwrap_or(u64::MAX)),
            with_payload: Some(SelectorOptions::Include(PayloadIncludeSelector { fields }).into()),
            with_vectors: Some(false.into()),
            read_consistency: self.read_consistency(),
            ..QueryPoints::default()
        };
        let mut points = self.points();
        match Box::pin(self.call(collection, points.query(request))).await {
            Ok(answer) => account(answer.result, limit, layout, per_document_max.is_some()),
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

fn names(table: &GuardTable, positions: impl Iterator<Item = u32>) -> impl Iterator<Item = &Object> {
    positions.filter_map(|position| table.guards.get(usize::try_from(position).ok()?))
}

/// The guards in lists that one filter can carry.
fn parts<'a>(guards: impl Iterator<Item = &'a Object>, per_filter: usize) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for guard in guards.map(ToString::to_string) {
        bytes += guard.len();
        match parts.last_mut() {
            Some(part) if part.len() < per_filter && bytes <= NAME_BYTES_PER_FILTER_MAX => part.push(guard),
            Some(_) | None => {
                bytes = guard.len();
                parts.push(vec![guard]);
            }
        }
    }
    parts
}

/// The candidates among the points of an answer to `asked` points, which must be plausible as a whole.
fn account(
    points: Vec<ScoredPoint>,
    asked: usize,
    layout: &Layout,
    by_document: bool,
) -> Result<Found, VectorStoreError> {
    let bad = |text: String| Err(VectorStoreError::BadAnswer(text));
    if points.len() > asked {
        return bad(format!("{} points, {asked} were asked for", points.len()));
    }
    let count = points.len();
    let mut seen = HashSet::with_capacity(count);
    let mut worst = f32::INFINITY;
    let mut hits = Vec::with_capacity(count);
    for point in points {
        if !point.score.is_finite() {
            return bad(format!("a score of {}", point.score));
        }
        if point.score > worst {
            return bad("a better score after a worse one".to_owned());
        }
        worst = point.score;
        let Some(candidate) = layout.candidate(point.id.as_ref(), &point.payload, point.score) else {
            tracing::debug!(point = ?point.id, "not a chunk");
            tracing::warn!("a point is not a chunk with a well-formed guard; it is not returned, and is told at debug");
            continue;
        };
        if !seen.insert(candidate.chunk_id.clone()) {
            return bad(format!("chunk `{}` twice", candidate.chunk_id));
        }
        let document_id = if by_document { layout.document_of(&point.payload) } else { None };
        hits.push(Hit { candidate, document_id });
    }
    rank(&mut hits);
    Ok(Found { hits, worst, points: count })
}

/// Best first, ties by chunk id.
fn rank(hits: &mut [Hit]) {
    hits.sort_by(|Hit { candidate: a, .. }, Hit { candidate: b, .. }| {
        b.score.total_cmp(&a.score).then_with(|| a.chunk_id.cmp(&b.chunk_id))
    });
}

/// Those that were not taken before.
fn without(mut hits: Vec<Hit>, taken: &[Hit]) -> Vec<Hit> {
    let taken: HashSet<&str> = taken.iter().map(|hit| hit.candidate.chunk_id.as_str()).collect();
    hits.retain(|hit| !taken.contains(hit.candidate.chunk_id.as_str()));
    hits
}

/// At most so many of each document, the first. What names no document is one of its own.
fn first_of_documents(mut hits: Vec<Hit>, per_document_max: Option<NonZeroUsize>) -> Vec<Hit> {
    let Some(max) = per_document_max else { return hits };
    let mut counts: HashMap<String, usize> = HashMap::new();
    hits.retain(|hit| {
        let Some(document_id) = &hit.document_id else { return true };
        let count = counts.entry(document_id.clone()).or_default();
        *count += 1;
        *count <= max.get()
    });
    hits
}

/// The chunks of those documents that have all that are wanted of them, which are noted.
fn take_complete(
    certain: impl Iterator<Item = Hit>,
    per_document_max: Option<NonZeroUsize>,
    documents_max: usize,
    left_out: &mut Vec<String>,
) -> Vec<Hit> {
    let Some(max) = per_document_max else { return Vec::new() };
    let mut by_document: HashMap<String, Vec<Hit>> = HashMap::new();
    for hit in certain {
        if let Some(document_id) = hit.document_id.clone() {
            by_document.entry(document_id).or_default().push(hit);
        }
    }
    let room = documents_max.saturating_sub(left_out.len());
    let complete = by_document.into_iter().filter(|(_, hits)| hits.len() >= max.get()).take(room);
    let mut taken = Vec::new();
    for (document_id, hits) in complete {
        left_out.push(document_id);
        taken.extend(hits);
    }
    taken
}

/// The best of what the parts found. A chunk that changed hands between two calls may be in both.
fn merge(mut found: Vec<Hit>, search: &Search, per_document_max: Option<NonZeroUsize>) -> Vec<Candidate> {
    found.retain(|hit| search.min_score.is_none_or(|score| f64::from(hit.candidate.score) >= score));
    rank(&mut found);
    let mut seen = HashSet::with_capacity(found.len());
    found.retain(|hit| seen.insert(hit.candidate.chunk_id.clone()));
    let mut found = first_of_documents(found, per_document_max);
    found.truncate(search.limit);
    found.into_iter().map(|hit| hit.candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_sent_in_parts_that_fit_a_message() {
        let rows = [(0, 10), (1, 10), (10_000, 10), (10_001, 10), (25_000, 40), (5_000, 240)];
        for (count, length) in rows {
            let guard = |number: usize| Object::parse(&format!("document:{number:0length$}")).expect("an object");
            let guards: Vec<Object> = (0..count).map(guard).collect();
            let parts = parts(guards.iter(), 10_000);
            let expected: Vec<String> = guards.iter().map(ToString::to_string).collect();
            assert_eq!(parts.concat(), expected, "{count} of {length}");
            for part in &parts {
                assert!((1..=10_000).contains(&part.len()), "{count} of {length}");
                assert!(part.concat().len() <= NAME_BYTES_PER_FILTER_MAX, "{count} of {length}");
            }
        }
    }
}
