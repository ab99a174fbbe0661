//! The context of a request: values that the caller itself states for conditions, beside those of its token.
//!
//! INVARIANT (only listed keys): a request sets a parameter only if `[[identity.request_context]]` lists it for such a
//! caller. A parameter that a claim sets (`[[identity.claim_context]]`) cannot be listed, so a token that lacks the
//! claim leaves it unset. The values join those of the token in [`Principal::in_context`], and nowhere else. All keys
//! of caches, page tokens and calls are made from the principal, so none of them can lack the context.
//!
//! [`Principal::in_context`]: super::Principal::in_context

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::config::{IdentityConfig, IdentityConfigError, RequestContextKey, SettableBy};
use super::token::VerifiedToken;
use crate::language::tuple::{fields_wire_bytes, is_clean, shown};

/// The largest context of a request in bytes, in the encoding of `OpenFGA`'s API. Each remembered decision has a copy of
/// it in its key, so it is small.
pub const REQUEST_CONTEXT_BYTES_MAX: usize = 1_024;
/// The most levels of a context. A text under a key is one level, and a list of texts is two.
pub const REQUEST_CONTEXT_DEPTH_MAX: usize = 8;
/// Parameters that only a server can know. No caller may state them, so that a model can rely on them.
const RESERVED: [&str; 2] = ["client_ip", "now"];

/// The parameters that requests may set. By default there are none.
#[derive(Clone, Debug, Default)]
pub struct RequestContextRules {
    settable: BTreeMap<String, SettableBy>,
}

/// Values that a request states, which its caller may state.
#[derive(Clone, Debug, PartialEq)]
pub struct StatedContext(Map<String, Value>);

/// The reason why the context of a request is refused. It continues a sentence that begins with the field's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatedContextError {
    /// The configuration does not list the key.
    #[error("has `{0}`, which this server lets no request set")]
    NotSettable(String),
    /// The key is not for delegated or narrowed tokens.
    #[error("has `{0}`, which a delegated or narrowed token may not set")]
    Bounded(String),
    /// The key has no value.
    #[error("has no value for `{0}`")]
    NoValue(String),
    /// A text or a name within the value has a control character, which `OpenFGA` refuses.
    #[error("has control characters in `{0}`")]
    ControlCharacters(String),
    /// The value has too many levels.
    #[error("has more than {REQUEST_CONTEXT_DEPTH_MAX} levels in `{0}`")]
    TooDeep(String),
    /// All values together are too large.
    #[error("has {0} bytes, at most {REQUEST_CONTEXT_BYTES_MAX} are allowed")]
    TooLarge(usize),
}

impl RequestContextRules {
    /// Reads which parameters requests may set.
    ///
    /// # Errors
    /// If a parameter is no name, is listed twice, is set by a claim, or is the server's own.
    pub fn new(config: &IdentityConfig) -> Result<Self, IdentityConfigError> {
        let mut settable = BTreeMap::new();
        for RequestContextKey { parameter, settable_by } in &config.request_context {
            let fault = if parameter.is_empty() || parameter.contains(char::is_control) {
                "has a `parameter` that is no name"
            } else if RESERVED.contains(&parameter.as_str()) {
                "lists a parameter that only the server may set"
            } else if config.claim_context.iter().any(|mapping| mapping.parameter == *parameter) {
                "lists a parameter that `identity.claim_context` sets: a caller could state what its token must tell"
            } else if settable.insert(parameter.clone(), *settable_by).is_some() {
                "lists a parameter twice"
            } else {
                continue;
            };
            return Err(IdentityConfigError::new(format!(
                "`identity.request_context` {fault}: `{}`",
                shown(parameter)
            )));
        }
        Ok(Self { settable })
    }

    /// Admits the values that a request states. `token` is the caller's, and `None` for a caller that is believed.
    ///
    /// # Errors
    /// If the caller may not set one of them, or one of them has no value, is too deep or cannot be sent to `OpenFGA`, or all
    /// of them are too large together. A key that may not be set is told before anything about its value.
    pub fn admit(
        &self,
        stated: Map<String, Value>,
        token: Option<&VerifiedToken>,
    ) -> Result<StatedContext, StatedContextError> {
        let is_bounded = token.is_some_and(|token| token.is_delegated() || token.is_narrowed());
        for key in stated.keys() {
            match self.settable.get(key) {
                None => return Err(StatedContextError::NotSettable(shown(key))),
                Some(SettableBy::Unbounded) if is_bounded => {
                    return Err(StatedContextError::Bounded(shown(key)));
                }
                Some(SettableBy::Unbounded | SettableBy::Everyone) => {}
            }
        }
        let bytes = fields_wire_bytes(&stated);
        if bytes > REQUEST_CONTEXT_BYTES_MAX {
            return Err(StatedContextError::TooLarge(bytes));
        }
        for (key, value) in &stated {
            if value.is_null() {
                return Err(StatedContextError::NoValue(shown(key)));
            }
            if !is_within_depth(value) {
                return Err(StatedContextError::TooDeep(shown(key)));
            }
            if !is_clean(value) {
                return Err(StatedContextError::ControlCharacters(shown(key)));
            }
        }
        Ok(StatedContext(stated))
    }
}

impl StatedContext {
    /// Returns whether the request states nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys in alphabetical order.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.0.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// Returns the values under their keys.
    pub(super) fn into_values(self) -> Map<String, Value> {
        self.0
    }
}

fn is_within_depth(value: &Value) -> bool {
    // A stack instead of recursion, because the caller chooses the depth. The size is bounded already.
    let mut open = vec![(value, 1)];
    while let Some((value, depth)) = open.pop() {
        if depth > REQUEST_CONTEXT_DEPTH_MAX {
            return false;
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => open.extend(fields.values().map(|item| (item, depth + 1))),
        }
    }
    true
}

#[cfg(test)]
mod tests;
