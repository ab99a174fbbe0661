//! Tells whether a token is a person's.
//!
//! INVARIANT (a positive mark): a token is a person's only if it has every mark that its issuer's rule asks for, and
//! nothing in it says that it is a machine's. All other tokens are machines', and a machine is never part of `user:*`.
//! So a missing claim never makes a machine a person, and neither does an added claim as long as another claim still
//! tells.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The prefix of Keycloak's user names for clients that act for themselves.
const SERVICE_ACCOUNT: &str = "service-account-";
/// The suffix of Auth0's subjects for clients that act for themselves.
const AUTH0_CLIENT: &str = "@clients";
/// Claims that name the client which a token was issued to. If one of them is the subject, the client acts for itself.
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

/// The rule that tells which tokens of an issuer are people's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeopleRule {
    mark: Option<Mark>,
    clients: BTreeSet<String>,
    machines: Vec<Pattern>,
}

/// A claim that people's tokens have and machines' lack.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    claim: String,
    /// The values that it may have. If there are none, any value that is not empty will do.
    values: BTreeSet<String>,
}

/// A text in which one `*`, at its beginning or end, stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Whole(String),
    Before(String),
    Behind(String),
}

/// The reason why a rule does not tell people from machines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeopleRuleError {
    /// The rule names no mark of a person.
    #[error("needs a `claim` that people's tokens alone have, or the `clients` that people alone use")]
    NoMark,
    /// Machines' tokens have this claim, too.
    #[error("names claim `{0}`, which machines' tokens have, too")]
    Ambiguous(String),
    /// The text is not a pattern for subjects.
    #[error("`{0}` is not a pattern for subjects: write one `*`, at the beginning or the end, beside other characters")]
    Pattern(String),
}

impl Default for PeopleRule {
    /// Marks people by the time of their login (RFC 9068, section 2.2.1), which a machine does not have.
    fn default() -> Self {
        let mark = Mark { claim: "auth_time".to_owned(), values: BTreeSet::new() };
        Self { mark: Some(mark), clients: BTreeSet::new(), machines: Vec::new() }
    }
}

impl PeopleRule {
    /// Creates a rule. `claim` (with one of `values`, if there are any) and `clients` mark a person's token, as far as
    /// they are not empty. Subjects that match one of `machines` are machines, whatever else is in their tokens.
    ///
    /// # Errors
    /// If the rule does not tell people from machines.
    pub fn new(
        claim: &str,
        values: &[String],
        clients: &[String],
        machines: &[String],
    ) -> Result<Self, PeopleRuleError> {
        let is_ambiguous = NO_MARKS.contains(&claim) || (WORDS.contains(&claim) && values.is_empty());
        if is_ambiguous {
            return Err(PeopleRuleError::Ambiguous(claim.to_owned()));
        }
        if claim.is_empty() && (clients.is_empty() || !values.is_empty()) {
            return Err(PeopleRuleError::NoMark);
        }
        let mark = Mark { claim: claim.to_owned(), values: values.iter().cloned().collect() };
        let machines: Result<Vec<Pattern>, PeopleRuleError> =
            machines.iter().map(|text| Pattern::parse(text)).collect();
        Ok(Self {
            mark: Some(mark).filter(|mark| !mark.claim.is_empty()),
            clients: clients.iter().cloned().collect(),
            machines: machines?,
        })
    }

    /// Returns whether a token with these claims is a person's.
    pub(super) fn is_person(&self, claims: &Map<String, Value>, subject: &str, client_id: &str) -> bool {
        let is_marked = self.mark.as_ref().is_none_or(|mark| mark.is_in(claims))
            && (self.clients.is_empty() || self.clients.contains(client_id))
            && (self.mark.is_some() || !self.clients.is_empty());
        let is_machine = self.machines.iter().any(|pattern| pattern.fits(subject));
        is_marked && !is_machine && !says_machine(claims, subject)
    }
}

