//! The one whose rights bound the answer, and everything about it that is audited.

use std::fmt;
use std::sync::Arc;

use super::Scopes;
use crate::relationship::{Contextual, Object, ParseError, User};

/// The one whose rights bound the answer. Always a single object such as `user:anne`, never a wildcard or a userset.
#[derive(Clone, PartialEq, Debug)]
pub struct Principal {
    subject: Object,
    contextual: Arc<Contextual>,
    token: Option<Arc<TokenFacts>>,
    asserted: bool,
}

/// What a verified token says of the caller beside the subject: for the record, and for delegation.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenFacts {
    /// The issuer, exactly as configured (`iss`).
    pub issuer: Arc<str>,
    /// The subject as the issuer spells it (`sub`).
    pub subject: String,
    /// The client that the token was issued to (`client_id`).
    pub client_id: String,
    /// The token's id (`jti`). It is recorded as a digest only.
    pub token_id: String,
    /// Ragward's scopes in it.
    pub scopes: Scopes,
    /// Who acts for the subject, outermost first (`act`, RFC 8693): the first is checked, the others are history.
    pub actors: Vec<Actor>,
    /// Seconds since 1970 after which the token is void (`exp`).
    pub expires_at: u64,
}

/// Somebody who acts for another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// As `OpenFGA` knows it, `agent:assistant`.
    pub object: Object,
}

impl Principal {
    /// Believes the name that the caller states.
    ///
    /// # Errors
    /// When it is not of the form `type:id`: a wildcard or a userset asks for nobody in particular.
    pub fn stated(user: &str) -> Result<Self, ParseError> {
        match User::parse(user)? {
            User::Object(subject) => Ok(Self { subject, contextual: Arc::default(), token: None, asserted: false }),
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

    /// What the token said; `None` for a name that was believed without one.
    #[must_use]
    pub fn token(&self) -> Option<&TokenFacts> {
        self.token.as_deref()
    }

    /// Who acts for the subject, outermost first; nobody when the subject itself asks.
    #[must_use]
    pub fn actors(&self) -> &[Actor] {
        self.token.as_ref().map(|token| token.actors.as_slice()).unwrap_or_default()
    }

    /// The subject of the token whose bearer named this user (scope `ragward:assert_user`), as its issuer spells it.
    #[must_use]
    pub fn asserted_by(&self) -> Option<&str> {
        self.token.as_ref().filter(|_| self.asserted).map(|token| token.subject.as_str())
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)
    }
}
