use super::*;
use crate::relationship::{dsl, json};

/// The first mistake of a model in JSON, where the modeling language could not say it.
fn refused(relations: &str, metadata: &str) -> String {
    let text = format!(
        r#"{{"schema_version": "1.1", "type_definitions": [{{"type": "user"}},
        {{"type": "doc", "relations": {relations}, "metadata": {{"relations": {metadata}}}}}]}}"#
    );
    let errors = ValidModel::new(json::parse(&text).expect("a model")).expect_err("mistakes");
    errors.first().expect("one").message.clone()
}

#[test]
fn what_only_json_can_say_is_refused() {
    let user = r#"{"a": {"directly_related_user_types": [{"type": "user"}]}}"#;
    let rows = [
        (r#"{"a": {"this": {}}}"#, "{}", "names no types"),
        (r#"{"a": {"this": {}}, "b": {"computedUserset": {"relation": "a"}}}"#, "{}", "names no types"),
        (r#"{"a": {"union": {"child": []}}}"#, "{}", "fewer than two operands"),
        (r#"{"a": {"union": {"child": [{"this": {}}]}}}"#, user, "fewer than two operands"),
        (r#"{"a": {"computedUserset": {"relation": "a"}}}"#, "{}", "in terms of itself"),
        (r#"{"a": {"computedUserset": {"relation": ""}}}"#, "{}", "does not exist"),
        (r#"{"a b": {"this": {}}}"#, "{}", "a space"),
        (r#"{"a*": {"this": {}}}"#, "{}", "`*`, white space"),
        (r#"{"": {"this": {}}}"#, "{}", "empty name"),
    ];
    for (relations, metadata, words) in rows {
        let message = refused(relations, metadata);
        assert!(message.contains(words), "{relations}: {message}");
    }
    let not_direct = r#"{"a": {"this": {}}, "b": {"computedUserset": {"relation": "a"}}}"#;
    let on_computed = r#"{"a": {"directly_related_user_types": [{"type": "user"}]},
        "b": {"directly_related_user_types": [{"type": "user"}]}}"#;
    assert!(refused(not_direct, on_computed).contains("takes none"));
}

#[test]
fn types_are_limited() {
    let types = |count: usize| (0..count).map(|n| format!("type t{n}\n")).collect::<Vec<_>>().concat();
    let load = |count: usize| dsl::load(&format!("model\n  schema 1.1\n{}", types(count)));
    assert!(load(0).expect_err("too few").to_string().contains("no types"));
    assert!(load(TYPES_MAX).is_ok());
    assert!(load(TYPES_MAX + 1).expect_err("too many").to_string().contains("at most 100"));
}

#[test]
fn a_large_model_is_validated_in_one_go() {
    // Each relation waits for the next: the worst order for a search that repeats until nothing changes.
    let chain = (0..7_000).map(|n| format!("define r{n}: r{}\n", n + 1)).collect::<Vec<_>>().concat();
    let text = format!("model\n  schema 1.1\ntype user\ntype doc\nrelations\n{chain}define r7000: [user]\n");
    assert!(dsl::load(&text).is_ok());
}
