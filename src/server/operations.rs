//! The one table of operations: every RPC that the server knows, who may call it, whether it is recorded, and what its
//! request and answer look like.
//!
//! The gate, the record, the health service, the limits on requests and the dispatcher all read this table, so nobody
//! can add an RPC and forget one of them. A test compares the table with the descriptors of all services.
//!
//! INVARIANT (no success without a service): the gate refuses every request that is neither a gRPC call of an RPC in
//! this table nor a request for a probe or a public document, nor an issuer's notification. So no service ever gives an
//! empty success to a request that it does not understand.

use std::borrow::Cow;

use tonic::Code;
use tonic::codegen::http::{self, HeaderMap, Method, Version, header};

use super::DOCUMENT_BYTES_MAX;
use super::refusal::{HttpFault, Refusal};
use crate::identity::Scope;

/// The name that the record has for a path outside the table. The caller chose the text of that path, so it is not kept.
const UNKNOWN_CALL: &str = "unknown";
/// The name that the record has for a request to the door for MCP which is no message of the protocol.
pub(super) const MCP_CALL: &str = "mcp";
/// The folder of well-known addresses (RFC 8615).
const WELL_KNOWN: &str = "/.well-known/";
/// The path that tells whether the process runs.
pub(super) const LIVEZ: &str = "/livez";
/// The path that tells whether a retrieval would be answered.
pub(super) const READYZ: &str = "/readyz";
/// The path to which issuers send notifications about approvals, where they do.
pub(super) const NOTIFICATION: &str = "/ciba/notify";
/// The path of the description of the HTTP routes.
pub(super) const OPENAPI: &str = "/openapi.json";

/// The right that a caller needs for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// No right. The call reveals only what is public.
    Open,
    /// A valid token, whatever its scopes.
    AnyToken,
    /// A token with any of Ragward's scopes.
    AnyScope,
    /// A token with this scope.
    Needs(Scope),
}

/// How many messages a request or an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Messages {
    One,
    /// The sender sends any number of messages, for any time.
    Many,
}

/// The engine that decides about the relationships of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelationshipEngine {
    /// Ragward's own, in the server's process.
    Embedded,
    /// An `OpenFGA` server.
    OpenFga,
}

/// The servers that have an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServedBy {
    Every,
    /// Servers whose relationships are embedded. Where an `OpenFGA` server decides, callers ask that server itself.
    Embedded,
}

/// One RPC of a service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// The path of its requests: `/package.Service/Method`.
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) is_recorded: bool,
    pub(super) served_by: ServedBy,
    pub(super) request: Messages,
    pub(super) answer: Messages,
    /// The largest size of one message of its requests in bytes.
    pub(super) request_bytes_max: usize,
    /// The largest size of its answer in bytes; `None` for a stream that may go on for as long as the client likes.
    pub(super) answer_bytes_max: Option<usize>,
}

/// The largest request for chunks in bytes: a vector and a filter, or the ids of a re-check or a fetch.
pub(super) const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// The largest request of `OpenFGA`'s API in bytes.
pub(super) const OPENFGA_REQUEST_BYTES_MAX: usize = 512 * 1_204; // `OpenFGA`'s own default, its typo included.
/// The largest request for the health of a service in bytes: the name of the service. Callers without a token may send one on
/// every stream of every connection, and let it end late.
pub(super) const HEALTH_REQUEST_BYTES_MAX: usize = 1_024;
/// One word. Callers without a token may leave such an answer unread on every stream of every connection. All of these
/// together must not fill the room that all answers share.
const WORD: Option<usize> = Some(64);
/// A few numbers or names.
const SMALL: Option<usize> = Some(16 * 1_024);
/// A list of names, as many as one answer may have.
const NAMES: Option<usize> = Some(1 << 20);
/// A page of models or of tuples with their contexts, or the steps of an explanation.
const PAGE: Option<usize> = Some(4 << 20);
/// Chunks with their texts, as many as a retrieval returns by default.
const CHUNKS: Option<usize> = Some(9 << 20);

const fn unary(path: &'static str, scope: Scope, answer_bytes_max: Option<usize>) -> Operation {
    Operation {
        path,
        access: Access::Needs(scope),
        is_recorded: true,
        served_by: ServedBy::Every,
        request: Messages::One,
        answer: Messages::One,
        request_bytes_max: REQUEST_BYTES_MAX,
        answer_bytes_max,
    }
}

const fn ingest(path: &'static str, answer_bytes_max: Option<usize>) -> Operation {
    Operation { request_bytes_max: DOCUMENT_BYTES_MAX, ..unary(path, Scope::Ingest, answer_bytes_max) }
}

const fn openfga(path: &'static str, answer_bytes_max: Option<usize>) -> Operation {
    let (served_by, request_bytes_max) = (ServedBy::Embedded, OPENFGA_REQUEST_BYTES_MAX);
    Operation { served_by, request_bytes_max, ..unary(path, Scope::Administer, answer_bytes_max) }
}

