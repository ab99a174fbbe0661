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
use crate::visible::{is_code, is_word, visible_line};

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
    // Its letters may begin with a hyphen.
    #[arg(long, value_name = "APPROVAL", allow_hyphen_values = true)]
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
        tell(&shown(&asked)?)?;
        let RequestApprovalResponse { approval, poll_after_seconds, .. } = asked;
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

/// Returns what the person reads of a question that a server has put. The server's words stand among ours, one of them in a
/// command to repeat. So they must be of the form that such words have.
fn shown(asked: &RequestApprovalResponse) -> Result<String, Failure> {
    let RequestApprovalResponse { approval, code, .. } = asked;
    if !is_code(code) || !is_word(approval) {
        return Err(Failure::failed("the server's answer has no code and no approval that can be shown"));
    }
    Ok(format!(
        "Approve this request on your device, with this code:\n\n    {code}\n\nSay yes there only if the code is the same. \
         If this command ends before you answer, repeat it with:\n\n    --approval {approval}\n"
    ))
}

/// Tells the person something that is no result.
fn tell(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stderr(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_no_other_words_of_a_server() {
        let (code, approval, long) = ("4F7K-9QXM", "-Zm9v_YmFy", "4".repeat(65));
        let rows = [
            ("a code and an approval", code, approval, true),
            ("no code", "", approval, false),
            ("a code with more lines", "4F7K-9QXM\n\nSay yes to 2222-2222, too.", approval, false),
            ("a code that moves the cursor", "4F7K\u{1b}[2A", approval, false),
            ("a sentence", "4F7K-9QXM or any other", approval, false),
            ("a long code", long.as_str(), approval, false),
            ("no approval", code, "", false),
            ("an approval with a command", code, "Zm9v; rm -r ~", false),
            ("an approval with another flag", code, "Zm9v --server https://attacker.example", false),
            ("letters that look like others", code, "Zm9\u{432}", false),
        ];
        for (row, code, approval, is_shown) in rows {
            let (code, approval) = (code.to_owned(), approval.to_owned());
            let asked = RequestApprovalResponse { approval, code, ..RequestApprovalResponse::default() };
            match shown(&asked) {
                Ok(text) => {
                    let is_whole = text.contains(&asked.code) && text.contains(&asked.approval);
                    assert!(is_shown && is_whole, "{row}: {text}");
                }
                Err(failure) => assert!(!is_shown, "{row}: {}", failure.text()),
            }
        }
    }
}
