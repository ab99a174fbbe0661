//! Asks a person at their issuer, on a device of theirs (CIBA, `OpenID` Connect Client-Initiated Backchannel Authentication
//! Core 1.0, in its modes poll and ping).
//!
//! This module repeats no word of an issuer's answer, which could hold a secret. Another one decides whether a token proves an
//! approval.

use std::fmt;
use std::sync::Arc;

use reqwest::{StatusCode, Url};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;

use super::Issuer;
use super::fetch::{MetadataUrls, check_url};
use crate::settings::Secret;
use crate::token_endpoint::{Form, GrantedToken, OAuthClient, body, is_visible, members};

/// The longest id of a request that is taken, in bytes. Keycloak writes the whole request into it, encrypted: more than 1,000 bytes
/// with names of common lengths.
const ID_BYTES_MAX: usize = 4 * 1_024;
/// The pause between polls that holds where the issuer names none (CIBA, section 7.3), in seconds.
const INTERVAL_SECONDS: u64 = 5;
/// The longest pause between polls, in seconds. An issuer that asks for more gets this.
const INTERVAL_SECONDS_MAX: u64 = 60;
const GRANT: &str = "urn:openid:params:grant-type:ciba";
/// The words of the standards for a refusal of a client or its request (RFC 6749, section 5.2; RFC 8707; RFC 9396; CIBA, section 13).
/// The log repeats these, which tell an operator what to mend, and no other word of an issuer.
const REFUSALS: [&str; 11] = [
    "access_denied",
    "invalid_authorization_details",
    "invalid_binding_message",
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "invalid_user_code",
    "missing_user_code",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// A client of an issuer that asks people there.
#[derive(Debug)]
pub struct Backchannel {
    issuer: Arc<Issuer>,
    client: OAuthClient,
    endpoints: OnceCell<Endpoints>,
}

#[derive(Clone, Debug)]
struct Endpoints {
    authorize: Url,
    token: Url,
}

/// A question to a person.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The name of the person, as the issuer takes it.
    pub login_hint: &'a str,
    /// The scopes of the token.
    pub scope: &'a str,
    /// The audience of the token.
    pub resource: &'a str,
    /// The text that the person reads on both sides.
    pub binding_message: &'a str,
    /// The `authorization_details` of the token, as JSON; `None` for an issuer that has none.
    pub details: Option<&'a str>,
    /// The token by which the issuer shows that its notification is its own; `None` if it sends no notifications.
    pub notification_token: Option<&'a str>,
    /// The time in which the person can answer, in seconds.
    pub expiry_seconds: u64,
}

/// A question that the issuer has put to the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The issuer's id of the question (`auth_req_id`).
    pub id: String,
    /// The time in which the person can answer, in seconds.
    pub expires_in: u64,
    /// The pause between polls, in seconds.
    pub interval: u64,
}

/// The state of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// The person has not answered.
    Pending,
    /// The person has not answered, and the polls came too fast.
    SlowDown,
    /// The person said no.
    Denied,
    /// The time is over, or the issuer has given the token already.
    Expired,
    /// The person said yes, and this is the token.
    Approved(Secret),
}

/// The reason why the issuer gave no answer that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackchannelError {
    /// The issuer did not answer, or not in time.
    #[error("the issuer did not answer")]
    Unreachable,
    /// The issuer names no endpoint for such questions.
    #[error("the metadata of the issuer names no endpoint for backchannel requests")]
    NotOffered,
    /// The issuer does not know the person.
    #[error("the issuer does not know the person by the claim that is sent (`identity.issuers.tokens.login_hint`)")]
    UnknownPerson,
    /// The issuer refuses the client or its request, with this word of the standards.
    #[error("the issuer refuses the client or its request: `{0}`")]
    Refused(&'static str),
    /// The issuer refuses the client or its request, with a word that no standard has.
    #[error("the issuer refuses the client or its request, with an error of its own")]
    RefusedOtherwise,
    /// The standard has no such answer.
    #[error(
        "the answer of the issuer is none of CIBA: no JSON, a member that is missing or too long, or a token that is not `Bearer`"
    )]
    Unusable,
}

impl BackchannelError {
    /// Returns the error of a refusal with this word.
    fn of_refusal(code: &str) -> Self {
        let known = REFUSALS.into_iter().find(|known| *known == code);
        known.map_or(Self::RefusedOtherwise, Self::Refused)
    }
}

impl Backchannel {
    pub(in crate::identity) fn new(issuer: Arc<Issuer>, client: OAuthClient) -> Self {
        Self { issuer, client, endpoints: OnceCell::new() }
    }

