//! Who writes when. A stream may be open for hours and send a document now and then, so what it takes from others is
//! counted by what it holds: one of many places while it is open, and one of few while a batch of it is in memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;

use crate::language::Object;
use crate::server::status;

/// Streams and deletions that are open at a time, of all connections. Each may hold a message in memory.
const OPEN_MAX: usize = 64;
/// Of one caller, so that none takes all the places.
const OPEN_PER_CALLER_MAX: usize = 8;
/// Batches that are in memory or being written at a time. Whoever waited longest is next, so that all go on.
const BATCHES_MAX: usize = 8;
/// How long one waits for a turn.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// When to come back.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The places.
pub(super) struct Turns {
    open: Arc<Semaphore>,
    by_caller: Mutex<HashMap<Uploader, Weak<Semaphore>>>,
    batches: Arc<Semaphore>,
}

/// Whose places an upload takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Uploader {
    /// The subject of a token.
    Writer(Object),
    /// A machine whose callers are believed.
    Machine(IpAddr),
    /// This process.
    Local,
}

/// A place among those that are open.
pub(super) struct Open {
    _of_caller: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// The turn of one batch.
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new() -> Self {
        let (open, batches) = (Arc::new(Semaphore::new(OPEN_MAX)), Arc::new(Semaphore::new(BATCHES_MAX)));
        Self { open, by_caller: Mutex::default(), batches }
    }

    /// A place for a call.
    pub(super) async fn open(&self, uploader: &Uploader) -> Result<Open, Status> {
        // First the caller's own, so that those who wait for it keep nobody else waiting.
        let of_caller = acquire(self.of_caller(uploader)).await?;
        Ok(Open { _of_caller: of_caller, _of_all: acquire(Arc::clone(&self.open)).await? })
    }

    /// The turn of a batch; it ends when what is given here is dropped.
    pub(super) async fn turn(&self) -> Result<Turn, Status> {
        acquire(Arc::clone(&self.batches)).await.map(|place| Turn { _place: place })
    }

    fn of_caller(&self, uploader: &Uploader) -> Arc<Semaphore> {
        let mut by_caller = self.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = by_caller.get(uploader).and_then(Weak::upgrade) {
            return places;
        }
        by_caller.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(OPEN_PER_CALLER_MAX));
        by_caller.insert(uploader.clone(), Arc::downgrade(&places));
        places
    }
}

async fn acquire(places: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    // The semaphore is never closed, so only time can run out.
    match timeout(WAIT_MAX, places.acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(status::busy("too many uploads run at a time; try again later", RETRY_AFTER)),
    }
}
