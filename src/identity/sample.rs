//! Tokens that count as verified, for the tests of other modules.

use std::sync::Arc;

use serde_json::json;

use super::claims;
use super::details::DetailsRules;
use super::names::NameRules;
use super::people::PeopleRule;
use super::rules::{IssuerRules, Rules};
use super::{Algorithm, TokenVerifier, VerifiedToken};
use crate::language::TypeName;

/// The time at which the tokens are issued, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;
/// The difference between clocks that is tolerated, in seconds.
pub(crate) const LEEWAY_SECONDS: u64 = 30;

fn rules() -> Rules {
    let type_name = |name: &str| TypeName::parse(name).unwrap();
    Rules {
        audience: "ragward".to_owned(),
        leeway_seconds: LEEWAY_SECONDS,
        user_type: type_name("user"),
        machine_type: None,
        actor_type: type_name("agent"),
        delegation: None,
        actors_max: 1,
        claim_tuples: Vec::new(),
        claim_context: Vec::new(),
        details: DetailsRules { type_name: "ragward_retrieval".to_owned(), datatype_key: None, classification: None },
    }
}

/// Returns a verifier with the rules of these tokens.
pub(crate) fn verifier() -> TokenVerifier {
    TokenVerifier::new(rules(), Vec::new())
}

/// Returns a token with this subject.
pub(crate) fn token(subject: &str, scope: &str, expires_at: u64) -> Arc<VerifiedToken> {
    let issuer = IssuerRules {
        issuer: "issuer".into(),
        names: NameRules { short_name: None, encode: false },
        people: PeopleRule::default(),
        algorithms: vec![Algorithm::Es256],
    };
    let claims = json!({
        "iss": "issuer", "aud": "ragward", "sub": subject, "client_id": "app", "jti": "1",
        "iat": NOW, "exp": expires_at, "auth_time": NOW, "scope": scope,
    });
    Arc::new(claims::check(claims.as_object().unwrap(), &issuer, &rules(), NOW).unwrap())
}
