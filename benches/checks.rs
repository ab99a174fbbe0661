//! This bench measures what the checks of a retrieval cost with an `OpenFGA` server, and how much of that the stack
//! saves.
//!
//! A real server (`OPENFGA_BIN`, in memory, on loopback) is loaded with a flat model and with the model of a real
//! corpus. Each question has a baseline without us in the same run. Caches are off where a figure says *cold*. The
//! bench also prints the processor time that the server takes for a check. `replica.rs` measures what retrievals gain.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and fails by panicking"
)]

mod support {
    pub(crate) mod held_port;
    pub(crate) mod openfga;
}

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ragward::app::stack_checks;
use ragward::authz::ChecksConfig;
use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore};
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency};
use ragward::language::{Object, Relation, RelationshipTuple, json};
use ragward::store_file;
use serde_json::json as value;
use tokio::time::Instant;

use self::support::openfga::OpenFga;

const CONCURRENCY: usize = 16;
const PEOPLE: usize = 10;
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(server) = OpenFga::start().await else { return };
        flat(&server).await;
        let keps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
        if keps.is_dir() {
            corpus(&server, &keps).await;
        } else {
            println!("skipped: there is no corpus at {}", keps.display());
        }
    });
}

/// Sets a timeout that never passes, since the bench measures how long a call takes.
fn patient(config: OpenFgaConfig) -> OpenFgaConfig {
    OpenFgaConfig { timeout: PATIENCE, ..config }
}

fn cold() -> ChecksConfig {
    ChecksConfig { cache_ttl: Duration::ZERO, ..ChecksConfig::default() }
}

/// Keeps decisions for the whole run, since the bench measures remembering, not forgetting.
fn warm() -> ChecksConfig {
    ChecksConfig { cache_ttl: Duration::from_mins(10), ..ChecksConfig::default() }
}

/// Asks about one relation that is held directly, for which the server has the least possible work.
async fn flat(server: &OpenFga) {
    let config = patient(server.config("flat"));
    let store = OpenFgaStore::open(&config).await.unwrap();
    let direct = value!({ "relations": { "reader": { "directly_related_user_types": [{ "type": "user" }] } } });
    let document = value!({ "type": "document", "relations": { "reader": { "this": {} } }, "metadata": direct });
    let model = value!({ "schema_version": "1.1", "type_definitions": [{ "type": "user" }, document] });
    store.write_model(model).await.unwrap();
    let tuple = |n: usize| RelationshipTuple::parse(&user(n), "reader", &format!("document:{n}")).unwrap();
    let tuples: Vec<RelationshipTuple> = (0..10_000).step_by(2).map(tuple).collect();
    store.write_tuples(&tuples).await.unwrap();
    let checks: Vec<Check> = (0..10_000).map(|n| check(&user(n), "reader", &format!("document:{n}"))).collect();
    compare("flat model, 10,000 distinct checks", &config, &checks).await;
    hot(&config).await;
    overhead("flat model, 31 checks in a batch", &config, 1_500, |round| {
        let documents = (0..31).map(|n| (round * 31 + n) % 10_000);
        documents.map(|n| check(&user(round), "reader", &format!("document:{n}"))).collect()
    })
    .await;
}

fn user(number: usize) -> String {
    format!("user:{}", number % 100)
}

fn check(user: &str, relation: &str, object: &str) -> Check {
    Check {
        user: Object::parse(user).unwrap(),
        relation: Relation::parse(relation).unwrap(),
        object: Object::parse(object).unwrap(),
    }
}

fn batch(checks: &[Check]) -> CheckBatch {
    let (contextual, deadline) = (Arc::default(), Instant::now() + PATIENCE);
    CheckBatch { checks: checks.to_vec(), contextual, consistency: Consistency::MinimizeLatency, deadline }
}

async fn decide(authorizer: &dyn Authorizer, checks: &[Check]) -> Vec<bool> {
    let mut list = authorizer.check(&batch(checks)).await.unwrap().list;
    list.sort_unstable_by_key(|decision| decision.position);
    assert_eq!(list.len(), checks.len());
    list.into_iter().map(|decision| decision.allowed).collect()
}

