//! INVARIANT (no wrong decision): a million checks go through the whole stack, while the server fails in every way,
//! callers leave, and relationships change all the time. Every decision must have been right at some moment. That
//! moment lies between the last change that was reported to the cache before the question, and the answer. For higher
//! consistency, it lies between the question and the answer.
//!
//! The interleavings come from a seed and the paused clock, so that a failure can be repeated. A shorter run on several
//! threads has whatever interleavings the machine gives it. `checks/interleavings.rs` goes through the orders of a
//! small case.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ragward::authz::decider::{Basis, Decider, NumberedOutcome, Outcome, Question, Questions, Recall, accounted};
use ragward::authz::validity::Validity;
use ragward::authz::{AuthzError, Check, CheckStage, ChecksConfig, Consistency, OpenFgaConfig, Source, check_stack};
use ragward::language::{Object, Relation};
use tokio::time::{Instant, sleep, timeout};

use crate::support::dice::Dice;

const USERS: u64 = 8;
const OBJECTS: u64 = 100;
const CALLERS: u64 = 32;
const CHECKS_PER_ASK: u64 = 50;
/// The server takes fewer checks in a call than the stack is configured for.
const CHECKS_PER_CALL_MAX: usize = 45;
const TIMEOUT: Duration = Duration::from_millis(400);

impl Dice {
    fn number(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn milliseconds(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.number(bound))
    }
}

/// The rights of all users, with the version at which each of them changed.
struct World {
    version: AtomicU64,
    /// The latest version that the cache was told of.
    told: AtomicU64,
    /// The versions at which each answer changed, by user and object. At the beginning, every second pair is allowed.
    turns: Mutex<Vec<Vec<u64>>>,
    dice: Mutex<Dice>,
}

fn index(user: u64, object: u64) -> usize {
    usize::try_from(user * OBJECTS + object).expect("small")
}

fn parts(check: &Check) -> (u64, u64) {
    let number = |object: &Object| object.id().parse().expect("a number");
    (number(&check.user), number(&check.object))
}

impl World {
    fn draw<T>(&self, draw: impl FnOnce(&mut Dice) -> T) -> T {
        draw(&mut self.dice.lock().expect("a lock"))
    }

    fn turn(&self, user: u64, object: u64) {
        let mut turns = self.turns.lock().expect("a lock");
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        turns[index(user, object)].push(version);
    }

    fn is_allowed(&self, check: &Check) -> bool {
        let (user, object) = parts(check);
        self.turns.lock().expect("a lock")[index(user, object)].len() % 2 == 1
    }

    /// Returns whether the answer was right at some version in this range.
    fn was_right(&self, check: &Check, allowed: bool, from: u64, to: u64) -> bool {
        let (user, object) = parts(check);
        let turns = &self.turns.lock().expect("a lock")[index(user, object)];
        let until = |version: u64| turns.iter().filter(|turn| **turn <= version).count();
        let (first, last) = (until(from), until(to));
        (first..=last).any(|turned| (turned % 2 == 1) == allowed)
    }
}

/// A server that answers rightly or fails.
struct FailingServer(Arc<World>);

#[async_trait]
impl Decider for FailingServer {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let world = &self.0;
        if questions.list.len() > CHECKS_PER_CALL_MAX {
            return Err(AuthzError::TooManyChecks { checks_max: Some(CHECKS_PER_CALL_MAX) });
        }
        let (mood, before, after) = world.draw(|r| (r.below(100), r.milliseconds(4), r.milliseconds(4)));
        sleep(before).await;
        let as_of = Instant::now();
        let answer = |(position, question): (usize, &Question)| {
            let allowed = world.is_allowed(&question.check);
            NumberedOutcome { position, outcome: Outcome::Decided { allowed, as_of, source: Source::Authority } }
        };
        let mut answers: Vec<NumberedOutcome> = questions.list.iter().enumerate().map(answer).collect();
        sleep(after).await;
        match mood {
            0..6 => return Err(AuthzError::Unavailable("down".to_owned())),
            6..8 => return Err(AuthzError::Refused("no".to_owned())),
            8 => std::future::pending().await,
            10 => drop(answers.pop()),
            11 => answers.extend(answers.first().cloned()),
            12 => answers.iter_mut().for_each(|answered| answered.position += 1),
            13 => answers[0].outcome = Outcome::Failed(AuthzError::Unavailable("throttled".to_owned())),
            14 => answers[0].outcome = Outcome::Undecidable,
            15..30 => answers.reverse(),
            _ => {}
        }
        Ok(answers)
    }
}

fn stack(world: &Arc<World>) -> Arc<dyn Decider> {
    let openfga = OpenFgaConfig { checks_per_call: 50, timeout: TIMEOUT, ..OpenFgaConfig::default() };
    let checks = ChecksConfig { calls_in_flight_max: 16, checks_waiting_max: 4_000, ..ChecksConfig::default() };
    check_stack(Arc::new(FailingServer(Arc::clone(world))), &CheckStage::ALL, &openfga, &checks)
}

