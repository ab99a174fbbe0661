//! Finds the best chunks of a search space on a server that answers one nearest-neighbour call at a time.
//!
//! One call is usually enough. More calls are made when there are points that must not be returned, when a document has more
//! chunks than are wanted of it, when the guards of a space do not fit one filter, and when an answer is shorter than it
//! should be.

use std::collections::HashSet;
use std::num::NonZeroUsize;

use futures::{StreamExt, TryStreamExt, stream};

use super::hits::{self, CompleteDocuments, Hit};
use super::limits::CallLimits;
use super::space_parts::SpacePart;
use super::{Rest, Search, SearchSpace, Searched, VectorStoreError};

/// How many documents one filter leaves out at most.
const DOCUMENTS_LEFT_OUT_MAX: usize = 1_000;
/// How many calls are made for one part of a space. Each one that widens the search asks for twice as many points, so this is
/// room for 63 unusable points beside each usable one.
const CALLS_PER_PART_MAX: usize = 7;
/// How many points one call asks for, unless more candidates are wanted: an answer must fit a message.
const POINTS_PER_CALL_MAX: usize = 20_000;
/// How many parts of one space are searched at a time.
const PARTS_AT_ONCE: usize = 4;

/// The way in which a server looks for the nearest chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// It walks through its index, which may miss some.
    Index,
    /// It compares every vector.
    Scan,
}

impl Method {
    fn is_scan(self) -> bool {
        self == Self::Scan
    }
}

/// One call to a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct NearestCall<'a> {
    pub(super) part: &'a SpacePart,
    /// The documents that the server leaves out.
    pub(super) without_documents: &'a [String],
    /// The largest number of points in the answer.
    pub(super) limit: usize,
    pub(super) method: Method,
    pub(super) unguarded: Unguarded,
    /// Whether hits name their documents.
    pub(super) by_document: bool,
}

/// The treatment of points that have no guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unguarded {
    /// The server returns them, and they are dropped here. This takes less time, unless there are many.
    Returned,
    /// The server leaves them out.
    LeftOut,
}

/// A server that finds the points nearest to a vector. The vector and the caller's filter are the implementor's.
pub(super) trait NearestPoints: Sync {
    /// The nearest points, best first.
    fn nearest(&self, call: NearestCall<'_>) -> impl Future<Output = Result<NearestAnswer, VectorStoreError>> + Send;
}

/// A point of an answer.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) score: f32,
    /// The chunk, if the point is one with a well-formed guard.
    pub(super) hit: Option<Hit>,
}

/// The answer to one call.
#[derive(Debug)]
pub(super) struct NearestAnswer {
    /// Best first, ties by chunk id.
    hits: Vec<Hit>,
    /// The score of the last point. Hits of the same score may have been cut off.
    worst: f32,
    /// How many points there were, hits or not.
    points: usize,
}

impl NearestAnswer {
    /// Takes an answer to a call for at most `asked` points.
    ///
    /// # Errors
    /// [`VectorStoreError::BadAnswer`] when there are more points than that, when a score is not finite or better than the
    /// one before it, and when a chunk comes twice.
    pub(super) fn checked(points: Vec<Point>, asked: usize) -> Result<Self, VectorStoreError> {
        let bad = |text: String| Err(VectorStoreError::BadAnswer(text));
        if points.len() > asked {
            return bad(format!("{} points, {asked} were asked for", points.len()));
        }
        let count = points.len();
        let mut seen = HashSet::with_capacity(count);
        let mut worst = f32::INFINITY;
        let mut hits = Vec::with_capacity(count);
        for Point { score, hit } in points {
            if !score.is_finite() {
                return bad(format!("a score of {score}"));
            }
            if score > worst {
                return bad("a better score after a worse one".to_owned());
            }
            worst = score;
            let Some(hit) = hit else { continue };
            if !seen.insert(hit.candidate.chunk_id.clone()) {
                return bad(format!("chunk `{}` twice", hit.candidate.chunk_id));
            }
            hits.push(hit);
        }
        hits::rank(&mut hits);
        Ok(Self { hits, worst, points: count })
    }
}

