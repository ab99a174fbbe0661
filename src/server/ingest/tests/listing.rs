//! Lists, deletions and single documents, for writers who may not write everything.

use prost::Message;

use super::super::listing::{CHECKED_MAX, LOOKED_AT_MAX, READ_MIN};
use super::*;

const LIST: &str = "/ragward.ingest.v1.IngestService/ListDocuments";
const PUT: &str = "/ragward.ingest.v1.IngestService/PutDocument";

/// Returns a document with one chunk for each guard.
fn stored(id: &str, guards: &[&str]) -> Document {
    let chunk = |(position, guard): (usize, &&str)| message::Chunk {
        id: format!("{id}#{position}"),
        guard: format!("note:{guard}"),
        text: "a note".to_owned(),
        ..message::Chunk::default()
    };
    let chunks = guards.iter().enumerate().map(chunk).collect();
    values::document(message::Document { id: id.to_owned(), title: format!("About {id}"), chunks }).unwrap()
}

/// Returns documents that everybody may write.
fn open() -> Vec<Document> {
    (0..10).map(|number| stored(&format!("d{number}"), &[&format!("open{number}"), "open50"])).collect()
}

/// Returns documents that nobody may write, with ids before, between and after the others.
fn hidden() -> Vec<Document> {
    let between = (0..10).map(|number| stored(&format!("d{number}-hidden"), &["shut"]));
    let half = [stored("a", &["shut0"]), stored("d3-half", &["open1", "shut1"]), stored("z", &["shut2", "open2"])];
    between.chain(half).collect()
}

fn administrator() -> Caller {
    let token = sample::token("anne", "ragward:ingest ragward:administer", NOW + 600);
    Caller::Verified { token, other_users: OtherUsers::Refused }
}

