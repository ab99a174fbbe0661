//! The record of a retrieval names the decisions behind it.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::authz::embedded::EmbeddedAuthorizer;
use crate::authz::{
    Abilities, Authorizer, CheckBatch, DecidingModel, Decisions, Provenance, VisiblePositions, VisibleSetQuery,
};
use crate::chunk::Chunk;
use crate::chunk::{Document, Metadata};
use crate::language::Relation;
use crate::language::{Object, RelationshipTuple, dsl};
use crate::retrieval::{Pages, RetrievalConfig};
use crate::server::answers::Answers;
use crate::server::audit::sample::{call, first_records, open_log};
use crate::tuple_store::{OnConflict, RelationshipStores};
use crate::vector_store::DocumentStore;
use crate::vector_store::exact::ExactStore;

const COLLECTION: &str = "notes";
const MODEL: &str = "
model
  schema 1.1
type user
type note
  relations
    define can_read: [user]
";

/// Decides as the embedded authorizer does. Right after each decision, another model comes into force.
struct Overtaken {
    inner: EmbeddedAuthorizer,
    stores: RelationshipStores,
    /// The model of each answer.
    decided_by: Mutex<Vec<Arc<str>>>,
}

impl Overtaken {
    fn answered(&self, by: &Provenance) {
        self.decided_by.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&by.model_id));
        let store = self.stores.default_store().expect("a store");
        store.write_model(dsl::load(MODEL).expect("a model")).expect("written");
    }
}

#[async_trait]
impl Authorizer for Overtaken {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        self.inner.check(batch).await.inspect(|decisions| self.answered(&decisions.by))
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let visible = self.inner.visible_set(query).await?;
        Ok(visible.inspect(|visible| self.answered(&visible.by)))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        self.inner.readiness().await
    }

    fn abilities(&self, consistency: Consistency) -> Abilities {
        self.inner.abilities(consistency)
    }

    fn model(&self) -> Option<&dyn DecidingModel> {
        self.inner.model()
    }
}

/// The RPC that a row calls.
#[derive(Clone, Copy)]
enum Rpc {
    Retrieve,
    Recheck,
    Fetch,
}

struct World {
    api: RetrievalApi,
    authorizer: Arc<Overtaken>,
    directory: TempDir,
}

/// Returns a collection of one note, which Anne may read or not.
async fn world(may_read: bool) -> World {
    let directory = tempfile::tempdir().unwrap();
    let stores = RelationshipStores::open(directory.path()).unwrap();
    let relationships = stores.default_store_or_new().unwrap();
    relationships.write_model(dsl::load(MODEL).unwrap()).unwrap();
    let tuple = RelationshipTuple::parse("user:anne", "can_read", "note:1").unwrap();
    relationships.write_all(if may_read { vec![tuple] } else { Vec::new() }, OnConflict::Refuse).unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    let chunk = Chunk {
        id: "1#0".to_owned(),
        document_id: "1".to_owned(),
        guard: Object::parse("note:1").unwrap(),
        title: String::new(),
        heading_path: Vec::new(),
        text: "a note about leave".to_owned(),
        metadata: Metadata::new(),
        vector: vec![1.0, 0.0],
    };
    let document = Document { id: "1".to_owned(), title: String::new(), chunks: vec![chunk] };
    store.upsert(COLLECTION, vec![document]).await.unwrap();
    let inner = EmbeddedAuthorizer::new(stores.clone());
    let authorizer = Arc::new(Overtaken { inner, stores, decided_by: Mutex::default() });
    let store = Arc::new(store);
    let config = RetrievalConfig {
        relation: Relation::parse("can_read").unwrap(),
        top_k_max: 100,
        candidates_max: 400,
        guards_checked_max: 100,
        explain_plan: false,
        ..RetrievalConfig::default()
    };
    let api = RetrievalApi::new(&Services {
        retriever: Retriever::new(
            Arc::clone(&authorizer) as _,
            Arc::clone(&store) as _,
            config,
            Pages::new(Duration::from_hours(1)).unwrap(),
        ),
        vector_store: Arc::clone(&store) as _,
        documents: store,
        relationships: None,
        explain: false,
        request_timeout: Duration::from_mins(1),
        connections_max: 1,
        tls: None,
        guards: crate::server::Guards::default(),
        mcp: None,
        request_context: crate::identity::RequestContextRules::default(),
        authorizer: Arc::clone(&authorizer) as _,
        authentication: Authentication::Believed,
        login_client_id: None,
        ingest: crate::ingest::IngestConfig::default(),
        audit: None,
        consistency_tokens: Arc::new(ConsistencyTokens::new().unwrap()),
    });
    World { api, authorizer, directory }
}

