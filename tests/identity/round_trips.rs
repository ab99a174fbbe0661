//! An agent costs no call more: what it may do is asked in the call that asks what its user may, counted on the wire.

use std::sync::{Arc, Mutex};

use openfga_client::client::{
    BatchCheckRequest, BatchCheckResponse, BatchCheckSingleResult, ListObjectsRequest, ListObjectsResponse,
    batch_check_single_result::CheckResult,
};
use ragward::config::{AuthorizerKind, DelegationConfig, DelegationObject, ReplicaMode};
use ragward::proto::ingest::UpsertDocumentsRequest;
use tonic::Status;

use crate::delegation::acted;
use crate::documents::document;
use crate::faulty_server::Methods;
use crate::issuer::{SigningKey, TestIssuer};
use crate::running::{Running, config};
use crate::world::{RETRIEVE, identity, seen};

const DOCUMENTS: usize = 10;

/// What the server was asked, in calls.
#[derive(Debug, Default)]
struct Asked {
    /// Each with the number of its checks.
    batches: Vec<usize>,
    lists: usize,
}

#[tokio::test]
async fn an_agent_costs_no_call_more_than_its_user() {
    let asked: Arc<Mutex<Asked>> = Arc::default();
    let (of_batches, of_lists) = (Arc::clone(&asked), Arc::clone(&asked));
    // Everybody may do everything.
    let batch_check = move |request: BatchCheckRequest| {
        of_batches.lock().unwrap().batches.push(request.checks.len());
        let allowed = || BatchCheckSingleResult { check_result: Some(CheckResult::Allowed(true)) };
        let result = request.checks.into_iter().map(|check| (check.correlation_id, allowed())).collect();
        std::future::ready(Ok(BatchCheckResponse { result }))
    };
    // A list as long as this one may have been cut, so checks are made.
    let list_objects = move |_request: ListObjectsRequest| {
        of_lists.lock().unwrap().lists += 1;
        std::future::ready(Err::<ListObjectsResponse, Status>(Status::resource_exhausted("no lists here")))
    };
    let openfga = Methods::default()
        .on("/openfga.v1.OpenFGAService/BatchCheck", batch_check)
        .on("/openfga.v1.OpenFGAService/ListObjects", list_objects)
        .start()
        .await;

    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let mut costs = Vec::new();
    for on in [DelegationObject::User, DelegationObject::Guard] {
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        config.server.insecure_identity = false;
        config.identity = identity(&issuer);
        config.identity.delegation = DelegationConfig { relation: "may".to_owned(), on };
        config.authorizer.kind = AuthorizerKind::Openfga;
        config.authorizer.openfga.address = openfga.address.clone();
        config.authorizer.openfga.store_id = "01JZZZZZZZZZZZZZZZZZZZZZZZ".to_owned();
        config.authorizer.openfga.authorization_model_id = "01JZZZZZZZZZZZZZZZZZZZZZZY".to_owned();
        // Nothing is remembered from one request to the next.
        (config.authorizer.checks.cache_ttl_ms, config.authorizer.checks.changelog_poll_ms) = (0, 0);
        config.authorizer.replica.mode = ReplicaMode::Off;
        let running = Running::start(&config).await;
        let messages = (0..DOCUMENTS).map(|number| UpsertDocumentsRequest {
            collection: "handbook".to_owned(),
            document: Some(document(&format!("document:{number}"), &["about leave"])),
        });
        let messages: Vec<_> = messages.collect();
        running.app.in_process().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
        for more in [None, Some(acted("helper"))] {
            let mut claims = issuer.claims("anne", RETRIEVE);
            for (name, value) in more {
                claims[name] = value;
            }
            *asked.lock().unwrap() = Asked::default();
            assert_eq!(seen(&running, "", &key.sign(&claims)).await.unwrap().len(), DOCUMENTS);
            let asked = asked.lock().unwrap();
            costs.push((asked.lists, asked.batches.clone()));
        }
    }
    let lists = costs[0].0;
    let expected = [DOCUMENTS, DOCUMENTS + 1, DOCUMENTS, 2 * DOCUMENTS].map(|checks| (lists, vec![checks])).to_vec();
    assert_eq!(costs, expected, "lists, and the checks of each call");
}
