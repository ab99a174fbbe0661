//! Finds the best chunks of a search space on a server that answers one nearest-neighbour call at a time.
//!
//! One call is usually enough. More calls are made in four cases: some points must not be returned, a document has more
//! chunks than are wanted of it, the guards of a space do not fit one filter, or an answer is shorter than it should
//! be.

use std::collections::HashSet;
use std::num::NonZeroUsize;

use futures::{StreamExt, TryStreamExt, stream};

use super::hits::{self, CompleteDocuments, Hit};
use super::limits::CallLimits;
use super::space_parts::SpacePart;
use crate::vector_store::{Rest, Search, SearchSpace, Searched, VectorStoreError};

/// How many documents one filter leaves out at most.
const DOCUMENTS_LEFT_OUT_MAX: usize = 1_000;
/// How many calls are made for one part of a space. Each call that widens the search asks for twice as many points. So
/// there may be 63 unusable points beside each usable one.
const CALLS_PER_PART_MAX: usize = 7;
/// How many points one call asks for, unless more candidates are wanted: an answer must fit a message.
const POINTS_PER_CALL_MAX: usize = 20_000;
/// How many parts of one space are searched at a time.
const PARTS_AT_ONCE: usize = 4;

/// The answer of a search whose space or filter leaves no chunk.
pub(crate) const NOTHING: Searched = Searched { candidates: Vec::new(), exact: true, rest: Rest::Nothing };

/// The way in which a server looks for the nearest chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
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
pub(crate) struct NearestCall<'a> {
    pub(crate) part: &'a SpacePart,
    /// The documents that the server leaves out.
    pub(crate) without_documents: &'a [String],
    /// The largest number of points in the answer.
    pub(crate) limit: usize,
    pub(crate) method: Method,
    pub(crate) unguarded: Unguarded,
    /// Whether hits name their documents.
    pub(crate) by_document: bool,
}

/// The treatment of points that have no guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unguarded {
    /// The server returns them, and they are dropped here. This takes less time, unless there are many.
    Returned,
    /// The server leaves them out.
    LeftOut,
}

/// A server that finds the points nearest to a vector. The implementor knows the vector and the caller's filter.
pub(crate) trait NearestPoints: Sync {
    /// Returns the nearest points, best first.
    fn nearest(&self, call: NearestCall<'_>) -> impl Future<Output = Result<NearestAnswer, VectorStoreError>> + Send;
}

/// A point of an answer.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) score: f32,
    /// The chunk, if the point is one with a well-formed guard.
    pub(crate) hit: Option<Hit>,
}

/// The answer to one call.
#[derive(Debug)]
pub(crate) struct NearestAnswer {
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
    /// [`VectorStoreError::BadAnswer`] when there are more points than that, when a score is not finite, when a score
    /// is better than the one before it, and when a chunk comes twice.
    pub(crate) fn checked(points: Vec<Point>, asked: usize) -> Result<Self, VectorStoreError> {
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
pub(crate) struct ServerSearch<'a> {
    pub(crate) search: &'a Search,
    pub(crate) limits: CallLimits,
    /// How many guards one filter names at most.
    pub(crate) guards_per_filter_max: usize,
    /// How many chunks the search space holds, as far as that is known.
    pub(crate) chunks: Option<u64>,
    /// A space of at most this many chunks is scanned. An index is slow there as well, and misses most of what it
    /// should find.
    pub(crate) scanned_chunks_max: u64,
    /// The method for larger spaces and for the whole collection.
    pub(crate) method: Method,
    /// Whether the caller's filter may leave out chunks of the space.
    pub(crate) is_filtered: bool,
}

impl ServerSearch<'_> {
    /// Searches.
    ///
    /// # Errors
    /// When the server fails, answers wrongly, or has too many points with a malformed guard.
    pub(crate) async fn run(&self, server: &impl NearestPoints) -> Result<Searched, VectorStoreError> {
        let search = self.search;
        if search.limit == 0 {
            return Ok(Searched { rest: Rest::Further, ..NOTHING });
        }
        let parts = SpacePart::of(&search.space, self.guards_per_filter_max.min(self.limits.values_max));
        let mut searches = self.searches(parts.len());
        let mut found = searches.search_all(server, &parts).await?;
        if found.is_none() {
            searches.unguarded = Unguarded::LeftOut;
            found = searches.search_all(server, &parts).await?;
        }
        if found.is_none() && searches.per_document_max.is_some() {
            // The points hold too many chunks of too few documents. So the search no longer counts by document. The
            // caller counts by document itself, and asks for more.
            searches.per_document_max = None;
            found = searches.search_all(server, &parts).await?;
        }
        let Some(parts) = found else {
            let text = format!("collection `{}` has too many points with a malformed guard", search.collection);
            return Err(VectorStoreError::BadAnswer(text));
        };
        let exact = parts.iter().all(|part| part.exact);
        let rests = [Rest::Further, Rest::Unknown];
        let rest = rests.into_iter().find(|rest| parts.iter().any(|part| part.rest == *rest));
        let hits = parts.into_iter().flat_map(|part| part.hits).collect();
        let candidates = hits::merge(hits, search, searches.per_document_max);
        let rest = if candidates.len() < search.limit { rest.unwrap_or(Rest::Nothing) } else { Rest::Further };
        Ok(Searched { candidates, exact, rest })
    }

