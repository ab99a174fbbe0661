use super::*;
use crate::language::dsl;

const MODEL: &str = "model
  schema 1.1
type user
type doc
  relations
    define owner: [user]
    define reader: [user with in_hours, user] or owner
condition in_hours(hour: int, opens: int) {
  hour >= opens
}
";

fn tuple(user: &str, condition: Option<&str>) -> RelationshipTuple {
    let tuple = RelationshipTuple::parse(user, "reader", "doc:1").unwrap();
    match condition {
        Some(context) => tuple.with_condition(TupleCondition::parse("in_hours", context).unwrap()),
        None => tuple,
    }
}

fn assertion(relation: &str, tuples: &[RelationshipTuple]) -> Assertion {
    Assertion {
        user: User::parse("user:anne").unwrap(),
        relation: Relation::parse(relation).unwrap(),
        object: Object::parse("doc:1").unwrap(),
        expected: relation == "owner",
        contextual: Contextual { tuples: tuples.to_vec(), ..Contextual::default() },
    }
}

#[test]
fn assertions_become_tests_and_come_back() {
    let (anne, bob) = (tuple("user:anne", None), tuple("user:bob", Some(r#"{"opens": 9}"#)));
    let bare_bob = tuple("user:bob", None);
    let model = dsl::load(MODEL).unwrap();
    let (owner, reader) = (assertion("owner", &[]), assertion("reader", &[]));
    let with = |tuples: &[RelationshipTuple]| assertion("reader", tuples);
    // Each row has the assertions, the stored tuples, the number of checks in each test, and what comes back.
    let rows = [
        ("none", vec![], vec![anne.clone()], vec![], vec![]),
        (
            "plain ones are one test",
            vec![owner.clone(), reader.clone()],
            vec![],
            vec![2],
            vec![owner.clone(), reader.clone()],
        ),
        (
            "other contextual tuples begin another test",
            vec![owner.clone(), with(std::slice::from_ref(&anne)), with(std::slice::from_ref(&anne)), reader.clone()],
            vec![],
            vec![1, 2, 1],
            vec![owner.clone(), with(std::slice::from_ref(&anne)), with(std::slice::from_ref(&anne)), reader.clone()],
        ),
        (
            "a contextual tuple that is stored",
            vec![with(&[anne.clone(), bob.clone()])],
            vec![anne.clone()],
            vec![1],
            vec![with(std::slice::from_ref(&bob))],
        ),
        (
            "one that is stored with another condition",
            vec![with(std::slice::from_ref(&bob)), owner.clone()],
            vec![bare_bob.clone()],
            vec![1],
            vec![owner.clone()],
        ),
        (
            "the same tuple twice",
            vec![with(&[bob.clone(), bare_bob]), owner.clone()],
            vec![],
            vec![1],
            vec![owner.clone()],
        ),
        ("a condition", vec![with(std::slice::from_ref(&bob))], vec![], vec![1], vec![with(&[bob])]),
    ];
    for (row, assertions, stored, checks, back) in rows {
        let stored = stored.iter().map(|tuple| (key(tuple), tuple.condition.clone())).collect();
        let tests = tests_of(assertions, &stored);
        let counts: Vec<usize> = tests.iter().map(|test| test.checks.len()).collect();
        assert_eq!(counts, checks, "{row}");
        let names: HashSet<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names.len(), tests.len(), "{row}: each test has a name of its own");
        let kept = assertions_of(&tests, &model);
        assert_eq!((kept.assertions, kept.left_out), (back, 0), "{row}");
    }
}

#[test]
fn what_a_store_does_not_keep_is_counted() {
    let check = |users: usize, relations: &[&str]| CheckTest {
        users: (0..users).map(|user| User::parse(&format!("user:{user}")).unwrap()).collect(),
        objects: vec![Object::parse("doc:1").unwrap()],
        context: serde_json::Map::new(),
        assertions: relations.iter().map(|relation| (Relation::parse(relation).unwrap(), true)).collect(),
    };
    let test = |checks: Vec<CheckTest>, tuples: usize| StoreTest {
        name: "a test".to_owned(),
        tuples: (0..tuples).map(|user| tuple(&format!("user:{user}"), None)).collect(),
        checks,
        list_objects: Vec::new(),
        list_users: Vec::new(),
        retrieval: Vec::new(),
    };
    let of_lists = store_file::ListObjectsTest {
        user: User::parse("user:anne").unwrap(),
        type_name: crate::language::TypeName::parse("doc").unwrap(),
        context: serde_json::Map::new(),
        assertions: vec![(Relation::parse("reader").unwrap(), Vec::new())],
    };
    let objects = (0..100_000).map(|object| Object::parse(&format!("doc:{object}")).unwrap()).collect();
    let long = CheckTest { objects, ..check(100_000, &["reader"]) };
    let lists = StoreTest { list_objects: vec![of_lists], ..test(vec![check(1, &["reader"])], 0) };
    let rows = [
        ("every combination", vec![test(vec![check(3, &["reader", "owner"])], 0)], (6, 0)),
        ("a list", vec![lists], (1, 1)),
        ("a relation that the model lacks", vec![test(vec![check(1, &["reader", "writer"])], 0)], (1, 1)),
        ("the most assertions", vec![test(vec![check(100, &["reader"])], 0)], (100, 0)),
        ("more than the most assertions", vec![test(vec![check(101, &["reader"])], 0)], (100, 1)),
        ("a product that no memory holds", vec![test(vec![long], 0)], (0, 100_000 * 100_000)),
        ("the most contextual tuples", vec![test(vec![check(1, &["reader"])], 20)], (1, 0)),
        ("more than the most contextual tuples", vec![test(vec![check(1, &["reader"])], 21)], (0, 1)),
    ];
    let model = dsl::load(MODEL).unwrap();
    for (row, tests, expected) in rows {
        let kept = assertions_of(&tests, &model);
        assert_eq!((kept.assertions.len(), kept.left_out), expected, "{row}");
    }
}

#[test]
fn a_model_lies_beside_its_store_file() {
    let rows = [
        ("store.fga.yaml", "store.model.json"),
        ("a/b/handbook.yaml", "a/b/handbook.model.json"),
        ("/tmp/store.fga.yml", "/tmp/store.model.json"),
        ("store", "store.model.json"),
    ];
    for (out, expected) in rows {
        assert_eq!(model_file(Path::new(out)), Path::new(expected), "{out}");
    }
}

#[test]
fn a_file_has_its_name_once_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (place, other) = (directory.path().join("store.fga.yaml"), directory.path().join("other"));
    std::fs::write(&place, "old").unwrap();
    std::fs::write(&other, "kept").unwrap();
    // Somebody has put a link in the way.
    std::os::unix::fs::symlink(&other, unfinished(&place)).unwrap();
    let write = |file: &mut File| file.write_all(b"new");
    drop(Unfinished::new(&place, write).unwrap());
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "old");
    Unfinished::new(&place, write).unwrap().finish().unwrap();
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "kept");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}
