//! This bench measures what a door costs, what TLS costs, and whether a change of the certificate fails a request.
//!
//! A real corpus (617 design documents, 725 people) is loaded and asked on loopback, clients and server in this process. The
//! same retrievals are asked over gRPC and as JSON over HTTP, each plain and over TLS, on kept connections. All ways reach the
//! same services and take turns, so that other work of the machine affects them alike. The baselines are gRPC for JSON, and
//! the plain port for TLS, with a certificate that is made in this run.
//!
//! Then [`certificate_change`] sends a steady load, with new connections in it, while the certificate changes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench prints, and fails by panicking"
)]

mod parts {
    pub(crate) mod certificate_change;
    pub(crate) mod ports;
    pub(crate) mod ways;
}

mod support {
    #[expect(dead_code, reason = "clients show no certificates here")]
    pub(crate) mod certificates;
    #[expect(dead_code, reason = "the tests of doors use the rest of it")]
    pub(crate) mod http;
    pub(crate) mod questions;
}

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::parts::certificate_change;
use self::parts::ports::{Corpus, Ports};
use self::parts::ways::{Door, Security, Way};

/// The number of requests one after another, of each way.
const SEQUENTIAL: usize = 2_000;
const CONCURRENCY: usize = 16;
/// The number of requests of each concurrent caller.
const EACH: usize = 500;
/// The number of turns that each way takes. Many turns let a change of the machine's speed affect all ways alike.
const TURNS: usize = 5;

/// A way, and its measurements.
struct Measured {
    name: &'static str,
    way: Way,
    alone: Vec<Duration>,
    among_others: Vec<Duration>,
    /// How long the callers beside each other took.
    took: Duration,
}

/// The figures of a way.
#[derive(Clone, Copy)]
struct Figures {
    alone: Duration,
    among_others: Duration,
    per_second: f64,
}

fn main() {
    let keps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
    if !keps.is_dir() {
        println!("skipped: there is no corpus at {}", keps.display());
        return;
    }
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let data = tempfile::tempdir().unwrap();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let ports = Ports::open(data.path(), &keps).await;
        compare(&ports).await;
        certificate_change::measure(&ports).await;
    });
}

/// Measures all ways in turn, and prints their figures and ratios.
async fn compare(ports: &Ports) {
    let kinds = [
        ("gRPC", Door::Grpc, Security::Plain),
        ("JSON", Door::Json, Security::Plain),
        ("gRPC, TLS", Door::Grpc, Security::Tls),
        ("JSON, TLS", Door::Json, Security::Tls),
    ];
    let mut ways = Vec::new();
    for (name, door, security) in kinds {
        let way = Way::open(ports, door, security).await;
        ways.push(Measured { name, way, alone: Vec::new(), among_others: Vec::new(), took: Duration::ZERO });
    }
    for turn in 0..TURNS {
        for place in 0..ways.len() {
            let which = (place + turn) % ways.len();
            ways[which].measure(&ports.corpus).await;
        }
    }

    println!("\n{:<28}{:>12}{:>12}{:>14}", "retrieve, k = 10, text", "p50", "p50 of 16", "requests/s");
    let mut figures = Vec::new();
    for way in &mut ways {
        let found = way.figures();
        let Figures { alone, among_others, per_second } = found;
        println!("{:<28}{alone:>12.1?}{among_others:>12.1?}{per_second:>14.0}", way.name);
        figures.push(found);
    }
    let [grpc, json, grpc_tls, json_tls] = figures[..] else { panic!("four ways") };
    let rows = [
        ("JSON / gRPC", json, grpc),
        ("JSON / gRPC, both over TLS", json_tls, grpc_tls),
        ("TLS / plain, gRPC", grpc_tls, grpc),
        ("TLS / plain, JSON", json_tls, json),
    ];
    for (name, way, baseline) in rows {
        let alone = way.alone.as_secs_f64() / baseline.alone.as_secs_f64();
        let among_others = way.among_others.as_secs_f64() / baseline.among_others.as_secs_f64();
        let per_second = way.per_second / baseline.per_second;
        println!("{name:<28}{alone:>11.2}x{among_others:>11.2}x{per_second:>13.2}x");
    }
    println!(
        "p50 of one caller ({SEQUENTIAL} requests), and of {CONCURRENCY} beside each other ({EACH} requests each)"
    );
}

impl Measured {
    /// Takes one turn.
    async fn measure(&mut self, corpus: &Arc<Corpus>) {
        let mut chunks = 0;
        for number in 0..SEQUENTIAL / TURNS {
            let started = Instant::now();
            chunks += self.way.retrieve(corpus, number).await.unwrap();
            self.alone.push(started.elapsed());
        }
        assert!(chunks > 0, "the people may see something");
        let started = Instant::now();
        let callers = (0..CONCURRENCY).map(|caller| {
            let (way, corpus) = (self.way.clone(), Arc::clone(corpus));
            tokio::spawn(async move {
                let mut took = Vec::with_capacity(EACH / TURNS);
                for number in 0..EACH / TURNS {
                    let started = Instant::now();
                    way.retrieve(&corpus, caller * 7 + number).await.unwrap();
                    took.push(started.elapsed());
                }
                took
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            self.among_others.extend(caller.await.unwrap());
        }
        self.took += started.elapsed();
    }

    fn figures(&mut self) -> Figures {
        self.alone.sort_unstable();
        self.among_others.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let per_second = self.among_others.len() as f64 / self.took.as_secs_f64();
        Figures {
            alone: self.alone[self.alone.len() / 2],
            among_others: self.among_others[self.among_others.len() / 2],
            per_second,
        }
    }
}
