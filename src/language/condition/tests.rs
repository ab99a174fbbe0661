mod limits;
mod meaning;
mod pattern;
mod time;

use serde_json::json;

use super::*;
use crate::language::model::ParameterType;

fn condition(parameters: &[(&str, &str)], expression: &str) -> Condition {
    let parameter = |written: &str| {
        let (name, element) = written.split_once('<').unwrap_or((written, ""));
        let element = element.strip_suffix('>').map(|name| ParameterType { name: name.to_owned(), element: None });
        ParameterType { name: name.to_owned(), element: element.map(Box::new) }
    };
    let parameters = parameters.iter().map(|(name, written)| ((*name).to_owned(), parameter(written)));
    Condition { expression: expression.to_owned(), parameters: parameters.collect(), source: None }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("{value} is no object") };
    object
}

/// Checks the answer of an expression over one parameter `x`, whose value the request brings.
#[track_caller]
fn check(name: &str, parameter: &str, expression: &str, x: &Value, expected: &str) {
    let compiled = CompiledCondition::compile("c", &condition(&[("x", parameter)], expression));
    let compiled = compiled.unwrap_or_else(|e| panic!("{name}: {expression}: {e}"));
    let answer = compiled.is_met(&TypedContext::new(), &object(json!({ "x": x })));
    let shown = answer.map_or_else(|e| e.to_string(), |met| met.to_string());
    let x: String = x.to_string().chars().take(100).collect();
    assert!(shown.contains(expected), "{name}: {expression} with {x}: {shown}, expected {expected}");
}

/// Checks that an expression over one parameter `x` is refused with the model.
#[track_caller]
fn refused(name: &str, parameter: &str, expression: &str) {
    let compiled = CompiledCondition::compile("c", &condition(&[("x", parameter)], expression));
    assert!(compiled.is_err(), "{name}: {expression}");
}

