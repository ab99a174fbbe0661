//! Bodies that come slowly, in pieces, or not to their end.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::doors::world::{COLLECTION, World};
use crate::support::http::{Call, Reply};

/// How long a caller waits whose body never ends.
const WAITS_MS: &str = "300";
const RETRIEVE: &str = "ragward.retrieval.v1.RetrievalService/Retrieve";
const CREATE_STORE: &str = "openfga.v1.OpenFGAService/CreateStore";

/// Whether a request ends after its last byte.
#[derive(Clone, Copy)]
enum Ends {
    Whole,
    Early,
}

fn retrieve(world: &World) -> Call {
    let path = format!("/v1/collections/{COLLECTION}/retrieve");
    let call = Call::json(&path, &json!({ "text": "leave", "topK": 3 }));
    call.bearer(&world.token("anne", "ragward:retrieve"))
}

/// Sends the pieces of a request, each in a packet of its own.
async fn sent<'a>(address: &str, pieces: impl Iterator<Item = &'a [u8]>) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.set_nodelay(true).unwrap();
    for piece in pieces {
        connection.write_all(piece).await.unwrap();
        connection.flush().await.unwrap();
    }
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_in_any_pieces() {
    let world = World::start().await;
    let call = retrieve(&world);
    let expected = world.send(&call).await.json()["chunks"].clone();
    assert_eq!(expected.as_array().map(Vec::len), Some(2), "{expected}");
    let whole = call.bytes(&world.address);
    for bytes in [1, 7, 100] {
        let mut connection = sent(&world.address, whole.chunks(bytes)).await;
        let reply = Reply::read(&mut connection).await.unwrap();
        assert_eq!((reply.status, &reply.json()["chunks"]), (200, &expected), "in pieces of {bytes} bytes");
    }
    let body = br#"{"text":"leave","topK":3}"#;
    let mut chunked: Vec<u8> = Vec::new();
    for byte in body {
        chunked.extend([b"1\r\n".as_slice(), &[*byte], b"\r\n"].concat());
    }
    chunked.extend(b"0\r\n\r\n");
    let chunked = call.without("content-length").with("transfer-encoding", "chunked").body(chunked);
    let reply = world.send(&chunked).await;
    assert_eq!((reply.status, &reply.json()["chunks"]), (200, &expected), "in chunks, without a length");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_an_end_ends_with_the_callers_deadline() {
    let world = World::start().await;
    let call = retrieve(&world).with("connect-timeout-ms", WAITS_MS);
    let half = |call: Call| call.with("content-length", "100").body("{\"text\":");
    let at_connect = call.clone().path(&format!("/{RETRIEVE}"));
    let at_openfga = Call::new("POST", "/stores").with("content-type", "application/json");
    let at_openfga = at_openfga.bearer(&world.token("anne", "ragward:administer"));
    let rows = [
        ("nothing of the body", call.clone().with("content-length", "100").body(""), RETRIEVE),
        ("half of the body", half(call.clone()), RETRIEVE),
        ("half of the body, at Connect", half(at_connect), RETRIEVE),
        ("half of the body, with the header of gRPC", half(retrieve(&world).with("grpc-timeout", "300m")), RETRIEVE),
        ("half of the body, at OpenFGA's API", half(at_openfga.with("connect-timeout-ms", WAITS_MS)), CREATE_STORE),
        (
            "half of a chunk",
            call.without("content-length").with("transfer-encoding", "chunked").body("64\r\n{\"text\":"),
            RETRIEVE,
        ),
    ];
    for (row, call, _) in &rows {
        let whole = call.bytes(&world.address);
        let mut connection = sent(&world.address, [whole.as_slice()].into_iter()).await;
        let reply = Reply::read(&mut connection).await.expect(row);
        assert_eq!((reply.status, &reply.json()["code"]), (504, &json!("deadline_exceeded")), "{row}");
    }
    assert_eq!(world.send(&retrieve(&world)).await.status, 200, "the server goes on");

    let late = rows.iter().map(|(row, _, rpc)| (*row, *rpc, "DEADLINE_EXCEEDED"));
    let told: Vec<(&str, &str, &str)> = late.chain([("the last one", RETRIEVE, "OK")]).collect();
    let counted = world.counted().await;
    for (row, rpc, code) in &told {
        let of_this = told.iter().filter(|(_, of, with)| (of, with) == (rpc, code)).count();
        let at_all_doors = counted.iter().filter(|of| (of.rpc.as_str(), of.code.as_str()) == (*rpc, *code));
        assert_eq!(at_all_doors.map(|of| of.count).sum::<usize>(), of_this, "{row}: the metrics of {rpc} with {code}");
    }
    assert_eq!(counted.iter().map(|counted| counted.count).sum::<usize>(), told.len(), "{counted:?}");
    let records = world.stop().await;
    for (record, (row, rpc, code)) in records.iter().zip(&told) {
        assert_eq!((record.call.as_str(), record.code.as_str()), (*rpc, *code), "the record of `{row}`");
    }
    assert_eq!(records.len(), told.len(), "one record for each request");
}

/// A client that sends its body after its head still reads why it was refused, although nobody read that body.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_the_body_is_read_by_its_client() {
    let world = World::start().await;
    let body = vec![b' '; 1_000_000];
    let good = retrieve(&world);
    let rows = [
        ("no token", good.clone().without("authorization"), 401),
        ("another verb", good.clone().verb("PUT"), 405),
        ("another path", good.clone().path("/nothing"), 404),
        ("another type", good.clone().without("content-type"), 415),
        ("another host", good.with("host", "attacker.example"), 403),
    ];
    for (row, call, status) in rows {
        let whole = call.body(body.clone()).bytes(&world.address);
        let (head, body) = whole.split_at(whole.len() - body.len());
        let mut connection = sent(&world.address, [head].into_iter()).await;
        for piece in body.chunks(100_000) {
            tokio::task::yield_now().await;
            connection.write_all(piece).await.expect(row);
        }
        let reply = Reply::read(&mut connection).await.expect(row);
        assert_eq!(reply.status, status, "{row}");
    }
}

/// A client that closes its half of the connection after its request gets the answer. One that closes it earlier gets a refusal
/// or nothing, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_connection_ends_cleanly() {
    let world = World::start().await;
    let call = retrieve(&world);
    let expected = world.send(&call).await.json()["chunks"].clone();
    let (whole, cut) = (call.bytes(&world.address), call.with("content-length", "100").bytes(&world.address));
    let head = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let rows: [(&str, &[u8], Ends); 5] = [
        ("after the request", &whole, Ends::Whole),
        ("within the body", &cut, Ends::Early),
        ("after the head", &whole[..head + 4], Ends::Early),
        ("within the head", &whole[..head / 2], Ends::Early),
        ("at once", &[], Ends::Early),
    ];
    for (row, bytes, ends) in rows {
        let mut connection = sent(&world.address, [bytes].into_iter()).await;
        connection.shutdown().await.unwrap();
        match (Reply::read(&mut connection).await, ends) {
            (None, Ends::Early) => {}
            (None, Ends::Whole) => panic!("{row}: no answer"),
            (Some(reply), Ends::Whole) => {
                assert_eq!((reply.status, &reply.json()["chunks"]), (200, &expected), "{row}");
            }
            (Some(reply), Ends::Early) => assert!(reply.status >= 400, "{row}: {reply:?}"),
        }
        assert_eq!(world.send(&retrieve(&world)).await.json()["chunks"], expected, "the server goes on: {row}");
    }
}
