//! Real input: 617 design documents with the access structure of the project that wrote them. Every answer is compared,
//! chunk for chunk and score for score, with a slow and obvious evaluation. The oracle decides from the tuples which
//! documents a person may read. The test computes BM25, cosines and their fusion by hand over the chunks of those
//! documents. The vectors are made from the words of the texts.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::support::oracle::Oracle;
use crate::support::questions::QUERIES;
use crate::support::running::{Running, config};
use crate::support::shared_data::shared;
use ragward::analysis::{Analyzer, Languages, QueryWord};
use ragward::client::document_message;
use ragward::ingest::Source;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Completion, Hybrid, Recall, RetrieveRequest, RetrieveResponse, Vector};
use ragward::store_file::{self, StoreFile};

const PEOPLE: usize = 40;
/// One in this many people also asks by vector, and by text and vector together.
const VECTOR_PEOPLE_STEP: usize = 5;
const TOP_K: usize = 10;
const DIMENSION: usize = 48;

/// A chunk as the brute-force search sees it.
struct Page {
    /// Its place among all pages.
    number: usize,
    id: String,
    guard: String,
    terms: HashMap<String, u32>,
    length: u32,
    /// A vector of length 1.
    vector: Vec<f32>,
}

/// Chunks with their scores, best first.
type Ranking = Vec<(String, f32)>;

/// Returns the terms of a text, each as often as it occurs. The analysis has tests of its own, so it is not repeated here.
fn words(analyzer: &mut Analyzer, text: &str) -> Vec<String> {
    let terms = analyzer.terms(text, &Languages::default());
    terms.iter().flat_map(|term| (0..term.count).map(|_| term.term.to_string())).collect()
}

/// Returns a vector made from the words. The FNV-1a hash of each word chooses one of the numbers, and whether 1 is
/// added to it or taken from it. The first number is the same for all texts, so that each vector has a direction.
fn hashed(words: &[String]) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    vector[0] = 0.5;
    for word in words {
        let hash = word
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let place = usize::try_from((hash >> 8) % (DIMENSION as u64 - 1)).unwrap();
        vector[1 + place] += if hash & 1 == 0 { 1.0 } else { -1.0 };
    }
    vector
}

fn direction(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    vector.iter().map(|x| (f64::from(*x) / length) as f32).collect()
}

/// Returns the words that text queries look at. A word of a heading or of the title counts twice, a title that is the first heading
/// counts once, and unbroken runs of ASCII count nothing.
fn indexed_words(analyzer: &mut Analyzer, chunk: &ragward::chunk::Chunk) -> Vec<String> {
    let language = |text: &str| {
        let parts = text.split(char::is_whitespace).filter(|part| part.len() <= 256 || !part.is_ascii());
        parts.collect::<Vec<&str>>().join(" ")
    };
    let mut all = words(analyzer, &language(&chunk.text));
    let is_told = chunk.heading_path.first() == Some(&chunk.title);
    for field in chunk.heading_path.iter().skip(usize::from(is_told)).chain([&chunk.title]) {
        let of_field = words(analyzer, &language(field));
        all.extend(of_field.iter().cloned());
        all.extend(of_field);
    }
    all
}

fn page(number: usize, chunk: &ragward::chunk::Chunk, words: &[String], indexed: Vec<String>) -> Page {
    let vector = direction(&hashed(words));
    let mut terms: HashMap<String, u32> = HashMap::new();
    for word in indexed {
        *terms.entry(word).or_default() += 1;
    }
    let length = terms.values().sum();
    Page { number, id: chunk.id.clone(), guard: chunk.guard.to_string(), terms, length, vector }
}

fn ranked(mut scores: Ranking) -> Ranking {
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    scores
}

/// Ranks the visible pages by cosine. Each cosine is added up from sixteen sums side by side, as the engine promises.
fn by_vector(visible: &[&Page], query: &[f32]) -> Ranking {
    const SUMS: usize = 16;
    let query = direction(query);
    let cosine = |page: &&Page| {
        let mut sums = [0.0_f32; SUMS];
        for (place, (x, y)) in query.iter().zip(&page.vector).enumerate() {
            sums[place % SUMS] += x * y;
        }
        (page.id.clone(), sums.iter().sum::<f32>() + 0.0)
    };
    ranked(visible.iter().map(cosine).collect())
}

/// Ranks pages by the sum of 1 / (60 + rank) over the first thousand of both rankings.
fn fused(rankings: [&Ranking; 2]) -> Ranking {
    let mut scores: HashMap<&str, f64> = HashMap::new();
    for ranking in rankings {
        for (rank, (id, _)) in (1..).zip(ranking.iter().take(1_000)) {
            *scores.entry(id).or_default() += 1.0 / (60.0 + f64::from(rank));
        }
    }
    ranked(scores.into_iter().map(|(id, score)| (id.to_owned(), score as f32)).collect())
}

/// How often each page has each word of a query. This is the same for all people, so it is counted once.
struct Occurrences {
    /// How often the query has each word.
    of_query: Vec<f64>,
    /// One list for each page, with one count for each word of the query.
    of_pages: Vec<Vec<u32>>,
}

impl Occurrences {
    fn count(pages: &[Page], query: &[QueryWord]) -> Self {
        let of_word = |page: &Page, word: &QueryWord| {
            word.terms.iter().filter_map(|term| page.terms.get(&**term)).max().copied().unwrap_or_default()
        };
        let of_page = |page: &Page| query.iter().map(|word| of_word(page, word)).collect();
        let of_query = query.iter().map(|word| f64::from(word.count)).collect();
        Self { of_query, of_pages: pages.iter().map(of_page).collect() }
    }
}