/// The measurements of one way of asking.
struct Row {
    name: &'static str,
    took: Duration,
    /// The processor time of the server, in seconds.
    server: Option<f64>,
}

impl Row {
    /// Measures `deciding`, which must decide as `expected`.
    async fn of(
        name: &'static str,
        expected: &mut Option<Vec<bool>>,
        deciding: impl Future<Output = Vec<bool>>,
    ) -> Self {
        let (started, before) = (Instant::now(), server_seconds());
        let decided = deciding.await;
        let (took, after) = (started.elapsed(), server_seconds());
        assert!(*expected.get_or_insert_with(|| decided.clone()) == decided, "{name} decides otherwise");
        Self { name, took, server: after.zip(before).map(|(after, before)| after - before) }
    }
}

/// Compares single checks, sequential calls of 50, and our stack. All must decide the same.
async fn compare(name: &str, config: &OpenFgaConfig, checks: &[Check]) {
    let bare = OpenFgaAuthorizer::new(config).unwrap();
    let stack = stack_checks(config, &cold()).unwrap();
    let remembering = stack_checks(config, &warm()).unwrap();
    decide(&bare, &checks[..50]).await;
    decide(&stack, &checks[..1]).await;

    let in_calls_of = async |size: usize| {
        let mut decided = Vec::with_capacity(checks.len());
        for checks in checks.chunks(size) {
            decided.extend(decide(&bare, checks).await);
        }
        decided
    };
    let mut expected = None;
    let mut rows = vec![
        Row::of("one by one", &mut expected, in_calls_of(1)).await,
        Row::of("sequential calls of 50", &mut expected, in_calls_of(50)).await,
        Row::of("ours, cold", &mut expected, decide(&stack, checks)).await,
    ];
    tokio::time::sleep(Duration::from_secs(1)).await;
    decide(&remembering, checks).await;
    rows.push(Row::of("ours, warm", &mut expected, decide(&remembering, checks)).await);

    println!("\n{name:<44}{:>12}{:>14}{:>16}{:>22}", "time", "checks/s", "one by one / it", "server's CPU / check");
    let one_by_one = rows[0].took.as_secs_f64();
    for Row { name, took, server } in rows {
        let per_second = number(checks.len()) / took.as_secs_f64();
        let ratio = one_by_one / took.as_secs_f64();
        let server =
            server.map(|seconds| format!("{:.0} us", seconds * 1e6 / number(checks.len()))).unwrap_or_default();
        println!("{name:<44}{took:>12.1?}{per_second:>14.0}{ratio:>15.1}x{server:>22}");
    }
}

/// Returns the processor time of the server, which is the only child of this process. Returns `None` if the system does
/// not tell it as Linux does.
fn server_seconds() -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let own = std::process::id().to_string();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
        // The fields after the name, which is in brackets, are the state, the parent and so on. The 12th and 13th are
        // the ticks in user and in kernel mode.
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = fields.split(' ').collect();
        if fields.get(1) == Some(&own.as_str()) {
            let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
            return Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND);
        }
    }
    None
}

/// Measures sixteen callers who ask the same 31 checks at the same time, again and again.
async fn hot(config: &OpenFgaConfig) {
    const ROUNDS: usize = 100;
    let checks: Vec<Check> = (0..31).map(|n| check("user:0", "reader", &format!("document:{n}"))).collect();
    let bare: Arc<dyn Authorizer> = Arc::new(OpenFgaAuthorizer::new(config).unwrap());
    let stack: Arc<dyn Authorizer> = Arc::new(stack_checks(config, &cold()).unwrap());
    let mut took = Vec::new();
    for authorizer in [bare, stack] {
        decide(authorizer.as_ref(), &checks).await;
        let started = Instant::now();
        for _ in 0..ROUNDS {
            let asking = (0..CONCURRENCY).map(|_| {
                let (authorizer, checks) = (Arc::clone(&authorizer), checks.clone());
                tokio::spawn(async move { decide(authorizer.as_ref(), &checks).await })
            });
            for asked in asking.collect::<Vec<_>>() {
                asked.await.unwrap();
            }
        }
        took.push(started.elapsed());
    }
    println!("\nhot query, cold: {CONCURRENCY} callers ask the same 31 checks, {ROUNDS} times");
    println!("{:<44}{:>12.1?}", "each for itself", took[0]);
    println!("{:<44}{:>12.1?}{:>15.1}x", "coalesced", took[1], took[0].as_secs_f64() / took[1].as_secs_f64());
}

