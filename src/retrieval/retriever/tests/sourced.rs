//! Tests retrievals whose sources withhold chunks that the authorizer permits. The source is a double, because it makes faults.

use tempfile::TempDir;

use super::reranked::{Conduct, Sent, rerankers};
use super::*;
use crate::chunk::Document;
use crate::error_code::ErrorCode;
use crate::identity::details::OneOf;
use crate::identity::sample::{self, NOW};
use crate::identity::{BearerToken, Principal};
use crate::inference::OnRerankFailure;
use crate::retrieval::{FetchParts, SourceReport};
use crate::sources::{
    SourceDocument, SourceError, SourceFault, SourceQuestion, SourceReply, SourceRule, SourceText, SourceTextFrom,
};
use crate::vector_store::DocumentStore;
use crate::vector_store::exact::ExactStore;

/// The most documents that one request asks about.
const DOCUMENTS_MAX: usize = 1_000;

/// The answer of the source about a guard with this id.
type Reply = fn(&str) -> Result<SourceReply, SourceFault>;

/// A source of all documents.
struct Wiki {
    reply: Reply,
    text: SourceTextFrom,
    /// The ids of the guards that it was asked about.
    asked: Mutex<Vec<String>>,
}

impl Wiki {
    fn new(reply: Reply) -> Arc<Self> {
        Arc::new(Self { reply, text: SourceTextFrom::Store, asked: Mutex::default() })
    }

    /// Returns the ids that it was asked about, each of which must be there once.
    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort_unstable();
        let total = asked.len();
        asked.dedup();
        assert_eq!(asked.len(), total, "each is asked about once");
        asked
    }
}

#[async_trait]
impl SourceSystems for Wiki {
    fn rule(&self, _guard: &Object) -> Option<SourceRule> {
        Some(SourceRule { source: 0, needs_metadata: false, text: self.text })
    }

    fn locate(&self, guard: &Object, _metadata: Option<&Metadata>) -> Option<SourceDocument> {
        let value = Some(guard.id().to_owned()).filter(|id| !id.contains("nowhere"))?;
        Some(SourceDocument { source: 0, guard: guard.clone(), value, url: guard.as_str().into() })
    }

    fn classification_key(&self) -> Option<&'static str> {
        Some("class")
    }

    fn name(&self, _source: usize) -> &'static str {
        "wiki"
    }

    async fn ask(&self, question: &SourceQuestion<'_>) -> Result<SourceReply, SourceError> {
        let id = &question.document.value;
        self.asked.lock().unwrap().push(id.clone());
        (self.reply)(id).map_err(|fault| SourceError::Unavailable { source_name: "wiki".to_owned(), fault })
    }
}

/// Withholds what has `hidden` in its name.
#[expect(clippy::unnecessary_wraps, reason = "it is a `Reply`")]
fn unless_hidden(id: &str) -> Result<SourceReply, SourceFault> {
    Ok(if id.contains("hidden") { SourceReply::Withheld } else { SourceReply::Released(None) })
}

fn with_token() -> NamedPrincipal {
    let bearer = BearerToken::new("token", sample::token("anne", "ragward:retrieve", NOW + 60).facts());
    NamedPrincipal::Known(Principal::stated("user:anne").unwrap().with_bearer(Some(bearer)))
}

fn retriever(store: Arc<dyn VectorStore>, wiki: &Arc<Wiki>) -> Retriever {
    retriever_of(OpenOnly { local: true, hint: None }, store, wiki)
}

fn retriever_of(authorizer: OpenOnly, store: Arc<dyn VectorStore>, wiki: &Arc<Wiki>) -> Retriever {
    let config = RetrievalConfig { candidates_max: 10_000, guards_checked_max: 10_000, ..configured() };
    let sources = Arc::clone(wiki) as Arc<dyn SourceSystems>;
    Retriever::with_sources(Arc::new(authorizer), store, config, pages(), sources)
}

async fn asking(retriever: &Retriever, parts: RetrievalParts) -> Result<Retrieval, RetrievalError> {
    let request = RetrievalRequest::new(parts, 100).unwrap();
    retriever.retrieve(&request, Instant::now() + Duration::from_mins(1)).await
}

fn guards_of(retrieval: &Retrieval) -> Vec<&str> {
    retrieval.chunks.iter().map(|retrieved| retrieved.chunk.item().guard.id()).collect()
}

