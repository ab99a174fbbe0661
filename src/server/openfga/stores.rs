//! Stores, the versions of their models, and the assertions of each version.

use openfga_client::client as api;
use prost::Message;

use super::error::{ErrorNumber, OpenFgaError};
use super::{Resolved, model, page_size, store_of, token, tuples};
use crate::language::limits::{ASSERTIONS_BYTES_MAX, MODEL_BYTES_MAX, TYPES_MAX};
use crate::language::validate::{MODEL_ID_BYTES, ValidModel};
use crate::language::{Object, Relation, User};
use crate::proto::openfga_model as wire;
use crate::tuple_store::{ModelId, RelationshipStores, StoreId, StoreRecord, StoredModel};

pub(super) fn create(
    stores: &RelationshipStores,
    request: &api::CreateStoreRequest,
) -> Result<api::CreateStoreResponse, OpenFgaError> {
    let created = stores.create(&request.name)?;
    let time = Some(tuples::timestamp(created.created_unix_ms));
    Ok(api::CreateStoreResponse { id: created.id.to_string(), name: created.name, created_at: time, updated_at: time })
}

pub(super) fn get(
    stores: &RelationshipStores,
    request: &api::GetStoreRequest,
) -> Result<api::GetStoreResponse, OpenFgaError> {
    let found = StoreId::parse(&request.store_id).map(|id| stores.find(id)).transpose()?.flatten();
    let Some(found) = found else { return Err(OpenFgaError::new(ErrorNumber::StoreIdNotFound, "Store ID not found")) };
    let time = Some(tuples::timestamp(found.created_unix_ms));
    Ok(api::GetStoreResponse {
        id: found.id.to_string(),
        name: found.name,
        created_at: time,
        updated_at: time,
        deleted_at: None,
    })
}

pub(super) fn list(
    stores: &RelationshipStores,
    request: &api::ListStoresRequest,
) -> Result<api::ListStoresResponse, OpenFgaError> {
    let after = token::read_id(&request.continuation_token, StoreId::parse)?;
    let name = Some(request.name.as_str()).filter(|name| !name.is_empty());
    let size = page_size(request.page_size);
    let mut found = stores.list(name, after, size + 1)?;
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| more).map(|last| token::of_id(&last.id.to_string()));
    let message = |record: StoreRecord| {
        let time = Some(tuples::timestamp(record.created_unix_ms));
        api::Store {
            id: record.id.to_string(),
            name: record.name,
            created_at: time,
            updated_at: time,
            deleted_at: None,
        }
    };
    Ok(api::ListStoresResponse {
        stores: found.into_iter().map(message).collect(),
        continuation_token: last.unwrap_or_default(),
    })
}

pub(super) fn delete(
    stores: &RelationshipStores,
    request: &api::DeleteStoreRequest,
) -> Result<api::DeleteStoreResponse, OpenFgaError> {
    if let Some(id) = StoreId::parse(&request.store_id) {
        stores.delete(id)?;
    }
    Ok(api::DeleteStoreResponse {})
}

pub(super) fn write_model(
    stores: &RelationshipStores,
    request: wire::WriteAuthorizationModelRequest,
) -> Result<api::WriteAuthorizationModelResponse, OpenFgaError> {
    let id = StoreId::parse(&request.store_id);
    let id = id.ok_or_else(|| OpenFgaError::new(ErrorNumber::StoreIdNotFound, "Store ID not found"))?;
    let types = request.type_definitions.len();
    if types > TYPES_MAX {
        let message = format!(
            "The number of type definitions in an authorization model exceeds the allowed limit of {TYPES_MAX}"
        );
        return Err(OpenFgaError::new(ErrorNumber::ExceededEntityLimit, message));
    }
    let message = wire::AuthorizationModel {
        id: String::new(),
        schema_version: request.schema_version,
        type_definitions: request.type_definitions,
        conditions: request.conditions,
    };
    let original = message.encode_to_vec();
    // The message of a stored model has an id as well.
    let bytes = original.len() + MODEL_ID_BYTES;
    if bytes > MODEL_BYTES_MAX {
        let message = format!("model exceeds size limit: {bytes} bytes vs {MODEL_BYTES_MAX} bytes");
        return Err(OpenFgaError::new(ErrorNumber::ExceededEntityLimit, message));
    }
    let valid = ValidModel::with_slips(model::read(&message)?).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        OpenFgaError::new(ErrorNumber::InvalidAuthorizationModel, lines.join("\n"))
    })?;
    let store_id = id;
    let id = stores.store(store_id).write_model_of_client(valid, &original)?;
    tracing::info!(%store_id, model_id = %id, "another authorization model decides from now on");
    Ok(api::WriteAuthorizationModelResponse { authorization_model_id: id.to_string() })
}

