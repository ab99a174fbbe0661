//! Tests pages over a corpus that stays the same, and over one that changes.

use std::collections::{HashSet, VecDeque};

use super::*;
use crate::retrieval::page;

/// Allows what [`OpenOnly`] allows. Each model decides one batch of checks, and the last model decides all further
/// batches, too. The readiness always names the old model, as if another store had taken over the name of its store.
#[derive(Default)]
struct Remade {
    models: Mutex<VecDeque<&'static str>>,
}

#[async_trait]
impl Authorizer for Remade {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let mut models = self.models.lock().unwrap();
        let model = if models.len() > 1 { models.pop_front() } else { models.front().copied() };
        let mut decisions = Decisions::now(batch.checks.iter().map(|check| check.object.id().starts_with("open")));
        decisions.by.model_id = model.unwrap().into();
        Ok(decisions)
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("old".into())
    }
}

/// The name of the row, the query, the models that decide the first and the second page, and whether there is a second
/// page.
type ModelRow = (&'static str, Query, &'static [&'static str], &'static [&'static str], bool);

#[tokio::test]
async fn all_pages_are_decided_by_one_model() {
    let vector = || Query::Vector(vec![1.0, 0.0]);
    let text = || Query::Text("leave".to_owned());
    let rows: [ModelRow; 7] = [
        ("one store, vector", vector(), &["old"], &["old"], true),
        ("one store, text", text(), &["old"], &["old"], true),
        ("another store from the second page on, vector", vector(), &["old"], &["new"], false),
        ("another store from the second page on, text", text(), &["old"], &["new"], false),
        ("another store during the first page", vector(), &["old", "new"], &["new"], false),
        ("another store during the first page alone", vector(), &["old", "new"], &["old"], false),
        ("another store during the second page", vector(), &["old"], &["old", "new"], false),
    ];
    // Most chunks are shut, so a vector query needs several batches of checks for each page.
    let guards: Vec<String> =
        (0..=30).map(|number| format!("{}{number}", if [1, 30].contains(&number) { "open" } else { "shut" })).collect();
    let guards: Vec<&str> = guards.iter().map(String::as_str).collect();
    for (row, query, first_models, second_models, goes_on) in rows {
        let authorizer = Arc::new(Remade::default());
        let decided_by =
            |models: &[&'static str]| *authorizer.models.lock().unwrap() = models.iter().copied().collect();
        let assert_all_decided = || assert_eq!(authorizer.models.lock().unwrap().len(), 1, "{row}: too few batches");
        let shelf = shelf(&guards, Fault::None);
        let retriever = Retriever::new(Arc::clone(&authorizer) as Arc<dyn Authorizer>, shelf, configured(), pages());
        let of_page = |token: Option<String>| RetrievalParts { page_token: token, ..parts(query.clone(), 1) };
        decided_by(first_models);
        let first = ask(&retriever, of_page(Some(String::new()))).await.unwrap();
        assert_eq!(ids(&first), ["0001"], "{row}");
        assert_all_decided();
        decided_by(second_models);
        let second = ask(&retriever, of_page(first.next_page_token)).await;
        assert_all_decided();
        match (second, goes_on) {
            (Ok(second), true) => assert_eq!(ids(&second), ["0030"], "{row}"),
            (Err(RetrievalError::Invalid(violations)), false) => {
                assert_eq!(violations, [page::refused()], "{row}");
            }
            (second, _) => panic!("{row}: {:?}", second.map(|second| ids(&second))),
        }
    }
}

#[tokio::test]
async fn pages_together_are_the_whole_answer() {
    let mixed = mixed();
    let guards: Vec<&str> = mixed.iter().map(String::as_str).collect();
    let expected: Vec<String> = (0..60).filter(|number| number % 3 != 0).map(|number| format!("{number:04}")).collect();
    for fault in [Fault::None, Fault::OneScore] {
        for hint in [None, Some(Lie::Truth)] {
            for (local, query) in plans() {
                let authorizer = Arc::new(OpenOnly { local, hint });
                let retriever = Retriever::new(authorizer, shelf(&guards, fault), configured(), pages());
                let (mut all, mut token) = (Vec::new(), String::new());
                for page in 0..10 {
                    let with = RetrievalParts { page_token: Some(token), ..parts(query.clone(), 7) };
                    let retrieval = ask(&retriever, with).await.unwrap();
                    all.extend(ids(&retrieval));
                    let Some(next) = retrieval.next_page_token else {
                        assert_eq!((page, retrieval.completion), (5, Completion::Exhausted));
                        break;
                    };
                    token = next;
                }
                assert_eq!(all, expected, "{fault:?} {hint:?} {query:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_goes_on_after_a_chunk_that_is_gone() {
    let shelf = shelf(&["open1", "open2", "open3", "open4", "open5"], Fault::OneScore);
    let authorizer = Arc::new(OpenOnly { local: true, hint: None });
    let retriever = Retriever::new(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
    let query = || parts(Query::Vector(vec![1.0, 0.0]), 2);
    let first = ask(&retriever, RetrievalParts { page_token: Some(String::new()), ..query() }).await.unwrap();
    assert_eq!(ids(&first), ["0000", "0001"]);
    shelf.chunks.lock().unwrap().retain(|chunk| chunk.id != "0001" && chunk.id != "0002");
    let second = ask(&retriever, RetrievalParts { page_token: first.next_page_token, ..query() }).await.unwrap();
    assert_eq!(ids(&second), ["0003", "0004"]);
}

/// A chunk that was returned and then replaced is not returned again, wherever it ranks now.
#[tokio::test]
async fn a_chunk_that_moves_behind_its_page_does_not_come_twice() {
    for hint in [None, Some(Lie::Truth)] {
        for local in [true, false] {
            let shelf = shelf(&["open1", "open2", "open3", "open4", "open5", "open6"], Fault::None);
            let authorizer = Arc::new(OpenOnly { local, hint });
            let retriever =
                Retriever::new(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
            let (mut token, mut all) = (Some(String::new()), Vec::new());
            while let Some(page) = token {
                let page = RetrievalParts { page_token: Some(page), ..parts(Query::Vector(vec![1.0, 0.0]), 2) };
                let page = ask(&retriever, page).await.unwrap();
                all.extend(ids(&page));
                // The best chunk becomes the worst.
                shelf.chunks.lock().unwrap().rotate_left(1);
                token = page.next_page_token;
            }
            let distinct: HashSet<&String> = all.iter().collect();
            assert_eq!(distinct.len(), all.len(), "{hint:?}, {local}: {all:?}");
            assert!(all.len() >= 4, "{hint:?}, {local}: {all:?}");
        }
    }
}

/// The scores of a text query depend on everything that is visible. So there is a next page only while the pages before
/// it would come out the same.
#[tokio::test]
async fn pages_of_a_text_query_are_pages_of_one_answer() {
    type Edit = fn(&mut Vec<Chunk>);
    let rows: [(&str, Edit, bool); 7] = [
        ("nothing changed", |_| {}, true),
        ("what comes later is gone", |chunks| chunks.retain(|chunk| chunk.id != "0004"), true),
        ("a hidden chunk is gone", |chunks| chunks.retain(|chunk| chunk.id != "0001"), true),
        ("a chunk of the first page is gone", |chunks| chunks.retain(|chunk| chunk.id != "0000"), false),
        ("the last chunk of the first page is gone", |chunks| chunks.retain(|chunk| chunk.id != "0002"), false),
        ("a chunk of the first page was hidden", |chunks| chunks[0].guard = guard("shut"), false),
        ("a hidden chunk before the last was shown", |chunks| chunks[1].guard = guard("open9"), false),
    ];
    for (hint, query) in [(None, "leave"), (Some(Lie::Truth), "leave"), (Some(Lie::Everything), "leave")]
        .map(|(hint, text)| (hint, Query::Text(text.to_owned())))
    {
        for (what, edit, goes_on) in rows {
            // All scores are equal, so chunks rank by id, and only the chunks on the pages can differ.
            let shelf = shelf(&["open1", "shut", "open2", "open3", "open4", "open5"], Fault::OneScore);
            let authorizer = Arc::new(OpenOnly { local: true, hint });
            let retriever =
                Retriever::new(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
            let of_page = |token: Option<String>| RetrievalParts { page_token: token, ..parts(query.clone(), 2) };
            let first = ask(&retriever, of_page(Some(String::new()))).await.unwrap();
            assert_eq!(ids(&first), ["0000", "0002"]);
            edit(&mut shelf.chunks.lock().unwrap());
            let second = ask(&retriever, of_page(first.next_page_token)).await;
            match (second, goes_on) {
                (Ok(second), true) => assert_eq!(ids(&second)[0], "0003", "{what}, {hint:?}"),
                (Err(RetrievalError::Invalid(violations)), false) => {
                    assert_eq!(violations[0].field, "page_token", "{what}, {hint:?}");
                }
                (second, _) => panic!("{what}, {hint:?}: {:?}", second.map(|second| ids(&second))),
            }
        }
    }
}

#[tokio::test]
async fn a_page_token_of_another_search_is_refused_with_one_error() {
    let retriever_of = |config: RetrievalConfig, pages: Pages| {
        let authorizer = Arc::new(OpenOnly { local: true, hint: None });
        Retriever::new(authorizer, shelf(&["open1", "open2", "open3"], Fault::None), config, pages)
    };
    let same_key = pages();
    let retriever = retriever_of(configured(), same_key.clone());
    let of_page =
        |token: &str| RetrievalParts { page_token: Some(token.to_owned()), ..parts(Query::Vector(vec![1.0, 0.0]), 1) };
    let token = ask(&retriever, of_page("")).await.unwrap().next_page_token.unwrap();
    assert_eq!(ids(&ask(&retriever, of_page(&token)).await.unwrap()), ["0001"]);
    // A caller that does not ask for pages gets no token.
    let plain = ask(&retriever, parts(Query::Vector(vec![1.0, 0.0]), 1)).await.unwrap();
    assert_eq!(plain.next_page_token, None);

    let filter = Some(crate::vector_store::Filter::All(Vec::new()));
    let others = [
        RetrievalParts { principal: NamedPrincipal::stated("user:bob"), ..of_page(&token) },
        RetrievalParts { collection: "other".to_owned(), ..of_page(&token) },
        RetrievalParts { query: Some(Query::Vector(vec![1.0, 1.0]).into()), ..of_page(&token) },
        RetrievalParts { query: Some(Query::Text("leave".to_owned()).into()), ..of_page(&token) },
        RetrievalParts { top_k: 2, ..of_page(&token) },
        RetrievalParts { filter, ..of_page(&token) },
        RetrievalParts { min_score: Some(0.0), ..of_page(&token) },
        of_page("00"),
        of_page(&format!("{token}00")),
    ];
    let refusal = |outcome: Result<Retrieval, RetrievalError>| match outcome {
        Err(RetrievalError::Invalid(violations)) => violations,
        other => panic!("not refused: {other:?}"),
    };
    let expected = refusal(ask(&retriever, of_page("tampered")).await);
    for other in others {
        let shown = format!("{other:?}");
        assert_eq!(refusal(ask(&retriever, other).await), expected, "{shown}");
    }
    let expired = retriever_of(configured(), Pages::new(Duration::ZERO).unwrap());
    let token = ask(&expired, of_page("")).await.unwrap().next_page_token.unwrap();
    assert_eq!(refusal(ask(&expired, of_page(&token)).await), expected, "expired");
    let restarted = retriever_of(configured(), pages());
    assert_eq!(refusal(ask(&restarted, of_page(&token)).await), expected, "another key");
    let relation = Relation::parse("can_edit").unwrap();
    let weaker = retriever_of(RetrievalConfig { relation, ..configured() }, same_key);
    let token = ask(&retriever, of_page("")).await.unwrap().next_page_token.unwrap();
    assert_eq!(refusal(ask(&weaker, of_page(&token)).await), expected, "another relation");
}
