//! Follows a server: the first copy, then every change, a new model, and now and then a sweep over all tuples.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::source::{ModelVersion, RelationshipSource, SourceChange};
use super::window::{Settled, Window};
use super::{Progress, ReplicaConfig};
use crate::authz::AuthzError;
use crate::authz::validity::Validity;
use crate::relationship::RelationshipTuple;
use crate::relationship::store::{MirroredChanges, RelationshipStore, StoreError, TupleFilter};
use crate::telemetry;

/// More changes than this since the last reading are not worked off one by one: all tuples are read instead.
const CHANGES_MAX: usize = 100_000;
/// Questions about single tuples that are under way at a time.
const FINDS_IN_FLIGHT_MAX: usize = 8;
/// Tuples of the copy that are read at a time.
const LOCAL_PAGE: usize = 10_000;
/// Pages that a sweep reads between two looks at the log.
const SWEEP_PAGES_PER_POLL: usize = 20;

/// How far the copy has come, kept with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    version: ModelVersion,
    token: String,
}

pub(super) struct Follower {
    source: Arc<dyn RelationshipSource>,
    store: RelationshipStore,
    config: ReplicaConfig,
    progress: watch::Sender<Progress>,
    /// Told of changes as soon as they are known, whatever becomes of the copy.
    validity: Arc<Validity>,
    following: Option<Following>,
}

/// A copy that was complete once.
struct Following {
    version: ModelVersion,
    window: Window,
    sweep: Option<Sweep>,
    swept: Instant,
}

/// A walk over all tuples of the server beside the changes.
#[derive(Default)]
struct Sweep {
    token: String,
    found: HashMap<String, RelationshipTuple>,
}

impl Following {
    fn marker(&self) -> Marker {
        Marker { version: self.version.clone(), token: self.window.token().to_owned() }
    }
}

impl Follower {
    pub(super) fn new(
        source: Arc<dyn RelationshipSource>,
        store: RelationshipStore,
        config: ReplicaConfig,
        progress: watch::Sender<Progress>,
        validity: Arc<Validity>,
    ) -> Self {
        Self { source, store, config, progress, validity, following: None }
    }

