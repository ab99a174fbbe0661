//! This bench measures what it costs to hold a million relationship tuples and to ask about them.
//!
//! It measures three things: memory, loading, opening and checks at a million tuples of an invented company (nested
//! groups, nested folders, documents); checks on the real corpus of design documents; and, if there is an `openfga`
//! (`OPENFGA_BIN` or the `PATH`), the same checks asked of it. Each figure has its baseline in the same run. A number
//! as an argument replaces the million; `corpus` leaves out what needs the million.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench prints, and fails by panicking"
)]

mod parts {
    pub(crate) mod openfga_server;
    pub(crate) mod world;
}

mod support {
    pub(crate) mod held_port;
    pub(crate) mod openfga;
}

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ragward::authz::embedded::EmbeddedAuthorizer;
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency};
use ragward::engine::snapshot::Snapshot;
use ragward::language::{Object, Relation, RelationshipTuple, TypeName, User, dsl};
use ragward::store_file;
use ragward::tuple_store::{OnConflict, RelationshipStore, RelationshipStores, TupleWrite};
use serde_json::Map;
use tokio::time::Instant;

use self::parts::openfga_server;
use self::parts::world::{self, Random, World};

const TUPLES: usize = 1_000_000;
const CANDIDATES: usize = 1_000;
const ASKERS: usize = 200;
const SMALL_WRITES: usize = 20;
const CONTEXTUAL: usize = 20;
/// The argument that leaves out what is measured at a million tuples.
const CORPUS: &str = "corpus";
/// The argument of the child process that opens a data directory and prints the cost of that.
const OPEN: &str = "--open";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [OPEN, directory] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        open(Path::new(directory));
        return;
    }
    if arguments.first().is_none_or(|argument| argument != CORPUS) {
        large(arguments.first().map_or(TUPLES, |argument| argument.parse().expect("a number of tuples, or `corpus`")));
    }
    keps();
}

fn large(count: usize) {
    let world = World::new(count);
    let text = world.tuples.iter().map(|tuple| format!("{tuple}\n")).collect::<Vec<_>>().concat();
    let million = float(count) / 1e6;
    println!("{} tuples: {:.1} MB as text", world.tuples.len(), megabytes(text.len()));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tuples.txt");
    let writing = timed(|| {
        fs::write(&file, &text).unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
    });
    let stores = RelationshipStores::open(directory.path()).unwrap();
    let store = stores.default_store_or_new().unwrap();
    store.write_model(dsl::load(world::MODEL).unwrap()).unwrap();
    let tuples = world.tuples.clone();
    let loading = timed(|| store.write_all(tuples, OnConflict::Refuse).unwrap());
    println!("{:<52}{:>12.0}/s", "bulk load, durable and ready for questions", per_second(count, loading));
    println!("{:<52}{:>12.0}/s", "  baseline: the text to a file, synced", per_second(count, writing));
    let other = tempfile::tempdir().unwrap();
    let other_stores = RelationshipStores::open(other.path()).unwrap();
    let (empty, tuples) = (other_stores.default_store_or_new().unwrap(), world.tuples.clone());
    let model = dsl::load(world::MODEL).unwrap();
    let loading = timed(|| empty.write_model_with_tuples(model, tuples).unwrap());
    println!("{:<52}{:>12.0}/s", "  with the model in one transaction (`model load`)", per_second(count, loading));
    drop((empty, other_stores, other));
    small_writes(&store);
    let snapshot = store.snapshot().unwrap().unwrap();
    candidates(&world, &snapshot, &EmbeddedAuthorizer::new(stores.clone()));
    contextual(&snapshot);
    drop((snapshot, store, stores));

    let child = Command::new(std::env::current_exe().unwrap()).arg(OPEN).arg(directory.path()).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let said = String::from_utf8(child.stdout).unwrap();
    let [seconds, resident, most] = said.split_whitespace().map(|n| n.parse().unwrap()).collect::<Vec<f64>>()[..]
    else {
        panic!("the child said {said}");
    };
    let parsing = timed(|| {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let mut words = line.split(' ');
            let [user, relation, object] = [(); 3].map(|()| words.next().unwrap());
            black_box(RelationshipTuple::parse(user, relation, object).unwrap());
        }
    });
    println!("{:<52}{seconds:>12.2} s", "from disk to ready (another process)");
    println!("{:<52}{:>12.2} s", "  baseline: the text read and parsed, nothing kept", parsing.as_secs_f64());
    println!("{:<52}{:>12.1} MB", "memory of it, per million tuples", resident / million);
    println!("{:<52}{:>12.1} MB", "  at most meanwhile", most / million);
    println!("{:<52}{:>12.1} MB", "  baseline: the text", megabytes(text.len()) / million);
}

