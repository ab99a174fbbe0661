//! The gate: one layer that every request passes before any service sees it. It finds out who calls, and whether the token
//! is meant for this call.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, ready};
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, header};
use tower::{Layer, Service};

use super::challenge::{self, TokenFault};
use super::possession::{BoundCall, PROOF_HEADER, RequestTarget, Unproven};
use super::scheme::Scheme;
use super::untold::{Settled, Unsettled};
use super::{AfterGate, Authentication, Resource, TokenAuthentication, now};
use crate::audit::Door;
use crate::authz::Authorizer;
use crate::identity::{self, AuthenticationError, BearerToken, Caller, Scope, Use, VerifiedToken};
use crate::retrieval::RetrievalError;
use crate::server::audit::Draft;
use crate::server::operations::{Access, Callable, Route};
use crate::server::refusal::{NONCE_HEADER, Refusal};
use crate::server::tls::ClientCertificate;

/// Puts the gate around services.
#[derive(Clone)]
pub(in crate::server) struct GateLayer {
    pub(in crate::server) authentication: Authentication,
    /// Knows the model, which says what a token must tell of its subject.
    pub(in crate::server) authorizer: Arc<dyn Authorizer>,
}

/// Services behind the gate.
#[derive(Clone)]
pub(in crate::server) struct Gated<S> {
    layer: GateLayer,
    inner: S,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { layer: self.clone(), inner }
    }
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Self::Response, Refusal>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The instance that was polled is called, because only that one is known to be ready.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let GateLayer { authentication, authorizer } = self.layer.clone();
        Box::pin(async move {
            let route = Route::of(&request);
            let access = route.access();
            let tokens = match &authentication {
                Authentication::Tokens(_) if access == Access::Open => {
                    return match route.refusal() {
                        Some(refusal) => Err(refusal),
                        None => inner.call(request).await,
                    };
                }
                Authentication::Tokens(tokens) => tokens,
                Authentication::Believed => {
                    if let Some(refusal) = route.refusal() {
                        return Err(refusal);
                    }
                    admit(&mut request, Caller::Believed, None);
                    return inner.call(request).await;
                }
            };
            // INVARIANT (record first): what is not recorded is not answered.
            let draft = request.extensions().get::<Draft>().cloned().ok_or_else(Refusal::unrecorded)?;
            let certificate = request.extensions().get::<ClientCertificate>().copied().unwrap_or_default();
            // The connection tells the door. No header does.
            let door = request.extensions().get::<Door>().copied().unwrap_or(Door::InProcess);
            let resource = tokens.at(door);
            let target = request.extensions().get::<RequestTarget>().cloned();
            let target = target.as_ref();
            let gate = Gate { tokens, resource, authorizer: &*authorizer, draft: &draft, certificate, target };
            let admitted = gate.authenticate(request.headers(), &route).await?;
            // Only callers with a token learn which paths there are.
            if let Some(refusal) = route.refusal().or_else(|| gate.unlisted(&route, &admitted)) {
                return Err(refusal);
            }
            let asks_the_door = matches!(route, Route::Mcp(_));
            let callable = asks_the_door.then(|| Callable::by(|access| permits(&admitted.token, access)));
            admit(&mut request, admitted.caller(), admitted.bearer.clone());
            // The handlers say when texts are read, which uses such a token up.
            if let Some(one_use) = &admitted.one_use {
                request.extensions_mut().insert(Arc::clone(one_use));
            }
            let answer = inner.call(request).await?;
            let mut answer = gate.conclude(admitted, answer).await?;
            if let Some(callable) = callable {
                answer.extensions_mut().insert(callable);
            }
            Ok(answer)
        })
    }
}

/// Hands a request to its service. The token and its proof are taken off, so that nobody can pass them on. Only if sources are
/// asked as the caller does the token go along, hidden, for the authorization server that exchanges it.
fn admit(request: &mut http::Request<Body>, caller: Caller, bearer: Option<BearerToken>) {
    request.headers_mut().remove(header::AUTHORIZATION);
    request.headers_mut().remove(PROOF_HEADER);
    request.extensions_mut().insert(caller);
    if let Some(bearer) = bearer {
        request.extensions_mut().insert(bearer);
    }
}

/// The facts by which the gate judges one call, and the draft in which it notes its findings.
struct Gate<'a> {
    tokens: &'a TokenAuthentication,
    /// The resource that the call is for, which says whose tokens it takes.
    resource: &'a Resource,
    authorizer: &'a dyn Authorizer,
    draft: &'a Draft,
    /// The certificate of the client at the other end of the call's own connection. No header names one.
    certificate: ClientCertificate,
    /// The method and the path at the request's arrival; `None` if it came by no connection.
    target: Option<&'a RequestTarget>,
}

/// The token of a request, with the scheme in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Presented<'h> {
    scheme: Scheme,
    token: &'h str,
}

