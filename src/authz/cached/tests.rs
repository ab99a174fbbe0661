//! What is recalled, and what must not be.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::authz::decider::doubles::{Script, Scripted, decided, of, questions, scope};
use crate::authz::decider::{Question, Recall, Scope};
use crate::authz::{Consistency, Source};
use crate::engine::Contextual;
use crate::language::{Object, Relation, RelationshipTuple};

const TIME_TO_LIVE: Duration = Duration::from_secs(10);

fn cached(inner: &Arc<Scripted>) -> CachedDecider {
    CachedDecider::new(Arc::clone(inner) as _, TIME_TO_LIVE, 1 << 20)
}

/// How many questions reached the server by now.
fn asked(server: &Scripted) -> usize {
    server.asked().iter().map(|questions| questions.list.len()).sum()
}

async fn ask(cached: &CachedDecider, questions: &Questions) -> Vec<bool> {
    decided(questions.list.len(), cached.decide(questions).await.expect("decisions"))
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_not_asked_again() {
    let server = Arc::new(Scripted::new(Vec::new()));
    let cached = cached(&server);
    assert_eq!(ask(&cached, &questions(3)).await, [true, false, true]);
    assert_eq!(ask(&cached, &questions(3)).await, [true, false, true]);
    assert_eq!(asked(&server), 3);
    assert_eq!(ask(&cached, &of("user:anne", [7, 1, 8, 0])).await, [false, false, true, true]);
    assert_eq!(asked(&server), 5, "only what is new");
    assert_eq!(ask(&cached, &of("user:bob", [0])).await, [true]);
    assert_eq!(asked(&server), 6, "another user is another question");
}

#[tokio::test(start_paused = true)]
async fn a_decision_ends_with_its_age_or_generation() {
    let server = Arc::new(Scripted::new(Vec::new()));
    let cached = cached(&server);
    ask(&cached, &questions(1)).await;
    tokio::time::advance(TIME_TO_LIVE.saturating_sub(Duration::from_millis(1))).await;
    ask(&cached, &questions(1)).await;
    assert_eq!(asked(&server), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    ask(&cached, &questions(1)).await;
    assert_eq!(asked(&server), 2, "too old, counted from when it was decided, not from when it was recalled");

    let next = Questions { scope: Arc::new(Scope { generation: 1, ..scope() }), ..questions(1) };
    ask(&cached, &next).await;
    assert_eq!(asked(&server), 3, "of another generation");
    let unconfirmed = Questions { scope: Arc::new(Scope { recall: Recall::Nothing, ..scope() }), ..questions(1) };
    ask(&cached, &unconfirmed).await;
    assert_eq!(asked(&server), 4, "nothing may be recalled");
}

#[tokio::test(start_paused = true)]
async fn only_decisions_are_remembered() {
    struct Undecided;
    #[async_trait]
    impl Decider for Undecided {
        async fn decide(&self, _: &Questions) -> Result<Vec<Answered>, AuthzError> {
            let failed = Outcome::Failed(AuthzError::Unavailable("throttled".to_owned()));
            let answered = |position, outcome| Answered { position, outcome };
            Ok(vec![answered(0, Outcome::Undecidable), answered(1, failed)])
        }
    }
    let cached = CachedDecider::new(Arc::new(Undecided), TIME_TO_LIVE, 1 << 20);
    for _ in 0..2 {
        let outcomes = accounted(2, cached.decide(&questions(2)).await.expect("outcomes")).expect("two");
        assert!(matches!(&outcomes[..], [Outcome::Undecidable, Outcome::Failed(_)]), "{outcomes:?}");
    }
    cached.entries.run_pending_tasks();
    assert_eq!(cached.entries.entry_count(), 0);

    let failing = vec![Script::Fail(AuthzError::DeadlineExceeded)];
    let server = Arc::new(Scripted::new(failing));
    let cached = self::cached(&server);
    assert!(cached.decide(&questions(2)).await.is_err());
    assert_eq!(ask(&cached, &questions(2)).await, [true, false]);
}

/// Answers what it is told to, as of when it was asked.
#[derive(Default)]
struct Settable(Mutex<bool>);

#[async_trait]
impl Decider for Settable {
    async fn decide(&self, questions: &Questions) -> Result<Vec<Answered>, AuthzError> {
        let (allowed, as_of) = (*self.0.lock().expect("a lock"), Instant::now());
        if questions.principal.id() == "slow" {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok((0..questions.list.len())
            .map(|position| Answered {
                position,
                outcome: Outcome::Decided { allowed, as_of, source: Source::Authority },
            })
            .collect())
    }
}

#[tokio::test(start_paused = true)]
async fn higher_consistency_passes_by_and_replaces() {
    let server = Arc::new(Settable::default());
    let cached = Arc::new(CachedDecider::new(Arc::clone(&server) as _, TIME_TO_LIVE, 1 << 20));
    let fresh = Scope { consistency: Consistency::HigherConsistency, recall: Recall::Nothing, ..scope() };
    let fresh = Questions { scope: Arc::new(fresh), ..questions(1) };
    *server.0.lock().expect("a lock") = true;
    assert_eq!(ask(&cached, &questions(1)).await, [true]);
    tokio::time::advance(Duration::from_millis(1)).await;
    // A slow question that was answered before the revocation arrives after it.
    let slow = Questions { principal: Object::parse("user:slow").expect("a user"), ..fresh.clone() };
    let behind = Arc::clone(&cached);
    let behind = tokio::spawn(async move { ask(&behind, &slow).await });
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_millis(1)).await;
    *server.0.lock().expect("a lock") = false;
    assert_eq!(ask(&cached, &questions(1)).await, [true], "recalled");
    assert_eq!(ask(&cached, &fresh).await, [false]);
    assert_eq!(ask(&cached, &questions(1)).await, [false], "replaced");
    assert_eq!(behind.await.expect("an answer"), [true]);
    assert_eq!(ask(&cached, &questions(1)).await, [false], "an older answer takes no newer one's place");
}

#[tokio::test(start_paused = true)]
async fn who_asks_since_a_moment_recalls_nothing_older() {
    let server = Arc::new(Scripted::new(Vec::new()));
    let cached = cached(&server);
    let since = |moment| {
        let consistency = Consistency::HigherConsistency;
        let scope = Scope { consistency, recall: Recall::Since(moment), ..scope() };
        Questions { scope: Arc::new(scope), ..questions(1) }
    };
    let before = Instant::now();
    ask(&cached, &questions(1)).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    ask(&cached, &since(before)).await;
    assert_eq!(asked(&server), 2, "the server may have answered the first from a cache of its own");
    ask(&cached, &since(before)).await;
    ask(&cached, &questions(1)).await;
    assert_eq!(asked(&server), 2, "the second was asked past it");
    tokio::time::advance(Duration::from_millis(1)).await;
    ask(&cached, &since(Instant::now())).await;
    assert_eq!(asked(&server), 3, "older than the moment");
    ask(&cached, &since(before)).await;
    assert_eq!(asked(&server), 3, "newer than it must be");
}

/// Says that everything is allowed, as a copy of some number or as the server.
struct From(Source);

#[async_trait]
impl Decider for From {
    async fn decide(&self, questions: &Questions) -> Result<Vec<Answered>, AuthzError> {
        let outcome = Outcome::Decided { allowed: true, as_of: Instant::now(), source: self.0 };
        Ok((0..questions.list.len()).map(|position| Answered { position, outcome: outcome.clone() }).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_recalled_for_its_own_source_alone() {
    let sources = [Source::Authority, Source::Copy(1), Source::Copy(2)];
    for decided_by in sources {
        for asked_of in sources {
            for then_of in sources {
                let cached = CachedDecider::new(Arc::new(From(decided_by)), TIME_TO_LIVE, 1 << 20);
                let of = |source| Questions { scope: Arc::new(Scope { source, ..scope() }), ..questions(1) };
                ask(&cached, &of(asked_of)).await;
                let key = DecisionKey::of(&of(then_of)).remove(0);
                let recalled = cached.recall(&key, &of(then_of).scope).is_some();
                let right = decided_by == asked_of && asked_of == then_of;
                assert_eq!(recalled, right, "decided by {decided_by:?}, asked of {asked_of:?}, then of {then_of:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let server = Arc::new(Scripted::new(Vec::new()));
    let bytes_max = 100_000;
    let cached = CachedDecider::new(Arc::clone(&server) as _, TIME_TO_LIVE, bytes_max);
    for user in 0..200 {
        ask(&cached, &of(&format!("user:{user}"), 0..50)).await;
    }
    cached.entries.run_pending_tasks();
    let held = cached.entries.weighted_size();
    assert!((1..=bytes_max).contains(&held), "{held} bytes");
}

/// Decides from the whole question, so that a field that was forgotten in the key gives a wrong answer.
struct FromEverything(AtomicU64);

fn is_allowed(scope: &Scope, question: &Question) -> bool {
    let Scope { store_id, model_id, .. } = scope;
    let Question { check, contextual } = question;
    let text = format!("{store_id:?}{model_id:?}{check:?}{contextual:?}");
    text.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))).count_ones() % 2 == 0
}

#[async_trait]
impl Decider for FromEverything {
    async fn decide(&self, questions: &Questions) -> Result<Vec<Answered>, AuthzError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let as_of = Instant::now();
        let answer = |(position, question)| {
            let allowed = is_allowed(&questions.scope, question);
            Answered { position, outcome: Outcome::Decided { allowed, as_of, source: Source::Authority } }
        };
        Ok(questions.list.iter().enumerate().map(answer).collect())
    }
}

/// Small pools, so that many questions differ in one field only.
fn any_question() -> impl Strategy<Value = (Scope, Question)> {
    let values = prop_oneof![
        Just(json!(1)),
        Just(json!(1.0)),
        Just(json!("1")),
        Just(json!([1])),
        Just(json!([[1]])),
        Just(json!(null)),
    ];
    let tuples = prop_oneof![
        Just(vec![]),
        Just(vec![("user:anne", "member", "group:a")]),
        Just(vec![("user:anne", "member", "group:b")]),
        Just(vec![("user:anne", "member", "group:a"), ("user:anne", "member", "group:b")]),
    ];
    let names = ("[ab]{1,2}", "[ab]{1,2}", "user:[ab]", "[rs]", "doc:[ab]");
    (names, tuples, prop::option::of(("[ab]", values))).prop_map(|(names, tuples, value)| {
        let (store_id, model_id, user, relation, object) = names;
        let tuple = |(user, relation, object)| RelationshipTuple::parse(user, relation, object).expect("a tuple");
        let check = crate::authz::Check {
            user: Object::parse(&user).expect("a user"),
            relation: Relation::parse(&relation).expect("a relation"),
            object: Object::parse(&object).expect("an object"),
        };
        let contextual =
            Contextual { tuples: tuples.into_iter().map(tuple).collect(), context: value.into_iter().collect() };
        (Scope { store_id, model_id, ..scope() }, Question { check, contextual: Arc::new(contextual) })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cached_is_uncached(asked in prop::collection::vec(any_question(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let cached = CachedDecider::new(Arc::new(FromEverything(AtomicU64::new(0))), TIME_TO_LIVE, 1 << 20);
            let one = |(scope, question): &(Scope, Question)| {
                let questions = Questions {
                    scope: Arc::new(scope.clone()),
                    principal: question.check.user.clone(),
                    list: vec![question.clone()],
                    deadline: Instant::now() + TIME_TO_LIVE,
                };
                let cached = &cached;
                let expected = is_allowed(scope, question);
                async move { (ask(cached, &questions).await, expected) }
            };
            // All at the same time, then one after another.
            for (answer, expected) in futures::future::join_all(asked.iter().map(one)).await {
                assert_eq!(answer, [expected]);
            }
            for asked in &asked {
                let (answer, expected) = one(asked).await;
                assert_eq!(answer, [expected]);
            }
        });
    }
}
