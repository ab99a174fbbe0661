//! Carries a request out: plan, search, enforce, refill, hydrate.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roaring::RoaringBitmap;
use tokio::time::{Instant, timeout_at};

use super::page::{self, Answered, Binding, Place};
use super::pass_rates::{Key, PassRates};
use super::plan::{self, Found, NoPlan, Plan, Situation};
use super::stages::{Stage, StageTimes};
use super::{FieldViolation, RecheckRequest, RetrievalConfig, RetrievalError, RetrievalRequest};
use crate::authz::Authorizer;
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::{Candidate, Chunk, Metadata, Value};
use crate::identity::Principal;
use crate::identity::details::{Action, AuthorizationDetails, OneOf, RequestFacts};
use crate::relationship::Object;
use crate::vector_store::{
    CollectionInfo, Filter, GuardTable, Narrowing, Query, Scope, Search, Searched, VectorStore, VectorStoreError,
};

/// Answers retrievals and re-checks.
#[derive(Clone)]
pub struct Retriever {
    authorizer: Arc<dyn Authorizer>,
    vector_store: Arc<dyn VectorStore>,
    config: RetrievalConfig,
    pass_rates: Arc<PassRates>,
}

/// An answer: nothing that was not permitted is in it.
#[derive(Debug)]
pub struct Retrieval {
    /// Best first, ties by id.
    pub chunks: Vec<Retrieved>,
    /// Why there are not more.
    pub completion: Completion,
    /// Whether these are certainly the best.
    pub exact: bool,
    /// Where the next page begins, if pages were asked for and there may be one.
    pub next_page_token: Option<String>,
    /// How it was searched. It counts what is withheld, so it is only for those who may know.
    pub plan: PlanReport,
    /// How far behind the authority the copy of its relationships was that was used, if one was.
    pub replica_lag: Option<Duration>,
    /// How long the stages took.
    pub stages: StageTimes,
}

/// The answer to a re-check.
#[derive(Debug)]
pub struct Rechecked {
    /// Those that exist and that the principal may still see, in the order asked.
    pub candidates: Vec<Permitted<Candidate>>,
    /// How many exist that it may not see. Only for those who may know.
    pub withheld: usize,
    /// How long the stages took.
    pub stages: StageTimes,
}

/// How a retrieval was searched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanReport {
    /// The estimated share of candidates that are permitted, before the first round.
    pub estimate: Option<f64>,
    /// In their order.
    pub rounds: Vec<Round>,
}

/// One step of search and enforcement.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// The plan; it may change from round to round.
    pub plan: &'static str,
    /// How many candidates were asked for.
    pub limit: usize,
    /// How many were found.
    pub candidates: usize,
    /// How many of these are permitted.
    pub permitted: usize,
    /// How long it took.
    pub took: Duration,
}

/// One chunk of an answer.
#[derive(Debug)]
pub struct Retrieved {
    /// The chunk.
    pub chunk: Permitted<Chunk>,
    /// Its score.
    pub score: f32,
}

/// How many chunks of an answer.
#[derive(Clone, Copy)]
struct Wanted {
    top_k: usize,
    /// Of one document.
    per_document_max: Option<NonZeroUsize>,
}

/// How a retrieval ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// As many as were wanted.
    Complete,
    /// There are no more that the principal may see.
    Exhausted,
    /// A work limit was reached; there may be more.
    Limited,
}

impl Retriever {
    /// A retriever over two backends.
    #[must_use]
    pub fn new(authorizer: Arc<dyn Authorizer>, vector_store: Arc<dyn VectorStore>, config: RetrievalConfig) -> Self {
        Self { authorizer, vector_store, config, pass_rates: Arc::default() }
    }

    /// What it was configured with.
    #[must_use]
    pub fn config(&self) -> &RetrievalConfig {
        &self.config
    }

