//! Follows a server: makes the first copy, and then applies every change and every new model. Now and then it sweeps
//! over all tuples, to find changes that the log did not report.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::ReplicaConfig;
use super::lateness::{Lateness, Reading};
use super::source::{ModelNews, RelationshipSource, SourceChange};
use super::window::{Settled, Window};
use crate::authz::AuthzError;
use crate::authz::copy::{ModelVersion, News, Progress, UNTOLD_AFTER, UnixClock, Wishes};
use crate::authz::owned_task::Owner;
use crate::authz::validity::Validity;
use crate::language::RelationshipTuple;
use crate::storage::StorageError;
use crate::telemetry;
use crate::tuple_store::{MirroredChanges, RelationshipStore, RelationshipStores, StoreError, TupleFilter, Written};

/// If more changes than this came since the last reading, all tuples are read instead. That is cheaper, and bounds
/// memory.
const CHANGES_MAX: usize = 100_000;
/// The most look-ups of single tuples that are under way at a time.
const FINDS_IN_FLIGHT_MAX: usize = 8;
/// The number of tuples of the copy that are read at a time, so that a large copy is never in memory twice.
const LOCAL_PAGE: usize = 10_000;
/// The number of pages that a sweep reads between two looks at the log, so that a long sweep does not make the copy late.
const SWEEP_PAGES_PER_POLL: usize = 20;
/// The longest pause between two looks at a server that is out of reach. It may be back at any moment.
const OUTAGE_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest pause between two looks, if they fail for a reason that stays until somebody mends it.
const FAULT_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The progress of the copy. It is stored with the copy, in one transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    version: ModelVersion,
    token: String,
}

pub(super) struct Follower {
    source: Arc<dyn RelationshipSource>,
    stores: RelationshipStores,
    store: RelationshipStore,
    config: ReplicaConfig,
    watched: Watched,
    following: Option<Following>,
    /// The server's model, if this program cannot evaluate it.
    not_understood: Option<ModelVersion>,
    lateness: Lateness,
    /// Whether the copy's position in the log was lost, so that the log cannot be read on from there.
    lost_its_position: bool,
    /// Tuples that a sweep found changed and that the log has not reported yet, each with the moment of the sweep.
    untold: HashMap<String, Instant>,
    failing: Option<Failing>,
}

/// The parts that a follower shares with those who use the copy, and with those who remember decisions.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) progress: watch::Sender<Progress>,
    /// The follower tells this of every change as soon as it learns of the change, even if the copy cannot be updated.
    pub(super) validity: Arc<Validity>,
    pub(super) news: Arc<News>,
    pub(super) wishes: Arc<Wishes>,
    pub(super) clock: UnixClock,
}

/// The state of the follower once the copy is complete.
struct Following {
    /// The store, and its last model that this program understood.
    version: ModelVersion,
    window: Window,
    /// The marker that is known to be stored with the copy.
    kept: Option<Marker>,
    sweep: Option<Sweep>,
    swept: Instant,
}

/// A walk over all tuples of the server, beside reading the changes.
#[derive(Default)]
struct Sweep {
    token: String,
    found: HashMap<String, RelationshipTuple>,
}

/// A series of looks that all failed.
struct Failing {
    /// The reason for the last failure. Each reason is logged once.
    reason: String,
    pause: Duration,
}

impl Following {
    fn marker(&self) -> Marker {
        Marker { version: self.version.clone(), token: self.window.token().to_owned() }
    }
}

impl Follower {
    /// Makes a follower that keeps the copy in the default store of `stores`, and creates that store if there is none.
    pub(super) fn new(
        source: Arc<dyn RelationshipSource>,
        stores: RelationshipStores,
        config: ReplicaConfig,
        watched: Watched,
    ) -> Result<Self, StorageError> {
        let store = stores.default_store_or_new()?;
        Ok(Self {
            source,
            stores,
            store,
            config,
            watched,
            following: None,
            not_understood: None,
            lateness: Lateness::default(),
            lost_its_position: false,
            untold: HashMap::new(),
            failing: None,
        })
    }

    /// Follows the server as long as the owner of the task is there.
    pub(super) async fn run(mut self, owner: Owner) {
        loop {
            let started = Instant::now();
            let looked = self.look(started).await;
            if owner.is_gone() {
                return;
            }
            let fresh_as_of = self.watched.progress.borrow().fresh_as_of;
            telemetry::replica_lag(fresh_as_of.map(|fresh_as_of| fresh_as_of.elapsed()));
            let pause = self.pause_after(looked);
            sleep_until(started + pause).await;
        }
    }

