use tempfile::TempDir;

use super::*;
use crate::chunk::{Chunk, Value};

/// Makes a folder with files, given by name and content.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, content).expect("written");
    }
    directory
}

fn catalog(directory: &TempDir) -> Source {
    Source::Catalog { path: directory.path().join("catalog.jsonl"), root: directory.path().to_owned() }
}

fn by_type(directory: &TempDir) -> Source {
    let guard = GuardRule::Type(TypeName::parse("document").expect("a type"));
    Source::Folder { root: directory.path().to_owned(), guard }
}

fn json_lines(directory: &TempDir) -> Source {
    Source::JsonLines { path: directory.path().join("chunks.jsonl") }
}

/// Reads the documents up to the first error, and returns that error, too.
fn read(source: &Source) -> (Vec<Document>, Option<String>) {
    let mut documents = Vec::new();
    let entries = match source.documents() {
        Ok(entries) => entries,
        Err(error) => return (documents, Some(error.to_string())),
    };
    for entry in entries {
        match entry {
            Ok(entry) => documents.extend(entry.document),
            Err(error) => return (documents, Some(error.to_string())),
        }
    }
    (documents, None)
}

#[track_caller]
fn refused(source: &Source, read_before: usize, parts: &[&str]) {
    let (documents, error) = read(source);
    let error = error.unwrap_or_default();
    for part in parts {
        assert!(error.contains(part), "`{error}` lacks `{part}`");
    }
    assert_eq!(documents.len(), read_before, "{error}");
}

