//! The one gate that every request passes before any service sees it: who calls, and whether the token is for this call.
//!
//! INVARIANT (no way around): the layer lies around all services. What is not in the table of `operations` reaches none of
//! them, and a service that finds no caller in its request refuses it.

mod untold;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, header};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};

use self::untold::{Remedy, Settled, Unsettled};
use super::audit::{self, Draft};
use super::operations::{Access, Route};
use super::resource_metadata;
use super::status::{self, DOMAIN};
use crate::authz::Authorizer;
use crate::identity::{
    AuthenticationError, Caller, CallerError, LoginError, Principal, Refusal, Scope, StepUp, StepUpRules,
    TokenVerifier, Use, VerifiedToken,
};
use crate::language::Relation;
use crate::retrieval::{FieldViolation, RetrievalError};

/// Who is let in.
#[derive(Clone)]
pub enum Authentication {
    /// Everybody, as whom they say they are: local administration, and servers with `--insecure-identity`.
    Believed,
    /// The bearers of tokens.
    Tokens(Arc<TokenAuthentication>),
}

/// What the bearers of tokens may do.
#[derive(Debug)]
pub struct TokenAuthentication {
    verifier: TokenVerifier,
    write_relation: Relation,
    step_up: StepUpRules,
    /// Where clients learn whose tokens are taken (RFC 9728), if the audience is a URL.
    metadata_url: Option<String>,
    remedy: Remedy,
    /// Whether tokens are taken: not before it is known that the names which they give are those that are stored.
    is_open: AtomicBool,
}

impl TokenAuthentication {
    /// # Errors
    /// When the audience is a URL that no metadata can be served for.
    pub fn new(verifier: TokenVerifier, write_relation: Relation, step_up: StepUpRules) -> Result<Self, String> {
        let metadata_url = resource_metadata::url(verifier.audience())?;
        Ok(Self {
            verifier,
            write_relation,
            step_up,
            metadata_url,
            remedy: Remedy::default(),
            is_open: AtomicBool::new(false),
        })
    }

    /// From now on tokens are taken.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    pub(super) fn verifier(&self) -> &TokenVerifier {
        &self.verifier
    }

    /// The value of `www-authenticate` (RFC 6750, section 3; RFC 9728, section 5.1).
    fn challenge(&self, parameters: &[(&str, &str)]) -> String {
        let metadata = self.metadata_url.as_deref().map(|url| ("resource_metadata", url));
        let parameters = parameters.iter().copied().chain(metadata);
        let parameters: Vec<String> = parameters.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        format!("Bearer {}", parameters.join(", ")).trim_end().to_owned()
    }
}

impl TokenAuthentication {
    fn step_up_challenge(&self, required: &StepUp) -> Status {
        let (classes, max_age) = (required.acr_values.join(" "), required.max_age.map(|seconds| seconds.to_string()));
        let mut parameters = vec![("error", "insufficient_user_authentication")];
        parameters.extend((!classes.is_empty()).then_some(("acr_values", classes.as_str())));
        parameters.extend(max_age.as_deref().map(|seconds| ("max_age", seconds)));
        let text = "the request asks for a stronger or more recent login";
        let reason = "INSUFFICIENT_USER_AUTHENTICATION";
        challenged(Code::Unauthenticated, text, reason, &self.challenge(&parameters))
    }
}

impl Authentication {
    /// The principal, with what the login behind its token (RFC 9470) and the request's `classification_max` leave of its
    /// rights.
    pub(super) fn bounded_by_login(
        &self,
        principal: Result<Principal, FieldViolation>,
        caller: &Caller,
        collection: &str,
        classification_max: &str,
    ) -> Result<Result<Principal, FieldViolation>, Status> {
        let violation = |text: &str| Ok(Err(FieldViolation::new("classification_max", text)));
        let classification_max = Some(classification_max).filter(|name| !name.is_empty());
        let (Self::Tokens(tokens), Caller::Verified { token, .. }) = (self, caller) else {
            return match classification_max {
                None => Ok(principal),
                Some(_) => violation("bounds what the bearer of a token gets, and no token was asked for"),
            };
        };
        match tokens.step_up.condition(token, collection, classification_max, now()) {
            Ok(None) => Ok(principal),
            Ok(Some(condition)) => Ok(principal.map(|principal| principal.on_condition(&condition))),
            Err(LoginError::StepUp(required)) => Err(tokens.step_up_challenge(required)),
            Err(LoginError::UnknownClassification) => violation("is none of the server's classifications"),
        }
    }

    /// Whether the login behind a token may read a collection at all.
    pub(super) fn admit_login(&self, caller: &Caller, collection: &str) -> Result<(), Status> {
        let nobody = Err(FieldViolation::new("", ""));
        self.bounded_by_login(nobody, caller, collection, "").map(drop)
    }

    /// Whether what was admitted when a call began still is: a stream may go on for longer than its token. `now` is in seconds
    /// since 1970.
    pub(super) fn admit_still(&self, caller: &Caller, collection: &str, now: u64) -> Result<(), Status> {
        if let (Self::Tokens(tokens), Caller::Verified { token, .. }) = (self, caller)
            && tokens.verifier.has_ended(token, now)
        {
            return Err(unauthenticated(&TokenFault::Invalid.challenge(Some(tokens))));
        }
        self.admit_login(caller, collection)
    }

