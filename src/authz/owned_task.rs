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

/// The task's view of its owner.
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
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_ends_with_its_owner() {
        let (sender, receiver) = oneshot::channel();
        let (held, ended) = oneshot::channel::<()>();
        let task = OwnedTask::spawn(async |owner| {
            sender.send(owner).expect("the test waits");
            std::future::pending::<()>().await;
            drop(held);
        });
        let owner = receiver.await.expect("the task runs");
        assert!(!owner.is_gone());
        drop(task);
        assert!(owner.is_gone());
        // A task that goes on would hold this for ever; the clock of the test then jumps to the end of the wait.
        let ended = timeout(Duration::from_secs(1), ended).await;
        assert!(ended.is_ok_and(|held| held.is_err()), "the task was dropped");
    }
}
