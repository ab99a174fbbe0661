use super::*;

/// The costs of a store that scans the chunks of some guards, and uses an index for a search of everything.
const INDEXED: SearchCosts = SearchCosts { per_guard: 1.0 / 16.0, per_chunk: 1.0 / 32.0 };

const REMOTE_VECTOR: Situation = Situation {
    page_size: 10,
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
    use Plan::{ListThenSearch, SearchThenCheck, VisibleSetSearch};
    let remote = REMOTE_VECTOR;
    let text = Situation { needs_visible_set: true, ..remote };
    let local = Situation { checks_are_local: true, ..remote };
    let known = |visible| Situation { visible: Some(visible), ..remote };
    let many = Situation { guards: Some(1_001), ..remote };
    // A collection of 100,000 chunks, ten to a guard.
    let share = |visible| Situation { guards: Some(10_000), chunks: 100_000, candidates_max: 10_000, ..known(visible) };
    let rows: [(&str, Situation, Result<Plan, NoPlan>); 24] = [
        ("a vector, a server decides", remote, Ok(SearchThenCheck)),
        ("a text", text, Ok(ListThenSearch)),
        ("checks are local", local, Ok(ListThenSearch)),
        ("local, too many guards to check", Situation { guards: Some(1_001), ..local }, Ok(SearchThenCheck)),
        (
            "a text, too many guards to check",
            Situation { guards: Some(1_001), ..text },
            Err(NoPlan::TooManyGuards(1_001)),
        ),
        ("a text, guards unknown", Situation { guards: None, ..text }, Err(NoPlan::GuardsUnknown)),
        (
            "a text, what is known needs no limit on checks",
            Situation { guards: Some(1_000_000), visible: Some(1_000_000), ..text },
            Ok(VisibleSetSearch),
        ),
        ("nothing is visible", known(0), Ok(VisibleSetSearch)),
        ("one in a hundred is visible", known(6), Ok(VisibleSetSearch)),
        ("a filter of 600 guards costs more than four candidates in vain", known(600), Ok(SearchThenCheck)),
        (
            "a visible set costs nothing",
            Situation { search_costs: SearchCosts::FREE, ..known(600) },
            Ok(VisibleSetSearch),
        ),
        ("a scan of 1 in 10,000", share(1), Ok(VisibleSetSearch)),
        ("a scan of 5 %", share(500), Ok(VisibleSetSearch)),
        ("a scan of 10 %", share(1_000), Ok(SearchThenCheck)),
        ("a scan of 40 %", share(4_000), Ok(SearchThenCheck)),
        ("a scan of 99 %", share(9_900), Ok(SearchThenCheck)),
        (
            "everything would be scanned as well",
            Situation { search_costs: SearchCosts { per_chunk: 0.0, ..INDEXED }, ..share(1_000) },
            Ok(VisibleSetSearch),
        ),
        (
            "more candidates than one search may have",
            Situation { candidates_max: 100, ..share(1_000) },
            Ok(VisibleSetSearch),
        ),
        (
            "what was found weighs more than the share of guards",
            Situation { pass_rate: Some(0.02), ..share(1_000) },
            Ok(VisibleSetSearch),
        ),
        (
            "one in a hundred passes: more candidates than guards",
            Situation { pass_rate: Some(0.01), ..remote },
            Ok(ListThenSearch),
        ),
        (
            "one in a hundred passes, guards unknown",
            Situation { pass_rate: Some(0.01), guards: None, ..remote },
            Ok(SearchThenCheck),
        ),
        (
            "one in a hundred passes, too many guards to check",
            Situation { pass_rate: Some(0.01), ..many },
            Ok(SearchThenCheck),
        ),
        ("nine in ten pass", Situation { pass_rate: Some(0.9), ..remote }, Ok(SearchThenCheck)),
        ("fewer guards than candidates", Situation { guards: Some(5), ..remote }, Ok(ListThenSearch)),
    ];
    for (row, situation, expected) in rows {
        assert_eq!(choose(&situation).map(|search| search.plan), expected, "{row}");
    }
}

