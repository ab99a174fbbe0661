//! `ragward.retrieval.v1.RetrievalService`.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

use super::answers::AnswerSlot;
use super::audit::{Draft, decided_by, searched};
use super::authentication::{self, Authentication};
use super::deadline::deadline;
use super::explain::Question;
use super::{Services, status, values};
use crate::audit::{AuditedRequest, Decision, Released};
use crate::authz::consistency_token::{ConsistencyTokens, NotAToken};
use crate::authz::enforce::Permitted;
use crate::authz::{Authorizer, AuthzError, Consistency};
use crate::chunk::{Chunk, ID_BYTES_MAX};
use crate::identity::{Caller, Principal};
use crate::lanes::{Lane, Lost};
use crate::language::Relation;
use crate::proto::retrieval as message;
use crate::proto::retrieval::retrieval_service_server::RetrievalService;
use crate::retrieval::request::RetrievalParts;
use crate::retrieval::{
    Completion, FieldViolation, PlanReport, RecheckRequest, Retrieval, RetrievalError, RetrievalRequest, Retrieved,
    Retriever,
};
use crate::tuple_store::RelationshipStores;
use crate::vector_store::validation::{CHUNK_TEXT_BYTES_MAX, METADATA_BYTES_MAX, TITLE_BYTES_MAX};
use crate::vector_store::{Query, VectorStore};

/// Longest part of a question for a reason that is recorded before it was read.
const ASKED_CHARACTERS_MAX: usize = 512;

/// A chunk with all that it may have: its text and metadata, the title, and the ids of it, its document and its guard.
const CHUNK_BYTES_MAX: usize = CHUNK_TEXT_BYTES_MAX + METADATA_BYTES_MAX + TITLE_BYTES_MAX + 3 * ID_BYTES_MAX;

pub(super) struct RetrievalApi {
    retriever: Retriever,
    vector_store: Arc<dyn VectorStore>,
    relationships: Option<RelationshipStores>,
    explain: bool,
    request_timeout: Duration,
    authentication: Authentication,
    authorizer: Arc<dyn Authorizer>,
    consistency_tokens: Arc<ConsistencyTokens>,
    explaining: Lane,
}

impl RetrievalApi {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            retriever: services.retriever.clone(),
            vector_store: Arc::clone(&services.vector_store),
            relationships: services.relationships.clone(),
            explain: services.explain,
            request_timeout: services.request_timeout,
            authentication: services.authentication.clone(),
            authorizer: Arc::clone(&services.authorizer),
            consistency_tokens: Arc::clone(&services.consistency_tokens),
            // For administrators, now and then; it must not take the cores from retrievals.
            explaining: Lane::of(1),
        }
    }

    /// The consistency that a request asks for. A token that would be heeded by nobody is refused: who sent it counts on it.
    fn consistency(&self, value: i32, token: &str) -> Result<Consistency, FieldViolation> {
        let consistency = match message::Consistency::try_from(value) {
            Ok(message::Consistency::AtLeastAsFresh) => {
                let moment = self.consistency_tokens.moment(token);
                let refused = |e: NotAToken| FieldViolation::new("consistency_token", e.to_string());
                return moment.map(Consistency::AtLeastAsFresh).map_err(refused);
            }
            Ok(message::Consistency::Unspecified | message::Consistency::MinimizeLatency) => {
                Consistency::MinimizeLatency
            }
            Ok(message::Consistency::HigherConsistency) => Consistency::HigherConsistency,
            Err(_) => {
                return Err(FieldViolation::new("consistency", format!("is {value}, which is not a consistency")));
            }
        };
        match token {
            "" => Ok(consistency),
            _ => Err(FieldViolation::new("consistency_token", "needs `consistency` CONSISTENCY_AT_LEAST_AS_FRESH")),
        }
    }

    /// Whether the caller may be told what is hidden: with a token its scope says so, and the gate has looked at that.
    fn admit_explanation(&self, caller: &Caller) -> Result<(), RetrievalError> {
        match caller {
            Caller::Verified { .. } => return Ok(()),
            Caller::Believed if self.explain => return Ok(()),
            Caller::Believed => {}
        }
        let text = "this server does not explain, since an explanation tells what is hidden. Where the embedded evaluator \
                    decides, set `server.explain`, or stop the server and run `ragward explain --data`";
        Err(RetrievalError::Unsupported(text.to_owned()))
    }
}

