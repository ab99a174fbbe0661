//! Reads the structure of a Markdown text: its headings, and the blocks between them with the places where each may be cut.
//!
//! The parser of `CommonMark` finds them, so a `#` in a code block is no heading, and underlined and closed headings are. It works
//! without recursion, and in a time that grows with the length of the text times the depth of its lists and quotations. So this depth
//! has a bound.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::chunk::HEADING_BYTES_MAX;

/// How deep lists may be nested for their items to be places to cut at. Deeper items are cut like plain text.
pub(super) const LIST_DEPTH_MAX: usize = 8;

/// How deep lists and quotations may be nested, as [`nests_too_deep`] counts. The parser looks at all that are open for each line, so
/// 100,000 of them above as many lines would keep it busy for minutes. Nobody reads what stands so deep.
const NESTING_MAX: usize = 200;
/// A tab reaches to the next column that is divisible by this.
const TAB_COLUMNS: usize = 4;
/// The fewest columns by which an item of a list is indented below another one.
const ITEM_COLUMNS_MIN: usize = 2;

/// A heading that stands outside of lists and quotations.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heading {
    /// Where its line begins.
    pub(super) at: usize,
    pub(super) level: HeadingLevel,
    /// Its text, without markup, in one line.
    pub(super) text: String,
}

/// A block that stands outside of lists and quotations.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Where its first line begins, and where the block ends.
    pub(super) range: Range<usize>,
    pub(super) kind: BlockKind,
}

/// The kinds of blocks that are cut in different ways.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// A paragraph, a quotation, HTML, or anything else that is cut at sentences.
    Text,
    /// Code between two fences.
    Fence,
    /// A table. It has the places where its rows begin, without the header.
    Table(Vec<usize>),
    /// A list. It has the places where its items begin, at all depths, in their order.
    List(Vec<Item>),
}

/// An item of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) at: usize,
    /// How many lists it is in: 1 for an item of the block itself.
    pub(super) depth: usize,
}

/// A part of a text that the parser found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Heading(Heading),
    Block(Block),
}

impl Heading {
    /// Returns whether it is of the first level, as titles are.
    pub(super) fn is_title(&self) -> bool {
        self.level == HeadingLevel::H1
    }
}

/// Returns whether lists and quotations may be nested too deep to be read. The count is a bound: a line can open one of them by
/// each mark that it begins with, and continue one by each two columns of its indentation.
pub(super) fn nests_too_deep(text: &str) -> bool {
    // A carriage return alone ends a line of Markdown, too.
    text.split(['\n', '\r']).any(|line| {
        let (mut marks, mut columns) = (0, 0);
        let mut rest = line.as_bytes();
        while let [first, after @ ..] = rest {
            rest = match first {
                b' ' => {
                    columns += 1;
                    after
                }
                b'\t' => {
                    columns += TAB_COLUMNS;
                    after
                }
                b'>' => {
                    marks += 1;
                    after
                }
                _ => match after_list_mark(rest) {
                    Some(after) => {
                        marks += 1;
                        after
                    }
                    // Before a text there is the whole indentation, and a line of white space alone opens nothing.
                    None => return marks + columns / ITEM_COLUMNS_MIN > NESTING_MAX,
                },
            };
        }
        marks > NESTING_MAX
    })
}

/// Returns what stands after the mark of a list's item, such as `-` or `12.`; `None` if the line does not begin with one.
fn after_list_mark(line: &[u8]) -> Option<&[u8]> {
    /// `CommonMark` allows no longer numbers.
    const DIGITS_MAX: usize = 9;
    let digits = line.iter().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
    let is_mark = match line.get(digits)? {
        b'-' | b'+' | b'*' => digits == 0,
        b'.' | b')' => digits > 0,
        _ => false,
    };
    let after = line.get(digits + 1..)?;
    (is_mark && matches!(after.first(), None | Some(b' ' | b'\t'))).then_some(after)
}

/// Reads a text from its beginning to its end.
pub(super) fn read(text: &str, mut take: impl FnMut(Found)) {
    let mut depth = 0_usize;
    let mut open: Option<Open> = None;
    let options = Options::ENABLE_TABLES | Options::ENABLE_HEADING_ATTRIBUTES;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                let at = line_start(text, range.start);
                if let Some(open) = &mut open {
                    open.enter(&tag, at);
                } else {
                    open = Some(Open::new(&tag, at));
                }
                depth += 1;
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                if let (Some(open), TagEnd::List(_)) = (&mut open, &end) {
                    open.lists = open.lists.saturating_sub(1);
                }
                if depth == 0
                    && let Some(open) = open.take()
                {
                    take(open.found(range.end));
                }
            }
            Event::Text(text) | Event::Code(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                if let Some(open) = &mut open {
                    open.add(&text);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some(open) = &mut open {
                    open.add(" ");
                }
            }
            Event::Html(_)
            | Event::InlineHtml(_)
            | Event::FootnoteReference(_)
            | Event::Rule
            | Event::TaskListMarker(_) => {}
        }
    }
}