/// A caller who was let in for one call, and what must still hold when the call ends.
struct Admitted {
    /// The nonce for the caller's next proofs, if it needs a new one.
    new_nonce: Option<HeaderValue>,
    token: Arc<VerifiedToken>,
    /// The token as it was sent, if sources are asked with it.
    bearer: Option<BearerToken>,
    access: Access,
    settled: Settled,
    /// The one use of a token that serves a single request.
    one_use: Option<Arc<Use>>,
}

impl Gate<'_> {
    async fn authenticate(&self, headers: &HeaderMap, route: &Route) -> Result<Admitted, Refusal> {
        let Self { tokens, resource, authorizer, draft, .. } = *self;
        let access = route.access();
        if !tokens.is_open() {
            draft.token_refused("names_unchecked");
            let text = "the server is not ready: it still compares stored names with those of tokens; try again later";
            return Err(challenge::unavailable(text, "NOT_READY"));
        }
        let presented = presented(headers).map_err(|fault| {
            draft.token_refused(fault.label());
            resource.unauthenticated(fault)
        })?;
        let token = resource.verifier.verify(presented.token, now()).await.map_err(|error| match error {
            AuthenticationError::Refused(refusal) => {
                if let identity::Refusal::Elsewhere | identity::Refusal::Absent = refusal {
                    tokens.remedy.tell(refusal.label());
                }
                self.invalid(refusal)
            }
            AuthenticationError::Unavailable => {
                draft.token_refused("issuer_unavailable");
                let text = "the caller cannot be identified now; try again later";
                challenge::unavailable(text, "ISSUER_UNAVAILABLE")
            }
        })?;
        // A verified token may be remembered from a call over another connection. So this is looked at here, for every call.
        let new_nonce = self.confirm(&token, presented, headers)?;
        draft.bearer(&token);
        if !permits(&token, access) {
            draft.token_refused("scope");
            return Err(resource.insufficient_scope(&token, access));
        }
        let settled = Settled::of(&token, access, authorizer, &tokens.remedy).await;
        let settled = settled.map_err(|unsettled| resource.unsettled(unsettled, draft))?;
        let begin = || resource.verifier.begin_use(&token, now()).map_err(|refusal| self.invalid(refusal));
        let one_use = if route.uses_token_up() { begin()?.map(Arc::new) } else { None };
        let bearer = match tokens.after_gate {
            // Nothing else asks sources, so no other service holds the token.
            AfterGate::ForSources if access == Access::Needs(Scope::Retrieve) => {
                Some(BearerToken::new(presented.token, token.facts()))
            }
            AfterGate::ForSources | AfterGate::TakenOff => None,
        };
        Ok(Admitted { new_nonce, token, bearer, access, settled, one_use })
    }

    /// Returns the refusal of a caller who may not call an RPC that its door shows only to those who may. The door says the same
    /// of what is not there, and the record names the RPC.
    fn unlisted(&self, route: &Route, admitted: &Admitted) -> Option<Refusal> {
        let Route::Unlisted(operation, refusal) = route else { return None };
        if permits(&admitted.token, operation.access) {
            return None;
        }
        self.draft.token_refused("scope");
        Some(refusal.clone())
    }

    /// Returns the answer, unless the facts that it rests on have changed meanwhile.
    async fn conclude(
        &self,
        admitted: Admitted,
        mut answer: http::Response<Body>,
    ) -> Result<http::Response<Body>, Refusal> {
        let Admitted { new_nonce, token, bearer: _, access, settled, one_use } = admitted;
        if !settled.still_holds(&token, access, self.authorizer, &self.tokens.remedy).await {
            return Err(self.invalid(identity::Refusal::Absent));
        }
        if let Some(one_use) = one_use {
            one_use.answered();
            // If the record withholds the answer after all, it gives the use back.
            answer.extensions_mut().insert(one_use);
        }
        if let Some(nonce) = new_nonce {
            answer.headers_mut().insert(NONCE_HEADER, nonce);
        }
        Ok(answer)
    }

    /// Makes sure that the bearer holds the key that a token is bound to. Returns the nonce for its next proofs, if it needs a new
    /// one.
    fn confirm(
        &self,
        token: &VerifiedToken,
        presented: Presented<'_>,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, Refusal> {
        let Self { resource, certificate, target, .. } = *self;
        match (token.bound_key(), presented.scheme, &resource.proofs) {
            (None, Scheme::Bearer, _) if token.is_confirmed_by(certificate.0) => Ok(None),
            (None, Scheme::Bearer, _) => Err(self.invalid(identity::Refusal::Confirmation)),
            (Some(key), Scheme::Dpop, Some(proofs)) => {
                let call = BoundCall { headers, target, token: presented.token, key };
                proofs.check(call, now()).map_err(|unproven| self.unproven(unproven))
            }
            // A thief of a bound token could leave the proof out. And a client that sends a proof with an unbound token wrongly
            // believes that the token is safe.
            (Some(_), Scheme::Bearer | Scheme::Dpop, _) | (None, Scheme::Dpop, _) => {
                note_refused(identity::Refusal::Confirmation, self.draft);
                Err(resource.wrong_scheme())
            }
        }
    }

    fn invalid(&self, why: identity::Refusal) -> Refusal {
        self.resource.invalid(why, self.draft)
    }

    /// Refuses a token whose bearer has not proved that it has the token's key.
    fn unproven(&self, unproven: Unproven) -> Refusal {
        note_refused(identity::Refusal::Proof(unproven.fault), self.draft);
        self.resource.unproven(unproven)
    }
}

