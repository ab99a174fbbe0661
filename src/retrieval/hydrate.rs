//! Reads the texts of permitted chunks, and of no other chunks.
//!
//! If the `authorization_details` of a token limit more than guards, the metadata of a chunk is read first. Its text is
//! read only if the details permit the chunk.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use tokio::time::Instant;

use super::answer::Retrieved;
use super::error::{RetrievalError, within};
use super::sourced::{ChunkLookup, Sifted, SourceGate};
use super::stages::{Stage, StageTimes};
use super::walk::Walk;
use crate::authz::enforce::{Admitted, Enforcer, Permitted};
use crate::chunk::{Candidate, Chunk, ChunkMetadata};
use crate::identity::{ChunkLedger, Principal};
use crate::sources::SourceText;
use crate::vector_store::{Search, VectorStore};

/// How many chunks an answer may have.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) top_k: usize,
    /// The most chunks of one document.
    pub(super) per_document_max: Option<NonZeroUsize>,
}

/// Reads chunks of one collection for one principal, until a deadline.
#[derive(Clone, Copy)]
pub(super) struct Hydration<'a> {
    pub(super) vector_store: &'a dyn VectorStore,
    pub(super) collection: &'a str,
    /// The search that found the chunks; `None` if they were looked up by id.
    pub(super) search: Option<&'a Search>,
    pub(super) principal: &'a Principal,
    pub(super) deadline: Instant,
}

/// The chunks of an answer, with their texts.
pub(super) struct Hydrated {
    pub(super) chunks: Vec<Retrieved>,
    /// How many candidates were passed over because their chunks are gone or were replaced since the search.
    pub(super) changed: usize,
    /// The number of candidates that sources withheld.
    pub(super) withheld: usize,
}

/// The candidates that the details of a token may admit.
pub(super) struct Narrowed {
    pub(super) candidates: Vec<Permitted<Candidate>>,
    /// The number of candidates whose chunks are gone or were replaced since the search.
    pub(super) changed: usize,
}

