//! This bench measures whether the cost of an exact search follows what the user may see, rather than what the corpus
//! holds.
//!
//! Every share of visible chunks is measured in turn with the same search over everything, by the same engine in the
//! same run, so that other work of the machine affects both. Vectors: 100,000 × 384, each behind a guard of its own,
//! and 1,000,000 × 384, ten to a guard, around 1,000 centres. Recall is against a plain loop over the visible vectors.
//! Texts: 100,000 chunks of invented words, and the KEPs of `../shared` if they are there.
//!
//! `cargo bench --bench search -- --plot FILE` also searches the first vectors in the two other usual ways: search and
//! check afterwards, and a list of ids that the server cut. It draws what each way costs and finds. The time of all
//! three excludes the checks themselves. `-- vectors`, `-- million` or `-- texts` measures one part alone.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench prints, fails by panicking, and counts what is far below 2^24"
)]

mod parts {
    pub(crate) mod corpus;
    pub(crate) mod plot;
}

mod support {
    #[expect(dead_code, reason = "nothing is shuffled here")]
    pub(crate) mod dice;
}

use std::collections::HashSet;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use ragward::chunk::{Candidate, Document};
use ragward::vector_store::exact::{ExactStore, FILE_NAME};
use ragward::vector_store::{DocumentStore, GuardTable, Query, Search, SearchSpace, VectorStore};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use self::parts::corpus::{self, COLLECTION, Corpus};
use self::parts::plot::{self, Line, Point};
use self::support::dice::Dice;

const LIMIT: usize = 10;
/// The visible shares of all chunks.
const SHARES: [f64; 7] = [0.0001, 0.001, 0.01, 0.1, 0.4, 0.9, 0.99];
const TEXT_SHARES: [f64; 4] = [0.01, 0.1, 0.4, 0.9];
/// A search with a check afterwards fetches this many chunks for each chunk that is wanted.
const OVER_FETCH: usize = 10;
/// The length at which a list of visible objects is cut: the default of an `OpenFGA` server.
const IDS_MAX: usize = 1_000;

/// A way of searching.
type Way<'a> = &'a dyn Fn(&Search) -> Vec<Candidate>;

/// A filled store and its queries.
struct Bench<'a> {
    runtime: &'a Runtime,
    store: ExactStore,
    table: GuardTable,
    queries: Vec<Query>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plot = arguments.iter().position(|argument| argument == "--plot").map(|at| arguments[at + 1].clone());
    let parts = ["vectors", "million", "texts"];
    let is_chosen = |part: &str| arguments.iter().any(|argument| argument == part);
    let is_wanted = |part: &str| is_chosen(part) || !parts.into_iter().any(is_chosen);
    let runtime = Runtime::new().unwrap();
    if is_wanted("vectors") {
        vectors(&runtime, 100_000, 1, 30, plot.as_deref());
    }
    if is_wanted("million") {
        vectors(&runtime, 1_000_000, 10, 20, None);
    }
    if is_wanted("texts") {
        texts(&runtime, "100,000 texts of made-up words", corpus::made_up_texts(100_000));
        match corpus::keps() {
            Some(documents) => texts(&runtime, "the KEPs", documents),
            None => println!("skipped: the KEPs are not there"),
        }
    }
}

fn vectors(runtime: &Runtime, chunks: usize, per_document: usize, samples: usize, plot: Option<&str>) {
    println!("\n== {chunks} vectors x {}, {per_document} to a guard", corpus::DIMENSION);
    let corpus = Corpus::new(chunks);
    let directory = tempfile::tempdir().unwrap();
    let documents = (0..chunks / per_document).map(|number| corpus.document(number, per_document));
    let store = stored(runtime, directory.path(), documents);
    let queries = (0..samples).map(|number| Query::Vector(corpus.query(number))).collect();
    let bench = Bench::new(runtime, store, queries);
    bench.warm_up();
    let everything = bench.median(&SearchSpace::Everything);
    println!("everything visible: p50 {}", milliseconds(everything));
    println!("{:>9}{:>12}{:>12}{:>14}{:>8}{:>9}", "visible", "chunks", "p50", "of everything", "ratio", "recall");
    for share in SHARES {
        let space = bench.space(share);
        let truths: Vec<Vec<usize>> =
            (0..3).map(|number| corpus.nearest(number, &bench.documents(&space), per_document, LIMIT)).collect();
        let recall = bench.recall(&truths, |search| bench.search(search), &space);
        let (ours, all) = bench.beside(&space, &SearchSpace::Everything);
        let count = bench.documents(&space).len() * per_document;
        let ratio = ours.as_secs_f64() / all.as_secs_f64();
        let (ours, all) = (milliseconds(ours), milliseconds(all));
        println!("{:>8} %{count:>12}{ours:>12}{all:>14}{ratio:>8.3}{recall:>9.3}", share * 100.0);
    }
    if let Some(file) = plot {
        bench.draw(&corpus, per_document, file);
    }
}

