//! Puts a bounded load on a server, and counts the bytes, threads and streams that its peers make it keep: before,
//! during and after the load.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use prost::bytes::Bytes;
use ragward::client::Client;
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::RetrieveRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codegen::http::Request;

use crate::end_to_end::process::Served;
use crate::support::documents::document;
use crate::support::held_port::HeldPort;

const MIB: u64 = 1 << 20;
const COLLECTION: &str = "large";
const CHUNKS: u32 = 100;
const CHUNK_BYTES: usize = 60_000;
const MODEL: &str = "model: |
  model
    schema 1.1
  type user
  type doc
    relations
      define can_read: [user, user:*]
tuples:
- {user: 'user:*', relation: can_read, object: 'doc:large'}
";

/// The resources that a process keeps.
#[derive(Clone, Copy, Debug)]
struct Kept {
    resident_bytes: u64,
    threads: u64,
}

fn kept(served: &Served) -> Kept {
    let status = fs::read_to_string(format!("/proc/{}/status", served.id())).unwrap();
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Kept { resident_bytes: number("VmRSS:") * 1024, threads: number("Threads:") }
}

fn retrieve(top_k: u32) -> RetrieveRequest {
    RetrieveRequest {
        user: "user:anne".to_owned(),
        collection: COLLECTION.to_owned(),
        query: Some(Query::Text("leave".to_owned())),
        top_k,
        ..RetrieveRequest::default()
    }
}

/// Starts a server with one document of 100 chunks that everybody may see, which makes an answer of 6 MB.
async fn serve(data: &Path) -> Served {
    let store = data.join("store.fga.yaml");
    fs::write(&store, MODEL).unwrap();
    let load = ["model", "load", store.to_str().unwrap(), "--data", data.to_str().unwrap()];
    assert!(Command::new(env!("CARGO_BIN_EXE_ragward")).args(load).output().unwrap().status.success());
    let served = Served::start(data);
    let text = format!("about leave {}", "x".repeat(CHUNK_BYTES));
    let large = document("doc:large", &vec![text.as_str(); CHUNKS as usize]);
    let message = UpsertDocumentsRequest { collection: COLLECTION.to_owned(), document: Some(large) };
    served.client.ingest().upsert_documents(tokio_stream::iter([message])).await.unwrap();
    served
}

async fn answered(client: &Client, top_k: u32) -> usize {
    client.retrieval().retrieve(retrieve(top_k)).await.unwrap().into_inner().chunks.len()
}

/// Asks small questions, each in a call of its own, and returns the most that the server kept in the meantime.
async fn watch(served: &Served, questions: usize) -> Kept {
    let mut most = kept(served);
    for _ in 0..questions {
        assert_eq!(answered(&served.client, 1).await, 1, "others are answered");
        let now = kept(served);
        most.resident_bytes = most.resident_bytes.max(now.resident_bytes);
        most.threads = most.threads.max(now.threads);
    }
    most
}

fn address(served: &Served) -> SocketAddr {
    served.address.trim_start_matches("http://").parse().unwrap()
}

fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat().into()
}

/// Sends the head of a request and leaves its stream open for a body.
fn send_head(client: &mut SendRequest<Bytes>, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
    let end_of_stream = false;
    client.send_request(request, end_of_stream).unwrap()
}

/// Sends a message as the whole body of a request.
fn send_body(stream: &mut SendStream<Bytes>, message: &impl Message) {
    let end_of_stream = true;
    stream.send_data(framed(message), end_of_stream).unwrap();
}