    /// Returns the issuer, which asks its people.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer.config.issuer
    }

    /// Returns the names of the lists in the issuer's settings that lack this client. While a list lacks it, a token of the client
    /// is not a person's own, so it proves no approval.
    #[must_use]
    pub fn lists_without_client(&self) -> Vec<&'static str> {
        let (config, client) = (&self.issuer.config, self.client.id());
        let lacks = |list: &[String]| !list.is_empty() && !list.iter().any(|listed| listed == client);
        let lists = [
            ("clients", lacks(&config.clients)),
            ("direct_clients", !config.is_direct(client)),
            ("people.clients", lacks(&config.people.clients)),
        ];
        lists.into_iter().filter(|(_, lacks)| *lacks).map(|(name, _)| name).collect()
    }

    /// Makes the issuer ask a person.
    ///
    /// # Errors
    /// If the issuer does not ask the person.
    pub async fn ask(&self, question: Question<'_>) -> Result<Asked, BackchannelError> {
        let expiry = question.expiry_seconds.to_string();
        let form = Form::default()
            .with("scope", question.scope)
            .with("login_hint", question.login_hint)
            .with("binding_message", question.binding_message)
            .with("resource", question.resource)
            // Auth0 and some others have this word for it, and whoever does not know one of the two ignores it.
            .with("audience", question.resource)
            .with("requested_expiry", expiry.as_str())
            .with("authorization_details", question.details)
            .with("client_notification_token", question.notification_token);
        match self.post(&self.endpoints().await?.authorize, form).await? {
            Answer::Success(members) => asked(&members, question.expiry_seconds).ok_or(BackchannelError::Unusable),
            Answer::Refusal(code) if code == "unknown_user_id" => Err(BackchannelError::UnknownPerson),
            Answer::Refusal(code) => Err(BackchannelError::of_refusal(&code)),
        }
    }

    /// Asks the issuer whether the person has answered.
    ///
    /// # Errors
    /// If the issuer gives no answer that can be used.
    pub async fn poll(&self, id: &str) -> Result<Polled, BackchannelError> {
        let form = Form::default().with("grant_type", GRANT).with("auth_req_id", id);
        match self.post(&self.endpoints().await?.token, form).await? {
            Answer::Success(members) => {
                let granted = GrantedToken::of(&members).map_err(|_no_token| BackchannelError::Unusable)?;
                Ok(Polled::Approved(granted.token))
            }
            Answer::Refusal(code) => match code.as_str() {
                "authorization_pending" => Ok(Polled::Pending),
                "slow_down" => Ok(Polled::SlowDown),
                "access_denied" => Ok(Polled::Denied),
                // An issuer gives a token once, and does not know the id after that.
                "expired_token" | "invalid_grant" => Ok(Polled::Expired),
                _ => Err(BackchannelError::of_refusal(&code)),
            },
        }
    }

    async fn post(&self, endpoint: &Url, form: Form) -> Result<Answer, BackchannelError> {
        let answered = self.client.post(self.issuer.http.client(), endpoint, form).await;
        let answered = answered.map_err(|fault| self.lost(&fault))?;
        let status = answered.status();
        Answer::read(status, &body(answered).await.map_err(|fault| self.lost(&fault))?)
    }

    async fn endpoints(&self) -> Result<&Endpoints, BackchannelError> {
        self.endpoints.get_or_try_init(|| self.discover()).await
    }

    /// Reads the endpoints from the metadata of the issuer.
    async fn discover(&self) -> Result<Endpoints, BackchannelError> {
        let issuer = self.issuer();
        let base = check_url(issuer).map_err(|_refused| BackchannelError::NotOffered)?;
        let MetadataUrls { oauth, openid } = MetadataUrls::of(&base);
        // Most issuers have only one of the two, so a missing one is no fault while the other is there.
        let (mut is_read, mut faults) = (false, Vec::new());
        // CIBA belongs to OpenID, so an issuer names its endpoints there first.
        for url in [openid, oauth] {
            match self.issuer.http.get(url).await {
                Ok(bytes) => match endpoints(&bytes, issuer, &base) {
                    Some(endpoints) => return Ok(endpoints),
                    None => is_read = true,
                },
                Err(error) => faults.push(error),
            }
        }
        if is_read {
            return Err(BackchannelError::NotOffered);
        }
        let mut lost = BackchannelError::Unreachable;
        for fault in &faults {
            lost = self.lost(fault);
        }
        Err(lost)
    }

    fn lost(&self, error: &dyn fmt::Display) -> BackchannelError {
        // The error names an address and a status, and nothing that the issuer wrote.
        tracing::warn!(issuer = self.issuer(), %error, "the issuer gave no answer about an approval");
        BackchannelError::Unreachable
    }
}

