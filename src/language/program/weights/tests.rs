use crate::language::dsl;

/// Returns `none` for a model without weights. Otherwise says how users are found along `relation` of `doc`, and
/// whether its `team#member` is read apart from other usersets.
fn way(types: &str) -> String {
    let text = format!("model\n  schema 1.1\ntype user\ntype team\n  relations\n    define member: [user]\n{types}");
    let model = dsl::load(&text).unwrap_or_else(|errors| panic!("{}", errors.picture(&text)));
    let program = model.program();
    let Some(weights) = program.weights() else { return "none".to_owned() };
    let relation = program.relation_id("doc", "relation").expect("known");
    let team = program.relation_id("team", "member").expect("known");
    let user = program.type_id("user").expect("known");
    let ways = [
        ("own usersets", weights.has_own_usersets(relation, user)),
        ("own parents", weights.has_own_parents(relation, user)),
        ("teams apart", weights.is_apart(relation, team, user)),
    ];
    ways.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(relations: &str, expected: &str) {
    let lines = relations.replace("; ", "\n    define ");
    assert_eq!(way(&format!("type doc\n  relations\n    define {lines}\n")), expected, "{relations}");
}

#[test]
fn usersets_that_one_level_decides_are_apart() {
    check("relation: [user]", "teams apart");
    check("relation: [user, team#member]", "teams apart");
    check("relation: [team#member, doc#other]; other: [user, team#member]", "teams apart");
    check("relation: [user, doc#relation]", "own usersets");
    check("relation: [user, doc#relation, team#member]", "");
    check("relation: [doc#other]; other: [user, doc#relation]", "");
}

#[test]
fn own_usersets_and_parents_are_the_only_way_that_is_not_flat() {
    let parent = "parent: [doc]; other: [user]";
    check(&format!("relation: [user] or relation from parent; {parent}"), "own parents");
    check(&format!("relation: [user] or other or relation from parent; {parent}"), "own parents");
    check(&format!("relation: ([user] but not other) or relation from parent; {parent}"), "own parents");
    check(&format!("relation: [user, team#member] or relation from parent; {parent}"), "");
    check(&format!("relation: [user, doc#relation] or relation from parent; {parent}"), "");
    check(&format!("relation: other or relation from parent or relation from above; above: [doc]; {parent}"), "");
    check(&format!("relation: [user] or further from parent; further: [user] or relation from parent; {parent}"), "");
}

#[test]
fn some_models_have_no_numbers() {
    let parent = "parent: [doc]; other: [user]";
    check(&format!("relation: ([user] or relation from parent) but not other; {parent}"), "none");
    check(&format!("relation: [user, doc#relation] and other; {parent}"), "none");
    check("relation: member from parent; parent: [doc, team]", "none");
    // The relation depends on one that is part of a cycle, and is not part of a cycle itself.
    check("relation: above but not other; above: [user, doc#above]; other: [user]", "teams apart");
}
