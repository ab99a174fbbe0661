//! Makes chunks of sections and blocks.
//!
//! INVARIANT (nothing is lost): the pieces together hold every word of the text, except for headings. One that does not fit beside
//! a whole block is told by the heading path alone. One at the end of the text, with nothing below it, is left out if it does not
//! fit into the chunk before.

use std::ops::Range;

use pulldown_cmark::HeadingLevel;

use super::Piece;
use super::blocks::{Block, BlockKind, Heading, Item};
use super::size::ChunkSize;
use super::windows::windows;
use crate::vector_store::validation::CHUNKS_PER_DOCUMENT_MAX;

/// Gathers a section after the other, and packs it when the next one begins.
pub(super) struct Packer<'t> {
    text: &'t str,
    size: ChunkSize,
    /// The headings above the place that was reached, the outermost first.
    stack: Vec<(HeadingLevel, String)>,
    section: Section,
    /// The chunk of whole sections that the next section may join.
    open: Option<OpenChunk>,
    pieces: Vec<Piece>,
    /// The last piece that came from a section which is cut; the next one may repeat its end.
    last: Option<Range<usize>>,
    /// Where the headings of the section end that is cut.
    lead_end: usize,
    bytes_seen: usize,
}

/// The section that is gathered: headings, and the blocks below them.
#[derive(Default)]
struct Section {
    start: usize,
    blocks: Vec<Block>,
    /// Whether there is a heading in the section.
    has_heading: bool,
    /// Whether a heading of the section is no longer above the place that was reached, because one without text followed it.
    has_lost_heading: bool,
    /// The fewest headings that were above a place since the section before was packed.
    shared_headings: usize,
}

/// Whole sections that fit into one chunk.
struct OpenChunk {
    range: Range<usize>,
    characters: usize,
    /// The headings above all of these sections.
    path: Vec<String>,
}

/// The texts that the cutter puts around the pieces of a block.
#[derive(Clone, Copy, Default)]
struct Frame<'t> {
    /// The cutter puts this before the next piece.
    before: &'t str,
    /// The cutter puts this before each piece after the next one.
    repeated: &'t str,
    /// The cutter puts this after each piece.
    after: &'t str,
}

/// The number of characters of a range.
#[derive(Clone, Copy)]
struct Count {
    all: usize,
    /// The characters without the white space at the end.
    told: usize,
}

impl<'t> Packer<'t> {
    pub(super) fn new(text: &'t str, size: ChunkSize) -> Self {
        Self {
            text,
            size,
            stack: Vec::new(),
            section: Section::default(),
            open: None,
            pieces: Vec::new(),
            last: None,
            lead_end: 0,
            bytes_seen: 0,
        }
    }

    /// Takes the whole text as one block without structure.
    pub(super) fn plain(&mut self) {
        self.block(Block { range: 0..self.text.len(), kind: BlockKind::Text });
    }

    pub(super) fn heading(&mut self, heading: Heading) {
        if !self.section.blocks.is_empty() {
            self.pack_section(heading.at);
        }
        let above = self.stack.iter().take_while(|(level, _)| *level < heading.level).count();
        self.section.has_lost_heading |= self.section.has_heading && above < self.stack.len();
        self.stack.truncate(above);
        self.section.shared_headings = self.section.shared_headings.min(above);
        self.section.has_heading = true;
        self.stack.push((heading.level, heading.text));
    }

    pub(super) fn block(&mut self, block: Block) {
        self.section.blocks.push(block);
    }

    /// Returns the pieces, and how many bytes were looked at.
    pub(super) fn finish(mut self) -> (Vec<Piece>, usize) {
        self.pack_section(self.text.len());
        self.close();
        (self.pieces, self.bytes_seen)
    }