impl Hydration<'_> {
    /// Reads the best permitted candidates, as many as are wanted.
    ///
    /// It passes over a chunk that is gone or was replaced since the search, one that its source withholds, and one whose
    /// document already has `per_document_max` chunks. The next permitted candidate takes its place.
    pub(super) async fn hydrate(
        self,
        walk: &mut Walk,
        enforcer: &mut Enforcer<'_>,
        gate: &mut SourceGate<'_>,
        Wanted { top_k, per_document_max }: Wanted,
        stages: &mut StageTimes,
    ) -> Result<Hydrated, RetrievalError> {
        let mut answer = AnswerDraft::new(self.principal, Wanted { top_k, per_document_max });
        while answer.missing() > 0 && !gate.is_spent() {
            let missing = answer.missing();
            // With a limit for each document, many candidates may be passed over. Reading only as many at a time as
            // are missing would then take many reads.
            let reads = if per_document_max.is_some() { top_k } else { missing };
            let next = stages.measure(Stage::Authorize, walk.take(reads, missing, enforcer)).await?;
            if next.is_empty() {
                break;
            }
            self.add(next, gate, &mut answer, stages).await?;
        }
        Ok(answer.finished())
    }

    /// Reads permitted candidates in their order, until the answer is full.
    pub(super) async fn fill(
        self,
        candidates: Vec<Permitted<Candidate>>,
        gate: &mut SourceGate<'_>,
        answer: &mut AnswerDraft<'_>,
        stages: &mut StageTimes,
    ) -> Result<(), RetrievalError> {
        let mut ahead = candidates.into_iter();
        while answer.missing() > 0 && !gate.is_spent() {
            let next: Vec<Permitted<Candidate>> = ahead.by_ref().take(answer.missing()).collect();
            if next.is_empty() {
                break;
            }
            self.add(next, gate, answer, stages).await?;
        }
        Ok(())
    }

    /// Reads permitted candidates and adds their chunks to an answer. It reads no text of a chunk that its source withholds, or
    /// that the details of the principal's token do not permit.
    async fn add(
        self,
        candidates: Vec<Permitted<Candidate>>,
        gate: &mut SourceGate<'_>,
        answer: &mut AnswerDraft<'_>,
        stages: &mut StageTimes,
    ) -> Result<(), RetrievalError> {
        let candidates = if gate.has_sources() && self.principal.details_ask_for_chunks() {
            let Narrowed { candidates, changed } = self.within_details(candidates, stages).await?;
            answer.pass_over(changed, 0);
            candidates
        } else {
            candidates
        };
        // Sources are asked before the details count the chunks that they admit: a withheld chunk must not count.
        let lookup = self.lookup();
        let sifting = gate.sift(lookup, candidates);
        let Sifted { candidates, texts, withheld, changed } = stages.measure(Stage::Authorize, sifting).await?;
        answer.pass_over(changed, withheld);
        if candidates.is_empty() {
            return Ok(());
        }
        if self.principal.details_ask_for_chunks() {
            let metadata = stages.measure(Stage::Hydrate, self.read_metadata(&candidates)).await?;
            let admitted = answer.admit(candidates, metadata);
            if admitted.is_empty() {
                return Ok(());
            }
            let candidates = admitted.iter().map(|admitted| admitted.candidate().clone()).collect();
            let chunks = stages.measure(Stage::Hydrate, self.read(candidates, &texts)).await?;
            answer.add_admitted(admitted, chunks);
        } else {
            let found = candidates.iter().map(|candidate| candidate.item().clone()).collect();
            let chunks = stages.measure(Stage::Hydrate, self.read(found, &texts)).await?;
            answer.add(candidates, chunks);
        }
        Ok(())
    }

    /// Keeps the candidates that the details of the principal's token may admit, and counts none of them. So no source, which is a
    /// third party, learns of a chunk that cannot be in the answer.
    pub(super) async fn within_details(
        self,
        mut candidates: Vec<Permitted<Candidate>>,
        stages: &mut StageTimes,
    ) -> Result<Narrowed, RetrievalError> {
        let metadata = stages.measure(Stage::Hydrate, self.read_metadata(&candidates)).await?;
        let found =
            |candidate: &Candidate| metadata.get(&candidate.chunk_id).filter(|chunk| chunk.guard == candidate.guard);
        let total = candidates.len();
        candidates.retain(|candidate| found(candidate.item()).is_some());
        let changed = total - candidates.len();
        let may_be_admitted = |chunk: &ChunkMetadata| self.principal.ledger().admit(&chunk.guard, &chunk.metadata);
        candidates.retain(|candidate| found(candidate.item()).is_some_and(may_be_admitted));
        Ok(Narrowed { candidates, changed })
    }

    /// Keeps those permitted candidates that the details of the principal's token permit, too. It reads no text.
    pub(super) async fn admit(
        self,
        mut candidates: Vec<Permitted<Candidate>>,
        stages: &mut StageTimes,
    ) -> Result<Vec<Permitted<Candidate>>, RetrievalError> {
        let mut by_id = stages.measure(Stage::Hydrate, self.read_metadata(&candidates)).await?;
        let mut ledger = self.principal.ledger();
        // Each chunk counts once, however often it is named.
        let mut admitted: HashSet<String> = HashSet::new();
        for candidate in &candidates {
            let chunk = by_id.remove(&candidate.item().chunk_id);
            let chunk = chunk.filter(|chunk| chunk.guard == candidate.item().guard);
            if let Some(chunk) = chunk.filter(|chunk| ledger.admit(&chunk.guard, &chunk.metadata)) {
                admitted.insert(chunk.chunk_id);
            }
        }
        candidates.retain(|candidate| admitted.contains(&candidate.item().chunk_id));
        Ok(candidates)
    }

    /// Reads the metadata of the candidates that did not change since the search, by chunk id.
    async fn read_metadata(
        self,
        candidates: &[Permitted<Candidate>],
    ) -> Result<HashMap<String, ChunkMetadata>, RetrievalError> {
        let found: Vec<Candidate> = candidates.iter().map(|candidate| candidate.item().clone()).collect();
        self.lookup().metadata(&found).await
    }

    /// Returns what looks up the metadata of the same chunks.
    pub(super) fn lookup(&self) -> ChunkLookup<'_> {
        let Self { vector_store, collection, search, principal: _, deadline } = *self;
        ChunkLookup { vector_store, collection, search, deadline }
    }

    /// Reads the chunks of the candidates that did not change since the search, by chunk id. `texts` holds the texts that sources
    /// gave, by chunk id. The store's texts of these chunks are not read.
    async fn read(
        self,
        found: Vec<Candidate>,
        texts: &HashMap<String, SourceText>,
    ) -> Result<HashMap<String, Chunk>, RetrievalError> {
        let (of_source, of_store): (Vec<Candidate>, Vec<Candidate>) =
            found.into_iter().partition(|candidate| texts.contains_key(&candidate.chunk_id));
        let mut chunks = HashMap::new();
        if !of_store.is_empty() {
            self.principal.reads_text();
            let reading = self.vector_store.read(self.collection, self.search, &of_store);
            let read = within(self.deadline, reading).await?;
            chunks.extend(read.into_iter().map(|chunk| (chunk.id.clone(), chunk)));
        }
        if !of_source.is_empty() {
            let metadata = self.lookup().metadata(&of_source).await?;
            let with_text = metadata.into_iter().filter_map(|(chunk_id, chunk)| {
                let text = texts.get(&chunk_id)?;
                Some((chunk_id, chunk_of(chunk, text)))
            });
            chunks.extend(with_text);
        }
        Ok(chunks)
    }
}

