//! `ragward.retrieval.v1.RetrievalService`.
//!
//! Each handler reads in the order of its steps: who asks, what they ask for, the retrieval, the record, the answer.

mod messages;

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::Timestamp;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use self::messages::RecheckPurpose;
use super::answers::AnswerSlot;
use super::audit::{Draft, decided_by, searched};
use super::authentication::{self, ApprovalCall, Approved, Authentication, ReadTarget, RequestedApproval};
use super::consistency_token;
use super::deadline::deadline;
use super::explain::Question;
use super::openfga::{Struct, context_map};
use super::refusal::Refusal;
use super::services::Services;
use crate::audit::{AuditedDecision, AuditedRequest, AuditedSource, Door, Released};
use crate::authz::consistency_token::{ConsistencyTokens, NotAToken};
use crate::authz::{Authorizer, AuthzError, Consistency, DecidedBy, KnownRelationships};
use crate::blocking_pool::{BlockingPool, WorkLost};
use crate::chunk::ID_BYTES_MAX;
use crate::identity::approvable::ApprovableRequest;
use crate::identity::{BearerToken, Caller, Principal, RequestContextRules, Use};
use crate::proto::retrieval as message;
use crate::proto::retrieval::retrieval_service_server::RetrievalService;
use crate::retrieval::{
    FetchParts, FetchRequest, Fetched, FieldViolation, NamedPrincipal, RecheckRequest, Rechecked, Retrieval,
    RetrievalError, RetrievalRequest, Retriever, SourceReport,
};
use crate::vector_store::VectorStore;
use crate::vector_store::validation::{CHUNK_TEXT_BYTES_MAX, METADATA_BYTES_MAX, TITLE_BYTES_MAX};

/// The largest chunk in bytes: its text and metadata, the title, and the ids of the chunk, the document and the guard.
const CHUNK_BYTES_MAX: usize = CHUNK_TEXT_BYTES_MAX + METADATA_BYTES_MAX + TITLE_BYTES_MAX + 3 * ID_BYTES_MAX;

/// Answers a question for an explanation where only a server has the relationships.
const NO_COPY: &str = "an OpenFGA server decides here, and this process has no copy of its tuples to explain from. `ragward serve` \
                       keeps one unless `authorizer.replica.mode` is `off`; without it, ask OpenFGA's Expand";
/// Refuses to observe where no record would tell what was observed.
const UNRECORDED: &str = "this process keeps no audit log, so nobody would learn what is withheld. Ask a server that keeps one \
                          (`audit.enabled`); a command that opens a data directory keeps none";
/// Answers a question for an explanation while the copy of a server's relationships may not be used.
const COPY_WITHHELD: &str = "the copy of the OpenFGA server's tuples is not complete, not fresh or not trusted now, so it explains \
                             nothing; try again later, or see `ragward replica status`";

/// Serves retrievals, re-checks, fetches and explanations.
pub(super) struct RetrievalApi {
    retriever: Retriever,
    vector_store: Arc<dyn VectorStore>,
    authorizer: Arc<dyn Authorizer>,
    explain: bool,
    request_timeout: Duration,
    authentication: Authentication,
    request_context: RequestContextRules,
    consistency_tokens: Arc<ConsistencyTokens>,
    explaining: BlockingPool,
}

/// One call: who makes it, its record, and when it has to be answered.
struct Call {
    caller: Caller,
    door: Door,
    /// The token that the call came with, if sources are asked with it.
    bearer: Option<BearerToken>,
    draft: Draft,
    deadline: Instant,
    /// The one use of the caller's token, if it is good for one request and holds no approval.
    one_use: Option<Arc<Use>>,
}

/// A request, and what an approval of it is bound to.
struct Approvable<R> {
    request: R,
    approvable: ApprovableRequest,
}

impl RetrievalApi {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            retriever: services.retriever.clone(),
            vector_store: Arc::clone(&services.vector_store),
            authorizer: Arc::clone(&services.authorizer),
            explain: services.explain,
            request_timeout: services.request_timeout,
            authentication: services.authentication.clone(),
            request_context: services.request_context.clone(),
            consistency_tokens: Arc::clone(&services.consistency_tokens),
            // Explanations are for administrators, now and then. They must not take the cores from retrievals.
            explaining: BlockingPool::with_slots(1),
        }
    }

    fn call<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        let deadline = deadline(request.metadata(), self.request_timeout);
        let draft = Draft::of(request)?;
        let one_use = request.extensions().get::<Arc<Use>>().cloned();
        let bearer = request.extensions().get::<BearerToken>().cloned();
        // The connection tells the door. No header does.
        let door = request.extensions().get::<Door>().copied().unwrap_or(Door::InProcess);
        Ok(Call { caller: authentication::caller(request)?, door, bearer, draft, deadline, one_use })
    }
}

