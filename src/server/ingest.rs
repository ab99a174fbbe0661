//! `ragward.ingest.v1.IngestService`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Response, Status, Streaming};

use super::audit::Draft;
use super::authentication::{self, Authentication};
use super::{Services, status, values};
use crate::audit::{AuditedRequest, Released};
use crate::authz::enforce::Enforcer;
use crate::authz::{Authorizer, Consistency};
use crate::chunk::Document;
use crate::identity::{Principal, Scope};
use crate::proto::ingest as message;
use crate::proto::ingest::ingest_service_server::IngestService;
use crate::relationship::tuple::shown;
use crate::relationship::{Object, Relation};
use crate::retrieval::request::check_collection;
use crate::retrieval::{FieldViolation, RetrievalError};
use crate::vector_store::{DocumentStore, VectorStore, VectorStoreError};

/// Chunks, or bytes of messages, that are gathered before they are written in one go: enough that a commit's cost is shared.
const BATCH_CHUNKS: usize = 2_048;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Streams that are read at a time, of all connections; more wait. Each may hold a message and a batch in memory.
const STREAMS_MAX: usize = 8;
/// Most document ids of one request.
const DOCUMENT_IDS_MAX: usize = 10_000;
/// How long a stream may stay silent.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// One text, whichever guard it is: it tells nothing of documents that the writer may not see.
const MAY_NOT_WRITE: &str = "the bearer of the token may not write one of these documents";

/// Who writes, and what it must hold on each guard.
struct Writer {
    principal: Principal,
    relation: Relation,
}

pub(super) struct IngestApi {
    vector_store: Arc<dyn VectorStore>,
    documents: Arc<dyn DocumentStore>,
    request_timeout: Duration,
    streams: Semaphore,
    authentication: Authentication,
    authorizer: Arc<dyn Authorizer>,
}

impl IngestApi {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            vector_store: Arc::clone(&services.vector_store),
            documents: Arc::clone(&services.documents),
            request_timeout: services.request_timeout,
            streams: Semaphore::new(STREAMS_MAX),
            authentication: services.authentication.clone(),
            authorizer: Arc::clone(&services.authorizer),
        }
    }

    async fn within<T, E: Into<Status>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, Status> {
        match timeout(self.request_timeout, call).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_elapsed) => Err(RetrievalError::DeadlineExceeded.into()),
        }
    }
}

#[tonic::async_trait]
impl IngestService for IngestApi {
    async fn upsert_documents(
        &self,
        request: Request<Streaming<message::UpsertDocumentsRequest>>,
    ) -> Result<Response<message::UpsertDocumentsResponse>, Status> {
        let draft = Draft::of(&request)?;
        let caller = authentication::caller(&request)?;
        let writer = self.writer(&request)?;
        // The semaphore is never closed, so there is always a permit in the end.
        let _reading = self.streams.acquire().await;
        let mut stream = request.into_inner();
        let mut collection: Option<String> = None;
        let mut batch: Vec<Document> = Vec::new();
        let (mut chunks, mut bytes) = (0, 0);
        let mut written = message::UpsertDocumentsResponse::default();
        loop {
            let next = timeout(SILENCE_MAX, stream.message()).await;
            let next = next.map_err(|_elapsed| Status::from(RetrievalError::DeadlineExceeded))??;
            let Some(next) = next else { break };
            if collection.is_none() {
                check_request(&next.collection, &[])?;
                self.authentication.admit_login(&caller, &next.collection)?;
                draft.request(asked(&next.collection, None));
            }
            let collection = stream_collection(&mut collection, &next.collection)?;
            let Some(document) = next.document else {
                return Err(status::invalid(vec![FieldViolation::new("document", "is missing")]));
            };
            bytes += document.encoded_len();
            chunks += document.chunks.len();
            batch.push(values::document(document)?);
            if chunks >= BATCH_CHUNKS || bytes >= BATCH_BYTES {
                self.write(writer.as_ref(), collection, std::mem::take(&mut batch), &mut written).await?;
                draft.released(documents(written.documents));
                (chunks, bytes) = (0, 0);
            }
        }
        if let Some(collection) = collection.filter(|_| !batch.is_empty()) {
            self.write(writer.as_ref(), &collection, batch, &mut written).await?;
        }
        draft.released(documents(written.documents));
        Ok(Response::new(written))
    }

