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
//! | `fga`, `json`, `python`, `typescript`, `yaml`, other `text` | show it |
//! | one of these or `toml`, and a file name | write the block to that file |
//!
//! Every other language fails the test, and so does code that this test would not find: a block of commands cannot
//! stand on a page under another name and never run.

use std::path::Path;

/// The characters that fences are made of.
const FENCES: [char; 2] = ['`', '~'];
/// The least number of such characters in a fence.
const FENCE_LENGTH_MIN: usize = 3;
/// The languages of blocks that hold no commands.
const NOT_COMMANDS: [&str; 7] = ["fga", "json", "python", "text", "toml", "typescript", "yaml"];

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
    /// A configuration, or a part of one.
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

    /// Returns the fenced blocks in order. Panics if the page has code that may be commands and that nobody would run.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        split(&self.text).unwrap_or_else(|fault| panic!("{}:{fault}", self.path))
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

/// The line that opens a block.
struct Fence<'a> {
    /// The number of spaces before the fence. The lines of the block have as many.
    indent: usize,
    /// The backticks or tildes. At least as many close the block.
    mark: &'a str,
    /// The language, and what the block asks for.
    info: &'a str,
}

impl<'a> Fence<'a> {
    fn opening(line: &'a str) -> Option<Self> {
        let content = line.trim_start_matches(' ');
        let character = content.chars().next().filter(|character| FENCES.contains(character))?;
        let info = content.trim_start_matches(character);
        let mark = content.strip_suffix(info)?;
        // A backtick further on closes code within a line.
        let is_inline = character == '`' && info.contains('`');
        let is_fence = mark.len() >= FENCE_LENGTH_MIN && !is_inline;
        is_fence.then(|| Self { indent: line.len() - content.len(), mark, info: info.trim() })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.starts_with(self.mark) && line.chars().all(|character| self.mark.contains(character))
    }

    /// Returns a line of the block without the indentation of the fence.
    fn inner<'l>(&self, line: &'l str) -> &'l str {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        line.split_at(spaces.min(self.indent)).1
    }
}

/// Splits a page into its blocks. An error begins with the number of the line that it is about.
fn split(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(fence) = Fence::opening(line) else {
            if may_be_code(line) {
                let advice = "fence the block on lines of its own, or indent the text by less than four spaces";
                return Err(format!("{number}: Markdown may show this as code, which nobody would run; {advice}"));
            }
            continue;
        };
        let mut body = Vec::new();
        let mut is_closed = false;
        for (line, _) in lines.by_ref() {
            is_closed = fence.is_closed_by(line);
            if is_closed {
                break;
            }
            body.push(fence.inner(line));
        }
        if !is_closed {
            return Err(format!("{number}: the block that starts here does not end"));
        }
        let text = body.join("\n");
        let kind = kind(fence.info, &text, &mut blocks).map_err(|fault| format!("{number}: {fault}"))?;
        blocks.push(Block { line: number + 1, kind, text });
    }
    Ok(blocks)
}

/// Returns whether Markdown may show a line outside of the fenced blocks as a block of code.
fn may_be_code(line: &str) -> bool {
    let is_indented = line.starts_with("    ") || line.starts_with('\t');
    let is_blank = line.trim().is_empty();
    let has_fence = FENCES.iter().any(|character| line.contains(&character.to_string().repeat(FENCE_LENGTH_MIN)));
    (is_indented && !is_blank) || has_fence
}

