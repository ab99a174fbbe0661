//! Serves `ragward.ingest.v1.IngestService`: takes documents in, lists and deletes them, and tells what a collection holds.

mod batch;
mod embed;
mod listing;
mod put;
mod turns;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Request, Response, Status, Streaming};

use self::batch::Batch;
use self::turns::{Open, Turns, Uploader};
use super::audit::{Draft, OpenRecord};
use super::authentication::{self, Authentication};
use super::connections::Peer;
use super::consistency_token;
use super::refusal::Refusal;
use super::services::Services;
use crate::audit::{AuditedRequest, Released};
use crate::authz::consistency_token::ConsistencyTokens;
use crate::authz::enforce::{Enforcer, Permitted};
use crate::authz::{Authorizer, Consistency};
use crate::blocking_pool::BlockingPool;
use crate::identity::{Caller, Principal};
use crate::inference::Embeddings;
use crate::ingest::IngestConfig;
use crate::language::tuple::shown;
use crate::language::{Object, Relation};
use crate::proto::ingest as message;
use crate::proto::ingest::ingest_service_server::IngestService;
use crate::retrieval::request::check_collection;
use crate::retrieval::{FieldViolation, RetrievalError};
use crate::vector_store::{DocumentStore, VectorStore, VectorStoreError};

/// The largest number of document ids in one request.
const DOCUMENT_IDS_MAX: usize = 10_000;
/// The largest number of guard types of one upload that are looked up in the authorization model. A model has up to 100
/// types, and documents use a few of them.
const GUARD_TYPES_MAX: usize = 16;
/// The number of documents whose guards are read at the same time, when each document is looked up on its own.
const LOOKS_MAX: usize = 16;
/// The largest number of texts that are cut at a time. A text of 1 MB takes some tens of milliseconds, and more threads than
/// cores cut nothing faster.
const CUTTING_MAX: usize = 2;
/// The longest silence of an upload.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// One text for every guard, so that it tells nothing of documents that the writer may not see.
const MAY_NOT_WRITE: &str = "the bearer of the token may not write one of these documents";

/// A writer with a token, and the relation that it must hold on each guard.
struct WritingPrincipal {
    principal: Principal,
    relation: Relation,
}

/// The caller of a call that writes.
struct Call {
    caller: Caller,
    /// `None` for a caller who is believed.
    writer: Option<WritingPrincipal>,
    uploader: Uploader,
    record: OpenRecord,
}

/// The id of a stored document, and the number of its chunks.
type StoredDocument = (String, u32);

/// Documents that a writer may write.
struct Writable {
    documents: Vec<StoredDocument>,
    /// The guards under which the writer may write. The documents were under these alone when they were looked at.
    guards: BTreeSet<Object>,
}

/// Documents to delete.
enum Deletable {
    /// All of these, for a caller who is believed.
    All(BTreeSet<String>),
    /// Those that are under these guards alone when they are deleted.
    Under { ids: BTreeSet<String>, guards: BTreeSet<Object> },
}

/// Tells the seconds since 1970.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Serves uploads, deletions and their status.
pub(super) struct IngestApi {
    vector_store: Arc<dyn VectorStore>,
    documents: Arc<dyn DocumentStore>,
    request_timeout: Duration,
    turns: Turns,
    /// The places of lists. A list may look at every document of a collection, and ask about every guard.
    lists: Turns,
    cutting: BlockingPool,
    /// How the texts of each collection are cut.
    cut: IngestConfig,
    consistency_tokens: Arc<ConsistencyTokens>,
    clock: Clock,
    authentication: Authentication,
    authorizer: Arc<dyn Authorizer>,
    embeddings: Arc<Embeddings>,
    /// The relation that a reader must hold on a guard.
    read_relation: Relation,
}

