//! Reads a file of questions, with the documents that should come. The whole file is checked before a question is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::cli::Failure;

/// The largest file of questions, in bytes. Vectors take some kilobytes each.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The most questions that one run asks, each for each of its users. They are asked one after the other.
const ASKED_MAX: usize = 100_000;
/// The largest gain. A share of a larger one could be lost in rounding.
const GAIN_MAX: f64 = 1_000_000.0;

/// The questions of a file.
#[derive(Debug)]
pub(super) struct Questions {
    /// The collection that the file names.
    pub(super) collection: Option<String>,
    pub(super) list: Vec<Question>,
}

/// A question, and what its answer should be.
#[derive(Debug)]
pub(super) struct Question {
    /// The name in reports: the id, or else the search text.
    pub(super) name: String,
    pub(super) query: String,
    pub(super) vector: Vec<f32>,
    /// The users who ask; none if the command line or an access token says who asks.
    pub(super) users: Vec<String>,
    /// The documents that should come, each with its gain.
    pub(super) expect: BTreeMap<String, f64>,
    /// The documents that must not come.
    pub(super) not: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    collection: Option<String>,
    #[serde(default)]
    question: Vec<QuestionForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionForm {
    id: Option<String>,
    #[serde(default)]
    query: String,
    #[serde(default)]
    vector: Vec<f32>,
    user: Option<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    expect: ExpectForm,
    #[serde(default)]
    not: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ExpectForm {
    /// All are equally good.
    Documents(BTreeSet<String>),
    /// A better document has a greater gain.
    Gains(BTreeMap<String, f64>),
}

impl Default for ExpectForm {
    fn default() -> Self {
        Self::Documents(BTreeSet::new())
    }
}

impl QuestionForm {
    fn question(self) -> Result<Question, &'static str> {
        let Self { id, query, vector, user, users, expect, not } = self;
        let expect = match expect {
            ExpectForm::Documents(ids) => ids.into_iter().map(|id| (id, 1.0)).collect(),
            ExpectForm::Gains(gains) => gains,
        };
        if query.trim().is_empty() && vector.is_empty() {
            return Err("it has neither `query` nor `vector`");
        }
        if user.is_some() && !users.is_empty() {
            return Err("it has both `user` and `users`");
        }
        if expect.is_empty() && not.is_empty() {
            return Err("it has neither `expect` nor `not`, so no answer is right or wrong");
        }
        if expect.values().any(|gain| !gain.is_finite() || *gain <= 0.0 || *gain > GAIN_MAX) {
            return Err("a gain must be above 0 and at most 1000000");
        }
        if expect.keys().any(|id| not.contains(id)) {
            return Err("a document is in both `expect` and `not`");
        }
        let name = id.unwrap_or_else(|| if query.is_empty() { "(a vector)".to_owned() } else { query.clone() });
        Ok(Question { name, query, vector, users: user.into_iter().chain(users).collect(), expect, not })
    }
}

/// The form of a file.
#[derive(Clone, Copy, Debug)]
enum FileKind {
    Toml,
    JsonLines,
}

/// Reads a file of questions: JSON Lines if its name ends in `.jsonl` or `.ndjson`, and TOML otherwise.
pub(super) fn read(path: &Path) -> Result<Questions, Failure> {
    let wrong = |detail: String| Failure::usage(format!("`{}`: {detail}", path.display()));
    let bytes = std::fs::metadata(path).map_err(|e| wrong(format!("cannot read it: {e}")))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(wrong(format!("it has {bytes} bytes, at most {FILE_BYTES_MAX} are allowed")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot read it: {e}")))?;
    let is_lines = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    let kind = if is_lines { FileKind::JsonLines } else { FileKind::Toml };
    parse(text.trim_start_matches('\u{feff}'), kind).map_err(wrong)
}

fn parse(text: &str, kind: FileKind) -> Result<Questions, String> {
    let FileForm { collection, question: forms } = match kind {
        FileKind::JsonLines => {
            let mut question = Vec::new();
            for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
                question.push(serde_json::from_str(line).map_err(|e| format!("line {number}: {e}"))?);
            }
            FileForm { collection: None, question }
        }
        FileKind::Toml => toml::from_str(text).map_err(|e| e.to_string())?,
    };
    if forms.is_empty() {
        return Err("it has no questions".to_owned());
    }
    let mut list = Vec::with_capacity(forms.len());
    for (form, number) in forms.into_iter().zip(1..) {
        list.push(form.question().map_err(|why| format!("question {number}: {why}"))?);
    }
    let asked: usize = list.iter().map(|question: &Question| question.users.len().max(1)).sum();
    if asked > ASKED_MAX {
        return Err(format!("its questions are {asked}, counted for each user; at most {ASKED_MAX} are allowed"));
    }
    Ok(Questions { collection, list })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let toml = "collection = 'handbook'\n[[question]]\nid = 'q1'\nquery = 'leave'\nusers = ['user:a', 'user:b']\n\
                    expect = ['d1', 'd2']\nnot = ['d3']\n[[question]]\nquery = 'pay'\nuser = 'user:a'\nexpect = { 'd1' = 3, 'd2' = 0.5 }\n";
        let lines = "{\"id\": \"q1\", \"query\": \"leave\", \"users\": [\"user:a\", \"user:b\"], \"expect\": [\"d1\", \"d2\"], \
                     \"not\": [\"d3\"]}\n\n{\"query\": \"pay\", \"user\": \"user:a\", \"expect\": {\"d1\": 3, \"d2\": 0.5}}\n";
        let (of_toml, of_lines) =
            (parse(toml, FileKind::Toml).expect("TOML"), parse(lines, FileKind::JsonLines).expect("JSON Lines"));
        assert_eq!((of_toml.collection.as_deref(), of_lines.collection), (Some("handbook"), None));
        assert_eq!(format!("{:?}", of_toml.list), format!("{:?}", of_lines.list));
        let [first, second] = &of_toml.list[..] else { panic!("two questions") };
        assert_eq!((first.name.as_str(), second.name.as_str()), ("q1", "pay"));
        assert_eq!(second.expect.get("d1"), Some(&3.0));
    }

    #[test]
    fn a_question_that_cannot_be_right_or_wrong_is_refused() {
        let rows = [
            ("nothing", "", "no questions"),
            ("no JSON", "{", "line 1"),
            ("an unknown key", "{\"query\": \"a\", \"expect\": [\"d\"], \"usr\": \"x\"}", "unknown field"),
            ("no query", "{\"expect\": [\"d\"]}", "question 1: it has neither `query` nor `vector`"),
            ("nothing expected", "\n{\"query\": \"a\"}", "question 1: it has neither `expect` nor `not`"),
            (
                "a user and users",
                "{\"query\": \"a\", \"user\": \"x\", \"users\": [\"y\"], \"not\": [\"d\"]}",
                "both `user`",
            ),
            ("no gain", "{\"query\": \"a\", \"expect\": {\"d\": 0}}", "a gain"),
            ("a loss", "{\"query\": \"a\", \"expect\": {\"d\": -1}}", "a gain"),
            ("wanted and unwanted", "{\"query\": \"a\", \"expect\": [\"d\"], \"not\": [\"d\"]}", "both `expect`"),
        ];
        for (row, text, expected) in rows {
            let why = parse(text, FileKind::JsonLines).map(drop).expect_err(row);
            assert!(why.contains(expected), "{row}: {why}");
        }
    }
}
