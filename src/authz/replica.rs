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
use roaring::RoaringBitmap;
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
    Answer, Authorizer, AuthzError, CheckBatch, Consistency, Provenance, Source, SubtractedBy, VisibleSetQuery,
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
            source: Source::Copy(self.copy),
            model_id: self.version.model_id.as_str().into(),
            as_of: Some(self.fresh_as_of?),
            decided: true,
            remembered: false,
        })
    }

    /// Whether what was evaluated between two looks at the progress was evaluated from one state's model and copy.
    pub(super) fn is_same_copy(&self, other: &Self) -> bool {
        self.version == other.version && self.copy == other.copy
    }
}

/// An evaluator over a copy.
pub trait EvaluatedCopy: Authorizer {
    /// The names of the conditions on tuples that name the object, as far as that is known at once.
    fn conditions_on(&self, object: &Object) -> Vec<String>;
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
        let answers = self.copy.check(&batch).await.ok()?;
        let [Answer { position: 0, allowed, provenance }] = answers.as_slice() else { return None };
        let after = self.progress();
        let evaluated = if provenance.decided { Evaluated::Decided(*allowed) } else { Evaluated::Undecidable };
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
    async fn check(&self, batch: &CheckBatch) -> Result<Vec<Answer>, AuthzError> {
        let at = Instant::now();
        self.catch_up(batch.consistency, batch.deadline).await;
        let is_routed = self.verifier.as_ref().is_some_and(|verifier| verifier.routes(batch));
        if self.config.used_for == ReplicaUse::Decide
            && !is_routed
            && let Some((answers, progress)) = self.asked_of_copy(batch.consistency, self.view.copy.check(batch)).await
            && let Some(of_copy) = progress.provenance()
        {
            let answers: Vec<Answer> = answers.iter().map(|answer| answer_of(&of_copy, answer)).collect();
            if let Some(verifier) = &self.verifier {
                verifier.checked(batch, Some(&answers), at);
            }
            return Ok(answers);
        }
        let answers = self.authority.check(batch).await;
        // What the copy is not trusted with is compared all the same, so that it can be trusted again.
        if let Some(verifier) = self.verifier.as_ref().filter(|verifier| is_routed || !verifier.is_trusted()) {
            verifier.checked(batch, None, at);
        }
        answers
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<Arc<RoaringBitmap>>, AuthzError> {
        let at = Instant::now();
        self.catch_up(query.consistency, query.deadline).await;
        let is_routed = self.verifier.as_ref().is_some_and(|verifier| verifier.routes_visible_set(query));
        if !is_routed
            && let Some((visible, progress)) =
                self.asked_of_copy(query.consistency, self.view.copy.visible_set(query)).await
        {
            if let (Some(verifier), Some(visible)) = (&self.verifier, &visible) {
                verifier.told(query, visible, &progress, at);
            }
            return Ok(visible);
        }
        self.authority.visible_set(query).await
    }

    async fn model_id(&self) -> Result<String, AuthzError> {
        if self.is_local(Consistency::MinimizeLatency) {
            return Ok(self.view.progress().version.model_id);
        }
        self.authority.model_id().await
    }

    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
        let of_server = self.authority.subtracted().await;
        if !self.is_local(Consistency::MinimizeLatency) {
            return of_server;
        }
        // Either may decide, each by its model.
        let of_copy = self.view.copy.subtracted().await?;
        Ok(of_server.map_or_else(|_out_of_reach| of_copy.clone(), |of_server| of_server.or(&of_copy)))
    }

    async fn ready(&self) -> Result<(), AuthzError> {
        if self.is_local(Consistency::MinimizeLatency) { Ok(()) } else { self.authority.ready().await }
    }

    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError> {
        self.authority.lack(type_name, relation).await
    }

    async fn deciding_model_id(&self) -> Option<String> {
        if self.is_local(Consistency::MinimizeLatency) {
            self.model_id().await.ok()
        } else {
            self.authority.deciding_model_id().await
        }
    }

    fn lag(&self, consistency: Consistency) -> Option<Duration> {
        self.serving(consistency)?.fresh_as_of.map(|fresh_as_of| fresh_as_of.elapsed())
    }

    fn staleness_max(&self) -> Duration {
        self.config.staleness_max
    }

    fn copy_is_trusted(&self) -> Option<bool> {
        Some(self.is_trusted())
    }

    fn lists_by_call(&self, consistency: Consistency) -> bool {
        let by_copy = self.serving(consistency).is_some() || self.will_serve(consistency);
        !by_copy && self.authority.lists_by_call(consistency)
    }

    fn is_local(&self, consistency: Consistency) -> bool {
        self.config.used_for == ReplicaUse::Decide && self.serving(consistency).is_some()
    }
}

/// An answer of the evaluator over the copy, as one of the copy.
fn answer_of(of_copy: &Provenance, answer: &Answer) -> Answer {
    let Answer { position, allowed, provenance } = answer;
    let provenance = Provenance { decided: provenance.decided, ..of_copy.clone() };
    Answer { position: *position, allowed: *allowed, provenance }
}
