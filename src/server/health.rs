//! The health service (`grpc.health.v1.Health`). It tells whether a retrieval would be answered now (readiness), and whether
//! the process serves at all (liveness).
//!
//! A caller learns fixed words; the log says why a part fails. Everybody may ask, so all probes share one look at the
//! backends for [`REUSED_FOR`]: however many ask, each backend gets one call a second.

use std::pin::Pin;
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
    /// The parts that the log was told of last.
    told: Mutex<Arc<[Part]>>,
    stopping: watch::Sender<bool>,
}

/// A look that is under way or done, shared by all who ask meanwhile.
type Look = Shared<BoxFuture<'static, Looked>>;

#[derive(Clone, Debug)]
struct Looked {
    /// The parts that keep retrievals from being answered.
    lacking: Arc<[Part]>,
    ended: Instant,
}

impl Looked {
    fn lost(lost: &JoinError) -> Self {
        tracing::error!(%lost, "the readiness check did not finish");
        Self { lacking: [Part::Internal].into(), ended: Instant::now() }
    }
}

/// A part without which a retrieval is not answered. Its word is all that a caller learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// No decision can be made.
    Authorizer,
    /// The copy of an `OpenFGA` server's relationships is not trusted, and that server makes no decision.
    Replica,
    VectorStore,
    /// No record can be kept, and each answer needs one.
    Audit,
    /// Stored names are not compared with those of tokens yet, so no token is taken.
    Identity,
    /// The server is about to end.
    Stopping,
    /// The look itself failed: a defect, of which the log tells.
    Internal,
}

impl Part {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Authorizer => "authorizer",
            Self::Replica => "replica",
            Self::VectorStore => "vector store",
            Self::Audit => "audit",
            Self::Identity => "identity",
            Self::Stopping => "stopping",
            Self::Internal => "internal",
        }
    }
}

/// A part that fails, and the reason for the log.
struct Fault {
    part: Part,
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
            told: Mutex::default(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Tells from now on that the server is not ready, so that load balancers go elsewhere while the last requests end.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns the parts that keep retrievals from being answered; none if the server is ready.
    pub(super) async fn lacking(self: &Arc<Self>) -> Arc<[Part]> {
        if *self.stopping.borrow() {
            return [Part::Stopping].into();
        }
        let look = self.shared_look();
        look.await.lacking
    }

    async fn is_ready(self: &Arc<Self>) -> bool {
        self.lacking().await.is_empty()
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
        let faults = self.faults().await;
        let lacking: Arc<[Part]> = faults.iter().map(|fault| fault.part).collect();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // A part that fails again and again is told once.
        if *told != lacking {
            for Fault { part, detail } in &faults {
                tracing::warn!(part = part.word(), detail, "not ready: a retrieval would not be answered");
            }
            if faults.is_empty() {
                tracing::info!("ready again");
            }
            *told = Arc::clone(&lacking);
        }
        Looked { lacking, ended: Instant::now() }
    }

    /// Asks all parts at the same time, so that one that hangs hides no other.
    async fn faults(&self) -> Vec<Fault> {
        let (authorizer, vector_store, audit) = tokio::join!(
            within_look(self.authorizer.readiness()),
            within_look(self.vector_store.ready()),
            within_look(self.check_audit()),
        );
        // While the copy is not trusted, the server decides. So it is no fault unless the server fails, too.
        let is_without_copy = authorizer.is_err() && copy_is_trusted(self) == Some(false);
        let takes_callers = self.authentication.takes_callers();
        let replica = is_without_copy.then(|| "it is not trusted, and the server does not decide".to_owned());
        let identity = (!takes_callers).then(|| "stored names are not compared with those of tokens yet".to_owned());
        let parts = [
            (Part::Authorizer, authorizer.err()),
            (Part::Replica, replica),
            (Part::VectorStore, vector_store.err()),
            (Part::Audit, audit.err()),
            (Part::Identity, identity),
        ];
        parts.into_iter().filter_map(|(part, detail)| Some(Fault { part, detail: detail? })).collect()
    }

    /// Finds out whether a record can be kept, if each answer needs one.
    async fn check_audit(&self) -> Result<(), AuditError> {
        let Some(audit) = self.audit.clone() else { return Ok(()) };
        let probed = tokio::task::spawn_blocking(move || audit.sink.check_writable()).await;
        probed.unwrap_or_else(|e| Err(AuditError::Stopped(format!("the look at it was lost: {e}"))))
    }
}

/// Waits for the answer of a part for as long as one look may take. The error is for the log.
async fn within_look<T, E: std::fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Result<(), String> {
    match timeout(LOOK_MAX, asked).await {
        Ok(Ok(_is_ready)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("it did not answer in time".to_owned()),
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
