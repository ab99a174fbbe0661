use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use super::from_str;

/// Each row has a scalar and its value in a context; `None` means that it is refused.
#[test]
fn a_scalar_is_what_it_is_for_go() {
    let rows: Vec<(&str, Option<Json>)> = vec![
        ("yes", Some(json!("yes"))),
        ("No", Some(json!("No"))),
        ("on", Some(json!("on"))),
        ("OFF", Some(json!("OFF"))),
        ("y", Some(json!("y"))),
        ("n", Some(json!("n"))),
        ("true", Some(json!(true))),
        ("False", Some(json!(false))),
        ("tRUE", Some(json!("tRUE"))),
        ("'true'", Some(json!("true"))),
        ("~", Some(json!(null))),
        ("Null", Some(json!(null))),
        ("nULL", Some(json!("nULL"))),
        ("''", Some(json!(""))),
        ("1", Some(json!(1))),
        ("+1", Some(json!(1))),
        ("-0x1F", Some(json!(-31))),
        ("0b101", Some(json!(5))),
        ("0o17", Some(json!(15))),
        ("017", Some(json!(15))),
        ("-017", Some(json!(-15))),
        ("08", Some(json!(8.0))),
        ("1_000", Some(json!(1000))),
        ("18446744073709551615", Some(json!(18_446_744_073_709_551_615_u64))),
        ("18446744073709551616", Some(json!(18_446_744_073_709_551_616_f64))),
        ("1e3", Some(json!(1000.0))),
        (".5", Some(json!(0.5))),
        ("5.", Some(json!(5.0))),
        ("1e", Some(json!("1e"))),
        ("+-1", Some(json!("+-1"))),
        ("0x", Some(json!("0x"))),
        ("1:30", Some(json!("1:30"))),
        ("inf", Some(json!("inf"))),
        (".inf", None),
        ("-.INF", None),
        (".nan", None),
        ("1e999", Some(json!("1e999"))),
        ("2024-01-31", None),
        ("2024-1-3", None),
        ("2024-01-31T10:00:00Z", None),
        ("2024-01-31t10:00:00.5+09:00", None),
        ("2024-01-31 10:00:00", None),
        ("2024-13-31", Some(json!("2024-13-31"))),
        ("2024-01-31T10:00:00", Some(json!("2024-01-31T10:00:00"))),
        ("'2024-01-31'", Some(json!("2024-01-31"))),
        ("!!str 2024-01-31", Some(json!("2024-01-31"))),
        ("!!str 5", Some(json!("5"))),
        ("!!float 5", Some(json!(5))),
        ("!!int five", None),
        ("!!bool yes", None),
        ("!!binary eWVz", Some(json!("yes"))),
        ("!local 5", Some(json!("5"))),
        ("[~, 1]", Some(json!([null, 1]))),
        ("{a: {b: yes}}", Some(json!({"a": {"b": "yes"}}))),
        ("{1: x}", None),
        ("{'1': x}", Some(json!({"1": "x"}))),
    ];
    for (scalar, expected) in rows {
        let read: Result<Map<String, Json>, _> = from_str(&format!("v: {scalar}\n"));
        assert_eq!(read.ok().and_then(|mut map| map.remove("v")), expected, "{scalar}");
    }
}

#[test]
fn a_field_reads_a_scalar_as_its_type() {
    let bools: Vec<(&str, Option<bool>)> = vec![
        ("yes", Some(true)),
        ("'on'", Some(true)),
        ("N", Some(false)),
        ("TRUE", Some(true)),
        ("'true'", None),
        ("1", None),
    ];
    for (scalar, expected) in bools {
        let read: Result<BTreeMap<String, bool>, _> = from_str(&format!("v: {scalar}\n"));
        assert_eq!(read.ok().and_then(|map| map.get("v").copied()), expected, "{scalar}");
    }
    let texts = [("1", "1"), ("true", "true"), ("2024-01-01", "2024-01-01"), ("~", ""), ("0x10", "0x10"), ("'~'", "~")];
    for (scalar, expected) in texts {
        let read: BTreeMap<String, String> = from_str(&format!("v: {scalar}\n")).expect(scalar);
        assert_eq!(read.get("v").map(String::as_str), Some(expected), "{scalar}");
    }
}

#[test]
fn documents_and_aliases_are_bounded() {
    let merged: BTreeMap<String, BTreeMap<String, String>> =
        from_str("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{y: 4}, *a]}\n").expect("merged");
    assert_eq!(json!(merged["b"]), json!({"x": "1", "y": "3"}));
    assert_eq!(json!(merged["c"]), json!({"x": "1", "y": "4"}));
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    let mut laughs = "a0: &a0 [x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let repeated = vec![format!("*a{before}"); 10].join(", ");
        writeln!(laughs, "a{level}: &a{level} [{repeated}]").expect("written");
    }
    let rows = [
        ("nothing", "", "line 1: the file is empty"),
        ("a second document", "a: 1\n---\nb: 2\n", "line 3: a second document"),
        ("a broken second document", "a: 1\n---\n[\n", "line 3"),
        ("a name twice", "a: 1\nb: 2\na: 3\n", "line 3: `a` occurs twice"),
        ("deep", deep.as_str(), "nested more than 100 deep"),
        ("aliases of aliases", laughs.as_str(), "aliases repeat more than 1000000 nodes"),
        ("itself", "a: &a [*a]\n", "line 1"),
        ("no anchor", "a: *b\n", "line 1"),
        ("a merged list", "a: {<<: [1]}\n", "`<<` takes mappings only"),
    ];
    for (name, text, expected) in rows {
        let error = from_str::<Map<String, Json>>(text).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    for (name, text) in
        [("an empty second document", "a: 1\n---\n"), ("an end", "a: 1\n...\n"), ("a beginning", "---\na: 1\n")]
    {
        assert!(from_str::<Map<String, Json>>(text).is_ok(), "{name}");
    }
}
