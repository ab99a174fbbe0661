//! The reasons why a call is not answered: one value for the gate and all services, which every door renders in its own
//! shape.
//!
//! A [`Refusal`] is the error of the whole stack, so no layer reads it back from headers and no door can take it for an
//! answer. Its text tells callers what they can do. A backend's error may name things that a caller must not know of,
//! so it goes to the log.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tonic::codegen::http::{HeaderMap, HeaderValue, Response, StatusCode};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::authz::AuthzError;
use crate::error_code::ErrorCode;
use crate::inference::{InferenceError, ModelFault};
use crate::retrieval::{FieldViolation, RetrievalError};
use crate::sources::SourceError;
use crate::vector_store::VectorStoreError;

/// The header in which a server gives a nonce (RFC 9449, section 8).
pub(super) const NONCE_HEADER: &str = "dpop-nonce";
/// The reason of a request that a person has to approve.
pub(super) const APPROVAL_REQUIRED: &str = "APPROVAL_REQUIRED";
/// The reason of a request whose person has not answered yet.
pub(super) const APPROVAL_PENDING: &str = "APPROVAL_PENDING";
/// The fact that says which token to ask for.
pub(super) const AUTHORIZATION_DETAILS: &str = "authorization_details";
/// The longest list of wrong fields in one refusal. gRPC sends it in a header, and clients refuse long headers.
pub(super) const VIOLATIONS_MAX: usize = 10;
/// The longest text of a refusal in bytes, for the same reason.
const TEXT_BYTES_MAX: usize = 2_048;
/// The most causes of a status that are searched for a refusal: a few more than the layers that wrap an error.
const CAUSES_MAX: usize = 8;
/// The metadata that carries `OpenFGA`'s number of a refusal through tonic. The port's door removes it, so no client
/// sees it.
pub(super) const OPENFGA_NUMBER_HEADER: &str = "ragward-openfga-code";

