use super::*;

/// A store that scans the chunks of some guards, where a search of everything goes through an index.
const INDEXED: SearchCosts = SearchCosts { per_guard: 1.0 / 16.0, per_chunk: 1.0 / 32.0 };

const REMOTE_VECTOR: Situation = Situation {
    top_k: 10,
    needs_visible_set: false,
    guards: Some(617),
    visible: None,
    visible_share: None,
    pass_rate: None,
    chunks: 6_170,
    search_costs: INDEXED,
    checks_are_local: false,
    guards_checked_max: 1_000,
    candidates_max: 300,
};

#[test]
fn a_plan_follows_the_situation() {
    let remote = REMOTE_VECTOR;
    let text = Situation { needs_visible_set: true, ..remote };
    let local = Situation { checks_are_local: true, ..remote };
    let known = |visible| Situation { visible: Some(visible), ..remote };
    let many = Situation { guards: Some(1_001), ..remote };
    // Of 100,000 chunks, ten to a guard.
    let share = |visible| Situation { guards: Some(10_000), chunks: 100_000, candidates_max: 10_000, ..known(visible) };
    let rows: [(Situation, Result<&str, NoPlan>); 24] = [
        (remote, Ok("search_then_check")),
        (text, Ok("list_then_search")),
        (local, Ok("list_then_search")),
        (Situation { guards: Some(1_001), ..local }, Ok("search_then_check")),
        (Situation { guards: Some(1_001), ..text }, Err(NoPlan::TooManyGuards(1_001))),
        (Situation { guards: None, ..text }, Err(NoPlan::GuardsUnknown)),
        // What is known needs no limit on checks.
        (Situation { guards: Some(1_000_000), visible: Some(1_000_000), ..text }, Ok("visible_set_search")),
        (known(0), Ok("visible_set_search")),
        (known(6), Ok("visible_set_search")),
        // Nearly all is visible: a filter of 600 guards costs more than four candidates in vain.
        (known(600), Ok("search_then_check")),
        (Situation { search_costs: SearchCosts::FREE, ..known(600) }, Ok("visible_set_search")),
        // A scan of what is visible costs less than many candidates in vain, up to some share.
        (share(1), Ok("visible_set_search")),
        (share(500), Ok("visible_set_search")),
        (share(1_000), Ok("search_then_check")),
        (share(4_000), Ok("search_then_check")),
        (share(9_900), Ok("search_then_check")),
        // Where everything would be scanned as well, what is visible is less.
        (
            Situation { search_costs: SearchCosts { per_chunk: 0.0, ..INDEXED }, ..share(1_000) },
            Ok("visible_set_search"),
        ),
        // More candidates than one search may have.
        (Situation { candidates_max: 100, ..share(1_000) }, Ok("visible_set_search")),
        // What was found weighs more than the share of guards.
        (Situation { pass_rate: Some(0.02), ..share(1_000) }, Ok("visible_set_search")),
        // One in a hundred passes: more candidates than one search may have, or than there are guards.
        (Situation { pass_rate: Some(0.01), ..remote }, Ok("list_then_search")),
        (Situation { pass_rate: Some(0.01), guards: None, ..remote }, Ok("search_then_check")),
        (Situation { pass_rate: Some(0.01), ..many }, Ok("search_then_check")),
        (Situation { pass_rate: Some(0.9), ..remote }, Ok("search_then_check")),
        (Situation { guards: Some(5), ..remote }, Ok("list_then_search")),
    ];
    for (situation, expected) in rows {
        assert_eq!(choose(&situation).map(|plan| plan.name()), expected, "{situation:?}");
    }
}

#[test]
fn a_first_round_asks_for_what_the_share_makes_likely() {
    let rows = [
        (None, 16),
        (Some(1.0), 10),
        (Some(0.99), 11),
        (Some(0.9), 14),
        (Some(0.5), 29),
        (Some(0.1), 160),
        (Some(1e-9), 300),
    ];
    for (pass_rate, expected) in rows {
        let plan = choose(&Situation { guards: None, pass_rate, ..REMOTE_VECTOR }).expect("a plan");
        assert_eq!(plan.widening().first(), expected, "{pass_rate:?}");
    }
}

#[test]
fn rounds_widen_by_what_was_found_and_end() {
    let rounds = |first: usize, permitted: &dyn Fn(usize) -> usize| {
        let widening = Widening { first, candidates_max: 300 };
        let mut limits = vec![widening.first()];
        while let Some(limit) = limits.last().copied()
            && let Some(next) = widening.next(10, Found { limit, candidates: limit, permitted: permitted(limit) })
        {
            limits.push(next);
        }
        limits
    };
    // Nothing found: as wide as allowed.
    assert_eq!(rounds(16, &|_| 0), [16, 256, 300]);
    // One in eight: what that takes.
    assert_eq!(rounds(16, &|limit| limit / 8), [16, 128, 256, 300]);
    // Nearly enough: at least twice as many.
    assert_eq!(rounds(16, &|_| 9), [16, 32, 64, 128, 256, 300]);
    assert_eq!(rounds(300, &|_| 0), [300]);
    assert_eq!(rounds(1_000, &|_| 0), [300]);
}

/// A round of a search of everything that found so little, of 100,000 chunks under 10,000 guards of which 40 % are visible:
/// what the next one is. A scan of what is visible would compare 40,000 chunks with 4,000 guards.
#[test]
fn one_far_query_does_not_end_in_a_scan_of_nearly_everything() {
    let situation = Situation {
        guards: Some(10_000),
        visible: Some(4_000),
        visible_share: Some(0.4),
        chunks: 100_000,
        candidates_max: 10_000,
        ..REMOTE_VECTOR
    };
    let first = choose(&situation).expect("a plan");
    assert_eq!((first.name(), first.widening().first()), ("search_then_check", 38));
    let rows = [
        ("nothing near", 38, 0, "search_then_check", 608),
        ("one", 38, 1, "search_then_check", 608),
        ("a twelfth", 38, 3, "search_then_check", 204),
        ("nearly enough", 38, 9, "search_then_check", 76),
        ("still nothing: now the scan costs less", 608, 0, "visible_set_search", 10),
        ("one in a hundred", 608, 6, "visible_set_search", 10),
        ("one in fifty", 608, 12, "search_then_check", 1_216),
    ];
    for (name, limit, permitted, plan, candidates) in rows {
        let found = Found { limit, candidates: limit, permitted };
        let situation = Situation { pass_rate: found.pass_rate(), ..situation };
        let next = refill(first, &situation, found).map(|(plan, limit)| (plan.name(), limit));
        assert_eq!(next, Some((plan, candidates)), "{name}");
    }
}

#[test]
fn a_known_visible_set_tells_the_share_by_chunks_where_they_are_counted() {
    let known = Situation { visible: Some(4_000), guards: Some(10_000), ..REMOTE_VECTOR };
    let rows = [
        ("by guards", known, Some(0.4)),
        ("by chunks", Situation { visible_share: Some(0.7), ..known }, Some(0.7)),
        ("as this request found", Situation { visible_share: Some(0.7), pass_rate: Some(0.1), ..known }, Some(0.1)),
        ("unknown", Situation { visible: None, ..known }, None),
    ];
    for (name, situation, share) in rows {
        assert_eq!(estimate(&situation), share, "{name}");
    }
}