/// Reads everything, and returns the ids of the documents and the errors.
fn all(source: &Source) -> (Vec<String>, Vec<String>) {
    let (mut ids, mut errors) = (Vec::new(), Vec::new());
    for entry in source.documents().expect("opened") {
        match entry {
            Ok(entry) => ids.extend(entry.document.map(|document| document.id)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    (ids, errors)
}

#[test]
fn a_file_that_cannot_be_read_is_passed_over_and_named() {
    let directory = folder(&[("a.md", b"a"), ("binary.md", b"a\0b\xe9"), ("below/c.md", b"c"), ("z.txt", b"z")]);
    std::os::unix::fs::symlink(directory.path().join("gone.md"), directory.path().join("dangling.md")).expect("linked");
    std::os::unix::fs::symlink("/", directory.path().join("out")).expect("linked");
    let _listener = std::os::unix::net::UnixListener::bind(directory.path().join("socket.md")).expect("bound");
    let (ids, errors) = all(&by_type(&directory));
    assert_eq!(ids, ["document:a", "document:below/c", "document:z"]);
    let [binary, dangling, out, socket] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(dangling.contains("dangling.md") && binary.contains("binary.md") && out.contains("out"), "{errors:?}");
    assert!(socket.contains("socket.md"), "{errors:?}");
    let (totals, ahead) = by_type(&directory).totals().expect("counted");
    assert_eq!((totals.documents, ahead.len()), (Some(4), 3), "{ahead:?}");

    let lines = b"{\"id\": \"doc:a\", \"path\": \"a.md\"}\n{\"id\": \"doc:b\", \"path\": \"a.md\", \"tags\": {\"x\": 1}}\n{\"id\"\n\
                  {\"id\": \"doc:l\", \"path\": \"binary.md\"}\n{\"id\": \"doc:z\", \"path\": \"z.txt\"}\n";
    std::fs::write(directory.path().join("catalog.jsonl"), lines).expect("written");
    let (ids, errors) = all(&catalog(&directory));
    assert_eq!(ids, ["doc:a", "doc:z"]);
    assert_eq!(errors.len(), 3, "{errors:?}");
}

/// Tools such as git-annex, and mounted `ConfigMap`s, put the contents of files elsewhere and links in their places.
#[test]
fn a_link_to_what_is_not_read_is_passed_over_and_named() {
    let directory = folder(&[("a.md", b"a"), (".store/b.md", b"b"), ("store/c", b"c"), ("store/d.md", b"d")]);
    for (link, target) in [("b.md", ".store/b.md"), ("c.md", "store/c"), ("d.md", "store/d.md"), ("e", ".store")] {
        std::os::unix::fs::symlink(target, directory.path().join(link)).expect("linked");
    }
    std::os::unix::fs::symlink("store/c", directory.path().join("picture")).expect("linked");
    let (ids, errors) = all(&by_type(&directory));
    assert_eq!(ids, ["document:a", "document:store/d"]);
    let named: Vec<bool> =
        ["b.md", "c.md", "e`"].iter().zip(&errors).map(|(name, error)| error.contains(name)).collect();
    assert_eq!((named, errors.len()), (vec![true; 3], 3), "{errors:?}");
}

/// A document is returned whole or not at all, whatever is wrong with one of its lines. A row names the document of
/// each line. `!` marks a line whose metadata is an object, and `?` stands for a line that is not JSON.
#[test]
fn a_document_with_a_wrong_line_is_passed_over_whole() {
    let rows: [(&str, &[&str], usize); 12] = [
        ("a b c", &["a", "b", "c"], 0),
        ("a b! c", &["a", "c"], 1),
        ("a b b! b c", &["a", "c"], 1),
        ("a b! b c", &["a", "c"], 1),
        ("a b b! c!", &["a"], 2),
        ("a! b", &["b"], 1),
        ("a b ? c d", &["a", "d"], 2),
        ("a b ? b c", &["a"], 2),
        ("? a b", &["b"], 2),
        ("a ?", &[], 1),
        ("a b a c", &["a", "b", "c"], 1),
        ("a! b a c", &["b", "c"], 2),
    ];
    for (row, expected, errors_expected) in rows {
        let mut lines = String::new();
        for (number, part) in row.split(' ').enumerate() {
            let metadata = if part.ends_with('!') { "{}" } else { "1" };
            let document = part.trim_end_matches('!');
            if part == "?" {
                lines.push_str("{\"id\"\n");
                continue;
            }
            let line = format!(
                r#"{{"id": "{number}", "document_id": "{document}", "guard": "doc:x", "text": "t", "metadata": {{"m": {metadata}}}}}"#
            );
            lines.push_str(&line);
            lines.push('\n');
        }
        let (ids, errors) = all(&json_lines(&folder(&[("chunks.jsonl", lines.as_bytes())])));
        assert_eq!(
            (ids.as_slice(), errors.len()),
            (expected.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice(), errors_expected),
            "{row}: {errors:?}"
        );
    }
    let long = format!("{{\"id\": \"{}\"}}", "i".repeat(1 << 20));
    let line = r#"{"id": "a", "document_id": "a", "guard": "doc:x", "text": "t"}"#;
    let other = line.replace("\"a\"", "\"b\"");
    let (ids, errors) = all(&json_lines(&folder(&[(
        "chunks.jsonl",
        [&long, line, &other].map(|l| format!("{l}\n")).concat().as_bytes(),
    )])));
    assert_eq!((ids, errors.len()), (vec!["b".to_owned()], 2), "the rest of a long line is no line");
}

#[test]
fn a_catalog_gives_guards_titles_and_metadata() {
    let lines = br#"{"id": "document:plan", "path": "texts/plan.md", "title": "The plan", "sig": "node", "year": 2020, "share": 0.5, "open": true, "stage": null}

{"id": "note", "path": "./note.txt", "guard": "folder:notes"}"#;
    let directory = folder(&[
        ("catalog.jsonl", lines),
        ("texts/plan.md", b"# Heading\n\nFirst.\n"),
        ("note.txt", b"Second."),
        ("unnamed.md", b"Not in the catalog."),
    ]);
    let source = catalog(&directory);
    let bytes = "# Heading\n\nFirst.\n".len() + "Second.".len();
    assert_eq!(source.totals(), Ok((Totals { documents: Some(2), bytes: bytes as u64 }, Vec::new())));
    let (documents, error) = read(&source);
    assert_eq!(error, None);
    let [plan, note] = documents.as_slice() else { panic!("{documents:?}") };
    assert_eq!((plan.id.as_str(), plan.title.as_str(), plan.chunks.len()), ("document:plan", "The plan", 1));
    let expected = Chunk {
        id: "document:plan#0".to_owned(),
        document_id: plan.id.clone(),
        guard: Object::parse("document:plan").expect("an object"),
        title: plan.title.clone(),
        heading_path: vec!["Heading".to_owned()],
        text: "# Heading\n\nFirst.".to_owned(),
        metadata: [
            ("open".to_owned(), Value::Bool(true)),
            ("share".to_owned(), Value::Float(0.5)),
            ("sig".to_owned(), Value::Text("node".to_owned())),
            ("year".to_owned(), Value::Int(2020)),
        ]
        .into(),
        vector: Vec::new(),
    };
    assert_eq!(plan.chunks, [expected]);
    assert_eq!((note.id.as_str(), note.title.as_str()), ("note", "note"));
    assert_eq!(note.chunks[0].guard.as_str(), "folder:notes");
}

#[test]
fn catalog_errors_name_the_line() {
    let good = r#"{"id": "document:good", "path": "good.md"}"#;
    let rows: [(&[u8], &[&str]); 17] = [
        (br#"{"id": "document:b", "path": "go"#, &["is cut off"]),
        (b"[]", &["column"]),
        (b"{\"id\": \"document:\xff\", \"path\": \"good.md\"}", &["not valid UTF-8 at byte 18"]),
        (br#"{"path": "good.md"}"#, &["missing field `id`"]),
        (br#"{"id": "document:b"}"#, &["missing field `path`"]),
        (br#"{"id": "b", "path": "good.md"}"#, &["no guard", "type:id"]),
        (br#"{"id": "document:*", "path": "good.md"}"#, &["no guard", "wildcard"]),
        (br#"{"id": "b", "path": "good.md", "guard": ""}"#, &["no guard"]),
        (br#"{"id": "document:good", "path": "good.md"}"#, &["document `document:good` was named before"]),
        (br#"{"id": "document:b", "path": "absent.md"}"#, &["absent.md", "cannot read"]),
        (br#"{"id": "document:b", "path": "folder"}"#, &["not a file"]),
        (br#"{"id": "document:b", "path": ""}"#, &["must stay within"]),
        (br#"{"id": "document:b", "path": "folder/../../secret"}"#, &["must stay within"]),
        (br#"{"id": "document:b", "path": "/etc/hostname"}"#, &["must stay within"]),
        (br#"{"id": "document:b", "path": "link.md"}"#, &["leads out of the folder"]),
        (br#"{"id": "document:b", "path": "good.md", "tags": {"a": 1}}"#, &["`tags` must be"]),
        (br#"{"id": "document:b", "path": "good.md", "n": 9223372036854775808}"#, &["`n`", "64 bits"]),
    ];
    for (line, parts) in rows {
        let lines = [good.as_bytes(), b"\n\n", line, b"\n", good.as_bytes()].concat();
        let directory = folder(&[("catalog.jsonl", &lines), ("good.md", b"good"), ("folder/x.md", b"x")]);
        let outside = folder(&[("secret.md", b"secret")]);
        std::os::unix::fs::symlink(outside.path().join("secret.md"), directory.path().join("link.md")).expect("linked");
        let source = catalog(&directory);
        let parts: Vec<&str> = ["catalog.jsonl`, line 3: "].iter().chain(parts).copied().collect();
        refused(&source, 1, &parts);
        let (_, errors) = source.totals().expect("counted ahead");
        assert!(errors[0].to_string().contains(parts[0]), "{errors:?}");
    }
}

#[test]
fn files_that_are_no_text_are_refused() {
    let large = vec![b'a'; (16 << 20) + 1];
    let rows: [(&[u8], &[&str]); 2] = [
        (b"f\xc3\xadne\nfine\nnot \xc3 fine\n", &["bad.md`, line 3: is not valid UTF-8"]),
        (&large, &["bad.md` has more than 16777216 bytes"]),
    ];
    for (content, parts) in rows {
        refused(&by_type(&folder(&[("a.md", b"a"), ("bad.md", content), ("c.md", b"c")])), 1, parts);
    }
    refused(&catalog(&folder(&[])), 0, &["cannot read", "catalog.jsonl"]);
    let absent =
        Source::Folder { root: "/absent".into(), guard: GuardRule::One(Object::parse("a:b").expect("an object")) };
    refused(&absent, 0, &["cannot read `/absent`"]);
}

#[test]
fn a_folder_gives_guards_from_paths() {
    let files: [(&str, &[u8]); 9] = [
        ("b.md", b"\xef\xbb\xbf# The title \n\ntext"),
        ("a/deep/name.markdown", b"text"),
        ("a/with space.txt", b"# no heading in plain text"),
        ("a/100%: #1.md", b"text"),
        ("a/100%25.md", b"text"),
        ("*.text", b"text"),
        ("empty.md", b" \n\n"),
        ("picture.png", b"\x89PNG"),
        (".hidden/secret.md", b"text"),
    ];
    let directory = folder(&files);
    std::os::unix::fs::symlink(directory.path().join("b.md"), directory.path().join("link.md")).expect("linked");
    let (documents, error) = read(&by_type(&directory));
    assert_eq!(error, None);
    let found: Vec<(&str, &str)> = documents.iter().map(|d| (d.id.as_str(), d.title.as_str())).collect();
    let expected = [
        ("document:%2A", "*"),
        ("document:a/100%2525", "100%25"),
        ("document:a/100%25%3A%20%231", "100%: #1"),
        ("document:a/deep/name", "name"),
        ("document:a/with%20space", "with space"),
        ("document:b", "The title"),
    ];
    assert_eq!(found, expected);
    assert!(documents.iter().all(|document| document.chunks[0].guard.as_str() == document.id));
    assert_eq!(by_type(&directory).totals().expect("counted").0.documents, Some(7));
    // The empty file has an entry without a document.
    let empty = |entry: Result<SourceDocument, IngestError>| entry.ok().filter(|entry| entry.document.is_none());
    let paths: Vec<PathBuf> =
        by_type(&directory).documents().expect("opened").filter_map(empty).map(|e| e.path).collect();
    assert_eq!(paths, [directory.path().canonicalize().expect("a path").join("empty.md")]);

    let one = GuardRule::One(Object::parse("folder:handbook").expect("an object"));
    let (documents, error) = read(&Source::Folder { root: directory.path().to_owned(), guard: one });
    assert_eq!((error, documents[3].id.as_str()), (None, "a/deep/name.markdown"));
    assert!(documents.iter().all(|document| document.chunks[0].guard.as_str() == "folder:handbook"));
}

#[test]
fn folder_errors_name_the_file() {
    refused(&by_type(&folder(&[("a.md", b"a"), ("a.txt", b"a")])), 1, &["a.txt`", "document id `document:a`"]);
    let long = format!("{}.md", "n".repeat(250));
    refused(&by_type(&folder(&[(&long, b"a")])), 0, &["gives no guard", "at most 256"]);
    let outside = folder(&[("secret.md", b"secret")]);
    let directory = folder(&[("a.md", b"a")]);
    std::os::unix::fs::symlink(outside.path(), directory.path().join("out")).expect("linked");
    refused(&by_type(&directory), 1, &["out` leads out of the folder"]);
}

#[test]
fn long_texts_are_cut_at_headings_and_paragraphs() {
    let paragraph = "A sentence of some length that says little. ".repeat(9);
    let text = format!("# One\n\n{paragraph}\n\n{paragraph}\n\n## Two\n\n{paragraph}\n\n## Three\n\n{paragraph}\n");
    for name in ["a.md", "a.txt"] {
        let (documents, error) = read(&by_type(&folder(&[(name, text.as_bytes())])));
        assert_eq!(error, None, "{name}");
        let chunks = &documents[0].chunks;
        assert!(chunks.len() > 1 && chunks.iter().all(|chunk| chunk.text.chars().count() <= 1_000), "{name}");
        let ids: Vec<String> = (0..chunks.len()).map(|place| format!("document:a#{place}")).collect();
        assert!(chunks.iter().map(|chunk| &chunk.id).eq(&ids), "{name}");
        let kept: String = chunks.iter().flat_map(|chunk| chunk.text.split_whitespace()).collect();
        assert_eq!(kept, text.split_whitespace().collect::<String>(), "{name}");
        if name == "a.md" {
            assert!(chunks[1].text.starts_with("## Two"), "{}", chunks[1].text);
        }
    }
}

#[test]
fn lines_that_stand_together_become_a_document() {
    let lines = br#"{"id": "a1", "document_id": "a", "guard": "doc:a", "title": "A", "text": "one", "vector": [1, 0.5], "metadata": {"n": 1}}
{"id": "a2", "document_id": "a", "guard": "folder:b", "title": "A", "vector": [-1e-3, 0]}
{"id": "b1", "document_id": "b", "guard": "doc:b", "text": "two"}
"#;
    let directory = folder(&[("chunks.jsonl", lines)]);
    let source = json_lines(&directory);
    assert_eq!(source.totals(), Ok((Totals { documents: None, bytes: lines.len() as u64 }, Vec::new())));
    let read_bytes: u64 = source.documents().expect("opened").map(|entry| entry.expect("an entry").bytes).sum();
    assert_eq!(read_bytes, lines.len() as u64);
    let (documents, error) = read(&source);
    assert_eq!(error, None);
    let found: Vec<(&str, &str, usize)> =
        documents.iter().map(|d| (d.id.as_str(), d.title.as_str(), d.chunks.len())).collect();
    assert_eq!(found, [("a", "A", 2), ("b", "", 1)]);
    let [one, two] = documents[0].chunks.as_slice() else { panic!("two chunks") };
    assert_eq!((one.text.as_str(), one.vector.as_slice(), one.metadata.len()), ("one", [1.0, 0.5].as_slice(), 1));
    assert_eq!(
        (two.id.as_str(), two.guard.as_str(), two.vector.as_slice()),
        ("a2", "folder:b", [-0.001, 0.0].as_slice())
    );
}

#[test]
fn chunk_line_errors_name_the_line() {
    let line = |id: &str, document: &str| {
        format!(r#"{{"id": "{id}", "document_id": "{document}", "guard": "doc:x", "text": "t"}}"#)
    };
    let rows: [(&str, &[&str]); 15] = [
        (r#"{"id": "b", "document_id": "b", "guard": "doc:x", "te"#, &["is cut off"]),
        (r#"{"id": "b", "document_id": "b", "text": "t"}"#, &["missing field `guard`"]),
        (r#"{"id": "b", "document_id": "b", "guard": "x", "text": "t"}"#, &["no guard", "`x`"]),
        (r#"{"id": "b", "document_id": "b", "guard": "doc:*", "text": "t"}"#, &["no guard", "wildcard"]),
        (r#"{"id": "b", "document_id": "b", "gaurd": "doc:x", "text": "t"}"#, &["unknown field `gaurd`"]),
        (r#"{"id": "b", "document_id": "b", "guard": "doc:x"}"#, &["neither text nor vector"]),
        (r#"{"id": "b", "document_id": "b", "guard": "doc:x", "vector": [0, 0]}"#, &["all zero"]),
        (r#"{"id": "b", "document_id": "b", "guard": "doc:x", "vector": [1e39]}"#, &["number out of range"]),
        (r#"{"id": "b", "document_id": "b", "guard": "doc:x", "vector": [NaN]}"#, &["column"]),
        (r#"{"id": "", "document_id": "b", "guard": "doc:x", "text": "t"}"#, &["empty name"]),
        (r#"{"id": "b", "document_id": "b", "guard": "doc:x", "text": "t", "metadata": {"a": {}}}"#, &["`a` must be"]),
        (r#"{"id": "b", "document_id": "a", "guard": "doc:x", "text": "t"}"#, &["document `a` comes back"]),
        (r#"{"id": "k1", "document_id": "k", "guard": "doc:x", "text": "t"}"#, &["chunk id `k1` is already used"]),
        (r#"{"id": "k2", "document_id": "k", "guard": "doc:x", "text": "t", "title": "T"}"#, &["title differs"]),
        ("\"\u{0}\"", &["column"]),
    ];
    for (bad, parts) in rows {
        // Document `a` is whole before the bad line. The bad line may cut off document `k`, unless the line names
        // another document.
        let lines = [line("a1", "a"), line("k1", "k"), bad.to_owned(), line("z1", "z")].join("\n");
        let directory = folder(&[("chunks.jsonl", lines.as_bytes())]);
        let parts: Vec<&str> = ["chunks.jsonl`, line 3: "].iter().chain(parts).copied().collect();
        let (documents, _) = read(&json_lines(&directory));
        let document_of = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).ok()?.get("document_id")?.as_str().map(str::to_owned)
        };
        let is_other_document = document_of(bad).is_some_and(|document| document != "k");
        refused(&json_lines(&directory), 1 + usize::from(is_other_document), &parts);
        assert_eq!(documents[0].id, "a");
    }
    let long = format!(r#"{{"id": "{}"}}"#, "i".repeat(1 << 20));
    refused(&json_lines(&folder(&[("chunks.jsonl", long.as_bytes())])), 0, &["line 1: has more than 1048576 bytes"]);
}

/// A folder as people keep it: twenty of each kind of file.
#[test]
fn a_folder_of_odd_files_is_read_as_far_as_it_is_text() {
    const OF_EACH: usize = 20;
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let kinds: [(&str, &str, Vec<u8>); 12] = [
        ("markdown", "md", b"# Leave\n\nAsk early.\n".to_vec()),
        ("capitals", "MD", b"# Leave\n\nAsk early.\n".to_vec()),
        ("page", "Html", b"<title>Leave</title><h1>Leave</h1><p>Ask early.</p>".to_vec()),
        ("marked", "txt", b"\xef\xbb\xbfAsk early.".to_vec()),
        ("latin", "txt", b"Un caf\xe9 noir, d\xe9j\xe0 servi.".to_vec()),
        ("wide", "text", utf_16("Ask early, and in writing.")),
        ("front", "markdown", b"---\ntags: [hr]\n---\nAsk early.".to_vec()),
        ("empty", "md", b" \n".to_vec()),
        ("binary", "md", b"\0\x01\x02\xff".to_vec()),
        ("paper", "PDF", b"%PDF-1.7".to_vec()),
        ("office", "docx", b"PK".to_vec()),
        ("picture", "png", b"\x89PNG".to_vec()),
    ];
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (kind, extension, content) in &kinds {
        for number in 0..OF_EACH {
            let folder = directory.path().join(format!("{}", number % 3));
            std::fs::create_dir_all(&folder).expect("made");
            std::fs::write(folder.join(format!("{kind}{number}.{extension}")), content).expect("written");
        }
    }
    let source = by_type(&directory);
    let (mut documents, mut empty, mut encodings, mut errors) = (Vec::new(), 0, Vec::new(), 0);
    for entry in source.documents().expect("opened") {
        match entry {
            Ok(SourceDocument { encoding, document, .. }) => {
                encodings.extend(encoding);
                match document {
                    Some(document) => documents.push(document),
                    None => empty += 1,
                }
            }
            Err(error) => {
                assert!(error.to_string().contains("binary"), "{error}");
                errors += 1;
            }
        }
    }
    assert_eq!((documents.len(), empty, errors, encodings.len()), (7 * OF_EACH, OF_EACH, OF_EACH, 2 * OF_EACH));
    assert_eq!(source.not_read().len(), 2 * OF_EACH, "PDF and Word");
    for document in documents {
        let chunk = &document.chunks[0];
        let text = if document.id.contains("latin") { "Un caf\u{e9} noir" } else { "Ask early" };
        assert!(chunk.text.contains(text), "{}: {}", document.id, chunk.text);
        let has_heading = ["markdown", "capitals", "page"].iter().any(|kind| document.id.contains(kind));
        assert_eq!(chunk.heading_path, if has_heading { vec!["Leave"] } else { vec![] }, "{}", document.id);
        let tags = document.id.contains("front").then(|| Value::List(vec![Value::Text("hr".to_owned())]));
        assert_eq!(chunk.metadata.get("tags"), tags.as_ref(), "{}", document.id);
    }
}

/// A wrong line is named, and the lines of other documents are taken.
#[test]
fn odd_lines_of_json_are_taken_or_named() {
    let line = |id: &str, rest: &str| format!(r#"{{"id": "{id}", "document_id": "{id}", "guard": "doc:x", {rest}}}"#);
    let deep = format!(r#""text": "t", "metadata": {{"a": {}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let rows: [(&str, String, bool); 10] = [
        ("a byte order mark", format!("\u{feff}{}", line("a", r#""text": "t""#)), true),
        ("an emoji as two surrogates", line("a", r#""text": "\ud83d\ude00""#), true),
        ("marks of direction", line("a", r#""text": "\u202bt\u202c""#), true),
        ("a surrogate without its second half", line("a", r#""text": "t \ud83d""#), false),
        ("a second half alone", line("a", r#""text": "\ude00 t""#), false),
        ("a surrogate in a key of metadata", line("a", r#""text": "t", "metadata": {"\ud800": 1}"#), false),
        ("deeply nested metadata", line("a", &deep), false),
        ("a number past 64 bits", line("a", r#""text": "t", "metadata": {"a": 18446744073709551615}"#), false),
        (
            "1,000 headings",
            line("a", &format!(r#""text": "t", "heading_path": [{}]"#, vec![r#""h""#; 1_000].join(", "))),
            false,
        ),
        ("a title of 64 KB", line("a", &format!(r#""text": "t", "title": "{}""#, "t".repeat(1 << 16))), false),
    ];
    for (row, odd, is_taken) in rows {
        let lines = format!("{odd}\n{}\n", line("z", r#""text": "t""#));
        let (ids, errors) = all(&json_lines(&folder(&[("chunks.jsonl", lines.as_bytes())])));
        let expected: &[&str] = if is_taken { &["a", "z"] } else { &["z"] };
        assert_eq!(ids, expected, "{row}: {errors:?}");
        assert_eq!(errors.len(), usize::from(!is_taken), "{row}: {errors:?}");
    }
}
