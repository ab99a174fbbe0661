//! Carries out the steps of one retrieval. It decides nothing: `plan` says which step is next.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{Retrieval, RoundReport};
use super::embed;
use super::error::{RetrievalError, within};
use super::hydrate::{Hydrated, Hydration, Wanted};
use super::paging::{ByPage, NextPage, Paging};
use super::pass_rates::PassRateKey;
use super::plan::{self, Completion, NoPlan, PlannedSearch, Progress, RetrievalStep, Round, Situation, Tally};
use super::request::RetrievalRequest;
use super::shared::Shared;
use super::sourced::SourceGate;
use super::stages::{Stage, StageTimes};
use super::visibility::{Need, Visibility};
use super::walk::{Expected, Foreknown, Walk};
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::{Candidate, Metadata, Value};
use crate::identity::Principal;
use crate::identity::details::{AuthorizationDetails, OneOf};
use crate::inference::SentRecord;
use crate::language::Object;
use crate::vector_store::{Filter, Narrowing, Query, Rest, Search, SearchSpace, Searched, VectorStoreError};

/// The state of one retrieval, round after round.
pub(super) struct Rounds<'r> {
    shared: &'r Shared,
    request: &'r RetrievalRequest,
    principal: &'r Principal,
    deadline: Instant,
    enforcer: Enforcer<'r>,
    gate: SourceGate<'r>,
    paging: Paging,
    visibility: Visibility<'r>,
    situation: Situation,
    /// The key under which the pass rate is learned; `None` if the visible set is known, since its size gives the
    /// share.
    learned_for: Option<PassRateKey>,
    /// The search of the current round.
    search: Search,
    planned: PlannedSearch,
    begun: Instant,
    found: FoundCandidates,
    /// The part of the current round that the pass rate has learned.
    learned: Tally,
    /// How many candidates of the current round were passed over because their chunks have changed.
    changed: usize,
    repeats: usize,
    answer: Retrieval,
}

/// The candidates of one search.
struct FoundCandidates {
    /// How many candidates there are.
    total: usize,
    /// How many of them were on an earlier page. These are checked again.
    earlier_total: usize,
    /// The candidates that an earlier page returned and that are permitted.
    earlier: Vec<Permitted<Candidate>>,
    /// The candidates of later pages, which are checked as far as the answer needs.
    walk: Walk,
    /// Whether it is certain that nothing scores better.
    exact: bool,
    /// The outlook of a wider search.
    rest: Rest,
}

impl<'r> Rounds<'r> {
    /// Learns what the collection can do and, where that pays, what the principal may see. Then plans
    /// the first search. `record` notes what is sent to a model for the query.
    ///
    /// # Errors
    /// When the collection takes no such query, a backend fails or the deadline passes.
    pub(super) async fn begin(
        shared: &'r Shared,
        request: &'r RetrievalRequest,
        principal: &'r Principal,
        paging: Paging,
        deadline: Instant,
        since_1970: Duration,
        record: &dyn SentRecord,
    ) -> Result<Self, RetrievalError> {
        let mut enforcer = shared.enforcer(principal, request.consistency, deadline, since_1970);
        let (vector_store, collection) = (shared.vector_store.as_ref(), request.collection.as_str());
        let info = within(deadline, vector_store.collection(collection)).await?;
        let query = embed::searchable(shared, request, &info, deadline, record).await?;
        let table = within(deadline, vector_store.guards(collection)).await?;

        let page_size = page_size(request, principal);
        let top_k = page_size.saturating_add(paging.returned());
        let pass_rate_key = shared.pass_rate_key(request);
        let mut visibility = Visibility::new(table, shared.lister(request, deadline));
        let need = if request.needs_visible_set() {
            Need::Required
        } else {
            Need::SavesChecks { top_k, share: shared.pass_rates.get(&pass_rate_key) }
        };
        let mut stages = StageTimes::default();
        stages.measure(Stage::Authorize, visibility.look_ahead(&mut enforcer, need)).await?;
        let replica_lag = shared.authorizer.abilities(request.consistency).lag;
        let learned_for = Some(pass_rate_key).filter(|_| visibility.visible().is_none());
        let candidates_max = shared.config.candidates_max;
        let situation = Situation {
            page_size,
            top_k,
            needs_visible_set: request.needs_visible_set(),
            guards: visibility.guards(),
            visible: visibility.visible(),
            visible_share: visibility.share(vector_store, collection, &info),
            pass_rate: learned_for.as_ref().and_then(|key| shared.pass_rates.get(key)),
            chunks: info.chunks,
            search_costs: info.search_costs,
            checks_are_local: shared.authorizer.abilities(request.consistency).checks_are_local,
            guards_checked_max: shared.config.guards_checked_max,
            candidates_max: info.candidates_max.map_or(candidates_max, |max| max.min(candidates_max)),
        };
        let planned = plan::choose(&situation).map_err(|no_plan| refusal(shared, request, no_plan))?;
        Ok(Self {
            shared,
            request,
            principal,
            deadline,
            enforcer,
            gate: SourceGate::new(shared, principal, request.consistency, deadline, since_1970),
            paging,
            visibility,
            situation,
            learned_for,
            search: search_of_everything(request, query, principal),
            planned,
            begun: Instant::now(),
            found: FoundCandidates::none(),
            learned: Tally::default(),
            changed: 0,
            repeats: 0,
            answer: Retrieval::begun(plan::estimate(&situation), stages, replica_lag),
        })
    }

