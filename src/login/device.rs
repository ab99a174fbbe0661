//! The login of a person in a browser on any machine (RFC 8628): the issuer gives a code, the person types it there, and
//! this program asks until it is done.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};
use url::Url;

use super::error::LoginError;
use super::http::{Form, HttpClient, PlainHttp, checked_url};
use super::token_endpoint::{self, TokenAnswer, Tokens};
use crate::settings::Secret;
use crate::visible::visible_line;

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// The pause between two questions if the issuer names none (RFC 8628, section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// The shortest pause, so that an issuer that names zero is not asked without end.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The time that `slow_down` adds to the pause (RFC 8628, section 3.5).
const SLOWER_BY: Duration = Duration::from_secs(5);
/// The longest pause, so that a login is seen within a minute.
const INTERVAL_MAX: Duration = Duration::from_mins(1);
/// The longest wait. Issuers' codes live for 5 to 30 minutes.
const WAIT_MAX: Duration = Duration::from_mins(30);
/// The longest code that a person can be asked to type.
const USER_CODE_CHARACTERS_MAX: usize = 64;

/// A code that waits for the person.
#[derive(Debug)]
pub(super) struct DeviceCode {
    pub(super) code: Secret,
    pub(super) user_code: String,
    pub(super) verification_uri: Url,
    lifetime: Duration,
    interval: Duration,
}

/// The step after an answer of the issuer.
#[derive(Debug)]
enum Step {
    Done(Tokens),
    /// Ask again after a pause.
    AskAfter(Duration),
    Failed(LoginError),
}

impl DeviceCode {
    /// Asks the issuer for a code.
    pub(super) async fn ask(
        http: &HttpClient,
        endpoint: &Url,
        form: &Form,
        plain: PlainHttp,
    ) -> Result<Self, LoginError> {
        let answer = http.post_form(endpoint, form).await?;
        if let Some(error) = token_endpoint::denial(&answer) {
            return Err(LoginError::Refused(format!("`{endpoint}` refused: {error}{}", error.advice())));
        }
        let members = answer.of_success(endpoint)?;
        Self::of(&members, plain)
            .map_err(|fault| LoginError::Setup(format!("the answer of `{endpoint}` is no code for a device: {fault}")))
    }

    fn of(members: &Map<String, Value>, plain: PlainHttp) -> Result<Self, String> {
        let text = |name: &str| {
            let text = members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.ok_or_else(|| format!("it has no `{name}`"))
        };
        let seconds = |name: &str| members.get(name).and_then(Value::as_u64).map(Duration::from_secs);
        let user_code = text("user_code")?;
        if user_code != visible_line(user_code) {
            return Err("its `user_code` has characters that nobody can type".to_owned());
        }
        if user_code.chars().count() > USER_CODE_CHARACTERS_MAX {
            return Err(format!("its `user_code` has more than {USER_CODE_CHARACTERS_MAX} characters"));
        }
        let verification_uri = checked_url(text("verification_uri")?, plain).map_err(|e| e.to_string())?;
        let lifetime = seconds("expires_in").ok_or("it has no `expires_in`")?;
        Ok(Self {
            code: Secret::new(text("device_code")?),
            user_code: user_code.to_owned(),
            verification_uri,
            lifetime: lifetime.min(WAIT_MAX),
            interval: seconds("interval").unwrap_or(INTERVAL).clamp(INTERVAL_MIN, INTERVAL_MAX),
        })
    }

    /// Asks until the person has logged in or refused, or the code has ended.
    pub(super) async fn wait(&self, http: &HttpClient, endpoint: &Url, form: &Form) -> Result<Tokens, LoginError> {
        let end = Instant::now() + self.lifetime;
        let mut interval = self.interval;
        // INVARIANT (it ends): each round takes at least `INTERVAL_MIN` of a lifetime of at most `WAIT_MAX`.
        while Instant::now() + interval < end {
            sleep(interval).await;
            match next_step(token_endpoint::ask(http, endpoint, form).await, interval) {
                Step::Done(tokens) => return Ok(tokens),
                Step::AskAfter(pause) => interval = pause,
                Step::Failed(error) => return Err(error),
            }
        }
        Err(too_late())
    }
}

