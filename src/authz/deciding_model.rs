//! Facts that an authorization model states by itself, before anybody looks at a tuple.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::AuthzError;
use crate::language::Relation;
use crate::language::model::AuthorizationModel;
use crate::language::subtracted::Subtracted;

/// Reads the model that decides now.
#[async_trait]
pub trait DecidingModel: Send + Sync {
    /// Reads which relations the model takes users out by.
    ///
    /// # Errors
    /// When that is not known. Then no missing claim may be taken for harmless.
    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError>;

    /// Returns a sentence that says whether the model lacks this type, or this relation of it. A check of what the model
    /// lacks is denied, whoever asks. Without a type, any type may have the relation. Returns `None` when the model lacks
    /// nothing, or when it cannot be read here.
    ///
    /// # Errors
    /// When the authorizer is out of reach or has no model.
    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError>;
}

/// The relations that a model takes users out by.
#[derive(Clone, Debug)]
pub struct SubtractedBy {
    /// The id of the model; two ids, separated by a space, where either of two models may decide.
    pub model_id: String,
    /// The relations, as the model's operators use them.
    pub subtracted: Arc<Subtracted>,
}

impl SubtractedBy {
    /// Joins what two models take users out by, for the time in which either may decide.
    #[cfg(feature = "openfga")]
    pub(super) fn or(&self, other: &Self) -> Self {
        let model_id = format!("{} {}", self.model_id, other.model_id);
        Self { model_id, subtracted: Arc::new(self.subtracted.or(&other.subtracted)) }
    }
}

/// Remembers what the last model takes users out by. A model never changes, so its id tells whether that still holds.
#[derive(Debug, Default)]
pub(super) struct SubtractedByLast(Mutex<Option<SubtractedBy>>);

impl SubtractedByLast {
    pub(super) fn get(&self, model_id: &str) -> Option<SubtractedBy> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.filter(|last| last.model_id == model_id)
    }

    pub(super) fn put(&self, model_id: &str, model: &AuthorizationModel) -> SubtractedBy {
        let by = SubtractedBy { model_id: model_id.to_owned(), subtracted: Arc::new(Subtracted::of(model)) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(by.clone());
        by
    }
}
