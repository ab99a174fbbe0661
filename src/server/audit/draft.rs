//! The record of a call while the call runs.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tonic::{Code, Status};

use super::{Audit, observed};
use crate::audit::{
    AuditedApproval, AuditedDecision, AuditedModel, AuditedPrincipal, AuditedRequest, DigestPurpose, Door, Latencies,
    Record, Released,
};
use crate::authz::{Consistency, DecidedBy};
use crate::identity::{Principal, TokenFacts, VerifiedToken};
use crate::inference::{ModelFault, ModelTask, SentRecord, SentTexts};
use crate::retrieval::{
    FetchRequest, PlanReport, RecheckRequest, Rechecked, RetrievalRequest, StageTimes, StatedQuery,
};
use crate::server::refusal::Refusal;
use crate::telemetry;
use crate::vector_store::Query;

/// Collects what is known of a call. Clones share one draft.
#[derive(Clone)]
pub(in crate::server) struct Draft {
    record: Arc<Mutex<Record>>,
    outcome: Arc<OnceLock<Code>>,
    audit: Option<Audit>,
}

impl Draft {
    pub(super) fn new(rpc: &'static str, door: Door, trace_id: String, audit: Option<Audit>) -> Self {
        let record = Record {
            call: rpc.to_owned(),
            door: Some(door),
            code: String::new(),
            trace_id,
            refusal: None,
            principal: None,
            request: None,
            decision: None,
            observed: None,
            released: None,
            approval: None,
            models: Vec::new(),
            latency_us: Latencies::default(),
        };
        let outcome = Arc::default();
        Self { record: Arc::new(Mutex::new(record)), outcome, audit }
    }

