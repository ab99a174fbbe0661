//! The caller of a request. The gate lets callers in. The handlers ask here which principal a request is for, and what
//! its login allows.
//!
//! INVARIANT (no way around): the gate is one layer around all services. A call that is not in the table of
//! `operations` reaches none of them. A service that finds no caller in its request refuses it.

mod approval;
mod approver;
mod challenge;
mod gate;
mod notification;
mod possession;
mod question;
mod scheme;
mod untold;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) use self::approval::{ApprovalCall, Approved};
pub(super) use self::approver::RequestedApproval;
pub(super) use self::gate::GateLayer;
pub(super) use self::notification::NotificationApi;
pub use self::possession::{Nonces, Possession};
pub(super) use self::possession::{PROOF_HEADER, RequestTarget, algorithm_names};

use self::approver::Approver;
use self::challenge::TokenFault;
use self::possession::{PublicUrls, ResourceProofs};
use self::untold::{Remedy, Settled};
use super::audit::Draft;
use super::operations::Access;
use super::refusal::Refusal;
use super::resource_metadata;
use crate::audit::Door;
use crate::authz::Authorizer;
use crate::identity::approval::ApprovalRules;
use crate::identity::details::OneOf;
use crate::identity::{Caller, CallerError, LoginError, Scope, StepUpRules, TokenVerifier, VerifiedToken};
use crate::language::Relation;
use crate::retrieval::{FieldViolation, NamedPrincipal};

/// Decides which callers are let in.
///
/// A process that serves its own commands is built with [`Authentication::Believed`]. No header of a request can ask
/// for that.
#[derive(Clone)]
pub enum Authentication {
    /// Everybody, as whoever they say they are: local administration, and servers with `--insecure-identity`.
    Believed,
    /// The bearers of access tokens.
    Tokens(Arc<TokenAuthentication>),
}

/// Verifies the tokens of callers, and knows what their bearers may do.
#[derive(Debug)]
pub struct TokenAuthentication {
    /// The resource of all doors but that for MCP.
    own: Resource,
    /// The resource of the door for MCP, if there is one. Only a token that names its audience opens the door. Such a token opens
    /// no other door, even if it names the other audience, too: an agent holds it.
    mcp: Option<Resource>,
    write_relation: Relation,
    step_up: StepUpRules,
    approvals: ApprovalRules,
    /// Asks people for approvals; `None` if only clients do.
    approver: Option<Approver>,
    remedy: Remedy,
    after_gate: AfterGate,
    /// Whether tokens are accepted. They are not before stored names have been compared with those that tokens give.
    is_open: AtomicBool,
}

/// The fate of a token that the gate has let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterGate {
    /// The services do not get the token.
    TakenOff,
    /// Retrieval gets the token, so that a source can be asked as its subject.
    ForSources,
}

/// A protected resource (RFC 9728): the doors whose tokens name one audience.
#[derive(Debug)]
pub(super) struct Resource {
    verifier: TokenVerifier,
    /// The URL at which clients learn whose tokens are accepted, if the audience is a URL.
    metadata_url: Option<String>,
    /// The scopes that its tokens may have. If there is one alone, the challenges name it.
    scopes: &'static [Scope],
    /// The checks of proofs. `None` if no tokens are taken that are bound to a key, because nobody knows the URLs of requests.
    proofs: Option<ResourceProofs>,
}

/// The collection and the classification that a request reads, on which the required login depends.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadTarget<'m> {
    pub(super) collection: &'m str,
    /// The highest classification that it asks for; empty for whatever the login allows.
    pub(super) classification_max: &'m str,
}

/// The reason why a login is not good enough for a request.
enum LoginFault {
    /// The caller has to log in again, and is told how.
    Insufficient(Refusal),
    /// The request's `classification_max` makes no sense.
    Ceiling(FieldViolation),
}

impl TokenAuthentication {
    /// Accepts the tokens that `verifier` verifies, after [`TokenAuthentication::open`] was called. A bearer may write
    /// under the guards on which it holds `write_relation`, and may read everything for which `step_up` asks no better
    /// login.
    ///
    /// # Errors
    /// When the audience is a URL that no metadata can be served for.
    pub fn new(verifier: TokenVerifier, write_relation: Relation, step_up: StepUpRules) -> Result<Self, String> {
        Ok(Self {
            own: Resource::new(verifier, &Scope::ALL)?,
            mcp: None,
            write_relation,
            step_up,
            approvals: ApprovalRules::default(),
            approver: None,
            remedy: Remedy::default(),
            after_gate: AfterGate::TakenOff,
            is_open: AtomicBool::new(false),
        })
    }

