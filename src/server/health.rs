//! The health service (`grpc.health.v1.Health`). It tells whether a retrieval would be answered now (readiness), and whether
//! the process serves at all (liveness).
//!
//! A caller learns one word; the log says which part fails, and why. Everybody may ask, so all probes share one look at the
//! backends for [`REUSED_FOR`]: however many ask, each backend gets one call a second.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::audit::Audit;
use super::authentication::Authentication;
use super::operations::{Access, OPERATIONS, RelationshipEngine};
use super::refusal::Refusal;
use super::services::Services;
use crate::audit::AuditError;
use crate::authz::{Authorizer, Consistency};
use crate::vector_store::VectorStore;

/// How long further callers are told the outcome of a look that has ended.
const REUSED_FOR: Duration = Duration::from_secs(1);
/// The longest that one look may take. A backend that needs longer would not answer a retrieval in good time either.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// The time between two looks for a caller that watches.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The largest number of watching streams of one connection. A client needs one, and a proxy's connection carries several
/// clients. Everybody may watch for as long as they like, and every stream costs a look each [`WATCH_INTERVAL`].
const WATCHES_MAX: usize = 32;
/// The wait after which a refused client should try again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The service name that stands for liveness.
pub(crate) const LIVENESS: &str = "liveness";
/// The service names that stand for readiness, beside those of the services themselves.
const READINESS: [&str; 2] = ["", "readiness"];

/// The service name that reports on the copy of an `OpenFGA` server's relationships: `SERVING` while the copy is
/// trusted. While it is not, the server decides, and retrievals are still answered.
const REPLICA: &str = "replica";

/// Finds out whether a retrieval would be answered.
pub(super) struct Readiness {
    authentication: Authentication,
    authorizer: Arc<dyn Authorizer>,
    vector_store: Arc<dyn VectorStore>,
    /// The audit log, if each answer needs its record.
    audit: Option<Audit>,
    latest: Mutex<Option<Look>>,
    /// The outcome that was logged last.
    is_ready: AtomicBool,
    stopping: watch::Sender<bool>,
}

/// A look that is under way or done, shared by all who ask meanwhile.
type Look = Shared<BoxFuture<'static, Looked>>;

#[derive(Clone, Copy, Debug)]
struct Looked {
    is_ready: bool,
    ended: Instant,
}

impl Looked {
    fn lost(lost: &JoinError) -> Self {
        tracing::error!(%lost, "the readiness check did not finish");
        Self { is_ready: false, ended: Instant::now() }
    }
}

/// The backend that keeps retrievals from being answered.
#[derive(Debug)]
struct NotReady {
    part: &'static str,
    detail: String,
}

impl Readiness {
    pub(super) fn new(services: &Services) -> Arc<Self> {
        Arc::new(Self {
            authentication: services.authentication.clone(),
            authorizer: Arc::clone(&services.authorizer),
            vector_store: Arc::clone(&services.vector_store),
            audit: services.audit.clone().filter(|audit| audit.required),
            latest: Mutex::default(),
            is_ready: AtomicBool::new(true),
            stopping: watch::Sender::new(false),
        })
    }

    /// Tells from now on that the server is not ready, so that load balancers go elsewhere while the last requests end.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(super) async fn is_ready(self: &Arc<Self>) -> bool {
        if *self.stopping.borrow() {
            return false;
        }
        let look = self.shared_look();
        look.await.is_ready
    }

    fn shared_look(self: &Arc<Self>) -> Look {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.as_ref().filter(|look| look.peek().is_none_or(|looked| looked.ended.elapsed() < REUSED_FOR));
        if let Some(known) = known {
            return known.clone();
        }
        let this = Arc::clone(self);
        // A separate task drives the look, and ends within `LOOK_MAX`. If only callers drove it, it would stop when
        // they go away. The next caller would find it out of time, and be told that nothing is ready.
        let looking = tokio::spawn(async move { this.look().await });
        let look = async move { looking.await.unwrap_or_else(|lost| Looked::lost(&lost)) }.boxed().shared();
        *latest = Some(look.clone());
        look
    }

    async fn look(&self) -> Looked {
        let found = match timeout(LOOK_MAX, self.parts()).await {
            Ok(found) => found,
            Err(_elapsed) => Err(NotReady { part: "backends", detail: "they did not answer in time".to_owned() }),
        };
        let is_ready = found.is_ok();
        let was_ready = self.is_ready.swap(is_ready, Ordering::Relaxed);
        match found {
            Err(NotReady { part, detail }) if was_ready => {
                tracing::warn!(part, detail, "not ready: a retrieval would not be answered");
            }
            Ok(()) if !was_ready => tracing::info!("ready again"),
            Ok(()) | Err(_) => {}
        }
        Looked { is_ready, ended: Instant::now() }
    }

    /// Asks one part after the other. When one fails, the rest are spared.
    async fn parts(&self) -> Result<(), NotReady> {
        let failed = |part| move |error: &dyn std::fmt::Display| NotReady { part, detail: error.to_string() };
        if !self.authentication.takes_callers() {
            let detail = "stored names are not compared with those of tokens yet".to_owned();
            return Err(NotReady { part: "names", detail });
        }
        self.authorizer.readiness().await.map_err(|error| failed("authorizer")(&error))?;
        self.vector_store.ready().await.map_err(|error| failed("vector store")(&error))?;
        if let Some(audit) = self.audit.clone() {
            let probed = tokio::task::spawn_blocking(move || audit.sink.check_writable()).await;
            let probed = probed.unwrap_or_else(|e| Err(AuditError::Stopped(format!("the look at it was lost: {e}"))));
            probed.map_err(|error| failed("audit log")(&error))?;
        }
        Ok(())
    }
}

