//! Our own services over HTTP and JSON, with requests and answers as messages. So a test can compare what the doors say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use ragward::proto::DESCRIPTORS;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::support::http::{Call, Reply};

/// The two doors that take JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Connect,
    Rest,
}

/// A client of one RPC of `RetrievalService` at a server.
pub(crate) struct JsonDoor {
    address: String,
    pool: DescriptorPool,
}

impl JsonDoor {
    /// Returns a client of the server at an address such as `127.0.0.1:8980`.
    pub(crate) fn at(address: &str) -> Self {
        Self { address: address.to_owned(), pool: DescriptorPool::decode(DESCRIPTORS).expect("descriptors") }
    }

    /// Asks with a request of `rpc`, such as `Retrieve`.
    pub(crate) async fn ask<Q: Message, A: Message + Default>(
        &self,
        door: Door,
        rpc: &str,
        request: &Q,
    ) -> Result<A, Status> {
        let service = self.pool.get_service_by_name("ragward.retrieval.v1.RetrievalService").expect("the service");
        let method = service.methods().find(|method| method.name() == rpc).expect("the RPC");
        let message = DynamicMessage::decode(method.input(), request.encode_to_vec().as_slice()).expect("the request");
        let mut json = serde_json::to_value(&message).expect("JSON");
        let path = match door {
            Door::Connect => format!("/{}/{rpc}", method.parent_service().full_name()),
            Door::Rest => {
                let collection =
                    json.as_object_mut().and_then(|fields| fields.remove("collection")).unwrap_or_default();
                format!("/v1/collections/{}/{}", collection.as_str().unwrap_or_default(), rpc.to_lowercase())
            }
        };
        let reply = Call::json(&path, &json).send(&self.address).await;
        if reply.status == 200 { Ok(answer(&method, &reply)) } else { Err(refusal(&reply)) }
    }
}

fn answer<A: Message + Default>(method: &MethodDescriptor, reply: &Reply) -> A {
    let message = DynamicMessage::deserialize(method.output(), reply.json()).expect("the answer's message");
    A::decode(message.encode_to_vec().as_slice()).expect("the answer")
}

/// Returns a refusal as gRPC says it, with the same details.
fn refusal(reply: &Reply) -> Status {
    let body = reply.json();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_else(|| panic!("{name}: {body}")).to_owned();
    let (code, message) = (code(&text(&body, "code")), text(&body, "message"));
    let details = body["details"].as_array().cloned().unwrap_or_default();
    let details = details.iter().map(|detail| prost_types::Any {
        type_url: format!("type.googleapis.com/{}", text(detail, "type")),
        value: STANDARD_NO_PAD.decode(text(detail, "value")).expect("base64"),
    });
    let details: Vec<prost_types::Any> = details.collect();
    let encoded = if details.is_empty() {
        Vec::new()
    } else {
        pb::Status { code: code as i32, message: message.clone(), details }.encode_to_vec()
    };
    Status::with_details(code, message, encoded.into())
}

fn code(name: &str) -> Code {
    let mut codes = (0..=16).map(Code::from_i32);
    // Connect has one `l` fewer than gRPC.
    let spelled = |code: &Code| format!("{code:?}").to_lowercase().replace("cancelled", "canceled");
    codes.find(|code| spelled(code) == name.replace('_', "")).unwrap_or_else(|| panic!("the code `{name}`"))
}
