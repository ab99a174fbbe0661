//! The forms in which characters are compared.
//!
//! A text is brought into a normal form before it is cut into words. Accents stay at first, because stemmers need them:
//! they are folded when the stem is there.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// The zeros of the decimal digits that people write numbers with, beside ASCII. The digits from 1 to 9 follow each.
const ZEROS: [char; 15] = [
    '\u{660}', '\u{6f0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}', '\u{be6}', '\u{c66}', '\u{ce6}',
    '\u{d66}', '\u{e50}', '\u{ed0}', '\u{1040}', '\u{17e0}',
];

/// Brings a text into normal form: NFKC, without invisible characters, with one kind of apostrophe, hyphen and digits.
/// Upper case stays, because it shows the parts of a name such as `getUserById`.
pub(super) fn normalized(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| !is_invisible(*c)).map(plain_sign).nfkc().map(ascii_digit).collect())
}

/// Returns whether a character shows nothing and separates nothing: soft hyphens, joiners, marks of direction, variation
/// selectors.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

fn plain_sign(c: char) -> char {
    match c {
        '\u{b4}' | '\u{2b9}' | '\u{2bb}' | '\u{2bc}' | '\u{55a}' | '\u{5f3}' | '\u{5f4}' | '\u{2018}' | '\u{2019}'
        | '\u{201b}' | '\u{ff07}' => '\'',
        '\u{2010}' | '\u{2011}' | '\u{2043}' => '-',
        _ => c,
    }
}

fn ascii_digit(c: char) -> char {
    // No block of digits begins earlier.
    if c < '\u{660}' {
        return c;
    }
    let digit = ZEROS.iter().filter_map(|zero| u32::from(c).checked_sub(u32::from(*zero))).find(|digit| *digit < 10);
    digit.and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c)
}

/// Returns a word in lower case.
pub(super) fn lower(word: &str) -> Cow<'_, str> {
    if word.is_ascii() {
        if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(word.to_ascii_lowercase());
        }
        return Cow::Borrowed(word);
    }
    Cow::Owned(word.to_lowercase())
}

/// Folds the accents of a word in lower case, and letters that are written in two ways.
pub(super) fn folded(word: &str) -> Cow<'_, str> {
    if word.is_ascii() {
        return Cow::Borrowed(word);
    }
    let mut folded = String::with_capacity(word.len());
    for c in word.nfd().filter(|c| !is_accent(*c)) {
        match c {
            '\u{df}' => folded.push_str("ss"),
            '\u{e6}' => folded.push_str("ae"),
            '\u{153}' => folded.push_str("oe"),
            '\u{fe}' => folded.push_str("th"),
            '\u{f8}' => folded.push('o'),
            '\u{111}' | '\u{f0}' => folded.push('d'),
            '\u{142}' => folded.push('l'),
            '\u{131}' => folded.push('i'),
            // The final sigma.
            '\u{3c2}' => folded.push('\u{3c3}'),
            // The tatweel only stretches a word.
            '\u{640}' => {}
            '\u{649}' | '\u{6cc}' => folded.push('\u{64a}'),
            '\u{629}' | '\u{6c1}' | '\u{6be}' => folded.push('\u{647}'),
            '\u{6a9}' => folded.push('\u{643}'),
            // The final letters of Hebrew.
            '\u{5da}' => folded.push('\u{5db}'),
            '\u{5dd}' => folded.push('\u{5de}'),
            '\u{5df}' => folded.push('\u{5e0}'),
            '\u{5e3}' => folded.push('\u{5e4}'),
            '\u{5e5}' => folded.push('\u{5e6}'),
            _ => folded.push(c),
        }
    }
    Cow::Owned(folded)
}

/// Returns whether a mark may be left out in writing. The vowel signs of Indian scripts may not.
fn is_accent(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6ed}'
    )
}

/// Returns a word with the letters that the Persian stemmer knows, in place of those of an Arabic keyboard.
pub(super) fn persian(word: &str) -> String {
    let letter = |c| match c {
        '\u{64a}' | '\u{649}' => '\u{6cc}',
        '\u{643}' => '\u{6a9}',
        _ => c,
    };
    word.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_one_form() {
        let rows = [
            ("ASCII stays", "A_b's", "A_b's"),
            ("full width", "\u{ff30}\u{ff2f}\u{ff24}", "POD"),
            ("a ligature", "\u{fb01}le", "file"),
            ("a soft hyphen", "Eltern\u{ad}zeit", "Elternzeit"),
            ("a joiner and a mark of direction", "a\u{200d}b\u{200f}c\u{2060}d\u{feff}e\u{fe0f}", "abcde"),
            ("apostrophes", "l\u{2019}a \u{2018}b c\u{2bc}d", "l'a 'b c'd"),
            ("a hyphen that does not break", "e\u{2011}mail", "e-mail"),
            ("digits", "\u{661}\u{662} \u{6f3} \u{969} \u{e54}", "12 3 3 4"),
        ];
        for (name, text, expected) in rows {
            assert_eq!(normalized(text), expected, "{name}");
        }
    }

    #[test]
    fn accents_are_folded_and_vowel_signs_stay() {
        let rows = [
            ("cong\u{e9}s", "conges"),
            ("stra\u{df}e", "strasse"),
            ("\u{142}\u{f3}d\u{17a}", "lodz"),
            ("\u{3bc}\u{3ad}\u{3c1}\u{3bf}\u{3c2}", "\u{3bc}\u{3b5}\u{3c1}\u{3bf}\u{3c3}"),
            ("\u{623}\u{64e}\u{62d}\u{645}\u{62f}", "\u{627}\u{62d}\u{645}\u{62f}"),
            ("\u{915}\u{93f}\u{924}\u{93e}\u{92c}", "\u{915}\u{93f}\u{924}\u{93e}\u{92c}"),
        ];
        for (word, expected) in rows {
            assert_eq!(folded(word), expected, "{word}");
        }
    }
}
