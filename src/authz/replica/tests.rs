//! Tests the follower against a server whose log is late and out of order, and reports changes twice.

mod models;
mod sources;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, advance};

use super::follower::{Follower, Watched};
use super::source::{ModelNews, Page, RelationshipSource, SourceChange};
use super::{ModelVersion, Progress, ReplicaConfig, UnixClock};
use crate::authz::AuthzError;
use crate::authz::copy::ChangesSince;
use crate::authz::owned_task::OwnedTask;
use crate::authz::validity::Validity;
use crate::language::validate::ValidModel;
use crate::language::{RelationshipTuple, dsl};
use crate::tuple_store::{Operation, RelationshipStore, RelationshipStores, TupleFilter};

const MODEL: &str = "model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define viewer: [user]\n";
const OVERLAP: Duration = Duration::from_secs(5);
const PAGE: usize = 3;

/// A generator of random numbers (xorshift64), good enough for choosing.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A change gets its position in the log (by time) when it begins, and is seen there once it is committed.
#[derive(Clone)]
struct Logged {
    change: SourceChange,
    seen_from: Instant,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault that is on or off")]
struct Server {
    store_id: String,
    model_id: String,
    tuples: BTreeMap<String, RelationshipTuple>,
    log: Vec<Logged>,
    /// Whether the log never reports the changes that are made now.
    silent: bool,
    /// How long after its commit the log reports a change.
    late: Duration,
    /// Whether the model has something that only the server understands.
    odd_model: bool,
    models_read: usize,
    down: bool,
    tokens_refused: bool,
    /// Whether the server refuses everything, as it does while it does not accept the client's key.
    refuses: bool,
    log_down: bool,
    log_refused: bool,
    finds_fail: bool,
    finds: usize,
    reads: usize,
}

#[derive(Clone, Default)]
struct FakeSource(Arc<Mutex<Server>>);

impl FakeSource {
    fn with<T>(&self, use_it: impl FnOnce(&mut Server) -> T) -> T {
        use_it(&mut self.0.lock().expect("not poisoned"))
    }

    /// Commits a change now that began at `begun`, which is its position in the log.
    fn change(&self, operation: Operation, id: u64, begun: Instant, start: Instant) {
        let tuple = RelationshipTuple::parse("user:anne", "viewer", &format!("doc:{id}")).expect("a tuple");
        self.with(|server| {
            match operation {
                Operation::Write => server.tuples.insert(tuple.object.to_string(), tuple.clone()),
                Operation::Delete => server.tuples.remove(&tuple.object.to_string()),
            };
            if server.silent {
                return;
            }
            let unix_ns = i128::try_from((begun - start).as_nanos()).expect("short");
            let place = server.log.partition_point(|logged| logged.change.unix_ns <= unix_ns);
            let change = SourceChange { tuple, operation, unix_ns };
            let seen_from = Instant::now() + server.late;
            server.log.insert(place, Logged { change, seen_from });
        });
    }

    fn state(&self) -> HashSet<RelationshipTuple> {
        self.with(|server| server.tuples.values().cloned().collect())
    }
}

#[async_trait]
impl RelationshipSource for FakeSource {
    async fn model(&self, known: Option<&ModelVersion>) -> Result<(ModelVersion, ModelNews), AuthzError> {
        self.with(|server| {
            if server.down {
                return Err(AuthzError::Unavailable("down".to_owned()));
            }
            if server.refuses {
                return Err(AuthzError::Refused("unauthenticated".to_owned()));
            }
            let version = ModelVersion { store_id: server.store_id.clone(), model_id: server.model_id.clone() };
            if known == Some(&version) {
                return Ok((version, ModelNews::Known));
            }
            server.models_read += 1;
            if server.odd_model {
                return Ok((version, ModelNews::NotUnderstood("the model has 101 types".to_owned())));
            }
            let model = ValidModel::new(dsl::parse(MODEL).expect("a model").model).expect("valid");
            Ok((version, ModelNews::New(Box::new(model))))
        })
    }

    async fn tuples(&self, _store_id: &str, token: &str) -> Result<Page<RelationshipTuple>, AuthzError> {
        self.with(|server| {
            server.reads += 1;
            let after = server.tuples.range(token.to_owned()..).filter(|(name, _)| *name != token);
            let items: Vec<_> = after.take(PAGE).map(|(_, tuple)| tuple.clone()).collect();
            let next = match items.last() {
                Some(last) if items.len() == PAGE => last.object.to_string(),
                _ => String::new(),
            };
            Ok(Page { items, next })
        })
    }