/// A heading or block whose end was not read yet.
struct Open {
    at: usize,
    shape: Shape,
    /// How many lists are open.
    lists: usize,
}

enum Shape {
    Heading(HeadingLevel, String),
    Block(BlockKind),
}

impl Open {
    fn new(tag: &Tag<'_>, at: usize) -> Self {
        let shape = if let Tag::Heading { level, .. } = tag {
            Shape::Heading(*level, String::new())
        } else if let Tag::CodeBlock(CodeBlockKind::Fenced(_)) = tag {
            Shape::Block(BlockKind::Fence)
        } else if let Tag::Table(_) = tag {
            Shape::Block(BlockKind::Table(Vec::new()))
        } else if let Tag::List(_) = tag {
            Shape::Block(BlockKind::List(Vec::new()))
        } else {
            Shape::Block(BlockKind::Text)
        };
        let lists = usize::from(matches!(tag, Tag::List(_)));
        Self { at, shape, lists }
    }

    /// Notes what begins within the block.
    fn enter(&mut self, tag: &Tag<'_>, at: usize) {
        let depth = self.lists;
        match (&mut self.shape, tag) {
            (Shape::Block(BlockKind::List(items)), Tag::Item) if depth <= LIST_DEPTH_MAX => {
                items.push(Item { at, depth });
            }
            (Shape::Block(BlockKind::Table(rows)), Tag::TableRow) => rows.push(at),
            (Shape::Block(_), Tag::List(_)) => self.lists += 1,
            (Shape::Heading(..) | Shape::Block(_), _) => {}
        }
    }

    /// Adds to the text of a heading. White space becomes one space, and what is too long is left out.
    fn add(&mut self, added: &str) {
        let Shape::Heading(_, text) = &mut self.shape else { return };
        for c in added.chars() {
            let c = if c.is_whitespace() || c.is_control() { ' ' } else { c };
            let is_needless = c == ' ' && (text.is_empty() || text.ends_with(' '));
            if text.len() + c.len_utf8() > HEADING_BYTES_MAX {
                return;
            }
            if !is_needless {
                text.push(c);
            }
        }
    }

    fn found(self, end: usize) -> Found {
        let Self { at, shape, lists: _ } = self;
        match shape {
            Shape::Heading(level, text) => Found::Heading(Heading { at, level, text: text.trim_end().to_owned() }),
            Shape::Block(kind) => Found::Block(Block { range: at..end, kind }),
        }
    }
}

/// Returns where the line begins if only blanks stand between, or else the place itself.
fn line_start(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let blanks = before.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let start = at - blanks;
    let is_line_start = start == 0 || before.get(start - 1) == Some(&b'\n');
    if is_line_start { start } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_of_lists_and_quotations_is_bounded() {
        let most = NESTING_MAX;
        let rows = [
            ("nothing", String::new(), false),
            ("the deepest list in one line", format!("{}a", "- ".repeat(2 * most / 3)), false),
            ("a list in one line", format!("{}a", "- ".repeat(most)), true),
            ("numbers", format!("{}a", "1. ".repeat(most)), true),
            ("quotations", format!("{}a", ">".repeat(most + 1)), true),
            ("marks alone", "* ".repeat(most + 1), true),
            ("quotations without spaces, just deep enough", format!("{}a", ">".repeat(most)), false),
            ("an indentation", format!("a\n{}b", " ".repeat(2 * most + 2)), true),
            ("tabs", format!("a\n{}b", "\t".repeat(most)), true),
            ("a line of blanks", format!("a\n{}\nb", " ".repeat(4 * most)), false),
            ("a rule", "-".repeat(4 * most), false),
            ("a table", format!("|{}|", "-".repeat(4 * most)), false),
            ("marks within a line", format!("a {}", "> - ".repeat(most)), false),
            ("after a carriage return", format!("a\r{}b", ">".repeat(most + 1)), true),
            ("a long number", format!("{}. a", "1".repeat(10)), false),
        ];
        for (row, text, expected) in rows {
            assert_eq!(nests_too_deep(&text), expected, "{row}");
        }
    }
}
