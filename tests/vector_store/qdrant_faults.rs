//! INVARIANT (fail closed): however a Qdrant fails, the adapter answers with an error or a right answer, never with a
//! chunk that was not asked for or that has no guard.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qdrant_client::qdrant::{
    AliasDescription, CollectionConfig, CollectionDescription, CollectionInfo, CollectionParams, CountPoints,
    CountResponse, CountResult, Distance, FacetCounts, FacetHit, FacetResponse, FacetValue, GetCollectionInfoRequest,
    GetCollectionInfoResponse, GetPoints, GetResponse, ListAliasesRequest, ListAliasesResponse, ListCollectionsRequest,
    ListCollectionsResponse, PayloadSchemaInfo, PayloadSchemaType, PointId, QueryPoints, QueryResponse, RetrievedPoint,
    ScoredPoint, UpdateBatchPoints, UpdateBatchResponse, UpdateResult, UpdateStatus, Value, VectorParams,
    facet_value::Variant, vectors_config,
};
use ragward::chunk::{Candidate, Chunk, Document, Metadata};
use ragward::language::Object;
use ragward::vector_store::qdrant::{QdrantConfig, QdrantStore, point_id};
use ragward::vector_store::{DocumentStore, Query, Rest, Search, SearchSpace, VectorStore, VectorStoreError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::{Code, Status};

use crate::support::faulty_server::{FaultyServer, Methods};
use crate::support::vector_store_suite::candidate;

const QUERY: &str = "/qdrant.Points/Query";
const GET: &str = "/qdrant.Points/Get";
const FACET: &str = "/qdrant.Points/Facet";
const COUNT: &str = "/qdrant.Points/Count";
const UPDATE: &str = "/qdrant.Points/UpdateBatch";
const COLLECTION: &str = "/qdrant.Collections/Get";
const LIST: &str = "/qdrant.Collections/List";
const ALIASES: &str = "/qdrant.Collections/ListAliases";
/// The time for a server that never answers one call. The calls before that one have the same time.
const SHORT: Duration = Duration::from_secs(2);
/// The time for a server whose answer is needed, so that a busy machine changes no outcome.
const LONG: Duration = Duration::from_mins(1);

/// Returns a right answer: the points `c0`, `c1`, … with falling scores.
fn points(number: u64) -> Vec<ScoredPoint> {
    let point = |place: u16| ScoredPoint {
        id: Some(PointId::from(point_id(&format!("c{place}")))),
        payload: payload(&format!("c{place}")),
        score: 1.0 - f32::from(place) / 1_000.0,
        ..ScoredPoint::default()
    };
    (0..).take(usize::try_from(number).expect("a small number")).map(point).collect()
}

fn payload(chunk_id: &str) -> std::collections::HashMap<String, Value> {
    let text = |field: &str, value: &str| (field.to_owned(), Value::from(value));
    [text("chunk_id", chunk_id), text("guard", "document:1"), text("document_id", "d"), text("text", "words")].into()
}

/// Returns the methods of a server on which the collection exists.
fn methods() -> Methods {
    let list = |_: ListCollectionsRequest| {
        let collections = vec![CollectionDescription { name: "docs".to_owned() }];
        std::future::ready(Ok(ListCollectionsResponse { collections, time: 0.0 }))
    };
    Methods::default().on(LIST, list)
}

fn store(server: &FaultyServer) -> QdrantStore {
    QdrantStore::new(&QdrantConfig::new(&server.address)).expect("a store")
}

/// Returns a document with the chunk `c0`.
fn document() -> Document {
    let chunk = Chunk {
        id: "c0".to_owned(),
        document_id: "d".to_owned(),
        guard: Object::parse("document:1").expect("an object"),
        title: String::new(),
        heading_path: Vec::new(),
        text: "words".to_owned(),
        metadata: Metadata::new(),
        vector: vec![1.0, 0.0],
    };
    Document { id: "d".to_owned(), title: String::new(), chunks: vec![chunk] }
}

fn nearest(limit: usize) -> Search {
    let query = Query::Vector(vec![1.0, 0.0]);
    let space = SearchSpace::Everything;
    Search {
        collection: "docs".to_owned(),
        query,
        filter: None,
        space,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit,
        enough: usize::MAX,
    }
}

fn ids(candidates: &[Candidate]) -> Vec<&str> {
    candidates.iter().map(|candidate| candidate.chunk_id.as_str()).collect()
}

async fn search<F>(behaviour: impl Fn(QueryPoints) -> F + Send + Sync + 'static) -> Result<Vec<Candidate>, String>
where
    F: Future<Output = Result<QueryResponse, Status>> + Send + 'static,
{
    let server = methods().on(QUERY, behaviour).start().await;
    store(&server).search(&nearest(5)).await.map(|found| found.candidates).map_err(|e| format!("{e:?}"))
}

#[tokio::test]
async fn a_wrong_answer_to_a_search_is_an_error() {
    type Rewrite = fn(&mut Vec<ScoredPoint>);
    let cases: [(&str, Rewrite); 7] = [
        ("one too many", |p| p.push(points(6).remove(5))),
        ("one twice", |p| p[1] = ScoredPoint { score: p[1].score, ..p[0].clone() }),
        ("not a number", |p| p[1].score = f32::NAN),
        ("infinite", |p| p[0].score = f32::INFINITY),
        ("negative infinite", |p| p[4].score = f32::NEG_INFINITY),
        ("out of order", |p| p.swap(1, 3)),
        ("lowest first", |p| p.reverse()),
    ];
    for (name, rewrite) in cases {
        let found = search(move |request| async move {
            let mut result = points(request.limit.unwrap_or_default());
            rewrite(&mut result);
            Ok(QueryResponse { result, ..QueryResponse::default() })
        });
        assert!(found.await.is_err_and(|e| e.starts_with("BadAnswer")), "{name}");
    }
}

#[tokio::test]
async fn an_unusable_point_is_replaced_by_the_next() {
    type Rewrite = fn(&mut ScoredPoint);
    let cases: [(&str, Rewrite); 7] = [
        ("no payload", |p| p.payload.clear()),
        ("no guard", |p| drop(p.payload.remove("guard"))),
        ("a wildcard guard", |p| drop(p.payload.insert("guard".to_owned(), Value::from("document:*")))),
        ("a number as guard", |p| drop(p.payload.insert("guard".to_owned(), Value::from(1_i64)))),
        ("another chunk's id", |p| drop(p.payload.insert("chunk_id".to_owned(), Value::from("c3")))),
        ("no point id", |p| p.id = None),
        ("a number as point id", |p| p.id = Some(PointId::from(1_u64))),
    ];
    for (name, rewrite) in cases {
        let found = search(move |request| async move {
            let mut result = points(request.limit.unwrap_or_default());
            result.iter_mut().step_by(2).for_each(rewrite);
            Ok(QueryResponse { result, ..QueryResponse::default() })
        });
        assert_eq!(ids(&found.await.expect("candidates")), ["c1", "c3", "c5", "c7", "c9"], "{name}");
    }
}

#[tokio::test]
async fn unusable_points_are_passed_over_within_a_bound() {
    let largest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&largest);
    let found = search(move |request| {
        let limit = request.limit.unwrap_or_default();
        seen.fetch_max(limit, Ordering::SeqCst);
        let mut result = points(limit);
        for point in &mut result {
            point.payload.clear();
        }
        async move { Ok(QueryResponse { result, ..QueryResponse::default() }) }
    });
    assert!(found.await.is_err_and(|e| e.starts_with("BadAnswer")));
    // The first search asks for one more than is wanted, and the limit is doubled six times.
    assert_eq!(largest.load(Ordering::SeqCst), 6 * 64);

    // If the server has no other points, the two that are usable are the whole answer.
    let found = search(|_| async {
        let mut result = points(3);
        result[0].payload.clear();
        Ok(QueryResponse { result, ..QueryResponse::default() })
    });
    assert_eq!(ids(&found.await.expect("candidates")), ["c1", "c2"]);
}

/// Replicas that disagree, and points that are deleted meanwhile, shorten an answer that should not be short.
#[tokio::test]
async fn a_short_answer_is_asked_for_again() {
    type Lose = fn(u64) -> u64;
    // A row says how many of 50 points each answer lacks, how many of 5 hits are found, whether the search is exact,
    // and whether a wider search could find more.
    let cases: [(&str, Lose, usize, bool, Rest); 4] = [
        ("the first lacks some", |call| if call == 1 { 49 } else { 0 }, 5, true, Rest::Further),
        ("the first lacks all", |call| if call == 1 { 50 } else { 0 }, 5, true, Rest::Further),
        ("all but two are gone", |_| 48, 2, true, Rest::Nothing),
        ("each answer finds one more", |call| 50_u64.saturating_sub(call), 5, false, Rest::Further),
    ];
    for (name, lose, count, exact, rest) in cases {
        let calls = AtomicU64::new(0);
        let server = methods().on(QUERY, move |request: QueryPoints| {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            let result = points((50 - lose(call)).min(request.limit.unwrap_or_default()));
            async move { Ok(QueryResponse { result, ..QueryResponse::default() }) }
        });
        let server = server.start().await;
        let found = store(&server).search(&nearest(5)).await.expect("candidates");
        assert_eq!(found.candidates.len(), count, "{name}");
        assert_eq!((found.exact, found.rest), (exact, rest), "{name}");
    }
}

/// Each page continues where the page before it ended, so the server must not choose which of several equal scores are
/// cut off.
#[tokio::test]
async fn equal_scores_are_not_cut_off_by_the_server() {
    let found = search(|request| async move {
        let mut result = points(20);
        for point in &mut result {
            point.score = 0.5;
        }
        result.reverse();
        result.truncate(usize::try_from(request.limit.unwrap_or_default()).expect("a small number"));
        Ok(QueryResponse { result, ..QueryResponse::default() })
    });
    assert_eq!(ids(&found.await.expect("candidates")), ["c0", "c1", "c10", "c11", "c12"]);
}

#[tokio::test]
async fn equal_scores_at_the_end_cost_a_second_call_only_where_they_are_needed() {
    // There are nine points, the last five of which have one score.
    let nine = || {
        let mut nine = points(9);
        for point in nine.iter_mut().skip(4) {
            point.score = 0.5;
        }
        nine
    };
    let rows = [
        ("four of six are enough", 6, 3, 4, 1, Rest::Further),
        ("and just enough", 6, 4, 4, 1, Rest::Further),
        ("five are not there without the equal ones, and then all must be seen", 6, 5, 6, 3, Rest::Further),
        ("all are wanted", 6, 6, 6, 3, Rest::Further),
        ("the end is not among equal ones", 4, 2, 4, 1, Rest::Further),
        ("there are no more", 12, 3, 9, 2, Rest::Nothing),
    ];
    for (name, limit, enough, count, calls, rest) in rows {
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let server = methods().on(QUERY, move |request: QueryPoints| {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut result = nine();
            result.truncate(usize::try_from(request.limit.unwrap_or_default()).expect("a small number"));
            async move { Ok(QueryResponse { result, ..QueryResponse::default() }) }
        });
        let server = server.start().await;
        let found = store(&server).search(&Search { enough, ..nearest(limit) }).await.expect("candidates");
        assert_eq!((found.candidates.len(), asked.load(Ordering::SeqCst), found.rest), (count, calls, rest), "{name}");
    }
}

#[tokio::test]
async fn an_empty_scope_asks_nothing() {
    let server = methods().start().await;
    let table = ragward::vector_store::GuardTable::new(Vec::new());
    let space = SearchSpace::Guards { table, positions: roaring::RoaringBitmap::from([0, 7]) };
    let found = store(&server).search(&Search { space, ..nearest(5) }).await;
    assert!(found.expect("no candidates").candidates.is_empty());
}

#[tokio::test]
async fn a_wrong_answer_to_a_read_is_never_another_chunk() {
    type Rewrite = fn(&mut Vec<RetrievedPoint>);
    let cases: [(&str, Rewrite, Option<&[&str]>); 6] = [
        ("right", |_| {}, Some(&["c0", "c1"])),
        ("reversed", |p| p.reverse(), Some(&["c0", "c1"])),
        ("one too few", |p| p.truncate(1), Some(&["c0"])),
        ("one twice", |p| p[1] = p[0].clone(), None),
        ("another", |p| p[1].id = Some(PointId::from(point_id("c9"))), None),
        ("another's payload", |p| p[1].payload = payload("c9"), Some(&["c0"])),
    ];
    let asked = ["c0".to_owned(), "c1".to_owned()];
    for (name, rewrite, expected) in cases {
        let behaviour = move |_: GetPoints| async move {
            let point = |point: ScoredPoint| RetrievedPoint {
                id: point.id,
                payload: point.payload,
                ..RetrievedPoint::default()
            };
            let mut result: Vec<RetrievedPoint> = points(2).into_iter().map(point).collect();
            // The server may return the points in any order.
            result.sort_by_key(|point| format!("{:?}", point.payload.get("chunk_id")));
            rewrite(&mut result);
            Ok(GetResponse { result, ..GetResponse::default() })
        };
        let server = methods().on(GET, behaviour).start().await;
        let found = store(&server).find("docs", &asked).await;
        let read = store(&server).read("docs", None, &asked.clone().map(|id| candidate(&id, "document:1"))).await;
        if let Some(expected) = expected {
            let found: Vec<Candidate> = found.expect("found").into_iter().map(|found| found.candidate).collect();
            assert_eq!(ids(&found), expected, "{name}");
            let read = read.expect("read");
            assert_eq!(read.iter().map(|chunk| chunk.id.as_str()).collect::<Vec<_>>(), expected, "{name}");
        } else {
            assert!(matches!(found, Err(VectorStoreError::BadAnswer(_))), "{name}: {found:?}");
            assert!(matches!(read, Err(VectorStoreError::BadAnswer(_))), "{name}: {read:?}");
        }
    }
}

#[tokio::test]
async fn a_wrong_count_of_documents_is_an_error() {
    let hit = |id: &str| {
        let value = FacetValue { variant: Some(Variant::StringValue(id.to_owned())) };
        FacetHit { value: Some(value), count: 1 }
    };
    let number = FacetHit { value: Some(FacetValue { variant: Some(Variant::IntegerValue(1)) }), count: 1 };
    let rows = [
        ("a document that was not asked for", vec![hit("foreign")]),
        ("one twice", vec![hit("d"), hit("d")]),
        ("a number as id", vec![number]),
        ("no id", vec![FacetHit::default()]),
    ];
    for (name, hits) in rows {
        let answer = FacetResponse { hits, ..FacetResponse::default() };
        let behaviour = move |_: FacetCounts| std::future::ready(Ok(answer.clone()));
        let server = methods().on(FACET, behaviour).start().await;
        let counted = store(&server).documents("docs", &["d".to_owned(), "e".to_owned()]).await;
        assert!(matches!(counted, Err(VectorStoreError::BadAnswer(_))), "{name}: {counted:?}");
    }
}

fn describe(_: GetCollectionInfoRequest) -> impl Future<Output = Result<GetCollectionInfoResponse, Status>> {
    let vector = VectorParams { size: 2, distance: Distance::Cosine.into(), ..VectorParams::default() };
    let params = CollectionParams {
        vectors_config: Some(vectors_config::Config::Params(vector).into()),
        ..CollectionParams::default()
    };
    let indexes = ["guard", "document_id", "position"];
    let index = PayloadSchemaInfo { data_type: PayloadSchemaType::Keyword.into(), ..PayloadSchemaInfo::default() };
    let info = CollectionInfo {
        config: Some(CollectionConfig { params: Some(params), ..CollectionConfig::default() }),
        payload_schema: indexes.map(|field| (field.to_owned(), index.clone())).into(),
        ..CollectionInfo::default()
    };
    std::future::ready(Ok(GetCollectionInfoResponse { result: Some(info), time: 0.0 }))
}

fn guard_hit(guard: &str) -> FacetHit {
    let value = FacetValue { variant: Some(Variant::StringValue(guard.to_owned())) };
    FacetHit { value: Some(value), count: 1 }
}

/// Returns the guards that a store lists if `behaviour` answers its counts within this time.
async fn listed<F>(
    timeout: Duration,
    behaviour: impl Fn(FacetCounts) -> F + Send + Sync + 'static,
) -> Result<Option<Vec<String>>, VectorStoreError>
where
    F: Future<Output = Result<FacetResponse, Status>> + Send + 'static,
{
    let count = |_: CountPoints| std::future::ready(Ok(CountResponse::default()));
    let server = methods().on(COLLECTION, describe).on(COUNT, count).on(FACET, behaviour).start().await;
    let config = QdrantConfig { timeout, guards_max: 3, ..QdrantConfig::new(&server.address) };
    let table = QdrantStore::new(&config).expect("a store").guards("docs").await?;
    Ok(table.map(|table| table.guards.iter().map(ToString::to_string).collect()))
}

/// INVARIANT (cut is not known): a list of guards is whole and plausible, or there is none.
#[tokio::test]
async fn a_wrong_list_of_guards_is_an_error_or_none() {
    type Expected = Result<Option<Vec<String>>, ()>;
    let many = |number: usize| (0..number).map(|place| guard_hit(&format!("document:{place}"))).collect::<Vec<_>>();
    let number = FacetHit { value: Some(FacetValue { variant: Some(Variant::IntegerValue(1)) }), count: 1 };
    let of = |names: &[&str]| Ok(Some(names.iter().map(|name| format!("document:{name}")).collect::<Vec<_>>()));
    let cases: [(&str, Vec<FacetHit>, Expected); 10] = [
        ("right", many(3), of(&["0", "1", "2"])),
        ("none", Vec::new(), of(&[])),
        ("cut at its limit", many(4), Ok(None)),
        ("more than was asked for", many(5), Err(())),
        ("one twice", vec![guard_hit("document:0"), guard_hit("document:0")], Err(())),
        ("a number", vec![guard_hit("document:0"), number], Err(())),
        ("no value", vec![FacetHit::default()], Err(())),
        ("malformed ones", vec![guard_hit("document:*"), guard_hit("document:0"), guard_hit("")], of(&["0"])),
        ("one without chunks", vec![FacetHit { count: 0, ..guard_hit("document:0") }], of(&[])),
        ("a count out of bounds", vec![FacetHit { count: u64::MAX, ..guard_hit("document:0") }], of(&["0"])),
    ];
    for (name, hits, expected) in cases {
        let answer = FacetResponse { hits, ..FacetResponse::default() };
        let listed = listed(LONG, move |_| std::future::ready(Ok(answer.clone()))).await;
        match expected {
            Ok(expected) => assert_eq!(listed.expect(name), expected, "{name}"),
            Err(()) => assert!(matches!(listed, Err(VectorStoreError::BadAnswer(_))), "{name}: {listed:?}"),
        }
    }
}

#[tokio::test]
async fn guards_that_cannot_be_listed_are_not_known() {
    assert_eq!(listed(SHORT, |_| std::future::pending()).await.expect("without a list"), None);
    let rows = [
        (Code::Unimplemented, true),
        (Code::InvalidArgument, true),
        (Code::DeadlineExceeded, true),
        (Code::Unavailable, false),
        (Code::Internal, false),
        (Code::NotFound, false),
    ];
    for (code, unlisted) in rows {
        let listed = listed(LONG, move |_| std::future::ready(Err(Status::new(code, "refused")))).await;
        assert_eq!(matches!(listed, Ok(None)), unlisted, "{code:?}: {listed:?}");
        assert_eq!(listed.is_err(), !unlisted, "{code:?}: {listed:?}");
    }
    // This answer is too large to read: 65 MiB.
    let huge = |_| {
        std::future::ready(Ok(FacetResponse {
            hits: vec![guard_hit(&"g".repeat(65 << 20))],
            ..FacetResponse::default()
        }))
    };
    assert_eq!(listed(LONG, huge).await.expect("without a list"), None);
}

/// Documents that have more guards together than one answer lists are asked about in parts.
#[tokio::test]
async fn the_guards_of_many_documents_are_read_in_parts() {
    // Each of these has 6,000 guards, and one answer lists 10,001. `huge` alone has more.
    const GUARDS: [(&str, usize); 4] = [("d0", 6_000), ("d1", 6_000), ("d2", 6_000), ("huge", 20_000)];
    let of_filter = |filter: String| -> Vec<String> {
        let named = GUARDS.iter().filter(|(id, _)| filter.contains(&format!("{id:?}")));
        named.flat_map(|(id, guards)| (0..*guards).map(move |number| format!("document:{id}-{number}"))).collect()
    };
    let count = move |asked: CountPoints| {
        let count = u64::try_from(of_filter(format!("{:?}", asked.filter)).len()).expect("a number");
        std::future::ready(Ok(CountResponse { result: Some(CountResult { count }), ..CountResponse::default() }))
    };
    let facet = move |asked: FacetCounts| {
        let limit = usize::try_from(asked.limit()).expect("a limit");
        let guards = of_filter(format!("{:?}", asked.filter));
        let hits = guards.iter().take(limit).map(|guard| guard_hit(guard)).collect();
        std::future::ready(Ok(FacetResponse { hits, ..FacetResponse::default() }))
    };
    let server = methods().on(COUNT, count).on(FACET, facet).start().await;
    let rows: [(&str, &[&str], Option<usize>); 5] = [
        ("one", &["d0"], Some(6_000)),
        ("more than one answer lists", &["d0", "d1", "d2"], Some(18_000)),
        ("one that is absent", &["d0", "absent"], Some(6_000)),
        ("one with too many", &["huge"], None),
        ("one with too many among others", &["d0", "huge", "d1"], None),
    ];
    for (row, ids, expected) in rows {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let guards = store(&server).guards_of("docs", &ids).await.expect(row);
        assert_eq!(guards.map(|guards| guards.len()), expected, "{row}");
    }
}

/// While one request refreshes what is known of a collection, the others use what was known before.
#[tokio::test]
async fn nobody_waits_for_whoever_asks() {
    let (asked, answer) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(1)));
    let (seen, allowed) = (Arc::clone(&asked), Arc::clone(&answer));
    let facet = move |_: FacetCounts| {
        let number = seen.fetch_add(1, Ordering::SeqCst);
        let allowed = Arc::clone(&allowed);
        async move {
            allowed.acquire().await.expect("a permit").forget();
            let hits = (0..=number).map(|place| guard_hit(&format!("document:{place}"))).collect();
            Ok(FacetResponse { hits, ..FacetResponse::default() })
        }
    };
    let count = |_: CountPoints| std::future::ready(Ok(CountResponse::default()));
    let server = methods().on(COLLECTION, describe).on(COUNT, count).on(FACET, facet).start().await;
    let config = QdrantConfig { timeout: Duration::from_hours(1), ..QdrantConfig::new(&server.address) };
    let store = Arc::new(QdrantStore::new(&config).expect("a store"));
    let guards = |store: Arc<QdrantStore>| async move {
        store.guards("docs").await.expect("a collection").expect("a table").guards.len()
    };
    assert_eq!(guards(Arc::clone(&store)).await, 1);
    // The list is too old by now.
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(30)).await;
    tokio::time::resume();
    let asking = tokio::spawn(guards(Arc::clone(&store)));
    while asked.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(guards(Arc::clone(&store)).await, 1);
    answer.add_permits(1);
    assert_eq!(asking.await.expect("an end"), 2);
    assert_eq!(guards(store).await, 2);
}

