//! This bench measures how fast texts are turned into terms, on one core. The baseline is what a search engine for
//! English does at least: the words of UAX #29, in lower case, with English stems that are remembered. The analysis
//! beside it knows some forty languages, names and numbers.
//!
//! It also measures texts without a space: 1, 2 and 4 MB of each kind. The time has to be linear in the length, so the
//! bench prints the time for each megabyte. The same texts are also cut into chunks and put into the embedded engine.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, fails by panicking, and counts what is far below 2^52"
)]

mod parts {
    #[expect(dead_code, reason = "other benches use the rest")]
    pub(crate) mod corpus;
}

mod support {
    #[expect(dead_code, reason = "nothing is shuffled here")]
    pub(crate) mod dice;
    #[expect(dead_code, reason = "only the texts are used here")]
    pub(crate) mod language_rows;
}

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use frostem::{Algorithm, Stemmer};
use ragward::analysis::{Analyzer, Languages};
use ragward::ingest::{GuardRule, Source};
use ragward::language::Object;
use ragward::vector_store::DocumentStore;
use ragward::vector_store::exact::ExactStore;
use tokio::time::Instant;
use unicode_segmentation::UnicodeSegmentation;

use crate::parts::corpus::keps;
use crate::support::language_rows::language_rows;

/// How often each text is analyzed. The median counts.
const ROUNDS: usize = 5;
/// How often the short texts are analyzed in each round, because there are few of them.
const REPEATED: usize = 100;
/// How often each text without a space is measured. There are many of them, and they are long.
const RUN_ROUNDS: usize = 3;
/// The lengths of a text without a space, in megabytes.
const RUN_MEGABYTES: [u32; 3] = [1, 2, 4];
const MEGABYTE: usize = 1_000_000;
/// The texts without a space: what they are, and what is repeated.
const RUNS: [(&str, &str); 13] = [
    ("one letter", "a"),
    ("base64", "iVBORw0KGgoAAAANSUhEUg/"),
    ("upper and lower case", "aB"),
    ("numbers and commas", "a,1,"),
    ("a path", "x/y.z-"),
    ("apostrophes", "a'b"),
    ("combining marks", "\u{301}"),
    ("a data URI", "data:image/png;base64,iVBO"),
    ("Chinese", "每位员工在孩子出生后可以休产假"),
    ("Korean", "휴가를"),
    ("Arabic", "كتاب"),
    ("Thai", "พนักงานทุกคนมีสิทธิ์ลาคลอดได้"),
    ("Burmese", "ဝန်ထမ်းတိုင်း"),
];

fn main() {
    if let Some(documents) = keps() {
        let chunks = documents.into_iter().flat_map(|document| document.chunks);
        let texts: Vec<String> = chunks.map(|chunk| chunk.text).collect();
        compare("617 design documents in English", &texts);
    } else {
        println!("skipped: the documents in English are missing");
    }
    let rows = language_rows();
    let texts = rows.chunks.iter().map(|row| row.text.clone()).cycle().take(REPEATED * rows.chunks.len());
    compare("short texts in 35 languages", &texts.collect::<Vec<String>>());
    runs();
    queries(&rows.queries.iter().map(|row| row.text.as_str()).collect::<Vec<&str>>());
}

/// Compares both analyses, which take turns.
fn compare(name: &str, texts: &[String]) {
    let bytes: usize = texts.iter().map(String::len).sum();
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(timed(|| texts.iter().fold(English::new(), |english, text| english.analyzed(text))));
        ours.push(timed(|| {
            texts.iter().fold(Analyzer::new(), |mut analyzer, text| {
                std::hint::black_box(analyzer.terms(text, &Languages::default()));
                analyzer
            })
        }));
    }
    let (plain, ours) = (rate(bytes, median(plain)), rate(bytes, median(ours)));
    println!("{name}: {ours:.1} MB/s, English alone {plain:.1} MB/s, ratio {:.2}", ours / plain);
}

/// The baseline: words and English stems, which are remembered.
struct English {
    stemmer: Stemmer,
    stems: HashMap<String, Arc<str>>,
}

impl English {
    fn new() -> Self {
        Self { stemmer: Stemmer::new(Algorithm::English), stems: HashMap::new() }
    }

    fn analyzed(mut self, text: &str) -> Self {
        let mut counts: HashMap<Arc<str>, u32> = HashMap::new();
        let lower = text.to_lowercase();
        for word in lower.unicode_words() {
            let known = self.stems.get(word).cloned();
            let stem = known.unwrap_or_else(|| {
                let stem: Arc<str> = self.stemmer.stem(word).into();
                self.stems.insert(word.to_owned(), Arc::clone(&stem));
                stem
            });
            *counts.entry(stem).or_default() += 1;
        }
        std::hint::black_box(counts);
        self
    }
}

/// Analyzes the texts without a space, and then takes them in as documents.
fn runs() {
    print_runs("analyzed", |text| timed(|| Analyzer::new().terms(text, &Languages::default())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    print_runs("cut and taken in", |text| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("texts");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("run.md"), text).unwrap();
        let store = ExactStore::open(directory.path()).unwrap();
        let guard = GuardRule::One(Object::parse("document:run").unwrap());
        timed(|| {
            let source = Source::Folder { root, guard };
            let documents = source.documents().unwrap().filter_map(|entry| entry.unwrap().document).collect();
            runtime.block_on(store.upsert("runs", documents)).unwrap();
        })
    });
    println!("Goal: the times of a row are alike, and at most 100 ms. What bounds it: each character is looked at.");
}

/// Prints the time for each megabyte.
fn print_runs(name: &str, work: impl Fn(&str) -> Duration) {
    println!("\n{:>22}{:>12}{:>12}{:>12}   ({name}, time for each megabyte)", "no space", "1 MB", "2 MB", "4 MB");
    for (unit_name, unit) in RUNS {
        let [short, middle, long] = RUN_MEGABYTES.map(|megabytes| {
            let text = unit.repeat(megabytes as usize * MEGABYTE / unit.len());
            median((0..RUN_ROUNDS).map(|_| work(&text)).collect()) / megabytes
        });
        println!("{unit_name:>22}{short:>12.1?}{middle:>12.1?}{long:>12.1?}");
    }
}

fn queries(queries: &[&str]) {
    let took = timed(|| {
        for query in queries {
            std::hint::black_box(Analyzer::new().query(query, &Languages::default()));
        }
    });
    println!("\na query of the test set: {:.1?}", took / u32::try_from(queries.len()).unwrap());
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    std::hint::black_box(work());
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}

/// Returns megabytes per second.
fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}
