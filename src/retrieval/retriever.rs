//! Carries a request out: plan, search, enforce, refill, hydrate.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::num::NonZeroUsize;
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
            // Only within the visible set may the store count chunks by document: elsewhere a hidden one would count.
            per_document_max: match scope {
                Scope::Guards { .. } => request.per_document_max,
                Scope::Everything => None,
            },
            scope,
            min_score: request.min_score,
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
            let found = candidates.len();
            let exhausted = found < limit;
            // Later rounds are there because chunks fell out that the store may have counted.
            let counted = search.per_document_max.take().is_some();
            let permitted = account.stage(Stage::Enforce, enforcer.enforce(candidates)).await?;
            account.rounds += 1;
            account.withheld = found - permitted.len();
            let last = exhausted || rounds.peek().is_none();
            if permitted.len() < request.top_k && !last {
                continue;
            }
            let wanted = Wanted { top_k: request.top_k, per_document_max: request.per_document_max };
            let hydrating = self.hydrate(collection, permitted, wanted, deadline);
            answer.chunks = account.stage(Stage::Hydrate, hydrating).await?;
            answer.account = account.clone();
            // A chunk that fell out took a place of its document, so another one may be there for it.
            let exhausted = exhausted && !(counted && answer.chunks.len() < found);
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
        let at_authority = self.authorizer.is_local().then_some(Duration::ZERO);
        let staleness = self.authorizer.lag().or(at_authority);
        Account { model_id: self.authorizer.deciding_model_id().await, staleness, ..Account::default() }
    }

    fn plan(&self, request: &RetrievalRequest, guards: Option<usize>) -> Result<Plan, RetrievalError> {
        let situation = Situation {
            top_k: request.top_k,
            needs_visible_set: matches!(request.query, Query::Text(_) | Query::Hybrid { .. }),
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

    /// Reads the texts of the best permitted candidates, as many as are wanted. One that is gone or has changed hands since
    /// the search, or whose document has its number, is passed over, and the next one takes its place.
    async fn hydrate(
        &self,
        collection: &str,
        permitted: Vec<Permitted<Candidate>>,
        Wanted { top_k, per_document_max }: Wanted,
        deadline: Instant,
    ) -> Result<Vec<Retrieved>, RetrievalError> {
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
                if let Some(chunk) = chunk.and_then(|chunk| candidate.hydrate(chunk)) {
                    if let Some(max) = per_document_max {
                        let chunks = of_document.entry(chunk.item().document_id.clone()).or_default();
                        if *chunks == max.get() {
                            continue;
                        }
                        *chunks += 1;
                    }
                    hydrated.push(Retrieved { chunk, score });
                }
            }
        }
        Ok(hydrated)
    }
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
