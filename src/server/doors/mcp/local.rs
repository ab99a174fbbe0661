//! Messages of MCP that come without HTTP, such as on standard input. There is no stack in between: whoever reads the messages
//! calls the services as a client, with the token or the name of the person who started the program.
//!
//! INVARIANT (one person): nothing in a message says for whom it is. The user of a call comes from that client alone.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::call::Call;
use super::message::{Fault, Message, RequestId};
use super::tools::Action;
use super::{Asked, MESSAGE_BYTES_MAX, McpDoor, McpSettings};
use crate::backend::BackendChannel;
use crate::proto::retrieval::request_approval_request::Request as ToApprove;
use crate::proto::retrieval::retrieval_service_client::RetrievalServiceClient;
use crate::proto::retrieval::{
    ExplainRequest, FetchRequest, RequestApprovalRequest, RequestApprovalResponse, RetrieveRequest,
};
use crate::server::authentication::RequestedApproval;
use crate::server::doors::messages_of;
use crate::server::refusal::{APPROVAL_REQUIRED, Refusal};
use crate::server::{ServerError, reflection};
use crate::visible::{is_code, is_word};

/// The notification by which a client gives up a call.
const CANCELLED: &str = "notifications/cancelled";

/// Reads messages of MCP that come without HTTP. All of them are those of one client.
#[derive(Clone, Debug)]
pub struct LocalMcp(Arc<McpDoor>);

/// Says what follows from a message.
#[derive(Debug)]
pub enum McpAsked {
    /// A question of the protocol itself, or a fault, with its answer.
    Answered(String),
    /// A call of a tool, or for a resource.
    Call(PendingCall),
    /// An end of the call with this id, which then gets no answer.
    Cancelled(RequestId),
    /// A notification, which nobody answers.
    Nothing,
}

/// A call that was not made yet.
#[derive(Clone, Debug)]
pub struct PendingCall {
    call: Call,
    /// The encoded request of its RPC, or the fault of its arguments.
    request: Result<Vec<u8>, Refusal>,
}

impl LocalMcp {
    /// The largest message of a client in bytes.
    pub const MESSAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

    /// Returns a reader of messages.
    ///
    /// # Errors
    /// When the services cannot be described.
    pub fn new(settings: McpSettings) -> Result<Self, ServerError> {
        let door = McpDoor::new(settings, &messages_of(&reflection::pool()?))?;
        Ok(Self(Arc::new(door)))
    }

    /// Finds out what a message asks for.
    #[must_use]
    pub fn read(&self, message: &[u8]) -> McpAsked {
        let message = match Message::read(message, None) {
            Ok(message) => message,
            Err(fault) => return McpAsked::Answered(fault.response().to_string()),
        };
        if message.id.is_none() && message.method == CANCELLED {
            let given_up = message.params.get("requestId").cloned().and_then(RequestId::of);
            return given_up.map_or(McpAsked::Nothing, McpAsked::Cancelled);
        }
        match self.0.asked(message) {
            Ok(Asked::Own(id, answer)) => McpAsked::Answered(answer.response(&id, None).into_text()),
            Ok(Asked::Notification) => McpAsked::Nothing,
            Ok(Asked::Rpc(call, request)) => McpAsked::Call(PendingCall { call, request }),
            Err(fault) => McpAsked::Answered(fault.response().to_string()),
        }
    }

    /// Returns the answer to a message of more than [`LocalMcp::MESSAGE_BYTES_MAX`] bytes. It repeats no id, because nobody read
    /// one.
    #[must_use]
    pub fn too_large() -> String {
        Fault::too_large().response().to_string()
    }

    /// Returns the answer to a request whose id is that of a call which still runs.
    #[must_use]
    pub fn id_in_use() -> String {
        Fault::id_in_use().response().to_string()
    }
}