    pub(super) async fn look(&mut self, started: Instant) -> Result<(), AuthzError> {
        if self.watched.wishes.take_new_copy() {
            self.replace().await.inspect_err(|_| self.watched.wishes.wish_new_copy())?;
        }
        let stepped = self.step(started).await;
        if std::mem::take(&mut self.lost_its_position) {
            self.begin_anew().await;
        }
        stepped
    }

    /// Returns how long to wait before the next look. After a failure that lasts, the pauses grow.
    fn pause_after(&mut self, looked: Result<(), AuthzError>) -> Duration {
        let error = match looked {
            Ok(()) => {
                if self.failing.take().is_some() {
                    tracing::info!("the replica follows its server again");
                }
                return self.config.poll_interval;
            }
            Err(error) => error,
        };
        let pause_max = match &error {
            AuthzError::Unavailable(_)
            | AuthzError::DeadlineExceeded
            | AuthzError::Overloaded { .. }
            | AuthzError::NoModel
            | AuthzError::NoStore(_) => OUTAGE_PAUSE_MAX,
            AuthzError::Refused(_)
            | AuthzError::BadAnswer(_)
            | AuthzError::Stored(_)
            | AuthzError::MessageTooLarge(_)
            | AuthzError::TooManyChecks { .. } => FAULT_PAUSE_MAX,
        };
        let reason = error.to_string();
        let before = self.failing.take();
        if before.as_ref().is_none_or(|before| before.reason != reason) {
            tracing::warn!(%error, "the replica cannot follow the OpenFGA server, so the server alone decides; the pauses between attempts grow");
        }
        let twice = before.map_or(self.config.poll_interval, |before| before.pause * 2);
        let pause = twice.min(pause_max).max(self.config.poll_interval);
        self.failing = Some(Failing { reason, pause });
        pause
    }

    /// Forgets how far the copy has come, so that the next look compares all tuples.
    pub(super) async fn begin_anew(&mut self) {
        self.following = None;
        self.withhold();
        if let Err(error) = self.keep(MirroredChanges::default(), None).await {
            tracing::error!(%error, "the replica cannot be written");
        }
    }

    /// Throws the copy away with everything that was derived from it, so that nothing of it gets into the next one.
    pub(super) async fn replace(&mut self) -> Result<(), AuthzError> {
        self.following = None;
        self.withhold();
        let (stores, old) = (self.stores.clone(), self.store.id());
        self.store = blocking(move || {
            stores.delete(old)?;
            Ok(stores.default_store_or_new()?)
        })
        .await?;
        Ok(())
    }

    /// Withholds the copy from everybody until it is known to be complete again.
    fn withhold(&self) {
        self.watched.progress.send_modify(|progress| *progress = progress.withheld());
    }

    /// Takes one look at the server: its model, its changes, and a part of a sweep.
    pub(super) async fn step(&mut self, started: Instant) -> Result<(), AuthzError> {
        let marker = match &self.following {
            Some(following) => Some(following.marker()),
            None => self.left_off().await?,
        };
        let known = self.not_understood.clone().or_else(|| marker.as_ref().map(|marker| marker.version.clone()));
        let (version, news) = self.source.model(known.as_ref()).await?;
        if let (ModelNews::New(_), Some(marker)) = (&news, &marker) {
            self.unmark(marker).await?;
        }
        // After a failure only the marker in the copy says which model was taken over, so the marker is read again.
        self.take_model(&version, news).await.inspect_err(|_| self.following = None)?;
        let marker = marker.filter(|marker| marker.version.store_id == version.store_id);
        // Tuples are followed under any model, even one that is not understood, so that the cache of decisions still
        // learns of changes.
        let followed = match (&self.not_understood, &marker) {
            (None, _) => version,
            (Some(_), Some(marker)) => marker.version.clone(),
            (Some(_), None) => ModelVersion { model_id: String::new(), ..version },
        };
        match (&mut self.following, marker) {
            (Some(following), Some(_)) => following.version = followed,
            (_, marker) => {
                let marker = match marker {
                    Some(marker) => marker,
                    None => self.copy(&followed).await?,
                };
                // The window reports the changes after its position in the log. Nobody has reported those before it.
                self.watched.validity.invalidate();
                self.lateness.begin_again();
                let window = Window::new(self.config.overlap, marker.token, started);
                self.following = Some(Following { version: followed, window, kept: None, sweep: None, swept: started });
            }
        }
        self.follow(started).await?;
        self.sweep().await
    }

