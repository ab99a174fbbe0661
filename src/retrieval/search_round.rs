//! One round of a retrieval: a search, and what it found, ready to be checked.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::page::{self, Pages, Place};
use super::plan::Found;
use super::stages::{Stage, StageTimes};
use super::walk::{Foreknown, Walk};
use super::{Completion, RetrievalError, RetrievalRequest, within};
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::{Candidate, Metadata, Value};
use crate::identity::Principal;
use crate::identity::details::{AuthorizationDetails, OneOf};
use crate::language::Object;
use crate::vector_store::{Filter, Narrowing, Rest, Search, SearchSpace, Searched, VectorStore, VectorStoreError};

/// A search, and what is needed to carry it out.
pub(super) struct SearchRound<'a, 'h> {
    pub(super) vector_store: &'a dyn VectorStore,
    pub(super) search: &'a Search,
    pub(super) pages: &'a Pages,
    /// Where the page before ended.
    pub(super) before: Option<&'a Place>,
    /// What is known of what it will find.
    pub(super) foreknown: Foreknown<'h>,
    pub(super) deadline: Instant,
}

/// What a search found.
pub(super) struct Searching<'h> {
    /// How many were found, without those that a page before has for good.
    pub(super) candidates: usize,
    /// How many of these were on a page before, and are checked again.
    pub(super) earlier_candidates: usize,
    /// Whether certainly nothing scores better.
    pub(super) exact: bool,
    /// Permitted, and on a page before.
    pub(super) earlier: Vec<Permitted<Candidate>>,
    /// The others, to be checked as far as the answer needs.
    pub(super) walk: Walk<'h>,
    /// How a retrieval ends that needs more, where a wider search would find no more.
    pub(super) ended: Option<Completion>,
}

impl Searching<'_> {
    /// What was found at most: as if all were permitted that is not known to be hidden.
    pub(super) fn most(&self, limit: usize, enforcer: &Enforcer<'_>) -> Found {
        let permitted = self.earlier.len().saturating_add(self.walk.most(enforcer));
        Found { limit, candidates: self.candidates, permitted }
    }

    /// What was found so far.
    pub(super) fn found(&self, limit: usize) -> Found {
        let candidates = self.earlier_candidates.saturating_add(self.walk.looked_at());
        Found { limit, candidates, permitted: self.earlier.len().saturating_add(self.walk.found()) }
    }
}

impl<'h> SearchRound<'_, 'h> {
    /// Searches, and checks what was on a page before.
    pub(super) async fn run(
        self,
        enforcer: &mut Enforcer<'_>,
        stages: &mut StageTimes,
    ) -> Result<Searching<'h>, RetrievalError> {
        let limit = self.search.limit;
        let searching = within(self.deadline, self.vector_store.search(self.search));
        let Searched { mut candidates, exact, rest } = stages.measure(Stage::Search, searching).await?;
        check_candidates(&candidates, limit)?;
        let ended = match rest {
            Rest::Further => None,
            Rest::Unknown => Some(Completion::Limited),
            Rest::Nothing => Some(Completion::Exhausted),
        };
        self.pages.skip_earlier(self.before, &mut candidates);
        let all = candidates.len();
        let [earlier, later] = page::split(self.before, candidates);
        let earlier_candidates = earlier.len();
        let earlier = stages.measure(Stage::Authorize, enforcer.enforce(earlier)).await?;
        let walk = Walk::new(later, self.foreknown);
        Ok(Searching { candidates: all, earlier_candidates, exact, earlier, walk, ended })
    }
}

/// INVARIANT (fail closed): a search that gives more than was asked for, a chunk twice, or a score that cannot be ranked
/// is no answer.
fn check_candidates(candidates: &[Candidate], limit: usize) -> Result<(), VectorStoreError> {
    if candidates.len() > limit {
        return Err(VectorStoreError::BadAnswer(format!("{} candidates for a limit of {limit}", candidates.len())));
    }
    if candidates.iter().any(|candidate| !candidate.score.is_finite()) {
        return Err(VectorStoreError::BadAnswer("a score is not a finite number".to_owned()));
    }
    let distinct: HashSet<&str> = candidates.iter().map(|candidate| candidate.chunk_id.as_str()).collect();
    if distinct.len() < candidates.len() {
        return Err(VectorStoreError::BadAnswer("a chunk was found twice".to_owned()));
    }
    Ok(())
}

/// The search of a request over everything.
pub(super) fn first_search(request: &RetrievalRequest, principal: &Principal, limit: usize) -> Search {
    Search {
        collection: request.collection.clone(),
        query: request.query.clone(),
        filter: narrowed_filter(request.filter.as_ref(), principal),
        per_document_max: None,
        space: SearchSpace::Everything,
        narrowing: principal.narrowing().map(|details| details as Arc<dyn Narrowing>),
        min_score: request.min_score,
        limit,
        enough: limit,
    }
}

/// The caller's filter, and what the details of its token ask of a chunk's metadata: a hint, since each chunk is compared
/// with the details again when it is read.
fn narrowed_filter(filter: Option<&Filter>, principal: &Principal) -> Option<Filter> {
    let one_of = |OneOf { key, values }: &OneOf| Filter::OneOf {
        key: key.clone(),
        values: values.iter().cloned().map(Value::Text).collect(),
    };
    let Some(conditions) = principal.metadata_conditions() else { return filter.cloned() };
    let of_details =
        Filter::Any(conditions.iter().map(|list| Filter::All(list.iter().map(one_of).collect())).collect());
    Some(Filter::All(filter.cloned().into_iter().chain([of_details]).collect()))
}

impl Narrowing for AuthorizationDetails {
    fn admits(&self, guard: &Object, metadata: &Metadata) -> bool {
        Self::admits(self, guard, metadata)
    }
}