const fn reflection(path: &'static str) -> Operation {
    let (request, answer) = (Messages::Many, Messages::Many);
    Operation { access: Access::AnyScope, request, answer, ..unary(path, Scope::Administer, None) }
}

const fn health(path: &'static str, answer: Messages, answer_bytes_max: Option<usize>) -> Operation {
    let (access, request_bytes_max) = (Access::Open, HEALTH_REQUEST_BYTES_MAX);
    let rpc = unary(path, Scope::Administer, answer_bytes_max);
    Operation { access, is_recorded: false, answer, request_bytes_max, ..rpc }
}

pub(super) static OPERATIONS: [Operation; 34] = [
    unary("/ragward.retrieval.v1.RetrievalService/Retrieve", Scope::Retrieve, CHUNKS),
    unary("/ragward.retrieval.v1.RetrievalService/Recheck", Scope::Retrieve, NAMES),
    unary("/ragward.retrieval.v1.RetrievalService/Fetch", Scope::Retrieve, CHUNKS),
    unary("/ragward.retrieval.v1.RetrievalService/RequestApproval", Scope::Retrieve, SMALL),
    unary("/ragward.retrieval.v1.RetrievalService/Explain", Scope::Explain, PAGE),
    Operation { request: Messages::Many, ..ingest("/ragward.ingest.v1.IngestService/UpsertDocuments", SMALL) },
    ingest("/ragward.ingest.v1.IngestService/PutDocument", SMALL),
    unary("/ragward.ingest.v1.IngestService/ListDocuments", Scope::Ingest, PAGE),
    unary("/ragward.ingest.v1.IngestService/ListCollections", Scope::Ingest, NAMES),
    ingest("/ragward.ingest.v1.IngestService/DeleteDocuments", SMALL),
    ingest("/ragward.ingest.v1.IngestService/GetIngestStatus", PAGE),
    openfga("/openfga.v1.OpenFGAService/Read", PAGE),
    openfga("/openfga.v1.OpenFGAService/Write", SMALL),
    openfga("/openfga.v1.OpenFGAService/Check", SMALL),
    openfga("/openfga.v1.OpenFGAService/BatchCheck", NAMES),
    openfga("/openfga.v1.OpenFGAService/Expand", PAGE),
    openfga("/openfga.v1.OpenFGAService/ReadAuthorizationModels", PAGE),
    openfga("/openfga.v1.OpenFGAService/ReadAuthorizationModel", NAMES),
    openfga("/openfga.v1.OpenFGAService/WriteAuthorizationModel", SMALL),
    openfga("/openfga.v1.OpenFGAService/WriteAssertions", SMALL),
    openfga("/openfga.v1.OpenFGAService/ReadAssertions", NAMES),
    openfga("/openfga.v1.OpenFGAService/ReadChanges", PAGE),
    openfga("/openfga.v1.OpenFGAService/CreateStore", SMALL),
    openfga("/openfga.v1.OpenFGAService/UpdateStore", SMALL),
    openfga("/openfga.v1.OpenFGAService/DeleteStore", SMALL),
    openfga("/openfga.v1.OpenFGAService/GetStore", SMALL),
    openfga("/openfga.v1.OpenFGAService/ListStores", SMALL),
    Operation { answer: Messages::Many, ..openfga("/openfga.v1.OpenFGAService/StreamedListObjects", NAMES) },
    openfga("/openfga.v1.OpenFGAService/ListObjects", NAMES),
    openfga("/openfga.v1.OpenFGAService/ListUsers", NAMES),
    reflection("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    reflection("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    health("/grpc.health.v1.Health/Check", Messages::One, WORD),
    health("/grpc.health.v1.Health/Watch", Messages::Many, None),
];

impl Operation {
    /// Returns the RPC of a path.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        OPERATIONS.iter().find(|operation| operation.path == path)
    }

    /// Returns service and method, as gRPC names them: `package.Service/Method`.
    pub(super) fn name(&self) -> &'static str {
        self.path.strip_prefix('/').unwrap_or(self.path)
    }

    /// Returns the service that it belongs to: `package.Service`.
    pub(super) fn service(&self) -> &'static str {
        self.name().split_once('/').map_or(self.name(), |(service, _method)| service)
    }

    /// Returns whether a server over this engine has the RPC.
    pub(super) const fn is_served(&self, engine: RelationshipEngine) -> bool {
        match (self.served_by, engine) {
            (ServedBy::Every, _) | (ServedBy::Embedded, RelationshipEngine::Embedded) => true,
            (ServedBy::Embedded, RelationshipEngine::OpenFga) => false,
        }
    }
}

