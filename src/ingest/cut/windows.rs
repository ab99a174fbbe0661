//! Cuts a text that has no structure, or whose structure is too coarse.
//!
//! A window is the most that one chunk may hold. It ends at the last paragraph, line, sentence or word that ends in its second
//! half, in this order. If none does, at most half of the window has breaks, and what follows has none for that long. So each
//! two windows cover at least half of a chunk, and a text is looked at a few times, whatever it is made of.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Cuts a range of a text into windows of at most `characters`. The windows cover the range without gaps. What ends at `lead_end`,
/// such as a heading, is no window of its own, unless it is as long as one.
pub(super) fn windows(
    text: &str,
    range: Range<usize>,
    lead_end: usize,
    characters: usize,
    bytes_seen: &mut usize,
) -> Vec<Range<usize>> {
    let mut windows = Vec::new();
    let Range { mut start, end } = range;
    while let Some(rest) = text.get(start..end).filter(|rest| !rest.is_empty()) {
        let next = if let Some(window) = first_characters(rest, characters) {
            *bytes_seen += window.len();
            start + window_end(window, lead_end.saturating_sub(start))
        } else {
            *bytes_seen += rest.len();
            end
        };
        windows.push(start..next);
        start = next;
    }
    windows
}

/// Returns the first characters of a text; `None` if it has no more than these.
fn first_characters(text: &str, characters: usize) -> Option<&str> {
    let (end, _) = text.char_indices().nth(characters)?;
    text.get(..end)
}

/// Returns where a window ends, which is after its first character and after the lead.
fn window_end(window: &str, lead: usize) -> usize {
    let lead = if lead < window.len() { lead } else { 0 };
    let is_late = |end: &usize| *end > lead.max(window.len() / 2);
    let late_break = paragraph_end(window)
        .filter(is_late)
        .or_else(|| line_end(window).filter(is_late))
        .or_else(|| sentence_end(window).filter(is_late))
        .or_else(|| word_end(window).filter(is_late));
    let early_break = || word_end(window).filter(|end| *end > lead);
    late_break.or_else(early_break).or_else(|| letter_end(window).filter(is_late)).unwrap_or(window.len())
}

fn paragraph_end(window: &str) -> Option<usize> {
    let unix = window.rfind("\n\n").map(|at| at + "\n\n".len());
    let windows = window.rfind("\n\r\n").map(|at| at + "\n\r\n".len());
    unix.max(windows)
}

fn line_end(window: &str) -> Option<usize> {
    window.rfind('\n').map(|at| at + 1)
}

/// Returns where the last sentence begins, which may go on after the window.
fn sentence_end(window: &str) -> Option<usize> {
    window.split_sentence_bound_indices().last().map(|(at, _)| at)
}

fn word_end(window: &str) -> Option<usize> {
    window.char_indices().rfind(|(_, c)| c.is_whitespace()).map(|(at, c)| at + c.len_utf8())
}

/// Returns where the last letter begins with its accents, which may go on after the window.
fn letter_end(window: &str) -> Option<usize> {
    window.grapheme_indices(true).next_back().map(|(at, _)| at)
}