    /// Forgets which model the copy has, but not how far the copy is.
    ///
    /// INVARIANT (no other model): whenever the process ends, the model that the marker names is the latest one in the copy.
    /// Otherwise a server that returns to an earlier model would look as if it had never left it.
    async fn unmark(&mut self, marker: &Marker) -> Result<(), AuthzError> {
        let version = ModelVersion { model_id: String::new(), ..marker.version.clone() };
        if let Some(following) = &mut self.following {
            following.kept = None;
        }
        let unnamed = Marker { version, token: marker.token.clone() };
        self.keep(MirroredChanges::default(), Some(&unnamed)).await.map(drop)
    }

    async fn take_model(&mut self, version: &ModelVersion, news: ModelNews) -> Result<(), AuthzError> {
        match news {
            ModelNews::Known => Ok(()),
            ModelNews::New(model) => {
                // INVARIANT (one state): the new model with the old tuples is a state that the server never had. So the
                // copy is withheld until the changes have been read.
                self.withhold();
                let store = self.store.clone();
                blocking(move || Ok(store.write_model(*model)?)).await?;
                self.not_understood = None;
                Ok(())
            }
            ModelNews::NotUnderstood(reason) => {
                self.withhold();
                tracing::warn!(
                    model_id = version.model_id,
                    reason,
                    "the replica cannot evaluate the server's model, so the server decides everything until there is another \
                     one; for too many types, raise `authorizer.replica.types_max`"
                );
                self.not_understood = Some(version.clone());
                Ok(())
            }
        }
    }

    /// Reads how far an earlier process had come; `None` if its copy was never complete.
    async fn left_off(&self) -> Result<Option<Marker>, AuthzError> {
        let store = self.store.clone();
        let marker = blocking(move || Ok(store.marker()?)).await?;
        Ok(marker.and_then(|marker| serde_json::from_slice(&marker).ok()))
    }

    /// Copies all tuples. Returns a marker with the position in the log from which changes have to be read.
    async fn copy(&mut self, version: &ModelVersion) -> Result<Marker, AuthzError> {
        let next_copy =
            |progress: &mut Progress| *progress = Progress { copy: progress.copy + 1, ..progress.withheld() };
        self.watched.progress.send_modify(next_copy);
        let token = self.end_of_log(&version.store_id).await?;
        let mut sweep = Sweep::default();
        while !self.sweep_page(&version.store_id, &mut sweep).await? {}
        let (changes, _) = self.difference(sweep.found).await?;
        let marker = Marker { version: version.clone(), token };
        self.keep(changes, Some(&marker)).await?;
        Ok(marker)
    }