/// Prints what opening a data directory costs a process: seconds, and the megabytes by which its memory grew, after
/// opening and at most.
fn open(directory: &Path) {
    let before = memory("VmRSS:");
    let started = Instant::now();
    let stores = RelationshipStores::open(directory).unwrap();
    let snapshot = stores.default_store().unwrap().snapshot().unwrap().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!(snapshot.tuple_count() > 0);
    println!("{seconds} {} {}", memory("VmRSS:") - before, memory("VmHWM:") - before);
}

/// Returns a line of this process's status, in megabytes.
fn memory(line: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kilobytes = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    kilobytes.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / 1e6
}

fn small_writes(store: &RelationshipStore) {
    let write = |number: usize| {
        let tuple = RelationshipTuple::parse(&format!("user:new-{number}"), "viewer", "document:1").unwrap();
        let request = TupleWrite { writes: vec![tuple], ..TupleWrite::default() };
        timed(|| store.write(&request).unwrap())
    };
    let first = write(0);
    let mut next: Vec<Duration> = (1..=SMALL_WRITES).map(write).collect();
    let next = median(&mut next);
    println!("{:<52}{first:>12.1?}", "first write of one tuple after the load, durable");
    println!("{:<52}{next:>12.1?}", "  the next ones, median");
}

/// Measures the candidates of a user as enforcement asks about them: for users who were not asked about before, and
/// again. The baselines are one evaluation of all candidates, and one evaluation of each.
fn candidates(world: &World, snapshot: &Snapshot, authorizer: &EmbeddedAuthorizer) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let relation = Relation::parse("can_read").unwrap();
    let mut random = Random(2);
    let [mut first, mut again, mut together, mut apart, mut whole] = [const { Vec::new() }; 5];
    let mut allowed = 0;
    for _ in 0..ASKERS {
        let user = world.user(&mut random);
        let checks = (0..CANDIDATES).map(|_| {
            let (user, relation) = (user.clone(), relation.clone());
            Check { user, relation, object: world.document(&mut random) }
        });
        let batch = CheckBatch {
            checks: checks.collect(),
            contextual: Arc::default(),
            consistency: Consistency::default(),
            deadline: Instant::now() + Duration::from_mins(5),
        };
        let mut decided = Vec::new();
        first.push(timed(|| decided = runtime.block_on(authorizer.check(&batch)).unwrap().list));
        again.push(timed(|| runtime.block_on(authorizer.check(&batch)).unwrap()));
        decided.sort_unstable_by_key(|answer| answer.position);
        let user = User::Object(user);
        let mut evaluated = Vec::new();
        together.push(timed(|| {
            let mut evaluation = snapshot.evaluation(&user).unwrap();
            evaluated.extend(
                batch.checks.iter().map(|check| evaluation.check(&relation, &check.object, &mut || true).unwrap()),
            );
        }));
        assert!(decided.iter().map(|answer| answer.allowed).eq(evaluated.iter().copied()), "{user}");
        allowed += evaluated.into_iter().filter(|allowed| *allowed).count();
        apart.push(timed(|| {
            for check in &batch.checks {
                black_box(snapshot.check(&user, &relation, &check.object).unwrap());
            }
        }));
        let documents = TypeName::parse("document").unwrap();
        whole.push(timed(|| snapshot.visible_set(&user, &relation, &documents, &mut || true).unwrap()));
    }
    let share = 100 * allowed / (ASKERS * CANDIDATES);
    println!("{CANDIDATES} candidates of one user, {ASKERS} users, {share} % allowed");
    for (name, mut times) in [
        ("  a batch of the authorizer, first of its user", first),
        ("  the same again (what the user is in is kept)", again),
        ("  baseline: checks that share one evaluation", together),
        ("  baseline: nothing shared between checks", apart),
        ("  the whole visible set, for comparison", whole),
    ] {
        let median = median(&mut times);
        println!("{name:<52}{median:>12.1?}{:>12.1?} (p99)", times[times.len() * 99 / 100]);
    }
}

