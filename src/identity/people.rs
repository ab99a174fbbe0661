//! Tells whether a token is a person's.
//!
//! INVARIANT (a positive mark): a token is a person's only if it has every mark that the settings of its issuer ask
//! for, and nothing in it says that it is a machine's. All other tokens are machines', and a machine is never part of
//! `user:*`. So a missing claim never makes a machine a person. An added claim never does so either, as long as another
//! claim still shows the machine.

use std::fmt;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The claim that marks people unless another is configured: the time of their login (RFC 9068, section 2.2.1), which a
/// machine does not have.
const LOGIN_TIME: &str = "auth_time";
/// The prefix of Keycloak's user names for clients that act for themselves.
const SERVICE_ACCOUNT: &str = "service-account-";
/// The suffix of Auth0's subjects for clients that act for themselves.
const AUTH0_CLIENT: &str = "@clients";
/// Claims that name the client that a token was issued to. If the subject is one of them, the client acts for itself.
const CLIENT_CLAIMS: [&str; 5] = ["client_id", "azp", "appid", "cid", "clientId"];
/// Claims that Keycloak gives only to clients that act for themselves.
const SERVICE_ACCOUNT_CLAIMS: [&str; 3] = ["clientId", "clientHost", "clientAddress"];
/// Claims that name the grant by which a token was issued.
const GRANT_CLAIMS: [&str; 2] = ["gty", "grant_type"];
/// Claims that every token has, or that machines choose. None of them can mark a person.
const NO_MARKS: [&str; 12] =
    ["iss", "aud", "sub", "client_id", "jti", "iat", "exp", "nbf", "azp", "appid", "cid", "clientId"];
/// Claims that hold several words in one text.
const WORDS: [&str; 2] = ["scope", "scp"];

/// The marks of a person's token. The token needs every mark that is set here. If a token says that a client asks for
/// itself, it is a machine's even with all marks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PeopleConfig {
    /// A claim that only people's tokens have. When unset, it is that of the issuer's profile: `auth_time` for `rfc9068`.
    // The schema calls it a text, not an optional one. Otherwise `config` would refuse an empty text before this module
    // can name `clients_alone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub claim: Option<String>,
    /// The claim is one of these texts, or a list with one of them. When there are none, it is anything but null, false, 0 and
    /// an empty value.
    pub values: Vec<String>,
    /// Clients that only people use: the token's `client_id` is one of them. When there are none, any client will do.
    pub clients: Vec<String>,
    /// Ask for no claim: the `clients` alone mark people.
    pub clients_alone: bool,
    /// A text that people's subjects alone contain. If no claim is named, it is the mark instead of a claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub subject_has: Option<String>,
    /// Subjects that are machines whatever else is in their tokens. `*` at the beginning or the end stands for anything.
    #[schemars(with = "Vec<String>")]
    pub machines: Vec<TextPattern>,
}

/// A text in which one `*`, at its beginning or end, stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Whole(String),
    Before(String),
    Behind(String),
}

/// The reason why marks do not tell people from machines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeopleConfigError {
    /// The name of the claim is empty.
    #[error(
        "has an empty `claim`: leave it out to ask for `auth_time`, or replace it with `clients_alone = true` if the \
         `clients` alone mark people"
    )]
    EmptyClaim,
    /// The text that marks people's subjects is empty.
    #[error("has an empty `subject_has`, which every subject contains")]
    EmptySubject,
    /// Values are named for no claim.
    #[error("sets `subject_has` and `values`, and no `claim` that would have the values")]
    NeedlessValues,
    /// A claim is named although none is asked for.
    #[error("sets `clients_alone`, which asks for no claim: remove `claim` and `values`, or `clients_alone`")]
    NeedlessClaim,
    /// Nothing marks a person.
    #[error("sets `clients_alone` and names no `clients`: name the clients that people alone use")]
    NoMark,
    /// Machines' tokens have this claim, too.
    #[error("names claim `{0}`, which machines' tokens have, too")]
    Ambiguous(String),
}

