//! Writers that are slow or many, that go away, or whose tokens expire. The clock is paused, so a minute takes no time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::advance;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::authz::embedded::EmbeddedAuthorizer;
use crate::authz::{AuthzError, CheckBatch, Decisions, VisiblePositions, VisibleSetQuery};
use crate::chunk::Document;
use crate::identity::sample::{self, LEEWAY_SECONDS, NOW};
use crate::identity::{OtherUsers, StepUpRules};
use crate::language::{RelationshipTuple, dsl};
use crate::server::TokenAuthentication;
use crate::server::audit::sample::{call, first_records, open_log, records};
use crate::server::values;
use crate::tuple_store::{OnConflict, RelationshipStores};
use crate::vector_store::DocumentPage;
use crate::vector_store::exact::ExactStore;

mod listing;

const COLLECTION: &str = "notes";
const UPSERT: &str = "/ragward.ingest.v1.IngestService/UpsertDocuments";
const DELETE: &str = "/ragward.ingest.v1.IngestService/DeleteDocuments";
const MODEL: &str = "
model
  schema 1.1
type user
type note
  relations
    define can_edit: [user, user:*]
";

/// The embedded authorizer. It counts its calls, and the checks in them.
struct Counted {
    inner: EmbeddedAuthorizer,
    calls: AtomicUsize,
    checks: AtomicUsize,
    answers: AuthorizerAnswers,
}

#[async_trait]
impl Authorizer for Counted {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.checks.fetch_add(batch.checks.len(), Ordering::Relaxed);
        match self.answers {
            AuthorizerAnswers::Never => std::future::pending().await,
            AuthorizerAnswers::Always | AuthorizerAnswers::ChecksAlone => self.inner.check(batch).await,
        }
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        match self.answers {
            AuthorizerAnswers::Never => std::future::pending().await,
            AuthorizerAnswers::ChecksAlone => Ok(None),
            AuthorizerAnswers::Always => self.inner.visible_set(query).await,
        }
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        self.inner.readiness().await
    }
}

/// The embedded store. It tells the test which documents are in.
struct Told {
    inner: ExactStore,
    written: mpsc::UnboundedSender<Vec<String>>,
}

#[async_trait]
impl DocumentStore for Told {
    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError> {
        let ids = documents.iter().map(|document| document.id.clone()).collect();
        self.inner.upsert(collection, documents).await?;
        // Not every test listens.
        drop(self.written.send(ids));
        Ok(())
    }

    async fn upsert_under(
        &self,
        collection: &str,
        documents: Vec<Document>,
        guards: &BTreeSet<Object>,
    ) -> Result<(), VectorStoreError> {
        let ids = documents.iter().map(|document| document.id.clone()).collect();
        self.inner.upsert_under(collection, documents, guards).await?;
        drop(self.written.send(ids));
        Ok(())
    }

    async fn delete(&self, collection: &str, document_ids: &BTreeSet<String>) -> Result<u64, VectorStoreError> {
        self.inner.delete(collection, document_ids).await
    }

    async fn delete_under(
        &self,
        collection: &str,
        document_ids: &BTreeSet<String>,
        guards: &BTreeSet<Object>,
    ) -> Result<u64, VectorStoreError> {
        self.inner.delete_under(collection, document_ids, guards).await
    }

    async fn documents(&self, collection: &str, ids: &[String]) -> Result<Vec<(String, u32)>, VectorStoreError> {
        self.inner.documents(collection, ids).await
    }

    async fn collection_names(&self) -> Result<Vec<String>, VectorStoreError> {
        self.inner.collection_names().await
    }

    async fn list(&self, collection: &str, from: Option<&str>, limit: usize) -> Result<DocumentPage, VectorStoreError> {
        self.inner.list(collection, from, limit).await
    }

    async fn guards_of(&self, collection: &str, ids: &[String]) -> Result<Option<BTreeSet<Object>>, VectorStoreError> {
        self.inner.guards_of(collection, ids).await
    }
}

/// The embedded store. A change waits until the test lets it go on.
struct Held {
    inner: ExactStore,
    begun: Semaphore,
    let_on: Semaphore,
}

