//! Who is asking. Until tokens are verified here, a principal is made from a name that the caller states, and only a
//! server that was started with `--insecure-identity` does so.

use std::fmt;
use std::sync::Arc;

use crate::relationship::{Contextual, Object, ParseError, User};

/// The one whose rights bound the answer. Always a single object such as `user:anne`, never a wildcard or a userset.
#[derive(Clone, PartialEq, Debug)]
pub struct Principal {
    subject: Object,
    contextual: Arc<Contextual>,
}

impl Principal {
    /// Believes the name that the caller states.
    ///
    /// # Errors
    /// When it is not of the form `type:id`: a wildcard or a userset asks for nobody in particular.
    pub fn stated(user: &str) -> Result<Self, ParseError> {
        match User::parse(user)? {
            User::Object(subject) => Ok(Self { subject, contextual: Arc::default() }),
            User::Userset(..) | User::Wildcard(_) => Err(ParseError {
                what: "user",
                value: user.to_owned(),
                rule: "must be one user such as `user:anne`, not a wildcard or a userset".to_owned(),
            }),
        }
    }

    /// The user that is checked.
    #[must_use]
    pub fn subject(&self) -> &Object {
        &self.subject
    }

    /// What is known of the user for this request beside the stored relationships.
    #[must_use]
    pub fn contextual(&self) -> &Arc<Contextual> {
        &self.contextual
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)
    }
}
