//! An approval never widens: whatever is asked for and whatever the details of a token say, an approved answer holds only
//! chunks that the same principal gets from a server whose settings ask for no approval.
//!
//! Both servers hold the same documents, and one issuer issues the tokens. Half of the approvals are those that Ragward asks
//! for, and half those that the agent's program asks for.

use std::collections::BTreeSet;

use ragward::identity::config::{ApprovalConfig, IdentityConfig};
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::request_approval_request::Request as Approved;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Chunk, FetchRequest, RetrieveRequest};
use serde_json::{Value, json};
use tonic::Status;
use tonic_types::StatusExt;

use crate::identity::approver::{World, reason, rules};
use crate::identity::world::{identity, start, text_value, with_token};
use crate::support::dice::Dice;
use crate::support::documents::document;
use crate::support::running::Running;
use crate::support::untimed::Untimed;

/// A person is asked at most 60 times a day.
const ROUNDS: usize = 100;
const SEED: u64 = 0x00a9_9207;
const CHUNKS_MAX: u64 = 4;
const DOCUMENTS: [&str; 4] = ["document:welcome", "document:roadmap", "document:salaries", "page:draft"];

/// Lets each round have a client of its own, since an agent may ask only so often.
fn with_clients(identity: &mut IdentityConfig) {
    identity.issuers[0].people.clients.extend((0..ROUNDS).map(client_of));
}

fn client_of(round: usize) -> String {
    format!("assistant-{round}")
}

/// Returns a random request.
fn request(dice: &mut Dice) -> Approved {
    let ceilings = ["", "public", "internal", "secret"];
    let (collection, classification_max) = ("handbook".to_owned(), ceilings[dice.below(ceilings.len())].to_owned());
    if dice.below(3) == 0 {
        let ids = (0..=dice.below(6)).map(|_| format!("{}#{}", DOCUMENTS[dice.below(4)], dice.below(3)));
        let chunk_ids: BTreeSet<String> = ids.collect();
        let chunk_ids = chunk_ids.into_iter().collect();
        return Approved::Fetch(FetchRequest { collection, chunk_ids, classification_max, ..FetchRequest::default() });
    }
    let texts = ["leave", "more", "more about leave", "nothing of it"];
    Approved::Retrieve(RetrieveRequest {
        collection,
        query: Some(Query::Text(texts[dice.below(texts.len())].to_owned())),
        top_k: u32::try_from(1 + dice.below(10)).unwrap(),
        per_document_max: u32::try_from(dice.below(3)).unwrap(),
        min_score: (dice.below(4) == 0).then_some(0.1),
        classification_max,
        ..RetrieveRequest::default()
    })
}

/// Returns random members of details, which narrow an object; none for a token without details.
fn narrowing(dice: &mut Dice) -> Vec<(&'static str, Value)> {
    let mut members = Vec::new();
    if dice.below(2) == 0 {
        let guards: Vec<&str> = DOCUMENTS.into_iter().filter(|_| dice.below(2) == 0).collect();
        members.push(("identifiers", json!(guards)));
    }
    if dice.below(4) == 0 {
        let types = ["document", "page"];
        members.push(("datatypes", json!([types[dice.below(2)]])));
    }
    if dice.below(4) == 0 {
        members.push(("chunks_max", json!(dice.below(4))));
    }
    members
}

