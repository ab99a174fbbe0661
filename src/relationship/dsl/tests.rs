use proptest::prelude::*;

use super::*;

/// Types `user`, `group` (with `member`) and `doc`, whose relations are given.
fn doc(relations: &str) -> String {
    format!(
        "model\n  schema 1.1\ntype user\ntype group\n  relations\n    define member: [user]\ntype doc\n  relations\n{relations}"
    )
}

/// The line of the first relation of [`doc`].
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
fn what_is_not_supported_yet_is_named() {
    let rows = [
        ("module core\ntype user\n", 1, 1, "modules"),
        ("model\n  schema 1.2\ntype user\n", 2, 10, "modules"),
        ("model\n  schema 1.1\nextend type user\n", 3, 1, "modules"),
    ];
    for (text, line, column, what) in rows {
        mistakes(text, &[(line, column, "not supported yet")]);
        assert_eq!(load(text).expect_err("mistakes").unsupported(), Some(what), "{text}");
    }
    assert_eq!(load("model\n  schema 3.0\n").expect_err("mistakes").unsupported(), None);
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
    let long = format!("model\n  schema 1.1\n{}", "#\n".repeat(MODEL_BYTES_MAX / 2));
    mistakes(&long, &[(1, 1, "at most 262144 are allowed")]);
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
                prop_assert!(!errors.errors().is_empty());
                prop_assert!(!errors.picture(&text).is_empty());
            }
        }
    }
}