    fn searches(&self, parts: usize) -> PartSearches<'_> {
        let is_small = !matches!(self.search.space, SearchSpace::Everything)
            && self.chunks.is_some_and(|chunks| chunks <= self.scanned_chunks_max);
        let is_whole = parts == 1 && !self.is_filtered;
        PartSearches {
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

/// The best hits of one part of a space.
#[derive(Debug)]
struct PartFound {
    hits: Vec<Hit>,
    /// Whether all hits come from scans.
    exact: bool,
    /// The outlook for a wider search of the part.
    rest: Rest,
}

/// Searches each part of a space, call by call.
#[derive(Clone, Copy)]
struct PartSearches<'a> {
    search: &'a Search,
    limits: CallLimits,
    method: Method,
    per_document_max: Option<NonZeroUsize>,
    unguarded: Unguarded,
    /// How many points the space holds, where that is known and no filter leaves any out.
    points: Option<usize>,
    /// How many hits are enough if more would take another call. This is less than the limit only for a space of one
    /// part: the best hits of several parts are known only once each part has returned all of its own.
    enough: usize,
}

impl PartSearches<'_> {
    /// Returns the best hits of each part; `None` when one part has too many unusable points.
    async fn search_all(
        &self,
        server: &impl NearestPoints,
        parts: &[SpacePart],
    ) -> Result<Option<Vec<PartFound>>, VectorStoreError> {
        let searches: Vec<_> = parts.iter().map(|part| self.search_part(server, part)).collect();
        let found: Vec<Option<PartFound>> = stream::iter(searches).buffered(PARTS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().collect())
    }

