//! An authorizer that keeps a copy of an `OpenFGA` store in this process, and evaluates it with Ragward's own
//! evaluator.
//!
//! In mode *plan* the copy only finds what a user may see, to plan a search. The server still decides about every chunk
//! that is released. In mode *decide* the copy decides while it is within its bound of staleness. Past that bound, or
//! if a request asks for something fresher, the server decides. If the server is out of reach then, nothing is allowed.
//!
//! The copy does not rely on the order of the server's log. `ReadChanges` is not in the order of the commits, and may
//! report a change twice. So the follower reads the last part of the log again each time (`window`), asks the server
//! about a tuple with opposite changes in that part, and compares all tuples now and then (a *sweep*).
//!
//! The follower also reports every change to the cache of decisions, so that the log is read once for both. It does so
//! as soon as it knows of a change, even if the copy cannot be updated.

mod follower;
mod lateness;
pub mod source;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verified_tests;
mod window;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::follower::{Follower, Watched};
use self::source::RelationshipSource;
pub use super::copy::{CopyView, ModelVersion, Progress, UnixClock};
use super::copy::{News, Wishes};
use super::decider::Decider;
use super::embedded::EmbeddedAuthorizer;
use super::owned_task::OwnedTask;
pub use super::replica_config::{ReplicaConfig, ReplicaMode, ReplicaUse};
use super::validity::Validity;
use super::verification::Verifier;
use super::{
    Abilities, Authorizer, AuthzError, CheckBatch, Consistency, DecidingModel, Decisions, KnownRelationships,
    Provenance, SubtractedBy, VisiblePositions, VisibleSetQuery,
};
use crate::language::Relation;
use crate::storage::StorageError;
use crate::tuple_store::RelationshipStores;

/// The number of poll intervals within which the next look at the log begins and ends, unless the server is slow.
const POLLS_WAITED_FOR: u32 = 2;

/// The parts that a replica is opened with, beside its configuration.
pub struct ReplicaParts {
    /// Reads the server's model, tuples and changes.
    pub source: Arc<dyn RelationshipSource>,
    /// Decides whatever the copy does not.
    pub authority: Arc<dyn Authorizer>,
    /// Learns of every change on the server, and of every look that found none.
    pub validity: Arc<Validity>,
    /// Reads the wall clock.
    pub clock: UnixClock,
    /// The server that verification asks, past all caches and shared calls.
    pub server: Arc<dyn Decider>,
}

/// Decides from the copy where it may, and otherwise asks the authority.
pub struct ReplicaAuthorizer {
    authority: Arc<dyn Authorizer>,
    view: Arc<CopyView>,
    used_for: ReplicaUse,
    config: ReplicaConfig,
    _following: OwnedTask,
    verifier: Option<Verifier>,
}