    /// Returns the step that every retrieval begins with.
    pub(super) fn first_step(&self) -> RetrievalStep {
        RetrievalStep::Search(self.planned)
    }

    /// Returns the facts from which the next step is chosen, beside the round.
    pub(super) fn situation(&self) -> &Situation {
        &self.situation
    }

    /// Begins a round with a new search.
    ///
    /// # Errors
    /// When a backend fails, or its answer cannot be right.
    pub(super) async fn search(&mut self, planned: PlannedSearch) -> Result<Round, RetrievalError> {
        self.end_round();
        self.planned = planned;
        self.search.limit = planned.limit;
        self.search.enough = self.situation.enough(planned.limit);
        // A later search follows if chunks fell out. The store may have counted these chunks for their documents, so it
        // must not count by document again.
        self.search.per_document_max = None;
        if planned.plan.is_within_visible_set() && matches!(self.search.space, SearchSpace::Everything) {
            let finding = self.visibility.space(planned, &mut self.enforcer);
            let space = self.answer.stages.measure(Stage::Authorize, finding).await?;
            // A search that needs the visible set never falls back to everything.
            let unknown = || refusal(self.shared, self.request, NoPlan::GuardsUnknown);
            self.search.space = space.ok_or_else(unknown)?;
            // Only within the visible set may the store count chunks by document. Elsewhere a hidden chunk would take a place
            // of its document.
            self.search.per_document_max = self.request.per_document_max;
        }
        self.find_candidates().await
    }

    /// Begins the same round anew, after a chunk was replaced before it was read.
    ///
    /// # Errors
    /// Like [`Rounds::search`].
    pub(super) async fn search_again(&mut self) -> Result<Round, RetrievalError> {
        self.end_round();
        self.repeats += 1;
        self.find_candidates().await
    }

