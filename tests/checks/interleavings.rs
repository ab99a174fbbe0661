//! Runs the cache and the sharing of checks under a scheduler that chooses which task continues at every await.
//!
//! Several tasks ask the same question with different consistencies, and one of them gives up midway. Meanwhile the
//! relationship changes, and the cache learns of each change later. Every decision must have been right at some moment.
//! That moment lies between the last change that the cache had been told of before the question, and the answer. For
//! higher consistency, and for answers since a moment, it lies between the question and the answer. Every task that
//! does not give up gets an answer.
//!
//! `shuttle` switches tasks at their awaits. Tasks touch shared state only in short sections that hold a lock and never
//! await, so switching at awaits finds what threads would find. `moka` and `futures::Shared` count as atomic inside.
//! `checks/soak.rs` tests the same properties for longer, and on threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ragward::authz::decider::{Basis, Decider, NumberedOutcome, Outcome, Question, Questions, Recall, accounted};
use ragward::authz::validity::Validity;
use ragward::authz::{AuthzError, Check, CheckStage, ChecksConfig, Consistency, OpenFgaConfig, Source, check_stack};
use ragward::language::{Object, Relation};
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use tokio::time::Instant;

const ITERATIONS: usize = 3_000;
const ASKERS: usize = 3;
const QUESTIONS: usize = 2;
const TURNS: u64 = 2;
const LONG: Duration = Duration::from_mins(10);
/// The stack of a task. The code under test needs more than `shuttle` gives a task by default.
const STACK_BYTES: usize = 1 << 20;

/// One relationship, which holds at even versions.
struct World {
    version: AtomicU64,
    /// The latest version that the cache was told of.
    told: AtomicU64,
    validity: Validity,
}

impl World {
    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }
}

async fn wait_some(bound: u32) {
    let turns = shuttle::rand::thread_rng().gen_range(0..=bound);
    for _ in 0..turns {
        yield_now().await;
    }
}

/// A server that decides and answers later. Now and then it fails.
struct Server(Arc<World>);

#[async_trait]
impl Decider for Server {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        wait_some(2).await;
        let (allowed, as_of) = (self.0.version().is_multiple_of(2), Instant::now());
        wait_some(2).await;
        if shuttle::rand::thread_rng().gen_range(0..8) == 0 {
            return Err(AuthzError::Unavailable("down".to_owned()));
        }
        let answered = |position| NumberedOutcome {
            position,
            outcome: Outcome::Decided { allowed, as_of, source: Source::Authority },
        };
        Ok((0..questions.list.len()).map(answered).collect())
    }
}

/// Asks once and checks the answer.
async fn ask(world: Arc<World>, stack: Arc<dyn Decider>) {
    // The order matters. Because `told` is read before the generation, that generation holds no decision from before
    // the changes that the cache had been told of.
    let (told, asked) = (world.told.load(Ordering::SeqCst), world.version());
    yield_now().await;
    let generation = world.validity.current().generation;
    let (consistency, recall, from) = match shuttle::rand::thread_rng().gen_range(0..4) {
        0 => (Consistency::HigherConsistency, Recall::Nothing, asked),
        1 => (Consistency::HigherConsistency, Recall::Since(Instant::now()), asked),
        _ => (Consistency::MinimizeLatency, Recall::Generation, told),
    };
    let check = Check {
        user: Object::parse("user:anne").expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        object: Object::parse("doc:1").expect("an object"),
    };
    let basis = Basis {
        store_id: "store".to_owned(),
        model_id: "model".to_owned(),
        consistency,
        generation,
        recall,
        source: Source::Authority,
    };
    let questions = Questions {
        basis: Arc::new(basis),
        principal: check.user.clone(),
        list: vec![Question { check, contextual: Arc::default() }],
        deadline: Instant::now() + LONG,
    };
    let answers = stack.decide(&questions).await.and_then(|answers| accounted(1, answers));
    let to = world.version();
    match answers.as_deref() {
        Ok([Outcome::Decided { allowed, .. }]) => {
            let right = (from..=to).any(|version| version.is_multiple_of(2) == *allowed);
            assert!(right, "{recall:?}: allowed {allowed} is wrong from version {from} to {to}");
        }
        Ok([Outcome::Failed(AuthzError::Unavailable(_))]) | Err(AuthzError::Unavailable(_)) => {}
        other => panic!("{recall:?}: {other:?}"),
    }
}

async fn run() {
    let world = Arc::new(World { version: AtomicU64::new(0), told: AtomicU64::new(0), validity: Validity::new(None) });
    let openfga = OpenFgaConfig { timeout: LONG, ..OpenFgaConfig::default() };
    let checks = ChecksConfig { cache_ttl: LONG, ..ChecksConfig::default() };
    let server = Arc::new(Server(Arc::clone(&world)));
    let stack = check_stack(server, &[CheckStage::Sharing, CheckStage::Cache], &openfga, &checks);

    let asker = || {
        let (world, stack) = (Arc::clone(&world), Arc::clone(&stack));
        spawn(async move {
            for _ in 0..QUESTIONS {
                ask(Arc::clone(&world), Arc::clone(&stack)).await;
            }
        })
    };
    let askers: Vec<JoinHandle<()>> = (0..ASKERS).map(|_| asker()).collect();
    let leaving = asker();
    let writer = {
        let world = Arc::clone(&world);
        spawn(async move {
            for _ in 0..TURNS {
                wait_some(3).await;
                let version = world.version.fetch_add(1, Ordering::SeqCst) + 1;
                wait_some(3).await;
                world.validity.invalidate();
                world.told.store(version, Ordering::SeqCst);
            }
        })
    };
    wait_some(6).await;
    leaving.abort();
    for task in askers.into_iter().chain([writer]) {
        task.await.expect("whoever does not give up is answered");
    }
    // A later question must not wait for anything that these tasks left behind.
    ask(world, stack).await;
}

fn check(scheduler: impl Scheduler + 'static) {
    // Deadlines need a clock. This one stands still, so none of them passes.
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a clock");
    let _guard = clock.enter();
    let mut config = shuttle::Config::new();
    config.stack_size = STACK_BYTES;
    shuttle::Runner::new(scheduler, config).run(|| block_on(run()));
}

#[test]
fn in_random_order_every_decision_is_right() {
    check(RandomScheduler::new(ITERATIONS));
}

/// Tries orders with few preemptions at chosen points (Burckhardt et al., 2010), because most bugs need only a few.
#[test]
fn with_few_changes_of_priority_every_decision_is_right() {
    check(PctScheduler::new(3, ITERATIONS));
}
