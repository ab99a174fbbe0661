use serde_json::json;

use super::{check, refused};

#[test]
fn exists_and_all_pass_over_errors_where_another_element_decides() {
    let tags = r#"{"q": "open", "r": "shut"}"#;
    let x = json!({ "tags": serde_json::from_str::<serde_json::Value>(tags).expect("JSON"), "keys": ["p", "q"] });
    let rows = [
        ("a later true wins", "x.keys.exists(k, x.tags[k] == 'open')", "true"),
        ("no true wins", "x.keys.exists(k, x.tags[k] == 'shut')", "no such field"),
        ("a later false wins", "x.keys.all(k, x.tags[k] == 'shut')", "false"),
        ("no false wins", "x.keys.all(k, x.tags[k] == 'open')", "no such field"),
        ("an earlier true ends it", "['q', 'p'].exists(k, x.tags[k] == 'open')", "true"),
        ("nothing is passed over by exists_one", "x.keys.exists_one(k, x.tags[k] == 'open')", "no such field"),
        ("nor by filter", "x.keys.filter(k, x.tags[k] == 'open').size() == 1", "no such field"),
        ("nor by map", "x.keys.map(k, x.tags[k]).size() == 2", "no such field"),
        ("outside another", "x.keys.exists(k, x.keys.all(j, x.tags[k] == 'open'))", "true"),
        ("what is no bool is an error", "[1, true].exists(k, dyn(k))", "true"),
        ("or after an error", "x.tags.p == 'a' || true", "true"),
        ("or before an error", "true || x.tags.p == 'a'", "true"),
        ("or that decides nothing", "x.tags.p == 'a' || false", "no such field"),
        ("and after an error", "x.tags.p == 'a' && false", "false"),
        ("and that decides nothing", "x.tags.p == 'a' && true", "no such field"),
        ("an alternative takes one way", "true ? true : x.tags.p == 'a'", "true"),
        ("an alternative passes over nothing", "x.tags.p == 'a' ? true : true", "no such field"),
    ];
    for (name, expression, expected) in rows {
        check(name, "any", expression, &x, expected);
    }
}

#[test]
fn doubles_are_written_and_read_as_in_go() {
    let written = [
        ("1000000.0", "1e+06"),
        ("100000.0", "100000"),
        ("0.00001", "1e-05"),
        ("0.0001", "0.0001"),
        ("123456.7", "123456.7"),
        ("1234567.8", "1.2345678e+06"),
        ("1.0", "1"),
        ("-2.5", "-2.5"),
        ("1e100", "1e+100"),
        ("1.0/0.0", "+Inf"),
        ("-1.0/0.0", "-Inf"),
        ("0.0/0.0", "NaN"),
        ("-0.0", "-0"),
        ("1e21", "1e+21"),
    ];
    for (number, text) in written {
        check(
            number,
            "int",
            &format!("string({number} + 0.0 * 0.0) == '{text}' || string({number}) == '{text}'"),
            &json!(1),
            "true",
        );
    }
    let read = [
        ("1e3", "1000.0"),
        ("+5", "5.0"),
        (".5", "0.5"),
        ("5.", "5.0"),
        ("0x1p-2", "0.25"),
        ("0x_1_0p4", "256.0"),
        ("0X.8P1", "1.0"),
        ("Inf", "1.0 / 0.0"),
        ("-infinity", "-1.0 / 0.0"),
        ("1e-400", "0.0"),
        ("0x1p-1074", "5e-324"),
        ("0x1.fffffffffffff8p0", "2.0"),
        ("1_0.2_5", "10.25"),
    ];
    for (text, number) in read {
        check(text, "string", &format!("double(x) == {number}"), &json!(text), "true");
    }
    check("NaN", "string", "double(x) != double(x)", &json!("nan"), "true");
    for text in [
        "",
        "1e400",
        "1__0",
        "_1",
        "1_",
        "1_.5",
        "0x1",
        "-nan",
        "1.2.3",
        "e5",
        "0x1_p4",
        "0x1p",
        "1 ",
        "0x1p1_",
        "0x1p99999",
        ".",
        "+",
    ] {
        check(text, "string", "double(x) == 1.0", &json!(text), "not converted");
    }
}

#[test]
fn conversions_take_what_go_takes() {
    let rows = [
        ("a sign before an int", "string", "int(x) == 5", json!("+5"), "true"),
        ("no sign before a uint", "string", "uint(x) == 5u", json!("+5"), "not converted"),
        ("white space", "string", "int(x) == 5", json!(" 5"), "not converted"),
        ("the least int", "string", "int(x) < 0", json!("-9223372036854775808"), "true"),
        ("a truth", "string", "bool(x)", json!("T"), "true"),
        ("no truth", "string", "bool(x)", json!("yes"), "not converted"),
        ("decimals are cut", "double", "int(x) == -1", json!(-1.9), "true"),
        (
            "the least int as a double is out of range",
            "double",
            "int(x) < 0",
            json!(-9_223_372_036_854_775_808.0),
            "not converted",
        ),
        ("a negative uint", "double", "uint(x) == 0u", json!(-0.5), "not converted"),
        ("bytes and back", "string", "string(bytes(x)) == x", json!("josé"), "true"),
        ("bytes that are no text", "string", "string(bytes(x) + b'\\xff') == x", json!("a"), "not converted"),
        ("the size of a text is in characters", "string", "size(x) == 4 && size(bytes(x)) == 5", json!("josé"), "true"),
        (
            "an element of what is unknown is a text if it may be",
            "any",
            "string({'a': x}['a']) == '1'",
            json!(1),
            "true",
        ),
        (
            "a field of what is unknown is a text if it may be",
            "any",
            "string(x['a']) == '1'",
            json!({"a": 1}),
            "no such overload",
        ),
        ("but it may be asked what it is", "any", "string(dyn(x['a'])) == '1'", json!({"a": 1}), "true"),
        ("a type", "any", "type(x) == double && type(type(x)) == type", json!(1), "true"),
        (
            "the type of a timestamp",
            "timestamp",
            "type(x) == google.protobuf.Timestamp",
            json!("2024-01-01T00:00:00Z"),
            "true",
        ),
    ];
    for (name, parameter, expression, x, expected) in rows {
        check(name, parameter, expression, &x, expected);
    }
}