pub(super) fn read_model(
    stores: &RelationshipStores,
    request: &api::ReadAuthorizationModelRequest,
) -> Result<wire::ReadAuthorizationModelResponse, OpenFgaError> {
    let store = store_of(stores, &request.store_id);
    let found = ModelId::parse(&request.id).map(|id| store.model(id)).transpose()?.flatten();
    let Some(found) = found else {
        let message = format!("Authorization Model '{}' not found", request.id);
        return Err(OpenFgaError::new(ErrorNumber::AuthorizationModelNotFound, message));
    };
    Ok(wire::ReadAuthorizationModelResponse { authorization_model: Some(model::write(&found)?) })
}

pub(super) fn read_models(
    stores: &RelationshipStores,
    request: &api::ReadAuthorizationModelsRequest,
) -> Result<wire::ReadAuthorizationModelsResponse, OpenFgaError> {
    let store = store_of(stores, &request.store_id);
    let from = token::read_id(&request.continuation_token, ModelId::parse)?;
    let size = page_size(request.page_size);
    let mut found = store.models(from, size + 1)?;
    let next = found.get(size).map(|next| token::of_id(&next.id.to_string()));
    found.truncate(size);
    let messages: Result<Vec<wire::AuthorizationModel>, OpenFgaError> =
        found.iter().map(|stored: &StoredModel| model::write(stored)).collect();
    Ok(wire::ReadAuthorizationModelsResponse {
        authorization_models: messages?,
        continuation_token: next.unwrap_or_default(),
    })
}

pub(super) fn write_assertions(
    resolved: &Resolved,
    assertions: Vec<api::Assertion>,
) -> Result<api::WriteAssertionsResponse, OpenFgaError> {
    let model = resolved.snapshot.model();
    let bytes: usize = assertions.iter().map(Message::encoded_len).sum();
    if bytes > ASSERTIONS_BYTES_MAX {
        let message = format!("The number of bytes exceeds the allowed limit of {ASSERTIONS_BYTES_MAX}");
        return Err(OpenFgaError::new(ErrorNumber::ExceededEntityLimit, message));
    }
    for assertion in &assertions {
        let key = assertion.tuple_key.clone().unwrap_or_default();
        let user = User::parse(&key.user)?;
        let relation = Relation::parse(&key.relation)?;
        let object = Object::parse(&key.object)?;
        model.knows(&user, &relation, object.type_name())?;
        tuples::contextual(model, &assertion.contextual_tuples, ErrorNumber::ValidationError)
            .map_err(|refusal| OpenFgaError::validation(refusal.message))?;
    }
    let message = api::Assertions { assertions };
    resolved.store.write_assertions(resolved.model_id, &message.encode_to_vec())?;
    Ok(api::WriteAssertionsResponse {})
}

pub(super) fn read_assertions(resolved: &Resolved) -> Result<api::ReadAssertionsResponse, OpenFgaError> {
    let stored = resolved.store.assertions(resolved.model_id)?;
    let message = api::Assertions::decode(stored.as_slice()).map_err(|error| {
        tracing::error!(%error, "the stored assertions cannot be read");
        OpenFgaError::internal()
    })?;
    Ok(api::ReadAssertionsResponse {
        authorization_model_id: resolved.model_id.to_string(),
        assertions: message.assertions,
    })
}