impl PeopleConfig {
    /// Checks that the marks tell people from machines.
    pub(super) fn check(&self) -> Result<(), PeopleConfigError> {
        if self.claim.as_deref() == Some("") {
            return Err(PeopleConfigError::EmptyClaim);
        }
        if self.subject_has.as_deref() == Some("") {
            return Err(PeopleConfigError::EmptySubject);
        }
        let is_needless = self.claim.is_some() || !self.values.is_empty();
        match self.marking_claim() {
            None if self.clients_alone && is_needless => Err(PeopleConfigError::NeedlessClaim),
            None if is_needless => Err(PeopleConfigError::NeedlessValues),
            None if self.clients_alone && self.clients.is_empty() => Err(PeopleConfigError::NoMark),
            Some(claim) if NO_MARKS.contains(&claim) || (WORDS.contains(&claim) && self.values.is_empty()) => {
                Err(PeopleConfigError::Ambiguous(claim.to_owned()))
            }
            None | Some(_) => Ok(()),
        }
    }

    /// Returns whether a token with these claims is a person's.
    pub(super) fn is_person(&self, claims: &Map<String, Value>, subject: &str, client_id: &str) -> bool {
        let has_claim = match self.marking_claim() {
            Some(claim) => self.is_marked_by(claim, claims),
            // Without a claim, clients or subjects mark people. Settings with neither mark nobody.
            None => !self.clients.is_empty() || (self.subject_has.is_some() && !self.clients_alone),
        };
        let is_like_people =
            self.subject_has.as_ref().is_none_or(|part| !part.is_empty() && subject.contains(part.as_str()));
        let has_client = self.clients.is_empty() || is_among(client_id, &self.clients);
        let is_machine = self.machines.iter().any(|pattern| pattern.fits(subject));
        // A profile may read the client from a claim that only this provider has.
        let is_client = subject == client_id || claims.get("sub").and_then(Value::as_str) == Some(client_id);
        has_claim && has_client && is_like_people && !is_machine && !is_client && !says_machine(claims, subject)
    }

    /// Returns whether the settings name a mark of people, so that the mark of the issuer's profile does not count.
    pub(super) fn has_mark(&self) -> bool {
        self.claim.is_some() || self.clients_alone || self.subject_has.is_some()
    }

    /// Returns these settings with the mark of others.
    pub(super) fn marked_like(&self, other: &Self) -> Self {
        Self { claim: other.claim.clone(), subject_has: other.subject_has.clone(), ..self.clone() }
    }

    /// Returns the claim that a person's token must have, or `None` if the clients alone mark people, or their subjects do.
    fn marking_claim(&self) -> Option<&str> {
        match (&self.claim, &self.subject_has) {
            (_, _) if self.clients_alone => None,
            (Some(claim), _) => Some(claim),
            (None, Some(_)) => None,
            (None, None) => Some(LOGIN_TIME),
        }
    }

