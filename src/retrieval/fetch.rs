//! Carries out a fetch: named chunks first, and then the chunks of named documents.
//!
//! For a document, its guards are looked up and checked, and only the chunks under permitted guards are looked up. So the
//! hidden chunks of a document cost nothing but the checks of their guards.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::Fetched;
use super::decoys::{IdKind, NamedId, named_chunks, named_documents};
use super::error::{RetrievalError, within};
use super::hydrate::{AnswerDraft, Hydrated, Hydration, Wanted};
use super::plan::Completion;
use super::request::FetchRequest;
use super::shared::Shared;
use super::sourced::SourceGate;
use super::stages::{Stage, StageTimes};
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::Candidate;
use crate::identity::Principal;
use crate::language::Object;
use crate::vector_store::validation::CHUNKS_PER_DOCUMENT_MAX;
use crate::vector_store::{GuardTable, VectorStoreError};

/// How many documents are looked up and checked together. A store may make a call for each of them.
const DOCUMENTS_PER_ROUND: usize = 8;

/// The state of one fetch.
pub(super) struct Fetch<'r> {
    shared: &'r Shared,
    request: &'r FetchRequest,
    hydration: Hydration<'r>,
    enforcer: Enforcer<'r>,
    gate: SourceGate<'r>,
    /// The guards of the collection, if they can be listed. They give decoys their type.
    table: Option<GuardTable>,
    /// The most chunks of an answer.
    chunks_max: usize,
    answer: AnswerDraft<'r>,
    /// The ids of the chunks that were found, so that none comes twice.
    found: HashSet<String>,
    withheld: usize,
    stages: StageTimes,
}

impl<'r> Fetch<'r> {
    /// Prepares a fetch for a principal to whom the token's details were applied.
    pub(super) async fn begin(
        shared: &'r Shared,
        request: &'r FetchRequest,
        principal: &'r Principal,
        deadline: Instant,
        since_1970: Duration,
    ) -> Self {
        let (vector_store, collection) = (shared.vector_store.as_ref(), request.collection.as_str());
        let mut stages = StageTimes::default();
        let listing = within(deadline, vector_store.guards(collection));
        let table = stages.measure(Stage::Search, listing).await;
        // Guards that cannot be listed are no reason to fail: they only give decoys their type.
        let table = table.inspect_err(|error| tracing::debug!(%error, "decoys are made without guards")).ok().flatten();
        let chunks_max = usize::try_from(shared.config.top_k_max).unwrap_or(usize::MAX);
        // One chunk more tells whether the answer is cut. It is permitted, too.
        let wanted = Wanted { top_k: chunks_max.saturating_add(1), per_document_max: None };
        Self {
            shared,
            request,
            hydration: Hydration { vector_store, collection, search: None, principal, deadline },
            enforcer: shared.enforcer(principal, request.consistency, deadline, since_1970),
            gate: SourceGate::new(shared, principal, request.consistency, deadline, since_1970),
            table,
            chunks_max,
            answer: AnswerDraft::new(principal, wanted),
            found: HashSet::new(),
            withheld: 0,
            stages,
        }
    }

    /// Fetches what the request names.
    ///
    /// INVARIANT (hidden as absent): every distinct id costs as many checks as an absent one, unless the user may see some of
    /// it or it is a document of many guards. The work ends early only when the answer is full of permitted chunks.
    ///
    /// # Errors
    /// When a backend fails or the deadline passes.
    pub(super) async fn run(mut self) -> Result<Fetched, RetrievalError> {
        self.take_chunks().await?;
        let request = self.request;
        for document_ids in request.document_ids.chunks(DOCUMENTS_PER_ROUND) {
            if self.answer.missing() == 0 || self.gate.is_spent() {
                break;
            }
            self.take_documents(document_ids).await?;
        }
        Ok(self.finished())
    }

    /// Takes in the chunks that the request names.
    async fn take_chunks(&mut self) -> Result<(), RetrievalError> {
        let (Hydration { vector_store, collection, deadline, .. }, ids) = (self.hydration, &self.request.chunk_ids);
        let finding = within(deadline, vector_store.find(collection, ids));
        let found = self.stages.measure(Stage::Search, finding).await?;
        let found: Vec<Candidate> = found.into_iter().map(|found| found.candidate).collect();
        let decoys = self.decoys(IdKind::Chunk, &named_chunks(ids, &found));
        self.take(found, &decoys).await
    }