#[tonic::async_trait]
impl RetrievalService for RetrievalApi {
    async fn retrieve(
        &self,
        request: Request<message::RetrieveRequest>,
    ) -> Result<Response<message::RetrieveResponse>, Status> {
        let call = self.call(&request)?;
        let room = AnswerSlot::of(&request)?;
        Ok(consistency_token::answer(self.answer_retrieve(&call, &room, request.into_inner()).await?))
    }

    async fn recheck(
        &self,
        request: Request<message::RecheckRequest>,
    ) -> Result<Response<message::RecheckResponse>, Status> {
        let call = self.call(&request)?;
        Ok(consistency_token::answer(self.answer_recheck(&call, request.into_inner()).await?))
    }

    async fn fetch(&self, request: Request<message::FetchRequest>) -> Result<Response<message::FetchResponse>, Status> {
        let call = self.call(&request)?;
        let room = AnswerSlot::of(&request)?;
        Ok(consistency_token::answer(self.answer_fetch(&call, &room, request.into_inner()).await?))
    }

    async fn request_approval(
        &self,
        request: Request<message::RequestApprovalRequest>,
    ) -> Result<Response<message::RequestApprovalResponse>, Status> {
        let call = self.call(&request)?;
        Ok(Response::new(self.answer_request_approval(&call, request.into_inner()).await?))
    }

    async fn explain(
        &self,
        request: Request<message::ExplainRequest>,
    ) -> Result<Response<message::ExplainResponse>, Status> {
        let call = self.call(&request)?;
        Ok(Response::new(self.answer_explain(&call, request.into_inner()).await?))
    }
}

impl RetrievalApi {
    async fn answer_retrieve(
        &self,
        call: &Call,
        room: &AnswerSlot,
        message: message::RetrieveRequest,
    ) -> Result<message::RetrieveResponse, Refusal> {
        let (wants_plan, sealed) = (message.explain_plan, message.approval.clone());
        let Approvable { request, approvable } = self.read_retrieval(call, message)?;
        let approved = self.approve(call, request.principal(), &approvable, &sealed).await?;
        let request = request.approved_for(approved.principal.clone());
        room.reserve(request.top_k() * CHUNK_BYTES_MAX).await?;
        let retrieval = self.retriever.retrieve_recorded(&request, call.deadline, &call.draft).await?;
        approved.answered();
        record_retrieval(&call.draft, &retrieval);
        // INVARIANT (no counts): the plan counts what is withheld, so it is told only where the operator allows that.
        let may_tell_plan = self.retriever.config().explain_plan;
        let plan = (wants_plan && may_tell_plan).then(|| messages::plan_report(&retrieval.plan));
        let consistency_token = self.consistency_tokens.issue();
        let response = message::RetrieveResponse { plan, consistency_token, ..messages::retrieve_response(retrieval) };
        room.reserve(response.encoded_len()).await?;
        Ok(response)
    }

    async fn answer_recheck(
        &self,
        call: &Call,
        message: message::RecheckRequest,
    ) -> Result<message::RecheckResponse, Refusal> {
        let reading = ReadTarget { collection: &message.collection, classification_max: "" };
        let principal = self.principal(call, &message.user, message.context.as_ref(), reading)?;
        let consistency = self.consistency(message.consistency, &message.consistency_token)?;
        let purpose = messages::purpose(message.purpose)?;
        let request = RecheckRequest::new(principal, message.collection, message.chunk_ids, consistency)
            .map_err(Refusal::invalid)?;
        call.draft.recheck(&request);
        if purpose == RecheckPurpose::Observe {
            call.draft.observing();
            if !call.draft.is_recorded() {
                return Err(RetrievalError::Unsupported(UNRECORDED.to_owned()).into());
            }
        }
        let approved = self.approve(call, request.principal(), &request.approvable(), "").await?;
        let request = request.approved_for(approved.principal.clone());
        // INVARIANT (one answer for every purpose): what decides does not know the purpose.
        let rechecked = self.retriever.recheck(&request, call.deadline).await?;
        approved.answered();
        let decision = recheck_decision(&rechecked);
        call.draft.stages(&rechecked.stages);
        call.draft.decision(decision);
        if purpose == RecheckPurpose::Observe {
            call.draft.observed(&request, &rechecked);
        }
        let permitted = rechecked.candidates.into_iter();
        let chunk_ids: Vec<String> = permitted.map(|candidate| candidate.into_item().chunk_id).collect();
        call.draft.released(Released { chunk_ids: chunk_ids.clone(), ..Released::default() });
        Ok(message::RecheckResponse { chunk_ids, consistency_token: self.consistency_tokens.issue() })
    }