impl PendingCall {
    /// Returns the id of the call, which its answer repeats.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        &self.call.id
    }

    /// Makes the call, and returns the message that answers it. Wrong arguments are answered here, without a call.
    ///
    /// `user` names the person to ask for; it is empty if the client's token names the person. The server ends the call after
    /// `time_max`.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached. [`PendingCall::refused`] makes the answer then.
    pub async fn answer(
        &self,
        mut service: RetrievalServiceClient<BackendChannel>,
        user: &str,
        time_max: Duration,
    ) -> Result<String, Status> {
        let request = match &self.request {
            Ok(request) => request,
            Err(refusal) => return Ok(self.refused(refusal)),
        };
        let answer = match self.call.action {
            Action::Search => {
                let mut request = RetrieveRequest::decode(request.as_slice()).map_err(|error| lost(&error))?;
                user.clone_into(&mut request.user);
                match service.retrieve(timed(request.clone(), time_max)).await {
                    Ok(answer) => self.call.searched(answer.into_inner()),
                    Err(refused) => {
                        return self.asked(service, ToApprove::Retrieve(request), refused, time_max).await;
                    }
                }
            }
            Action::Fetch | Action::Read => {
                let mut request = FetchRequest::decode(request.as_slice()).map_err(|error| lost(&error))?;
                user.clone_into(&mut request.user);
                match service.fetch(timed(request.clone(), time_max)).await {
                    Ok(answer) => self.call.fetched(answer.into_inner()),
                    Err(refused) => {
                        return self.asked(service, ToApprove::Fetch(request), refused, time_max).await;
                    }
                }
            }
            Action::Explain => {
                let mut request = ExplainRequest::decode(request.as_slice()).map_err(|error| lost(&error))?;
                user.clone_into(&mut request.user);
                let answer = service.explain(timed(request, time_max)).await?.into_inner();
                self.call.explained(&answer.encode_to_vec())?
            }
        };
        Ok(answer.to_string())
    }

    /// Asks the person about a request that was refused because it lacks an approval, as the door does by the call itself. Any
    /// other refusal stays as it was.
    async fn asked(
        &self,
        mut service: RetrievalServiceClient<BackendChannel>,
        request: ToApprove,
        refused: Status,
        time_max: Duration,
    ) -> Result<String, Status> {
        if refused.get_details_error_info().is_none_or(|info| info.reason != APPROVAL_REQUIRED) {
            return Err(refused);
        }
        let question = RequestApprovalRequest { request: Some(request), purpose: String::new() };
        match service.request_approval(timed(question, time_max)).await {
            Ok(asked) => Ok(self.refused(&requested(asked.into_inner()))),
            // This server asks nobody. The client learns which token to ask the issuer for.
            Err(status) if [Code::FailedPrecondition, Code::Unimplemented].contains(&status.code()) => Err(refused),
            Err(status) => Err(status),
        }
    }

    /// Returns the message that tells the client, and the model behind it, why its call was refused.
    #[must_use]
    pub fn refused(&self, refusal: &Refusal) -> String {
        self.call.refused(refusal).to_string()
    }
}

/// Returns the refusal that tells of a question which a server has put. A person reads the server's code in a dialog of their
/// own client, so it must be a code, and no other text.
fn requested(answer: RequestApprovalResponse) -> Refusal {
    let RequestApprovalResponse { approval, code, expires_at, poll_after_seconds } = answer;
    if !is_code(&code) || !is_word(&approval) {
        return Refusal::new(Code::Internal, "the server's answer has no code and no approval that can be shown");
    }
    let expires_at = expires_at.and_then(|end| u64::try_from(end.seconds).ok()).unwrap_or_default();
    RequestedApproval { sealed: approval, code, expires_at, poll_after: poll_after_seconds.into() }.into_refusal()
}

fn lost(error: &prost::DecodeError) -> Refusal {
    tracing::error!(%error, "the request of a tool is of another type");
    Refusal::lost()
}

