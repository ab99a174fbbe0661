//! Verification end to end: the copy is right or wrong about one thing, and the server answers or fails.

mod lost;
mod world;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use roaring::RoaringBitmap;
use tokio::time::sleep;
use tracing_subscriber::fmt::MakeWriter;

use self::world::{DOCS, POLL, Setup, USERS, named};
use super::*;
use crate::authz::Source;
use crate::authz::verification::standing::Trust;
use crate::authz::verification::{StandingDirectory, Stratum};
use crate::engine::Contextual;
use crate::language::{Object, Relation};
use crate::telemetry;

#[tokio::test(start_paused = true)]
async fn a_tuple_too_many_takes_the_copy_out_and_a_new_copy_brings_it_back() {
    let setup = Setup::new();
    for _ in 0..240 {
        setup.step().await;
    }
    assert_eq!(setup.trust(), Trust::Trusted, "nothing is wrong yet");
    let wrong = named("user:u1", "doc:2");
    setup.world.with(|state| state.added.insert(wrong.clone()));
    setup.poll();
    assert!(setup.allows("user:u1", "doc:2").await, "the copy decides");
    let took = setup.until(Trust::Rebuilding).await;
    assert!(took < Duration::from_mins(10), "{took:?}");
    assert!(!setup.allows("user:u1", "doc:2").await, "the server decides");
    let positions = Arc::new(RoaringBitmap::from([0]));
    let query = VisibleSetQuery {
        user: Object::parse("user:u1").expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        guards: Arc::new(vec![Object::parse("doc:2").expect("an object")]),
        positions,
        contextual: Arc::default(),
        consistency: Consistency::MinimizeLatency,
        deadline: Instant::now() + POLL,
    };
    assert_eq!(setup.authorizer.visible_set(&query).await.expect("told"), None, "nor does it tell visible sets");
    let abilities = setup.authorizer.abilities(Consistency::MinimizeLatency);
    assert!(!abilities.checks_are_local);
    assert_eq!((abilities.lag, abilities.copy_is_trusted), (None, Some(false)));
    setup.until(Trust::Trusted).await;
    assert!(!setup.allows("user:u1", "doc:2").await, "the new copy is right");

    setup.world.with(|state| state.added.insert(wrong.clone()));
    setup.until(Trust::Out).await;
    for _ in 0..1_000 {
        setup.step().await;
    }
    assert_eq!(setup.trust(), Trust::Out, "the second time it stays out");
    let setup = setup.restarted().await;
    assert_eq!(setup.trust(), Trust::Out, "after a restart too");
    StandingDirectory::new(setup.directory.path()).trust_again().expect("written");
    setup.world.with(|state| state.added.clear());
    setup.until(Trust::Trusted).await;
}

#[tokio::test(start_paused = true)]
async fn a_fall_survives_a_restart() {
    let setup = Setup::new();
    setup.world.with(|state| state.added.insert(named("user:u1", "doc:2")));
    setup.until(Trust::Rebuilding).await;
    setup.world.with(|state| state.fault_stays = true);
    sleep(POLL * 4).await;
    let setup = setup.restarted().await;
    assert_ne!(setup.trust(), Trust::Trusted);
    assert!(!setup.allows("user:u1", "doc:2").await, "the server decides");
    // The new copy has the same fault, and so falls for the second time.
    setup.until(Trust::Out).await;
}

/// One kind was asked once before the copy fell, and nobody can decide another one.
#[tokio::test(start_paused = true)]
async fn a_copy_comes_back_without_kinds_that_nobody_asks_or_decides() {
    let setup = Setup::new();
    let asked = async |object: &str| {
        let batch = Setup::batch("user:rare", [object.to_owned()]);
        setup.authorizer.check(&batch).await.expect("decided");
    };
    asked("doc:rare-0").await;
    for _ in 0..10 {
        setup.step().await;
    }
    setup.world.with(|state| state.added.insert(named("user:u1", "doc:2")));
    setup.until(Trust::Rebuilding).await;
    let begun = Instant::now();
    while setup.trust() != Trust::Trusted {
        setup.step().await;
        asked("doc:hostile-0").await;
        assert!(begun.elapsed() < Duration::from_mins(10), "still {:?}", setup.verifier().standing());
    }
}