    /// Packs the section that was gathered, which ends here.
    fn pack_section(&mut self, end: usize) {
        let next = Section { start: end, shared_headings: self.stack.len(), ..Section::default() };
        let section = std::mem::replace(&mut self.section, next);
        let count = self.count(section.start..end);
        let characters = self.size.characters();
        if let Some(open) = &mut self.open
            && open.characters + count.told <= characters
        {
            open.range.end = end;
            open.characters += count.all;
            // An empty heading is on the stack, and not in the path. So the path is shortened by what stands below it.
            let shared = self.stack.iter().take(section.shared_headings).filter(|(_, text)| !text.is_empty()).count();
            open.path.truncate(shared);
            return;
        }
        // A heading without a text below it is no chunk, if there is any other.
        let is_needless = section.blocks.is_empty() && (self.open.is_some() || !self.pieces.is_empty());
        self.close();
        if count.told > characters {
            if self.has_room() {
                self.split(section, end);
            }
        } else if !is_needless {
            self.open = Some(OpenChunk { range: section.start..end, characters: count.all, path: self.path() });
        }
    }

    /// Makes a piece of the open chunk.
    fn close(&mut self) {
        if let Some(OpenChunk { range, path, .. }) = self.open.take() {
            self.last = None;
            self.push(range, &mut Frame::default(), &path);
        }
    }

    /// Cuts a section that does not fit into one chunk.
    fn split(&mut self, section: Section, end: usize) {
        let path = self.path();
        let limit = self.limit();
        self.last = None;
        let Section { start, blocks, has_lost_heading, .. } = section;
        if blocks.is_empty() {
            // There are only headings, and none of them is above all of the others.
            self.push_windows(start..end, limit, &mut Frame::default(), &[]);
            return;
        }
        self.lead_end = blocks.first().map_or(start, |block| block.range.start);
        let starts: Vec<usize> = blocks.iter().map(|block| block.range.start).collect();
        let mut together: Option<OpenChunk> = None;
        for (place, block) in blocks.into_iter().enumerate() {
            let next = starts.get(place + 1).copied().unwrap_or(end);
            let mut from = block.range.start;
            if place == 0 && !self.stands_without_heading(start, &block, next, has_lost_heading) {
                from = start;
            }
            let count = self.count(from..next);
            if let Some(open) = &mut together
                && open.characters + count.told <= limit
            {
                open.range.end = next;
                open.characters += count.all;
                continue;
            }
            if let Some(open) = together.take() {
                self.push(open.range, &mut Frame::default(), &path);
            }
            if count.told <= limit {
                together = Some(OpenChunk { range: from..next, characters: count.all, path: Vec::new() });
            } else {
                self.split_block(&block, from..next, &path);
            }
        }
        if let Some(open) = together.take() {
            self.push(open.range, &mut Frame::default(), &path);
        }
    }

    /// Returns whether the first block of a section is whole in a chunk of its own, and would not be with the headings before
    /// it. Then these are left to the path, if the path has all of them.
    fn stands_without_heading(&mut self, start: usize, block: &Block, next: usize, has_lost_heading: bool) -> bool {
        let limit = self.limit();
        !has_lost_heading
            && self.count(start..next).told > limit
            && self.count(block.range.start..next).told <= limit
            && block.range.start > start
    }

    /// Cuts a block that does not fit into one chunk. What stands before it in `range` goes with its first part.
    fn split_block(&mut self, block: &Block, range: Range<usize>, path: &[String]) {
        let limit = self.limit();
        match &block.kind {
            BlockKind::Text => self.push_windows(range, limit, &mut Frame::default(), path),
            BlockKind::List(items) => self.split_list(items, range, path),
            BlockKind::Table(rows) => {
                let first = rows.first().copied().unwrap_or(range.end);
                let frame = self.frame(&range, block.range.start..first, "");
                self.split_framed(rows, first..range.end, frame, path);
            }
            BlockKind::Fence => {
                let Some(fence) = Fence::of(self.text, &block.range) else {
                    return self.push_windows(range, limit, &mut Frame::default(), path);
                };
                let frame = self.frame(&range, block.range.start..fence.code.start, fence.closing);
                self.split_framed(&fence.lines, fence.code, frame, path);
                // After the fence comes white space, or text that belongs to no block.
                self.push_windows(block.range.end..range.end, limit, &mut Frame::default(), path);
            }
        }
    }