fn contextual(snapshot: &Snapshot) {
    let tuple =
        |n: usize| RelationshipTuple::parse(&format!("user:ctx-{n}"), "viewer", &format!("document:{n}")).unwrap();
    let tuples: Vec<RelationshipTuple> = (0..CONTEXTUAL).map(tuple).collect();
    let mut times: Vec<Duration> =
        (0..1_000).map(|_| timed(|| drop(black_box(snapshot.for_request(&tuples, Map::new()).unwrap())))).collect();
    println!(
        "{:<52}{:>12.1?}",
        format!("{CONTEXTUAL} contextual tuples put above the store, median"),
        median(&mut times)
    );
}

fn keps() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps/store.fga.yaml");
    if !path.is_file() {
        println!("skipped: there is no corpus at {}", path.display());
        return;
    }
    let store = store_file::read(&path).unwrap();
    let model_json = ragward::language::json::print(store.model.source()).unwrap();
    let snapshot = Snapshot::new("", Arc::new(store.model)).with_tuples(&store.tuples).unwrap();
    let of = |of: &str| -> Vec<Object> { snapshot.objects_of(&TypeName::parse(of).unwrap()).collect() };
    let (users, documents) = (of("user"), of("document"));
    let relation = Relation::parse("can_read").unwrap();
    let mut random = Random(3);
    let checks: Vec<(User, Object)> =
        (0..100_000).map(|_| (User::Object(random.pick(&users).clone()), random.pick(&documents).clone())).collect();
    println!("checks on {} tuples of a real project", store.tuples.len());
    let cold = timed(|| {
        for (user, document) in &checks {
            black_box(snapshot.check(user, &relation, document).unwrap());
        }
    });
    println!("{:<52}{:>12.2?}", "  cold: nothing known of the user", cold / 100_000);
    let (mut warm, mut asked) = (Duration::ZERO, 0);
    for user in users.iter().take(100) {
        let user = User::Object(user.clone());
        let mut evaluation = snapshot.evaluation(&user).unwrap();
        let mut ask = || {
            for document in &documents {
                black_box(evaluation.check(&relation, document, &mut || true).unwrap());
            }
        };
        ask();
        warm += timed(ask);
        asked += documents.len();
    }
    println!("{:<52}{:>12.2?}", "  warm: asked by the same evaluation before", warm / u32::try_from(asked).unwrap());
    let checks: Vec<(String, String)> =
        checks.iter().map(|(user, document)| (user.to_string(), document.to_string())).collect();
    let ours = per_second(checks.len(), cold);
    openfga_server::compare(&model_json, &store.tuples, &checks, ours);
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    black_box(work());
    started.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn per_second(count: usize, time: Duration) -> f64 {
    float(count) / time.as_secs_f64()
}

fn megabytes(bytes: usize) -> f64 {
    float(bytes) / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(number: usize) -> f64 {
    number as f64
}