/// The reason why a call is not answered.
///
/// It has all that a door needs to refuse in its own protocol: with a gRPC status, with an HTTP status and a JSON body,
/// or with an error object of another API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.text)]
pub struct Refusal(Box<RefusalFields>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct RefusalFields {
    code: Code,
    text: Cow<'static, str>,
    reason: Option<&'static str>,
    facts: Vec<(&'static str, String)>,
    violations: Vec<FieldViolation>,
    challenge: Option<String>,
    other_challenge: Option<String>,
    proof_nonce: Option<HeaderValue>,
    retry_after: Option<Duration>,
    openfga_number: Option<u32>,
    http_fault: Option<HttpFault>,
    consistency_token: Option<HeaderValue>,
}

/// A fault in the HTTP form of a request, for which gRPC has no code of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// The method is not one of these.
    Method {
        /// The value of the header `allow`.
        allowed: Cow<'static, str>,
    },
    /// The content type, or the version of HTTP that it needs, is not served.
    MediaType,
    /// The body is larger than its route takes.
    Size,
}

impl Refusal {
    /// Returns a refusal with this code, and a text for the caller.
    #[must_use]
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(RefusalFields {
            code,
            text: cut(text.into()),
            reason: None,
            facts: Vec::new(),
            violations: Vec::new(),
            challenge: None,
            other_challenge: None,
            proof_nonce: None,
            retry_after: None,
            openfga_number: None,
            http_fault: None,
            consistency_token: None,
        }))
    }

    /// Returns a refusal for an error of one of Ragward's own kinds, with the kind's stable reason.
    fn of_kind(kind: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(grpc_code(kind), text).with_reason(kind.reason())
    }

    /// Returns the refusal of an answer that is withheld because its record was not kept.
    pub(super) fn unrecorded() -> Self {
        let text = "the answer could not be recorded, so it is not given; try again later";
        Self::of_kind(ErrorCode::Unavailable, text)
    }

    /// Returns the refusal of a call whose work ended in a panic, or that came past the layers it needs.
    pub(super) fn lost() -> Self {
        Self::of_kind(ErrorCode::Internal, "internal error")
    }

    /// Returns the refusal of a request with wrong fields, of which the first [`VIOLATIONS_MAX`] are named.
    pub(super) fn invalid(mut violations: Vec<FieldViolation>) -> Self {
        violations.truncate(VIOLATIONS_MAX);
        RetrievalError::Invalid(violations).into()
    }

    /// Returns the refusal of a caller who may not ask for this.
    pub(super) fn denied(text: &'static str) -> Self {
        Self::of_kind(ErrorCode::PermissionDenied, text)
    }

    /// Returns the refusal of a call that a later try may answer.
    pub(super) fn unavailable(text: &'static str) -> Self {
        Self::of_kind(ErrorCode::Unavailable, text)
    }

    /// Returns the refusal of a call that waited in vain for its turn or for room.
    pub(super) fn busy(text: &'static str, retry_after: Duration) -> Self {
        Self::of_kind(ErrorCode::ResourceExhausted, text).with_retry_after(retry_after)
    }

    /// Returns the refusal of a call that took longer than its caller waits.
    pub(super) fn late() -> Self {
        Self::new(Code::DeadlineExceeded, "there was no answer before the deadline")
    }

    /// Returns the refusal that a response of tonic's services carries; `None` when the response is an answer.
    pub(super) fn of_response<B>(response: &Response<B>) -> Option<Self> {
        if let Some(status) = response.extensions().get::<Status>() {
            return Some(Self::from(status));
        }
        Status::from_header_map(response.headers()).map(|status| Self::from(&status))
    }

    /// Returns the refusal at the end of an answer; `None` when the answer ended well. An answer without an end is
    /// refused, too.
    pub(super) fn of_trailers(trailers: Option<&HeaderMap>) -> Option<Self> {
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() == Code::Ok => None,
            Some(status) => Some(Self::from(&status)),
            None => {
                tracing::error!("an answer ended without its status");
                Some(Self::lost())
            }
        }
    }

    pub(super) fn with_reason(mut self, reason: &'static str) -> Self {
        self.0.reason = Some(reason);
        self
    }

    /// Adds a fact for programs under a name (`google.rpc.ErrorInfo.metadata`).
    pub(super) fn with_fact(mut self, name: &'static str, value: String) -> Self {
        self.0.facts.push((name, value));
        self
    }

    pub(super) fn with_challenge(mut self, challenge: String) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// Names another scheme that the caller may choose.
    pub(super) fn with_other_challenge(mut self, challenge: String) -> Self {
        self.0.other_challenge = Some(challenge);
        self
    }

    pub(super) fn with_proof_nonce(mut self, nonce: HeaderValue) -> Self {
        self.0.proof_nonce = Some(nonce);
        self
    }

    pub(super) fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    pub(super) fn with_openfga_number(mut self, number: u32) -> Self {
        self.0.openfga_number = Some(number);
        self
    }

    /// Says in which place of a longer body the fault is.
    pub(super) fn with_place(mut self, place: &str) -> Self {
        self.0.text = cut(format!("{place}: {}", self.0.text).into());
        self
    }

    pub(super) fn with_http_fault(mut self, fault: HttpFault) -> Self {
        self.0.http_fault = Some(fault);
        self
    }

    pub(super) fn with_consistency_token(mut self, token: Option<HeaderValue>) -> Self {
        self.0.consistency_token = token;
        self
    }

    /// Returns the gRPC code. The record of the call has the same one.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Returns the text that the caller gets.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Returns a stable word for programs (`google.rpc.ErrorInfo.reason`); `None` where the code says it all.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        self.0.reason
    }

    /// Returns the facts for programs, by their names (`google.rpc.ErrorInfo.metadata`).
    #[must_use]
    pub fn facts(&self) -> &[(&'static str, String)] {
        &self.0.facts
    }

    /// Returns the wrong fields of the request, as many as gRPC's headers have room for.
    #[must_use]
    pub fn violations(&self) -> &[FieldViolation] {
        &self.0.violations
    }

    /// Returns the value of `www-authenticate` (RFC 6750, section 3).
    #[must_use]
    pub fn challenge(&self) -> Option<&str> {
        self.0.challenge.as_deref()
    }

    /// Returns the value of a second `www-authenticate`, for callers who may choose between two schemes.
    #[must_use]
    pub fn other_challenge(&self) -> Option<&str> {
        self.0.other_challenge.as_deref()
    }

    /// Returns the nonce that the caller's next proof has to repeat (RFC 9449, section 8).
    #[must_use]
    pub fn proof_nonce(&self) -> Option<&HeaderValue> {
        self.0.proof_nonce.as_ref()
    }

    /// Returns how long the caller should wait before it tries again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns `OpenFGA`'s own number of this error (2000 and up); `None` unless `OpenFGA`'s API refused.
    #[must_use]
    pub fn openfga_number(&self) -> Option<u32> {
        self.0.openfga_number
    }

    /// Returns the fault in the HTTP form of the request, or `None` if the refusal has another cause.
    #[must_use]
    pub fn http_fault(&self) -> Option<&HttpFault> {
        self.0.http_fault.as_ref()
    }

    /// Returns the consistency token. A refusal in gRPC carries it, as an answer does.
    #[must_use]
    pub fn consistency_token(&self) -> Option<&HeaderValue> {
        self.0.consistency_token.as_ref()
    }

    /// Returns the HTTP status for a door that speaks plain HTTP.
    #[must_use]
    pub fn http_status(&self) -> StatusCode {
        match self.0.http_fault {
            Some(HttpFault::Method { .. }) => return StatusCode::METHOD_NOT_ALLOWED,
            Some(HttpFault::MediaType) => return StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Some(HttpFault::Size) => return StatusCode::PAYLOAD_TOO_LARGE,
            None => {}
        }
        // The table of Connect (its specification, "Error codes"), which differs from that of gRPC's gateways in little.
        match self.0.code {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            // 499 has no name in HTTP. Nobody is there to read it.
            Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Refusal> for Status {
    /// Carries a refusal through tonic, whose handlers fail with a `Status` alone. `Refusal::of_response` takes it out
    /// again, and a door renders it.
    fn from(refusal: Refusal) -> Self {
        let mut metadata = MetadataMap::new();
        if let Some(number) = refusal.openfga_number() {
            // The trailers of a stream keep the metadata of a status and lose its source.
            metadata.insert(OPENFGA_NUMBER_HEADER, MetadataValue::from(number));
        }
        let mut status = Self::with_metadata(refusal.code(), refusal.text(), metadata);
        status.set_source(Arc::new(refusal));
        status
    }
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        // tonic's router wraps an error of a request's body, so the refusal can be further down.
        let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
        let carried = causes.take(CAUSES_MAX).find_map(|cause| cause.downcast_ref::<Self>());
        if let Some(carried) = carried {
            return carried.clone();
        }
        let code = if status.code() == Code::OutOfRange {
            // tonic gives this code to a message that is too large; gRPC's own code for it is `RESOURCE_EXHAUSTED`.
            // Handlers fail with refusals, so nothing else has this code.
            Code::ResourceExhausted
        } else if status.code() == Code::Ok {
            // A refusal never counts as an answer, whatever it says of itself.
            Code::Unknown
        } else {
            status.code()
        };
        let refusal = Self::new(code, status.message().to_owned());
        // A command that calls another server passes on the approval that the server asks for.
        match status.get_details_error_info() {
            Some(mut info) if info.reason == APPROVAL_REQUIRED => {
                let details = info.metadata.remove(AUTHORIZATION_DETAILS).unwrap_or_default();
                refusal.with_reason(APPROVAL_REQUIRED).with_fact(AUTHORIZATION_DETAILS, details)
            }
            Some(info) if info.reason == APPROVAL_PENDING => refusal.with_reason(APPROVAL_PENDING),
            Some(_) | None => refusal,
        }
    }
}

impl From<FieldViolation> for Refusal {
    fn from(violation: FieldViolation) -> Self {
        Self::invalid(vec![violation])
    }
}

impl From<RetrievalError> for Refusal {
    fn from(error: RetrievalError) -> Self {
        let text = match &error {
            RetrievalError::Authz(e) => {
                tracing::warn!(error = %e, "no authorization decision");
                e.caller_text().to_owned()
            }
            RetrievalError::VectorStore(e) => store_text(e),
            RetrievalError::Source(e) => source_text(e),
            RetrievalError::Inference(e) => inference_text(e).to_owned(),
            RetrievalError::TooManyGuards { .. } => {
                // The caller must not learn how many guards there are.
                tracing::warn!(%error, "refused");
                "the collection has too many guards for a text search; the server's log says what to set".to_owned()
            }
            RetrievalError::Invalid(_)
            | RetrievalError::Unsupported(_)
            | RetrievalError::UnknownChunk { .. }
            | RetrievalError::DeadlineExceeded
            | RetrievalError::NotDetailed(_) => error.to_string(),
        };
        let mut refusal = Self::of_kind(error.code(), text);
        if let RetrievalError::Authz(AuthzError::Overloaded { retry_after }) = &error {
            refusal = refusal.with_retry_after(*retry_after);
        }
        if let RetrievalError::Invalid(mut violations) = error {
            violations.truncate(VIOLATIONS_MAX);
            refusal.0.violations = violations;
        }
        refusal
    }
}

impl From<VectorStoreError> for Refusal {
    fn from(error: VectorStoreError) -> Self {
        Self::of_kind(error.code(), store_text(&error))
    }
}

impl From<InferenceError> for Refusal {
    fn from(error: InferenceError) -> Self {
        Self::of_kind(error.code(), inference_text(&error))
    }
}

/// Returns the text about a model that gave no answer. Its name is the operator's affair, and its fault goes to the log.
fn inference_text(error: &InferenceError) -> &'static str {
    tracing::warn!(%error, "a model did not answer");
    match error {
        InferenceError::Embedding { fault: ModelFault::Unrecorded, .. }
        | InferenceError::Rerank { fault: ModelFault::Unrecorded, .. } => {
            "the call could not be recorded, so no text is sent to a model; try again later"
        }
        InferenceError::Embedding { .. } => "the embedding model did not answer; try again later",
        InferenceError::Rerank { .. } => "the reranking model did not answer; try again later",
    }
}

fn source_text(error: &SourceError) -> String {
    match error {
        SourceError::NoToken => error.to_string(),
        SourceError::Unavailable { .. } => {
            tracing::warn!(%error, "a source did not answer");
            "a source did not answer; try again later".to_owned()
        }
    }
}

/// Shortens a text to what a client's limit on headers allows.
fn cut(text: Cow<'static, str>) -> Cow<'static, str> {
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > TEXT_BYTES_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => text,
    }
}

fn store_text(error: &VectorStoreError) -> String {
    match error {
        VectorStoreError::UnknownCollection(_)
        | VectorStoreError::Dimension { .. }
        | VectorStoreError::OtherModel { .. }
        | VectorStoreError::DuplicateChunk { .. }
        | VectorStoreError::OtherGuard
        | VectorStoreError::Invalid(_)
        | VectorStoreError::Unsupported(_) => error.to_string(),
        VectorStoreError::Refused(_) => {
            tracing::warn!(%error, "the vector store refused");
            "the vector store refused the request; the server's log says why".to_owned()
        }
        VectorStoreError::Unavailable(_) | VectorStoreError::BadAnswer(_) => {
            tracing::warn!(%error, "the vector store did not answer");
            "the vector store did not answer; try again later".to_owned()
        }
        VectorStoreError::Storage(_) => {
            tracing::error!(%error, "the data directory failed");
            "the server cannot use its data directory; its log says why".to_owned()
        }
    }
}

const fn grpc_code(kind: ErrorCode) -> Code {
    match kind {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::FailedPrecondition => Code::FailedPrecondition,
        ErrorCode::ResourceExhausted => Code::ResourceExhausted,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::DataLoss => Code::DataLoss,
        ErrorCode::Internal => Code::Internal,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_way_through_tonic() {
        let plain = Refusal::new(Code::NotFound, "no such thing");
        let whole = Refusal::invalid(vec![FieldViolation::new("user", "is missing")])
            .with_challenge("Bearer".to_owned())
            .with_fact("authorization_details", "[]".to_owned())
            .with_retry_after(Duration::from_secs(1))
            .with_openfga_number(2017);
        let either = plain.clone().with_other_challenge("DPoP".to_owned());
        let renewed = plain.clone().with_proof_nonce(HeaderValue::from_static("nonce"));
        for refusal in [plain, whole, either, renewed] {
            let response = Status::from(refusal.clone()).into_http::<()>();
            assert_eq!(Refusal::of_response(&response), Some(refusal));
        }
        assert_eq!(Refusal::of_response(&Response::new(())), None);
    }

    #[test]
    fn what_tonic_says_itself_is_never_an_answer() {
        let rows = [
            ("an RPC that is not there", Status::unimplemented(""), Code::Unimplemented),
            ("a message that is too large", Status::out_of_range("large"), Code::ResourceExhausted),
            ("a status without a code of its own", Status::ok(""), Code::Unknown),
        ];
        for (row, status, code) in rows {
            let response = status.into_http::<()>();
            assert_eq!(Refusal::of_response(&response).map(|refusal| refusal.code()), Some(code), "{row}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let refusal = Refusal::new(Code::Internal, "é".repeat(TEXT_BYTES_MAX));
        assert_eq!(refusal.text().len(), TEXT_BYTES_MAX + "…".len());
    }
}
