//! Lets a request through that needs no approval or has one. The handlers ask this before they read anything.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::approver::{Approver, NotApproved};
use super::challenge::{self, TokenFault};
use super::{Authentication, now};
use crate::audit::{AuditedApproval, Door};
use crate::identity::approvable::{ApprovableRequest, Approval};
use crate::identity::approval::{ApprovalError, Judged, RequiredApproval};
use crate::identity::{Caller, Principal, TokenFacts, Use, VerifiedToken};
use crate::retrieval::FieldViolation;
use crate::server::audit::Draft;
use crate::server::refusal::Refusal;

/// The advice of a server that asks nobody.
const ASK_ISSUER: &str =
    "a person has to approve this request: ask the issuer for a token with these `authorization_details`";
/// The advice of a server that asks, while the issuer's tokens hold no details.
const ASK_HERE: &str = "a person has to approve this request: ask them with `RequestApproval`";
/// The advice of a server that asks, while the issuer's tokens hold details.
const ASK_HERE_OR_ISSUER: &str = "a person has to approve this request: ask them with `RequestApproval`, or ask the issuer for a \
                                  token with these `authorization_details`";

/// A request, and what the handlers know of its call.
pub(in crate::server) struct ApprovalCall<'c> {
    pub(in crate::server) caller: &'c Caller,
    pub(in crate::server) door: Door,
    pub(in crate::server) draft: &'c Draft,
    pub(in crate::server) principal: &'c Principal,
    pub(in crate::server) request: &'c ApprovableRequest,
    /// The approval that the request names; empty if it names none.
    pub(in crate::server) sealed: &'c str,
    /// The use of another kind of token for one request.
    pub(in crate::server) one_use: Option<Arc<Use>>,
    pub(in crate::server) deadline: Instant,
}

/// A request that no approval is lacking for.
pub(in crate::server) struct Approved {
    /// The principal, bounded to what was approved or needs no approval.
    pub(in crate::server) principal: Principal,
    /// The one use of the approval; `None` if the request needs none.
    one_use: Option<Arc<Use>>,
}

impl Approved {
    /// Uses the approval up, because there is an answer. An answer without any text uses it up, too.
    pub(in crate::server) fn answered(&self) {
        if let Some(one_use) = &self.one_use {
            one_use.answered();
        }
    }
}

