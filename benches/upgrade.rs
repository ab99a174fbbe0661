//! This bench measures what an upgrade costs: the same work by an older binary and by this one, in turn. The environment
//! variable `OLD_BIN` names the older binary:
//!
//! `OLD_BIN=/path/to/older/ragward cargo bench --bench upgrade`
//!
//! It ingests the 617 design documents on one core, from the start of the process until all is durable, and asks text
//! queries over gRPC on loopback. The two servers have the same store file and the same documents, each as it cuts them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, fails by panicking, and counts what is far below 2^52"
)]

mod support {
    pub(crate) mod questions;
    #[expect(dead_code, reason = "the client has the address already")]
    pub(crate) mod served;
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ragward::proto::retrieval::RetrieveRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::store_file;
use tempfile::TempDir;
use tokio::time::Instant;

use self::support::questions::QUERIES;
use self::support::served::Served;

const COLLECTION: &str = "keps";
/// How often the documents are ingested by each binary. The median counts.
const ROUNDS: usize = 5;
const PEOPLE: usize = 40;
/// The number of requests to each server that are not counted: one for each person.
const WARM_UP: usize = PEOPLE;
/// The number of requests to each server that count.
const REQUESTS: usize = 4_000;

/// A binary, and what it is called in the output.
struct Version {
    name: &'static str,
    binary: PathBuf,
}

fn main() {
    let keps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
    if !keps.is_dir() {
        println!("skipped: there is no corpus at {}", keps.display());
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "a bench finds the older binary as its caller says")]
    let Some(older) = std::env::var("OLD_BIN").ok().filter(|path| !path.is_empty()) else {
        println!("skipped: OLD_BIN names no older binary");
        return;
    };
    let before = Version { name: "before", binary: PathBuf::from(older) };
    let now = Version { name: "now", binary: PathBuf::from(env!("CARGO_BIN_EXE_ragward")) };
    for version in [&before, &now] {
        println!("{:<8}{} {}", version.name, version.output(&["--version"]).trim(), version.binary.display());
    }
    let keps = keps.canonicalize().unwrap();
    ingest([&before, &now], &keps);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(ask([&before, &now], &keps)));
}

impl Version {
    /// Runs a command to its end, and returns its output.
    fn output(&self, arguments: &[&str]) -> String {
        finished(Command::new(&self.binary).args(arguments))
    }

    /// Ingests the documents into a new data directory, on one core if `taskset` is there.
    fn ingested(&self, keps: &Path, is_pinned: bool) -> (TempDir, Duration) {
        let data = tempfile::tempdir().unwrap();
        let mut command = if is_pinned {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", "0"]).arg(&self.binary);
            command
        } else {
            Command::new(&self.binary)
        };
        command.arg("ingest").arg(keps).args(["--collection", COLLECTION, "--data"]).arg(data.path());
        let started = Instant::now();
        finished(&mut command);
        (data, started.elapsed())
    }

    /// Serves the documents, with the rights of the store file.
    fn serve(&self, keps: &Path) -> (TempDir, Served) {
        let (data, _) = self.ingested(keps, false);
        let store = keps.join("store.fga.yaml");
        finished(Command::new(&self.binary).args(["model", "load"]).arg(store).arg("--data").arg(data.path()));
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--insecure-identity", "--listen", "127.0.0.1:0", "--data"]).arg(data.path());
        command.env("RAGWARD__AUDIT__ENABLED", "false").stdin(Stdio::null()).stdout(Stdio::null());
        let served = Served::start(command);
        (data, served)
    }
}

/// Runs a command, which must succeed, and returns its output.
fn finished(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Compares the ingest of both versions, which take turns.
fn ingest([before, now]: [&Version; 2], keps: &Path) {
    let is_pinned = Command::new("taskset").arg("--version").output().is_ok();
    let bytes = bytes_below(&keps.join("documents"));
    // The files are in the memory of the system afterwards.
    drop(now.ingested(keps, is_pinned));
    let (mut of_before, mut of_now) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_before.push(before.ingested(keps, is_pinned).1);
        of_now.push(now.ingested(keps, is_pinned).1);
    }
    let rate = |times: Vec<Duration>| bytes as f64 / 1e6 / median(times).as_secs_f64();
    let (of_before, of_now) = (rate(of_before), rate(of_now));
    let cores = if is_pinned { "one core" } else { "all cores, because there is no `taskset`" };
    println!("\ningest of {:.1} MB on {cores}, median of {ROUNDS}", bytes as f64 / 1e6);
    println!("{:>12}{:>12}{:>8}", "before", "now", "ratio");
    println!("{:>12}{:>12}{:>8.2}", format!("{of_before:.2} MB/s"), format!("{of_now:.2} MB/s"), of_now / of_before);
    println!("Goal: a ratio of at least 0.7. What bounds it: the terms of each chunk, and then the write to the disk.");
}

/// Compares the latency of text queries. Each request goes to both servers, and the one that is first alternates.
async fn ask([before, now]: [&Version; 2], keps: &Path) {
    let people = people(keps);
    let (data_before, served_before) = before.serve(keps);
    let (data_now, served_now) = now.serve(keps);
    let servers = [&served_before, &served_now];
    let mut times = [Vec::new(), Vec::new()];
    let mut released = [0, 0];
    for number in 0..WARM_UP + REQUESTS {
        let first = number % 2;
        for turn in [first, 1 - first] {
            let (Some(server), Some(times), Some(released)) =
                (servers.get(turn), times.get_mut(turn), released.get_mut(turn))
            else {
                continue;
            };
            let request = request(&people, number);
            let started = Instant::now();
            let answer = server.client.retrieval().retrieve(request).await.unwrap().into_inner();
            if number >= WARM_UP {
                times.push(started.elapsed());
                *released += answer.chunks.len();
            }
        }
    }
    served_before.stop().await;
    served_now.stop().await;
    drop((data_before, data_now));
    let [of_before, of_now] = times.map(median);
    println!("\ntext queries over gRPC, k = 10, {REQUESTS} to each of the two servers, one caller");
    println!("{:>12}{:>12}{:>8}", "p50 before", "p50 now", "ratio");
    println!("{of_before:>12.2?}{of_now:>12.2?}{:>8.2}", of_now.as_secs_f64() / of_before.as_secs_f64());
    println!("chunks released: {released:?}");
    println!("Goal: a ratio of at most 1.3. What bounds it: the sum of the scores over the visible set, and gRPC.");
}

fn request(people: &[String], number: usize) -> RetrieveRequest {
    let person = people.get(number % people.len()).cloned();
    let query = QUERIES.get(number / people.len() % QUERIES.len()).copied();
    RetrieveRequest {
        user: person.unwrap_or_default(),
        collection: COLLECTION.to_owned(),
        query: query.map(|text| Query::Text(text.to_owned())),
        top_k: 10,
        ..RetrieveRequest::default()
    }
}

/// Returns some of the people that the tuples name, evenly picked.
fn people(keps: &Path) -> Vec<String> {
    let store = store_file::read(&keps.join("store.fga.yaml")).unwrap();
    let users = store.tuples.iter().map(|tuple| tuple.user.to_string());
    let people: BTreeSet<String> = users.filter(|user| user.starts_with("user:") && user != "user:*").collect();
    let step = people.len() / PEOPLE;
    people.into_iter().step_by(step).take(PEOPLE).collect()
}

/// Returns the length of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { bytes_below(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}