#[tokio::test]
async fn the_answer_is_filled_past_what_a_source_withholds() {
    let names: Vec<String> = (0..14).map(|number| format!("open-hidden{number}")).collect();
    let guards: Vec<&str> =
        names.iter().map(String::as_str).chain(["shut", "open1", "shut", "open2", "open-nowhere", "open3"]).collect();
    let rows: [(u32, &[&str], Completion); 3] = [
        (2, &["open1", "open2"], Completion::Complete),
        (3, &["open1", "open2", "open3"], Completion::Complete),
        (5, &["open1", "open2", "open3"], Completion::Exhausted),
    ];
    for (local, query) in plans() {
        for (top_k, expected, completion) in rows {
            let row = format!("{query:?}, local: {local}, {top_k}");
            let (wiki, shelf) = (Wiki::new(unless_hidden), shelf(&guards, Fault::None));
            let authorizer = OpenOnly { local, hint: None };
            let retriever = retriever_of(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, &wiki);
            let parts = RetrievalParts { principal: with_token(), ..parts(query.clone(), top_k) };
            let retrieval = asking(&retriever, parts).await.unwrap();
            assert_eq!((guards_of(&retrieval).as_slice(), retrieval.completion), (expected, completion), "{row}");
            let asked = wiki.asked();
            assert!(!asked.iter().any(|id| id == "shut" || id == "open-nowhere"), "{row}: {asked:?}");
            // Neither what the source withholds nor what it does not know is read.
            let read = shelf.reads.lock().unwrap();
            let of_others = |id: &String| !guards[id.parse::<usize>().unwrap()].starts_with("open-");
            assert!(read.iter().all(of_others), "{row}: {read:?}");
            let report = SourceReport { source: "wiki".to_owned(), asked: asked.len(), withheld: 14 };
            assert_eq!(retrieval.sources, [report], "{row}");
        }
    }
}

#[tokio::test]
async fn a_source_that_says_nothing_fails_the_request() {
    let failing: Reply =
        |id| if id == "open2" { Err(SourceFault::Status(500)) } else { Ok(SourceReply::Released(None)) };
    let guards = ["open1", "open2", "open3"];
    let ids = strings(&["0000", "0001", "0002"]);
    for (local, query) in plans() {
        let authorizer = OpenOnly { local, hint: None };
        let retriever = retriever_of(authorizer, shelf(&guards, Fault::None), &Wiki::new(failing));
        let principal = with_token();
        let answer = asking(&retriever, RetrievalParts { principal, ..parts(query, 3) }).await;
        assert_eq!(answer.err().map(|error| error.code()), Some(ErrorCode::Unavailable));
        let request =
            RecheckRequest::new(with_token(), "handbook".to_owned(), ids.clone(), Consistency::default()).unwrap();
        let rechecked = retriever.recheck(&request, Instant::now() + Duration::from_mins(1)).await;
        assert_eq!(rechecked.err().map(|error| error.code()), Some(ErrorCode::Unavailable));
    }
}

/// INVARIANT (sources narrow): whatever a source says, an answer holds what the authorizer permits and the source releases, in its
/// order, and no other text is read. All arrangements of four chunks are tried.
#[tokio::test]
async fn nothing_that_a_source_says_widens_an_answer() {
    const KINDS: [&str; 5] = ["open", "shut", "open-hidden", "open-nowhere", "open-failing"];
    const CHUNKS: u32 = 4;
    let failing: Reply = |id| if id.contains("failing") { Err(SourceFault::Status(500)) } else { unless_hidden(id) };
    for arrangement in 0..KINDS.len().pow(CHUNKS) {
        let kind_at = |place: u32| KINDS[arrangement / KINDS.len().pow(place) % KINDS.len()];
        let names: Vec<String> = (0..CHUNKS).map(|place| format!("{}{place}", kind_at(place))).collect();
        let guards: Vec<&str> = names.iter().map(String::as_str).collect();
        let is_released = |guard: &str| guard.starts_with("open") && !guard.starts_with("open-");
        for (local, query) in plans() {
            for top_k in [1, 3] {
                let row = format!("{guards:?}, {query:?}, local: {local}, {top_k}");
                let (wiki, shelf) = (Wiki::new(failing), shelf(&guards, Fault::None));
                let authorizer = OpenOnly { local, hint: None };
                let retriever = retriever_of(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, &wiki);
                let wanted = u32::try_from(top_k).unwrap();
                let parts = RetrievalParts { principal: with_token(), ..parts(query.clone(), wanted) };
                match asking(&retriever, parts).await {
                    Ok(retrieval) => {
                        let released = guards.iter().copied().filter(|guard| is_released(guard));
                        assert_eq!(guards_of(&retrieval), released.take(top_k).collect::<Vec<&str>>(), "{row}");
                    }
                    Err(error) => {
                        let is_of_source = guards.iter().any(|guard| guard.contains("failing"));
                        assert!(is_of_source && error.code() == ErrorCode::Unavailable, "{row}: {error:?}");
                    }
                }
                let read = shelf.reads.lock().unwrap();
                assert!(read.iter().all(|id| is_released(guards[id.parse::<usize>().unwrap()])), "{row}: {read:?}");
            }
        }
    }
}