impl Authentication {
    /// Lets a request through that needs no approval, whose token holds the approval of this very request, or that names an
    /// approval of it. Nobody else can use that approval from then on, unless the request fails before any text is read.
    ///
    /// # Errors
    /// If the request needs an approval, if the approval is of another request or was used, or if the person has not said yes.
    pub(in crate::server) async fn approve(&self, call: ApprovalCall<'_>) -> Result<Approved, Refusal> {
        let ApprovalCall { caller, door, draft, principal, request, sealed, one_use, deadline } = call;
        let (Self::Tokens(tokens), Caller::Verified { token, .. }) = (self, caller) else {
            return match sealed {
                "" => Ok(Approved { principal: principal.clone(), one_use: None }),
                _ => Err(FieldViolation::new("approval", "is for callers with access tokens").into()),
            };
        };
        let resource = tokens.of(token);
        if token.holds_approval() && !tokens.takes_approval_in(token) {
            return Err(Refusal::denied(
                "the token holds an approval, which its issuer cannot give (`approval.details`); ask with RequestApproval",
            ));
        }
        let (principal, approval) = if sealed.is_empty() {
            let judged = match tokens.approvals.judge(token, principal, request, now()) {
                Ok(judged) => judged,
                Err(ApprovalError::Required(_)) if door == Door::Mcp && tokens.asks_person_of(token) => {
                    // An agent at this door calls tools and nothing else, so the call itself asks.
                    let asking = self.request_approval(caller, draft, principal, request, "");
                    let asked = timeout_at(deadline, asking).await.map_err(|_elapsed| Refusal::late())??;
                    return Err(asked.into_refusal());
                }
                Err(ApprovalError::Required(required)) => {
                    draft.approval(asked_for(request, &required));
                    let text = match (tokens.asks_person_of(token), tokens.takes_approval_in(token)) {
                        (false, _) => ASK_ISSUER,
                        (true, false) => ASK_HERE,
                        (true, true) => ASK_HERE_OR_ISSUER,
                    };
                    return Err(resource.approval_required(token, &required, text));
                }
                Err(ApprovalError::AnotherRequest) => {
                    return Err(Refusal::denied("the token holds the approval of another request"));
                }
                Err(ApprovalError::NotOwn) => return Err(challenge::not_own()),
                Err(ApprovalError::NoNonce) => {
                    let text = "no approval can be asked for now; try again later";
                    return Err(challenge::unavailable(text, "APPROVAL_UNAVAILABLE"));
                }
            };
            let Judged { principal, approval } = judged;
            let Some(approval) = approval else {
                return Ok(Approved { principal: principal.with_one_use(one_use), one_use: None });
            };
            draft.approval(given(request, &approval, token));
            (principal, approval)
        } else {
            let approved = Approver::approved(tokens, token, principal, request, sealed, deadline).await;
            let (principal, approval, audited) = approved.map_err(|not_approved| {
                if not_approved == NotApproved::Denied {
                    draft.approval(denied(request, token, tokens.digest_of_approval(sealed)));
                }
                not_approved.into_refusal()
            })?;
            draft.approval(audited);
            (principal, approval)
        };
        let begun = resource.verifier.begin_approval(token, &approval, request.page_token.as_deref(), now());
        let begun = begun.map_err(|refusal| {
            draft.token_refused(refusal.label());
            if sealed.is_empty() {
                resource.unauthenticated(TokenFault::Invalid)
            } else {
                NotApproved::Used.into_refusal()
            }
        })?;
        if !sealed.is_empty() {
            tokens.close_approval(token, sealed);
        }
        // A token for one request that comes with an approval is used up together with it.
        let (of_token, of_approval) = (one_use, Arc::new(begun));
        let principal = principal.with_one_use(of_token).with_one_use(Some(Arc::clone(&of_approval)));
        Ok(Approved { principal, one_use: Some(of_approval) })
    }
}

/// Describes an approval that a request lacks.
fn asked_for(request: &ApprovableRequest, required: &RequiredApproval) -> AuditedApproval {
    AuditedApproval {
        state: AuditedApproval::REQUIRED.to_owned(),
        request_sha256: Some(required.request_sha256.clone()),
        classification_max: request.classification_max.clone(),
        chunks_max: Some(required.chunks_max),
        ..AuditedApproval::default()
    }
}

/// Describes an approval that the person refused. The digest tells which question they refused.
fn denied(request: &ApprovableRequest, token: &VerifiedToken, request_sha256: Option<String>) -> AuditedApproval {
    AuditedApproval {
        state: AuditedApproval::DENIED.to_owned(),
        issuer: Some(token.facts().issuer.to_string()),
        request_sha256,
        classification_max: request.classification_max.clone(),
        ..AuditedApproval::default()
    }
}

/// Describes an approval that a token holds: who gave it, when, and of what.
fn given(request: &ApprovableRequest, approval: &Approval, token: &VerifiedToken) -> AuditedApproval {
    let TokenFacts { issuer, subject, .. } = token.facts();
    AuditedApproval {
        state: AuditedApproval::GIVEN.to_owned(),
        evidence: Some(AuditedApproval::DETAILS.to_owned()),
        approved_by: Some(subject.clone()),
        issuer: Some(issuer.to_string()),
        approved_at: Some(token.issued_at()),
        request_sha256: Some(approval.request_sha256.clone()),
        classification_max: request.classification_max.clone(),
        chunks_max: Some(approval.chunks_max),
    }
}
