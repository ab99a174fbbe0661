//! Texts inside the XML that commands write.

use crate::visible::visible_line;

/// Returns a text for XML, on one line. Characters that XML cannot hold are invisible ones, and so are written out.
pub(super) fn escaped(text: &str) -> String {
    visible_line(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_a_text() {
        let rows = [
            ("plain", "user:anne", "user:anne"),
            ("signs of XML", "<a href=\"x\">&amp;", "&lt;a href=&quot;x&quot;&gt;&amp;amp;"),
            ("what XML forbids", "a\u{0}b\u{1b}\u{ffff}", "a\\u{0}b\\u{1b}\\u{ffff}"),
            ("lines", "a\nb\tc", "a\\u{a}b\\u{9}c"),
        ];
        for (row, text, expected) in rows {
            assert_eq!(escaped(text), expected, "{row}");
        }
    }
}
