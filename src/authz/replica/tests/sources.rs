//! A decision of the copy counts as one of that copy, and of nobody else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use tokio::sync::watch;
use tokio::time::{Instant, advance};

use super::{MODEL, clock, config};
use crate::authz::copy::EvaluatedCopy;
use crate::authz::embedded::EmbeddedAuthorizer;
use crate::authz::owned_task::OwnedTask;
use crate::authz::replica::{CopyView, POLLS_WAITED_FOR, Progress, ReplicaAuthorizer, ReplicaUse};
use crate::authz::{
    Authorizer, AuthzError, Check, CheckBatch, Consistency, Decisions, Source, VisiblePositions, VisibleSetQuery,
};
use crate::language::{Object, Relation, RelationshipTuple, dsl};
use crate::tuple_store::{OnConflict, RelationshipStores};

fn view(copy: Arc<dyn EvaluatedCopy>, progress: &watch::Receiver<Progress>) -> Arc<CopyView> {
    let (news, wishes, progress) = (Arc::default(), Arc::default(), progress.clone());
    Arc::new(CopyView { copy, progress, news, wishes, clock: clock(), staleness_max: config().staleness_max })
}

/// An authority that denies everything and shows nothing.
struct Denying;

#[async_trait]
impl Authorizer for Denying {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        Ok(Decisions::now(batch.checks.iter().map(|_| false)))
    }

    async fn visible_set(&self, _query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        Ok(Some(VisiblePositions::now(Arc::default())))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("m1".into())
    }
}

fn batch(consistency: Consistency) -> CheckBatch {
    let check = Check {
        user: Object::parse("user:anne").expect("a user"),
        relation: Relation::parse("viewer").expect("a relation"),
        object: Object::parse("doc:1").expect("an object"),
    };
    let deadline = Instant::now() + Duration::from_mins(1);
    CheckBatch { checks: vec![check], contextual: Arc::default(), consistency, deadline }
}

fn visible(consistency: Consistency) -> VisibleSetQuery {
    let CheckBatch { mut checks, contextual, deadline, .. } = batch(consistency);
    let Check { user, relation, object } = checks.remove(0);
    let (guards, positions) = (Arc::new(vec![object]), Arc::new(RoaringBitmap::from([0])));
    VisibleSetQuery { user, relation, guards, positions, contextual, consistency, deadline }
}

/// A decision of the copy is used for the copy alone, in whatever order questions come.
#[tokio::test(start_paused = true)]
async fn a_decision_of_the_copy_is_used_for_the_copy_alone() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        Decide,
        Plan,
        Higher,
        AtLeast,
        Stale,
        OtherModel,
        Replaced,
    }
    use Step::{AtLeast, Decide, Higher, OtherModel, Plan, Replaced, Stale};
    let all = [Decide, Plan, Higher, AtLeast, Stale, OtherModel, Replaced];
    // The copy holds a tuple that the server does not have.
    let directory = tempfile::tempdir().expect("a directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let store = stores.default_store_or_new().expect("a store");
    store.write_model(dsl::load(MODEL).expect("a model")).expect("written");
    let tuple = RelationshipTuple::parse("user:anne", "viewer", "doc:1").expect("a tuple");
    store.write_all(vec![tuple], OnConflict::Refuse).expect("written");
    let (sender, progress) = watch::channel(Progress::default());
    let with = |used_for| ReplicaAuthorizer {
        authority: Arc::new(Denying),
        view: view(Arc::new(EmbeddedAuthorizer::new(stores.clone())), &progress),
        used_for,
        config: config(),
        _following: OwnedTask::spawn(async |_owner| {}),
        verifier: None,
    };
    let (decides, plans) = (with(ReplicaUse::Decide), with(ReplicaUse::Plan));
    for steps in
        all.iter().flat_map(|first| all.iter().flat_map(move |second| all.map(|third| [*first, *second, third])))
    {
        for step in steps {
            let fresh = |progress: &mut Progress| progress.fresh_as_of = Some(Instant::now());
            sender.send_modify(fresh);
            let as_of = progress.borrow().fresh_as_of.expect("fresh");
            advance(Duration::from_millis(1)).await;
            let (authorizer, consistency) = match step {
                Plan => (&plans, Consistency::MinimizeLatency),
                Higher => (&decides, Consistency::HigherConsistency),
                AtLeast => (&decides, Consistency::AtLeastAsFresh(Instant::now())),
                Decide | Stale | OtherModel | Replaced => (&decides, Consistency::MinimizeLatency),
            };
            match step {
                Stale => advance(config().staleness_max).await,
                OtherModel => sender.send_modify(|progress| progress.version.model_id.push('x')),
                Replaced => sender
                    .send_modify(|progress| *progress = Progress { copy: progress.copy + 1, ..progress.withheld() }),
                Decide | Plan | Higher | AtLeast => {}
            }
            let answers = authorizer.check(&batch(consistency)).await.expect("decided");
            let by_copy = matches!(answers.by.source, Source::Copy(_));
            let may = step == Decide || step == OtherModel;
            assert_eq!((answers.list[0].allowed, by_copy), (may, may), "{step:?} in {steps:?}");
            assert_eq!(authorizer.abilities(consistency).checks_are_local, may, "local in {step:?} of {steps:?}");
            if may {
                let now = progress.borrow().clone();
                let of = &answers.by;
                assert_eq!(answers.list[0].as_of, of.as_of, "as new as the copy");
                assert_eq!(
                    (of.source, of.as_of, &*of.model_id),
                    (Source::Copy(now.copy), Some(as_of), &*now.version.model_id)
                );
            }
            let seen = authorizer.visible_set(&visible(consistency)).await.expect("told").expect("known");
            assert_eq!(!seen.positions.is_empty(), may || step == Plan, "visible in {step:?} of {steps:?}");
        }
    }
}

