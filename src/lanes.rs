//! Lanes: threads for work that computes for long or waits for a disk, so that it does not delay other requests.
//!
//! Each lane has a limited number of places. Otherwise there would be as many threads as concurrent calls, each with
//! its own memory, although threads beyond the number of cores compute nothing faster.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most threads that wait for a disk or a lock, beside those that compute. They serve the lanes that wait, and work that
/// has no lane (looking up host names, opening files).
const WAITING_THREADS_MAX: usize = 16;
/// The number of lanes that compute: one each for the authorizer, the vector store and the server.
const COMPUTING_LANES: usize = 3;

/// A bounded number of places for work of one kind. Clones share the places.
#[derive(Clone, Debug)]
pub struct Lane(Arc<Semaphore>);

/// A place in a lane. Dropping it gives the place back.
#[derive(Debug)]
pub struct LanePlace(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// An error: the work has no result, because it panicked or the runtime is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the work was lost: {0}")]
pub struct Lost(String);

impl Lane {
    /// Makes a lane for work that computes, with a place for each core.
    #[must_use]
    pub fn computing() -> Self {
        Self::of(cores())
    }

    /// Makes a lane with this many places, for work that waits for something that only a few can have at a time.
    #[must_use]
    pub fn of(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Runs `work` on another thread once there is a place for it. If this future is dropped before that, the work never
    /// begins. If it is dropped later, the work runs to its end and keeps its place until then.
    ///
    /// # Errors
    /// When the work panicked or the runtime is shutting down.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
        self.place().await?.run(work).await
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Only if the lane is closed, and nothing closes one.
    pub async fn place(&self) -> Result<LanePlace, Lost> {
        let place = Arc::clone(&self.0).acquire_owned().await;
        place.map(LanePlace).map_err(|closed| Lost(closed.to_string()))
    }
}

impl LanePlace {
    /// Runs `work` on another thread, in this place. Once it has begun it runs to its end, even if this future is dropped.
    ///
    /// # Errors
    /// When the work panicked or the runtime is shutting down.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
        let working = move || {
            let done = work();
            drop(self);
            done
        };
        tokio::task::spawn_blocking(working).await.map_err(|lost| Lost(lost.to_string()))
    }
}

/// Returns how many blocking threads a runtime needs at most.
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
        // The caller abandons this work while it runs. The work keeps its place until it ends.
        assert!(lane.run(move || waiting.recv()).now_or_never().is_none());
        let mut next = Box::pin(lane.run(|| 7));
        assert!(next.as_mut().now_or_never().is_none());
        go_on.send(()).unwrap();
        assert_eq!(next.await.unwrap(), 7);
    }
}