    async fn answer_fetch(
        &self,
        call: &Call,
        room: &AnswerSlot,
        message: message::FetchRequest,
    ) -> Result<message::FetchResponse, Refusal> {
        let sealed = message.approval.clone();
        let Approvable { request, approvable } = self.read_fetch(call, message)?;
        let approved = self.approve(call, request.principal(), &approvable, &sealed).await?;
        let request = request.approved_for(approved.principal.clone());
        // A fetch reads one chunk more than it answers with.
        let read_max = request.chunks_max(self.chunks_max()).saturating_add(1);
        room.reserve(read_max.saturating_mul(CHUNK_BYTES_MAX)).await?;
        let fetched = self.retriever.fetch(&request, call.deadline).await?;
        approved.answered();
        record_fetch(&call.draft, &fetched);
        let consistency_token = self.consistency_tokens.issue();
        let response = message::FetchResponse { consistency_token, ..messages::fetch_response(fetched) };
        room.reserve(response.encoded_len()).await?;
        Ok(response)
    }

    async fn answer_explain(
        &self,
        call: &Call,
        mut message: message::ExplainRequest,
    ) -> Result<message::ExplainResponse, Refusal> {
        self.admit_explanation(&call.caller)?;
        if let Some(message::explain_request::Target::Chunk(chunk)) = &message.target {
            // An explanation shows no text. So the login must be good enough for the collection, but not for every
            // classification.
            self.authentication.admit_login(&call.caller, &chunk.collection)?;
        }
        let bearer = if message.user.is_empty() { self.bearer(call).await? } else { None };
        let told = bearer.as_ref().map(|bearer| Arc::clone(bearer.contextual())).unwrap_or_default();
        if let Some(bearer) = bearer {
            message.user = bearer.subject().to_string();
        }
        let relation = &self.retriever.config().relation;
        // The record says what was asked, even if the question is refused.
        call.draft.request(about(messages::asked_about(&message, relation)));
        let read = Question::read(message, &told, relation, self.vector_store.as_ref());
        let question = timeout_at(call.deadline, read).await.map_err(|_elapsed| RetrievalError::DeadlineExceeded)??;
        let (deadline, asked) = (call.deadline, Instant::now());
        let known = timeout_at(deadline, self.authorizer.relationships(question.relation())).await;
        let known = known.map_err(|_elapsed| RetrievalError::DeadlineExceeded)?.map_err(RetrievalError::from)?;
        let (snapshot, by) = match known {
            KnownRelationships::State { snapshot, by } => (snapshot, by),
            KnownRelationships::Withheld => return Err(Refusal::unavailable(COPY_WITHHELD)),
            KnownRelationships::OnServer => return Err(RetrievalError::Unsupported(NO_COPY.to_owned()).into()),
        };
        let basis = DecidedBy { model_id: Arc::clone(&by.model_id), staleness: by.staleness(asked) };
        let answered = self.explaining.run(move || question.answer(&snapshot, &by, deadline)).await;
        let lost = |e: WorkLost| RetrievalError::from(AuthzError::Unavailable(e.to_string()));
        let explained = answered.map_err(lost)??;
        call.draft.request(about(Some(format!("{} {} {}", explained.user, explained.relation, explained.object))));
        call.draft.decision(decided_by(Some(&basis)));
        Ok(explained)
    }

    /// Returns the principal of the caller's own token, for an answer that rests on what the token tells of it; `None` for a
    /// caller without a token.
    async fn bearer(&self, call: &Call) -> Result<Option<Principal>, Refusal> {
        if call.caller.token().is_none() {
            return Ok(None);
        }
        let principal = call.caller.principal("").map_err(|error| authentication::wrong_caller(&error))?;
        call.draft.principal(&principal);
        self.authentication.admit_claims(&call.caller, self.authorizer.as_ref(), &call.draft).await?;
        Ok(Some(principal))
    }