#[test]
fn a_first_search_asks_for_what_the_share_makes_likely() {
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
        let search = choose(&Situation { guards: None, pass_rate, ..REMOTE_VECTOR }).expect("a plan");
        assert_eq!((search.limit, search.pass_rate), (expected, pass_rate), "{pass_rate:?}");
    }
}

#[test]
fn a_store_may_leave_what_is_not_needed_to_a_wider_search() {
    let situation = Situation { page_size: 10, top_k: 25, ..REMOTE_VECTOR };
    let rows = [
        ("fewer than are wanted", 16, 16),
        ("more than are wanted", 40, 25),
        ("just below the widest", 299, 25),
        ("the widest", 300, 300),
    ];
    for (row, limit, expected) in rows {
        assert_eq!(situation.enough(limit), expected, "{row}");
    }
}

/// Returns a round of a search of everything, by default one that found ten candidates and may find more.
fn round(progress: Progress) -> Round {
    Round {
        search: PlannedSearch { plan: Plan::SearchThenCheck, limit: 10, pass_rate: None },
        candidates: 10,
        rest: Rest::Further,
        is_counted_by_document: false,
        repeats: 0,
        permits_nothing: false,
        progress,
    }
}

const fn tally(candidates: usize, permitted: usize) -> Tally {
    Tally { candidates, permitted }
}

fn enforced(permitted: usize) -> Progress {
    Progress::Enforced { tally: tally(10, permitted), ready: permitted }
}

fn read(chunks: usize, changed: usize) -> Progress {
    Progress::Read { tally: tally(10, chunks), chunks, changed }
}