fn texts(runtime: &Runtime, name: &str, documents: Vec<Document>) {
    println!("\n== {name}");
    let directory = tempfile::tempdir().unwrap();
    let store = stored(runtime, directory.path(), documents.into_iter());
    let queries = [
        "how does the kubelet evict pods under memory pressure",
        "word1 word2 word7 word30 word400 word9000",
        "admission webhook timeout",
        "the of and to a",
    ];
    let queries = (0..20).map(|number| Query::Text(queries[number % queries.len()].to_owned())).collect();
    let bench = Bench::new(runtime, store, queries);
    bench.warm_up();
    println!("everything visible: p50 {}", milliseconds(bench.median(&SearchSpace::Everything)));
    println!("{:>9}{:>12}{:>14}{:>8}", "visible", "p50", "of everything", "ratio");
    for share in TEXT_SHARES {
        let (ours, all) = bench.beside(&bench.space(share), &SearchSpace::Everything);
        let ratio = ours.as_secs_f64() / all.as_secs_f64();
        println!("{:>8} %{:>12}{:>14}{ratio:>8.3}", share * 100.0, milliseconds(ours), milliseconds(all));
    }
}

/// Stores the documents, opens the store again, and prints how long each took.
fn stored(runtime: &Runtime, directory: &Path, documents: impl Iterator<Item = Document>) -> ExactStore {
    /// The approximate number of chunks in one call.
    const BATCH: usize = 10_000;
    let store = ExactStore::open(directory).unwrap();
    let (mut batch, mut chunks, mut total) = (Vec::new(), 0, 0);
    let mut took = Duration::ZERO;
    let mut documents = documents.peekable();
    while let Some(document) = documents.next() {
        chunks += document.chunks.len();
        batch.push(document);
        if chunks >= BATCH || documents.peek().is_none() {
            let started = Instant::now();
            runtime.block_on(store.upsert(COLLECTION, std::mem::take(&mut batch))).unwrap();
            took += started.elapsed();
            total += std::mem::take(&mut chunks);
        }
    }
    println!("{total} chunks indexed and durable in {took:.1?}");
    drop(store);
    let bytes = std::fs::metadata(directory.join(FILE_NAME)).unwrap().len();
    let (before, started) = (resident_mib(), Instant::now());
    let store = ExactStore::open(directory).unwrap();
    let grown = resident_mib().saturating_sub(before);
    println!("opened in {:.1?} ({} MiB on disk, about {grown} MiB more in memory)", started.elapsed(), bytes >> 20);
    store
}

/// Returns the resident memory of this process, or 0 if it is unknown.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() >> 10
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

impl<'a> Bench<'a> {
    fn new(runtime: &'a Runtime, store: ExactStore, queries: Vec<Query>) -> Self {
        let table = runtime.block_on(store.guards(COLLECTION)).unwrap().unwrap();
        Self { runtime, store, table, queries }
    }

    /// Returns a share of the guards, picked evenly but without a pattern.
    fn space(&self, share: f64) -> SearchSpace {
        let mut dice = Dice::new(3);
        let positions = (0..self.table.guards.len() as u32).filter(|_| dice.fraction() < share).collect();
        SearchSpace::Guards { table: self.table.clone(), positions }
    }

    /// Returns the numbers of the visible documents. A guard's position is not its document's number.
    fn documents(&self, space: &SearchSpace) -> Vec<usize> {
        let SearchSpace::Guards { positions, .. } = space else { panic!("everything") };
        positions.iter().map(|position| self.table.guards[position as usize].id().parse().unwrap()).collect()
    }

