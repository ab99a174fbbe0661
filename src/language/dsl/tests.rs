use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::language::model::{Condition, ParameterType, RelationDefinition, RestrictionKind, Rewrite, TypeRestriction};

/// Returns a model with the types `user`, `group` (with `member`) and `doc`, which has the given relations.
fn doc(relations: &str) -> String {
    format!(
        "model\n  schema 1.1\ntype user\ntype group\n  relations\n    define member: [user]\ntype doc\n  relations\n{relations}"
    )
}

/// The line on which the first relation of [`doc`] stands.
const FIRST: usize = 9;

#[track_caller]
fn mistakes(text: &str, expected: &[(usize, usize, &str)]) {
    let errors = load(text).expect_err("mistakes");
    let found: Vec<(usize, usize)> = errors.errors().iter().map(|e| (e.span.start.line, e.span.start.column)).collect();
    let places: Vec<(usize, usize)> = expected.iter().map(|(line, column, _)| (*line, *column)).collect();
    assert_eq!(found, places, "{}", errors.picture(text));
    for (error, (_, _, words)) in errors.errors().iter().zip(expected) {
        assert!(error.message.contains(words), "{error}");
    }
}

#[test]
fn mistakes_have_a_place_and_a_sentence() {
    let rows: [(&str, &str, usize, &str); 14] = [
        ("operators", "    define a: [user] or b and c", 27, "operators are mixed"),
        ("operators in parentheses", "    define a: [user] or (b or c and d)", 33, "operators are mixed"),
        ("two subtractions", "    define a: b but not c but not d", 27, "operators are mixed"),
        ("second brackets", "    define a: [user] or [user]", 25, "may be written once"),
        ("brackets later", "    define a: b or [user]", 20, "may be written once"),
        ("no operand", "    define a: or b", 15, "found the keyword `or`"),
        ("no name", "    define : [user]", 12, "expected a relation name"),
        ("no colon", "    define a [user]", 14, "expected `:`"),
        ("empty brackets", "    define a: []", 16, "expected a type name, found `]`"),
        ("open parenthesis", "    define a: ([user]", 22, "expected `)`, found the end of the line"),
        ("half a wildcard", "    define a: [user:]", 21, "expected `*`"),
        ("half a subtraction", "    define a: [user] but b", 26, "expected `not`"),
        ("stray character", "    define a: [user] \u{1b}", 22, "found `\\u{1b}`"),
        ("nothing after from", "    define a: b from", 21, "after `from`"),
    ];
    for (_name, relation, column, words) in rows {
        mistakes(&doc(&format!("{relation}\n    define z: [user]\n")), &[(FIRST, column, words)]);
    }
}

#[test]
fn several_mistakes_are_reported() {
    let text = doc("    define a: [user] or\n    define b: [user]\n    define c: [user\n    define d:\n");
    mistakes(&text, &[(FIRST, 24, "the end of the line"), (FIRST + 3, 5, "expected `,` or `]`")]);
}

#[test]
fn a_module_is_no_model() {
    let rows = [
        ("module core\ntype user\n", 1, 1, "load the `fga.mod`"),
        ("model\n  schema 1.1\nextend type user\n", 3, 1, "only be written in a module"),
        ("model\n  schema 3.0\n", 2, 10, "invalid schema version"),
    ];
    for (text, line, column, words) in rows {
        mistakes(text, &[(line, column, words)]);
    }
    assert!(load("model\n  schema 1.2\ntype user\n").is_ok());
}

#[test]
fn a_condition_that_cannot_be_compiled_is_shown_by_its_name() {
    let text = doc("    define a: [user with late]\ncondition late(now: timestamp) {\n  now < 1\n}\n");
    mistakes(&text, &[(FIRST + 1, 11, "condition `late` cannot be compiled: there is no function or operator `<`")]);
}

#[test]
fn a_mistake_can_be_shown_in_its_line() {
    let text = doc("    define a: [user] or nobody\n");
    let picture = load(&text).expect_err("a mistake").picture(&text);
    let expected = "line 9, column 25: the relation `nobody` does not exist
  |
9 |     define a: [user] or nobody
  |                         ^^^^^^";
    assert_eq!(picture, expected);
}

