//! Reads the texts of permitted chunks, and of no others.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use tokio::time::Instant;

use super::answer::Retrieved;
use super::stages::{Stage, StageTimes};
use super::walk::Walk;
use super::{RetrievalError, within};
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::{Candidate, Chunk};
use crate::identity::Principal;
use crate::vector_store::{Search, VectorStore};

/// How many chunks of an answer.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) top_k: usize,
    /// Of one document.
    pub(super) per_document_max: Option<NonZeroUsize>,
}

/// Where chunks are read, for whom, and until when.
#[derive(Clone, Copy)]
pub(super) struct Hydration<'a> {
    pub(super) vector_store: &'a dyn VectorStore,
    pub(super) collection: &'a str,
    /// What found them; `None`: they were looked up by id.
    pub(super) search: Option<&'a Search>,
    pub(super) principal: &'a Principal,
    pub(super) deadline: Instant,
}

/// The texts of an answer.
pub(super) struct Hydrated {
    pub(super) chunks: Vec<Retrieved>,
    /// How many candidates were passed over because they are no longer what was found.
    pub(super) changed: usize,
}

impl Hydration<'_> {
    /// The best of the permitted candidates with their texts, as many as are wanted. One that is gone or was replaced
    /// since the search, or whose document has its number, is passed over, and the next one that is permitted takes its place.
    pub(super) async fn hydrate(
        self,
        walk: &mut Walk<'_>,
        enforcer: &mut Enforcer<'_>,
        Wanted { top_k, per_document_max }: Wanted,
        stages: &mut StageTimes,
    ) -> Result<Hydrated, RetrievalError> {
        let mut ledger = self.principal.ledger();
        let mut of_document: HashMap<String, usize> = HashMap::new();
        let mut hydrated: Vec<Retrieved> = Vec::with_capacity(top_k);
        let mut changed = 0;
        while hydrated.len() < top_k {
            // Where many may fall out for their document, they are not read one at a time.
            let reads = if per_document_max.is_some() { top_k } else { top_k - hydrated.len() };
            let next = stages.measure(Stage::Authorize, walk.take(reads, top_k - hydrated.len(), enforcer)).await?;
            if next.is_empty() {
                break;
            }
            let mut by_id = stages.measure(Stage::Hydrate, self.read(&next)).await?;
            for candidate in next {
                if hydrated.len() == top_k {
                    break;
                }
                let score = candidate.item().score;
                let chunk = by_id.remove(&candidate.item().chunk_id);
                let Some(chunk) = chunk.filter(|chunk| chunk.guard == candidate.item().guard) else {
                    changed += 1;
                    continue;
                };
                let of_its_document = of_document.get(&chunk.document_id).copied().unwrap_or_default();
                if per_document_max.is_some_and(|max| of_its_document >= max.get()) {
                    continue;
                }
                if let Some(chunk) = candidate.hydrate(chunk, &mut ledger) {
                    *of_document.entry(chunk.item().document_id.clone()).or_default() += 1;
                    hydrated.push(Retrieved { chunk, score });
                }
            }
        }
        Ok(Hydrated { chunks: hydrated, changed })
    }

    /// What the store still has of them, by id.
    async fn read(self, candidates: &[Permitted<Candidate>]) -> Result<HashMap<String, Chunk>, RetrievalError> {
        let found: Vec<Candidate> = candidates.iter().map(|candidate| candidate.item().clone()).collect();
        let reading = self.vector_store.read(self.collection, self.search, &found);
        let chunks = within(self.deadline, reading).await?;
        Ok(chunks.into_iter().map(|chunk| (chunk.id.clone(), chunk)).collect())
    }
}
