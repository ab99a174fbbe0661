//! A verified token, and the facts that it states about its bearer.

use std::sync::Arc;

use super::config::DelegationOn;
use super::confirmation::{CertificateThumbprint, Confirmation, KeyThumbprint};
use super::details::AuthorizationDetails;
use super::mapping::Untold;
use super::names::NameRules;
use super::scope::{Scope, Scopes};
use crate::engine::Contextual;
use crate::language::{Object, Relation, TypeName};

/// Says whether a request may name another user than the subject of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherUsers {
    /// The request is answered for the user that it names.
    Accepted,
    /// The request is refused.
    Refused,
}

/// A token that was verified, and everything that Ragward believes of its bearer.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedToken {
    pub(super) facts: Arc<TokenFacts>,
    /// The audience under which the token was verified.
    pub(super) audience: Arc<str>,
    /// The subject as an `OpenFGA` user. `None` for a machine, if machines have no type.
    pub(super) user: Option<Object>,
    pub(super) user_type: TypeName,
    /// The rules by which the issuer's names become users.
    pub(super) names: NameRules,
    pub(super) contextual: Arc<Contextual>,
    pub(super) untold: Vec<Untold>,
    pub(super) untold_of_others: Vec<Untold>,
    pub(super) delegation: Option<Arc<Delegation>>,
    pub(super) details: Option<Arc<AuthorizationDetails>>,
    /// The key that the token is bound to (`cnf`).
    pub(super) confirmation: Option<Confirmation>,
    /// The time at which the user logged in (`auth_time`), in seconds since 1970.
    pub(super) authenticated_at: Option<u64>,
    /// The time at which the token was issued (`iat`), in seconds since 1970.
    pub(super) issued_at: u64,
    /// The way in which the user logged in (`acr`).
    pub(super) authentication_class: Option<String>,
    /// The name by which the issuer asks the person.
    pub(super) login_hint: Option<String>,
}

/// The facts that a verified token states, for the audit record and for delegation.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenFacts {
    /// The issuer, exactly as configured (`iss`).
    pub issuer: Arc<str>,
    /// The subject as the issuer spells it: `sub`, or the claim that its profile names.
    pub subject: String,
    /// The claim `sub`, by which the issuer names the subject in other tokens; the `subject` if the token has none.
    pub standard_subject: String,
    /// The client that the token was issued to: `client_id`, or the claim that the issuer's profile names.
    pub client_id: String,
    /// The token's id: `jti`, or what stands for it in the issuer's profile. Only its digest is recorded.
    pub token_id: String,
    /// The token's scopes, as far as they are Ragward's.
    pub scopes: Scopes,
    /// The actors who act for the subject, outermost first (`act`, RFC 8693). The first one is checked, the others are
    /// history. If the token names none, this may be its client (`identity.issuers.direct_clients`).
    pub actors: Vec<Actor>,
    /// The time at which the token expires (`exp`), in seconds since 1970.
    pub expires_at: u64,
}

/// Somebody who acts for another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// The actor as an `OpenFGA` object, such as `agent:assistant`.
    pub object: Object,
}

/// The actor of a request, and the relation that the actor must hold, beside the subject's own right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delegation {
    /// The outermost actor, who made the request.
    pub actor: Object,
    /// The relation that the actor must hold.
    pub relation: Relation,
    /// The object that the actor must hold it on.
    pub on: DelegationOn,
}

impl VerifiedToken {
    /// Returns the facts that the audit record takes from the token.
    #[must_use]
    pub fn facts(&self) -> &TokenFacts {
        &self.facts
    }

    /// Returns the audience under which the token was verified. The token may name others, too.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Returns the token's subject, or `None` for a machine that is not a user.
    #[must_use]
    pub fn user(&self) -> Option<&Object> {
        self.user.as_ref()
    }

    /// Returns whether details narrow the token. Such a token may retrieve but not administer.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        self.details.is_some()
    }

    /// Returns whether the token may be used over a connection with this certificate of its client. A token that is bound to no
    /// key may be used over every connection. No connection is enough for a token with a [`VerifiedToken::bound_key`].
    ///
    /// Ask this for each call, because the same token may arrive over another connection.
    #[must_use]
    pub fn is_confirmed_by(&self, certificate: Option<CertificateThumbprint>) -> bool {
        match self.confirmation {
            None => true,
            Some(Confirmation::Certificate(own)) => certificate == Some(own),
            Some(Confirmation::Key(_)) => false,
        }
    }

    /// Returns the key that must sign a proof with each request of this token (RFC 9449); `None` if the token needs no proof.
    #[must_use]
    pub fn bound_key(&self) -> Option<KeyThumbprint> {
        match self.confirmation {
            Some(Confirmation::Key(key)) => Some(key),
            Some(Confirmation::Certificate(_)) | None => None,
        }
    }

    /// Returns whether somebody else acts for the subject.
    #[must_use]
    pub fn is_delegated(&self) -> bool {
        self.delegation.is_some()
    }

    /// Returns whether the token is good for one request only.
    #[must_use]
    pub fn is_single_use(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.is_single_use())
    }

    /// Returns whether the token holds an approval of a request, be it the one at hand or another one.
    #[must_use]
    pub fn holds_approval(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.holds_approval())
    }

    /// Returns whether the token speaks for a person, not for a machine.
    #[must_use]
    pub fn is_of_person(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.type_name() == self.user_type.as_str())
    }

    /// Returns the name by which the issuer asks the person for an approval; `None` if the token does not tell it. It may be
    /// somebody else's by now, so only the subject of the issuer's answer says who was asked.
    #[must_use]
    pub fn login_hint(&self) -> Option<&str> {
        self.login_hint.as_deref()
    }

    /// Returns the time at which the token was issued (`iat`), in seconds since 1970.
    #[must_use]
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Returns the facts about its subject that the token leaves out. The token is refused if this may let somebody in
    /// whom the model keeps out.
    #[must_use]
    pub fn untold(&self) -> &[Untold] {
        &self.untold
    }

    /// Returns the facts that the token cannot tell about another user whom its bearer names.
    #[must_use]
    pub fn untold_of_others(&self) -> &[Untold] {
        &self.untold_of_others
    }

    /// Returns whether the bearer may name another user. The bearer of a delegated or narrowed token may not, whatever
    /// its scopes.
    #[must_use]
    pub fn other_users(&self) -> OtherUsers {
        let is_bounded = self.is_delegated() || self.is_narrowed();
        if self.facts.scopes.contains(Scope::AssertUser) && !is_bounded {
            OtherUsers::Accepted
        } else {
            OtherUsers::Refused
        }
    }
}
