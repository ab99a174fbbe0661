//! Hebrew words: articles and prepositions are written together with the word that they stand before.

/// The letters that stand before a word: and, the, in, as, to, from, that.
const PREFIXES: [char; 7] = ['ו', 'ה', 'ב', 'כ', 'ל', 'מ', 'ש'];
/// The most prefixes that are taken off: "and from the" has three.
const PREFIXES_MAX: usize = 3;
/// The endings of plurals, of the feminine and of compounds. The final letters are folded.
const ENDINGS: [&str; 6] = ["יימ", "ימ", "ות", "ה", "ת", "י"];
/// The fewest letters that stay.
const LETTERS_MIN: usize = 3;

/// Returns the forms of a word whose letters are folded: without its ending, and with fewer and fewer prefixes.
pub(super) fn forms(word: &str) -> Vec<String> {
    let letters = |word: &str| word.chars().count();
    let ending =
        ENDINGS.iter().find_map(|ending| word.strip_suffix(ending).filter(|rest| letters(rest) >= LETTERS_MIN));
    let mut form = ending.unwrap_or(word);
    let mut forms = vec![form.to_owned()];
    for _ in 0..PREFIXES_MAX {
        match form.strip_prefix(PREFIXES).filter(|rest| letters(rest) >= LETTERS_MIN) {
            Some(rest) => form = rest,
            None => break,
        }
        forms.push(form.to_owned());
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_and_without_prefixes_share_a_form() {
        let rows = [("חופשה", "החופשה"), ("חופשה", "ובחופשת"), ("מסמכ", "למסמכימ"), ("חשבונית", "חשבוניות")];
        for (a, b) in rows {
            let (first, second) = (forms(a), forms(b));
            assert!(first.iter().any(|form| second.contains(form)), "{first:?} {second:?}");
        }
    }
}
