//! The flags for a request that a person has to approve: asks the person, shows the code, and waits for the answer.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};
use tonic::{Response, Status};
use tonic_types::StatusExt;

use super::Failure;
use crate::client::Client;
use crate::proto::retrieval::request_approval_request::Request as ToApprove;
use crate::proto::retrieval::{
    FetchRequest, FetchResponse, RequestApprovalRequest, RequestApprovalResponse, RetrieveRequest, RetrieveResponse,
};
use crate::visible::{visible, visible_line};

/// The reason of a request whose person has not answered.
const PENDING: &str = "APPROVAL_PENDING";
/// The longest wait for the person. No server keeps an approval open for longer.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// The wait before the next try where the server names none: the pause that CIBA names (section 7.3).
const PAUSE: Duration = Duration::from_secs(5);
/// The shortest wait before the next try, so that no server makes this a busy loop.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest wait before the next try. A server asks for no more.
const PAUSE_MAX: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(super) struct ApprovalArgs {
    /// Send the approval of this very request, which an earlier `--ask-approval` printed.
    #[arg(long, value_name = "APPROVAL")]
    approval: Option<String>,
    /// Ask the person whose token this is to approve the request, and wait until they have answered on their device.
    #[arg(long, conflicts_with = "approval")]
    ask_approval: bool,
    /// Tell the person what the chunks are for, in a few words.
    #[arg(long, value_name = "TEXT", requires = "ask_approval")]
    purpose: Option<String>,
}

/// A request that a person can approve.
pub(super) trait Approvable: Clone {
    /// The answer that the request gets.
    type Answer;

    /// Returns the request as the person is asked about it.
    fn to_approve(&self) -> ToApprove;

    /// Returns the request with an approval.
    fn with_approval(self, approval: &str) -> Self;

    /// Sends the request to a server, and returns the answer.
    async fn send(self, client: &Client) -> Result<Response<Self::Answer>, Status>;
}

impl Approvable for RetrieveRequest {
    type Answer = RetrieveResponse;

    fn to_approve(&self) -> ToApprove {
        ToApprove::Retrieve(self.clone())
    }

    fn with_approval(self, approval: &str) -> Self {
        Self { approval: approval.to_owned(), ..self }
    }

    async fn send(self, client: &Client) -> Result<Response<RetrieveResponse>, Status> {
        client.retrieval().retrieve(self).await
    }
}

impl Approvable for FetchRequest {
    type Answer = FetchResponse;

    fn to_approve(&self) -> ToApprove {
        ToApprove::Fetch(self.clone())
    }

    fn with_approval(self, approval: &str) -> Self {
        Self { approval: approval.to_owned(), ..self }
    }

    async fn send(self, client: &Client) -> Result<Response<FetchResponse>, Status> {
        client.retrieval().fetch(self).await
    }
}

impl ApprovalArgs {
    /// Sends a request, with its approval if the flags name one or ask for one.
    pub(super) async fn send<R: Approvable>(self, request: R, client: &Client) -> Result<Response<R::Answer>, Failure> {
        if !self.ask_approval {
            let approval = self.approval.unwrap_or_default();
            return request.with_approval(&approval).send(client).await.map_err(told);
        }
        let question =
            RequestApprovalRequest { request: Some(request.to_approve()), purpose: self.purpose.unwrap_or_default() };
        let asked = client.retrieval().request_approval(question).await.map_err(told)?.into_inner();
        let RequestApprovalResponse { approval, code, poll_after_seconds, .. } = asked;
        tell(&format!(
            "Approve this request on your device, with this code:\n\n    {code}\n\nSay yes there only if the code is the same. \
             If this command ends before you answer, repeat it with:\n\n    --approval {approval}\n"
        ))?;
        let began = Instant::now();
        let mut pause = Duration::from_secs(poll_after_seconds.into());
        loop {
            sleep(pause.clamp(PAUSE_MIN, PAUSE_MAX)).await;
            let status = match request.clone().with_approval(&approval).send(client).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            if reason(&status) != PENDING || began.elapsed() >= WAIT_MAX {
                return Err(told(status));
            }
            let retry = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
            pause = retry.unwrap_or(PAUSE);
        }
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Returns the failure of a request, with a text for a person at a terminal.
fn told(status: Status) -> Failure {
    let info = status.get_details_error_info();
    if let Some(details) = info.and_then(|info| info.metadata.get("authorization_details").cloned()) {
        let text = format!(
            "a person has to approve this request; ask them with `--ask-approval`, or give a token (`--token-file`) for which its \
             issuer asked the person about these `authorization_details`:\n\n{}",
            visible_line(&details)
        );
        return Failure::from(status).retold(text);
    }
    let text = match reason(&status).as_str() {
        "APPROVAL_REQUIRED" => "a person has to approve this request; ask them with `--ask-approval`",
        PENDING => "the person has not answered yet; repeat the command once they have",
        "APPROVAL_DENIED" => "the person said no, so nothing was read; they can be asked again in a minute",
        "APPROVAL_EXPIRED" => "the approval has expired or was used; ask for a new one with `--ask-approval`",
        "APPROVAL_UNPROVED" => "the issuer's token does not prove the approval; the server's log says why",
        "APPROVAL_UNAVAILABLE" => {
            "the issuer does not answer about approvals; repeat the command later, or read the server's log"
        }
        _ => return status.into(),
    };
    Failure::from(status).retold(text)
}

/// Tells the person something that is no result.
fn tell(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stderr(), "{}", visible(text))?)
}