/// The RPCs that a caller may call. The gate tells this in its answer to a question of MCP's own, so that the door shows each
/// caller the tools that it may call, and decides nothing.
#[derive(Clone, Debug)]
pub(super) struct Callable(Vec<&'static str>);

impl Callable {
    /// Returns the RPCs whose right `permits` grants.
    pub(super) fn by(permits: impl Fn(Access) -> bool) -> Self {
        Self(OPERATIONS.iter().filter(|operation| permits(operation.access)).map(|operation| operation.path).collect())
    }

    /// Returns whether the caller may call the RPC of a path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains(&path)
    }
}

/// The destination of a request, found from its method, path, version and content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A gRPC call of an RPC in the table.
    Rpc(&'static Operation),
    /// A gRPC call, which a door made, of an RPC in the table that the door shows only to callers who may call it. All others
    /// get this refusal, as if there were nothing.
    Unlisted(&'static Operation, Refusal),
    /// A gRPC call of an RPC that the table lacks.
    UnknownRpc,
    /// A request over plain HTTP for what everybody may read: a probe or a public document, whether or not there is one under
    /// this name.
    Public,
    /// An issuer's notification about an approval, over plain HTTP. It brings a token of its own, at which the gate does not look.
    Notification,
    /// A question of MCP's own, such as for the list of tools. The door answers it once the gate has let its caller in. This is
    /// its name in the record.
    Mcp(&'static str),
    /// Plain HTTP that nothing here answers.
    Refused(NotServed),
}

/// The reason why no service sees a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotServed {
    /// The request names another host than this server.
    Host,
    /// A page of another origin made a browser send the request.
    Origin,
    /// Nothing has this path.
    Path,
    /// The path is called with other methods: these, as the header `allow` has them.
    Method(Option<&'static Operation>, Cow<'static, str>),
    /// An RPC has this path, and takes other content types.
    ContentType(&'static Operation),
    /// An RPC has this path, and takes shorter queries.
    Query(&'static Operation),
    /// An RPC has this path, and takes a stream of messages, which only gRPC and our own route have.
    ClientStream(&'static Operation),
    /// An RPC has this path, and gRPC needs HTTP/2: over HTTP/1.1 the answer would arrive without its status.
    Version(&'static Operation),
    /// A request of MCP is wrong in this way.
    Mcp(Refusal),
}

/// The method of every RPC.
const POST: Cow<'static, str> = Cow::Borrowed("POST");

impl Route {
    /// Finds the destination of a request. A door may have settled it.
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        if let Some(settled) = request.extensions().get::<Self>() {
            return settled.clone();
        }
        let path = request.uri().path();
        let (is_post, is_http2) = (request.method() == Method::POST, request.version() == Version::HTTP_2);
        let has_grpc_type = is_grpc_type(request.headers());
        match Operation::at(path) {
            Some(operation) if !is_post => Self::Refused(NotServed::Method(Some(operation), POST)),
            Some(operation) if !has_grpc_type => Self::Refused(NotServed::ContentType(operation)),
            Some(operation) if !is_http2 => Self::Refused(NotServed::Version(operation)),
            Some(operation) => Self::Rpc(operation),
            None if is_post && has_grpc_type && is_http2 => Self::UnknownRpc,
            None if is_public(path) => Self::Public,
            None => Self::Refused(NotServed::Path),
        }
    }

    /// Returns the right that the caller needs, even to be told why a call is refused. An unknown RPC needs the highest
    /// right.
    pub(super) const fn access(&self) -> Access {
        match self {
            Self::Rpc(operation) => operation.access,
            Self::UnknownRpc => Access::Needs(Scope::Administer),
            // Whoever may call no tool learns nothing of the tools.
            Self::Mcp(_) | Self::Unlisted(..) | Self::Refused(NotServed::Mcp(_)) => Access::Needs(Scope::Retrieve),
            // A browser's page is refused before its visitor's token is looked at.
            Self::Public | Self::Notification | Self::Refused(NotServed::Host | NotServed::Origin) => Access::Open,
            Self::Refused(_) => Access::AnyToken,
        }
    }

    /// Returns the refusal of a request that no service may see; `None` for one that a service answers.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Rpc(_) | Self::Unlisted(..) | Self::Public | Self::Notification | Self::Mcp(_) => None,
            Self::UnknownRpc => Some(Refusal::new(Code::Unimplemented, "there is no such RPC")),
            Self::Refused(not_served) => Some(not_served.refusal()),
        }
    }

    /// Returns the RPC that the path names.
    pub(super) const fn operation(&self) -> Option<&'static Operation> {
        match self {
            Self::Rpc(operation)
            | Self::Unlisted(operation, _)
            | Self::Refused(
                NotServed::ContentType(operation)
                | NotServed::Query(operation)
                | NotServed::ClientStream(operation)
                | NotServed::Version(operation),
            ) => Some(operation),
            Self::Refused(NotServed::Method(operation, _)) => *operation,
            Self::UnknownRpc
            | Self::Public
            | Self::Notification
            | Self::Mcp(_)
            | Self::Refused(NotServed::Host | NotServed::Origin | NotServed::Path | NotServed::Mcp(_)) => None,
        }
    }

    /// Returns the largest size of the answer in bytes; `None` for a stream that may go on for as long as the client likes.
    /// The answer to a request for no RPC is small, and takes no room.
    pub(super) fn answer_bytes_max(&self) -> Option<usize> {
        self.operation().map_or(Some(0), |operation| operation.answer_bytes_max)
    }

    /// Returns the name of the call in the record and in measures.
    pub(super) fn call_name(&self) -> &'static str {
        match self {
            Self::Mcp(name) => name,
            Self::Refused(NotServed::Mcp(_)) => MCP_CALL,
            Self::Rpc(_)
            | Self::Unlisted(..)
            | Self::UnknownRpc
            | Self::Public
            | Self::Notification
            | Self::Refused(_) => self.operation().map_or(UNKNOWN_CALL, Operation::name),
        }
    }

    pub(super) const fn is_recorded(&self) -> bool {
        match self {
            Self::Rpc(operation) | Self::Unlisted(operation, _) => operation.is_recorded,
            Self::UnknownRpc | Self::Mcp(_) | Self::Refused(_) => true,
            // A notification decides nothing. The record of the answer says who approved it.
            Self::Public | Self::Notification => false,
        }
    }

    pub(super) const fn is_grpc(&self) -> bool {
        matches!(self, Self::Rpc(_) | Self::UnknownRpc)
    }

    /// Returns whether a token that is good for one request is used up by this one. A question of MCP's own reads nothing, and
    /// clients ask several before they call a tool.
    pub(super) const fn uses_token_up(&self) -> bool {
        !matches!(self, Self::Mcp(_))
    }

    /// Returns the code to record for an answer of this route's service.
    ///
    /// INVARIANT (no unseen success): an answer is known to be OK only if it has ended before it is recorded. Only an
    /// answer of one message does that. A stream may still fail, long after its record was kept.
    pub(super) fn answered_code(&self) -> Code {
        match self {
            Self::Rpc(Operation { answer: Messages::One, .. })
            | Self::Unlisted(Operation { answer: Messages::One, .. }, _)
            | Self::Mcp(_) => Code::Ok,
            Self::Rpc(_)
            | Self::Unlisted(..)
            | Self::UnknownRpc
            | Self::Public
            | Self::Notification
            | Self::Refused(_) => Code::Unknown,
        }
    }
}

