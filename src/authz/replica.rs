//! A copy of an `OpenFGA` store in this process, evaluated by Ragward's own evaluator, and the authorizer that uses it.
//!
//! In mode *plan* the copy only tells what a user may see, for planning a search; the server decides about every chunk
//! that is released. In mode *decide* the copy decides, as long as it is not further behind than the stated bound; past
//! that, or when a request asks for something fresher, the server decides, and where it is out of reach nothing is
//! allowed.
//!
//! Whoever remembers decisions of the server is told of its changes by the follower: the log is read once for both.

mod follower;
pub mod source;
#[cfg(test)]
mod tests;
mod window;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::follower::Follower;
use self::source::RelationshipSource;
use super::embedded::EmbeddedAuthorizer;
use super::validity::Validity;
use super::{Answer, Authorizer, AuthzError, CheckBatch, Consistency, SubtractedBy, VisibleSetQuery};
use crate::relationship::store::RelationshipStores;
use crate::storage::StorageError;

/// What the replica is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaUse {
    /// It tells visible sets; the server decides.
    Plan,
    /// It decides too.
    Decide,
}

/// How a replica follows its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// What it is used for.
    pub used_for: ReplicaUse,
    /// Between two looks at the server's log.
    pub poll_interval: Duration,
    /// A copy that is further behind is not used.
    pub staleness_max: Duration,
    /// How long a change may take from its place in the log to its commit. So much of the log is read again each time.
    pub overlap: Duration,
    /// Between two walks over all tuples, which find what the log did not tell.
    pub sweep_interval: Duration,
}

/// How far the copy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// It holds everything that was committed before; `None` until it was complete once.
    pub fresh_as_of: Option<Instant>,
    /// The server's model that it was under then.
    pub model_id: String,
}

/// See the module.
pub struct ReplicaAuthorizer {
    authority: Arc<dyn Authorizer>,
    copy: EmbeddedAuthorizer,
    config: ReplicaConfig,
    progress: watch::Receiver<Progress>,
    following: JoinHandle<()>,
}

impl ReplicaAuthorizer {
    /// Opens the copy in a directory of its own and begins to follow. `validity` is told of every change of the server, and
    /// of every time that there was none. Must run inside tokio.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(
        directory: &Path,
        source: Arc<dyn RelationshipSource>,
        authority: Arc<dyn Authorizer>,
        config: ReplicaConfig,
        validity: Arc<Validity>,
    ) -> Result<Self, StorageError> {
        let directory = directory.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let stores = RelationshipStores::open(&directory)?;
            let store = stores.default_store_or_new()?;
            Ok((stores, store))
        });
        let lost = |e: tokio::task::JoinError| StorageError::Io { path: "replica".into(), detail: e.to_string() };
        let (stores, store) = opened.await.map_err(lost)??;
        let (sender, progress) = watch::channel(Progress::default());
        let follower = Follower::new(source, store, config, sender, validity);
        let following = tokio::spawn(follower.run());
        Ok(Self { authority, copy: EmbeddedAuthorizer::new(stores), config, progress, following })
    }

    /// How far the copy is, and its changes.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Whether the copy may answer a question of this consistency now.
    fn serves(&self, consistency: Consistency) -> bool {
        self.lag(consistency).is_some()
    }
}

impl Drop for ReplicaAuthorizer {
    fn drop(&mut self) {
        self.following.abort();
    }
}

#[async_trait]
impl Authorizer for ReplicaAuthorizer {
    async fn check(&self, batch: &CheckBatch) -> Result<Vec<Answer>, AuthzError> {
        if self.config.used_for == ReplicaUse::Decide && self.serves(batch.consistency) {
            let model_id = self.progress.borrow().model_id.clone();
            let answers = self.copy.check(batch).await;
            // Where the model changed meanwhile, the copy may have decided from half of the change.
            if self.serves(batch.consistency) && self.progress.borrow().model_id == model_id {
                return answers;
            }
        }
        self.authority.check(batch).await
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<Arc<RoaringBitmap>>, AuthzError> {
        if self.serves(query.consistency) {
            return self.copy.visible_set(query).await;
        }
        self.authority.visible_set(query).await
    }

    async fn model_id(&self) -> Result<String, AuthzError> {
        if self.is_local() {
            return Ok(self.progress.borrow().model_id.clone());
        }
        self.authority.model_id().await
    }

    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
        let of_server = self.authority.subtracted().await;
        if !self.is_local() {
            return of_server;
        }
        // Either may decide, each by its model.
        let of_copy = self.copy.subtracted().await?;
        Ok(of_server.map_or_else(|_out_of_reach| of_copy.clone(), |of_server| of_server.or(&of_copy)))
    }

    async fn deciding_model_id(&self) -> Option<String> {
        if self.is_local() { self.model_id().await.ok() } else { self.authority.deciding_model_id().await }
    }

    fn lag(&self, consistency: Consistency) -> Option<Duration> {
        let fresh_as_of = self.progress.borrow().fresh_as_of?;
        let is_fresh_enough = match consistency {
            Consistency::MinimizeLatency => true,
            Consistency::AtLeastAsFresh(moment) => fresh_as_of >= moment,
            Consistency::HigherConsistency => false,
        };
        let lag = fresh_as_of.elapsed();
        (is_fresh_enough && lag <= self.config.staleness_max).then_some(lag)
    }

    fn is_local(&self) -> bool {
        self.config.used_for == ReplicaUse::Decide && self.serves(Consistency::MinimizeLatency)
    }
}
