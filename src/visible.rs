//! Makes texts from other people safe to show.

use std::fmt::Write;

/// The longest code that a person compares with another one, in bytes.
const CODE_BYTES_MAX: usize = 64;

/// Escapes every invisible character of a text as `\u{…}`: a character that moves a terminal's cursor, changes the
/// direction of writing or has no glyph. So two texts that look equal are equal. Line ends and tabs stay.
#[must_use]
pub(crate) fn visible(text: &str) -> String {
    escaped(text, |c, shown| write!(shown, "{}", c.escape_unicode()))
}

/// Like [`visible`], for a text that is part of a line of ours: line ends and tabs are escaped, too. Otherwise whoever wrote
/// the text could add lines that look like ours.
#[must_use]
pub(crate) fn visible_line(text: &str) -> String {
    visible(text).replace('\n', "\\u{a}").replace('\t', "\\u{9}")
}

/// Like [`visible`], for JSON: the escapes have JSON's own form, so that the text still means the same.
#[must_use]
pub(crate) fn visible_json(json: &str) -> String {
    escaped(json, |c, shown| {
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(shown, "\\u{unit:04x}"))
    })
}

fn escaped(text: &str, escape: impl Fn(char, &mut String) -> std::fmt::Result) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_visible(c) {
            shown.push(c);
        } else {
            // Writing to a string never fails.
            escape(c, &mut shown).unwrap_or_default();
        }
    }
    shown
}

/// Returns whether a text can be a code that a person compares with another one.
#[must_use]
pub(crate) fn is_code(text: &str) -> bool {
    text.len() <= CODE_BYTES_MAX && is_word(text)
}

/// Returns whether a text is one word of letters, digits, hyphens and underscores in ASCII. No terminal, shell or person reads
/// anything else in it.
#[must_use]
pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Returns whether a character has a glyph, or is a space, a line end or a tab.
#[must_use]
pub(crate) fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control() || matches!(c, '\n' | '\t');
    }
    // The standard library escapes characters without a glyph: controls, formats, separators and unassigned characters.
    // It also escapes a combining mark at the beginning of a text, so the character is tested behind a letter.
    let behind_a_letter = ['a', c].iter().collect::<String>().escape_debug().nth(1);
    behind_a_letter == Some(c) && !has_no_picture(c)
}

/// Returns whether Unicode says that a character is drawn as nothing, although it is a letter or a mark
/// (`Default_Ignorable_Code_Point`).
fn has_no_picture(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_written_out() {
        let rows = [
            ("plain", "a \"b\" 'c' \\ \n\td", "a \"b\" 'c' \\ \n\td"),
            (
                "letters of others",
                "naïve e\u{301} 日本語 हिन्दी ไทย עברית 🦀",
                "naïve e\u{301} 日本語 हिन्दी ไทย עברית 🦀",
            ),
            ("a colour", "a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("a carriage return", "a\rb", "a\\u{d}b"),
            ("a control of Latin-1", "a\u{9b}31mb", "a\\u{9b}31mb"),
            ("deletion", "a\u{7f}b", "a\\u{7f}b"),
            ("right to left", "a\u{202e}b", "a\\u{202e}b"),
            ("isolates and marks", "\u{2066}\u{200f}\u{61c}", "\\u{2066}\\u{200f}\\u{61c}"),
            ("no width", "a\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}b", "a\\u{200b}\\u{200d}\\u{2060}\\u{feff}\\u{ad}b"),
            ("line separators", "a\u{2028}\u{2029}b", "a\\u{2028}\\u{2029}b"),
            ("other spaces", "a\u{a0}\u{2003}b", "a\\u{a0}\\u{2003}b"),
            ("tags", "a\u{e0041}b", "a\\u{e0041}b"),
            ("fillers", "\u{3164}\u{115f}\u{ffa0}", "\\u{3164}\\u{115f}\\u{ffa0}"),
            ("variations", "a\u{fe0f}\u{e0100}", "a\\u{fe0f}\\u{e0100}"),
            ("not assigned", "\u{378}\u{e000}", "\\u{378}\\u{e000}"),
        ];
        for (name, text, expected) in rows {
            assert_eq!(visible(text), expected, "{name}");
            assert_eq!(visible(&visible(text)), expected, "{name}: twice");
        }
    }

    #[test]
    fn a_part_of_a_line_adds_no_line() {
        let rows = [
            ("plain", "a b", "a b"),
            ("a line", "a\nerror: b", "a\\u{a}error: b"),
            ("a line of Windows", "a\r\nb", "a\\u{d}\\u{a}b"),
            ("a tab", "a\tb", "a\\u{9}b"),
            ("a colour", "a\u{1b}[31mb", "a\\u{1b}[31mb"),
        ];
        for (name, text, expected) in rows {
            assert_eq!(visible_line(text), expected, "{name}");
        }
    }

    #[test]
    fn json_means_what_it_meant() {
        for text in ["a\u{202e}b", "\u{e0041}", "\u{9b}", "plain \u{1b}"] {
            let json = serde_json::to_string(text).unwrap();
            let shown = visible_json(&json);
            assert!(shown.is_ascii(), "{shown}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text, "{text}");
        }
    }
}