    /// Reads the changes after a token. A token is the time and the number of the last change before it.
    async fn changes(&self, _store_id: &str, token: &str) -> Result<Page<SourceChange>, AuthzError> {
        self.with(|server| {
            if server.log_down {
                return Err(AuthzError::Unavailable("down".to_owned()));
            }
            if server.log_refused {
                return Err(AuthzError::Refused("unauthenticated".to_owned()));
            }
            if server.tokens_refused && !token.is_empty() {
                return Err(AuthzError::Refused("Invalid continuation token".to_owned()));
            }
            let after: i128 = if token.is_empty() { -1 } else { token.parse().expect("a token of ours") };
            let seen = server.log.iter().filter(|logged| logged.seen_from <= Instant::now());
            let mut items: Vec<_> = seen.map(|logged| logged.change.clone()).filter(|c| c.unix_ns > after).collect();
            let same_time = |at: i128| items.iter().filter(|change| change.unix_ns <= at).count();
            if let Some(last) = items.get(PAGE - 1) {
                items.truncate(same_time(last.unix_ns));
            }
            let next = items.last().map_or_else(|| token.to_owned(), |last| last.unix_ns.to_string());
            // The log reports each change twice.
            items.extend(items.clone());
            Ok(Page { items, next })
        })
    }

    async fn find(&self, _store_id: &str, tuple: &RelationshipTuple) -> Result<Option<RelationshipTuple>, AuthzError> {
        self.with(|server| {
            server.finds += 1;
            if server.finds_fail {
                return Err(AuthzError::Unavailable("down".to_owned()));
            }
            Ok(server.tuples.get(&tuple.object.to_string()).cloned())
        })
    }
}

struct Replica {
    source: FakeSource,
    stores: RelationshipStores,
    follower: Follower,
    progress: watch::Receiver<Progress>,
    validity: Arc<Validity>,
    watched: Watched,
    _directory: TempDir,
}

fn config() -> ReplicaConfig {
    ReplicaConfig {
        poll_interval: Duration::from_millis(500),
        staleness_max: Duration::from_secs(2),
        overlap: OVERLAP,
        sweep_interval: Duration::from_mins(1),
        ..ReplicaConfig::default()
    }
}

/// Makes a clock that shows 0 now.
fn clock() -> UnixClock {
    let start = Instant::now();
    Arc::new(move || i128::try_from(start.elapsed().as_nanos()).expect("short"))
}

fn replica() -> Replica {
    let directory = tempfile::tempdir().expect("a directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let source = FakeSource::default();
    source.with(|server| {
        server.store_id = "s1".to_owned();
        server.model_id = "m1".to_owned();
    });
    let validity = Arc::new(Validity::new(Some(config().staleness_max)));
    let (sender, progress) = watch::channel(Progress::default());
    let (news, wishes) = (Arc::default(), Arc::default());
    let watched = Watched { progress: sender, validity: Arc::clone(&validity), news, wishes, clock: clock() };
    let follower = Follower::new(Arc::new(source.clone()), stores.clone(), config(), watched.clone());
    let follower = follower.expect("a store");
    Replica { source, stores, follower, progress, validity, watched, _directory: directory }
}

impl Replica {
    fn copied(&self) -> HashSet<RelationshipTuple> {
        let stored = self.store().tuples(&TupleFilter::default(), 0, 10_000).expect("read");
        stored.into_iter().map(|stored| stored.tuple).collect()
    }

    fn store(&self) -> RelationshipStore {
        self.stores.default_store().expect("a store")
    }

    async fn step(&mut self) {
        self.follower.step(Instant::now()).await.expect("followed");
    }

    /// Begins with a new follower, as after a restart.
    fn restart(&mut self) {
        let (sender, progress) = watch::channel(Progress::default());
        self.watched.progress = sender;
        let watched = self.watched.clone();
        let follower = Follower::new(Arc::new(self.source.clone()), self.stores.clone(), config(), watched);
        self.follower = follower.expect("a store");
        self.progress = progress;
    }
}

#[tokio::test(start_paused = true)]
async fn the_copy_ends_up_as_the_server_whatever_the_order_of_the_log() {
    for seed in 1..=40_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let start = Instant::now();
        let mut replica = replica();
        advance(OVERLAP).await;
        for _ in 0..60 {
            // A longer transaction gets an earlier position in the log.
            let begun = Instant::now() - Duration::from_millis(random.below(4_500));
            let operation = if random.below(2) == 0 { Operation::Write } else { Operation::Delete };
            replica.source.change(operation, random.below(6), begun, start);
            advance(Duration::from_millis(random.below(700) + 1)).await;
            match random.below(4) {
                0 => replica.restart(),
                1 => {}
                _ => replica.step().await,
            }
        }
        replica.step().await;
        assert_eq!(replica.copied(), replica.source.state(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_it_was() {
    let mut replica = replica();
    let start = Instant::now();
    for id in 0..10 {
        replica.source.change(Operation::Write, id, Instant::now(), start);
        advance(Duration::from_secs(1)).await;
    }
    replica.step().await;
    let reads = replica.source.with(|server| server.reads);
    replica.restart();
    replica.source.change(Operation::Delete, 3, Instant::now(), start);
    replica.step().await;
    assert_eq!(replica.copied(), replica.source.state());
    assert_eq!(replica.source.with(|server| server.reads), reads, "everything was read again");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_finds_what_the_log_did_not_tell() {
    let mut replica = replica();
    let start = Instant::now();
    for id in 0..10 {
        replica.source.change(Operation::Write, id, Instant::now(), start);
    }
    replica.step().await;
    replica.source.with(|server| server.silent = true);
    replica.source.change(Operation::Delete, 3, Instant::now(), start);
    replica.source.change(Operation::Write, 11, Instant::now(), start);
    replica.step().await;
    assert_ne!(replica.copied(), replica.source.state());
    advance(Duration::from_mins(1)).await;
    replica.step().await;
    assert_eq!(replica.copied(), replica.source.state());
}

/// A look that finds something new ends the generation of decisions, and a look that finds nothing confirms it.
#[tokio::test(start_paused = true)]
async fn whoever_remembers_decisions_is_told() {
    let mut replica = replica();
    let start = Instant::now();
    advance(OVERLAP).await;
    let change = |replica: &Replica, id| replica.source.change(Operation::Write, id, Instant::now(), start);
    let step = async |replica: &mut Replica| {
        let before = replica.validity.current().generation;
        advance(Duration::from_millis(10)).await;
        let stepped = replica.follower.step(Instant::now()).await;
        (stepped.is_ok(), replica.validity.current().generation > before, replica.validity.current().recall)
    };
    assert!(!replica.validity.current().recall, "nothing was read yet");
    change(&replica, 1);
    assert_eq!(step(&mut replica).await, (true, true, true), "the first copy");
    assert_eq!(step(&mut replica).await, (true, false, true), "the change is told again and is not new");
    change(&replica, 2);
    assert_eq!(step(&mut replica).await, (true, true, true), "a change");
    // The follower knows of this change but cannot copy it yet. The change counts all the same.
    change(&replica, 3);
    replica.source.with(|server| server.down = true);
    assert_eq!(step(&mut replica).await, (false, false, true), "the last look was lately");
    advance(config().staleness_max).await;
    assert_eq!(step(&mut replica).await, (false, false, false), "and now it is too long ago");
    replica.source.with(|server| server.down = false);
    assert_eq!(step(&mut replica).await, (true, true, true));
    replica.source.with(|server| server.silent = true);
    change(&replica, 4);
    assert_eq!(step(&mut replica).await, (true, false, true), "the log does not tell it");
    advance(Duration::from_mins(1)).await;
    assert_eq!(step(&mut replica).await, (true, true, true), "the sweep finds it");
    replica.restart();
    assert_eq!(step(&mut replica).await, (true, true, true), "what was missed while nobody followed is not known");
    replica.follower.begin_anew().await;
    assert_eq!(step(&mut replica).await, (true, true, true), "a log that begins anew tells nothing of before");
}

#[tokio::test(start_paused = true)]
async fn another_store_and_another_log_are_copied_anew() {
    let mut replica = replica();
    let start = Instant::now();
    for id in 0..5 {
        replica.source.change(Operation::Write, id, Instant::now(), start);
    }
    replica.step().await;
    replica.source.with(|server| {
        server.store_id = "s2".to_owned();
        server.tuples.clear();
        server.log.clear();
    });
    replica.source.change(Operation::Write, 7, Instant::now(), start);
    replica.step().await;
    assert_eq!(replica.copied(), replica.source.state());

    // The store is the same, but its log was cut, so that the server does not know its old tokens any more.
    replica.source.with(|server| server.tokens_refused = true);
    replica.restart();
    assert!(matches!(replica.follower.look(Instant::now()).await, Err(AuthzError::Refused(_))));
    assert_eq!(replica.progress.borrow().fresh_as_of, None);
    replica.source.with(|server| server.tokens_refused = false);
    replica.step().await;
    assert_eq!(replica.copied(), replica.source.state());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_leaves_the_copy_behind() {
    let mut replica = replica();
    replica.step().await;
    let fresh = replica.progress.borrow().clone();
    assert!(fresh.fresh_as_of.is_some());
    replica.source.with(|server| server.down = true);
    advance(Duration::from_secs(10)).await;
    assert!(replica.follower.step(Instant::now()).await.is_err());
    assert_eq!(*replica.progress.borrow(), fresh);
}

/// The log has dates in seconds, as that of `MySQL` does.
#[tokio::test(start_paused = true)]
async fn equal_changes_within_one_second_are_all_taken_over() {
    use Operation::{Delete, Write};
    let rows: [&[&[Operation]]; 4] = [
        &[&[Write, Delete], &[Write]],
        &[&[Delete, Write], &[Delete]],
        &[&[Write], &[Delete], &[Write]],
        &[&[Write], &[Delete], &[Write], &[Delete]],
    ];
    for looks in rows {
        let mut replica = replica();
        let start = Instant::now();
        advance(OVERLAP).await;
        replica.step().await;
        let second = Instant::now();
        for operations in looks {
            for operation in *operations {
                replica.source.change(*operation, 1, second, start);
            }
            advance(Duration::from_millis(100)).await;
            replica.step().await;
            assert_eq!(replica.copied(), replica.source.state(), "{operations:?} of {looks:?}");
        }
    }
}

/// Changes that a failed look had read are news to the next look, and changes that were known before are not.
#[tokio::test(start_paused = true)]
async fn a_look_that_fails_makes_nothing_news_that_was_known() {
    let mut replica = replica();
    let start = Instant::now();
    let change = |replica: &Replica, operation, id| replica.source.change(operation, id, Instant::now(), start);
    advance(OVERLAP).await;
    replica.step().await;
    change(&replica, Operation::Write, 1);
    advance(Duration::from_secs(1)).await;
    replica.step().await;
    advance(Duration::from_secs(3)).await;
    let (asked, date) = (Instant::now(), (replica.watched.clock)());
    change(&replica, Operation::Write, 2);
    change(&replica, Operation::Delete, 2);
    change(&replica, Operation::Write, 2);
    advance(Duration::from_millis(10)).await;
    replica.source.with(|server| server.finds_fail = true);
    assert!(replica.follower.step(Instant::now()).await.is_err());
    assert_eq!(replica.watched.news.since(asked), ChangesSince::Nothing);
    replica.source.with(|server| server.finds_fail = false);
    advance(Duration::from_secs(1)).await;
    replica.step().await;
    assert_eq!(replica.copied(), replica.source.state());
    assert_eq!(replica.watched.news.since(asked), ChangesSince::Dated(date));
}

/// The copy states its age rightly from the first change that reveals the lag, however late the log is.
#[tokio::test(start_paused = true)]
async fn a_log_that_lags_makes_the_copy_older() {
    let mut replica = replica();
    let start = Instant::now();
    advance(OVERLAP).await;
    replica.step().await;
    replica.source.with(|server| server.late = Duration::from_secs(5));
    let mut committed: Vec<(Instant, HashSet<RelationshipTuple>)> = vec![(Instant::now(), replica.source.state())];
    let mut wrong = Vec::new();
    for step in 0..200_u64 {
        if step % 4 == 0 {
            let operation = if step % 8 == 0 { Operation::Write } else { Operation::Delete };
            replica.source.change(operation, 1, Instant::now(), start);
            committed.push((Instant::now(), replica.source.state()));
        }
        advance(Duration::from_millis(500)).await;
        replica.step().await;
        let fresh_as_of = replica.progress.borrow().fresh_as_of.expect("complete");
        let held = |(at, _): &&(Instant, HashSet<RelationshipTuple>)| *at <= fresh_as_of;
        let (at, then) = committed.iter().rev().find(held).expect("the first");
        // The copy may hold more than it says.
        let held_later = committed.iter().any(|(later, state)| later >= at && *state == replica.copied());
        // At step 10 the first change reveals that the log is late.
        if step > 10 && *then != replica.copied() && !held_later {
            wrong.push(step);
        }
        if step > 20 {
            assert!(fresh_as_of.elapsed() > config().staleness_max, "step {step}: it is used though it lags");
        }
    }
    assert_eq!(wrong, [] as [u64; 0]);
    // The log is punctual again.
    replica.source.with(|server| server.late = Duration::ZERO);
    advance(Duration::from_secs(6)).await;
    replica.step().await;
    replica.source.change(Operation::Write, 2, Instant::now(), start);
    advance(Duration::from_millis(500)).await;
    replica.step().await;
    assert!(replica.progress.borrow().fresh_as_of.expect("complete").elapsed() < config().staleness_max);
}

/// A delete that the log reports later than the overlap takes effect after the next sweep at the latest.
#[tokio::test(start_paused = true)]
async fn a_delete_that_is_told_late_is_bounded_by_the_sweep() {
    for late in [1, 4, 6, 20, 50, 1_000] {
        let mut replica = replica();
        let start = Instant::now();
        replica.source.change(Operation::Write, 1, start, start);
        advance(Duration::from_secs(20)).await;
        replica.step().await;
        replica.source.with(|server| server.late = Duration::from_secs(late));
        let deleted = Instant::now();
        replica.source.change(Operation::Delete, 1, deleted, start);
        while !replica.copied().is_empty() {
            advance(Duration::from_millis(500)).await;
            replica.step().await;
            assert!(deleted.elapsed() <= config().sweep_interval + Duration::from_secs(1), "{late} s late");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_not_understood_leaves_the_server_to_decide() {
    let mut replica = replica();
    let start = Instant::now();
    replica.step().await;
    replica.source.with(|server| (server.model_id, server.odd_model) = ("m2".to_owned(), true));
    for id in 0..20 {
        replica.source.change(Operation::Write, id, Instant::now(), start);
        advance(Duration::from_millis(500)).await;
        replica.step().await;
        assert_eq!(replica.progress.borrow().fresh_as_of, None, "it is not used");
        assert!(replica.validity.current().recall, "whoever remembers decisions is served on");
    }
    assert_eq!(replica.source.with(|server| server.models_read), 2, "the model is looked at once");
    replica.restart();
    replica.step().await;
    assert_eq!(replica.progress.borrow().fresh_as_of, None, "nor after a restart");
    replica.source.with(|server| (server.model_id, server.odd_model) = ("m3".to_owned(), false));
    replica.step().await;
    assert_eq!(replica.progress.borrow().version.model_id, "m3");
    assert!(replica.progress.borrow().fresh_as_of.is_some());
    assert_eq!(replica.copied(), replica.source.state());
}

/// A server that refuses everything for a while still has the same log, so the copy goes on where it was.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_everything_does_not_cost_the_copy() {
    for of_the_log in [false, true] {
        let mut replica = replica();
        let start = Instant::now();
        for id in 0..10 {
            replica.source.change(Operation::Write, id, Instant::now(), start);
            advance(Duration::from_secs(1)).await;
        }
        replica.step().await;
        let reads = replica.source.with(|server| server.reads);
        replica.source.with(|server| if of_the_log { server.log_refused = true } else { server.refuses = true });
        let refused = replica.follower.look(Instant::now()).await;
        assert!(matches!(refused, Err(AuthzError::Refused(_))), "{refused:?}");
        replica.source.with(|server| (server.log_refused, server.refuses) = (false, false));
        replica.source.change(Operation::Delete, 3, Instant::now(), start);
        replica.follower.look(Instant::now()).await.expect("followed");
        assert_eq!(replica.copied(), replica.source.state());
        assert_eq!(replica.source.with(|server| server.reads), reads, "everything was read again");
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_good_is_asked_for_more_and_more_seldom() {
    let replica = replica();
    replica.source.with(|server| server.tokens_refused = true);
    let start = Instant::now();
    replica.source.change(Operation::Write, 1, start, start);
    let source = replica.source.clone();
    let following = OwnedTask::spawn(|owner| replica.follower.run(owner));
    tokio::time::sleep(Duration::from_mins(10)).await;
    let looks = source.with(|server| server.models_read);
    assert!((10..=40).contains(&looks), "{looks} looks in ten minutes");
    drop(following);
}
