//! Exactly the items whose guards the authorizer allows come out, or none does, whatever the authorizer answers.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::authz::{Decision, Decisions, Reached};
use crate::chunk::Written;

/// Answers by a script, and keeps the questions.
struct Scripted {
    answer: fn(&CheckBatch) -> Result<Decisions, AuthzError>,
    asked: Mutex<Vec<Check>>,
}

#[async_trait]
impl Authorizer for Scripted {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        self.asked.lock().unwrap().extend(batch.checks.iter().cloned());
        (self.answer)(batch)
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }
}

/// Never answers.
struct Hanging;

#[async_trait]
impl Authorizer for Hanging {
    async fn check(&self, _batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        std::future::pending().await
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        std::future::pending().await
    }
}

fn candidate(chunk_id: &str, guard: &str) -> Candidate {
    let (chunk_id, guard) = (chunk_id.to_owned(), Object::parse(guard).unwrap());
    Candidate { chunk_id, guard, score: 1.0, version: None, written: Written::Unknown }
}

/// Allows the guards whose id begins with `open`.
fn open_allowed(check: &Check) -> bool {
    check.object.id().starts_with("open")
}

#[expect(clippy::unnecessary_wraps, reason = "one of the scripts, which may fail")]
fn correct(batch: &CheckBatch) -> Result<Decisions, AuthzError> {
    Ok(Decisions::now(batch.checks.iter().map(open_allowed)))
}

fn permuted(batch: &CheckBatch) -> Result<Decisions, AuthzError> {
    correct(batch).map(|decisions| with(decisions, |list| list.reverse()))
}

fn all_allowed(batch: &CheckBatch) -> Decisions {
    Decisions::now(batch.checks.iter().map(|_| true))
}

/// Changes the list of some decisions.
fn with(mut decisions: Decisions, change: impl FnOnce(&mut Vec<Decision>)) -> Decisions {
    change(&mut decisions.list);
    decisions
}

async fn permitted_ids(authorizer: &dyn Authorizer, items: Vec<Candidate>) -> Result<Vec<String>, AuthzError> {
    let principal = Principal::stated("user:anne").unwrap();
    let relation = Relation::parse("can_read").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut enforcer = Enforcer::new(authorizer, &principal, &relation, Consistency::default(), deadline);
    let permitted = enforcer.enforce(items).await?;
    Ok(permitted.into_iter().map(|p| p.into_item().chunk_id).collect())
}