    /// Whether callers are let in already.
    pub(super) fn takes_callers(&self) -> bool {
        match self {
            Self::Believed => true,
            Self::Tokens(tokens) => tokens.is_open.load(Ordering::Acquire),
        }
    }

    /// What a writer must hold on each guard; `None` when writers are believed.
    pub(super) fn write_relation(&self) -> Option<&Relation> {
        match self {
            Self::Believed => None,
            Self::Tokens(tokens) => Some(&tokens.write_relation),
        }
    }
}

/// Who calls. Every request that came through the layer has a caller.
pub(super) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    let found = request.extensions().get::<Caller>().cloned();
    found.ok_or_else(|| unauthenticated(&TokenFault::Absent.challenge(None)))
}

/// The principal of a request that names `user`: it, or why the name is no user.
pub(super) fn principal(caller: &Caller, user: &str) -> Result<Result<Principal, FieldViolation>, Status> {
    match caller.principal(user) {
        Ok(principal) => Ok(Ok(principal)),
        Err(CallerError::Malformed(error)) => Ok(Err(FieldViolation::new("user", error.to_string()))),
        Err(error @ (CallerError::OtherUser | CallerError::NoUser)) => Err(caller_status(&error)),
    }
}

/// The status of a caller who is not whom the request needs.
pub(super) fn caller_status(error: &CallerError) -> Status {
    match error {
        CallerError::Malformed(error) => status::invalid(vec![FieldViolation::new("user", error.to_string())]),
        CallerError::OtherUser => status::denied("the token does not let its bearer ask for this user"),
        CallerError::NoUser => status::denied(
            "the token speaks for a client, not for a user; `identity.issuers.people` says what marks a person's token",
        ),
    }
}

/// What a token with these properties may be used for. Details and delegation bound what is read, chunk by chunk; where
/// nothing is checked by chunk they would bound nothing, so such a token does not count there.
fn permits(token: &VerifiedToken, access: Access) -> bool {
    let scopes = token.facts().scopes;
    match access {
        Access::Open | Access::AnyToken => true,
        Access::AnyScope => !scopes.is_empty(),
        Access::Needs(scope) => {
            let bounds_count = match scope {
                Scope::Retrieve => true,
                Scope::Ingest => !token.is_narrowed(),
                Scope::Explain | Scope::Administer | Scope::AssertUser => !token.is_narrowed() && !token.is_delegated(),
            };
            scopes.contains(scope) && bounds_count
        }
    }
}

/// Why no token was verified, as far as the caller is told (RFC 6750, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenFault {
    /// There is none.
    Absent,
    /// It is not valid here. Which check it failed is not told.
    Invalid,
}

impl TokenFault {
    /// A fixed label, for the record.
    const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Invalid => "invalid",
        }
    }

    fn challenge(self, tokens: Option<&TokenAuthentication>) -> String {
        let parameters: &[(&str, &str)] = match self {
            Self::Absent => &[],
            Self::Invalid => &[("error", "invalid_token")],
        };
        tokens.map_or_else(|| "Bearer".to_owned(), |tokens| tokens.challenge(parameters))
    }
}

fn unauthenticated(challenge: &str) -> Status {
    challenged(Code::Unauthenticated, "the request needs a valid access token", "UNAUTHENTICATED", challenge)
}

fn challenged(code: Code, text: &'static str, reason: &'static str, challenge: &str) -> Status {
    let mut metadata = MetadataMap::new();
    if let Ok(challenge) = MetadataValue::try_from(challenge) {
        metadata.insert("www-authenticate", challenge);
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::new());
    Status::with_error_details_and_metadata(code, text, details, metadata)
}

fn unavailable(text: &'static str, reason: &'static str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::new());
    Status::with_error_details(Code::Unavailable, text, details)
}

/// Seconds since 1970. A clock that stands before is one that no token is valid by.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

/// The bearer token of a request (RFC 6750, section 2.1): one header, one token. In no other place is one looked for.
fn bearer(headers: &HeaderMap) -> Result<&str, TokenFault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next().ok_or(TokenFault::Absent)?, values.next()) else {
        return Err(TokenFault::Invalid);
    };
    let text = value.to_str().map_err(|_not_text| TokenFault::Invalid)?;
    let (scheme, token) = text.split_once(' ').ok_or(TokenFault::Invalid)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(TokenFault::Invalid) }
}

/// Who was let in for one call, and what must hold when it ends.
struct Admitted {
    token: Arc<VerifiedToken>,
    access: Access,
    settled: Settled,
    /// Of a token that serves one request only.
    one_use: Option<Use>,
}