#[test]
fn values_are_converted_as_openfga_does() {
    let rows = [
        ("int", "x == 10", json!(10), "true"),
        ("int", "x == 10", json!(10.0), "true"),
        ("int", "x == 10", json!("10"), "true"),
        ("int", "x == 9223372036854775807", json!("9223372036854775807"), "true"),
        ("int", "x == 9007199254740993", json!("9007199254740993.0"), "true"),
        ("int", "x == -9007199254740993", json!("-9007199254740993e0"), "true"),
        ("int", "x == 0", json!("0.00e5"), "true"),
        ("int", "x == 0", json!("-0.0"), "true"),
        ("int", "x == 0", json!("1e-400"), "expected an int"),
        ("int", "x == 0", json!(format!("0.{}1", "0".repeat(400))), "expected an int"),
        ("int", "x == 1", json!("0.99999999999999999999"), "true"),
        ("int", "x == 1", json!("0.9999999999999999999"), "expected an int"),
        ("int", "x == 1", json!("1.00000000000000000005"), "true"),
        ("int", "x == 1", json!("1.0000000000000000001"), "expected an int"),
        ("int", "x == -1", json!(format!("-1.{}1", "0".repeat(60))), "true"),
        ("int", "x == 4611686018427387905", json!("4611686018427387904.75"), "true"),
        ("int", "x == 4611686018427387904", json!("4611686018427387904.5"), "expected an int"),
        ("int", "x == 9223372036854775807", json!("9223372036854775807.75"), "true"),
        ("int", "x == 9223372036854775807", json!("18446744073709551616.5"), "true"),
        ("int", "x == -9223372036854775807 - 1", json!("-1e30"), "true"),
        ("int", "x > 0", json!("1e9999999999"), "expected an int"),
        ("int", "x < 0", json!("-1e99999999999999999999"), "expected an int"),
        ("int", "x > 0", json!("1e600000000"), "true"),
        ("ipaddress", "x.in_cidr('10.0.0.0/8')", json!("::ffff:10.1.2.3%eth0"), "true"),
        ("ipaddress", "x.in_cidr('::/0')", json!("fe80::1%eth0"), "false"),
        ("int", "x == 9223372036854775807", json!("1e30"), "true"),
        ("int", "x == 10", json!(10.5), "expected an int, found `10.5`"),
        ("int", "x == 10", json!("ten"), "found the string `ten`"),
        ("int", "x == 10", json!(null), "found null"),
        ("uint", "x == 3u", json!(3), "true"),
        ("uint", "x == 3u", json!(-3), "expected a uint"),
        ("double", "x == 0.1", json!(0.1), "true"),
        ("double", "x == 0.5", json!("0.50"), "true"),
        ("double", "x == 0.1", json!("0.1"), "expected a double"),
        ("bool", "x", json!(true), "true"),
        ("bool", "x", json!("true"), "expected a bool"),
        ("string", "x == '1'", json!("1"), "true"),
        ("string", "x == '1'", json!(1), "expected a string"),
        ("duration", "x == duration('90m')", json!("1h30m"), "true"),
        ("duration", "x < duration('0s')", json!("-1.5h"), "true"),
        ("duration", "x == duration('0s')", json!("90"), "expected a duration"),
        ("timestamp", "x < timestamp('2024-01-02T00:00:00Z')", json!("2024-01-01T23:00:00-00:30"), "true"),
        ("timestamp", "x.getFullYear() == 2024", json!("2024-05-06T07:08:09Z"), "true"),
        ("timestamp", "x.getFullYear() == 2024", json!("2024-05-06"), "expected a timestamp"),
        ("list<string>", "'b' in x", json!(["a", "b"]), "true"),
        ("list<int>", "x.exists(y, y > 1)", json!([1, "2"]), "true"),
        ("list<int>", "x.all(y, y > 1)", json!([1, "b"]), "item 1: expected an int"),
        ("map<int>", "x.a == 1 && x['b'] == 2", json!({"a": 1, "b": "2"}), "true"),
        ("map<int>", "x.a == 1", json!({"b": 2}), "failed"),
        ("map<int>", "has(x.a)", json!({"b": 2}), "false"),
        ("any", "x == 'a'", json!("a"), "true"),
        ("any", "x.size() == 2", json!([1, "a"]), "true"),
        ("int", "1 / x == 1", json!(0), "failed"),
        ("int", "x == 0 || 1 / x == 1", json!(0), "true"),
        ("int", "1 / x == 1 || x == 0", json!(0), "true"),
    ];
    for (parameter, expression, x, expected) in rows {
        check(expression, parameter, expression, &x, expected);
    }
}

#[test]
fn addresses_are_in_networks() {
    let rows = [
        ("192.168.0.1", "192.168.0.0/24", "true"),
        ("192.168.1.1", "192.168.0.0/24", "false"),
        ("1.2.3.4", "0.0.0.0/0", "true"),
        ("1.2.3.4", "1.2.3.4/32", "true"),
        ("2001:db8::1", "2001:db8::/32", "true"),
        ("2001:db9::1", "2001:db8::/32", "false"),
        ("2001:db8::1", "0.0.0.0/0", "false"),
        ("10.0.0.1", "10.0.0.0/33", "not a network"),
        ("10.0.0.1", "10.0.0.0", "not a network"),
        ("10.0.0.1", "10.0.0.0/08", "not a network"),
        ("10.0.0", "10.0.0.0/8", "not an IP address"),
    ];
    for (address, network, expected) in rows {
        check(address, "ipaddress", &format!("x.in_cidr('{network}')"), &json!(address), expected);
        check(address, "string", &format!("ipaddress(x).in_cidr('{network}')"), &json!(address), expected);
    }
}

