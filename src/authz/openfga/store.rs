//! Loading of models and tuples into an `OpenFGA` server, for tests, demos and moving from the embedded engine.

use openfga_client::client::{
    AuthorizationModel, CreateStoreRequest, TupleKeyWithoutCondition, WriteRequest, WriteRequestDeletes,
};

use super::transactions::WriteError;
use super::{OpenFgaConfig, Server, StoreSelector, wire};
use crate::authz::AuthzError;
use crate::backend::BackendError;
use crate::language::RelationshipTuple;
use crate::language::limits::TUPLES_PER_WRITE_MAX;

/// Deleting what is not there is no error.
const IGNORE: &str = "ignore";

/// When a store is created that a server does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Where the server has no store at all: beside others, the name is most likely a slip.
    First,
    /// Always.
    Always,
}

/// Writes to an `OpenFGA` store.
#[derive(Clone, Debug)]
pub struct OpenFgaStore {
    pub(super) server: Server,
    pub(super) store_id: String,
}

/// Why a store cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] BackendError),
    /// The server did not open it.
    #[error(transparent)]
    Server(#[from] AuthzError),
}

impl OpenFgaStore {
    /// Opens the configured store; creates it when it is configured by name and there is none.
    ///
    /// # Errors
    /// When the server is out of reach or refuses.
    pub async fn open(config: &OpenFgaConfig) -> Result<Self, OpenStoreError> {
        Self::open_with(config, Creation::Always).await
    }

    /// Like [`OpenFgaStore::open`], with a say in when a store is created.
    ///
    /// # Errors
    /// As [`OpenFgaStore::open`], and [`AuthzError::NoStore`] where none is created.
    pub async fn open_with(config: &OpenFgaConfig, creation: Creation) -> Result<Self, OpenStoreError> {
        let server = Server::new(config)?;
        let found = within(&server, server.find_store()).await?;
        let store_id = match (found, &server.store) {
            (Some(id), _) => id,
            (None, StoreSelector::Id(id)) => id.clone(),
            (None, StoreSelector::Name(name)) => {
                if creation == Creation::First {
                    let missing = within(&server, async { Ok(server.missing_store().await) }).await?;
                    if !matches!(missing, AuthzError::NoModel) {
                        return Err(missing.into());
                    }
                }
                let request = CreateStoreRequest { name: name.clone() };
                let mut client = server.client();
                let created =
                    within(&server, async { client.create_store(request).await.map_err(|e| wire::failed(&e)) });
                created.await?.into_inner().id
            }
        };
        Ok(Self { server, store_id })
    }

    /// The store's id.
    #[must_use]
    pub fn store_id(&self) -> &str {
        &self.store_id
    }

    /// Writes a model in `OpenFGA`'s JSON form; it becomes the store's latest. Its id is returned.
    ///
    /// # Errors
    /// When it is not a model, or the server is out of reach or refuses it.
    pub async fn write_model(&self, model: serde_json::Value) -> Result<String, AuthzError> {
        let model: AuthorizationModel = serde_json::from_value(model)
            .map_err(|e| AuthzError::Refused(format!("the JSON is not an authorization model: {e}")))?;
        self.write_version(&model).await
    }

    /// Writes tuples; those that are there already are left. Each transaction is written whole or not at all, in order.
    ///
    /// # Errors
    /// When the server is out of reach or refuses a tuple; earlier transactions stay written.
    pub async fn write_tuples(&self, tuples: &[RelationshipTuple]) -> Result<(), WriteError> {
        let model_id = self.server.model_id.clone().unwrap_or_default();
        self.put(&model_id, tuples).await.map_err(|stopped| stopped.error)
    }

    /// Deletes tuples; those that are not there are passed over.
    ///
    /// # Errors
    /// As [`OpenFgaStore::write_tuples`].
    pub async fn delete_tuples(&self, tuples: &[RelationshipTuple]) -> Result<(), WriteError> {
        for transaction in tuples.chunks(TUPLES_PER_WRITE_MAX) {
            let tuple_keys = transaction.iter().map(|tuple| TupleKeyWithoutCondition {
                user: tuple.user.to_string(),
                relation: tuple.relation.to_string(),
                object: tuple.object.to_string(),
            });
            let deletes = WriteRequestDeletes { tuple_keys: tuple_keys.collect(), on_missing: IGNORE.to_owned() };
            let authorization_model_id = self.server.model_id.clone().unwrap_or_default();
            let request = WriteRequest {
                store_id: self.store_id.clone(),
                writes: None,
                deletes: Some(deletes),
                authorization_model_id,
            };
            let mut client = self.server.client();
            within(&self.server, async { client.write(request).await.map_err(|e| wire::failed(&e)) }).await?;
        }
        Ok(())
    }
}

pub(super) async fn within<T>(
    server: &Server,
    call: impl Future<Output = Result<T, AuthzError>>,
) -> Result<T, AuthzError> {
    match tokio::time::timeout(server.timeout, call).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(AuthzError::DeadlineExceeded),
    }
}
