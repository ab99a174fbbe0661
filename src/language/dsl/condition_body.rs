//! Reads the body of a condition: a CEL expression up to the brace that closes it, with comments in the syntax of the
//! modeling language.

use crate::language::condition::string_length;

/// The body of a condition.
pub(super) struct ConditionBody {
    /// The expression, without comments.
    pub(super) text: String,
    /// The number of bytes that were read. The closing brace comes next.
    pub(super) length: usize,
}

impl ConditionBody {
    /// Reads a body. Returns `None` if no brace closes it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut body = Self { text: String::new(), length: 0 };
        let mut open_braces = 0_usize;
        // A string that spans lines keeps its trailing white space. Outside of strings, trailing white space is not
        // part of the expression.
        let mut trim_from = 0;
        loop {
            let rest = text.get(body.length..)?;
            let next = rest.chars().next()?;
            if let Some(length) = string_length(rest, &body.text) {
                body.keep(rest, length);
                trim_from = body.text.len();
                continue;
            }
            let after_space = body.text.chars().next_back().is_none_or(char::is_whitespace);
            let comment = rest.find('\n').unwrap_or(rest.len());
            match next {
                '#' if after_space => body.length += comment,
                '/' if rest.starts_with("//") => body.keep(rest, comment),
                '}' if open_braces == 0 => return Some(body),
                '\n' => {
                    let kept = body.text.trim_end_matches([' ', '\t', '\r']).len();
                    body.text.truncate(kept.max(trim_from));
                    body.keep(rest, 1);
                }
                _ => {
                    match next {
                        '{' => open_braces += 1,
                        '}' => open_braces -= 1,
                        _ => {}
                    }
                    body.keep(rest, next.len_utf8());
                }
            }
        }
    }

    /// Moves `length` bytes of `rest` into the expression.
    fn keep(&mut self, rest: &str, length: usize) {
        self.text.push_str(rest.get(..length).unwrap_or_default());
        self.length += length;
    }
}