/// An answer of an endpoint.
enum Answer {
    Success(Map<String, Value>),
    /// A refusal with one of the words of the standards.
    Refusal(String),
}

impl Answer {
    fn read(status: StatusCode, bytes: &[u8]) -> Result<Self, BackchannelError> {
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(BackchannelError::Unreachable);
        }
        let members = members(bytes).map_err(|_not_json| BackchannelError::Unusable)?;
        if status == StatusCode::OK {
            return Ok(Self::Success(members));
        }
        let code = members.get("error").and_then(Value::as_str).filter(|_| status.is_client_error());
        code.map(|code| Self::Refusal(code.to_owned())).ok_or(BackchannelError::Unusable)
    }
}

/// Reads the answer to a question.
fn asked(members: &Map<String, Value>, expiry_seconds: u64) -> Option<Asked> {
    let id = members.get("auth_req_id")?.as_str()?;
    let interval = members.get("interval").map_or(Some(INTERVAL_SECONDS), Value::as_u64)?;
    // An issuer may give more time than was asked for. The approval ends all the same.
    let expires_in = members.get("expires_in")?.as_u64()?.min(expiry_seconds);
    // A question that ends at once would leave its asker free to ask again at once.
    let is_taken = is_visible(id) && id.len() <= ID_BYTES_MAX && expires_in > 0;
    let interval = interval.clamp(1, INTERVAL_SECONDS_MAX);
    is_taken.then(|| Asked { id: id.to_owned(), expires_in, interval })
}

