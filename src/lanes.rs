//! Runs work on threads that may be held up, in lanes of a few places each.
//!
//! Without them there would be as many threads as calls at a time, each with memory of its own. More threads than cores make
//! nothing that computes faster.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Threads that wait for a disk or a lock, beside those that compute: those of the lanes, and a few for what has no lane
/// (looking up host names, opening files).
const WAITING_THREADS_MAX: usize = 16;
/// Lanes that compute: the authorizer's, the vector store's and the server's own.
const COMPUTING_LANES: usize = 3;

/// Places for work of one kind. Copies share them.
#[derive(Clone, Debug)]
pub struct Lane(Arc<Semaphore>);

/// A place in a lane, given back when this is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// The work ended in a panic, or the runtime is ending.
#[derive(Debug, thiserror::Error)]
#[error("the work was lost: {0}")]
pub struct Lost(String);

impl Lane {
    /// For what computes: a place for each core.
    #[must_use]
    pub fn computing() -> Self {
        Self::of(cores())
    }

    /// For what waits for something that few can have at a time.
    #[must_use]
    pub fn of(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Runs work once there is a place for it. Work that has begun keeps its place to its end, even if nobody waits for it
    /// any more; work that has not never begins then.
    ///
    /// # Errors
    /// When the work did not come to its end.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
        self.place().await?.run(work).await
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Never, as long as nobody closes the lane, which nobody does.
    pub async fn place(&self) -> Result<Place, Lost> {
        let place = Arc::clone(&self.0).acquire_owned().await;
        place.map(Place).map_err(|closed| Lost(closed.to_string()))
    }
}

impl Place {
    /// See [`Lane::run`].
    ///
    /// # Errors
    /// When the work did not come to its end.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
        let working = move || {
            let done = work();
            drop(self);
            done
        };
        tokio::task::spawn_blocking(working).await.map_err(|lost| Lost(lost.to_string()))
    }
}

/// How many threads a runtime may have for work that holds them up.
#[must_use]
pub fn blocking_threads_max() -> usize {
    COMPUTING_LANES * cores() + WAITING_THREADS_MAX
}

fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn no_more_runs_than_there_are_places() {
        let (lane, running, most) = (Lane::of(2), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let works = (0..50).map(|number| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            lane.run(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                number
            })
        });
        let done: Vec<i32> = join_all(works).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(done, (0..50).collect::<Vec<i32>>());
        assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
    }

    #[tokio::test]
    async fn work_that_panics_or_is_given_up_takes_no_place_for_good() {
        let lane = Lane::of(1);
        assert!(lane.run(|| panic!("on purpose")).await.is_err());
        let (go_on, waiting) = mpsc::channel::<()>();
        // Given up while it runs: its place is taken until it ends.
        assert!(lane.run(move || waiting.recv()).now_or_never().is_none());
        let mut next = Box::pin(lane.run(|| 7));
        assert!(next.as_mut().now_or_never().is_none());
        go_on.send(()).unwrap();
        assert_eq!(next.await.unwrap(), 7);
    }
}
