//! Reads the text of an HTML page, with its structure.
//!
//! The page is read tag by tag and never becomes a tree. So tags that are not closed, or nested a million deep, cost no more than
//! others. Scripts and styles are left out; what a style hides is not known here, and stays.

use html5gum::{DefaultEmitter, Token, Tokenizer};
use pulldown_cmark::HeadingLevel;

use super::blocks::{Block, BlockKind, Found, Heading, Item, LIST_DEPTH_MAX};
use crate::chunk::HEADING_BYTES_MAX;

/// The text of a page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) title: Option<String>,
    pub(super) text: String,
    /// The headings and blocks of the text, in their order.
    pub(super) found: Vec<Found>,
}

/// Reads a page.
pub(super) fn read(html: &str) -> Page {
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let mut writer = Writer::default();
    for token in Tokenizer::new_with_emitter(html, emitter) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => writer.start(&String::from_utf8_lossy(&tag.name), tag.self_closing),
            Token::EndTag(tag) => writer.end(&String::from_utf8_lossy(&tag.name)),
            Token::String(text) => writer.add(&String::from_utf8_lossy(&text.value)),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    writer.end_block();
    writer.page
}

#[derive(Default)]
struct Writer {
    page: Page,
    /// Where the block or heading began that is open.
    start: usize,
    shape: Shape,
    /// How many lists, tables and preformatted elements are open.
    lists: usize,
    tables: usize,
    preformatted: usize,
    /// The element whose content is left out.
    left_out: Option<&'static str>,
    /// The title element, while it is open.
    title: Option<String>,
    /// Whether the next word stands apart from the last one.
    is_apart: bool,
    /// Whether the next cell is the first of its row.
    is_first_cell: bool,
}

#[derive(Default)]
enum Shape {
    #[default]
    Text,
    Heading(HeadingLevel),
    List(Vec<Item>),
    /// The places of all rows; the first is the header.
    Table(Vec<usize>),
}

impl Writer {
    fn start(&mut self, name: &str, is_closed: bool) {
        if self.left_out.is_some() {
            return;
        }
        if let Some(level) = heading_level(name) {
            if self.lists == 0 && self.tables == 0 {
                self.begin_block(Shape::Heading(level));
            } else {
                self.begin_line();
            }
            return;
        }
        match name {
            "script" | "style" | "template" if !is_closed => self.left_out = left_out(name),
            "title" => self.title = Some(String::new()),
            "br" => self.begin_line(),
            "pre" => {
                self.begin_part();
                self.preformatted += 1;
            }
            "ul" | "ol" => {
                if self.lists == 0 && self.tables == 0 {
                    self.begin_block(Shape::List(Vec::new()));
                }
                self.lists += 1;
            }
            "table" => {
                if self.lists == 0 && self.tables == 0 {
                    self.begin_block(Shape::Table(Vec::new()));
                }
                self.tables += 1;
            }
            "li" => self.begin_item(),
            "tr" => self.begin_row(),
            "td" | "th" if std::mem::take(&mut self.is_first_cell) => {}
            "td" | "th" => {
                self.page.text.push_str(" | ");
                self.is_apart = false;
            }
            name if is_block(name) => self.begin_part(),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        if let Some(left_out) = self.left_out {
            if left_out == name {
                self.left_out = None;
            }
            return;
        }
        match name {
            "title" => {
                let title = self.title.take().map(|title| title.trim().to_owned()).filter(|title| !title.is_empty());
                self.page.title = self.page.title.take().or(title);
            }
            "pre" => {
                self.preformatted = self.preformatted.saturating_sub(1);
                self.begin_part();
            }
            "ul" | "ol" => {
                self.lists = self.lists.saturating_sub(1);
                self.end_outermost();
            }
            "table" => {
                self.tables = self.tables.saturating_sub(1);
                self.end_outermost();
            }
            name if heading_level(name).is_some() || is_block(name) => self.begin_part(),
            _ => {}
        }
    }

    fn add(&mut self, text: &str) {
        if self.left_out.is_some() {
            return;
        }
        if let Some(title) = &mut self.title {
            for word in text.split_whitespace() {
                if title.len() + word.len() < HEADING_BYTES_MAX {
                    title.push_str(word);
                    title.push(' ');
                }
            }
            return;
        }
        if self.preformatted > 0 {
            self.page.text.push_str(text);
            self.is_apart = false;
            return;
        }
        self.is_apart |= text.starts_with(char::is_whitespace);
        for word in text.split_whitespace() {
            let is_line_start = self.page.text.is_empty() || self.page.text.ends_with(char::is_whitespace);
            if self.is_apart && !is_line_start {
                self.page.text.push(' ');
            }
            self.page.text.push_str(word);
            self.is_apart = true;
        }
        if !text.trim().is_empty() {
            self.is_apart = text.ends_with(char::is_whitespace);
        }
    }

    /// Ends the open block, and begins the next.
    fn begin_block(&mut self, shape: Shape) {
        self.end_block();
        self.shape = shape;
    }

    /// Begins a paragraph: a block, or a line within a list or a table.
    fn begin_part(&mut self) {
        match (self.lists, self.tables) {
            (0, 0) => self.begin_block(Shape::Text),
            (_, 0) => self.begin_line(),
            // A row of a table is one line.
            _ => self.is_apart = true,
        }
    }

    fn begin_line(&mut self) {
        if self.tables > 0 {
            self.is_apart = true;
            return;
        }
        if !self.page.text.ends_with('\n') && self.page.text.len() > self.start {
            self.page.text.push('\n');
        }
        self.is_apart = false;
    }

    fn begin_item(&mut self) {
        self.begin_line();
        let at = self.page.text.len();
        let depth = self.lists.max(1);
        if let Shape::List(items) = &mut self.shape
            && depth <= LIST_DEPTH_MAX
        {
            items.push(Item { at, depth });
        }
        self.page.text.extend(std::iter::repeat_n("  ", depth.min(LIST_DEPTH_MAX) - 1));
        self.page.text.push_str("- ");
    }

    fn begin_row(&mut self) {
        self.is_first_cell = true;
        if self.tables > 1 || self.lists > 0 {
            self.is_apart = true;
            return;
        }
        if !self.page.text.ends_with('\n') && self.page.text.len() > self.start {
            self.page.text.push('\n');
        }
        self.is_apart = false;
        if let Shape::Table(rows) = &mut self.shape {
            rows.push(self.page.text.len());
        }
    }

    /// Ends the block if no list and no table is open any more.
    fn end_outermost(&mut self) {
        if self.lists == 0 && self.tables == 0 {
            self.begin_block(Shape::Text);
        } else {
            self.begin_line();
        }
    }

    fn end_block(&mut self) {
        let Self { page: Page { text, found, .. }, start, shape, .. } = self;
        let shape = std::mem::take(shape);
        let told = text.get(*start..).unwrap_or_default().trim_end();
        let end = *start + told.len();
        let at = *start;
        if told.trim().is_empty() {
            text.truncate(at);
        } else {
            found.push(match shape {
                Shape::Heading(level) => {
                    let mut heading = told.split_whitespace().collect::<Vec<&str>>().join(" ");
                    heading.truncate(heading.floor_char_boundary(HEADING_BYTES_MAX));
                    Found::Heading(Heading { at, level, text: heading })
                }
                Shape::Text => Found::Block(Block { range: at..end, kind: BlockKind::Text }),
                Shape::List(items) => Found::Block(Block { range: at..end, kind: BlockKind::List(items) }),
                Shape::Table(rows) => {
                    let rows = rows.into_iter().skip(1).filter(|row| *row < end).collect();
                    Found::Block(Block { range: at..end, kind: BlockKind::Table(rows) })
                }
            });
            text.truncate(end);
            text.push_str("\n\n");
        }
        *start = text.len();
        self.is_apart = false;
    }
}

fn heading_level(name: &str) -> Option<HeadingLevel> {
    match name {
        "h1" => Some(HeadingLevel::H1),
        "h2" => Some(HeadingLevel::H2),
        "h3" => Some(HeadingLevel::H3),
        "h4" => Some(HeadingLevel::H4),
        "h5" => Some(HeadingLevel::H5),
        "h6" => Some(HeadingLevel::H6),
        _ => None,
    }
}

/// Returns the name of an element whose content is no text.
fn left_out(name: &str) -> Option<&'static str> {
    ["script", "style", "template"].into_iter().find(|known| *known == name)
}

