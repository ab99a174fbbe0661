//! Takes the notifications of issuers (CIBA Core 1.0, section 10.2): a person has answered.
//!
//! INVARIANT (no forced polls): a notification asks nobody anything and gives no text. It ends the wait before the next poll of
//! the one question whose token it brings. So a forged one gains nothing, and it teaches nothing: every wrong one is refused
//! alike.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::Semaphore;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::codegen::http::{HeaderMap, Request, Response, StatusCode, header};

use super::scheme::Scheme;
use super::{Authentication, TokenAuthentication};
use crate::identity::approval::desk::Notified;
use crate::server::plain_http;
use crate::server::refusal::{HttpFault, Refusal};
use crate::strict_json;

/// The largest body of a notification, in bytes. It holds one id, which has at most 4,096.
const BODY_BYTES_MAX: usize = 8 * 1_024;
/// The deepest nesting of a notification, counting its object. Members that nobody here knows may have values of their own.
const DEPTH_MAX: usize = 4;
/// The most bodies of notifications that are read at a time. Only the issuer's own are read at all, and each is small.
const READ_MAX: usize = 16;
/// The wait of an issuer before it notifies again, if too many bodies are being read.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Takes the notifications of issuers.
#[derive(Clone)]
pub(in crate::server) struct NotificationApi {
    tokens: Arc<TokenAuthentication>,
    places: Arc<Semaphore>,
}

impl Authentication {
    /// Returns what takes the notifications of issuers; `None` if none are sent to this server.
    pub(in crate::server) fn notifications(&self) -> Option<NotificationApi> {
        let Self::Tokens(tokens) = self else { return None };
        let is_notified = tokens.approver.as_ref()?.takes_notifications();
        is_notified.then(|| NotificationApi { tokens: Arc::clone(tokens), places: Arc::new(Semaphore::new(READ_MAX)) })
    }
}

impl NotificationApi {
    /// Takes a notification. Nothing of its body is read before its token is known.
    ///
    /// # Errors
    /// If its token is not that of the question that it names, or it has not the standard's form.
    pub(in crate::server) async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let approver = self.tokens.approver.as_ref().ok_or_else(Refusal::lost)?;
        let nonce = bearer(request.headers()).and_then(|bearer| approver.nonce_of(bearer)).ok_or_else(refused)?;
        let _place = self.places.try_acquire().map_err(|_none_free| {
            Refusal::busy("too many notifications are being read; try again later", RETRY_AFTER)
        })?;
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map_err(unread)?.to_bytes();
        let question = question(&body).ok_or_else(|| {
            Refusal::new(Code::InvalidArgument, "a notification is a JSON object with the text `auth_req_id`")
        })?;
        match approver.notified(&nonce, &question) {
            Notified::Known => tracing::debug!("the issuer notified this server of an answer"),
            // Another replica put the question. Here, no poll of it waits for anything yet.
            Notified::Unknown => {
                tracing::debug!("the issuer notified this server of the answer to a question that is unknown here");
            }
            Notified::Another => return Err(refused()),
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        plain_http::harden(response.headers_mut());
        Ok(response)
    }
}

/// Returns the token of a notification: one header with one token.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    (Scheme::parse(scheme) == Some(Scheme::Bearer)).then_some(token)
}

/// Reads the issuer's id of the question. Two ids are refused, because nobody knows which one the issuer means.
fn question(body: &[u8]) -> Option<String> {
    let members = strict_json::object(body, DEPTH_MAX).ok()?;
    members.get("auth_req_id").and_then(Value::as_str).map(str::to_owned)
}

/// Refuses a notification whose token is not that of its question.
fn refused() -> Refusal {
    tracing::debug!("a notification was refused");
    Refusal::new(Code::Unauthenticated, "the request needs the token of the notification")
        .with_reason("UNAUTHENTICATED")
        .with_challenge("Bearer".to_owned())
}

/// Refuses a body that could not be read.
fn unread(error: StdError) -> Refusal {
    if error.is::<LengthLimitError>() {
        Refusal::new(Code::ResourceExhausted, "the body is too large").with_http_fault(HttpFault::Size)
    } else {
        Refusal::from(&tonic::Status::from_error(error))
    }
}