fn next_step(answer: Result<TokenAnswer, LoginError>, interval: Duration) -> Step {
    match answer {
        Ok(TokenAnswer::Granted(tokens)) => Step::Done(tokens),
        Ok(TokenAnswer::Denied(error)) => match error.code.as_str() {
            "authorization_pending" => Step::AskAfter(interval),
            "slow_down" => Step::AskAfter((interval + SLOWER_BY).min(INTERVAL_MAX)),
            "expired_token" => Step::Failed(too_late()),
            _ => Step::Failed(LoginError::Refused(format!("the login was refused: {error}{}", error.advice()))),
        },
        // RFC 8628, section 3.5: if no answer came, the next question waits longer.
        Err(LoginError::Unreachable(_)) => Step::AskAfter((interval * 2).min(INTERVAL_MAX)),
        Err(error @ (LoginError::Setup(_) | LoginError::Refused(_) | LoginError::File(_))) => Step::Failed(error),
    }
}

fn too_late() -> LoginError {
    LoginError::Unreachable("nobody logged in before the code ended; begin again".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::token_endpoint::OAuthError;
    use super::*;

    fn shown(step: &Step) -> String {
        match step {
            Step::Done(_) => "done".to_owned(),
            Step::AskAfter(pause) => format!("ask after {}s", pause.as_secs()),
            Step::Failed(error) => error.to_string(),
        }
    }

    #[test]
    fn an_answer_says_when_to_ask_again() {
        let denied = |code: &str| Ok(TokenAnswer::Denied(OAuthError::new(code, None)));
        let rows = [
            ("not yet", denied("authorization_pending"), 5, "ask after 5s"),
            ("too often", denied("slow_down"), 5, "ask after 10s"),
            ("too often again", denied("slow_down"), 10, "ask after 15s"),
            ("too often for ever", denied("slow_down"), 60, "ask after 60s"),
            ("no answer", Err(LoginError::Unreachable("gone".to_owned())), 5, "ask after 10s"),
            ("the person says no", denied("access_denied"), 5, "the login was refused: `access_denied`"),
            ("too late", denied("expired_token"), 5, "nobody logged in before the code ended; begin again"),
            ("an unknown code", denied("odd"), 5, "the login was refused: `odd`"),
            ("an answer that is none", Err(LoginError::Setup("no JSON".to_owned())), 5, "no JSON"),
        ];
        for (row, answer, seconds, expected) in rows {
            assert_eq!(shown(&next_step(answer, Duration::from_secs(seconds))), expected, "{row}");
        }
    }

    #[test]
    fn a_code_has_bounds() {
        let answer = |more: &Value| {
            let mut answer = json!({
                "device_code": "hush",
                "user_code": "ABCD-EFGH",
                "verification_uri": "https://login.example/device",
                "expires_in": 600,
            });
            answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            DeviceCode::of(answer.as_object().unwrap(), PlainHttp::Never)
        };
        let rows = [
            ("the standard's pause", json!({}), Some([600, 5])),
            ("a pause of its own", json!({"interval": 7}), Some([600, 7])),
            ("no pause", json!({"interval": 0}), Some([600, 1])),
            ("an endless pause", json!({"interval": u64::MAX}), Some([600, 60])),
            ("an endless code", json!({"expires_in": u64::MAX}), Some([1800, 5])),
            ("an address without TLS", json!({"verification_uri": "http://login.example/device"}), None),
            ("a script", json!({"verification_uri": "javascript:alert(1)"}), None),
            ("no code to type", json!({"user_code": ""}), None),
            ("a code that nobody types", json!({"user_code": "A".repeat(65)}), None),
            ("a code with spaces", json!({"user_code": "ABCD EFGH"}), Some([600, 5])),
            ("a code of two lines", json!({"user_code": "A\n\nOpen https://evil.example"}), None),
            ("a code that moves the cursor", json!({"user_code": "A\u{1b}[2A"}), None),
            ("an address of two lines", json!({"verification_uri": "https://login.example/\n"}), None),
            ("no secret", json!({"device_code": null}), None),
            ("no end", json!({"expires_in": null}), None),
        ];
        for (row, more, expected) in rows {
            let read = answer(&more).ok();
            let bounds = read.map(|code| [code.lifetime.as_secs(), code.interval.as_secs()]);
            assert_eq!(bounds, expected, "{row}");
        }
        assert!(!format!("{:?}", answer(&json!({}))).contains("hush"));
    }
}
