//! Work that runs to its end even if its caller goes away. If a write were given up halfway, nobody could tell what it
//! changed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tracing::Instrument;

use super::{Draft, Running};
use crate::server::refusal::Refusal;

/// Holds the record of a call open, and runs work whose outcome belongs in that record. It travels with the request.
#[derive(Clone)]
pub(in crate::server) struct OpenRecord(Arc<Running>);

/// The tasks that run such work. A server that stops waits for them.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct OngoingWork(Arc<Mutex<JoinSet<()>>>);

impl OpenRecord {
    pub(super) fn new(running: &Arc<Running>) -> Self {
        Self(Arc::clone(running))
    }

    /// Takes the open record of a request.
    ///
    /// # Errors
    /// When there is none. Then the record's layer is not around this service, which must not change anything
    /// unrecorded.
    pub(in crate::server) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| Refusal::unrecorded().into())
    }

    /// Returns the record so far.
    pub(in crate::server) fn draft(&self) -> &Draft {
        &self.0.draft
    }

    /// Runs a part of a call to its end. The record waits for this work, so it names everything that was changed.
    pub(in crate::server) async fn run_part<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (tell, told) = oneshot::channel();
        let held = self.clone();
        let working = async move {
            let done = work.await;
            drop(held);
            if tell.send(done).is_err() {
                tracing::debug!("the caller went away before its work was done");
            }
        };
        self.0.work.spawn(working.in_current_span());
        told.await.unwrap_or_else(|_panicked| {
            tracing::error!("a request was lost");
            Err(Refusal::lost())
        })
    }

    /// Runs the whole work of a call to its end. The record tells how it ended, even if nobody hears the answer.
    pub(in crate::server) async fn run_whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let draft = self.draft().clone();
        self.run_part(async move {
            let done = work.await;
            draft.ended(done.as_ref().map_or_else(Refusal::code, |_| Code::Ok));
            done
        })
        .await
    }
}

impl OngoingWork {
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A task reports its end to its caller through a channel. This loop only frees the memory of tasks that have
        // ended.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Waits until all work that was begun has ended. Nobody may begin more meanwhile.
    pub(in crate::server) async fn ended(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}