/// Ten chunks are wanted. The store cannot list the guards of the collection, so only a wider search can follow.
#[test]
fn each_step_follows_from_the_one_before() {
    use Completion::{Complete, Exhausted, Limited};
    let nothing = |rest, progress| Round { rest, ..round(progress) };
    let widest = PlannedSearch { limit: 300, ..round(enforced(0)).search };
    let at_limit = |progress| Round { search: widest, ..round(progress) };
    let wider =
        |limit, pass_rate| RetrievalStep::Search(PlannedSearch { plan: Plan::SearchThenCheck, limit, pass_rate });
    let at_most = |permitted| Progress::Searched { at_most: Some(tally(10, permitted)) };
    let by_document = |progress| Round { is_counted_by_document: true, ..nothing(Rest::Nothing, progress) };
    let shut = |progress| Round { permits_nothing: true, ..round(progress) };
    let rows: [(&str, Round, RetrievalStep); 28] = [
        // The search has found candidates, and none of them is checked yet.
        ("found, hidden unknown", round(Progress::Searched { at_most: None }), RetrievalStep::Enforce),
        ("found, certainly too few", round(at_most(9)), wider(20, Some(0.9))),
        ("found, certainly none", round(at_most(0)), wider(160, None)),
        ("found, perhaps enough", round(at_most(10)), RetrievalStep::Enforce),
        ("found, too few, and no more to find", nothing(Rest::Nothing, at_most(9)), RetrievalStep::Enforce),
        ("found, too few, and the store gives no more", nothing(Rest::Unknown, at_most(9)), RetrievalStep::Enforce),
        ("found, too few, at the limit", at_limit(at_most(9)), RetrievalStep::Enforce),
        ("sources were asked too often", round(Progress::Spent), RetrievalStep::Answer(Limited)),
        // The candidates are checked, and none of them is read yet.
        ("checked, enough", round(enforced(10)), RetrievalStep::Read),
        ("checked, too few", round(enforced(9)), wider(20, Some(0.9))),
        ("checked, none", round(enforced(0)), wider(160, None)),
        ("checked, too few, and no more to find", nothing(Rest::Nothing, enforced(9)), RetrievalStep::Read),
        ("checked, too few, and the store gives no more", nothing(Rest::Unknown, enforced(9)), RetrievalStep::Read),
        ("checked, too few, at the limit", at_limit(enforced(9)), RetrievalStep::Read),
        ("checked, the actor may not act", shut(enforced(0)), RetrievalStep::Answer(Exhausted)),
        // The permitted candidates are read.
        ("read, enough", round(read(10, 0)), RetrievalStep::Answer(Complete)),
        ("read, enough, one was replaced", round(read(10, 1)), RetrievalStep::SearchAgain),
        ("read, too few, one was replaced", Round { repeats: 1, ..round(read(9, 1)) }, RetrievalStep::SearchAgain),
        (
            "read, enough, after two repeats",
            Round { repeats: 2, ..round(read(10, 1)) },
            RetrievalStep::Answer(Complete),
        ),
        ("read, too few, after two repeats", Round { repeats: 2, ..round(read(9, 1)) }, wider(20, Some(0.9))),
        (
            "read, no more to find, after two repeats",
            Round { repeats: 2, ..nothing(Rest::Nothing, read(9, 1)) },
            RetrievalStep::Answer(Limited),
        ),
        ("read, too few, at the limit", at_limit(read(9, 0)), RetrievalStep::Answer(Limited)),
        ("read, no more to find", nothing(Rest::Nothing, read(9, 0)), RetrievalStep::Answer(Exhausted)),
        ("read, the store gives no more", nothing(Rest::Unknown, read(9, 0)), RetrievalStep::Answer(Limited)),
        ("read, another chunk of a document may be there", by_document(read(9, 0)), wider(20, Some(0.9))),
        (
            "read, each candidate has its place in the answer",
            Round { candidates: 9, ..by_document(read(9, 0)) },
            RetrievalStep::Answer(Exhausted),
        ),
        ("read, the actor may not act any more", shut(read(9, 1)), RetrievalStep::Answer(Exhausted)),
        ("found, the actor may not act", shut(Progress::Searched { at_most: None }), RetrievalStep::Enforce),
    ];
    let situation = Situation { guards: None, ..REMOTE_VECTOR };
    for (row, round, expected) in rows {
        assert_eq!(next_step(&situation, &round), expected, "{row}");
    }
    let widest_by_document = Round { search: widest, ..by_document(read(9, 0)) };
    assert_eq!(
        next_step(&situation, &widest_by_document),
        RetrievalStep::Answer(Limited),
        "others may be there, at the limit"
    );
    let later_page = Situation { top_k: 30, ..situation };
    assert_eq!(
        next_step(&later_page, &round(read(10, 0))),
        RetrievalStep::Answer(Complete),
        "a page counts its own chunks"
    );
    // If a search has found something, its share replaces the share that earlier searches have taught.
    let learned = Situation { pass_rate: Some(0.5), ..situation };
    assert_eq!(next_step(&learned, &round(enforced(0))), wider(160, Some(0.5)), "nothing found, a rate is known");
    assert_eq!(next_step(&learned, &round(enforced(9))), wider(20, Some(0.9)), "found, a rate is known");
}

#[test]
fn searches_widen_by_what_was_found_and_end() {
    let situation = Situation { guards: None, ..REMOTE_VECTOR };
    let limits = |first: usize, permitted: &dyn Fn(usize) -> usize| {
        let mut search = situation.search(Plan::SearchThenCheck, first);
        let mut limits = vec![search.limit];
        while let Some(wider) = widen(&situation, search, tally(search.limit, permitted(search.limit))) {
            limits.push(wider.limit);
            search = wider;
        }
        limits
    };
    // Nothing found: as wide as allowed.
    assert_eq!(limits(16, &|_| 0), [16, 256, 300]);
    // One in eight: as wide as that takes.
    assert_eq!(limits(16, &|limit| limit / 8), [16, 128, 256, 300]);
    // Nearly enough: at least twice as wide.
    assert_eq!(limits(16, &|_| 9), [16, 32, 64, 128, 256, 300]);
    assert_eq!(limits(300, &|_| 0), [300]);
    assert_eq!(limits(1_000, &|_| 0), [300]);
    assert_eq!(limits(0, &|_| 0), [1, 16, 256, 300]);
}

