//! Real input: 617 design documents with the access structure of the project that wrote them. Every answer is compared,
//! chunk for chunk and score for score, with a slow and obvious evaluation: the oracle decides from the tuples which
//! documents a person may read, and BM25 is computed by hand over the chunks of those.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::oracle::Oracle;
use crate::questions::QUERIES;
use crate::running::{Running, config};
use ragward::client::document_message;
use ragward::ingest::Source;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Completion, Recall, RetrieveRequest};
use ragward::relationship::store_file::{self, StoreFile};
use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

const PEOPLE: usize = 40;
const TOP_K: usize = 10;

/// A chunk as the brute-force search sees it.
struct Page {
    id: String,
    guard: String,
    terms: HashMap<String, u32>,
    length: u32,
}

/// The words of a text, folded and stemmed.
fn words(stemmer: &Stemmer, text: &str) -> Vec<String> {
    let folded: String = text.nfkc().flat_map(char::to_lowercase).collect();
    folded.unicode_words().filter(|word| word.len() <= 128).map(|word| stemmer.stem(word).into_owned()).collect()
}

fn page(stemmer: &Stemmer, chunk: &ragward::chunk::Chunk) -> Page {
    let mut terms: HashMap<String, u32> = HashMap::new();
    for word in words(stemmer, &chunk.text) {
        *terms.entry(word).or_default() += 1;
    }
    let length = terms.values().sum();
    Page { id: chunk.id.clone(), guard: chunk.guard.to_string(), terms, length }
}

/// BM25 over the visible pages and nothing else; best first, ties by id.
fn brute_force(visible: &[&Page], query: &[String]) -> Vec<(String, f32)> {
    let count = visible.iter().filter(|page| page.length > 0).count() as f64;
    let average = visible.iter().map(|page| f64::from(page.length)).sum::<f64>() / count;
    let holds = |term: &String| visible.iter().filter(|page| page.terms.contains_key(term)).count() as f64;
    let idf: Vec<f64> =
        query.iter().map(|term| (1.0 + (count - holds(term) + 0.5) / (holds(term) + 0.5)).ln()).collect();
    let mut scored: Vec<(String, f32)> = Vec::new();
    for page in visible {
        let mut score = 0.0;
        for (term, idf) in query.iter().zip(&idf) {
            let frequency = f64::from(page.terms.get(term).copied().unwrap_or_default());
            let norm = 1.2 * (1.0 - 0.75 + 0.75 * f64::from(page.length) / average);
            score += idf * (frequency / (frequency + norm));
        }
        if score > 0.0 {
            scored.push((page.id.clone(), score as f32));
        }
    }
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    scored
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_that_of_the_persons_private_corpus() {
    let Some(keps) = crate::shared::shared("corpora/keps") else { return };
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(&config(data.path())).await;
    let store_path = keps.join("store.fga.yaml");
    let store = store_file::read(&store_path).unwrap();
    let people = people(&store);
    running.load(store.model, store.tuples);

    let stemmer = Stemmer::create(Algorithm::English);
    let (mut pages, mut documents) = (Vec::new(), Vec::new());
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.clone() };
    for entry in source.documents().unwrap() {
        if let Some(document) = entry.unwrap().document {
            pages.extend(document.chunks.iter().map(|chunk| page(&stemmer, chunk)));
            documents.push(document_message(document));
        }
    }
    let count = documents.len() as u64;
    assert_eq!(running.upsert("keps", documents).await.unwrap().documents, count);

    let oracle = Oracle::load(&store_path);
    let guards: BTreeSet<&str> = pages.iter().map(|page| page.guard.as_str()).collect();
    let (mut least, mut most, mut released) = (usize::MAX, 0, 0);
    for user in people {
        let holdings = oracle.holdings(&user);
        let readable: HashSet<&str> =
            guards.iter().copied().filter(|guard| holdings.check("can_read", guard) == Some(true)).collect();
        (least, most) = (least.min(readable.len()), most.max(readable.len()));
        let visible: Vec<&Page> = pages.iter().filter(|page| readable.contains(page.guard.as_str())).collect();
        for query in QUERIES {
            let expected = brute_force(&visible, &words(&stemmer, query));
            let request = RetrieveRequest {
                user: user.clone(),
                collection: "keps".to_owned(),
                query: Some(Query::Text(query.to_owned())),
                top_k: TOP_K as u32,
                ..RetrieveRequest::default()
            };
            let answer = running.client.retrieval().retrieve(request).await.unwrap().into_inner();
            assert_eq!(answer.recall(), Recall::Exact);
            let filled = if expected.len() < TOP_K { Completion::Exhausted } else { Completion::Complete };
            assert_eq!(answer.completion(), filled, "{user}: {query}");
            assert_eq!(answer.chunks.len(), expected.len().min(TOP_K), "{user}: {query}");
            for (chunk, (id, score)) in answer.chunks.iter().zip(&expected) {
                assert!(readable.contains(chunk.guard.as_str()), "{user} got {}", chunk.id);
                assert_eq!(&chunk.id, id, "{user}: {query}");
                assert_eq!(chunk.score.to_bits(), f64::from(*score).to_bits(), "{user}: {query}: {id}");
            }
            released += answer.chunks.len();
        }
    }
    assert!(least < most && released > 0, "the people do not differ: {least} to {most} documents");
    println!(
        "{PEOPLE} people, {} queries, {released} chunks; who sees least reads {least} of {} documents, who sees most {most}",
        QUERIES.len(),
        guards.len()
    );
}

/// Some of the people that the tuples name, evenly picked.
fn people(store: &StoreFile) -> Vec<String> {
    let users = store.tuples.iter().map(|tuple| tuple.user.to_string());
    let people: BTreeSet<String> = users.filter(|user| user.starts_with("user:") && user != "user:*").collect();
    let step = people.len() / PEOPLE;
    people.into_iter().step_by(step).take(PEOPLE).collect()
}