    /// Returns the principal that a request is for, with the values that the request states for conditions, and with the
    /// rights that its login leaves it. The record names the principal even if the login is refused.
    fn principal(
        &self,
        call: &Call,
        user: &str,
        context: Option<&Struct>,
        reading: ReadTarget,
    ) -> Result<NamedPrincipal, Refusal> {
        let named = authentication::principal(&call.caller, user)?;
        let named = match named {
            NamedPrincipal::Known(principal) => {
                call.draft.principal(&principal);
                NamedPrincipal::Known(principal.with_bearer(call.bearer.clone()))
            }
            invalid @ NamedPrincipal::Invalid(_) => invalid,
        };
        self.authentication.bounded_by_login(self.in_context(named, &call.caller, context), &call.caller, reading)
    }

    /// Lets a request through that needs no approval, or that is approved.
    async fn approve(
        &self,
        call: &Call,
        principal: &Principal,
        request: &ApprovableRequest,
        sealed: &str,
    ) -> Result<Approved, Refusal> {
        let Call { caller, door, bearer: _, draft, deadline, one_use } = call;
        let (door, one_use, deadline) = (*door, one_use.clone(), *deadline);
        self.authentication
            .approve(ApprovalCall { caller, door, draft, principal, request, sealed, one_use, deadline })
            .await
    }

    /// Reads a retrieval, and notes it in the record.
    fn read_retrieval(
        &self,
        call: &Call,
        message: message::RetrieveRequest,
    ) -> Result<Approvable<RetrievalRequest>, Refusal> {
        let classification_max = message.classification_max.clone();
        let reading = ReadTarget { collection: &message.collection, classification_max: &message.classification_max };
        let principal = self.principal(call, &message.user, message.context.as_ref(), reading)?;
        let consistency = self.consistency(message.consistency, &message.consistency_token)?;
        let parts = messages::retrieval_parts(message, principal, consistency)?;
        let top_k_max = self.retriever.config().top_k_max;
        let request = RetrievalRequest::new(parts, top_k_max).map_err(Refusal::invalid)?;
        call.draft.retrieval(&request);
        let approvable = request.approvable(&classification_max, top_k_max);
        Ok(Approvable { request, approvable })
    }

    /// Reads a fetch, and notes it in the record.
    fn read_fetch(&self, call: &Call, message: message::FetchRequest) -> Result<Approvable<FetchRequest>, Refusal> {
        let reading = ReadTarget { collection: &message.collection, classification_max: &message.classification_max };
        let principal = self.principal(call, &message.user, message.context.as_ref(), reading)?;
        let consistency = self.consistency(message.consistency, &message.consistency_token)?;
        let message::FetchRequest { collection, chunk_ids, document_ids, classification_max, .. } = message;
        let parts = FetchParts { principal, collection, chunk_ids, document_ids, consistency };
        let request = FetchRequest::new(parts).map_err(Refusal::invalid)?;
        call.draft.fetch(&request);
        let approvable = request.approvable(&classification_max, self.chunks_max());
        Ok(Approvable { request, approvable })
    }

    /// Returns the most chunks of an answer.
    fn chunks_max(&self) -> usize {
        usize::try_from(self.retriever.config().top_k_max).unwrap_or(usize::MAX)
    }