    /// The best chunks that the principal may see.
    ///
    /// # Errors
    /// When a backend fails, the deadline passes or the collection cannot be searched this way. Denial is not an error.
    pub async fn retrieve(&self, request: &RetrievalRequest, deadline: Instant) -> Result<Retrieval, RetrievalError> {
        let collection = request.collection.as_str();
        let principal = &request.principal.for_request(&self.facts(Action::Retrieve, collection, &request.query))?;
        let top_k = top_k(request, principal);
        let binding = match &request.page {
            Some(_) => Some(Binding::new(request, &self.config.relation, &self.model_id(deadline).await?)),
            None => None,
        };
        let before = self.page_before(request, binding.as_ref())?;
        let info = within(deadline, self.vector_store.collection(collection)).await?;
        check_query(request, &info)?;
        let table = within(deadline, self.vector_store.guards(collection)).await?;

        let mut enforcer =
            Enforcer::new(self.authorizer.as_ref(), principal, &self.config.relation, request.consistency, deadline);
        let replica_lag = self.authorizer.lag(request.consistency);
        let mut stages = StageTimes::default();
        let visible = stages.measure(Stage::Authorize, known_visible_set(&enforcer, table.as_ref())).await?;
        let rate = self.rate_key(request);
        let returned = before.as_ref().map_or(0, |place| usize::try_from(place.returned).unwrap_or(usize::MAX));
        let mut situation = Situation {
            top_k: top_k.saturating_add(returned),
            guards: table.as_ref().map(|table| count(&table.in_use)),
            visible: visible.as_ref().map(count),
            pass_rate: self.pass_rates.get(&rate),
            ..self.situation(&request.query, &info)
        };
        let mut plan = plan::choose(&situation).map_err(|no_plan| self.no_plan(request, no_plan))?;
        let mut search = first_search(request, principal, plan.widening().first());
        let mut answer = Retrieval {
            chunks: Vec::new(),
            completion: Completion::Limited,
            exact: true,
            next_page_token: None,
            plan: PlanReport { estimate: plan::estimate(&situation), rounds: Vec::new() },
            stages,
            replica_lag,
        };
        let mut is_scoped = false;
        loop {
            let started = Instant::now();
            if !is_scoped && !matches!(plan, Plan::SearchThenCheck(_)) {
                // A search that needs the visible set never falls back to everything.
                let Some(table) = &table else { return Err(self.no_plan(request, NoPlan::GuardsUnknown)) };
                let listing = visible_positions(plan, visible.as_ref(), &mut enforcer, table);
                let positions = answer.stages.measure(Stage::Authorize, listing).await?;
                search.scope = Scope::Guards { table: table.clone(), positions };
                // Only within the visible set may the store count chunks by document: elsewhere a hidden one would count.
                search.per_document_max = request.per_document_max;
                is_scoped = true;
            }
            let searching = within(deadline, self.vector_store.search(&search));
            let Searched { mut candidates, exact } = answer.stages.measure(Stage::Search, searching).await?;
            // Each round finds again what those before it found.
            answer.exact = exact;
            check_candidates(&candidates, search.limit)?;
            let exhausted = candidates.len() < search.limit;
            page::skip_earlier(before.as_ref(), &mut candidates);
            let all = candidates.len();
            // Later rounds are there because chunks fell out that the store may have counted.
            let counted = search.per_document_max.take().is_some();
            let permitted = answer.stages.measure(Stage::Authorize, enforcer.enforce(candidates)).await?;
            let found = Found { limit: search.limit, candidates: all, permitted: permitted.len() };
            let [earlier, permitted] = page::split(before.as_ref(), permitted);
            answer.plan.rounds.push(round(plan, found, started.elapsed()));
            if !is_scoped {
                self.pass_rates.note(rate.clone(), found.candidates, found.permitted);
                situation.pass_rate = found.pass_rate().or_else(|| self.pass_rates.get(&rate));
            }
            if enforcer.permits_nothing() {
                answer.completion = Completion::Exhausted;
                return Ok(answer);
            }
            let next = plan.widening().next(situation.top_k, found);
            let better = if is_scoped { None } else { better_plan(&situation) };
            let may_go_on = !exhausted && (next.is_some() || better.is_some());
            if permitted.len() >= top_k || !may_go_on {
                page::check_unchanged(before.as_ref(), &earlier)?;
                let wanted = Wanted { top_k, per_document_max: request.per_document_max };
                let hydrating = self.hydrate(principal, collection, permitted, wanted, deadline);
                answer.chunks = answer.stages.measure(Stage::Hydrate, hydrating).await?;
                // A chunk that fell out took a place of its document, so another one may be there for it.
                let exhausted = exhausted && !(counted && answer.chunks.len() < all);
                if answer.chunks.len() == top_k {
                    // As many as the token's details give is not as many as were wanted.
                    answer.completion = if top_k < request.top_k { Completion::Limited } else { Completion::Complete };
                    answer.next_page_token = self.next_page(request, binding.as_ref(), &answer, (returned, &earlier));
                    return Ok(answer);
                }
                if exhausted {
                    answer.completion = Completion::Exhausted;
                    return Ok(answer);
                }
            }
            match (better, next) {
                (Some(better), _) => {
                    plan = better;
                    search.limit = plan.widening().first();
                }
                (None, Some(next)) => search.limit = next,
                (None, None) => return Ok(answer),
            }
        }
    }

