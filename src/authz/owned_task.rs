//! A task that works for its owner and ends with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

/// A running task. Dropping this ends it.
#[derive(Debug)]
pub(super) struct OwnedTask {
    task: JoinHandle<()>,
    owner: Owner,
}

/// What the task knows of its owner.
///
/// A task that is ended may still be at work for a moment, while the connections that it uses are closed beside it. It asks
/// here before it reports that something failed.
#[derive(Clone, Debug)]
pub(super) struct Owner(Arc<AtomicBool>);

impl OwnedTask {
    /// Starts a task. Must run inside tokio.
    pub(super) fn spawn<Work>(work: impl FnOnce(Owner) -> Work) -> Self
    where
        Work: Future<Output = ()> + Send + 'static,
    {
        let owner = Owner(Arc::new(AtomicBool::new(false)));
        Self { task: tokio::spawn(work(owner.clone())), owner }
    }
}

impl Owner {
    /// Tells whether nobody waits for the task's work any more.
    pub(super) fn is_gone(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.owner.0.store(true, Ordering::Release);
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_task_ends_with_its_owner() {
        let (sender, receiver) = oneshot::channel();
        let task = OwnedTask::spawn(async |owner| {
            sender.send(owner).expect("the test waits");
            std::future::pending::<()>().await;
        });
        let owner = receiver.await.expect("the task runs");
        assert!(!owner.is_gone());
        drop(task);
        assert!(owner.is_gone());
    }
}
