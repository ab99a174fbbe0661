//! This bench measures whether text queries find the right chunks. The questions are made from the headings of the 617
//! design documents; the chunks below the heading are the right ones.
//!
//! `cargo bench --bench quality -- --export FOLDER` also writes the chunks, the questions and the answers as JSON Lines.
//! `benches/baselines.py FOLDER` then asks the same questions of other engines over the same chunks.
//!
//! If `QDRANT_BIN` (or the PATH) has a Qdrant of version 1.19 or later, the same chunks are put into one shard of it.
//! Then the bench prints for how many questions both engines rank the ten best chunks alike.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a bench prints, fails by panicking, and counts what is far below 2^52"
)]

mod parts {
    #[expect(dead_code, reason = "other benches use the rest")]
    pub(crate) mod corpus;
    pub(crate) mod heading_questions;
}

mod support {
    pub(crate) mod dice;
    pub(crate) mod held_port;
    #[expect(dead_code, reason = "a server that runs already may have other settings, so the bench starts its own")]
    pub(crate) mod qdrant_process;
}

use std::collections::{BTreeSet, HashMap};
use std::io::{BufWriter, Write};
use std::path::Path;

use ragward::analysis::{Analyzer, Languages};
use ragward::chunk::{Candidate, Chunk, Document, Metadata};
use ragward::language::Object;
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::qdrant::{QdrantConfig, QdrantStore};
use ragward::vector_store::{DocumentStore, Query, Search, SearchSpace, VectorStore, VectorStoreError};
use serde_json::{Value, json};

use self::parts::corpus::{COLLECTION, keps};
use self::parts::heading_questions::{Kind, Question, questions};
use self::support::qdrant_process::Qdrant;

/// The number of answers that count.
const LIMIT: usize = 10;
/// The number of answers in which a chunk is looked up that ties with one of the best.
const LIMIT_WITH_TIES: usize = 200;
/// The number of documents in one call.
const BATCH: usize = 50;
/// The most by which two scores may differ, as a share of them, that were added up in different orders.
const TIE: f32 = 1e-4;
/// The number of chunks that are added so that the average length is a whole number.
const FILLERS: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let export = arguments.iter().position(|argument| argument == "--export").map(|at| arguments[at + 1].clone());
    let Some(documents) = keps() else {
        println!("skipped: the design documents are missing");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(run(documents, export.as_deref())));
}

async fn run(documents: Vec<Document>, export: Option<&str>) {
    let questions = questions(&documents);
    let directory = tempfile::tempdir().unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    fill(&store, &documents).await;
    let mut rankings = Vec::new();
    for question in &questions {
        let found = store.search(&search(question, SearchSpace::Everything, LIMIT)).await.unwrap();
        rankings.push(ids(&found.candidates));
    }
    let chunks: usize = documents.iter().map(|document| document.chunks.len()).sum();
    println!("{} documents, {chunks} chunks, {} questions", documents.len(), questions.len());
    println!("{:<34}{:>10}{:>10}{:>10}{:>12}", "", "questions", "nDCG@10", "MRR@10", "recall@10");
    for kind in [Kind::Heading, Kind::TitleAndHeading] {
        let rows = questions.iter().zip(&rankings).filter(|(question, _)| question.kind == kind);
        let of_kind: Vec<Quality> = rows.map(|(question, ranking)| Quality::of(question, ranking)).collect();
        print_quality(kind.name(), &of_kind);
    }
    let rows = questions.iter().zip(&rankings);
    let of_all: Vec<Quality> = rows.map(|(question, ranking)| Quality::of(question, ranking)).collect();
    print_quality("all", &of_all);
    println!("What bounds it: words alone are compared, and a heading may be said in several places of a document.");
    if let Some(folder) = export {
        write(Path::new(folder), &documents, &questions, &rankings);
    }
    drop(store);
    Box::pin(beside_qdrant(documents, &questions)).await;
}

/// The quality of one answer.
#[derive(Clone, Copy)]
struct Quality {
    ndcg: f64,
    reciprocal_rank: f64,
    recall: f64,
}

