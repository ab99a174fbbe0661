//! Work that is not given up when its caller goes away, because then nobody could tell what it changed.

use std::sync::Arc;

use tonic::{Code, Status};
use tracing::Instrument;

use super::{Draft, Running};
use crate::server::status;

/// Holds the record of a call open. It travels with the request.
#[derive(Clone)]
pub(in crate::server) struct Lasting(Arc<Running>);

impl Lasting {
    pub(super) fn new(running: &Arc<Running>) -> Self {
        Self(Arc::clone(running))
    }

    /// That of a request.
    ///
    /// # Errors
    /// When there is none: a service was put beside the layer, and must not change anything unrecorded.
    pub(in crate::server) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(status::unrecorded)
    }

    /// The record so far.
    pub(in crate::server) fn draft(&self) -> &Draft {
        &self.0.draft
    }

    /// Runs a part of a call to its end. The record waits for it, so it tells what was changed.
    pub(in crate::server) async fn part<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let held = self.clone();
        let running = async move {
            let done = work.await;
            drop(held);
            done
        };
        let done = tokio::spawn(running.in_current_span()).await;
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "a request was lost");
            Err(status::lost())
        })
    }

    /// The same for what a whole call comes to: the record tells how it ended, also when nobody hears it.
    pub(in crate::server) async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let draft = self.draft().clone();
        self.part(async move {
            let done = work.await;
            draft.ended(done.as_ref().map_or_else(Status::code, |_| Code::Ok));
            done
        })
        .await
    }
}
