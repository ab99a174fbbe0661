//! Holds the shape of the crate: which module may use which, where each heavy dependency is let in, and how long a file
//! gets. `ARCHITECTURE.md` is the map.
#![cfg(test)]

mod support {
    pub(crate) mod item_docs;
    pub(crate) mod module_graph;
}

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;

use self::support::item_docs::docs_of_public_items;
use self::support::module_graph::circles::circles;
use self::support::module_graph::picture::picture;
use self::support::module_graph::{ModuleGraph, ModulePath};

/// The modules from top to bottom. A module uses only modules of lower layers, never one above or beside it.
const LAYERS: [&[&str]; 16] = [
    &["main"],
    &["cli"],
    &["app", "tune"],
    &["client", "config", "login"],
    &["server"],
    &["retrieval", "ingest"],
    &["authz", "inference", "sources", "vector_store"],
    &["identity"],
    &["chunk"],
    &["backend", "proto", "audit"],
    &["telemetry", "blocking_pool", "server_config", "token_endpoint", "visible"],
    &["error_code", "settings", "strict_json", "client_tls", "analysis"],
    &["tuple_store", "store_file"],
    &["engine"],
    &["language"],
    &["storage"],
];

/// `OpenFGA`'s world, which others can embed without the proxy: each module, with the modules that it may use.
/// `storage` is its foundation. The tuple store and the exact vector engine both keep their files by it, so it stands
/// apart from the tuple store.
const WORLD: [(&str, &[&str]); 5] = [
    ("storage", &[]),
    ("language", &[]),
    ("engine", &["language"]),
    ("tuple_store", &["engine", "language", "storage"]),
    ("store_file", &["engine", "language"]),
];

/// Crates that only some modules may name, by the beginnings of those modules' paths.
const DOORS: [(&[&str], &[&str]); 11] = [
    // Names and labels are in one place, so that nobody else can put an id there.
    (
        &[
            "metrics",
            "metrics_exporter_prometheus",
            "opentelemetry",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
            "tracing_opentelemetry",
        ],
        &["telemetry"],
    ),
    // Plain HTTP is for issuers, whose keys a server reads, where it gets tokens and where a person logs in, for the metadata by
    // which a server names its issuers to a login, for the systems that chunks were taken from, and for the endpoints of models.
    (&["reqwest"], &["client_tls", "token_endpoint", "identity/issuer", "login", "sources", "inference/endpoint"]),
    // What an outgoing connection trusts is decided in one place.
    (&["rustls_native_certs"], &["client_tls"]),
    // The port has TLS of its own, whose certificate changes while it serves.
    (&["rustls", "tokio_rustls"], &["client_tls", "server/tls"]),
    (&["qdrant_client"], &["vector_store/qdrant"]),
    // The server's API uses the client's messages, so that one contract has one set of types. The messages of a model
    // are our own on the wire, and hold messages of the client.
    (&["openfga_client"], &["authz/openfga", "server/openfga", "server/reflection", "proto/openfga_model"]),
    (
        &["tonic", "tonic_health", "tonic_prost", "tonic_reflection", "tonic_types"],
        // The exporter of spans calls its collector over a channel, too.
        &[
            "server",
            "client",
            "client_tls",
            "proto",
            "cli",
            // The address on this machine that a browser comes back to is served like every other one.
            "login/loopback",
            "backend",
            "authz/openfga",
            "vector_store/qdrant",
            "telemetry/span_export",
        ],
    ),
    (&["moka"], &["authz/cached"]),
    // How words are cut and stemmed decides what is found, so it is in one place, with one version.
    (&["frostem", "icu_segmenter"], &["analysis"]),
    // Models in folders are read in one place.
    (&["safetensors", "tokenizers"], &["inference/static_model"]),
    (&["redb"], &["storage", "tuple_store", "vector_store/exact"]),
];

