//! The fields of a chunk as the index sees them: its text, the headings above it, and the title of its document.
//!
//! A word counts as often as it stands in the fields, each time with the weight of its field. The length of a chunk is the sum of
//! these counts. This is BM25F with one `b` for all fields (Robertson, Zaragoza and Taylor, CIKM 2004), so the formula of
//! `text_search` needs no change, and its statistics stay those of the visible chunks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::analysis::{ANALYSIS_VERSION, TermCount};

// The weights were measured with 300 queries of each kind over 29,837 chunks of 617 design documents. The numbers are mean
// reciprocal ranks. Of 0, 1, 2, 3 and 4, two and two finds most by headings and costs sentences the least for it:
//
// | weights: heading, title | a heading finds its section | words of title and text | a sentence finds its chunk |
// | 0, 0                    | 0.534                       | 0.386                   | 0.674                      |
// | 1, 1                    | 0.767                       | 0.747                   | 0.672                      |
// | 2, 2                    | 0.824                       | 0.770                   | 0.662                      |
// | 3, 3                    | 0.800                       | 0.779                   | 0.659                      |

/// How much a word of a heading counts: somebody put it there to say what the text is about.
const HEADING_WEIGHT: u32 = 2;
/// How much a word of the title counts.
const TITLE_WEIGHT: u32 = 2;
/// An unbroken run of more bytes than this is data (base64, hashes, minified code), not language. It is left out.
const RUN_BYTES_MAX: usize = 256;

/// The version of the fields and their weights. A change of this module that changes terms must change it, too.
const FIELDS_VERSION: u32 = 1;
/// The version of everything that makes the terms of chunks. A file with those of another version is analyzed again when it is
/// opened.
pub(in crate::vector_store) const INDEX_VERSION: u32 = ANALYSIS_VERSION * 10 + FIELDS_VERSION;

/// The fields of one chunk.
#[derive(Clone, Copy)]
pub(in crate::vector_store) struct Fields<'a> {
    pub(in crate::vector_store) title: &'a str,
    pub(in crate::vector_store) heading_path: &'a [String],
    pub(in crate::vector_store) text: &'a str,
}

impl Fields<'_> {
    /// Finds the distinct terms, each with its weighted count. `analyze` finds those of a text. A chunk without text has none, so a
    /// search for words never finds it.
    pub(super) fn terms(self, mut analyze: impl FnMut(&str) -> Vec<TermCount>) -> Vec<TermCount> {
        let Self { title, heading_path, text } = self;
        let mut terms = analyze(&language(text));
        if text.is_empty() || (title.is_empty() && heading_path.is_empty()) {
            return terms;
        }
        // The title is mostly the first heading, and counts once.
        let below_title = match heading_path {
            [first, below @ ..] if first == title => below,
            all => all,
        };
        let mut positions: HashMap<Arc<str>, usize> =
            terms.iter().enumerate().map(|(position, found)| (Arc::clone(&found.term), position)).collect();
        let fields =
            [(title, TITLE_WEIGHT)].into_iter().chain(below_title.iter().map(|h| (h.as_str(), HEADING_WEIGHT)));
        for (field, weight) in fields {
            for TermCount { term, count } in analyze(&language(field)) {
                let position = *positions.entry(Arc::clone(&term)).or_insert(terms.len());
                match terms.get_mut(position) {
                    Some(known) => known.count += weight * count,
                    None => terms.push(TermCount { term, count: weight * count }),
                }
            }
        }
        terms
    }
}

/// Returns a text without its unbroken runs.
fn language(text: &str) -> Cow<'_, str> {
    // Only ASCII is looked at: Chinese and Thai have no spaces between words.
    let is_run = |word: &str| word.len() > RUN_BYTES_MAX && word.is_ascii();
    let words = || text.split(char::is_whitespace);
    if words().any(is_run) {
        Cow::Owned(words().filter(|word| !is_run(word)).collect::<Vec<&str>>().join(" "))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Analyzer, Language, Languages};

    #[test]
    fn words_count_by_their_fields() {
        type Row<'a> = (&'a str, &'a str, &'a [&'a str], &'a str, &'a [(&'a str, u32)]);
        let run = format!("before {} after", "QUJD/+".repeat(100));
        let rows: [Row<'_>; 7] = [
            ("text alone", "", &[], "leave leave", &[("ENleav", 2)]),
            ("a title", "Leave", &[], "ask", &[("ENask", 1), ("ENleav", 2)]),
            ("a heading", "", &["Leave"], "leave", &[("ENleav", 3)]),
            (
                "a title that is the first heading",
                "Leave",
                &["Leave", "Days"],
                "ask",
                &[("ENask", 1), ("ENleav", 2), ("ENday", 2)],
            ),
            (
                "a title that is a later heading",
                "Days",
                &["Leave", "Days"],
                "ask",
                &[("ENask", 1), ("ENday", 4), ("ENleav", 2)],
            ),
            ("no text", "Leave", &["Days"], "", &[]),
            ("a run", "", &[], &run, &[("ENbefor", 1), ("ENafter", 1)]),
        ];
        for (row, title, headings, text, expected) in rows {
            let (mut analyzer, english) = (Analyzer::new(), Languages::new(vec![Language::English]));
            let heading_path: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
            let terms =
                Fields { title, heading_path: &heading_path, text }.terms(|text| analyzer.terms(text, &english));
            let found: Vec<(&str, u32)> = terms.iter().map(|found| (&*found.term, found.count)).collect();
            assert_eq!(found, expected, "{row}");
        }
    }

    #[test]
    fn only_unbroken_runs_of_ascii_are_no_language() {
        let [run, chinese] = ["a".repeat(RUN_BYTES_MAX + 1), "天".repeat(RUN_BYTES_MAX)];
        let longest = "a".repeat(RUN_BYTES_MAX);
        let rows = [
            ("a run", run.clone(), String::new()),
            ("a run among words", format!("a {run}\nb"), "a b".to_owned()),
            ("the longest word", longest.clone(), longest),
            ("a text without spaces", chinese.clone(), chinese),
        ];
        for (row, text, expected) in rows {
            assert_eq!(language(&text), expected, "{row}");
        }
    }
}