    /// Checks the candidates of the round, best first, until enough of them are permitted.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub(super) async fn enforce(&mut self) -> Result<Round, RetrievalError> {
        let filling = self.found.walk.fill(self.situation.page_size, &mut self.enforcer);
        let ready = self.answer.stages.measure(Stage::Authorize, filling).await?;
        let tally = self.found.tally();
        self.learn(tally);
        Ok(self.round(tally, Progress::Enforced { tally, ready }))
    }

    /// Reads the best permitted chunks of the round.
    ///
    /// # Errors
    /// When the pages before have changed, the store or a source fails, or a decision could not be made.
    pub(super) async fn read(&mut self) -> Result<Round, RetrievalError> {
        let wanted = Wanted { top_k: self.situation.page_size, per_document_max: self.request.per_document_max };
        let hydration = Hydration {
            vector_store: self.shared.vector_store.as_ref(),
            collection: &self.request.collection,
            search: Some(&self.search),
            principal: self.principal,
            deadline: self.deadline,
        };
        let stages = &mut self.answer.stages;
        // The pages before had no chunk that its source withholds.
        let earlier = std::mem::take(&mut self.found.earlier);
        let sifted = stages.measure(Stage::Authorize, self.gate.sift(hydration.lookup(), earlier)).await?;
        self.found.earlier = sifted.candidates;
        if self.gate.is_spent() {
            let tally = self.found.tally();
            return Ok(self.round(tally, Progress::Spent));
        }
        self.paging.check_unchanged(&self.found.earlier)?;
        let (walk, enforcer) = (&mut self.found.walk, &mut self.enforcer);
        let hydrated = hydration.hydrate(walk, enforcer, &mut self.gate, wanted, stages).await?;
        let Hydrated { chunks, changed, withheld } = hydrated;
        (self.answer.chunks, self.changed) = (chunks, changed);
        let tally = self.found.tally();
        // The plan learns how much the authorizer permits, since the authorizer alone checks candidates.
        self.learn(tally);
        let tally = Tally { permitted: tally.permitted.saturating_sub(withheld), ..tally };
        let (chunks, changed) = (self.answer.chunks.len(), self.changed);
        if self.gate.is_spent() && chunks < self.situation.page_size {
            return Ok(self.round(tally, Progress::Spent));
        }
        Ok(self.round(tally, Progress::Read { tally, chunks, changed }))
    }

    /// Answers with the chunks that the last round read.
    ///
    /// # Errors
    /// When another model decided the pages before, or the model changed during this request.
    pub(super) fn answer(mut self, completion: Completion) -> Result<Retrieval, RetrievalError> {
        self.end_round();
        let Self { request, principal, enforcer, gate, paging, found, changed, mut answer, .. } = self;
        answer.sources = gate.reports();
        paging.check_model(enforcer.models())?;
        answer.decided_by = enforcer.decided_by();
        answer.exact = found.exact && changed == 0;
        answer.completion = completion;
        if completion == Completion::Complete {
            // The details of a token may leave fewer chunks than the caller asked for.
            if answer.chunks.len() < request.top_k {
                answer.completion = Completion::Limited;
            }
            let chunks = u64::try_from(answer.chunks.len()).unwrap_or(u64::MAX);
            let is_spent = principal.chunks_max().is_some_and(|max| max <= chunks);
            match paging.next(enforcer.models(), &found.earlier, &answer.chunks) {
                NextPage::None => {}
                // The approval of this search permits no further chunk.
                NextPage::Token(_) if is_spent => answer.completion = Completion::Limited,
                NextPage::Token(token) => answer.next_page_token = Some(token),
                NextPage::PastLimit => answer.completion = Completion::Limited,
            }
        }
        Ok(answer)
    }

    /// Searches, separates the candidates by page, and checks those that were on a page before.
    async fn find_candidates(&mut self) -> Result<Round, RetrievalError> {
        let Shared { vector_store, guard_indexes, .. } = self.shared;
        let foreknown = self.visibility.foreknow(self.planned, guard_indexes, &self.request.collection).await;
        let searching = within(self.deadline, vector_store.search(&self.search));
        let Searched { candidates, exact, rest } = self.answer.stages.measure(Stage::Search, searching).await?;
        check_candidates(&candidates, self.search.limit)?;
        let ByPage { earlier, later } = self.paging.split(candidates);
        let (total, earlier_total) = (earlier.len() + later.len(), earlier.len());
        let checking = self.enforcer.enforce(earlier);
        let earlier = self.answer.stages.measure(Stage::Authorize, checking).await?;
        let walk = Walk::new(later, foreknown);
        // Each round finds again what the rounds before it found.
        self.found = FoundCandidates { total, earlier_total, earlier, walk, exact, rest };
        (self.learned, self.changed) = (Tally::default(), 0);
        self.answer.chunks.clear();
        self.answer.plan.rounds.push(RoundReport::begun(self.planned, total));
        let at_most = self.found.walk.knows_hidden().then(|| self.found.at_most(&self.enforcer));
        let tally = at_most.unwrap_or_else(|| self.found.tally());
        Ok(self.round(tally, Progress::Searched { at_most }))
    }

    /// Describes how far the round has come, and notes it in the report.
    fn round(&mut self, tally: Tally, progress: Progress) -> Round {
        if let Some(report) = self.answer.plan.rounds.last_mut() {
            report.note(tally, self.begun.elapsed());
        }
        Round {
            search: self.planned,
            candidates: self.found.total,
            rest: self.found.rest,
            is_counted_by_document: self.search.per_document_max.is_some(),
            repeats: self.repeats,
            permits_nothing: self.enforcer.permits_nothing(),
            progress,
        }
    }

    /// Notes what the checks of a round cost, and begins to measure the next one.
    fn end_round(&mut self) {
        let (checks, took) = self.enforcer.take_asked();
        self.visibility.note_checks(checks, took);
        self.begun = Instant::now();
    }

    /// Notes in the pass rate what the search of everything has found since the last note.
    fn learn(&mut self, tally: Tally) {
        let Some(key) = self.learned_for.as_ref().filter(|_| !self.planned.plan.is_within_visible_set()) else {
            return;
        };
        self.shared.pass_rates.note(key, tally.since(self.learned));
        self.learned = tally;
        self.situation.pass_rate = self.shared.pass_rates.get(key);
    }
}

