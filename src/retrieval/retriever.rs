//! Carries a request out: plan, search, enforce, refill, hydrate.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::account::{Account, Stage};
use super::plan::{self, NoPlan, Plan, Situation};
use super::{FieldViolation, RecheckRequest, RetrievalConfig, RetrievalError, RetrievalRequest};
use crate::authz::Authorizer;
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::{Candidate, Chunk};
use crate::vector_store::{CollectionInfo, Query, Scope, Search, VectorStore, VectorStoreError};

/// Answers retrievals and re-checks.
#[derive(Clone)]
pub struct Retriever {
    authorizer: Arc<dyn Authorizer>,
    vector_store: Arc<dyn VectorStore>,
    config: RetrievalConfig,
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
    /// How it came about.
    pub account: Account,
}

/// The answer to a re-check.
#[derive(Debug)]
pub struct Rechecked {
    /// Those that the principal may still see.
    pub candidates: Vec<Permitted<Candidate>>,
    /// How it came about.
    pub account: Account,
}

/// One chunk of an answer.
#[derive(Debug)]
pub struct Retrieved {
    /// The chunk.
    pub chunk: Permitted<Chunk>,
    /// Its score.
    pub score: f32,
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
        Self { authorizer, vector_store, config }
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
        let mut account = self.account().await;
        let planning = async {
            let info = within(deadline, self.vector_store.collection(collection)).await?;
            check_query(request, &info)?;
            Ok::<_, RetrievalError>((info, within(deadline, self.vector_store.guards(collection)).await?))
        };
        let (info, guard_table) = account.stage(Stage::Plan, planning).await?;
        let guards = guard_table.as_ref().map(|table| usize::try_from(table.in_use.len()).unwrap_or(usize::MAX));
        let plan = self.plan(request, guards)?;
        account.plan = Some(plan.name());

        let mut enforcer = Enforcer::new(
            self.authorizer.as_ref(),
            &request.principal,
            &self.config.relation,
            request.consistency,
            deadline,
        );
        let (scope, widening) = match (plan, guard_table) {
            (Plan::VisibleSetSearch(widening), Some(table)) => {
                let positions =
                    account.stage(Stage::Enforce, enforcer.visible_set(&table.guards, &table.in_use)).await?;
                (Scope::Guards { table, positions }, widening)
            }
            // A search that needs the visible set never falls back to everything.
            (Plan::VisibleSetSearch(_), None) => return Err(self.no_plan(request, NoPlan::GuardsUnknown)),
            (Plan::SearchThenCheck(widening), _) => (Scope::Everything, widening),
        };
        let mut search = Search {
            collection: collection.to_owned(),
            query: request.query.clone(),
            filter: request.filter.clone(),
            scope,
            limit: 0,
        };

        let mut answer = Retrieval {
            chunks: Vec::new(),
            completion: Completion::Limited,
            exact: info.exact,
            account: Account::default(),
        };
        let mut rounds = (0..).map_while(|round| widening.candidates(round)).peekable();
        while let Some(limit) = rounds.next() {
            search.limit = limit;
            let searching = within(deadline, self.vector_store.search(&search));
            let candidates = account.stage(Stage::Search, searching).await?;
            check_candidates(&candidates, limit)?;
            let exhausted = candidates.len() < limit;
            let found = candidates.len();
            let permitted = account.stage(Stage::Enforce, enforcer.enforce(candidates)).await?;
            account.rounds += 1;
            account.withheld = found - permitted.len();
            let last = exhausted || rounds.peek().is_none();
            if permitted.len() < request.top_k && !last {
                continue;
            }
            let hydrating = self.hydrate(collection, permitted, request.top_k, deadline);
            answer.chunks = account.stage(Stage::Hydrate, hydrating).await?;
            answer.account = account.clone();
            if answer.chunks.len() == request.top_k {
                answer.completion = Completion::Complete;
                return Ok(answer);
            }
            if exhausted {
                answer.completion = Completion::Exhausted;
                return Ok(answer);
            }
        }
        Ok(answer)
    }

    /// Those of the chunks that exist and that the principal may still see, in the order asked.
    ///
    /// # Errors
    /// When a backend fails or the deadline passes.
    pub async fn recheck(&self, request: &RecheckRequest, deadline: Instant) -> Result<Rechecked, RetrievalError> {
        let mut account = self.account().await;
        let finding = within(deadline, self.vector_store.find(&request.collection, &request.chunk_ids));
        let found = account.stage(Stage::Search, finding).await?;
        let mut enforcer = Enforcer::new(
            self.authorizer.as_ref(),
            &request.principal,
            &self.config.relation,
            request.consistency,
            deadline,
        );
        let found_total = found.len();
        let candidates = account.stage(Stage::Enforce, enforcer.enforce(found)).await?;
        account.withheld = found_total - candidates.len();
        Ok(Rechecked { candidates, account })
    }

    async fn account(&self) -> Account {
        let staleness = self.authorizer.is_local().then_some(Duration::ZERO);
        Account { model_id: self.authorizer.deciding_model_id().await, staleness, ..Account::default() }
    }

    fn plan(&self, request: &RetrievalRequest, guards: Option<usize>) -> Result<Plan, RetrievalError> {
        let situation = Situation {
            top_k: request.top_k,
            needs_visible_set: matches!(request.query, Query::Text(_)),
            guards,
            checks_are_local: self.authorizer.is_local(),
            guards_checked_max: self.config.guards_checked_max,
            candidates_max: self.config.candidates_max,
        };
        plan::choose(&situation).map_err(|no_plan| self.no_plan(request, no_plan))
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

    /// Reads the texts of the best `top_k` permitted candidates. One that is gone or has changed hands since the search
    /// is passed over, and the next one takes its place.
    async fn hydrate(
        &self,
        collection: &str,
        permitted: Vec<Permitted<Candidate>>,
        top_k: usize,
        deadline: Instant,
    ) -> Result<Vec<Retrieved>, RetrievalError> {
        let mut hydrated: Vec<Retrieved> = Vec::with_capacity(top_k.min(permitted.len()));
        let mut waiting = permitted.into_iter();
        while hydrated.len() < top_k {
            let next: Vec<Permitted<Candidate>> = waiting.by_ref().take(top_k - hydrated.len()).collect();
            if next.is_empty() {
                break;
            }
            let ids: Vec<String> = next.iter().map(|candidate| candidate.item().chunk_id.clone()).collect();
            let chunks = within(deadline, self.vector_store.read(collection, &ids)).await?;
            let mut by_id: HashMap<String, Chunk> = chunks.into_iter().map(|chunk| (chunk.id.clone(), chunk)).collect();
            for candidate in next {
                let score = candidate.item().score;
                let chunk = by_id.remove(&candidate.item().chunk_id);
                if let Some(chunk) = chunk.and_then(|chunk| candidate.hydrate(chunk)) {
                    hydrated.push(Retrieved { chunk, score });
                }
            }
        }
        Ok(hydrated)
    }
}

fn check_query(request: &RetrievalRequest, info: &CollectionInfo) -> Result<(), RetrievalError> {
    let collection = &request.collection;
    match (&request.query, info.dimension) {
        (Query::Text(_), _) if !info.text_queries => {
            Err(RetrievalError::Unsupported(format!("collection `{collection}` takes no text queries; send a vector")))
        }
        (Query::Vector(vector), Some(expected)) if vector.len() != expected => {
            let description = format!("has {} values, collection `{collection}` has {expected}", vector.len());
            Err(RetrievalError::Invalid(vec![FieldViolation::new("vector.values", description)]))
        }
        (Query::Text(_) | Query::Vector(_), _) => Ok(()),
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