    async fn delete_documents(
        &self,
        request: Request<message::DeleteDocumentsRequest>,
    ) -> Result<Response<message::DeleteDocumentsResponse>, Status> {
        let draft = Draft::of(&request)?;
        let caller = authentication::caller(&request)?;
        let writer = self.writer(&request)?;
        let message = request.into_inner();
        check_request(&message.collection, &message.document_ids)?;
        self.authentication.admit_login(&caller, &message.collection)?;
        draft.request(asked(&message.collection, Some(message.document_ids.len())));
        self.check_writes(writer.as_ref(), &message.collection, &message.document_ids, &[]).await?;
        let ids: BTreeSet<String> = message.document_ids.into_iter().collect();
        let documents = self.within(self.documents.delete(&message.collection, &ids)).await?;
        draft.released(self::documents(documents));
        Ok(Response::new(message::DeleteDocumentsResponse { documents }))
    }

    async fn get_ingest_status(
        &self,
        request: Request<message::GetIngestStatusRequest>,
    ) -> Result<Response<message::GetIngestStatusResponse>, Status> {
        let draft = Draft::of(&request)?;
        let writer = self.writer(&request)?;
        let caller = authentication::caller(&request)?;
        let scopes = caller.scopes();
        let message = request.into_inner();
        check_request(&message.collection, &message.document_ids)?;
        self.authentication.admit_login(&caller, &message.collection)?;
        draft.request(asked(&message.collection, Some(message.document_ids.len())));
        let info = self.within(self.vector_store.collection(&message.collection)).await?;
        let found = self.within(self.documents.documents(&message.collection, &message.document_ids)).await?;
        let found = self.writable(writer.as_ref(), &message.collection, found).await?;
        // How much there is that nobody asked about by name is not every writer's to know.
        let may_count = scopes.is_none_or(|scopes| scopes.contains(Scope::Administer));
        let total = |count| if may_count { count } else { 0 };
        draft.released(documents(found.len() as u64));
        let found = found.into_iter().map(|(document_id, chunks)| message::DocumentStatus { document_id, chunks });
        Ok(Response::new(message::GetIngestStatusResponse {
            documents: total(info.documents),
            chunks: total(info.chunks),
            dimension: info.dimension.and_then(|dimension| u32::try_from(dimension).ok()).unwrap_or_default(),
            found: found.collect(),
        }))
    }
}

impl IngestApi {
    /// Who writes; `None` for somebody who is believed.
    fn writer<T>(&self, request: &Request<T>) -> Result<Option<Writer>, Status> {
        let caller = authentication::caller(request)?;
        let principal = caller.writer().map_err(|error| authentication::caller_status(&error))?;
        match (principal, self.authentication.write_relation()) {
            (None, _) => Ok(None),
            (Some(principal), Some(relation)) => Ok(Some(Writer { principal, relation: relation.clone() })),
            (Some(_), None) => Err(status::denied(MAY_NOT_WRITE)),
        }
    }

    /// Refuses unless the writer may write under every guard: those of the new chunks, and those that the documents have
    /// now, whose chunks would be gone.
    async fn check_writes(
        &self,
        writer: Option<&Writer>,
        collection: &str,
        document_ids: &[String],
        new_guards: &[Object],
    ) -> Result<(), Status> {
        let Some(Writer { principal, relation }) = writer else { return Ok(()) };
        let stored = match self.within(self.documents.guards_of(collection, document_ids)).await {
            Ok(Some(stored)) => stored,
            // A chunk without a usable guard is nobody's.
            Ok(None) => return Err(status::denied(MAY_NOT_WRITE)),
            Err(status) if status.code() == Code::NotFound => BTreeSet::new(),
            Err(status) => return Err(status),
        };
        let guards: BTreeSet<Object> = stored.into_iter().chain(new_guards.iter().cloned()).collect();
        let asked = guards.len();
        let deadline = Instant::now() + self.request_timeout;
        let consistency = Consistency::HigherConsistency;
        let mut enforcer = Enforcer::new(self.authorizer.as_ref(), principal, relation, consistency, deadline);
        let permitted = enforcer.enforce(guards.into_iter().collect::<Vec<Object>>()).await;
        let permitted = permitted.map_err(|error| Status::from(RetrievalError::Authz(error)))?;
        if permitted.len() == asked { Ok(()) } else { Err(status::denied(MAY_NOT_WRITE)) }
    }

