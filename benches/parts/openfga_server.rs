//! Asks the same checks of a real `OpenFGA` with its memory datastore and of `ragward serve`. Each server is a process
//! of its own on this machine, and one client loads and asks both over gRPC.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use openfga_client::client as api;
use ragward::authz::openfga::{OpenFgaConfig, OpenFgaStore, StoreSelector};
use ragward::language::RelationshipTuple;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::support::openfga::OpenFga;
use crate::{float, per_second};

/// The number of checks in one `BatchCheck`: `OpenFGA`'s default limit.
const BATCH: usize = 50;
const TIME: Duration = Duration::from_secs(5);
/// The time that calls run before they are measured.
const WARM_UP: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// The unit of the processor times in `/proc`, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

type Checks = std::sync::Arc<Vec<(String, String)>>;

/// The measurements of one kind of call.
#[derive(Clone, Copy)]
struct Measured {
    per_second: f64,
    /// The processor time of the server for one check.
    cpu: Duration,
}

/// Prints the checks per second of both, what a check costs each of them, and the ratios to each other and to checks in
/// this process.
pub(crate) fn compare(model: &str, tuples: &[RelationshipTuple], checks: &[(String, String)], in_process: f64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let checks: Checks = std::sync::Arc::new(checks.to_vec());
        let ours = Ragward::start(Audit::On).measure(model, tuples, &checks).await;
        let unrecorded = Ragward::start(Audit::Off).measure(model, tuples, &checks).await;
        let theirs = match OpenFga::start().await {
            Some(server) => {
                let config = server.config("bench");
                Some(measure(&config, only_child(), model, tuples, &checks).await)
            }
            None => None,
        };
        println!(
            "{:<44}{:>14}{:>16}{:>14}",
            "checks per second, by calls in flight", "Ragward", "no audit log", "OpenFGA"
        );
        for (place, kind) in KINDS.iter().enumerate() {
            let (ours, unrecorded, name) = (ours[place], unrecorded[place], kind.name());
            let per_second = |measured: Measured| format!("{:.0}", measured.per_second);
            let cpu = |measured: Measured| format!("{:.1?}", measured.cpu);
            let (rate, cost, ratio) = theirs.as_ref().map_or_else(Default::default, |theirs| {
                let theirs = theirs[place];
                let ratio = |ours: Measured| format!("{:.0}x", ours.per_second / theirs.per_second);
                (per_second(theirs), cpu(theirs), format!("{:>8}{:>8}", ratio(ours), ratio(unrecorded)))
            });
            println!("{name:<44}{:>14}{:>16}{rate:>14}{ratio}", per_second(ours), per_second(unrecorded));
            let name = "  processor time of the server for a check";
            println!("{name:<44}{:>14}{:>16}{cost:>14}", cpu(ours), cpu(unrecorded));
        }
        println!("{:<44}{in_process:>14.0}", "in this process, one thread, cold");
    });
}

/// A kind of call: the number of checks in it, and the number of calls in flight.
struct Kind {
    batch: usize,
    callers: usize,
}

const KINDS: [Kind; 4] = [
    Kind { batch: 1, callers: 1 },
    Kind { batch: 1, callers: 16 },
    Kind { batch: BATCH, callers: 1 },
    Kind { batch: BATCH, callers: 16 },
];

impl Kind {
    fn name(&self) -> String {
        let call = if self.batch == 1 { "Check".to_owned() } else { format!("BatchCheck of {}", self.batch) };
        format!("{call}, {} in flight", self.callers)
    }
}

/// Whether Ragward keeps a record of each call, which is on the disk before the answer leaves. Ragward does so by
/// default; `OpenFGA` never does.
#[derive(Clone, Copy)]
enum Audit {
    On,
    Off,
}

/// A Ragward server over an empty data directory.
struct Ragward {
    _data: tempfile::TempDir,
    process: Child,
    config: OpenFgaConfig,
}

