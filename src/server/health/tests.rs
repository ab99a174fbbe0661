//! How often the backends are asked, and what callers are told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::join_all;
use tokio::time::advance;

use super::*;
use crate::audit::{AuditSink, DigestPurpose, Kept, ObservedDetail, Record, Verification};
use crate::authz::{Abilities, AuthzError, CheckBatch, Decisions};
use crate::chunk::{Candidate, Chunk, ChunkMetadata, FoundChunk};
use crate::vector_store::{CollectionInfo, GuardTable, Search, Searched, VectorStoreError};

/// Plays all three backends, and fails as one of them when a test says so.
#[derive(Default)]
struct Backends {
    /// The number of calls to the authorizer and the vector store.
    looks: AtomicUsize,
    failing: Mutex<Option<&'static str>>,
    hangs: AtomicBool,
    /// How long each part takes to answer.
    takes: Mutex<Duration>,
    copy_is_trusted: Mutex<Option<bool>>,
}

/// Whether an answer needs its record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Records {
    Required,
    Wanted,
}

const CANARY: &str = "db7.internal";

impl Backends {
    fn fail(&self, part: Option<&'static str>) {
        *self.failing.lock().unwrap() = part;
    }

    fn fails(&self, part: &str) -> bool {
        *self.failing.lock().unwrap() == Some(part)
    }

    async fn take_time(&self) {
        let takes = *self.takes.lock().unwrap();
        if !takes.is_zero() {
            sleep(takes).await;
        }
    }
}

#[async_trait]
impl Authorizer for Backends {
    async fn check(&self, _batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        panic!("nothing is decided")
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.take_time().await;
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.fails("authorizer") {
            return Err(AuthzError::Unavailable(CANARY.to_owned()));
        }
        Ok("model".into())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { copy_is_trusted: *self.copy_is_trusted.lock().unwrap(), ..Abilities::default() }
    }
}

#[async_trait]
impl VectorStore for Backends {
    async fn collection(&self, _name: &str) -> Result<CollectionInfo, VectorStoreError> {
        panic!("nothing is searched")
    }

    async fn guards(&self, _collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        panic!("nothing is searched")
    }

    async fn search(&self, _search: &Search) -> Result<Searched, VectorStoreError> {
        panic!("nothing is searched")
    }

    async fn find(&self, _collection: &str, _ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError> {
        panic!("nothing is searched")
    }

    async fn read_metadata(
        &self,
        _collection: &str,
        _search: Option<&Search>,
        _found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError> {
        panic!("nothing is read")
    }

    async fn read(
        &self,
        _collection: &str,
        _search: Option<&Search>,
        _found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        panic!("nothing is read")
    }

    async fn ready(&self) -> Result<(), VectorStoreError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.take_time().await;
        if self.fails("vector store") { Err(VectorStoreError::Unavailable(CANARY.to_owned())) } else { Ok(()) }
    }
}

impl AuditSink for Backends {
    fn record(&self, _record: Record) -> Kept {
        panic!("health is not recorded")
    }

    fn verified(&self, _verification: Verification) -> Kept {
        panic!("nothing is verified")
    }

    fn digest(&self, _purpose: DigestPurpose, _bytes: &[u8]) -> String {
        panic!("health is not recorded")
    }

    fn check_writable(&self) -> Result<(), AuditError> {
        if self.fails("audit log") { Err(AuditError::Full) } else { Ok(()) }
    }
}

fn health(records: Records) -> (Arc<Backends>, HealthApi) {
    let parts = Arc::new(Backends::default());
    let (sink, required, observed) = (Arc::clone(&parts) as _, records == Records::Required, ObservedDetail::default());
    let audit = Audit { sink, required, observed };
    let readiness = Readiness {
        authentication: Authentication::Believed,
        authorizer: Arc::clone(&parts) as _,
        vector_store: Arc::clone(&parts) as _,
        audit: Some(audit).filter(|audit| audit.required),
        latest: Mutex::default(),
        told: Mutex::default(),
        stopping: watch::Sender::new(false),
    };
    (parts, HealthApi::new(Arc::new(readiness), RelationshipEngine::OpenFga))
}

fn about(service: &str) -> Request<HealthCheckRequest> {
    by(&Watches::of_connection(), service)
}

/// Returns a request that came by this connection.
fn by(connection: &Watches, service: &str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest { service: service.to_owned() });
    request.extensions_mut().insert(connection.clone());
    request
}

