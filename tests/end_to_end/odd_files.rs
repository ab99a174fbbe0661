//! A folder of more than 200 odd files, as a person ingests it: what has text is found, and everything else is reported.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::commands::{each, json, ragward, succeeds};

/// How many files there are of each kind.
const OF_EACH: usize = 10;

/// The fate of a file: it is read, listed, or passed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is a document, and the name of its kind finds it.
    Taken,
    Empty,
    /// It is named as one that should be a text first.
    NotRead,
    /// It is named with the reason.
    PassedOver,
    /// Nobody expects it to be a document.
    LeftOut,
}

/// A row: the kind of the files, the end of their names, their content, and what becomes of them.
type Row = (&'static str, &'static [u8], Vec<u8>, Outcome);

fn rows() -> [Row; 21] {
    let wide = "Ask early, wide".encode_utf16().flat_map(u16::to_le_bytes).collect();
    [
        ("markdown", b".md", "# Leave\n\nAsk early, markdown.\n".into(), Outcome::Taken),
        ("capitals", b".MD", "# Leave\n\nAsk early, capitals.\n".into(), Outcome::Taken),
        ("page", b".HTML", "<title>Leave</title><p>Ask early, page".into(), Outcome::Taken),
        ("broken", b".htm", "<p>Ask <div><b>early, </i>broken </p".into(), Outcome::Taken),
        ("wide", b".txt", wide, Outcome::Taken),
        ("marked", b".md", "\u{feff}# Leave\n\nAsk early, marked.\n".into(), Outcome::Taken),
        ("latin", b".txt", b"un caf\xe9 noir, d\xe9j\xe0 servi latin".to_vec(), Outcome::Taken),
        ("nested", b".md", format!("{}Ask early, nested", "- ".repeat(1_000)).into(), Outcome::Taken),
        ("endless", b".txt", format!("{}endless", "word ".repeat(600)).into(), Outcome::Taken),
        (
            "anchors",
            b".md",
            "---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\nAsk early, anchors.".into(),
            Outcome::Taken,
        ),
        ("numbers", b".md", "---\nn: 99999999999999999999\n---\nAsk early, numbers.".into(), Outcome::Taken),
        ("mixed", b".md", "\u{1f468}\u{200d}\u{1f469} \u{202e}Ask early, mixed\u{202c}".into(), Outcome::Taken),
        ("blank", b".txt", " \n\t\n".into(), Outcome::Empty),
        ("open", b".html", "<title>A title that does not end <p>Ask".into(), Outcome::Empty),
        ("paper", b".PDF", b"%PDF-1.7".to_vec(), Outcome::NotRead),
        ("nameless", b"\xff.docx", b"PK".to_vec(), Outcome::NotRead),
        ("binary", b".md", b"\0\x01\xff".to_vec(), Outcome::PassedOver),
        ("packed", b".txt", b"\x1f\x8b\x08\x01\x9c\xe7\x02\xff\x03".to_vec(), Outcome::PassedOver),
        ("damaged", b".md", b"caf\xc3\xa9 \xff".to_vec(), Outcome::PassedOver),
        ("unnamed", b"\xff.md", "Ask early.".into(), Outcome::PassedOver),
        ("picture", b".png", b"\x89PNG".to_vec(), Outcome::LeftOut),
    ]
}

/// Makes the files, and links, pipes and folders whose names end like those of files.
fn make(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    for number in 0..OF_EACH {
        for (kind, end, content, _) in rows() {
            let name = OsString::from_vec([format!("{kind}{number}").as_bytes(), end].concat());
            std::fs::write(folder.join(name), content).unwrap();
        }
        std::os::unix::fs::symlink("/dev/zero", folder.join(format!("device{number}.md"))).unwrap();
        assert!(Command::new("mkfifo").arg(folder.join(format!("pipe{number}.md"))).status().unwrap().success());
        let inner = folder.join(format!("folder{number}.md"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("inner.txt"), "Ask early, foldered.").unwrap();
        std::fs::write(folder.join(format!(".hidden{number}.md")), "Ask early, hidden.").unwrap();
    }
}

#[test]
fn a_folder_of_odd_files_is_taken_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    make(&directory.path().join("odd"));
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", &data]);
    let odd = path("odd");
    let guard = ["--collection", "odd", "--guard", "document:welcome", "--data", &data];
    let done = ragward(&[&["ingest", &odd, "--output", "json"][..], &guard[..]].concat());
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let kinds = |outcome: Outcome| rows().iter().filter(|(_, _, _, of)| *of == outcome).count();
    // Folders hold one more kind of documents, and links and pipes are passed over.
    let length = |field: &str| Value::from(report[field].as_array().map_or(0, Vec::len));
    let counts: [(&str, Value, usize); 5] = [
        ("taken", report["documents"].clone(), kinds(Outcome::Taken) + 1),
        ("not read", report["not_read_total"].clone(), kinds(Outcome::NotRead)),
        ("passed over", report["passed_over_total"].clone(), kinds(Outcome::PassedOver) + 2),
        ("empty", length("empty"), kinds(Outcome::Empty)),
        ("decoded", length("decoded"), 2),
    ];
    for (row, found, kinds) in counts {
        assert_eq!(found, Value::from(kinds * OF_EACH), "{row}: {report:#}");
    }
    let passed_over = report["passed_over"].to_string();
    for kind in ["binary", "packed", "damaged", "unnamed", "device", "pipe"] {
        for number in 0..OF_EACH {
            assert!(passed_over.contains(&format!("{kind}{number}")), "{kind}{number}: {passed_over}");
        }
    }
    assert!(report["not_read"].to_string().contains("nameless3"), "{report:#}");
    let taken = rows().into_iter().filter(|(_, _, _, outcome)| *outcome == Outcome::Taken).map(|(kind, ..)| kind);
    for kind in taken.chain(["foldered"]) {
        let ask = ["retrieve", "--user", "user:fay", "--collection", "odd", "--data", &data, "--top-k", "50", kind];
        let found = json(&ask);
        let ids = each(&found["chunks"], "id").into_iter();
        let documents: BTreeSet<&str> = ids.filter_map(|id| id.split('#').next()).collect();
        assert_eq!(documents.len(), OF_EACH, "{kind}: {found:#}");
    }
    for kind in ["hidden", "binary", "packed"] {
        let ask = ["retrieve", "--user", "user:fay", "--collection", "odd", "--data", &data, kind];
        assert_eq!(each(&json(&ask)["chunks"], "id"), [""; 0], "{kind}");
    }
}
