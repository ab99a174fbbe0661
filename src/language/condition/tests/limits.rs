use serde_json::json;

use super::check;

const COSTLY: &str = "costs more than 100";

/// Each figure is the cost at which CEL in Go stops.
#[test]
fn an_evaluation_costs_what_it_costs_in_go() {
    let text = |length: usize| json!("a".repeat(length));
    let list = |length: usize| json!(vec![1; length]);
    let rows = [
        ("equal texts", "string", "x == x", text(980), "true"),
        ("longer equal texts", "string", "x == x", text(981), COSTLY),
        ("a short text and a long one", "string", "x == 'a'", text(100_000), "false"),
        ("characters, not bytes", "string", "x == x", json!("é".repeat(980)), "true"),
        ("a begin", "string", "x.startsWith(x)", text(980), "true"),
        ("a longer begin", "string", "x.startsWith(x)", text(981), COSTLY),
        ("an end", "string", "x.endsWith(x)", text(981), COSTLY),
        ("an end of one character", "string", "x.endsWith('a')", text(100_000), "true"),
        ("a part", "string", "x.contains('a')", text(990), "true"),
        ("a part of a longer text", "string", "x.contains('a')", text(991), COSTLY),
        ("a longer part", "string", "x.contains('aaaaaaaaaaa')", text(490), "true"),
        ("a longer part of a longer text", "string", "x.contains('aaaaaaaaaaa')", text(500), COSTLY),
        ("a pattern", "string", "x.matches('aaaa')", text(989), "true"),
        ("a pattern with a longer text", "string", "x.matches('aaaa')", text(990), COSTLY),
        ("a longer pattern", "string", "x.matches('aaaaa')", text(489), "true"),
        ("a longer pattern with a longer text", "string", "x.matches('aaaaa')", text(490), COSTLY),
        ("a sum of texts", "string", "(x + x).size() > 1", text(480), "true"),
        ("a longer sum of texts", "string", "(x + x).size() > 1", text(490), COSTLY),
        ("an order", "string", "x < x", text(980), "false"),
        ("an order of longer texts", "string", "x < x", text(981), COSTLY),
        ("bytes", "string", "bytes(x) == b''", text(990), "false"),
        ("more bytes", "string", "bytes(x) == b''", text(991), COSTLY),
        ("equal lists", "list<int>", "x == x", list(980), "true"),
        ("longer equal lists", "list<int>", "x == x", list(981), COSTLY),
        ("a list in a list", "list<int>", "[x] == [x]", list(1_000), "true"),
        ("an element", "list<int>", "2 in x", list(99), "false"),
        ("an element of a longer list", "list<int>", "2 in x", list(100), COSTLY),
        ("an element of constants costs nothing", "int", "x in [1, 2, 3]", json!(4), "false"),
        ("a sum of lists", "list<int>", "(x + x).size() == 20000", list(10_000), "true"),
        ("every element", "list<int>", "x.all(i, i == 1)", list(16), "true"),
        ("every element of a longer list", "list<int>", "x.all(i, i == 1)", list(25), COSTLY),
        ("the first element", "list<int>", "x.exists(i, i == 1)", list(1_000), "true"),
        ("a filter", "list<int>", "x.filter(i, i > 1).size() == 0", list(48), "true"),
        ("a filter of a longer list", "list<int>", "x.filter(i, i > 1).size() == 0", list(49), COSTLY),
        ("nobody passes over it", "list<int>", "x.all(i, i == 1) || true", list(1_000), COSTLY),
        ("nobody passes over it in a list", "list<int>", "x.exists(i, x.all(j, j == 1))", list(1_000), COSTLY),
        (
            "an error before the second argument costs nothing",
            "list<int>",
            "x[5] == x[0] || x[6] == x[0] || true",
            list(1),
            "true",
        ),
    ];
    for (name, parameter, expression, x, expected) in rows {
        check(name, parameter, expression, &x, expected);
    }
}

#[test]
fn values_cannot_grow_without_a_bound() {
    let doubling = |element: &str| {
        format!(
            "[{element}].all(a, [a + a + a + a + a].all(b, [b + b + b + b + b].all(c, [c + c + c + c + c].all(d, d != [] ))))"
        )
    };
    let long = json!("s".repeat(1_000_000));
    check("texts", "string", "[x + x + x + x + x].all(a, [a + a + a + a + a].all(b, b != ''))", &long, COSTLY);
    let items = json!(vec![1; 100_000]);
    check("lists", "list<int>", &doubling("x"), &items, "more than 33554432 bytes");
    let texts = json!(vec!["s".repeat(1_000); 5_000]);
    check(
        "lists of lists",
        "list<string>",
        "[[x + x] == [x + x], [x + x] == [x + x], [x + x] == [x + x]] == [true]",
        &texts,
        "false",
    );
    let compared = "[x] == [x] && [x] == [x] && [x] == [x] && [x] == [x]";
    check(
        "comparisons of what is long",
        "list<string>",
        compared,
        &json!(vec!["s".repeat(2_000); 5_000]),
        "more than 33554432 bytes",
    );
    check(
        "a loop whose rounds cost nothing",
        "list<int>",
        "[x + x + x + x + x].all(a, a.exists_one(i, false))",
        &items,
        "more than 33554432 bytes",
    );
    check(
        "nobody passes over it",
        "list<int>",
        &format!("{} || true", doubling("x")),
        &items,
        "more than 33554432 bytes",
    );
}

#[test]
fn a_deep_expression_is_evaluated() {
    let deep = format!("{}x == 1{}", "!(".repeat(100), ")".repeat(100));
    check("a hundred negations", "int", &deep, &json!(1), COSTLY);
    let chain = format!("x{} == 41", " + 1".repeat(40));
    check("a chain of sums", "int", &chain, &json!(1), "true");
    let indexes = format!("{}x{} == 1", "[".repeat(90), "][0]".repeat(90));
    check("lists in lists", "int", &indexes, &json!(1), COSTLY);
}