#[test]
fn mistakes_are_found_when_a_model_is_written() {
    let rows = [
        ("x", "the expression must be a bool, but it is a int"),
        ("x + 1", "must be a bool"),
        ("y == 1", "`y` is not a parameter"),
        ("x == 'a'", "for (int, string)"),
        ("x == 1.0", "for (int, double)"),
        ("x < 1.0", "for (int, double)"),
        ("x < 1 && x", "for (bool, int)"),
        ("x.size() == 1", "no method or operator `size` for (int)"),
        ("nothing(x)", "no function or operator `nothing`"),
        ("x < 1u", "for (int, uint)"),
        ("x.name == 1", "a int has no field `name`"),
        ("[1].all(y, y)", "for (bool, int)"),
        ("[1].exists(y, z == 1)", "`z` is not a parameter"),
        ("x == ", "cannot be compiled"),
        ("", "cannot be compiled"),
        ("x.in_cidr('10.0.0.0/8')", "`in_cidr` for (int, string)"),
        ("dyn(true)", "must be a bool, but it is a dyn"),
        ("x == int('1.5')", "cannot be compiled"),
        ("string(x).matches('(')", "cannot be compiled"),
        ("x.?a == 1", "cannot be compiled"),
        ("[true][0] ? x : true", "for (bool, int, bool)"),
    ];
    for (expression, expected) in rows {
        let refused = CompiledCondition::compile("c", &condition(&[("x", "int")], expression)).expect_err(expression);
        assert!(refused.to_string().contains(expected), "{expression}: {refused}");
        assert!(refused.to_string().contains("condition `c`"), "{refused}");
    }
    for (parameter, expected) in [("list", "needs the type of its elements"), ("int<int>", "has no elements")] {
        let refused = CompiledCondition::compile("c", &condition(&[("x", parameter)], "true")).expect_err(parameter);
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    let unused =
        condition(&[("x", "int"), ("y", "list<any>")], "x > 0 ? size(string(x)) == 1 : [1, 2].map(z, z * x) == [x]");
    CompiledCondition::compile("c", &unused).expect("a parameter need not be used");
}

#[test]
fn every_parameter_needs_a_value_and_the_tuple_wins() {
    let both = condition(&[("x", "int"), ("y", "int")], "x == 1 || y == 1");
    let compiled = CompiledCondition::compile("c", &both).expect("compiled");
    let rows = [
        (json!({"x": 1}), json!({"y": 5}), "true"),
        (json!({"x": 2, "y": 2}), json!({"x": 1, "y": 1}), "false"),
        (json!({"x": 1}), json!({"x": "no number", "y": 0}), "true"),
        (json!({"x": 1}), json!({"y": "no number"}), "parameter `y`: expected an int"),
        // A value is missing even if the rest of the expression decides.
        (json!({"x": 1}), json!({"z": 1}), "no value for `y`"),
        (json!({}), json!({}), "no value for `x`, `y`"),
    ];
    for (tuple, request, expected) in rows {
        let tuple = compiled.tuple_context(&object(tuple)).expect("typed");
        let shown = compiled.is_met(&tuple, &object(request.clone()));
        let shown = shown.map_or_else(|e| e.to_string(), |met| met.to_string());
        assert!(shown.contains(expected), "{request}: {shown}, expected {expected}");
    }
    for (tuple, expected) in [(json!({"z": 1}), "no parameter `z`"), (json!({"x": "a"}), "parameter `x`")] {
        let refused = compiled.tuple_context(&object(tuple)).expect_err(expected).to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn hostile_expressions_and_values_are_bounded() {
    let deep = format!("{}x == 1{}", "(".repeat(10_000), ")".repeat(10_000));
    let lists = format!("{}{} == x", "[".repeat(10_000), "]".repeat(10_000));
    let nots = format!("{}true", "!".repeat(10_001));
    let chain = format!("x{} == 1", " + 1".repeat(3_000));
    let ternary = format!("{}true", "x == 1 ? true : ".repeat(1_000));
    let long = format!("x == 1 || '{}' == ''", "a".repeat(EXPRESSION_BYTES_MAX));
    for expression in [deep, lists, nots, chain, ternary, long] {
        CompiledCondition::compile("c", &condition(&[("x", "int")], &expression))
            .expect_err(&expression.chars().take(40).collect::<String>());
    }
    let wide = format!("x == 0{}", " || x == 1".repeat(40));
    check("wide", "int", &wide, &json!(1), "true");
    let items: Vec<u32> = (0..1_000).collect();
    check("nested", "list<int>", "x.all(y, x.all(z, x.all(w, w >= 0)))", &json!(items), "costs more than 100");
    // An evaluation that costs too much fails, even where an error would be absorbed.
    check("absorbed", "list<int>", "x.all(y, y >= 0) || true", &json!(items), "costs more than 100");
    check("early", "list<int>", "x.exists(y, y == 3)", &json!(items), "true");
}