/// A search on a server, with the facts that are known before it.
#[derive(Clone, Copy)]
pub(super) struct ServerSearch<'a> {
    pub(super) search: &'a Search,
    pub(super) limits: CallLimits,
    /// How many guards one filter names at most.
    pub(super) guards_per_filter_max: usize,
    /// How many chunks the search space holds, as far as that is known.
    pub(super) chunks: Option<u64>,
    /// A space of at most so many chunks is scanned: there an index is slow as well, and loses most of what it should find.
    pub(super) scanned_chunks_max: u64,
    /// How larger spaces are searched, and the whole collection.
    pub(super) method: Method,
    /// Whether the caller's filter may leave out chunks of the space.
    pub(super) is_filtered: bool,
}

impl ServerSearch<'_> {
    /// Searches.
    ///
    /// # Errors
    /// When the server fails, answers wrongly, or has too many points with a malformed guard.
    pub(super) async fn run(&self, server: &impl NearestPoints) -> Result<Searched, VectorStoreError> {
        let search = self.search;
        if search.limit == 0 {
            return Ok(Searched { rest: Rest::Further, ..Searched::NOTHING });
        }
        let parts = SpacePart::of(&search.space, self.guards_per_filter_max.min(self.limits.values_max));
        let mut rounds = self.rounds(parts.len());
        let mut found = rounds.search_all(server, &parts).await?;
        if found.is_none() {
            rounds.unguarded = Unguarded::LeftOut;
            found = rounds.search_all(server, &parts).await?;
        }
        if found.is_none() && rounds.per_document_max.is_some() {
            // Too many chunks of too few documents. The caller counts again and asks for more.
            rounds.per_document_max = None;
            found = rounds.search_all(server, &parts).await?;
        }
        let Some(parts) = found else {
            let text = format!("collection `{}` has too many points with a malformed guard", search.collection);
            return Err(VectorStoreError::BadAnswer(text));
        };
        let exact = parts.iter().all(|part| part.exact);
        let rests = [Rest::Further, Rest::Unknown];
        let rest = rests.into_iter().find(|rest| parts.iter().any(|part| part.rest == *rest));
        let hits = parts.into_iter().flat_map(|part| part.hits).collect();
        let candidates = hits::merge(hits, search, rounds.per_document_max);
        let rest = if candidates.len() < search.limit { rest.unwrap_or(Rest::Nothing) } else { Rest::Further };
        Ok(Searched { candidates, exact, rest })
    }

    fn rounds(&self, parts: usize) -> Rounds<'_> {
        let is_small = !matches!(self.search.space, SearchSpace::Everything)
            && self.chunks.is_some_and(|chunks| chunks <= self.scanned_chunks_max);
        let is_whole = parts == 1 && !self.is_filtered;
        Rounds {
            search: self.search,
            limits: self.limits,
            method: if self.limits.allows_scans && is_small { Method::Scan } else { self.method },
            per_document_max: self.search.per_document_max,
            unguarded: Unguarded::Returned,
            points: self.chunks.filter(|_| is_whole).and_then(|chunks| usize::try_from(chunks).ok()),
            enough: if parts == 1 { self.search.enough.min(self.search.limit) } else { self.search.limit },
        }
    }
}

/// The best of one part of a space.
#[derive(Debug)]
struct PartFound {
    hits: Vec<Hit>,
    /// Whether all of it comes from scans.
    exact: bool,
    /// The outlook for a wider search of the part.
    rest: Rest,
}

/// The calls for each part of a space.
struct Rounds<'a> {
    search: &'a Search,
    limits: CallLimits,
    method: Method,
    per_document_max: Option<NonZeroUsize>,
    unguarded: Unguarded,
    /// How many points the space holds, where that is known and nothing narrows it.
    points: Option<usize>,
    /// How many hits are enough where more would take another call. Only with one part: the best of several are not known
    /// before each of them has given all.
    enough: usize,
}