/// Returns the claim with one object of these members; none for a token without details.
fn details(members: &[(&'static str, Value)]) -> Option<(&'static str, Value)> {
    let mut object = json!({ "type": "ragward_retrieval" });
    for (name, value) in members {
        object[*name] = value.clone();
    }
    (!members.is_empty()).then(|| ("authorization_details", json!([object])))
}

async fn answer(running: &Running, request: Approved, token: &str) -> Result<Vec<Chunk>, Status> {
    let mut client = running.client.retrieval();
    Ok(match request {
        Approved::Retrieve(request) => client.retrieve(with_token(request, token)).await?.into_inner().chunks,
        Approved::Fetch(request) => client.fetch(with_token(request, token)).await?.into_inner().chunks,
    })
}

fn with_approval(request: &Approved, approval: &str) -> Approved {
    let approval = approval.to_owned();
    match request.clone() {
        Approved::Retrieve(request) => Approved::Retrieve(RetrieveRequest { approval, ..request }),
        Approved::Fetch(request) => Approved::Fetch(FetchRequest { approval, ..request }),
    }
}

/// The chunks of an answer with their texts; none for a refusal.
fn shown(answer: Result<Vec<Chunk>, Status>) -> BTreeSet<(String, String)> {
    answer.unwrap_or_default().into_iter().map(|chunk| (chunk.id, chunk.text)).collect()
}

/// Lets Ragward ask the person, who says yes.
async fn asked_by_ragward(world: &World, request: &Approved, token: &str) -> Result<Vec<Chunk>, Status> {
    let approval = world.request(request.clone(), token).await?;
    world.approve("anne", &[]);
    answer(&world.running, with_approval(request, &approval.approval), token).await
}

/// Lets the program of the agent ask the person, who says yes to the details that narrow the approval further.
async fn asked_by_agent(
    world: &World,
    request: &Approved,
    claims: &[(&'static str, Value)],
    narrowing: &[(&'static str, Value)],
) -> Result<Vec<Chunk>, Status> {
    let required = answer(&world.running, request.clone(), &world.token("anne", claims)).await.unwrap_err();
    assert_eq!(reason(&required), "APPROVAL_REQUIRED", "{required:?}");
    let asked = required.get_error_details().error_info().unwrap().metadata["authorization_details"].clone();
    let mut approved: Value = serde_json::from_str(&asked).unwrap();
    for (name, value) in narrowing {
        let asked_max = approved[0]["chunks_max"].as_u64();
        approved[0][*name] = match value.as_u64() {
            Some(chunks_max) => json!(asked_max.unwrap().min(chunks_max)),
            None => value.clone(),
        };
    }
    let id = format!("approved for {}", claims[0].1);
    let more = [("authorization_details", approved), ("jti", json!(id))];
    answer(&world.running, request.clone(), &world.token("anne", &[claims, more.as_slice()].concat())).await
}

#[tokio::test]
async fn an_approved_answer_holds_nothing_that_needs_no_approval_elsewhere() {
    let world = World::start(|_, identity| {
        with_clients(identity);
        let collection = Some("handbook".to_owned());
        let chunks_max = Some(CHUNKS_MAX);
        identity.approval = vec![ApprovalConfig { collection, chunks_max, ..ApprovalConfig::default() }];
    })
    .await;
    let data = tempfile::tempdir().unwrap();
    let mut unasked = identity(&world.issuer);
    rules(&mut unasked);
    with_clients(&mut unasked);
    unasked.approval.clear();
    let unasked = start(data.path(), unasked).await;

    let (mut dice, mut answered) = (Dice::new(SEED), [0_usize; 2]);
    for round in 0..ROUNDS {
        let (request, narrowing) = (request(&mut dice), narrowing(&mut dice));
        let id = ("client_id", json!(client_of(round)));
        let narrowed: Vec<(&str, Value)> = std::iter::once(id.clone()).chain(details(&narrowing)).collect();
        let token = world.token("anne", &narrowed);
        let given = match round % 2 {
            0 => asked_by_ragward(&world, &request, &token).await,
            _ => asked_by_agent(&world, &request, &[id], &narrowing).await,
        };
        let given = shown(given);
        let may_have = shown(answer(&unasked, request.clone(), &token).await);
        assert!(given.is_subset(&may_have), "round {round}: {given:?} of {may_have:?}: {request:?}, {narrowing:?}");
        assert!(given.len() <= usize::try_from(CHUNKS_MAX).unwrap(), "round {round}: {given:?}");
        answered[round % 2] += usize::from(!given.is_empty());
    }
    assert!(answered.iter().all(|answered| *answered >= 5), "it would prove nothing: {answered:?}");
}

/// Puts documents into a collection. Each has a chunk of each of these classes, and a secret chunk is full of the query's words.
async fn put_documents(running: &Running, classes: &[&str]) {
    let of = |id: &str| {
        let mut document = document(id, &["about leave and pay", "leave leave leave zeppelin zeppelin"]);
        document.chunks.truncate(classes.len());
        for (chunk, class) in document.chunks.iter_mut().zip(classes) {
            chunk.metadata.insert("classification".to_owned(), text_value(class));
        }
        UpsertDocumentsRequest { collection: "twins".to_owned(), document: Some(document) }
    };
    let messages = ["document:welcome", "document:roadmap", "page:draft"].map(of);
    let local = running.app.in_process().unwrap();
    local.client().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
}

/// A chunk that is above the ceiling, or needs an approval that nobody gave, moves no byte of an answer: neither a score nor how
/// complete it says that it is.
#[tokio::test]
async fn chunks_above_the_ceiling_are_as_absent() {
    let world = World::start(|_, _| {}).await;
    let data = tempfile::tempdir().unwrap();
    let mut ruled = identity(&world.issuer);
    rules(&mut ruled);
    let without = start(data.path(), ruled).await;
    put_documents(&world.running, &["internal", "secret"]).await;
    put_documents(&without, &["internal"]).await;
    let anne = world.token("anne", &[]);
    let search = |text: &str, ceiling: &str| RetrieveRequest {
        collection: "twins".to_owned(),
        query: Some(Query::Text(text.to_owned())),
        top_k: 10,
        classification_max: ceiling.to_owned(),
        ..RetrieveRequest::default()
    };
    let ask = async |running: &Running, request: &RetrieveRequest| {
        let answered = running.client.retrieval().retrieve(with_token(request.clone(), &anne)).await;
        answered.unwrap().into_inner().untimed()
    };
    for ceiling in ["", "public", "internal"] {
        for text in ["leave", "zeppelin", "leave zeppelin", "pay leave", "nothing of it"] {
            for (top_k, per_document_max, min_score) in [(10, 0, None), (1, 0, None), (10, 1, Some(0.01)), (2, 1, None)]
            {
                let request = RetrieveRequest { top_k, per_document_max, min_score, ..search(text, ceiling) };
                let (with_secrets, alone) = (ask(&world.running, &request).await, ask(&without, &request).await);
                assert_eq!(with_secrets, alone, "{request:?}");
                let is_found = ceiling != "public" && text.contains("leave");
                assert_eq!(!alone.chunks.is_empty(), is_found, "{request:?}");
            }
        }
        let fetches: [(&[&str], &[&str]); 3] = [
            (&["document:roadmap#0", "document:roadmap#1", "page:draft#1"], &[]),
            (&[], &["document:roadmap", "page:draft"]),
            (&["document:roadmap#1"], &["document:welcome"]),
        ];
        for (chunk_ids, document_ids) in fetches {
            let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
            let request = FetchRequest {
                collection: "twins".to_owned(),
                chunk_ids: owned(chunk_ids),
                document_ids: owned(document_ids),
                classification_max: ceiling.to_owned(),
                ..FetchRequest::default()
            };
            let fetch = async |running: &Running| {
                let answer = running.client.retrieval().fetch(with_token(request.clone(), &anne)).await;
                answer.unwrap().into_inner().untimed()
            };
            assert_eq!(fetch(&world.running).await, fetch(&without).await, "{request:?}");
        }
    }
    // With an approval, the same chunks are found and count, so the equality above says something.
    let request = search("leave", "secret");
    let approval = world.request(Approved::Retrieve(request.clone()), &anne).await.unwrap().approval;
    world.approve("anne", &[]);
    let approved = world.ask(RetrieveRequest { approval, ..request }, &anne).await.unwrap();
    let alone = ask(&without, &search("leave", "")).await;
    assert_eq!((approved.chunks.len(), alone.chunks.len()), (6, 3));
    let score = |chunks: &[Chunk]| chunks.iter().find(|chunk| chunk.id == "page:draft#0").map(|chunk| chunk.score);
    assert_ne!(score(&approved.chunks), score(&alone.chunks), "the secret chunks count now");
}