    /// Makes the frame of a block: its first lines are repeated, and what stands before the block goes with the first piece alone.
    fn frame(&self, range: &Range<usize>, first_lines: Range<usize>, after: &'t str) -> Frame<'t> {
        let text = |range: Range<usize>| without_blank_lines_before(self.text.get(range).unwrap_or_default());
        Frame { before: text(range.start..first_lines.end), repeated: text(first_lines), after }
    }

    /// Cuts a list between its items, and an item that is too long between the items in it.
    fn split_list(&mut self, items: &[Item], range: Range<usize>, path: &[String]) {
        let outer: Vec<usize> = items.iter().filter(|item| item.depth == 1).map(|item| item.at).collect();
        let inner: Vec<usize> = items.iter().map(|item| item.at).collect();
        let limit = self.limit();
        let first = outer.first().copied().unwrap_or(range.start);
        let mut together = Together::new(limit, limit);
        // The text before the list goes with the first item.
        for item in segments(outer.get(1..).unwrap_or_default(), range) {
            let count = self.count(item.clone());
            if count.told <= limit {
                self.push_all(together.add(item, count), &mut Frame::default(), path);
                continue;
            }
            let from = inner.partition_point(|at| *at <= item.start.max(first));
            let to = inner.partition_point(|at| *at < item.end);
            for part in segments(inner.get(from..to).unwrap_or_default(), item) {
                let count = self.count(part.clone());
                self.push_all(together.add(part, count), &mut Frame::default(), path);
            }
        }
        self.push_all(together.end(), &mut Frame::default(), path);
    }

    /// Cuts between these places, with a frame around each part. A frame that would fill half of a chunk is not repeated.
    fn split_framed(&mut self, places: &[usize], range: Range<usize>, mut frame: Frame<'t>, path: &[String]) {
        let limit = self.limit();
        let [before, repeated, after] = [frame.before, frame.repeated, frame.after].map(|part| part.chars().count());
        if before.max(repeated) + after + 1 > limit / 2 {
            let whole = range.start - frame.before.len()..range.end;
            return self.push_windows(whole, limit, &mut Frame::default(), path);
        }
        let mut together = Together::new(limit - before - after - 1, limit - repeated - after - 1);
        for part in segments(places, range) {
            let count = self.count(part.clone());
            self.push_all(together.add(part, count), &mut frame, path);
        }
        self.push_all(together.end(), &mut frame, path);
    }

    fn push_all(&mut self, ready: Option<Ready>, frame: &mut Frame<'t>, path: &[String]) {
        let Some(Ready { range, limit }) = ready else { return };
        self.push_windows(range, limit, frame, path);
    }

    fn push_windows(&mut self, range: Range<usize>, limit: usize, frame: &mut Frame<'t>, path: &[String]) {
        let told = self.text.get(range.clone()).unwrap_or_default().trim_end();
        let told = range.start..range.start + told.len();
        for window in windows(self.text, told, self.lead_end, limit, &mut self.bytes_seen) {
            self.push(window, frame, path);
        }
    }

    /// Adds a piece, unless it is white space. One chunk too many is enough for a document to be refused.
    fn push(&mut self, range: Range<usize>, frame: &mut Frame<'t>, path: &[String]) {
        let told = without_blank_lines_before(self.text.get(range.clone()).unwrap_or_default()).trim_end();
        self.bytes_seen += range.len();
        if told.is_empty() || !self.has_room() {
            return;
        }
        let is_framed = !frame.before.is_empty() || !frame.after.is_empty();
        let overlap = if is_framed { "" } else { self.overlap(&range) };
        let mut text = [frame.before, overlap, told].concat();
        if !frame.after.is_empty() {
            text.push('\n');
            text.push_str(frame.after);
        }
        frame.before = frame.repeated;
        self.last = (!is_framed).then_some(range);
        self.pieces.push(Piece { text, heading_path: path.to_vec() });
    }

    /// Returns the end of the last piece, from the beginning of a word, if this one follows it.
    fn overlap(&self, range: &Range<usize>) -> &'t str {
        let is_next = |last: &&Range<usize>| {
            self.text.get(last.end..range.start).is_some_and(|between| between.trim().is_empty())
        };
        let Some(last) = self.last.as_ref().filter(is_next) else { return "" };
        let before = self.text.get(last.start..range.start).unwrap_or_default();
        let from = before.char_indices().rev().take(self.size.overlap()).last().map_or(before.len(), |(at, _)| at);
        let end = before.get(from..).unwrap_or_default();
        // The first word may be cut, so it is left out.
        let word = end.find(char::is_whitespace).and_then(|at| end.get(at..)).unwrap_or_default();
        word.trim_start()
    }