impl World {
    /// Answers a request, and returns how the record says it was decided.
    async fn recorded<T, A>(
        &self,
        message: T,
        answer: impl AsyncFnOnce(&RetrievalApi, Request<T>) -> Result<Response<A>, Status>,
    ) -> AuditedDecision {
        let (running, lasting) =
            call(Some(open_log(self.directory.path())), "/ragward.retrieval.v1.RetrievalService/Retrieve");
        let mut request = Request::new(message);
        request.extensions_mut().insert(Caller::Believed);
        request.extensions_mut().insert(lasting.draft().clone());
        request.extensions_mut().insert(AnswerSlot::new(&Answers::new(), Instant::now() + Duration::from_mins(1)));
        answer(&self.api, request).await.expect("an answer");
        // A call whose caller is gone is recorded with all that is known of it.
        drop(running);
        drop(lasting);
        first_records(self.directory.path()).await.remove(0).decision.expect("a decision")
    }
}

/// INVARIANT (who decided): the record names the model that decided, whatever came into force afterwards.
#[tokio::test]
async fn the_record_names_the_model_that_decided() {
    let retrieve = || message::RetrieveRequest {
        user: "user:anne".to_owned(),
        collection: COLLECTION.to_owned(),
        query: Some(message::retrieve_request::Query::Text("leave".to_owned())),
        top_k: 1,
        ..message::RetrieveRequest::default()
    };
    let recheck = || message::RecheckRequest {
        user: "user:anne".to_owned(),
        collection: COLLECTION.to_owned(),
        chunk_ids: vec!["1#0".to_owned()],
        ..message::RecheckRequest::default()
    };
    let fetch = || message::FetchRequest {
        user: "user:anne".to_owned(),
        collection: COLLECTION.to_owned(),
        chunk_ids: vec!["1#0".to_owned()],
        document_ids: vec!["1".to_owned()],
        ..message::FetchRequest::default()
    };
    // The second row is decided by the visible set alone: it hides everything, so that nothing is left to check.
    for (name, may_read, rpc) in [
        ("released", true, Rpc::Retrieve),
        ("hidden", false, Rpc::Retrieve),
        ("rechecked", true, Rpc::Recheck),
        ("not there any more", false, Rpc::Recheck),
        ("fetched", true, Rpc::Fetch),
        ("fetched in vain", false, Rpc::Fetch),
    ] {
        let world = world(may_read).await;
        let decision = match rpc {
            Rpc::Retrieve => {
                world.recorded(retrieve(), async |api: &RetrievalApi, request| api.retrieve(request).await).await
            }
            Rpc::Recheck => {
                world.recorded(recheck(), async |api: &RetrievalApi, request| api.recheck(request).await).await
            }
            Rpc::Fetch => world.recorded(fetch(), async |api: &RetrievalApi, request| api.fetch(request).await).await,
        };
        // A fetch asks in two steps. A record names the model of the last decision.
        let decided_by = world.authorizer.decided_by.lock().unwrap().last().expect("a decision").to_string();
        assert_ne!(world.authorizer.readiness().await.expect("a model").as_ref(), decided_by, "{name}: overtaken");
        assert_eq!((decision.model_id, decision.staleness_ms), (Some(decided_by), Some(0)), "{name}");
    }
}

/// A fetch is recorded with what left, and its answer has chunks without scores, beside a token.
#[tokio::test]
async fn a_fetch_is_recorded_with_what_it_released() {
    // The name of the row, whether Anne may read the note, the chunks of the answer, and those that were withheld.
    let rows: [(&str, bool, &[&str], u64); 2] = [("visible", true, &["1#0"], 0), ("hidden", false, &[], 1)];
    for (row, may_read, expected, withheld) in rows {
        let world = world(may_read).await;
        let request = message::FetchRequest {
            user: "user:anne".to_owned(),
            collection: COLLECTION.to_owned(),
            document_ids: vec!["1".to_owned()],
            ..message::FetchRequest::default()
        };
        let decision = world
            .recorded(request, async |api: &RetrievalApi, request| {
                let response = api.fetch(request).await?;
                let answer = response.get_ref();
                let ids: Vec<&str> = answer.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
                assert_eq!(ids, expected, "{row}");
                let is_whole = |chunk: &message::Chunk| chunk.text == "a note about leave" && chunk.score == 0.0;
                assert!(answer.chunks.iter().all(is_whole), "{row}: {answer:?}");
                assert_eq!(answer.completion(), message::Completion::Exhausted, "{row}");
                assert!(api.consistency_tokens.moment(&answer.consistency_token).is_ok(), "{row}: {answer:?}");
                Ok(response)
            })
            .await;
        assert_eq!(decision.withheld, Some(withheld), "{row}");
        assert_eq!(decision.completion.as_deref(), Some("exhausted"), "{row}");
    }
}
