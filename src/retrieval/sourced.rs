//! Asks sources about permitted chunks, before their texts are read. A source only narrows: what it withholds is left out, and
//! the next permitted chunk takes its place.
//!
//! INVARIANT (asked first): no chunk that has a source passes without the source's yes. A chunk that cannot be asked about is
//! withheld, or the request fails.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::answer::SourceReport;
use super::error::{RetrievalError, within};
use super::shared::Shared;
use crate::authz::Consistency;
use crate::authz::enforce::Permitted;
use crate::chunk::{Candidate, ChunkMetadata, Version};
use crate::identity::{BearerToken, Principal};
use crate::sources::{
    Recall, SourceDocument, SourceError, SourceQuestion, SourceReply, SourceRule, SourceSystems, SourceText,
    SourceTextFrom,
};
use crate::vector_store::validation::CHUNKS_PER_DOCUMENT_MAX;
use crate::vector_store::{Search, VectorStore};

/// The most documents that sources are asked about for one request. An answer that would need more ends as `LIMITED`. A re-check
/// names no more.
const DOCUMENTS_MAX: usize = 1_000;
/// The most documents that one request asks about at a time. Each source also has a limit for all requests together.
const CONCURRENT_MAX: usize = 16;

/// Looks up the metadata of candidates of one collection, until a deadline. No text is read.
#[derive(Clone, Copy)]
pub(super) struct ChunkLookup<'a> {
    pub(super) vector_store: &'a dyn VectorStore,
    pub(super) collection: &'a str,
    /// The search that found the candidates; `None` if they were looked up by id.
    pub(super) search: Option<&'a Search>,
    pub(super) deadline: Instant,
}

impl ChunkLookup<'_> {
    /// Reads the metadata of the candidates that did not change since the search, by chunk id.
    pub(super) async fn metadata(self, found: &[Candidate]) -> Result<HashMap<String, ChunkMetadata>, RetrievalError> {
        let reading = self.vector_store.read_metadata(self.collection, self.search, found);
        let chunks = within(self.deadline, reading).await?;
        Ok(chunks.into_iter().map(|chunk| (chunk.chunk_id.clone(), chunk)).collect())
    }
}

/// Asks sources for one request, and remembers what they said.
pub(super) struct SourceGate<'r> {
    systems: Option<&'r dyn SourceSystems>,
    principal: &'r Principal,
    recall: Recall,
    since_1970: Duration,
    deadline: Instant,
    /// The verdict about each document; `true` is a release.
    verdicts: HashMap<AskedDocument, bool>,
    /// Says of a document, by its id, whether all its chunks have one guard and one classification, and are within the details of
    /// the token.
    uniform: HashMap<String, bool>,
    /// The number of questions to all sources.
    asked: usize,
    is_spent: bool,
    reports: BTreeMap<usize, Counts>,
}

/// A document in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AskedDocument {
    document: SourceDocument,
    version: Option<Version>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    asked: usize,
    withheld: usize,
}

/// The candidates that sources release.
pub(super) struct Sifted {
    /// The candidates, in their order.
    pub(super) candidates: Vec<Permitted<Candidate>>,
    /// The texts that come from sources, by chunk id.
    pub(super) texts: HashMap<String, SourceText>,
    /// The number of candidates that sources withhold.
    pub(super) withheld: usize,
    /// The number of candidates whose chunks are gone or were replaced since the search.
    pub(super) changed: usize,
}

/// The prospects of a candidate before its source is asked.
enum Outlook {
    /// It has no source, or its source has released it.
    Released,
    Withheld,
    /// Its chunk is gone, or was replaced since the search.
    Changed,
    /// Its source has to be asked.
    Open {
        asked: AskedDocument,
        text: SourceTextFrom,
    },
}

impl Outlook {
    /// Returns whether the answer of the source has the text of the document.
    fn brings_text(&self) -> bool {
        matches!(self, Self::Open { text: SourceTextFrom::Source, .. })
    }
}

impl Sifted {
    /// Returns the candidates as they are.
    fn all(candidates: Vec<Permitted<Candidate>>) -> Self {
        Self { candidates, texts: HashMap::new(), withheld: 0, changed: 0 }
    }
}

impl<'r> SourceGate<'r> {
    /// Makes the gate of one request. It has asked nothing yet.
    pub(super) fn new(
        shared: &'r Shared,
        principal: &'r Principal,
        consistency: Consistency,
        deadline: Instant,
        since_1970: Duration,
    ) -> Self {
        let recall = match consistency {
            Consistency::MinimizeLatency => Recall::All,
            Consistency::AtLeastAsFresh(moment) => Recall::Since(moment),
            Consistency::HigherConsistency => Recall::None,
        };
        Self {
            systems: shared.systems.sources.as_deref(),
            principal,
            recall,
            since_1970,
            deadline,
            verdicts: HashMap::new(),
            uniform: HashMap::new(),
            asked: 0,
            is_spent: false,
            reports: BTreeMap::new(),
        }
    }

    /// Returns whether there are sources at all.
    pub(super) fn has_sources(&self) -> bool {
        self.systems.is_some()
    }