    /// Takes the draft of a request.
    ///
    /// # Errors
    /// When there is none. Then the record's layer is not around this service, which must not answer unrecorded.
    pub(in crate::server) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| Refusal::unrecorded().into())
    }

    /// Returns the finished record: `code` is how the call ended, `took` how long it ran.
    pub(super) fn finish(&self, code: &str, took: Duration) -> Record {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        code.clone_into(&mut record.code);
        record.latency_us.total = micros(took);
        record
    }

    /// Returns how the work of a call ended whose caller went away; `None` while that is not known.
    pub(super) fn outcome(&self) -> Option<Code> {
        self.outcome.get().copied()
    }

    /// Notes how the work of the call ended, whether or not anybody still waits for the answer.
    pub(super) fn ended(&self, code: Code) {
        // A call ends once, so the first code counts.
        self.outcome.get_or_init(|| code);
    }

    fn edit(&self, edit: impl FnOnce(&mut Record)) {
        edit(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn digest(&self, purpose: DigestPurpose, bytes: &[u8]) -> Option<String> {
        self.audit.as_ref().map(|audit| audit.sink.digest(purpose, bytes))
    }

    /// Notes why the gate refuses the token: a label from a fixed set.
    pub(in crate::server) fn token_refused(&self, label: &'static str) {
        telemetry::token_refused(label);
        self.edit(|record| record.refusal = Some(label.to_owned()));
    }

    /// Notes whose token came with the call.
    pub(in crate::server) fn bearer(&self, token: &VerifiedToken) {
        let audited =
            AuditedPrincipal { subject: token.user().map(ToString::to_string), ..self.of_token(Some(token.facts())) };
        self.edit(|record| record.principal = Some(audited));
    }

    /// Notes the principal whom the answer is for.
    pub(in crate::server) fn principal(&self, principal: &Principal) {
        let audited = AuditedPrincipal {
            subject: Some(principal.subject().to_string()),
            asserted_by: principal.asserted_by().map(str::to_owned),
            purposes: principal.purposes().into_iter().map(str::to_owned).collect(),
            ..self.of_token(principal.token())
        };
        self.edit(|record| record.principal = Some(audited));
    }

    fn of_token(&self, facts: Option<&TokenFacts>) -> AuditedPrincipal {
        let Some(facts) = facts else { return AuditedPrincipal::default() };
        AuditedPrincipal {
            actors: facts.actors.iter().map(|actor| actor.object.to_string()).collect(),
            client_id: Some(facts.client_id.clone()),
            issuer: Some(facts.issuer.to_string()),
            token_digest: self.digest(DigestPurpose::TokenId, facts.token_id.as_bytes()),
            ..AuditedPrincipal::default()
        }
    }

    /// Notes what the caller asks for.
    pub(in crate::server) fn request(&self, request: AuditedRequest) {
        self.edit(|record| record.request = Some(request));
    }

    /// Notes what a retrieval asks for.
    pub(in crate::server) fn retrieval(&self, request: &RetrievalRequest) {
        let (kind, bytes) = query_bytes(request.query());
        self.request(AuditedRequest {
            collection: request.collection().to_owned(),
            query_kind: Some(kind.to_owned()),
            query_digest: self.digest(DigestPurpose::Query, &bytes),
            count: Some(request.top_k() as u64),
            filtered: Some(request.is_filtered()),
            consistency: Some(consistency_name(request.consistency())),
            context_keys: request.context_keys().to_vec(),
            about: None,
            purpose: None,
        });
    }

    /// Notes what a re-check asks for.
    pub(in crate::server) fn recheck(&self, request: &RecheckRequest) {
        self.request(AuditedRequest {
            collection: request.collection().to_owned(),
            count: Some(request.chunk_ids().len() as u64),
            consistency: Some(consistency_name(request.consistency())),
            context_keys: request.context_keys().to_vec(),
            ..AuditedRequest::default()
        });
    }

    /// Notes that the caller of a re-check uses chunks that Ragward does not filter.
    pub(in crate::server) fn observing(&self) {
        self.edit(|record| record.request.get_or_insert_default().purpose = Some(AuditedRequest::OBSERVE.to_owned()));
    }

    /// Notes what an observing re-check would have withheld, in as much detail as the operator asks for.
    pub(in crate::server) fn observed(&self, request: &RecheckRequest, rechecked: &Rechecked) {
        let Some(Audit { observed: detail, .. }) = &self.audit else { return };
        let observed = observed::observed(*detail, request.chunk_ids(), rechecked);
        self.edit(|record| record.observed = Some(observed));
    }

    /// Returns whether the call will be recorded.
    pub(in crate::server) fn is_recorded(&self) -> bool {
        self.audit.is_some()
    }

    /// Notes what a fetch asks for.
    pub(in crate::server) fn fetch(&self, request: &FetchRequest) {
        self.request(AuditedRequest {
            collection: request.collection().to_owned(),
            count: Some(request.ids_total() as u64),
            consistency: Some(consistency_name(request.consistency())),
            context_keys: request.context_keys().to_vec(),
            ..AuditedRequest::default()
        });
    }

    /// Notes the approval that a request needs or has.
    pub(in crate::server) fn approval(&self, approval: AuditedApproval) {
        self.edit(|record| record.approval = Some(approval));
    }

    /// Notes the model that texts are sent to. What one model at one host gets for one purpose is one entry.
    fn sent_to_model(&self, sent: SentTexts<'_>) {
        let SentTexts { task, model, host, texts, chunk_ids } = sent;
        // An upload names documents, and may have too many chunks for a record.
        let chunk_ids = if task == ModelTask::Rerank { chunk_ids } else { &[] };
        self.edit(|record| {
            let is_same = |audited: &&mut AuditedModel| {
                audited.task == task.name() && audited.model == model && audited.host == host
            };
            match record.models.iter_mut().find(is_same) {
                Some(audited) => {
                    audited.texts = audited.texts.saturating_add(texts as u64);
                    audited.chunk_ids.extend_from_slice(chunk_ids);
                }
                None => record.models.push(AuditedModel {
                    task: task.name().to_owned(),
                    model: model.to_owned(),
                    host: host.to_owned(),
                    texts: texts as u64,
                    chunk_ids: chunk_ids.to_vec(),
                }),
            }
        });
    }

    /// Notes how the answer was decided.
    pub(in crate::server) fn decision(&self, decision: AuditedDecision) {
        self.edit(|record| record.decision = Some(decision));
    }

    /// Notes how long each stage took.
    pub(in crate::server) fn stages(&self, stages: &StageTimes) {
        let latencies = Latencies {
            total: 0,
            authorize: Some(micros(stages.authorize)),
            search: Some(micros(stages.search)),
            hydrate: Some(micros(stages.hydrate)),
        };
        self.edit(|record| record.latency_us = latencies);
    }

    /// Notes what will leave the server, or what was written.
    pub(in crate::server) fn released(&self, released: Released) {
        self.edit(|record| record.released = Some(released));
    }
}

impl SentRecord for Draft {
    /// INVARIANT (record first): while required records cannot be kept, nothing is sent. Nobody would learn of it.
    fn about_to_send(&self, sent: SentTexts<'_>) -> Result<(), ModelFault> {
        if self.audit.as_ref().is_some_and(|audit| audit.required && audit.sink.is_failing()) {
            return Err(ModelFault::Unrecorded);
        }
        self.sent_to_model(sent);
        Ok(())
    }
}

/// Records which model decided, and how far behind its relationships were. Both come from the decisions themselves.
pub(in crate::server) fn decided_by(decided_by: Option<&DecidedBy>) -> AuditedDecision {
    let Some(DecidedBy { model_id, staleness }) = decided_by else { return AuditedDecision::default() };
    AuditedDecision {
        model_id: Some(model_id.to_string()).filter(|model_id| !model_id.is_empty()),
        staleness_ms: staleness.and_then(|staleness| u64::try_from(staleness.as_millis()).ok()),
        ..AuditedDecision::default()
    }
}

/// Describes how a retrieval was searched. Each round sees the candidates of the round before again, so the largest number
/// that a round withheld is the number of withheld chunks.
pub(in crate::server) fn searched(report: &PlanReport) -> AuditedDecision {
    let withheld = report.rounds.iter().map(|round| round.withheld).max();
    AuditedDecision {
        plan: report.rounds.last().map(|round| round.plan.name().to_owned()),
        rounds: u32::try_from(report.rounds.len()).ok(),
        withheld: withheld.map(|withheld| withheld as u64),
        ..AuditedDecision::default()
    }
}

/// Gives the kind of a query, and the bytes that its digest is made of. The bytes hold the length of the text, so two
/// different queries never have the same bytes.
fn query_bytes(query: &StatedQuery) -> (&'static str, Vec<u8>) {
    let of_vector = |vector: &[f32]| vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (kind, text, vector) = match query {
        StatedQuery::Searchable(Query::Text(text)) => ("text", text.as_str(), Vec::new()),
        StatedQuery::Searchable(Query::Vector(vector)) => ("vector", "", of_vector(vector)),
        StatedQuery::Searchable(Query::Hybrid { text, vector }) => ("hybrid", text.as_str(), of_vector(vector)),
        StatedQuery::Semantic(text) => ("semantic", text.as_str(), Vec::new()),
        StatedQuery::Hybrid(text) => ("hybrid", text.as_str(), Vec::new()),
    };
    let text_bytes = (text.len() as u64).to_le_bytes();
    (kind, [kind.as_bytes(), b"\0", &text_bytes, text.as_bytes(), &vector].concat())
}

fn consistency_name(consistency: Consistency) -> String {
    let name = match consistency {
        Consistency::MinimizeLatency => "minimize_latency",
        Consistency::AtLeastAsFresh(_) => "at_least_as_fresh",
        Consistency::HigherConsistency => "higher_consistency",
    };
    name.to_owned()
}

/// Returns the whole microseconds of a duration.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
