//! Asks people for approvals, at their issuer.
//!
//! The issuer's token is evidence: it is verified, compared with the question, and dropped. Then the caller's own token decides
//! the request anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::Code;

use super::question::{described, is_page, legible};
use super::{Authentication, TokenAuthentication, challenge, now};
use crate::audit::AuditedApproval;
use crate::identity::approvable::{ApprovableRequest, Approval, Grant};
use crate::identity::approval::ShownFacts;
use crate::identity::approval::desk::{AskedQuestion, Consent, Desk, Notified, Outcome, Pace, Poll, Ring, Told};
use crate::identity::approval::sealed::{Asker, OpenApproval, Seal, random_code, random_nonce};
use crate::identity::config::{BackchannelConfig, BindingMessage, Delivery, IssuerDetails};
use crate::identity::{
    Asked, Backchannel, BackchannelError, Caller, Polled, Principal, Question, TokenVerifier, VerifiedToken,
};
use crate::retrieval::{FieldViolation, RetrievalError};
use crate::server::audit::Draft;
use crate::server::refusal::{APPROVAL_PENDING, APPROVAL_REQUIRED, Refusal};
use crate::telemetry;
use crate::token_endpoint::OAuthClient;
use crate::visible::is_visible;

/// The longest time that an approval may be open, in seconds.
const EXPIRY_SECONDS_MAX: u64 = 3_600;
/// The longest purpose, in bytes. A person reads it on a telephone.
const PURPOSE_BYTES_MAX: usize = 256;
/// Refuses every approval that does not fit its request. The caller does not learn why, as it does not for a page token.
const NOT_OF_REQUEST: &str = "is no approval of this request by this caller; ask for one with RequestApproval";
/// Refuses to ask where nobody is asked.
const NOBODY_ASKED: &str = "this server asks nobody for approvals (`approval`): ask the issuer for a token with the \
                            `authorization_details` that the refusal names";

/// Refuses to ask a person whom the issuer would not find.
const NO_LOGIN_HINT: &str = "the token does not tell the name by which its issuer asks the person (`tokens.login_hint` of the \
                             issuer); get one with the scope that has it, such as `profile`";

/// Asks people for approvals, at their issuer.
#[derive(Debug)]
pub(super) struct Approver {
    backchannel: Backchannel,
    config: BackchannelConfig,
    seal: Seal,
    desk: Mutex<Desk>,
}

/// An approval that was asked for.
pub(in crate::server) struct RequestedApproval {
    pub(in crate::server) sealed: String,
    pub(in crate::server) code: String,
    /// The end of the approval, in seconds since 1970.
    pub(in crate::server) expires_at: u64,
    /// The time after which the approval may be used for the first time, in seconds.
    pub(in crate::server) poll_after: u64,
}

/// The reason why an approval does not let its request through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotApproved {
    /// It is not of this request, or not of this caller.
    NotOfRequest,
    /// The person has not answered. Ask again after these seconds.
    Pending(u64),
    Denied,
    Expired,
    Used,
    /// The issuer's token does not prove it.
    Unproved,
    /// The issuer gave no answer that can be used.
    Unknown(BackchannelError),
    /// The caller waits no longer.
    Late,
    /// The token's own details cannot be counted together with the approval.
    SeveralDetails,
}

impl RequestedApproval {
    /// Returns the refusal of a call that has asked the person. It has all that the next call needs.
    pub(in crate::server) fn into_refusal(self) -> Refusal {
        let Self { sealed, code, poll_after, .. } = self;
        let text = "a person has to approve this request, and is being asked: show them the code, and repeat the call with this \
                    `approval` once they have said yes";
        Refusal::new(Code::PermissionDenied, text)
            .with_reason(APPROVAL_REQUIRED)
            .with_fact("approval", sealed)
            .with_fact("code", code)
            .with_fact("poll_after_seconds", poll_after.to_string())
    }
}