/// The modules that may read the wall clock, which can be set and jumps: those where a date comes in or goes out. The
/// age of whatever is in memory (decisions, generations, copies, consistency tokens, deadlines) is measured on the
/// monotonic clock.
const WALL_CLOCK: [&str; 13] = [
    // The delay with which a server's log tells of a dated change.
    "app/replica",
    // The time at which a record was written.
    "app/audit",
    "audit",
    "cli/demo/issuer",
    // The time at which the tokens of a login end.
    "cli/login",
    // The start of a first look at a log, which is in dates.
    "authz/openfga/changelog",
    "tuple_store/changelog",
    // The time at which page tokens expire.
    "retrieval/retriever",
    // The time at which a document was written, for other processes.
    "vector_store/remote/own_writes",
    // The time at which an assertion of a client ends.
    "token_endpoint",
    // The date as of which an explanation holds.
    "server/explain",
    // The time at which access tokens expire.
    "server/authentication",
    "server/openfga/rules",
];

/// A doc of so few words says no more than the name of its item.
const EMPTY_DOC_WORDS_MAX: usize = 3;

/// A top-level module with this share of all lines, or more, is a crate in itself.
const ROOM_SHARE_MAX: f64 = 0.2;

/// Past this a file holds a second idea.
const FILE_LINES_MAX: usize = 600;

/// One file of `src/`.
struct Source {
    /// Below `src/`, without the extension: `authz/openfga/wire`.
    path: String,
    text: String,
}

impl Source {
    /// Returns the top-level module that the file belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Returns the lines of code, numbered from 1, without line comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let without_comment = |line| str::split_once(line, "//").map_or(line, |(code, _)| code);
        (1..).zip(self.text.lines().map(without_comment))
    }
}

/// Collects the Rust files below a directory, except those that npm puts there.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("node_modules") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let source = |file: &PathBuf| {
        let path = file.strip_prefix(&root).expect("below src").with_extension("");
        let path = path.to_str().expect("a name in UTF-8").replace('\\', "/");
        Source { path, text: fs::read_to_string(file).expect("a source file") }
    };
    files.iter().map(source).collect()
}

