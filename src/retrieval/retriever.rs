//! Answers retrievals, re-checks and fetches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future;
use tokio::time::Instant;

use super::answer::{Fetched, Rechecked, Retrieval, WithheldChunk};
use super::decoys::{IdKind, named_chunks};
use super::error::{RetrievalError, within};
use super::fetch::Fetch;
use super::hydrate::Hydration;
use super::page::Binding;
use super::paging::Paging;
use super::plan::{self, RetrievalStep};
use super::request::{FetchRequest, RecheckRequest, RetrievalParts, RetrievalRequest};
use super::rerank::rerank;
use super::rounds::Rounds;
use super::shared::Shared;
use super::sourced::SourceGate;
use super::stages::{Stage, StageTimes};
use super::{OtherSystems, Pages, RetrievalConfig};
use crate::authz::Authorizer;
use crate::chunk::{Candidate, FoundChunk};
use crate::identity::details::{Action, RequestFacts};
use crate::inference::{Embeddings, NoRecord, SentRecord};
use crate::sources::SourceSystems;
use crate::vector_store::VectorStore;

/// Answers retrievals, re-checks and fetches over one authorizer and one vector store. A clone shares both, and all that was
/// learned from earlier requests.
#[derive(Clone)]
pub struct Retriever {
    shared: Arc<Shared>,
}

impl Retriever {
    /// Makes a retriever that has learned nothing yet.
    #[must_use]
    pub fn new(
        authorizer: Arc<dyn Authorizer>,
        vector_store: Arc<dyn VectorStore>,
        config: RetrievalConfig,
        pages: Pages,
    ) -> Self {
        Self::with_systems(authorizer, vector_store, config, pages, OtherSystems::default())
    }

    /// Like [`Retriever::new`], but asks `sources` about each chunk that the authorizer permits, before the chunk is released.
    #[must_use]
    pub fn with_sources(
        authorizer: Arc<dyn Authorizer>,
        vector_store: Arc<dyn VectorStore>,
        config: RetrievalConfig,
        pages: Pages,
        sources: Arc<dyn SourceSystems>,
    ) -> Self {
        let systems = OtherSystems { sources: Some(sources), ..OtherSystems::default() };
        Self::with_systems(authorizer, vector_store, config, pages, systems)
    }

    /// Like [`Retriever::new`], but also asks sources and models.
    #[must_use]
    pub fn with_systems(
        authorizer: Arc<dyn Authorizer>,
        vector_store: Arc<dyn VectorStore>,
        config: RetrievalConfig,
        pages: Pages,
        systems: OtherSystems,
    ) -> Self {
        Self { shared: Arc::new(Shared::new(authorizer, vector_store, config, pages, systems)) }
    }

    /// Returns the models that make vectors, for some collections.
    #[must_use]
    pub fn embeddings(&self) -> &Arc<Embeddings> {
        &self.shared.systems.embeddings
    }

    /// Returns the settings that this retriever was made with.
    #[must_use]
    pub fn config(&self) -> &RetrievalConfig {
        &self.shared.config
    }

    /// Checks the parts of a request and answers it like [`Self::retrieve`].
    ///
    /// # Errors
    /// [`RetrievalError::Invalid`] if a part is wrong. Otherwise as [`Self::retrieve`].
    pub async fn retrieve_parts(&self, parts: RetrievalParts, deadline: Instant) -> Result<Retrieval, RetrievalError> {
        let request = RetrievalRequest::new(parts, self.config().top_k_max).map_err(RetrievalError::Invalid)?;
        self.retrieve(&request, deadline).await
    }

    /// Finds the best chunks that the principal may see.
    ///
    /// # Errors
    /// When a backend fails, the deadline passes, or the collection cannot be searched this way. Denial is not an error.
    pub async fn retrieve(&self, request: &RetrievalRequest, deadline: Instant) -> Result<Retrieval, RetrievalError> {
        self.retrieve_recorded(request, deadline, &NoRecord).await
    }

    /// Like [`Self::retrieve`], and notes in `record` what is sent to models, before it is sent.
    ///
    /// # Errors
    /// As for [`Self::retrieve`].
    pub async fn retrieve_recorded(
        &self,
        request: &RetrievalRequest,
        deadline: Instant,
        record: &dyn SentRecord,
    ) -> Result<Retrieval, RetrievalError> {
        let (principal, since_1970) = (self.shared.retrieving_principal(request)?, since_1970());
        let relation = &self.shared.config.relation;
        let binding = request.page.as_ref().and_then(|_token| Binding::new(request, &principal, relation));
        let paging = Paging::open(&self.shared.pages, request, binding, since_1970)?;
        // An approval counts its chunks over all pages.
        let principal = principal.after(paging.returned());
        let mut rounds = Rounds::begin(&self.shared, request, &principal, paging, deadline, since_1970, record).await?;
        let mut step = rounds.first_step();
        // `plan::next_step` ends this loop: it bounds the searches of a retrieval.
        loop {
            let round = match step {
                RetrievalStep::Search(search) => rounds.search(search).await?,
                RetrievalStep::SearchAgain => rounds.search_again().await?,
                RetrievalStep::Enforce => rounds.enforce().await?,
                RetrievalStep::Read => rounds.read().await?,
                RetrievalStep::Answer(completion) => {
                    let retrieval = rounds.answer(completion)?;
                    return rerank(&self.shared, request, retrieval, deadline, record).await;
                }
            };
            step = plan::next_step(rounds.situation(), &round);
        }
    }