#[tonic::async_trait]
impl RetrievalService for RetrievalApi {
    async fn retrieve(
        &self,
        request: Request<message::RetrieveRequest>,
    ) -> Result<Response<message::RetrieveResponse>, Status> {
        let deadline = deadline(request.metadata(), self.request_timeout);
        let draft = Draft::of(&request)?;
        let room = AnswerSlot::of(&request)?;
        let caller = authentication::caller(&request)?;
        let message = request.into_inner();
        let explain_plan = message.explain_plan;
        let principal = principal(&caller, &message.user, &draft)?;
        let ceiling = &message.classification_max;
        let principal = self.authentication.bounded_by_login(principal, &caller, &message.collection, ceiling)?;
        let consistency = self.consistency(message.consistency, &message.consistency_token);
        let parts = consistency.and_then(|consistency| retrieval_parts(message, principal, consistency));
        let parts = parts.map_err(|violation| status::invalid(vec![violation]))?;
        let top_k_max = self.retriever.config().top_k_max;
        let request = RetrievalRequest::new(parts, top_k_max).map_err(status::invalid)?;
        draft.retrieval(&request);
        room.reserve(request.top_k() * CHUNK_BYTES_MAX).await?;
        let retrieval = self.retriever.retrieve(&request, deadline).await?;
        draft.stages(&retrieval.stages);
        let Decision { model_id, staleness_ms, .. } = decided_by(&*self.authorizer, request.consistency()).await;
        let model_id = retrieval.model_id.as_deref().map(str::to_owned).or(model_id);
        let completion = Some(completion_name(retrieval.completion).to_owned());
        draft.decision(Decision { model_id, staleness_ms, completion, ..searched(&retrieval.plan) });
        let chunk_ids = retrieval.chunks.iter().map(|retrieved| retrieved.chunk.item().id.clone()).collect();
        draft.released(Released { chunk_ids, documents: None });
        // INVARIANT (no counts): what is withheld is counted only where the operator lets it be told.
        let shows_plan = explain_plan && self.retriever.config().explain_plan;
        let response = response(retrieval, shows_plan);
        room.reserve(response.encoded_len()).await?;
        Ok(Response::new(response))
    }

    async fn recheck(
        &self,
        request: Request<message::RecheckRequest>,
    ) -> Result<Response<message::RecheckResponse>, Status> {
        let deadline = deadline(request.metadata(), self.request_timeout);
        let draft = Draft::of(&request)?;
        let caller = authentication::caller(&request)?;
        let message = request.into_inner();
        let principal = principal(&caller, &message.user, &draft)?;
        let principal = self.authentication.bounded_by_login(principal, &caller, &message.collection, "")?;
        let consistency = self.consistency(message.consistency, &message.consistency_token);
        let consistency = consistency.map_err(|violation| status::invalid(vec![violation]))?;
        let request = RecheckRequest::new(principal, message.collection, message.chunk_ids, consistency)
            .map_err(status::invalid)?;
        draft.recheck(&request);
        let rechecked = self.retriever.recheck(&request, deadline).await?;
        draft.stages(&rechecked.stages);
        let decision = decided_by(&*self.authorizer, request.consistency()).await;
        let model_id = rechecked.model_id.as_deref().map(str::to_owned).or(decision.model_id);
        draft.decision(Decision { model_id, withheld: Some(rechecked.withheld as u64), ..decision });
        let permitted = rechecked.candidates.into_iter();
        let chunk_ids: Vec<String> = permitted.map(|candidate| candidate.into_item().chunk_id).collect();
        draft.released(Released { chunk_ids: chunk_ids.clone(), documents: None });
        Ok(Response::new(message::RecheckResponse { chunk_ids }))
    }

    async fn explain(
        &self,
        request: Request<message::ExplainRequest>,
    ) -> Result<Response<message::ExplainResponse>, Status> {
        let draft = Draft::of(&request)?;
        let caller = authentication::caller(&request)?;
        self.admit_explanation(&caller)?;
        if let Some(message::explain_request::Target::Chunk(chunk)) = &request.get_ref().target {
            // What is explained shows no text, so the collection counts and the classification does not.
            self.authentication.admit_login(&caller, &chunk.collection)?;
        }
        let deadline = deadline(request.metadata(), self.request_timeout);
        let Some(stores) = self.relationships.clone() else {
            let text = "an OpenFGA server decides here, and only the embedded evaluator explains; ask OpenFGA's Expand";
            return Err(RetrievalError::Unsupported(text.to_owned()).into());
        };
        let relation = &self.retriever.config().relation;
        // What was asked is in the record even if it is refused.
        draft.request(AuditedRequest { about: asked_about(request.get_ref(), relation), ..AuditedRequest::default() });
        let read = Question::read(request.into_inner(), relation, self.vector_store.as_ref());
        let question = timeout_at(deadline, read).await.map_err(|_elapsed| RetrievalError::DeadlineExceeded)??;
        let answered = self.explaining.run(move || question.answer(&stores, deadline)).await;
        let lost = |e: Lost| AuthzError::Unavailable(e.to_string());
        let explained = answered.map_err(lost).map_err(RetrievalError::from)??;
        let about = format!("{} {} {}", explained.user, explained.relation, explained.object);
        draft.request(AuditedRequest { about: Some(about), ..AuditedRequest::default() });
        let model_id = Some(explained.authorization_model_id.clone());
        draft.decision(Decision { model_id, staleness_ms: Some(0), ..Decision::default() });
        Ok(Response::new(explained))
    }
}

