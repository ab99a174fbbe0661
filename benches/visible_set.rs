//! This bench measures how long it takes to find the visible set of a user who sees 10 % of 100,000 documents.
//!
//! The documents lie in 100 folders, which lie in 10 folders. The user sees one of the 10 through a group in a group.
//! *Cold*: a user who was not asked about before. *Unchanged*: the same user again. The baseline is a check of every
//! guard. The bench measures a model of unions alone, and one with `but not`, in which one document in a hundred has a
//! tuple that bans somebody.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use ragward::authz::embedded::EmbeddedAuthorizer;
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency, VisibleSetQuery};
use ragward::language::{Object, Relation, RelationshipTuple, dsl};
use ragward::tuple_store::{OnConflict, RelationshipStores};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const DOCUMENTS: usize = 100_000;
const DOCUMENTS_PER_FOLDER: usize = 1_000;
const FOLDERS_PER_FOLDER: usize = 10;
const VISIBLE: u64 = 10_000;
/// The number of users. It exceeds the number of sets that are kept, so that each user is a new one.
const USERS: usize = 8_000;

const TYPES: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user, group#member]
type folder
  relations
    define parent: [folder]
    define viewer: [group#member] or viewer from parent
type document
  relations
    define parent: [folder]
    define blocked: [user]
";

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let relation = |definition: &str| format!("{TYPES}    define can_read: {definition}\n");
    measure(&runtime, &mut criterion, "visible set, unions", &relation("viewer from parent"))?;
    measure(&runtime, &mut criterion, "visible set, but not", &relation("viewer from parent but not blocked"))?;
    criterion.final_summary();
    Ok(())
}

fn measure(runtime: &Runtime, criterion: &mut Criterion, name: &str, model: &str) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let stores = RelationshipStores::open(directory.path())?;
    let store = stores.default_store_or_new()?;
    let model = dsl::load(model).map_err(|e| anyhow::anyhow!("{}", e.picture(model)))?;
    store.write_model(model)?;
    store.write_all(tuples()?, OnConflict::Refuse)?;
    let authorizer = EmbeddedAuthorizer::new(stores);

    let guards: Vec<Object> =
        (0..DOCUMENTS).map(|number| Object::parse(&format!("document:{number}"))).collect::<Result<_, _>>()?;
    let guards = Arc::new(guards);
    let query = |user: usize| -> anyhow::Result<VisibleSetQuery> {
        Ok(VisibleSetQuery {
            user: Object::parse(&format!("user:{user}"))?,
            relation: Relation::parse("can_read")?,
            guards: Arc::clone(&guards),
            positions: Arc::new((0..u32::try_from(DOCUMENTS)?).collect()),
            contextual: Arc::default(),
            consistency: Consistency::default(),
            deadline: Instant::now() + Duration::from_hours(1),
        })
    };
    let queries: Vec<VisibleSetQuery> = (0..USERS).map(query).collect::<anyhow::Result<_>>()?;
    let first = query(USERS)?;
    let found = runtime.block_on(authorizer.visible_set(&first))?.map(|set| set.positions.len());
    anyhow::ensure!(found == Some(VISIBLE), "{found:?} documents are visible, not {VISIBLE}");

    let mut group = criterion.benchmark_group(name);
    let check =
        |object: &Object| Check { user: first.user.clone(), relation: first.relation.clone(), object: object.clone() };
    let batch = CheckBatch {
        checks: guards.iter().map(check).collect(),
        contextual: Arc::default(),
        consistency: Consistency::default(),
        deadline: first.deadline,
    };
    group.bench_function("baseline: a check of every guard", |bencher| {
        bencher.iter(|| runtime.block_on(authorizer.check(black_box(&batch))));
    });
    let mut next = queries.iter().cycle();
    group.bench_function("cold", |bencher| {
        bencher.iter(|| next.next().map(|query| runtime.block_on(authorizer.visible_set(black_box(query)))));
    });
    runtime.block_on(authorizer.visible_set(&first))?;
    group.bench_function("unchanged", |bencher| {
        bencher.iter(|| runtime.block_on(authorizer.visible_set(black_box(&first))));
    });
    group.finish();
    Ok(())
}

fn tuples() -> anyhow::Result<Vec<RelationshipTuple>> {
    let folders = DOCUMENTS / DOCUMENTS_PER_FOLDER;
    let mut rows: Vec<(String, &str, String)> = Vec::new();
    for number in 0..DOCUMENTS {
        let document = format!("document:{number}");
        rows.push((format!("folder:{}", number / DOCUMENTS_PER_FOLDER), "parent", document.clone()));
        if number % 100 == 0 {
            rows.push(("user:blocked".to_owned(), "blocked", document));
        }
    }
    for folder in 0..folders {
        rows.push((format!("folder:top-{}", folder / FOLDERS_PER_FOLDER), "parent", format!("folder:{folder}")));
    }
    rows.push(("group:outer#member".to_owned(), "viewer", "folder:top-0".to_owned()));
    rows.push(("group:inner#member".to_owned(), "member", "group:outer".to_owned()));
    rows.extend((0..=USERS).map(|user| (format!("user:{user}"), "member", "group:inner".to_owned())));
    let parsed = rows.iter().map(|(user, relation, object)| RelationshipTuple::parse(user, relation, object));
    Ok(parsed.collect::<Result<_, _>>()?)
}
