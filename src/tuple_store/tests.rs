use super::*;
use crate::engine::snapshot::Snapshot;
use crate::language::dsl;
use crate::language::tuple::{Object, Relation, RelationshipTuple, User};

const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user, group#member]
type doc
  relations
    define parent: [doc]
    define viewer: [user, user:*, group#member] or viewer from parent
    define can_read: viewer
";

fn tuple(text: &str) -> RelationshipTuple {
    let words: Vec<&str> = text.split_whitespace().collect();
    RelationshipTuple::parse(words[0], words[1], words[2]).expect("a tuple")
}

fn tuples(lines: &[&str]) -> Vec<RelationshipTuple> {
    lines.iter().map(|line| tuple(line)).collect()
}

fn write(writes: &[&str], deletes: &[&str]) -> TupleWrite {
    TupleWrite { writes: tuples(writes), deletes: tuples(deletes), ..TupleWrite::default() }
}

fn open(directory: &Path) -> RelationshipStore {
    RelationshipStores::open(directory).expect("opened").default_store_or_new().expect("a store")
}

/// Returns the state under the latest model.
fn now(store: &RelationshipStore) -> Arc<Snapshot> {
    store.snapshot().expect("read").expect("a model")
}

fn load(store: &RelationshipStore, model: &str) -> ModelId {
    store.write_model(dsl::load(model).expect("a model")).expect("written")
}

fn reads(store: &RelationshipStore, user: &str, object: &str) -> bool {
    let snapshot = now(store);
    let (user, object) = (User::parse(user).expect("a user"), Object::parse(object).expect("an object"));
    snapshot.check(&user, &Relation::parse("viewer").expect("a name"), &object).expect("decided")
}

/// Collects what a reader can tell about a store.
fn seen(store: &RelationshipStore) -> (u64, usize, usize, bool) {
    let changes = store.changes(&ChangeFilter::default(), usize::MAX).expect("read");
    let counted = now(store).tuple_count();
    (store.tuple_count().expect("read"), counted, changes.len(), reads(store, "user:anne", "doc:1"))
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    assert!(store.snapshot().expect("read").is_none(), "no model yet");
    assert!(matches!(store.write(&write(&["user:anne viewer doc:1"], &[])), Err(StoreError::NoModel)));
    let model_id = load(&store, MODEL);
    store.write(&write(&["user:anne viewer doc:1", "doc:1 parent doc:2"], &[])).expect("written");
    store.write(&write(&["user:bob viewer doc:1"], &["user:anne viewer doc:1"])).expect("written");
    let before = seen(&store);
    drop(store);
    let store = open(directory.path());
    assert_eq!(seen(&store), before);
    assert_eq!(now(&store).model_id(), model_id.to_string());
    assert!(reads(&store, "user:bob", "doc:2"));
    assert!(!reads(&store, "user:anne", "doc:2"));
    let log: Vec<String> = store
        .changes(&ChangeFilter { after: 1, ..ChangeFilter::default() }, 2)
        .expect("read")
        .iter()
        .map(|change| format!("{} {:?} {}", change.sequence, change.operation, change.tuple))
        .collect();
    assert_eq!(log, ["2 Write doc:1 parent doc:2", "3 Delete user:anne viewer doc:1"]);
}

#[test]
fn a_refused_write_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    load(&store, MODEL);
    store.write(&write(&["user:anne viewer doc:1"], &[])).expect("written");
    let before = seen(&store);
    let good = "user:carl viewer doc:1";
    let too_many: Vec<RelationshipTuple> =
        (0..=TUPLES_PER_WRITE_MAX).map(|n| tuple(&format!("user:u{n} viewer doc:1"))).collect();
    let rows: [(&str, TupleWrite, &str); 13] = [
        ("unknown type", write(&[good, "user:anne viewer folder:1"], &[]), "type `folder` is not in"),
        ("unknown relation", write(&[good, "user:anne owner doc:1"], &[]), "has no relation `owner`"),
        ("unknown userset", write(&[good, "group:a#owner viewer doc:1"], &[]), "has no relation `owner`"),
        ("computed relation", write(&[good, "user:anne can_read doc:1"], &[]), "no type restriction"),
        ("wrong user type", write(&[good, "doc:2 viewer doc:1"], &[]), "no type restriction"),
        ("wildcard", write(&[good, "user:* member group:a"], &[]), "no type restriction"),
        ("parent userset", write(&[good, "doc:2#viewer parent doc:1"], &[]), "no type restriction"),
        ("parent wildcard", write(&[good, "doc:* parent doc:1"], &[]), "no type restriction"),
        ("implicit", write(&[good, "group:a#member member group:a"], &[]), "by definition"),
        ("twice", write(&[good, good], &[]), "more than once"),
        ("written and deleted", write(&[good], &[good]), "more than once"),
        ("already there", write(&[good, "user:anne viewer doc:1"], &[]), "already there"),
        ("not there", write(&[good], &["user:bob viewer doc:1"]), "not there"),
    ];
    for (name, request, expected) in rows {
        let refused = store.write(&request).expect_err(name).to_string();
        assert!(refused.contains(expected), "{name}: {refused}");
        assert_eq!(seen(&store), before, "{name}");
    }
    assert!(matches!(store.write(&write(&[], &[])), Err(StoreError::Empty)));
    let too_many = TupleWrite { writes: too_many, ..TupleWrite::default() };
    assert!(matches!(store.write(&too_many), Err(StoreError::TooMany(101))));
    store.write_all(too_many.writes, OnConflict::Refuse).expect("without the limit");
}