/// Who calls, or the refusal. What is found out is added to the record.
async fn authenticate(
    (tokens, authorizer): (&TokenAuthentication, &dyn Authorizer),
    headers: &HeaderMap,
    access: Access,
    draft: &Draft,
) -> Result<Admitted, Status> {
    let fault = |fault: TokenFault| unauthenticated(&fault.challenge(Some(tokens)));
    let refused = |refusal: Refusal| {
        tracing::debug!(refusal = refusal.label(), "a token was refused");
        draft.refusal(refusal.label());
        fault(TokenFault::Invalid)
    };
    if !tokens.is_open.load(Ordering::Acquire) {
        draft.refusal("names_unchecked");
        let text = "the server is not ready: it still compares stored names with those of tokens; try again later";
        return Err(unavailable(text, "NOT_READY"));
    }
    let token = bearer(headers).map_err(|missing| {
        draft.refusal(missing.label());
        fault(missing)
    })?;
    let verified = tokens.verifier.verify(token, now()).await.map_err(|error| match error {
        AuthenticationError::Refused(refusal) => {
            if let Refusal::Elsewhere | Refusal::Absent = refusal {
                tokens.remedy.tell(refusal.label());
            }
            refused(refusal)
        }
        AuthenticationError::Unavailable => {
            draft.refusal("issuer_unavailable");
            unavailable("the caller cannot be identified now; try again later", "ISSUER_UNAVAILABLE")
        }
    })?;
    draft.bearer(&verified);
    if permits(&verified, access) {
        let settled =
            Settled::of(&verified, access, authorizer, &tokens.remedy).await.map_err(|unsettled| match unsettled {
                Unsettled::Refused => refused(Refusal::Absent),
                Unsettled::Unknown(error) => {
                    draft.refusal("model_unknown");
                    Status::from(RetrievalError::Authz(error))
                }
            })?;
        let one_use = tokens.verifier.begin_use(&verified, now()).map_err(refused)?;
        return Ok(Admitted { token: verified, access, settled, one_use });
    }
    draft.refusal("scope");
    let mut parameters = vec![("error", "insufficient_scope")];
    if let Access::Needs(scope) = access {
        parameters.push(("scope", scope.as_str()));
    }
    let text = "the token is not meant for this call";
    Err(challenged(Code::PermissionDenied, text, "INSUFFICIENT_SCOPE", &tokens.challenge(&parameters)))
}

impl Admitted {
    fn caller(&self) -> Caller {
        Caller::Verified { token: Arc::clone(&self.token), may_assert: self.settled.may_assert }
    }

    /// The answer, unless what it rests on changed meanwhile.
    async fn conclude(
        self,
        (tokens, authorizer): (&TokenAuthentication, &dyn Authorizer),
        draft: &Draft,
        mut response: http::Response<Body>,
    ) -> http::Response<Body> {
        if !audit::is_ok(&response) {
            return response;
        }
        if !self.settled.still_holds(&self.token, self.access, authorizer, &tokens.remedy).await {
            draft.refusal(Refusal::Absent.label());
            return unauthenticated(&TokenFault::Invalid.challenge(Some(tokens))).into_http();
        }
        if let Some(one_use) = self.one_use {
            one_use.answered();
            // Whoever withholds the answer after all gives the use back.
            response.extensions_mut().insert(Arc::new(one_use));
        }
        response
    }
}

/// Puts the gate around services.
#[derive(Clone)]
pub(super) struct AuthenticationLayer {
    pub(super) authentication: Authentication,
    /// Whose model tells what a token must tell.
    pub(super) authorizer: Arc<dyn Authorizer>,
}

/// See [`AuthenticationLayer`].
#[derive(Clone)]
pub(super) struct Authenticated<S> {
    layer: AuthenticationLayer,
    inner: S,
}

impl<S> Layer<S> for AuthenticationLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { layer: self.clone(), inner }
    }
}

impl<S> Service<http::Request<Body>> for Authenticated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The instance that was polled is the one that is ready.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let AuthenticationLayer { authentication, authorizer } = self.layer.clone();
        Box::pin(async move {
            let route = Route::of(&request);
            let access = route.access();
            let tokens = match &authentication {
                Authentication::Believed => {
                    if let Some(refusal) = route.refusal() {
                        return Ok(refusal.into_http());
                    }
                    admit(&mut request, Caller::Believed);
                    return inner.call(request).await;
                }
                Authentication::Tokens(_) if access == Access::Open => return inner.call(request).await,
                Authentication::Tokens(tokens) => tokens,
            };
            // INVARIANT (record first): what is not recorded is not answered.
            let Some(draft) = request.extensions().get::<Draft>().cloned() else {
                return Ok(status::unrecorded().into_http());
            };
            let by = (&**tokens, &*authorizer);
            match (authenticate(by, request.headers(), access, &draft).await, route.refusal()) {
                (Ok(_), Some(refusal)) => Ok(refusal.into_http()),
                (Ok(admitted), None) => {
                    admit(&mut request, admitted.caller());
                    let response = inner.call(request).await?;
                    Ok(admitted.conclude(by, &draft, response).await)
                }
                (Err(status), _) => Ok(status.into_http()),
            }
        })
    }
}

/// Nothing behind the gate needs the token, so nothing can pass it on.
fn admit(request: &mut http::Request<Body>, caller: Caller) {
    request.headers_mut().remove(header::AUTHORIZATION);
    request.extensions_mut().insert(caller);
}

#[cfg(test)]
mod tests;