    /// Returns the best hits of one part, at least as many as are wanted unless there are fewer; `None` when it has too
    /// many unusable points.
    async fn search_part(
        &self,
        server: &impl NearestPoints,
        part: &SpacePart,
    ) -> Result<Option<PartFound>, VectorStoreError> {
        let mut progress = PartProgress {
            calls: 0,
            asked: self.least(),
            method: self.method,
            short: None,
            all_scanned: true,
            complete: CompleteDocuments::default(),
        };
        while progress.calls < CALLS_PER_PART_MAX {
            progress.calls += 1;
            let call = NearestCall {
                part,
                without_documents: &progress.complete.document_ids,
                limit: progress.asked,
                method: progress.method,
                unguarded: self.unguarded,
                by_document: self.per_document_max.is_some(),
            };
            let mut answer = server.nearest(call).await?;
            // The server's filter may fail to match the id of a document. Then the document is found again.
            let new = hits::without(answer.hits, &progress.complete.hits);
            answer.hits = hits::first_of_documents(new, self.per_document_max);
            match self.next_step(&progress, &answer) {
                PartStep::End(ending) => return Ok(Some(self.ended(progress, answer, ending))),
                PartStep::AskAgain => self.ask_again(&mut progress, answer.points),
                PartStep::Widen => self.widen(&mut progress, answer),
                PartStep::GiveUp => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Decides what follows from the last answer.
    ///
    /// An answer with fewer points than were asked for need not be complete. A walk through an index may end early,
    /// several replicas return only what they agree on, and points that are deleted meanwhile leave a gap. So a short
    /// answer is asked for again, as a scan where the collection allows one. An answer is complete once a scan finds no
    /// more points than the answer before it. It is also complete once it has as many points as the overview counted,
    /// unless the collection allows scans and this was none. `min_score` is not sent to the server, because then nobody
    /// would know why an answer is short.
    fn next_step(&self, progress: &PartProgress, answer: &NearestAnswer) -> PartStep {
        let is_scan = progress.method.is_scan();
        let is_last_call = progress.calls == CALLS_PER_PART_MAX;
        let exact = progress.all_scanned && is_scan;
        let end = |hits: Ended, rest: Rest| PartStep::End(Ending { hits, exact, rest });
        if self.is_below_min_score(answer) {
            return end(Ended::WithAll, Rest::Nothing);
        }
        if answer.points < progress.asked {
            let are_as_counted = progress.complete.document_ids.is_empty()
                && self.points.is_some_and(|counted| counted <= answer.points);
            let are_as_before = is_scan && progress.short.is_some_and(|before| answer.points <= before);
            let is_all = are_as_before || (are_as_counted && (is_scan || !self.limits.allows_scans));
            let was_asked_again = progress.short.is_some() && !is_scan;
            if is_all {
                return end(Ended::WithAll, Rest::Nothing);
            }
            let gives_up = is_last_call || was_asked_again;
            if !gives_up {
                return PartStep::AskAgain;
            }
            return PartStep::End(Ending { hits: Ended::WithAll, exact: false, rest: Rest::Unknown });
        }
        let limit = self.search.limit;
        let is_widest = is_last_call || progress.asked == self.most();
        let complete = progress.complete.hits.len();
        let all = complete + answer.hits.len();
        let certain = complete + answer.hits.iter().filter(|hit| self.is_certain(hit, answer)).count();
        if certain >= limit || (is_widest && all >= limit) {
            return end(Ended::WithAll, Rest::Further);
        }
        if certain >= self.enough {
            return end(Ended::WithCertain, Rest::Further);
        }
        if is_widest { PartStep::GiveUp } else { PartStep::Widen }
    }

    fn ended(&self, progress: PartProgress, answer: NearestAnswer, ending: Ending) -> PartFound {
        let mut hits = progress.complete.hits;
        match ending.hits {
            Ended::WithAll => hits.extend(answer.hits),
            Ended::WithCertain => hits.extend(self.certain(answer)),
        }
        PartFound { hits, exact: ending.exact, rest: ending.rest }
    }

    fn ask_again(&self, progress: &mut PartProgress, points: usize) {
        progress.short = Some(points);
        if self.limits.allows_scans {
            progress.method = Method::Scan;
        }
        progress.asked = progress.asked.saturating_mul(2).min(self.most());
    }

    fn widen(&self, progress: &mut PartProgress, answer: NearestAnswer) {
        progress.short = None;
        progress.all_scanned &= progress.method.is_scan();
        let documents_max = DOCUMENTS_LEFT_OUT_MAX.min(self.limits.values_max);
        progress.complete.take(self.certain(answer).into_iter(), self.per_document_max, documents_max);
        progress.asked = progress.asked.saturating_mul(2).min(self.most());
    }

    /// Returns how many points the first call asks for. One point more than wanted shows whether the answer cut off
    /// equal scores at its end. If it did, the next call asks for more points, so that pages have every one of them.
    fn least(&self) -> usize {
        let limit = self.search.limit;
        if limit < self.limits.answer_max { limit.saturating_add(1) } else { limit }
    }

    /// Returns how many points a call asks for at most.
    fn most(&self) -> usize {
        self.least().max(POINTS_PER_CALL_MAX.min(self.limits.answer_max))
    }

    fn is_below_min_score(&self, answer: &NearestAnswer) -> bool {
        self.search.min_score.is_some_and(|min| f64::from(answer.worst) < min)
    }

    /// Returns whether the answer has every hit that scores as well as this one.
    fn is_certain(&self, hit: &Hit, answer: &NearestAnswer) -> bool {
        self.is_below_min_score(answer) || hit.candidate.score > answer.worst
    }

    fn certain(&self, mut answer: NearestAnswer) -> Vec<Hit> {
        let mut hits = std::mem::take(&mut answer.hits);
        hits.retain(|hit| self.is_certain(hit, &answer));
        hits
    }
}

/// How far the calls for one part have come.
struct PartProgress {
    /// How many calls were made.
    calls: usize,
    /// How many points the last call asked for.
    asked: usize,
    /// How the last call searched.
    method: Method,
    /// The number of points of the previous answer, if that was short.
    short: Option<usize>,
    /// Whether all calls before the last widening were scans.
    all_scanned: bool,
    complete: CompleteDocuments,
}

/// The consequence of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PartStep {
    /// The part is searched.
    End(Ending),
    /// The answer is short. A second one tells whether it is complete.
    AskAgain,
    /// Too few hits of the answer can be used, so more points are asked for.
    Widen,
    /// No call can ask for more points than this one did.
    GiveUp,
}

/// The outcome of the calls for one part.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ending {
    hits: Ended,
    /// Whether all hits come from scans.
    exact: bool,
    rest: Rest,
}

/// The hits of the last answer that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All hits count.
    WithAll,
    /// Only hits that score better than the last point count.
    WithCertain,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{Candidate, Written};
    use crate::language::Object;
    use crate::vector_store::Query;

    /// Returns an answer of this many points, all of them hits. Each scores less than the one before, except for the
    /// last two, which score alike.
    fn answer(points: u8) -> NearestAnswer {
        let score = |number: u8| 1.0 - f32::from(number.min(points - 2)) / 100.0;
        let point = |number: u8| {
            let candidate = Candidate {
                chunk_id: format!("{number:03}"),
                guard: Object::parse("document:a").unwrap(),
                score: score(number),
                version: None,
                written: Written::Unknown,
            };
            Point { score: score(number), hit: Some(Hit { candidate, document_id: None }) }
        };
        NearestAnswer::checked((0..points).map(point).collect(), usize::from(points)).unwrap()
    }