/// Returns a client that takes no byte of an answer.
async fn reads_nothing(served: &Served) -> SendRequest<Bytes> {
    let connection = TcpStream::connect(address(served)).await.unwrap();
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(connection).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_stay_within_their_budget() {
    let data = tempfile::tempdir().unwrap();
    let served = serve(data.path()).await;
    assert_eq!(answered(&served.client, CHUNKS).await, CHUNKS as usize);
    let before = watch(&served, 20).await;
    let client = reads_nothing(&served).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut client = client.clone().ready().await.unwrap();
        let uri = format!("{}/ragward.retrieval.v1.RetrievalService/Retrieve", served.address);
        let request = Request::post(uri).header("content-type", "application/grpc").body(()).unwrap();
        let (answer, mut body) = send_head(&mut client, request);
        send_body(&mut body, &retrieve(CHUNKS));
        waiting.push(answer);
    }
    let during = watch(&served, 300).await;
    // A large answer to a client that reads is not held up.
    assert_eq!(answered(&served.client, CHUNKS).await, CHUNKS as usize);
    drop((waiting, client));
    let mut after = kept(&served);
    for _ in 0..300 {
        assert_eq!(answered(&served.client, 1).await, 1);
        after = kept(&served);
    }
    println!("answers that nobody reads: before {before:?}, during {during:?}, after {after:?}");
    let grown = during.resident_bytes.saturating_sub(before.resident_bytes);
    assert!(grown < 250 * MIB, "before {before:?}, during {during:?}");
    assert!(after.resident_bytes < before.resident_bytes + 200 * MIB, "before {before:?}, after {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_do_not_make_many_threads() {
    let data = tempfile::tempdir().unwrap();
    let served = serve(data.path()).await;
    let before = watch(&served, 5).await;
    let calls = (0..64).map(|_| {
        let client = Client::at(&served.address).unwrap();
        tokio::spawn(async move {
            for _ in 0..5 {
                assert_eq!(answered(&client, CHUNKS).await, CHUNKS as usize);
            }
        })
    });
    let calls: Vec<_> = calls.collect();
    let during = watch(&served, 50).await;
    for call in calls {
        call.await.unwrap();
    }
    let after = watch(&served, 50).await;
    println!("64 callers: before {before:?}, during {during:?}, after {after:?}");
    let cores = available_parallelism().unwrap().get() as u64;
    // The threads are those of the runtime, of the searches, of three lanes, and of blocking work.
    let threads_max = 5 * cores + 16 + 4;
    assert!(during.threads <= threads_max, "before {before:?}, during {during:?}");
    assert!(during.resident_bytes < before.resident_bytes + 500 * MIB, "before {before:?}, during {during:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_a_body_are_refused_past_the_limit() {
    const STREAMS: u32 = 20_000;
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    let data = tempfile::tempdir().unwrap();
    let served = serve(data.path()).await;
    let before = watch(&served, 20).await;
    let (mut reading, mut writing) = TcpStream::connect(address(&served)).await.unwrap().into_split();
    // Names and values are sent without Huffman coding: method and scheme from the static table, then path, authority
    // and type.
    let path = b"/openfga.v1.OpenFGAService/Check";
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path);
    block.extend_from_slice(b"\x01\x03any\x0f\x10\x10application/grpc");
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..2 * STREAMS).step_by(2) {
        let length = u32::try_from(block.len()).unwrap().to_be_bytes();
        // This HEADERS frame carries all of them, and leaves the stream open.
        sent.extend_from_slice(&length[1..]);
        sent.extend_from_slice(&[1, 4]);
        sent.extend_from_slice(&stream.to_be_bytes());
        sent.extend_from_slice(&block);
    }
    let sending = tokio::spawn(async move {
        // The server may end the connection before all is sent.
        drop(writing.write_all(&sent).await);
        writing
    });
    let (mut refused, mut ended) = (0, false);
    while refused < STREAMS - 256 && !ended {
        let mut head = [0; 9];
        if reading.read_exact(&mut head).await.is_err() {
            ended = true;
            break;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        ended = reading.read_exact(&mut payload).await.is_err() || head[3] == GOAWAY;
        refused += u32::from(head[3] == RST_STREAM);
    }
    let during = watch(&served, 50).await;
    drop((sending.await.unwrap(), reading));
    println!("20,000 streams: {refused} refused, ended {ended}, before {before:?}, during {during:?}");
    assert!(during.resident_bytes < before.resident_bytes + 100 * MIB, "before {before:?}, during {during:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_need_no_token_hold_no_headers() {
    const CONNECTIONS: usize = 4;
    const STREAMS: usize = 250;
    const HEADER_BYTES: usize = 60_000;
    let data = tempfile::tempdir().unwrap();
    let served = serve(data.path()).await;
    let mut open = Vec::new();
    let mut kept = vec![watch(&served, 20).await.resident_bytes];
    // A call costs memory that has nothing to do with its headers. The small ones show how much.
    for header_bytes in [10, HEADER_BYTES] {
        for _ in 0..CONNECTIONS {
            open.extend(held_calls(&served, STREAMS, header_bytes).await);
        }
        kept.push(watch(&served, 20).await.resident_bytes);
    }
    println!("{} calls, first with small heads, then with large ones: {kept:?}", open.len());
    let [small, large] = [kept[1].saturating_sub(kept[0]), kept[2].saturating_sub(kept[1])];
    let heads = (CONNECTIONS * STREAMS * HEADER_BYTES) as u64;
    assert!(large < small + heads / 2, "{kept:?}");
}

/// Opens a connection with calls whose bodies never come. The server has read all of their heads.
async fn held_calls(served: &Served, count: usize, header_bytes: usize) -> Vec<(ResponseFuture, SendStream<Bytes>)> {
    let uri = format!("{}/grpc.health.v1.Health/Check", served.address);
    let request = || Request::post(&uri).header("content-type", "application/grpc");
    let connection = TcpStream::connect(address(served)).await.unwrap();
    let (client, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let mut held = Vec::new();
    for _ in 0..count {
        let request = request().header("ballast", "x".repeat(header_bytes)).body(()).unwrap();
        held.push(send_head(&mut client.clone().ready().await.unwrap(), request));
    }
    // This call is answered once everything before it has arrived.
    let (answer, mut body) = send_head(&mut client.clone().ready().await.unwrap(), request().body(()).unwrap());
    send_body(&mut body, &tonic_health::pb::HealthCheckRequest::default());
    assert!(answer.await.unwrap().status().is_success());
    held
}

#[test]
fn a_port_takes_no_connection_before_the_start_is_sure() {
    let data = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--data", data.path().to_str().unwrap(), "--insecure-identity"];
    fs::create_dir(data.path().join("audit")).unwrap();
    fs::write(data.path().join("audit").join("audit-00000001.jsonl"), "not a log\n").unwrap();
    let port = HeldPort::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    let mut process = command.args(arguments).args(["--listen", &port.address.to_string()]).spawn().unwrap();
    let mut tries = 0;
    let status = loop {
        assert!(std::net::TcpStream::connect(port.address).is_err(), "after {tries} tries");
        tries += 1;
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
    };
    assert!(!status.success());
}