    /// Returns the longest piece of a section that is cut. The overlap comes before it.
    fn limit(&self) -> usize {
        self.size.characters() - self.size.overlap()
    }

    fn has_room(&self) -> bool {
        self.pieces.len() <= CHUNKS_PER_DOCUMENT_MAX
    }

    /// Returns the headings that have a text.
    fn path(&self) -> Vec<String> {
        self.stack.iter().map(|(_, text)| text).filter(|text| !text.is_empty()).cloned().collect()
    }

    fn count(&mut self, range: Range<usize>) -> Count {
        let text = self.text.get(range).unwrap_or_default();
        self.bytes_seen += text.len();
        Count { all: text.chars().count(), told: text.trim_end().chars().count() }
    }
}

/// Parts of a block that are gathered until no more fit into a chunk.
struct Together {
    limit: usize,
    /// The limit after the first piece.
    later_limit: usize,
    range: Option<Range<usize>>,
    characters: usize,
    /// The characters without the white space at the end.
    told: usize,
}

/// A range that is ready, and the longest piece that it may be cut into.
struct Ready {
    range: Range<usize>,
    limit: usize,
}

impl Together {
    fn new(limit: usize, later_limit: usize) -> Self {
        Self { limit, later_limit, range: None, characters: 0, told: 0 }
    }

    /// Adds the next part. Returns the parts before it if it does not fit beside them.
    fn add(&mut self, part: Range<usize>, count: Count) -> Option<Ready> {
        if let Some(range) = &mut self.range
            && self.characters + count.told <= self.limit
        {
            range.end = part.end;
            self.told = self.characters + count.told;
            self.characters += count.all;
            return None;
        }
        let ready = self.end();
        self.range = Some(part);
        (self.characters, self.told) = (count.all, count.told);
        ready
    }

    /// Returns the parts that are left.
    fn end(&mut self) -> Option<Ready> {
        let range = self.range.take()?;
        // A part that is too long by itself is cut into several pieces, and the later ones must fit, too.
        let limit = if self.told > self.limit { self.limit.min(self.later_limit) } else { self.limit };
        self.limit = self.later_limit;
        Some(Ready { range, limit })
    }
}

/// The parts of a block of code between two fences.
struct Fence<'t> {
    /// The letters of the fence.
    closing: &'t str,
    /// The code, without the fences.
    code: Range<usize>,
    /// Where the lines of code begin.
    lines: Vec<usize>,
}

impl<'t> Fence<'t> {
    fn of(text: &'t str, block: &Range<usize>) -> Option<Self> {
        let whole = text.get(block.clone())?;
        let line_end = whole.find('\n')? + 1;
        let opening = whole.get(..line_end)?;
        let fence = opening.trim_start();
        let letter = fence.chars().next()?;
        let closing = fence.get(..fence.find(|c: char| c != letter)?)?;
        let last = whole.trim_end().rfind('\n').map_or(line_end, |at| at + 1);
        let last_line = whole.get(last..)?.trim();
        let is_closed = last >= line_end && last_line.starts_with(closing) && last_line.chars().all(|c| c == letter);
        let code_end = if is_closed { block.start + last } else { block.end };
        let mut lines = Vec::new();
        let code = block.start + line_end..code_end;
        let mut at = code.start;
        for line in text.get(code.clone())?.split_inclusive('\n') {
            lines.push(at);
            at += line.len();
        }
        Some(Self { closing, code, lines })
    }
}

/// Returns the parts of a range that these places separate.
fn segments(places: &[usize], range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let Range { mut start, end } = range;
    let inner = places.iter().copied().filter(move |place| start < *place && *place < end);
    inner.chain([end]).filter_map(move |next| {
        let segment = start..next;
        start = next;
        (!segment.is_empty()).then_some(segment)
    })
}

/// Leaves out the lines without text at the beginning. The first line keeps its indentation, which may mean something in Markdown.
fn without_blank_lines_before(text: &str) -> &str {
    let first = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
    let line = text.get(..first).and_then(|blank| blank.rfind('\n')).map_or(0, |at| at + 1);
    text.get(line..).unwrap_or_default()
}