/// Joins the metadata of a chunk with the text that its source gave.
fn chunk_of(chunk: ChunkMetadata, text: &SourceText) -> Chunk {
    let ChunkMetadata { chunk_id, document_id, guard, metadata } = chunk;
    let SourceText { text, title } = text.clone();
    // The source released a text and a title. It said nothing of the headings that the store knows.
    let heading_path = Vec::new();
    Chunk { id: chunk_id, document_id, guard, title, heading_path, text, metadata, vector: Vec::new() }
}

/// An answer that is being filled.
pub(super) struct AnswerDraft<'p> {
    top_k: usize,
    per_document_max: Option<NonZeroUsize>,
    ledger: ChunkLedger<'p>,
    /// How many chunks of each document are in the answer.
    of_document: HashMap<String, usize>,
    chunks: Vec<Retrieved>,
    /// Counts the same candidates as [`Hydrated::changed`].
    changed: usize,
    /// Counts the same candidates as [`Hydrated::withheld`].
    withheld: usize,
}

impl<'p> AnswerDraft<'p> {
    /// Returns an answer for the principal that has nothing in it yet.
    pub(super) fn new(principal: &'p Principal, Wanted { top_k, per_document_max }: Wanted) -> Self {
        let (ledger, chunks) = (principal.ledger(), Vec::with_capacity(top_k));
        Self { top_k, per_document_max, ledger, of_document: HashMap::new(), chunks, changed: 0, withheld: 0 }
    }

    /// Returns what was read.
    pub(super) fn finished(self) -> Hydrated {
        Hydrated { chunks: self.chunks, changed: self.changed, withheld: self.withheld }
    }
}

impl AnswerDraft<'_> {
    /// Notes candidates that were left out before anything of them was read.
    fn pass_over(&mut self, changed: usize, withheld: usize) {
        self.changed += changed;
        self.withheld += withheld;
    }

    /// Returns how many chunks are missing until the answer is full.
    pub(super) fn missing(&self) -> usize {
        self.top_k.saturating_sub(self.chunks.len())
    }

    /// Returns whether the answer has as many chunks of the document as are wanted.
    fn is_full_of(&self, document_id: &str) -> bool {
        let chunks = self.of_document.get(document_id).copied().unwrap_or_default();
        self.per_document_max.is_some_and(|max| chunks >= max.get())
    }

    /// Adds chunks until the answer is full. `read` holds what was read of the candidates, by chunk id.
    fn add(&mut self, candidates: Vec<Permitted<Candidate>>, mut read: HashMap<String, Chunk>) {
        for candidate in candidates {
            if self.missing() == 0 {
                break;
            }
            let score = candidate.item().score;
            let chunk = read.remove(&candidate.item().chunk_id);
            let Some(chunk) = chunk.filter(|chunk| chunk.guard == candidate.item().guard) else {
                self.changed += 1;
                continue;
            };
            if self.is_full_of(&chunk.document_id) {
                continue;
            }
            if let Some(chunk) = candidate.hydrate(chunk, &mut self.ledger) {
                *self.of_document.entry(chunk.item().document_id.clone()).or_default() += 1;
                self.chunks.push(Retrieved { chunk, score, rerank_score: None });
            }
        }
    }

    /// Selects the candidates whose text is read next, at most as many as are missing. `read` holds their metadata, by chunk
    /// id.
    fn admit(
        &mut self,
        candidates: Vec<Permitted<Candidate>>,
        mut read: HashMap<String, ChunkMetadata>,
    ) -> Vec<Admitted> {
        let mut admitted: Vec<Admitted> = Vec::new();
        for candidate in candidates {
            if admitted.len() == self.missing() {
                break;
            }
            let chunk = read.remove(&candidate.item().chunk_id);
            let Some(chunk) = chunk.filter(|chunk| chunk.guard == candidate.item().guard) else {
                self.changed += 1;
                continue;
            };
            let document_id = chunk.document_id.clone();
            if self.is_full_of(&document_id) {
                continue;
            }
            if let Some(candidate) = candidate.admit(chunk, &mut self.ledger) {
                *self.of_document.entry(document_id).or_default() += 1;
                admitted.push(candidate);
            }
        }
        admitted
    }

    /// Adds the chunks of admitted candidates. `read` holds what was read of them, by chunk id.
    fn add_admitted(&mut self, admitted: Vec<Admitted>, mut read: HashMap<String, Chunk>) {
        for admitted in admitted {
            let score = admitted.candidate().score;
            let chunk = read.remove(&admitted.candidate().chunk_id);
            match chunk.and_then(|chunk| admitted.hydrate(chunk)) {
                Some(chunk) => self.chunks.push(Retrieved { chunk, score, rerank_score: None }),
                None => self.changed += 1,
            }
        }
    }
}
