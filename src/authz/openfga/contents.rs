//! Reads what one store of an `OpenFGA` server holds, page by page: its tuples, the versions of its model and its assertions.

use openfga_client::client::{
    ConsistencyPreference, GetStoreRequest, ReadAssertionsRequest, ReadAuthorizationModelsRequest, ReadRequest,
    ReadRequestTupleKey, WriteAssertionsRequest,
};

use super::assertions::{self, Assertion};
use super::source::{PAGE_SIZE, read_tuple};
use super::store::OpenFgaStore;
use super::wire;
use crate::authz::AuthzError;
use crate::authz::copy::ModelVersion;
use crate::authz::replica::source::Page;
use crate::language::RelationshipTuple;
use crate::language::model::AuthorizationModel;
use crate::tuple_store::TupleFilter;

/// The number of versions of the model in one page. Each version comes whole, and may have 256 KiB.
const MODELS_PAGE_SIZE: i32 = 10;

impl OpenFgaStore {
    /// Returns the name of the store.
    ///
    /// # Errors
    /// When the server is out of reach or has no such store.
    pub async fn name(&self) -> Result<String, AuthzError> {
        let request = GetStoreRequest { store_id: self.store_id.clone() };
        let mut client = self.server.client();
        let call = async { client.get_store(request).await.map_err(|e| wire::failed(&e)) };
        Ok(self.server.within(call).await?.into_inner().name)
    }

    /// Returns a page of the tuples that match a filter, as of now. An empty token begins; the last page has an empty
    /// one.
    ///
    /// # Errors
    /// When the server is out of reach, or refuses the filter. A filter must name the type of the object, and the object's id
    /// or a user, unless it is empty.
    pub async fn tuples(&self, filter: &TupleFilter, token: &str) -> Result<Page<RelationshipTuple>, AuthzError> {
        let TupleFilter { user, relation, object } = filter.clone();
        let tuple_key = ReadRequestTupleKey { user, relation, object };
        let request = ReadRequest {
            store_id: self.store_id.clone(),
            tuple_key: (*filter != TupleFilter::default()).then_some(tuple_key),
            page_size: Some(PAGE_SIZE),
            continuation_token: token.to_owned(),
            consistency: ConsistencyPreference::HigherConsistency.into(),
        };
        let mut client = self.server.client();
        let call = async { client.read(request).await.map_err(|e| wire::failed(&e)) };
        let response = self.server.within(call).await?.into_inner();
        let tuples = response.tuples.iter().map(|tuple| read_tuple(tuple.key.as_ref()));
        Ok(Page { items: tuples.collect::<Result<_, _>>()?, next: response.continuation_token })
    }

    /// Returns a page of the ids of the model's versions, newest first.
    ///
    /// # Errors
    /// When the server is out of reach.
    pub async fn model_ids(&self, token: &str) -> Result<Page<String>, AuthzError> {
        let request = ReadAuthorizationModelsRequest {
            store_id: self.store_id.clone(),
            page_size: Some(MODELS_PAGE_SIZE),
            continuation_token: token.to_owned(),
        };
        let mut client = self.server.client();
        let call = async { client.read_authorization_models(request).await.map_err(|e| wire::failed(&e)) };
        let response = self.server.within(call).await?.into_inner();
        let items = response.authorization_models.into_iter().map(|model| model.id).collect();
        Ok(Page { items, next: response.continuation_token })
    }

    /// Returns one version of the model with its id; without an `id`, the version that decides.
    ///
    /// # Errors
    /// When there is no such version, the server is out of reach, or the model cannot be read here.
    pub async fn model(&self, id: Option<&str>) -> Result<(String, AuthorizationModel), AuthzError> {
        let store_id = self.store_id.clone();
        let reading = async {
            let version = match id {
                Some(id) => ModelVersion { store_id, model_id: id.to_owned() },
                None => self.server.find_model_of(store_id).await?,
            };
            let model = self.server.read_model(&version).await?;
            Ok((version.model_id, model))
        };
        self.server.within(reading).await
    }

    /// Returns the assertions of one version of the model.
    ///
    /// # Errors
    /// When the server is out of reach, or an assertion has a malformed name.
    pub async fn assertions(&self, model_id: &str) -> Result<Vec<Assertion>, AuthzError> {
        let request =
            ReadAssertionsRequest { store_id: self.store_id.clone(), authorization_model_id: model_id.to_owned() };
        let mut client = self.server.client();
        let call = async { client.read_assertions(request).await.map_err(|e| wire::failed(&e)) };
        let read = self.server.within(call).await?.into_inner();
        read.assertions.iter().map(assertions::read).collect()
    }

    /// Replaces the assertions of one version of the model.
    ///
    /// # Errors
    /// When the server is out of reach or refuses an assertion.
    pub async fn write_assertions(&self, model_id: &str, assertions: &[Assertion]) -> Result<(), AuthzError> {
        let request = WriteAssertionsRequest {
            store_id: self.store_id.clone(),
            authorization_model_id: model_id.to_owned(),
            assertions: assertions.iter().map(assertions::write).collect::<Result<_, _>>()?,
        };
        let mut client = self.server.client();
        let call = async { client.write_assertions(request).await.map_err(|e| wire::failed(&e)) };
        self.server.within(call).await.map(drop)
    }
}
