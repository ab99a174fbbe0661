use super::*;

const MODEL: &str = "model: |
  model
    schema 1.1
  type user
  type doc
    relations
      define viewer: [user]
";

/// Writes these files into a folder, and reads its `store.fga.yaml`.
fn store(files: &[(&str, &str)]) -> Result<StoreFile, String> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    read(&folder.path().join("store.fga.yaml")).map_err(|e| e.to_string())
}

#[test]
fn tuples_come_from_every_kind_of_file() {
    let main = format!(
        "{MODEL}tuple_file: a.yaml\ntuple_files: [b.json, c.jsonl, d.csv]\ntuples:\n- {{user: user:0, relation: viewer, object: doc:1}}\n"
    );
    let csv = "user_type,user_id,user_relation,relation,object_type,object_id\nuser,\"4\",,viewer,doc,1\n\nuser,5,,viewer,doc,1\n";
    let files = [
        ("store.fga.yaml", main.as_str()),
        ("a.yaml", "- user: user:1\n  relation: viewer\n  object: doc:1\n"),
        ("b.json", r#"[{"user": "user:2", "relation": "viewer", "object": "doc:1"}]"#),
        ("c.jsonl", "{\"user\": \"user:3\", \"relation\": \"viewer\", \"object\": \"doc:1\"}\n\n"),
        ("d.csv", csv),
    ];
    let users: Vec<String> = store(&files).expect("read").tuples.iter().map(|t| t.user.to_string()).collect();
    assert_eq!(users, ["user:0", "user:1", "user:2", "user:3", "user:4", "user:5"]);
}

/// Lines and columns refer to the file wherever the model stands in it unchanged.
#[test]
fn a_mistake_in_an_inline_model_has_the_place_of_the_file() {
    let wrong = MODEL.replace("define viewer", "defne viewer");
    let lines = "model\\n  schema 1.1\\ntype user\\ntype doc\\n  relations\\n    defne viewer: [user]\\n";
    let rows = [
        ("at the top", wrong.clone(), "mistakes:\nline 7, column 7: expected"),
        (
            "behind a name and a comment",
            format!("# a store\nname: x\n\n{wrong}"),
            "mistakes:\nline 10, column 7: expected",
        ),
        ("behind the tuples", format!("tuples: []\n{wrong}"), "mistakes:\nline 8, column 7: expected"),
        ("with CRLF", wrong.replace('\n', "\r\n"), "mistakes:\nline 7, column 7: expected"),
        ("with a byte order mark", format!("\u{feff}{wrong}"), "mistakes:\nline 7, column 7: expected"),
        (
            "with blank lines",
            wrong.replace("|\n", "|\n\n").replace("  type", "\n  type"),
            "mistakes:\nline 10, column 7: expected",
        ),
        ("with a comment at the block", wrong.replace("|\n", "|  # ours\n"), "mistakes:\nline 7, column 7: expected"),
        ("deeper", wrong.replace("\n  ", "\n      "), "mistakes:\nline 7, column 11: expected"),
        ("with an indentation that is told", wrong.replace("|\n", "|2-\n"), "mistakes:\nline 7, column 7: expected"),
        ("the block on its own line", wrong.replace(": |", ":\n  |"), "mistakes:\nline 8, column 7: expected"),
        (
            "in quotes",
            format!("name: x\nmodel: \"{lines}\"\n"),
            "(lines are counted from its first line):\nline 6, column 5",
        ),
    ];
    for (name, text, expected) in rows {
        let error = store(&[("store.fga.yaml", &text)]).expect_err(name);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn mistakes_name_file_and_line() {
    let with = |rest: &str| format!("{MODEL}{rest}");
    let tuple_file = with("tuple_file: t.csv\n");
    let rows: [(&str, String, &str, &str); 10] = [
        ("unknown key", with("testz: []\n"), "", "line 8"),
        ("not YAML", with("tests: [\n"), "", "line"),
        ("no model", "name: x\n".to_owned(), "", "neither `model` nor `model_file`"),
        ("model", MODEL.replace("define viewer", "defne viewer"), "", "line 7, column 7: expected `define`"),
        ("tuple", with("tuples:\n- {user: anne, relation: viewer, object: doc:1}\n"), "", "tuple 1: user `anne`"),
        ("missing file", with("tuple_file: nowhere.yaml\n"), "", "nowhere.yaml"),
        ("csv column", tuple_file.clone(), "user_type,user_id,relation,object_type\n", "`object_id` is missing"),
        ("csv row", tuple_file.clone(), "user_type,user_id,relation,object_type,object_id\na,b\n", "line 2"),
        ("csv quote", tuple_file.clone(), "user_type,\"user_id\nx", "line 1"),
        ("csv quote inside", tuple_file, "user_type\n\nus\"er\n", "line 3"),
    ];
    for (name, main, csv, words) in rows {
        let error = store(&[("store.fga.yaml", &main), ("t.csv", csv)]).expect_err(name);
        assert!(error.contains(words), "{name}: {error}");
    }
}

#[test]
fn a_model_may_be_several_modules() {
    let manifest = "schema: '1.2'\ncontents:\n  - core.fga\n  - docs.fga\n";
    let core = "module core\ntype user\ntype doc\n";
    let docs = |user: &str| format!("module docs\nextend type doc\n  relations\n    define viewer: [{user}]\n");
    let main = "model_file: fga.mod\ntuples: [{user: user:1, relation: viewer, object: doc:1}]\ntests: []\n";
    let right = docs("user");
    let files = [("store.fga.yaml", main), ("fga.mod", manifest), ("core.fga", core), ("docs.fga", right.as_str())];
    assert_eq!(store(&files).expect("read").tuples.len(), 1);
    let wrong = docs("nobody");
    let files = [("store.fga.yaml", main), ("fga.mod", manifest), ("core.fga", core), ("docs.fga", wrong.as_str())];
    let error = store(&files).expect_err("a mistake");
    assert!(error.contains("docs.fga: line 4, column 21"), "{error}");
}

#[test]
fn a_failed_assertion_says_what_was_expected() {
    let main = format!(
        "{MODEL}tests:
- name: one
  tuples:
  - {{user: user:1, relation: viewer, object: doc:true}}
  check:
  - users: [user:1, user:2]
    object: doc:true
    context: {{now: '2024-01-01'}}
    assertions: {{viewer: true, owner: false}}
  list_objects:
  - {{user: user:1, type: doc, assertions: {{viewer: [doc:true]}}}}
- name: two
  check:
  - {{user: user:1, object: doc:true, assertions: {{viewer: false}}}}
"
    );
    let outcome = run(store(&[("store.fga.yaml", &main)]).expect("read")).expect("run");
    assert!(!outcome.passed());
    assert_eq!(outcome.count(AssertionKind::Check), (2, 5));
    assert_eq!(outcome.count(AssertionKind::ListObjects), (1, 1));
    let [one, two] = &outcome.tests[..] else { panic!("two tests") };
    assert!(two.passed(), "the tuples of a test are its own");
    let failed: Vec<String> = one
        .assertions
        .iter()
        .filter(|a| !a.passed())
        .map(|a| format!("{} {}: expected {}, got {:?}", a.kind, a.question, a.expected, a.got.as_ref().ok()))
        .collect();
    let expected = [
        "check user=user:1, relation=owner, object=doc:true: expected false, got None",
        "check user=user:2, relation=owner, object=doc:true: expected false, got None",
        "check user=user:2, relation=viewer, object=doc:true: expected true, got Some(\"false\")",
    ];
    assert_eq!(failed, expected);
}

#[test]
fn a_file_of_tuples_is_read_alone() {
    let csv = "user_type,user_id,user_relation,relation,object_type,object_id,condition_name,condition_context\n\
               group,eng,member,viewer,doc,1,,\nuser,anne,,viewer,doc,1,in_hours,\"{\"\"hour\"\": 9}\"\n";
    let yaml = "- {user: 'group:eng#member', relation: viewer, object: doc:1}\n\
                - user: user:anne\n  relation: viewer\n  object: doc:1\n  condition: {name: in_hours, context: {hour: 9}}\n";
    let json = r#"[{"user": "group:eng#member", "relation": "viewer", "object": "doc:1"},
        {"user": "user:anne", "relation": "viewer", "object": "doc:1", "condition": {"name": "in_hours", "context": {"hour": 9}}}]"#;
    let lines = json.replace(['\n', '[', ']'], "").replace("},        {", "}\n{");
    let twice =
        "- {user: user:a, relation: viewer, object: doc:1}\n- {user: user:a, relation: viewer, object: doc:1}\n";
    let rows = [
        ("CSV", "t.csv", csv, Ok(2)),
        ("YAML", "t.yaml", yaml, Ok(2)),
        ("JSON", "t.json", json, Ok(2)),
        ("JSON Lines", "t.jsonl", lines.as_str(), Ok(2)),
        ("a tuple twice", "t.yaml", twice, Err("occurs more than once")),
        ("no tuples", "t.json", "[]", Err("holds no tuples")),
        ("another kind of file", "t.txt", "", Err("must end in")),
        ("an unknown key", "t.json", r#"[{"usr": "user:a"}]"#, Err("unknown field")),
        (
            "a name that is none",
            "t.yaml",
            "- {user: anne, relation: viewer, object: doc:1}\n",
            Err("tuple 1: user `anne`"),
        ),
    ];
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut first: Option<Vec<RelationshipTuple>> = None;
    for (row, name, text, expected) in rows {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("written");
        match (read_tuples(&file), expected) {
            (Ok(tuples), Ok(count)) => {
                assert_eq!(tuples.len(), count, "{row}");
                assert_eq!(*first.get_or_insert_with(|| tuples.clone()), tuples, "{row}");
            }
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{row}: {error}"),
            (read, expected) => panic!("{row}: {read:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_file_asks_for_no_more_than_memory_holds() {
    let names = |kind: &str, count: usize| (0..count).map(|n| format!("{kind}:{n}")).collect::<Vec<_>>().join(", ");
    let check = |users: usize, objects: usize| {
        format!(
            "  - {{users: [{}], objects: [{}], assertions: {{viewer: false}}}}\n",
            names("user", users),
            names("doc", objects)
        )
    };
    let whole = (ASSERTIONS_MAX / 1_000, 1_000);
    let rows = [
        ("as many as may be", check(whole.0, whole.1), true),
        ("one user more", check(whole.0 + 1, whole.1), false),
        ("two checks", check(whole.0, whole.1) + &check(1, 1), false),
        ("far more", check(10_000, 10_000), false),
    ];
    for (row, checks, expected) in rows {
        let main = format!("{MODEL}tests:\n- name: one\n  check:\n{checks}");
        match store(&[("store.fga.yaml", &main)]) {
            Ok(_) => assert!(expected, "{row}"),
            Err(error) => {
                assert!(!expected && error.contains("assertions, at most 500000 are allowed"), "{row}: {error}");
            }
        }
    }
}
