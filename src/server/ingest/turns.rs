//! Decides which upload or deletion may run.
//!
//! A stream may be open for hours and send a document now and then. So it holds one of many places while it is open,
//! and one of few turns while a batch of it is in memory. Turns go to whoever has waited longest, and every wait ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::language::Object;
use crate::server::refusal::Refusal;

/// The largest number of uploads and deletions that are open at a time. Each may hold a message in memory.
const OPEN_MAX: usize = 64;
/// The largest number of open uploads and deletions of one caller, so that nobody takes all the places.
const OPEN_PER_CALLER_MAX: usize = 8;
/// The largest number of batches that are in memory or being written at a time.
const BATCHES_MAX: usize = 8;
/// The longest wait for a place or a turn.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// The wait after which a refused client should try again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The places of uploads and deletions.
pub(super) struct Turns {
    open: Arc<Semaphore>,
    by_caller: Mutex<HashMap<Uploader, Weak<Semaphore>>>,
    batches: Arc<Semaphore>,
}

/// The caller whose places an upload takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Uploader {
    /// The subject of a token.
    Subject(Object),
    /// A machine whose callers are believed.
    Machine(IpAddr),
    /// This process itself, without a connection.
    Local,
}

/// A place among the open uploads and deletions.
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

    /// Takes a place for a call. The place is free again when the value is dropped.
    pub(super) async fn open(&self, uploader: &Uploader) -> Result<Open, Refusal> {
        // The wait for the caller's own place comes first, so that it keeps no other caller waiting.
        let of_caller = acquire(self.of_caller(uploader)).await?;
        Ok(Open { _of_caller: of_caller, _of_all: acquire(Arc::clone(&self.open)).await? })
    }

    /// Takes the turn of a batch. The turn ends when the value is dropped.
    pub(super) async fn turn(&self) -> Result<Turn, Refusal> {
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

async fn acquire(places: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    // The semaphores are never closed, so only time can run out.
    match timeout(WAIT_MAX, places.acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(Refusal::busy("too many uploads run at a time; try again later", RETRY_AFTER)),
    }
}
