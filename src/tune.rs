//! Measures which settings answer the checks of a workload fastest. It changes nothing on the server.
//!
//! It recommends only settings that keep the meaning of the current ones. It also measures a cache and a replica
//! that decides, but recommends them only to an operator who already uses them.
//!
//! There is no setting for how long checks wait to share a call with others: a call leaves as soon as a slot is free
//! (`authz::batched`).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::authz::replica::ReplicaMode;
use crate::authz::replica::source::{ModelNews, RelationshipSource};
use crate::authz::{Authorizer, AuthzError, Check, CheckBatch, Consistency};
use crate::config::Config;
use crate::language::{Object, Relation, User};

/// The number of tuples at which the reading of tuples for a workload stops. The last page may bring more.
const TUPLES_MAX: usize = 5_000;
/// The most users of a workload that is made from tuples.
const USERS_MAX: usize = 200;
/// The most objects that one request of a workload asks about: as many as a retrieval of ten chunks typically checks.
pub const CHECKS_PER_REQUEST: usize = 32;
/// The number of requests of a workload. Callers go through them again and again.
const REQUESTS: usize = 2_000;
/// The longest that a request of the workload may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The time that a caller waits after a request that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Settings count as equally fast if they reach this share of the fastest settings' throughput.
const AS_GOOD: f64 = 0.95;
/// Other settings are recommended only if they are faster than the current ones by this factor.
const CLEARLY_FASTER: f64 = 1.1;
/// The number of settings that are measured a second time, for longer, beside the current ones.
const FINALISTS: usize = 4;

/// The requests that are made while measuring.
#[derive(Clone, Debug)]
pub struct Workload {
    relation: Relation,
    requests: Vec<WorkloadRequest>,
}

/// One request: whether a user holds the relation on each of some objects.
#[derive(Clone, Debug)]
struct WorkloadRequest {
    user: Object,
    objects: Vec<Object>,
}

/// The settings of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The value of `authorizer.openfga.checks_per_call`.
    pub checks_per_call: usize,
    /// The value of `authorizer.checks.calls_in_flight_max`.
    pub calls_in_flight_max: u32,
    /// Whether decisions are remembered (`authorizer.checks.cache_ttl` above `0s`).
    pub cache: bool,
    /// The value of `authorizer.replica.mode`. For checks, `plan` and `off` are alike.
    pub mode: ReplicaMode,
}

/// The result of measuring some settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// The settings that were measured.
    pub settings: Settings,
    /// The number of checks that were decided each second.
    pub checks_per_second: f64,
    /// The time within which half of the requests were answered.
    pub p50: Duration,
    /// The time within which 99 of 100 requests were answered.
    pub p99: Duration,
    /// The number of requests that were answered.
    pub answered: usize,
    /// The number of requests that failed.
    pub failed: usize,
}

/// The settings to choose, and the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    /// The position of the settings among the measurements.
    pub position: usize,
    /// Says whether the operator has anything to change.
    pub advice: Advice,
    /// The reason for the advice, as a clause that can follow "because".
    pub reason: String,
}

/// The advice about the two values that `ragward tune` can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// Keep the configured values.
    Keep,
    /// Set the values of the recommended settings.
    Change,
}

/// The reason why a workload cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The server did not return its tuples or its model.
    #[error(transparent)]
    Authz(#[from] AuthzError),
    /// The store has no model, or no users or objects to ask about.
    #[error("the store has no {0} to ask about; load tuples first")]
    Empty(&'static str),
}

impl Settings {
    /// Reads the settings from a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            checks_per_call: config.authorizer.openfga.checks_per_call,
            calls_in_flight_max: config.authorizer.checks.calls_in_flight_max,
            cache: config.authorizer.checks.remembers(),
            mode: config.authorizer.replica.mode,
        }
    }

    /// Returns the configuration with these settings put in.
    #[must_use]
    pub fn apply(self, config: &Config) -> Config {
        let mut config = config.clone();
        config.authorizer.openfga.checks_per_call = self.checks_per_call;
        config.authorizer.checks.calls_in_flight_max = self.calls_in_flight_max;
        config.authorizer.replica.mode = self.mode;
        if !self.cache {
            config.authorizer.checks.cache_ttl = Duration::ZERO;
        } else if !config.authorizer.checks.remembers() {
            config.authorizer.checks.cache_ttl = Config::default().authorizer.checks.cache_ttl;
        }
        config
    }
}

