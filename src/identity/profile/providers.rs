//! The rows of each provider's profile.

use super::{
    BOUND_TOKEN_TYPE, ClaimMark, Lenience, LoginHintForm, MachineSubject, ProviderProfile, ScopePrefix, SubjectClaim,
    TokenProfile,
};
use crate::identity::people::{PeopleConfig, TextPattern};

/// The types of an access token (RFC 9068, section 4). Media types are compared without regard to case.
pub(super) const ACCESS_TOKEN_TYPES: [&str; 2] = ["at+jwt", "application/at+jwt"];
/// Claims that bind an ID token to what was issued together with it (`OpenID` Connect Core, section 3.3.2.11).
const HASHES: [&str; 3] = ["at_hash", "c_hash", "s_hash"];
/// The claim that binds an ID token to the request of its client.
const NONCE: &str = "nonce";
/// The beginnings of the ids of Keycloak's tokens that a client got for itself (`cc`). Two letters for the session and two for
/// the token (regular, lightweight) stand before the two for the grant.
const KEYCLOAK_CLIENT_GRANTS: [&str; 10] = [
    "onrtcc:*", "onltcc:*", "ofrtcc:*", "ofltcc:*", "trrtcc:*", "trltcc:*", "ntrtcc:*", "ntltcc:*", "ftrtcc:*",
    "ftltcc:*",
];

/// Returns the rows of a profile.
pub(super) fn rows(profile: ProviderProfile) -> TokenProfile {
    match profile {
        ProviderProfile::Rfc9068 => rfc9068(),
        ProviderProfile::Auth0 => auth0(),
        ProviderProfile::Keycloak => keycloak(),
        ProviderProfile::Entra => entra(),
        ProviderProfile::Okta => okta(),
        ProviderProfile::Cognito => cognito(),
        ProviderProfile::Duende => duende(),
    }
}

fn rfc9068() -> TokenProfile {
    TokenProfile {
        types: words(&ACCESS_TOKEN_TYPES),
        missing_type: Lenience::Refuse,
        missing_key_id: Lenience::Refuse,
        access: Vec::new(),
        refused: Vec::new(),
        audience: None,
        missing_audience: Lenience::Refuse,
        client: words(&["client_id"]),
        token_id: "jti".to_owned(),
        missing_token_id: Lenience::Refuse,
        scopes: words(&["scope"]),
        scope_lists: Lenience::Refuse,
        scope_prefix: ScopePrefix::Text(String::new()),
        machine_scopes: Vec::new(),
        machines: Vec::new(),
        subject: SubjectClaim::Sub,
        machine_subject: MachineSubject::Claim,
        login_hint: None,
        login_hint_form: LoginHintForm::Text,
        fractional_times: Lenience::Refuse,
        nulls: Lenience::Refuse,
        tenant: None,
        people: PeopleConfig::default(),
    }
}

/// Returns what all other profiles have in common: they read JSON and key sets as the RFCs allow them.
fn lenient() -> TokenProfile {
    let accept = Lenience::Accept;
    TokenProfile { missing_key_id: accept, fractional_times: accept, nulls: accept, ..rfc9068() }
}

/// Auth0 puts `azp` into access tokens, and lets nobody add it to an ID token. Only names of people have a `|`, which
/// stands behind the name of their connection.
fn auth0() -> TokenProfile {
    TokenProfile {
        types: words(&["JWT"]),
        access: vec![mark("azp", &[])],
        refused: id_token_claims(),
        client: words(&["azp"]),
        missing_token_id: Lenience::Accept,
        login_hint_form: LoginHintForm::IssSub,
        people: PeopleConfig { subject_has: Some("|".to_owned()), ..PeopleConfig::default() },
        ..lenient()
    }
}

/// Keycloak says in a claim `typ` what a token is: `Bearer`, `ID`, `Refresh`, and `DPoP` for an access token that is bound to a
/// key. Only people have sessions (`sid`). Its tokens can be set to have a `nonce`. It asks a person only by the name of their login.
fn keycloak() -> TokenProfile {
    TokenProfile {
        types: [words(&["JWT"]), words(&ACCESS_TOKEN_TYPES)].concat(),
        access: vec![mark("typ", &["Bearer", BOUND_TOKEN_TYPE])],
        refused: words(&HASHES),
        missing_audience: Lenience::Accept,
        client: words(&["azp", "client_id"]),
        machines: vec![mark("jti", &KEYCLOAK_CLIENT_GRANTS)],
        login_hint: Some("preferred_username".to_owned()),
        people: by_claim("sid"),
        ..lenient()
    }
}

/// Entra puts `scp` into the access tokens of people and never into an ID token, which may have `roles`. Its tokens of
/// version 1 have `appid` where those of version 2 have `azp`.
fn entra() -> TokenProfile {
    TokenProfile {
        types: words(&["JWT"]),
        access: vec![mark("scp", &[]), mark("idtyp", &["app"])],
        refused: id_token_claims(),
        client: words(&["azp", "appid"]),
        token_id: "uti".to_owned(),
        scopes: words(&["scp"]),
        machine_scopes: words(&["roles"]),
        machines: vec![mark("idtyp", &["app"])],
        subject: SubjectClaim::Oid,
        people: by_claim("scp"),
        ..lenient()
    }
}

/// Okta's headers have no `typ`. The id of a token says what it is: `AT.…` or `ID.…`.
fn okta() -> TokenProfile {
    TokenProfile {
        missing_type: Lenience::Accept,
        access: vec![mark("jti", &["AT.*"])],
        refused: id_token_claims(),
        client: words(&["cid"]),
        scopes: words(&["scp"]),
        scope_lists: Lenience::Accept,
        subject: SubjectClaim::Uid,
        machine_subject: MachineSubject::Client,
        people: by_claim("uid"),
        ..lenient()
    }
}

/// Cognito's headers have no `typ`, and machines have an `auth_time`, too. Only people have a `username`.
fn cognito() -> TokenProfile {
    TokenProfile {
        missing_type: Lenience::Accept,
        access: vec![mark("token_use", &["access"])],
        refused: id_token_claims(),
        missing_audience: Lenience::Accept,
        scope_prefix: ScopePrefix::Audience,
        people: by_claim("username"),
        ..lenient()
    }
}

/// Duende follows RFC 9068 but for two things: scopes are a list, and a machine's token has no `sub`.
fn duende() -> TokenProfile {
    TokenProfile { scope_lists: Lenience::Accept, machine_subject: MachineSubject::Client, ..lenient() }
}

fn by_claim(claim: &str) -> PeopleConfig {
    PeopleConfig { claim: Some(claim.to_owned()), ..PeopleConfig::default() }
}

fn id_token_claims() -> Vec<String> {
    [words(&HASHES), words(&[NONCE])].concat()
}

fn mark(claim: &str, values: &[&str]) -> ClaimMark {
    let values = values.iter().filter_map(|value| TextPattern::parse(value)).collect();
    ClaimMark { claim: claim.to_owned(), values }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
