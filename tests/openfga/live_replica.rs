//! A replica of a real `OpenFGA` server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaSource, OpenFgaStore};
use ragward::authz::replica::{ReplicaAuthorizer, ReplicaConfig, ReplicaParts, ReplicaUse};
use ragward::authz::validity::Validity;
use ragward::authz::{Authorizer, AuthzError, Check, CheckBatch, Consistency};
use ragward::language::{Object, Relation, RelationshipTuple, dsl, json};
use tokio::time::{Instant, timeout};

use crate::support::openfga::OpenFga;

const PATIENCE: Duration = Duration::from_secs(30);
const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user, group#member]
type doc
  relations
    define blocked: [user, user:*]
    define viewer: [user, group#member, user with in_office]
    define can_read: viewer but not blocked
condition in_office(office: string, offices: list<string>) {
  office in offices
}
";

fn config() -> ReplicaConfig {
    ReplicaConfig {
        poll_interval: Duration::from_millis(50),
        staleness_max: PATIENCE,
        overlap: Duration::from_secs(2),
        sweep_interval: Duration::from_hours(1),
        verified_share: 0.0,
        verified_checks_per_second_max: 0,
        ..ReplicaConfig::default()
    }
}

/// An authority that must not be asked.
struct Nobody;

#[async_trait::async_trait]
impl Authorizer for Nobody {
    async fn check(&self, _batch: &CheckBatch) -> Result<ragward::authz::Decisions, AuthzError> {
        Err(AuthzError::Unavailable("out of reach".to_owned()))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Err(AuthzError::Unavailable("out of reach".to_owned()))
    }
}

async fn replica(directory: &Path, server: &OpenFgaConfig) -> ReplicaAuthorizer {
    replica_with(directory, server, config()).await
}

/// Opens a replica that has no authority to ask.
async fn replica_with(directory: &Path, server: &OpenFgaConfig, settings: ReplicaConfig) -> ReplicaAuthorizer {
    ReplicaAuthorizer::open(directory, parts(server, Arc::new(Nobody)), ReplicaUse::Decide, settings)
        .await
        .expect("a replica")
}

/// Returns parts that neither remember decisions nor verify any.
fn parts(server: &OpenFgaConfig, authority: Arc<dyn Authorizer>) -> ReplicaParts {
    let decider = Arc::new(OpenFgaAuthorizer::new(server).expect("an authorizer"));
    ReplicaParts {
        source: Arc::new(OpenFgaSource::new(server).expect("a source")),
        authority,
        validity: Arc::new(Validity::new(None)),
        clock: Arc::new(|| {
            let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            i128::try_from(since_1970.as_nanos()).expect("soon enough")
        }),
        server: decider,
    }
}

/// Waits until the replica holds everything that was committed before now.
async fn caught_up(replica: &ReplicaAuthorizer) {
    let now = Instant::now();
    let mut progress = replica.progress();
    let reached = progress.wait_for(|progress| progress.fresh_as_of.is_some_and(|fresh| fresh >= now));
    timeout(PATIENCE, reached).await.expect("in time").expect("a follower");
}

fn tuple(text: &str) -> RelationshipTuple {
    let [user, relation, object] = text.split(' ').collect::<Vec<_>>().try_into().expect("three names");
    RelationshipTuple::parse(user, relation, object).expect("a tuple")
}

async fn decide(
    authorizer: &dyn Authorizer,
    checks: &[Check],
    consistency: Consistency,
) -> Result<Vec<bool>, AuthzError> {
    let deadline = Instant::now() + PATIENCE;
    let batch = CheckBatch { checks: checks.to_vec(), contextual: Arc::default(), consistency, deadline };
    let mut list = authorizer.check(&batch).await?.list;
    list.sort_by_key(|decision| decision.position);
    Ok(list.into_iter().map(|decision| decision.allowed).collect())
}

fn all_checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for user in 0..6 {
        for doc in 0..6 {
            for relation in ["viewer", "can_read"] {
                checks.push(Check {
                    user: Object::parse(&format!("user:u{user}")).expect("a user"),
                    relation: Relation::parse(relation).expect("a relation"),
                    object: Object::parse(&format!("doc:d{doc}")).expect("an object"),
                });
            }
        }
    }
    checks
}