impl NotApproved {
    pub(super) fn into_refusal(self) -> Refusal {
        let denied =
            |reason: &'static str, text: &'static str| Refusal::new(Code::PermissionDenied, text).with_reason(reason);
        match self {
            Self::NotOfRequest => FieldViolation::new("approval", NOT_OF_REQUEST).into(),
            Self::Pending(seconds) => denied(
                APPROVAL_PENDING,
                "the person has not answered yet; send the same request again later, with the same `approval`",
            )
            .with_retry_after(Duration::from_secs(seconds)),
            Self::Denied => denied("APPROVAL_DENIED", "the person said no; they can be asked again in a minute"),
            Self::Expired => denied("APPROVAL_EXPIRED", "the approval has expired; ask for a new one"),
            Self::Used => denied("APPROVAL_EXPIRED", "the approval was used; ask for a new one"),
            Self::Unproved => {
                denied("APPROVAL_UNPROVED", "the issuer's token does not prove the approval; the server's log says why")
            }
            Self::Unknown(_) => {
                challenge::unavailable("the issuer does not tell whether the person approved", "APPROVAL_UNAVAILABLE")
            }
            Self::Late => RetrievalError::DeadlineExceeded.into(),
            Self::SeveralDetails => Refusal::denied(
                "the token has several objects of `authorization_details`; an approval takes a token with at most one",
            ),
        }
    }
}

impl TokenAuthentication {
    /// Asks the people of one issuer for approvals.
    ///
    /// # Errors
    /// If the settings cannot be used. The text says which.
    pub fn with_approver(self, config: &BackchannelConfig) -> Result<Self, String> {
        let approver = Approver::new(&self.own.verifier, config)?;
        Ok(Self { approver: Some(approver), ..self })
    }

    /// Returns whether the person behind a token can be asked.
    pub(super) fn asks_person_of(&self, token: &VerifiedToken) -> bool {
        let is_asked = |approver: &Approver| approver.backchannel.issuer() == &*token.facts().issuer;
        self.approver.as_ref().is_some_and(is_asked)
    }

    /// Returns whether details in a token can show an approval. If its issuer has no details of its own, somebody else wrote the
    /// details in the token.
    pub(super) fn takes_approval_in(&self, token: &VerifiedToken) -> bool {
        let has_details = |approver: &Approver| approver.config.details == IssuerDetails::Required;
        !self.asks_person_of(token) || self.approver.as_ref().is_none_or(has_details)
    }

    /// Returns the digest in an approval that this server sealed; `None` for anything else.
    pub(super) fn digest_of_approval(&self, sealed: &str) -> Option<String> {
        Some(self.approver.as_ref()?.seal.open(sealed)?.request_sha256)
    }

    /// Closes an approval that is used now, so that nobody joins it any more.
    pub(super) fn close_approval(&self, token: &VerifiedToken, sealed: &str) {
        if let Some(approver) = &self.approver {
            approver.desk().used(&Asker::of(token.facts()), sealed);
        }
    }
}

