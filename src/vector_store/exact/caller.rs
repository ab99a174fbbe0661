//! Whether anybody still waits for an answer: a request that has passed its deadline drops its call, and the work that was
//! handed to another thread should end soon after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Kept by the one who waits.
#[derive(Default)]
pub(super) struct Waiting(Arc<AtomicBool>);

/// Kept by the one who works.
#[derive(Clone)]
pub(super) struct Caller(Arc<AtomicBool>);

impl Waiting {
    pub(super) fn caller(&self) -> Caller {
        Caller(Arc::clone(&self.0))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Caller {
    /// Then nobody sees the answer, so any will do.
    pub(super) fn is_gone(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
