//! The table agrees with the services' descriptors, and requests are told apart by it.

use std::collections::BTreeMap;

use super::*;

/// A row's name; the request's method, path, version and content types; its route.
type Row<'a> = (&'a str, &'a str, &'a str, Version, &'a [&'a str], Route);

const RETRIEVE: &str = "/ragward.retrieval.v1.RetrievalService/Retrieve";

fn route(method: &str, path: &str, version: Version, content_types: &[&str]) -> Route {
    let mut request = http::Request::builder().method(method).uri(path).version(version);
    for content_type in content_types {
        request = request.header(header::CONTENT_TYPE, *content_type);
    }
    Route::of(&request.body(()).unwrap())
}

#[test]
fn the_table_holds_exactly_the_rpcs_of_the_services() {
    let listed: BTreeMap<String, (Messages, Messages)> = OPERATIONS
        .iter()
        .map(|operation| (operation.name().to_owned(), (operation.request, operation.answer)))
        .collect();
    assert_eq!(listed, crate::server::reflection::rpcs());
    assert_eq!(listed.len(), OPERATIONS.len(), "no RPC is listed twice");
}

#[test]
fn only_an_answer_of_one_message_is_known_to_be_ok() {
    for operation in &OPERATIONS {
        let expected = if operation.answer == Messages::One { Code::Ok } else { Code::Unknown };
        assert_eq!(Route::Rpc(operation).answered_code(), expected, "{}", operation.path);
        let is_bounded = operation.answer_bytes_max.is_some();
        assert!(is_bounded || operation.answer == Messages::Many, "{}: one message has a size", operation.path);
    }
    assert_eq!(Route::Mcp("mcp").answered_code(), Code::Ok, "the door has the whole answer");
    let nothing = Refusal::new(Code::InvalidArgument, "there is no tool of this name");
    let unlisted = Route::Unlisted(Operation::at(RETRIEVE).unwrap(), nothing);
    assert_eq!(unlisted.answered_code(), Code::Ok, "a door made the call");
    for route in [Route::UnknownRpc, Route::Public, Route::Notification, Route::Refused(NotServed::Path)] {
        assert_eq!(route.answered_code(), Code::Unknown, "{route:?}");
    }
}

#[test]
fn what_is_not_listed_needs_the_most() {
    let needs = [
        ("/grpc.health.v1.Health/Check", Access::Open),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::AnyScope),
        (RETRIEVE, Access::Needs(Scope::Retrieve)),
        ("/ragward.retrieval.v1.RetrievalService/Explain", Access::Needs(Scope::Explain)),
        ("/ragward.retrieval.v1.RetrievalService/Added", Access::Needs(Scope::Administer)),
        ("/ragward.retrieval.v1.RetrievalService/Retrieve/", Access::Needs(Scope::Administer)),
        ("/ragward.ingest.v1.IngestService/DeleteDocuments", Access::Needs(Scope::Ingest)),
        ("/openfga.v1.OpenFGAService/Write", Access::Needs(Scope::Administer)),
        ("//grpc.health.v1.Health/Check", Access::Needs(Scope::Administer)),
        ("/GRPC.health.v1.Health/Check", Access::Needs(Scope::Administer)),
        ("/grpc.health.v1.Health/Added", Access::Needs(Scope::Administer)),
        ("/.well-known/oauth-protected-resource", Access::Needs(Scope::Administer)),
        ("/", Access::Needs(Scope::Administer)),
    ];
    for (path, expected) in needs {
        let route = route("POST", path, Version::HTTP_2, &["application/grpc"]);
        assert_eq!(route.access(), expected, "{path}");
        assert_eq!(route.refusal().is_some(), route == Route::UnknownRpc, "{path}");
    }
}

#[test]
fn only_grpc_reaches_a_service() {
    let (v1, v2) = (Version::HTTP_11, Version::HTTP_2);
    let grpc: &[&str] = &["application/grpc"];
    let operation = Operation::at(RETRIEVE).unwrap();
    let (method, content_type, version) = (
        Route::Refused(NotServed::Method(Some(operation), POST)),
        Route::Refused(NotServed::ContentType(operation)),
        Route::Refused(NotServed::Version(operation)),
    );
    let nothing = Route::Refused(NotServed::Path);
    let rows: [Row; 30] = [
        ("gRPC", "POST", RETRIEVE, v2, grpc, Route::Rpc(operation)),
        ("gRPC, its encoding said", "POST", RETRIEVE, v2, &["application/grpc+proto"], Route::Rpc(operation)),
        ("gRPC, in capitals", "POST", RETRIEVE, v2, &["Application/gRPC"], Route::Rpc(operation)),
        ("gRPC, with a parameter", "POST", RETRIEVE, v2, &["application/grpc; a=b"], Route::Rpc(operation)),
        ("gRPC over HTTP/1.1", "POST", RETRIEVE, v1, grpc, version.clone()),
        ("gRPC over HTTP/1.0", "POST", RETRIEVE, Version::HTTP_10, grpc, version.clone()),
        ("gRPC with JSON", "POST", RETRIEVE, v2, &["application/grpc+json"], content_type.clone()),
        ("gRPC-Web", "POST", RETRIEVE, v2, &["application/grpc-web+proto"], content_type.clone()),
        ("two types", "POST", RETRIEVE, v2, &["application/grpc", "application/json"], content_type.clone()),
        ("JSON", "POST", RETRIEVE, v2, &["application/json"], content_type.clone()),
        ("JSON over HTTP/1.1", "POST", RETRIEVE, v1, &["application/json"], content_type.clone()),
        ("a form", "POST", RETRIEVE, v1, &["application/x-www-form-urlencoded"], content_type.clone()),
        ("no type", "POST", RETRIEVE, v1, &[], content_type.clone()),
        ("an empty type", "POST", RETRIEVE, v2, &[""], content_type.clone()),
        ("GET", "GET", RETRIEVE, v2, grpc, method.clone()),
        ("PUT over HTTP/1.1", "PUT", RETRIEVE, v1, grpc, method.clone()),
        ("OPTIONS", "OPTIONS", RETRIEVE, v1, &[], method.clone()),
        (
            "OpenFGA's HTTP",
            "POST",
            "/stores/01ARZ3NDEKTSV4RRFFQ69G5FAV/write",
            v1,
            &["application/json"],
            nothing.clone(),
        ),
        ("its list of stores", "GET", "/stores", v2, &[], nothing.clone()),
        ("the root", "GET", "/", v1, &[], nothing.clone()),
        ("an unknown RPC", "POST", "/a.B/C", v2, grpc, Route::UnknownRpc),
        ("an unknown RPC over HTTP/1.1", "POST", "/a.B/C", v1, grpc, nothing.clone()),
        ("a public document", "GET", "/.well-known/oauth-protected-resource", v1, &[], Route::Public),
        ("whether the process runs", "GET", LIVEZ, v1, &[], Route::Public),
        ("whether it is ready", "HEAD", READYZ, v1, &[], Route::Public),
        ("the description of the routes", "GET", OPENAPI, v2, &[], Route::Public),
        ("a notification, which its door recognizes", "POST", NOTIFICATION, v1, &["application/json"], nothing.clone()),
        ("below a probe", "GET", "/readyz/authorizer", v1, &[], nothing.clone()),
        ("gRPC to a probe", "POST", READYZ, v2, grpc, Route::UnknownRpc),
        ("gRPC to a public document", "POST", "/.well-known/a", v2, grpc, Route::UnknownRpc),
    ];
    for (what, verb, path, version, content_types, expected) in rows {
        assert_eq!(route(verb, path, version, content_types), expected, "{what}");
    }
}