impl Rounds<'_> {
    /// The best of each part; `None` when one has too much in the way.
    async fn search_all(
        &self,
        server: &impl NearestPoints,
        parts: &[SpacePart],
    ) -> Result<Option<Vec<PartFound>>, VectorStoreError> {
        let searches: Vec<_> = parts.iter().map(|part| self.search_part(server, part)).collect();
        let found: Vec<Option<PartFound>> = stream::iter(searches).buffered(PARTS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().collect())
    }

    /// The best of one part, at least as many as are wanted unless there are fewer; `None` when too much is in the way.
    ///
    /// An answer with fewer points than were asked for need not be all. A walk through an index may end early, replicas of
    /// which several are read give only what they agree on, and points that are deleted meanwhile leave a gap. So a short
    /// answer is asked for again, as a scan where the collection allows one. It is all once a scan finds no more than the
    /// answer before it, or as many points as the overview counted. `min_score` is not sent to the server, since it would
    /// hide why an answer is short.
    async fn search_part(
        &self,
        server: &impl NearestPoints,
        part: &SpacePart,
    ) -> Result<Option<PartFound>, VectorStoreError> {
        let (limit, per_document_max) = (self.search.limit, self.per_document_max);
        let CallLimits { answer_max, values_max, allows_scans } = self.limits;
        // One point more than is wanted shows whether equal scores were cut off at the end. If they were, more are asked for, so
        // that pages have every one of them.
        let least = if limit < answer_max { limit.saturating_add(1) } else { limit };
        let most = least.max(POINTS_PER_CALL_MAX.min(answer_max));
        let mut asked = least;
        let mut method = self.method;
        // The number of points of the last answer, if that was short.
        let mut short: Option<usize> = None;
        let mut complete = CompleteDocuments::default();
        let mut all_scanned = true;
        for round in 1..=CALLS_PER_PART_MAX {
            let call = NearestCall {
                part,
                without_documents: &complete.document_ids,
                limit: asked,
                method,
                unguarded: self.unguarded,
                by_document: per_document_max.is_some(),
            };
            let NearestAnswer { hits, worst, points } = server.nearest(call).await?;
            // A document whose id the server's filter does not match is found again.
            let hits = hits::first_of_documents(hits::without(hits, &complete.hits), per_document_max);
            let below_min_score = self.search.min_score.is_some_and(|min| f64::from(worst) < min);
            if points < asked && !below_min_score {
                let is_known = complete.document_ids.is_empty() && self.points.is_some_and(|all| all <= points);
                let is_again = method.is_scan() && short.is_some_and(|before| points <= before);
                let is_all = is_again || (is_known && (method.is_scan() || !allows_scans));
                if is_all || round == CALLS_PER_PART_MAX || (short.is_some() && !method.is_scan()) {
                    complete.hits.extend(hits);
                    let exact = all_scanned && method.is_scan() && is_all;
                    let rest = if is_all { Rest::Nothing } else { Rest::Unknown };
                    return Ok(Some(PartFound { hits: complete.hits, exact, rest }));
                }
                short = Some(points);
                if allows_scans {
                    method = Method::Scan;
                }
                asked = asked.saturating_mul(2).min(most);
                continue;
            }
            all_scanned &= method.is_scan();
            let is_certain = |hit: &Hit| below_min_score || hit.candidate.score > worst;
            let all = complete.hits.len() + hits.len();
            let certain = complete.hits.len() + hits.iter().filter(|hit| is_certain(hit)).count();
            let is_last = round == CALLS_PER_PART_MAX || asked == most;
            if below_min_score || certain >= limit || (is_last && all >= limit) {
                complete.hits.extend(hits);
                let rest = if below_min_score { Rest::Nothing } else { Rest::Further };
                return Ok(Some(PartFound { hits: complete.hits, exact: all_scanned, rest }));
            }
            if certain >= self.enough {
                complete.hits.extend(hits.into_iter().filter(is_certain));
                return Ok(Some(PartFound { hits: complete.hits, exact: all_scanned, rest: Rest::Further }));
            }
            if is_last {
                return Ok(None);
            }
            let documents_max = DOCUMENTS_LEFT_OUT_MAX.min(values_max);
            complete.take(hits.into_iter().filter(is_certain), per_document_max, documents_max);
            asked = asked.saturating_mul(2).min(most);
            short = None;
        }
        Ok(None)
    }
}