impl IngestApi {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            vector_store: Arc::clone(&services.vector_store),
            documents: Arc::clone(&services.documents),
            request_timeout: services.request_timeout,
            turns: Turns::new(),
            lists: Turns::new(),
            cutting: BlockingPool::with_slots(CUTTING_MAX),
            cut: services.ingest.clone(),
            consistency_tokens: Arc::clone(&services.consistency_tokens),
            clock: Arc::new(authentication::now),
            authentication: services.authentication.clone(),
            authorizer: Arc::clone(&services.authorizer),
            embeddings: Arc::clone(services.retriever.embeddings()),
            read_relation: services.retriever.config().relation.clone(),
        }
    }

    /// Waits for `work`, but no longer than a request may take.
    async fn within<T, E: Into<Refusal>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Refusal> {
        match timeout(self.request_timeout, work).await {
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
        let call = self.call(&request)?;
        let written = self.take_in(&call, request.into_inner()).await?;
        // The token comes after the last write, so it covers all of them.
        let consistency_token = self.consistency_tokens.issue();
        Ok(consistency_token::answer(message::UpsertDocumentsResponse { consistency_token, ..written }))
    }

    async fn put_document(
        &self,
        request: Request<message::PutDocumentRequest>,
    ) -> Result<Response<message::PutDocumentResponse>, Status> {
        let call = self.call(&request)?;
        Ok(Response::new(self.put(&call, request.into_inner()).await?))
    }

    async fn list_documents(
        &self,
        request: Request<message::ListDocumentsRequest>,
    ) -> Result<Response<message::ListDocumentsResponse>, Status> {
        let draft = Draft::of(&request)?;
        let caller = authentication::caller(&request)?;
        Ok(Response::new(self.list(&draft, &caller, peer(&request), request.get_ref()).await?))
    }

    async fn list_collections(
        &self,
        request: Request<message::ListCollectionsRequest>,
    ) -> Result<Response<message::ListCollectionsResponse>, Status> {
        let draft = Draft::of(&request)?;
        let caller = authentication::caller(&request)?;
        Ok(Response::new(self.collections(&draft, &caller, peer(&request)).await?))
    }

    async fn delete_documents(
        &self,
        request: Request<message::DeleteDocumentsRequest>,
    ) -> Result<Response<message::DeleteDocumentsResponse>, Status> {
        let call = self.call(&request)?;
        let deleted = self.delete(&call, request.into_inner()).await?;
        let consistency_token = self.consistency_tokens.issue();
        Ok(consistency_token::answer(message::DeleteDocumentsResponse { consistency_token, ..deleted }))
    }

    async fn get_ingest_status(
        &self,
        request: Request<message::GetIngestStatusRequest>,
    ) -> Result<Response<message::GetIngestStatusResponse>, Status> {
        let draft = Draft::of(&request)?;
        let caller = authentication::caller(&request)?;
        Ok(Response::new(self.status(&draft, &caller, request.into_inner()).await?))
    }
}