    /// Asks for the approvals that these rules name.
    #[must_use]
    pub fn with_approvals(self, approvals: ApprovalRules) -> Self {
        Self { approvals, ..self }
    }

    /// Lets tokens whose audience is `url` in at the door for MCP.
    ///
    /// # Errors
    /// When no metadata can be served for the URL, or other doors take tokens of this audience.
    pub fn with_mcp(self, url: &str) -> Result<Self, String> {
        if url == self.own.verifier.audience() {
            return Err(format!(
                "`server.mcp.url` and `identity.audience` are both `{url}`: a token for one must not open both"
            ));
        }
        let resource = Resource::new(self.own.verifier.for_audience(url), &[Scope::Retrieve])?;
        if resource.metadata_url.is_none() {
            return Err(format!("`server.mcp.url` `{url}` is no URL"));
        }
        let verifier = self.own.verifier.barring(url);
        Ok(Self { own: Resource { verifier, ..self.own }, mcp: Some(resource), ..self })
    }

    /// Takes tokens that are bound to a key, whose clients send proofs (RFC 9449). `public_url` is the URL of the server as clients
    /// know it, in front of the paths; without it, only the door for MCP takes such tokens, since it has a URL of its own.
    #[must_use]
    pub fn with_possession(self, public_url: Option<&str>, possession: Possession) -> Self {
        let possession = Arc::new(possession);
        let proofs = |urls| Some(ResourceProofs { urls, possession: Arc::clone(&possession) });
        let own = Resource {
            proofs: public_url.and_then(|url| proofs(PublicUrls::Under(url.trim_end_matches('/').to_owned()))),
            ..self.own
        };
        let mcp = self.mcp.map(|mcp| {
            let url = mcp.verifier.audience().to_owned();
            Resource { proofs: proofs(PublicUrls::One(url)), ..mcp }
        });
        Self { own, mcp, ..self }
    }

    /// Hands tokens on to retrieval, which has them exchanged for tokens of sources.
    #[must_use]
    pub fn for_sources(self) -> Self {
        Self { after_gate: AfterGate::ForSources, ..self }
    }

    /// Accepts tokens from now on.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Returns the resources whose metadata everybody may read.
    pub(super) fn resources(&self) -> impl Iterator<Item = &Resource> {
        std::iter::once(&self.own).chain(&self.mcp)
    }

    /// Returns the resource that a door belongs to.
    fn at(&self, door: Door) -> &Resource {
        match (door, &self.mcp) {
            (Door::Mcp, Some(mcp)) => mcp,
            // Without a door for MCP, no call comes to it.
            (Door::Mcp, None) | (Door::Grpc | Door::Connect | Door::Rest | Door::OpenFgaHttp | Door::InProcess, _) => {
                &self.own
            }
        }
    }

    /// Returns the resource that a verified token is for.
    fn of(&self, token: &VerifiedToken) -> &Resource {
        let mcp = self.mcp.as_ref().filter(|mcp| mcp.verifier.audience() == token.audience());
        mcp.unwrap_or(&self.own)
    }
}

impl Resource {
    fn new(verifier: TokenVerifier, scopes: &'static [Scope]) -> Result<Self, String> {
        let metadata_url = resource_metadata::url(verifier.audience())?;
        Ok(Self { verifier, metadata_url, scopes, proofs: None })
    }

    pub(super) fn verifier(&self) -> &TokenVerifier {
        &self.verifier
    }

    pub(super) const fn scopes(&self) -> &'static [Scope] {
        self.scopes
    }

    /// Returns whether tokens are taken that are bound to a key.
    pub(super) const fn takes_proofs(&self) -> bool {
        self.proofs.is_some()
    }
}

impl Authentication {
    /// Narrows a principal to the chunks that it may still see under the login behind the token (RFC 9470) and under
    /// the request's own `classification_max`.
    pub(super) fn bounded_by_login(
        &self,
        principal: NamedPrincipal,
        caller: &Caller,
        reading: ReadTarget,
    ) -> Result<NamedPrincipal, Refusal> {
        match self.login_condition(caller, reading) {
            Ok(None) => Ok(principal),
            Ok(Some(condition)) => Ok(principal.on_condition(&condition)),
            Err(LoginFault::Insufficient(refusal)) => Err(refusal),
            Err(LoginFault::Ceiling(violation)) => Ok(NamedPrincipal::Invalid(violation)),
        }
    }