#[test]
fn conflicts_can_be_ignored() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    load(&store, MODEL);
    store.write(&write(&["user:anne viewer doc:1"], &[])).expect("written");
    let request = TupleWrite {
        on_duplicate: OnConflict::Ignore,
        on_missing: OnConflict::Ignore,
        ..write(&["user:anne viewer doc:1", "user:bob viewer doc:1"], &["user:carl viewer doc:1"])
    };
    assert_eq!(store.write(&request).expect("written"), Written { added: 1, removed: 0 });
    assert_eq!(store.changes(&ChangeFilter::default(), 10).expect("read").len(), 2, "what was ignored is no change");
}

#[test]
fn a_new_model_decides_which_tuples_count() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    let first = load(&store, MODEL);
    store.write(&write(&["user:* viewer doc:1", "user:anne viewer doc:2"], &[])).expect("written");
    let old_snapshot = now(&store);
    let second = load(&store, &MODEL.replace("[user, user:*, group#member]", "[user, group#member]"));
    assert!(second > first, "ids are in the order of writing");
    assert!(!reads(&store, "user:anne", "doc:1"), "everybody is not admitted any more");
    assert!(reads(&store, "user:anne", "doc:2"));
    assert_eq!(old_snapshot.tuple_count(), 2, "a snapshot does not change");
    // A tuple that does not fit the model any more can still be deleted.
    drop(store);
    let store = open(directory.path());
    assert!(!reads(&store, "user:anne", "doc:1"));
    load(&store, MODEL);
    assert!(reads(&store, "user:anne", "doc:1"), "it fits again");
    load(&store, &MODEL.replace("[user, user:*, group#member]", "[user, group#member]"));
    store.write(&write(&[], &["user:* viewer doc:1"])).expect("deleted");
    load(&store, MODEL);
    assert!(!reads(&store, "user:anne", "doc:1"));
}

#[test]
fn a_damaged_record_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let store = stores.default_store_or_new().expect("a store");
    load(&store, MODEL);
    let transaction = stores.shared.database().expect("open").begin_write().expect("a transaction");
    transaction
        .open_table(tables::TUPLES)
        .expect("a table")
        .insert((store.id().key(), "nonsense"), (1, ("", "")))
        .expect("written");
    transaction.commit().expect("committed");
    drop((stores, store));
    assert!(matches!(RelationshipStores::open(directory.path()), Err(StorageError::Damaged { .. })));
}

