//! Runs the searches of a store file, in a data directory that is gone afterwards.

use std::path::Path;

use super::FailedAssertion;
use crate::app::App;
use crate::cli::ranking::{Asked, Asker, By};
use crate::cli::{Failure, ingest};
use crate::client::Client;
use crate::config::{Config, DataConfig};
use crate::retrieval::RetrievalConfig;
use crate::store_file::{RetrievalTest, StoreFile, StoreTest};
use crate::tuple_store::{OnConflict, RelationshipStore, TUPLES_PER_WRITE_MAX, TupleWrite};

/// The collection that holds the documents.
const COLLECTION: &str = "documents";

/// The searches of one test.
pub(super) struct TestSearches {
    pub(super) total: usize,
    pub(super) failures: Vec<FailedAssertion>,
}

/// Returns whether a store file has searches.
pub(super) fn are_in(store: &StoreFile) -> bool {
    store.tests.iter().any(|test| !test.retrieval.is_empty())
}

/// Runs the searches of each test, in the order of the file.
///
/// # Errors
/// When the model, the tuples or the documents cannot be loaded, or a search is refused.
pub(super) async fn run(store: StoreFile, retrieval: RetrievalConfig) -> Result<Vec<TestSearches>, Failure> {
    let directory = tempfile::tempdir()?;
    let data = DataConfig { directory: directory.path().join("data") };
    let app = App::open(&Config { data, retrieval, ..Config::default() }).await?;
    let stores = app.relationships().ok_or_else(|| Failure::failed("searches are tested on the embedded engines"))?;
    let relationships = stores.default_store_or_new()?;
    let StoreFile { model, tuples, documents, tests, .. } = store;
    relationships.write_model(model)?;
    relationships.write_all(tuples, OnConflict::Refuse)?;
    let services = app.in_process()?;
    let documents = documents.as_deref();
    let searched = run_all(&relationships, services.client(), documents, &tests).await;
    services.close().await;
    searched
}

/// Loads the documents, and then runs the searches of each test.
async fn run_all(
    relationships: &RelationshipStore,
    client: &Client,
    documents: Option<&Path>,
    tests: &[StoreTest],
) -> Result<Vec<TestSearches>, Failure> {
    if let Some(documents) = documents {
        ingest::ingest_all(client, COLLECTION, documents).await?;
    }
    let mut searched = Vec::with_capacity(tests.len());
    for test in tests {
        searched.push(run_test(relationships, client, test).await?);
    }
    Ok(searched)
}

/// Runs the searches of one test under its own tuples.
async fn run_test(
    relationships: &RelationshipStore,
    client: &Client,
    test: &StoreTest,
) -> Result<TestSearches, Failure> {
    let mut searches = TestSearches { total: test.retrieval.len(), failures: Vec::new() };
    if test.retrieval.is_empty() {
        return Ok(searches);
    }
    relationships.write_all(test.tuples.clone(), OnConflict::Refuse)?;
    // Each test has tuples of its own, and an asker remembers who sees what. So each test gets its own asker.
    let mut asker = Asker::new(client, COLLECTION, By::Words);
    for search in &test.retrieval {
        searches.failures.extend(failure(&mut asker, &test.name, search).await?);
    }
    for deletes in test.tuples.chunks(TUPLES_PER_WRITE_MAX) {
        relationships.write(&TupleWrite { deletes: deletes.to_vec(), ..TupleWrite::default() })?;
    }
    Ok(searches)
}

/// Searches, and returns how the answer differs from what the test expects; `None` if it does not.
async fn failure(
    asker: &mut Asker<'_>,
    test: &str,
    search: &RetrievalTest,
) -> Result<Option<FailedAssertion>, Failure> {
    let RetrievalTest { user, query, documents_max, expect, not } = search;
    let user = user.to_string();
    let found = asker.ranking(Asked { user: &user, query, vector: &[], documents: *documents_max }).await?;
    let missing: Vec<&String> = expect.iter().filter(|id| !found.contains(id)).collect();
    let has_unwanted = not.iter().any(|id| found.contains(id));
    if missing.is_empty() && !has_unwanted {
        return Ok(None);
    }
    let mut hidden = Vec::new();
    for id in missing {
        if !asker.sees(&user, id).await? {
            hidden.push(format!("; `{id}` is hidden from {user}, or not there"));
        }
    }
    let without = if not.is_empty() { String::new() } else { format!(", without {}", listed(not)) };
    Ok(Some(FailedAssertion {
        test: test.to_owned(),
        kind: "retrieval".to_owned(),
        question: format!("user={user}, query=`{query}`, top_k={documents_max}"),
        expected: format!("{}{without}", listed(expect)),
        got: format!("{}{}", listed(&found), hidden.concat()),
    }))
}

fn listed(ids: &[String]) -> String {
    format!("[{}]", ids.join(", "))
}