impl Held {
    async fn wait(&self) {
        self.begun.add_permits(1);
        self.let_on.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl DocumentStore for Held {
    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError> {
        self.wait().await;
        self.inner.upsert(collection, documents).await
    }

    async fn upsert_under(
        &self,
        collection: &str,
        documents: Vec<Document>,
        guards: &BTreeSet<Object>,
    ) -> Result<(), VectorStoreError> {
        self.wait().await;
        self.inner.upsert_under(collection, documents, guards).await
    }

    async fn delete(&self, collection: &str, document_ids: &BTreeSet<String>) -> Result<u64, VectorStoreError> {
        self.wait().await;
        self.inner.delete(collection, document_ids).await
    }

    async fn delete_under(
        &self,
        collection: &str,
        document_ids: &BTreeSet<String>,
        guards: &BTreeSet<Object>,
    ) -> Result<u64, VectorStoreError> {
        self.wait().await;
        self.inner.delete_under(collection, document_ids, guards).await
    }

    async fn documents(&self, collection: &str, ids: &[String]) -> Result<Vec<(String, u32)>, VectorStoreError> {
        self.inner.documents(collection, ids).await
    }

    async fn collection_names(&self) -> Result<Vec<String>, VectorStoreError> {
        self.inner.collection_names().await
    }

    async fn list(&self, collection: &str, from: Option<&str>, limit: usize) -> Result<DocumentPage, VectorStoreError> {
        self.inner.list(collection, from, limit).await
    }

    async fn guards_of(&self, collection: &str, ids: &[String]) -> Result<Option<BTreeSet<Object>>, VectorStoreError> {
        self.inner.guards_of(collection, ids).await
    }
}

/// Whether the authorizer answers a world's questions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthorizerAnswers {
    Always,
    /// It decides checks, but cannot list a visible set.
    ChecksAlone,
    Never,
}

struct World {
    api: Arc<IngestApi>,
    store: ExactStore,
    authorizer: Arc<Counted>,
    now: Arc<AtomicU64>,
    /// Receives the documents of each batch that is in.
    written: mpsc::UnboundedReceiver<Vec<String>>,
    directory: TempDir,
}

/// Returns a world in which everybody may edit the notes whose names begin with `open`.
fn world(authorizer_answers: AuthorizerAnswers) -> World {
    let directory = tempfile::tempdir().unwrap();
    let stores = RelationshipStores::open(directory.path()).unwrap();
    let relationships = stores.default_store_or_new().unwrap();
    relationships.write_model(dsl::load(MODEL).unwrap()).unwrap();
    let tuple = |number| RelationshipTuple::parse("user:*", "can_edit", &format!("note:open{number}")).unwrap();
    relationships.write_all((0..400).map(tuple).collect(), OnConflict::Refuse).unwrap();
    let inner = EmbeddedAuthorizer::new(stores);
    let authorizer = Arc::new(Counted {
        inner,
        calls: AtomicUsize::new(0),
        checks: AtomicUsize::new(0),
        answers: authorizer_answers,
    });
    let asked = Arc::clone(&authorizer);
    let store = ExactStore::open(directory.path()).unwrap();
    let (tell, written) = mpsc::unbounded_channel();
    let now = Arc::new(AtomicU64::new(NOW));
    let clock = Arc::clone(&now);
    let relation = Relation::parse("can_edit").unwrap();
    let tokens = TokenAuthentication::new(sample::verifier(), relation, StepUpRules::default()).unwrap();
    let api = Arc::new(IngestApi {
        vector_store: Arc::new(store.clone()),
        documents: Arc::new(Told { inner: store.clone(), written: tell }),
        request_timeout: Duration::from_secs(10),
        turns: Turns::new(),
        lists: Turns::new(),
        cutting: BlockingPool::with_slots(CUTTING_MAX),
        cut: crate::ingest::IngestConfig::default(),
        consistency_tokens: Arc::new(ConsistencyTokens::new().unwrap()),
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        authentication: Authentication::Tokens(Arc::new(tokens)),
        authorizer: asked,
        embeddings: Arc::default(),
        read_relation: Relation::parse("can_read").unwrap(),
    });
    World { api, store, authorizer, now, written, directory }
}

fn message(id: &str) -> message::UpsertDocumentsRequest {
    let chunk = message::Chunk {
        id: format!("{id}#0"),
        guard: format!("note:{id}"),
        text: "a note".to_owned(),
        ..message::Chunk::default()
    };
    let document = message::Document { id: id.to_owned(), title: String::new(), chunks: vec![chunk] };
    message::UpsertDocumentsRequest { collection: COLLECTION.to_owned(), document: Some(document) }
}

fn token(subject: &str) -> Caller {
    Caller::Verified { token: sample::token(subject, "ragward:ingest", NOW + 600), other_users: OtherUsers::Refused }
}

/// Returns a request as it leaves the gate.
fn request<T>(message: T, caller: Caller, record: OpenRecord) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(record.draft().clone());
    request.extensions_mut().insert(record);
    request
}

