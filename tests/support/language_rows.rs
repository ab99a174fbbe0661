//! The rows of `tests/data/languages.txt` and `languages_held_out.txt`: chunks in many languages, and queries that people would ask.

use std::path::Path;

/// A chunk of a language.
pub(crate) struct ChunkRow {
    pub(crate) language: String,
    pub(crate) key: String,
    pub(crate) text: String,
}

impl ChunkRow {
    /// Returns an id that no other row has.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.language, self.key)
    }
}

/// A query of a language, and the ids of the chunks that it has to find.
pub(crate) struct QueryRow {
    pub(crate) language: String,
    pub(crate) text: String,
    pub(crate) ids: Vec<String>,
}

/// All rows of the file.
#[derive(Default)]
pub(crate) struct LanguageRows {
    pub(crate) chunks: Vec<ChunkRow>,
    pub(crate) queries: Vec<QueryRow>,
}

/// Reads the rows.
pub(crate) fn language_rows() -> LanguageRows {
    read("languages.txt")
}

/// Reads more queries for the chunks of [`language_rows`], which no rule was made for.
pub(crate) fn held_out_rows() -> LanguageRows {
    read("languages_held_out.txt")
}

fn read(name: &str) -> LanguageRows {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let text = unescaped(&std::fs::read_to_string(path).expect("the rows"));
    let mut rows = LanguageRows::default();
    let mut language = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_at(2) {
            ("= ", heading) => heading.split(' ').next().expect("a code").clone_into(&mut language),
            ("+ ", chunk) => {
                let (key, text) = chunk.split_once(": ").expect("a key and a text");
                rows.chunks.push(ChunkRow { language: language.clone(), key: key.to_owned(), text: text.to_owned() });
            }
            ("? ", query) => {
                let (text, keys) = query.rsplit_once(" > ").expect("a query and keys");
                let ids = keys.split(' ').map(|key| format!("{language}/{key}")).collect();
                rows.queries.push(QueryRow { language: language.clone(), text: text.to_owned(), ids });
            }
            _ => panic!("`{line}` is no row"),
        }
    }
    rows
}

/// Puts characters in place of escapes such as `\u{ad}`.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once('}').expect("the end of an escape");
        let number = u32::from_str_radix(number, 16).expect("a hexadecimal number");
        unescaped.push(char::from_u32(number).expect("a character"));
        unescaped.push_str(rest);
    }
    unescaped
}
