//! Loads a model together with its tuples into an `OpenFGA` server.
//!
//! A server has no transaction that spans both, and a model decides from the moment at which it is written. A model that
//! decides without some of its tuples could grant what they deny. So the previous model stays in force until all tuples are
//! in:
//!
//! 1. If the previous model accepts all tuples, they are written under it, and then the new model is written.
//! 2. Otherwise the new model is written, so that tuples can be written under it, and right after that the previous model
//!    is written again. Then the tuples are written under the new model, and last the new model is written once more.
//!    For the time of one call the new model decides without its tuples.
//! 3. In a store without a model, a model in which nobody can hold anything takes the place of the previous one.
//!
//! Loading the same again skips everything that is already in. Loading deletes nothing: a file with fewer tuples than
//! before revokes nothing.

use openfga_client::client::{
    AuthorizationModel, ReadAuthorizationModelsRequest, TypeDefinition, WriteAuthorizationModelRequest,
};

use super::store::{OpenFgaStore, WriteError};
use super::transactions::Stopped;
use super::wire;
use crate::authz::AuthzError;
use crate::error_code::ErrorCode;
use crate::language::validate::ValidModel;
use crate::language::{RelationshipTuple, json};

/// The result of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The id that the server gave the model.
    pub model_id: String,
    /// Whether this model decides now. If `authorization_model_id` is configured, the model that it names decides
    /// instead.
    pub decides: bool,
}

/// The reason why a load stopped, and the state in which it left the store.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}; {state}")]
pub struct LoadError {
    error: WriteError,
    state: StoreState,
}

/// The state in which a load that stopped leaves the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreState {
    Untouched,
    /// Some of the tuples are in.
    Tuples {
        written: usize,
        of: usize,
        decides: Decides,
    },
    /// The new model decides without its tuples, because the previous model could not be put back.
    ModelAlone {
        tuples: usize,
    },
}

/// The model that decides after a load that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decides {
    /// The previous model decides.
    Before,
    /// An empty model denies everything, since the store had no model.
    Nothing,
    /// The model that is being loaded decides, since it was there already.
    Same,
    /// The configured model decides.
    Pinned,
}

impl std::fmt::Display for StoreState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Untouched => f.write_str("nothing was changed"),
            Self::Tuples { written, of, decides } => {
                let decides = match decides {
                    Decides::Before => "the model from before still decides",
                    Decides::Nothing => "an empty model decides, so nothing is allowed",
                    Decides::Same => "the model decides, because it was loaded before",
                    Decides::Pinned => "the model of `authorization_model_id` decides",
                };
                write!(f, "{written} of {of} tuples are in, and {decides}; load the same again to finish")
            }
            Self::ModelAlone { tuples } => write!(
                f,
                "the new model decides already, and none of its {tuples} tuples were written; load the same again to finish"
            ),
        }
    }
}

impl LoadError {
    /// Returns the code that says what the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.error.code()
    }
}

impl OpenFgaStore {
    /// Loads a model and its tuples, in the order that the module describes. Tuples that are already there stay as they are.
    ///
    /// # Errors
    /// When a write fails. The error says how far the load came and which model decides.
    pub async fn load(&self, model: &ValidModel, tuples: &[RelationshipTuple]) -> Result<Loaded, LoadError> {
        let untouched = |error: AuthzError| LoadError { error: error.into(), state: StoreState::Untouched };
        let new = message(model).map_err(untouched)?;
        let before = self.latest_model().await.map_err(untouched)?;
        let of = tuples.len();
        let stopped = |decides: Decides| {
            move |Stopped { written, error }: Stopped| LoadError {
                error,
                state: StoreState::Tuples { written, of, decides },
            }
        };
        let all_in =
            |decides: Decides| move |error: AuthzError| stopped(decides)(Stopped { written: of, error: error.into() });
        if self.server.model_id.is_some() {
            let model_id = self.write_version(&new).await.map_err(untouched)?;
            self.put(&model_id, tuples).await.map_err(stopped(Decides::Pinned))?;
            return Ok(Loaded { model_id, decides: false });
        }
        let decided = |model_id: String| Loaded { model_id, decides: true };
        if let Some(same) = before.as_ref().filter(|before| content(before) == content(&new)) {
            self.put(&same.id, tuples).await.map_err(stopped(Decides::Same))?;
            return Ok(decided(same.id.clone()));
        }
        if let Some(before) = before.as_ref().filter(|before| takes(before, tuples)) {
            self.put(&before.id, tuples).await.map_err(stopped(Decides::Before))?;
            return self.write_version(&new).await.map(decided).map_err(all_in(Decides::Before));
        }
        if tuples.is_empty() {
            return self.write_version(&new).await.map(decided).map_err(untouched);
        }
        let meanwhile = if before.is_some() { Decides::Before } else { Decides::Nothing };
        let candidate = self.write_version(&new).await.map_err(untouched)?;
        let alone = |error: AuthzError| LoadError { error: error.into(), state: StoreState::ModelAlone { tuples: of } };
        self.write_version(&before.unwrap_or_else(nothing)).await.map_err(alone)?;
        self.put(&candidate, tuples).await.map_err(stopped(meanwhile))?;
        self.write_version(&new).await.map(decided).map_err(all_in(meanwhile))
    }

    async fn latest_model(&self) -> Result<Option<AuthorizationModel>, AuthzError> {
        let request = ReadAuthorizationModelsRequest {
            store_id: self.store_id.clone(),
            page_size: Some(1),
            continuation_token: String::new(),
        };
        let mut client = self.server.client();
        let read = async { client.read_authorization_models(request).await.map_err(|e| wire::failed(&e)) };
        // The server lists the latest model first.
        Ok(self.server.within(read).await?.into_inner().authorization_models.into_iter().next())
    }

    /// Writes a version of the model and returns its id.
    pub(super) async fn write_version(&self, model: &AuthorizationModel) -> Result<String, AuthzError> {
        let AuthorizationModel { id: _, schema_version, type_definitions, conditions } = content(model);
        let store_id = self.store_id.clone();
        let request = WriteAuthorizationModelRequest { store_id, type_definitions, schema_version, conditions };
        let mut client = self.server.client();
        let written = async { client.write_authorization_model(request).await.map_err(|e| wire::failed(&e)) };
        Ok(self.server.within(written).await?.into_inner().authorization_model_id)
    }
}

/// Returns the model without its id.
fn content(model: &AuthorizationModel) -> AuthorizationModel {
    AuthorizationModel { id: String::new(), ..model.clone() }
}

/// Makes a model in which nobody can hold anything.
fn nothing() -> AuthorizationModel {
    let user = TypeDefinition { r#type: "user".to_owned(), ..TypeDefinition::default() };
    AuthorizationModel {
        schema_version: "1.1".to_owned(),
        type_definitions: vec![user],
        ..AuthorizationModel::default()
    }
}

fn message(model: &ValidModel) -> Result<AuthorizationModel, AuthzError> {
    let unsendable = |e: String| AuthzError::Refused(format!("the model cannot be sent: {e}"));
    let text = json::print(model.source()).map_err(|e| unsendable(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| unsendable(e.to_string()))
}

/// Returns whether a server would accept all tuples under this model. A model that cannot be understood here counts as
/// accepting none.
fn takes(model: &AuthorizationModel, tuples: &[RelationshipTuple]) -> bool {
    let text = serde_json::to_string(model).ok();
    let model = text.and_then(|text| json::read(&text).ok()).and_then(|model| ValidModel::stored(model).ok());
    model.is_some_and(|model| model.stores_all(tuples).is_ok())
}