type Upload = JoinHandle<Result<message::UpsertDocumentsResponse, Refusal>>;

impl World {
    /// Opens an upload for a caller.
    fn upload(
        &self,
        caller: Caller,
    ) -> (mpsc::UnboundedSender<Result<message::UpsertDocumentsRequest, Status>>, Upload) {
        self.upload_from(caller, None)
    }

    fn upload_from(
        &self,
        caller: Caller,
        peer: Option<IpAddr>,
    ) -> (mpsc::UnboundedSender<Result<message::UpsertDocumentsRequest, Status>>, Upload) {
        let (send, messages) = mpsc::unbounded_channel();
        let api = Arc::clone(&self.api);
        let uploading = tokio::spawn(async move {
            let (_running, record) = call(None, UPSERT);
            let call = api.call_by(caller, peer, record)?;
            api.take_in(&call, UnboundedReceiverStream::new(messages)).await
        });
        (send, uploading)
    }

    async fn has(&self, id: &str) -> bool {
        // There is no collection before the first document.
        self.store.documents(COLLECTION, &[id.to_owned()]).await.is_ok_and(|found| !found.is_empty())
    }

    /// Waits until a document is in.
    async fn until(&mut self, id: &str, at_most: Duration) {
        let end = Instant::now() + at_most;
        while let Some(ids) = timeout_at(end, self.written.recv()).await.expect("the document is in") {
            if ids.iter().any(|written| written == id) {
                return;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_token() {
    let mut world = world(AuthorizerAnswers::Always);
    let (send, uploading) = world.upload(token("anne"));
    let end = NOW + 600 + LEEWAY_SECONDS;
    for (id, now) in [("open0", NOW), ("open1", end - 1)] {
        world.now.store(now, Ordering::Relaxed);
        send.send(Ok(message(id))).unwrap();
        world.until(id, Duration::from_secs(3)).await;
    }
    world.now.store(end, Ordering::Relaxed);
    send.send(Ok(message("open2"))).unwrap();
    let refused = uploading.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    assert!(refused.challenge().is_some());
    assert!(!world.has("open2").await);
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_in_as_it_comes() {
    let mut world = world(AuthorizerAnswers::Always);
    let (send, uploading) = world.upload(token("anne"));
    for number in 0..20 {
        let id = format!("open{number}");
        send.send(Ok(message(&id))).unwrap();
        world.until(&id, Duration::from_secs(3)).await;
        advance(Duration::from_secs(50)).await;
    }
    drop(send);
    let written = uploading.await.unwrap().unwrap();
    assert_eq!((written.documents, written.chunks), (20, 20));

    // An upload that falls silent is ended, and the documents that it sent stay.
    let (send, uploading) = world.upload(token("anne"));
    send.send(Ok(message("open20"))).unwrap();
    assert_eq!(uploading.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert!(world.has("open20").await);
}

#[tokio::test(start_paused = true)]
async fn quiet_streams_keep_nobody_out() {
    const STREAMS: usize = 20;
    let world = world(AuthorizerAnswers::Always);
    let quiet: Vec<_> = (0..STREAMS).map(|_| world.upload(token("eve"))).collect();
    for (number, (send, _)) in quiet.iter().enumerate() {
        send.send(Ok(message(&format!("open{number}")))).unwrap();
    }
    let begun = Instant::now();
    let (send, uploading) = world.upload(token("anne"));
    for number in 100..300 {
        send.send(Ok(message(&format!("open{number}")))).unwrap();
    }
    drop(send);
    assert_eq!(uploading.await.unwrap().unwrap().documents, 200);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Uploads past the limit for one writer wait for a minute.
    let mut refused = 0;
    for (_send, uploading) in quiet {
        let code = uploading.await.unwrap().unwrap_err().code();
        refused += usize::from(code == Code::ResourceExhausted);
        assert!([Code::ResourceExhausted, Code::DeadlineExceeded].contains(&code), "{code:?}");
    }
    assert_eq!(refused, STREAMS - 8);
}

#[tokio::test(start_paused = true)]
async fn silent_uploads_of_a_believed_machine_leave_places_to_others() {
    let world = world(AuthorizerAnswers::Always);
    let machine = |last| Some(IpAddr::from([10, 0, 0, last]));
    let silent: Vec<_> = (0..70).map(|_| world.upload_from(Caller::Believed, machine(1))).collect();
    tokio::task::yield_now().await;
    let begun = Instant::now();
    for (what, peer) in [("another machine", machine(2)), ("this process", None)] {
        let (send, uploading) = world.upload_from(Caller::Believed, peer);
        send.send(Ok(message("open1"))).unwrap();
        drop(send);
        assert_eq!(uploading.await.unwrap().unwrap().documents, 1, "{what}");
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    for (_send, uploading) in silent {
        let code = uploading.await.unwrap().unwrap_err().code();
        assert!([Code::ResourceExhausted, Code::DeadlineExceeded].contains(&code), "{code:?}");
    }
    assert!(begun.elapsed() < 3 * SILENCE_MAX, "the silent ones ended too");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_trickling_takes_turns_with_others() {
    let mut world = world(AuthorizerAnswers::Always);
    let trickling: Vec<_> = (0..8).map(|_| world.upload(token("eve"))).collect();
    let (send, uploading) = world.upload(token("anne"));
    for number in 100..110 {
        let id = format!("open{number}");
        send.send(Ok(message(&id))).unwrap();
        let begun = Instant::now();
        let mut is_in = false;
        while !is_in {
            assert!(begun.elapsed() < Duration::from_secs(10), "{id} after {:?}", begun.elapsed());
            match timeout(Duration::from_millis(300), world.written.recv()).await {
                Ok(ids) => is_in = ids.unwrap().contains(&id),
                Err(_elapsed) => {
                    for (send, _) in &trickling {
                        send.send(Ok(message("open0"))).unwrap();
                    }
                }
            }
        }
    }
    drop(send);
    assert_eq!(uploading.await.unwrap().unwrap().documents, 10);
}

fn status_request(world: &World, ids: Vec<String>) -> impl Future<Output = Result<Vec<String>, Status>> + use<> {
    let api = Arc::clone(&world.api);
    async move {
        let asked = message::GetIngestStatusRequest { collection: COLLECTION.to_owned(), document_ids: ids };
        let (_running, record) = call(None, "/ragward.ingest.v1.IngestService/GetIngestStatus");
        let answer = api.get_ingest_status(request(asked, token("anne"), record)).await?;
        Ok(answer.into_inner().found.into_iter().map(|found| found.document_id).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_about_many_documents_is_asked_at_once() {
    let documents = |world: &World| {
        let ids = (0..200).flat_map(|number| [format!("open{number}"), format!("shut{number}")]);
        let ids: Vec<String> = ids.collect();
        let made = ids.iter().map(|id| values::document(message(id).document.unwrap()).unwrap());
        let (store, made) = (world.store.clone(), made.collect());
        async move {
            store.upsert(COLLECTION, made).await.unwrap();
            ids
        }
    };
    let world = world(AuthorizerAnswers::Always);
    let ids = documents(&world).await;
    // The request names each document twice, and the answer names it once.
    let found = status_request(&world, ids.iter().chain(&ids).cloned().collect()).await.unwrap();
    let expected: Vec<&String> = ids.iter().filter(|id| id.starts_with("open")).collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    assert_eq!(world.authorizer.calls.load(Ordering::Relaxed), 1);

    let world = self::world(AuthorizerAnswers::Never);
    let ids = documents(&world).await;
    let begun = Instant::now();
    let refused = status_request(&world, ids).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    assert!(begun.elapsed() < 2 * world.api.request_timeout, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_nobody_waits_for_is_done_and_recorded() {
    for rpc in [UPSERT, DELETE] {
        let World { api, store, directory, .. } = world(AuthorizerAnswers::Always);
        let kept = values::document(message("open0").document.unwrap()).unwrap();
        store.upsert(COLLECTION, vec![kept]).await.unwrap();
        let held = Held { inner: store.clone(), begun: Semaphore::new(0), let_on: Semaphore::new(0) };
        let held = Arc::new(held);
        let mut api = Arc::into_inner(api).unwrap();
        let documents = Arc::clone(&held);
        api.documents = documents;
        let audit = open_log(directory.path());
        let (running, record) = call(Some(audit.clone()), rpc);
        let answering = async {
            if rpc == DELETE {
                let document_ids = vec!["open0".to_owned()];
                let asked = message::DeleteDocumentsRequest { collection: COLLECTION.to_owned(), document_ids };
                api.delete_documents(request(asked, token("anne"), record)).await.map(drop)
            } else {
                let call = api.call(&request((), token("anne"), record)).unwrap();
                let messages = ["open1", "open2"].map(message).map(Ok);
                api.take_in(&call, tokio_stream::iter(messages)).await.map(drop).map_err(Status::from)
            }
        };
        // The caller goes away while the change is under way.
        tokio::select! {
            answer = answering => panic!("{answer:?}"),
            begun = held.begun.acquire() => begun.unwrap().forget(),
        }
        drop(running);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(records(directory.path()).is_empty(), "{rpc}");
        held.let_on.add_permits(1);
        let found = first_records(directory.path()).await;
        let (code, documents) = if rpc == DELETE { ("OK", 1) } else { ("CANCELLED", 2) };
        let told: Vec<_> = found.iter().map(|record| (record.code.as_str(), record.released.clone())).collect();
        assert_eq!(told, [(code, Some(documents_of(documents)))], "{rpc}");
        let ids = ["open0", "open1"].map(str::to_owned);
        let there = if rpc == DELETE { 0 } else { 2 };
        assert_eq!(store.documents(COLLECTION, &ids).await.unwrap().len(), there, "{rpc}");
    }
}

#[tokio::test]
async fn what_gets_another_guard_after_the_check_stays() {
    for rpc in [UPSERT, DELETE] {
        let World { api, store, directory: _directory, .. } = world(AuthorizerAnswers::Always);
        let kept = |message: message::UpsertDocumentsRequest| values::document(message.document.unwrap()).unwrap();
        store.upsert(COLLECTION, vec![kept(message("open0"))]).await.unwrap();
        let held = Arc::new(Held { inner: store.clone(), begun: Semaphore::new(0), let_on: Semaphore::new(0) });
        let mut api = Arc::into_inner(api).unwrap();
        api.documents = Arc::clone(&held) as _;
        let (_running, record) = call(None, rpc);
        let answering = async {
            if rpc == DELETE {
                let document_ids = vec!["open0".to_owned()];
                let asked = message::DeleteDocumentsRequest { collection: COLLECTION.to_owned(), document_ids };
                let answer = api.delete_documents(request(asked, token("anne"), record)).await;
                answer.map(|answer| answer.into_inner().documents).map_err(|status| status.code())
            } else {
                let call = api.call(&request((), token("anne"), record)).unwrap();
                let messages = tokio_stream::iter([Ok(message("open0"))]);
                let written = api.take_in(&call, messages).await;
                written.map(|written| written.documents).map_err(|refusal| refusal.code())
            }
        };
        let moving = async {
            held.begun.acquire().await.unwrap().forget();
            let mut moved = message("open0");
            moved.document.as_mut().unwrap().chunks[0].guard = "note:shut".to_owned();
            store.upsert(COLLECTION, vec![kept(moved)]).await.unwrap();
            held.let_on.add_permits(1);
        };
        let (answer, ()) = futures::join!(answering, moving);
        let expected = if rpc == DELETE { Ok(0) } else { Err(Code::PermissionDenied) };
        assert_eq!(answer, expected, "{rpc}");
        let guards = store.guards_of(COLLECTION, &["open0".to_owned()]).await.unwrap().unwrap();
        assert_eq!(guards.iter().map(Object::as_str).collect::<Vec<_>>(), ["note:shut"], "{rpc}");
    }
}
