//! Tuples, models and whole stores from the command line: in a data directory, on a running Ragward, and on OpenFGA.

use std::path::Path;
use std::process::{Command, Output};

use super::process::Served;
use crate::support::fga::{Fga, Verdict};
use crate::support::openfga::OpenFga;
use ragward::language::RelationshipTuple;
use ragward::language::model::AuthorizationModel;
use ragward::store_file::{self, StoreFile};
use serde_json::Value;

/// Conditions, intersections, differences, wildcards, usersets and a relation whose name YAML takes for a truth value.
const STORE: &str = "name: demo
model: |
  model
    schema 1.1
  type user
  type group
    relations
      define member: [user, group#member]
  type doc
    relations
      define yes: [user]
      define banned: [user]
      define reader: [user, user:*, group#member, user with in_hours]
      define can_read: (reader and yes) but not banned
  condition in_hours(hour: int, opens: int) {
    hour >= opens
  }
tuples:
- {user: user:anne, relation: member, object: 'group:eng'}
- {user: 'group:eng#member', relation: reader, object: doc:1}
- {user: user:anne, relation: 'yes', object: doc:1}
- {user: 'user:*', relation: reader, object: 'doc:\u{e4}\u{202e}'}
- user: user:bob
  relation: reader
  object: doc:1
  condition: {name: in_hours, context: {opens: 9}}
tests:
- name: one
  tuples:
  - {user: user:bob, relation: 'yes', object: doc:1}
  check:
  - {users: [user:anne, user:bob], object: doc:1, context: {hour: 10}, assertions: {can_read: true}}
- name: two
  check:
  - {user: user:zoe, object: doc:1, assertions: {can_read: false, 'yes': false}}
  list_objects:
  - {user: user:anne, type: doc, assertions: {can_read: [doc:1]}}
";

fn ragward(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
}

/// Runs a command, and returns what it printed. Fails unless it ended with this code.
#[track_caller]
fn ends(row: &str, arguments: &[&str], code: i32) -> String {
    let output = ragward(arguments);
    let told = [output.stdout, output.stderr].map(|told| String::from_utf8(told).unwrap()).concat();
    assert_eq!(output.status.code(), Some(code), "{row}: {arguments:?}: {told}");
    told
}

#[track_caller]
fn json(row: &str, arguments: &[&str]) -> Value {
    serde_json::from_str(&ends(row, &[arguments, &["--output", "json"]].concat(), 0)).unwrap()
}

fn written(directory: &Path, name: &str, text: &str) -> String {
    let file = directory.join(name);
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn tuples_are_written_deleted_and_read_wherever_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| written(directory.path(), name, text);
    let store = file("store.fga.yaml", STORE);
    let yaml = file(
        "t.yaml",
        "- {user: user:y1, relation: reader, object: doc:2}\n- {user: user:y2, relation: reader, object: doc:2}\n",
    );
    let csv = file("t.csv", "user_type,user_id,relation,object_type,object_id\nuser,c1,reader,doc,2\n");
    let broken = file("broken.json", "[{\"user\": \"user:anne\"");
    let anne = ["user:anne", "reader", "doc:2"];
    let bob = ["user:bob", "reader", "doc:2", "--condition", "in_hours", "--context"];
    let write = ["tuple", "write"];
    let delete = ["tuple", "delete"];
    let read = ["tuple", "read"];
    let rows: [(&str, Vec<&str>, i32, &str); 25] = [
        ("one", [&write[..], &anne].concat(), 0, "1 tuple written\n"),
        ("again", [&write[..], &anne].concat(), 2, "already"),
        (
            "again, on purpose",
            [&write[..], &anne, &["--on-duplicate", "ignore"]].concat(),
            0,
            "1 tuple written, or already there",
        ),
        ("with a condition", [&write[..], &bob, &["{\"opens\": 9}"]].concat(), 0, "1 tuple written\n"),
        (
            "with another context",
            [&write[..], &bob, &["{\"opens\": 8}", "--on-duplicate", "ignore"]].concat(),
            2,
            "is already there with another condition",
        ),
        ("a context that is no object", [&write[..], &bob, &["[]"]].concat(), 2, "a JSON object"),
        ("a context without a condition", [&write[..], &anne, &["--context", "{}"]].concat(), 2, "--condition"),
        ("a file of YAML", [&write[..], &["--file", &yaml]].concat(), 0, "2 tuples written\n"),
        ("a file of CSV", [&write[..], &["--file", &csv]].concat(), 0, "1 tuple written\n"),
        ("a broken file", [&write[..], &["--file", &broken]].concat(), 1, "broken.json"),
        ("a file that is not there", [&write[..], &["--file", "gone.yaml"]].concat(), 2, "gone.yaml"),
        ("a relation that the model lacks", [&write[..], &["user:anne", "writer", "doc:2"]].concat(), 2, "writer"),
        ("a name that is none", [&write[..], &["anne", "reader", "doc:2"]].concat(), 2, "user `anne`"),
        ("nothing", write.to_vec(), 2, "required"),
        ("half of a tuple", [&write[..], &["user:anne", "reader"]].concat(), 2, "OBJECT"),
        ("a tuple and a file", [&write[..], &anne, &["--file", &yaml]].concat(), 2, "cannot be used with"),
        ("a delete", [&delete[..], &anne].concat(), 0, "1 tuple deleted\n"),
        ("a delete of nothing", [&delete[..], &anne].concat(), 2, "delete"),
        (
            "a delete of nothing, on purpose",
            [&delete[..], &anne, &["--on-missing", "ignore"]].concat(),
            0,
            "or not there",
        ),
        ("all", read.to_vec(), 0, "in_hours {\"opens\":9}"),
        ("an object", [&read[..], &["--object", "doc:2", "--relation", "reader"]].concat(), 0, "user:c1"),
        ("a user on a type", [&read[..], &["--object", "doc:", "--user", "user:y1"]].concat(), 0, "doc:2"),
        ("a type alone", [&read[..], &["--object", "doc:"]].concat(), 2, "needs `--user`"),
        ("fewer than there are", [&read[..], &["--limit", "1"]].concat(), 1, "more than 1 tuple;"),
        ("another store", [&read[..], &["--store-name", "other"]].concat(), 2, "no store named `other`"),
    ];
    let data = directory.path().join("data");
    let of_server = directory.path().join("of-server");
    std::fs::create_dir(&of_server).unwrap();
    let served = Served::start(&of_server);
    let places = [("data", ["--data", data.to_str().unwrap()]), ("server", ["--server", &served.address])];
    for (place, flags) in places {
        ends(place, &[&["model", "load", &store][..], &flags].concat(), 0);
        for (row, arguments, code, expected) in &rows {
            let row = format!("{place}: {row}");
            let told = ends(&row, &[&arguments[..], &flags[..]].concat(), *code);
            assert!(told.contains(*expected), "{row}: {told}");
        }
        // What is shown is a file of tuples.
        let shown = json(place, &[&read[..], &flags].concat());
        assert_eq!(shown.as_array().unwrap().len(), 9, "{place}: {shown}");
        let shown = file("shown.json", &shown.to_string());
        ends(place, &[&delete[..], &["--file", &shown], &flags].concat(), 0);
        assert_eq!(ends(place, &[&read[..], &flags].concat(), 0), "no tuples\n", "{place}");
        ends(place, &[&write[..], &["--file", &shown], &flags].concat(), 0);
    }
    let in_use = ends("in use", &[&read[..], &["--data", of_server.to_str().unwrap()]].concat(), 2);
    assert!(in_use.contains("is in use by another process") && in_use.contains("`--server`"), "{in_use}");
    let nowhere = directory.path().join("nowhere");
    let missing = ends("no data", &[&write[..], &anne, &["--data", nowhere.to_str().unwrap()]].concat(), 2);
    assert!(missing.contains("there is no data directory") && !nowhere.exists(), "{missing}");
}

/// A server hands tuples out in pages of a hundred, and takes a hundred in a transaction.
#[tokio::test]
async fn many_tuples_are_written_and_read_in_pages() {
    const TUPLES: usize = 1_250;
    let directory = tempfile::tempdir().unwrap();
    let store = written(directory.path(), "store.fga.yaml", STORE);
    let line = |user| format!("{{\"user\":\"user:{user}\",\"relation\":\"reader\",\"object\":\"doc:3\"}}\n");
    let many = written(directory.path(), "many.jsonl", &(0..TUPLES).map(line).collect::<String>());
    let data = directory.path().join("data");
    let of_server = directory.path().join("of-server");
    std::fs::create_dir(&of_server).unwrap();
    let served = Served::start(&of_server);
    for (place, flags) in [("data", ["--data", data.to_str().unwrap()]), ("server", ["--server", &served.address])] {
        ends(place, &[&["model", "load", &store][..], &flags].concat(), 0);
        let told = ends(place, &[&["tuple", "write", "--file", &many][..], &flags].concat(), 0);
        assert!(told.contains("1250 tuples written"), "{place}: {told}");
        let read = json(place, &[&["tuple", "read", "--object", "doc:3"][..], &flags].concat());
        let users: Vec<&str> = read.as_array().unwrap().iter().map(|tuple| tuple["user"].as_str().unwrap()).collect();
        assert_eq!(users.len(), TUPLES, "{place}");
        assert_eq!((users[0], users[TUPLES - 1]), ("user:0", "user:1249"), "{place}: in the order of writing");
        let again = ends(place, &[&["tuple", "delete", "--file", &many][..], &flags].concat(), 0);
        assert!(again.contains("1250 tuples deleted"), "{place}: {again}");
    }
}

/// Returns the parts of a store in an order that does not depend on where it was.
fn parts(row: &str, file: &str) -> (AuthorizationModel, Vec<RelationshipTuple>, StoreFile) {
    let store = store_file::read(Path::new(file)).unwrap_or_else(|e| panic!("{row}: {e}"));
    let mut model = store.model.source().clone();
    for definition in &mut model.types {
        // The API of a server has the relations of a type in a map.
        definition.relations.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let mut tuples = store.tuples.clone();
    tuples.sort();
    (model, tuples, store)
}

const MODULES: [(&str, &str); 4] = [
    ("fga.mod", "schema: '1.2'\ncontents:\n  - core.fga\n  - docs/docs.fga\n"),
    ("core.fga", "module core\ntype user\ntype doc\n  relations\n    define owner: [user]\n"),
    (
        "docs/docs.fga",
        "module docs\nextend type doc\n  relations\n    define viewer: [user with in_hours] or owner\n\
         condition in_hours(hour: int) {\n  hour > 8\n}\n",
    ),
    (
        "modules.fga.yaml",
        "model_file: fga.mod\ntuples: [{user: user:a, relation: owner, object: doc:1}]\n\
         tests: [{check: [{user: user:a, object: doc:1, assertions: {viewer: true}}]}]\n",
    ),
];

/// A store goes from a file to a data directory, from there to a running Ragward, from there to OpenFGA, and back. After
/// each step it is the same store, and `fga` runs the tests in its file.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_moves_between_places() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(directory.path().join("docs")).unwrap();
    for (name, text) in MODULES {
        written(directory.path(), name, text);
    }
    let whole = written(directory.path(), "whole.fga.yaml", STORE);
    let (data, of_server) = (path("data"), path("of-server"));
    std::fs::create_dir(&of_server).unwrap();
    let served = Served::start(Path::new(&of_server));
    let openfga = OpenFga::start().await.map(|openfga| (openfga.config("").address, openfga));
    let mut places = vec![("data", vec!["--data", data.as_str()]), ("server", vec!["--server", &served.address])];
    if let Some((address, _)) = &openfga {
        places.push(("openfga", vec!["--server", address]));
    }
    let fga = Fga::find();
    let back = path("back");
    places.push(("back", vec!["--data", &back]));
    let rows = [("whole", whole, 5, 4, 1), ("modules", path("modules.fga.yaml"), 1, 1, 0)];
    for (row, file, tuples, assertions, lists) in rows {
        let (model, expected, _) = parts(row, &file);
        let mut from = file;
        let mut tests = None;
        for (place, flags) in &places {
            let name = format!("{row}-{place}");
            // Each store of a place has a name of its own.
            let flags = [&flags[..], &["--store-name", row]].concat();
            let load = [&["store", "import", &from, "--test", "--create-store"][..], &flags].concat();
            let loaded = json(&name, &load);
            assert_eq!((&loaded["tuples"], &loaded["assertions"]), (&tuples.into(), &assertions.into()), "{name}");
            // The list of a test is lost at the first step, since a store keeps checks only.
            let left_out = if tests.is_none() { lists } else { 0 };
            assert_eq!(loaded["expectations_left_out"], left_out, "{name}");
            let out = path(&format!("{name}.fga.yaml"));
            let exported = json(&name, &[&["store", "export", "--out", &out][..], &flags].concat());
            assert_eq!((&exported["tuples"], &exported["assertions"]), (&tuples.into(), &assertions.into()), "{name}");
            assert_eq!(exported["assertions_left_out"], 0, "{name}");
            let (model_here, tuples_here, store) = parts(&name, &out);
            assert_eq!(model_here, model, "{name}");
            assert_eq!(tuples_here, expected, "{name}");
            assert_eq!(store.name, row, "{name}");
            if let Some(fga) = &fga {
                assert_eq!(fga.test(Path::new(&out)), Verdict::Pass, "{name}");
            }
            let tests_here = store.tests;
            assert_eq!(tests.get_or_insert_with(|| tests_here.clone()), &tests_here, "{name}");
            from = out;
        }
    }
    // Modules need a file of their own, so standard output does not do.
    let printed = ["store", "export", "--data", &data, "--store-name"];
    let refused = ends("modules", &[&printed[..], &["modules"]].concat(), 2);
    assert!(refused.contains("modules") && refused.contains("--out"), "{refused}");
    let text = ends("whole", &[&printed[..], &["whole"]].concat(), 0);
    assert_eq!(text, std::fs::read_to_string(path("whole-data.fga.yaml")).unwrap());
    let hidden = text.chars().find(|c| *c == '\u{202e}');
    assert_eq!(hidden, None, "the file can be looked at in a terminal");
}

#[test]
fn an_import_that_cannot_be_whole_loads_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let rows = [
        ("a test fails", STORE.replace("{can_read: false,", "{can_read: true,"), "(FAILING)"),
        ("a tuple does not fit", STORE.replace("object: 'group:eng'", "object: doc:1"), "member"),
        ("the model is wrong", STORE.replace("define yes: [user]", "define yes: [usr]"), "usr"),
        ("no store file", "[]".to_owned(), "store.fga.yaml"),
    ];
    for (row, text, expected) in rows {
        let file = written(directory.path(), "store.fga.yaml", &text);
        let told = ends(row, &["store", "import", &file, "--test", "--data", data.to_str().unwrap()], 1);
        assert!(told.contains(expected), "{row}: {told}");
        assert!(!data.exists(), "{row}");
    }
}

#[tokio::test]
async fn a_running_server_takes_a_new_model() {
    let directory = tempfile::tempdir().unwrap();
    let served = Served::start(directory.path());
    let there = ["--server", served.address.as_str()];
    let none = ends("no model yet", &[&["model", "show"][..], &there].concat(), 2);
    assert!(none.contains("no authorization model is loaded"), "{none}");
    let load = |file: &str| json(file, &[&["model", "load", file][..], &there].concat())["model_id"].clone();
    let first = load("schema/models/workspace.fga");
    let second = load("schema/handbook/store.fga.yaml");
    let listed = json("list", &[&["model", "list"][..], &there].concat());
    assert_eq!(listed.as_array().unwrap().first(), Some(&second), "{listed}");
    assert!(listed.as_array().unwrap().contains(&first), "{listed}");
    let shown = ends("get", &[&["model", "get"][..], &there].concat(), 0);
    assert!(shown.starts_with(&format!("# {}\n", second.as_str().unwrap())), "{shown}");
    assert!(shown.contains("withheld_from"), "{shown}");
    let earlier = ends("by id", &[&["model", "get", "--id", first.as_str().unwrap()][..], &there].concat(), 0);
    assert!(!earlier.contains("withheld_from"), "{earlier}");
    let gone = ["model", "get", "--id", "01ARZ3NDEKTSV4RRFFQ69G5FAV"];
    ends("a version that is not there", &[&gone[..], &there].concat(), 2);
}

#[tokio::test]
async fn a_deleted_tuple_revokes_at_a_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    ends("load", &["model", "load", "schema/handbook/store.fga.yaml", "--data", data], 0);
    ends("ingest", &["ingest", "schema/handbook", "--collection", "handbook", "--data", data], 0);
    let served = Served::start(directory.path());
    let there = ["--server", served.address.as_str()];
    let retrieve = [
        "retrieve",
        "--user",
        "user:bob",
        "--collection",
        "handbook",
        "--higher-consistency",
        "--output",
        "json",
        "pay bands",
    ];
    let pay_bands = "\"document:pay-bands#0\"";
    let before = ends("before", &[&retrieve[..], &there].concat(), 0);
    assert!(before.contains(pay_bands), "{before}");
    ends("revoke", &[&["tuple", "delete", "user:bob", "member", "group:hr"][..], &there].concat(), 0);
    let after = ends("after", &[&retrieve[..], &there].concat(), 0);
    assert!(!after.contains(pay_bands), "{after}");
    ends("grant", &[&["tuple", "write", "user:bob", "member", "group:hr"][..], &there].concat(), 0);
    let again = ends("again", &[&retrieve[..], &there].concat(), 0);
    assert!(again.contains(pay_bands), "{again}");
}
