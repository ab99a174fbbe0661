//! Retrieval over Qdrant's wire. In every plan, the answer is that of a corpus which holds only what the user sees. No
//! false hint and no payload shows more.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::{PointStruct, StrictModeConfig, Value as Payload};
use ragward::authz::{
    Abilities, Authorizer, AuthzError, CheckBatch, Consistency, Decisions, VisiblePositions, VisibleSetQuery,
};
use ragward::chunk::{Candidate, Chunk, Document, Metadata};
use ragward::language::{Object, Relation};
use ragward::retrieval::{
    Completion, NamedPrincipal, Pages, Plan, Retrieval, RetrievalConfig, RetrievalParts, RetrievalRequest, Retriever,
};
use ragward::vector_store::qdrant::{QdrantConfig, QdrantStore, point_id};
use ragward::vector_store::{DocumentStore, Query, Search, SearchSpace};
use roaring::RoaringBitmap;
use tokio::time::Instant;

use crate::support::brute_force::BruteForce;
use crate::support::dice::Dice;
use crate::support::qdrant_server::QdrantServer;
use crate::support::qdrant_servers::{AnyQdrant, servers};
use crate::support::vector_store_suite::candidate;

const GUARDS: usize = 30;
const COLLECTION: &str = "docs";

/// Allows the guards in `open`, and may lie about the visible set.
#[derive(Clone)]
struct Permissive {
    open: BTreeSet<String>,
    hint: Option<Lie>,
    is_local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    Truth,
    Everything,
    Nothing,
    Inverted,
    EveryOther,
    /// Positions that no guard has.
    Elsewhere,
}

impl Lie {
    const ALL: [Self; 6] =
        [Self::Truth, Self::Everything, Self::Nothing, Self::Inverted, Self::EveryOther, Self::Elsewhere];

    /// Returns whether the hint hides nothing that is visible.
    fn is_generous(self) -> bool {
        matches!(self, Self::Truth | Self::Everything)
    }
}

#[async_trait]
impl Authorizer for Permissive {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        Ok(Decisions::now(batch.checks.iter().map(|c| self.open.contains(c.object.as_str()))))
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let Some(lie) = self.hint else { return Ok(None) };
        let is_told = |position: u32, guard: &Object| {
            let open = self.open.contains(guard.as_str());
            match lie {
                Lie::Truth => open,
                Lie::Everything => true,
                Lie::Nothing | Lie::Elsewhere => false,
                Lie::Inverted => !open,
                Lie::EveryOther => position.is_multiple_of(2),
            }
        };
        let shown = (0..).zip(query.guards.iter()).filter(|(at, guard)| is_told(*at, guard)).map(|(at, _)| at);
        let mut shown: RoaringBitmap = shown.collect();
        if lie == Lie::Elsewhere {
            shown.insert_range(1_000..2_000);
        }
        Ok(Some(VisiblePositions::now(Arc::new(shown))))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { checks_are_local: self.is_local, ..Abilities::default() }
    }
}

fn guard(number: usize) -> String {
    format!("document:{number}")
}

/// Returns documents of some chunks each, behind random guards, in few directions, so that scores are often equal.
fn corpus(dice: &mut Dice) -> Vec<Document> {
    let mut documents = Vec::new();
    for number in 0..40 {
        let id = format!("d{number:02}");
        let chunks = 0..=dice.below(6);
        let chunks = chunks.map(|place| Chunk {
            id: format!("{id}#{place}"),
            document_id: id.clone(),
            guard: Object::parse(&guard(dice.below(GUARDS))).expect("an object"),
            title: String::new(),
            heading_path: Vec::new(),
            text: "words".to_owned(),
            metadata: Metadata::new(),
            vector: vec![1.0, f32::from(u8::try_from(dice.below(9)).expect("small"))],
        });
        documents.push(Document { id: id.clone(), title: String::new(), chunks: chunks.collect() });
    }
    documents
}

fn retriever(store: &Arc<QdrantStore>, authorizer: Permissive) -> Retriever {
    let config = RetrievalConfig {
        relation: Relation::parse("can_read").expect("a relation"),
        top_k_max: 1_000,
        candidates_max: 1_000,
        guards_checked_max: 1_000,
        explain_plan: true,
        ..RetrievalConfig::default()
    };
    let store = Arc::clone(store);
    Retriever::new(Arc::new(authorizer), store, config, Pages::new(Duration::from_mins(1)).expect("a key"))
}

