//! `ragward.retrieval.v1.RetrievalService`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

use super::authentication::{self, Authentication};
use super::deadline::deadline;
use super::explain::Question;
use super::{Services, status, values};
use crate::authz::enforce::Permitted;
use crate::authz::{AuthzError, Consistency};
use crate::chunk::Chunk;
use crate::identity::{Caller, Principal};
use crate::proto::retrieval as message;
use crate::proto::retrieval::retrieval_service_server::RetrievalService;
use crate::relationship::store::RelationshipStores;
use crate::retrieval::request::RetrievalParts;
use crate::retrieval::{
    Completion, FieldViolation, PlanReport, RecheckRequest, Retrieval, RetrievalError, RetrievalRequest, Retrieved,
    Retriever,
};
use crate::vector_store::{Query, VectorStore};

pub(super) struct RetrievalApi {
    retriever: Retriever,
    vector_store: Arc<dyn VectorStore>,
    relationships: Option<RelationshipStores>,
    explain: bool,
    request_timeout: Duration,
    authentication: Authentication,
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
        }
    }

    /// Whether the caller may be told what is hidden: with a token its scope says so, and the gate has looked at that.
    fn admit_explanation(&self, caller: &Caller) -> Result<(), RetrievalError> {
        match caller {
            Caller::Verified(_) => return Ok(()),
            Caller::Believed if self.explain => return Ok(()),
            Caller::Believed => {}
        }
        let text = "this server does not explain, for an explanation tells of what is hidden; set `server.explain`, or \
                    run `ragward explain --data` beside the data";
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
        let caller = authentication::caller(&request)?;
        let message = request.into_inner();
        let explain_plan = message.explain_plan;
        let principal = authentication::principal(&caller, &message.user)?;
        let ceiling = &message.classification_max;
        let principal = self.authentication.bounded_by_login(principal, &caller, &message.collection, ceiling)?;
        let parts = retrieval_parts(message, principal).map_err(|violation| status::invalid(vec![violation]))?;
        let top_k_max = self.retriever.config().top_k_max;
        let request = RetrievalRequest::new(parts, top_k_max).map_err(status::invalid)?;
        let retrieval = self.retriever.retrieve(&request, deadline).await?;
        // INVARIANT (no counts): what is withheld is counted only where the operator lets it be told.
        let shows_plan = explain_plan && self.retriever.config().explain_plan;
        Ok(Response::new(response(retrieval, shows_plan)))
    }

    async fn recheck(
        &self,
        request: Request<message::RecheckRequest>,
    ) -> Result<Response<message::RecheckResponse>, Status> {
        let deadline = deadline(request.metadata(), self.request_timeout);
        let caller = authentication::caller(&request)?;
        let message = request.into_inner();
        let principal = authentication::principal(&caller, &message.user)?;
        let principal = self.authentication.bounded_by_login(principal, &caller, &message.collection, "")?;
        let consistency = consistency(message.consistency).map_err(|violation| status::invalid(vec![violation]))?;
        let request = RecheckRequest::new(principal, message.collection, message.chunk_ids, consistency)
            .map_err(status::invalid)?;
        let permitted = self.retriever.recheck(&request, deadline).await?;
        let chunk_ids = permitted.into_iter().map(|candidate| candidate.into_item().chunk_id).collect();
        Ok(Response::new(message::RecheckResponse { chunk_ids }))
    }

    async fn explain(
        &self,
        request: Request<message::ExplainRequest>,
    ) -> Result<Response<message::ExplainResponse>, Status> {
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
        let read = Question::read(request.into_inner(), relation, self.vector_store.as_ref());
        let question = timeout_at(deadline, read).await.map_err(|_elapsed| RetrievalError::DeadlineExceeded)??;
        let answered = tokio::task::spawn_blocking(move || question.answer(&stores, deadline)).await;
        let lost = |e| AuthzError::Unavailable(format!("the evaluation was lost: {e}"));
        Ok(Response::new(answered.map_err(lost).map_err(RetrievalError::from)??))
    }
}

fn retrieval_parts(
    message: message::RetrieveRequest,
    principal: Result<Principal, FieldViolation>,
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
        consistency: consistency(message.consistency)?,
        page_token: message.page_token,
    })
}

fn consistency(value: i32) -> Result<Consistency, FieldViolation> {
    match message::Consistency::try_from(value) {
        Ok(message::Consistency::Unspecified | message::Consistency::MinimizeLatency) => {
            Ok(Consistency::MinimizeLatency)
        }
        Ok(message::Consistency::HigherConsistency) => Ok(Consistency::HigherConsistency),
        Err(_) => Err(FieldViolation::new("consistency", format!("is {value}, which is not a consistency"))),
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
