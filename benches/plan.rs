//! This bench measures whether the planner chooses the cheapest plan. It computes the planner's regret: the cost of the
//! chosen plan, divided by the cost of the best one. It does so over a grid of visible shares, numbers of wanted chunks
//! (k) and chunks to a guard. Every plan is forced in the same run, over the same 100,000 × 384 vectors and the same
//! queries. A plan counts only if it gives the whole answer: all plans return the same chunks.
//!
//! Plans take turns at each query, and the median of the turns counts. If the chosen plan went through exactly the
//! rounds of a forced one, both measure the same work, so the lower of their costs stands for both.
//!
//! The cost is the time that a retrieval took here, plus the time that its checks would take elsewhere: with an
//! `OpenFGA` server 1 ms for a round and 76 µs for a check (the server's processor time for a check in a full call,
//! measured by `checks`), and in the embedded evaluator 1 µs for a check.
//!
//! The bench also counts the rounds of checks for each retrieval.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench prints, fails by panicking, and counts what is far below 2^24"
)]

mod parts {
    #[expect(dead_code, reason = "the bench of searches uses the rest")]
    pub(crate) mod corpus;
}

mod support {
    #[expect(dead_code, reason = "nothing is shuffled here")]
    pub(crate) mod dice;
}

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use ragward::authz::{
    Abilities, Authorizer, AuthzError, CheckBatch, Consistency, Decisions, VisiblePositions, VisibleSetQuery,
};
use ragward::language::{Object, Relation};
use ragward::retrieval::{
    Completion, Pages, Plan, Retrieval, RetrievalConfig, RetrievalParts, RetrievalRequest, Retriever,
};
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::{DocumentStore, Query};
use roaring::RoaringBitmap;
use tokio::runtime::Runtime;

use self::parts::corpus::{COLLECTION, Corpus};
use self::support::dice::Dice;
use tokio::time::Instant;

const CHUNKS: usize = 100_000;
const SHARES: [f64; 7] = [0.0001, 0.001, 0.01, 0.1, 0.4, 0.9, 0.99];
/// The number of queries that come first and are not counted. The planner learns rates from them.
const LEARNING: usize = 3;
const QUERIES: usize = 8;
/// The number of turns at each query.
const TURNS: usize = 3;
/// The time that a round and a check take with an `OpenFGA` server, and a check with the embedded evaluator.
const ROUND_MS: f64 = 1.0;
const CHECK_MS: f64 = 0.076;
const LOCAL_CHECK_MS: f64 = 0.001;
/// The regret that is allowed.
const GOAL: f64 = 1.3;

/// The authorizer, as the planner sees it.
#[derive(Clone, Copy)]
struct Situation {
    name: &'static str,
    /// Whether the visible set is known at once.
    knows: bool,
    /// Whether checks need no call.
    local: bool,
}

const SITUATIONS: [Situation; 3] = [
    Situation { name: "embedded evaluator", knows: true, local: true },
    Situation { name: "server and replica", knows: true, local: false },
    Situation { name: "server alone", knows: false, local: false },
];

/// The facts that the planner of a way is told. They may force its plan.
#[derive(Clone, Copy)]
struct Told {
    name: &'static str,
    /// Whether the visible set is known at once.
    knows: bool,
    /// Whether checks need no call.
    local: bool,
    guards_checked_max: usize,
}

const VISIBLE_SET: Told = Told { name: "visible set", knows: true, local: true, guards_checked_max: usize::MAX };
const LIST_FIRST: Told = Told { name: "list first", knows: false, local: true, guards_checked_max: usize::MAX };
const CHECK_AFTER: Told = Told { name: "check after", knows: false, local: false, guards_checked_max: 0 };

/// Allows the documents with these numbers, and counts the checks.
struct Counting {
    allowed: Arc<Vec<bool>>,
    told: Told,
    /// The visible set, kept from the first request on, as real authorizers keep it. The bench `visible_set` measures
    /// how long it takes to find.
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
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.checks.fetch_add(batch.checks.len(), Ordering::Relaxed);
        Ok(Decisions::now(batch.checks.iter().map(|check| self.allows(&check.object))))
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let allows = |at: &u32| self.allows(&query.guards[*at as usize]);
        let find = || Arc::new(query.positions.iter().filter(allows).collect());
        Ok(self.told.knows.then(|| VisiblePositions::now(Arc::clone(self.visible.get_or_init(find)))))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { checks_are_local: self.told.local, ..Abilities::default() }
    }
}

/// The search of one round.
#[derive(Clone, Copy, PartialEq, Eq)]
struct RoundOfWay {
    plan: Plan,
    limit: usize,
}