async fn told(api: &HealthApi, service: &str) -> ServingStatus {
    let answer = api.check(about(service)).await.unwrap();
    assert!(!format!("{answer:?}").contains(CANARY));
    answer.into_inner().status()
}

#[tokio::test(start_paused = true)]
async fn ready_means_that_a_retrieval_would_be_answered() {
    use ServingStatus::{NotServing, Serving};
    let rows = [
        ("all is well", None, Records::Required, Serving),
        ("the authorizer fails", Some("authorizer"), Records::Required, NotServing),
        ("the vector store fails", Some("vector store"), Records::Required, NotServing),
        ("no record can be kept", Some("audit log"), Records::Required, NotServing),
        ("no record can be kept, and none is required", Some("audit log"), Records::Wanted, Serving),
    ];
    for (what, failing, records, expected) in rows {
        let (parts, api) = health(records);
        parts.fail(failing);
        let services = ["ragward.retrieval.v1.RetrievalService", "ragward.ingest.v1.IngestService"];
        for service in READINESS.into_iter().chain(services) {
            assert_eq!(told(&api, service).await, expected, "{what}: `{service}`");
        }
        assert_eq!(told(&api, LIVENESS).await, Serving, "{what}");
        parts.fail(None);
        advance(REUSED_FOR).await;
        assert_eq!(told(&api, "").await, Serving, "{what}, and then no more");
        api.readiness.stop();
        assert_eq!((told(&api, "").await, told(&api, LIVENESS).await), (NotServing, Serving), "{what}: stopping");
    }
    let (_, api) = health(Records::Required);
    let health_itself = "grpc.health.v1.Health";
    let over_embedded = HealthApi::new(Arc::clone(&api.readiness), RelationshipEngine::Embedded);
    assert!(over_embedded.check(about("openfga.v1.OpenFGAService")).await.is_ok());
    for unknown in ["a.Service", "openfga.v1.OpenFGAService", health_itself, "Liveness", " "] {
        assert_eq!(api.check(about(unknown)).await.unwrap_err().code(), tonic::Code::NotFound, "{unknown}");
    }
}