#[tokio::test]
async fn a_write_that_is_not_confirmed_is_an_error() {
    let result = |status: UpdateStatus| UpdateResult { operation_id: None, status: status.into() };
    let done = result(UpdateStatus::Completed);
    let answers = [
        ("both are completed", vec![done, done], true),
        ("no result", vec![], false),
        ("one too few", vec![done], false),
        ("one too many", vec![done, done, done], false),
        ("only acknowledged", vec![done, result(UpdateStatus::Acknowledged)], false),
        ("a timeout", vec![result(UpdateStatus::WaitTimeout), done], false),
        ("rejected for its clock", vec![done, result(UpdateStatus::ClockRejected)], false),
        ("an unknown status", vec![UpdateResult::default(), done], false),
    ];
    for (name, result, confirmed) in answers {
        let answer = UpdateBatchResponse { result, ..UpdateBatchResponse::default() };
        let update = move |_: UpdateBatchPoints| std::future::ready(Ok(answer.clone()));
        let nothing = |_: GetPoints| std::future::ready(Ok(GetResponse::default()));
        let methods = methods().on(COLLECTION, describe).on(GET, nothing).on(UPDATE, update);
        let written = store(&methods.start().await).upsert("docs", vec![document()]).await;
        assert_eq!(written.is_ok(), confirmed, "{name}: {written:?}");
    }
}

