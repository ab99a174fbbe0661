//! Carries a request out: plan, search, enforce, refill, hydrate.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::plan::{self, NoPlan, Plan, Situation};
use super::{FieldViolation, RecheckRequest, RetrievalConfig, RetrievalError, RetrievalRequest};
use crate::authz::Authorizer;
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::{Candidate, Chunk, Value};
use crate::identity::Principal;
use crate::identity::details::{Action, OneOf, RequestFacts};
use crate::vector_store::{CollectionInfo, Filter, Query, Scope, Search, VectorStore, VectorStoreError};

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
        let principal = &request.principal.for_request(&self.facts(Action::Retrieve, collection, &request.query))?;
        let details_max = principal.chunks_max().map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let top_k = request.top_k.min(details_max);
        let info = within(deadline, self.vector_store.collection(collection)).await?;
        check_query(request, &info)?;
        let guard_table = within(deadline, self.vector_store.guards(collection)).await?;
        let guards = guard_table.as_ref().map(|table| usize::try_from(table.in_use.len()).unwrap_or(usize::MAX));
        let plan = self.plan(request, guards)?;

        let mut enforcer =
            Enforcer::new(self.authorizer.as_ref(), principal, &self.config.relation, request.consistency, deadline);
        let (scope, widening) = match (plan, guard_table) {
            (Plan::VisibleSetSearch(widening), Some(table)) => {
                let positions = enforcer.visible_set(&table.guards, &table.in_use).await?;
                (Scope::Guards { table, positions }, widening)
            }
            // A search that needs the visible set never falls back to everything.
            (Plan::VisibleSetSearch(_), None) => return Err(self.no_plan(request, NoPlan::GuardsUnknown)),
            (Plan::SearchThenCheck(widening), _) => (Scope::Everything, widening),
        };
        let mut search = Search {
            collection: collection.to_owned(),
            query: request.query.clone(),
            filter: narrowed_filter(request.filter.as_ref(), principal),
            // Only within the visible set may the store count chunks by document: elsewhere a hidden one would count.
            per_document_max: match scope {
                Scope::Guards { .. } => request.per_document_max,
                Scope::Everything => None,
            },
            scope,
            min_score: request.min_score,
            limit: 0,
        };

        let mut answer = Retrieval { chunks: Vec::new(), completion: Completion::Limited, exact: info.exact };
        let mut rounds = (0..).map_while(|round| widening.candidates(round)).peekable();
        while let Some(limit) = rounds.next() {
            search.limit = limit;
            let candidates = within(deadline, self.vector_store.search(&search)).await?;
            check_candidates(&candidates, limit)?;
            let found = candidates.len();
            let exhausted = found < limit;
            // Later rounds are there because chunks fell out that the store may have counted.
            let counted = search.per_document_max.take().is_some();
            let permitted = enforcer.enforce(candidates).await?;
            if enforcer.permits_nothing() {
                answer.completion = Completion::Exhausted;
                return Ok(answer);
            }
            let last = exhausted || rounds.peek().is_none();
            if permitted.len() < top_k && !last {
                continue;
            }
            let wanted = Wanted { top_k, per_document_max: request.per_document_max };
            answer.chunks = self.hydrate(principal, collection, permitted, wanted, deadline).await?;
            // A chunk that fell out took a place of its document, so another one may be there for it.
            let exhausted = exhausted && !(counted && answer.chunks.len() < found);
            if answer.chunks.len() == top_k {
                // As many as the token's details give is not as many as were wanted.
                answer.completion = if top_k < request.top_k { Completion::Limited } else { Completion::Complete };
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
    pub async fn recheck(
        &self,
        request: &RecheckRequest,
        deadline: Instant,
    ) -> Result<Vec<Permitted<Candidate>>, RetrievalError> {
        let facts = RequestFacts {
            action: Action::Recheck,
            collection: &request.collection,
            relation: &self.config.relation,
            query_text: None,
        };
        let principal = &request.principal.for_request(&facts)?;
        let found = within(deadline, self.vector_store.find(&request.collection, &request.chunk_ids)).await?;
        let mut enforcer =
            Enforcer::new(self.authorizer.as_ref(), principal, &self.config.relation, request.consistency, deadline);
        let permitted = enforcer.enforce(found.clone()).await?;
        if !principal.details_ask_for_chunks() {
            return Ok(permitted);
        }
        let wanted = Wanted { top_k: permitted.len(), per_document_max: None };
        let read = self.hydrate(principal, &request.collection, permitted, wanted, deadline).await?;
        let left: HashSet<&str> = read.iter().map(|retrieved| retrieved.chunk.item().id.as_str()).collect();
        let found: Vec<Candidate> = found.into_iter().filter(|c| left.contains(c.chunk_id.as_str())).collect();
        Ok(enforcer.enforce(found).await?)
    }

    fn facts<'r>(&'r self, action: Action, collection: &'r str, query: &'r Query) -> RequestFacts<'r> {
        let query_text = match query {
            Query::Text(text) | Query::Hybrid { text, .. } => Some(text.as_str()),
            Query::Vector(_) => None,
        };
        RequestFacts { action, collection, relation: &self.config.relation, query_text }
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