impl Quality {
    /// A chunk is right or not. `benches/baselines.py` has the same formulas.
    fn of(question: &Question, ranking: &[String]) -> Self {
        let gain = |rank: usize| 1.0 / (rank as f64 + 1.0).log2();
        let hits: Vec<usize> =
            (1..).zip(ranking).filter(|(_, id)| question.relevant.contains(*id)).map(|(rank, _)| rank).collect();
        let possible = question.relevant.len().min(LIMIT);
        let ideal: f64 = (1..=possible).map(gain).sum();
        Self {
            ndcg: hits.iter().copied().map(gain).sum::<f64>() / ideal,
            reciprocal_rank: hits.first().map_or(0.0, |rank| 1.0 / *rank as f64),
            recall: hits.len() as f64 / possible as f64,
        }
    }
}

fn print_quality(name: &str, qualities: &[Quality]) {
    let count = qualities.len();
    let mean = |of: fn(&Quality) -> f64| qualities.iter().map(of).sum::<f64>() / count as f64;
    let (ndcg, reciprocal_rank, recall) =
        (mean(|quality| quality.ndcg), mean(|quality| quality.reciprocal_rank), mean(|quality| quality.recall));
    println!("{name:<34}{count:>10}{ndcg:>10.4}{reciprocal_rank:>10.4}{recall:>12.4}");
}

async fn fill(store: &dyn DocumentStore, documents: &[Document]) {
    for batch in documents.chunks(BATCH) {
        store.upsert(COLLECTION, batch.to_vec()).await.expect("taken in");
    }
}

fn search(question: &Question, space: SearchSpace, limit: usize) -> Search {
    Search {
        collection: COLLECTION.to_owned(),
        query: Query::Text(question.text.clone()),
        filter: None,
        space,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit,
        enough: limit,
    }
}

fn ids(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().map(|candidate| candidate.chunk_id.clone()).collect()
}

/// Writes what the other engines need.
fn write(folder: &Path, documents: &[Document], questions: &[Question], rankings: &[Vec<String>]) {
    std::fs::create_dir_all(folder).unwrap();
    let chunks = documents.iter().flat_map(|document| &document.chunks).map(
        |chunk| json!({ "id": chunk.id, "title": chunk.title, "headings": chunk.heading_path, "text": chunk.text }),
    );
    write_lines(&folder.join("chunks.jsonl"), chunks);
    let of_questions = questions.iter().zip(rankings).map(|(question, ranking)| {
        json!({
            "kind": question.kind.name(), "text": question.text, "relevant": question.relevant, "ragward": ranking,
        })
    });
    write_lines(&folder.join("questions.jsonl"), of_questions);
    println!("written into {}; next: python benches/baselines.py {}", folder.display(), folder.display());
}

fn write_lines(file: &Path, lines: impl Iterator<Item = Value>) {
    let mut writer = BufWriter::new(std::fs::File::create(file).unwrap());
    for line in lines {
        writeln!(writer, "{line}").unwrap();
    }
    writer.flush().unwrap();
}

/// Compares the ten best chunks of both engines.
async fn beside_qdrant(mut documents: Vec<Document>, questions: &[Question]) {
    let Some(server) = Qdrant::start_own().await else { return };
    // Qdrant's constant is a whole number, so the average of the embedded engine has to be one, too.
    let (filler, text_average_length) = filler(&documents);
    documents.push(filler);
    for chunk in documents.iter_mut().flat_map(|document| &mut document.chunks) {
        chunk.vector = vec![1.0, 0.0];
    }
    let directory = tempfile::tempdir().unwrap();
    let embedded = ExactStore::open(directory.path()).unwrap();
    fill(&embedded, &documents).await;
    let config = QdrantConfig { text_average_length, exact: true, ..QdrantConfig::new(&server.url) };
    let qdrant = QdrantStore::new(&config).expect("a store");
    fill(&qdrant, &documents).await;
    let guards = documents.len();
    let (here, there) = (everything(&embedded, guards).await, everything(&qdrant, guards).await);
    let mut unlike = Vec::new();
    for question in questions {
        let expected = embedded.search(&search(question, here.clone(), LIMIT_WITH_TIES)).await.unwrap();
        let found = match qdrant.search(&search(question, there.clone(), LIMIT)).await {
            Ok(found) => found,
            Err(VectorStoreError::Unsupported(why)) => {
                println!("\nskipped with Qdrant: {why}");
                return;
            }
            Err(error) => {
                println!("\nQdrant failed: {error}");
                return;
            }
        };
        if !found.exact {
            println!("not exact: {}", question.text);
        }
        if !is_same_order(&found.candidates, &expected.candidates) {
            unlike.push(&question.text);
        }
    }
    let same = questions.len() - unlike.len();
    println!(
        "\nQdrant ranks the ten best like the embedded engine for {same} of {} questions ({:.2} %), within ties of {TIE}",
        questions.len(),
        100.0 * same as f64 / questions.len() as f64
    );
    println!("average length: {text_average_length} words, the same for both engines; one shard, all chunks visible");
    for text in unlike.iter().take(LIMIT) {
        println!("not alike: {text}");
    }
    println!("What bounds it: Qdrant adds f32, and two terms of 4,000 million may share one index.");
}