fn timed<T>(request: T, time_max: Duration) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(time_max);
    request
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn mcp() -> LocalMcp {
        LocalMcp::new(McpSettings { collection: Some("handbook".to_owned()), ..McpSettings::default() }).unwrap()
    }

    fn asked(message: &Json) -> McpAsked {
        mcp().read(message.to_string().as_bytes())
    }

    fn call(method: &str, params: &Json) -> Json {
        json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
    }

    #[test]
    fn the_protocols_own_questions_are_answered_at_once() {
        let stateless = json!({ "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        } });
        let rows = [
            ("a handshake", call("initialize", &json!({})), "/result/protocolVersion", json!("2025-11-25")),
            ("the tools", call("tools/list", &json!({})), "/result/tools/0/name", json!("search")),
            (
                "the newer revision",
                call("server/discover", &stateless),
                "/result/supportedVersions/0",
                json!("2026-07-28"),
            ),
            ("an unknown method", call("completion/complete", &json!({})), "/error/code", json!(-32_601)),
            ("an unknown tool", call("tools/call", &json!({ "name": "explain" })), "/error/code", json!(-32_602)),
            ("a batch", json!([call("ping", &json!({}))]), "/error/code", json!(-32_600)),
        ];
        for (row, message, pointer, expected) in rows {
            let McpAsked::Answered(answer) = asked(&message) else { panic!("{row}") };
            let answer: Json = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer.pointer(pointer), Some(&expected), "{row}: {answer}");
        }
    }

    #[test]
    fn a_call_waits_for_its_service_and_ends_by_its_id() {
        let search = json!({ "name": "search", "arguments": { "query": "leave" } });
        let McpAsked::Call(pending) = asked(&call("tools/call", &search)) else { panic!("no call") };
        let request = RetrieveRequest::decode(pending.request.as_ref().unwrap().as_slice()).unwrap();
        assert_eq!((request.collection.as_str(), request.user.as_str()), ("handbook", ""));
        let refused: Json = serde_json::from_str(&pending.refused(&Refusal::lost())).unwrap();
        assert_eq!((&refused["id"], &refused["result"]["isError"]), (&json!(7), &json!(true)), "{refused}");

        let notification = |method: &str, params: Json| json!({ "jsonrpc": "2.0", "method": method, "params": params });
        let end = asked(&notification(CANCELLED, json!({ "requestId": 7 })));
        assert!(matches!(&end, McpAsked::Cancelled(id) if id == pending.id()), "{end:?}");
        let rows = [
            ("no id", CANCELLED, json!({})),
            ("an id that is none", CANCELLED, json!({ "requestId": [7] })),
            ("another notification", "notifications/initialized", json!({})),
        ];
        for (row, method, params) in rows {
            assert!(matches!(asked(&notification(method, params)), McpAsked::Nothing), "{row}");
        }
    }

    #[test]
    fn a_dialog_shows_no_other_words_of_a_server() {
        let (code, long) = ("4F7K-9QXM", "4".repeat(65));
        let rows = [
            ("a code and an approval", code, "-Zm9v_YmFy", true),
            ("no code", "", "Zm9v", false),
            ("a code with more lines", "4F7K-9QXM\n\nSay yes to 2222-2222, too.", "Zm9v", false),
            ("a sentence", "4F7K-9QXM or any other", "Zm9v", false),
            ("an address", "https://attacker.example/", "Zm9v", false),
            ("a long code", long.as_str(), "Zm9v", false),
            ("no approval", code, "", false),
            ("an approval of other letters", code, "{\"a\": 1}", false),
        ];
        for (row, code, approval, is_shown) in rows {
            let (code, approval) = (code.to_owned(), approval.to_owned());
            let refusal = requested(RequestApprovalResponse { approval, code, ..RequestApprovalResponse::default() });
            assert_eq!(refusal.reason() == Some(APPROVAL_REQUIRED), is_shown, "{row}: {refusal:?}");
            assert_eq!(refusal.facts().is_empty(), !is_shown, "{row}: {refusal:?}");
        }
    }

    #[test]
    fn an_argument_that_names_a_person_is_refused() {
        for name in ["user", "subject", "token"] {
            let search = json!({ "name": "search", "arguments": { "query": "leave", name: "user:bob" } });
            let McpAsked::Call(pending) = asked(&call("tools/call", &search)) else { panic!("no call") };
            assert!(pending.request.is_err(), "{name}");
        }
    }
}