impl Authentication {
    /// Asks the person behind a token to approve a request.
    ///
    /// # Errors
    /// If this server asks nobody, the request needs no approval, the person must not be asked now, or the issuer does not ask.
    pub(in crate::server) async fn request_approval(
        &self,
        caller: &Caller,
        draft: &Draft,
        principal: &Principal,
        request: &ApprovableRequest,
        purpose: &str,
    ) -> Result<RequestedApproval, Refusal> {
        let unsupported = || Refusal::from(RetrievalError::Unsupported(NOBODY_ASKED.to_owned()));
        let (Self::Tokens(tokens), Caller::Verified { token, .. }) = (self, caller) else { return Err(unsupported()) };
        let Some(approver) = &tokens.approver else { return Err(unsupported()) };
        let is_asked_here = tokens.asks_person_of(token);
        if !token.is_of_person() || principal.asserted_by().is_some() || token.holds_approval() || !is_asked_here {
            return Err(challenge::not_own());
        }
        let Some(login_hint) = token.login_hint().map(str::to_owned) else {
            return Err(Refusal::denied(NO_LOGIN_HINT));
        };
        // The person reads the purpose beside our own words. So nothing in it may begin a line, turn the text around or hide.
        let is_shown = |c: char| is_visible(c) && !matches!(c, '\n' | '\t');
        if purpose.len() > PURPOSE_BYTES_MAX || !purpose.chars().all(is_shown) {
            let text = format!("must have at most {PURPOSE_BYTES_MAX} bytes, and only visible characters of one line");
            return Err(FieldViolation::new("purpose", text).into());
        }
        let Some(chunks_max) = tokens.approvals.chunks_max(request) else {
            return Err(FieldViolation::new("request", "needs no approval; send it without one").into());
        };
        let nonce = random_nonce().ok_or_else(no_random)?;
        let grant = Grant::of(request, nonce, chunks_max);
        if tokens.approvals.granted(principal, request, &grant).is_none() {
            return Err(NotApproved::SeveralDetails.into_refusal());
        }
        let asker = Asker::of(token.facts());
        let unheard = approver.desk().unheard(&asker, &request.encoded);
        Approver::hear(tokens, unheard).await;
        let moment = now();
        let expires_at = moment.saturating_add(approver.config.expiry.as_secs());
        let ring = approver.desk().ring(&asker, request, expires_at, moment);
        let (state, request_sha256) = match &ring {
            Ring::Now => (AuditedApproval::REQUESTED, Some(grant.request_sha256.clone())),
            Ring::Joined(told) => (AuditedApproval::REQUESTED, Some(told.request_sha256.clone())),
            // Nobody is asked now, so nothing has a digest.
            Ring::Later(_) => (AuditedApproval::REQUIRED, None),
        };
        draft.approval(AuditedApproval {
            state: state.to_owned(),
            request_sha256,
            classification_max: request.classification_max.clone(),
            chunks_max: Some(chunks_max),
            ..AuditedApproval::default()
        });
        let told = match ring {
            Ring::Joined(told) => told,
            Ring::Later(seconds) => {
                telemetry::approval("throttled");
                let text = "the person was asked too often, or has just said no; try again later";
                return Err(Refusal::busy(text, Duration::from_secs(seconds)));
            }
            Ring::Now => {
                // The question is put even if its caller goes away, who joins it by asking again. The task ends when the
                // calls to the issuer do, which have a limit of their own.
                let (request, purpose) = (request.clone(), purpose.to_owned());
                let question = NewQuestion { asker, login_hint, request, grant, purpose };
                let asking = tokio::spawn(Approver::put(Arc::clone(tokens), question));
                asking.await.map_err(|_lost| Refusal::lost())??
            }
        };
        let Told { sealed, request_sha256: _, code, expires_at, interval } = told;
        Ok(RequestedApproval { sealed, code, expires_at, poll_after: interval })
    }
}

/// A question that is put to a person now.
struct NewQuestion {
    asker: Asker,
    /// The name by which the issuer asks the person.
    login_hint: String,
    request: ApprovableRequest,
    grant: Grant,
    purpose: String,
}

