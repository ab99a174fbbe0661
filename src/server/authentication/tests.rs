//! Which path needs what, and where a token is looked for.

use super::*;

#[test]
fn what_is_not_listed_needs_the_most() {
    let rows = [
        ("/grpc.health.v1.Health/Check", Access::Open),
        ("/.well-known/oauth-protected-resource/api", Access::Open),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::AnyScope),
        ("/ragward.retrieval.v1.RetrievalService/Retrieve", Access::Needs(Scope::Retrieve)),
        ("/ragward.retrieval.v1.RetrievalService/Explain", Access::Needs(Scope::Explain)),
        ("/ragward.retrieval.v1.RetrievalService/Added", Access::Needs(Scope::Administer)),
        ("/ragward.retrieval.v1.RetrievalService/Retrieve/", Access::Needs(Scope::Administer)),
        ("/ragward.ingest.v1.IngestService/DeleteDocuments", Access::Needs(Scope::Ingest)),
        ("/openfga.v1.OpenFGAService/Write", Access::Needs(Scope::Administer)),
        ("//grpc.health.v1.Health/Check", Access::Needs(Scope::Administer)),
        ("/GRPC.health.v1.Health/Check", Access::Needs(Scope::Administer)),
        ("/", Access::Needs(Scope::Administer)),
        ("", Access::Needs(Scope::Administer)),
    ];
    for (path, expected) in rows {
        assert_eq!(access(path), expected, "{path}");
    }
}

#[test]
fn one_header_with_one_token_is_read() {
    let rows: [(&[&str], Result<&str, TokenFault>); 8] = [
        (&[], Err(TokenFault::Absent)),
        (&["Bearer abc"], Ok("abc")),
        (&["bearer abc"], Ok("abc")),
        (&["Bearer"], Err(TokenFault::Invalid)),
        (&["Basic YTpi"], Err(TokenFault::Invalid)),
        (&["DPoP abc"], Err(TokenFault::Invalid)),
        (&["Bearer abc", "Bearer abc"], Err(TokenFault::Invalid)),
        (&["abc"], Err(TokenFault::Invalid)),
    ];
    for (values, expected) in rows {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        assert_eq!(bearer(&headers), expected, "{values:?}");
    }
}
