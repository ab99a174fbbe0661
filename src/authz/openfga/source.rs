//! Reads an `OpenFGA` server for a replica, by `ReadAuthorizationModel`, `Read` and `ReadChanges`.

use async_trait::async_trait;
use openfga_client::client::{
    ConsistencyPreference, ReadChangesRequest, ReadRequest, ReadRequestTupleKey, TupleChange, TupleKey, TupleOperation,
};

use super::{OpenFgaConfig, Server, wire};
use crate::authz::copy::ModelVersion;
use crate::authz::replica::source::{ModelNews, Page, RelationshipSource, SourceChange};
use crate::authz::{AuthzError, ReplicaConfig};
use crate::backend::{BackendError, Credential};
use crate::language::RelationshipTuple;
use crate::language::tuple::TupleCondition;
use crate::language::validate::ValidModel;
use crate::tuple_store::Operation;

/// The most items that a server returns in one page.
pub(super) const PAGE_SIZE: i32 = 100;

/// Reads one store of an `OpenFGA` server.
#[derive(Clone, Debug)]
pub struct OpenFgaSource {
    server: Server,
    types_max: usize,
}

impl OpenFgaSource {
    /// Prepares the calls. The first call contacts the server. Must run inside tokio.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &OpenFgaConfig) -> Result<Self, BackendError> {
        Self::with_credential(config, super::credential(config)?)
    }

    /// Like [`OpenFgaSource::new`], with a credential that other callers of the server share.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn with_credential(config: &OpenFgaConfig, credential: Credential) -> Result<Self, BackendError> {
        Ok(Self { server: Server::with(config, credential)?, types_max: ReplicaConfig::default().types_max })
    }

    /// Sets how many types a model may have. A larger model counts as not understood.
    #[must_use]
    pub fn with_types_max(self, types_max: usize) -> Self {
        Self { types_max, ..self }
    }

    /// Finds the id of the store. Returns `None` when the server has no such store.
    ///
    /// # Errors
    /// When the server is out of reach.
    pub async fn store_id(&self) -> Result<Option<String>, AuthzError> {
        self.server.within(self.server.find_store()).await
    }

    async fn read(&self, request: ReadRequest) -> Result<Page<RelationshipTuple>, AuthzError> {
        let mut client = self.server.client();
        let call = async { client.read(request).await.map_err(|e| wire::failed(&e)) };
        let response = self.server.within(call).await?.into_inner();
        let tuples = response.tuples.iter().map(|tuple| read_tuple(tuple.key.as_ref()));
        Ok(Page { items: tuples.collect::<Result<_, _>>()?, next: response.continuation_token })
    }
}

#[async_trait]
impl RelationshipSource for OpenFgaSource {
    async fn model(&self, known: Option<&ModelVersion>) -> Result<(ModelVersion, ModelNews), AuthzError> {
        let version = self.server.within(self.server.find_model()).await?;
        if known == Some(&version) {
            return Ok((version, ModelNews::Known));
        }
        let model = match self.server.within(self.server.read_model(&version)).await {
            Ok(model) => model,
            Err(AuthzError::BadAnswer(reason)) => return Ok((version, ModelNews::NotUnderstood(reason))),
            Err(error) => return Err(error),
        };
        let types = model.types.len();
        if types > self.types_max {
            let reason = format!("it has {types} types, at most {} are evaluated", self.types_max);
            return Ok((version, ModelNews::NotUnderstood(reason)));
        }
        let news = match ValidModel::stored(model) {
            Ok(model) => ModelNews::New(Box::new(model)),
            Err(errors) => ModelNews::NotUnderstood(errors.first().map(ToString::to_string).unwrap_or_default()),
        };
        Ok((version, news))
    }

    async fn tuples(&self, store_id: &str, token: &str) -> Result<Page<RelationshipTuple>, AuthzError> {
        let request = ReadRequest {
            store_id: store_id.to_owned(),
            tuple_key: None,
            page_size: Some(PAGE_SIZE),
            continuation_token: token.to_owned(),
            consistency: ConsistencyPreference::HigherConsistency.into(),
        };
        self.read(request).await
    }

    async fn changes(&self, store_id: &str, token: &str) -> Result<Page<SourceChange>, AuthzError> {
        let request = ReadChangesRequest {
            store_id: store_id.to_owned(),
            r#type: String::new(),
            page_size: Some(PAGE_SIZE),
            continuation_token: token.to_owned(),
            start_time: None,
        };
        let mut client = self.server.client();
        let call = async { client.read_changes(request).await.map_err(|e| wire::failed(&e)) };
        let response = self.server.within(call).await?.into_inner();
        let changes: Result<Vec<SourceChange>, AuthzError> = response.changes.iter().map(read_change).collect();
        Ok(Page { items: changes?, next: response.continuation_token })
    }

    async fn find(&self, store_id: &str, tuple: &RelationshipTuple) -> Result<Option<RelationshipTuple>, AuthzError> {
        let request = ReadRequest {
            store_id: store_id.to_owned(),
            tuple_key: Some(ReadRequestTupleKey {
                user: tuple.user.to_string(),
                relation: tuple.relation.to_string(),
                object: tuple.object.to_string(),
            }),
            page_size: Some(PAGE_SIZE),
            continuation_token: String::new(),
            consistency: ConsistencyPreference::HigherConsistency.into(),
        };
        let found = self.read(request).await?.items;
        match found.as_slice() {
            [] => Ok(None),
            [found] if found.key() == tuple.key() => Ok(Some(found.clone())),
            [..] => Err(AuthzError::BadAnswer(format!("asked for tuple `{tuple}`, got another"))),
        }
    }
}

/// Reads the message of a tuple.
pub(super) fn read_tuple(key: Option<&TupleKey>) -> Result<RelationshipTuple, AuthzError> {
    let Some(key) = key else { return Err(AuthzError::BadAnswer("a tuple has no key".to_owned())) };
    let not_understood =
        |e: String| AuthzError::BadAnswer(format!("tuple `{}#{}@{}`: {e}", key.object, key.relation, key.user));
    let tuple = RelationshipTuple::parse(&key.user, &key.relation, &key.object);
    let tuple = tuple.map_err(|e| not_understood(e.to_string()))?;
    let Some(condition) = key.condition.as_ref().filter(|condition| !condition.name.is_empty()) else {
        return Ok(tuple);
    };
    let context = match &condition.context {
        Some(context) => serde_json::to_string(context).map_err(|e| not_understood(e.to_string()))?,
        None => String::new(),
    };
    let condition = TupleCondition::parse(&condition.name, &context).map_err(|e| not_understood(e.to_string()))?;
    Ok(tuple.with_condition(condition))
}

fn read_change(change: &TupleChange) -> Result<SourceChange, AuthzError> {
    let tuple = read_tuple(change.tuple_key.as_ref())?;
    let operation = match TupleOperation::try_from(change.operation) {
        Ok(TupleOperation::Write) => Operation::Write,
        Ok(TupleOperation::Delete) => Operation::Delete,
        Err(_) => return Err(AuthzError::BadAnswer(format!("change of `{tuple}` is neither write nor delete"))),
    };
    let unix_ns = change.timestamp.as_ref().map_or(0, |t| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos));
    let tuple = match operation {
        Operation::Write => tuple,
        Operation::Delete => RelationshipTuple { condition: None, ..tuple },
    };
    Ok(SourceChange { tuple, operation, unix_ns })
}
