//! Every call that the server knows, in one table: what it needs, whether it is recorded, and how its request comes. The gate,
//! the record and the limits on requests read it, so a new RPC cannot be forgotten by one of them.
//!
//! INVARIANT (no success without a service): a request that is not gRPC to an RPC of this table, nor a public document, is
//! refused at the gate. No service behind it is asked, so none can answer what it does not understand with an empty success.

use tonic::codegen::http::{self, HeaderMap, Method, Version, header};
use tonic::{Code, Status};

use super::resource_metadata;
use crate::identity::Scope;

/// The name in the record of a path that is not in the table: the caller chose its text, so that is not kept.
const UNKNOWN_CALL: &str = "unknown";

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: it tells nothing that is not public.
    Open,
    /// A valid token, whatever its scopes.
    AnyToken,
    /// A token with any of Ragward's scopes.
    AnyScope,
    /// A token with this scope.
    Needs(Scope),
}

/// How many messages a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestShape {
    /// One.
    Unary,
    /// As many as the client sends, for as long as it likes.
    Streaming,
}

/// One RPC.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// Service and method, as gRPC names them.
    pub(super) name: &'static str,
    pub(super) access: Access,
    pub(super) is_recorded: bool,
    pub(super) request: RequestShape,
    /// How large its answer may become, in bytes; `None` for a stream that may go on for as long as the client likes.
    pub(super) answer_bytes_max: Option<usize>,
}

/// One word. Who needs no token may leave so many of these unread that more would be all the room there is for answers.
const WORD: Option<usize> = Some(64);
/// An answer of a few numbers or names.
const SMALL: Option<usize> = Some(16 * 1_024);
/// A list of names, as many as one answer may have.
const NAMES: Option<usize> = Some(1 << 20);
/// A page of tuples with their contexts or of models, or a picture of an explanation.
const PAGE: Option<usize> = Some(4 << 20);
/// Chunks with their texts, as many as a retrieval may bring by default.
const CHUNKS: Option<usize> = Some(9 << 20);

const fn unary(name: &'static str, scope: Scope, answer_bytes_max: Option<usize>) -> Operation {
    let access = Access::Needs(scope);
    Operation { name, access, is_recorded: true, request: RequestShape::Unary, answer_bytes_max }
}

const fn openfga(name: &'static str, answer_bytes_max: Option<usize>) -> Operation {
    unary(name, Scope::Administer, answer_bytes_max)
}

const fn reflection(name: &'static str) -> Operation {
    let (access, request) = (Access::AnyScope, RequestShape::Streaming);
    Operation { name, access, is_recorded: true, request, answer_bytes_max: None }
}

const fn health(name: &'static str, answer_bytes_max: Option<usize>) -> Operation {
    let (access, request) = (Access::Open, RequestShape::Unary);
    Operation { name, access, is_recorded: false, request, answer_bytes_max }
}