    fn search() -> Search {
        Search {
            collection: "c".to_owned(),
            query: Query::Vector(vec![1.0]),
            filter: None,
            space: SearchSpace::Everything,
            narrowing: None,
            min_score: None,
            per_document_max: None,
            limit: 10,
            enough: 5,
        }
    }

    fn part_searches(search: &Search) -> PartSearches<'_> {
        PartSearches {
            search,
            limits: CallLimits::NONE,
            method: Method::Index,
            per_document_max: None,
            unguarded: Unguarded::Returned,
            points: None,
            enough: 10,
        }
    }

    /// The state after the first call of a search.
    fn first(method: Method) -> PartProgress {
        PartProgress {
            calls: 1,
            asked: 11,
            method,
            short: None,
            all_scanned: true,
            complete: CompleteDocuments::default(),
        }
    }

    #[test]
    fn a_step_follows_from_the_answer() {
        let search = search();
        let near = Search { min_score: Some(0.95), ..search.clone() };
        let searches = part_searches(&search);
        let no_scans = CallLimits { allows_scans: false, ..CallLimits::NONE };
        let narrow = CallLimits { answer_max: 10, ..CallLimits::NONE };
        let again = |method| PartProgress { calls: 2, asked: 22, short: Some(6), ..first(method) };
        let all = Ended::WithAll;
        let exact = |rest| PartStep::End(Ending { hits: all, exact: true, rest });
        let approximate = |rest| PartStep::End(Ending { hits: all, exact: false, rest });
        let (index, scan) = (Method::Index, Method::Scan);
        let rows = [
            ("short, by the index", searches, first(index), 6, PartStep::AskAgain),
            ("short, by a scan", searches, first(scan), 6, PartStep::AskAgain),
            ("short again, by a scan", searches, again(scan), 6, exact(Rest::Nothing)),
            ("a scan that finds more", searches, again(scan), 7, PartStep::AskAgain),
            (
                "short again, without scans",
                PartSearches { limits: no_scans, ..searches },
                again(index),
                6,
                approximate(Rest::Unknown),
            ),
            (
                "as counted, by a scan",
                PartSearches { points: Some(6), ..searches },
                first(scan),
                6,
                exact(Rest::Nothing),
            ),
            (
                "as counted, by the index",
                PartSearches { points: Some(6), ..searches },
                first(index),
                6,
                PartStep::AskAgain,
            ),
            (
                "as counted, without scans",
                PartSearches { points: Some(6), limits: no_scans, ..searches },
                first(index),
                6,
                approximate(Rest::Nothing),
            ),
            (
                "short to the last call",
                searches,
                PartProgress { calls: CALLS_PER_PART_MAX, ..again(scan) },
                7,
                approximate(Rest::Unknown),
            ),
            (
                "full, and nothing equal was cut off",
                searches,
                PartProgress { asked: 12, ..first(index) },
                12,
                approximate(Rest::Further),
            ),
            ("full, and equal scores at the end", searches, first(index), 11, PartStep::Widen),
            (
                "full, with enough",
                PartSearches { enough: 9, ..searches },
                first(scan),
                11,
                PartStep::End(Ending { hits: Ended::WithCertain, exact: true, rest: Rest::Further }),
            ),
            (
                "full, and below the lowest score",
                PartSearches { search: &near, ..searches },
                first(scan),
                11,
                exact(Rest::Nothing),
            ),
            (
                "short, and below the lowest score",
                PartSearches { search: &near, ..searches },
                first(index),
                8,
                approximate(Rest::Nothing),
            ),
            (
                "as many as one answer has",
                PartSearches { limits: narrow, ..searches },
                PartProgress { asked: 10, ..first(index) },
                10,
                approximate(Rest::Further),
            ),
        ];
        for (name, searches, progress, points, expected) in rows {
            assert_eq!(searches.next_step(&progress, &answer(points)), expected, "{name}");
        }
    }

    #[test]
    fn points_in_the_way_end_a_search() {
        let search = search();
        let searches = part_searches(&search);
        let in_the_way = NearestAnswer { hits: answer(4).hits, worst: 0.5, points: 10 };
        let narrow = CallLimits { answer_max: 10, ..CallLimits::NONE };
        let searches = PartSearches { limits: narrow, ..searches };
        let progress = PartProgress { asked: 10, ..first(Method::Index) };
        assert_eq!(searches.next_step(&progress, &in_the_way), PartStep::GiveUp, "too many points in the way");
    }
}
