//! The documentation does what it says: every shell block of the README and the book is run, in order, page by page.
#![cfg(test)]

mod docs {
    pub(crate) mod page;
    pub(crate) mod run;
    pub(crate) mod shape;
}

mod support {
    pub(crate) mod held_port;
    #[expect(dead_code, reason = "the pages do not look at what was asked")]
    pub(crate) mod model_server;
    #[expect(dead_code, reason = "a page starts its own server")]
    pub(crate) mod openfga;
    #[expect(dead_code, reason = "the pages do not look at what was asked")]
    pub(crate) mod qdrant_server;
}

use std::collections::HashMap;
use std::path::PathBuf;

use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::points_update_operation::{Operation, PointStructList};
use qdrant_client::qdrant::{
    CreateCollectionBuilder, Distance, PointStruct, PointsUpdateOperation, Struct, UpdateBatchPoints, Value,
    VectorParamsBuilder, value,
};

use docs::page::Page;
use docs::run::Surroundings;
use docs::{run, shape};
use support::model_server::ModelServer;
use support::openfga;
use support::qdrant_server::QdrantServer;

/// Names the tools that are installed for marked blocks: `pip grpcurl`. Where it is set, only the pages that have such blocks
/// are run.
const TOOLS_VARIABLE: &str = "DOCS_TOOLS";
/// A page that begins with a collection that another program has filled, and the name of the collection.
const FILLED_BY_OTHERS: (&str, &str) = ("docs/src/attach.md", "wiki");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the README, and the pages of the book in its order.
fn pages() -> Vec<Page> {
    let summary = std::fs::read_to_string(root().join("docs/src/SUMMARY.md")).expect("a table of contents");
    let chapters =
        summary.lines().filter_map(|line| line.split_once("](").and_then(|(_, rest)| rest.split(')').next()));
    let paths = std::iter::once("README.md".to_owned()).chain(chapters.map(|chapter| format!("docs/src/{chapter}")));
    paths.map(|path| Page::read(&root(), &path)).collect()
}

/// Runs pages, each with a small Qdrant and a stand-in for models of its own, and gathers what failed.
async fn run_all(pages: Vec<Page>, tools: Vec<String>) -> Vec<String> {
    let openfga = openfga::binary();
    let programs = run::programs(openfga.as_deref()).expect("a folder of programs");
    let path = programs.path().to_str().expect("a path in UTF-8").to_owned();
    let mut faults = Vec::new();
    for page in pages {
        if page.text.contains("openfga run") && openfga.is_none() {
            assert!(openfga::variable("CI").is_none(), "CI must run `{}`: set OPENFGA_BIN", page.path);
            drop(std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("skipped: {} needs an OpenFGA\n", page.path).as_bytes(),
            ));
            continue;
        }
        let qdrant = QdrantServer::start().await;
        if page.path == FILLED_BY_OTHERS.0 {
            fill(&qdrant.address, FILLED_BY_OTHERS.1).await;
        }
        let address = qdrant.address.trim_start_matches("http://").to_owned();
        let models = ModelServer::start().await.host().to_owned();
        let addresses = vec![(run::QDRANT, address), (run::MODELS, models)];
        let surroundings = Surroundings { path: path.clone(), tools: tools.clone(), addresses };
        let ran = tokio::task::spawn_blocking(move || run::run(&page, &root(), &surroundings)).await;
        faults.extend(ran.expect("the page's thread").err());
    }
    faults
}