    /// Refuses a caller whose login is not good enough to read a collection at all.
    pub(super) fn admit_login(&self, caller: &Caller, collection: &str) -> Result<(), Refusal> {
        let reading = ReadTarget { collection, classification_max: "" };
        self.login_condition(caller, reading).map(drop).map_err(|fault| match fault {
            LoginFault::Insufficient(refusal) => refusal,
            LoginFault::Ceiling(violation) => violation.into(),
        })
    }

    /// Refuses a caller whose token lacks a claim by which the model excludes people. The gate does so for the RPCs that are
    /// always decided by the claims of their callers. An explanation rests on them only if it is about the bearer.
    pub(super) async fn admit_claims(
        &self,
        caller: &Caller,
        authorizer: &dyn Authorizer,
        draft: &Draft,
    ) -> Result<(), Refusal> {
        let (Self::Tokens(tokens), Caller::Verified { token, .. }) = (self, caller) else { return Ok(()) };
        let settled = Settled::of(token, Access::Needs(Scope::Retrieve), authorizer, &tokens.remedy).await;
        settled.map(drop).map_err(|unsettled| tokens.of(token).unsettled(unsettled, draft))
    }

    /// Refuses a caller who was let in when its call began, but would not be let in now: a stream may go on for longer
    /// than its token. `now` is in seconds since 1970.
    pub(super) fn admit_still(&self, caller: &Caller, collection: &str, now: u64) -> Result<(), Refusal> {
        if let (Self::Tokens(tokens), Caller::Verified { token, .. }) = (self, caller)
            && tokens.of(token).verifier.has_ended(token, now)
        {
            return Err(tokens.of(token).unauthenticated(TokenFault::Invalid));
        }
        self.admit_login(caller, collection)
    }

    /// Returns the condition on chunks that the login leaves; `None` when it leaves every chunk.
    fn login_condition(&self, caller: &Caller, reading: ReadTarget) -> Result<Option<OneOf>, LoginFault> {
        let ceiling = |text: &str| Err(LoginFault::Ceiling(FieldViolation::new("classification_max", text)));
        let classification_max = Some(reading.classification_max).filter(|name| !name.is_empty());
        let (Self::Tokens(tokens), Caller::Verified { token, .. }) = (self, caller) else {
            return match classification_max {
                None => Ok(None),
                Some(_) => ceiling("limits the bearer of a token, but this server asks for no token"),
            };
        };
        match tokens.step_up.condition(token, reading.collection, classification_max, now()) {
            Ok(condition) => Ok(condition),
            Err(LoginError::StepUp(required)) => {
                Err(LoginFault::Insufficient(tokens.of(token).insufficient_login(token, required)))
            }
            Err(LoginError::UnknownClassification) => ceiling("is none of the server's classifications"),
        }
    }

    /// Returns whether callers are let in already.
    pub(super) fn takes_callers(&self) -> bool {
        match self {
            Self::Believed => true,
            Self::Tokens(tokens) => tokens.is_open(),
        }
    }

    /// Returns the relation that a writer must hold on each guard; `None` when writers are believed.
    pub(super) fn write_relation(&self) -> Option<&Relation> {
        match self {
            Self::Believed => None,
            Self::Tokens(tokens) => Some(&tokens.write_relation),
        }
    }
}

/// Takes the caller of a request. Every request that came through the gate has one.
pub(super) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Refusal> {
    let found = request.extensions().get::<Caller>().cloned();
    found.ok_or_else(|| scheme::unauthenticated("Bearer".to_owned()))
}

/// Returns the principal of a request that names `user`; an empty name stands for the bearer of the token.
pub(super) fn principal(caller: &Caller, user: &str) -> Result<NamedPrincipal, Refusal> {
    match caller.principal(user) {
        Ok(principal) => Ok(NamedPrincipal::Known(principal)),
        Err(CallerError::Malformed(error)) => {
            Ok(NamedPrincipal::Invalid(FieldViolation::new("user", error.to_string())))
        }
        Err(error @ (CallerError::OtherUser | CallerError::NoUser)) => Err(wrong_caller(&error)),
    }
}

/// Returns the refusal of a caller who is not the person that a request needs.
pub(super) fn wrong_caller(error: &CallerError) -> Refusal {
    match error {
        CallerError::Malformed(error) => FieldViolation::new("user", error.to_string()).into(),
        CallerError::OtherUser => Refusal::denied("the token does not let its bearer ask for this user"),
        CallerError::NoUser => Refusal::denied(
            "the token speaks for a client, not for a user; `identity.issuers.people` says what marks a person's token",
        ),
    }
}

/// Seconds since 1970. A clock that stands before 1970 gives a time at which no token is valid.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}
