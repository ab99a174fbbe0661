//! How long does an exact search take, compared with a plain loop over all vectors, and does its cost follow what is visible?
//!
//! Vectors: 100,000 × 384, a thousand documents of a hundred chunks with a guard each; searched for the best ten over all,
//! 10 % and 1 % of the guards. Texts: the KEPs of `../shared` where they are, otherwise as many chunks of made-up words.
//! The baseline is the naive scan: one thread, a plain loop. Ingesting and opening are timed on the way.
#![expect(clippy::print_stderr, reason = "a bench says what it measures")]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::Criterion;
use ragward::chunk::{Chunk, Document, Metadata};
use ragward::ingest::Source;
use ragward::relationship::Object;
use ragward::vector_store::exact::{ExactStore, FILE_NAME};
use ragward::vector_store::{DocumentStore, Query, Scope, Search, VectorStore};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const COLLECTION: &str = "bench";
const DOCUMENTS: usize = 1_000;
const CHUNKS_PER_DOCUMENT: usize = 100;
const DIMENSION: usize = 384;
const LIMIT: usize = 10;
/// Documents of one call.
const BATCH: usize = 100;

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    vectors(&runtime, &mut criterion)?;
    texts(&runtime, &mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn vectors(runtime: &Runtime, criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut random = Random(1);
    let documents: Vec<Document> = (0..DOCUMENTS)
        .map(|number| made_up(number, CHUNKS_PER_DOCUMENT, |_| (String::new(), random.vector())))
        .collect::<anyhow::Result<_>>()?;
    let flat: Vec<f32> =
        documents.iter().flat_map(|document| &document.chunks).flat_map(|chunk| chunk.vector.clone()).collect();
    let directory = tempfile::tempdir()?;
    let store = stored(runtime, directory.path(), "100,000 vectors", documents)?;

    let query = random.vector();
    let mut group = criterion.benchmark_group("vectors 100,000 x 384");
    group.bench_function("baseline: naive scan of all, one thread", |bencher| {
        bencher.iter(|| naive_scan(&flat, &query));
    });
    for (name, step) in [("all", 1), ("10 %", 10), ("1 %", 100)] {
        let search = search(runtime, &store, Query::Vector(query.clone()), step)?;
        group.bench_function(format!("exact store, {name} visible"), |bencher| {
            bencher.iter(|| runtime.block_on(store.search(black_box(&search))));
        });
    }
    group.finish();
    Ok(())
}

fn texts(runtime: &Runtime, criterion: &mut Criterion) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let started = Instant::now();
    let documents = keps().unwrap_or_else(made_up_texts)?;
    eprintln!("read and cut: {:?}", started.elapsed());
    let texts: Vec<String> =
        documents.iter().flat_map(|document| &document.chunks).map(|chunk| chunk.text.to_lowercase()).collect();
    let store = stored(runtime, directory.path(), "texts", documents)?;

    let question = "how does the kubelet evict pods under memory pressure";
    let words: Vec<&str> = question.split(' ').collect();
    let mut group = criterion.benchmark_group("texts");
    group.sample_size(10);
    group.bench_function("baseline: naive scan of all for the words, one thread", |bencher| {
        bencher.iter(|| texts.iter().filter(|text| words.iter().any(|word| text.contains(word))).count());
    });
    for (name, step) in [("all", 1), ("10 %", 10), ("1 %", 100)] {
        let search = search(runtime, &store, Query::Text(question.to_owned()), step)?;
        group.bench_function(format!("exact store, {name} visible"), |bencher| {
            bencher.iter(|| runtime.block_on(store.search(black_box(&search))));
        });
    }
    group.finish();
    Ok(())
}

/// Puts the documents in, opens the store again, and says how long each took.
fn stored(runtime: &Runtime, directory: &Path, what: &str, mut documents: Vec<Document>) -> anyhow::Result<ExactStore> {
    let store = ExactStore::open(directory)?;
    let chunks: usize = documents.iter().map(|document| document.chunks.len()).sum();
    let started = Instant::now();
    while !documents.is_empty() {
        let batch = documents.drain(..documents.len().min(BATCH)).collect();
        runtime.block_on(store.upsert(COLLECTION, batch))?;
    }
    eprintln!("{what}: {chunks} chunks indexed and durable in {:?}", started.elapsed());
    drop(store);
    let bytes = std::fs::metadata(directory.join(FILE_NAME))?.len();
    let started = Instant::now();
    let store = ExactStore::open(directory)?;
    eprintln!("{what}: opened in {:?} ({} MiB)", started.elapsed(), bytes >> 20);
    Ok(store)
}

/// A search in the scope of every `step`-th guard.
fn search(runtime: &Runtime, store: &ExactStore, query: Query, step: usize) -> anyhow::Result<Search> {
    let table = runtime.block_on(store.guards(COLLECTION))?.ok_or_else(|| anyhow::anyhow!("no guards"))?;
    let scope = if step == 1 {
        Scope::Everything
    } else {
        Scope::Guards { positions: (0..u32::try_from(table.guards.len())?).step_by(step).collect(), table }
    };
    let collection = COLLECTION.to_owned();
    Ok(Search { collection, query, filter: None, scope, min_score: None, per_document_max: None, limit: LIMIT })
}

/// What a first version would do: a plain loop, all scores, sorted.
fn naive_scan(vectors: &[f32], query: &[f32]) -> Vec<(f32, usize)> {
    let dot = |vector: &[f32]| vector.iter().zip(query).map(|(x, y)| x * y).sum::<f32>();
    let mut scores: Vec<(f32, usize)> =
        vectors.chunks_exact(DIMENSION).enumerate().map(|(number, vector)| (dot(vector), number)).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    scores.truncate(LIMIT);
    scores
}

fn keps() -> Option<anyhow::Result<Vec<Document>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
    if !root.exists() {
        eprintln!("skipped: {} is not there; made-up texts take the place of the KEPs", root.display());
        return None;
    }
    let source = Source::Catalog { path: root.join("catalog.jsonl"), root };
    let documents = || -> anyhow::Result<Vec<Document>> {
        let entries = source.documents()?.collect::<Result<Vec<_>, _>>()?;
        Ok(entries.into_iter().filter_map(|entry| entry.document).collect())
    };
    Some(documents())
}

/// As many chunks as the KEPs have, of words that are rarer the higher their number.
fn made_up_texts() -> anyhow::Result<Vec<Document>> {
    let mut random = Random(2);
    let mut text = |_| {
        let words: Vec<String> =
            (0..120).map(|_| format!("word{}", random.below(40_000) / (1 + random.below(200)))).collect();
        (words.join(" "), Vec::new())
    };
    (0..617).map(|number| made_up(number, 50, &mut text)).collect()
}

fn made_up(
    number: usize,
    chunks: usize,
    mut content: impl FnMut(usize) -> (String, Vec<f32>),
) -> anyhow::Result<Document> {
    let id = format!("document:{number}");
    let guard = Object::parse(&id)?;
    let chunk = |place| {
        let (text, vector) = content(place);
        Chunk {
            id: format!("{id}#{place}"),
            document_id: id.clone(),
            guard: guard.clone(),
            title: String::new(),
            text,
            metadata: Metadata::new(),
            vector,
        }
    };
    Ok(Document { chunks: (0..chunks).map(chunk).collect(), id: id.clone(), title: String::new() })
}

/// The splitmix64 generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn vector(&mut self) -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
        let number = |bits: u64| f32::from(bits as u16) / f32::from(u16::MAX) - 0.5;
        (0..DIMENSION).map(|_| number(self.next())).collect()
    }
}