#[derive(Debug, Default)]
struct Tally {
    asked: AtomicU64,
    allowed: AtomicU64,
    denied: AtomicU64,
    undecided: AtomicU64,
    wrong: AtomicU64,
}

async fn ask_until(
    checks: u64,
    world: Arc<World>,
    stack: Arc<dyn Decider>,
    validity: Arc<Validity>,
    tally: Arc<Tally>,
) {
    let relation = Relation::parse("can_read").expect("a relation");
    while tally.asked.fetch_add(CHECKS_PER_ASK, Ordering::SeqCst) < checks {
        let (user, first, fresh, leaves, patience) =
            world.draw(|r| (r.number(USERS), r.number(OBJECTS), r.below(10) == 0, r.below(10) == 0, r.milliseconds(5)));
        // The order matters. Because `told` is read before the generation, that generation holds no decision from
        // before the changes that the cache had been told of.
        let told = world.told.load(Ordering::SeqCst);
        let current = validity.current();
        let (consistency, from) = if fresh {
            (Consistency::HigherConsistency, world.version.load(Ordering::SeqCst))
        } else {
            (Consistency::MinimizeLatency, told)
        };
        let basis = Basis {
            store_id: "store".to_owned(),
            model_id: "model".to_owned(),
            consistency,
            generation: current.generation,
            recall: if current.recall && !fresh { Recall::Generation } else { Recall::Nothing },
            source: Source::Authority,
        };
        let user = Object::parse(&format!("user:{user}")).expect("a user");
        let check = |number: u64| Check {
            user: user.clone(),
            relation: relation.clone(),
            object: Object::parse(&format!("doc:{}", (first + number) % OBJECTS)).expect("an object"),
        };
        let question = |number| Question { check: check(number), contextual: Arc::default() };
        let questions = Questions {
            basis: Arc::new(basis),
            list: (0..CHECKS_PER_ASK).map(question).collect(),
            principal: user.clone(),
            deadline: Instant::now() + 2 * TIMEOUT,
        };
        let asking = stack.decide(&questions);
        let answers = if leaves { timeout(patience, asking).await } else { Ok(asking.await) };
        let to = world.version.load(Ordering::SeqCst);
        let outcomes = answers.map(|answers| answers.and_then(|answers| accounted(questions.list.len(), answers)));
        let Ok(Ok(outcomes)) = outcomes else {
            tally.undecided.fetch_add(CHECKS_PER_ASK, Ordering::SeqCst);
            // An open breaker must not turn the rest of the run into a row of errors.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        for (question, outcome) in questions.list.iter().zip(outcomes) {
            let Outcome::Decided { allowed, .. } = outcome else {
                tally.undecided.fetch_add(1, Ordering::SeqCst);
                continue;
            };
            let count = if allowed { &tally.allowed } else { &tally.denied };
            count.fetch_add(1, Ordering::SeqCst);
            if !world.was_right(&question.check, allowed, from, to) {
                tally.wrong.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

async fn soak(seed: u64, checks: u64) {
    let world = Arc::new(World {
        version: AtomicU64::new(0),
        told: AtomicU64::new(0),
        turns: Mutex::new((0..index(USERS, 0)).map(|pair| vec![0; pair % 2]).collect()),
        dice: Mutex::new(Dice::new(seed)),
    });
    let (stack, validity, tally) = (stack(&world), Arc::new(Validity::new(None)), Arc::new(Tally::default()));
    let callers = (0..CALLERS).map(|_| {
        let (world, stack) = (Arc::clone(&world), Arc::clone(&stack));
        tokio::spawn(ask_until(checks, world, stack, Arc::clone(&validity), Arc::clone(&tally)))
    });
    let callers: Vec<_> = callers.collect();
    let writer = {
        let (world, validity) = (Arc::clone(&world), Arc::clone(&validity));
        tokio::spawn(async move {
            loop {
                let (user, object, pause, lag) =
                    world.draw(|r| (r.number(USERS), r.number(OBJECTS), r.milliseconds(10), r.milliseconds(6)));
                world.turn(user, object);
                let version = world.version.load(Ordering::SeqCst);
                sleep(lag).await;
                validity.invalidate();
                world.told.store(version, Ordering::SeqCst);
                sleep(pause).await;
            }
        })
    };
    for caller in callers {
        caller.await.expect("a caller");
    }
    writer.abort();
    let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
    println!("seed {seed}: {tally:?}, {} writes", count(&world.version));
    assert_eq!(count(&tally.wrong), 0, "seed {seed}: {tally:?}");
    let decided = count(&tally.allowed) + count(&tally.denied);
    assert_eq!(decided + count(&tally.undecided), checks, "seed {seed}: every check has an outcome");
    // With fewer answers, the run would show nothing. A busy machine decides less in time.
    assert!(decided > checks / 20 && count(&tally.allowed) > checks / 200, "seed {seed}: {tally:?}");
    assert!(count(&world.version) > 20, "seed {seed}: the relationships changed too seldom");
}

#[tokio::test(start_paused = true)]
async fn a_million_checks_and_no_wrong_decision() {
    for seed in 1..=4 {
        soak(seed, 250_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_on_several_threads() {
    soak(5, 50_000).await;
}