/// A retriever that follows one plan through a cell of the grid, and the measurements of its retrievals.
struct Way {
    name: &'static str,
    retriever: Retriever,
    authorizer: Arc<Counting>,
    /// Whether checks cost no call.
    local: bool,
    /// The cost of each turn, for each query.
    costs: Vec<Vec<f64>>,
    /// The chunks of each answer.
    answers: Vec<Vec<String>>,
    is_whole: bool,
    /// The rounds of each retrieval.
    rounds: Vec<Vec<RoundOfWay>>,
    check_rounds_max: usize,
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
            for (situation, most_rounds) in SITUATIONS.iter().zip(&mut most_rounds) {
                let way = |told| Way::new(&store, &allowed, told, situation);
                // An authorizer that knows the set gains nothing by listing it.
                let forced = if situation.knows { [VISIBLE_SET, CHECK_AFTER] } else { [LIST_FIRST, CHECK_AFTER] };
                let Situation { knows, local, .. } = *situation;
                let chosen = Told { name: "chosen", knows, local, guards_checked_max: 200_000 };
                let mut ways: Vec<Way> = [chosen].into_iter().chain(forced).map(way).collect();
                for number in 0..LEARNING {
                    for way in &mut ways {
                        drop(way.retrieve(&runtime, &request(&corpus, number, top_k)));
                    }
                }
                for number in LEARNING..LEARNING + QUERIES {
                    let request = request(&corpus, number, top_k);
                    for way in &mut ways {
                        way.costs.push(Vec::new());
                    }
                    for _ in 0..TURNS {
                        for way in &mut ways {
                            way.measure(&runtime, &request);
                        }
                    }
                }
                let (chosen, forced) = ways.split_first().unwrap();
                let whole: Vec<&Way> = forced.iter().filter(|way| way.is_whole).collect();
                assert!(whole.iter().all(|way| way.answers == chosen.answers), "the answers differ");
                let alike = whole.iter().filter(|way| way.rounds == chosen.rounds).map(|way| way.cost());
                let cost = alike.fold(chosen.cost(), f64::min);
                let best = whole.iter().min_by(|a, b| a.cost().total_cmp(&b.cost())).unwrap();
                let best = if cost < best.cost() { chosen } else { *best };
                let regret = cost / best.cost().min(cost);
                println!(
                    "{:<19} {:>6} guards {:>6} % k={top_k:<4} {:<36}{cost:>9.2} ms   best: {:<12}{:>9.2} ms   regret {regret:.2}",
                    situation.name,
                    CHUNKS / per_guard,
                    share * 100.0,
                    chosen.plans(),
                    best.name,
                    best.cost().min(cost),
                );
                regrets.push(regret);
                *most_rounds = (*most_rounds).max(chosen.check_rounds_max);
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

impl Way {
    fn new(store: &ExactStore, allowed: &Arc<Vec<bool>>, told: Told, situation: &Situation) -> Self {
        let authorizer = Arc::new(Counting {
            allowed: Arc::clone(allowed),
            told,
            visible: OnceLock::new(),
            rounds: AtomicUsize::new(0),
            checks: AtomicUsize::new(0),
        });
        let config = RetrievalConfig {
            relation: Relation::parse("can_read").unwrap(),
            top_k_max: 100,
            candidates_max: 10_000,
            guards_checked_max: told.guards_checked_max,
            explain_plan: false,
            ..RetrievalConfig::default()
        };
        Self {
            name: told.name,
            retriever: Retriever::new(
                Arc::clone(&authorizer) as _,
                Arc::new(store.clone()),
                config,
                Pages::new(Duration::from_mins(1)).unwrap(),
            ),
            authorizer,
            local: situation.local,
            costs: Vec::new(),
            answers: Vec::new(),
            is_whole: true,
            rounds: Vec::new(),
            check_rounds_max: 0,
        }
    }

    fn retrieve(&self, runtime: &Runtime, request: &RetrievalRequest) -> Retrieval {
        let deadline = Instant::now() + Duration::from_mins(1);
        runtime.block_on(self.retriever.retrieve(request, deadline)).unwrap()
    }

    fn measure(&mut self, runtime: &Runtime, request: &RetrievalRequest) {
        let asked =
            |counting: &Counting| (counting.rounds.load(Ordering::Relaxed), counting.checks.load(Ordering::Relaxed));
        let before = asked(&self.authorizer);
        let started = Instant::now();
        let retrieval = self.retrieve(runtime, request);
        let took = started.elapsed().as_secs_f64() * 1_000.0;
        let after = asked(&self.authorizer);
        let (rounds, checks) = (after.0 - before.0, f64::from((after.1 - before.1) as u32));
        let of_checks =
            if self.local { checks * LOCAL_CHECK_MS } else { f64::from(rounds as u32) * ROUND_MS + checks * CHECK_MS };
        self.costs.last_mut().unwrap().push(took + of_checks);
        self.check_rounds_max = self.check_rounds_max.max(rounds);
        self.rounds.push(
            retrieval.plan.rounds.iter().map(|round| RoundOfWay { plan: round.plan, limit: round.limit }).collect(),
        );
        self.is_whole &= retrieval.completion != Completion::Limited;
        self.answers.push(retrieval.chunks.iter().map(|chunk| chunk.chunk.item().id.clone()).collect());
    }

    /// Returns the cost of a retrieval, in milliseconds.
    fn cost(&self) -> f64 {
        let median = |turns: &Vec<f64>| {
            let mut turns = turns.clone();
            turns.sort_by(f64::total_cmp);
            turns[turns.len() / 2]
        };
        self.costs.iter().map(median).sum::<f64>() / f64::from(self.costs.len() as u32)
    }

    /// Returns the names of the plans that were used.
    fn plans(&self) -> String {
        let mut names: Vec<&str> = self.rounds.iter().flatten().map(|round| round.plan.name()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

fn request(corpus: &Corpus, number: usize, top_k: u32) -> RetrievalRequest {
    let query = Query::Vector(corpus.query(number));
    let parts = RetrievalParts { top_k, ..RetrievalParts::new("user:anne", COLLECTION, query) };
    RetrievalRequest::new(parts, 100).unwrap()
}
