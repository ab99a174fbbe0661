use super::*;
use crate::language::limits::{
    CONDITION_EXPRESSION_BYTES_MAX, CONDITIONS_MAX, CONTEXT_BYTES_MAX, MODEL_BYTES_MAX, PARAMETERS_MAX, TYPE_CHARS_MAX,
    TYPES_MAX,
};
use crate::language::model::{RestrictionKind, TypeDefinition, TypeRestriction};
use crate::language::tuple::TupleCondition;
use crate::language::{dsl, json};

/// Returns the first mistake of a model in JSON, for models that the modeling language cannot express.
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

/// Returns a model with the given numbers of types (beside `doc`), of conditions, of parameters for each condition, and
/// of bytes in each expression.
fn sized(types: usize, conditions: usize, parameters: usize, expression: usize) -> String {
    let types: Vec<String> = (0..types).map(|n| format!("type t{n}\n")).collect();
    let with: Vec<String> = (0..conditions).map(|n| format!("t0 with c{n}")).collect();
    let relations =
        if with.is_empty() { String::new() } else { format!("  relations\n    define r: [{}]\n", with.join(", ")) };
    let parameters: Vec<String> = (0..parameters).map(|p| format!("p{p}: int")).collect();
    // Spaces inside the parentheses belong to the expression.
    let body = format!("({:>1$})", "true", expression.saturating_sub(2));
    let parameters = parameters.join(", ");
    let conditions: Vec<String> =
        (0..conditions).map(|n| format!("condition c{n}({parameters}) {{ {body} }}\n")).collect();
    format!("model\n  schema 1.1\n{}type doc\n{relations}{}", types.concat(), conditions.concat())
}

#[test]
fn a_model_has_limits() {
    let name = |chars: usize| "n".repeat(chars);
    let named = |type_chars: usize, relation_chars: usize| {
        let (type_name, relation) = (name(type_chars), name(relation_chars));
        format!("model\n  schema 1.1\ntype user\ntype {type_name}\n  relations\n    define {relation}: [user]\n")
    };
    let condition_named = |condition: usize, parameter: usize| {
        let (condition, parameter) = (name(condition), name(parameter));
        format!(
            "model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define r: [user with {condition}]\n\
             condition {condition}({parameter}: int) {{ true }}\n"
        )
    };
    // `sized` adds the type `doc` to the number that is asked for.
    let rows = [
        ("no types", "model\n  schema 1.1\n".to_owned(), Some("no types")),
        ("types, one under", sized(TYPES_MAX - 2, 0, 0, 0), None),
        ("types, at the limit", sized(TYPES_MAX - 1, 0, 0, 0), None),
        ("types, one over", sized(TYPES_MAX, 0, 0, 0), Some("has 101 types, at most 100")),
        ("conditions, one under", sized(1, CONDITIONS_MAX - 1, 1, 4), None),
        ("conditions, at the limit", sized(1, CONDITIONS_MAX, 1, 4), None),
        ("conditions, one over", sized(1, CONDITIONS_MAX + 1, 1, 4), Some("has 26 conditions, at most 25")),
        ("parameters, one under", sized(1, 1, PARAMETERS_MAX - 1, 4), None),
        ("parameters, at the limit", sized(1, 1, PARAMETERS_MAX, 4), None),
        ("parameters, one over", sized(1, 1, PARAMETERS_MAX + 1, 4), Some("has 26 parameters, at most 25")),
        ("expression, one under", sized(1, 1, 1, CONDITION_EXPRESSION_BYTES_MAX - 1), None),
        ("expression, at the limit", sized(1, 1, 1, CONDITION_EXPRESSION_BYTES_MAX), None),
        ("expression, one over", sized(1, 1, 1, CONDITION_EXPRESSION_BYTES_MAX + 1), Some("513 bytes, at most 512")),
        ("type name, at the limit", named(254, 1), None),
        ("type name, one over", named(255, 1), Some("at most 254")),
        ("relation name, at the limit", named(3, 50), None),
        ("relation name, one over", named(3, 51), Some("at most 50")),
        ("condition name, at the limit", condition_named(50, 1), None),
        ("condition name, one over", condition_named(51, 1), Some("1 to 50 characters")),
        ("parameter name, at the limit", condition_named(2, 50), None),
        ("parameter name, one over", condition_named(2, 51), Some("1 to 50 characters")),
    ];
    for (row, text, refusal) in rows {
        match (dsl::load(&text), refusal) {
            (Ok(_), None) => {}
            (Ok(_), Some(words)) => panic!("{row}: taken, not refused with `{words}`"),
            (Err(errors), None) => panic!("{row}: {errors}"),
            (Err(errors), Some(words)) => assert!(errors.to_string().contains(words), "{row}: {errors}"),
        }
    }
}