#[tokio::test]
async fn the_port_suite_holds() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("suite");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
    store.write_tuples(&crate::support::authorizer_suite::tuples()).await.expect("tuples");
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Arc::new(OpenFgaAuthorizer::new(&config).expect("an authorizer"));
    let parts = parts(&config, authority);
    let replica = ReplicaAuthorizer::open(directory.path(), parts, ReplicaUse::Decide, self::config()).await;
    let replica = replica.expect("a replica");
    caught_up(&replica).await;
    crate::support::authorizer_suite::run("a replica", &replica).await;
}

#[tokio::test]
async fn random_changes_are_followed() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("random");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    let model = json::print(&dsl::parse(MODEL).expect("a model").model).expect("JSON");
    store.write_model(serde_json::from_str(&model).expect("JSON")).await.expect("a model");
    let possible: Vec<RelationshipTuple> = (0..6)
        .flat_map(|n| {
            (0..6).flat_map(move |m| {
                [
                    format!("user:u{n} viewer doc:d{m}"),
                    format!("user:u{n} blocked doc:d{m}"),
                    format!("user:u{n} member group:g{m}"),
                    format!("group:g{n}#member viewer doc:d{m}"),
                    format!("group:g{n}#member member group:g{}", (m + n + 1) % 6),
                ]
            })
        })
        .map(|text| tuple(&text))
        .filter(|tuple| !tuple.user.to_string().starts_with(&format!("{}#", tuple.object)))
        .collect();
    let directory = tempfile::tempdir().expect("a directory");
    let authority = OpenFgaAuthorizer::new(&config).expect("an authorizer");
    let checks = all_checks();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = move |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % u64::try_from(bound).expect("small")).expect("small")
    };
    let mut replica = replica(directory.path(), &config).await;
    let mut seen = [0_usize; 2];
    for round in 0..25 {
        for _ in 0..8 {
            let tuple = std::slice::from_ref(&possible[next(possible.len())]);
            if next(5) < 3 {
                store.write_tuples(tuple).await.expect("written");
            } else {
                store.delete_tuples(tuple).await.expect("deleted");
            }
        }
        if round % 10 == 9 {
            drop(replica);
            replica = self::replica_when_free(directory.path(), &config).await;
        }
        caught_up(&replica).await;
        let expected = decide(&authority, &checks, Consistency::HigherConsistency).await.expect("the server decides");
        let copied = decide(&replica, &checks, Consistency::MinimizeLatency).await.expect("the replica decides");
        assert_eq!(copied, expected, "round {round}");
        for allowed in expected {
            seen[usize::from(allowed)] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "one-sided: {seen:?}");
}