/// What a question for a reason is about, as it was asked: bounded, since nobody has looked at it yet.
fn asked_about(request: &message::ExplainRequest, relation: &Relation) -> Option<String> {
    let short = |text: &str| text.chars().take(ASKED_CHARACTERS_MAX).collect::<String>();
    let target = match request.target.as_ref()? {
        message::explain_request::Target::Chunk(chunk) => {
            format!("{}/{}", short(&chunk.collection), short(&chunk.chunk_id))
        }
        message::explain_request::Target::Object(object) => short(object),
    };
    let relation = if request.relation.is_empty() { relation.as_str() } else { request.relation.as_str() };
    Some(format!("{} {} {target}", short(&request.user), short(relation)))
}

/// The principal of a request, as [`authentication::principal`] tells it, and in the record.
fn principal(caller: &Caller, user: &str, draft: &Draft) -> Result<Result<Principal, FieldViolation>, Status> {
    let principal = authentication::principal(caller, user)?;
    if let Ok(principal) = &principal {
        draft.principal(principal);
    }
    Ok(principal)
}

fn retrieval_parts(
    message: message::RetrieveRequest,
    principal: Result<Principal, FieldViolation>,
    consistency: Consistency,
) -> Result<RetrievalParts, FieldViolation> {
    let query = message.query.map(|query| match query {
        message::retrieve_request::Query::Text(text) => Query::Text(text),
        message::retrieve_request::Query::Vector(vector) => Query::Vector(vector.values),
        message::retrieve_request::Query::Hybrid(message::Hybrid { text, vector }) => {
            Query::Hybrid { text, vector: vector.unwrap_or_default().values }
        }
    });
    Ok(RetrievalParts {
        principal,
        collection: message.collection,
        query,
        top_k: message.top_k,
        filter: message.filter.map(values::filter).transpose()?,
        min_score: message.min_score,
        per_document_max: message.per_document_max,
        consistency,
        page_token: message.page_token,
    })
}

/// The name of a completion in the log.
const fn completion_name(completion: Completion) -> &'static str {
    match completion {
        Completion::Complete => "complete",
        Completion::Exhausted => "exhausted",
        Completion::Limited => "limited",
    }
}

fn response(retrieval: Retrieval, shows_plan: bool) -> message::RetrieveResponse {
    let completion = match retrieval.completion {
        Completion::Complete => message::Completion::Complete,
        Completion::Exhausted => message::Completion::Exhausted,
        Completion::Limited => message::Completion::Limited,
    };
    let recall = if retrieval.exact { message::Recall::Exact } else { message::Recall::Approximate };
    message::RetrieveResponse {
        chunks: retrieval.chunks.into_iter().map(chunk_message).collect(),
        completion: completion.into(),
        recall: recall.into(),
        next_page_token: retrieval.next_page_token.unwrap_or_default(),
        plan: shows_plan.then(|| plan_message(&retrieval.plan)),
        replica_lag_milliseconds: retrieval.replica_lag.map(|lag| lag.as_secs_f64() * 1_000.0),
    }
}

fn plan_message(report: &PlanReport) -> message::PlanReport {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let rounds = report.rounds.iter().map(|round| message::PlanRound {
        plan: round.plan.to_owned(),
        limit: count(round.limit),
        candidates: count(round.candidates),
        permitted: count(round.permitted),
        milliseconds: round.took.as_secs_f64() * 1_000.0,
    });
    message::PlanReport { estimated_share: report.estimate, rounds: rounds.collect() }
}

fn chunk_message(Retrieved { chunk, score }: Retrieved) -> message::Chunk {
    let chunk: Permitted<Chunk> = chunk;
    let chunk = chunk.into_item();
    message::Chunk {
        id: chunk.id,
        document_id: chunk.document_id,
        guard: chunk.guard.to_string(),
        title: chunk.title,
        text: chunk.text,
        score: f64::from(score),
        metadata: values::metadata_message(chunk.metadata),
    }
}
