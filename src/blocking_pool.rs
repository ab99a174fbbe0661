//! Bounded pools for blocking work: work that computes for long or waits for a disk, and would delay other requests on
//! the threads of the runtime.
//!
//! Each pool runs at most as much work at a time as it has slots; other work waits. Without this bound, each concurrent
//! call would take a thread with a stack of its own, although threads beyond the number of cores compute nothing faster.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most threads that wait for a disk or a lock, beside those that compute. They serve the pools that wait, and work
/// that has no pool (looking up host names, opening files).
const WAITING_THREADS_MAX: usize = 16;
/// The number of pools that compute: one each for the authorizer, the vector store, the server and a model in a folder.
const CPU_BOUND_POOLS: usize = 4;

/// Runs work of one kind on blocking threads, in a bounded number of slots. Clones share the slots.
#[derive(Clone, Debug)]
pub struct BlockingPool(Arc<Semaphore>);

/// A slot of a pool. Dropping it frees the slot.
#[derive(Debug)]
pub struct PoolSlot(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// An error: the work has no result. INVARIANT (nothing leaks): it is a fixed word. The message of a panic may quote the text that was
/// worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkLost {
    /// The work panicked, and gave no answer.
    #[error("the work was lost: it panicked")]
    Panicked,
    /// The runtime is shutting down.
    #[error("the work was lost: the runtime is shutting down")]
    ShutDown,
}

impl BlockingPool {
    /// Makes a pool for work that computes, with a slot for each core.
    #[must_use]
    pub fn cpu_bound() -> Self {
        Self::with_slots(cores())
    }

    /// Makes a pool with this many slots, for work that waits for something that only a few can have at a time.
    #[must_use]
    pub fn with_slots(slots: usize) -> Self {
        Self(Arc::new(Semaphore::new(slots)))
    }

    /// Runs `work` on a blocking thread once a slot is free. If this future is dropped before that, the work never begins.
    /// If it is dropped later, the work runs to its end and keeps its slot until then.
    ///
    /// # Errors
    /// When the work panicked or the runtime is shutting down.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkLost> {
        self.slot().await?.run(work).await
    }

    /// Waits for a slot.
    ///
    /// # Errors
    /// Only if the pool is closed, and nothing closes one.
    pub async fn slot(&self) -> Result<PoolSlot, WorkLost> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        permit.map(PoolSlot).map_err(|_closed| WorkLost::ShutDown)
    }
}

impl PoolSlot {
    /// Runs `work` on a blocking thread, in this slot. Once it has begun it runs to its end, even if this future is dropped.
    ///
    /// # Errors
    /// When the work panicked or the runtime is shutting down.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkLost> {
        let working = move || {
            let done = work();
            drop(self);
            done
        };
        let worked = tokio::task::spawn_blocking(working).await;
        worked.map_err(|lost| if lost.is_panic() { WorkLost::Panicked } else { WorkLost::ShutDown })
    }
}

/// Returns how many blocking threads a runtime needs at most.
#[must_use]
pub fn blocking_threads_max() -> usize {
    CPU_BOUND_POOLS * cores() + WAITING_THREADS_MAX
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
    async fn no_more_runs_than_there_are_slots() {
        let (pool, running, most) =
            (BlockingPool::with_slots(2), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let works = (0..50).map(|number| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            pool.run(move || {
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
    async fn work_that_panics_or_is_given_up_takes_no_slot_for_good() {
        let pool = BlockingPool::with_slots(1);
        let lost = pool.run(|| -> u8 { panic!("on purpose") }).await;
        assert_eq!(lost, Err(WorkLost::Panicked));
        assert!(!WorkLost::Panicked.to_string().contains("purpose"), "a panic may quote a text");
        let (go_on, waiting) = mpsc::channel::<()>();
        // The caller abandons this work while it runs. The work keeps its slot until it ends.
        assert!(pool.run(move || waiting.recv()).now_or_never().is_none());
        let mut next = Box::pin(pool.run(|| 7));
        assert!(next.as_mut().now_or_never().is_none());
        go_on.send(()).unwrap();
        assert_eq!(next.await.unwrap(), 7);
    }
}