async fn corpus(server: &OpenFga, keps: &Path) {
    let config = patient(server.config("ragward"));
    let store = OpenFgaStore::open(&config).await.unwrap();
    let file = store_file::read(&keps.join("store.fga.yaml")).unwrap();
    let model = json::print(file.model.source()).unwrap();
    store.write_model(serde_json::from_str(&model).unwrap()).await.unwrap();
    store.write_tuples(&file.tuples).await.unwrap();
    let is_person = |user: &String| user.starts_with("user:") && user != "user:*";
    let people: BTreeSet<String> = file.tuples.iter().map(|tuple| tuple.user.to_string()).filter(is_person).collect();
    let step = people.len() / PEOPLE;
    let people: Vec<String> = people.into_iter().step_by(step).take(PEOPLE).collect();
    let documents = file.tuples.iter().map(|tuple| &tuple.object).filter(|object| object.type_name() == "document");
    let guards: Vec<Object> = documents.cloned().collect::<BTreeSet<_>>().into_iter().collect();

    let checks: Vec<Check> = guards
        .iter()
        .take(100)
        .flat_map(|guard| people.iter().map(move |user| check(user, "can_read", guard.as_str())))
        .collect();
    compare("corpus model, 1,000 distinct checks", &config, &checks).await;
    overhead("corpus model, 31 checks in a batch", &config, 120, |round| {
        let user = &people[round % people.len()];
        guards.iter().skip(round).take(31).map(|guard| check(user, "can_read", guard.as_str())).collect()
    })
    .await;
}

/// Compares the stack with the bare call, over batches of 31 checks of one caller. Each batch is asked twice either
/// way, in the order bare, stack, stack, bare, and in the next round the other way round. So drift and warm caches
/// affect both alike, and differences between the batches cancel out. The bench prints the median of the rounds'
/// differences and its 95 % interval (ranks of the binomial distribution).
async fn overhead(name: &str, config: &OpenFgaConfig, rounds: usize, checks_of: impl Fn(usize) -> Vec<Check>) {
    let bare: Arc<dyn Authorizer> = Arc::new(OpenFgaAuthorizer::new(config).unwrap());
    let stack: Arc<dyn Authorizer> = Arc::new(stack_checks(config, &cold()).unwrap());
    for authorizer in [&bare, &stack] {
        decide(authorizer.as_ref(), &checks_of(0)).await;
    }
    let (mut bare_took, mut differences) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let checks = checks_of(round);
        let [inner, outer] = if round % 2 == 0 { [&stack, &bare] } else { [&bare, &stack] };
        let mut took = [0.0; 4];
        for (took, authorizer) in took.iter_mut().zip([outer, inner, inner, outer]) {
            let started = Instant::now();
            decide(authorizer.as_ref(), &checks).await;
            *took = started.elapsed().as_secs_f64();
        }
        let [outer, inner] = [f64::midpoint(took[0], took[3]), f64::midpoint(took[1], took[2])];
        let [of_stack, of_bare] = if round % 2 == 0 { [inner, outer] } else { [outer, inner] };
        bare_took.push(of_bare);
        differences.push(of_stack - of_bare);
    }
    bare_took.sort_unstable_by(f64::total_cmp);
    differences.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of rounds")]
    let ranks = (0.98 * number(rounds).sqrt()).ceil() as usize;
    let middle = rounds / 2;
    let bare = bare_took[middle];
    println!("\n{name}, one caller: bare call {:.2} ms (p50)", bare * 1e3);
    for (what, rank) in [("the stack adds", middle), ("  at least", middle - ranks), ("  at most", middle + ranks)] {
        println!("{what:<44}{:>9.0} us{:>+14.1} %", differences[rank] * 1e6, differences[rank] / bare * 100.0);
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
