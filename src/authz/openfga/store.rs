//! Writes models and tuples into an `OpenFGA` server: for tests, for demos, and to move there from the embedded engine.

use openfga_client::client::{
    AuthorizationModel, CreateStoreRequest, TupleKeyWithoutCondition, WriteRequest, WriteRequestDeletes,
};

use super::{OpenFgaConfig, Server, StoreSelector, wire};
use crate::authz::AuthzError;
use crate::backend::BackendError;
use crate::error_code::ErrorCode;
use crate::language::RelationshipTuple;
use crate::language::limits::TUPLES_PER_WRITE_MAX;

/// Asks the server to pass over tuples that are not there.
const IGNORE: &str = "ignore";

/// Whether to create a configured store that the server does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Create it only if the server has no store at all. Beside other stores, the name is most likely a typing error.
    First,
    /// Create it in any case.
    Always,
}

/// Writes to one store of an `OpenFGA` server.
#[derive(Clone, Debug)]
pub struct OpenFgaStore {
    pub(super) server: Server,
    pub(super) store_id: String,
}

/// The reason why a store cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] BackendError),
    /// The server is out of reach, or refuses to open or create the store.
    #[error(transparent)]
    Server(#[from] AuthzError),
}

/// The reason why tuples were not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// A tuple with the same names is stored, with another condition.
    #[error("tuple `{0}` is already there with another condition; delete it first")]
    OtherCondition(String),
    /// Every attempt collided with other writers.
    #[error("others are writing the same tuples: {0}")]
    Conflict(String),
    /// The server is out of reach or refuses the tuples.
    #[error(transparent)]
    Server(#[from] AuthzError),
}

impl WriteError {
    /// Returns the code that says what the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::OtherCondition(_) => ErrorCode::AlreadyExists,
            Self::Conflict(_) => ErrorCode::Unavailable,
            Self::Server(error) => error.code(),
        }
    }
}

impl OpenFgaStore {
    /// Opens the configured store. If it is configured by name and no store has that name, this creates it.
    ///
    /// # Errors
    /// When the server is out of reach or refuses.
    pub async fn open(config: &OpenFgaConfig) -> Result<Self, OpenStoreError> {
        Self::open_with(config, Creation::Always).await
    }

    /// Like [`OpenFgaStore::open`], but creates a store only as `creation` says.
    ///
    /// # Errors
    /// Like [`OpenFgaStore::open`]; also [`AuthzError::NoStore`] when there is no such store and none is created.
    pub async fn open_with(config: &OpenFgaConfig, creation: Creation) -> Result<Self, OpenStoreError> {
        let server = Server::new(config)?;
        let found = server.within(server.find_store()).await?;
        let store_id = match (found, &server.store) {
            (Some(id), _) => id,
            (None, StoreSelector::Id(id)) => id.clone(),
            (None, StoreSelector::Name(name)) => {
                if creation == Creation::First {
                    let missing = server.within(async { Ok(server.missing_store().await) }).await?;
                    if !matches!(missing, AuthzError::NoModel) {
                        return Err(missing.into());
                    }
                }
                let request = CreateStoreRequest { name: name.clone() };
                let mut client = server.client();
                let created = server.within(async { client.create_store(request).await.map_err(|e| wire::failed(&e)) });
                created.await?.into_inner().id
            }
        };
        Ok(Self { server, store_id })
    }

    /// Returns the id of the store.
    #[must_use]
    pub fn store_id(&self) -> &str {
        &self.store_id
    }

    /// Writes a model in `OpenFGA`'s JSON form and returns its id. The model becomes the store's latest.
    ///
    /// # Errors
    /// When the JSON is not a model, or when the server is out of reach or refuses the model.
    pub async fn write_model(&self, model: serde_json::Value) -> Result<String, AuthzError> {
        let model: AuthorizationModel = serde_json::from_value(model)
            .map_err(|e| AuthzError::Refused(format!("the JSON is not an authorization model: {e}")))?;
        self.write_version(&model).await
    }

    /// Writes tuples in their order, one transaction after another. Each transaction is written whole or not at all. Tuples
    /// that are already there stay as they are.
    ///
    /// # Errors
    /// When the server is out of reach or refuses a tuple. Earlier transactions stay written.
    pub async fn write_tuples(&self, tuples: &[RelationshipTuple]) -> Result<(), WriteError> {
        let model_id = self.server.model_id.clone().unwrap_or_default();
        self.put(&model_id, tuples).await.map_err(|stopped| stopped.error)
    }

    /// Deletes tuples, and passes over those that are not there.
    ///
    /// # Errors
    /// Like [`OpenFgaStore::write_tuples`].
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
            self.server.within(async { client.write(request).await.map_err(|e| wire::failed(&e)) }).await?;
        }
        Ok(())
    }
}
