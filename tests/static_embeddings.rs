//! A model in a folder, through a whole server: the weights of `WordLlama`, which somebody else made, find the page of the handbook
//! that a paraphrase means.
#![cfg(test)]

mod support {
    #[expect(dead_code, reason = "nothing is deleted or restarted here")]
    pub(crate) mod running;
}

use std::path::{Path, PathBuf};

use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::ingest::PutDocumentRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{RetrieveRequest, Semantic};
use serde_json::json;

use self::support::running::{Running, config};

/// The folder into which the package of `WordLlama` was unpacked.
const WORDLLAMA: &str = "WORDLLAMA_HOME";
const MODEL: &str = "
model
  schema 1.1
type user
type document
  relations
    define can_read: [user]
";
/// Pages of the handbook. The first one is meant.
const PAGES: [&str; 5] = [
    "people/parental-leave",
    "company/expenses",
    "company/working-hours",
    "engineering/on-call",
    "finance/cover-budget",
];

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test finds the model as its caller says")]
    let value = std::env::var(name);
    value.ok().filter(|value| !value.is_empty())
}

/// Returns the first file below a folder with this extension, whose name has this part.
fn file_below(folder: &Path, part: &str, extension: &str) -> Option<PathBuf> {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let has_part = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.contains(part));
            if has_part && path.extension().is_some_and(|found| found == extension) {
                return Some(path);
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paraphrase_finds_the_right_page_of_the_handbook() {
    let Some(home) = variable(WORDLLAMA) else {
        assert!(variable("CI").is_none(), "CI must run this: set {WORDLLAMA}");
        drop(std::io::Write::write_all(&mut std::io::stderr(), b"skipped: there is no model of WordLlama\n"));
        return;
    };
    let (data, model) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, part, extension) in [("tokenizer.json", "tokenizer", "json"), ("model.safetensors", "", "safetensors")] {
        let found = file_below(Path::new(&home), part, extension).expect(name);
        std::fs::copy(found, model.path().join(name)).unwrap();
    }
    let mut settings = config(data.path());
    let embedding = json!([{ "collections": ["handbook"], "folder": model.path(), "model": "l2-supercat" }]);
    settings.embedding = serde_json::from_value(embedding).unwrap();
    let running = Running::start(&settings).await;
    let guards = PAGES.map(|page| format!("document:{page}"));
    let may_read = |guard: &String| RelationshipTuple::parse("user:anne", "can_read", guard).unwrap();
    running.load(dsl::load(MODEL).unwrap(), guards.iter().map(may_read).collect());
    let handbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/handbook/documents");
    for (page, guard) in PAGES.iter().zip(&guards) {
        let request = PutDocumentRequest {
            collection: "handbook".to_owned(),
            document_id: (*page).to_owned(),
            guard: guard.clone(),
            text: std::fs::read_to_string(handbook.join(format!("{page}.md"))).unwrap(),
            ..PutDocumentRequest::default()
        };
        let put = running.client.ingest().put_document(request).await.unwrap().into_inner();
        let embedded = put.embedded.expect("a model");
        assert_eq!((embedded.host.as_str(), embedded.chunks), ("", u64::from(put.chunks)), "{page}");
    }
    let request = RetrieveRequest {
        user: "user:anne".to_owned(),
        collection: "handbook".to_owned(),
        query: Some(Query::Semantic(Semantic { text: "time off for a new baby".to_owned() })),
        top_k: 3,
        ..RetrieveRequest::default()
    };
    let answer = running.client.retrieval().retrieve(request).await.unwrap().into_inner();
    assert_eq!(answer.chunks.first().map(|chunk| chunk.document_id.as_str()), Some(PAGES[0]));
}
