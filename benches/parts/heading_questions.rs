//! Questions that follow from the headings of documents: whoever types a heading wants its section.

use std::collections::{BTreeMap, BTreeSet};

use ragward::chunk::{Chunk, Document};

use crate::support::dice::Dice;

/// The number of questions of each kind, at most.
const OF_A_KIND_MAX: usize = 300;
/// The number of questions of one kind that one document gives, so that long documents do not decide the result.
const OF_A_DOCUMENT_MAX: usize = 2;
/// A longer section is not asked for, because ten answers could not hold it.
const SECTION_CHUNKS_MAX: usize = 10;
/// A heading of one word is no question, and one of more words than this is a sentence.
const WORDS: std::ops::RangeInclusive<usize> = 2..=12;
/// A heading of this many documents says nothing without the title.
const SHARED_BY_MIN: usize = 5;

/// A question, and the chunks that answer it.
pub(crate) struct Question {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) relevant: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A heading that only one document has.
    Heading,
    /// The title of a document, and a heading that many documents have.
    TitleAndHeading,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Heading => "a heading of one document",
            Self::TitleAndHeading => "a title and a heading of many",
        }
    }
}

/// The section of a document below one heading.
struct Section<'a> {
    title: &'a str,
    heading: &'a str,
    chunks: BTreeSet<String>,
}

/// Makes the questions. They are the same in each run.
pub(crate) fn questions(documents: &[Document]) -> Vec<Question> {
    // The first key is the heading in lower case, the second is the document.
    let mut sections: BTreeMap<String, BTreeMap<&str, Section<'_>>> = BTreeMap::new();
    for chunk in documents.iter().flat_map(|document| &document.chunks) {
        for heading in own_headings(chunk) {
            let of_heading = sections.entry(heading.to_lowercase()).or_default();
            let section = of_heading.entry(chunk.document_id.as_str()).or_insert_with(|| Section {
                title: &chunk.title,
                heading,
                chunks: BTreeSet::new(),
            });
            section.chunks.insert(chunk.id.clone());
        }
    }
    let mut titles: BTreeMap<&str, usize> = BTreeMap::new();
    for document in documents {
        *titles.entry(document.title.as_str()).or_default() += 1;
    }
    let (mut single, mut shared) = (Vec::new(), Vec::new());
    for of_heading in sections.values() {
        for (document, section) in of_heading {
            if section.chunks.len() > SECTION_CHUNKS_MAX {
                continue;
            }
            let words = section.heading.split_whitespace().count();
            if of_heading.len() == 1 && WORDS.contains(&words) {
                single.push((*document, section));
            } else if of_heading.len() >= SHARED_BY_MIN && titles.get(section.title) == Some(&1) {
                shared.push((*document, section));
            }
        }
    }
    let of_heading = |section: &Section<'_>| Question {
        kind: Kind::Heading,
        text: section.heading.to_owned(),
        relevant: section.chunks.clone(),
    };
    let of_title = |section: &Section<'_>| Question {
        kind: Kind::TitleAndHeading,
        text: format!("{} {}", section.title, section.heading),
        relevant: section.chunks.clone(),
    };
    let mut questions: Vec<Question> = picked(single).into_iter().map(of_heading).collect();
    questions.extend(picked(shared).into_iter().map(of_title));
    questions
}

/// Returns the headings above a chunk that are not the title of its document.
fn own_headings(chunk: &Chunk) -> impl Iterator<Item = &str> {
    chunk.heading_path.iter().map(String::as_str).filter(move |heading| *heading != chunk.title)
}

/// Picks sections without a pattern, and only a few of each document.
fn picked<'a>(mut sections: Vec<(&'a str, &'a Section<'a>)>) -> Vec<&'a Section<'a>> {
    Dice::new(5).shuffle(&mut sections);
    let mut of_document: BTreeMap<&str, usize> = BTreeMap::new();
    let mut picked = Vec::new();
    for (document, section) in sections {
        let count = of_document.entry(document).or_default();
        *count += 1;
        if *count <= OF_A_DOCUMENT_MAX && picked.len() < OF_A_KIND_MAX {
            picked.push(section);
        }
    }
    picked
}