/// Opens a replica. The file is free once the task of the follower before it has ended.
async fn replica_when_free(directory: &Path, server: &OpenFgaConfig) -> ReplicaAuthorizer {
    let opened = async {
        loop {
            match ReplicaAuthorizer::open(directory, parts(server, Arc::new(Nobody)), ReplicaUse::Decide, config())
                .await
            {
                Ok(replica) => return replica,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, opened).await.expect("the file is free in time")
}

#[tokio::test]
async fn a_moment_is_answered_by_what_is_as_new() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("moments");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    let model = json::print(&dsl::parse(MODEL).expect("a model").model).expect("JSON");
    store.write_model(serde_json::from_str(&model).expect("JSON")).await.expect("a model");
    let tuple = [tuple("user:u1 viewer doc:d1")];
    let check = [Check {
        user: Object::parse("user:u1").expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        object: Object::parse("doc:d1").expect("an object"),
    }];
    let [alone, before] = [0, 1].map(|_| tempfile::tempdir().expect("a directory"));
    // One replica has no authority to ask; the other asks the server whenever it is behind.
    let alone = replica(alone.path(), &config).await;
    let authority = Arc::new(OpenFgaAuthorizer::new(&config).expect("an authorizer"));
    let before =
        ReplicaAuthorizer::open(before.path(), parts(&config, authority), ReplicaUse::Decide, self::config()).await;
    let before = before.expect("a replica");
    for granted in [true, false].into_iter().cycle().take(20) {
        let written = if granted { store.write_tuples(&tuple).await } else { store.delete_tuples(&tuple).await };
        written.expect("written");
        let moment = Consistency::AtLeastAsFresh(Instant::now());
        assert_eq!(decide(&before, &check, moment).await.expect("decided"), [granted], "granted: {granted}");
        if let Ok(decided) = decide(&alone, &check, moment).await {
            assert_eq!(decided, [granted], "granted: {granted}, a look at the log began between the two");
        }
        caught_up(&alone).await;
        assert_eq!(decide(&alone, &check, moment).await.expect("the copy is as new"), [granted], "granted: {granted}");
        let lag = |consistency| alone.abilities(consistency).lag;
        assert!(lag(moment).is_some() && lag(Consistency::HigherConsistency).is_none(), "granted: {granted}");
    }
    // A question about a moment waits for the next look at the log, within a limit.
    if let Ok(decided) = decide(&alone, &check, Consistency::AtLeastAsFresh(Instant::now())).await {
        assert_eq!(decided, [false], "the copy caught up");
    }
    let refused = decide(&alone, &check, Consistency::HigherConsistency).await;
    assert!(matches!(refused, Err(AuthzError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_new_model_is_followed() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("models");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    let model = |text: &str| {
        let model = json::print(&dsl::parse(text).expect("a model").model).expect("JSON");
        serde_json::from_str(&model).expect("JSON")
    };
    store.write_model(model(MODEL)).await.expect("a model");
    store.write_tuples(&[tuple("user:u1 viewer doc:d1"), tuple("user:* blocked doc:d1")]).await.expect("written");
    let directory = tempfile::tempdir().expect("a directory");
    let replica = replica(directory.path(), &config).await;
    caught_up(&replica).await;
    let checks: Vec<Check> = all_checks().into_iter().filter(|check| check.user.id() == "u1").collect();
    let readable =
        |answers: Result<Vec<bool>, AuthzError>| answers.expect("decided").into_iter().filter(|a| *a).count();
    assert_eq!(readable(decide(&replica, &checks, Consistency::MinimizeLatency).await), 1);
    // Without the exclusion, `can_read` holds too; the tuples are the same.
    store.write_model(model(&MODEL.replace(" but not blocked", ""))).await.expect("another model");
    caught_up(&replica).await;
    assert_eq!(readable(decide(&replica, &checks, Consistency::MinimizeLatency).await), 2);
}

#[tokio::test]
async fn past_the_bound_nothing_is_allowed_without_the_server() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("stale");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
    let directory = tempfile::tempdir().expect("a directory");
    let settings = ReplicaConfig { staleness_max: Duration::from_secs(2), ..self::config() };
    let replica = replica_with(directory.path(), &config, settings).await;
    let checks = all_checks();
    // On a busy machine the copy may be past its bound between two looks at the log.
    let fresh = async {
        while decide(&replica, &checks, Consistency::MinimizeLatency).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, fresh).await.expect("the copy decides while it is fresh");
    let straight = decide(&replica, &checks, Consistency::HigherConsistency).await;
    assert!(matches!(straight, Err(AuthzError::Unavailable(_))), "{straight:?}");
    drop(server);
    let stale = async {
        while decide(&replica, &checks, Consistency::MinimizeLatency).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, stale).await.expect("the copy is not used past its bound");
}