impl ReplicaAuthorizer {
    /// Opens the copy in a directory of its own, and starts the tasks that follow the server and verify the copy. They stop when
    /// this is dropped. Must run inside tokio.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(
        directory: &Path,
        parts: ReplicaParts,
        used_for: ReplicaUse,
        config: ReplicaConfig,
    ) -> Result<Self, StorageError> {
        let ReplicaParts { source, authority, validity, clock, server } = parts;
        let owned = directory.to_owned();
        let (sender, progress) = watch::channel(Progress::default());
        let (news, wishes) = (Arc::<News>::default(), Arc::<Wishes>::default());
        let watched = Watched {
            progress: sender,
            validity,
            news: Arc::clone(&news),
            wishes: Arc::clone(&wishes),
            clock: Arc::clone(&clock),
        };
        let opened = tokio::task::spawn_blocking(move || {
            let stores = RelationshipStores::open(&owned)?;
            let follower = Follower::new(source, stores.clone(), config, watched)?;
            Ok((stores, follower))
        });
        let lost = |e: tokio::task::JoinError| StorageError::Io { path: "replica".into(), detail: e.to_string() };
        let (stores, follower) = opened.await.map_err(lost)??;
        let copy = Arc::new(EmbeddedAuthorizer::new(stores));
        let staleness_max = config.staleness_max;
        let view = Arc::new(CopyView { copy, progress, news, wishes, clock, staleness_max });
        // The verifier exists even if nothing is verified, because it keeps out a copy that was found wrong before.
        let verifier = Some(Verifier::start(config, Arc::clone(&view), server, directory));
        let following = OwnedTask::spawn(|owner| follower.run(owner));
        Ok(Self { authority, view, used_for, config, _following: following, verifier })
    }

    /// Watches how far the copy is.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.view.progress.clone()
    }

    /// Returns the verifier of the copy.
    #[must_use]
    pub fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// Returns whether the copy may be used at all.
    fn is_trusted(&self) -> bool {
        self.verifier.as_ref().is_none_or(Verifier::is_trusted)
    }

    /// Returns how far the copy is, if it may answer a question of this consistency now.
    fn serving(&self, consistency: Consistency) -> Option<Progress> {
        if !self.is_trusted() {
            return None;
        }
        let progress = self.view.progress();
        let fresh_as_of = progress.fresh_as_of?;
        let is_fresh_enough = match consistency {
            Consistency::MinimizeLatency => true,
            Consistency::AtLeastAsFresh(moment) => fresh_as_of >= moment,
            Consistency::HigherConsistency => false,
        };
        (is_fresh_enough && fresh_as_of.elapsed() <= self.config.staleness_max).then_some(progress)
    }

    /// Returns how far the copy is, if it may decide a question of this consistency now.
    fn deciding(&self, consistency: Consistency) -> Option<Progress> {
        self.serving(consistency).filter(|_| self.used_for == ReplicaUse::Decide)
    }

    /// Waits for the next look at the log, if the copy decides and a question asks for something newer than the copy
    /// has seen. Waiting costs the server nothing, since the log is read anyway. If the server decided all such
    /// questions instead, one caller could keep it busy.
    async fn catch_up(&self, consistency: Consistency, deadline: Instant) {
        let Consistency::AtLeastAsFresh(moment) = consistency else { return };
        if !self.will_serve(consistency) || self.serving(consistency).is_some() {
            return;
        }
        let now = Instant::now();
        // The other half of the time is left for the server, in case it has to decide after all.
        let until = (moment + self.config.poll_interval * POLLS_WAITED_FOR)
            .min(now + deadline.saturating_duration_since(now) / 2);
        let mut progress = self.view.progress.clone();
        let has_seen = |progress: &Progress| progress.fresh_as_of.is_some_and(|fresh_as_of| fresh_as_of >= moment);
        if timeout_at(until, progress.wait_for(has_seen)).await.is_err() {
            tracing::debug!("the copy did not catch up; the server decides");
        }
    }

    /// Returns whether the copy decides a question of this consistency, now or most likely soon.
    fn will_serve(&self, consistency: Consistency) -> bool {
        match consistency {
            Consistency::MinimizeLatency | Consistency::AtLeastAsFresh(_) => {
                self.used_for == ReplicaUse::Decide && self.serving(Consistency::MinimizeLatency).is_some()
            }
            Consistency::HigherConsistency => false,
        }
    }

    /// Asks the copy, and returns its answer with the progress that the answer belongs to. Returns `None` when the copy
    /// may not or cannot answer, or when the copy or its model changed meanwhile.
    async fn asked_of_copy<T>(
        &self,
        consistency: Consistency,
        answering: impl Future<Output = Result<T, AuthzError>> + Send,
    ) -> Option<(T, Progress)> {
        let before = self.serving(consistency)?;
        let answer = answering.await.inspect_err(|error| tracing::debug!(%error, "the copy does not answer")).ok()?;
        // If the model or the copy changed meanwhile, the answer may rest on half of the change.
        let after = self.serving(consistency)?;
        before.is_same_copy(&after).then_some((answer, before))
    }
}