/// A model is a third party, too.
#[tokio::test]
async fn what_a_source_withholds_is_sent_to_no_model() {
    for (local, query) in plans() {
        let row = format!("{query:?}, local: {local}");
        let has_words = query != Query::Vector(vec![1.0, 0.0]);
        let guards = ["open1", "open-hidden", "shut", "open2", "open-nowhere"];
        let systems = OtherSystems {
            sources: Some(Wiki::new(unless_hidden) as Arc<dyn SourceSystems>),
            rerankers: rerankers(Conduct::LastFirst, OnRerankFailure::Error),
            ..OtherSystems::default()
        };
        let authorizer = Arc::new(OpenOnly { local, hint: None });
        let store = shelf(&guards, Fault::None);
        let retriever = Retriever::with_systems(authorizer, store, configured(), pages(), systems);
        let parts = RetrievalParts { principal: with_token(), ..parts(query, 5) };
        let request = RetrievalRequest::new(parts, 100).unwrap();
        let sent = Sent::new(true);
        let retrieval = retriever.retrieve_recorded(&request, Instant::now() + PATIENCE, &sent).await.unwrap();
        let (found, expected): ([&str; 2], &[&str]) =
            if has_words { (["open2", "open1"], &["0000", "0003"]) } else { (["open1", "open2"], &[]) };
        assert_eq!(guards_of(&retrieval), found, "{row}");
        assert_eq!(sent.ids(), strings(expected), "{row}");
    }
}

#[tokio::test]
async fn nobody_is_asked_as_a_user_without_a_token() {
    let rows: [(&str, &[&str], Option<ErrorCode>); 2] = [
        ("something is permitted", &["open1", "shut"], Some(ErrorCode::PermissionDenied)),
        ("nothing is permitted", &["shut", "shut"], None),
    ];
    for (row, guards, expected) in rows {
        for (local, query) in plans() {
            let (wiki, shelf) = (Wiki::new(unless_hidden), shelf(guards, Fault::None));
            let authorizer = OpenOnly { local, hint: None };
            let retriever = retriever_of(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, &wiki);
            let answer = asking(&retriever, parts(query, 3)).await;
            assert_eq!(answer.err().map(|error| error.code()), expected, "{row}");
            assert_eq!((wiki.asked().len(), shelf.reads.lock().unwrap().len()), (0, 0), "{row}");
        }
    }
}

#[tokio::test]
async fn a_fetch_and_a_recheck_ask_as_a_retrieval_does() {
    let (wiki, shelf) = (Wiki::new(unless_hidden), shelf(&["open1", "open-hidden", "shut", "open2"], Fault::None));
    let retriever = retriever(Arc::clone(&shelf) as Arc<dyn VectorStore>, &wiki);
    let chunk_ids = strings(&["0000", "0001", "0002", "0003", "0001", "absent"]);
    let deadline = Instant::now() + Duration::from_mins(1);
    let request =
        RecheckRequest::new(with_token(), "handbook".to_owned(), chunk_ids.clone(), Consistency::default()).unwrap();
    let rechecked = retriever.recheck(&request, deadline).await.unwrap();
    let left: Vec<&str> = rechecked.candidates.iter().map(|candidate| candidate.item().chunk_id.as_str()).collect();
    assert_eq!(left, ["0000", "0003"]);
    assert_eq!(rechecked.withheld.len(), 2, "one by the source, one by the authorizer");
    assert_eq!(wiki.asked(), ["open-hidden", "open1", "open2"]);

    wiki.asked.lock().unwrap().clear();
    let parts = FetchParts {
        principal: with_token(),
        collection: "handbook".to_owned(),
        chunk_ids,
        document_ids: Vec::new(),
        consistency: Consistency::default(),
    };
    let fetched = retriever.fetch(&FetchRequest::new(parts).unwrap(), deadline).await.unwrap();
    let texts: Vec<&str> = fetched.chunks.iter().map(|chunk| chunk.item().text.as_str()).collect();
    assert_eq!(texts, ["text of open1", "text of open2"]);
    assert_eq!((fetched.completion, fetched.withheld), (Completion::Exhausted, 2));
    assert_eq!(wiki.asked(), ["open-hidden", "open1", "open2"]);
    assert!(shelf.reads.lock().unwrap().iter().all(|id| id == "0000" || id == "0003"));
}