/// Switching verification off does not bring a wrong copy back. Only an operator's word does.
#[tokio::test(start_paused = true)]
async fn a_copy_that_fell_stays_out_where_nothing_is_verified() {
    for (falls, trust) in [(1, Trust::Rebuilding), (2, Trust::Out)] {
        let setup = Setup::new();
        setup.world.with(|state| {
            state.added.insert(named("user:u1", "doc:2"));
            state.fault_stays = true;
        });
        setup.until(trust).await;
        let setup = setup.restarted_with(0.0).await;
        for _ in 0..100 {
            setup.step().await;
            assert!(!setup.allows("user:u1", "doc:2").await, "{falls} falls: the server decides");
        }
        assert_ne!(setup.trust(), Trust::Trusted, "{falls} falls");
        assert!(!setup.authorizer.is_trusted(), "{falls} falls");
        StandingDirectory::new(setup.directory.path()).trust_again().expect("written");
        setup.world.with(|state| state.fault_stays = false);
        setup.until(Trust::Trusted).await;
        assert!(!setup.allows("user:u1", "doc:2").await, "{falls} falls: the new copy is right");
    }
}

/// No request asks the differing question again.
#[tokio::test(start_paused = true)]
async fn a_confirmation_goes_on_after_a_restart() {
    let setup = Setup::new();
    setup.world.with(|state| state.added.insert(named("user:rare", "doc:2")));
    setup.poll();
    assert!(setup.allows("user:rare", "doc:2").await, "the copy decides");
    setup.idle_until("half confirmed", Setup::keeps_questions).await;
    // The process is stopped several times before the difference is confirmed.
    let mut setup = setup;
    for _ in 0..3 {
        assert_eq!(setup.trust(), Trust::Trusted, "half confirmed");
        setup = setup.restarted().await;
        setup.poll();
    }
    setup.idle_until("confirmed", |setup| setup.trust() == Trust::Rebuilding).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_copy_fell_by_is_asked_of_the_next_one_after_a_restart() {
    let setup = Setup::new();
    setup.world.with(|state| {
        state.added.insert(named("user:rare", "doc:2"));
        state.fault_stays = true;
    });
    setup.poll();
    assert!(setup.allows("user:rare", "doc:2").await, "the copy decides");
    setup.idle_until("fallen", |setup| setup.trust() != Trust::Trusted).await;
    sleep(POLL * 4).await;
    let setup = setup.restarted().await;
    setup.idle_until("out", |setup| setup.trust() == Trust::Out).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_with_the_fault_of_the_one_before_is_never_trusted() {
    let setup = Setup::new();
    setup.world.with(|state| {
        state.added.insert(named("user:rare", "doc:2"));
        state.fault_stays = true;
    });
    setup.poll();
    assert!(setup.allows("user:rare", "doc:2").await, "the copy decides");
    setup.until(Trust::Rebuilding).await;
    // The copy answers many questions of the same kind rightly.
    while setup.trust() != Trust::Out {
        setup.step().await;
        assert_ne!(setup.trust(), Trust::Trusted);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_denied_wrongly_is_asked_again_after_a_restart() {
    let setup = Setup::new();
    setup.world.with(|state| {
        state.dropped.insert(named("user:u0", "doc:2"));
        state.fault_stays = true;
    });
    setup.poll();
    assert!(!setup.allows("user:u0", "doc:2").await, "the copy decides");
    let is_routed = |setup: &Setup| !setup.verifier().standing().routed.is_empty();
    setup.idle_until("denied wrongly", is_routed).await;
    sleep(POLL * 4).await;
    let setup = setup.restarted().await;
    assert!(is_routed(&setup), "the server decides");
    setup.idle_until("another copy", |setup| !is_routed(setup)).await;
    setup.idle_until("denied wrongly again", is_routed).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_difference_changes_nothing() {
    let setup = Setup::new();
    setup.world.with(|state| state.errors_percent = 30);
    let mut asked = 0;
    for step in 0..2_400_u64 {
        // Rights are granted and revoked all the time, most of them several times between two looks at the log.
        setup.world.with(|state| {
            for _ in 0..4 {
                let (user, doc) = (state.below(5), state.below(20));
                let fact = named(&format!("user:u{user}"), &format!("doc:{doc}"));
                if !state.server.remove(&fact) {
                    state.server.insert(fact);
                }
            }
        });
        if step % 3 == 0 {
            // This look finds the server down.
            sleep(POLL).await;
        }
        setup.step().await;
        asked = setup.world.with(|state| state.asked.len());
    }
    assert_eq!((setup.trust(), setup.verifier().standing().falls), (Trust::Trusted, 0));
    assert!(asked > 300, "{asked} questions were asked");
}

#[tokio::test(start_paused = true)]
async fn calls_are_bounded() {
    let setup = Setup::new();
    for _ in 0..400 {
        setup.step().await;
    }
    let per_second = setup.world.with(|state| {
        let mut seconds: HashMap<u64, usize> = HashMap::new();
        for call in &state.calls {
            *seconds.entry((*call - setup.start).as_secs()).or_default() += 1;
        }
        seconds.into_values().max()
    });
    assert!(per_second.is_some_and(|calls| calls <= 4), "{per_second:?} calls in a second");
    let asked = setup.world.with(|state| state.asked.len());
    assert!((100..1_500).contains(&asked), "{asked} of {} checks in 200 s", 400 * USERS * (DOCS + 1));
}

#[tokio::test(start_paused = true)]
async fn a_tuple_too_few_goes_to_the_server_until_both_agree() {
    let setup = Setup::new();
    setup.world.with(|state| {
        state.dropped.insert(named("user:u0", "doc:2"));
        state.fault_stays = true;
    });
    setup.poll();
    assert!(!setup.allows("user:u0", "doc:2").await, "the copy decides");
    let begun = Instant::now();
    while setup.verifier().standing().routed.is_empty() {
        setup.step().await;
        assert!(begun.elapsed() < Duration::from_mins(30), "not found");
    }
    assert!(setup.allows("user:u0", "doc:2").await, "the server decides");
    assert_eq!(setup.trust(), Trust::Trusted);
    setup.world.with(|state| state.fault_stays = false);
    setup.authorizer.view.wish_comparison();
    while !setup.verifier().standing().routed.is_empty() {
        setup.step().await;
    }
    assert!(setup.allows("user:u0", "doc:2").await, "the copy is right");
}

/// A request that brings values for conditions makes its question one of another kind, so this asks both kinds.
#[tokio::test(start_paused = true)]
async fn a_wrong_denial_of_two_kinds_is_found_for_both() {
    let setup = Setup::new();
    setup.world.with(|state| {
        state.dropped.insert(named("user:u0", "doc:2"));
        state.fault_stays = true;
    });
    let context = serde_json::json!({ "hour": 9 }).as_object().cloned().expect("an object");
    let contextual = Arc::new(Contextual { context, ..Contextual::default() });
    let begun = Instant::now();
    while setup.verifier().standing().routed.len() < 2 {
        setup.poll();
        let batch = Setup::batch("user:u0", ["doc:2".to_owned()]);
        setup.authorizer.check(&batch).await.expect("decided");
        let batch = CheckBatch { contextual: Arc::clone(&contextual), ..batch };
        setup.authorizer.check(&batch).await.expect("decided");
        sleep(POLL).await;
        assert!(begun.elapsed() < Duration::from_mins(10), "{:?}", setup.verifier().standing());
    }
}

/// A copy explains only what it may decide, and says as of when.
#[tokio::test(start_paused = true)]
async fn a_copy_that_may_not_decide_explains_nothing() {
    let known = async |setup: &Setup, relation: &str| {
        let relation = Relation::parse(relation).expect("a relation");
        setup.authorizer.relationships(&relation).await.expect("the copy can be read")
    };
    let is_withheld = async |setup: &Setup| matches!(known(setup, "can_read").await, KnownRelationships::Withheld);

    let setup = Setup::new();
    let KnownRelationships::State { by, .. } = known(&setup, "can_read").await else { panic!("fresh and trusted") };
    let as_of = setup.authorizer.progress().borrow().fresh_as_of;
    assert_eq!((by.model_id.as_ref(), by.source, by.as_of), ("m1", Source::Copy(1), as_of), "fresh and trusted");

    setup.sender.send_modify(|progress| progress.fresh_as_of = None);
    assert!(is_withheld(&setup).await, "not complete");
    setup.poll();
    tokio::time::advance(setup.authorizer.config.staleness_max + Duration::from_millis(1)).await;
    assert!(is_withheld(&setup).await, "behind");
    setup.poll();
    assert!(!is_withheld(&setup).await, "caught up");
    setup.world.with(|state| state.added.insert(named("user:u1", "doc:2")));
    setup.until(Trust::Rebuilding).await;
    setup.poll();
    assert!(is_withheld(&setup).await, "found wrong");

    let setup = Setup::new();
    setup.world.with(|state| {
        state.dropped.insert(named("user:u0", "doc:2"));
        state.fault_stays = true;
    });
    let begun = Instant::now();
    while setup.verifier().standing().routed.is_empty() {
        setup.step().await;
        assert!(begun.elapsed() < Duration::from_mins(30), "not found");
    }
    setup.poll();
    assert!(is_withheld(&setup).await, "a relation that the server has to decide");
    let other = known(&setup, "can_edit").await;
    assert!(matches!(other, KnownRelationships::State { .. }), "another relation");
}

/// The copy hides a guard, so that no request finds it.
#[tokio::test(start_paused = true)]
async fn a_guard_that_is_hidden_in_vain_is_found() {
    let setup = Setup::new();
    let hidden = named("user:u0", "doc:2");
    setup.world.with(|state| {
        state.dropped.insert(hidden);
        state.fault_stays = true;
    });
    let guards: Vec<Object> = (0..DOCS).map(|doc| Object::parse(&format!("doc:{doc}")).expect("an object")).collect();
    let guards = Arc::new(guards);
    let begun = Instant::now();
    while setup.verifier().standing().routed.is_empty() {
        setup.poll();
        for _ in 0..50 {
            let query = VisibleSetQuery {
                user: Object::parse("user:u0").expect("a user"),
                relation: Relation::parse("can_read").expect("a relation"),
                guards: Arc::clone(&guards),
                positions: Arc::new((0..u32::try_from(DOCS).expect("few")).collect()),
                contextual: Arc::default(),
                consistency: Consistency::MinimizeLatency,
                deadline: Instant::now() + POLL,
            };
            setup.authorizer.visible_set(&query).await.expect("told");
        }
        sleep(POLL).await;
        assert!(begun.elapsed() < Duration::from_hours(1), "not found");
    }
}

#[tokio::test(start_paused = true)]
async fn one_faulty_kind_in_ten_thousand_is_found_under_a_flood() {
    let setup = Setup::new();
    // The guards are under 10,000 conditions, and the copy is wrong about one of them.
    let faulty = "doc:c7777-0";
    setup.world.with(|state| state.added.insert(named("user:rare", faulty)));
    let begun = Instant::now();
    let mut kind = 0;
    while setup.trust() == Trust::Trusted {
        setup.poll();
        for _ in 0..5 {
            let flood = Setup::batch("user:flood", (0..DOCS).map(|doc| format!("doc:{doc}")));
            setup.authorizer.check(&flood).await.expect("decided");
        }
        for _ in 0..50 {
            let rare = Setup::batch("user:rare", [format!("doc:c{kind}-0")]);
            setup.authorizer.check(&rare).await.expect("decided");
            kind = (kind + 1) % 10_000;
        }
        sleep(POLL).await;
        assert!(begun.elapsed() < Duration::from_hours(1), "not found");
    }
    assert_eq!(setup.verifier().standing().cause.expect("a cause").conditions, ["c7777"]);
}

/// Makes one decision of the first copy.
fn of_first_copy(allowed: bool) -> Decisions {
    let Decisions { list, .. } = Decisions::now([allowed]);
    Decisions::new(list, Source::Copy(1), "m1".into())
}

/// The copy is right, but a remembered decision of it is wrong.
#[tokio::test(start_paused = true)]
async fn a_poisoned_cache_is_found() {
    let setup = Setup::new();
    let begun = Instant::now();
    while setup.trust() == Trust::Trusted {
        setup.poll();
        let at = Instant::now();
        let batch = Setup::batch("user:u1", ["doc:2".to_owned()]);
        let allowed = true;
        setup.verifier().checked(&batch, Some(&of_first_copy(allowed)), at);
        sleep(POLL).await;
        assert!(begun.elapsed() < Duration::from_mins(10), "not found");
    }
}

/// A revocation may reach the copy within the bound. One that comes later is a fault.
#[tokio::test(start_paused = true)]
async fn lag_explains_a_difference_up_to_its_bound() {
    for (name, late, trusted) in [("in time", 1, true), ("late", 20, false)] {
        let setup = Setup::new();
        let fact = named("user:u0", "doc:2");
        setup.step().await;
        let revoked = (setup.authorizer.view.clock)();
        // The copy goes on allowing it, although it says that it is new.
        setup.world.with(|state| {
            state.server.remove(&fact);
            state.added.insert(fact.clone());
        });
        let at = Instant::now();
        while at.elapsed() < Duration::from_secs(late) {
            setup.authorizer.check(&Setup::batch("user:u0", ["doc:2".to_owned()])).await.expect("decided");
            // This offers the question so often that it is chosen at once, whatever the share is.
            let decisions = of_first_copy(setup.world.with(|state| state.copy.contains(&fact)));
            for _ in 0..200 {
                setup.verifier().checked(
                    &Setup::batch("user:u0", ["doc:2".to_owned()]),
                    Some(&decisions),
                    Instant::now(),
                );
            }
            setup.sender.send_modify(|progress| progress.fresh_as_of = Some(Instant::now()));
            sleep(POLL).await;
        }
        setup.world.with(|state| {
            state.added.remove(&fact);
            state.copy.remove(&fact);
        });
        setup.authorizer.view.news.tell(Instant::now(), Some(revoked));
        for _ in 0..40 {
            setup.sender.send_modify(|progress| progress.fresh_as_of = Some(Instant::now()));
            sleep(POLL).await;
        }
        assert_eq!(setup.trust() == Trust::Trusted, trusted, "{name}");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The audit log names the question and the call. The log of the process names only its kind and digest.
#[tokio::test(start_paused = true)]
async fn a_canary_is_absent_from_the_log_of_the_process() {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt().with_writer(lines.clone()).with_max_level(tracing::Level::TRACE).finish();
    // With only one subscriber, tracing would turn a line off for good if another test came across it first.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(log);
    let setup = Setup::new();
    setup.world.with(|state| state.added.insert(named("user:canary", "doc:canary_page")));
    while setup.trust() == Trust::Trusted {
        setup.poll();
        let batch = Setup::batch("user:canary", ["doc:canary_page".to_owned()]);
        let checking = setup.authorizer.check(&batch);
        telemetry::in_call("the-call".into(), checking).await.expect("decided");
        sleep(POLL).await;
    }
    let log = String::from_utf8(lines.0.lock().expect("a lock").clone()).expect("text");
    assert!(log.contains("digest") && log.contains("doc#can_read for user"), "{log}");
    assert!(!log.contains("canary"), "{log}");
    let records = setup.sink.0.lock().expect("a lock").clone();
    let of_canary = records.iter().find(|record| record.user == "user:canary").expect("recorded");
    assert_eq!(of_canary.trace_id.as_deref(), Some("the-call"));
    assert_eq!(of_canary.outcome, "copy_allowed");
}

#[tokio::test(start_paused = true)]
async fn more_is_verified_after_a_new_model() {
    let setup = Setup::new();
    let asked = || setup.world.with(|state| state.asked.len());
    for _ in 0..240 {
        setup.step().await;
    }
    let before = asked();
    for _ in 0..100 {
        setup.step().await;
    }
    let usual = asked() - before;
    setup.sender.send_modify(|progress| progress.version.model_id = "m2".to_owned());
    let before = asked();
    for _ in 0..100 {
        setup.step().await;
    }
    let after_a_new_model = asked() - before;
    assert!(after_a_new_model > usual * 2, "{usual} as usual, {after_a_new_model} after");
}

#[test]
fn a_kind_is_named_without_users_and_objects() {
    let batch = Setup::batch("user:anne", ["doc:1".to_owned()]);
    let kind = Stratum {
        object_type: "doc".to_owned(),
        relation: batch.checks[0].relation.to_string(),
        subject_type: "user".to_owned(),
        conditions: vec!["office".to_owned(), "region".to_owned()],
        contextual_tuples: true,
        context: Contextual::default().context.is_empty(),
    };
    let expected = "doc#can_read for user, under office and region, with contextual tuples, with context";
    assert_eq!(kind.to_string(), expected);
}
