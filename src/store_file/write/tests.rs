use std::path::Path;

use super::*;
use crate::language::tuple::TupleCondition;
use crate::language::validate::ValidModel;
use crate::store_file::{self, StoreFile};

const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user, group#member]
type doc
  relations
    define yes: [user]
    define parent: [doc]
    define banned: [user]
    define reader: [user, user:*, group#member, user with in_hours] or reader from parent
    define can_read: (reader and member_of) but not banned
    define member_of: [group#member, user]
condition in_hours(hour: int, opens: int, tags: list<string>) {
  hour >= opens ||
  \"late: # no\" in tags
}
";

/// Writes a store as `ragward store export` does: a model that the language cannot express gets a file of its own.
fn written(folder: &Path, name: &str, model: &ValidModel, tuples: &[RelationshipTuple], tests: &[StoreTest]) -> String {
    let form = ModelForm::of(model.source()).expect("a form");
    let place = match &form {
        ModelForm::Text(text) => ModelPlace::Inline(text),
        ModelForm::Json(json) => {
            std::fs::write(folder.join("store.model.json"), json).expect("written");
            ModelPlace::File("store.model.json")
        }
    };
    let mut writer = StoreFileWriter::begin(Vec::new(), name, place).expect("begun");
    for tuple in tuples {
        writer.tuple(tuple).expect("a tuple");
    }
    assert_eq!(writer.tuples(), u64::try_from(tuples.len()).expect("few"));
    String::from_utf8(writer.finish(tests).expect("finished")).expect("UTF-8")
}

#[track_caller]
fn read_back(row: &str, folder: &Path, text: &str) -> StoreFile {
    let file = folder.join("store.fga.yaml");
    std::fs::write(&file, text).expect("written");
    store_file::read(&file).unwrap_or_else(|e| panic!("{row}: {e}\n{text}"))
}

fn tuple(user: &str, relation: &str, object: &str) -> RelationshipTuple {
    RelationshipTuple::parse(user, relation, object).expect("a tuple")
}

fn conditioned(user: &str, context: &str) -> RelationshipTuple {
    let condition = TupleCondition::parse("in_hours", context).expect("a condition");
    tuple(user, "reader", "doc:1").with_condition(condition)
}

#[test]
fn tuples_are_read_back_as_they_were() {
    let rows = [
        ("plain", tuple("user:anne", "reader", "doc:1")),
        ("a wildcard", tuple("user:*", "reader", "doc:1")),
        ("a userset", tuple("group:eng#member", "reader", "doc:1")),
        ("a relation that YAML takes for a truth value", tuple("user:anne", "yes", "doc:1")),
        ("an id that is a number", tuple("user:1", "reader", "doc:0x10")),
        ("an id that is a truth value", tuple("user:true", "reader", "doc:no")),
        ("an id with quotes", tuple("user:a\"b'c\\d", "reader", "doc:{[,]}")),
        ("an id with signs of YAML", tuple("user:&a|>!%", "reader", "doc:-?`")),
        ("an id in Greek", tuple("user:άννα", "reader", "doc:日本")),
        ("an id with invisible characters", tuple("user:a\u{a0}\u{202e}b\u{feff}", "reader", "doc:\u{2028}\u{fffe}")),
        ("an id beyond the first plane", tuple("user:😀\u{e0001}", "reader", "doc:1")),
        ("a condition without a context", conditioned("user:anne", "")),
        ("a context of every kind", conditioned("user:b", r#"{"a": [1, -0.5, 1e300, null, true, {"b": "x: #y"}]}"#)),
        ("texts that look like other types", conditioned("user:c", r#"{"1": "1", "null": "~", "<<": "2024-01-01"}"#)),
        ("a text with controls", conditioned("user:d", r#"{"a": "\u0001\t\n\u007f\u0085\r"}"#)),
        ("an empty text", conditioned("user:e", r#"{"a": "", "": {}, "l": []}"#)),
    ];
    let model = dsl::load(MODEL).expect("a model");
    let folder = tempfile::tempdir().expect("a folder");
    for (row, tuple) in &rows {
        let text = written(folder.path(), row, &model, std::slice::from_ref(tuple), &[]);
        let read = read_back(row, folder.path(), &text);
        assert_eq!(read.tuples, std::slice::from_ref(tuple), "{row}:\n{text}");
        assert_eq!(read.name, *row);
        let hidden = text.chars().find(|c| c.is_control() && *c != '\n' || ['\u{202e}', '\u{feff}'].contains(c));
        assert_eq!(hidden, None, "{row}:\n{text}");
    }
    let all: Vec<RelationshipTuple> = rows.iter().map(|(_, tuple)| tuple.clone()).collect();
    let distinct: Vec<RelationshipTuple> = all
        .iter()
        .filter(|tuple| tuple.condition.is_some() || tuple.user.to_string() != "user:anne")
        .cloned()
        .collect();
    let text = written(folder.path(), "all", &model, &distinct, &[]);
    assert_eq!(read_back("all", folder.path(), &text).tuples, distinct);
}

#[test]
fn models_are_read_back_as_they_were() {
    let of_modules = || {
        let module = |file: &str, text: &str| dsl::modules::ModuleText { file: file.to_owned(), text: text.to_owned() };
        let core = "module core\ntype user\ntype doc\n  relations\n    define owner: [user]\n";
        let docs = "module docs\nextend type doc\n  relations\n    define viewer: [user with in_hours] or owner\n\
                    condition in_hours(hour: int) {\n  hour > 8\n}\n";
        dsl::modules::load(&[module("core.fga", core), module("docs/docs.fga", docs)]).expect("modules")
    };
    let unsayable = r#"{"schema_version": "1.1", "type_definitions": [{"type": "user"}, {"type": "doc",
        "relations": {"a": {"this": {}}, "r": {"difference": {"base": {"computedUserset": {"relation": "a"}}, "subtract": {"this": {}}}}},
        "metadata": {"relations": {"a": {"directly_related_user_types": [{"type": "user"}]},
                                   "r": {"directly_related_user_types": [{"type": "user"}]}}}}]}"#;
    let unsayable = ValidModel::new(json::parse(unsayable).expect("JSON")).expect("a model");
    let tabbed = MODEL.replace("late: # no", "a\tb");
    let hidden = MODEL.replace("late: # no", "a\u{202e}\u{200b}b");
    let rows = [
        ("intersections, differences, wildcards and conditions", dsl::load(MODEL).expect("a model"), true),
        ("a tab in a text", dsl::load(&tabbed).expect("a model"), true),
        ("invisible characters in a text", dsl::load(&hidden).expect("a model"), true),
        ("schema 1.2", dsl::load(&MODEL.replace("1.1", "1.2")).expect("a model"), true),
        ("modules", of_modules(), false),
        ("what the language cannot express", unsayable, false),
    ];
    for (row, model, is_text) in &rows {
        let form = ModelForm::of(model.source()).expect(row);
        assert_eq!(matches!(form, ModelForm::Text(_)), *is_text, "{row}: {form:?}");
        let folder = tempfile::tempdir().expect("a folder");
        let text = written(folder.path(), "x", model, &[], &[]);
        assert_eq!(read_back(row, folder.path(), &text).model.source(), model.source(), "{row}:\n{text}");
        assert!(!text.contains('\u{202e}'), "{row}:\n{text}");
    }
}

#[test]
fn tests_are_read_back_as_they_were() {
    let tests = "tests:
- name: 'one: two'
  tuples:
  - {user: user:zoe, relation: reader, object: doc:9}
  check:
  - users: [user:1, 'user:*']
    object: doc:1
    context: {hour: 9, tags: ['a, b', '1']}
    assertions: {reader: true, 'yes': false}
  - {user: user:1, objects: [doc:1, doc:2], assertions: {}}
  list_objects:
  - {user: user:zoe, type: doc, context: {hour: 1.5}, assertions: {reader: [doc:9, doc:1], banned: []}}
  list_users:
  - object: doc:9
    user_filter: [{type: group, relation: member}]
    assertions: {reader: {users: ['group:eng#member', 'user:*']}}
  - {object: doc:9, user_filter: [{type: user}], assertions: {banned: {users: []}}}
- name: ''
";
    let indented = MODEL.trim_end().replace('\n', "\n  ");
    let folder = tempfile::tempdir().expect("a folder");
    let before = read_back("the original", folder.path(), &format!("model: |\n  {indented}\n{tests}"));
    assert_eq!(before.tests.len(), 2);
    let text = written(folder.path(), "", &before.model, &[], &before.tests);
    let after = read_back("the copy", folder.path(), &text);
    assert_eq!(after.tests, before.tests, "{text}");
    assert_eq!((after.name.as_str(), after.tuples.as_slice()), ("", [].as_slice()));
}

#[test]
fn a_file_looks_as_a_person_would_write_it() {
    let model = "model\n  schema 1.1\n\ntype user\n\ntype doc\n  relations\n    define reader: [user with in_hours]\n\n\
                 condition in_hours(hour: int) {\n  hour > 8\n}\n";
    let model = dsl::load(model).expect("a model");
    let folder = tempfile::tempdir().expect("a folder");
    let text = written(folder.path(), "demo", &model, &[conditioned("user:anne", "{\"hour\": 9}")], &[]);
    let expected = "name: demo
model: |
  model
    schema 1.1

  type user

  type doc
    relations
      define reader: [user with in_hours]

  condition in_hours(hour: int) {
    hour > 8
  }
tuples:
  - user: user:anne
    relation: reader
    object: doc:1
    condition:
      name: in_hours
      context: {\"hour\": 9}
";
    assert_eq!(text, expected);
}