fn chunk(id: &str, document_id: &str, guard_id: &str, class: &str, text: &str) -> Chunk {
    Chunk {
        id: id.to_owned(),
        document_id: document_id.to_owned(),
        guard: guard(guard_id),
        title: "a title of the store".to_owned(),
        heading_path: Vec::new(),
        text: text.to_owned(),
        metadata: Metadata::from([("class".to_owned(), Value::Text(class.to_owned()))]),
        vector: Vec::new(),
    }
}

async fn exact(documents: Vec<Document>) -> (Arc<ExactStore>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    store.upsert("handbook", documents).await.unwrap();
    (Arc::new(store), directory)
}

fn leave() -> Query {
    Query::Text("leave".to_owned())
}

#[tokio::test]
async fn a_request_asks_about_so_many_documents_and_says_so() {
    let document = |number: usize| Document::of_text(&format!("{number:04}"), guard(&format!("open{number}")), "leave");
    let (store, _directory) = exact((0..DOCUMENTS_MAX + 100).map(document).collect()).await;
    let wiki = Wiki::new(|_id| Ok(SourceReply::Withheld));
    let retriever = retriever(store, &wiki);
    let parts = RetrievalParts { principal: with_token(), ..parts(leave(), 10) };
    let retrieval = asking(&retriever, parts).await.unwrap();
    assert_eq!((retrieval.chunks.len(), retrieval.completion), (0, Completion::Limited));
    assert_eq!(wiki.asked().len(), DOCUMENTS_MAX);
}

#[tokio::test]
async fn pages_have_what_sources_release() {
    let names = ["open1", "open-hidden1", "open2", "open3", "open-hidden2", "shut", "open-hidden3", "open4", "open5"];
    let documents = names.iter().enumerate();
    let document = |(at, name): (usize, &&str)| Document::of_text(&format!("{at}"), guard(name), "leave");
    let (store, _directory) = exact(documents.map(document).collect()).await;
    let wiki = Wiki::new(unless_hidden);
    let retriever = retriever(store, &wiki);
    let (mut token, mut found) = (Some(String::new()), Vec::new());
    for _page in 0..names.len() {
        let Some(page_token) = token.take() else { break };
        let page_token = Some(page_token);
        let parts = RetrievalParts { principal: with_token(), page_token, ..parts(leave(), 2) };
        let retrieval = asking(&retriever, parts).await.unwrap();
        found.extend(guards_of(&retrieval).into_iter().map(str::to_owned));
        token = retrieval.next_page_token;
    }
    assert_eq!(found, ["open1", "open2", "open3", "open4", "open5"]);
}

#[tokio::test]
async fn the_text_of_a_source_stands_for_documents_of_one_guard_and_class() {
    let document = |id: &str, chunks: &[(&str, &str)]| {
        let chunk = |(at, (guard_id, class)): (usize, &(&str, &str))| {
            chunk(&format!("{id}#{at}"), id, guard_id, class, "canary of the store about leave")
        };
        let chunks = chunks.iter().enumerate().map(chunk).collect();
        Document { id: id.to_owned(), title: "a title of the store".to_owned(), chunks }
    };
    let documents = vec![
        document("one", &[("open1", "a")]),
        document("whole", &[("open2", "a"), ("open2", "a")]),
        document("two-guards", &[("open3", "a"), ("open4", "a")]),
        document("shut-guard", &[("open5", "a"), ("shut", "a")]),
        document("two-classes", &[("open6", "a"), ("open6", "b")]),
        document("withheld", &[("open-hidden", "a")]),
    ];
    let (store, _directory) = exact(documents).await;
    let wiki = Arc::new(Wiki {
        reply: |id| {
            let text = SourceText { text: format!("text of {id}"), title: String::new() };
            Ok(if id.contains("hidden") { SourceReply::Withheld } else { SourceReply::Released(Some(text)) })
        },
        text: SourceTextFrom::Source,
        asked: Mutex::default(),
    });
    let retriever = retriever(store, &wiki);
    let parts = RetrievalParts { principal: with_token(), ..parts(leave(), 10) };
    let retrieval = asking(&retriever, parts).await.unwrap();
    let mut found: Vec<(&str, &str, &str)> = Vec::new();
    for retrieved in &retrieval.chunks {
        let Chunk { id, text, title, .. } = retrieved.chunk.item();
        found.push((id.as_str(), text.as_str(), title.as_str()));
    }
    found.sort_unstable();
    let expected = [("one#0", "text of open1", ""), ("whole#0", "text of open2", ""), ("whole#1", "text of open2", "")];
    assert_eq!(found, expected);
    let asked: HashSet<String> = wiki.asked.lock().unwrap().iter().cloned().collect();
    let expected = strings(&["open1", "open2", "open-hidden"]);
    assert_eq!(asked, expected.into_iter().collect(), "no source is asked about a document that is mixed");
}