/// Lists the settings to measure: first the current ones, then combinations of call sizes and numbers of calls in
/// flight, then some call sizes with a cache, and a replica that decides.
#[must_use]
pub fn grid(now: Settings) -> Vec<Settings> {
    let mode = if now.mode == ReplicaMode::Decide { ReplicaMode::Plan } else { now.mode };
    let mut grid = vec![now];
    for checks_per_call in [10, 25, 50] {
        for calls_in_flight_max in [4, 16, 32, 64] {
            grid.push(Settings { checks_per_call, calls_in_flight_max, cache: false, mode });
        }
    }
    for checks_per_call in [25, 50] {
        grid.push(Settings { checks_per_call, cache: true, mode, ..now });
    }
    grid.push(Settings { mode: ReplicaMode::Decide, cache: false, ..now });
    let mut seen = HashSet::new();
    grid.retain(|settings| {
        let Settings { checks_per_call, calls_in_flight_max, cache, mode } = *settings;
        seen.insert((checks_per_call, calls_in_flight_max, cache, mode == ReplicaMode::Decide))
    });
    grid
}

impl Workload {
    /// Makes a workload from the tuples of a store. The users are those of `user_type` that tuples name. Each request
    /// asks about some of the objects that the relation is defined for. The choice is the same each time.
    ///
    /// # Errors
    /// If the server fails, or the store has no model, no such users or no such objects.
    pub async fn generated(
        source: &dyn RelationshipSource,
        relation: &Relation,
        user_type: &str,
    ) -> Result<Self, WorkloadError> {
        let (version, model) = source.model(None).await?;
        let ModelNews::New(model) = model else { return Err(WorkloadError::Empty("model")) };
        let (mut users, mut objects) = (BTreeSet::new(), BTreeSet::new());
        let (mut read, mut token) = (0, String::new());
        loop {
            let page = source.tuples(&version.store_id, &token).await?;
            read += page.items.len();
            for tuple in page.items {
                let defined = model.knows(&tuple.user, relation, tuple.object.type_name()).is_ok();
                // Only users of the given type ask. Tuples also name other objects as users, such as folders.
                if let User::Object(user) = tuple.user
                    && user.type_name() == user_type
                {
                    users.insert(user);
                }
                if defined {
                    objects.insert(tuple.object);
                }
            }
            if page.next.is_empty() || read >= TUPLES_MAX {
                break;
            }
            token = page.next;
        }
        Self::of(relation, &evenly(users, USERS_MAX), &objects.into_iter().collect::<Vec<_>>())
    }

    /// Makes a workload in which users ask about objects. A user that is named n times asks n times as often.
    ///
    /// # Errors
    /// If there are no users or no objects.
    pub fn of(relation: &Relation, users: &[Object], objects: &[Object]) -> Result<Self, WorkloadError> {
        if users.is_empty() {
            return Err(WorkloadError::Empty("users"));
        }
        if objects.is_empty() {
            return Err(WorkloadError::Empty("objects of the relation"));
        }
        let per_request = CHECKS_PER_REQUEST.min(objects.len());
        let request = |(number, user): (usize, Object)| {
            // The stride has no common divisor with the number of objects, so every object comes once before any comes
            // again.
            let stride = (7_920..=7_920 + objects.len()).find(|stride| gcd(*stride, objects.len()) == 1).unwrap_or(1);
            let first = number.wrapping_mul(31);
            let asked = (0..per_request).filter_map(|n| objects.get((first + n * stride) % objects.len()).cloned());
            WorkloadRequest { user, objects: asked.collect() }
        };
        let requests = users.iter().cycle().take(REQUESTS.max(users.len())).cloned().enumerate().map(request);
        Ok(Self { relation: relation.clone(), requests: requests.collect() })
    }