/// A search of everything found too little. The collection has 100,000 chunks under 10,000 guards, of which 40 % are
/// visible. A scan of what is visible would compare 40,000 chunks with 4,000 guards.
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
    assert_eq!((first.plan, first.limit), (Plan::SearchThenCheck, 38));
    let rows = [
        ("nothing near", 38, 0, Plan::SearchThenCheck, 608),
        ("one", 38, 1, Plan::SearchThenCheck, 608),
        ("a twelfth", 38, 3, Plan::SearchThenCheck, 204),
        ("nearly enough", 38, 9, Plan::SearchThenCheck, 76),
        ("still nothing: now the scan costs less", 608, 0, Plan::VisibleSetSearch, 10),
        ("one in a hundred", 608, 6, Plan::VisibleSetSearch, 10),
        ("one in fifty", 608, 12, Plan::SearchThenCheck, 1_216),
    ];
    for (row, limit, permitted, plan, candidates) in rows {
        let next = widen(&situation, PlannedSearch { limit, ..first }, tally(limit, permitted));
        assert_eq!(next.map(|next| (next.plan, next.limit)), Some((plan, candidates)), "{row}");
    }
}

#[test]
fn a_search_of_everything_at_its_limit_gives_way_to_one_within_the_visible_set() {
    let widest = Round {
        search: PlannedSearch { plan: Plan::SearchThenCheck, limit: 300, pass_rate: None },
        ..round(enforced(0))
    };
    let rows = [
        ("guards can be checked", REMOTE_VECTOR, Some(Plan::ListThenSearch)),
        ("guards are known", Situation { visible: Some(600), ..REMOTE_VECTOR }, Some(Plan::VisibleSetSearch)),
        ("too many guards to check", Situation { guards: Some(1_001), ..REMOTE_VECTOR }, None),
        ("guards cannot be listed", Situation { guards: None, ..REMOTE_VECTOR }, None),
    ];
    for (row, situation, plan) in rows {
        let scoped = plan.map(|plan| RetrievalStep::Search(PlannedSearch { plan, limit: 10, pass_rate: None }));
        assert_eq!(next_step(&situation, &widest), scoped.unwrap_or(RetrievalStep::Read), "{row}");
    }
    // A search within the visible set never goes back to everything.
    let narrow = PlannedSearch { plan: Plan::ListThenSearch, limit: 10, pass_rate: None };
    let next = next_step(&REMOTE_VECTOR, &Round { search: narrow, ..round(enforced(5)) });
    let wider = PlannedSearch { limit: 29, pass_rate: Some(0.5), ..narrow };
    assert_eq!(next, RetrievalStep::Search(wider));
}

#[test]
fn a_known_visible_set_tells_the_share_by_chunks_where_they_are_counted() {
    let known = Situation { visible: Some(4_000), guards: Some(10_000), ..REMOTE_VECTOR };
    let rows = [
        ("by guards", known, Some(0.4)),
        ("by chunks", Situation { visible_share: Some(0.7), ..known }, Some(0.7)),
        ("as searches found", Situation { visible_share: Some(0.7), pass_rate: Some(0.1), ..known }, Some(0.1)),
        ("unknown", Situation { visible: None, ..known }, None),
    ];
    for (row, situation, share) in rows {
        assert_eq!(estimate(&situation), share, "{row}");
    }
}

#[test]
fn a_plan_keeps_its_name_on_the_wire() {
    let rows = [
        (Plan::VisibleSetSearch, "visible_set_search"),
        (Plan::ListThenSearch, "list_then_search"),
        (Plan::SearchThenCheck, "search_then_check"),
    ];
    for (plan, name) in rows {
        assert_eq!(plan.name(), name);
    }
}
