//! A world for tests: users and documents, a server, and a copy of it that may be wrong.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use super::super::*;
use crate::audit::{AuditSink, DigestPurpose, Kept, Record, Verification};
use crate::authz::copy::EvaluatedCopy;
use crate::authz::decider::{NumberedOutcome, Outcome, Questions};
use crate::authz::verification::Recording;
use crate::authz::verification::standing::Trust;
use crate::authz::{Check, Reached, Source};
use crate::engine::snapshot::Snapshot;
use crate::language::{Object, Relation, dsl};

pub(super) const POLL: Duration = Duration::from_millis(500);
pub(super) const USERS: usize = 5;
pub(super) const DOCS: usize = 20;
/// The share of decisions that is verified.
const SHARE: f64 = 0.01;

/// A fact: a user may see a document.
pub(super) type Fact = (String, String);

#[derive(Default)]
pub(super) struct WorldState {
    pub(super) server: BTreeSet<Fact>,
    pub(super) copy: BTreeSet<Fact>,
    /// The facts that the copy has, whatever the server has.
    pub(super) added: BTreeSet<Fact>,
    /// The facts that the copy lacks, whatever the server has.
    pub(super) dropped: BTreeSet<Fact>,
    /// Whether a new copy has the same fault.
    pub(super) fault_stays: bool,
    pub(super) errors_percent: u64,
    pub(super) asked: Vec<Check>,
    pub(super) calls: Vec<Instant>,
    random: u64,
}

impl WorldState {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }
}

#[derive(Clone, Default)]
pub(super) struct World(Arc<Mutex<WorldState>>);

impl World {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut WorldState) -> T) -> T {
        work(&mut self.0.lock().expect("a lock"))
    }
}

pub(super) fn fact(check: &Check) -> Fact {
    (check.user.to_string(), check.object.to_string())
}

pub(super) fn named(user: &str, object: &str) -> Fact {
    (user.to_owned(), object.to_owned())
}

/// Returns whether no evaluator can decide this.
pub(super) fn is_hostile(check: &Check) -> bool {
    check.object.id().starts_with("hostile")
}

#[async_trait]
impl Authorizer for World {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let mut decisions =
            Decisions::now(batch.checks.iter().map(|check| self.with(|state| state.copy.contains(&fact(check)))));
        for (decision, check) in decisions.list.iter_mut().zip(&batch.checks) {
            if is_hostile(check) {
                (decision.as_of, decision.reached) = (None, Reached::Never);
            }
        }
        Ok(decisions)
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let sees = |at: &u32| {
            let object = query.guards[usize::try_from(*at).expect("small")].to_string();
            self.with(|state| state.copy.contains(&(query.user.to_string(), object)))
        };
        Ok(Some(VisiblePositions::now(Arc::new(query.positions.iter().filter(sees).collect()))))
    }

    async fn relationships(&self, _relation: &Relation) -> Result<KnownRelationships, AuthzError> {
        let model = dsl::load("model\n  schema 1.1\ntype user\n").expect("a model");
        let snapshot = Arc::new(Snapshot::new("the copy's own", Arc::new(model)));
        let by = Provenance::authority("the copy's own".into(), Instant::now());
        Ok(KnownRelationships::State { snapshot, by })
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("m1".into())
    }
}

impl EvaluatedCopy for World {
    /// Reads the condition from the name: `doc:c7-1` has a tuple under condition `c7`.
    fn conditions_on(&self, object: &Object) -> Vec<String> {
        object.id().split_once('-').map(|(condition, _)| condition.to_owned()).into_iter().collect()
    }
}

/// The server, as verification asks it.
pub(super) struct Server(World);

#[async_trait]
impl Decider for Server {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        assert_eq!(questions.basis.consistency, Consistency::HigherConsistency);
        self.0.with(|state| {
            state.calls.push(Instant::now());
            if state.below(100) < state.errors_percent {
                return Err(AuthzError::Unavailable("down".to_owned()));
            }
            let mut answered = Vec::new();
            for (position, question) in questions.list.iter().enumerate() {
                state.asked.push(question.check.clone());
                let outcome = if is_hostile(&question.check) {
                    Outcome::Undecidable
                } else if state.below(100) < state.errors_percent {
                    Outcome::Failed(AuthzError::Unavailable("throttled".to_owned()))
                } else {
                    let allowed = state.server.contains(&fact(&question.check));
                    Outcome::Decided { allowed, as_of: Instant::now(), source: Source::Authority }
                };
                answered.push(NumberedOutcome { position, outcome });
            }
            Ok(answered)
        })
    }
}

/// The server, as requests ask it. Here it never fails.
pub(super) struct Authority(World);

#[async_trait]
impl Authorizer for Authority {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let holds = |check: &Check| self.0.with(|state| state.server.contains(&fact(check)));
        Ok(Decisions::now(batch.checks.iter().map(holds)))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("m1".into())
    }
}

#[derive(Default)]
pub(super) struct Sink(pub(super) Mutex<Vec<Verification>>);

impl AuditSink for Sink {
    fn record(&self, _record: Record) -> Kept {
        Box::pin(async { Ok(()) })
    }

    fn verified(&self, verification: Verification) -> Kept {
        self.0.lock().expect("a lock").push(verification);
        Box::pin(async { Ok(()) })
    }

    fn digest(&self, _purpose: DigestPurpose, _bytes: &[u8]) -> String {
        "digest".to_owned()
    }
}

pub(super) struct Setup {
    pub(super) world: World,
    pub(super) authorizer: ReplicaAuthorizer,
    pub(super) sender: watch::Sender<Progress>,
    pub(super) directory: TempDir,
    pub(super) sink: Arc<Sink>,
    pub(super) start: Instant,
    _recording: Recording,
    steps: AtomicU64,
}