#[test]
fn values_of_different_types_are_compared_as_in_go() {
    let rows = [
        ("numbers are equal as numbers", "dyn(1) == dyn(1.0) && dyn(1u) == dyn(1)", "true"),
        ("numbers have an order", "dyn(1) < dyn(1.5) && dyn(2u) > dyn(1.5) && dyn(-1) < dyn(1u)", "true"),
        ("a text is no number", "dyn('1') == dyn(1)", "false"),
        ("a text and a number have no order", "dyn('1') < dyn(1)", "no such overload"),
        ("null is null", "dyn(null) == dyn(null) && dyn(null) != dyn(0)", "true"),
        ("what is no number equals nothing", "0.0 / 0.0 == 0.0 / 0.0", "false"),
        ("and has no order", "0.0 / 0.0 < 1.0 || 0.0 / 0.0 >= 1.0", "false"),
        (
            "an address is no operand, and nothing passes over that",
            "dyn(ipaddress('::1')) < dyn(1) || true",
            "no operand",
        ),
        ("lists", "dyn([1, 2]) == dyn([1.0, 2u])", "true"),
        ("maps", "dyn({1: 'a'}) == dyn({1u: 'a'})", "true"),
        ("addresses are only compared with addresses", "dyn(ipaddress('::1')) == dyn(1)", "no such overload"),
        ("but are unequal to all else", "dyn(ipaddress('::1')) != dyn(1)", "true"),
        ("a key of another type of number", "{1: 'a'}[dyn(1u)] == 'a' && {1: 'a'}[dyn(1.0)] == 'a'", "true"),
        ("an index that is a double", "[5][dyn(0.0)] == 5", "true"),
        ("an index with decimals", "[5][dyn(0.5)] == 5", "is no index"),
        ("a negative index", "[5][-1] == 5", "no such field or element"),
        ("in a list of constants, as a number", "dyn(1.0) in [1, 2]", "true"),
        ("two to the power of 53 and one, as a double", "9007199254740993.0 in [9007199254740992.0]", "true"),
        ("a field of a list", "has(dyn([1]).a)", "is no index"),
        ("a field of a number", "has(dyn(1).a)", "false"),
        ("keys that are equal are one", "{1: 'a', 1: 'b'}[1] == 'b' && size({1: 'a', 1: 'b'}) == 1", "true"),
        ("keys of two types are two", "size({1: 'a', 1u: 'b'}) == 2", "true"),
        (
            "bytes are no key, and nothing passes over that",
            "dyn(bytes(string(x))) in {'a': 1} || true",
            "bytes are no key",
        ),
        ("overflow", "9223372036854775807 + x > 0", "out of range"),
        ("overflow of a product", "9223372036854775807 * (x + 1) > 0", "out of range"),
        ("the least int by minus one", "(-9223372036854775807 - x) / -1 > 0", "out of range"),
        ("a remainder by zero", "1 % (x - 1) == 0", "out of range"),
        ("below zero", "1u - uint(x + 1) == 0u", "out of range"),
    ];
    for (name, expression, expected) in rows {
        check(name, "int", expression, &json!(1), expected);
    }
}

#[test]
fn what_is_known_with_the_model_is_refused_with_it() {
    let rows = [
        ("a conversion that fails", "x == int('a')"),
        ("a date that is none", "timestamp('2024-02-30T00:00:00Z') > timestamp(x)"),
        ("a number that is out of range", "x == int(1e30)"),
        ("an index that is none", "dyn([1])[null] == x"),
        ("a method of another language", "[x].existsOne(i, i == 1)"),
        ("the same with white space", "[x] . existsOne (i, i == 1)"),
        ("an order of an int and a uint", "x < 1u"),
        ("a variable that is a type", "[int, string].exists(t, t == type(x))"),
        ("the opposite of a duration", "-duration('1s') < duration('0s')"),
        ("a list as a truth", "[true]"),
        ("three arguments", "x.size(1, 2) == 1"),
    ];
    for (name, expression) in rows {
        refused(name, "int", expression);
    }
    check("a name in a text is no call", "string", "x != '.existsOne(' // .existsOne(", &json!("a"), "true");
    check("a field of that name", "map<int>", "x.existsOne == 1", &json!({ "existsOne": 1 }), "true");
    check("lists of different elements", "int", "[x, 'a', null][0] == x", &json!(1), "true");
}
