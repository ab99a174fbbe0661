//! Does the planner choose the cheapest plan? Its regret: what the chosen plan costs, divided by what the best one costs, over
//! a grid of shares visible, numbers of chunks and chunks to a guard. Every plan is forced in the same run, over the same
//! 100,000 × 384 vectors and the same queries. A plan counts only where it gives the whole answer: all give the same chunks.
//!
//! The cost is the time that a retrieval took here, and for its checks what they would take elsewhere: as with an `OpenFGA`
//! server, 1 ms for a round and 76 µs for a check (what one of a full call takes of the server's processor, measured by
//! `checks`); or as in the embedded evaluator, 1 µs for a check.
//!
//! Also counted: rounds of checks for each retrieval.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench prints, fails by panicking, and counts what is far below 2^24"
)]

#[expect(dead_code, reason = "the bench of searches uses the rest")]
#[path = "search/corpus.rs"]
mod corpus;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use corpus::{COLLECTION, Corpus, Dice};
use ragward::authz::{Answer, Authorizer, AuthzError, CheckBatch, Consistency, VisibleSetQuery};
use ragward::relationship::{Object, Relation};
use ragward::retrieval::request::{RetrievalParts, stated};
use ragward::retrieval::{Completion, Pages, RetrievalConfig, RetrievalRequest, Retriever};
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::{DocumentStore, Query};
use roaring::RoaringBitmap;
use tokio::runtime::Runtime;
use tokio::time::Instant;

const CHUNKS: usize = 100_000;
const SHARES: [f64; 7] = [0.0001, 0.001, 0.01, 0.1, 0.4, 0.9, 0.99];
/// Queries before those that count, so that rates are learned.
const LEARNING: usize = 3;
const QUERIES: usize = 12;
/// What checks take with an `OpenFGA` server, and with the embedded evaluator.
const ROUND_MS: f64 = 1.0;
const CHECK_MS: f64 = 0.076;
const LOCAL_CHECK_MS: f64 = 0.001;
/// Regret that is allowed.
const GOAL: f64 = 1.3;

/// Who decides, as the planner sees it.
#[derive(Clone, Copy)]
struct Situation {
    name: &'static str,
    /// The visible set is told at once.
    knows: bool,
    /// Checks need no call.
    local: bool,
}

const SITUATIONS: [Situation; 3] = [
    Situation { name: "embedded evaluator", knows: true, local: true },
    Situation { name: "server and replica", knows: true, local: false },
    Situation { name: "server alone", knows: false, local: false },
];

/// A plan, forced by what the planner is told.
const FORCED: [(&str, Situation, usize); 3] = [
    ("visible set", Situation { name: "", knows: true, local: true }, usize::MAX),
    ("list first", Situation { name: "", knows: false, local: true }, usize::MAX),
    ("check after", Situation { name: "", knows: false, local: false }, 0),
];

/// Allows the documents of some numbers, and counts.
struct Counting {
    allowed: Arc<Vec<bool>>,
    situation: Situation,
    /// Kept from the first request on, as the real ones are; how long it takes to find is measured in `visible_set`.
    visible: OnceLock<Arc<RoaringBitmap>>,
    rounds: AtomicUsize,
    checks: AtomicUsize,
}

impl Counting {
    fn allows(&self, document: &Object) -> bool {
        self.allowed[document.id().parse::<usize>().unwrap()]
    }
}