#[tokio::test]
async fn an_answer_that_does_not_match_the_questions_permits_nothing() {
    type Answers = fn(&CheckBatch) -> Result<Decisions, AuthzError>;
    let faults: [(&str, Answers); 6] = [
        ("an error", |_| Err(AuthzError::Unavailable("down".to_owned()))),
        ("no answer", |_| Ok(Decisions::now([]))),
        ("one too few", |batch| Ok(with(all_allowed(batch), |list| list.truncate(1)))),
        ("one too many", |batch| {
            let surplus = |list: &mut Vec<Decision>| list.push(Decision { position: list.len(), ..list[0] });
            Ok(with(all_allowed(batch), surplus))
        }),
        ("one twice", |batch| Ok(with(all_allowed(batch), |list| list.extend_from_within(..)))),
        ("one twice and one missing", |batch| {
            Ok(with(all_allowed(batch), |list| list.iter_mut().for_each(|decision| decision.position = 0)))
        }),
    ];
    for (fault, answer) in faults {
        let items = vec![candidate("1", "document:open1"), candidate("2", "document:shut")];
        let result = permitted_ids(&Scripted { answer, asked: Mutex::default() }, items).await;
        assert!(result.is_err(), "{fault}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_authorizer_ends_at_the_deadline() {
    let result = permitted_ids(&Hanging, vec![candidate("1", "document:open")]).await;
    assert!(matches!(result, Err(AuthzError::DeadlineExceeded)), "{result:?}");
}

#[tokio::test]
async fn nothing_is_asked_for_nothing() {
    let never: fn(&CheckBatch) -> Result<Decisions, AuthzError> = |_| panic!("asked for nothing");
    let result = permitted_ids(&Scripted { answer: never, asked: Mutex::default() }, Vec::new()).await;
    assert_eq!(result.unwrap(), Vec::<String>::new());
}

/// Decoys are checked in the same batch, even if nothing else is asked or the details deny every guard. Neither the answers
/// about them nor the fact that they were asked permits anything.
#[tokio::test]
async fn decoys_are_asked_and_permit_nothing() {
    let decoys = ["document:decoy1", "document:decoy2"].map(|decoy| Object::parse(decoy).unwrap());
    let all_are: fn(&CheckBatch) -> Result<Decisions, AuthzError> = |batch| Ok(all_allowed(batch));
    let anne = Principal::stated("user:anne").unwrap();
    let condition = crate::identity::details::OneOf { key: "kind".to_owned(), values: ["public".to_owned()].into() };
    let narrowed = anne.clone().on_condition(&condition);
    let actor = |on| {
        let (actor, relation) = (Object::parse("agent:helper").unwrap(), Relation::parse("agent_reader").unwrap());
        anne.clone().acted_for_by(Delegation { actor, relation, on })
    };
    let items = || vec![candidate("1", "document:open"), candidate("2", "document:open")];
    let rows: [(&str, Principal, Vec<Candidate>, usize, usize); 6] = [
        ("a user", anne.clone(), items(), 3, 2),
        ("nothing beside them", anne.clone(), vec![], 2, 0),
        ("an agent on each guard", actor(DelegationOn::Guard), items(), 6, 2),
        ("an agent on each guard, nothing beside them", actor(DelegationOn::Guard), vec![], 4, 0),
        ("an agent of the user", actor(DelegationOn::User), items(), 4, 2),
        ("details that deny", narrowed, items(), 2, 0),
    ];
    let relation = Relation::parse("can_read").unwrap();
    for (row, principal, items, asked, permitted) in rows {
        let scripted = Scripted { answer: all_are, asked: Mutex::default() };
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut enforcer = Enforcer::new(&scripted, &principal, &relation, Consistency::default(), deadline);
        let got = enforcer.enforce_beside(items, &decoys).await.unwrap();
        assert_eq!((scripted.asked.lock().unwrap().len(), got.len()), (asked, permitted), "{row}");
        // No decoy leaves a ruling. An item with such a guard would be decided anew, or denied by the details as before.
        assert!(decoys.iter().all(|decoy| enforcer.known(decoy) != Some(true)), "{row}");
    }
    let failing: fn(&CheckBatch) -> Result<Decisions, AuthzError> = |_| Err(AuthzError::Unavailable("down".to_owned()));
    let scripted = Scripted { answer: failing, asked: Mutex::default() };
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut enforcer = Enforcer::new(&scripted, &anne, &relation, Consistency::default(), deadline);
    assert!(enforcer.enforce_beside(Vec::<Candidate>::new(), &decoys).await.is_err());
}

#[test]
fn a_chunk_that_changed_hands_is_not_hydrated() {
    let chunk = |id: &str, guard: &str| Chunk {
        id: id.to_owned(),
        document_id: "d".to_owned(),
        guard: Object::parse(guard).unwrap(),
        title: String::new(),
        heading_path: Vec::new(),
        text: "secret".to_owned(),
        metadata: crate::chunk::Metadata::new(),
        vector: Vec::new(),
    };
    let permitted = || Permitted { item: candidate("1", "document:open") };
    let principal = Principal::stated("user:anne").unwrap();
    let hydrated = |chunk| permitted().hydrate(chunk, &mut principal.ledger()).is_some();
    assert!(hydrated(chunk("1", "document:open")));
    assert!(!hydrated(chunk("1", "document:shut")));
    assert!(!hydrated(chunk("2", "document:open")));
}

proptest! {
    /// Exactly the permitted items come out, in their order, even if one document has many chunks, if ids are equal or
    /// empty, and if the answers come in any order.
    #[test]
    fn exactly_the_permitted_items_come_out(
        rows in prop::collection::vec(("[a-c]{0,1}", "(open|shut)[0-9]"), 0..60),
        reverse in any::<bool>(),
    ) {
        let items: Vec<Candidate> = rows.iter().map(|(id, guard)| candidate(id, &format!("document:{guard}"))).collect();
        let expected: Vec<String> =
            rows.iter().filter(|(_, guard)| guard.starts_with("open")).map(|(id, _)| id.clone()).collect();
        let scripted = Scripted { answer: if reverse { permuted } else { correct }, asked: Mutex::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let permitted = runtime.block_on(permitted_ids(&scripted, items)).unwrap();
        prop_assert_eq!(permitted, expected);

        let asked = scripted.asked.into_inner().unwrap();
        let distinct: std::collections::HashSet<&Object> = asked.iter().map(|check| &check.object).collect();
        prop_assert_eq!(distinct.len(), asked.len(), "a guard was asked twice");
    }
}

/// The user may see `open` and `mine`, and its agent `open` and `agents`. The agent may act for the user if `may_act`.
struct TwoParties {
    may_act: bool,
    batches: Mutex<usize>,
}

#[async_trait]
impl Authorizer for TwoParties {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        *self.batches.lock().unwrap() += 1;
        let allowed = |check: &Check| match (check.user.as_str(), check.relation.as_str(), check.object.type_name()) {
            ("user:anne", "can_read", "document") => ["open", "mine"].contains(&check.object.id()),
            ("agent:helper", "agent_reader", "document") => ["open", "agents"].contains(&check.object.id()),
            ("agent:helper", "can_act_for", "user") => self.may_act,
            _ => false,
        };
        Ok(Decisions::now(batch.checks.iter().map(allowed)))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }
}

proptest! {
    /// A delegated call is never permitted more than its user alone, whatever the agent may see. It costs no further batch.
    #[test]
    fn delegation_only_takes_away(
        ids in prop::collection::vec("(open|mine|agents|shut)", 0..40),
        may_act in any::<bool>(),
        on_guard in any::<bool>(),
        parts in 1usize..4,
    ) {
        let items: Vec<Candidate> = ids.iter().map(|id| candidate(id, &format!("document:{id}"))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let permitted = |principal: &Principal| {
            let authorizer = TwoParties { may_act, batches: Mutex::default() };
            let relation = Relation::parse("can_read").unwrap();
            let ids = runtime.block_on(async {
                let deadline = Instant::now() + Duration::from_secs(5);
                let mut enforcer = Enforcer::new(&authorizer, principal, &relation, Consistency::default(), deadline);
                let mut ids = Vec::new();
                for part in items.chunks(items.len() / parts + 1) {
                    let permitted = enforcer.enforce(part.to_vec()).await.unwrap();
                    ids.extend(permitted.into_iter().map(|p| p.into_item().chunk_id));
                }
                ids
            });
            (ids, authorizer.batches.into_inner().unwrap())
        };
        let anne = Principal::stated("user:anne").unwrap();
        let (on, relation) =
            if on_guard { (DelegationOn::Guard, "agent_reader") } else { (DelegationOn::User, "can_act_for") };
        let relation = Relation::parse(relation).unwrap();
        let actor = Object::parse("agent:helper").unwrap();
        let delegated = anne.clone().acted_for_by(Delegation { actor, relation, on });
        let (alone, batches_alone) = permitted(&anne);
        let (with_agent, batches) = permitted(&delegated);

        let agent_may = |id: &String| if on_guard { id == "open" || id == "agents" } else { may_act };
        let expected: Vec<String> = alone.iter().filter(|id| agent_may(id)).cloned().collect();
        prop_assert_eq!(with_agent, expected);
        prop_assert!(batches <= batches_alone);
    }
}

/// Allows everything, by relationships of some age. If a caller asks for fresher ones and `obeys` is set, they are as
/// new as now.
struct Aged {
    as_of: Option<Instant>,
    obeys: bool,
    asked: Mutex<Vec<Consistency>>,
}

#[async_trait]
impl Authorizer for Aged {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        self.asked.lock().unwrap().push(batch.consistency);
        let asks_for_newer = !matches!(batch.consistency, Consistency::MinimizeLatency);
        let as_of = if asks_for_newer && self.obeys { Some(Instant::now()) } else { self.as_of };
        let aged = |list: &mut Vec<Decision>| list.iter_mut().for_each(|decision| decision.as_of = as_of);
        Ok(with(all_allowed(batch), aged))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }
}

/// The name; when the item was written; the age of the decision; whether the authorizer obeys; whether the item is released;
/// whether the guard is asked about again.
type Row = (&'static str, Written, Option<u32>, bool, bool, bool);

#[tokio::test(start_paused = true)]
async fn a_decision_does_not_release_what_is_newer() {
    let second = Duration::from_secs(1);
    tokio::time::advance(second * 100).await;
    let now = Instant::now();
    let before = |seconds: u32| now - second * seconds;
    let date = |seconds: u32| Written::AtWallTime(second * (1_000 - seconds));
    let rows: [Row; 13] = [
        ("nobody knows when", Written::Unknown, Some(50), true, true, false),
        ("before the decision", Written::By(before(20)), Some(10), true, true, false),
        ("with the decision", Written::By(before(10)), Some(10), true, true, false),
        ("after the decision", Written::By(before(5)), Some(10), true, true, true),
        ("after it, and nothing newer comes", Written::By(before(5)), Some(10), false, false, true),
        ("a decision of unknown age", Written::By(before(50)), None, true, true, true),
        ("a moment to come", Written::By(now + second), Some(0), true, true, false),
        ("dated long before", date(20), Some(10), true, true, false),
        ("dated within the margin", date(11), Some(10), true, true, true),
        ("dated after the decision", date(5), Some(10), true, true, true),
        ("dated just now", date(0), Some(1), true, true, true),
        ("dated just now, and nothing newer comes", date(0), Some(1), false, false, true),
        ("dated by a clock that is ahead", Written::AtWallTime(second * 5_000), Some(1), true, true, true),
    ];
    let principal = Principal::stated("user:anne").unwrap();
    let relation = Relation::parse("can_read").unwrap();
    for (name, written, age, obeys, released, again) in rows {
        let aged = Aged { as_of: age.map(before), obeys, asked: Mutex::default() };
        let deadline = now + second * 60;
        let enforcer = Enforcer::new(&aged, &principal, &relation, Consistency::default(), deadline);
        let items = vec![Candidate { written, ..candidate("1", "document:open") }];
        let permitted = enforcer.at(second * 1_000).enforce(items).await.unwrap();
        let asked = aged.asked.lock().unwrap().len();
        assert_eq!((permitted.len(), asked), (usize::from(released), 1 + usize::from(again)), "{name}");
    }
}

/// Without a clock, what another process wrote counts as written just now.
#[tokio::test(start_paused = true)]
async fn without_a_clock_a_date_is_now() {
    let aged = Aged { as_of: Some(Instant::now()), obeys: false, asked: Mutex::default() };
    tokio::time::advance(Duration::from_secs(1)).await;
    let principal = Principal::stated("user:anne").unwrap();
    let relation = Relation::parse("can_read").unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut enforcer = Enforcer::new(&aged, &principal, &relation, Consistency::default(), deadline);
    let items = vec![Candidate { written: Written::AtWallTime(Duration::ZERO), ..candidate("1", "document:open") }];
    assert_eq!(enforcer.enforce(items).await.unwrap().len(), 0);
}

/// The decisions themselves name the model. Which model decides afterwards does not matter.
#[tokio::test]
async fn the_model_of_the_last_decision_is_told() {
    let answer: fn(&CheckBatch) -> Result<Decisions, AuthzError> = |batch| {
        let mut decisions = correct(batch)?;
        decisions.by.model_id = batch.checks[0].object.type_name().into();
        Ok(decisions)
    };
    let authorizer = Scripted { answer, asked: Mutex::default() };
    let principal = Principal::stated("user:anne").unwrap();
    let relation = Relation::parse("can_read").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut enforcer = Enforcer::new(&authorizer, &principal, &relation, Consistency::default(), deadline);
    assert_eq!(enforcer.decided_by(), None, "nothing was decided");
    for (guard, model_id) in [("first:shut", "first"), ("second:open", "second"), ("first:shut", "second")] {
        enforcer.enforce(vec![candidate("1", guard)]).await.unwrap();
        assert_eq!(&*enforcer.decided_by().expect("decided").model_id, model_id, "{guard}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_remembered_is_not_counted_as_asked() {
    const TOOK: Duration = Duration::from_millis(30);
    /// Claims to remember its decision about every guard whose name ends with `remembered`.
    struct Remembering;
    #[async_trait]
    impl Authorizer for Remembering {
        async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
            tokio::time::sleep(TOOK).await;
            let remember = |list: &mut Vec<Decision>| {
                for (decision, check) in list.iter_mut().zip(&batch.checks) {
                    if check.object.id().ends_with("remembered") {
                        decision.reached = Reached::Earlier;
                    }
                }
            };
            Ok(with(correct(batch)?, remember))
        }

        async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
            Ok("model".into())
        }
    }
    let rows: [(&str, &[&str], (usize, Duration)); 4] = [
        ("nothing", &[], (0, Duration::ZERO)),
        ("all new", &["open1", "shut"], (2, TOOK)),
        ("one of two remembered", &["open1", "open-remembered"], (1, TOOK)),
        ("all remembered", &["open-remembered", "shut-remembered"], (0, Duration::ZERO)),
    ];
    let (principal, relation) = (Principal::stated("user:anne").unwrap(), Relation::parse("can_read").unwrap());
    for (name, guards, asked) in rows {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut enforcer = Enforcer::new(&Remembering, &principal, &relation, Consistency::default(), deadline);
        let items = guards.iter().map(|guard| candidate(guard, &format!("document:{guard}"))).collect();
        enforcer.enforce(items).await.unwrap();
        assert_eq!(enforcer.take_asked(), asked, "{name}");
    }
}