    /// Finds out which of the chunks exist and may still be seen by the principal.
    ///
    /// INVARIANT (a check for each id): every distinct id costs one check, whether its chunk exists or not and whatever
    /// guard it has. So the work does not tell which of the ids missing from the answer exist.
    ///
    /// # Errors
    /// When a backend fails or the deadline passes.
    pub async fn recheck(&self, request: &RecheckRequest, deadline: Instant) -> Result<Rechecked, RetrievalError> {
        let mut stages = StageTimes::default();
        let facts = RequestFacts {
            action: Action::Recheck,
            collection: &request.collection,
            relation: &self.shared.config.relation,
            query_text: None,
        };
        let principal = &request.principal.for_request(&facts)?;
        let (vector_store, collection) = (self.shared.vector_store.as_ref(), request.collection.as_str());
        let finding = within(deadline, vector_store.find(collection, &request.chunk_ids));
        let listing = within(deadline, vector_store.guards(collection));
        let (found, table) = stages.measure(Stage::Search, future::join(finding, listing)).await;
        // Guards that cannot be listed are no reason to fail: they only give decoys their type.
        let table = table.inspect_err(|error| tracing::debug!(%error, "decoys are made without guards")).ok().flatten();
        let mut document_ids: HashMap<String, Option<String>> = HashMap::new();
        let mut found_chunks: Vec<Candidate> = Vec::new();
        for FoundChunk { candidate, document_id } in found? {
            document_ids.insert(candidate.chunk_id.clone(), document_id);
            found_chunks.push(candidate);
        }
        let now = since_1970();
        let mut enforcer = self.shared.enforcer(principal, request.consistency, deadline, now);
        let mut gate = SourceGate::new(&self.shared, principal, request.consistency, deadline, now);
        let named = named_chunks(&request.chunk_ids, &found_chunks);
        let decoys = self.shared.decoys.beside(collection, IdKind::Chunk, &named, table.as_ref(), &enforcer);
        let enforcing = enforcer.enforce_beside(found_chunks, &decoys);
        let mut permitted = stages.measure(Stage::Authorize, enforcing).await?;
        let hydration = Hydration { vector_store, collection, search: None, principal, deadline };
        if gate.has_sources() && principal.details_ask_for_chunks() {
            permitted = hydration.within_details(permitted, &mut stages).await?.candidates;
        }
        let sifted = stages.measure(Stage::Authorize, gate.sift(hydration.lookup(), permitted)).await?;
        permitted = sifted.candidates;
        // The details count after the sources: a chunk that its source withholds must not take the place of another one.
        if principal.details_ask_for_chunks() {
            permitted = hydration.admit(permitted, &mut stages).await?;
        }
        for candidate in &permitted {
            document_ids.remove(&candidate.item().chunk_id);
        }
        // Ragward withholds a chunk that the store has and the user may not see. It leaves the map here, so it counts once.
        let withheld = request.chunk_ids.iter().filter_map(|chunk_id| {
            let document_id = document_ids.remove(chunk_id)?;
            Some(WithheldChunk { chunk_id: chunk_id.clone(), document_id })
        });
        let withheld = withheld.collect();
        let (sources, decided_by) = (gate.reports(), enforcer.decided_by());
        Ok(Rechecked { candidates: permitted, withheld, sources, decided_by, stages })
    }

    /// Reads the chunks that the request names, as far as the principal may see them, and at most as many as a retrieval
    /// may ask for.
    ///
    /// # Errors
    /// When a backend fails, the deadline passes, or the store does not look up documents.
    pub async fn fetch(&self, request: &FetchRequest, deadline: Instant) -> Result<Fetched, RetrievalError> {
        let facts = RequestFacts {
            action: Action::Fetch,
            collection: &request.collection,
            relation: &self.shared.config.relation,
            query_text: None,
        };
        let principal = request.principal.for_request(&facts)?;
        let fetch = Fetch::begin(&self.shared, request, &principal, deadline, since_1970()).await;
        fetch.run().await
    }
}

/// Returns the time since 1970. If the clock is set before 1970, the time is zero; then every token counts as made now.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
