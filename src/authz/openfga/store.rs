//! Loading of models and tuples into an `OpenFGA` server, for tests, demos and moving from the embedded engine.

use openfga_client::client::{
    AuthorizationModel, CreateStoreRequest, TupleKey, TupleKeyWithoutCondition, WriteAuthorizationModelRequest,
    WriteRequest, WriteRequestDeletes, WriteRequestWrites,
};

use super::{OpenFgaConfig, Server, StoreSelector, wire};
use crate::authz::AuthzError;
use crate::backend::BackendError;
use crate::relationship::RelationshipTuple;

/// The most tuples that a server takes in one transaction.
const TUPLES_PER_TRANSACTION: usize = 100;
/// Writing what is there and deleting what is not are no errors, so a load that stopped half-way can be run again.
const IGNORE: &str = "ignore";

/// Writes to an `OpenFGA` store.
#[derive(Clone, Debug)]
pub struct OpenFgaStore {
    server: Server,
    store_id: String,
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
        let server = Server::new(config)?;
        let found = within(&server, server.find_store()).await?;
        let store_id = match (found, &server.store) {
            (Some(id), _) => id,
            (None, StoreSelector::Id(id)) => id.clone(),
            (None, StoreSelector::Name(name)) => {
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
        let request = WriteAuthorizationModelRequest {
            store_id: self.store_id.clone(),
            type_definitions: model.type_definitions,
            schema_version: model.schema_version,
            conditions: model.conditions,
        };
        let mut client = self.server.client();
        let written = async { client.write_authorization_model(request).await.map_err(|e| wire::failed(&e)) };
        Ok(within(&self.server, written).await?.into_inner().authorization_model_id)
    }

    /// Writes tuples; those that are there already are left. Each transaction of 100 is written whole or not at all, in
    /// order.
    ///
    /// # Errors
    /// When the server is out of reach or refuses a tuple; earlier transactions stay written.
    pub async fn write_tuples(&self, tuples: &[RelationshipTuple]) -> Result<(), AuthzError> {
        for transaction in tuples.chunks(TUPLES_PER_TRANSACTION) {
            let tuple_keys: Result<Vec<TupleKey>, AuthzError> = transaction.iter().map(wire::tuple_key).collect();
            let writes = WriteRequestWrites { tuple_keys: tuple_keys?, on_duplicate: IGNORE.to_owned() };
            self.write(Some(writes), None).await?;
        }
        Ok(())
    }

    /// Deletes tuples; those that are not there are passed over.
    ///
    /// # Errors
    /// As [`OpenFgaStore::write_tuples`].
    pub async fn delete_tuples(&self, tuples: &[RelationshipTuple]) -> Result<(), AuthzError> {
        for transaction in tuples.chunks(TUPLES_PER_TRANSACTION) {
            let tuple_keys = transaction.iter().map(|tuple| TupleKeyWithoutCondition {
                user: tuple.user.to_string(),
                relation: tuple.relation.to_string(),
                object: tuple.object.to_string(),
            });
            let deletes = WriteRequestDeletes { tuple_keys: tuple_keys.collect(), on_missing: IGNORE.to_owned() };
            self.write(None, Some(deletes)).await?;
        }
        Ok(())
    }

    async fn write(
        &self,
        writes: Option<WriteRequestWrites>,
        deletes: Option<WriteRequestDeletes>,
    ) -> Result<(), AuthzError> {
        let authorization_model_id = self.server.model_id.clone().unwrap_or_default();
        let request = WriteRequest { store_id: self.store_id.clone(), writes, deletes, authorization_model_id };
        let mut client = self.server.client();
        within(&self.server, async { client.write(request).await.map_err(|e| wire::failed(&e)) }).await?;
        Ok(())
    }
}

async fn within<T>(server: &Server, call: impl Future<Output = Result<T, AuthzError>>) -> Result<T, AuthzError> {
    match tokio::time::timeout(server.timeout, call).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(AuthzError::DeadlineExceeded),
    }
}