impl Resource {
    /// Refuses a token that is not valid here. The record says why, and the caller is not told.
    fn invalid(&self, why: identity::Refusal, draft: &Draft) -> Refusal {
        note_refused(why, draft);
        self.unauthenticated(TokenFault::Invalid)
    }

    /// Refuses a token that lacks a claim by which the model excludes people, or whose claims cannot be judged now.
    pub(super) fn unsettled(&self, unsettled: Unsettled, draft: &Draft) -> Refusal {
        match unsettled {
            Unsettled::Refused => self.invalid(identity::Refusal::Absent, draft),
            Unsettled::Unknown(error) => {
                draft.token_refused("model_unknown");
                RetrievalError::Authz(error).into()
            }
        }
    }
}

impl Admitted {
    fn caller(&self) -> Caller {
        Caller::Verified { token: Arc::clone(&self.token), other_users: self.settled.other_users }
    }
}

impl Authentication {
    /// Returns whether a door takes the token of these headers. The gate still judges each call: it alone looks at certificates and
    /// proofs, and a proof counts once.
    pub(in crate::server) fn knows_bearer(&self, door: Door, headers: &HeaderMap) -> BoxFuture<'static, bool> {
        let (Self::Tokens(tokens), Ok(Presented { scheme, token })) = (self, presented(headers)) else {
            return Box::pin(ready(false));
        };
        let (tokens, token) = (Arc::clone(tokens), token.to_owned());
        Box::pin(async move {
            tokens.is_open()
                && tokens.at(door).verifier.verify(&token, now()).await.is_ok_and(|token| Scheme::of(&token) == scheme)
        })
    }
}

/// Notes in the log and in the record why a token was refused.
fn note_refused(why: identity::Refusal, draft: &Draft) {
    tracing::debug!(refusal = why.label(), "a token was refused");
    draft.token_refused(why.label());
}

/// Finds the token of a request (RFC 6750, section 2.1; RFC 9449, section 7.1): one header with one token. No other place is
/// searched.
fn presented(headers: &HeaderMap) -> Result<Presented<'_>, TokenFault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next().ok_or(TokenFault::Absent)?, values.next()) else {
        return Err(TokenFault::Invalid);
    };
    let text = value.to_str().map_err(|_not_text| TokenFault::Invalid)?;
    let (scheme, token) = text.split_once(' ').ok_or(TokenFault::Invalid)?;
    let scheme = Scheme::parse(scheme).ok_or(TokenFault::Invalid)?;
    Ok(Presented { scheme, token })
}

/// Returns whether a token may be used for a call.
///
/// Details and delegation bound what is read, chunk by chunk. An operation that checks no chunks would not heed them,
/// so it takes no token that has them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_header_with_one_token_is_read() {
        let found = |scheme| Ok(Presented { scheme, token: "abc" });
        let rows: [(&str, &[&str], Result<Presented<'_>, TokenFault>); 13] = [
            ("no header", &[], Err(TokenFault::Absent)),
            ("a token", &["Bearer abc"], found(Scheme::Bearer)),
            ("the scheme in small letters", &["bearer abc"], found(Scheme::Bearer)),
            ("a token with a proof", &["DPoP abc"], found(Scheme::Dpop)),
            ("its scheme in small letters", &["dpop abc"], found(Scheme::Dpop)),
            ("a scheme without a token", &["Bearer"], Err(TokenFault::Invalid)),
            ("the scheme of a proof without a token", &["DPoP"], Err(TokenFault::Invalid)),
            ("a password", &["Basic YTpi"], Err(TokenFault::Invalid)),
            ("a token of another kind", &["GNAP abc"], Err(TokenFault::Invalid)),
            ("the same header twice", &["Bearer abc", "Bearer abc"], Err(TokenFault::Invalid)),
            ("with both schemes", &["DPoP abc", "Bearer abc"], Err(TokenFault::Invalid)),
            ("with both schemes, the other way round", &["Bearer abc", "DPoP abc"], Err(TokenFault::Invalid)),
            ("a token without a scheme", &["abc"], Err(TokenFault::Invalid)),
        ];
        for (row, values, expected) in rows {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(presented(&headers), expected, "{row}");
        }
    }
}
