//! Several tenants in one collection: the verified token says which one asks, never the request.

use ragward::identity::config::ClaimTuple;
use ragward::language::{Relation, RelationshipTuple, TypeName, dsl};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{FetchRequest, Filter, OneOf, RecheckRequest, RetrieveRequest, Vector, filter};
use serde_json::json;
use tonic::Code;

use crate::identity::world::{RETRIEVE, identity, with_token};
use crate::support::documents::document;
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::{Running, config};

/// Every member of a tenant may read its documents, and nobody else may, whatever other grants there are.
const MODEL: &str = "
model
  schema 1.1
type user
type tenant
  relations
    define member: [user]
type document
  relations
    define tenant: [tenant]
    define reader: [user, user:*]
    define can_read: reader and member from tenant
";
const TENANTS: [&str; 3] = ["north", "south", "north2"];
const DOCUMENTS: usize = 5;

#[tokio::test]
async fn tenants_of_one_collection_never_meet() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path());
    config.server.insecure_identity = false;
    config.identity = identity(&issuer);
    config.identity.claim_tuples = vec![ClaimTuple {
        claim: "tenant".to_owned(),
        relation: Relation::parse("member").unwrap(),
        object_type: TypeName::parse("tenant").unwrap(),
        absent: None,
    }];
    let running = Running::start(&config).await;
    let (mut tuples, mut messages) = (Vec::new(), Vec::new());
    for tenant in TENANTS {
        for number in 0..DOCUMENTS {
            let id = format!("document:{tenant}-{number}");
            // Everybody may read the document, so that the tenant alone decides.
            tuples.push(RelationshipTuple::parse("user:*", "reader", &id).unwrap());
            tuples.push(RelationshipTuple::parse(&format!("tenant:{tenant}"), "tenant", &id).unwrap());
            let mut document = document(&id, &[&format!("leave, canary of {tenant}")]);
            document.chunks[0].vector = vec![1.0, 0.0];
            messages.push(ragward::proto::ingest::UpsertDocumentsRequest {
                collection: "shared".to_owned(),
                document: Some(document),
            });
        }
    }
    running.load(dsl::load(MODEL).unwrap(), tuples);
    running.app.in_process().unwrap().client().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();

    // The same subject exists in each tenant, and in none.
    let token = |tenant: serde_json::Value| {
        let mut claims = issuer.claims("anne", RETRIEVE);
        claims["tenant"] = tenant;
        key.sign(&claims)
    };
    let request = |query: Query| RetrieveRequest {
        collection: "shared".to_owned(),
        query: Some(query),
        top_k: 3,
        page_token: Some(String::new()),
        ..RetrieveRequest::default()
    };
    let vector = || Query::Vector(Vector { values: vec![1.0, 0.0] });
    let text = || Query::Text("leave canary of north south north2".to_owned());
    let others = |tenant: &str| TENANTS.into_iter().filter(|other| *other != tenant).collect::<Vec<_>>();
    // Each tenant asks twice, so that a decision remembered for one is offered to the next.
    for tenant in TENANTS.iter().chain(&TENANTS) {
        let bearer = token(json!(tenant));
        for (kind, query) in [("vector", vector()), ("text", text())] {
            let (mut found, mut page_token) = (Vec::new(), String::new());
            for _ in 0..2 {
                let asked = RetrieveRequest { page_token: Some(page_token), ..request(query.clone()) };
                let page = running.client.retrieval().retrieve(with_token(asked, &bearer)).await.unwrap().into_inner();
                found.extend(page.chunks);
                page_token = page.next_page_token;
            }
            assert_eq!((found.len(), page_token.as_str()), (DOCUMENTS, ""), "{tenant}, {kind}");
            let canary = format!("canary of {tenant}");
            assert!(found.iter().all(|chunk| chunk.text.ends_with(&canary)), "{tenant}, {kind}: {found:?}");
        }
        for other in others(tenant) {
            // Neither a filter nor a page token of the other tenant widens anything.
            let values = vec![ragward::proto::metadata::Value {
                kind: Some(ragward::proto::metadata::value::Kind::StringValue(other.to_owned())),
            }];
            let by_filter = Filter { kind: Some(filter::Kind::OneOf(OneOf { key: "tenant".to_owned(), values })) };
            let asked = RetrieveRequest { filter: Some(by_filter), ..request(text()) };
            let answer = running.client.retrieval().retrieve(with_token(asked, &bearer)).await.unwrap().into_inner();
            assert!(answer.chunks.is_empty(), "{tenant} beside {other}: {answer:?}");
            let theirs = with_token(request(vector()), &token(json!(other)));
            let theirs = running.client.retrieval().retrieve(theirs).await.unwrap().into_inner().next_page_token;
            let asked = RetrieveRequest { page_token: Some(theirs), ..request(vector()) };
            let refused = running.client.retrieval().retrieve(with_token(asked, &bearer)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{tenant} beside {other}: {refused:?}");
            let held = RecheckRequest {
                collection: "shared".to_owned(),
                chunk_ids: vec![format!("document:{other}-0#0"), format!("document:{tenant}-0#0")],
                ..RecheckRequest::default()
            };
            let left = running.client.retrieval().recheck(with_token(held, &bearer)).await.unwrap().into_inner();
            assert_eq!(left.chunk_ids, [format!("document:{tenant}-0#0")], "{tenant} beside {other}");
            let fetch = FetchRequest {
                collection: "shared".to_owned(),
                chunk_ids: vec![format!("document:{other}-0#0"), format!("document:{tenant}-0#0")],
                document_ids: vec![format!("document:{other}-0")],
                ..FetchRequest::default()
            };
            let fetched = running.client.retrieval().fetch(with_token(fetch, &bearer)).await.unwrap().into_inner();
            let fetched: Vec<String> = fetched.chunks.into_iter().map(|chunk| chunk.id).collect();
            assert_eq!(fetched, [format!("document:{tenant}-0#0")], "{tenant} beside {other}");
        }
    }
    for nobody in [json!("west"), json!("North"), json!([]), json!("*")] {
        let asked = with_token(request(vector()), &token(nobody.clone()));
        match running.client.retrieval().retrieve(asked).await {
            Ok(answer) => assert!(answer.get_ref().chunks.is_empty(), "{nobody}: {answer:?}"),
            Err(refused) => assert_eq!(refused.code(), Code::Unauthenticated, "{nobody}"),
        }
    }
}
