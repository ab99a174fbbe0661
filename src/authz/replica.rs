//! A copy of an `OpenFGA` store in this process, evaluated by Ragward's own evaluator, and the authorizer that uses it.
//!
//! In mode *plan* the copy only tells what a user may see, for planning a search; the server decides about every chunk
//! that is released. In mode *decide* the copy decides, as long as it is not further behind than the stated bound; past
//! that, or when a request asks for something fresher, the server decides, and where it is out of reach nothing is
//! allowed.
//!
//! Whoever remembers decisions of the server is told of its changes by the follower: the log is read once for both.

mod follower;
mod lateness;
mod news;
pub mod source;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verified_tests;
mod window;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

pub(super) use self::follower::UNTOLD_AFTER;
use self::follower::{Follower, Watched, Wishes};
pub(super) use self::lateness::CLOCK_TOLERANCE;
pub use self::news::{News, Since};
pub use self::source::ModelVersion;
use self::source::RelationshipSource;
use super::decider::{Decider, Question};
use super::embedded::EmbeddedAuthorizer;
use super::validity::Validity;
use super::verification::{VerificationConfig, Verifier};
use super::{
    Abilities, Authorizer, AuthzError, CheckBatch, Consistency, DecidingModel, Decision, Decisions, EvaluatedCopy,
    Provenance, Reached, Source, SubtractedBy, VisiblePositions, VisibleSetQuery,
};
use crate::language::{Object, Relation};
use crate::storage::StorageError;
use crate::tuple_store::RelationshipStores;

/// The longest that one evaluation for a verification may take.
const EVALUATION_MAX: Duration = Duration::from_secs(3);
/// A look at the log that begins after a moment is done this many intervals later, unless the server is slow.
const POLLS_WAITED_FOR: u32 = 2;

/// The clock of the wall, in nanoseconds since 1970, for comparing with the dates of a server's log.
pub type UnixClock = Arc<dyn Fn() -> i128 + Send + Sync>;

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
    /// The server's store and model that it was under then.
    pub version: ModelVersion,
    /// Counts the copies that were made anew: what one copy decided says nothing of the next.
    pub copy: u64,
}

impl Progress {
    /// The same copy, which does not count for now.
    fn withheld(&self) -> Self {
        Self { fresh_as_of: None, ..self.clone() }
    }

    /// What an answer of the copy rests on; `None` while it is not complete.
    fn provenance(&self) -> Option<Provenance> {
        Some(Provenance {
            model_id: self.version.model_id.as_str().into(),
            as_of: Some(self.fresh_as_of?),
            source: Source::Copy(self.copy),
        })
    }

    /// Whether what was evaluated between two looks at the progress was evaluated from one state's model and copy.
    pub(super) fn is_same_copy(&self, other: &Self) -> bool {
        self.version == other.version && self.copy == other.copy
    }
}

/// A copy and how far it is, for those who use it and those who verify it.
pub struct CopyView {
    copy: Arc<dyn EvaluatedCopy>,
    progress: watch::Receiver<Progress>,
    news: Arc<News>,
    wishes: Arc<Wishes>,
    clock: UnixClock,
    staleness_max: Duration,
}

impl CopyView {
    pub(super) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    pub(super) fn news(&self) -> &News {
        &self.news
    }

    pub(super) fn unix_ns(&self) -> i128 {
        (self.clock)()
    }

    pub(super) fn staleness_max(&self) -> Duration {
        self.staleness_max
    }

    pub(super) fn conditions_on(&self, object: &Object) -> Vec<String> {
        self.copy.conditions_on(object)
    }

    pub(super) fn wish_new_copy(&self) {
        self.wishes.new_copy.store(true, Ordering::Relaxed);
    }

    pub(super) fn wish_comparison(&self) {
        self.wishes.sweep.store(true, Ordering::Relaxed);
    }

    /// What the copy answers now, whether or not it is trusted; `None` when it does not answer, or not from one state.
    pub(super) async fn answer(&self, question: &Question) -> Option<Evaluated> {
        let before = self.progress();
        before.fresh_as_of?;
        let batch = CheckBatch {
            checks: vec![question.check.clone()],
            contextual: Arc::clone(&question.contextual),
            consistency: Consistency::MinimizeLatency,
            deadline: Instant::now() + EVALUATION_MAX,
        };
        let decisions = self.copy.check(&batch).await.ok()?;
        let [Decision { position: 0, allowed, reached, .. }] = *decisions.list else { return None };
        let after = self.progress();
        let evaluated = match reached {
            Reached::Now | Reached::Earlier => Evaluated::Decided(allowed),
            Reached::Never => Evaluated::Undecidable,
        };
        (before.is_same_copy(&after) && after.fresh_as_of.is_some()).then_some(evaluated)
    }
}

/// What an evaluation of the copy comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evaluated {
    /// Whether it allows.
    Decided(bool),
    /// It can never decide, and so denies.
    Undecidable,
}

/// What a replica is opened with, beside its configuration.
pub struct ReplicaParts {
    /// Where model, tuples and changes are read.
    pub source: Arc<dyn RelationshipSource>,
    /// Decides where the copy does not.
    pub authority: Arc<dyn Authorizer>,
    /// Is told of every change of the server, and of every time that there was none.
    pub validity: Arc<Validity>,
    /// The clock of the wall.
    pub clock: UnixClock,
    /// How much is verified, and whom it is asked of, past all caches and shared calls.
    pub verification: (VerificationConfig, Arc<dyn Decider>),
}

