//! Carries a request out: plan, search, enforce, refill, hydrate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future;
use tokio::time::{Instant, timeout_at};

use super::answer::{Completion, Rechecked, Retrieval, Round};
use super::decoys::Decoys;
use super::guard_index::GuardIndexes;
use super::hydrate::{Hydrated, Hydration, Wanted};
use super::list_costs::{Kind, ListCosts};
use super::page::{self, Answered, Binding, Earlier, Place};
use super::pass_rates::{Key, PassRates};
use super::plan::{self, NoPlan, Situation};
use super::search_round::{SearchRound, first_search};
use super::stages::{Stage, StageTimes};
use super::visibility::{Lister, Visibility};
use super::{
    FieldViolation, RecheckRequest, RetrievalConfig, RetrievalError, RetrievalParts, RetrievalRequest, within,
};
use crate::authz::enforce::{Enforcer, Permitted};
use crate::authz::{Authorizer, Consistency};
use crate::chunk::Candidate;
use crate::identity::Principal;
use crate::identity::details::{Action, RequestFacts};
use crate::vector_store::{CollectionInfo, Query, SearchSpace, VectorStore};

/// How often a search is repeated because a chunk of the answer was replaced before it was read. After that the answer goes
/// without such chunks: documents that are written all the time must not keep a request going.
const REPEATS_MAX: usize = 2;

/// Answers retrievals and re-checks.
#[derive(Clone)]
pub struct Retriever {
    authorizer: Arc<dyn Authorizer>,
    vector_store: Arc<dyn VectorStore>,
    config: RetrievalConfig,
    pass_rates: Arc<PassRates>,
    guard_indexes: Arc<GuardIndexes>,
    list_costs: Arc<ListCosts>,
    decoys: Arc<Decoys>,
}

impl Retriever {
    /// A retriever over two backends.
    #[must_use]
    pub fn new(authorizer: Arc<dyn Authorizer>, vector_store: Arc<dyn VectorStore>, config: RetrievalConfig) -> Self {
        Self {
            authorizer,
            vector_store,
            config,
            pass_rates: Arc::default(),
            guard_indexes: Arc::default(),
            list_costs: Arc::default(),
            decoys: Arc::default(),
        }
    }

    /// What it was configured with.
    #[must_use]
    pub fn config(&self) -> &RetrievalConfig {
        &self.config
    }

    /// Checks the parts of a request, and answers it like [`Self::retrieve`].
    ///
    /// # Errors
    /// [`RetrievalError::Invalid`] when a part is wrong; otherwise as [`Self::retrieve`].
    pub async fn retrieve_parts(&self, parts: RetrievalParts, deadline: Instant) -> Result<Retrieval, RetrievalError> {
        let request = RetrievalRequest::new(parts, self.config.top_k_max).map_err(RetrievalError::Invalid)?;
        self.retrieve(&request, deadline).await
    }