    fn question(&self, number: usize, space: &SearchSpace) -> Search {
        Search {
            collection: COLLECTION.to_owned(),
            query: self.queries[number].clone(),
            filter: None,
            space: space.clone(),
            narrowing: None,
            min_score: None,
            per_document_max: None,
            limit: LIMIT,
            enough: LIMIT,
        }
    }

    fn search(&self, search: &Search) -> Vec<Candidate> {
        self.runtime.block_on(self.store.search(black_box(search))).unwrap().candidates
    }

    fn warm_up(&self) {
        for number in 0..self.queries.len().min(5) {
            black_box(self.search(&self.question(number, &SearchSpace::Everything)));
        }
    }

    fn time(&self, number: usize, space: &SearchSpace) -> Duration {
        let search = self.question(number, space);
        let started = Instant::now();
        black_box(self.search(&search));
        started.elapsed()
    }

    fn median(&self, space: &SearchSpace) -> Duration {
        median((0..self.queries.len()).map(|number| self.time(number, space)).collect())
    }

    /// Returns both medians, measured in turn.
    fn beside(&self, ours: &SearchSpace, baseline: &SearchSpace) -> (Duration, Duration) {
        let times = (0..self.queries.len()).map(|number| (self.time(number, ours), self.time(number, baseline)));
        let (ours, baseline): (Vec<Duration>, Vec<Duration>) = times.unzip();
        (median(ours), median(baseline))
    }

    /// Returns the share of the right chunks that a way of searching finds.
    fn recall(&self, truths: &[Vec<usize>], search: impl Fn(&Search) -> Vec<Candidate>, space: &SearchSpace) -> f64 {
        let (mut found, mut wanted) = (0, 0);
        for (number, truth) in truths.iter().enumerate() {
            let answer = search(&self.question(number, space));
            let answer: HashSet<&str> = answer.iter().map(|candidate| candidate.chunk_id.as_str()).collect();
            found += truth.iter().filter(|chunk| answer.contains(corpus::chunk_id(**chunk).as_str())).count();
            wanted += truth.len();
        }
        if wanted == 0 { 1.0 } else { f64::from(found as u32) / f64::from(wanted as u32) }
    }

    /// Draws the three ways of searching over the visible share.
    fn draw(&self, corpus: &Corpus, per_document: usize, file: &str) {
        println!("{:>9}{:>24}{:>24}{:>24}", "visible", "ours", "search, then check", "list of ids");
        let mut lines = ["visible set (ours)", "search, then check", "list of ids, cut"].map(Line::new);
        for share in SHARES {
            let space = self.space(share);
            let SearchSpace::Guards { positions, .. } = &space else { panic!("everything") };
            let documents = self.documents(&space);
            let numbers = 0..self.queries.len();
            let truths: Vec<Vec<usize>> =
                numbers.map(|number| corpus.nearest(number, &documents, per_document, LIMIT)).collect();
            let allowed: HashSet<&str> =
                positions.iter().map(|position| self.table.guards[position as usize].as_str()).collect();
            let cut = positions.iter().take(IDS_MAX).collect();
            let listed = SearchSpace::Guards { table: self.table.clone(), positions: cut };
            let over_fetch = |search: &Search| {
                let all = Search { space: SearchSpace::Everything, limit: LIMIT * OVER_FETCH, ..search.clone() };
                let mut found = self.search(&all);
                found.retain(|candidate| allowed.contains(candidate.guard.as_str()));
                found.truncate(LIMIT);
                found
            };
            let by_list = |search: &Search| self.search(&Search { space: listed.clone(), ..search.clone() });
            let ways: [Way<'_>; 3] = [&|search| self.search(search), &over_fetch, &by_list];
            let mut row = format!("{:>8} %", share * 100.0);
            for (line, way) in lines.iter_mut().zip(ways) {
                let times = (0..self.queries.len()).map(|number| {
                    let search = self.question(number, &space);
                    let started = Instant::now();
                    black_box(way(&search));
                    started.elapsed()
                });
                let time = median(times.collect());
                let recall = self.recall(&truths, way, &space);
                write!(row, "{:>14}{recall:>10.3}", milliseconds(time)).unwrap();
                line.points.push(Point { share, milliseconds: time.as_secs_f64() * 1_000.0, recall });
            }
            println!("{row}");
        }
        std::fs::write(file, plot::svg(&lines)).unwrap();
        println!("drawn in {file}");
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