impl FoundCandidates {
    /// Makes the value that stands before the first search.
    fn none() -> Self {
        let foreknown = Foreknown { hidden: None, expected: Expected::NearlyAll };
        let walk = Walk::new(Vec::new(), foreknown);
        Self { total: 0, earlier_total: 0, earlier: Vec::new(), walk, exact: true, rest: Rest::Further }
    }

    /// Counts what was looked at so far.
    fn tally(&self) -> Tally {
        let Tally { candidates, permitted } = self.walk.looked_at();
        Tally {
            candidates: self.earlier_total.saturating_add(candidates),
            permitted: self.earlier.len().saturating_add(permitted),
        }
    }

    /// Counts the most that enforcement can permit: every candidate that is not known to be hidden counts as permitted.
    fn at_most(&self, enforcer: &Enforcer<'_>) -> Tally {
        let permitted = self.earlier.len().saturating_add(self.walk.permitted_at_most(enforcer));
        Tally { candidates: self.total, permitted }
    }
}

/// Returns how many chunks an answer may have: as many as the request asks for, unless the details of the caller's
/// token permit fewer.
fn page_size(request: &RetrievalRequest, principal: &Principal) -> usize {
    let details_max = principal.chunks_max().map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    request.top_k.min(details_max)
}

/// Makes the error that tells the caller why there is no plan.
fn refusal(shared: &Shared, request: &RetrievalRequest, no_plan: NoPlan) -> RetrievalError {
    match no_plan {
        NoPlan::GuardsUnknown => RetrievalError::Unsupported(format!(
            "collection `{}` takes no text queries here: its store cannot list what the user may see; send a vector",
            request.collection
        )),
        NoPlan::TooManyGuards(guards) => RetrievalError::TooManyGuards {
            collection: request.collection.clone(),
            guards,
            guards_max: shared.config.guards_checked_max,
        },
    }
}

/// Checks the candidates of a search.
///
/// INVARIANT (fail closed): the whole answer is refused if it has more candidates than were asked for, a chunk twice,
/// or a score that is not a finite number.
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

/// Returns the search of a request over everything. Each round sets its own limits.
fn search_of_everything(request: &RetrievalRequest, query: Query, principal: &Principal) -> Search {
    Search {
        collection: request.collection.clone(),
        query,
        filter: narrowed_filter(request.filter.as_ref(), principal),
        per_document_max: None,
        space: SearchSpace::Everything,
        // A filter of the caller selects among the visible chunks. Details make the visible set itself smaller, so the
        // chunks that they leave out must not enter any statistic. Otherwise the scores that an agent sees would depend
        // on chunks that only its user may see.
        narrowing: principal.narrowing().map(|details| details as Arc<dyn Narrowing>),
        min_score: request.min_score,
        limit: 0,
        enough: 0,
    }
}

/// Joins the filter of the caller with what the details of its token ask of the metadata of a chunk. This is a hint:
/// each chunk is compared with the details again when it is read.
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
