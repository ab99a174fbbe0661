//! Finds the docs of public items in the tokens of a file.

use std::mem;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The doc of a public item, and the line on which it begins.
#[derive(Debug, PartialEq)]
pub(crate) struct Doc {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Says which items of a group of tokens are public.
#[derive(Clone, Copy, PartialEq)]
enum Public {
    /// Items that are `pub`, without a limit such as `pub(crate)`.
    Marked,
    /// Every item: the variants of a public enum and their fields, or the items of a public trait.
    All,
}

/// Returns the docs of public items, fields and methods, of the variants of public enums and their fields, and of the
/// items of public traits. `pub(crate)` does not count as public.
pub(crate) fn docs_of_public_items(tokens: TokenStream) -> Vec<Doc> {
    docs_within(tokens, Public::Marked)
}

fn docs_within(tokens: TokenStream, public: Public) -> Vec<Doc> {
    let mut docs = Vec::new();
    let mut doc: Option<Doc> = None;
    let mut follows_pub = false;
    // This says which items between the next braces are public.
    let mut inside = public;
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(TokenTree::Group(attribute)) = tokens.next_if(|token| matches!(token, TokenTree::Group(_)))
                    && let Some(text) = doc_text(&attribute.stream().to_string())
                {
                    let doc = doc.get_or_insert_with(|| Doc { line: punct.span().start().line, text: String::new() });
                    doc.text.push_str(&text);
                }
            }
            TokenTree::Ident(word) if word == "pub" => {
                let is_limited = matches!(
                    tokens.peek(),
                    Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis
                );
                docs.extend(doc.take().filter(|_| !is_limited));
                follows_pub = !is_limited;
            }
            TokenTree::Group(group) => {
                doc = None;
                let is_body = group.delimiter() == Delimiter::Brace;
                let within = if is_body { mem::replace(&mut inside, public) } else { public };
                docs.extend(docs_within(group.stream(), within));
            }
            TokenTree::Ident(word) => {
                if follows_pub && (word == "enum" || word == "trait") {
                    inside = Public::All;
                }
                follows_pub = follows_pub && word == "unsafe";
                docs.extend(doc.take().filter(|_| public == Public::All));
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                doc = None;
                follows_pub = false;
            }
        }
    }
    docs
}

/// Returns the text of `doc = "…"`, the form that a doc comment has among the tokens of a file.
fn doc_text(attribute: &str) -> Option<String> {
    let literal = attribute.strip_prefix("doc = ")?;
    Some(format!("{} ", literal.trim_start_matches('r').trim_matches('"')))
}
