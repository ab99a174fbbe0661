//! Cuts a model's text into tokens on demand. The body of a condition does not consist of tokens, so the parser asks
//! for it as raw text.

use super::condition_body::ConditionBody;
use super::source_map::{Position, Span};

/// The kinds of tokens that the parser distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, a keyword or a version.
    Word,
    /// One of `: , [ ] ( ) { } < > # *`.
    Mark(char),
    /// The end of a line that is not blank.
    Newline,
    /// The end of the text.
    End,
    /// A character that has no place in a model.
    Stray,
}

/// A piece of the text and its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) span: Span,
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    at: Position,
    /// Whether the line has only white space so far. Then `#` begins a comment, and the line's end is not a token.
    line_is_blank: bool,
    /// Whether white space came last. Then `#` begins a comment too.
    after_space: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { rest, at: Position { line: 1, column: 1 }, line_is_blank: true, after_space: false }
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        loop {
            let Some(first) = self.rest.chars().next() else {
                return self.token(Kind::End, 0);
            };
            let comment = first == '#' && (self.line_is_blank || self.after_space);
            if comment {
                let length = self.rest.find('\n').unwrap_or(self.rest.len());
                self.take(length);
            } else if first == '\n' {
                let blank = self.line_is_blank;
                let token = self.token(Kind::Newline, 1);
                if !blank {
                    return token;
                }
            } else if first.is_whitespace() {
                self.take(first.len_utf8());
                self.after_space = true;
            } else {
                return self.visible_token(first);
            }
        }
    }

    fn visible_token(&mut self, first: char) -> Token<'a> {
        self.line_is_blank = false;
        self.after_space = false;
        if is_word_character(first) {
            let length = self.rest.find(|c| !is_word_character(c)).unwrap_or(self.rest.len());
            return self.token(Kind::Word, length);
        }
        if matches!(first, ':' | ',' | '[' | ']' | '(' | ')' | '{' | '}' | '<' | '>' | '#' | '*') {
            return self.token(Kind::Mark(first), 1);
        }
        self.token(Kind::Stray, first.len_utf8())
    }

    /// Reads up to the `}` that closes a condition, and returns the text before it without `#` comments. Braces in
    /// strings and in comments close nothing. Returns `None` if no brace closes the condition.
    pub(super) fn condition_body(&mut self) -> Option<String> {
        let body = ConditionBody::read(self.rest)?;
        self.take(body.length);
        self.line_is_blank = false;
        Some(body.text.trim().to_owned())
    }

    fn token(&mut self, kind: Kind, length: usize) -> Token<'a> {
        let start = self.at;
        let text = self.take(length);
        let characters = text.chars().count();
        Token { kind, text, span: Span { start, characters } }
    }

    /// Advances over `length` bytes, which must end between two characters.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        for c in taken.chars() {
            if c == '\n' {
                self.at = Position { line: self.at.line + 1, column: 1 };
                self.line_is_blank = true;
                self.after_space = false;
            } else {
                self.at.column += 1;
            }
        }
        taken
    }
}

fn is_word_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}
