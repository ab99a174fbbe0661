//! Tells work on another thread that nobody waits for its answer any more. A request that has passed its deadline drops
//! its call, and the work should end soon after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cancels the work when the call that waits for it is dropped.
#[derive(Default)]
pub(super) struct CancelOnDrop(Arc<AtomicBool>);

/// Tells the work whether it was cancelled.
#[derive(Clone)]
pub(super) struct CancelSignal(Arc<AtomicBool>);

impl CancelOnDrop {
    pub(super) fn signal(&self) -> CancelSignal {
        CancelSignal(Arc::clone(&self.0))
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl CancelSignal {
    /// Returns whether the work was cancelled. Then nobody sees the answer, so any will do.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
