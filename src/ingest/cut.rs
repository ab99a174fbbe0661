//! Cuts texts into chunks, in the same way for files and for texts that arrive at a server.

use text_splitter::{MarkdownSplitter, TextSplitter};

/// The longest chunk, in characters: a few paragraphs, so ten chunks fit into any prompt.
const CHUNK_CHARACTERS: usize = 1_000;

/// The form of a text, which says where it may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// The text is cut at headings first, and then at paragraphs and sentences.
    Markdown,
    /// The text is cut at paragraphs and sentences.
    Plain,
}

/// A text that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutText<'t> {
    /// The first heading, if a Markdown text begins with one.
    pub heading: Option<&'t str>,
    /// The texts of the chunks in their order; none for a text of white space alone.
    pub pieces: Vec<&'t str>,
}

/// Cuts a text into pieces of at most 1,000 characters. A byte order mark at its beginning is left out.
#[must_use]
pub fn cut(text: &str, form: TextForm) -> CutText<'_> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let pieces = match form {
        TextForm::Markdown => MarkdownSplitter::new(CHUNK_CHARACTERS).chunks(text).collect(),
        TextForm::Plain => TextSplitter::new(CHUNK_CHARACTERS).chunks(text).collect(),
    };
    let first_line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let heading = first_line.strip_prefix("# ").filter(|_| form == TextForm::Markdown).map(str::trim);
    CutText { heading: heading.filter(|heading| !heading.is_empty()), pieces }
}