    /// Takes in the chunks of some documents.
    async fn take_documents(&mut self, document_ids: &[String]) -> Result<(), RetrievalError> {
        let Hydration { vector_store, collection, deadline, .. } = self.hydration;
        let looking = within(deadline, vector_store.document_guards(collection, document_ids));
        let guards = self.stages.measure(Stage::Search, looking).await?;
        if guards.len() != document_ids.len() {
            let text = "the guards of other documents than were asked for".to_owned();
            return Err(VectorStoreError::BadAnswer(text).into());
        }
        let decoys = self.decoys(IdKind::Document, &named_documents(document_ids, &guards));
        let asked: Vec<Object> = guards.iter().flatten().cloned().collect();
        let asked_total = asked.len();
        let checking = self.enforcer.enforce_beside(asked, &decoys);
        let permitted = self.stages.measure(Stage::Authorize, checking).await?;
        // Each of these guards has at least one chunk.
        self.withheld = self.withheld.saturating_add(asked_total.saturating_sub(permitted.len()));
        let visible: HashSet<Object> = permitted.into_iter().map(Permitted::into_item).collect();
        for (document_id, guards) in document_ids.iter().zip(guards) {
            let guards: HashSet<Object> = guards.into_iter().filter(|guard| visible.contains(guard)).collect();
            if guards.is_empty() {
                continue;
            }
            if self.answer.missing() == 0 || self.gate.is_spent() {
                break;
            }
            let finding = within(deadline, vector_store.find_in_document(collection, document_id, &guards));
            let found = self.stages.measure(Stage::Search, finding).await?;
            // Each of them is kept in memory and checked.
            if found.len() > CHUNKS_PER_DOCUMENT_MAX {
                let text =
                    format!("{} chunks of a document, at most {CHUNKS_PER_DOCUMENT_MAX} are expected", found.len());
                return Err(VectorStoreError::BadAnswer(text).into());
            }
            self.take(found, &[]).await?;
        }
        Ok(())
    }

    /// Makes the decoys that these ids need.
    fn decoys(&self, kind: IdKind, named: &[NamedId<'_>]) -> Vec<Object> {
        let (decoys, collection) = (&self.shared.decoys, self.hydration.collection);
        decoys.beside(collection, kind, named, self.table.as_ref(), &self.enforcer)
    }

    /// Checks chunks that were found, and reads the permitted ones.
    async fn take(&mut self, mut found: Vec<Candidate>, decoys: &[Object]) -> Result<(), RetrievalError> {
        found.retain(|candidate| self.found.insert(candidate.chunk_id.clone()));
        let found_total = found.len();
        let checking = self.enforcer.enforce_beside(found, decoys);
        let permitted = self.stages.measure(Stage::Authorize, checking).await?;
        self.withheld = self.withheld.saturating_add(found_total.saturating_sub(permitted.len()));
        self.hydration.fill(permitted, &mut self.gate, &mut self.answer, &mut self.stages).await
    }

    fn finished(self) -> Fetched {
        let Hydrated { chunks, changed, withheld } = self.answer.finished();
        let mut chunks: Vec<_> = chunks.into_iter().map(|read| read.chunk).collect();
        let details_max = self.hydration.principal.chunks_max();
        let is_full = details_max.is_some_and(|max| u64::try_from(chunks.len()).unwrap_or(u64::MAX) >= max);
        // A chunk that was replaced between the check and the reading may be permitted again.
        let is_cut = chunks.len() > self.chunks_max || is_full || changed > 0 || self.gate.is_spent();
        chunks.truncate(self.chunks_max);
        Fetched {
            chunks,
            completion: if is_cut { Completion::Limited } else { Completion::Exhausted },
            withheld: self.withheld.saturating_add(withheld),
            sources: self.gate.reports(),
            decided_by: self.enforcer.decided_by(),
            stages: self.stages,
        }
    }
}