    /// The best chunks that the principal may see.
    ///
    /// # Errors
    /// When a backend fails, the deadline passes or the collection cannot be searched this way. Denial is not an error.
    pub async fn retrieve(&self, request: &RetrievalRequest, deadline: Instant) -> Result<Retrieval, RetrievalError> {
        let collection = request.collection.as_str();
        let vector_store = self.vector_store.as_ref();
        let principal = &request.principal.for_request(&self.facts(Action::Retrieve, collection, &request.query))?;
        let top_k = top_k(request, principal);
        let (binding, before) = self.page(request, deadline).await?;
        let returned = before.as_ref().map_or(0, |place| place.earlier.returned());
        let info = within(deadline, vector_store.collection(collection)).await?;
        check_query(request, &info)?;
        let table = within(deadline, vector_store.guards(collection)).await?;

        let mut enforcer = self.enforcer(principal, request.consistency, deadline);
        let mut stages = StageTimes::default();
        let rate = self.rate_key(request);
        let mut visibility = Visibility::of(table, self.lister(request, deadline));
        let (needed, share) = (needs_visible_set(&request.query), self.pass_rates.get(&rate));
        let looking = visibility.look_ahead(&enforcer, needed, top_k.saturating_add(returned), share);
        stages.measure(Stage::Authorize, looking).await?;
        let replica_lag = self.authorizer.lag(request.consistency);
        // Where the visible set is known, it tells the share: what one far query finds says little of the next one.
        let learns = visibility.visible().is_none();
        let learned = || self.pass_rates.get(&rate).filter(|_| learns);
        let mut situation = Situation {
            top_k: top_k.saturating_add(returned),
            visible_share: visibility.share(vector_store, collection, &info),
            pass_rate: learned(),
            ..self.situation(request, &info, &visibility)
        };
        let mut plan = plan::choose(&situation).map_err(|no_plan| self.no_plan(request, no_plan))?;
        let mut search = first_search(request, principal, plan.widening().first());
        let mut answer = Retrieval::begun(plan::estimate(&situation), stages, replica_lag);
        let mut repeats = 0;
        loop {
            let started = Instant::now();
            let limit = search.limit;
            search.enough = plan.widening().enough(situation.top_k, limit);
            if plan.is_scoped() && matches!(search.space, SearchSpace::Everything) {
                let scoping = visibility.space(plan, &mut enforcer, situation.pass_rate);
                let space = answer.stages.measure(Stage::Authorize, scoping).await?;
                // A search that needs the visible set never falls back to everything.
                search.space = space.ok_or_else(|| self.no_plan(request, NoPlan::GuardsUnknown))?;
                // Only within the visible set may the store count chunks by document: elsewhere a hidden one would count.
                search.per_document_max = request.per_document_max;
            }
            visibility.find_hidden(plan, &self.guard_indexes, collection).await;
            let (foreknown, before) = (visibility.foreknown(plan, situation.pass_rate), before.as_ref());
            let pages = &self.config.pages;
            let round = SearchRound { vector_store, search: &search, pages, before, foreknown, deadline };
            let mut searched = round.run(&mut enforcer, &mut answer.stages).await?;
            // Each round finds again what those before it found.
            answer.exact = searched.exact;
            // Where it is known ahead that these are too few, a wider search comes before any check.
            let most = searched.most(limit, &enforcer);
            let may_be_wider = |pass_rate: Option<f64>, found| {
                let situation = Situation { pass_rate: pass_rate.or_else(learned), ..situation };
                plan::refill(plan, &situation, found).is_some()
            };
            let is_too_few = foreknown.hidden.is_some()
                && most.permitted < top_k
                && searched.ended.is_none()
                && may_be_wider(most.pass_rate(), most);
            let mut changed = 0;
            if !is_too_few {
                let filling = searched.walk.fill(top_k, &mut enforcer);
                let is_enough = answer.stages.measure(Stage::Authorize, filling).await? >= top_k;
                let found = searched.found(limit);
                let is_last = is_enough || searched.ended.is_some() || !may_be_wider(found.pass_rate(), found);
                if is_last && !enforcer.permits_nothing() {
                    page::check_unchanged(before, &searched.earlier)?;
                    let wanted = Wanted { top_k, per_document_max: request.per_document_max };
                    let hydration = Hydration { vector_store, collection, search: Some(&search), principal, deadline };
                    let hydrating = hydration.hydrate(&mut searched.walk, &mut enforcer, wanted, &mut answer.stages);
                    Hydrated { chunks: answer.chunks, changed } = hydrating.await?;
                }
            }
            visibility.note_checks(enforcer.take_asked());
            answer.model_id = enforcer.model_id();
            let found = if is_too_few { most } else { searched.found(limit) };
            answer.plan.rounds.push(Round::new(plan, found, searched.candidates, started.elapsed()));
            if !plan.is_scoped() && learns {
                self.pass_rates.note(rate.clone(), found.candidates, found.permitted);
            }
            if enforcer.permits_nothing() {
                return Ok(answer.ended(Completion::Exhausted));
            }
            if changed > 0 && repeats < REPEATS_MAX {
                // What a document was replaced with may belong into the answer.
                repeats += 1;
                answer.chunks.clear();
                continue;
            }
            answer.exact &= changed == 0;
            if answer.chunks.len() == top_k {
                return Ok(self.full(request, binding.as_ref(), answer, (before, &searched.earlier)));
            }
            // Later rounds are there because chunks fell out that the store may have counted. One that fell out took a place
            // of its document, so another one may be there for it.
            let may_be_others = search.per_document_max.take().is_some() && answer.chunks.len() < searched.candidates;
            if let Some(completion) = searched.ended.filter(|_| !may_be_others) {
                return Ok(answer.ended(if changed > 0 { Completion::Limited } else { completion }));
            }
            situation.pass_rate = found.pass_rate().or_else(learned);
            let Some(next) = plan::refill(plan, &situation, found) else {
                return Ok(answer.ended(Completion::Limited));
            };
            (plan, search.limit) = next;
        }
    }