#[test]
fn stores_are_apart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    assert!(stores.default_store().is_none(), "a new directory has no store");
    let one = stores.create("one").expect("created");
    let ragward = stores.create(DEFAULT_STORE_NAME).expect("created");
    let later = stores.create(DEFAULT_STORE_NAME).expect("created");
    assert!(one.id < ragward.id && ragward.id < later.id);
    assert_eq!(stores.default_store().map(|store| store.id()), Some(ragward.id), "the oldest of the name");
    let names = |name, after| -> Vec<StoreId> {
        stores.list(name, after, 10).expect("read").iter().map(|record| record.id).collect()
    };
    assert_eq!(names(None, None), [one.id, ragward.id, later.id]);
    assert_eq!(names(None, Some(one.id)), [ragward.id, later.id]);
    assert_eq!(names(Some(DEFAULT_STORE_NAME), None), [ragward.id, later.id]);

    let (first, second) = (stores.store(one.id), stores.store(ragward.id));
    load(&first, MODEL);
    load(&second, MODEL);
    first.write(&write(&["user:anne viewer doc:1"], &[])).expect("written");
    assert!(reads(&first, "user:anne", "doc:1") && !reads(&second, "user:anne", "doc:1"));
    second.write(&write(&["user:anne viewer doc:1"], &[])).expect("not there in this store");

    stores.delete(ragward.id).expect("deleted");
    stores.delete(ragward.id).expect("deleting twice is deleting once");
    assert_eq!(stores.find(ragward.id).expect("read"), None);
    assert_eq!(stores.default_store().map(|store| store.id()), Some(later.id));
    assert!(second.snapshot().expect("read").is_none(), "nothing of a deleted store grants");
    assert_eq!((second.tuple_count().expect("read"), second.models(None, 1).expect("read")), (0, Vec::new()));
    assert!(second.changes(&ChangeFilter::default(), 1).expect("read").is_empty());
    assert!(reads(&first, "user:anne", "doc:1"), "the others stay");
}

#[test]
fn every_version_of_the_model_can_be_asked() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    let old = load(&store, MODEL);
    store.write(&write(&["user:* viewer doc:1"], &[])).expect("written");
    let new = load(&store, &MODEL.replace("[user, user:*, group#member]", "[user, group#member]"));
    let everybody = || write(&["user:* viewer doc:2"], &[]);
    assert!(store.write(&everybody()).is_err(), "it does not fit the latest model");
    store.write_under(Some(old), &everybody()).expect("it fits the older one");
    let counted = |model| store.snapshot_under(model).expect("read").expect("a model").tuple_count();
    assert_eq!((counted(old), counted(new)), (2, 0));
    let listed: Vec<ModelId> = store.models(None, 10).expect("read").iter().map(|stored| stored.id).collect();
    assert_eq!(listed, [new, old], "newest first");
    assert_eq!(store.models(Some(old), 10).expect("read").len(), 1);
    let unknown = ModelId::after(Some(new));
    assert!(store.snapshot_under(unknown).expect("read").is_none() && store.model(unknown).expect("read").is_none());
}

#[test]
fn tuples_are_read_by_filter_in_the_order_of_writing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    load(&store, MODEL);
    for line in ["user:b viewer doc:1", "user:a viewer doc:1", "user:a viewer doc:10", "doc:1 parent doc:2"] {
        store.write(&write(&[line], &[])).expect("written");
    }
    store.write(&write(&[], &["user:b viewer doc:1"])).expect("deleted");
    store.write(&write(&["user:b viewer doc:1"], &[])).expect("written again");
    let rows: [(&str, &str, &str, &[u64]); 9] = [
        ("", "", "", &[2, 3, 4, 6]),
        ("doc:1", "", "", &[2, 6]),
        ("doc:1", "viewer", "user:b", &[6]),
        ("doc:1", "parent", "", &[]),
        ("doc:", "", "user:a", &[2, 3]),
        ("doc:", "parent", "doc:", &[4]),
        ("doc:", "viewer", "user:", &[2, 3, 6]),
        ("folder:", "", "user:a", &[]),
        ("doc:3", "", "", &[]),
    ];
    for (object, relation, user, expected) in rows {
        let filter = TupleFilter { object: object.into(), relation: relation.into(), user: user.into() };
        let read = |after, limit| -> Vec<u64> {
            store.tuples(&filter, after, limit).expect("read").iter().map(|stored| stored.sequence).collect()
        };
        assert_eq!(read(0, 10), expected, "{filter:?}");
        let mut pages = Vec::new();
        while let Some(next) = read(pages.last().copied().unwrap_or(0), 1).first() {
            pages.push(*next);
        }
        assert_eq!(pages, expected, "{filter:?} page by page");
    }
}