/// Reads the endpoints from metadata. An endpoint has TLS if the issuer has.
fn endpoints(bytes: &[u8], issuer: &str, base: &Url) -> Option<Endpoints> {
    let metadata = members(bytes).ok()?;
    // RFC 8414, section 3.3: otherwise one issuer could speak for another.
    if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return None;
    }
    let endpoint = |name: &str| {
        let url = check_url(metadata.get(name)?.as_str()?).ok()?;
        (url.scheme() == base.scheme() || url.scheme() == "https").then_some(url)
    };
    Some(Endpoints { authorize: endpoint("backchannel_authentication_endpoint")?, token: endpoint("token_endpoint")? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::config::{IssuerConfig, PeopleConfig};
    use crate::settings::{OAuthClientConfig, SecretFile};

    /// The name of a row, `clients`, `direct_clients`, `people.clients`, and the lists that lack the client.
    type ListRow = (&'static str, Vec<String>, Option<Vec<String>>, Vec<String>, &'static [&'static str]);

    #[test]
    fn the_token_of_an_approval_is_of_a_client_that_is_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "the secret of the client").unwrap();
        let client = OAuthClientConfig::with_secret("ragward", SecretFile::new(path));
        let (own, other) = (|| vec!["ragward".to_owned()], || vec!["desk".to_owned()]);
        let none = Vec::new;
        let rows: [ListRow; 8] = [
            ("no lists", none(), None, none(), &[]),
            ("listed", own(), None, none(), &[]),
            ("listed everywhere", own(), Some(own()), own(), &[]),
            ("another client listed", other(), None, none(), &["clients"]),
            ("listed, and not as a front end", own(), Some(other()), none(), &["direct_clients"]),
            ("no front end at all", none(), Some(none()), none(), &["direct_clients"]),
            ("people have other clients", none(), None, other(), &["people.clients"]),
            ("in no list", other(), Some(other()), other(), &["clients", "direct_clients", "people.clients"]),
        ];
        for (row, clients, direct_clients, of_people, expected) in rows {
            let people = PeopleConfig { clients: of_people, ..PeopleConfig::default() };
            let config = IssuerConfig { clients, direct_clients, people, ..IssuerConfig::new("https://login.example") };
            let issuer = Arc::new(Issuer::new(config).unwrap());
            let backchannel = Backchannel::new(issuer, OAuthClient::new("approval", &client).unwrap());
            assert_eq!(backchannel.lists_without_client(), expected, "{row}");
        }
    }

    #[test]
    fn an_answer_is_one_of_the_standard_or_none() {
        let rows = [
            ("all", json!({"auth_req_id": "a", "expires_in": 60, "interval": 7}), Some((60, 7))),
            ("no pause", json!({"auth_req_id": "a", "expires_in": 60}), Some((60, INTERVAL_SECONDS))),
            ("a pause of an hour", json!({"auth_req_id": "a", "expires_in": 60, "interval": 3_600}), Some((60, 60))),
            ("no pause at all", json!({"auth_req_id": "a", "expires_in": 60, "interval": 0}), Some((60, 1))),
            ("more time than asked for", json!({"auth_req_id": "a", "expires_in": 9_999}), Some((300, 5))),
            ("no id", json!({"expires_in": 60}), None),
            ("an empty id", json!({"auth_req_id": "", "expires_in": 60}), None),
            ("an id with a line break", json!({"auth_req_id": "a\n", "expires_in": 60}), None),
            (
                "an id of Keycloak",
                json!({"auth_req_id": "a".repeat(1_078), "expires_in": 120, "interval": 5}),
                Some((120, 5)),
            ),
            ("the longest id", json!({"auth_req_id": "a".repeat(ID_BYTES_MAX), "expires_in": 60}), Some((60, 5))),
            ("a huge id", json!({"auth_req_id": "a".repeat(ID_BYTES_MAX + 1), "expires_in": 60}), None),
            ("no time", json!({"auth_req_id": "a"}), None),
            ("a time of nothing", json!({"auth_req_id": "a", "expires_in": 0}), None),
            ("a negative time", json!({"auth_req_id": "a", "expires_in": -1}), None),
        ];
        for (row, answer, expected) in rows {
            let read = asked(answer.as_object().unwrap(), 300);
            assert_eq!(read.map(|asked| (asked.expires_in, asked.interval)), expected, "{row}");
        }
    }

    #[test]
    fn endpoints_are_those_of_the_issuer() {
        let issuer = "https://login.example";
        let (ask, token) = ("https://login.example/ask", "https://login.example/token");
        let rows = [
            (
                "both",
                json!({"issuer": issuer, "backchannel_authentication_endpoint": ask, "token_endpoint": token}),
                true,
            ),
            ("none to ask", json!({"issuer": issuer, "token_endpoint": token}), false),
            ("none for tokens", json!({"issuer": issuer, "backchannel_authentication_endpoint": ask}), false),
            (
                "another issuer",
                json!({"issuer": "https://other.example", "backchannel_authentication_endpoint": ask, "token_endpoint": token}),
                false,
            ),
            (
                "no TLS",
                json!({"issuer": issuer, "backchannel_authentication_endpoint": "http://127.0.0.1:1/", "token_endpoint": token}),
                false,
            ),
        ];
        for (row, metadata, expected) in rows {
            let read = endpoints(metadata.to_string().as_bytes(), issuer, &Url::parse(issuer).unwrap());
            assert_eq!(read.is_some(), expected, "{row}");
        }
    }

    #[test]
    fn only_words_of_the_standards_are_repeated() {
        let rows = [
            ("a wrong secret", "invalid_client", BackchannelError::Refused("invalid_client")),
            ("no grant", "unauthorized_client", BackchannelError::Refused("unauthorized_client")),
            ("a word of the issuer's own", "secret s3cret is wrong", BackchannelError::RefusedOtherwise),
            ("no word", "", BackchannelError::RefusedOtherwise),
        ];
        for (row, code, expected) in rows {
            assert_eq!(BackchannelError::of_refusal(code), expected, "{row}");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let rows = [
            ("a page", 200, "<html>", Err(BackchannelError::Unusable)),
            ("a page of an error", 400, "<html>", Err(BackchannelError::Unusable)),
            ("a redirect", 302, "{}", Err(BackchannelError::Unusable)),
            ("an outage", 503, "{\"error\": \"access_denied\"}", Err(BackchannelError::Unreachable)),
            ("too many", 429, "{}", Err(BackchannelError::Unreachable)),
            ("a refusal without a word", 400, "{}", Err(BackchannelError::Unusable)),
            ("a refusal", 400, "{\"error\": \"slow_down\"}", Ok("slow_down")),
            ("a success that names an error", 200, "{\"error\": \"access_denied\"}", Ok("")),
        ];
        for (row, status, body, expected) in rows {
            let read =
                Answer::read(StatusCode::from_u16(status).unwrap(), body.as_bytes()).map(|answer| match answer {
                    Answer::Success(_) => String::new(),
                    Answer::Refusal(code) => code,
                });
            assert_eq!(read, expected.map(str::to_owned), "{row}");
        }
    }
}