    /// Those of the documents whose guards the writer may write under: others look absent.
    async fn writable(
        &self,
        writer: Option<&Writer>,
        collection: &str,
        found: Vec<(String, u32)>,
    ) -> Result<Vec<(String, u32)>, Status> {
        let ids: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
        if self.may_write(writer, collection, &ids).await? {
            return Ok(found);
        }
        let mut writable = Vec::new();
        for (id, chunks) in found {
            if self.may_write(writer, collection, std::slice::from_ref(&id)).await? {
                writable.push((id, chunks));
            }
        }
        Ok(writable)
    }

    async fn may_write(&self, writer: Option<&Writer>, collection: &str, ids: &[String]) -> Result<bool, Status> {
        match self.check_writes(writer, collection, ids, &[]).await {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Code::PermissionDenied => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Makes a batch durable and counts it. It is not given up at a deadline: then nobody could tell what is in.
    async fn write(
        &self,
        writer: Option<&Writer>,
        collection: &str,
        batch: Vec<Document>,
        written: &mut message::UpsertDocumentsResponse,
    ) -> Result<(), Status> {
        if writer.is_some() {
            let ids: Vec<String> = batch.iter().map(|document| document.id.clone()).collect();
            let chunks = batch.iter().flat_map(|document| &document.chunks);
            let guards: BTreeSet<Object> = chunks.map(|chunk| chunk.guard.clone()).collect();
            let guards: Vec<Object> = guards.into_iter().collect();
            self.check_writes(writer, collection, &ids, &guards).await?;
        }
        let documents = batch.len() as u64;
        let chunks: u64 = batch.iter().map(|document| document.chunks.len() as u64).sum();
        let upserted = self.documents.upsert(collection, batch).await;
        upserted.map_err(|error| refused_write(writer, error))?;
        written.documents += documents;
        written.chunks += chunks;
        Ok(())
    }
}

/// What is asked for, in the record.
fn asked(collection: &str, count: Option<usize>) -> AuditedRequest {
    let count = count.map(|count| count as u64);
    AuditedRequest { collection: collection.to_owned(), count, ..AuditedRequest::default() }
}

/// What was written, deleted or told, in the record.
fn documents(documents: u64) -> Released {
    Released { documents: Some(documents), ..Released::default() }
}

/// A writer that needs a relation is not told which document has an id that it wants.
fn refused_write(writer: Option<&Writer>, error: VectorStoreError) -> Status {
    match (writer, error) {
        (Some(_), VectorStoreError::DuplicateChunk { chunk_id, document_id, owner: Some(_) }) => {
            VectorStoreError::DuplicateChunk { chunk_id, document_id, owner: None }.into()
        }
        (_, error) => error.into(),
    }
}

/// The collection of a stream: the first message's; the others must say the same.
fn stream_collection<'c>(collection: &'c mut Option<String>, named: &str) -> Result<&'c str, Status> {
    let first = collection.get_or_insert_with(|| named.to_owned());
    if *first != named {
        let named = shown(named);
        let description = format!("is `{named}`, but the stream began with `{first}`; use one stream for each");
        return Err(status::invalid(vec![FieldViolation::new("collection", description)]));
    }
    Ok(first)
}

fn check_request(collection: &str, document_ids: &[String]) -> Result<(), Status> {
    let mut violations = Vec::new();
    check_collection(collection, &mut violations);
    if document_ids.len() > DOCUMENT_IDS_MAX {
        let description = format!("has {} ids, at most {DOCUMENT_IDS_MAX} are allowed", document_ids.len());
        violations.push(FieldViolation::new("document_ids", description));
    }
    if violations.is_empty() { Ok(()) } else { Err(status::invalid(violations)) }
}