/// Each row's model has a message of the given size, including its id.
#[test]
fn a_model_has_so_many_bytes() {
    let with_bytes = |bytes: usize| {
        let mut model = dsl::parse("model\n  schema 1.1\ntype user\ntype doc\n").expect("a model").model;
        let user = TypeRestriction { type_name: "user".to_owned(), kind: RestrictionKind::Object, condition: None };
        while model_wire_bytes(&model) + 200 < bytes {
            let name = format!("relation_{:020}", model.types[1].relations.len());
            let directly_related = vec![user.clone()];
            model.types[1].relations.push(RelationDefinition {
                name,
                rewrite: Rewrite::Direct,
                directly_related,
                source: None,
            });
        }
        // One more type fills the message up; the length of its name sets the size.
        model.types.push(TypeDefinition::default());
        for length in 1..=TYPE_CHARS_MAX {
            model.types[2].name = "x".repeat(length);
            if model_wire_bytes(&model) == bytes {
                return model;
            }
        }
        panic!("no model of {bytes} bytes");
    };
    for (row, bytes, is_taken) in [
        ("one under", MODEL_BYTES_MAX - 1, true),
        ("at the limit", MODEL_BYTES_MAX, true),
        ("one over", MODEL_BYTES_MAX + 1, false),
    ] {
        let model = with_bytes(bytes);
        assert_eq!(ValidModel::new(model.clone()).is_ok(), is_taken, "{row}");
        assert_eq!(ValidModel::with_slips(model.clone()).is_ok(), is_taken, "{row}, of a client");
        assert!(ValidModel::stored(model).is_ok(), "{row}, stored");
    }
}

#[test]
fn a_stored_tuple_has_limits() {
    let text = "model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define r: [user with c, user with cc]\n\
                condition c(s: string) { s != '' }\ncondition cc(s: string) { s != '' }\n";
    let model = dsl::load(text).expect("a model");
    // The message takes 15 bytes beside the text itself.
    let context = |bytes: usize| format!("{{\"s\": \"{}\"}}", "x".repeat(bytes - 15));
    let rows = [
        ("condition of one character", "c", "{}".to_owned(), Some("too short for a tuple")),
        ("condition of two characters", "cc", "{}".to_owned(), None),
        ("context, one under", "cc", context(CONTEXT_BYTES_MAX - 1), None),
        ("context, at the limit", "cc", context(CONTEXT_BYTES_MAX), None),
        ("context, one over", "cc", context(CONTEXT_BYTES_MAX + 1), Some("32769 bytes, at most 32768")),
    ];
    for (row, name, context, refusal) in rows {
        let tuple = RelationshipTuple::parse("user:anne", "r", "doc:1").expect("a tuple");
        let tuple = tuple.with_condition(TupleCondition::parse(name, &context).expect("a condition"));
        assert!(model.admits(&tuple).is_ok(), "{row}: of a request");
        let refused = model.stores_all(&[tuple]).err().map(|misfit| misfit.to_string());
        match (refused, refusal) {
            (None, None) => {}
            (Some(refused), Some(words)) => assert!(refused.contains(words), "{row}: {refused}"),
            (refused, _) => panic!("{row}: {refused:?}"),
        }
    }
}

#[test]
fn a_large_model_is_validated_in_one_go() {
    // Each relation waits for the next. That is the worst order for a search that repeats until nothing changes.
    let chain = (0..7_000).map(|n| format!("define r{n}: r{}\n", n + 1)).collect::<Vec<_>>().concat();
    let text = format!("model\n  schema 1.1\ntype user\ntype doc\nrelations\n{chain}define r7000: [user]\n");
    assert!(dsl::load(&text).is_ok());
}