#[test]
fn size_and_nesting_are_limited() {
    let long = format!("model\n  schema 1.1\n{}", "#\n".repeat(TEXT_BYTES_MAX / 2));
    mistakes(&long, &[(1, 1, "at most 1048576 are allowed")]);
    let nested = |depth: usize| doc(&format!("    define a: {}[user]{}\n", "(".repeat(depth), ")".repeat(depth)));
    assert!(load(&nested(100)).is_ok());
    mistakes(&nested(101), &[(FIRST, 115, "more than 100 deep")]);
    mistakes(&nested(100_000), &[(FIRST, 115, "more than 100 deep")]);
}

#[test]
fn a_printed_model_is_the_same_model() {
    let text = doc("    define parent: [doc]
    define b: ([user, user:*, group#member] or (c and (b from parent but not c))) but not d
    define c: [
      user,  # a comment
      group#member
    ]
    define d: [user] # another
");
    let model = parse(&text).expect("a model").model;
    let printed = print(&model);
    assert_eq!(parse(&printed).expect("a model").model, model);
    assert!(printed.contains("define c: [user, group#member]\n"), "{printed}");
}

#[test]
fn braces_in_strings_and_comments_do_not_end_a_condition() {
    let rows = [
        ("a comment of the model", "x == 'a' # }\n  || x == 'b'", "x == 'a'\n  || x == 'b'"),
        ("a line that is a comment", "x == 'a'\n  # } and {\n  || x == 'b'", "x == 'a'\n\n  || x == 'b'"),
        ("an apostrophe in a comment", "x == 'a' # it's }\n  || x == 'b'", "x == 'a'\n  || x == 'b'"),
        ("a comment of the expression", "x == 'a' // }\n  || x == 'b'", "x == 'a' // }\n  || x == 'b'"),
        ("double marks", r#"x == "}""#, r#"x == "}""#),
        ("single marks", "x == '}'", "x == '}'"),
        ("an opening brace", "x == '{'", "x == '{'"),
        ("the other mark", r#"x == "'}" || x == '"}'"#, r#"x == "'}" || x == '"}'"#),
        ("an escaped mark", r#"x == "\"}" || x == '\'}'"#, r#"x == "\"}" || x == '\'}'"#),
        ("an escaped backslash", r"x == '\\' || x == '}'", r"x == '\\' || x == '}'"),
        ("three marks", r#"x == """"}" # }""""#, r#"x == """"}" # }""""#),
        ("three single marks", "x == '''a\n '} # b \n'''", "x == '''a\n '} # b \n'''"),
        ("a raw string", r"x == r'\' || x == '}'", r"x == r'\' || x == '}'"),
        ("a raw string of three marks", r#"x == R"""\"}""""#, r#"x == R"""\"}""""#),
        ("bytes", "bytes(x) == b'}'", "bytes(x) == b'}'"),
        ("raw bytes", r"bytes(x) == bR'\}'", r"bytes(x) == bR'\}'"),
        ("a word that ends in r", r"x == 'a' ? or'\'}' : x", r"x == 'a' ? or'\'}' : x"),
        ("a hash in a string", "x == 'a # b'", "x == 'a # b'"),
        ("a map", "{'a': x} == {'a': '}'}", "{'a': x} == {'a': '}'}"),
    ];
    for (name, body, expected) in rows {
        let text = doc(&format!("    define a: [user with c]\ncondition c(x: string) {{\n  {body}\n}}\n"));
        let parsed = parse(&text).unwrap_or_else(|errors| panic!("{name}: {}", errors.picture(&text)));
        assert_eq!(parsed.model.conditions["c"].expression, expected, "{name}");
        let printed = print(&parsed.model);
        let again = parse(&printed).unwrap_or_else(|errors| panic!("{name}: {}", errors.picture(&printed))).model;
        assert_eq!(again.conditions["c"].expression, expected, "{name}, printed");
    }
    let open =
        [("no brace", "x == 'a'"), ("a brace in a comment", "x == 'a' # }"), ("a brace in a string", "x == '''}")];
    for (name, body) in open {
        let text = doc(&format!("    define a: [user with c]\ncondition c(x: string) {{\n  {body}\n"));
        assert!(parse(&text).is_err(), "{name}");
    }
}

proptest! {
    /// Any text is a model or has mistakes; nothing panics.
    #[test]
    fn any_text_is_read(pieces in prop::collection::vec(prop_oneof![
        "[a-z]{1,3}", "[^a]", Just("model\n schema 1.1\n".to_owned()), Just("type ".to_owned()),
        Just("\n relations\n".to_owned()), Just("\n define ".to_owned()), Just(" from ".to_owned()),
        Just(" or ".to_owned()), Just(" and ".to_owned()), Just(" but not ".to_owned()), Just("[".to_owned()),
        Just("]".to_owned()), Just("(".to_owned()), Just(")".to_owned()), Just(": ".to_owned()),
        Just("condition c(x: list<int>) {".to_owned()), Just("}".to_owned()), Just(" with ".to_owned()),
        Just(" #".to_owned()), Just("\"".to_owned()), Just("\r\n".to_owned()),
    ], 0..60)) {
        let text = format!("model\n  schema 1.1\n{}", pieces.concat());
        for text in [text, pieces.concat()] {
            if let Err(errors) = load(&text) {
                prop_assert!(!errors.errors().is_empty(), "{text:?}");
                prop_assert!(!errors.picture(&text).is_empty(), "{text:?}");
            }
        }
    }
}

/// Returns whether the language can express a definition: `[…]` at most once, and not in what is subtracted.
fn is_sayable(rewrite: &Rewrite) -> bool {
    let direct = rewrite.leaves().iter().filter(|leaf| matches!(leaf, Rewrite::Direct)).count();
    let mut pending = vec![rewrite];
    while let Some(rewrite) = pending.pop() {
        if let Rewrite::Difference { subtract, .. } = rewrite
            && subtract.contains_direct()
        {
            return false;
        }
        pending.extend(rewrite.operands());
    }
    direct <= 1
}

/// Returns whether a user who is among the users of exactly these leaves holds the relation.
fn holds(rewrite: &Rewrite, leaves: &[Rewrite]) -> bool {
    match rewrite {
        Rewrite::Union(operands) => operands.iter().any(|operand| holds(operand, leaves)),
        Rewrite::Intersection(operands) => operands.iter().all(|operand| holds(operand, leaves)),
        Rewrite::Difference { base, subtract } => holds(base, leaves) && !holds(subtract, leaves),
        leaf @ (Rewrite::Direct | Rewrite::Computed(_) | Rewrite::TupleToUserset { .. }) => leaves.contains(leaf),
    }
}

fn leaf() -> impl Strategy<Value = Rewrite> {
    prop_oneof![
        Just(Rewrite::Direct),
        "[abc]".prop_map(Rewrite::Computed),
        "[ab]".prop_map(|computed| Rewrite::TupleToUserset { tupleset: "parent".to_owned(), computed }),
    ]
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    leaf().prop_recursive(3, 12, 3, |operand| {
        prop_oneof![
            prop::collection::vec(operand.clone(), 2..4).prop_map(Rewrite::Union),
            prop::collection::vec(operand.clone(), 2..4).prop_map(Rewrite::Intersection),
            (operand.clone(), operand).prop_map(|(base, subtract)| Rewrite::Difference {
                base: Box::new(base),
                subtract: Box::new(subtract)
            }),
        ]
    })
}

/// Returns a model whose type `doc` has the given relation.
fn with_relation(name: &str, rewrite: Rewrite) -> AuthorizationModel {
    let mut model = parse("model\n  schema 1.1\ntype user\ntype doc\n").expect("a model").model;
    let user = TypeRestriction { type_name: "user".to_owned(), kind: RestrictionKind::Object, condition: None };
    let directly_related = if rewrite.contains_direct() { vec![user] } else { Vec::new() };
    model.types[1].relations.push(RelationDefinition {
        name: name.to_owned(),
        rewrite,
        directly_related,
        source: None,
    });
    model
}

proptest! {
    /// A model from JSON is refused, or its text has the same meaning.
    #[test]
    fn a_text_means_the_model(rewrite in rewrite()) {
        let model = with_relation("r", rewrite.clone());
        match text(&model) {
            Err(_) => prop_assert!(!is_sayable(&rewrite)),
            Ok(text) => {
                prop_assert!(is_sayable(&rewrite));
                let read = parse(&text).expect("a model").model;
                let relation = &read.types[1].relations[0];
                prop_assert_eq!(&relation.directly_related, &model.types[1].relations[0].directly_related);
                let leaves: Vec<Rewrite> = rewrite.leaves().into_iter().cloned().collect();
                // This goes through every set of leaves that a user may be among.
                for set in 0_u32..1 << leaves.len().min(12) {
                    let among = leaves.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1).map(|(_, leaf)| leaf.clone());
                    let among: Vec<Rewrite> = among.collect();
                    prop_assert_eq!(holds(&relation.rewrite, &among), holds(&rewrite, &among), "{:?}", among);
                }
            }
        }
    }
}

#[test]
fn what_the_language_cannot_say_is_refused() {
    let difference = |base, subtract| Rewrite::Difference { base: Box::new(base), subtract: Box::new(subtract) };
    let a = || Rewrite::Computed("a".to_owned());
    let with_condition = |expression: &str, kind: ParameterType| {
        let mut model = with_relation("r", Rewrite::Direct);
        model.types[1].relations[0].directly_related[0].condition = Some("c".to_owned());
        let parameters = BTreeMap::from([("x".to_owned(), kind)]);
        let condition = Condition { expression: expression.to_owned(), parameters, source: None };
        model.conditions.insert("c".to_owned(), condition);
        model
    };
    let kind = |name: &str, element: Option<ParameterType>| ParameterType {
        name: name.to_owned(),
        element: element.map(Box::new),
    };
    let list = |element| kind("list", Some(element));
    let named = |name: &str| with_relation(name, Rewrite::Direct);
    let mut odd_type = named("r");
    odd_type.types[1].name = "dé".to_owned();
    let rows = [
        (
            "[…] is subtracted",
            with_relation("r", difference(a(), Rewrite::Direct)),
            Some("relation `r` of type `doc`: a but not [user]"),
        ),
        (
            "[…] comes twice",
            with_relation("r", Rewrite::Union(vec![Rewrite::Direct, Rewrite::Direct])),
            Some("relation `r`"),
        ),
        ("[…] comes second", with_relation("r", Rewrite::Union(vec![a(), Rewrite::Direct])), None),
        (
            "[…] within the base",
            with_relation("r", difference(Rewrite::Intersection(vec![a(), Rewrite::Direct]), a())),
            None,
        ),
        ("a relation that is a keyword", named("from"), Some("relation `from`")),
        ("a relation that begins with a digit", named("1st"), Some("relation `1st`")),
        ("a relation with a letter beyond ASCII", named("é"), Some("relation `é`")),
        ("a type with a letter beyond ASCII", odd_type, Some("the name of type `dé`")),
        ("a condition", with_condition("x == 1", kind("int", None)), None),
        ("a list", with_condition("x == [1]", list(kind("int", None))), None),
        ("a list of lists", with_condition("x == [[1]]", list(list(kind("int", None)))), Some("condition `c`")),
        ("an expression with a brace too many", with_condition("x == 1 }", kind("int", None)), Some("condition `c`")),
        ("an expression that is not closed", with_condition("x == 1 {", kind("int", None)), Some("condition `c`")),
        ("an expression with blanks around it", with_condition(" x == 1", kind("int", None)), Some("condition `c`")),
    ];
    for (row, model, refusal) in rows {
        match (text(&model), refusal) {
            (Ok(_), None) => {}
            (Ok(text), Some(_)) => panic!("{row}: taken as\n{text}"),
            (Err(refused), None) => panic!("{row}: {refused}"),
            (Err(refused), Some(words)) => assert!(refused.to_string().contains(words), "{row}: {refused}"),
        }
    }
}
