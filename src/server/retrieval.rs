//! `ragward.retrieval.v1.RetrievalService`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

use super::audit::{Draft, consistency_name, micros};
use super::deadline::deadline;
use super::explain::Question;
use super::{Services, status, values};
use crate::audit::{AuditedRequest, Decision, Latencies, Released};
use crate::authz::enforce::Permitted;
use crate::authz::{AuthzError, Consistency};
use crate::chunk::Chunk;
use crate::proto::retrieval as message;
use crate::proto::retrieval::retrieval_service_server::RetrievalService;
use crate::relationship::store::RelationshipStores;
use crate::retrieval::request::RetrievalParts;
use crate::retrieval::{
    Account, Completion, FieldViolation, RecheckRequest, Retrieval, RetrievalError, RetrievalRequest, Retrieved,
    Retriever,
};
use crate::telemetry;
use crate::vector_store::{Query, VectorStore};

pub(super) struct RetrievalApi {
    retriever: Retriever,
    vector_store: Arc<dyn VectorStore>,
    relationships: Option<RelationshipStores>,
    explain: bool,
    request_timeout: Duration,
}

impl RetrievalApi {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            retriever: services.retriever.clone(),
            vector_store: Arc::clone(&services.vector_store),
            relationships: services.relationships.clone(),
            explain: services.explain,
            request_timeout: services.request_timeout,
        }
    }

    /// Whether the caller may be told what is hidden: the one place that decides it.
    fn admit_explanation(&self) -> Result<(), RetrievalError> {
        if self.explain {
            return Ok(());
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
        let draft = Draft::of(&request)?;
        let admitting = async {
            let parts = retrieval_parts(request.into_inner()).map_err(|violation| status::invalid(vec![violation]))?;
            RetrievalRequest::new(parts, self.retriever.config().top_k_max).map_err(status::invalid)
        };
        let request = telemetry::stage("admit", admitting).await?;
        draft.principal(request.principal());
        draft.request(audited_retrieval(&request, &draft));
        let retrieval = self.retriever.retrieve(&request, deadline).await?;
        let (decision, latencies) = decided(&retrieval.account);
        let completion = Some(completion_name(retrieval.completion).to_owned());
        draft.decision(Decision { completion, ..decision }, latencies);
        let chunk_ids = retrieval.chunks.iter().map(|retrieved| retrieved.chunk.item().id.clone()).collect();
        draft.released(Released { chunk_ids, documents: None });
        Ok(Response::new(response(retrieval)))
    }

    async fn recheck(
        &self,
        request: Request<message::RecheckRequest>,
    ) -> Result<Response<message::RecheckResponse>, Status> {
        let deadline = deadline(request.metadata(), self.request_timeout);
        let draft = Draft::of(&request)?;
        let message = request.into_inner();
        let consistency = consistency(message.consistency).map_err(|violation| status::invalid(vec![violation]))?;
        let request = RecheckRequest::new(&message.user, message.collection, message.chunk_ids, consistency)
            .map_err(status::invalid)?;
        draft.principal(request.principal());
        draft.request(AuditedRequest {
            collection: request.collection().to_owned(),
            count: Some(request.chunk_ids().len() as u64),
            consistency: Some(consistency_name(request.consistency())),
            ..AuditedRequest::default()
        });
        let rechecked = self.retriever.recheck(&request, deadline).await?;
        let (decision, latencies) = decided(&rechecked.account);
        draft.decision(decision, latencies);
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
        self.admit_explanation()?;
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
        let explained = answered.map_err(lost).map_err(RetrievalError::from)??;
        let about = format!("{} {} {}", explained.user, explained.relation, explained.object);
        draft.request(AuditedRequest { about: Some(about), ..AuditedRequest::default() });
        let model_id = Some(explained.authorization_model_id.clone());
        draft.decision(Decision { model_id, staleness_ms: Some(0), ..Decision::default() }, Latencies::default());
        Ok(Response::new(explained))
    }
}

fn retrieval_parts(message: message::RetrieveRequest) -> Result<RetrievalParts, FieldViolation> {
    let query = message.query.map(|query| match query {
        message::retrieve_request::Query::Text(text) => Query::Text(text),
        message::retrieve_request::Query::Vector(vector) => Query::Vector(vector.values),
        message::retrieve_request::Query::Hybrid(message::Hybrid { text, vector }) => {
            Query::Hybrid { text, vector: vector.unwrap_or_default().values }
        }
    });
    Ok(RetrievalParts {
        user: message.user,
        collection: message.collection,
        query,
        top_k: message.top_k,
        filter: message.filter.map(values::filter).transpose()?,
        min_score: message.min_score,
        per_document_max: message.per_document_max,
        consistency: consistency(message.consistency)?,
    })
}

fn audited_retrieval(request: &RetrievalRequest, draft: &Draft) -> AuditedRequest {
    let (query_kind, query_digest) = draft.query(request.query());
    AuditedRequest {
        collection: request.collection().to_owned(),
        query_kind,
        query_digest,
        count: Some(request.top_k() as u64),
        filtered: Some(request.is_filtered()),
        consistency: Some(consistency_name(request.consistency())),
        about: None,
    }
}

fn decided(account: &Account) -> (Decision, Latencies) {
    let decision = Decision {
        model_id: account.model_id.clone(),
        staleness_ms: account.staleness.and_then(|staleness| u64::try_from(staleness.as_millis()).ok()),
        plan: account.plan.map(str::to_owned),
        rounds: account.plan.map(|_| account.rounds),
        withheld: Some(account.withheld as u64),
        completion: None,
    };
    let latencies = Latencies {
        total: 0,
        authorize: Some(micros(account.authorize)),
        search: Some(micros(account.search)),
        hydrate: account.plan.map(|_| micros(account.hydrate)),
    };
    (decision, latencies)
}

const fn completion_name(completion: Completion) -> &'static str {
    match completion {
        Completion::Complete => "complete",
        Completion::Exhausted => "exhausted",
        Completion::Limited => "limited",
    }
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

fn response(retrieval: Retrieval) -> message::RetrieveResponse {
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
    }
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