/// If the model or the copy changes while the copy answers, the answer may rest on half of the change.
#[tokio::test(start_paused = true)]
async fn an_answer_across_a_change_of_the_copy_is_not_used() {
    type Change = fn(&mut Progress);
    let directory = tempfile::tempdir().expect("a directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let (sender, progress) = watch::channel(Progress::default());
    let authorizer = ReplicaAuthorizer {
        authority: Arc::new(Denying),
        view: view(Arc::new(EmbeddedAuthorizer::new(stores)), &progress),
        used_for: ReplicaUse::Decide,
        config: config(),
        _following: OwnedTask::spawn(async |_owner| {}),
        verifier: None,
    };
    let rows: [(&str, Change, bool); 4] = [
        ("nothing changes", |_| {}, true),
        ("newer", |progress| progress.fresh_as_of = Some(Instant::now()), true),
        ("another model", |progress| progress.version.model_id.push('x'), false),
        ("another copy", |progress| progress.copy += 1, false),
    ];
    for (name, change, used) in rows {
        sender.send_modify(|progress| progress.fresh_as_of = Some(Instant::now()));
        let answering = async {
            sender.send_modify(change);
            Ok(())
        };
        let answered = authorizer.asked_of_copy(Consistency::MinimizeLatency, answering).await;
        assert_eq!(answered.is_some(), used, "{name}");
    }
}

/// If the copy decides, a question that asks for something newer waits for the next look at the log, but not for long.
#[tokio::test(start_paused = true)]
async fn what_must_be_fresh_waits_for_the_next_look_at_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let store = stores.default_store_or_new().expect("a store");
    store.write_model(dsl::load(MODEL).expect("a model")).expect("written");
    let tuple = RelationshipTuple::parse("user:anne", "viewer", "doc:1").expect("a tuple");
    store.write_all(vec![tuple], OnConflict::Refuse).expect("written");
    let poll = config().poll_interval;
    // The mode; after how long the log is read, or `None` for never; how long the question waits; whether the copy decides.
    let rows = [
        ("read soon", ReplicaUse::Decide, Some(poll / 2), poll / 2, true),
        ("read late", ReplicaUse::Decide, Some(poll * 3), poll * POLLS_WAITED_FOR, false),
        ("not read", ReplicaUse::Decide, None, poll * POLLS_WAITED_FOR, false),
        ("the server decides anyway", ReplicaUse::Plan, Some(poll / 2), Duration::ZERO, false),
    ];
    for (name, used_for, read_after, waits, by_copy) in rows {
        let (sender, progress) = watch::channel(Progress::default());
        let authorizer = ReplicaAuthorizer {
            authority: Arc::new(Denying),
            view: view(Arc::new(EmbeddedAuthorizer::new(stores.clone())), &progress),
            used_for,
            config: config(),
            _following: OwnedTask::spawn(async |_owner| {}),
            verifier: None,
        };
        sender.send_modify(|progress| progress.fresh_as_of = Some(Instant::now()));
        advance(Duration::from_millis(1)).await;
        let asked = Instant::now();
        let reading = tokio::spawn(async move {
            if let Some(read_after) = read_after {
                tokio::time::sleep(read_after).await;
                sender.send_modify(|progress| progress.fresh_as_of = Some(Instant::now()));
            }
            sender
        });
        let question = batch(Consistency::AtLeastAsFresh(asked));
        let answers = authorizer.check(&question).await.expect("decided");
        let is_by_copy = matches!(answers.by.source, Source::Copy(_));
        assert_eq!((asked.elapsed(), is_by_copy), (waits, by_copy), "{name}");
        // A request waits once, however many batches it has.
        let again = Instant::now();
        authorizer.check(&question).await.expect("decided");
        assert_eq!(again.elapsed(), Duration::ZERO, "{name}");
        drop(reading.await);
    }
}