#[tokio::test]
async fn a_point_id_that_another_chunk_has_is_not_overwritten() {
    let collision = |request: GetPoints| {
        let id = request.ids.into_iter().next();
        let point = RetrievedPoint { id, payload: payload("another"), ..RetrievedPoint::default() };
        std::future::ready(Ok(GetResponse { result: vec![point], ..GetResponse::default() }))
    };
    let server = methods().on(COLLECTION, describe).on(GET, collision).start().await;
    let written = store(&server).upsert("docs", vec![document()]).await;
    assert!(matches!(written, Err(VectorStoreError::Invalid(_))), "{written:?}");
}

#[tokio::test]
async fn a_refusal_says_what_can_be_done() {
    type Expected = fn(&VectorStoreError) -> bool;
    let unavailable: Expected = |e| matches!(e, VectorStoreError::Unavailable(_));
    let cases: [(Code, Expected); 7] = [
        (Code::NotFound, |e| matches!(e, VectorStoreError::UnknownCollection(name) if name == "docs")),
        (Code::InvalidArgument, |e| matches!(e, VectorStoreError::Refused(_))),
        (Code::Unimplemented, |e| matches!(e, VectorStoreError::Refused(_))),
        (Code::Unauthenticated, unavailable),
        (Code::Internal, unavailable),
        (Code::ResourceExhausted, unavailable),
        (Code::Unknown, unavailable),
    ];
    for (code, expected) in cases {
        let refuse = move |_: GetPoints| async move { Err::<GetResponse, _>(Status::new(code, "refused")) };
        let server = methods().on(GET, refuse).start().await;
        let read = store(&server).read("docs", None, &[candidate("c0", "document:1")]).await;
        assert!(read.as_ref().is_err_and(expected), "{code:?}: {read:?}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_or_is_not_there_is_out_of_reach() {
    let hang = |_: QueryPoints| std::future::pending::<Result<QueryResponse, Status>>();
    let server = methods().on(QUERY, hang).start().await;
    let impatient = QdrantConfig { timeout: SHORT, ..QdrantConfig::new(&server.address) };
    let found = QdrantStore::new(&impatient).expect("a store").search(&nearest(5)).await;
    assert!(matches!(found, Err(VectorStoreError::Unavailable(_))), "{found:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    drop(listener);
    let store = QdrantStore::new(&QdrantConfig::new(address)).expect("a store");
    let found = store.search(&nearest(5)).await;
    assert!(matches!(found, Err(VectorStoreError::Unavailable(_))), "{found:?}");
    let described = store.collection("docs").await;
    assert!(matches!(described, Err(VectorStoreError::Unavailable(_))), "{described:?}");
}

/// INVARIANT (no alias): a name that is not known to be a collection's is refused, whatever else the server does under
/// that name.
#[tokio::test]
async fn a_name_that_is_not_listed_is_no_collection() {
    type Expected = fn(&VectorStoreError) -> bool;
    let unavailable: Expected = |e| matches!(e, VectorStoreError::Unavailable(_));
    let listed = |names: &'static [&'static str]| {
        move |_: ListCollectionsRequest| {
            let collections = names.iter().map(|name| CollectionDescription { name: (*name).to_owned() }).collect();
            std::future::ready(Ok(ListCollectionsResponse { collections, time: 0.0 }))
        }
    };
    let aliases = |names: &'static [&'static str]| {
        move |_: ListAliasesRequest| {
            let alias =
                |name: &&str| AliasDescription { alias_name: (*name).to_owned(), collection_name: "x".to_owned() };
            std::future::ready(Ok(ListAliasesResponse { aliases: names.iter().map(alias).collect(), time: 0.0 }))
        }
    };
    let refuse =
        |_: ListCollectionsRequest| std::future::ready(Err::<ListCollectionsResponse, _>(Status::internal("")));
    let refuse_aliases =
        |_: ListAliasesRequest| std::future::ready(Err::<ListAliasesResponse, _>(Status::internal("")));
    let unknown: Expected = |e| matches!(e, VectorStoreError::UnknownCollection(_));
    let cases: [(&str, Methods, Expected); 5] = [
        ("an alias", methods().on(LIST, listed(&["x"])).on(ALIASES, aliases(&["docs"])), |e| {
            matches!(e, VectorStoreError::Unsupported(_))
        }),
        ("neither", methods().on(LIST, listed(&["x", "docs "])).on(ALIASES, aliases(&["Docs"])), unknown),
        ("nothing", methods().on(LIST, listed(&[])).on(ALIASES, aliases(&[])), unknown),
        ("no list", methods().on(LIST, refuse), unavailable),
        ("no list of aliases", methods().on(LIST, listed(&[])).on(ALIASES, refuse_aliases), unavailable),
    ];
    for (name, methods, expected) in cases {
        let query = |request: QueryPoints| {
            let result = points(request.limit.unwrap_or_default());
            std::future::ready(Ok(QueryResponse { result, ..QueryResponse::default() }))
        };
        let server = methods.on(QUERY, query).start().await;
        let found = store(&server).search(&nearest(5)).await;
        assert!(found.as_ref().is_err_and(expected), "{name}: {found:?}");
    }
}