    /// Returns whether candidates had to be left out because sources were asked too often.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Returns the counts of the questions to each source, for the record.
    pub(super) fn reports(&self) -> Vec<SourceReport> {
        let name = |source: usize| self.systems.map(|systems| systems.name(source)).unwrap_or_default().to_owned();
        let report = |(source, counts): (&usize, &Counts)| {
            let Counts { asked, withheld } = *counts;
            SourceReport { source: name(*source), asked, withheld }
        };
        self.reports.iter().map(report).collect()
    }

    /// Keeps the candidates that have no source, and those that their source releases. It reads no text of the store.
    ///
    /// # Errors
    /// When a source does not say whether the user may see a document, or cannot be asked as the user.
    pub(super) async fn sift(
        &mut self,
        lookup: ChunkLookup<'_>,
        candidates: Vec<Permitted<Candidate>>,
    ) -> Result<Sifted, RetrievalError> {
        let Some(systems) = self.systems else { return Ok(Sifted::all(candidates)) };
        let rules: Vec<Option<SourceRule>> =
            candidates.iter().map(|candidate| systems.rule(&candidate.item().guard)).collect();
        if rules.iter().all(Option::is_none) {
            return Ok(Sifted::all(candidates));
        }
        let bearer = self.principal.bearer().ok_or(SourceError::NoToken)?;
        let metadata = metadata_for(lookup, systems, &candidates).await?;
        self.look_at_documents(lookup, systems, &candidates, &metadata).await?;
        let outlooks: Vec<Outlook> = candidates
            .iter()
            .zip(&rules)
            .map(|(candidate, rule)| self.outlook(systems, candidate.item(), rule.as_ref(), &metadata))
            .collect();
        let texts = self.ask(systems, bearer, &outlooks).await?;

        let mut sifted = Sifted::all(Vec::new());
        for (candidate, outlook) in candidates.into_iter().zip(outlooks) {
            match outlook {
                Outlook::Released => sifted.candidates.push(candidate),
                Outlook::Withheld => sifted.withheld += 1,
                Outlook::Changed => sifted.changed += 1,
                Outlook::Open { asked, text } => match (self.verdicts.get(&asked), text) {
                    (Some(true), SourceTextFrom::Store) => sifted.candidates.push(candidate),
                    // The text came with the answer. A document without one is withheld.
                    (Some(true), SourceTextFrom::Source) => match texts.get(&asked) {
                        Some(text) => {
                            sifted.texts.insert(candidate.item().chunk_id.clone(), text.clone());
                            sifted.candidates.push(candidate);
                        }
                        None => sifted.withheld += usize::from(!self.is_spent),
                    },
                    (Some(false), _) => sifted.withheld += 1,
                    // The request has asked too often already, so nobody asked about this document.
                    (None, _) => {}
                },
            }
        }
        Ok(sifted)
    }

    /// Returns the prospects of a candidate before its source is asked.
    fn outlook(
        &self,
        systems: &dyn SourceSystems,
        candidate: &Candidate,
        rule: Option<&SourceRule>,
        metadata: &HashMap<String, ChunkMetadata>,
    ) -> Outlook {
        let Some(rule) = rule else { return Outlook::Released };
        let chunk = metadata.get(&candidate.chunk_id).filter(|chunk| chunk.guard == candidate.guard);
        if chunk.is_none() && needs_metadata(rule) {
            return Outlook::Changed;
        }
        let is_mixed = |chunk: &ChunkMetadata| !self.uniform.get(&chunk.document_id).copied().unwrap_or_default();
        if rule.text == SourceTextFrom::Source && chunk.is_none_or(is_mixed) {
            return Outlook::Withheld;
        }
        let document = systems.locate(&candidate.guard, chunk.map(|chunk| &chunk.metadata));
        let Some(document) = document.filter(|document| document.source == rule.source) else {
            return Outlook::Withheld;
        };
        let asked = AskedDocument { document, version: candidate.version };
        match (self.verdicts.get(&asked), rule.text) {
            (Some(false), _) => Outlook::Withheld,
            (Some(true), SourceTextFrom::Store) => Outlook::Released,
            // Nobody keeps the text, so the source is asked again.
            (Some(true), SourceTextFrom::Source) | (None, _) => Outlook::Open { asked, text: rule.text },
        }
    }

