//! Tests of peers that are silent, too many or in a hurry. They connect over pipes, and each test moves the clock
//! itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tower::{Layer, service_fn};

use super::*;
use crate::server::arriving::MESSAGE_MAX;
use crate::server::audit::{AuditLayer, OngoingWork};
use crate::server::doors::{Doors, Guards, Notifications, Port};
use crate::server::refusal::Refusal;
use crate::server::tls::HANDSHAKE_MAX;
use crate::server::tls::sample::{self, Authority, Life};

const CONNECTIONS_MAX: usize = 3;
const UPLOAD: &str = "http://any/ragward.ingest.v1.IngestService/UpsertDocuments";
const CHECK: &str = "http://any/openfga.v1.OpenFGAService/Check";

fn settings(tls: Option<Tls>) -> PortSettings {
    let request_timeout = Duration::from_secs(10);
    PortSettings { answers: Answers::new(), connections_max: CONNECTIONS_MAX, request_timeout, tls }
}

/// A server that reads the request of every call, waits, and then gives an empty answer.
struct World {
    connections: mpsc::Sender<io::Result<Arrived<DuplexStream>>>,
    calls: Arc<AtomicUsize>,
    _serving: JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        Self::with(None, Duration::ZERO)
    }

    fn with(tls: Option<Tls>, wait: Duration) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let called = Arc::clone(&calls);
        let service = service_fn(move |request: Request<Body>| {
            called.fetch_add(1, Ordering::Relaxed);
            async move {
                let read = http_body_util::BodyExt::collect(request.into_body()).await;
                sleep(wait).await;
                read.map(|_| Response::new(Body::empty())).map_err(|status| Refusal::from(&status))
            }
        });
        let (connections, incoming) = mpsc::channel(16);
        let doors = Doors::new(Guards::default(), None, Notifications::Absent).unwrap();
        let stack = AuditLayer { audit: None, work: OngoingWork::default() }.layer(service);
        let service = BoxCloneSyncService::new(Port::new(doors.clone(), stack));
        let incoming = ReceiverStream::new(incoming);
        let serving = tokio::spawn(serve(doors, service, incoming, settings(tls), std::future::pending()));
        Self { connections, calls, _serving: serving }
    }

    async fn connect(&self) -> DuplexStream {
        let (ours, theirs) = duplex(1 << 20);
        self.connections.send(Ok(Arrived { io: theirs, peer: None })).await.unwrap();
        ours
    }

    async fn client(&self) -> SendRequest<Bytes> {
        let (client, connection) = h2::client::handshake(self.connect().await).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        client.ready().await.unwrap()
    }
}

fn post(uri: &str) -> Request<()> {
    Request::post(uri).header("content-type", "application/grpc").body(()).unwrap()
}