async fn ask(retriever: &Retriever, vector: &[f32], top_k: usize, per_document_max: u32) -> Retrieval {
    let parts = RetrievalParts {
        principal: NamedPrincipal::stated("user:anne"),
        collection: COLLECTION.to_owned(),
        query: Some(Query::Vector(vector.to_vec()).into()),
        top_k: u32::try_from(top_k).expect("small"),
        filter: None,
        min_score: None,
        per_document_max,
        consistency: Consistency::MinimizeLatency,
        page_token: None,
    };
    let request = RetrievalRequest::new(parts, 1_000).expect("a request");
    retriever.retrieve(&request, Instant::now() + Duration::from_secs(30)).await.expect("an answer")
}

fn candidates(retrieval: &Retrieval) -> Vec<Candidate> {
    let candidate = |retrieved: &ragward::retrieval::Retrieved| {
        let chunk = retrieved.chunk.item();
        Candidate { score: retrieved.score, ..candidate(&chunk.id, chunk.guard.as_str()) }
    };
    retrieval.chunks.iter().map(candidate).collect()
}

/// Returns a search in the form that brute force takes.
fn search(vector: &[f32], limit: usize, per_document_max: u32) -> Search {
    Search {
        collection: COLLECTION.to_owned(),
        query: Query::Vector(vector.to_vec()),
        filter: None,
        space: SearchSpace::Everything,
        narrowing: None,
        min_score: None,
        per_document_max: usize::try_from(per_document_max).ok().and_then(NonZeroUsize::new),
        limit,
        enough: usize::MAX,
    }
}

/// An answer, and everything that it is compared with.
struct Comparison<'a> {
    /// Names the row of data in a failure.
    row: &'a str,
    brute_force: &'a BruteForce,
    search: &'a Search,
    visible: &'a BTreeSet<&'a str>,
    answer: &'a [Candidate],
}

impl Comparison<'_> {
    /// Compares scores bit by bit for the small server, and within a tolerance for a real one, which sums in an order of
    /// its own.
    #[track_caller]
    fn check(&self, server: &AnyQdrant) {
        let Self { row, brute_force, search, visible, answer } = *self;
        match &server.small {
            Some(_) => brute_force.check(row, search, Some(visible), answer),
            None => brute_force.check_about(row, search, Some(visible), answer),
        }
    }
}

