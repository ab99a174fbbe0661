//! The cache recalls what it may, and nothing else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::authz::decider::doubles::{Script, Scripted, basis, decided, of, questions};
use crate::authz::decider::{Basis, Question, Recall};
use crate::authz::{Consistency, Source};
use crate::engine::Contextual;
use crate::identity::{Principal, sample};
use crate::language::{Object, Relation, RelationshipTuple};

const TIME_TO_LIVE: Duration = Duration::from_secs(10);

fn cached(inner: &Arc<Scripted>) -> CachedDecider {
    CachedDecider::new(Arc::clone(inner) as _, TIME_TO_LIVE, 1 << 20)
}

/// Returns how many questions have reached the server so far.
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

    let next = Questions { basis: Arc::new(Basis { generation: 1, ..basis() }), ..questions(1) };
    ask(&cached, &next).await;
    assert_eq!(asked(&server), 3, "of another generation");
    let unconfirmed = Questions { basis: Arc::new(Basis { recall: Recall::Nothing, ..basis() }), ..questions(1) };
    ask(&cached, &unconfirmed).await;
    assert_eq!(asked(&server), 4, "nothing may be recalled");
}

/// The contexts differ in one thing each, and the same user asks for the same object.
#[tokio::test(start_paused = true)]
async fn requests_with_different_contexts_share_no_decision() {
    let server = Arc::new(Scripted::new(Vec::new()));
    let cached = cached(&server);
    let rows = [
        ("no context", json!({})),
        ("a context", json!({ "purpose": "audit" })),
        ("another value", json!({ "purpose": "care" })),
        ("a value of another type", json!({ "purpose": ["audit"] })),
        ("another parameter", json!({ "reason": "audit" })),
        ("two parameters", json!({ "purpose": "audit", "reason": "audit" })),
        ("one value within the other", json!({ "purpose": { "reason": "audit" } })),
    ];
    for (seen, (row, context)) in rows.iter().enumerate() {
        let principal = sample::in_context(Principal::stated("user:anne").expect("a user"), context);
        let Questions { list, .. } = questions(1);
        let list: Vec<Question> = list
            .into_iter()
            .map(|question| Question { contextual: Arc::clone(principal.contextual()), ..question })
            .collect();
        let questions = Questions { list, ..questions(1) };
        ask(&cached, &questions).await;
        assert_eq!(asked(&server), seen + 1, "{row}: nobody asked this before");
        ask(&cached, &questions).await;
        assert_eq!(asked(&server), seen + 1, "{row}: it is remembered");
    }
}

#[tokio::test(start_paused = true)]
async fn only_decisions_are_remembered() {
    struct Undecided;
    #[async_trait]
    impl Decider for Undecided {
        async fn decide(&self, _: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
            let failed = Outcome::Failed(AuthzError::Unavailable("throttled".to_owned()));
            let answered = |position, outcome| NumberedOutcome { position, outcome };
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

/// Gives the answer that it is told to, as of the moment at which it was asked.
#[derive(Default)]
struct Settable(Mutex<bool>);

#[async_trait]
impl Decider for Settable {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let (allowed, as_of) = (*self.0.lock().expect("a lock"), Instant::now());
        if questions.principal.id() == "slow" {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok((0..questions.list.len())
            .map(|position| NumberedOutcome {
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
    let fresh = Basis { consistency: Consistency::HigherConsistency, recall: Recall::Nothing, ..basis() };
    let fresh = Questions { basis: Arc::new(fresh), ..questions(1) };
    *server.0.lock().expect("a lock") = true;
    assert_eq!(ask(&cached, &questions(1)).await, [true]);
    tokio::time::advance(Duration::from_millis(1)).await;
    // The answer to a slow question was made before the revocation, and arrives after it.
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
        let basis = Basis { consistency, recall: Recall::Since(moment), ..basis() };
        Questions { basis: Arc::new(basis), ..questions(1) }
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

/// Allows everything, and claims to be this source.
struct From(Source);

#[async_trait]
impl Decider for From {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let outcome = Outcome::Decided { allowed: true, as_of: Instant::now(), source: self.0 };
        Ok((0..questions.list.len()).map(|position| NumberedOutcome { position, outcome: outcome.clone() }).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_recalled_for_its_own_source_alone() {
    let sources = [Source::Authority, Source::Copy(1), Source::Copy(2)];
    for decided_by in sources {
        for asked_of in sources {
            for then_of in sources {
                let cached = CachedDecider::new(Arc::new(From(decided_by)), TIME_TO_LIVE, 1 << 20);
                let of = |source| Questions { basis: Arc::new(Basis { source, ..basis() }), ..questions(1) };
                ask(&cached, &of(asked_of)).await;
                let key = DecisionKey::of(&of(then_of)).remove(0);
                let recalled = cached.recall(&key, &of(then_of).basis).is_some();
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

/// Decides from every part of the question, so that a part that the key leaves out gives a wrong answer.
struct FromEverything(AtomicU64);

fn is_allowed(basis: &Basis, question: &Question) -> bool {
    let Basis { store_id, model_id, .. } = basis;
    let Question { check, contextual } = question;
    let text = format!("{store_id:?}{model_id:?}{check:?}{contextual:?}");
    text.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))).count_ones() % 2 == 0
}

#[async_trait]
impl Decider for FromEverything {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let as_of = Instant::now();
        let answer = |(position, question)| {
            let allowed = is_allowed(&questions.basis, question);
            NumberedOutcome { position, outcome: Outcome::Decided { allowed, as_of, source: Source::Authority } }
        };
        Ok(questions.list.iter().enumerate().map(answer).collect())
    }
}

/// Draws from small pools, so that many questions differ in one part only.
fn any_question() -> impl Strategy<Value = (Basis, Question)> {
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
        (Basis { store_id, model_id, ..basis() }, Question { check, contextual: Arc::new(contextual) })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cached_is_uncached(asked in prop::collection::vec(any_question(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let cached = CachedDecider::new(Arc::new(FromEverything(AtomicU64::new(0))), TIME_TO_LIVE, 1 << 20);
            let one = |(basis, question): &(Basis, Question)| {
                let questions = Questions {
                    basis: Arc::new(basis.clone()),
                    principal: question.check.user.clone(),
                    list: vec![question.clone()],
                    deadline: Instant::now() + TIME_TO_LIVE,
                };
                let cached = &cached;
                let expected = is_allowed(basis, question);
                async move { (ask(cached, &questions).await, expected) }
            };
            // The questions are asked all at the same time, and then one after another.
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
