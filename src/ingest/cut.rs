//! Cuts texts into chunks, in the same way for files and for texts that arrive at a server.
//!
//! A Markdown text is a sequence of sections: a heading with what stands below it. Sections that fit into one chunk together are
//! one chunk. A longer section is cut between its blocks, a longer block between its rows, items or lines, and what is still
//! too long between sentences, words and letters. Every chunk has the headings above it.

mod blocks;
mod data_uri;
mod front_matter;
mod html;
mod pack;
mod size;
mod windows;

use self::blocks::{Block, BlockKind, Found};
use self::pack::Packer;
pub use self::size::{CHARACTERS_MAX, CHARACTERS_MIN, ChunkSize};
use crate::chunk::Metadata;

/// The form of a text, which says where it may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// The text is cut at headings first, then between blocks, and then at sentences.
    Markdown,
    /// The text is cut at paragraphs, lines and sentences.
    Plain,
    /// The text of an HTML page, without its tags, is cut like Markdown.
    Html,
}

/// A text that was cut.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CutText {
    /// The title of a page or in the front matter, or else the heading of the first level that the text begins with.
    pub title: Option<String>,
    /// The values of the front matter; empty if there is none.
    pub metadata: Metadata,
    /// The chunks in their order; none for a text of white space alone.
    pub pieces: Vec<Piece>,
}

/// The text of one chunk, with its place in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text, as it stands in the document.
    pub text: String,
    /// The headings above the text, the outermost first. A chunk of several sections has those that all of them share.
    pub heading_path: Vec<String>,
}

/// Cuts a text. A byte order mark at its beginning is left out, and so are the contents of data URIs.
#[must_use]
pub fn cut(text: &str, form: TextForm, size: ChunkSize) -> CutText {
    cut_counting(text, form, size).0
}

/// Cuts a text, and returns how many bytes the cutting looked at, too. It looks at each byte a few times, however the text is
/// made.
fn cut_counting(text: &str, form: TextForm, size: ChunkSize) -> (CutText, usize) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = data_uri::shortened(text);
    match form {
        TextForm::Plain => {
            let mut packer = Packer::new(&text, size);
            packer.plain();
            let (pieces, bytes_seen) = packer.finish();
            (CutText { pieces, ..CutText::default() }, bytes_seen)
        }
        TextForm::Markdown => {
            let (front, body) = front_matter::split(&text);
            let mut structure = Structure::new(body, size);
            if blocks::nests_too_deep(body) {
                structure.take(Found::Block(Block { range: 0..body.len(), kind: BlockKind::Text }));
            } else {
                blocks::read(body, |found| structure.take(found));
            }
            structure.finish(front.title, front.metadata)
        }
        TextForm::Html => {
            let page = html::read(&text);
            let mut structure = Structure::new(&page.text, size);
            page.found.into_iter().for_each(|found| structure.take(found));
            structure.finish(page.title, Metadata::new())
        }
    }
}

/// Packs a text whose structure is read.
struct Structure<'t> {
    packer: Packer<'t>,
    /// Whether nothing was read yet.
    is_empty: bool,
    /// The heading of the first level that the text begins with.
    heading: Option<String>,
}

impl<'t> Structure<'t> {
    fn new(text: &'t str, size: ChunkSize) -> Self {
        Self { packer: Packer::new(text, size), is_empty: true, heading: None }
    }

    fn take(&mut self, found: Found) {
        let is_first = std::mem::replace(&mut self.is_empty, false);
        match found {
            Found::Heading(heading) => {
                if is_first && heading.is_title() && !heading.text.is_empty() {
                    self.heading = Some(heading.text.clone());
                }
                self.packer.heading(heading);
            }
            Found::Block(block) => self.packer.block(block),
        }
    }

    fn finish(self, title: Option<String>, metadata: Metadata) -> (CutText, usize) {
        let (pieces, bytes_seen) = self.packer.finish();
        (CutText { title: title.or(self.heading), metadata, pieces }, bytes_seen)
    }
}

#[cfg(test)]
mod tests;