    fn is_marked_by(&self, claim: &str, claims: &Map<String, Value>) -> bool {
        let Some(value) = claims.get(claim) else { return false };
        if self.values.is_empty() {
            return says_something(value);
        }
        match value {
            Value::String(text) if WORDS.contains(&claim) => text.split(' ').any(|word| is_among(word, &self.values)),
            Value::String(text) => is_among(text, &self.values),
            Value::Array(items) => items.iter().filter_map(Value::as_str).any(|item| is_among(item, &self.values)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        }
    }
}

fn is_among(text: &str, listed: &[String]) -> bool {
    listed.iter().any(|one| one == text)
}

/// Returns whether a value is more than a placeholder: some providers give machines a login at time 0.
pub(super) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64().is_some_and(|number| number > 0.0),
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Returns whether a token says that a machine acts for itself, in the way of one of the common providers.
fn says_machine(claims: &Map<String, Value>, subject: &str) -> bool {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    let is_service_account = |claim: &str| text(claim).is_some_and(|name| name.starts_with(SERVICE_ACCOUNT));
    // A grant is not a person's if it is empty, malformed or that of client credentials. A kind of token other than
    // `user` is not a person's either.
    let is_own_grant = |claim: &&str| claims.get(*claim).is_some_and(|grant| !is_grant_of_people(grant));
    let is_other_kind = claims.get("idtyp").is_some_and(|kind| kind.as_str() != Some("user"));
    // A profile may take the subject from another claim. The client acts for itself also if `sub` names it.
    let is_client = |claim: &&str| text(claim).is_some_and(|client| client == subject || text("sub") == Some(client));
    CLIENT_CLAIMS.iter().any(is_client)
        || subject.ends_with(AUTH0_CLIENT)
        || subject.starts_with(SERVICE_ACCOUNT)
        || is_service_account("preferred_username")
        || is_service_account("username")
        || SERVICE_ACCOUNT_CLAIMS.iter().any(|claim| claims.contains_key(*claim))
        || GRANT_CLAIMS.iter().any(is_own_grant)
        || is_other_kind
}

/// Returns whether a client got a token for itself, not from another client in exchange. The token must say so of this very
/// client: the token of a service account that was exchanged still bears the account's name.
pub(super) fn acts_for_itself(claims: &Map<String, Value>, subject: &str, client: &str) -> bool {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    // Keycloak writes user names in small letters.
    let account = format!("{SERVICE_ACCOUNT}{}", client.to_lowercase());
    let is_account = |claim: &str| text(claim) == Some(account.as_str());
    subject == client
        || subject.strip_suffix(AUTH0_CLIENT) == Some(client)
        || is_account("preferred_username")
        || is_account("username")
        // Entra exchanges tokens of people alone.
        || text("idtyp") == Some("app")
}

/// Returns whether all grants that a claim names may be a person's.
fn is_grant_of_people(grant: &Value) -> bool {
    let is_peoples = |name: &str| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        !name.is_empty() && !name.contains("client-credentials")
    };
    match grant {
        Value::String(names) => names.split(' ').all(is_peoples),
        Value::Array(names) => names.iter().all(|name| name.as_str().is_some_and(is_peoples)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

impl TextPattern {
    /// Parses a pattern. Returns `None` if the text has no character but `*`, or has a `*` anywhere but at one end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest): (fn(String) -> Pattern, &str) = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(rest), _) => (Pattern::Behind, rest),
            (None, Some(rest)) => (Pattern::Before, rest),
            (None, None) => (Pattern::Whole, text),
        };
        let is_pattern = !rest.is_empty() && !rest.contains('*');
        is_pattern.then(|| Self(kind(rest.to_owned())))
    }

    /// Returns whether the pattern stands for this text.
    pub(super) fn fits(&self, found: &str) -> bool {
        match &self.0 {
            Pattern::Whole(text) => found == text,
            Pattern::Before(text) => found.starts_with(text),
            Pattern::Behind(text) => found.ends_with(text),
        }
    }
}

impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Whole(text) => f.write_str(text),
            Pattern::Before(text) => write!(f, "{text}*"),
            Pattern::Behind(text) => write!(f, "*{text}"),
        }
    }
}

