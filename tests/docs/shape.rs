//! Checks the form of the pages: their length, their links, and that they agree with the settings and with `.ci/run`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::docs::page::{Kind, Page};

/// The most words that a document may have.
const WORDS_MAX: [(&str, usize); 2] = [("README.md", 900), ("ARCHITECTURE.md", 1_500)];
/// A page shows its first result within one screen.
const FIRST_RESULT_LINE_MAX: usize = 40;
/// The mark of a page that shows a document of the repository. Such a document is also read outside of the book, so it need
/// not begin with a result.
const INCLUDED: &str = "{{#include ";
/// Other documents whose links are followed.
const OTHERS: [&str; 11] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benches/README.md",
    "schema/README.md",
    "schema/audit.md",
    "schema/authorization_details.md",
    "schema/payload.md",
    "schema/handbook/README.md",
    "schema/qdrant-payload.md",
];
/// Names of files that look like settings.
const FILES_LIKE_SETTINGS: [&str; 1] = ["audit.key"];
/// The beginnings of paths within the repository.
const FOLDERS: [&str; 6] = ["benches/", "docs/", "proto/", "schema/", "src/", "tests/"];
/// The step of `.ci/run` that has the commands of README and book.
const STEP: &str = "step \"as the README says: ";

/// Returns whether `.ci/run` has each command of the pages that starts with `cargo`, as a line of its own, and no other
/// one in its steps for them.
pub(crate) fn ci_calls(ci: &str, pages: &[Page]) -> Result<(), String> {
    let blocks = pages.iter().flat_map(Page::blocks).filter(|block| block.kind == Kind::Cargo);
    let told: BTreeSet<String> =
        blocks.flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let mut called = BTreeSet::new();
    for part in ci.split("\nstep ").map(|part| format!("step {part}")).filter(|part| part.starts_with(STEP)) {
        // The redirection of its output is not part of a command.
        let commands = part.lines().skip(1).filter_map(|line| line.split(" 2>&1").next());
        called.extend(commands.filter(|line| line.starts_with("cargo ")).map(str::to_owned));
    }
    if told == called { Ok(()) } else { Err(format!("the pages say {told:?}, `.ci/run` calls {called:?}")) }
}

/// Returns the documents beside README and book.
pub(crate) fn others(root: &Path) -> Vec<Page> {
    OTHERS.map(|path| Page::read(root, path)).to_vec()
}

pub(crate) fn faults(root: &Path, pages: &[Page]) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, words_max) in WORDS_MAX {
        let words = Page::read(root, path).text.split_whitespace().count();
        if words > words_max {
            faults.push(format!("{path} has {words} words, more than {words_max}"));
        }
    }
    let is_own = |page: &&Page| !page.text.contains(INCLUDED);
    for page in pages.iter().filter(is_own) {
        let first = page.blocks().into_iter().find(|block| !matches!(block.kind, Kind::File(_) | Kind::Config));
        if first.is_none_or(|block| block.line > FIRST_RESULT_LINE_MAX) {
            faults.push(format!("{} shows no result within its first {FIRST_RESULT_LINE_MAX} lines", page.path));
        }
    }
    for page in pages.iter().chain(&others(root)) {
        faults.extend(broken_links(root, page));
    }
    faults.extend(pages_outside_the_book(root, pages));
    faults.extend(lines_of_no_example(root, pages));
    faults.extend(pages.iter().filter_map(|page| commands_that_nobody_runs(root, page)));
    faults
}

/// Returns a complaint if a page shows a document that has a block of commands. Only the blocks of pages are run.
fn commands_that_nobody_runs(root: &Path, page: &Page) -> Option<String> {
    let (_, rest) = page.text.split_once(INCLUDED)?;
    let name = rest.split('}').next().unwrap_or_default();
    let folder = Path::new(&page.path).parent().unwrap_or(Path::new(""));
    let document = Page::read(root, folder.join(name).to_str().expect("a name in UTF-8"));
    let commands = document.blocks().into_iter().find(|block| matches!(block.kind, Kind::Cargo | Kind::Shell(_)))?;
    Some(format!("{}:{}: `{}` shows these commands, and nobody runs them", document.path, commands.line, page.path))
}

fn broken_links(root: &Path, page: &Page) -> Vec<String> {
    let folder = root.join(&page.path).parent().map(Path::to_owned).unwrap_or_default();
    let links = page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = links.filter(|link| !link.contains("://") && !link.starts_with('#'));
    let leaves_the_book = |link: &&str| page.path.starts_with("docs/src/") && link.starts_with("../");
    if let Some(link) = files.clone().find(leaves_the_book) {
        return vec![format!("{}: `{link}` is outside of the book, so its pages cannot lead there", page.path)];
    }
    let missing = files.filter(|link| !folder.join(link.split('#').next().unwrap_or_default()).exists());
    missing.map(|link| format!("{}: there is no `{link}`", page.path)).collect()
}