/// The text of a source is that of the whole document, so it is nothing for a token whose details leave a part of it out.
#[tokio::test]
async fn the_text_of_a_source_is_within_the_details() {
    let chunk_of = |id: &str, document_id: &str, guard_id: &str, area: &str| {
        let mut chunk = chunk(id, document_id, guard_id, "a", "canary of the store about leave");
        chunk.metadata.insert("area".to_owned(), Value::Text(area.to_owned()));
        chunk
    };
    let document = |id: &str, guard_id: &str, areas: [&str; 2]| {
        let chunks = areas.iter().enumerate();
        let chunks = chunks.map(|(at, area)| chunk_of(&format!("{id}#{at}"), id, guard_id, area)).collect();
        Document { id: id.to_owned(), title: String::new(), chunks }
    };
    let documents = vec![
        document("public", "open1", ["public", "public"]),
        document("partly", "open2", ["public", "secret"]),
        document("secret", "open3", ["secret", "secret"]),
    ];
    let (store, _directory) = exact(documents).await;
    let wiki = Arc::new(Wiki {
        reply: |id| Ok(SourceReply::Released(Some(SourceText { text: format!("text of {id}"), title: String::new() }))),
        text: SourceTextFrom::Source,
        asked: Mutex::default(),
    });
    let retriever = retriever(store, &wiki);
    let public = OneOf { key: "area".to_owned(), values: ["public".to_owned()].into() };
    let all = ["partly#0", "partly#1", "public#0", "public#1", "secret#0", "secret#1"];
    let rows: [(&str, NamedPrincipal, &[&str]); 2] = [
        ("no details", with_token(), &all),
        ("details that leave a part out", with_token().on_condition(&public), &["public#0", "public#1"]),
    ];
    for (row, principal, expected) in rows {
        let parts = RetrievalParts { principal, ..parts(leave(), 10) };
        let mut found = ids(&asking(&retriever, parts).await.unwrap());
        found.sort_unstable();
        assert_eq!(found, expected, "{row}");
    }
}

#[tokio::test]
async fn no_source_is_asked_about_what_the_details_leave_out() {
    let document = |id: &str, guard_id: &str, class: &str| {
        let chunk = chunk(id, id, guard_id, class, "about leave");
        Document { id: id.to_owned(), title: chunk.title.clone(), chunks: vec![chunk] }
    };
    let documents = vec![
        document("1", "open1", "a"),
        document("2", "open2", "b"),
        document("3", "open-hidden", "a"),
        document("4", "open4", "a"),
    ];
    let (store, _directory) = exact(documents).await;
    let wiki = Wiki::new(unless_hidden);
    let retriever = retriever(store, &wiki);
    let condition = OneOf { key: "class".to_owned(), values: ["a".to_owned()].into() };
    let parts = RetrievalParts { principal: with_token().on_condition(&condition), ..parts(leave(), 10) };
    let retrieval = asking(&retriever, parts).await.unwrap();
    assert_eq!(guards_of(&retrieval), ["open1", "open4"]);
    assert_eq!(wiki.asked(), ["open-hidden", "open1", "open4"]);
    let chunk_ids = strings(&["1", "2", "3", "4"]);
    let principal = with_token().on_condition(&condition);
    let request = RecheckRequest::new(principal, "handbook".to_owned(), chunk_ids, Consistency::default()).unwrap();
    wiki.asked.lock().unwrap().clear();
    let rechecked = retriever.recheck(&request, Instant::now() + Duration::from_mins(1)).await.unwrap();
    let left: Vec<&str> = rechecked.candidates.iter().map(|candidate| candidate.item().chunk_id.as_str()).collect();
    assert_eq!(left, ["1", "4"]);
    assert_eq!(wiki.asked(), ["open-hidden", "open1", "open4"]);
}