/// Makes one call and gives its gRPC status.
async fn call(client: &SendRequest<Bytes>) -> Result<Option<String>, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (answer, _) = client.send_request(post(CHECK), true)?;
    let answer = answer.await?;
    Ok(answer.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned()))
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_kept() {
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let rows: [(&str, &[u8]); 6] = [
        ("nothing", b""),
        ("a part of HTTP/2's greeting", preface.get(..10).unwrap()),
        ("HTTP/2's greeting, and no answer to a ping", preface),
        ("a part of HTTP/1.1's head", b"GET / HTTP/1.1\r\nhost: a\r\n"),
        ("an HTTP/1.1 request without its body", b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc"),
        ("nonsense", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
    ];
    for (what, says) in rows {
        let world = World::start();
        let began = Instant::now();
        let mut peer = world.connect().await;
        peer.write_all(says).await.unwrap();
        let mut told = Vec::new();
        // The connection ends; whether with an error does not matter.
        drop(peer.read_to_end(&mut told).await);
        assert!(began.elapsed() <= Duration::from_mins(7), "{what}: {:?}", began.elapsed());
        if !what.starts_with("HTTP/2's") && !what.starts_with("an HTTP/1.1") {
            assert!(began.elapsed() <= Duration::from_secs(30), "{what}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_are_announced_and_each_ends_without_its_body() {
    let world = World::start();
    let client = world.client().await;
    call(&client).await.unwrap();
    assert_eq!(client.current_max_send_streams(), STREAMS_MAX as usize);
    let began = Instant::now();
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut client = client.clone().ready().await.unwrap();
        open.push(client.send_request(post(CHECK), false).unwrap());
    }
    for (answer, _silent) in open {
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4", "{answer:?}");
    }
    assert!(began.elapsed() <= MESSAGE_MAX + Duration::from_secs(1));
    assert_eq!(call(&client).await.unwrap(), None, "the connection lives on");
}

#[test]
fn a_request_that_needs_no_token_keeps_no_headers_but_its_form() {
    let request = Request::post("http://any/grpc.health.v1.Health/Check?large=large")
        .header("content-type", "application/grpc")
        .header("grpc-encoding", "gzip")
        .header("large", "x".repeat(60_000))
        .header("authorization", "Bearer large");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let light = without_ballast(&parts, &Route::of(&Request::from_parts(parts.clone(), ())));
    assert_eq!((&light.method, light.version), (&parts.method, parts.version));
    assert_eq!(light.uri, "/grpc.health.v1.Health/Check");
    let mut names: Vec<&str> = light.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "grpc-encoding"]);
    assert_eq!(Route::of(&Request::from_parts(light, ())), Route::of(&Request::from_parts(parts, ())));
}

#[test]
fn a_notification_keeps_its_own_short_token() {
    let long = "x".repeat(NOTIFICATION_TOKEN_BYTES_MAX + 1);
    let rows = [
        ("none", vec![], 0),
        ("a short one", vec!["Bearer a"], 1),
        ("two", vec!["Bearer a", "Bearer b"], 2),
        ("three", vec!["Bearer a", "Bearer b", "Bearer c"], 2),
        ("a long one", vec![long.as_str()], 0),
    ];
    for (row, values, expected) in rows {
        let mut request = Request::post("/ciba/notify").header("large", "x".repeat(60_000));
        for value in values {
            request = request.header("authorization", value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let light = without_ballast(&parts, &Route::Notification);
        assert_eq!(light.headers.get_all("authorization").iter().count(), expected, "{row}");
        assert_eq!(light.headers.len(), expected, "{row}: nothing else is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_leave_the_upload_beside_them() {
    let world = World::start();
    let client = world.client().await;
    let mut uploader = client.clone().ready().await.unwrap();
    let (outcome, mut upload) = uploader.send_request(post(UPLOAD), false).unwrap();
    for round in 0..20 {
        // All calls of a round are cancelled before the server looks at any of them.
        let mut cancelled = Vec::new();
        for _ in 0..STREAMS_MAX - 1 {
            let mut client = client.clone().ready().await.unwrap();
            cancelled.push(client.send_request(post(CHECK), false).unwrap());
        }
        for (_, stream) in &mut cancelled {
            stream.send_reset(h2::Reason::CANCEL);
        }
        drop(cancelled);
        upload.send_data(Bytes::from_static(b"more"), false).unwrap();
        // A gRPC client repeats by itself a call that was refused before anybody looked at it.
        let mut answered = call(&client).await;
        while answered.as_ref().is_err_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM)) {
            tokio::task::yield_now().await;
            answered = call(&client).await;
        }
        assert_eq!(answered.unwrap(), None, "round {round}");
    }
    upload.send_data(Bytes::new(), true).unwrap();
    assert!(outcome.await.unwrap().status().is_success());
}

#[tokio::test(start_paused = true)]
async fn past_the_limit_connections_wait_for_their_place() {
    let world = World::start();
    let first = [world.client().await, world.client().await, world.client().await];
    for client in &first {
        call(client).await.unwrap();
    }
    let began = Instant::now();
    let (fourth, ()) = futures::join!(world.client(), async {
        sleep(Duration::from_secs(1)).await;
        drop(first);
    });
    call(&fourth).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_place_and_an_end_and_keeps_nobody_waiting() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.issue(Life::Running).write(directory.path());
    let world = World::with(Some(Tls::new(&sample::files(directory.path())).unwrap()), Duration::ZERO);
    let began = Instant::now();
    let silent = [("nothing", &b""[..]), ("a part of a greeting", &b"\x16\x03\x01\x02\0\x01"[..])];
    let mut peers = Vec::new();
    for (what, says) in silent {
        let mut peer = world.connect().await;
        peer.write_all(says).await.unwrap();
        peers.push((what, peer));
    }
    // Two handshakes are under way, and the third place is free.
    let client = authority.client(None, &["h2"]);
    let third = sample::connect(&client, world.connect().await).await.unwrap();
    let (third, connection) = h2::client::handshake(third).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    // The connection lasts as long as this value.
    let third = third.ready().await.unwrap();
    call(&third).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "no clock had to move");

    // A fourth gets its place when a silent peer is given up.
    let fourth = sample::connect(&client, world.connect().await).await.unwrap();
    assert!((HANDSHAKE_MAX..=HANDSHAKE_MAX * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    for (what, mut peer) in peers {
        let mut told = Vec::new();
        drop(peer.read_to_end(&mut told).await);
        assert!(began.elapsed() <= HANDSHAKE_MAX * 2, "{what}");
    }
    drop(fourth);

    // A client that speaks without TLS gets nothing but an alert, and none of its calls reaches the services.
    let calls = world.calls.load(Ordering::Relaxed);
    let mut plain = world.connect().await;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut told = Vec::new();
    drop(plain.read_to_end(&mut told).await);
    assert!(!told.starts_with(b"HTTP"), "{told:?}");
    assert_eq!(world.calls.load(Ordering::Relaxed), calls);
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn a_system_without_room_is_asked_now_and_then() {
    // The error of `accept` when no file can be opened.
    const EMFILE: i32 = 24;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let failing = stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Err::<Arrived<DuplexStream>, _>(io::Error::from_raw_os_error(EMFILE))
    });
    let service = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let stop = sleep(Duration::from_mins(1));
    let doors = Doors::new(Guards::default(), None, Notifications::Absent).unwrap();
    serve(doors, BoxCloneSyncService::new(service), failing, settings(None), stop).await;
    assert!((30..100).contains(&tries.load(Ordering::Relaxed)), "{tries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_callers_timeout_ends_its_call() {
    let world = World::start();
    let mut client = world.client().await;
    let mut request = post(UPLOAD);
    request.headers_mut().insert("grpc-timeout", "100m".parse().unwrap());
    let (answer, _silent) = client.send_request(request, false).unwrap();
    assert_eq!(answer.await.unwrap().headers()["grpc-status"], "4");
    assert_eq!(world.calls.load(Ordering::Relaxed), 1);
}

/// A client of HTTP/1.1 may end its half of the connection after its request.
#[tokio::test(start_paused = true)]
async fn who_has_said_everything_still_gets_an_answer() {
    let json = r#"{"text":"leave","topK":3}"#;
    let head = "POST /v1/collections/a/retrieve HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let rows = [
        ("a request without a body", "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned()),
        ("the last request", "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned()),
        ("a body", format!("{head}content-length: {}\r\n\r\n{json}", json.len())),
        (
            "a body in chunks",
            format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{json}\r\n0\r\n\r\n", json.len()),
        ),
    ];
    for (row, says) in rows {
        let world = World::with(None, Duration::from_secs(1));
        let mut peer = world.connect().await;
        peer.write_all(says.as_bytes()).await.unwrap();
        peer.shutdown().await.unwrap();
        let began = Instant::now();
        let mut told = Vec::new();
        peer.read_to_end(&mut told).await.unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(told.starts_with("HTTP/1.1 200 "), "{row}: {told}");
        assert!(began.elapsed() < Duration::from_secs(10), "{row}: the connection ends with the answer");
    }
}
