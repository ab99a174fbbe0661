//! The token endpoint of an issuer (RFC 6749, section 5): what it is asked, and what it answers.

use std::fmt;

use serde_json::{Map, Value};
use url::Url;

use super::error::LoginError;
use super::http::{Form, HttpClient, JsonAnswer};
use crate::settings::Secret;
use crate::visible::visible_line;

/// The longest text of an issuer that is shown, in characters. Most are one sentence.
const SHOWN_CHARACTERS_MAX: usize = 200;
/// The text that is shown instead of words that repeat a secret.
const REPEATED_SECRET: &str = "words that repeat a secret";

/// The tokens that an issuer gave.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) access_token: Secret,
    pub(super) refresh_token: Option<Secret>,
    pub(super) lifetime_seconds: Option<u64>,
    /// The scopes, if they are others than those that were asked for.
    pub(super) scope: Option<String>,
}

/// An issuer's reason to give no token. Its words are made for one line of a terminal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OAuthError {
    /// One of the words of the standards, such as `access_denied`.
    pub(super) code: String,
    description: String,
}

/// The answer of a token endpoint.
#[derive(Debug)]
pub(super) enum TokenAnswer {
    Granted(Tokens),
    Denied(OAuthError),
}

impl OAuthError {
    pub(super) fn new(code: &str, description: Option<&str>) -> Self {
        let shortened = |text: &str| visible_line(&text.chars().take(SHOWN_CHARACTERS_MAX).collect::<String>());
        Self { code: shortened(code), description: shortened(description.unwrap_or_default()) }
    }

    /// Returns what the person can change, to be read after the issuer's words. Empty if the issuer's words are all that helps.
    pub(super) fn advice(&self) -> &'static str {
        match self.code.as_str() {
            "invalid_client" | "unauthorized_client" => {
                "; `--client-id` or `server.login_client_id` must name a public client there that may log in this way"
            }
            "invalid_target" => {
                "; does the issuer know this server by the name in `--resource` or `identity.audience`?"
            }
            "invalid_scope" => "; may this client ask for these scopes (`--scope`)?",
            _ => "",
        }
    }

    /// Leaves out words that repeat a secret: an issuer that quotes what it was sent would bring it into a log.
    fn without(self, form: &Form) -> Self {
        let unless_repeated = |text: String| if form.has_secret_in(&text) { REPEATED_SECRET.to_owned() } else { text };
        Self { code: unless_repeated(self.code), description: unless_repeated(self.description) }
    }
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.description.is_empty() {
            write!(f, "`{}`", self.code)
        } else {
            write!(f, "`{}` ({})", self.code, self.description)
        }
    }
}

/// Asks for tokens.
///
/// # Errors
/// When there is no answer, or it can neither be read as tokens nor as a refusal.
pub(super) async fn ask(http: &HttpClient, endpoint: &Url, form: &Form) -> Result<TokenAnswer, LoginError> {
    let answer = http.post_form(endpoint, form).await?;
    if let Some(error) = denial(&answer) {
        return Ok(TokenAnswer::Denied(error.without(form)));
    }
    let members = answer.of_success(endpoint)?;
    match tokens(&members) {
        Ok(tokens) => Ok(TokenAnswer::Granted(tokens)),
        Err(fault) => Err(LoginError::Setup(format!("the answer of `{endpoint}` is no token: {fault}"))),
    }
}

/// Returns the issuer's error if the answer is one.
pub(super) fn denial(answer: &JsonAnswer) -> Option<OAuthError> {
    if !answer.status.is_client_error() {
        return None;
    }
    let code = answer.members.get("error")?.as_str()?;
    Some(OAuthError::new(code, answer.members.get("error_description").and_then(Value::as_str)))
}

/// Reads tokens. The fault never repeats a value.
fn tokens(members: &Map<String, Value>) -> Result<Tokens, &'static str> {
    let kind = members.get("token_type").and_then(Value::as_str).unwrap_or_default();
    if !kind.eq_ignore_ascii_case("Bearer") {
        return Err("its `token_type` is not `Bearer`");
    }
    let access_token = secret(members, "access_token")?.ok_or("it has no `access_token`")?;
    let refresh_token = secret(members, "refresh_token")?;
    let lifetime_seconds = match members.get("expires_in") {
        None | Some(Value::Null) => None,
        // Some issuers write the number as a text.
        Some(Value::String(text)) => Some(text.parse().map_err(|_syntax| "its `expires_in` is no number")?),
        Some(other) => Some(other.as_u64().ok_or("its `expires_in` is no number")?),
    };
    let scope = members.get("scope").and_then(Value::as_str).map(str::to_owned);
    Ok(Tokens { access_token, refresh_token, lifetime_seconds, scope })
}

