//! Writes models and tuples into an `OpenFGA` server: for tests, for demos, and to move there from the embedded engine.

use openfga_client::client::{
    AuthorizationModel, CreateStoreRequest, TupleKeyWithoutCondition, WriteRequest, WriteRequestDeletes,
};

use super::{OpenFgaConfig, Server, StoreSelector, wire};
use crate::authz::AuthzError;
use crate::backend::{BackendChannel, BackendError};
use crate::error_code::ErrorCode;
use crate::language::RelationshipTuple;
use crate::language::limits::TUPLES_PER_WRITE_MAX;
use crate::tuple_store::OnConflict;

/// Whether to create a configured store that the server does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Do not create it.
    Never,
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
    /// A tuple to write is stored already, or a tuple to delete is not stored.
    #[error("{0}")]
    AlreadySo(String),
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
            Self::OtherCondition(_) | Self::AlreadySo(_) => ErrorCode::AlreadyExists,
            Self::Conflict(_) => ErrorCode::Unavailable,
            Self::Server(error) => error.code(),
        }
    }
}

/// The reason why a write of several transactions stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}; {done} of {of} tuples were done before")]
pub struct StoppedWrite {
    /// The number of tuples that are written or deleted.
    pub done: usize,
    /// The number of tuples that were to be written or deleted.
    pub of: usize,
    /// The reason why the write stopped.
    pub error: WriteError,
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
        Ok(Self::of_server(Server::new(config)?, creation).await?)
    }

    /// Opens a store of the server that a channel leads to. That may be Ragward, which serves `OpenFGA`'s API over its
    /// embedded engine.
    ///
    /// # Errors
    /// When the server is out of reach or refuses; [`AuthzError::NoStore`] when there is no such store and none is
    /// created.
    pub async fn on(channel: BackendChannel, store: StoreSelector, creation: Creation) -> Result<Self, AuthzError> {
        Self::of_server(Server::on(channel, store), creation).await
    }

    async fn of_server(server: Server, creation: Creation) -> Result<Self, AuthzError> {
        let found = server.within(server.find_store()).await?;
        let store_id = match (found, &server.store) {
            (Some(id), _) => id,
            (None, StoreSelector::Id(id)) => id.clone(),
            (None, StoreSelector::Name(name)) => {
                if creation != Creation::Always {
                    let missing = server.within(async { Ok(server.missing_store().await) }).await?;
                    if creation == Creation::Never || !matches!(missing, AuthzError::NoModel) {
                        return Err(missing);
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
        self.delete(tuples, OnConflict::Ignore).await.map_err(|stopped| stopped.error)
    }

    /// Like [`OpenFgaStore::delete_tuples`], and lets the caller choose what a tuple does that is not there.
    ///
    /// # Errors
    /// Like [`OpenFgaStore::write_tuples`]. The error says how many tuples were deleted.
    pub async fn delete(&self, tuples: &[RelationshipTuple], on_missing: OnConflict) -> Result<(), StoppedWrite> {
        let mut done = 0;
        for transaction in tuples.chunks(TUPLES_PER_WRITE_MAX) {
            let tuple_keys = transaction.iter().map(|tuple| TupleKeyWithoutCondition {
                user: tuple.user.to_string(),
                relation: tuple.relation.to_string(),
                object: tuple.object.to_string(),
            });
            let deletes = WriteRequestDeletes { tuple_keys: tuple_keys.collect(), on_missing: option(on_missing) };
            let authorization_model_id = self.server.model_id.clone().unwrap_or_default();
            let request = WriteRequest {
                store_id: self.store_id.clone(),
                writes: None,
                deletes: Some(deletes),
                authorization_model_id,
            };
            let mut client = self.server.client();
            let answered = self.server.within(async { Ok(client.write(request).await.map(drop)) }).await;
            let outcome = match answered {
                Ok(Ok(())) => Ok(()),
                Ok(Err(status)) if status.message().starts_with(NOT_THERE) => {
                    Err(WriteError::AlreadySo(status.message().to_owned()))
                }
                Ok(Err(status)) => Err(wire::failed(&status).into()),
                Err(error) => Err(error.into()),
            };
            outcome.map_err(|error| StoppedWrite { done, of: tuples.len(), error })?;
            done += transaction.len();
        }
        Ok(())
    }
}

/// The beginning of the message by which a server refuses to delete a tuple that it does not have.
const NOT_THERE: &str = "cannot delete a tuple which does not exist";

/// Returns the value for `on_duplicate` or `on_missing` of a write.
pub(super) fn option(on_conflict: OnConflict) -> String {
    match on_conflict {
        // Servers from before these options know only the empty value.
        OnConflict::Refuse => String::new(),
        OnConflict::Ignore => "ignore".to_owned(),
    }
}