impl Approver {
    fn new(verifier: &TokenVerifier, config: &BackchannelConfig) -> Result<Self, String> {
        let BackchannelConfig { issuer, client, key_file, expiry, page_url, .. } = config;
        if !(1..=EXPIRY_SECONDS_MAX).contains(&expiry.as_secs()) {
            return Err(format!("`approval.expiry` must be from 1s to {EXPIRY_SECONDS_MAX}s"));
        }
        if let Some(page) = page_url
            && !is_page(page)
        {
            return Err(format!(
                "`approval.page_url` is `{page}`, which people cannot open safely; write it like `https://login.example.com/requests`"
            ));
        }
        let key = key_file.as_ref().map(|file| file.read().map_err(|e| format!("`approval.key_file`: {e}")));
        let backchannel = verifier.backchannel(issuer, OAuthClient::new("approval", client)?);
        let backchannel = backchannel.ok_or_else(|| {
            format!(
                "`approval.issuer` is `{issuer}`, which is none of `identity.issuers`; write one as it stands there"
            )
        })?;
        let lists = backchannel.lists_without_client();
        if !lists.is_empty() {
            let client_id = &client.client_id;
            let lists = lists.iter().map(|list| format!("`{list}`")).collect::<Vec<String>>().join(", ");
            return Err(format!(
                "`approval.client_id` is `{client_id}`, and tokens of this client prove approvals only if the issuer's settings take \
                 them for a person's own: add `{client_id}` to {lists} of the issuer `{issuer}`"
            ));
        }
        let seal = Seal::new(key.transpose()?.as_ref())?;
        let shows_code_alone =
            config.details == IssuerDetails::Unsupported && config.binding_message == BindingMessage::Code;
        if shows_code_alone && config.show_query {
            let text = "`approval.show_query` needs `approval.binding_message = \"request\"` where `approval.details` is \
                        `\"unsupported\"`: the person would not see the query";
            return Err(text.to_owned());
        }
        Ok(Self { backchannel, config: config.clone(), seal, desk: Mutex::default() })
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the issuer sends notifications.
    pub(super) fn takes_notifications(&self) -> bool {
        self.config.delivery == Delivery::Ping
    }

    /// Returns the nonce of the question whose notification a bearer token belongs to; `None` if it belongs to none.
    pub(super) fn nonce_of(&self, bearer: &str) -> Option<String> {
        self.seal.notifications().nonce(bearer, now())
    }

    /// Notes that the issuer has notified this server of an answer. This asks nobody anything.
    pub(super) fn notified(&self, nonce: &str, question: &str) -> Notified {
        self.desk().notified(nonce, question)
    }

    /// Puts a question to a person, and notes the reply to the asker.
    async fn put(tokens: Arc<TokenAuthentication>, question: NewQuestion) -> Result<Told, Refusal> {
        let Some(approver) = &tokens.approver else { return Err(Refusal::lost()) };
        let told = approver.ask(&tokens, &question).await;
        let NewQuestion { asker, request, .. } = &question;
        if let Ok(told) = &told {
            telemetry::approval("asked");
            approver.desk().told(asker, &request.encoded, told);
        } else {
            telemetry::approval("not_asked");
            approver.desk().untold(asker, &request.encoded);
        }
        told
    }

    async fn ask(&self, tokens: &TokenAuthentication, question: &NewQuestion) -> Result<Told, Refusal> {
        let NewQuestion { asker, login_hint, request, grant, purpose } = question;
        let code = random_code().ok_or_else(no_random)?;
        let resource = tokens.own.verifier.audience();
        let words = request.words.as_deref().filter(|_| self.config.show_query);
        let shown = ShownFacts {
            purpose: Some(legible(purpose)).filter(|purpose| !purpose.is_empty()),
            requested_by: asker.actors.iter().chain([&asker.client_id]).map(|name| legible(name)).collect(),
            query: words.map(legible),
        };
        let details = tokens.approvals.details(resource, request, grant, &shown).to_string();
        let binding_message = match self.config.binding_message {
            BindingMessage::Code => code.clone(),
            BindingMessage::Request => described(&code, request, grant, &shown),
        };
        let notification_token = match self.config.delivery {
            Delivery::Poll => None,
            Delivery::Ping => {
                let expires_at = now().saturating_add(self.config.expiry.as_secs());
                Some(self.seal.notifications().token(&grant.nonce, expires_at).ok_or_else(no_random)?)
            }
        };
        let asked = self.backchannel.ask(Question {
            login_hint,
            scope: &self.config.scope,
            resource,
            binding_message: &binding_message,
            details: (self.config.details == IssuerDetails::Required).then_some(details.as_str()),
            notification_token: notification_token.as_deref(),
            expiry_seconds: self.config.expiry.as_secs(),
        });
        let Asked { id, expires_in, interval } = asked.await.map_err(not_asked)?;
        let expires_at = now().saturating_add(expires_in);
        let Grant { nonce, request_sha256, chunks_max } = grant.clone();
        let open = OpenApproval {
            asker: asker.clone(),
            nonce,
            request_sha256,
            chunks_max,
            question: id,
            interval,
            expires_at,
        };
        let sealed = self.seal.seal(&open).ok_or_else(no_random)?;
        self.desk().put(&open, now());
        Ok(Told { sealed, request_sha256: open.request_sha256, code, expires_at, interval })
    }

    /// Opens the approval that a request names, and asks the issuer whether the person has said yes, if that is not known.
    pub(super) async fn approved(
        tokens: &Arc<TokenAuthentication>,
        token: &VerifiedToken,
        principal: &Principal,
        request: &ApprovableRequest,
        sealed: &str,
        deadline: Instant,
    ) -> Result<(Principal, Approval, AuditedApproval), NotApproved> {
        let approver = tokens.approver.as_ref().ok_or(NotApproved::NotOfRequest)?;
        let open = approver.seal.open(sealed).ok_or(NotApproved::NotOfRequest)?;
        let grant = open.grant();
        let is_own = open.asker == Asker::of(token.facts())
            && token.is_of_person()
            && principal.asserted_by().is_none()
            && !token.holds_approval();
        if !is_own || !grant.is_of(request) {
            return Err(NotApproved::NotOfRequest);
        }
        let moment = now();
        if open.expires_at <= moment {
            return Err(NotApproved::Expired);
        }
        let poll = approver.desk().poll(&open, moment);
        let outcome = match poll {
            Poll::Later(seconds) => return Err(NotApproved::Pending(seconds)),
            Poll::Known(outcome) => outcome,
            Poll::Now => {
                // The issuer gives the token once. So its answer is noted even if the caller goes away. The task ends when
                // the call to the issuer does, which has a limit of its own.
                let polled = PolledQuestion { open: open.clone(), request: request.clone(), sealed: sealed.to_owned() };
                let polling = tokio::spawn(Self::ask_issuer(Arc::clone(tokens), polled));
                let polled = timeout_at(deadline, polling).await.map_err(|_elapsed| NotApproved::Late)?;
                polled.map_err(|_lost| NotApproved::Unknown(BackchannelError::Unusable))??
            }
        };
        let consent = match outcome {
            Outcome::Approved(consent) => consent,
            Outcome::Denied => return Err(NotApproved::Denied),
            Outcome::Expired => return Err(NotApproved::Expired),
            Outcome::Unproved => return Err(NotApproved::Unproved),
        };
        // The person may have approved fewer chunks than were asked for.
        let grant = Grant { chunks_max: consent.chunks_max, ..grant };
        let principal = tokens.approvals.granted(principal, request, &grant).ok_or(NotApproved::SeveralDetails)?;
        let chunks_max = principal.chunks_max().unwrap_or(grant.chunks_max);
        let evidence = match approver.config.details {
            IssuerDetails::Required => AuditedApproval::DETAILS,
            IssuerDetails::Unsupported => AuditedApproval::CODE,
        };
        let audited = AuditedApproval {
            state: AuditedApproval::GIVEN.to_owned(),
            evidence: Some(evidence.to_owned()),
            approved_by: Some(open.asker.subject.clone()),
            issuer: Some(open.asker.issuer.clone()),
            approved_at: Some(consent.at),
            request_sha256: Some(grant.request_sha256.clone()),
            classification_max: request.classification_max.clone(),
            chunks_max: Some(chunks_max),
        };
        let Grant { nonce, request_sha256, .. } = grant;
        let approval = Approval { nonce, request_sha256, chunks_max, expires_at: open.expires_at };
        Ok((principal, approval, audited))
    }

    /// Asks the issuer about the open questions of an agent, as far as their pace allows. Otherwise an agent that never comes
    /// back for an answer could go on asking after a no.
    async fn hear(tokens: &Arc<TokenAuthentication>, asked: Vec<AskedQuestion>) {
        let Some(approver) = &tokens.approver else { return };
        // The issuer gives a yes once. With a shared key the agent may come for it at another replica, which would then get none.
        if approver.config.key_file.is_some() {
            return;
        }
        let mut polls = Vec::new();
        for AskedQuestion { request, sealed } in asked {
            let Some(open) = approver.seal.open(&sealed) else { continue };
            let poll = approver.desk().poll(&open, now());
            if poll == Poll::Now {
                // Like the poll of a caller who comes back, it goes on if this caller goes away.
                let polled = PolledQuestion { open, request, sealed };
                polls.push(tokio::spawn(Self::ask_issuer(Arc::clone(tokens), polled)));
            }
        }
        for poll in polls {
            // The desk has noted the answer, whatever it is.
            if poll.await.is_err() {
                tracing::error!("the poll of a question was lost");
            }
        }
    }

    /// Asks the issuer about a question, and notes its answer.
    async fn ask_issuer(tokens: Arc<TokenAuthentication>, polled: PolledQuestion) -> Result<Outcome, NotApproved> {
        let Some(approver) = &tokens.approver else { return Err(NotApproved::NotOfRequest) };
        let PolledQuestion { open, request, sealed } = &polled;
        let answer = approver.backchannel.poll(&open.question).await;
        let outcome = match answer {
            Ok(Polled::Pending) => return Err(approver.pending(open, Pace::Kept)),
            Ok(Polled::SlowDown) => return Err(approver.pending(open, Pace::Slower)),
            Ok(Polled::Denied) => Outcome::Denied,
            Ok(Polled::Expired) => Outcome::Expired,
            Ok(Polled::Approved(token)) => tokens.proved(approver, open, request, token.expose()).await,
            Err(error) => {
                // A later poll may get an answer.
                tracing::warn!(%error, "the issuer does not tell whether a person approved");
                approver.pending(open, Pace::Kept);
                return Err(NotApproved::Unknown(error));
            }
        };
        telemetry::approval(name_of(outcome));
        approver.desk().ended(open, sealed, outcome, now());
        Ok(outcome)
    }

    fn pending(&self, open: &OpenApproval, pace: Pace) -> NotApproved {
        NotApproved::Pending(self.desk().pending(open, pace, now()))
    }
}

/// A question about which the issuer is asked.
struct PolledQuestion {
    open: OpenApproval,
    request: ApprovableRequest,
    sealed: String,
}

impl TokenAuthentication {
    /// Compares the issuer's token with what was asked.
    async fn proved(
        &self,
        approver: &Approver,
        open: &OpenApproval,
        request: &ApprovableRequest,
        token: &str,
    ) -> Outcome {
        let unproved = |why: &'static str| {
            tracing::warn!(why, "the issuer's token does not prove an approval");
            Outcome::Unproved
        };
        let moment = now();
        let Ok(token) = self.own.verifier.verify(token, moment).await else {
            return unproved("the token is not valid here: see `identity.audience` and the settings of the issuer");
        };
        let facts = token.facts();
        if *facts.issuer != *open.asker.issuer || facts.subject != open.asker.subject {
            return unproved("the token speaks for somebody else");
        }
        if !token.is_of_person() {
            return unproved("the token is not a person's own: see `identity.issuers.people`");
        }
        let consented = match approver.config.details {
            IssuerDetails::Required => self.approvals.consented(&token, request, &open.grant()),
            IssuerDetails::Unsupported => Some(open.chunks_max),
        };
        let Some(chunks_max) = consented else {
            return unproved(
                "the token lacks the `authorization_details` that were asked for; if the issuer puts none into tokens, set \
                 `approval.details = \"unsupported\"`",
            );
        };
        // The rules of logins hold for the login of the approval, too.
        let ceiling = request.classification_max.as_deref();
        if self.step_up.condition(&token, &request.collection, ceiling, moment).is_err() {
            return unproved("the login at the approval is too weak or too old (`identity.step_up`)");
        }
        Outcome::Approved(Consent { at: token.issued_at(), chunks_max })
    }
}

/// Names how a question ended, for the metrics.
fn name_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Approved(_) => "approved",
        Outcome::Denied => "denied",
        Outcome::Expired => "expired",
        Outcome::Unproved => "unproved",
    }
}

fn not_asked(error: BackchannelError) -> Refusal {
    tracing::warn!(%error, "no person was asked for an approval");
    match error {
        BackchannelError::Unreachable => {
            challenge::unavailable("the issuer does not answer; try again later", "APPROVAL_UNAVAILABLE")
        }
        BackchannelError::UnknownPerson
        | BackchannelError::NotOffered
        | BackchannelError::Refused(_)
        | BackchannelError::RefusedOtherwise
        | BackchannelError::Unusable => challenge::unavailable(
            "the issuer does not ask the person; the server's log says why",
            "APPROVAL_UNAVAILABLE",
        ),
    }
}

fn no_random() -> Refusal {
    challenge::unavailable("no approval can be asked for now; try again later", "APPROVAL_UNAVAILABLE")
}