impl Setup {
    pub(super) fn new() -> Self {
        let world = World::default();
        world.with(|state| {
            state.random = 7;
            for user in 0..USERS {
                for doc in (0..DOCS).filter(|doc| (doc + user) % 2 == 0) {
                    state.server.insert(named(&format!("user:u{user}"), &format!("doc:{doc}")));
                }
            }
        });
        Self::over(world, tempfile::tempdir().expect("a directory"), Instant::now(), SHARE)
    }

    fn over(world: World, directory: TempDir, start: Instant, share: f64) -> Self {
        let version = ModelVersion { store_id: "s1".to_owned(), model_id: "m1".to_owned() };
        let (sender, progress) = watch::channel(Progress { fresh_as_of: None, version, copy: 1 });
        let clock: UnixClock = Arc::new(move || i128::try_from(start.elapsed().as_nanos()).expect("short"));
        let config = ReplicaConfig {
            poll_interval: POLL,
            verified_share: share,
            verified_checks_per_second_max: 20,
            ..ReplicaConfig::default()
        };
        let (news, wishes) = (Arc::default(), Arc::default());
        let staleness_max = config.staleness_max;
        let view = Arc::new(CopyView { copy: Arc::new(world.clone()), progress, news, wishes, clock, staleness_max });
        let server = Arc::new(Server(world.clone()));
        let verifier = Verifier::start(config, Arc::clone(&view), server, directory.path());
        let sink = Arc::new(Sink::default());
        let recording = verifier.record_in(Arc::clone(&sink) as _);
        let authorizer = ReplicaAuthorizer {
            authority: Arc::new(Authority(world.clone())),
            view,
            used_for: ReplicaUse::Decide,
            config,
            _following: OwnedTask::spawn(async |_owner| {}),
            verifier: Some(verifier),
        };
        let steps = AtomicU64::new(0);
        let setup = Self { world, authorizer, sender, directory, sink, start, steps, _recording: recording };
        setup.poll();
        setup
    }

    /// Restarts the process in the same directory.
    pub(super) async fn restarted(self) -> Self {
        self.restarted_with(SHARE).await
    }

    /// Restarts the process, so that it verifies this share.
    pub(super) async fn restarted_with(self, share: f64) -> Self {
        let Self { world, authorizer, directory, start, .. } = self;
        drop(authorizer);
        sleep(POLL).await;
        Self::over(world, directory, start, share)
    }

    /// Returns whether questions are stored for the next process.
    pub(super) fn keeps_questions(&self) -> bool {
        std::fs::read(self.directory.path().join("questions.json")).is_ok_and(|text| text != b"[]")
    }

    /// Lets time pass without any request until the condition holds.
    pub(super) async fn idle_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            self.poll();
            sleep(POLL).await;
            let standing = self.verifier().standing();
            assert!(begun.elapsed() < Duration::from_mins(2), "not so: {what}; {standing:?}");
        }
    }

    /// Brings the copy up to date, or makes a new copy if one was asked for.
    pub(super) fn poll(&self) {
        let view = &self.authorizer.view;
        let is_new = view.wishes.take_new_copy();
        let changed = self.world.with(|state| {
            if is_new && !state.fault_stays {
                state.added.clear();
                state.dropped.clear();
            }
            if view.wishes.take_sweep() && !state.fault_stays {
                state.dropped.clear();
            }
            let with_added: BTreeSet<Fact> = state.server.union(&state.added).cloned().collect();
            let copy = with_added.difference(&state.dropped).cloned().collect();
            std::mem::replace(&mut state.copy, copy) != state.copy
        });
        if changed {
            view.news.tell(Instant::now(), Some((view.clock)()));
        }
        self.sender.send_modify(|progress| {
            progress.copy += u64::from(is_new);
            progress.fresh_as_of = Some(Instant::now());
        });
    }

    pub(super) fn batch(user: &str, objects: impl IntoIterator<Item = String>) -> CheckBatch {
        let check = |object: String| Check {
            user: Object::parse(user).expect("a user"),
            relation: Relation::parse("can_read").expect("a relation"),
            object: Object::parse(&object).expect("an object"),
        };
        let checks = objects.into_iter().map(check).collect();
        let deadline = Instant::now() + Duration::from_secs(10);
        CheckBatch { checks, contextual: Arc::default(), consistency: Consistency::MinimizeLatency, deadline }
    }

    pub(super) async fn allows(&self, user: &str, object: &str) -> bool {
        let answers = self.authorizer.check(&Self::batch(user, [object.to_owned()])).await.expect("decided");
        answers.list[0].allowed
    }

    /// Plays half a second of requests.
    pub(super) async fn step(&self) {
        self.poll();
        for user in 0..USERS {
            let objects = (0..DOCS).map(|doc| format!("doc:{doc}")).chain(["doc:hostile".to_owned()]);
            self.authorizer.check(&Self::batch(&format!("user:u{user}"), objects)).await.expect("decided");
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        sleep(POLL).await;
    }

    pub(super) fn trust(&self) -> Trust {
        self.verifier().standing().trust
    }

    pub(super) fn verifier(&self) -> &Verifier {
        self.authorizer.verifier.as_ref().expect("a verifier")
    }

    /// Takes steps until the trust is this one, and returns how long that took.
    pub(super) async fn until(&self, trust: Trust) -> Duration {
        let begun = Instant::now();
        while self.trust() != trust {
            self.step().await;
            assert!(begun.elapsed() < Duration::from_mins(30), "still {:?}", self.verifier().standing());
        }
        begun.elapsed()
    }
}