    /// Asks about the documents that are open, each once. Returns the texts that came with the answers.
    async fn ask(
        &mut self,
        systems: &dyn SourceSystems,
        bearer: &BearerToken,
        outlooks: &[Outlook],
    ) -> Result<HashMap<AskedDocument, SourceText>, RetrievalError> {
        let mut seen: HashSet<&AskedDocument> = HashSet::new();
        let mut questions: Vec<(&AskedDocument, SourceQuestion<'_>)> = Vec::new();
        for outlook in outlooks {
            let Outlook::Open { asked, .. } = outlook else { continue };
            if !seen.insert(asked) {
                continue;
            }
            if self.asked >= DOCUMENTS_MAX {
                self.is_spent = true;
                break;
            }
            self.asked += 1;
            let question = SourceQuestion {
                document: &asked.document,
                version: asked.version,
                bearer,
                recall: self.recall,
                since_1970: self.since_1970,
            };
            questions.push((asked, question));
        }
        if outlooks.iter().any(Outlook::brings_text) {
            self.principal.reads_text();
        }
        let mut asking: Vec<BoxFuture<'_, Answered<'_>>> = Vec::with_capacity(questions.len());
        for (asked, question) in &questions {
            let reply = systems.ask(question);
            asking.push(Box::pin(async move { Answered { asked, reply: reply.await } }));
        }
        let mut answers = stream::iter(asking).buffer_unordered(CONCURRENT_MAX);
        let mut texts = HashMap::new();
        while let Some(Answered { asked, reply }) =
            within(self.deadline, async { Ok::<_, RetrievalError>(answers.next().await) }).await?
        {
            let counts = self.reports.entry(asked.document.source).or_default();
            counts.asked += 1;
            match reply? {
                SourceReply::Released(text) => {
                    self.verdicts.insert(asked.clone(), true);
                    texts.extend(text.map(|text| (asked.clone(), text)));
                }
                SourceReply::Withheld => {
                    counts.withheld += 1;
                    self.verdicts.insert(asked.clone(), false);
                }
            }
        }
        Ok(texts)
    }

    /// Finds out which documents have one guard and one classification, and no chunk that the details of the token leave out. This
    /// matters where the text comes from a source: that text is of the whole document, so it holds the text of all chunks.
    async fn look_at_documents(
        &mut self,
        lookup: ChunkLookup<'_>,
        systems: &dyn SourceSystems,
        candidates: &[Permitted<Candidate>],
        metadata: &HashMap<String, ChunkMetadata>,
    ) -> Result<(), RetrievalError> {
        for candidate in candidates {
            let Candidate { chunk_id, guard, .. } = candidate.item();
            let takes_text = systems.rule(guard).is_some_and(|rule| rule.text == SourceTextFrom::Source);
            let Some(chunk) = metadata.get(chunk_id).filter(|_| takes_text) else { continue };
            let is_known = self.uniform.contains_key(&chunk.document_id);
            if is_known {
                continue;
            }
            let is_uniform = is_uniform(lookup, systems.classification_key(), self.principal, chunk).await?;
            self.uniform.insert(chunk.document_id.clone(), is_uniform);
        }
        Ok(())
    }
}

/// The answer of a source about a document.
struct Answered<'q> {
    asked: &'q AskedDocument,
    reply: Result<SourceReply, SourceError>,
}

fn needs_metadata(rule: &SourceRule) -> bool {
    rule.needs_metadata || rule.text == SourceTextFrom::Source
}

/// Reads the metadata of the candidates whose sources need it, by chunk id.
async fn metadata_for(
    lookup: ChunkLookup<'_>,
    systems: &dyn SourceSystems,
    candidates: &[Permitted<Candidate>],
) -> Result<HashMap<String, ChunkMetadata>, RetrievalError> {
    let needed = candidates.iter().map(Permitted::item);
    let needed = needed.filter(|candidate| systems.rule(&candidate.guard).as_ref().is_some_and(needs_metadata));
    let needed: Vec<Candidate> = needed.cloned().collect();
    if needed.is_empty() { Ok(HashMap::new()) } else { lookup.metadata(&needed).await }
}

/// Returns whether all chunks of a document have the guard and the classification of this one, and are within the details of the
/// principal's token.
async fn is_uniform(
    lookup: ChunkLookup<'_>,
    classification_key: Option<&str>,
    principal: &Principal,
    chunk: &ChunkMetadata,
) -> Result<bool, RetrievalError> {
    let ChunkLookup { vector_store, collection, search: _, deadline } = lookup;
    let document_ids = [chunk.document_id.clone()];
    let guards = within(deadline, vector_store.document_guards(collection, &document_ids)).await?;
    let [guards] = guards.as_slice() else { return Ok(false) };
    if guards.as_slice() != std::slice::from_ref(&chunk.guard) {
        return Ok(false);
    }
    if classification_key.is_none() && !principal.details_ask_for_chunks() {
        return Ok(true);
    }
    let guards = HashSet::from([chunk.guard.clone()]);
    let finding = vector_store.find_in_document(collection, &chunk.document_id, &guards);
    let found = within(deadline, finding).await?;
    if found.len() > CHUNKS_PER_DOCUMENT_MAX {
        return Ok(false);
    }
    let siblings = within(deadline, vector_store.read_metadata(collection, None, &found)).await?;
    // A chunk that was replaced meanwhile may have any classification.
    let is_whole = siblings.len() == found.len() && !siblings.is_empty();
    let has_class = |sibling: &ChunkMetadata| {
        classification_key.is_none_or(|key| sibling.metadata.get(key) == chunk.metadata.get(key))
    };
    // Details may look at other metadata than the classification.
    let is_admitted = |sibling: &ChunkMetadata| principal.ledger().admit(&sibling.guard, &sibling.metadata);
    let is_like_this =
        |sibling: &ChunkMetadata| sibling.guard == chunk.guard && has_class(sibling) && is_admitted(sibling);
    Ok(is_whole && siblings.iter().all(is_like_this))
}
