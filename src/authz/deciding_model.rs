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
    /// Reads the relations by which the model takes users out.
    ///
    /// # Errors
    /// When they are not known. Then a claim that a token lacks may be one that would exclude its user, so its absence
    /// must not be taken for harmless.
    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError>;

    /// Says in a sentence that the model lacks this type, or this relation of the type. A check of either is denied,
    /// whoever asks. Without a type, the relation may belong to any type. Returns `None` when the model lacks nothing,
    /// or when this program cannot read the model.
    ///
    /// # Errors
    /// When the authorizer is out of reach or has no model.
    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError>;
}

/// The relations by which a model takes users out.
#[derive(Clone, Debug)]
pub struct SubtractedBy {
    /// The id of the model. If either of two models may decide, this holds both ids, separated by a space.
    pub model_id: String,
    /// The relations, and the parameters of conditions, that the model subtracts with `but not`.
    pub subtracted: Arc<Subtracted>,
}

impl SubtractedBy {
    /// Joins the relations of two models, for the time in which either may decide.
    #[cfg(feature = "openfga")]
    pub(super) fn or(&self, other: &Self) -> Self {
        let model_id = format!("{} {}", self.model_id, other.model_id);
        Self { model_id, subtracted: Arc::new(self.subtracted.or(&other.subtracted)) }
    }
}

/// Remembers the relations of the last model. A model never changes, so its id tells whether they still hold.
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