impl IngestApi {
    fn call<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        let record = OpenRecord::of(request)?;
        Ok(self.call_by(authentication::caller(request)?, peer(request), record)?)
    }

    /// Returns the call of this caller. `peer` is the machine that calls; `None` for this process.
    fn call_by(&self, caller: Caller, peer: Option<IpAddr>, record: OpenRecord) -> Result<Call, Refusal> {
        let writer = self.writer(&caller)?;
        let uploader = uploader(writer.as_ref(), peer);
        Ok(Call { caller, writer, uploader, record })
    }

    /// Returns the writer behind a caller; `None` for a caller who is believed.
    fn writer(&self, caller: &Caller) -> Result<Option<WritingPrincipal>, Refusal> {
        let principal = caller.writer().map_err(|error| authentication::wrong_caller(&error))?;
        match (principal, self.authentication.write_relation()) {
            (None, _) => Ok(None),
            (Some(principal), Some(relation)) => Ok(Some(WritingPrincipal { principal, relation: relation.clone() })),
            (Some(_), None) => Err(Refusal::denied(MAY_NOT_WRITE)),
        }
    }

    async fn delete(
        &self,
        call: &Call,
        message: message::DeleteDocumentsRequest,
    ) -> Result<message::DeleteDocumentsResponse, Refusal> {
        check_request(&message.collection, &message.document_ids)?;
        self.authentication.admit_login(&call.caller, &message.collection)?;
        call.record.draft().request(asked(&message.collection, Some(message.document_ids.len())));
        let _open = self.turns.open(&call.uploader).await?;
        let turn = self.turns.turn().await?;
        self.authentication.admit_still(&call.caller, &message.collection, (self.clock)())?;
        let ids: BTreeSet<String> = message.document_ids.into_iter().collect();
        let deletable = self.deletable(call.writer.as_ref(), &message.collection, ids).await?;
        let (store, draft) = (Arc::clone(&self.documents), call.record.draft().clone());
        // The deletion runs to its end, even past the deadline. Otherwise nobody could tell what is gone.
        let deleting = async move {
            let documents = match deletable {
                Deletable::All(ids) => store.delete(&message.collection, &ids).await?,
                // Somebody else may have put one of them under another guard meanwhile, so the store looks again.
                Deletable::Under { ids, guards } => store.delete_under(&message.collection, &ids, &guards).await?,
            };
            draft.released(documents_of(documents));
            drop(turn);
            Ok(message::DeleteDocumentsResponse { documents, ..message::DeleteDocumentsResponse::default() })
        };
        call.record.run_whole(deleting).await
    }

    /// Keeps the documents that the writer may delete. The others look absent.
    async fn deletable(
        &self,
        writer: Option<&WritingPrincipal>,
        collection: &str,
        ids: BTreeSet<String>,
    ) -> Result<Deletable, Refusal> {
        let Some(writer) = writer else { return Ok(Deletable::All(ids)) };
        let deadline = Instant::now() + self.request_timeout;
        let looking = async {
            let ids: Vec<String> = ids.into_iter().collect();
            let found = self.documents.documents(collection, &ids).await?;
            self.writable(writer, collection, found, deadline).await
        };
        let Writable { documents, guards } = self.within(looking).await?;
        Ok(Deletable::Under { ids: documents.into_iter().map(|(id, _chunks)| id).collect(), guards })
    }

    async fn status(
        &self,
        draft: &Draft,
        caller: &Caller,
        message: message::GetIngestStatusRequest,
    ) -> Result<message::GetIngestStatusResponse, Refusal> {
        let writer = self.writer(caller)?;
        check_request(&message.collection, &message.document_ids)?;
        self.authentication.admit_login(caller, &message.collection)?;
        draft.request(asked(&message.collection, Some(message.document_ids.len())));
        let mut seen = BTreeSet::new();
        let ids: Vec<String> = message.document_ids.into_iter().filter(|id| seen.insert(id.clone())).collect();
        // One deadline for all documents, however many there are.
        let deadline = Instant::now() + self.request_timeout;
        let looking = async {
            let info = self.vector_store.collection(&message.collection).await?;
            let found = self.documents.documents(&message.collection, &ids).await?;
            let found = match &writer {
                Some(writer) => self.writable(writer, &message.collection, found, deadline).await?.documents,
                None => found,
            };
            Ok::<_, Refusal>((info, found))
        };
        let (info, found) = self.within(looking).await?;
        // The totals count documents that the request does not name, and not every writer may know of those.
        let may_count = caller.may_administer();
        let total = |count| if may_count { count } else { 0 };
        draft.released(documents_of(found.len() as u64));
        let found = found.into_iter().map(|(document_id, chunks)| message::DocumentStatus { document_id, chunks });
        Ok(message::GetIngestStatusResponse {
            documents: total(info.documents),
            chunks: total(info.chunks),
            dimension: info.dimension.and_then(|dimension| u32::try_from(dimension).ok()).unwrap_or_default(),
            found: found.collect(),
        })
    }

    /// Takes documents in as they come. A document is written soon after it came, however slowly the stream goes on.
    async fn take_in(
        &self,
        call: &Call,
        messages: impl Stream<Item = Result<message::UpsertDocumentsRequest, Status>> + Unpin + Send,
    ) -> Result<message::UpsertDocumentsResponse, Refusal> {
        let open = self.turns.open(&call.uploader).await?;
        self.take_in_at(&open, call, messages, None).await
    }

    /// Like [`IngestApi::take_in`], at a place that was taken before. `sent` is the number of documents that the caller sends, where
    /// that is known beforehand.
    async fn take_in_at(
        &self,
        _open: &Open,
        call: &Call,
        mut messages: impl Stream<Item = Result<message::UpsertDocumentsRequest, Status>> + Unpin + Send,
        sent: Option<usize>,
    ) -> Result<message::UpsertDocumentsResponse, Refusal> {
        let mut collection: Option<String> = None;
        let mut batch: Option<Batch> = None;
        let mut written = message::UpsertDocumentsResponse::default();
        let mut guard_types = BTreeSet::new();
        loop {
            let wake = batch.as_ref().map_or_else(|| Instant::now() + SILENCE_MAX, Batch::due);
            let next = match (timeout_at(wake, messages.next()).await, batch.take()) {
                (Ok(Some(next)), gathered) => {
                    batch = gathered;
                    next.map_err(|status| Refusal::from(&status))?
                }
                (Ok(None), Some(last)) => {
                    self.write(call, &mut written, last).await?;
                    break;
                }
                (Ok(None), None) => break,
                (Err(_elapsed), Some(due)) => {
                    self.write(call, &mut written, due).await?;
                    continue;
                }
                (Err(_elapsed), None) => return Err(RetrievalError::DeadlineExceeded.into()),
            };
            if collection.is_none() {
                check_request(&next.collection, &[])?;
                self.authentication.admit_login(&call.caller, &next.collection)?;
                call.record.draft().request(asked(&next.collection, sent));
            }
            let collection = stream_collection(&mut collection, &next.collection)?;
            let Some(document) = next.document else {
                return Err(FieldViolation::new("document", "is missing").into());
            };
            let mut gathered = match batch.take() {
                Some(gathered) => gathered,
                None => Batch::new(collection, self.turns.turn().await?),
            };
            for chunk in &document.chunks {
                let type_name = chunk.guard.split(':').next().unwrap_or_default();
                if guard_types.len() < GUARD_TYPES_MAX && !guard_types.contains(type_name) {
                    guard_types.insert(type_name.to_owned());
                }
            }
            gathered.push(document)?;
            if gathered.is_full() {
                self.write(call, &mut written, gathered).await?;
            } else {
                batch = Some(gathered);
            }
        }
        written.warnings = self.lacks(&guard_types).await;
        Ok(written)
    }

    /// Says why nobody can see what some of these types guard. The documents are in by now, so a type about which nothing is
    /// known gets no warning.
    async fn lacks(&self, guard_types: &BTreeSet<String>) -> Vec<String> {
        let mut lacks = Vec::new();
        for type_name in guard_types {
            let lack = self.authorizer.lack(Some(type_name), Some(&self.read_relation));
            match timeout(self.request_timeout, lack).await {
                Ok(Ok(Some(lack))) => lacks.push(format!("nobody will see what a `{type_name}` guards: {lack}")),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    // The authorizer fails in the same way, and louder, when somebody asks for chunks.
                    tracing::debug!(%error, "the types of guards cannot be looked up in the authorization model");
                    break;
                }
                Err(_elapsed) => break,
            }
        }
        lacks
    }

    /// Refuses unless the writer may write under every guard: those of the new chunks, and those of the chunks that the
    /// documents have now and would lose. Returns these guards.
    async fn check_writes(
        &self,
        writer: &WritingPrincipal,
        collection: &str,
        document_ids: &[String],
        new_guards: &[Object],
    ) -> Result<BTreeSet<Object>, Refusal> {
        let stored = self.stored_guards(collection, document_ids).await?;
        let guards: BTreeSet<Object> = stored.into_iter().chain(new_guards.iter().cloned()).collect();
        let mut enforcer = self.enforcer(writer, Instant::now() + self.request_timeout);
        if writable_guards(&mut enforcer, &guards).await? != guards {
            return Err(Refusal::denied(MAY_NOT_WRITE));
        }
        Ok(guards)
    }

    /// Returns the guards of all chunks that these documents have now.
    async fn stored_guards(&self, collection: &str, document_ids: &[String]) -> Result<BTreeSet<Object>, Refusal> {
        match self.within(self.documents.guards_of(collection, document_ids)).await {
            Ok(Some(stored)) => Ok(stored),
            // Nobody may write a document if one of its chunks has no usable guard.
            Ok(None) => Err(Refusal::denied(MAY_NOT_WRITE)),
            Err(refusal) if refusal.code() == Code::NotFound => Ok(BTreeSet::new()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Decides about the writes of one call. It asks about each guard once.
    fn enforcer<'a>(&'a self, writer: &'a WritingPrincipal, deadline: Instant) -> Enforcer<'a> {
        let WritingPrincipal { principal, relation } = writer;
        Enforcer::new(self.authorizer.as_ref(), principal, relation, Consistency::HigherConsistency, deadline)
    }

    /// Keeps the documents under whose guards the writer may write; the others look absent. Each guard is asked about once.
    async fn writable(
        &self,
        writer: &WritingPrincipal,
        collection: &str,
        found: Vec<StoredDocument>,
        deadline: Instant,
    ) -> Result<Writable, Refusal> {
        let mut enforcer = self.enforcer(writer, deadline);
        let ids: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
        let all = self.documents.guards_of(collection, &ids).await?;
        // Documents without guards are gone by now, and others may write documents with their ids at once.
        if let Some(all) = &all
            && !all.is_empty()
            && writable_guards(&mut enforcer, all).await? == *all
        {
            return Ok(Writable { documents: found, guards: all.clone() });
        }
        let looks = found.into_iter().map(|document| async move {
            let guards = self.documents.guards_of(collection, std::slice::from_ref(&document.0)).await?;
            Ok::<_, Refusal>((document, guards))
        });
        let looks: Vec<(StoredDocument, Option<BTreeSet<Object>>)> =
            stream::iter(looks).buffered(LOOKS_MAX).try_collect().await?;
        let asked: BTreeSet<Object> =
            looks.iter().filter_map(|(_, guards)| guards.as_ref()).flatten().cloned().collect();
        let may_write = writable_guards(&mut enforcer, &asked).await?;
        let looks = looks.into_iter().filter(|(_, guards)| is_writable(guards.as_ref(), &may_write));
        Ok(Writable { documents: looks.map(|(document, _)| document).collect(), guards: may_write })
    }

    /// Makes a batch durable and counts it. The write runs to its end, even if the deadline passes or the caller goes
    /// away. Otherwise nobody could tell what is in.
    async fn write(
        &self,
        call: &Call,
        written: &mut message::UpsertDocumentsResponse,
        mut batch: Batch,
    ) -> Result<(), Refusal> {
        self.authentication.admit_still(&call.caller, batch.collection(), (self.clock)())?;
        let guards = match &call.writer {
            Some(writer) => {
                let (ids, guards) = (batch.document_ids(), batch.guards());
                Some(self.check_writes(writer, batch.collection(), &ids, &guards).await?)
            }
            None => None,
        };
        let embedded = self.embed(&mut batch, call.record.draft()).await?;
        let after = message::UpsertDocumentsResponse {
            documents: written.documents + batch.documents(),
            chunks: written.chunks + batch.chunks(),
            embedded: embed::sum(written.embedded.take(), embedded),
            ..message::UpsertDocumentsResponse::default()
        };
        let (store, draft, is_believed) =
            (Arc::clone(&self.documents), call.record.draft().clone(), call.writer.is_none());
        let writing = async move {
            let (collection, documents, turn) = batch.into_parts();
            let upserted = match guards {
                // Checks of many guards take long, and a writer chooses how many there are. Somebody else may have put one of
                // the documents under another guard meanwhile, so the store looks again.
                Some(guards) => store.upsert_under(&collection, documents, &guards).await,
                None => store.upsert(&collection, documents).await,
            };
            upserted.map_err(|error| refused_write(is_believed, error))?;
            draft.released(documents_of(after.documents));
            drop(turn);
            Ok(after)
        };
        *written = call.record.run_part(writing).await?;
        Ok(())
    }
}

/// Returns the machine that calls; `None` for this process.
fn peer<T>(request: &Request<T>) -> Option<IpAddr> {
    request.extensions().get::<Peer>().and_then(|peer| peer.0)
}

/// Returns the caller whose places a call takes.
fn uploader(writer: Option<&WritingPrincipal>, peer: Option<IpAddr>) -> Uploader {
    match writer {
        Some(writer) => Uploader::Subject(writer.principal.subject().clone()),
        None => peer.map_or(Uploader::Local, Uploader::Machine),
    }
}

/// Returns whether a document with these guards may be written by who may write under `may_write`. A document without guards
/// is gone by now, or has a chunk about which nobody can be asked.
fn is_writable(guards: Option<&BTreeSet<Object>>, may_write: &BTreeSet<Object>) -> bool {
    guards.is_some_and(|own| !own.is_empty() && own.is_subset(may_write))
}

/// Keeps the guards under which the writer may write.
async fn writable_guards(enforcer: &mut Enforcer<'_>, guards: &BTreeSet<Object>) -> Result<BTreeSet<Object>, Refusal> {
    let permitted = enforcer.enforce(guards.iter().cloned().collect::<Vec<Object>>()).await;
    let permitted = permitted.map_err(RetrievalError::Authz)?;
    Ok(permitted.into_iter().map(Permitted::into_item).collect())
}

/// Returns the part of the record that says what was asked for.
fn asked(collection: &str, count: Option<usize>) -> AuditedRequest {
    let count = count.map(|count| count as u64);
    AuditedRequest { collection: collection.to_owned(), count, ..AuditedRequest::default() }
}

/// Returns the part of the record that says how many documents were written, deleted or listed.
fn documents_of(documents: u64) -> Released {
    Released { documents: Some(documents), ..Released::default() }
}

/// Returns the refusal of a write. A writer with a token is not told which document has the id that it wants.
fn refused_write(is_believed: bool, error: VectorStoreError) -> Refusal {
    match (is_believed, error) {
        (false, VectorStoreError::DuplicateChunk { chunk_id, document_id, owner: Some(_) }) => {
            VectorStoreError::DuplicateChunk { chunk_id, document_id, owner: None }.into()
        }
        (_, VectorStoreError::OtherGuard) => Refusal::denied(MAY_NOT_WRITE),
        (_, error) => error.into(),
    }
}

/// Returns the collection of a stream. Its first message names it, and the others must name the same.
fn stream_collection<'c>(collection: &'c mut Option<String>, named: &str) -> Result<&'c str, Refusal> {
    let first = collection.get_or_insert_with(|| named.to_owned());
    if *first != named {
        let named = shown(named);
        let description = format!("is `{named}`, but the stream began with `{first}`; use one stream for each");
        return Err(FieldViolation::new("collection", description).into());
    }
    Ok(first)
}

fn check_request(collection: &str, document_ids: &[String]) -> Result<(), Refusal> {
    let mut violations = Vec::new();
    check_collection(collection, &mut violations);
    if document_ids.len() > DOCUMENT_IDS_MAX {
        let description = format!("has {} ids, at most {DOCUMENT_IDS_MAX} are allowed", document_ids.len());
        violations.push(FieldViolation::new("document_ids", description));
    }
    if violations.is_empty() { Ok(()) } else { Err(Refusal::invalid(violations)) }
}

#[cfg(test)]
mod tests;