#[test]
fn a_few_tuples_among_many_changes_are_read_in_the_same_order() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    load(&store, MODEL);
    let rare = |names: &[&str]| {
        let lines: Vec<String> = names.iter().map(|name| format!("user:rare member group:{name}")).collect();
        tuples(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    store.write_all(rare(&["z", "m"]), OnConflict::Refuse).expect("written");
    let many = |n: usize| tuple(&format!("user:u{n} viewer doc:{n}"));
    store.write_all((0..10_050).map(many).collect(), OnConflict::Refuse).expect("written");
    store.write_all(rare(&["a", "y", "b"]), OnConflict::Refuse).expect("written");
    store.write(&write(&[], &["user:rare member group:m"])).expect("deleted");
    let filter = TupleFilter { object: "group:".into(), relation: String::new(), user: "user:rare".into() };
    for page in 1..=4 {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let tuples = store.tuples(&filter, after, page).expect("read");
            let Some(last) = tuples.last() else { break };
            after = last.sequence;
            found.extend(tuples.iter().map(|stored| stored.tuple.object.id().to_owned()));
        }
        assert_eq!(found, ["z", "a", "y", "b"], "{page} a page");
    }
}

#[test]
fn the_largest_and_the_deepest_model_can_be_opened_again() {
    let nested = |levels: usize| {
        let operators = ["or", "and"].into_iter().cycle();
        let rewrite =
            operators.take(levels).fold("viewer".to_owned(), |inner, operator| format!("({inner}) {operator} viewer"));
        format!("{MODEL}    define deep: {rewrite}\n")
    };
    let relations: Vec<String> = (0..3_500).map(|n| format!("    define r{n}: [user]\n")).collect();
    for (name, text) in [("the deepest", nested(40)), ("the largest", format!("{MODEL}{}", relations.concat()))] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let id = load(&open(directory.path()), &text);
        let again = open(directory.path());
        assert_eq!(now(&again).model_id(), id.to_string(), "{name}");
    }
    assert!(dsl::load(&nested(41)).is_err(), "deeper than can be stored");
}

#[test]
fn a_model_and_its_tuples_are_written_together_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    let first = load(&store, MODEL);
    store.write(&write(&["user:anne viewer doc:1"], &[])).expect("written");
    let stricter =
        || dsl::load(&MODEL.replace("define can_read: viewer", "define can_read: [group#member]")).expect("a model");
    let repeated = tuples(&["user:bob viewer doc:2", "user:bob viewer doc:2"]);
    let misfit = tuples(&["user:bob viewer doc:2", "user:bob can_read doc:2"]);
    for (name, bad) in [("a repeated tuple", repeated), ("a tuple that does not fit", misfit)] {
        store.write_model_with_tuples(stricter(), bad).expect_err(name);
        assert_eq!(store.latest_model_id().expect("read"), Some(first), "{name}");
        assert!(!reads(&store, "user:bob", "doc:2"), "{name}");
    }
    let good = tuples(&["user:anne viewer doc:1", "user:bob viewer doc:2"]);
    let (id, written) = store.write_model_with_tuples(stricter(), good).expect("written");
    assert_eq!((written.added, store.latest_model_id().expect("read")), (1, Some(id)));
    assert!(reads(&store, "user:anne", "doc:1") && reads(&store, "user:bob", "doc:2"));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_that_has_room_again_is_written_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    load(&store, MODEL);
    store.write(&write(&["user:anne viewer doc:1"], &[])).expect("written");
    for round in 0..3 {
        let new = format!("user:bob viewer doc:{round}");
        store.shared.file.fill_disk();
        let refused = store.write(&write(&[&new], &["user:anne viewer doc:1"])).expect_err("a full disk");
        assert!(matches!(refused, StoreError::Storage(StorageError::Io { .. })), "round {round}: {refused}");
        assert!(reads(&store, "user:anne", "doc:1"), "round {round}: what was refused changed nothing");
        store.shared.file.free_disk();
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        store.write(&write(&[&new], &[])).expect("written again");
        let are_read = reads(&store, "user:bob", &format!("doc:{round}")) && reads(&store, "user:anne", "doc:1");
        assert!(are_read, "round {round}");
    }
    let before = seen(&store);
    drop(store);
    assert_eq!(seen(&open(directory.path())), before);
}
