//! Arabic words: conjunctions and prepositions are written together with the article of a word.
//!
//! The stemmer takes off the article, but not everything that may stand before it.

use std::borrow::Cow;

/// The article.
const ARTICLE: &str = "ال";
/// A conjunction, a preposition or both with the article, the longer ones first.
const PREFIXES: [&str; 9] = ["وبال", "فبال", "وكال", "ولل", "وال", "فال", "بال", "كال", "لل"];
/// The fewest letters that stay beside the article.
const LETTERS_MIN: usize = 3;

/// Returns a word that has nothing before its article.
pub(super) fn with_article_alone(word: &str) -> Cow<'_, str> {
    let is_word = |rest: &&str| rest.chars().count() >= LETTERS_MIN;
    let noun = PREFIXES.iter().find_map(|prefix| word.strip_prefix(prefix).filter(is_word));
    noun.map_or(Cow::Borrowed(word), |noun| Cow::Owned(format!("{ARTICLE}{noun}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_article_goes() {
        let rows =
            [("والمكتبة", "المكتبة"), ("للطلاب", "الطلاب"), ("المدير", "المدير"), ("والد", "والد"), ("مكتب", "مكتب")];
        for (word, expected) in rows {
            assert_eq!(with_article_alone(word), expected, "{word}");
        }
    }
}