impl Ragward {
    fn start(audit: Audit) -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(env!("CARGO_BIN_EXE_ragward"))
            .args(["serve", "--insecure-identity", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data.path())
            .env("RAGWARD__AUDIT__ENABLED", matches!(audit, Audit::On).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let store = StoreSelector::Name("bench".to_owned());
        Self { _data: data, process, config: OpenFgaConfig::new(format!("http://127.0.0.1:{port}"), store) }
    }

    async fn measure(mut self, model: &str, tuples: &[RelationshipTuple], checks: &Checks) -> Vec<Measured> {
        let measured = measure(&self.config, self.process.id(), model, tuples, checks).await;
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        measured
    }
}

/// Returns the only other process that this one has started.
fn only_child() -> u32 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let children = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    let children: Vec<u32> = children
        .flat_map(|of_thread| of_thread.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// Returns the processor time that a process has used.
fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name of the program, in brackets, may have spaces. User and kernel time are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

/// Loads a server and measures each kind of call.
async fn measure(
    config: &OpenFgaConfig,
    process: u32,
    model: &str,
    tuples: &[RelationshipTuple],
    checks: &Checks,
) -> Vec<Measured> {
    let endpoint = Endpoint::from_shared(config.address.clone()).unwrap();
    let started = Instant::now();
    let channel = loop {
        match endpoint.connect().await {
            Ok(channel) => break channel,
            Err(e) => assert!(started.elapsed() < PATIENCE, "the server does not start: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let store = OpenFgaStore::open(config).await.unwrap();
    store.write_model(serde_json::from_str(model).unwrap()).await.unwrap();
    store.write_tuples(tuples).await.unwrap();
    let mut measured = Vec::new();
    for kind in &KINDS {
        rate(&channel, store.store_id(), checks, kind, WARM_UP).await;
        let (started, before) = (Instant::now(), cpu(process));
        let done = rate(&channel, store.store_id(), checks, kind, TIME).await;
        let per_second = per_second(done, started.elapsed());
        measured.push(Measured { per_second, cpu: cpu(process).saturating_sub(before).div_f64(float(done)) });
    }
    measured
}

/// Returns the number of checks that were answered.
async fn rate(channel: &Channel, store: &str, checks: &Checks, kind: &Kind, time: Duration) -> usize {
    let (started, batch) = (Instant::now(), kind.batch);
    let callers: Vec<_> = (0..kind.callers)
        .map(|caller| {
            let mut client = api::OpenFgaServiceClient::new(channel.clone());
            let (store, checks) = (store.to_owned(), std::sync::Arc::clone(checks));
            tokio::spawn(async move {
                let (mut done, mut next) = (0, caller * 1_009);
                while started.elapsed() < time {
                    let asked = (next..next + batch).map(|n| &checks[n % checks.len()]);
                    if batch == 1 {
                        for (user, document) in asked {
                            client.check(check(&store, user, document)).await.unwrap();
                        }
                    } else {
                        let request = batch_check(&store, asked);
                        let answer = client.batch_check(request).await.unwrap().into_inner();
                        assert_eq!(answer.result.len(), batch);
                    }
                    (done, next) = (done + batch, next + batch);
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for caller in callers {
        done += caller.await.unwrap();
    }
    done
}

fn check(store: &str, user: &str, document: &str) -> api::CheckRequest {
    api::CheckRequest { store_id: store.to_owned(), tuple_key: Some(key(user, document)), ..Default::default() }
}

fn batch_check<'a>(store: &str, checks: impl Iterator<Item = &'a (String, String)>) -> api::BatchCheckRequest {
    let item = |(number, (user, document)): (usize, &(String, String))| api::BatchCheckItem {
        tuple_key: Some(key(user, document)),
        correlation_id: number.to_string(),
        ..Default::default()
    };
    let checks = checks.enumerate().map(item).collect();
    api::BatchCheckRequest { store_id: store.to_owned(), checks, ..Default::default() }
}

fn key(user: &str, document: &str) -> api::CheckRequestTupleKey {
    api::CheckRequestTupleKey { user: user.to_owned(), relation: "can_read".to_owned(), object: document.to_owned() }
}