/// Details that permit one chunk give the next one in place of a chunk that the source withholds, by each kind of request. Otherwise
/// a missing chunk would tell that another one is there.
#[cfg(feature = "server")]
#[tokio::test]
async fn what_a_source_withholds_takes_no_place_in_the_details() {
    use serde_json::json;

    use crate::identity::Caller;
    use crate::identity::config::IdentityConfig;

    let claims = json!({"authorization_details": [{"type": "ragward_retrieval", "chunks_max": 1}]});
    let token = sample::token_with(&IdentityConfig::default(), &claims);
    let caller = Caller::Verified { other_users: token.other_users(), token: Arc::clone(&token) };
    let bearer = BearerToken::new("token", token.facts());
    let principal = || NamedPrincipal::Known(caller.principal("").unwrap().with_bearer(Some(bearer.clone())));
    let deadline = || Instant::now() + Duration::from_mins(1);
    let rows: [(&str, &[&str]); 3] = [
        ("nothing is before it", &["open1"]),
        ("the authorizer withholds the first", &["shut", "open1"]),
        ("the source withholds the first", &["open-hidden", "open1"]),
    ];
    for (row, guards) in rows {
        let retriever = retriever(shelf(guards, Fault::None), &Wiki::new(unless_hidden));
        let chunk_ids: Vec<String> = (0..guards.len()).map(|number| format!("{number:04}")).collect();
        let last = chunk_ids.last().cloned().into_iter().collect::<Vec<_>>();
        let collection = || "handbook".to_owned();
        let asked = RecheckRequest::new(principal(), collection(), chunk_ids.clone(), Consistency::default()).unwrap();
        let rechecked = retriever.recheck(&asked, deadline()).await.unwrap();
        let left: Vec<String> =
            rechecked.candidates.iter().map(|candidate| candidate.item().chunk_id.clone()).collect();
        assert_eq!(left, last, "{row}: a re-check");
        let (document_ids, consistency) = (Vec::new(), Consistency::default());
        let asked =
            FetchParts { principal: principal(), collection: collection(), chunk_ids, document_ids, consistency };
        let fetched = retriever.fetch(&FetchRequest::new(asked).unwrap(), deadline()).await.unwrap();
        let left: Vec<String> = fetched.chunks.iter().map(|chunk| chunk.item().id.clone()).collect();
        assert_eq!(left, last, "{row}: a fetch");
    }
}

/// A withheld chunk counts in the statistics. Nothing else depends on it but the work: `SECURITY.md` names both.
#[tokio::test]
async fn what_a_source_withholds_may_move_scores_and_nothing_else() {
    let leave = |id: &str, guard_id: &str| Document::of_text(id, guard(guard_id), "about leave");
    let visible = || vec![leave("a", "open1"), Document::of_text("b", guard("open2"), "leave"), leave("c", "open3")];
    let with = |more: Vec<Document>| visible().into_iter().chain(more).collect::<Vec<_>>();
    let loud = |guard_id: &str| Document::of_text("z", guard(guard_id), "leave leave leave leave");
    let rows = [
        ("nothing more", with(Vec::new())),
        ("what OpenFGA denies", with(vec![loud("shut")])),
        ("what the source withholds", with(vec![loud("open-hidden")])),
    ];
    let mut answers = Vec::new();
    for (row, documents) in rows {
        let (store, _directory) = exact(documents).await;
        let retriever = retriever(store, &Wiki::new(unless_hidden));
        let parts = RetrievalParts { principal: with_token(), ..parts(self::leave(), 10) };
        let retrieval = asking(&retriever, parts).await.unwrap();
        assert_eq!(retrieval.completion, Completion::Exhausted, "{row}");
        let scores: Vec<u32> = retrieval.chunks.iter().map(|retrieved| retrieved.score.to_bits()).collect();
        answers.push((ids(&retrieval), scores));
    }
    let [alone, denied, withheld] = answers.as_slice() else { panic!("three rows") };
    assert_eq!(alone, denied, "the same bytes");
    assert_eq!(alone.0, withheld.0, "the same chunks in the same order");
    assert_ne!(alone.1, withheld.1, "other scores");
}