/// Bounds the watching streams of one connection.
#[derive(Clone, Debug)]
pub(super) struct Watches(Arc<Semaphore>);

impl Watches {
    pub(super) fn of_connection() -> Self {
        Self(Arc::new(Semaphore::new(WATCHES_MAX)))
    }

    /// Takes one of the places of the connection that a request came by.
    fn place<T>(request: &Request<T>) -> Result<OwnedSemaphorePermit, Refusal> {
        let Self(places) = request.extensions().get::<Self>().ok_or_else(Refusal::lost)?;
        let taken = |_none_free| Refusal::busy("too many streams of this connection watch", RETRY_AFTER);
        Arc::clone(places).try_acquire_owned().map_err(taken)
    }
}

/// Serves health checks.
pub(super) struct HealthApi {
    readiness: Arc<Readiness>,
    engine: RelationshipEngine,
}

/// The question that a service name stands for.
#[derive(Clone, Copy)]
enum HealthQuestion {
    Liveness,
    Readiness,
    Replica,
}

impl HealthApi {
    pub(super) fn new(readiness: Arc<Readiness>, engine: RelationshipEngine) -> Self {
        Self { readiness, engine }
    }

    fn asked(&self, service: &str) -> Option<HealthQuestion> {
        if service == LIVENESS {
            return Some(HealthQuestion::Liveness);
        }
        if service == REPLICA {
            return copy_is_trusted(&self.readiness).map(|_is_trusted| HealthQuestion::Replica);
        }
        (READINESS.contains(&service) || self.serves(service)).then_some(HealthQuestion::Readiness)
    }

    /// Returns whether a name is that of a service that does work. Health and reflection answer whatever the backends
    /// do, so they are not asked about.
    fn serves(&self, service: &str) -> bool {
        let works = |access| matches!(access, Access::Needs(_));
        let served = OPERATIONS.iter().filter(|operation| operation.is_served(self.engine));
        served.filter(|operation| works(operation.access)).any(|operation| operation.service() == service)
    }
}

fn copy_is_trusted(readiness: &Readiness) -> Option<bool> {
    readiness.authorizer.abilities(Consistency::MinimizeLatency).copy_is_trusted
}

async fn serving(readiness: &Arc<Readiness>, asked: HealthQuestion) -> ServingStatus {
    match asked {
        // A process that answers is alive.
        HealthQuestion::Liveness => ServingStatus::Serving,
        HealthQuestion::Readiness if readiness.is_ready().await => ServingStatus::Serving,
        HealthQuestion::Replica if copy_is_trusted(readiness) == Some(true) => ServingStatus::Serving,
        HealthQuestion::Readiness | HealthQuestion::Replica => ServingStatus::NotServing,
    }
}

const fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl Health for HealthApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let Some(asked) = self.asked(&request.get_ref().service) else {
            return Err(Status::not_found("there is no such service"));
        };
        Ok(Response::new(answer(serving(&self.readiness, asked).await)))
    }

    /// Tells the status at once, and then whenever it changes, until the server stops.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let Some(asked) = self.asked(&request.get_ref().service) else {
            // The protocol would keep such a stream open, because the service may come later. Here none comes.
            let unknown = stream::iter([Ok(answer(ServingStatus::ServiceUnknown))]);
            return Ok(Response::new(Box::pin(unknown)));
        };
        let (readiness, place) = (Arc::clone(&self.readiness), Watches::place(&request)?);
        let watched = Watched { readiness, asked, told: None, is_over: false, _place: place };
        Ok(Response::new(Box::pin(stream::unfold(watched, Watched::next))))
    }
}

/// A stream to a caller that watches.
struct Watched {
    readiness: Arc<Readiness>,
    asked: HealthQuestion,
    told: Option<ServingStatus>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Watched {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        let mut stopping = self.readiness.stopping.subscribe();
        while !self.is_over {
            self.is_over = *stopping.borrow_and_update();
            let serving = serving(&self.readiness, self.asked).await;
            if self.told.replace(serving) != Some(serving) {
                return Some((Ok(answer(serving)), self));
            }
            tokio::select! {
                () = sleep(WATCH_INTERVAL) => {}
                // Never an error: the sender lives as long as `readiness`.
                _ = stopping.changed() => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