#[async_trait]
impl Authorizer for Counting {
    async fn check(&self, batch: &CheckBatch) -> Result<Vec<Answer>, AuthzError> {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.checks.fetch_add(batch.checks.len(), Ordering::Relaxed);
        let answers = batch.checks.iter().map(|check| self.allows(&check.object)).enumerate();
        Ok(answers.map(|(position, allowed)| Answer { position, allowed }).collect())
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<Arc<RoaringBitmap>>, AuthzError> {
        let allows = |at: &u32| self.allows(&query.guards[*at as usize]);
        let find = || Arc::new(query.positions.iter().filter(allows).collect());
        Ok(self.situation.knows.then(|| Arc::clone(self.visible.get_or_init(find))))
    }

    async fn model_id(&self) -> Result<String, AuthzError> {
        Ok("model".to_owned())
    }

    fn is_local(&self) -> bool {
        self.situation.local
    }
}

/// What the retrievals of one cell were like.
struct Measured {
    milliseconds: f64,
    /// The chunks of each answer; nothing where one was not whole.
    answers: Option<Vec<Vec<String>>>,
    rounds_max: usize,
    plans: Vec<&'static str>,
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let corpus = Corpus::new(CHUNKS);
    let (mut regrets, mut most_rounds) = (Vec::new(), [0; SITUATIONS.len()]);
    for per_guard in [1, 10] {
        let directory = tempfile::tempdir().unwrap();
        let store = ExactStore::open(directory.path()).unwrap();
        let documents = (0..CHUNKS / per_guard).map(|number| corpus.document(number, per_guard)).collect();
        runtime.block_on(store.upsert(COLLECTION, documents)).unwrap();
        let cells = SHARES.into_iter().flat_map(|share| [10, 100].map(|top_k| (share, top_k)));
        for (share, top_k) in cells {
            let mut dice = Dice::new(5);
            let allowed = Arc::new((0..CHUNKS / per_guard).map(|_| dice.fraction() < share).collect::<Vec<bool>>());
            let measure = |told: Situation, local: bool, guards_checked_max: usize| {
                let cell = Cell { store: &store, corpus: &corpus, allowed: &allowed, top_k };
                cell.measure(&runtime, told, local, guards_checked_max)
            };
            for (place, situation) in SITUATIONS.into_iter().enumerate() {
                let chosen = measure(situation, situation.local, 200_000);
                let forced = FORCED.iter().filter(|(_, told, _)| situation.knows || !told.knows);
                let forced = forced.map(|(name, told, guards)| (*name, measure(*told, situation.local, *guards)));
                let whole = forced.filter(|(_, plan)| plan.answers.is_some());
                let whole: Vec<(&str, Measured)> = whole.collect();
                assert!(whole.iter().all(|(_, plan)| plan.answers == chosen.answers), "the answers differ");
                let best = whole.iter().min_by(|a, b| a.1.milliseconds.total_cmp(&b.1.milliseconds)).unwrap();
                let regret = chosen.milliseconds / best.1.milliseconds;
                println!(
                    "{:<19} {:>6} guards {:>6} % k={top_k:<4} {:<22}{:>9.2} ms   best: {:<12}{:>9.2} ms   regret {regret:.2}",
                    situation.name,
                    CHUNKS / per_guard,
                    share * 100.0,
                    chosen.plans.join(", "),
                    chosen.milliseconds,
                    best.0,
                    best.1.milliseconds,
                );
                regrets.push(regret);
                most_rounds[place] = most_rounds[place].max(chosen.rounds_max);
            }
        }
    }
    regrets.sort_by(f64::total_cmp);
    let within = regrets.iter().filter(|regret| **regret <= GOAL).count();
    println!(
        "regret: median {:.2}, most {:.2}; {within} of {} cells within {GOAL}",
        regrets[regrets.len() / 2],
        regrets[regrets.len() - 1],
        regrets.len()
    );
    for (situation, most) in SITUATIONS.iter().zip(most_rounds) {
        println!("{}: at most {most} rounds of checks, once rates are learned", situation.name);
    }
}

struct Cell<'a> {
    store: &'a ExactStore,
    corpus: &'a Corpus,
    allowed: &'a Arc<Vec<bool>>,
    top_k: u32,
}

impl Cell<'_> {
    fn measure(&self, runtime: &Runtime, told: Situation, local: bool, guards_checked_max: usize) -> Measured {
        let authorizer = Arc::new(Counting {
            allowed: Arc::clone(self.allowed),
            situation: told,
            visible: OnceLock::new(),
            rounds: AtomicUsize::new(0),
            checks: AtomicUsize::new(0),
        });
        let config = RetrievalConfig {
            relation: Relation::parse("can_read").unwrap(),
            top_k_max: 100,
            candidates_max: 10_000,
            guards_checked_max,
            pages: Pages::new(Duration::from_mins(1)).unwrap(),
            explain_plan: false,
        };
        let retriever = Retriever::new(Arc::clone(&authorizer) as _, Arc::new(self.store.clone()), config);
        let mut measured = Measured { milliseconds: 0.0, answers: Some(Vec::new()), rounds_max: 0, plans: Vec::new() };
        for number in 0..LEARNING + QUERIES {
            let request = self.request(number);
            let before = (authorizer.rounds.load(Ordering::Relaxed), authorizer.checks.load(Ordering::Relaxed));
            let started = Instant::now();
            let deadline = started + Duration::from_mins(1);
            let retrieval = runtime.block_on(retriever.retrieve(&request, deadline)).unwrap();
            let took = started.elapsed().as_secs_f64() * 1_000.0;
            if number < LEARNING {
                continue;
            }
            let rounds = authorizer.rounds.load(Ordering::Relaxed) - before.0;
            let checks = f64::from((authorizer.checks.load(Ordering::Relaxed) - before.1) as u32);
            let of_checks =
                if local { checks * LOCAL_CHECK_MS } else { f64::from(rounds as u32) * ROUND_MS + checks * CHECK_MS };
            measured.milliseconds += (took + of_checks) / f64::from(QUERIES as u32);
            measured.rounds_max = measured.rounds_max.max(rounds);
            for round in &retrieval.plan.rounds {
                if !measured.plans.contains(&round.plan) {
                    measured.plans.push(round.plan);
                }
            }
            match (&mut measured.answers, retrieval.completion) {
                (Some(answers), Completion::Complete | Completion::Exhausted) => {
                    answers.push(retrieval.chunks.iter().map(|chunk| chunk.chunk.item().id.clone()).collect());
                }
                (answers, _) => *answers = None,
            }
        }
        measured
    }

    fn request(&self, number: usize) -> RetrievalRequest {
        let parts = RetrievalParts {
            principal: stated("user:anne"),
            collection: COLLECTION.to_owned(),
            query: Some(Query::Vector(self.corpus.query(number))),
            top_k: self.top_k,
            filter: None,
            min_score: None,
            per_document_max: 0,
            consistency: Consistency::default(),
            page_token: None,
        };
        RetrievalRequest::new(parts, 100).unwrap()
    }
}