    /// Makes a workload about the same objects, in which other users ask. A user that is named n times asks n times as often.
    ///
    /// # Errors
    /// If there are no users.
    pub fn asked_by(&self, users: &[Object]) -> Result<Self, WorkloadError> {
        let objects: BTreeSet<Object> = self.requests.iter().flat_map(|request| &request.objects).cloned().collect();
        Self::of(&self.relation, users, &objects.into_iter().collect::<Vec<_>>())
    }

    /// Counts the different users that ask.
    #[must_use]
    pub fn users(&self) -> usize {
        self.requests.iter().map(|request| &request.user).collect::<HashSet<_>>().len()
    }

    /// Counts the different objects that are asked about.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.requests.iter().flat_map(|request| &request.objects).collect::<HashSet<_>>().len()
    }

    fn batch(&self, number: usize) -> Option<CheckBatch> {
        let WorkloadRequest { user, objects } = self.requests.get(number % self.requests.len())?;
        let checks = objects.iter().map(|object| Check {
            user: user.clone(),
            relation: self.relation.clone(),
            object: object.clone(),
        });
        Some(CheckBatch {
            checks: checks.collect(),
            contextual: Arc::default(),
            consistency: Consistency::MinimizeLatency,
            deadline: Instant::now() + REQUEST_TIMEOUT,
        })
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn evenly(all: BTreeSet<Object>, most: usize) -> Vec<Object> {
    let step = all.len().div_ceil(most).max(1);
    all.into_iter().step_by(step).collect()
}

/// The requests of one caller.
#[derive(Debug, Default)]
struct CallerResults {
    /// The time that each answered request took.
    latencies: Vec<Duration>,
    /// The number of checks that were decided.
    decided: usize,
    /// The number of requests that failed.
    failed: usize,
}

/// Measures how fast an authorizer answers a workload of several callers at once, for `duration` and no longer.
///
/// A request that is still unanswered at the end does not count, unless its caller got no answer at all. Then it counts
/// as failed.
pub async fn measure(
    authorizer: &Arc<dyn Authorizer>,
    settings: Settings,
    workload: &Arc<Workload>,
    callers: usize,
    duration: Duration,
) -> Measurement {
    let started = Instant::now();
    let end = started + duration;
    let asking = (0..callers).map(|caller| {
        let (authorizer, workload) = (Arc::clone(authorizer), Arc::clone(workload));
        tokio::spawn(async move {
            let mut results = CallerResults::default();
            let mut number = caller;
            while Instant::now() < end {
                let Some(batch) = workload.batch(number) else { break };
                number += callers;
                let asked = Instant::now();
                let Ok(checked) = timeout_at(end, authorizer.check(&batch)).await else {
                    results.failed += usize::from(results.latencies.is_empty() && results.failed == 0);
                    break;
                };
                match checked {
                    Ok(decisions) => {
                        results.latencies.push(asked.elapsed());
                        results.decided += decisions.list.len();
                    }
                    Err(error) => {
                        results.failed += 1;
                        tracing::debug!(%error, "a measured request failed");
                        // A well-behaved caller waits before it asks again. Without the pause, this would measure how
                        // fast callers are turned away.
                        let pause =
                            if let AuthzError::Overloaded { retry_after } = error { retry_after } else { PAUSE };
                        sleep_until(end.min(Instant::now() + pause)).await;
                    }
                }
            }
            results
        })
    });
    let CallerResults { mut latencies, mut decided, mut failed } = CallerResults::default();
    for caller in asking.collect::<Vec<_>>() {
        match caller.await {
            Ok(of_caller) => {
                latencies.extend(of_caller.latencies);
                decided += of_caller.decided;
                failed += of_caller.failed;
            }
            Err(_panicked) => failed += 1,
        }
    }
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let checks_per_second = decided as f64 / started.elapsed().as_secs_f64();
    Measurement { settings, checks_per_second, p50: at(50), p99: at(99), answered: latencies.len(), failed }
}

/// Returns the positions of the measurements that are worth a longer one: the current settings, the most promising
/// settings that may be recommended, and, for comparison, the first replica that decides.
#[must_use]
pub fn finalists(measurements: &[Measurement], now: Settings) -> Vec<usize> {
    let of = |wanted: &dyn Fn(&Measurement) -> bool| {
        measurements.iter().enumerate().filter(|(_, m)| wanted(m)).map(|(position, _)| position).collect::<Vec<_>>()
    };
    let promise =
        |position: &usize| measurements.get(*position).map_or((usize::MAX, 0.0), |m| (m.failed, -m.checks_per_second));
    let mut promising = of(&|m| m.settings != now && keeps_meaning(m.settings, now));
    promising.sort_by(|a, b| promise(a).0.cmp(&promise(b).0).then(promise(a).1.total_cmp(&promise(b).1)));
    promising.truncate(FINALISTS);
    let mut finalists = of(&|m| m.settings == now);
    finalists.extend(promising);
    finalists.extend(of(&|m| m.settings.mode == ReplicaMode::Decide && m.settings != now).into_iter().take(1));
    finalists.sort_unstable();
    finalists.dedup();
    finalists
}

/// Returns whether these settings may be recommended to somebody who uses `now`. They must not change whether the
/// replica decides, and must not add a cache.
fn keeps_meaning(settings: Settings, now: Settings) -> bool {
    let decides = |mode| mode == ReplicaMode::Decide;
    decides(settings.mode) == decides(now.mode) && (!settings.cache || now.cache)
}

/// Returns whether both settings have the same values of the keys that `ragward tune` can write.
fn writes_the_same(a: Settings, b: Settings) -> bool {
    (a.checks_per_call, a.calls_in_flight_max) == (b.checks_per_call, b.calls_in_flight_max)
}

/// Recommends the best of the finalists that keep the meaning of the current settings. Among settings that are about
/// equally fast, the best are those with the lowest p99. The current settings stay unless others are clearly faster.
///
/// Returns `None` if no such finalist was measured without a failure.
#[must_use]
pub fn recommend(measurements: &[Measurement], finalists: &[usize], now: Settings) -> Option<Recommendation> {
    let sound = |m: &Measurement| m.failed == 0 && m.checks_per_second > 0.0 && keeps_meaning(m.settings, now);
    let measured = finalists.iter().filter_map(|position| Some((*position, measurements.get(*position)?)));
    let sound: BTreeMap<usize, &Measurement> = measured.filter(|(_, m)| sound(m)).collect();
    let fastest = sound.values().map(|m| m.checks_per_second).fold(0.0, f64::max);
    let of_now = sound.iter().find(|(_, m)| m.settings == now);
    let as_good = sound.iter().filter(|(_, m)| m.checks_per_second >= fastest * AS_GOOD);
    let (position, best) = as_good.min_by_key(|(_, m)| m.p99)?;
    let keep = |reason: &str| {
        let position = of_now.map_or(*position, |(position, _)| *position);
        Some(Recommendation { position, advice: Advice::Keep, reason: reason.to_owned() })
    };
    if now.mode == ReplicaMode::Decide {
        return keep(
            "the replica decides in this process, so hardly any check calls the server. To tune these calls, set \
             `authorizer.replica.mode` to `plan` or `off` and measure again",
        );
    }
    if of_now.is_some_and(|(_, of_now)| fastest < of_now.checks_per_second * CLEARLY_FASTER) {
        return keep("no measured settings are faster than the configured ones by a tenth");
    }
    if writes_the_same(best.settings, now) {
        return keep(
            "the best measured settings differ from the configured ones only in the cache, which stays as it is",
        );
    }
    let reason = match of_now {
        Some((_, of_now)) => format!(
            "{:.0} checks/s against {:.0} now ({:.2} times), p99 {:.1} ms against {:.1} ms",
            best.checks_per_second,
            of_now.checks_per_second,
            best.checks_per_second / of_now.checks_per_second,
            best.p99.as_secs_f64() * 1e3,
            of_now.p99.as_secs_f64() * 1e3,
        ),
        None => format!(
            "{:.0} checks/s, and every request was answered; with the current settings, some were not",
            best.checks_per_second
        ),
    };
    Some(Recommendation { position: *position, advice: Advice::Change, reason })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::time::sleep;

    use super::*;
    use crate::authz::Decisions;

    const NOW: Settings =
        Settings { checks_per_call: 50, calls_in_flight_max: 32, cache: true, mode: ReplicaMode::Plan };

    fn measured(settings: Settings, checks_per_second: f64, p99_ms: u64) -> Measurement {
        let (p50, p99) = (Duration::from_millis(1), Duration::from_millis(p99_ms));
        Measurement { settings, checks_per_second, p50, p99, answered: 1_000, failed: 0 }
    }

    #[test]
    fn the_grid_has_each_setting_once_and_begins_with_now() {
        let grid = grid(NOW);
        assert_eq!(grid.first(), Some(&NOW));
        assert!(grid.iter().enumerate().all(|(n, settings)| !grid.iter().skip(n + 1).any(|other| other == settings)));
        assert!(grid.iter().any(|settings| settings.mode == ReplicaMode::Decide));
    }

    #[test]
    fn a_recommendation_is_fast_and_steady_and_means_the_same() {
        let small = Settings { checks_per_call: 25, ..NOW };
        let decides = Settings { mode: ReplicaMode::Decide, ..NOW };
        let position = |measurements: &[Measurement], now| {
            recommend(measurements, &[0, 1, 2], now).map(|recommended| recommended.position)
        };
        let rows = [measured(NOW, 1_000.0, 9), measured(small, 1_500.0, 9), measured(decides, 90_000.0, 1)];
        assert_eq!(position(&rows, NOW), Some(1), "a replica that decides is another meaning");
        assert_eq!(position(&rows, decides), Some(2));
        assert_eq!(recommend(&rows, &[0, 2], NOW).map(|r| r.position), Some(0), "measured too shortly");
        let no_better = [measured(NOW, 1_000.0, 9), measured(small, 1_090.0, 3)];
        assert_eq!(position(&no_better, NOW), Some(0), "not clearly faster");
        let steady = [measured(NOW, 100.0, 9), measured(small, 1_010.0, 9), measured(small, 1_000.0, 3)];
        assert_eq!(position(&steady, NOW), Some(2), "about as fast, and steadier");
        let remembers_nothing = Settings { cache: false, ..NOW };
        assert_eq!(position(&[measured(NOW, 5_000.0, 1)], remembers_nothing), None, "a cache is another meaning");
        let failing = |m: Measurement| Measurement { failed: 1, ..m };
        assert_eq!(position(&[measured(NOW, 1_000.0, 9), failing(measured(small, 9_000.0, 1))], NOW), Some(0));
        assert_eq!(position(&[failing(measured(NOW, 9_000.0, 9)), measured(small, 10.0, 1)], NOW), Some(1));
    }

    #[test]
    fn values_that_would_not_change_are_kept_and_the_reason_is_told() {
        let small = Settings { checks_per_call: 25, ..NOW };
        let without_cache = |settings: Settings| Settings { cache: false, ..settings };
        let decides = Settings { mode: ReplicaMode::Decide, ..NOW };
        let failing = |m: Measurement| Measurement { failed: 1, ..m };
        let rows = [
            (
                "other values are clearly faster",
                NOW,
                vec![measured(NOW, 1_000.0, 9), measured(small, 2_000.0, 9)],
                (1, Advice::Change, "2000 checks/s against 1000 now"),
            ),
            (
                "other values are not clearly faster",
                NOW,
                vec![measured(NOW, 1_000.0, 9), measured(small, 1_050.0, 9)],
                (0, Advice::Keep, "by a tenth"),
            ),
            (
                "only the cache differs",
                NOW,
                vec![measured(NOW, 1_000.0, 9), measured(without_cache(NOW), 2_000.0, 9)],
                (0, Advice::Keep, "only in the cache"),
            ),
            (
                "only the cache differs, and the configured settings fail",
                NOW,
                vec![failing(measured(NOW, 1_000.0, 9)), measured(without_cache(NOW), 2_000.0, 9)],
                (1, Advice::Keep, "only in the cache"),
            ),
            (
                "the replica decides",
                decides,
                vec![measured(decides, 50_000.0, 1), measured(small, 1_000.0, 9)],
                (0, Advice::Keep, "the replica decides"),
            ),
            (
                "the replica decides, and is faster without the cache behind it",
                decides,
                vec![measured(decides, 50_000.0, 9), measured(without_cache(decides), 90_000.0, 1)],
                (0, Advice::Keep, "the replica decides"),
            ),
        ];
        for (row, now, measurements, (position, advice, reason)) in rows {
            let found = recommend(&measurements, &[0, 1], now).expect("a recommendation");
            assert_eq!((found.position, found.advice), (position, advice), "{row}: {found:?}");
            assert!(found.reason.contains(reason), "{row}: {found:?}");
        }
    }

    #[test]
    fn the_most_promising_are_measured_again_beside_now() {
        let size = |checks_per_call| Settings { checks_per_call, ..NOW };
        let decides = Settings { mode: ReplicaMode::Decide, ..NOW };
        let mut rows = vec![measured(NOW, 1.0, 1), measured(decides, 9_000.0, 1)];
        rows.extend((1..=6).map(|n| measured(size(n), 10.0 * f64::from(u32::try_from(n).expect("small")), 1)));
        rows.push(Measurement { failed: 1, ..measured(size(7), 500.0, 1) });
        assert_eq!(finalists(&rows, NOW), [0, 1, 4, 5, 6, 7]);
    }

    /// Answers as many requests as it holds, and leaves all later ones without an answer.
    struct Stalling(AtomicUsize);

    #[async_trait]
    impl Authorizer for Stalling {
        async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
            let answers = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if !answers {
                return std::future::pending().await;
            }
            sleep(Duration::from_millis(10)).await;
            Ok(Decisions::now(batch.checks.iter().map(|_| false)))
        }

        async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
            Err(AuthzError::NoModel)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn measuring_takes_its_time_and_no_longer() {
        let relation = Relation::parse("viewer").expect("a relation");
        let one = |name: &str| [Object::parse(name).expect("an object")];
        let workload = Arc::new(Workload::of(&relation, &one("user:anne"), &one("doc:1")).expect("a workload"));
        for (answers, expected) in [(0, (0, 3)), (7, (7, 0))] {
            let authorizer: Arc<dyn Authorizer> = Arc::new(Stalling(AtomicUsize::new(answers)));
            let started = Instant::now();
            let measured = measure(&authorizer, NOW, &workload, 3, Duration::from_secs(1)).await;
            assert!(started.elapsed() <= Duration::from_millis(1_001), "{:?}", started.elapsed());
            assert_eq!((measured.answered, measured.failed), expected, "{answers}");
        }
    }

    #[test]
    fn a_workload_asks_about_every_object() {
        let relation = Relation::parse("viewer").expect("a relation");
        let objects: Vec<Object> = (0..100).map(|n| Object::parse(&format!("doc:{n}")).expect("an object")).collect();
        let users: Vec<Object> = (0..7).map(|n| Object::parse(&format!("user:{n}")).expect("a user")).collect();
        let workload = Workload::of(&relation, &users, &objects).expect("a workload");
        assert_eq!((workload.users(), workload.objects()), (7, 100));
        assert!(Workload::of(&relation, &[], &objects).is_err());
        assert!(Workload::of(&relation, &users, &[]).is_err());
    }
}