impl Serialize for TextPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TextPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is not a pattern for subjects and claims: write one `*`, at the beginning or the end, beside other \
                 characters"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_person(people: &PeopleConfig, claims: &Value) -> bool {
        let claims = claims.as_object().unwrap();
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or("app");
        people.is_person(claims, text("sub"), text("client_id"))
    }

    /// Reads the marks of people as a configuration file has them.
    fn people(settings: Value) -> PeopleConfig {
        serde_json::from_value(settings).unwrap()
    }

    /// Returns the claims of a client that acts for itself, as each provider writes them.
    fn machines() -> [(&'static str, Value); 9] {
        let keycloak = "3f0c1f1e-7a39-4b6e-9d5c-0f6a1c6b8a77";
        [
            ("RFC 9068", json!({"sub": "crawler", "client_id": "crawler"})),
            (
                "Auth0",
                json!({"sub": "x1@clients", "azp": "x1", "client_id": "x1", "gty": "client-credentials", "scope": "openid"}),
            ),
            (
                "Keycloak",
                json!({
                    "sub": keycloak, "client_id": "crawler", "azp": "crawler", "acr": "1", "preferred_username":
                    "service-account-crawler", "clientHost": "10.0.0.1", "clientAddress": "10.0.0.1",
                }),
            ),
            (
                "Keycloak without its host",
                json!({"sub": keycloak, "client_id": "crawler", "acr": "1", "preferred_username": "service-account-crawler"}),
            ),
            (
                "Entra",
                json!({"sub": "oid-1", "oid": "oid-1", "appid": "a1", "client_id": "a1", "idtyp": "app", "roles": ["x"]}),
            ),
            ("Okta", json!({"sub": "0oa1", "cid": "0oa1", "client_id": "0oa1", "scp": ["x"]})),
            ("a named account", json!({"sub": "service-account-x", "client_id": "x"})),
            ("a grant in a list", json!({"sub": "y", "client_id": "x", "gty": ["client_credentials"]})),
            ("a login at 0", json!({"sub": "y", "client_id": "x", "auth_time": 0, "clientId": "x"})),
        ]
    }

    /// Returns claims that machines might be given, or that a person's token has.
    fn additions() -> Vec<(&'static str, Value)> {
        vec![
            ("auth_time", json!(1_800_000_000)),
            ("auth_time", json!(0)),
            ("acr", json!("mfa")),
            ("amr", json!(["pwd"])),
            ("sid", json!("s1")),
            ("email", json!("anne@example.com")),
            ("name", json!("Anne")),
            ("preferred_username", json!("anne")),
            ("username", json!("anne")),
            ("scope", json!("openid profile")),
            ("scp", json!("openid")),
            ("idtyp", json!("user")),
            ("gty", json!("password")),
            ("act", json!({"sub": "helper"})),
            ("azp", json!("desk")),
            ("client_id", json!("desk")),
        ]
    }

    #[test]
    fn no_claim_more_or_less_makes_a_machine_a_person() {
        for (shape, claims) in machines() {
            let default = PeopleConfig::default();
            assert!(!is_person(&default, &claims), "{shape}");
            for (name, value) in additions() {
                // Inserting a claim that is there already would change it, not add it.
                if claims.get(name).is_some() {
                    continue;
                }
                let mut with = claims.clone();
                with[name] = value.clone();
                assert!(!is_person(&default, &with), "{shape} with {name} {value}");
            }
            let names: Vec<String> = claims.as_object().unwrap().keys().cloned().collect();
            for name in names {
                let mut without = claims.clone();
                without.as_object_mut().unwrap().remove(&name);
                assert!(!is_person(&default, &without), "{shape} without {name}");
            }
        }
    }

    #[test]
    fn a_person_is_whoever_bears_the_mark() {
        let by_time = PeopleConfig::default();
        let by_client = people(json!({
            "clients_alone": true, "clients": ["desk", "wiki"], "machines": ["bot-*", "*-bot", "robot"],
        }));
        let by_value = people(json!({"claim": "kind", "values": ["person", "guest"]}));
        let by_scope = people(json!({"claim": "scope", "values": ["openid"], "clients": ["desk"]}));
        let base = json!({"sub": "anne", "client_id": "desk", "auth_time": 1_800_000_000, "kind": "person", "scope": "a openid"});
        let rows: [(&str, Value, [bool; 4]); 20] = [
            ("all marks", json!({}), [true; 4]),
            ("no time", json!({"auth_time": null}), [false, true, true, true]),
            ("a time of 0", json!({"auth_time": 0}), [false, true, true, true]),
            ("another client", json!({"client_id": "wiki"}), [true, true, true, false]),
            ("a client that is not listed", json!({"client_id": "job"}), [true, false, true, false]),
            ("another kind", json!({"kind": "job"}), [true, true, false, true]),
            ("a second kind", json!({"kind": ["x", "guest"]}), [true; 4]),
            ("a kind of another case", json!({"kind": "Person"}), [true, true, false, true]),
            ("a kind that is no text", json!({"kind": true}), [true, true, false, true]),
            ("no scope", json!({"scope": "a openidx"}), [true, true, true, false]),
            ("a subject like a bot's", json!({"sub": "bot-1"}), [true, false, true, true]),
            ("a subject like a bot's behind", json!({"sub": "x-bot"}), [true, false, true, true]),
            ("a robot", json!({"sub": "robot"}), [true, false, true, true]),
            ("not a robot", json!({"sub": "robots"}), [true; 4]),
            ("the client itself", json!({"sub": "desk"}), [false; 4]),
            ("the authorized party itself", json!({"azp": "anne"}), [false; 4]),
            ("a client of Auth0", json!({"sub": "desk1@clients"}), [false; 4]),
            ("a grant of Auth0's people", json!({"gty": ["refresh_token", "authorization_code"]}), [true; 4]),
            ("a grant that is no text", json!({"gty": 1}), [false; 4]),
            ("a kind of token", json!({"idtyp": "device"}), [false; 4]),
        ];
        for (row, more, expected) in rows {
            let mut claims = base.clone();
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let found = [&by_time, &by_client, &by_value, &by_scope].map(|people| is_person(people, &claims));
            assert_eq!(found, expected, "{row}");
        }
    }

    #[test]
    fn a_client_is_no_person_whatever_claim_names_it() {
        let rows = [
            ("a person", "anne", "anne", true),
            ("the client itself", "desk", "desk", false),
            ("the client, whose name is read from elsewhere", "desk", "5c2f4a4e", false),
        ];
        for (row, sub, subject, expected) in rows {
            let claims = json!({"sub": sub, "application": "desk", "auth_time": 1_800_000_000});
            let found = PeopleConfig::default().is_person(claims.as_object().unwrap(), subject, "desk");
            assert_eq!(found, expected, "{row}");
        }
    }

    #[test]
    fn marks_tell_people_from_machines() {
        let rows = [
            ("nothing", json!({}), Ok(())),
            ("the claim that counts anyway", json!({"claim": "auth_time"}), Ok(())),
            ("a claim and clients", json!({"claim": "sid", "clients": ["desk"]}), Ok(())),
            ("clients alone", json!({"clients_alone": true, "clients": ["desk"]}), Ok(())),
            ("an empty claim", json!({"claim": ""}), Err(PeopleConfigError::EmptyClaim)),
            (
                "an empty claim and clients",
                json!({"claim": "", "clients": ["desk"]}),
                Err(PeopleConfigError::EmptyClaim),
            ),
            ("no clients, alone", json!({"clients_alone": true}), Err(PeopleConfigError::NoMark)),
            (
                "clients alone, and a claim",
                json!({"clients_alone": true, "clients": ["desk"], "claim": "sid"}),
                Err(PeopleConfigError::NeedlessClaim),
            ),
            (
                "clients alone, and values",
                json!({"clients_alone": true, "clients": ["desk"], "values": ["a"]}),
                Err(PeopleConfigError::NeedlessClaim),
            ),
        ];
        for (row, settings, expected) in rows {
            assert_eq!(people(settings).check(), expected, "{row}");
        }
        for claim in NO_MARKS.into_iter().chain(WORDS) {
            let found = people(json!({"claim": claim})).check();
            assert_eq!(found, Err(PeopleConfigError::Ambiguous(claim.to_owned())), "{claim}");
        }
        for claim in WORDS {
            assert_eq!(people(json!({"claim": claim, "values": ["a"]})).check(), Ok(()), "{claim} with a value");
        }
    }

    #[test]
    fn clients_mark_people_beside_the_login_unless_they_do_alone() {
        let login = json!({"sub": "anne", "client_id": "desk", "auth_time": 1_800_000_000});
        let no_login = json!({"sub": "anne", "client_id": "desk"});
        let beside = people(json!({"clients": ["desk"]}));
        let alone = people(json!({"clients_alone": true, "clients": ["desk"]}));
        let rows = [("a login", &login, [true, true]), ("no login", &no_login, [false, true])];
        for (row, claims, expected) in rows {
            assert_eq!([&beside, &alone].map(|people| is_person(people, claims)), expected, "{row}");
        }
        // Settings that were not checked let nobody in.
        assert!(!is_person(&people(json!({"clients_alone": true})), &login));
        assert!(!is_person(&people(json!({"claim": ""})), &login));
    }

    #[test]
    fn a_pattern_is_written_as_it_was_read() {
        for pattern in ["bot-*", "*-bot", "robot"] {
            assert_eq!(TextPattern::parse(pattern).map(|parsed| parsed.to_string()).as_deref(), Some(pattern));
        }
        for pattern in ["*", "", "a*b", "**a", "*a*"] {
            assert_eq!(TextPattern::parse(pattern), None, "`{pattern}`");
        }
    }
}