/// Returns whether an element stands on lines of its own.
fn is_block(name: &str) -> bool {
    const BLOCKS: [&str; 25] = [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "main",
        "nav",
        "p",
        "section",
        "summary",
        "tbody",
        "thead",
        "tfoot",
    ];
    BLOCKS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_text_with_its_structure() {
        let rows = [
            ("paragraphs", "<p>One <b>two</b></p><p>three", "One two\n\nthree", 2),
            ("white space", "<p>\n  One\n  two  <i>three</i>,\n four</p>", "One two three, four", 1),
            ("entities", "<p>a &amp; b &lt; c</p>", "a & b < c", 1),
            ("headings", "<h1>A <em>b</em></h1><p>c<h2>d</h2>e", "A b\n\nc\n\nd\n\ne", 4),
            ("a list", "<ul><li>one<li>two<ul><li>three</ul></ul>", "- one\n- two\n  - three", 1),
            ("a table", "<table><tr><th>a<th>b<tr><td>c</td><td>d</td></tr></table>", "a | b\nc | d", 1),
            ("code", "<pre>a\n  b\n</pre>", "a\n  b", 1),
            ("scripts and styles", "<style>p { }</style><p>a<script>if (a < b) { }</script>b</p>", "ab", 1),
            ("a comment", "<p>a<!-- b -->c</p>", "ac", 1),
            ("tags that do not end", "<div><div><p>a</b></i></span>b", "ab", 1),
            ("a tag without an end", "a <b", "a", 1),
            ("nothing", "", "", 0),
        ];
        for (row, html, expected, found) in rows {
            let page = read(html);
            assert_eq!((page.text.trim_end(), page.found.len()), (expected, found), "{row}: {:?}", page.found);
        }
        assert_eq!(read("<title>\n Time  off </title><h1>x").title.as_deref(), Some("Time off"));
    }

    #[test]
    fn hostile_pages_become_no_larger() {
        let rows = [
            ("nested", "<div>".repeat(100_000)),
            ("nested lists", "<ul><li>".repeat(100_000)),
            ("nested tables", "<table><tr><td>".repeat(50_000)),
            ("headings", "<h1>a".repeat(100_000)),
            ("a long attribute", format!("<a b=\"{}\">c", "d".repeat(1 << 20))),
            ("one line", "a".repeat(1 << 20)),
        ];
        for (row, html) in rows {
            let page = read(&html);
            // An item of a nested list is indented by at most 7 levels.
            assert!(page.text.len() <= 4 * html.len(), "{row}: {} bytes", page.text.len());
        }
    }
}
