//! Requests that a person has to approve: what the handlers ask before they read anything.

use std::sync::Arc;

use super::challenge::{self, TokenFault};
use super::{Authentication, now};
use crate::audit::AuditedApproval;
use crate::identity::approval::{ApprovableRequest, Approval, ApprovalError, Judged, RequiredApproval};
use crate::identity::{Caller, Principal, TokenFacts, Use, VerifiedToken};
use crate::server::audit::Draft;
use crate::server::refusal::Refusal;

/// A request that may be answered, as far as approvals go.
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
    /// Lets a request through that needs no approval, or whose token holds the approval of this very request. Nobody else
    /// can use that approval from then on, unless the request fails before any text is read. `one_use` is the use of another
    /// kind of token for one request.
    ///
    /// # Errors
    /// If the request needs an approval, or its token holds one of another request or a used one.
    pub(in crate::server) fn approve(
        &self,
        caller: &Caller,
        draft: &Draft,
        principal: &Principal,
        request: &ApprovableRequest,
        one_use: Option<Arc<Use>>,
    ) -> Result<Approved, Refusal> {
        let (Self::Tokens(tokens), Caller::Verified { token, .. }) = (self, caller) else {
            return Ok(Approved { principal: principal.clone(), one_use: None });
        };
        let now = now();
        let resource = tokens.of(token);
        let Judged { principal, approval } =
            tokens.approvals.judge(token, principal, request, now).map_err(|error| match error {
                ApprovalError::Required(required) => {
                    draft.approval(asked_for(request, &required));
                    resource.approval_required(&required)
                }
                ApprovalError::AnotherRequest => Refusal::denied("the token holds the approval of another request"),
                ApprovalError::NotOwn => Refusal::denied(
                    "the request needs an approval, and only persons can approve what they ask for themselves",
                ),
                ApprovalError::NoNonce => {
                    challenge::unavailable("no approval can be asked for now; try again later", "APPROVAL_UNAVAILABLE")
                }
            })?;
        let Some(approval) = approval else {
            return Ok(Approved { principal: principal.with_one_use(one_use), one_use: None });
        };
        draft.approval(given(request, &approval, token));
        let begun = resource.verifier.begin_approval(token, &approval, request.page_token.as_deref(), now);
        let begun = begun.map_err(|refusal| {
            draft.token_refused(refusal.label());
            resource.unauthenticated(TokenFault::Invalid)
        })?;
        let one_use = Arc::new(begun);
        Ok(Approved { principal: principal.with_one_use(Some(Arc::clone(&one_use))), one_use: Some(one_use) })
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

/// Describes an approval that a token holds: who gave it, when, and of what.
fn given(request: &ApprovableRequest, approval: &Approval, token: &VerifiedToken) -> AuditedApproval {
    let TokenFacts { issuer, subject, .. } = token.facts();
    AuditedApproval {
        state: AuditedApproval::GIVEN.to_owned(),
        approved_by: Some(subject.clone()),
        issuer: Some(issuer.to_string()),
        approved_at: Some(token.issued_at()),
        request_sha256: Some(approval.request_sha256.clone()),
        classification_max: request.classification_max.clone(),
        chunks_max: Some(approval.chunks_max),
    }
}