    async fn answer_request_approval(
        &self,
        call: &Call,
        message: message::RequestApprovalRequest,
    ) -> Result<message::RequestApprovalResponse, Refusal> {
        let message::RequestApprovalRequest { request, purpose } = message;
        let named = "must be empty: an approval is asked for without one";
        let (principal, approvable) = match request {
            Some(message::request_approval_request::Request::Retrieve(retrieve)) => {
                if !retrieve.approval.is_empty() {
                    return Err(FieldViolation::new("retrieve.approval", named).into());
                }
                let Approvable { request, approvable } = self.read_retrieval(call, retrieve)?;
                (request.principal().clone(), approvable)
            }
            Some(message::request_approval_request::Request::Fetch(fetch)) => {
                if !fetch.approval.is_empty() {
                    return Err(FieldViolation::new("fetch.approval", named).into());
                }
                let Approvable { request, approvable } = self.read_fetch(call, fetch)?;
                (request.principal().clone(), approvable)
            }
            None => return Err(FieldViolation::new("request", "is missing; set `retrieve` or `fetch`").into()),
        };
        let Call { caller, draft, .. } = call;
        let asking = self.authentication.request_approval(caller, draft, &principal, &approvable, &purpose);
        let asked = timeout_at(call.deadline, asking).await.map_err(|_elapsed| RetrievalError::DeadlineExceeded)??;
        let RequestedApproval { sealed, code, expires_at, poll_after } = asked;
        let seconds = i64::try_from(expires_at).unwrap_or(i64::MAX);
        Ok(message::RequestApprovalResponse {
            approval: sealed,
            code,
            expires_at: Some(Timestamp { seconds, nanos: 0 }),
            poll_after_seconds: u32::try_from(poll_after).unwrap_or(u32::MAX),
        })
    }

    /// Adds the values that a request states for conditions. If the caller may not state one of them, the field `context`
    /// is wrong.
    fn in_context(&self, named: NamedPrincipal, caller: &Caller, context: Option<&Struct>) -> NamedPrincipal {
        let NamedPrincipal::Known(principal) = named else { return named };
        let stated = context.map(context_map).unwrap_or_default();
        match self.request_context.admit(stated, caller.token()) {
            Ok(stated) => NamedPrincipal::Known(principal.in_context(stated)),
            Err(error) => NamedPrincipal::Invalid(FieldViolation::new("context", error.to_string())),
        }
    }

    /// Returns the consistency that a request asks for. A request with a token that nobody would heed is refused,
    /// because its sender counts on the token.
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

    /// Refuses a caller who must not be told what is hidden. The gate has checked the scope of a token. A caller
    /// without a token needs the setting `server.explain`.
    fn admit_explanation(&self, caller: &Caller) -> Result<(), RetrievalError> {
        match caller {
            Caller::Verified { .. } => return Ok(()),
            Caller::Believed if self.explain => return Ok(()),
            Caller::Believed => {}
        }
        let text = "this server does not explain, since an explanation tells what is hidden. Set `server.explain`; where the \
                    embedded evaluator decides, you can also stop the server and run `ragward explain --data`";
        Err(RetrievalError::Unsupported(text.to_owned()))
    }
}

fn record_retrieval(draft: &Draft, retrieval: &Retrieval) {
    draft.stages(&retrieval.stages);
    let AuditedDecision { model_id, staleness_ms, .. } = decided_by(retrieval.decided_by.as_ref());
    let completion = Some(messages::completion_name(retrieval.completion).to_owned());
    let sources = asked_sources(&retrieval.sources);
    draft.decision(AuditedDecision { model_id, staleness_ms, sources, completion, ..searched(&retrieval.plan) });
    let chunk_ids = retrieval.chunks.iter().map(|retrieved| retrieved.chunk.item().id.clone()).collect();
    draft.released(Released { chunk_ids, ..Released::default() });
}

fn record_fetch(draft: &Draft, fetched: &Fetched) {
    draft.stages(&fetched.stages);
    let completion = Some(messages::completion_name(fetched.completion).to_owned());
    let withheld = Some(fetched.withheld as u64);
    let sources = asked_sources(&fetched.sources);
    draft.decision(AuditedDecision { withheld, sources, completion, ..decided_by(fetched.decided_by.as_ref()) });
    let chunk_ids = fetched.chunks.iter().map(|chunk| chunk.item().id.clone()).collect();
    draft.released(Released { chunk_ids, ..Released::default() });
}

fn recheck_decision(rechecked: &Rechecked) -> AuditedDecision {
    let withheld = rechecked.withheld.len() as u64;
    let sources = asked_sources(&rechecked.sources);
    AuditedDecision { withheld: Some(withheld), sources, ..decided_by(rechecked.decided_by.as_ref()) }
}

fn asked_sources(reports: &[SourceReport]) -> Vec<AuditedSource> {
    let audited = |report: &SourceReport| AuditedSource {
        name: report.source.clone(),
        asked: report.asked as u64,
        withheld: report.withheld as u64,
    };
    reports.iter().map(audited).collect()
}

fn about(about: Option<String>) -> AuditedRequest {
    AuditedRequest { about, ..AuditedRequest::default() }
}

#[cfg(test)]
mod tests;