pub(super) static OPERATIONS: [Operation; 29] = [
    unary("ragward.retrieval.v1.RetrievalService/Retrieve", Scope::Retrieve, CHUNKS),
    unary("ragward.retrieval.v1.RetrievalService/Recheck", Scope::Retrieve, NAMES),
    unary("ragward.retrieval.v1.RetrievalService/Explain", Scope::Explain, PAGE),
    Operation {
        request: RequestShape::Streaming,
        ..unary("ragward.ingest.v1.IngestService/UpsertDocuments", Scope::Ingest, SMALL)
    },
    unary("ragward.ingest.v1.IngestService/DeleteDocuments", Scope::Ingest, SMALL),
    unary("ragward.ingest.v1.IngestService/GetIngestStatus", Scope::Ingest, PAGE),
    openfga("openfga.v1.OpenFGAService/Read", PAGE),
    openfga("openfga.v1.OpenFGAService/Write", SMALL),
    openfga("openfga.v1.OpenFGAService/Check", SMALL),
    openfga("openfga.v1.OpenFGAService/BatchCheck", NAMES),
    openfga("openfga.v1.OpenFGAService/Expand", PAGE),
    openfga("openfga.v1.OpenFGAService/ReadAuthorizationModels", PAGE),
    openfga("openfga.v1.OpenFGAService/ReadAuthorizationModel", NAMES),
    openfga("openfga.v1.OpenFGAService/WriteAuthorizationModel", SMALL),
    openfga("openfga.v1.OpenFGAService/WriteAssertions", SMALL),
    openfga("openfga.v1.OpenFGAService/ReadAssertions", NAMES),
    openfga("openfga.v1.OpenFGAService/ReadChanges", PAGE),
    openfga("openfga.v1.OpenFGAService/CreateStore", SMALL),
    openfga("openfga.v1.OpenFGAService/UpdateStore", SMALL),
    openfga("openfga.v1.OpenFGAService/DeleteStore", SMALL),
    openfga("openfga.v1.OpenFGAService/GetStore", SMALL),
    openfga("openfga.v1.OpenFGAService/ListStores", SMALL),
    openfga("openfga.v1.OpenFGAService/StreamedListObjects", NAMES),
    openfga("openfga.v1.OpenFGAService/ListObjects", NAMES),
    openfga("openfga.v1.OpenFGAService/ListUsers", NAMES),
    reflection("grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    reflection("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    health("grpc.health.v1.Health/Check", WORD),
    health("grpc.health.v1.Health/Watch", None),
];

/// What a request is for, told from its method, path, version and content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// An RPC of the table.
    Rpc(&'static Operation),
    /// gRPC, but no RPC of the table.
    UnknownRpc,
    /// A public document over plain HTTP (RFC 8615), whether or not there is one under this name.
    WellKnown,
    /// Plain HTTP that nothing here answers.
    Refused(HttpRefusal),
}

/// Why plain HTTP is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpRefusal {
    /// Nothing has this path.
    Path,
    /// An RPC has this path, and is called with POST.
    Method(&'static Operation),
    /// An RPC has this path, and takes gRPC only.
    ContentType(&'static Operation),
    /// An RPC has this path, and gRPC needs HTTP/2: an answer of HTTP/1.1 would come without its status.
    Version(&'static Operation),
}

impl Route {
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        let path = request.uri().path();
        let operation = OPERATIONS.iter().find(|operation| path.strip_prefix('/') == Some(operation.name));
        let (is_post, is_http2) = (request.method() == Method::POST, request.version() == Version::HTTP_2);
        let has_grpc_type = is_grpc_type(request.headers());
        match operation {
            Some(operation) if !is_post => Self::Refused(HttpRefusal::Method(operation)),
            Some(operation) if !has_grpc_type => Self::Refused(HttpRefusal::ContentType(operation)),
            Some(operation) if !is_http2 => Self::Refused(HttpRefusal::Version(operation)),
            Some(operation) => Self::Rpc(operation),
            None if is_post && has_grpc_type && is_http2 => Self::UnknownRpc,
            None if resource_metadata::is_well_known(path) => Self::WellKnown,
            None => Self::Refused(HttpRefusal::Path),
        }
    }

    /// What the caller needs, to be answered or to be told why not. An RPC that is not known needs the most that there is.
    pub(super) const fn access(self) -> Access {
        match self {
            Self::Rpc(operation) => operation.access,
            Self::UnknownRpc => Access::Needs(Scope::Administer),
            Self::WellKnown => Access::Open,
            Self::Refused(_) => Access::AnyToken,
        }
    }

    /// What is answered in place of a service.
    pub(super) fn refusal(self) -> Option<Status> {
        match self {
            Self::Rpc(_) | Self::WellKnown => None,
            Self::UnknownRpc => Some(Status::unimplemented("there is no such RPC")),
            Self::Refused(refusal) => Some(Status::new(refusal.code(), refusal.text())),
        }
    }

    /// The RPC that the path names.
    pub(super) const fn operation(self) -> Option<&'static Operation> {
        match self {
            Self::Rpc(operation)
            | Self::Refused(
                HttpRefusal::Method(operation) | HttpRefusal::ContentType(operation) | HttpRefusal::Version(operation),
            ) => Some(operation),
            Self::UnknownRpc | Self::WellKnown | Self::Refused(HttpRefusal::Path) => None,
        }
    }

    /// The call's name in the record and the measures.
    pub(super) fn call_name(self) -> &'static str {
        self.operation().map_or(UNKNOWN_CALL, |operation| operation.name)
    }

    pub(super) const fn is_recorded(self) -> bool {
        match self {
            Self::Rpc(operation) => operation.is_recorded,
            Self::UnknownRpc | Self::Refused(_) => true,
            Self::WellKnown => false,
        }
    }

    pub(super) const fn is_grpc(self) -> bool {
        matches!(self, Self::Rpc(_) | Self::UnknownRpc)
    }
}

impl HttpRefusal {
    /// What the record and the JSON body say.
    pub(super) const fn code(self) -> Code {
        match self {
            Self::Path => Code::NotFound,
            Self::Method(_) => Code::Unimplemented,
            Self::ContentType(_) | Self::Version(_) => Code::InvalidArgument,
        }
    }

    pub(super) const fn http_status(self) -> http::StatusCode {
        match self {
            Self::Path => http::StatusCode::NOT_FOUND,
            Self::Method(_) => http::StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType(_) | Self::Version(_) => http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Path => "nothing is served at this path; this port speaks gRPC over HTTP/2",
            Self::Method(_) => "this path is called with POST, as gRPC over HTTP/2",
            Self::ContentType(_) => "this path takes gRPC over HTTP/2 (`content-type: application/grpc`)",
            Self::Version(_) => "gRPC needs HTTP/2",
        }
    }
}

/// Whether the body is gRPC with the one encoding that is served: protocol buffers.
fn is_grpc_type(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].iter().any(|grpc| essence.eq_ignore_ascii_case(grpc))
}

#[cfg(test)]
mod tests;
