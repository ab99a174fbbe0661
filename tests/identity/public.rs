//! What everybody may read over plain HTTP, without a token and without a record: probes and documents.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::identity::rpcs::records;
use crate::identity::world::{identity, start};
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::{Running, config};

struct Answer {
    status: u16,
    /// The header lines, in small letters.
    head: String,
    body: String,
}

/// Asks over HTTP/1.1. A header line ends with `\r\n`.
async fn ask(address: SocketAddr, verb: &str, path: &str, header_lines: &str) -> Answer {
    let head = format!("{verb} {path} HTTP/1.1\r\n{header_lines}connection: close\r\ncontent-length: 0\r\n\r\n");
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

#[tokio::test]
async fn probes_and_documents_need_no_token_and_leave_no_record() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let here = "host: localhost\r\n";
    let ready = r#"{"reasons":[],"status":"ready"}"#;
    let rows: [(&str, &str, &str, String, u16, &str); 13] = [
        ("it runs", "GET", "/livez", here.to_owned(), 200, r#"{"status":"live"}"#),
        ("it runs, head alone", "HEAD", "/livez", here.to_owned(), 200, ""),
        ("it is ready", "GET", "/readyz", here.to_owned(), 200, ready),
        ("with a query", "GET", "/readyz?verbose", here.to_owned(), 200, ready),
        ("it is ready, head alone", "HEAD", "/readyz", here.to_owned(), 200, ""),
        (
            "as gRPC by its type alone",
            "GET",
            "/readyz",
            format!("{here}content-type: application/grpc\r\n"),
            200,
            ready,
        ),
        ("the routes", "GET", "/openapi.json", here.to_owned(), 200, "\"openapi\":\"3.1.0\""),
        ("a wrong token is not looked at", "GET", "/readyz", format!("{here}authorization: Bearer x\r\n"), 200, ready),
        ("a method that writes", "POST", "/readyz", here.to_owned(), 405, "unimplemented"),
        ("another host", "GET", "/readyz", "host: attacker.example\r\n".to_owned(), 403, "permission_denied"),
        (
            "another host, as gRPC by its type alone",
            "GET",
            "/readyz",
            "host: attacker.example\r\ncontent-type: application/grpc\r\n".to_owned(),
            403,
            "permission_denied",
        ),
        (
            "another origin",
            "GET",
            "/livez",
            format!("{here}origin: https://attacker.example\r\n"),
            403,
            "permission_denied",
        ),
        ("a path that no door knows", "GET", "/readyz/", here.to_owned(), 401, "unauthenticated"),
    ];
    for (row, verb, path, header_lines, status, part) in rows {
        let answer = ask(running.address, verb, path, &header_lines).await;
        assert_eq!(answer.status, status, "{row}: {}", answer.body);
        assert!(answer.body.contains(part) && (verb != "HEAD" || answer.body.is_empty()), "{row}: {}", answer.body);
        for header in ["content-type: application/json", "cache-control: no-store", "x-content-type-options: nosniff"] {
            assert!(answer.head.contains(header), "{row}: {}", answer.head);
        }
        assert_eq!(answer.head.contains("allow: get, head"), status == 405, "{row}: {}", answer.head);
    }
    running.stop().await.unwrap();
    let mut recorded: Vec<String> = records(data.path()).iter().map(|record| record.code.clone()).collect();
    recorded.sort_unstable();
    assert_eq!(recorded, ["PERMISSION_DENIED", "PERMISSION_DENIED", "PERMISSION_DENIED", "UNAUTHENTICATED"]);
}

#[tokio::test]
async fn a_server_without_a_model_runs_and_is_not_ready() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(&config(data.path())).await;
    for (path, status, body) in [
        ("/livez", 200, r#"{"status":"live"}"#),
        ("/readyz", 503, r#"{"reasons":["authorizer"],"status":"not ready"}"#),
    ] {
        let answer = ask(running.address, "GET", path, "host: localhost\r\n").await;
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{path}");
    }
    assert_eq!(ask(running.address, "GET", "/nothing", "host: localhost\r\n").await.status, 404);
    running.stop().await.unwrap();
}