/// Returns a complaint about each setting or file that a page names and that does not exist.
pub(crate) fn stale_names(root: &Path, schema: &Value, pages: &[Page]) -> Vec<String> {
    let mut settings = BTreeSet::new();
    leaves(schema, schema, "", &mut settings);
    // Prose names the settings of a list without its brackets.
    settings.extend(settings.clone().iter().map(|key| key.replace("[]", "")));
    let sections: BTreeSet<&str> = settings.iter().filter_map(|key| key.split(['.', '[']).next()).collect();
    let is_part = |name: &str, key: &str| {
        key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let mut faults = Vec::new();
    for page in pages {
        for name in names(&page.text) {
            let setting = name.split([' ', '=']).next().unwrap_or_default();
            let is_setting = setting.contains('.') && sections.iter().any(|section| is_part(section, setting));
            let known = settings.iter().any(|key| is_part(setting, key)) || FILES_LIKE_SETTINGS.contains(&setting);
            let is_file = FOLDERS.iter().any(|folder| name.starts_with(folder))
                && !name.contains([' ', '<', '*', '…'])
                && !name.contains("NAME");
            if is_setting && !known {
                faults.push(format!("{}: `{setting}` is no setting", page.path));
            } else if is_file && !root.join(name).exists() {
                faults.push(format!("{}: there is no `{name}`", page.path));
            }
        }
    }
    faults
}

/// Returns the names between backticks, outside of blocks.
fn names(text: &str) -> Vec<&str> {
    let mut in_block = false;
    let lines = text.lines().filter(move |line| {
        in_block ^= line.trim_start().starts_with("```");
        !in_block
    });
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// Returns a complaint about each line of Rust on a page that no example has.
fn lines_of_no_example(root: &Path, pages: &[Page]) -> Vec<String> {
    let files = std::fs::read_dir(root.join("examples")).expect("the examples");
    // Folders hold examples in other languages.
    let files = files.map(|file| file.expect("a file").path()).filter(|path| path.is_file());
    let files = files.map(|path| std::fs::read_to_string(path).expect("an example"));
    let examples: Vec<String> = files.collect();
    let known: BTreeSet<&str> = examples.iter().flat_map(|text| text.lines()).map(str::trim).collect();
    let mut faults = Vec::new();
    for page in pages {
        for block in page.blocks().iter().filter(|block| block.kind == Kind::Rust) {
            let lines = block.text.lines().map(str::trim).filter(|line| !known.contains(line));
            faults.extend(lines.map(|line| format!("{}:{}: no example has `{line}`", page.path, block.line)));
        }
    }
    faults
}

fn pages_outside_the_book(root: &Path, pages: &[Page]) -> Vec<String> {
    let files = std::fs::read_dir(root.join("docs/src")).expect("the book");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name in UTF-8"));
    let pages_only = names
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "md") && name != "SUMMARY.md");
    let lost = pages_only.filter(|name| !pages.iter().any(|page| page.path == format!("docs/src/{name}")));
    lost.map(|name| format!("docs/src/{name} is not in SUMMARY.md")).collect()
}

/// Returns a complaint about each setting that the page lacks, and about each name on it that is no setting.
pub(crate) fn settings(schema: &Value, page: &str) -> Vec<String> {
    let mut known = BTreeSet::new();
    leaves(schema, schema, "", &mut known);
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `").and_then(|rest| rest.split('`').next()));
    let told: BTreeSet<String> = rows.map(str::to_owned).collect();
    let missing = known.difference(&told).map(|key| format!("`{key}` is missing"));
    let unknown = told.difference(&known).map(|key| format!("`{key}` is no setting"));
    missing.chain(unknown).collect()
}

/// Collects the keys below a node of the schema: `[]` stands for an entry of a list, `NAME` for one of a table.
fn leaves(node: &Value, root: &Value, path: &str, keys: &mut BTreeSet<String>) {
    let node = resolved(node, root);
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(properties) = node["properties"].as_object() {
        for (name, property) in properties {
            leaves(property, root, &below(name), keys);
        }
    } else if node["additionalProperties"].is_object() {
        leaves(&node["additionalProperties"], root, &below("NAME"), keys);
    } else if !resolved(&node["items"], root)["properties"].is_null() {
        leaves(&node["items"], root, &format!("{path}[]"), keys);
    } else {
        keys.insert(path.to_owned());
    }
}

/// Returns the node that the references of a node lead to. If its value may be missing, returns the node of the value.
fn resolved<'a>(node: &'a Value, root: &'a Value) -> &'a Value {
    if let Some(reference) = node["$ref"].as_str() {
        return resolved(root.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null), root);
    }
    let one = node["anyOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null"));
    one.map_or(node, |one| resolved(one, root))
}

#[test]
fn a_setting_that_is_missing_is_told() {
    let schema = serde_json::json!({
        "properties": {
            "a": {"$ref": "#/$defs/A"},
            "list": {"type": "array", "items": {"properties": {"b": {"type": "string"}}}},
            "table": {"additionalProperties": {"properties": {"c": {"type": "string"}}}},
            "maybe": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}
        },
        "$defs": {"A": {"properties": {"x": {"type": "string"}}}}
    });
    let page = "| `a.x` | |\n| `list[].b` | |\n| `table.NAME.c` | |\n| `maybe.x` | |\n";
    for (row, page, expected) in [
        ("all", page.to_owned(), Vec::new()),
        ("one is missing", page.replace("| `a.x` | |\n", ""), vec!["`a.x` is missing".to_owned()]),
        ("one has gone", format!("{page}| `old` | |\n"), vec!["`old` is no setting".to_owned()]),
    ] {
        assert_eq!(settings(&schema, &page), expected, "{row}");
    }
}