impl Mark {
    fn is_in(&self, claims: &Map<String, Value>) -> bool {
        let Some(value) = claims.get(&self.claim) else { return false };
        if self.values.is_empty() {
            return says_something(value);
        }
        match value {
            Value::String(text) if WORDS.contains(&self.claim.as_str()) => {
                text.split(' ').any(|word| self.values.contains(word))
            }
            Value::String(text) => self.values.contains(text),
            Value::Array(items) => items.iter().filter_map(Value::as_str).any(|item| self.values.contains(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        }
    }
}

/// Returns whether a value is more than a placeholder: some providers give machines a login at time 0.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64().is_some_and(|number| number > 0.0),
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Returns whether anything in a token says that a machine acts for itself, in the way of one of the common providers.
fn says_machine(claims: &Map<String, Value>, subject: &str) -> bool {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    let is_service_account = |claim: &str| text(claim).is_some_and(|name| name.starts_with(SERVICE_ACCOUNT));
    // An unknown grant or an unknown kind of token is not a person's.
    let is_own_grant = |claim: &&str| claims.get(*claim).is_some_and(|grant| !is_grant_of_people(grant));
    let is_other_kind = claims.get("idtyp").is_some_and(|kind| kind.as_str() != Some("user"));
    CLIENT_CLAIMS.iter().any(|claim| text(claim) == Some(subject))
        || subject.ends_with(AUTH0_CLIENT)
        || subject.starts_with(SERVICE_ACCOUNT)
        || is_service_account("preferred_username")
        || is_service_account("username")
        || SERVICE_ACCOUNT_CLAIMS.iter().any(|claim| claims.contains_key(*claim))
        || GRANT_CLAIMS.iter().any(is_own_grant)
        || is_other_kind
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

impl Pattern {
    fn parse(text: &str) -> Result<Self, PeopleRuleError> {
        let (kind, rest): (fn(String) -> Self, &str) = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(rest), _) => (Self::Behind, rest),
            (None, Some(rest)) => (Self::Before, rest),
            (None, None) => (Self::Whole, text),
        };
        if rest.is_empty() || rest.contains('*') {
            return Err(PeopleRuleError::Pattern(text.to_owned()));
        }
        Ok(kind(rest.to_owned()))
    }

    fn fits(&self, subject: &str) -> bool {
        match self {
            Self::Whole(text) => subject == text,
            Self::Before(text) => subject.starts_with(text),
            Self::Behind(text) => subject.ends_with(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_person(rule: &PeopleRule, claims: &Value) -> bool {
        let claims = claims.as_object().unwrap();
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or("app");
        rule.is_person(claims, text("sub"), text("client_id"))
    }

    fn rule(claim: &str, values: &[&str], clients: &[&str], machines: &[&str]) -> Result<PeopleRule, PeopleRuleError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        PeopleRule::new(claim, &owned(values), &owned(clients), &owned(machines))
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
            let default = PeopleRule::default();
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
        let by_time = PeopleRule::default();
        let by_client = rule("", &[], &["desk", "wiki"], &["bot-*", "*-bot", "robot"]).unwrap();
        let by_value = rule("kind", &["person", "guest"], &[], &[]).unwrap();
        let by_scope = rule("scope", &["openid"], &["desk"], &[]).unwrap();
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
            let found = [&by_time, &by_client, &by_value, &by_scope].map(|rule| is_person(rule, &claims));
            assert_eq!(found, expected, "{row}");
        }
    }

    #[test]
    fn a_rule_tells_people_from_machines() {
        let no_mark = || Err(PeopleRuleError::NoMark);
        assert_eq!(rule("", &[], &[], &[]), no_mark());
        assert_eq!(rule("", &["a"], &["desk"], &[]), no_mark());
        for claim in NO_MARKS.into_iter().chain(WORDS) {
            assert_eq!(rule(claim, &[], &[], &[]), Err(PeopleRuleError::Ambiguous(claim.to_owned())));
        }
        for pattern in ["*", "", "a*b", "**a", "*a*"] {
            assert_eq!(
                rule("sid", &[], &[], &[pattern]),
                Err(PeopleRuleError::Pattern(pattern.to_owned())),
                "{pattern}"
            );
        }
        assert_eq!(rule("auth_time", &[], &[], &[]), Ok(PeopleRule::default()));
    }
}
