use super::*;

fn refused(text: &str, words: &str) {
    let error = parse(text).expect_err(words).to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn malformed_models_are_refused() {
    let with_relations = |relations: &str| {
        format!(r#"{{"schema_version": "1.1", "type_definitions": [{{"type": "doc", "relations": {relations}}}]}}"#)
    };
    refused("", "line 1");
    refused("[]", "line 1");
    refused("{}", "missing field `schema_version`");
    refused(r#"{"schema_version": "1.1", "types": []}"#, "unknown field `types`");
    refused(&with_relations(r#"{"a": {"this": {}}, "a": {"this": {}}}"#), "`a` is defined more than once");
    refused(&with_relations(r#"{"a": {}}"#), "line 1");
    refused(&with_relations(r#"{"a": {"this": {}, "union": {"child": []}}}"#), "line 1");
    let deep = format!("{}{{\"this\":{{}}}}{}", r#"{"union":{"child":["#.repeat(200), "]}}".repeat(200));
    refused(&with_relations(&format!(r#"{{"a": {deep}}}"#)), "recursion limit");
    refused(&" ".repeat(JSON_BYTES_MAX + 1), "at most");
}

#[test]
fn the_answers_of_a_server_are_taken() {
    let text = r#"{
      "id": "01HVMMBCMGZNT3SED4Z17ECXCA", "schema_version": "1.1", "conditions": {},
      "type_definitions": [{"type": "doc", "metadata": {"module": "", "source_info": null, "relations": {"viewer": {
        "directly_related_user_types": [{"type": "doc", "condition": ""}, {"type": "doc", "wildcard": {}, "condition": ""}],
        "module": "", "source_info": null}}},
        "relations": {"viewer": {"this": {}},
          "reader": {"tupleToUserset": {"tupleset": {"object": "", "relation": "viewer"},
            "computedUserset": {"object": "", "relation": "viewer"}}}}}]}"#;
    let model = parse(text).expect("a model");
    let expected = "model
  schema 1.1

type doc
  relations
    define viewer: [doc, doc:*]
    define reader: viewer from viewer
";
    assert_eq!(crate::language::dsl::print(&model), expected);
}

#[test]
fn modules_are_kept() {
    let text = r#"{"schema_version": "1.2", "type_definitions": [{"type": "doc", "relations": {"viewer": {"this": {}}},
      "metadata": {"module": "wiki", "source_info": {"file": "wiki.fga"}, "relations": {"viewer": {"module": "core",
      "directly_related_user_types": [{"type": "doc"}], "source_info": {"file": "core.fga"}}}}}]}"#;
    let model = parse(text).expect("a model");
    let written: serde_json::Value = serde_json::from_str(&print(&model).expect("written")).expect("JSON");
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
}
