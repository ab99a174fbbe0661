//! Finds the docs of public items in the tokens of a file.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The doc of a `pub` item, and the line on which it begins.
#[derive(Debug, PartialEq)]
pub(crate) struct Doc {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Returns the docs of all items, fields and methods that are `pub` and nothing less.
pub(crate) fn docs_of_public_items(tokens: TokenStream) -> Vec<Doc> {
    let mut docs = Vec::new();
    let mut doc: Option<Doc> = None;
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
            }
            TokenTree::Group(group) => {
                doc = None;
                docs.extend(docs_of_public_items(group.stream()));
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => doc = None,
        }
    }
    docs
}

/// Returns the text of `doc = "…"`, which is what a doc comment is among the tokens of a file.
fn doc_text(attribute: &str) -> Option<String> {
    let literal = attribute.strip_prefix("doc = ")?;
    Some(format!("{} ", literal.trim_start_matches('r').trim_matches('"')))
}