/// Returns what a block asks for. If it shows the output of the last block before it, that block gets the output.
fn kind(info: &str, text: &str, before: &mut [Block]) -> Result<Kind, String> {
    let mut words = info.split_whitespace();
    let language = words.next().unwrap_or_default();
    let is_known = NOT_COMMANDS.contains(&language);
    match (language, words.collect::<Vec<&str>>().as_slice()) {
        ("sh", _) if text.starts_with("cargo ") => Ok(Kind::Cargo),
        ("sh", marks) => shell(marks).map(Kind::Shell),
        ("toml", []) => Ok(Kind::Config),
        ("rust,ignore", []) => Ok(Kind::Rust),
        ("text", []) => {
            if let Some(Block { kind: Kind::Shell(shell), .. }) = before.last_mut()
                && shell.output.is_none()
            {
                shell.output = Some(text.to_owned());
            }
            Ok(Kind::Other)
        }
        (_, []) if is_known => Ok(Kind::Other),
        (_, [name]) if is_known => Ok(Kind::File((*name).to_owned())),
        (_, _) if is_known => Err(format!("`{info}` is more than a language and the name of a file")),
        ("", _) => Err("the block has no language; write `sh` for commands, `text` for what is only shown".to_owned()),
        (_, _) => Err(format!(
            "`{language}` is no language of a block, so nobody would run it; write `sh` for commands, or add the language \
             to `NOT_COMMANDS`"
        )),
    }
}

fn shell(marks: &[&str]) -> Result<Shell, String> {
    let mut shell = Shell::default();
    for mark in marks {
        match mark.strip_prefix("exit=") {
            Some(code) => {
                shell.exit_code = code.parse::<i32>().map_err(|e| format!("`{mark}` is no exit code: {e}"))?;
            }
            None => shell.tools.push((*mark).to_owned()),
        }
    }
    Ok(shell)
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
                ```sh\ncargo test\n```\n```toml\n[data]\n```\n```text\ndrawn\n```\n";
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
fn a_block_of_commands_is_run_however_it_is_written_or_refused() {
    let rows: [(&str, &str, Result<&str, &str>); 22] = [
        ("in the margin", "```sh\na\n```\n", Ok("a")),
        ("in a list", "- x:\n\n  ```sh\n  a\n    b\n\n  ```\n", Ok("a\n  b\n")),
        ("in a list of a list", "      ```sh\n      a\n      ```\n", Ok("a")),
        ("a line with less indentation", "  ```sh\na\n  ```\n", Ok("a")),
        ("four backticks", "````sh\na\n```\nb\n````\n", Ok("a\n```\nb")),
        ("tildes", "~~~sh\na\n```\n~~~\n", Ok("a\n```")),
        ("a space before the language", "``` sh\na\n```\n", Ok("a")),
        ("a longer end", "```sh\na\n`````\n", Ok("a")),
        ("bash", "x\n\n```bash\na\n```\n", Err("3: `bash` is no language")),
        ("shell", "```shell\na\n```\n", Err("1: `shell` is no language")),
        ("console", "  ```console\n  $ a\n  ```\n", Err("1: `console` is no language")),
        ("an attribute of the language", "```sh,ignore\na\n```\n", Err("1: `sh,ignore` is no language")),
        ("a name that nobody knows", "```nonsense\na\n```\n", Err("1: `nonsense` is no language")),
        ("no language", "```\na\n```\n", Err("1: the block has no language")),
        ("too many words", "```json a b\n1\n```\n", Err("1: `json a b` is more")),
        ("an exit code that is no number", "```sh exit=x\na\n```\n", Err("1: `exit=x` is no exit code")),
        ("no end", "x\n```sh\na\n", Err("2: the block that starts here does not end")),
        ("an end of the other kind", "~~~sh\na\n```\n", Err("1: the block that starts here does not end")),
        ("in a quotation", "> ```sh\n> a\n> ```\n", Err("1: Markdown may show this as code")),
        ("beside a bullet", "- ```sh\n  a\n  ```\n", Err("1: Markdown may show this as code")),
        ("four spaces in place of a fence", "x\n\n    a\n", Err("3: Markdown may show this as code")),
        ("a tab in place of a fence", "x\n\n\ta\n", Err("3: Markdown may show this as code")),
    ];
    for (name, text, expected) in rows {
        match (split(text), expected) {
            (Ok(blocks), Ok(commands)) => {
                let found: Vec<(Kind, &str)> =
                    blocks.iter().map(|block| (block.kind.clone(), block.text.as_str())).collect();
                assert_eq!(found, [(Kind::Shell(Shell::default()), commands)], "{name}");
            }
            (Err(fault), Err(beginning)) => assert!(fault.starts_with(beginning), "{name}: {fault}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
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