fn chosen(dice: &mut Dice, of_ten: usize) -> BTreeSet<String> {
    (0..GUARDS).filter(|_| dice.below(10) < of_ten).map(guard).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plan_answers_as_the_private_corpus() {
    for server in servers().await {
        let mut plans: BTreeSet<Plan> = BTreeSet::new();
        for seed in 0..3 {
            let mut dice = Dice::new(seed);
            let mut brute_force = BruteForce::default();
            let documents = corpus(&mut dice);
            brute_force.upsert(&documents);
            // The guards fit into one filter, or into several, or are too many to list.
            for (guards_max, guards_per_filter_max) in [(1_000, 1_000), (1_000, 4), (1, 1_000)] {
                let exact = QdrantConfig { exact: true, ..QdrantConfig::new(&server.url) };
                let config = QdrantConfig { guards_max, guards_per_filter_max, ..exact };
                let store = Arc::new(QdrantStore::new(&config).expect("a store"));
                store.upsert(COLLECTION, documents.clone()).await.expect("taken in");
                for (hint, is_local) in [(Some(Lie::Truth), true), (None, true), (None, false)] {
                    for of_ten in [0, 1, 4, 10] {
                        let open = chosen(&mut dice, of_ten);
                        let visible: BTreeSet<&str> = open.iter().map(String::as_str).collect();
                        let retriever = retriever(&store, Permissive { open: open.clone(), hint, is_local });
                        for (top_k, per_document_max) in [(1, 0), (10, 0), (10, 1), (200, 2)] {
                            let vector = [1.0, f32::from(u8::try_from(dice.below(9)).expect("small"))];
                            let retrieval = ask(&retriever, &vector, top_k, per_document_max).await;
                            let row = format!(
                                "{}, seed {seed}, {guards_max}, {hint:?}, {of_ten}, {top_k}, {per_document_max}, {:?}",
                                server.name, retrieval.plan
                            );
                            let comparison = Comparison {
                                row: &row,
                                brute_force: &brute_force,
                                search: &search(&vector, top_k, per_document_max),
                                visible: &visible,
                                answer: &candidates(&retrieval),
                            };
                            comparison.check(&server);
                            assert!(retrieval.exact, "{row}");
                            let is_full = retrieval.chunks.len() == top_k;
                            let expected = if is_full { Completion::Complete } else { Completion::Exhausted };
                            assert_eq!(retrieval.completion, expected, "{row}");
                            plans.extend(retrieval.plan.rounds.iter().map(|round| round.plan));
                        }
                    }
                }
            }
        }
        let every_plan = [Plan::VisibleSetSearch, Plan::ListThenSearch, Plan::SearchThenCheck];
        assert_eq!(plans, BTreeSet::from(every_plan), "{}", server.name);
    }
}

/// All hints are corrupt: no hidden chunk is shown, and if a hint hides nothing, the answer is whole.
#[tokio::test(flavor = "multi_thread")]
async fn lies_about_the_visible_set_show_nothing() {
    for server in servers().await {
        for seed in 0..4 {
            let mut dice = Dice::new(seed);
            let config = QdrantConfig { exact: true, guards_per_filter_max: 5, ..QdrantConfig::new(&server.url) };
            let store = Arc::new(QdrantStore::new(&config).expect("a store"));
            let mut brute_force = BruteForce::default();
            let documents = corpus(&mut dice);
            brute_force.upsert(&documents);
            store.upsert(COLLECTION, documents).await.expect("taken in");
            for lie in Lie::ALL {
                for of_ten in [0, 2, 8] {
                    let open = chosen(&mut dice, of_ten);
                    let visible: BTreeSet<&str> = open.iter().map(String::as_str).collect();
                    let retriever =
                        retriever(&store, Permissive { open: open.clone(), hint: Some(lie), is_local: true });
                    for (top_k, per_document_max) in [(5, 0), (50, 0), (50, 1)] {
                        let retrieval = ask(&retriever, &[1.0, 2.0], top_k, per_document_max).await;
                        let found = candidates(&retrieval);
                        let row = format!(
                            "{}, seed {seed}, {lie:?}, {of_ten}, {top_k}, {per_document_max}, {:?}",
                            server.name, retrieval.plan
                        );
                        assert!(found.iter().all(|c| open.contains(c.guard.as_str())), "{row}: {found:?}");
                        if lie.is_generous() {
                            let comparison = Comparison {
                                row: &row,
                                brute_force: &brute_force,
                                search: &search(&[1.0, 2.0], top_k, per_document_max),
                                visible: &visible,
                                answer: &found,
                            };
                            comparison.check(&server);
                        }
                    }
                }
            }
        }
    }
}

/// INVARIANT (nothing visible, nothing found): a user who sees nothing gets nothing, in every plan.
#[tokio::test(flavor = "multi_thread")]
async fn who_sees_nothing_gets_nothing_in_every_plan() {
    for server in servers().await {
        let config = QdrantConfig::new(&server.url);
        QdrantStore::new(&config)
            .expect("a store")
            .upsert(COLLECTION, corpus(&mut Dice::new(1)))
            .await
            .expect("taken in");
        for guards_max in [1_000, 1] {
            let store = Arc::new(QdrantStore::new(&QdrantConfig { guards_max, ..config.clone() }).expect("a store"));
            for (hint, is_local) in [(Some(Lie::Truth), true), (None, true), (None, false)] {
                let nobody = Permissive { open: BTreeSet::new(), hint, is_local };
                server.small.as_ref().map(QdrantServer::take_queries);
                let retrieval = ask(&retriever(&store, nobody), &[1.0, 0.0], 10, 0).await;
                let row = format!("{}, {guards_max}, {hint:?}, local {is_local}, {:?}", server.name, retrieval.plan);
                assert!(retrieval.chunks.is_empty(), "{row}");
                assert_eq!(retrieval.completion, Completion::Exhausted, "{row}");
                let is_searched = retrieval.plan.rounds.iter().any(|round| round.plan == Plan::SearchThenCheck);
                let queries = server.small.as_ref().map(QdrantServer::take_queries);
                assert!(queries.is_none_or(|queries| queries.is_empty() != is_searched), "{row}");
            }
        }
    }
}

/// Another program rewrites every guard after the list was taken. The current guard counts.
#[tokio::test(flavor = "multi_thread")]
async fn guards_that_change_behind_the_list_are_checked_as_they_are() {
    type Change = fn(usize) -> Payload;
    for server in servers().await {
        let config =
            QdrantConfig { overview_age_max: Duration::from_hours(1), exact: true, ..QdrantConfig::new(&server.url) };
        let store = Arc::new(QdrantStore::new(&config).expect("a store"));
        let documents = corpus(&mut Dice::new(7));
        store.upsert(COLLECTION, documents.clone()).await.expect("taken in");
        let open: BTreeSet<String> = (0..GUARDS / 2).map(guard).collect();
        let visible: BTreeSet<&str> = open.iter().map(String::as_str).collect();
        let every_plan = [
            ("a true visible set", Some(Lie::Truth), true),
            ("a visible set of everything", Some(Lie::Everything), true),
            ("local checks", None, true),
            ("checks elsewhere", None, false),
        ];
        let retrievers = every_plan
            .map(|(plan, hint, is_local)| (plan, retriever(&store, Permissive { open: open.clone(), hint, is_local })));
        for (plan, retriever) in &retrievers {
            assert_eq!(ask(retriever, &[1.0, 0.0], 5, 0).await.chunks.len(), 5, "{}, {plan}", server.name);
        }
        let changes: [(&str, Change, usize); 5] = [
            ("a wildcard", |_| Payload::from("document:*"), 0),
            ("a number", |_| Payload::from(7_i64), 0),
            ("a new guard", |_| Payload::from("document:new"), 0),
            ("a list", |_| Payload::from(vec![Payload::from("document:1"), Payload::from("document:2")]), 0),
            (
                "each chunk but the first is behind another hidden guard",
                |number| Payload::from(if number == 0 { guard(0) } else { guard(GUARDS / 2 + number % 10) }),
                1,
            ),
        ];
        for (name, change, shown) in changes {
            let chunks = documents.iter().flat_map(|document| &document.chunks).enumerate();
            let points = chunks.map(|(number, chunk)| {
                let fields = [("chunk_id", &chunk.id), ("document_id", &chunk.document_id), ("text", &chunk.text)];
                let mut payload: HashMap<String, Payload> =
                    fields.map(|(field, text)| (field.to_owned(), Payload::from(text.as_str()))).into();
                payload.insert("guard".to_owned(), change(number));
                PointStruct::new(point_id(&chunk.id), chunk.vector.clone(), payload)
            });
            server.put(COLLECTION, points.collect()).await;
            for (plan, retriever) in &retrievers {
                let row = format!("{}, {name}, {plan}", server.name);
                let found = candidates(&ask(retriever, &[1.0, 0.0], 5, 0).await);
                assert!(found.iter().all(|candidate| visible.contains(candidate.guard.as_str())), "{row}: {found:?}");
                assert_eq!(found.len(), shown, "{row}: {found:?}");
            }
        }
    }
}

/// A server may limit a search to fewer candidates than a request needs. Then the answer says that there may be more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_server_limits_says_so() {
    for server in servers().await {
        let store = Arc::new(QdrantStore::new(&QdrantConfig::new(&server.url)).expect("a store"));
        store.upsert(COLLECTION, corpus(&mut Dice::new(2))).await.expect("taken in");
        let limits = StrictModeConfig { enabled: Some(true), max_query_limit: Some(40), ..StrictModeConfig::default() };
        server.restrict(COLLECTION, limits).await;
        let open: BTreeSet<String> = (0..GUARDS).map(guard).collect();
        for (hint, is_local) in [(Some(Lie::Truth), true), (None, true), (None, false)] {
            let retriever = retriever(&store, Permissive { open: open.clone(), hint, is_local });
            for (top_k, shown, completion) in [(10, 10, Completion::Complete), (60, 40, Completion::Limited)] {
                let retrieval = ask(&retriever, &[1.0, 2.0], top_k, 0).await;
                let row = format!("{}, {hint:?}, local {is_local}, {top_k}, {:?}", server.name, retrieval.plan);
                assert_eq!((retrieval.chunks.len(), retrieval.completion), (shown, completion), "{row}");
            }
        }
    }
}