async fn page(
    world: &World,
    caller: Caller,
    page_size: u32,
    page_token: &str,
) -> Result<message::ListDocumentsResponse, Status> {
    let asked = message::ListDocumentsRequest {
        collection: COLLECTION.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let (_running, record) = call(None, LIST);
    world.api.list_documents(request(asked, caller, record)).await.map(Response::into_inner)
}

async fn pages(world: &World, caller: Caller, size: u32) -> Vec<message::ListDocumentsResponse> {
    let mut pages: Vec<message::ListDocumentsResponse> = Vec::new();
    while pages.last().is_none_or(|last| !last.next_page_token.is_empty()) {
        let token = pages.last().map(|last| last.next_page_token.clone()).unwrap_or_default();
        pages.push(page(world, caller.clone(), size, &token).await.unwrap());
        assert!(pages.len() < 100, "a list ends");
    }
    pages
}

async fn delete(world: &World, ids: &[&str]) -> Vec<u8> {
    let document_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let asked = message::DeleteDocumentsRequest { collection: COLLECTION.to_owned(), document_ids };
    let (_running, record) = call(None, DELETE);
    let answer = world.api.delete_documents(request(asked, token("anne"), record)).await.unwrap().into_inner();
    // The token tells the moment of the answer, and nothing else.
    message::DeleteDocumentsResponse { consistency_token: String::new(), ..answer }.encode_to_vec()
}

async fn collections(world: &World, caller: Caller) -> Vec<message::ListedCollection> {
    let (_running, record) = call(None, "/ragward.ingest.v1.IngestService/ListCollections");
    let asked = request(message::ListCollectionsRequest {}, caller, record);
    world.api.list_collections(asked).await.unwrap().into_inner().collections
}

/// World B holds what world A holds, and documents that the writer may not write.
#[tokio::test]
async fn hidden_documents_change_no_byte() {
    let (a, b) = (world(AuthorizerAnswers::Always), world(AuthorizerAnswers::Always));
    a.store.upsert(COLLECTION, open()).await.unwrap();
    b.store.upsert(COLLECTION, hidden().into_iter().chain(open()).collect()).await.unwrap();
    b.store.upsert("secret", hidden()).await.unwrap();
    for size in [1, 2, 3, 9, 10, 11, 0] {
        let (of_a, of_b) = (pages(&a, token("anne"), size).await, pages(&b, token("anne"), size).await);
        let bytes = |pages: &[message::ListDocumentsResponse]| -> Vec<Vec<u8>> {
            pages.iter().map(Message::encode_to_vec).collect()
        };
        assert_eq!(bytes(&of_a), bytes(&of_b), "pages of {size}");
        let listed: Vec<&str> =
            of_b.iter().flat_map(|page| &page.documents).map(|document| document.document_id.as_str()).collect();
        assert_eq!(listed.len(), 10, "pages of {size}: {listed:?}");
        let full = usize::try_from(size).unwrap();
        let (_last, before) = of_b.split_last().unwrap();
        assert!(before.iter().all(|page| page.documents.len() == full), "pages of {size} are full");
    }
    assert_eq!(collections(&a, token("anne")).await, collections(&b, token("anne")).await, "collections");
    for ids in [["a", "z"], ["d3-half", "never there"], ["d1", "d1-hidden"], ["d2", "d2"]] {
        assert_eq!(delete(&a, &ids).await, delete(&b, &ids).await, "{ids:?}");
    }
    let kept = ["a", "d1", "d1-hidden", "d2", "d3-half", "z"].map(str::to_owned);
    let kept: Vec<String> =
        b.store.documents(COLLECTION, &kept).await.unwrap().into_iter().map(|(id, _chunks)| id).collect();
    assert_eq!(kept, ["a", "d1-hidden", "d3-half", "z"]);
}

#[tokio::test]
async fn only_administrators_count() {
    let world = world(AuthorizerAnswers::Always);
    world.store.upsert(COLLECTION, hidden().into_iter().chain(open()).collect()).await.unwrap();
    world.store.upsert("secret", hidden()).await.unwrap();
    let row = |name: &str, documents, chunks| message::ListedCollection {
        name: name.to_owned(),
        documents,
        chunks,
        dimension: 0,
    };
    let rows = [
        ("a writer", token("anne"), vec![row(COLLECTION, 0, 0)], 10),
        ("an administrator", administrator(), vec![row(COLLECTION, 23, 35), row("secret", 13, 15)], 10),
        ("a caller who is believed", Caller::Believed, vec![row(COLLECTION, 23, 35), row("secret", 13, 15)], 23),
    ];
    for (what, caller, expected, listed) in rows {
        assert_eq!(collections(&world, caller.clone()).await, expected, "{what}");
        assert_eq!(page(&world, caller, 0, "").await.unwrap().documents.len(), listed, "{what}");
    }
}

#[tokio::test]
async fn a_page_goes_on_where_the_last_one_ended() {
    let world = world(AuthorizerAnswers::Always);
    world.store.upsert(COLLECTION, open()).await.unwrap();
    let first = page(&world, token("anne"), 3, "").await.unwrap();
    assert_eq!((first.documents[0].document_id.as_str(), first.documents[0].chunks), ("d0", 2));
    assert_eq!(first.documents[0].title, "About d0");
    // The next page begins at `d3`, also when `d3` is gone by then.
    delete(&world, &["d3"]).await;
    let second = page(&world, token("anne"), 3, &first.next_page_token).await.unwrap();
    let ids: Vec<&str> = second.documents.iter().map(|document| document.document_id.as_str()).collect();
    assert_eq!(ids, ["d4", "d5", "d6"]);
    for (what, size, page_token) in [("a page of too many", 1_001, ""), ("a foreign token", 3, "not base64!")] {
        assert_eq!(
            page(&world, token("anne"), size, page_token).await.unwrap_err().code(),
            Code::InvalidArgument,
            "{what}"
        );
    }
}

#[tokio::test]
async fn one_document_is_put_by_the_rules_of_an_upload() {
    let world = world(AuthorizerAnswers::Always);
    world.store.upsert(COLLECTION, hidden()).await.unwrap();
    let text = |id: &str, guard: &str| message::PutDocumentRequest {
        collection: COLLECTION.to_owned(),
        document_id: id.to_owned(),
        guard: guard.to_owned(),
        text: "# A note\n\nof few words".to_owned(),
        ..message::PutDocumentRequest::default()
    };
    let nowhere = message::PutDocumentRequest { collection: "no such name!".to_owned(), ..text("new", "note:open1") };
    let chunk = message::Chunk { guard: "no object".to_owned(), text: "text".to_owned(), ..message::Chunk::default() };
    let unguarded =
        message::PutDocumentRequest { text: String::new(), chunks: vec![chunk], ..text("new", "note:open1") };
    let rows = [
        ("a new document", text("new", "note:open1"), Ok(1)),
        ("the same again, under another guard", text("new", "note:open2"), Ok(1)),
        ("a guard of others", text("other", "note:shut"), Err((Code::PermissionDenied, None))),
        ("an id of others", text("d1-hidden", "note:open1"), Err((Code::PermissionDenied, None))),
        ("no guard", text("other", ""), Err((Code::InvalidArgument, Some("guard")))),
        ("a chunk with a wrong guard", unguarded, Err((Code::InvalidArgument, Some("chunks[0].guard")))),
        ("no collection's name", nowhere, Err((Code::InvalidArgument, Some("collection")))),
    ];
    for (what, asked, expected) in rows {
        let (_running, record) = call(None, PUT);
        let called = world.api.call(&request((), token("anne"), record)).unwrap();
        let put = world.api.put(&called, asked).await;
        let told = put.map(|answer| answer.chunks);
        let told = told
            .map_err(|refusal| (refusal.code(), refusal.violations().first().map(|violation| violation.field.clone())));
        assert_eq!(told, expected.map_err(|(code, field)| (code, field.map(str::to_owned))), "{what}");
    }
    assert!(world.has("new").await);
    assert!(!world.has("other").await);
}

#[tokio::test(start_paused = true)]
async fn a_caller_has_a_few_lists_at_a_time() {
    let world = world(AuthorizerAnswers::Never);
    world.store.upsert(COLLECTION, hidden()).await.unwrap();
    let mut lists = Box::pin(futures::future::join_all((0..20).map(|_| page(&world, token("anne"), 3, ""))));
    assert!(tokio::time::timeout(Duration::from_secs(1), lists.as_mut()).await.is_err(), "nobody answers");
    assert_eq!(world.authorizer.calls.load(Ordering::Relaxed), 8);
    for refused in lists.await {
        assert_eq!(refused.unwrap_err().code(), Code::DeadlineExceeded);
    }
}

/// A collection of others costs no more than a bound, so its size does not make the list fail.
#[tokio::test]
async fn a_large_collection_of_others_costs_little() {
    use AuthorizerAnswers::{Always, ChecksAlone};
    let others = |count: usize| (0..count).map(|number| stored(&format!("a{number:06}"), &[&format!("shut{number}")]));
    let own = || stored("z", &["open1"]);
    let mixed = || stored("z", &["open1", "shut1"]);
    let checks_max = CHECKED_MAX + READ_MIN;
    // Each row: the authorizer, the documents, whether the collection is listed, and the most checks.
    let rows = [
        ("others alone", Always, others(3_000).collect::<Vec<_>>(), false, 0),
        ("an own document after them", Always, others(3_000).chain([own()]).collect(), true, 1),
        ("one that is half one's own", Always, others(3_000).chain([mixed()]).collect(), false, 0),
        ("more than are looked at", Always, others(LOOKED_AT_MAX + READ_MIN).chain([own()]).collect(), true, 1),
        ("others alone, without a visible set", ChecksAlone, others(3_000).collect(), false, checks_max),
        ("an own document, without a visible set", ChecksAlone, others(500).chain([own()]).collect(), true, checks_max),
    ];
    for (row, answers, documents, is_listed, checks_max) in rows {
        let world = world(answers);
        world.store.upsert("others", documents).await.unwrap();
        let listed = collections(&world, token("anne")).await;
        assert_eq!(!listed.is_empty(), is_listed, "{row}: {listed:?}");
        let checks = world.authorizer.checks.load(Ordering::Relaxed);
        assert!(checks <= checks_max, "{row}: {checks} checks");
    }
}

#[tokio::test]
async fn a_record_counts_what_was_sent_and_what_was_listed() {
    let world = world(AuthorizerAnswers::Always);
    let audit = open_log(world.directory.path());
    let (running, record) = call(Some(audit.clone()), PUT);
    let put = message::PutDocumentRequest {
        collection: COLLECTION.to_owned(),
        document_id: "new".to_owned(),
        guard: "note:open1".to_owned(),
        text: "a note".to_owned(),
        ..message::PutDocumentRequest::default()
    };
    world.api.put_document(request(put, token("anne"), record)).await.unwrap();
    drop(running);
    let (running, record) = call(Some(audit), "/ragward.ingest.v1.IngestService/ListCollections");
    world.api.list_collections(request(message::ListCollectionsRequest {}, token("anne"), record)).await.unwrap();
    drop(running);
    let found = loop {
        let found = records(world.directory.path());
        if found.len() == 2 {
            break found;
        }
        tokio::task::yield_now().await;
    };
    let counts = found.iter().map(|record| record.request.as_ref().and_then(|request| request.count));
    assert_eq!(counts.collect::<Vec<_>>(), [Some(1), None], "sent");
    let released = [documents_of(1), Released { collections: Some(1), ..Released::default() }].map(Some);
    assert_eq!(found.iter().map(|record| record.released.clone()).collect::<Vec<_>>(), released, "written and listed");
}