type ReasonRow<'a> = (&'a str, Option<&'static str>, bool, Option<bool>, &'a [&'a str]);

#[tokio::test(start_paused = true)]
async fn each_part_that_fails_is_named_by_its_word() {
    let rows: [ReasonRow<'_>; 8] = [
        ("all is well", None, false, None, &[]),
        ("the authorizer fails", Some("authorizer"), false, None, &["authorizer"]),
        ("it fails, and there is a copy", Some("authorizer"), false, Some(true), &["authorizer"]),
        ("it fails, and the copy is not trusted", Some("authorizer"), false, Some(false), &["authorizer", "replica"]),
        ("the copy is not trusted, and the server decides", None, false, Some(false), &[]),
        ("the vector store fails", Some("vector store"), false, None, &["vector store"]),
        (
            "the authorizer hangs, and the store fails",
            Some("vector store"),
            true,
            None,
            &["authorizer", "vector store"],
        ),
        ("no record can be kept", Some("audit log"), false, None, &["audit"]),
    ];
    for (row, failing, hangs, copy_is_trusted, expected) in rows {
        let (parts, api) = health(Records::Required);
        parts.fail(failing);
        parts.hangs.store(hangs, Ordering::Relaxed);
        *parts.copy_is_trusted.lock().unwrap() = copy_is_trusted;
        let lacking = api.readiness.lacking().await;
        let words: Vec<&str> = lacking.iter().map(|part| part.word()).collect();
        assert_eq!(words, expected, "{row}");
        api.readiness.stop();
        assert_eq!(&*api.readiness.lacking().await, [Part::Stopping], "{row}: stopping");
    }
}

#[tokio::test(start_paused = true)]
async fn many_probes_are_one_look_a_second() {
    let (parts, api) = health(Records::Required);
    for second in 1..=5 {
        let answers = join_all((0..10_000).map(|_| told(&api, ""))).await;
        assert!(answers.iter().all(|status| *status == ServingStatus::Serving));
        assert_eq!(parts.looks.load(Ordering::Relaxed), 2 * second, "one call to each backend a second");
        advance(REUSED_FOR).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_is_not_ready_and_holds_nobody() {
    let (parts, api) = health(Records::Required);
    parts.hangs.store(true, Ordering::Relaxed);
    let began = Instant::now();
    assert!(api.check(about("")).now_or_never().is_none(), "a probe that gives up");
    assert_eq!(told(&api, "").await, ServingStatus::NotServing);
    assert!(began.elapsed() <= LOOK_MAX + Duration::from_millis(1));
    assert_eq!(parts.looks.load(Ordering::Relaxed), 2, "one look, which asks both backends");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_goes_away_tells_the_next_one_nothing() {
    let (parts, api) = health(Records::Required);
    *parts.takes.lock().unwrap() = Duration::from_millis(10);
    for _ in 0..3 {
        assert!(api.check(about("")).now_or_never().is_none(), "it goes away while its look is under way");
        advance(10 * LOOK_MAX).await;
        assert_eq!(told(&api, "").await, ServingStatus::Serving);
        advance(REUSED_FOR).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_watches_is_told_of_changes_alone() {
    let (parts, api) = health(Records::Required);
    let mut watching = api.watch(about("")).await.unwrap().into_inner();
    let mut next = async || watching.next().await.map(|told| told.unwrap().status());
    assert_eq!(next().await, Some(ServingStatus::Serving));
    parts.fail(Some("authorizer"));
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    parts.fail(None);
    assert_eq!(next().await, Some(ServingStatus::Serving));
    api.readiness.stop();
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(next().await, None);
    let unknown: Vec<_> = api.watch(about("a.Service")).await.unwrap().into_inner().collect().await;
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].as_ref().unwrap().status(), ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn one_connection_watches_so_often_and_no_more() {
    let (_, api) = health(Records::Required);
    let (mine, others) = (Watches::of_connection(), Watches::of_connection());
    let mut watching = Vec::new();
    for _ in 0..WATCHES_MAX {
        watching.push(api.watch(by(&mine, "")).await.unwrap());
    }
    let refused = api.watch(by(&mine, "")).await.err().map(|refused| refused.code());
    assert_eq!(refused, Some(tonic::Code::ResourceExhausted));
    assert!(api.watch(by(&others, "")).await.is_ok());
    watching.pop();
    assert!(api.watch(by(&mine, "")).await.is_ok());
}

#[tokio::test]
async fn a_copy_that_is_not_trusted_is_told_by_its_name() {
    let (parts, health) = health(Records::Required);
    let rows =
        [("no copy", None, None), ("trusted", Some(true), Some(true)), ("not trusted", Some(false), Some(false))];
    for (name, trusted, serving) in rows {
        *parts.copy_is_trusted.lock().unwrap() = trusted;
        let told = match health.asked(REPLICA) {
            Some(asked) => Some(super::serving(&health.readiness, asked).await == ServingStatus::Serving),
            None => None,
        };
        assert_eq!(told, serving, "{name}");
        assert!(health.readiness.is_ready().await, "{name}: the server decides");
    }
}
