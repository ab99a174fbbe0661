//! The messages of `OpenFGA`'s API that hold an authorization model.
//!
//! They are the same on the wire as `OpenFGA`'s, but definitions of relations stay encoded. A definition may be nested
//! thousands deep, and recursive decoders stop at a hundred levels. `server/openfga` reads definitions with a list instead.

use std::collections::BTreeMap;

use openfga_client::client as api;

/// The message `openfga.v1.AuthorizationModel` as it is on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuthorizationModel {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub schema_version: String,
    #[prost(message, repeated, tag = "3")]
    pub type_definitions: Vec<TypeDefinition>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub conditions: BTreeMap<String, api::Condition>,
}

/// The message `openfga.v1.TypeDefinition` as it is on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypeDefinition {
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// The encoded definition (`openfga.v1.Userset`) of each relation, by its name.
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub relations: BTreeMap<String, Vec<u8>>,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<api::Metadata>,
}

/// The message `openfga.v1.WriteAuthorizationModelRequest` as it is on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteAuthorizationModelRequest {
    #[prost(string, tag = "1")]
    pub store_id: String,
    #[prost(message, repeated, tag = "2")]
    pub type_definitions: Vec<TypeDefinition>,
    #[prost(string, tag = "3")]
    pub schema_version: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub conditions: BTreeMap<String, api::Condition>,
}

/// The message `openfga.v1.ReadAuthorizationModelResponse` as it is on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadAuthorizationModelResponse {
    #[prost(message, optional, tag = "1")]
    pub authorization_model: Option<AuthorizationModel>,
}

/// The message `openfga.v1.ReadAuthorizationModelsResponse` as it is on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadAuthorizationModelsResponse {
    #[prost(message, repeated, tag = "1")]
    pub authorization_models: Vec<AuthorizationModel>,
    #[prost(string, tag = "2")]
    pub continuation_token: String,
}
