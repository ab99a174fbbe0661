//! Tests retrievals whose queries a model turns into vectors. The model is a double, because it makes faults.

use std::collections::BTreeMap;

use super::*;
use crate::error_code::ErrorCode;
use crate::inference::{Ceiling, CollectionEmbedder, Embedder, ModelFault};
use crate::retrieval::request::StatedQuery;

/// Gives the same vector to each text, and keeps the texts.
struct Fixed {
    vector: Vec<f32>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Embedder for Fixed {
    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ModelFault> {
        self.asked.lock().unwrap().extend(texts.iter().map(|text| (*text).to_owned()));
        Ok(texts.iter().map(|_| self.vector.clone()).collect())
    }
}

fn with_model(guards: &[&str], vector: &[f32]) -> (Retriever, Arc<Fixed>) {
    let model = Arc::new(Fixed { vector: vector.to_vec(), asked: Mutex::default() });
    let embedder = CollectionEmbedder::new(Arc::clone(&model) as _, "small", None, Ceiling::None);
    let embeddings = Arc::new(Embeddings::of(BTreeMap::from([("handbook".to_owned(), embedder)])));
    let systems = OtherSystems { embeddings, ..OtherSystems::default() };
    let authorizer = Arc::new(OpenOnly { local: true, hint: None });
    (Retriever::with_systems(authorizer, shelf(guards, Fault::None), configured(), pages(), systems), model)
}

fn asking(query: StatedQuery, page_token: Option<String>) -> RetrievalParts {
    RetrievalParts { query: Some(query), page_token, ..parts(Query::Text(String::new()), 2) }
}

#[tokio::test]
async fn a_text_needs_a_vector_that_fits() {
    let semantic = || StatedQuery::Semantic("leave".to_owned());
    let hybrid = || StatedQuery::Hybrid("leave".to_owned());
    let rows: [(&str, StatedQuery, &[f32], Option<ErrorCode>); 6] = [
        ("meaning", semantic(), &[1.0, 0.0], None),
        ("both", hybrid(), &[1.0, 0.0], None),
        ("another dimension", semantic(), &[1.0, 0.0, 0.0], Some(ErrorCode::Unavailable)),
        ("another dimension of both", hybrid(), &[1.0, 0.0, 0.0], Some(ErrorCode::Unavailable)),
        ("nothing that the model knows", semantic(), &[], Some(ErrorCode::InvalidArgument)),
        ("words that the model does not know", hybrid(), &[], Some(ErrorCode::InvalidArgument)),
    ];
    for (row, query, vector, expected) in rows {
        let (retriever, model) = with_model(&["shut", "open1"], vector);
        let refused = ask(&retriever, asking(query, None)).await.err();
        assert_eq!(refused.map(|error| error.code()), expected, "{row}");
        assert_eq!(*model.asked.lock().unwrap(), ["leave"], "{row}: once");
    }
}

/// A token does not carry the vector, so each page asks the model again. Pages of another text are refused, and that text is not sent.
#[tokio::test]
async fn each_page_asks_the_model_for_its_own_text() {
    type Stated = fn(&str) -> StatedQuery;
    let guards = ["open0", "shut", "open2", "open3", "shut", "open5", "open6"];
    let kinds: [(&str, Stated, Stated); 2] = [
        ("meaning", |text| StatedQuery::Semantic(text.to_owned()), |text| StatedQuery::Hybrid(text.to_owned())),
        ("both", |text| StatedQuery::Hybrid(text.to_owned()), |text| StatedQuery::Semantic(text.to_owned())),
    ];
    for (kind, stated, other) in kinds {
        let (retriever, model) = with_model(&guards, &[1.0, 0.0]);
        let first = ask(&retriever, asking(stated("leave"), Some(String::new()))).await.unwrap();
        assert_eq!(ids(&first), ["0000", "0002"], "{kind}");
        let token = first.next_page_token.clone();
        let foreign = [("another text", stated("pay")), ("another kind", other("leave"))];
        for (row, query) in foreign {
            let refused = ask(&retriever, asking(query, token.clone())).await.err();
            assert_eq!(refused.map(|error| error.code()), Some(ErrorCode::InvalidArgument), "{kind}: {row}");
        }
        assert_eq!(*model.asked.lock().unwrap(), ["leave"], "{kind}: nothing is sent with a token of another search");
        let second = ask(&retriever, asking(stated("leave"), token)).await.unwrap();
        assert_eq!(ids(&second), ["0003", "0005"], "{kind}");
        assert_eq!(*model.asked.lock().unwrap(), ["leave", "leave"], "{kind}");
    }
}