    /// Those of the chunks that exist and that the principal may still see.
    ///
    /// INVARIANT (a check for each id): every distinct id costs one check, whether its chunk is there or not and whatever
    /// guard it has, so the work tells nobody which of the ids that are not answered exist.
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
        let (vector_store, collection) = (self.vector_store.as_ref(), request.collection.as_str());
        let finding = within(deadline, vector_store.find(collection, &request.chunk_ids));
        let listing = within(deadline, vector_store.guards(collection));
        let (found, table) = stages.measure(Stage::Search, future::join(finding, listing)).await;
        let found = found?;
        // Guards that cannot be listed are no reason to fail: only decoys are made like them.
        let table = table.inspect_err(|error| tracing::debug!(%error, "decoys are made without guards")).ok().flatten();
        let found_total = found.len();
        let rechecked = |candidates: Vec<Permitted<Candidate>>, model_id, stages| {
            let withheld = found_total.saturating_sub(candidates.len());
            Rechecked { candidates, withheld, model_id, stages }
        };
        let mut enforcer = self.enforcer(principal, request.consistency, deadline);
        let decoys = self.decoys.beside(request, &found, table.as_ref(), &enforcer);
        let mut permitted = stages.measure(Stage::Authorize, enforcer.enforce_beside(found, &decoys)).await?;
        if principal.details_ask_for_chunks() {
            let hydration = Hydration { vector_store, collection, search: None, principal, deadline };
            permitted = hydration.admit(permitted, &mut stages).await?;
        }
        Ok(rechecked(permitted, enforcer.model_id(), stages))
    }

    fn enforcer<'r>(&'r self, principal: &'r Principal, consistency: Consistency, deadline: Instant) -> Enforcer<'r> {
        Enforcer::new(self.authorizer.as_ref(), principal, &self.config.relation, consistency, deadline)
            .at(since_1970())
    }

    fn facts<'r>(&'r self, action: Action, collection: &'r str, query: &'r Query) -> RequestFacts<'r> {
        let query_text = match query {
            Query::Text(text) => Some(text.as_str()),
            // A vector is not in the digest that a token is bound to, and would be free beside the right text.
            Query::Vector(_) | Query::Hybrid { .. } => None,
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

    /// Who tells what the request's principal may see.
    fn lister(&self, request: &RetrievalRequest, deadline: Instant) -> Lister<'_> {
        let is_fresh = match request.consistency {
            Consistency::MinimizeLatency => false,
            Consistency::AtLeastAsFresh(_) | Consistency::HigherConsistency => true,
        };
        Lister {
            costs: &self.list_costs,
            kind: Kind { collection: request.collection.clone(), is_fresh },
            user: request.principal.subject().clone(),
            by_call: self.authorizer.lists_by_call(request.consistency),
            deadline,
        }
    }

    /// What a plan is chosen from, but for numbers of the request.
    fn situation(&self, request: &RetrievalRequest, info: &CollectionInfo, visibility: &Visibility<'_>) -> Situation {
        Situation {
            top_k: 0,
            needs_visible_set: needs_visible_set(&request.query),
            guards: visibility.guards(),
            visible: visibility.visible(),
            visible_share: None,
            pass_rate: None,
            chunks: info.chunks,
            search_costs: info.search_costs,
            checks_are_local: self.authorizer.is_local(request.consistency),
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

    /// What pages of this search are bound to, if there are any, and where the page before ended.
    async fn page(
        &self,
        request: &RetrievalRequest,
        deadline: Instant,
    ) -> Result<(Option<Binding>, Option<Place>), RetrievalError> {
        let binding = match &request.page {
            Some(_) => Binding::new(request, &self.config.relation, &self.model_id(deadline).await?),
            None => None,
        };
        let before = self.page_before(request, binding.as_ref())?;
        Ok((binding, before))
    }

    /// Where the page before ended; `None` for the first one, or without pages.
    fn page_before(
        &self,
        request: &RetrievalRequest,
        binding: Option<&Binding>,
    ) -> Result<Option<Place>, RetrievalError> {
        match (request.page.as_deref(), binding) {
            (None | Some(""), _) => Ok(None),
            // Who gets no pages has no token of one.
            (Some(_), None) => Err(RetrievalError::Invalid(vec![page::refused()])),
            (Some(token), Some(binding)) => {
                let place = self.config.pages.open(token, binding, since_1970());
                place.map(Some).map_err(|violation| RetrievalError::Invalid(vec![violation]))
            }
        }
    }

    /// A full answer. As many as the token's details give is not as many as were wanted.
    fn full(
        &self,
        request: &RetrievalRequest,
        binding: Option<&Binding>,
        mut answer: Retrieval,
        (before, found_again): (Option<&Place>, &[Permitted<Candidate>]),
    ) -> Retrieval {
        let is_all_wanted = answer.chunks.len() == request.top_k;
        answer.completion = if is_all_wanted { Completion::Complete } else { Completion::Limited };
        answer.next_page_token = self.next_page(request, binding, &answer, (before, found_again));
        let returned = before.map_or(0, |before| before.earlier.returned()) + answer.chunks.len();
        if binding.is_some() && returned > page::RETURNED_MAX {
            answer.completion = Completion::Limited;
        }
        answer
    }

    /// The token of the page after a full one. What a token's details leave is counted for each answer, so a principal that
    /// they narrow has no binding, and gets no pages.
    fn next_page(
        &self,
        request: &RetrievalRequest,
        binding: Option<&Binding>,
        answer: &Retrieval,
        (before, found_again): (Option<&Place>, &[Permitted<Candidate>]),
    ) -> Option<String> {
        let (binding, last) = (binding?, answer.chunks.last()?);
        if answer.completion != Completion::Complete {
            return None;
        }
        let pages = &self.config.pages;
        let before = before.map(|before| &before.earlier);
        let returned = before.map_or(0, Earlier::returned).saturating_add(answer.chunks.len());
        if returned > page::RETURNED_MAX {
            return None;
        }
        let chunks = answer.chunks.iter().map(|retrieved| (retrieved.chunk.item().id.as_str(), retrieved.score));
        let earlier = if needs_visible_set(&request.query) {
            let again =
                found_again.iter().map(|candidate| (candidate.item().chunk_id.as_str(), candidate.item().score));
            let answered = Answered::of(again.chain(chunks));
            Earlier::Unchanged { returned: u32::try_from(returned).unwrap_or(u32::MAX), answered }
        } else {
            let mut marks = match before {
                Some(Earlier::Marked(marks)) => marks.clone(),
                Some(Earlier::Unchanged { .. }) | None => BTreeSet::new(),
            };
            marks.extend(chunks.map(|(chunk_id, _)| pages.mark(chunk_id)));
            Earlier::Marked(marks)
        };
        let place = Place { score: last.score, chunk_id: last.chunk.item().id.clone(), earlier };
        Some(pages.seal(&place, binding, since_1970()))
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

/// As many as are wanted and the token's details leave.
fn top_k(request: &RetrievalRequest, principal: &Principal) -> usize {
    let details_max = principal.chunks_max().map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    request.top_k.min(details_max)
}

/// A clock before 1970 is as wrong as can be: then every token counts as made now.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
