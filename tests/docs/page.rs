//! A page of Markdown as a reader works through it: its fenced blocks, in order, and what each one asks for.
//!
//! The first word after the fence is the language. The rest is for this test:
//!
//! | block | meaning |
//! |---|---|
//! | `sh` | run it; it must succeed |
//! | `sh exit=1` | run it; it must end with this exit code |
//! | `sh pip`, `sh grpcurl` | run it where this tool is installed, and leave it out elsewhere |
//! | `text` right after an `sh` block | the output of that block; `...` stands for anything |
//! | `toml` | check it as a configuration file |
//! | `rust,ignore` | lines of an example; each must be in a file of `examples/` |
//! | any language and a file name | write the block to that file |

use std::path::Path;

const FENCE: &str = "```";

/// A page and its blocks.
#[derive(Clone)]
pub(crate) struct Page {
    /// The path within the repository: `docs/src/quickstart.md`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line of its first line of content, counted from 1.
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Commands that start with `cargo`. `.ci/run` has them.
    Cargo,
    Shell(Shell),
    /// The reader saves it under this name.
    File(String),
    /// A configuration, or the part of one.
    Config,
    /// Lines of an example.
    Rust,
    /// Output of the block before, which was already compared, or something to look at.
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shell {
    /// The tools that it needs beside Ragward.
    pub(crate) tools: Vec<String>,
    pub(crate) exit_code: i32,
    /// The output that the page shows; `None` if it shows none.
    pub(crate) output: Option<String>,
}

impl Page {
    pub(crate) fn read(root: &Path, path: &str) -> Self {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        Self { path: path.to_owned(), text }
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut lines = self.text.lines().zip(1..);
        while let Some((line, number)) = lines.next() {
            let Some(info) = line.strip_prefix(FENCE) else { continue };
            let body: Vec<&str> = lines.by_ref().map(|(line, _)| line).take_while(|line| *line != FENCE).collect();
            let text = body.join("\n");
            let mut words = info.split_whitespace();
            let language = words.next().unwrap_or_default();
            let kind = match (language, words.collect::<Vec<&str>>().as_slice()) {
                ("sh", _) if text.starts_with("cargo ") => Kind::Cargo,
                ("sh", marks) => Kind::Shell(self.shell(marks, number)),
                ("toml", []) => Kind::Config,
                ("rust,ignore", []) => Kind::Rust,
                ("text", []) => match blocks.last_mut() {
                    Some(Block { kind: Kind::Shell(shell), .. }) if shell.output.is_none() => {
                        shell.output = Some(text.clone());
                        Kind::Other
                    }
                    _ => Kind::Other,
                },
                (_, []) => Kind::Other,
                (_, [name]) => Kind::File((*name).to_owned()),
                (_, _) => panic!("{}:{number}: `{info}` is no kind of block", self.path),
            };
            blocks.push(Block { line: number + 1, kind, text });
        }
        blocks
    }

    fn shell(&self, marks: &[&str], line: usize) -> Shell {
        let mut shell = Shell::default();
        for mark in marks {
            match mark.strip_prefix("exit=") {
                Some(code) => shell.exit_code = code.parse().unwrap_or_else(|e| panic!("{}:{line}: {e}", self.path)),
                None => shell.tools.push((*mark).to_owned()),
            }
        }
        shell
    }

    /// Returns the tools that its blocks need.
    pub(crate) fn tools(&self) -> Vec<String> {
        let tools = self.blocks().into_iter().filter_map(|block| match block.kind {
            Kind::Shell(shell) => Some(shell.tools),
            Kind::Cargo | Kind::File(_) | Kind::Config | Kind::Rust | Kind::Other => None,
        });
        tools.flatten().collect()
    }
}

/// Returns whether `output` is what a page shows. Tables are compared without their rules and paddings, and `...` in
/// `shown` stands for anything, also for several lines.
pub(crate) fn is_shown(output: &str, shown: &str) -> bool {
    let (output, shown) = (plain(output), plain(shown).replace(" ...", "...").replace("... ", "..."));
    let mut pieces = shown.split("...");
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = output.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, between)) = pieces.split_last() else { return rest.is_empty() };
    for piece in between {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Returns the words of each line with one space between them, without empty lines and the rules of tables.
fn plain(text: &str) -> String {
    let words = |line: &str| line.split_whitespace().collect::<Vec<&str>>().join(" ");
    let lines = text.lines().map(words).filter(|line| !line.chars().all(|c| matches!(c, '─' | '═' | ' ')));
    lines.collect::<Vec<String>>().join("\n")
}

#[test]
fn blocks_are_found_with_their_lines() {
    let text = "# A\n\n```sh\necho a\n```\n\nIt prints:\n\n```text\na\n```\n\n```sh pip exit=1\nfalse\n```\n\n```toml a.toml\n\n```\n\
                ```sh\ncargo test\n```\n```toml\n[data]\n```\n```\ndrawn\n```\n";
    let page = Page { path: "a.md".to_owned(), text: text.to_owned() };
    let found: Vec<(usize, Kind)> = page.blocks().into_iter().map(|block| (block.line, block.kind)).collect();
    let shell = Shell { output: Some("a".to_owned()), ..Shell::default() };
    let marked = Shell { tools: vec!["pip".to_owned()], exit_code: 1, output: None };
    let expected = [
        (4, Kind::Shell(shell)),
        (10, Kind::Other),
        (14, Kind::Shell(marked)),
        (18, Kind::File("a.toml".to_owned())),
        (21, Kind::Cargo),
        (24, Kind::Config),
        (27, Kind::Other),
    ];
    assert_eq!(found, expected);
    assert_eq!(page.tools(), ["pip"]);
}

#[test]
fn output_is_compared_with_what_is_shown() {
    for (row, output, shown, same) in [
        ("equal", "a\nb\n", "a\nb", true),
        ("another word", "a\nb\n", "a\nc", false),
        ("more than is shown", "a\nb\n", "a", false),
        ("less than is shown", "a\n", "a\nb", false),
        ("a part of a line", "put 16 documents (32 chunks)", "put ... documents (32 chunks)", true),
        ("several lines", "a\nb\nc\nd", "a\n...\nd", true),
        ("the end after a gap", "a\nb\nc", "a\n...\nd", false),
        ("the middle between gaps", "a b c d", "... c ... e", false),
        ("everything", "a\nb", "...", true),
        ("a table", "─────\n a   b \n═════\n 1   2 \n─────\n", " a b\n═══\n 1 2", true),
    ] {
        assert_eq!(is_shown(output, shown), same, "{row}");
    }
}
