use super::*;
use crate::relationship::dsl;
use crate::relationship::tuple::{Object, Relation, User};

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

fn load(store: &RelationshipStore, model: &str) -> String {
    store.write_model(dsl::load(model).expect("a model")).expect("written")
}

fn reads(store: &RelationshipStore, user: &str, object: &str) -> bool {
    let snapshot = store.snapshot().expect("a model");
    let (user, object) = (User::parse(user).expect("a user"), Object::parse(object).expect("an object"));
    snapshot.check(&user, &Relation::parse("viewer").expect("a name"), &object).expect("decided")
}

/// Everything that can be seen of a store.
fn seen(store: &RelationshipStore) -> (u64, usize, usize, bool) {
    let changes = store.changes(0, usize::MAX).expect("read");
    let counted = store.snapshot().map_or(0, |snapshot| snapshot.tuple_count());
    (store.tuple_count().expect("read"), counted, changes.len(), reads(store, "user:anne", "doc:1"))
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = RelationshipStore::open(directory.path()).expect("opened");
    assert!(store.snapshot().is_none(), "no model yet");
    assert!(matches!(store.write(&write(&["user:anne viewer doc:1"], &[])), Err(StoreError::NoModel)));
    let model_id = load(&store, MODEL);
    store.write(&write(&["user:anne viewer doc:1", "doc:1 parent doc:2"], &[])).expect("written");
    store.write(&write(&["user:bob viewer doc:1"], &["user:anne viewer doc:1"])).expect("written");
    let before = seen(&store);
    drop(store);
    let store = RelationshipStore::open(directory.path()).expect("opened again");
    assert_eq!(seen(&store), before);
    assert_eq!(store.snapshot().expect("a model").model_id(), model_id);
    assert!(reads(&store, "user:bob", "doc:2"));
    assert!(!reads(&store, "user:anne", "doc:2"));
    let log: Vec<String> = store
        .changes(1, 2)
        .expect("read")
        .iter()
        .map(|change| format!("{} {:?} {}", change.sequence, change.operation, change.tuple))
        .collect();
    assert_eq!(log, ["2 Write doc:1 parent doc:2", "3 Delete user:anne viewer doc:1"]);
}

#[test]
fn a_refused_write_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = RelationshipStore::open(directory.path()).expect("opened");
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
    let store = RelationshipStore::open(directory.path()).expect("opened");
    load(&store, MODEL);
    store.write(&write(&["user:anne viewer doc:1"], &[])).expect("written");
    let request = TupleWrite {
        on_duplicate: OnConflict::Ignore,
        on_missing: OnConflict::Ignore,
        ..write(&["user:anne viewer doc:1", "user:bob viewer doc:1"], &["user:carl viewer doc:1"])
    };
    assert_eq!(store.write(&request).expect("written"), Written { added: 1, removed: 0 });
    assert_eq!(store.changes(0, 10).expect("read").len(), 2, "what was ignored is no change");
}

#[test]
fn a_new_model_decides_which_tuples_count() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = RelationshipStore::open(directory.path()).expect("opened");
    let first = load(&store, MODEL);
    store.write(&write(&["user:* viewer doc:1", "user:anne viewer doc:2"], &[])).expect("written");
    let old_snapshot = store.snapshot().expect("a model");
    let second = load(&store, &MODEL.replace("[user, user:*, group#member]", "[user, group#member]"));
    assert!(second > first, "ids are in the order of writing");
    assert!(!reads(&store, "user:anne", "doc:1"), "everybody is not admitted any more");
    assert!(reads(&store, "user:anne", "doc:2"));
    assert_eq!(old_snapshot.tuple_count(), 2, "a snapshot does not change");
    // An old tuple that no longer fits can still be removed.
    drop(store);
    let store = RelationshipStore::open(directory.path()).expect("opened again");
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
    let store = RelationshipStore::open(directory.path()).expect("opened");
    load(&store, MODEL);
    let transaction = store.database.begin_write().expect("a transaction");
    transaction.open_table(tables::TUPLES).expect("a table").insert("nonsense", (1, ("", ""))).expect("written");
    transaction.commit().expect("committed");
    drop(store);
    assert!(matches!(RelationshipStore::open(directory.path()), Err(StorageError::Damaged { .. })));
}

#[test]
fn ids_go_on_after_the_clock_was_set_back() {
    let future = "7ZZZZZZZZZZZZZZZZZZZZZZZZ0";
    assert_eq!(next_id(Some(future)), "7ZZZZZZZZZZZZZZZZZZZZZZZZ1");
    assert!(next_id(None).as_str() < future);
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
    for text in [nested(40), format!("{MODEL}{}", relations.concat())] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let id = load(&RelationshipStore::open(directory.path()).expect("a store"), &text);
        let again = RelationshipStore::open(directory.path()).expect("the same store");
        assert_eq!(again.snapshot().expect("the model").model_id(), id);
    }
    assert!(dsl::load(&nested(41)).is_err(), "deeper than can be stored");
}