#[async_trait]
impl Authorizer for ReplicaAuthorizer {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let at = Instant::now();
        self.catch_up(batch.consistency, batch.deadline).await;
        let is_routed = self.verifier.as_ref().is_some_and(|verifier| verifier.routes(batch));
        if self.used_for == ReplicaUse::Decide
            && !is_routed
            && let Some((decisions, progress)) =
                self.asked_of_copy(batch.consistency, self.view.copy.check(batch)).await
            && let Some(by) = progress.provenance()
        {
            let decisions = made_by(by, decisions);
            if let Some(verifier) = &self.verifier {
                verifier.checked(batch, Some(&decisions), at);
            }
            return Ok(decisions);
        }
        let decisions = self.authority.check(batch).await;
        // Questions that the copy is not trusted with are compared, too. Otherwise the copy could never be trusted
        // again.
        if let Some(verifier) = self.verifier.as_ref().filter(|verifier| is_routed || !verifier.is_trusted()) {
            verifier.checked(batch, None, at);
        }
        decisions
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let at = Instant::now();
        self.catch_up(query.consistency, query.deadline).await;
        let is_routed = self.verifier.as_ref().is_some_and(|verifier| verifier.routes_visible_set(query));
        if !is_routed
            && let Some((visible, progress)) =
                self.asked_of_copy(query.consistency, self.view.copy.visible_set(query)).await
            && let Some(by) = progress.provenance()
        {
            let visible = visible.map(|visible| VisiblePositions { by, ..visible });
            if let (Some(verifier), Some(visible)) = (&self.verifier, &visible) {
                verifier.told(query, visible, at);
            }
            return Ok(visible);
        }
        self.authority.visible_set(query).await
    }

    /// Returns the copy in either mode. In mode *plan*, too, it holds what the server decides from.
    async fn relationships(&self, relation: &Relation) -> Result<KnownRelationships, AuthzError> {
        if self.verifier.as_ref().is_some_and(|verifier| verifier.routes_relation(relation)) {
            return Ok(KnownRelationships::Withheld);
        }
        let asked = self.asked_of_copy(Consistency::MinimizeLatency, self.view.copy.relationships(relation)).await;
        let Some((KnownRelationships::State { snapshot, .. }, progress)) = asked else {
            return Ok(KnownRelationships::Withheld);
        };
        let by = progress.provenance();
        Ok(by.map_or(KnownRelationships::Withheld, |by| KnownRelationships::State { snapshot, by }))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        match self.deciding(Consistency::MinimizeLatency) {
            Some(progress) => Ok(progress.version.model_id.into()),
            None => self.authority.readiness().await,
        }
    }

    fn abilities(&self, consistency: Consistency) -> Abilities {
        let serving = self.serving(consistency);
        let is_used = serving.is_some() || self.will_serve(consistency);
        let lag = serving.as_ref().and_then(|progress| progress.fresh_as_of).map(|fresh_as_of| fresh_as_of.elapsed());
        Abilities {
            checks_are_local: serving.is_some() && self.used_for == ReplicaUse::Decide,
            lists_by_call: !is_used && self.authority.abilities(consistency).lists_by_call,
            lag,
            staleness_max: self.config.staleness_max,
            copy_is_trusted: Some(self.is_trusted()),
        }
    }

    fn model(&self) -> Option<&dyn DecidingModel> {
        Some(self)
    }
}

#[async_trait]
impl DecidingModel for ReplicaAuthorizer {
    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
        let of_server = self.authority.subtracted().await;
        if self.deciding(Consistency::MinimizeLatency).is_none() {
            return of_server;
        }
        // The copy or the server may decide, each by its own model.
        let of_copy = (&*self.view.copy as &dyn Authorizer).subtracted().await?;
        Ok(of_server.map_or_else(|_out_of_reach| of_copy.clone(), |of_server| of_server.or(&of_copy)))
    }

    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError> {
        self.authority.lack(type_name, relation).await
    }
}

/// Turns the evaluator's decisions over the copy into decisions of the copy. They are as old as the copy, although they
/// were made just now.
fn made_by(by: Provenance, decisions: Decisions) -> Decisions {
    let mut list = decisions.list;
    for decision in &mut list {
        decision.as_of = decision.as_of.and(by.as_of);
    }
    Decisions { list, by }
}