/// Ranks by BM25 over the visible pages and nothing else.
fn by_text(visible: &[&Page], query: &Occurrences) -> Ranking {
    let count = visible.iter().filter(|page| page.length > 0).count() as f64;
    let average = visible.iter().map(|page| f64::from(page.length)).sum::<f64>() / count;
    let mut holds = vec![0.0; query.of_query.len()];
    for page in visible {
        for (holds, occurrences) in holds.iter_mut().zip(&query.of_pages[page.number]) {
            *holds += if *occurrences > 0 { 1.0 } else { 0.0 };
        }
    }
    let idf = query.of_query.iter().zip(&holds);
    let idf: Vec<f64> = idf.map(|(asked, holds)| asked * (1.0 + (count - holds + 0.5) / (holds + 0.5)).ln()).collect();
    let mut scored: Ranking = Vec::new();
    for page in visible {
        let mut score = 0.0;
        for (occurrences, idf) in query.of_pages[page.number].iter().zip(&idf) {
            let frequency = f64::from(*occurrences);
            let norm = 1.2 * (1.0 - 0.75 + 0.75 * f64::from(page.length) / average);
            score += idf * (frequency / (frequency + norm));
        }
        if score > 0.0 {
            scored.push((page.id.clone(), score as f32));
        }
    }
    ranked(scored)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_that_of_the_persons_private_corpus() {
    let Some(keps) = shared("corpora/keps") else { return };
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(&config(data.path())).await;
    let store_path = keps.join("store.fga.yaml");
    let store = store_file::read(&store_path).unwrap();
    let people = people(&store);
    running.load(store.model, store.tuples);

    let mut analyzer = Analyzer::new();
    let (mut pages, mut documents) = (Vec::new(), Vec::new());
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.clone() };
    for entry in source.documents().unwrap() {
        if let Some(mut document) = entry.unwrap().document {
            for chunk in &mut document.chunks {
                let words = words(&mut analyzer, &chunk.text);
                chunk.vector = hashed(&words);
                pages.push(page(pages.len(), chunk, &words, indexed_words(&mut analyzer, chunk)));
            }
            documents.push(document_message(document));
        }
    }
    let count = documents.len() as u64;
    assert_eq!(running.upsert("keps", documents).await.unwrap().documents, count);

    let asked = QUERIES.map(|query| {
        let occurrences = Occurrences::count(&pages, &analyzer.query(query, &Languages::default()));
        (query, words(&mut analyzer, query), occurrences)
    });
    let oracle = Oracle::load(&store_path);
    let guards: BTreeSet<&str> = pages.iter().map(|page| page.guard.as_str()).collect();
    let (mut least, mut most, mut released) = (usize::MAX, 0, 0);
    for (number, user) in people.into_iter().enumerate() {
        let holdings = oracle.holdings(&user);
        let readable: HashSet<&str> =
            guards.iter().copied().filter(|guard| holdings.check("can_read", guard) == Some(true)).collect();
        (least, most) = (least.min(readable.len()), most.max(readable.len()));
        let visible: Vec<&Page> = pages.iter().filter(|page| readable.contains(page.guard.as_str())).collect();
        for (query, words, occurrences) in &asked {
            let text = by_text(&visible, occurrences);
            let mut expected = vec![(Query::Text((*query).to_owned()), text.clone())];
            if number % VECTOR_PEOPLE_STEP == 0 {
                let values = hashed(words);
                let near = by_vector(&visible, &values);
                let hybrid = Hybrid { text: (*query).to_owned(), vector: Some(Vector { values: values.clone() }) };
                expected.push((Query::Hybrid(hybrid), fused([&text, &near])));
                expected.push((Query::Vector(Vector { values }), near));
            }
            for (query, expected) in expected {
                let request = RetrieveRequest {
                    user: user.clone(),
                    collection: "keps".to_owned(),
                    query: Some(query),
                    top_k: TOP_K as u32,
                    ..RetrieveRequest::default()
                };
                let answer = running.client.retrieval().retrieve(request.clone()).await.unwrap().into_inner();
                check(&request, &answer, &expected);
                assert!(answer.chunks.iter().all(|chunk| readable.contains(chunk.guard.as_str())), "{request:?}");
                released += answer.chunks.len();
            }
        }
    }
    assert!(least < most && released > 0, "the people do not differ: {least} to {most} documents");
    println!(
        "{PEOPLE} people, {} queries, {released} chunks; who sees least reads {least} of {} documents, who sees most {most}",
        QUERIES.len(),
        guards.len()
    );
}

/// Checks that the answer is the beginning of the ranking, to the last bit, and gives the right reason why it has no
/// more.
#[track_caller]
fn check(request: &RetrieveRequest, answer: &RetrieveResponse, expected: &Ranking) {
    assert_eq!(answer.recall(), Recall::Exact, "{request:?}");
    let filled = if expected.len() < TOP_K { Completion::Exhausted } else { Completion::Complete };
    assert_eq!(answer.completion(), filled, "{request:?}");
    let found: Vec<(&str, u64)> = answer.chunks.iter().map(|c| (c.id.as_str(), c.score.to_bits())).collect();
    let expected = expected.iter().take(TOP_K).map(|(id, score)| (id.as_str(), f64::from(*score).to_bits()));
    assert_eq!(found, expected.collect::<Vec<_>>(), "{request:?}");
}

/// Returns some of the people that the tuples name, evenly picked.
fn people(store: &StoreFile) -> Vec<String> {
    let users = store.tuples.iter().map(|tuple| tuple.user.to_string());
    let people: BTreeSet<String> = users.filter(|user| user.starts_with("user:") && user != "user:*").collect();
    let step = people.len() / PEOPLE;
    people.into_iter().step_by(step).take(PEOPLE).collect()
}