/// Reads a token that can be sent in a header and in a form.
fn secret(members: &Map<String, Value>, name: &str) -> Result<Option<Secret>, &'static str> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(Secret::new(text.as_str())))
        }
        Some(_) => Err("one of its tokens is not a text of visible ASCII characters"),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use serde_json::json;

    use super::*;

    fn members(json: &Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn an_answer_is_tokens_or_says_what_it_lacks() {
        let rows = [
            (
                "all",
                json!({"access_token": "a", "token_type": "Bearer", "expires_in": 5, "refresh_token": "r"}),
                Ok(Some(5)),
            ),
            ("a small letter", json!({"access_token": "a", "token_type": "bearer"}), Ok(None)),
            (
                "a number as a text",
                json!({"access_token": "a", "token_type": "Bearer", "expires_in": "5"}),
                Ok(Some(5)),
            ),
            (
                "no refresh token by null",
                json!({"access_token": "a", "token_type": "Bearer", "refresh_token": null}),
                Ok(None),
            ),
            ("no type", json!({"access_token": "secret"}), Err("`token_type`")),
            ("bound to a key", json!({"access_token": "secret", "token_type": "DPoP"}), Err("`token_type`")),
            ("no token", json!({"token_type": "Bearer"}), Err("no `access_token`")),
            ("an empty token", json!({"access_token": "", "token_type": "Bearer"}), Err("visible ASCII")),
            ("a line break", json!({"access_token": "secret\r\nx: y", "token_type": "Bearer"}), Err("visible ASCII")),
            ("a number", json!({"access_token": 7, "token_type": "Bearer"}), Err("visible ASCII")),
            (
                "a negative lifetime",
                json!({"access_token": "secret", "token_type": "Bearer", "expires_in": -1}),
                Err("`expires_in`"),
            ),
        ];
        for (row, answer, expected) in rows {
            match (tokens(&members(&answer)), expected) {
                (Ok(tokens), Ok(lifetime)) => assert_eq!(tokens.lifetime_seconds, lifetime, "{row}"),
                (Err(fault), Err(part)) => assert!(fault.contains(part) && !fault.contains("secret"), "{row}: {fault}"),
                (read, expected) => panic!("{row}: {read:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn only_an_error_of_the_client_is_a_refusal() {
        let rows = [
            ("a refusal", 400, json!({"error": "invalid_grant"}), Some("`invalid_grant`")),
            (
                "with words",
                401,
                json!({"error": "access_denied", "error_description": "no"}),
                Some("`access_denied` (no)"),
            ),
            ("a fault of the issuer", 500, json!({"error": "server_error"}), None),
            ("a success", 200, json!({"error": "odd"}), None),
            ("no code", 400, json!({"error": 7}), None),
        ];
        for (row, status, answer, expected) in rows {
            let answer = JsonAnswer { status: StatusCode::from_u16(status).unwrap(), members: members(&answer) };
            assert_eq!(denial(&answer).map(|error| error.to_string()).as_deref(), expected, "{row}");
        }
    }

    #[test]
    fn the_words_of_a_refusal_are_one_line_without_secrets() {
        let form = Form::default().with("client_id", "cli").with_secret("refresh_token", "hush-refresh");
        let cut_off = format!("{} hush-refresh", "a".repeat(SHOWN_CHARACTERS_MAX - 10));
        let rows = [
            ("plain words", "invalid_grant", "no such token", "`invalid_grant` (no such token)"),
            ("the client", "invalid_client", "cli is unknown", "`invalid_client` (cli is unknown)"),
            (
                "a line of ours",
                "a",
                "no)\nerror: open https://evil.example",
                "`a` (no)\\u{a}error: open https://evil.example)",
            ),
            ("a cursor", "a\u{1b}[2A", "\u{9b}2J", "`a\\u{1b}[2A` (\\u{9b}2J)"),
            ("the token", "a", "no token hush-refresh", "`a` (words that repeat a secret)"),
            ("the token as the code", "hush-refresh", "", "`words that repeat a secret`"),
            ("the beginning of the token", "a", cut_off.as_str(), "`a` (words that repeat a secret)"),
        ];
        for (row, code, description, expected) in rows {
            let shown = OAuthError::new(code, Some(description)).without(&form).to_string();
            assert_eq!(shown, expected, "{row}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let answer = json!({"access_token": "hush1", "token_type": "Bearer", "refresh_token": "hush2"});
        let shown = format!("{:?}", TokenAnswer::Granted(tokens(&members(&answer)).unwrap()));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