impl NotServed {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Host => {
                Refusal::denied("the request names another host than this server; `server.hosts` lists its names")
            }
            Self::Origin => {
                Refusal::denied("pages of this origin may not call; `server.cors_origins` lists those that may")
            }
            Self::Mcp(why) => why.clone(),
            Self::Path => Refusal::new(Code::NotFound, "nothing is served at this path"),
            Self::Method(_, allowed) => {
                Refusal::new(Code::Unimplemented, format!("this path is called with {allowed}"))
                    .with_http_fault(HttpFault::Method { allowed: allowed.clone() })
            }
            Self::ContentType(Operation { request: Messages::Many, .. }) => {
                let text = "this path takes `application/x-ndjson`, one message a line, without encoding";
                Refusal::new(Code::InvalidArgument, text).with_http_fault(HttpFault::MediaType)
            }
            Self::ContentType(_) => {
                let text =
                    "this path takes JSON (`content-type: application/json`) without encoding, and gRPC over HTTP/2";
                Refusal::new(Code::InvalidArgument, text).with_http_fault(HttpFault::MediaType)
            }
            Self::Query(_) => Refusal::new(Code::InvalidArgument, "the query of the request is too long"),
            Self::ClientStream(operation) => {
                let name = operation.name();
                let text = format!(
                    "`{name}` takes a stream of messages, which Connect has not here; use gRPC, or for documents a line of \
                     JSON for each in `POST /v1/collections/{{collection}}/documents`"
                );
                Refusal::new(Code::Unimplemented, text)
            }
            Self::Version(_) => {
                Refusal::new(Code::InvalidArgument, "gRPC needs HTTP/2").with_http_fault(HttpFault::MediaType)
            }
        }
    }
}

/// Returns whether everybody may read what is at a path.
fn is_public(path: &str) -> bool {
    path.starts_with(WELL_KNOWN) || [LIVEZ, READYZ, OPENAPI].contains(&path)
}

/// Returns whether the body is gRPC in the one encoding that is served: protocol buffers.
pub(super) fn is_grpc_type(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].iter().any(|grpc| essence.eq_ignore_ascii_case(grpc))
}

#[cfg(test)]
mod tests;
