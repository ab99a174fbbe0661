//! Tests of the terms that texts and queries have.

use super::*;

/// Returns the terms of a text, with the number of those that occur more than once.
fn terms(text: &str, languages: &Languages) -> String {
    let shown = |TermCount { term, count }: TermCount| match count {
        1 => term.to_string(),
        _ => format!("{term}*{count}"),
    };
    Analyzer::new().terms(text, languages).into_iter().map(shown).collect::<Vec<String>>().join(" ")
}

#[test]
fn texts_have_terms() {
    let rows = [
        ("nothing", "", ""),
        ("signs", "?! -- \u{2026}", ""),
        ("English", "The pods' scheduling, scheduled PODS.", "ENthe ENpod*2 ENschedul*2"),
        ("another order", "zeta alpha zeta", "ENzeta*2 ENalpha"),
        ("full width", "\u{ff30}\u{ff2f}\u{ff24} pod", "ENpod*2"),
        ("accents", "caf\u{e9} CAFE\u{301} cafe", "ENcafe*3"),
        ("German", "die Rechnungen der Kunden", "DEdie DErechnung DEder DEkund"),
        ("an accent that a stemmer needs", "la facturaci\u{f3}n de los clientes", "ESla ESfactur ESde ESlos ESclient"),
        ("Chinese", "\u{5929}\u{6c14}", "\u{5929} \u{6c14} \u{5929}\u{6c14}"),
        (
            "two scripts",
            "\u{421}\u{447}\u{435}\u{442} und die Zahl",
            "RU\u{441}\u{447}\u{435}\u{442} DEund DEdie DEzahl",
        ),
        ("a number of another script", "\u{661}\u{662}", "12"),
        ("a script without rules", "\u{10d0}\u{10d1}", "\u{10d0}\u{10d1}"),
        // Words whose stems differ between versions of the stemmer: a new one needs another `ANALYSIS_VERSION`.
        ("stems of this version", "organic organization", "ENorganic ENorganiz"),
        ("more stems of this version", "added emergency vying", "ENadd ENemergenc ENvie"),
    ];
    for (name, text, expected) in rows {
        assert_eq!(terms(text, &Languages::default()), expected, "{name}");
    }
    let german = Languages::new(vec![Language::German]);
    assert_eq!(terms("the pods", &german), "DEthe DEpod", "the language of a collection");
}

#[test]
fn words_of_a_query_stand_for_all_languages_of_their_script() {
    let mut analyzer = Analyzer::new();
    let both = Languages::new(vec![Language::English, Language::German]);
    let shown = |words: Vec<QueryWord>| -> Vec<String> {
        words.into_iter().map(|word| format!("{}*{}", word.terms.join("|"), word.count)).collect()
    };
    let rows: [(&str, &str, &[&str]); 6] = [
        ("a word", "Rechnungen", &["ENrechnungen|DErechnung*1"]),
        ("a word twice", "pods Pods", &["ENpod|DEpod*2"]),
        ("a pair of characters", "\u{5929}\u{6c14}", &["\u{5929}\u{6c14}*1"]),
        ("a single character", "\u{732b}", &["\u{732b}*1"]),
        ("a number", "12,500", &["12500*1"]),
        ("a Korean word", "\u{d734}\u{ac00}\u{b97c}", &["\u{d734}\u{ac00}*1", "\u{ac00}\u{b97c}*1"]),
    ];
    for (name, query, expected) in rows {
        assert_eq!(shown(analyzer.query(query, &both)), expected, "{name}");
    }
    let all = analyzer.query("pods", &Languages::default());
    assert!(all.iter().all(|word| word.terms.len() > 20), "{all:?}");
}

/// A word means the same, however a program or a person wrote it.
#[test]
fn ways_of_writing_meet() {
    let rows = [
        ("l\u{2019}abonnement", "abonnement"),
        ("Eltern\u{ad}zeit", "Elternzeit"),
        ("cong\u{e9}s", "conges"),
        ("getUserById", "get_user_by_id"),
        ("e-mail", "email"),
        ("12,500", "12500"),
        ("Stra\u{df}e", "STRASSE"),
        ("\u{ff76}\u{ff80}\u{ff76}\u{ff85}", "\u{30ab}\u{30bf}\u{30ab}\u{30ca}"),
        ("\u{39a}\u{3a9}\u{394}\u{399}\u{39a}\u{39f}\u{3a3}", "\u{3ba}\u{3c9}\u{3b4}\u{3b9}\u{3ba}\u{3cc}\u{3c2}"),
        ("\u{625}\u{62c}\u{627}\u{632}\u{629}", "\u{627}\u{62c}\u{627}\u{632}\u{647}"),
    ];
    let mut analyzer = Analyzer::new();
    for (one, other) in rows {
        for (query, text) in [(one, other), (other, one)] {
            let found = analyzer.terms(text, &Languages::default());
            let words = analyzer.query(query, &Languages::default());
            let is_met = words.iter().any(|word| found.iter().any(|found| word.terms.contains(&found.term)));
            assert!(is_met, "`{query}` in `{text}`: {found:?}");
        }
    }
}

#[test]
fn an_analyzer_that_forgets_finds_the_same() {
    let mut analyzer = Analyzer::new();
    let first = analyzer.terms("the first pods", &Languages::default());
    let mut number = 0;
    while analyzer.counter.terms.len() < TERMS_REMEMBERED_MAX {
        let many: Vec<String> = (number..number + 10_000).map(|number: u32| number.to_string()).collect();
        analyzer.terms(&many.join(" "), &Languages::default());
        number += 10_000;
    }
    assert_eq!(analyzer.terms("the first pods", &Languages::default()), first);
    assert!(analyzer.counter.terms.len() < 10);
}
