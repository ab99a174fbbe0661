//! Finds the strings in an expression's text, before the text is parsed.

/// The opening of a CEL string.
struct Quote {
    /// The mark that closes the string: one quotation mark or three.
    closing: &'static str,
    /// Whether a backslash is an ordinary character.
    raw: bool,
}

/// Returns the length in bytes of the string at the beginning of `rest`, or `None` if there is none. `before` is the
/// text before `rest`. Unless three marks open the string, it ends at the end of its line at the latest.
pub(crate) fn string_length(rest: &str, before: &str) -> Option<usize> {
    let quote = opening_quote(rest, before)?;
    let mut length = quote.closing.len();
    let mut escaped = false;
    while let Some(left) = rest.get(length..).filter(|left| !left.is_empty()) {
        if !escaped && left.starts_with(quote.closing) {
            return Some(length + quote.closing.len());
        }
        let next = left.chars().next().unwrap_or_default();
        if next == '\n' && quote.closing.len() == 1 {
            return Some(length);
        }
        escaped = !escaped && !quote.raw && next == '\\';
        length += next.len_utf8();
    }
    Some(rest.len())
}

/// Reads the quotation marks at the beginning of `rest`. The text before them tells whether the string is raw: `r"…"`,
/// `br"…"`.
fn opening_quote(rest: &str, before: &str) -> Option<Quote> {
    let closing = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|mark| rest.starts_with(mark))?;
    let word = before.rsplit(|c| !is_word(c)).next().unwrap_or_default();
    Some(Quote { closing, raw: word.eq_ignore_ascii_case("r") || word.eq_ignore_ascii_case("br") })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the text without the contents of strings and comments.
pub(super) fn without_strings(text: &str) -> String {
    let mut code = String::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let skipped = if rest.starts_with("//") {
            Some(rest.find('\n').unwrap_or(rest.len()))
        } else {
            string_length(rest, text.get(..at).unwrap_or_default())
        };
        if let Some(length) = skipped {
            code.push(' ');
            at += length;
        } else {
            let next = rest.chars().next().unwrap_or_default();
            code.push(next);
            at += next.len_utf8();
        }
    }
    code
}
