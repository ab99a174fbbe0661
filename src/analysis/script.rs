//! Sorts characters by what the analysis does with them.

use unicode_normalization::char::is_combining_mark;

/// The part that a character plays in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A letter, a digit or a mark of a script that puts spaces between words.
    Word,
    /// A character of Chinese or Japanese.
    HanOrKana,
    /// A Korean syllable.
    Hangul,
    /// A letter or a mark of Thai, Lao, Khmer or Burmese, which put no spaces between words.
    Unspaced,
    Apostrophe,
    /// A sign that holds the parts of a name together: `deploy.yaml`, `get_user`, `a/b`.
    Connector,
    Other,
}

/// A script whose words need a stemmer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Hebrew,
    Arabic,
    Devanagari,
    Tamil,
}

/// Returns the class of a character in normal form.
pub(super) fn class(c: char) -> Class {
    if c.is_ascii() {
        return match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => Class::Word,
            '\'' => Class::Apostrophe,
            '_' | '-' | '.' | '/' | ':' | '@' | ',' | '+' | '#' | '&' | '\\' => Class::Connector,
            _ => Class::Other,
        };
    }
    match c {
        '\u{3005}'
        | '\u{3007}'
        | '\u{3041}'..='\u{309f}'
        | '\u{30a1}'..='\u{30fa}'
        | '\u{30fc}'..='\u{312f}'
        | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}' => Class::HanOrKana,
        '\u{1100}'..='\u{11ff}' | '\u{3131}'..='\u{318e}' | '\u{ac00}'..='\u{d7a3}' => Class::Hangul,
        '\u{e01}'..='\u{e3a}'
        | '\u{e40}'..='\u{e4e}'
        | '\u{e81}'..='\u{ece}'
        | '\u{edc}'..='\u{edf}'
        | '\u{1000}'..='\u{103f}'
        | '\u{1050}'..='\u{108f}'
        | '\u{1780}'..='\u{17d3}'
        | '\u{aa60}'..='\u{aa7f}' => Class::Unspaced,
        _ if c.is_alphanumeric() || is_combining_mark(c) => Class::Word,
        _ => Class::Other,
    }
}

/// Returns whether a letter of an unspaced script belongs to the syllable of the next one: a vowel that is written before
/// its consonant, or a sign that stacks consonants.
pub(super) fn binds_next(c: char) -> bool {
    matches!(c, '\u{e40}'..='\u{e44}' | '\u{ec0}'..='\u{ec4}' | '\u{17d2}' | '\u{1039}')
}

/// Returns the script of a letter; `None` for a script whose words are left as they are.
pub(super) fn script(c: char) -> Option<Script> {
    match c {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Some(Script::Latin),
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Some(Script::Greek),
        '\u{400}'..='\u{52f}' => Some(Script::Cyrillic),
        '\u{530}'..='\u{58f}' => Some(Script::Armenian),
        '\u{590}'..='\u{5ff}' => Some(Script::Hebrew),
        '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' => Some(Script::Arabic),
        '\u{900}'..='\u{97f}' => Some(Script::Devanagari),
        '\u{b80}'..='\u{bff}' => Some(Script::Tamil),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_the_class_of_their_script() {
        let rows = [
            ('a', Class::Word),
            ('\u{e9}', Class::Word),
            ('\u{301}', Class::Word),
            ('\u{94d}', Class::Word),
            ('7', Class::Word),
            ('\'', Class::Apostrophe),
            ('_', Class::Connector),
            ('\u{5929}', Class::HanOrKana),
            ('\u{30fc}', Class::HanOrKana),
            ('\u{30fb}', Class::Other),
            ('\u{d734}', Class::Hangul),
            ('\u{e25}', Class::Unspaced),
            ('\u{e3f}', Class::Other),
            ('\u{1f389}', Class::Other),
            ('\u{3002}', Class::Other),
        ];
        for (c, expected) in rows {
            assert_eq!(class(c), expected, "U+{:04X}", u32::from(c));
        }
    }
}