/// See the module.
pub struct ReplicaAuthorizer {
    authority: Arc<dyn Authorizer>,
    view: Arc<CopyView>,
    config: ReplicaConfig,
    following: JoinHandle<()>,
    verifier: Option<Verifier>,
}

impl ReplicaAuthorizer {
    /// Opens the copy in a directory of its own and begins to follow, and to verify. Must run inside tokio.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(directory: &Path, parts: ReplicaParts, config: ReplicaConfig) -> Result<Self, StorageError> {
        let ReplicaParts { source, authority, validity, clock, verification } = parts;
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
        let view = CopyView { copy, progress, news, wishes, clock, staleness_max: config.staleness_max };
        let view = Arc::new(view);
        // Also where nothing is verified: what was found wrong is not used.
        let (share, server) = verification;
        let verifier = Some(Verifier::start(share, Arc::clone(&view), server, directory));
        let following = tokio::spawn(follower.run());
        Ok(Self { authority, view, config, following, verifier })
    }

    /// How far the copy is, and its changes.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.view.progress.clone()
    }

    /// What verifies the copy.
    #[must_use]
    pub fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// Whether the copy is used for anything.
    fn is_trusted(&self) -> bool {
        self.verifier.as_ref().is_none_or(Verifier::is_trusted)
    }

    /// How far the copy is, if it may answer a question of this consistency now.
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

    /// How far the copy is, if it decides a question of this consistency now.
    fn deciding(&self, consistency: Consistency) -> Option<Progress> {
        self.serving(consistency).filter(|_| self.config.used_for == ReplicaUse::Decide)
    }

    /// Waits for the next look at the server's log where the copy decides and a question asks for something newer than it has
    /// seen. The log is read anyway; a server that had to decide whatever is asked like this could be kept busy by one caller.
    async fn catch_up(&self, consistency: Consistency, deadline: Instant) {
        let Consistency::AtLeastAsFresh(moment) = consistency else { return };
        if !self.will_serve(consistency) || self.serving(consistency).is_some() {
            return;
        }
        let now = Instant::now();
        // If the server decides after all, it needs the other half of the time.
        let until = (moment + self.config.poll_interval * POLLS_WAITED_FOR)
            .min(now + deadline.saturating_duration_since(now) / 2);
        let mut progress = self.view.progress.clone();
        let has_seen = |progress: &Progress| progress.fresh_as_of.is_some_and(|fresh_as_of| fresh_as_of >= moment);
        if timeout_at(until, progress.wait_for(has_seen)).await.is_err() {
            tracing::debug!("the copy did not catch up; the server decides");
        }
    }

    /// Whether the copy decides a question of this consistency now, or most likely soon.
    fn will_serve(&self, consistency: Consistency) -> bool {
        match consistency {
            Consistency::MinimizeLatency | Consistency::AtLeastAsFresh(_) => {
                self.config.used_for == ReplicaUse::Decide && self.serving(Consistency::MinimizeLatency).is_some()
            }
            Consistency::HigherConsistency => false,
        }
    }

    /// What the copy answers, with the progress that it is an answer of. `None` where the copy may not answer, cannot, or did
    /// not answer from one state.
    async fn asked_of_copy<T>(
        &self,
        consistency: Consistency,
        answering: impl Future<Output = Result<T, AuthzError>> + Send,
    ) -> Option<(T, Progress)> {
        let before = self.serving(consistency)?;
        let answer = answering.await.inspect_err(|error| tracing::debug!(%error, "the copy does not answer")).ok()?;
        // Where the model or the copy changed meanwhile, the answer may be from half of the change.
        let after = self.serving(consistency)?;
        before.is_same_copy(&after).then_some((answer, before))
    }
}

impl Drop for ReplicaAuthorizer {
    fn drop(&mut self) {
        self.following.abort();
    }
}

#[async_trait]
impl Authorizer for ReplicaAuthorizer {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let at = Instant::now();
        self.catch_up(batch.consistency, batch.deadline).await;
        let is_routed = self.verifier.as_ref().is_some_and(|verifier| verifier.routes(batch));
        if self.config.used_for == ReplicaUse::Decide
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
        // What the copy is not trusted with is compared all the same, so that it can be trusted again.
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
            checks_are_local: serving.is_some() && self.config.used_for == ReplicaUse::Decide,
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
        // Either of the two may decide, each by its own model.
        let of_copy = (&*self.view.copy as &dyn Authorizer).subtracted().await?;
        Ok(of_server.map_or_else(|_out_of_reach| of_copy.clone(), |of_server| of_server.or(&of_copy)))
    }

    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError> {
        self.authority.lack(type_name, relation).await
    }
}

/// Turns decisions of the evaluator over the copy into decisions of the copy, which is as new as it says.
fn made_by(by: Provenance, decisions: Decisions) -> Decisions {
    let mut list = decisions.list;
    for decision in &mut list {
        decision.as_of = decision.as_of.and(by.as_of);
    }
    Decisions { list, by }
}