/// Returns the space of all guards, of which each document has one.
async fn everything(store: &dyn VectorStore, guards: usize) -> SearchSpace {
    let table = store.guards(COLLECTION).await.expect("a collection").expect("a list of guards");
    assert_eq!(table.guards.len(), guards, "the list of guards is not that of the documents");
    let positions = (0..).zip(table.guards.iter()).map(|(position, _)| position).collect();
    SearchSpace::Guards { table, positions }
}

/// Returns whether each chunk has the score that the other ranking has at its place, up to rounding.
fn is_same_order(found: &[Candidate], expected: &[Candidate]) -> bool {
    let scores: HashMap<&str, f32> =
        expected.iter().map(|candidate| (candidate.chunk_id.as_str(), candidate.score)).collect();
    let distinct: BTreeSet<&str> = found.iter().map(|candidate| candidate.chunk_id.as_str()).collect();
    let is_alike = |(found, expected): (&Candidate, &Candidate)| {
        let score = scores.get(found.chunk_id.as_str());
        score.is_some_and(|score| (score - expected.score).abs() <= TIE * expected.score)
    };
    found.len() == expected.len().min(LIMIT)
        && distinct.len() == found.len()
        && found.iter().zip(expected).all(is_alike)
}

/// Returns a document that makes the average length a whole number, and that number.
fn filler(documents: &[Document]) -> (Document, u32) {
    let mut analyzer = Analyzer::new();
    let chunks = documents.iter().flat_map(|document| &document.chunks);
    let lengths: Vec<usize> = chunks.map(|chunk| length(&mut analyzer, chunk)).filter(|length| *length > 0).collect();
    let words: usize = lengths.iter().sum();
    let average = words / lengths.len() + 1;
    let missing = average * (lengths.len() + FILLERS) - words;
    let guard = Object::parse("document:filler").expect("an object");
    let chunk = |number: usize| Chunk {
        id: format!("filler#{number}"),
        document_id: "document:filler".to_owned(),
        guard: guard.clone(),
        title: String::new(),
        heading_path: Vec::new(),
        text: vec!["zebra"; missing / FILLERS + usize::from(number < missing % FILLERS)].join(" "),
        metadata: Metadata::new(),
        vector: Vec::new(),
    };
    let chunks = (0..FILLERS).map(chunk).collect();
    let filler = Document { id: "document:filler".to_owned(), title: String::new(), chunks };
    (filler, u32::try_from(average).expect("few words"))
}

/// Returns how many words text queries look at. A word of a heading or of the title counts twice, a title that is the
/// first heading counts once, and unbroken runs of ASCII count nothing.
fn length(analyzer: &mut Analyzer, chunk: &Chunk) -> usize {
    let mut words = |text: &str| {
        let parts = text.split(char::is_whitespace).filter(|part| part.len() <= 256 || !part.is_ascii());
        let terms = analyzer.terms(&parts.collect::<Vec<&str>>().join(" "), &Languages::default());
        terms.iter().map(|term| usize::try_from(term.count).expect("few words")).sum::<usize>()
    };
    let is_told = chunk.heading_path.first() == Some(&chunk.title);
    let fields = chunk.heading_path.iter().skip(usize::from(is_told)).chain([&chunk.title]);
    let of_fields: usize = fields.map(|field| words(field)).sum();
    2 * of_fields + words(&chunk.text)
}