    /// Those of the chunks that exist and that the principal may still see.
    ///
    /// # Errors
    /// When a backend fails or the deadline passes.
    pub async fn recheck(&self, request: &RecheckRequest, deadline: Instant) -> Result<Rechecked, RetrievalError> {
        let mut stages = StageTimes::default();
        let facts = RequestFacts {
            action: Action::Recheck,
            collection: &request.collection,
            relation: &self.config.relation,
            query_text: None,
        };
        let principal = &request.principal.for_request(&facts)?;
        let finding = within(deadline, self.vector_store.find(&request.collection, &request.chunk_ids));
        let found = stages.measure(Stage::Search, finding).await?;
        let found_total = found.len();
        let rechecked = |candidates: Vec<Permitted<Candidate>>, stages| {
            let withheld = found_total.saturating_sub(candidates.len());
            Rechecked { candidates, withheld, stages }
        };
        let mut enforcer =
            Enforcer::new(self.authorizer.as_ref(), principal, &self.config.relation, request.consistency, deadline);
        let permitted = stages.measure(Stage::Authorize, enforcer.enforce(found.clone())).await?;
        if !principal.details_ask_for_chunks() {
            return Ok(rechecked(permitted, stages));
        }
        let wanted = Wanted { top_k: permitted.len(), per_document_max: None };
        let hydrating = self.hydrate(principal, &request.collection, permitted, wanted, deadline);
        let read = stages.measure(Stage::Hydrate, hydrating).await?;
        let left: HashSet<&str> = read.iter().map(|retrieved| retrieved.chunk.item().id.as_str()).collect();
        let found: Vec<Candidate> = found.into_iter().filter(|c| left.contains(c.chunk_id.as_str())).collect();
        Ok(rechecked(enforcer.enforce(found).await?, stages))
    }

