//! Tests retrievals whose answers a model orders. The model is a double, because it makes faults.

use std::collections::BTreeMap;

use super::*;
use crate::error_code::ErrorCode;
use crate::inference::{
    Ceiling, CollectionReranker, ModelFault, OnRerankFailure, Reranker, Rerankers, SentRecord, SentTexts,
};

/// The conduct of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduct {
    /// The last text is the best one.
    LastFirst,
    /// There is one score too few.
    Short,
    Fails,
    Hangs,
}

#[async_trait]
impl Reranker for Conduct {
    async fn score(&self, _query: &str, texts: &[&str]) -> Result<Vec<f64>, ModelFault> {
        match self {
            Self::LastFirst => Ok((0..100_u8).map(f64::from).take(texts.len()).collect()),
            Self::Short => Ok((0..100_u8).map(f64::from).take(texts.len() - 1).collect()),
            Self::Fails => Err(ModelFault::Status(500)),
            Self::Hangs => std::future::pending().await,
        }
    }
}

/// Keeps the ids of what was sent, if it lets anything be sent.
pub(super) struct Sent {
    is_open: bool,
    ids: Mutex<Vec<String>>,
}

impl Sent {
    pub(super) fn new(is_open: bool) -> Self {
        Self { is_open, ids: Mutex::default() }
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.ids.lock().unwrap().clone()
    }
}

impl SentRecord for Sent {
    fn about_to_send(&self, sent: SentTexts<'_>) -> Result<(), ModelFault> {
        if !self.is_open {
            return Err(ModelFault::Unrecorded);
        }
        self.ids.lock().unwrap().extend(sent.chunk_ids.iter().cloned());
        Ok(())
    }
}

/// Returns a model of this conduct for the one collection that there is.
pub(super) fn rerankers(conduct: Conduct, on_failure: OnRerankFailure) -> Arc<Rerankers> {
    let reranker = CollectionReranker::new(Arc::new(conduct), "judge", "models.example", Ceiling::None, on_failure);
    Arc::new(Rerankers::of(BTreeMap::from([("handbook".to_owned(), reranker)])))
}

fn ordering(guards: &[&str], conduct: Conduct, on_failure: OnRerankFailure) -> Retriever {
    let rerankers = rerankers(conduct, on_failure);
    let systems = OtherSystems { rerankers, ..OtherSystems::default() };
    let authorizer = Arc::new(OpenOnly { local: true, hint: None });
    Retriever::with_systems(authorizer, shelf(guards, Fault::None), configured(), pages(), systems)
}

fn leave() -> Query {
    Query::Text("leave".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_model_that_fails_costs_the_order_or_the_answer() {
    use Conduct::{Fails, Hangs, LastFirst, Short};
    use OnRerankFailure::{Error, KeepOrder};
    let (found, ordered): ([&str; 3], [&str; 3]) = (["0001", "0002", "0004"], ["0004", "0002", "0001"]);
    let rows = [
        ("right", LastFirst, KeepOrder, Ok(ordered)),
        ("right, and needed", LastFirst, Error, Ok(ordered)),
        ("failing", Fails, KeepOrder, Ok(found)),
        ("failing, and needed", Fails, Error, Err(ErrorCode::Unavailable)),
        ("short", Short, KeepOrder, Ok(found)),
        ("short, and needed", Short, Error, Err(ErrorCode::Unavailable)),
        ("slow", Hangs, KeepOrder, Ok(found)),
        ("slow, and needed", Hangs, Error, Err(ErrorCode::DeadlineExceeded)),
    ];
    for (row, conduct, on_failure, expected) in rows {
        let retriever = ordering(&["shut", "open1", "open2", "shut", "open4"], conduct, on_failure);
        let request = RetrievalRequest::new(parts(leave(), 10), 100).unwrap();
        let (sent, deadline) = (Sent::new(true), Instant::now() + PATIENCE);
        let answer = retriever.retrieve_recorded(&request, deadline, &sent).await;
        let told = answer.as_ref().map(ids).map_err(RetrievalError::code);
        assert_eq!(told, expected.map(|ids| strings(&ids)), "{row}");
        assert_eq!(
            *sent.ids.lock().unwrap(),
            strings(&found),
            "{row}: what is permitted is sent once, and nothing else"
        );
        let has_scores = answer.is_ok_and(|answer| answer.chunks.iter().all(|chunk| chunk.rerank_score.is_some()));
        assert_eq!(has_scores, conduct == LastFirst, "{row}");
        assert!(Instant::now() < deadline || expected == Err(ErrorCode::DeadlineExceeded), "{row}: there is time left");
    }
}

#[tokio::test]
async fn nothing_is_ordered_that_cannot_be_recorded() {
    let rows = [
        ("the order is kept", OnRerankFailure::KeepOrder, Ok(strings(&["0001", "0002"]))),
        ("the order is needed", OnRerankFailure::Error, Err(ErrorCode::Unavailable)),
    ];
    for (row, on_failure, expected) in rows {
        let retriever = ordering(&["shut", "open1", "open2"], Conduct::LastFirst, on_failure);
        let request = RetrievalRequest::new(parts(leave(), 10), 100).unwrap();
        let answer = retriever.retrieve_recorded(&request, Instant::now() + PATIENCE, &Sent::new(false)).await;
        assert_eq!(answer.as_ref().map(ids).map_err(RetrievalError::code), expected, "{row}");
    }
}

/// A page is ordered for itself, so the pages together are those of the search, and no chunk is lost or doubled between them.
#[tokio::test]
async fn each_page_is_ordered_for_itself() {
    let guards = ["open0", "shut", "open2", "open3", "shut", "open5", "open6"];
    for (kind, query) in
        [("words", leave()), ("both", Query::Hybrid { text: "leave".to_owned(), vector: vec![1.0, 0.0] })]
    {
        let retriever = ordering(&guards, Conduct::LastFirst, OnRerankFailure::Error);
        let mut token = Some(String::new());
        let mut found: Vec<Vec<String>> = Vec::new();
        // Three pages have all chunks, and a further page would be empty.
        for _ in 0..4 {
            let Some(page_token) = token.take() else { break };
            let of_page = RetrievalParts { page_token: Some(page_token), ..parts(query.clone(), 2) };
            let page = ask(&retriever, of_page).await.unwrap();
            found.push(ids(&page));
            token = page.next_page_token;
        }
        assert_eq!(found, [strings(&["0002", "0000"]), strings(&["0005", "0003"]), strings(&["0006"])], "{kind}");
    }
}
