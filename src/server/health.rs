//! `grpc.health.v1.Health`: whether a retrieval would be answered now (readiness), and whether the process serves (liveness).
//!
//! A caller learns one word. Which part fails, and why, stands in the log. Probes share one look at the backends for
//! [`REUSED_FOR`], so whoever may ask, and everybody may, causes no more than two calls a second to them.

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
use super::{Services, status};
use crate::audit::AuditError;
use crate::authz::Authorizer;
use crate::vector_store::VectorStore;

/// How long the outcome of a look is told to others who ask.
const REUSED_FOR: Duration = Duration::from_secs(1);
/// How long one look may take. A backend that needs longer would not answer a retrieval in good time either.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Between two looks for a caller that watches.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Most streams of one connection that watch. A client needs one, and a proxy's connection carries several clients; each is
/// looked at every [`WATCH_INTERVAL`] for as long as it likes, and whoever reaches the port may watch.
const WATCHES_MAX: usize = 32;
/// When to come back.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The name under which liveness is asked for. Every other name that is known asks for readiness.
pub(crate) const LIVENESS: &str = "liveness";
const READINESS: [&str; 4] =
    ["", "readiness", "ragward.retrieval.v1.RetrievalService", "ragward.ingest.v1.IngestService"];

/// The name under which is asked whether the copy of an `OpenFGA` server's relationships is trusted. Where it is not, the server
/// decides, and retrievals are answered all the same.
const REPLICA: &str = "replica";

/// Whether a retrieval would be answered.
pub(super) struct Readiness {
    authentication: Authentication,
    authorizer: Arc<dyn Authorizer>,
    vector_store: Arc<dyn VectorStore>,
    /// Where an answer needs its record.
    audit: Option<Audit>,
    latest: Mutex<Option<Look>>,
    /// What the log was told last.
    is_ready: AtomicBool,
    stopping: watch::Sender<bool>,
}

/// A look under way or done; shared by all who ask meanwhile.
type Look = Shared<BoxFuture<'static, Looked>>;

#[derive(Clone, Copy, Debug)]
struct Looked {
    is_ready: bool,
    ended: Instant,
}

impl Looked {
    fn lost(lost: &JoinError) -> Self {
        tracing::error!(%lost, "a look at what a retrieval needs was lost");
        Self { is_ready: false, ended: Instant::now() }
    }
}

/// Which part would not answer.
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

    /// From now on the server is not ready, so that load balancers go elsewhere while the last requests end.
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
        // In a task of its own, which ends within `LOOK_MAX`: who asks may go away, and a look that nobody drives would find its
        // time over when the next one asks, and tell them that nothing is ready.
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

    /// One after the other: where one part fails, the others are spared.
    async fn parts(&self) -> Result<(), NotReady> {
        let failed = |part| move |error: &dyn std::fmt::Display| NotReady { part, detail: error.to_string() };
        if !self.authentication.takes_callers() {
            let detail = "stored names are not compared with those of tokens yet".to_owned();
            return Err(NotReady { part: "names", detail });
        }
        self.authorizer.ready().await.map_err(|error| failed("authorizer")(&error))?;
        self.vector_store.ready().await.map_err(|error| failed("vector store")(&error))?;
        if let Some(audit) = self.audit.clone() {
            let probed = tokio::task::spawn_blocking(move || audit.sink.check_writable()).await;
            let probed = probed.unwrap_or_else(|e| Err(AuditError::Stopped(format!("the look at it was lost: {e}"))));
            probed.map_err(|error| failed("audit log")(&error))?;
        }
        Ok(())
    }
}

/// The places of one connection for streams that watch.
#[derive(Clone, Debug)]
pub(super) struct Watches(Arc<Semaphore>);

impl Watches {
    pub(super) fn of_connection() -> Self {
        Self(Arc::new(Semaphore::new(WATCHES_MAX)))
    }

    /// A place of the connection that a request came by.
    fn place<T>(request: &Request<T>) -> Result<OwnedSemaphorePermit, Status> {
        let Self(places) = request.extensions().get::<Self>().ok_or_else(status::lost)?;
        let taken = |_none_free| status::busy("too many streams of this connection watch", RETRY_AFTER);
        Arc::clone(places).try_acquire_owned().map_err(taken)
    }
}

/// See the module.
pub(super) struct HealthApi {
    readiness: Arc<Readiness>,
    serves_openfga: bool,
}

/// What is asked about.
#[derive(Clone, Copy)]
enum Asked {
    Liveness,
    Readiness,
    Replica,
}

impl HealthApi {
    pub(super) fn new(readiness: Arc<Readiness>, serves_openfga: bool) -> Self {
        Self { readiness, serves_openfga }
    }

    fn asked(&self, service: &str) -> Option<Asked> {
        if service == LIVENESS {
            return Some(Asked::Liveness);
        }
        if service == REPLICA {
            return self.readiness.authorizer.copy_is_trusted().map(|_is_trusted| Asked::Replica);
        }
        let is_known = READINESS.contains(&service) || self.serves_openfga && service == "openfga.v1.OpenFGAService";
        is_known.then_some(Asked::Readiness)
    }
}

async fn serving(readiness: &Arc<Readiness>, asked: Asked) -> ServingStatus {
    match asked {
        // Whoever is answered at all is answered by a live process.
        Asked::Liveness => ServingStatus::Serving,
        Asked::Readiness if readiness.is_ready().await => ServingStatus::Serving,
        Asked::Replica if readiness.authorizer.copy_is_trusted() == Some(true) => ServingStatus::Serving,
        Asked::Readiness | Asked::Replica => ServingStatus::NotServing,
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

    /// Tells the status now and whenever it changes, until the server stops.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let Some(asked) = self.asked(&request.get_ref().service) else {
            // The protocol keeps such a stream open, for the service may come; here none does.
            let unknown = stream::iter([Ok(answer(ServingStatus::ServiceUnknown))]);
            return Ok(Response::new(Box::pin(unknown)));
        };
        let (readiness, place) = (Arc::clone(&self.readiness), Watches::place(&request)?);
        let watched = Watched { readiness, asked, told: None, is_over: false, _place: place };
        Ok(Response::new(Box::pin(stream::unfold(watched, Watched::next))))
    }
}

/// A caller that watches.
struct Watched {
    readiness: Arc<Readiness>,
    asked: Asked,
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
                // The sender lives as long as what is watched.
                _ = stopping.changed() => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