    fn facts<'r>(&'r self, action: Action, collection: &'r str, query: &'r Query) -> RequestFacts<'r> {
        let query_text = match query {
            Query::Text(text) | Query::Hybrid { text, .. } => Some(text.as_str()),
            Query::Vector(_) => None,
        };
        RequestFacts { action, collection, relation: &self.config.relation, query_text }
    }

    /// What a pass rate is learned for.
    fn rate_key(&self, request: &RetrievalRequest) -> Key {
        Key {
            subject: request.principal.subject().clone(),
            relation: self.config.relation.clone(),
            collection: request.collection.clone(),
            is_filtered: request.filter.is_some(),
        }
    }

    /// What does not depend on the principal.
    fn situation(&self, query: &Query, info: &CollectionInfo) -> Situation {
        Situation {
            top_k: 0,
            needs_visible_set: needs_visible_set(query),
            guards: None,
            visible: None,
            pass_rate: None,
            indexed_chunks: Some(info.chunks).filter(|_| !info.exact),
            scope_is_cheap: info.scope_is_cheap,
            checks_are_local: self.authorizer.is_local(),
            guards_checked_max: self.config.guards_checked_max,
            candidates_max: info
                .candidates_max
                .map_or(self.config.candidates_max, |max| max.min(self.config.candidates_max)),
        }
    }

    async fn model_id(&self, deadline: Instant) -> Result<String, RetrievalError> {
        match timeout_at(deadline, self.authorizer.model_id()).await {
            Ok(model_id) => Ok(model_id?),
            Err(_elapsed) => Err(RetrievalError::DeadlineExceeded),
        }
    }

    /// Where the page before ended; `None` for the first one, or without pages.
    fn page_before(
        &self,
        request: &RetrievalRequest,
        binding: Option<&Binding>,
    ) -> Result<Option<Place>, RetrievalError> {
        match (request.page.as_deref(), binding) {
            (None | Some(""), _) | (_, None) => Ok(None),
            (Some(token), Some(binding)) => {
                let place = self.config.pages.open(token, binding, since_1970());
                place.map(Some).map_err(|violation| RetrievalError::Invalid(vec![violation]))
            }
        }
    }

    /// The token of the page after a full one. What a token's details leave is counted for each answer, so a principal that
    /// they narrow gets no pages.
    fn next_page(
        &self,
        request: &RetrievalRequest,
        binding: Option<&Binding>,
        answer: &Retrieval,
        (returned, earlier): (usize, &[Permitted<Candidate>]),
    ) -> Option<String> {
        let (binding, last) = (binding?, answer.chunks.last()?);
        if answer.completion != Completion::Complete || request.principal.is_narrowed() {
            return None;
        }
        let answered = || {
            let earlier = earlier.iter().map(|candidate| (candidate.item().chunk_id.as_str(), candidate.item().score));
            let chunks = answer.chunks.iter().map(|retrieved| (retrieved.chunk.item().id.as_str(), retrieved.score));
            Answered::of(earlier.chain(chunks))
        };
        let place = Place {
            score: last.score,
            chunk_id: last.chunk.item().id.clone(),
            returned: u32::try_from(returned.saturating_add(answer.chunks.len())).unwrap_or(u32::MAX),
            answered: needs_visible_set(&request.query).then(answered),
        };
        Some(self.config.pages.seal(&place, binding, since_1970()))
    }

    fn no_plan(&self, request: &RetrievalRequest, no_plan: NoPlan) -> RetrievalError {
        match no_plan {
            NoPlan::GuardsUnknown => RetrievalError::Unsupported(format!(
                "collection `{}` takes no text queries here: its store cannot list what the user may see; send a vector",
                request.collection
            )),
            NoPlan::TooManyGuards(guards) => RetrievalError::TooManyGuards {
                collection: request.collection.clone(),
                guards,
                guards_max: self.config.guards_checked_max,
            },
        }
    }

    /// Reads the texts of the best permitted candidates, as many as are wanted. One that is gone or has changed hands since
    /// the search, or whose document has its number, is passed over, and the next one takes its place.
    async fn hydrate(
        &self,
        principal: &Principal,
        collection: &str,
        permitted: Vec<Permitted<Candidate>>,
        Wanted { top_k, per_document_max }: Wanted,
        deadline: Instant,
    ) -> Result<Vec<Retrieved>, RetrievalError> {
        let mut ledger = principal.ledger();
        let mut of_document: HashMap<String, usize> = HashMap::new();
        let mut hydrated: Vec<Retrieved> = Vec::with_capacity(top_k.min(permitted.len()));
        let mut waiting = permitted.into_iter();
        while hydrated.len() < top_k {
            // Where many may fall out for their document, they are not read one at a time.
            let reads = if per_document_max.is_some() { top_k } else { top_k - hydrated.len() };
            let next: Vec<Permitted<Candidate>> = waiting.by_ref().take(reads).collect();
            if next.is_empty() {
                break;
            }
            let ids: Vec<String> = next.iter().map(|candidate| candidate.item().chunk_id.clone()).collect();
            let chunks = within(deadline, self.vector_store.read(collection, &ids)).await?;
            let mut by_id: HashMap<String, Chunk> = chunks.into_iter().map(|chunk| (chunk.id.clone(), chunk)).collect();
            for candidate in next {
                if hydrated.len() == top_k {
                    break;
                }
                let score = candidate.item().score;
                let chunk = by_id.remove(&candidate.item().chunk_id);
                let document_full = |chunk: &Chunk| {
                    let chunks = of_document.get(&chunk.document_id).copied().unwrap_or_default();
                    per_document_max.is_some_and(|max| chunks >= max.get())
                };
                let chunk = chunk.filter(|chunk| !document_full(chunk));
                if let Some(chunk) = chunk.and_then(|chunk| candidate.hydrate(chunk, &mut ledger)) {
                    *of_document.entry(chunk.item().document_id.clone()).or_default() += 1;
                    hydrated.push(Retrieved { chunk, score });
                }
            }
        }
        Ok(hydrated)
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

/// Whether scores depend on what else the principal may see: on its statistics (BM25), or on its ranks.
fn needs_visible_set(query: &Query) -> bool {
    matches!(query, Query::Text(_) | Query::Hybrid { .. })
}

fn check_query(request: &RetrievalRequest, info: &CollectionInfo) -> Result<(), RetrievalError> {
    let collection = &request.collection;
    let (has_text, vector) = match &request.query {
        Query::Text(_) => (true, None),
        Query::Vector(vector) => (false, Some(("vector.values", vector))),
        Query::Hybrid { vector, .. } => (true, Some(("hybrid.vector.values", vector))),
    };
    if has_text && !info.text_queries {
        let text = format!("collection `{collection}` takes no text queries; send a vector");
        return Err(RetrievalError::Unsupported(text));
    }
    if let (Some((field, vector)), Some(expected)) = (vector, info.dimension)
        && vector.len() != expected
    {
        let description = format!("has {} values, collection `{collection}` has {expected}", vector.len());
        return Err(RetrievalError::Invalid(vec![FieldViolation::new(field, description)]));
    }
    Ok(())
}

fn first_search(request: &RetrievalRequest, principal: &Principal, limit: usize) -> Search {
    Search {
        collection: request.collection.clone(),
        query: request.query.clone(),
        filter: narrowed_filter(request.filter.as_ref(), principal),
        per_document_max: None,
        scope: Scope::Everything,
        narrowing: principal.narrowing().map(|details| details as Arc<dyn Narrowing>),
        min_score: request.min_score,
        limit,
    }
}

async fn known_visible_set(
    enforcer: &Enforcer<'_>,
    table: Option<&GuardTable>,
) -> Result<Option<RoaringBitmap>, RetrievalError> {
    match table {
        Some(table) => Ok(enforcer.known_visible_set(&table.guards, &table.in_use).await?),
        None => Ok(None),
    }
}

/// The guards that a search within the visible set looks at.
async fn visible_positions(
    plan: Plan,
    known: Option<&RoaringBitmap>,
    enforcer: &mut Enforcer<'_>,
    table: &GuardTable,
) -> Result<RoaringBitmap, RetrievalError> {
    match (plan, known) {
        (Plan::VisibleSetSearch(_), Some(visible)) => Ok(visible.clone()),
        _ => Ok(enforcer.visible_set(&table.guards, &table.in_use).await?),
    }
}

fn count(positions: &RoaringBitmap) -> usize {
    usize::try_from(positions.len()).unwrap_or(usize::MAX)
}

/// As many as are wanted and the token's details leave.
fn top_k(request: &RetrievalRequest, principal: &Principal) -> usize {
    let details_max = principal.chunks_max().map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    request.top_k.min(details_max)
}

/// Another plan for a request whose first ones found less than was expected.
fn better_plan(situation: &Situation) -> Option<Plan> {
    match plan::choose(situation) {
        Ok(plan @ (Plan::VisibleSetSearch(_) | Plan::ListThenSearch(_))) => Some(plan),
        Ok(Plan::SearchThenCheck(_)) | Err(NoPlan::GuardsUnknown | NoPlan::TooManyGuards(_)) => None,
    }
}

fn round(plan: Plan, found: Found, took: Duration) -> Round {
    let Found { limit, candidates, permitted } = found;
    Round { plan: plan.name(), limit, candidates, permitted, took }
}

/// A clock before 1970 is as wrong as can be: then every token counts as made now.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
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

/// A call of the vector store, under the deadline of the request.
async fn within<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, VectorStoreError>>,
) -> Result<T, RetrievalError> {
    match timeout_at(deadline, call).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(RetrievalError::DeadlineExceeded),
    }
}

#[cfg(test)]
mod tests;
