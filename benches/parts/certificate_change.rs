//! A steady load over TLS while the certificate of the port changes. No request may fail, neither on a kept connection nor on a
//! new one.
//!
//! Each request is sent at its own time, whether or not the ones before it were answered. The baseline is the same load while
//! the certificate stays.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ragward::proto::retrieval::retrieval_service_client::RetrievalServiceClient;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tokio_rustls::TlsConnector;

use super::ports::{Corpus, Ports};
use super::ways::{Door, Security, Way, recheck_body, recheck_path};
use crate::support::certificates::{Authority, NAME, Pair};
use crate::support::http::{Call, Reply};

const PER_SECOND: u32 = 1_000;
/// The requests of each of the two loads: six seconds of them.
const REQUESTS: usize = 6_000;
/// The number of changes of the certificate under the second load.
const CHANGES: usize = 5;
/// Each door takes one request in this many on a new connection.
const NEW_EVERY: usize = 10;
/// The number of failures that are shown.
const FAILURES_SHOWN: usize = 5;

/// The callers, as each request needs them.
#[derive(Clone)]
struct Callers {
    grpc: Way,
    json: Way,
    authority: Arc<Authority>,
    /// The TLS of new connections for JSON.
    tls: Arc<ClientConfig>,
    address: SocketAddr,
    corpus: Arc<Corpus>,
}

/// The outcome of one request.
struct Called {
    took: Duration,
    /// The certificate that a new connection has met, if its caller looked.
    outcome: Result<Option<Vec<u8>>, String>,
}

/// The results of one load.
#[derive(Default)]
struct Load {
    latencies: Vec<Duration>,
    failures: Vec<String>,
    /// The certificates that new connections have met.
    met: HashSet<Vec<u8>>,
    took: Duration,
}

pub(crate) async fn measure(ports: &Ports) {
    let mut tls = ports.authority.client(None);
    // A resumed session would bring back the certificate of an earlier connection.
    tls.resumption = Resumption::disabled();
    let callers = Callers {
        grpc: Way::open(ports, Door::Grpc, Security::Tls).await,
        json: Way::open(ports, Door::Json, Security::Tls).await,
        authority: Arc::clone(&ports.authority),
        tls: Arc::new(tls),
        address: ports.secured,
        corpus: Arc::clone(&ports.corpus),
    };
    let pairs: Vec<Pair> = (0..CHANGES).map(|_| ports.authority.issue()).collect();
    let unchanged = load(ports, &callers, &[]).await;
    let changed = load(ports, &callers, &pairs).await;
    let served = pairs.iter().filter(|pair| changed.met.contains(&*pair.certificate)).count();

    println!("\n{:<28}{:>10}{:>12}{:>12}{:>14}", "re-check of a chunk, TLS", "failed", "p50", "p99", "requests/s");
    for (name, load) in [("certificate stays", &unchanged), ("certificate changes", &changed)] {
        let (p50, p99) = (load.percentile(50), load.percentile(99));
        println!("{name:<28}{:>10}{p50:>12.1?}{p99:>12.1?}{:>14.0}", load.failures.len(), load.per_second());
        for failure in load.failures.iter().take(FAILURES_SHOWN) {
            println!("  {failure}");
        }
    }
    println!(
        "{REQUESTS} requests each, {} of them on new connections; {served} of {CHANGES} new certificates were met there",
        REQUESTS * 2 / NEW_EVERY
    );
}

/// Sends the requests of one load. Meanwhile the certificate changes to each of the pairs, in equal steps.
async fn load(ports: &Ports, callers: &Callers, pairs: &[Pair]) -> Load {
    let step = REQUESTS / (pairs.len() + 1);
    let started = Instant::now();
    // A request that is late is sent at once, so the load stays what it is.
    let mut every = interval(Duration::from_secs(1) / PER_SECOND);
    let mut calls = JoinSet::new();
    for number in 0..REQUESTS {
        every.tick().await;
        if number % step == 0
            && let Some(pair) = (number / step).checked_sub(1).and_then(|change| pairs.get(change))
        {
            pair.write(&ports.certificates);
            // The server looks by itself once a minute, and at once on SIGHUP.
            ports.tls.look_again().await;
        }
        let callers = callers.clone();
        calls.spawn(async move { callers.call(number).await });
    }
    let mut load = Load::default();
    while let Some(called) = calls.join_next().await {
        let Called { took, outcome } = called.unwrap();
        load.latencies.push(took);
        match outcome {
            Ok(met) => load.met.extend(met),
            Err(failure) => load.failures.push(failure),
        }
    }
    load.took = started.elapsed();
    load.latencies.sort_unstable();
    load
}

impl Callers {
    async fn call(&self, number: usize) -> Called {
        let started = Instant::now();
        let outcome = match (number % NEW_EVERY, number.is_multiple_of(2)) {
            (0, _) => self.on_new_grpc(number).await.map(|()| None),
            (1, _) => self.on_new_json(number).await.map(Some),
            (_, true) => self.grpc.recheck(&self.corpus, number).await.map(|()| None),
            (_, false) => self.json.recheck(&self.corpus, number).await.map(|()| None),
        };
        Called { took: started.elapsed(), outcome }
    }

    async fn on_new_grpc(&self, number: usize) -> Result<(), String> {
        let channel = self.authority.channel(self.address, None).await.map_err(|e| format!("{e:?}"))?;
        Way::Grpc(RetrievalServiceClient::new(channel)).recheck(&self.corpus, number).await
    }

    /// Returns the certificate that the server has shown.
    async fn on_new_json(&self, number: usize) -> Result<Vec<u8>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let connected = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await;
        let mut stream = connected.map_err(|e| e.to_string())?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(<[_]>::first).map(|shown| shown.to_vec());
        let call = Call::json(&recheck_path(), &recheck_body(&self.corpus, number));
        let request = call.bytes(&format!("{NAME}:{}", self.address.port()));
        stream.write_all(&request).await.map_err(|e| e.to_string())?;
        let reply = Reply::read(&mut stream).await.ok_or("no answer")?;
        if reply.status != 200 {
            return Err(format!("{}: {}", reply.status, reply.text()));
        }
        shown.ok_or_else(|| "no certificate".to_owned())
    }
}

impl Load {
    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[self.latencies.len() * percent / 100]
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}