/// Fills a collection as `LangChain` would: with three points, none of which has a guard.
async fn fill(url: &str, name: &str) {
    let mut collections = CollectionsClient::connect(url.to_owned()).await.expect("a server");
    let vectors = VectorParamsBuilder::new(3, Distance::Cosine);
    collections.create(CreateCollectionBuilder::new(name).vectors_config(vectors).build()).await.expect("a collection");
    let point = |(number, source): (u64, &str)| {
        let metadata = Struct { fields: HashMap::from([("source".to_owned(), Value::from(source))]) };
        let metadata = Value { kind: Some(value::Kind::StructValue(metadata)) };
        let text = Value::from(format!("Text {number}."));
        let payload = HashMap::from([("page_content".to_owned(), text), ("metadata".to_owned(), metadata)]);
        PointStruct::new(number, vec![1.0, 0.0, 0.5], payload)
    };
    let points = [(1, "on-call"), (2, "on-call"), (3, "pay-bands")].map(point).to_vec();
    let list = PointStructList { points, ..PointStructList::default() };
    let request = UpdateBatchPoints {
        collection_name: name.to_owned(),
        wait: Some(true),
        operations: vec![PointsUpdateOperation { operation: Some(Operation::Upsert(list)) }],
        ..UpdateBatchPoints::default()
    };
    PointsClient::connect(url.to_owned()).await.expect("a server").update_batch(request).await.expect("points");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_block_does_what_its_page_says() {
    let tools = openfga::variable(TOOLS_VARIABLE);
    let tools: Vec<String> = tools.iter().flat_map(|tools| tools.split_whitespace()).map(str::to_owned).collect();
    let mut chosen = pages();
    chosen.retain(|page| tools.is_empty() || page.tools().iter().any(|tool| tools.contains(tool)));
    let faults = run_all(chosen, tools).await;
    assert!(faults.is_empty(), "\n{}", faults.join("\n\n"));
}

/// Breaks one thing on a page in each row, and looks whether the failure names the place.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_went_wrong_is_told_with_its_place() {
    let whole = "# A page\n\n```sh\nragward config validate --insecure-identity\n```\n\n```text\nthe configuration is valid\n```\n\n\
                 ```sh exit=2\nragward retrieve --no-such-flag | cat\n```\n\n```toml\n[server]\nexplain = true\n```\n";
    let rows = [
        ("nothing is broken", "", "", ""),
        ("a command that fails", "validate --insecure-identity", "validate --no-such-flag", "page.md:4: it ended with"),
        ("a file that is missing", "config validate", "config validate --config a.toml", "page.md:4: it ended with"),
        ("an output that differs", "configuration is valid", "configuration is fine", "page.md:4: it printed\nthe con"),
        ("another exit code", "exit=2", "exit=0", "page.md:12: it ended with"),
        ("a setting that does not exist", "explain = true", "explains = true", "page.md:16: it ended with"),
    ];
    for (row, old, new, told) in rows {
        assert!(whole.contains(old), "{row}");
        let page = Page { path: "page.md".to_owned(), text: whole.replacen(old, new, 1) };
        let faults = run_all(vec![page], Vec::new()).await;
        match (faults.first(), told) {
            (None, "") => {}
            (Some(fault), told) if !told.is_empty() => assert!(fault.starts_with(told), "{row}: {fault}"),
            (fault, _) => panic!("{row}: {fault:?}"),
        }
    }
}

#[test]
fn ci_calls_what_the_pages_say() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).expect("the gate");
    shape::ci_calls(&ci, &pages()).expect("the commands of README and book");
    for (row, old, new) in [
        ("another command than the README's", "cargo run -- demo", "cargo run --quiet -- demo"),
        ("a command that no page has", "\ncargo test 2>&1", "\ncargo run -- demo --agent\ncargo test 2>&1"),
    ] {
        assert!(ci.contains(old), "{row}");
        assert!(shape::ci_calls(&ci.replacen(old, new, 1), &pages()).is_err(), "{row}");
    }
    // The step for marked blocks installs every tool that a block is marked with.
    let step = ci.lines().find_map(|line| line.split_once(&format!("{TOOLS_VARIABLE}=\"")).map(|(_, rest)| rest));
    let given: Vec<&str> =
        step.and_then(|rest| rest.split('"').next()).unwrap_or_default().split_whitespace().collect();
    for page in pages() {
        for tool in page.tools() {
            assert!(given.contains(&tool.as_str()), "{}: `.ci/run` does not install `{tool}`", page.path);
        }
    }
}

#[test]
fn pages_are_short_and_lead_somewhere() {
    let faults = shape::faults(&root(), &pages());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_setting_is_on_its_page() {
    let schema = ragward::config::Config::schema();
    let page = Page::read(&root(), "docs/src/settings.md");
    let faults = shape::settings(&schema, &page.text);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The changelog alone may name what is gone.
#[test]
fn what_the_documents_name_is_there() {
    let mut documents = [pages(), shape::others(&root())].concat();
    documents.retain(|page| page.path != "CHANGELOG.md");
    let faults = shape::stale_names(&root(), &ragward::config::Config::schema(), &documents);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    let stale = "`retrieval.top_k_maximum = 3`, `src/libs.rs`, `retrieval.top_k_max = 3`, `identity`, `src/lib.rs`, `tests/<x>`";
    let page = Page { path: "page.md".to_owned(), text: stale.to_owned() };
    let faults = shape::stale_names(&root(), &ragward::config::Config::schema(), &[page]);
    assert_eq!(faults, ["page.md: `retrieval.top_k_maximum` is no setting", "page.md: there is no `src/libs.rs`"]);
}