    /// Finds a position that lies at least an overlap before the end of the log. Only the log itself gives out its
    /// tokens, so the log is read from the beginning.
    async fn end_of_log(&self, store_id: &str) -> Result<String, AuthzError> {
        let overlap_ns = i128::try_from(self.config.overlap.as_nanos()).unwrap_or(i128::MAX);
        let mut positions: Vec<(i128, String)> = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.source.changes(store_id, &token).await?;
            let Some(last) = page.items.last() else { break };
            let newest = last.unix_ns;
            if page.next == token {
                return Err(AuthzError::BadAnswer("a page of changes leads to itself".to_owned()));
            }
            token.clone_from(&page.next);
            positions.push((newest, page.next));
            let older = positions.iter().rposition(|(time, _)| time.saturating_add(overlap_ns) < newest);
            positions.drain(..older.unwrap_or(0));
        }
        let newest = positions.last().map_or(0, |(time, _)| *time);
        let before = positions.into_iter().find(|(time, _)| time.saturating_add(overlap_ns) < newest);
        Ok(before.map(|(_, token)| token).unwrap_or_default())
    }

    /// Applies the changes since the last look.
    async fn follow(&mut self, started: Instant) -> Result<(), AuthzError> {
        let Some(following) = &self.following else { return Ok(()) };
        let store_id = following.version.store_id.clone();
        let read = Reading { started, unix_ns: (self.watched.clock)() };
        let mut changes: Vec<SourceChange> = Vec::new();
        let mut token = following.window.token().to_owned();
        loop {
            let page = self.source.changes(&store_id, &token).await;
            if matches!(page, Err(AuthzError::Refused(_))) && !token.is_empty() {
                // If the server refuses this token but reads its log from the beginning, the token is from another log.
                self.lost_its_position = self.source.changes(&store_id, "").await.is_ok();
            }
            let page = page?;
            if page.items.is_empty() {
                break;
            }
            if page.next == token {
                return Err(AuthzError::BadAnswer("a page of changes leads to itself".to_owned()));
            }
            changes.extend(page.items);
            token = page.next;
            if changes.len() > CHANGES_MAX {
                self.lost_its_position = true;
                return Err(AuthzError::Refused(format!("more than {CHANGES_MAX} changes were missed")));
            }
        }
        let Some(following) = &self.following else { return Ok(()) };
        let kept = following.kept.clone();
        let (settled, window) = following.window.taking_in(&changes, token, started);
        let Settled { present, absent, unsettled, dates } = settled;
        let marker = Marker { version: following.version.clone(), token: window.token().to_owned() };
        if !(present.is_empty() && absent.is_empty() && unsettled.is_empty()) {
            self.watched.validity.invalidate();
        }
        let told: Vec<String> = present.iter().chain(&absent).chain(&unsettled).map(tuple_name).collect();
        let mut mirrored = MirroredChanges { present, absent };
        self.ask(&store_id, unsettled, &mut mirrored).await?;
        let nothing = mirrored.present.is_empty() && mirrored.absent.is_empty();
        if !nothing || kept.as_ref() != Some(&marker) {
            // After a failed write, only the marker in the file says which changes the file holds, so the marker is
            // read again.
            self.keep(mirrored, Some(&marker)).await.inspect_err(|_| self.following = None)?;
        }
        // The window moves on only now. So changes that were read but not stored are news to the next reading.
        if let Some(following) = &mut self.following {
            (following.window, following.kept) = (window, Some(marker.clone()));
        }
        let was_late = self.lateness.lag();
        self.lateness.read(read, dates.map(|dates| dates.newest));
        let log_lag = self.lateness.lag();
        if log_lag > was_late {
            tracing::warn!(
                ?log_lag,
                "the server's log reports changes late, or the clocks of the server and of this machine differ; the copy \
                 counts as older by this lag"
            );
        }
        if let Some(dates) = dates {
            self.watched.news.tell(Instant::now(), Some(dates.oldest));
        }
        self.tell_of_untold(&told);
        let Some(fresh_as_of) = started.checked_sub(log_lag) else { return Ok(()) };
        self.watched.validity.confirm(fresh_as_of);
        let is_understood = self.not_understood.is_none();
        self.watched.progress.send_modify(|progress| {
            let fresh_as_of = is_understood.then_some(fresh_as_of);
            *progress = Progress { fresh_as_of, version: marker.version, copy: progress.copy };
        });
        Ok(())
    }

    /// Reports the changes that a sweep found and that the log has still not reported. A complete log would have
    /// reported them by now.
    fn tell_of_untold(&mut self, told: &[String]) {
        for name in told {
            self.untold.remove(name);
        }
        let given_up: Vec<Instant> =
            self.untold.extract_if(|_, found| found.elapsed() >= UNTOLD_AFTER).map(|(_, at)| at).collect();
        let Some(found) = given_up.iter().min() else { return };
        let untold = given_up.len();
        telemetry::replica_untold_changes(untold);
        tracing::warn!(untold, "a sweep over all tuples found changes that the server's log does not report");
        self.watched.news.tell(*found, None);
    }

    /// Continues a sweep, or begins one when it is due.
    async fn sweep(&mut self) -> Result<(), AuthzError> {
        let Some(following) = &mut self.following else { return Ok(()) };
        let wished = self.watched.wishes.take_sweep();
        let due = wished || following.swept + self.config.sweep_interval <= Instant::now();
        let Some(mut sweep) = following.sweep.take().or_else(|| due.then(Sweep::default)) else { return Ok(()) };
        let store_id = following.version.store_id.clone();
        for _ in 0..SWEEP_PAGES_PER_POLL {
            if self.sweep_page(&store_id, &mut sweep).await? {
                return self.finish_sweep(&store_id, sweep).await;
            }
        }
        if let Some(following) = &mut self.following {
            following.sweep = Some(sweep);
        }
        Ok(())
    }

    /// Applies what the sweep found. A tuple that differs may have changed since, so the server is asked about each.
    async fn finish_sweep(&mut self, store_id: &str, sweep: Sweep) -> Result<(), AuthzError> {
        let (difference, differing) = self.difference(sweep.found).await?;
        if differing > 0 {
            self.watched.validity.invalidate();
            let mut settled = MirroredChanges::default();
            let asked: Vec<RelationshipTuple> = difference.present.into_iter().chain(difference.absent).collect();
            let names: Vec<String> = asked.iter().map(tuple_name).collect();
            self.ask(store_id, asked, &mut settled).await?;
            let marker = self.following.as_ref().map(Following::marker);
            let written = self.keep(settled, marker.as_ref()).await?;
            // If nothing was written, the tuples changed during the sweep, and the log has already reported the
            // changes.
            if written.added + written.removed > 0 {
                let found = Instant::now();
                self.untold.extend(names.into_iter().map(|name| (name, found)));
            }
        } else {
            self.lateness.nothing_missing(Instant::now());
        }
        if let Some(following) = &mut self.following {
            following.swept = Instant::now();
        }
        Ok(())
    }

    /// Reads one more page, and returns whether it was the last.
    async fn sweep_page(&self, store_id: &str, sweep: &mut Sweep) -> Result<bool, AuthzError> {
        let page = self.source.tuples(store_id, &sweep.token).await?;
        if !page.next.is_empty() && page.next == sweep.token {
            return Err(AuthzError::BadAnswer("a page of tuples leads to itself".to_owned()));
        }
        sweep.found.extend(page.items.into_iter().map(|tuple| (tuple_name(&tuple), tuple)));
        sweep.token = page.next;
        Ok(sweep.token.is_empty())
    }

    /// Works out what to change so that the copy holds exactly these tuples, and how many tuples that concerns.
    async fn difference(
        &self,
        mut found: HashMap<String, RelationshipTuple>,
    ) -> Result<(MirroredChanges, usize), AuthzError> {
        let store = self.store.clone();
        blocking(move || {
            let mut changes = MirroredChanges::default();
            let mut after = 0;
            loop {
                let page = store.tuples(&TupleFilter::default(), after, LOCAL_PAGE)?;
                let Some(last) = page.last() else { break };
                after = last.sequence;
                for local in page {
                    match found.remove(&tuple_name(&local.tuple)) {
                        Some(there) if there == local.tuple => {}
                        Some(there) => changes.present.push(there),
                        None => changes.absent.push(local.tuple),
                    }
                }
            }
            changes.present.extend(found.into_values());
            let differing = changes.present.len() + changes.absent.len();
            Ok((changes, differing))
        })
        .await
    }

    /// Asks the server about tuples one by one, and adds its answers to `changes`.
    async fn ask(
        &self,
        store_id: &str,
        tuples: Vec<RelationshipTuple>,
        changes: &mut MirroredChanges,
    ) -> Result<(), AuthzError> {
        let asked = tuples.into_iter().map(|tuple| async move {
            let found = self.source.find(store_id, &tuple).await?;
            Ok::<_, AuthzError>((tuple, found))
        });
        let mut answers = stream::iter(asked).buffer_unordered(FINDS_IN_FLIGHT_MAX);
        while let Some((tuple, found)) = answers.try_next().await? {
            match found {
                Some(found) => changes.present.push(found),
                None => changes.absent.push(tuple),
            }
        }
        Ok(())
    }

    async fn keep(&self, changes: MirroredChanges, marker: Option<&Marker>) -> Result<Written, AuthzError> {
        let marker = marker.map(serde_json::to_vec).transpose();
        let marker = marker.map_err(|e| AuthzError::Stored(e.to_string()))?.unwrap_or_default();
        let store = self.store.clone();
        blocking(move || store.mirror(changes, &marker)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, AuthzError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|e| AuthzError::Stored(e.to_string())),
        Err(e) => Err(AuthzError::Unavailable(format!("the replica's work was lost: {e}"))),
    }
}

/// Joins the three names of a tuple. No two tuples share such a text, because names may not hold `#` or `@` where that
/// would shift the boundary between them.
fn tuple_name(tuple: &RelationshipTuple) -> String {
    format!("{}#{}@{}", tuple.object, tuple.relation, tuple.user)
}