/// Returns the names that follow `prefix` in a line of code, such as the modules after `crate::`.
fn names_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    let mut pieces = code.split(prefix);
    let mut before = pieces.next().unwrap_or_default();
    for after in pieces {
        // This is the prefix itself, not the end of a longer name or path.
        if !before.ends_with(is_name) && !before.ends_with("::") {
            names.push(after.split(|c| !is_name(c)).next().unwrap_or_default());
        }
        before = after;
    }
    names
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn modules_use_only_what_lies_below() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib") {
        let module = source.module();
        let Some(own) = layer(module) else {
            complaints.push(format!("src/{}.rs: `{module}` has no place in LAYERS; give it one", source.path));
            continue;
        };
        for (line, code) in source.code() {
            for used in names_after(code, "crate::").into_iter().chain(names_after(code, "ragward::")) {
                let fault = match layer(used) {
                    _ if used == module => continue,
                    Some(other) if other > own => continue,
                    Some(_) => format!(
                        "`{module}` must not use `{used}`, which lies above or beside it; move what is shared down"
                    ),
                    None => format!(
                        "`{used}` is not a module of LAYERS; write one `use` per module, and give a new one a place"
                    ),
                };
                complaints.push(format!("src/{}.rs:{line}: {fault}", source.path));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Tests inside these modules count, too: the world is tested without the proxy.
#[test]
fn the_world_of_openfga_uses_nothing_of_the_proxy() {
    let mut complaints = Vec::new();
    let sources = sources();
    for (room, allowed) in WORLD {
        let files: Vec<&Source> = sources.iter().filter(|source| source.module() == room).collect();
        assert!(!files.is_empty(), "src/{room}.rs is gone; take it out of WORLD");
        for source in files {
            for (line, code) in source.code() {
                for used in names_after(code, "crate::") {
                    if used != room && !allowed.contains(&used) {
                        let fault = format!("`{room}` stands without the proxy and must not use `{used}`");
                        complaints.push(format!("src/{}.rs:{line}: {fault}", source.path));
                    }
                }
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn heavy_dependencies_come_in_by_their_doors() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (line, code) in source.code() {
            for (crates, doors) in DOORS {
                let open =
                    doors.iter().any(|door| source.path == *door || source.path.starts_with(&format!("{door}/")));
                let named = crates.iter().find(|name| !names_after(code, &format!("{name}::")).is_empty());
                if let (Some(name), false) = (named, open) {
                    let doors = if doors.is_empty() {
                        "nowhere yet".to_owned()
                    } else {
                        format!("only in {}", doors.join(", "))
                    };
                    complaints
                        .push(format!("src/{}.rs:{line}: `{name}` is used {doors}; put a port between", source.path));
                }
            }
            if source.module() != "config" && !names_after(code, "std::env::").is_empty() {
                let fault = "only `config` reads the environment; hand the value down";
                complaints.push(format!("src/{}.rs:{line}: {fault}", source.path));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn the_wall_clock_is_read_for_dates_only() {
    let may = |path: &str| WALL_CLOCK.iter().any(|place| path == *place || path.starts_with(&format!("{place}/")));
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| !may(&source.path)) {
        for (line, code) in source.code().filter(|(_, code)| code.contains("SystemTime") || code.contains("Utc::now")) {
            let fault = "use `tokio::time::Instant`: the clock of the wall can be set";
            complaints.push(format!("src/{}.rs:{line}: {fault}: {}", source.path, code.trim()));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The client's own conversion makes a match of substrings of a text with white space. So conditions are made by hand,
/// in one file.
#[test]
fn conditions_on_values_are_made_in_one_place() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.module() == "vector_store") {
        let is_the_place = source.path == "vector_store/qdrant/filter";
        let banned: &[&str] = if is_the_place {
            &["Condition::matches", "MatchValue::from", "MatchValue::Text", "MatchValue::Phrase", "MatchValue::Prefix"]
        } else {
            &["Condition::matches", "MatchValue", "FieldCondition", "r#match"]
        };
        // This one matches nothing. It is there for servers that cannot read it.
        let matches_nothing = |code: &str| is_the_place && code.contains("MatchValue::Prefix(NO_MARK.to_owned())");
        let is_fault = |code: &str| banned.iter().any(|name| code.contains(name)) && !matches_nothing(code);
        for (line, code) in source.code().filter(|(_, code)| is_fault(code)) {
            let fault = "make it with `vector_store::qdrant::filter`, which matches whole values";
            complaints.push(format!("src/{}.rs:{line}: {fault}: {}", source.path, code.trim()));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn files_stay_short_and_are_named_after_their_module() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!("src/{}.rs has {lines} lines; give its second idea a file", source.path));
        }
        if source.path.ends_with("/mod") {
            complaints.push(format!("src/{}.rs: name it after its module, beside the folder", source.path));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The harness shows what `println!` and `eprintln!` print only when a test fails, so a test that was not run would pass
/// unseen.
#[test]
fn a_test_that_is_skipped_says_so_past_the_harness() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut files);
    let mut complaints = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        for (line, number) in text.lines().zip(1..) {
            let printed = ["println!", "eprintln!", "print!", "eprint!"].iter().any(|name| line.contains(name));
            if printed && line.contains(concat!("\"", "skip")) {
                complaints.push(format!("{}:{number}: write it to `std::io::stderr()`", file.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Cargo does not look for test programs by itself here, so one that the manifest does not name would never run.
#[test]
fn every_test_program_is_named_in_the_manifest() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    let mut files = Vec::new();
    collect(&root.join("tests"), &mut files);
    let is_program = |file: &PathBuf| file.parent() == Some(&root.join("tests")) || file.ends_with("main.rs");
    let mut complaints = Vec::new();
    for file in files.into_iter().filter(is_program) {
        let path = file.strip_prefix(root).expect("below the root").to_str().expect("a name in UTF-8");
        if !manifest.contains(&format!("path = \"{path}\"")) {
            complaints.push(format!("{path}: name it in a `[[test]]` of Cargo.toml"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// An attribute hides where a module's file is. A program names the shared modules that it uses in `mod support { … }`.
#[test]
fn modules_lie_where_rust_looks_for_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "tests", "benches"] {
        collect(&root.join(directory), &mut files);
    }
    let mut complaints = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        for (line, number) in text.lines().zip(1..) {
            if line.trim_start().starts_with(concat!("#[", "path")) {
                complaints.push(format!("{}:{number}: move the file below its module instead", file.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Returns the graph of the library's modules.
fn module_graph(sources: &[Source]) -> ModuleGraph {
    let mut graph = ModuleGraph::default();
    for source in sources.iter().filter(|source| source.path != "main") {
        let path: ModulePath = source.path.split('/').filter(|name| *name != "lib").map(str::to_owned).collect();
        graph.add(path, &source.text);
    }
    graph
}

/// Returns the lines of each top-level module.
fn lines_of_rooms(sources: &[Source]) -> BTreeMap<&str, usize> {
    let mut lines = BTreeMap::new();
    for source in sources.iter().filter(|source| !matches!(source.path.as_str(), "lib" | "main")) {
        *lines.entry(source.module()).or_default() += source.text.lines().count();
    }
    lines
}

#[test]
fn no_module_leads_back_to_its_sibling() {
    let found = circles(&module_graph(&sources()).references());
    let advice = "move what both need into a third module, or into the one that needs less";
    assert!(found.is_empty(), "{advice}:\n{}", found.join("\n"));
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "lines are far fewer than 2^52")]
fn no_room_holds_a_fifth_of_the_house() {
    let sources = sources();
    let rooms = lines_of_rooms(&sources);
    let total: usize = rooms.values().sum();
    for (room, lines) in rooms {
        let share = lines as f64 / total as f64;
        assert!(share < ROOM_SHARE_MAX, "`{room}` has {lines} lines of {total}; give its second subject a room");
    }
}

/// Writes a diagram of the modules to `target/tmp/modules.mmd`.
#[test]
fn the_picture_of_the_modules_shows_every_room() {
    let sources = sources();
    let rooms = lines_of_rooms(&sources);
    let picture = picture(&module_graph(&sources).references(), &rooms);
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("modules.mmd"), &picture).expect("written");
    for room in rooms.keys() {
        assert!(picture.contains(&format!("    {room}[")), "`{room}` is missing in\n{picture}");
    }
}

#[test]
fn docs_of_public_items_say_something() {
    let mut complaints = Vec::new();
    for source in sources() {
        let tokens: TokenStream = source.text.parse().expect("a Rust file");
        for doc in docs_of_public_items(tokens) {
            if doc.text.split_whitespace().count() <= EMPTY_DOC_WORDS_MAX {
                complaints.push(format!("src/{}.rs:{}: `{}`", source.path, doc.line, doc.text.trim()));
            }
        }
        let points_away = |(_, line): &(usize, &str)| line.to_lowercase().contains("see the module");
        for (number, line) in (1..).zip(source.text.lines()).filter(points_away) {
            complaints.push(format!("src/{}.rs:{number}: {}", source.path, line.trim()));
        }
    }
    let advice = "say what the item promises, its unit, and when it fails; or make it `pub(crate)` without a doc";
    assert!(complaints.is_empty(), "{} docs; {advice}:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn docs_are_found_above_public_items() {
    let rows: [(&str, &str, &[&str]); 13] = [
        ("an item", "/// One.\npub struct A;", &["One."]),
        ("two lines and an attribute", "/// One\n/// two.\n#[derive(Debug)]\npub struct A;", &["One  two."]),
        ("a field and a method", "struct A { /// F.\n pub f: u8 } impl A { /// M.\n pub fn m() {} }", &["F.", "M."]),
        ("limited", "/// One.\npub(crate) struct A;", &[]),
        ("private before public", "/// One.\nstruct A;\npub struct B;", &[]),
        ("a module's own doc", "//! One.\n\n/// Two.\npub struct A;", &["Two."]),
        ("a tuple struct", "pub struct A(/// F.\n pub u8, /// G.\n u8);", &["F."]),
        (
            "variants and their fields",
            "pub enum A<T> where T: Fn(u8) { /// V.\n V { /// F.\n f: u8 }, /// W.\n #[error(\"w\")] W(/// G.\n T) }",
            &["V.", "F.", "W.", "G."],
        ),
        ("variants of a private enum", "pub struct A { pub f: u8 } enum B { /// V.\n V }", &[]),
        ("variants of a limited enum", "pub(crate) enum A { /// V.\n V }", &[]),
        ("a private enum after a public one", "pub enum A { B } enum C { /// V.\n V }", &[]),
        ("a field of a private struct after a public enum", "pub enum A { B } struct C { /// F.\n f: u8 }", &[]),
        (
            "items of a public trait",
            "pub unsafe trait A { /// T.\n type T; /// M.\n async fn m(&self); }",
            &["T.", "M."],
        ),
    ];
    for (name, code, expected) in rows {
        let docs = docs_of_public_items(code.parse().expect("Rust"));
        let texts: Vec<&str> = docs.iter().map(|doc| doc.text.trim()).collect();
        assert_eq!(texts, expected, "{name}");
    }
}

/// A made-up crate: the path and the text of each file.
type Files<'a> = &'a [(&'a str, &'a str)];

#[test]
fn circles_are_found() {
    let rows: [(&str, Files, &[&str]); 9] = [
        ("nobody uses anybody", &[("a", ""), ("b", "")], &[]),
        ("one way", &[("a", "use crate::b::B;"), ("b", "pub struct B;")], &[]),
        (
            "both ways",
            &[("a", "use crate::b::B; pub struct A;"), ("b", "use super::a::A; pub struct B;")],
            &["a -> b -> a"],
        ),
        (
            "three, one of them in a function's body",
            &[("a", "use crate::b;"), ("b", "use crate::c;"), ("c", "fn f() { let _ = vec![crate::a::A]; }")],
            &["a -> b -> c -> a"],
        ),
        (
            "through what the parent exports",
            &[("", "pub use a::A;"), ("a", "use crate::b::B; pub struct A;"), ("b", "use super::A; pub struct B;")],
            &["a -> b -> a"],
        ),
        (
            "through a name that the other file brings in",
            &[
                ("a", "use crate::{b, c}; pub struct A;"),
                ("b", "use crate::a as other; fn f() -> other::A {}"),
                ("c", ""),
            ],
            &["a -> b -> a"],
        ),
        (
            "a module and its child",
            &[("a", "mod b; use self::b::B; pub struct A;"), ("a/b", "use super::A; pub struct B;")],
            &[],
        ),
        (
            "below children of different rooms",
            &[
                ("a", "mod x;"),
                ("a/x", "use crate::b::B;"),
                ("b", "mod y; pub struct B;"),
                ("b/y", "use crate::a::x::X;"),
            ],
            &["a -> b -> a"],
        ),
        (
            "in tests only",
            &[
                ("a", "use crate::b::B; pub struct A;"),
                ("b", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
            ],
            &[],
        ),
    ];
    for (name, files, expected) in rows {
        let mut graph = ModuleGraph::default();
        for (path, text) in files {
            graph.add(path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect(), text);
        }
        let found = circles(&graph.references());
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{name}: {found}");
        }
    }
}

#[test]
fn names_are_found_in_code() {
    let rows: [(&str, &str, &[&str]); 7] = [
        ("use crate::chunk::Chunk;", "crate::", &["chunk"]),
        ("fn f(a: crate::authz::Check, b: &crate::chunk::Chunk)", "crate::", &["authz", "chunk"]),
        ("use crate::{authz, chunk};", "crate::", &[""]),
        ("let x = my_crate::thing;", "crate::", &[]),
        ("pub use generated::ragward::chunk;", "ragward::", &[]),
        ("use tonic_types::Status;", "tonic::", &[]),
        ("pub(crate) fn tonic::Status", "tonic::", &["Status"]),
    ];
    for (code, prefix, expected) in rows {
        assert_eq!(names_after(code, prefix), expected, "{code}");
    }
}