    /// Follows until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let started = Instant::now();
            match self.step(started).await {
                Ok(()) => {}
                // The log is not the one that the token is from: the copy begins anew.
                Err(error @ AuthzError::Refused(_)) => {
                    tracing::warn!(%error, "the changes cannot be followed; the replica reads all tuples again");
                    self.begin_anew().await;
                }
                Err(error) => tracing::warn!(%error, "the replica could not follow its server"),
            }
            let fresh_as_of = self.progress.borrow().fresh_as_of;
            telemetry::replica_lag(fresh_as_of.map(|fresh_as_of| fresh_as_of.elapsed()));
            sleep_until(started + self.config.poll_interval).await;
        }
    }

    /// Forgets how far the copy has come.
    pub(super) async fn begin_anew(&mut self) {
        self.following = None;
        self.progress.send_replace(Progress::default());
        if let Err(error) = self.keep(MirroredChanges::default(), None).await {
            tracing::error!(%error, "the replica cannot be written");
        }
    }

    /// One look at the server.
    pub(super) async fn step(&mut self, started: Instant) -> Result<(), AuthzError> {
        let marker = match &self.following {
            Some(following) => Some(following.marker()),
            None => self.left_off().await?,
        };
        let known = marker.as_ref().map(|marker| marker.version.clone());
        let (version, model) = self.source.model(known.as_ref()).await?;
        if let Some(model) = model {
            // INVARIANT (one state): a new model with the tuples of before is a state that the server never had, so the copy
            // does not count from before the model is in use until the changes have been read.
            self.progress.send_replace(Progress::default());
            let store = self.store.clone();
            blocking(move || Ok(store.write_model(model)?)).await?;
        }
        let marker = marker.filter(|marker| marker.version.store_id == version.store_id);
        match (&mut self.following, marker) {
            (Some(following), Some(_)) => following.version = version,
            (_, marker) => {
                let token = match marker {
                    Some(marker) => marker.token,
                    None => self.copy(&version).await?,
                };
                // The window tells of changes from its place in the log on, and nobody tells of those before it.
                self.validity.invalidate();
                let window = Window::new(self.config.overlap, token, started);
                self.following = Some(Following { version, window, sweep: None, swept: started });
            }
        }
        self.follow(started).await?;
        self.sweep().await
    }

    /// Where an earlier process left the copy; `None` when it was never complete.
    async fn left_off(&self) -> Result<Option<Marker>, AuthzError> {
        let store = self.store.clone();
        let marker = blocking(move || Ok(store.marker()?)).await?;
        Ok(marker.and_then(|marker| serde_json::from_slice(&marker).ok()))
    }

    /// Copies all tuples; gives the place in the log from where changes have to be looked at.
    async fn copy(&mut self, version: &ModelVersion) -> Result<String, AuthzError> {
        self.progress.send_modify(|progress| progress.fresh_as_of = None);
        let token = self.end_of_log(&version.store_id).await?;
        let mut sweep = Sweep::default();
        while !self.sweep_page(&version.store_id, &mut sweep).await? {}
        let (changes, _) = self.difference(sweep.found).await?;
        let marker = Marker { version: version.clone(), token: token.clone() };
        self.keep(changes, Some(&marker)).await?;
        Ok(token)
    }

    /// A place an overlap before the end of the log. Only the log itself tells its tokens, so it is read from the beginning.
    async fn end_of_log(&self, store_id: &str) -> Result<String, AuthzError> {
        let overlap_ns = i128::try_from(self.config.overlap.as_nanos()).unwrap_or(i128::MAX);
        let mut places: Vec<(i128, String)> = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.source.changes(store_id, &token).await?;
            let Some(last) = page.items.last() else { break };
            let newest = last.unix_ns;
            if page.next == token {
                return Err(AuthzError::BadAnswer("a page of changes leads to itself".to_owned()));
            }
            token.clone_from(&page.next);
            places.push((newest, page.next));
            let older = places.iter().rposition(|(time, _)| time.saturating_add(overlap_ns) < newest);
            places.drain(..older.unwrap_or(0));
        }
        let newest = places.last().map_or(0, |(time, _)| *time);
        let before = places.into_iter().find(|(time, _)| time.saturating_add(overlap_ns) < newest);
        Ok(before.map(|(_, token)| token).unwrap_or_default())
    }

    /// Takes over what changed since the last time.
    async fn follow(&mut self, started: Instant) -> Result<(), AuthzError> {
        let Some(following) = &self.following else { return Ok(()) };
        let store_id = following.version.store_id.clone();
        let begin = following.window.token().to_owned();
        let mut changes: Vec<SourceChange> = Vec::new();
        let mut token = begin.clone();
        loop {
            let page = self.source.changes(&store_id, &token).await?;
            if page.items.is_empty() {
                break;
            }
            if page.next == token {
                return Err(AuthzError::BadAnswer("a page of changes leads to itself".to_owned()));
            }
            changes.extend(page.items);
            token = page.next;
            if changes.len() > CHANGES_MAX {
                return Err(AuthzError::Refused(format!("more than {CHANGES_MAX} changes were missed")));
            }
        }
        let Some(following) = &mut self.following else { return Ok(()) };
        let Settled { present, absent, unsettled } = following.window.take_in(changes, token, started);
        let marker = following.marker();
        if !(present.is_empty() && absent.is_empty() && unsettled.is_empty()) {
            self.validity.invalidate();
        }
        let mut mirrored = MirroredChanges { present, absent };
        self.ask(&store_id, unsettled, &mut mirrored).await.inspect_err(|_| {
            // The window has taken the changes in, and they were not kept: the next reading takes them for new.
            self.following = None;
        })?;
        let nothing = mirrored.present.is_empty() && mirrored.absent.is_empty();
        if !nothing || begin != marker.token {
            self.keep(mirrored, Some(&marker)).await.inspect_err(|_| self.following = None)?;
        }
        self.validity.confirm(started);
        self.progress.send_replace(Progress { fresh_as_of: Some(started), model_id: marker.version.model_id });
        Ok(())
    }

    /// Goes on with a sweep, or begins one when it is time.
    async fn sweep(&mut self) -> Result<(), AuthzError> {
        let Some(following) = &mut self.following else { return Ok(()) };
        let due = following.swept + self.config.sweep_interval <= Instant::now();
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

    /// What the sweep found otherwise may have changed since, so the server is asked about each.
    async fn finish_sweep(&mut self, store_id: &str, sweep: Sweep) -> Result<(), AuthzError> {
        let (difference, differing) = self.difference(sweep.found).await?;
        if differing > 0 {
            self.validity.invalidate();
            let mut settled = MirroredChanges::default();
            let asked = difference.present.into_iter().chain(difference.absent).collect();
            self.ask(store_id, asked, &mut settled).await?;
            let marker = self.following.as_ref().map(Following::marker);
            tracing::info!(differing, "a sweep over all tuples found differences");
            self.keep(settled, marker.as_ref()).await?;
        }
        if let Some(following) = &mut self.following {
            following.swept = Instant::now();
        }
        Ok(())
    }

    /// Reads one more page; whether it was the last.
    async fn sweep_page(&self, store_id: &str, sweep: &mut Sweep) -> Result<bool, AuthzError> {
        let page = self.source.tuples(store_id, &sweep.token).await?;
        if !page.next.is_empty() && page.next == sweep.token {
            return Err(AuthzError::BadAnswer("a page of tuples leads to itself".to_owned()));
        }
        sweep.found.extend(page.items.into_iter().map(|tuple| (tuple_name(&tuple), tuple)));
        sweep.token = page.next;
        Ok(sweep.token.is_empty())
    }

    /// What has to be changed so that the copy holds these tuples and no others, and how many that are.
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

    /// Asks the server about tuples one by one.
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

    async fn keep(&self, changes: MirroredChanges, marker: Option<&Marker>) -> Result<(), AuthzError> {
        let marker = marker.map(serde_json::to_vec).transpose();
        let marker = marker.map_err(|e| AuthzError::Stored(e.to_string()))?.unwrap_or_default();
        let store = self.store.clone();
        blocking(move || store.mirror(changes, &marker)).await?;
        Ok(())
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

/// One text for the three names; none of them may hold `#` and `@` where they would shift a part.
fn tuple_name(tuple: &RelationshipTuple) -> String {
    format!("{}#{}@{}", tuple.object, tuple.relation, tuple.user)
}
