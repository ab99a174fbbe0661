//! Record and metrics name the door of each call. A caller cannot make them name another one.

use std::collections::BTreeMap;

use ragward::audit::Door;
use ragward::client::Client;
use ragward::proto::retrieval::RecheckRequest;
use ragward::settings::Secret;
use serde_json::json;
use tonic::Request;
use tonic::metadata::{MetadataKey, MetadataValue};

use crate::doors::world::{COLLECTION, World};
use crate::support::http::Call;

const RPC: &str = "/ragward.retrieval.v1.RetrievalService/Recheck";
/// The headers with which a caller may try to name a door.
const FORGED: [&str; 5] = ["door", "x-door", "ragward-door", "x-ragward-door", "x-forwarded-door"];

/// Returns the call of a row, with headers that name other doors.
fn forged(call: &Call, door: Door) -> Call {
    FORGED.into_iter().fold(call.clone(), |call, name| call.with(name, other_than(door).name()))
}

fn other_than(door: Door) -> Door {
    if door == Door::InProcess { Door::Grpc } else { Door::InProcess }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_recorded_and_counted_by_its_door() {
    let world = World::start().await;
    let (reader, operator) = (world.token("anne", "ragward:retrieve"), world.token("operator", "ragward:administer"));
    let connect = Call::json(RPC, &json!({ "collection": COLLECTION, "chunkIds": ["a"] }));
    let rest = Call::json(&format!("/v1/collections/{COLLECTION}/recheck"), &json!({ "chunkIds": ["a"] }));
    let stores = Call::new("GET", "/stores");
    let typed = |value: &str| connect.clone().without("content-type").with("content-type", value).bearer(&reader);
    let rows = [
        ("Connect", connect.clone().bearer(&reader), 200, Door::Connect),
        ("Connect, without a token", connect.clone(), 401, Door::Connect),
        ("Connect, another verb", connect.clone().verb("GET").bearer(&reader), 405, Door::Connect),
        ("the path of an RPC, a form", typed("application/x-www-form-urlencoded"), 415, Door::Connect),
        ("the path of an RPC, another host", connect.clone().with("host", "attacker.example"), 403, Door::Connect),
        ("gRPC's type over HTTP/1.1", typed("application/grpc"), 415, Door::Grpc),
        ("our route", rest.clone().bearer(&reader), 200, Door::Rest),
        ("our route, without a token", rest.clone(), 401, Door::Rest),
        ("our route, a form", rest.without("content-type").bearer(&reader), 415, Door::Rest),
        ("an unknown path", Call::new("GET", "/v1/nothing").bearer(&reader), 404, Door::Rest),
        ("OpenFGA's API", stores.clone().bearer(&operator), 200, Door::OpenFgaHttp),
        ("OpenFGA's API, without a token", stores.clone(), 401, Door::OpenFgaHttp),
        ("OpenFGA's API, an unknown path", stores.path("/stores/a/b/c").bearer(&operator), 404, Door::OpenFgaHttp),
    ];
    let mut expected: Vec<(String, Door)> = Vec::new();
    for (name, call, status, door) in rows {
        for (call, name) in [(call.clone(), name.to_owned()), (forged(&call, door), format!("{name}, forged"))] {
            let reply = world.send(&call).await;
            assert_eq!(reply.status, status, "{name}: {}", reply.text());
            expected.push((name, door));
        }
    }

    let client = Client::with_token(&format!("http://{}", world.address), &Secret::new(&reader)).unwrap();
    for names in [&[][..], &FORGED] {
        let message = RecheckRequest {
            collection: COLLECTION.to_owned(),
            chunk_ids: vec!["a".to_owned()],
            ..RecheckRequest::default()
        };
        let mut request = Request::new(message);
        for name in names {
            let value = MetadataValue::from_static(other_than(Door::Grpc).name());
            request.metadata_mut().insert(MetadataKey::from_static(name), value);
        }
        client.retrieval().recheck(request).await.unwrap();
        expected.push((format!("gRPC, headers {names:?}"), Door::Grpc));
    }

    let counted = world.counted().await;
    let records = world.stop().await;
    assert_eq!(records.len(), expected.len(), "one record for each call");
    for (record, (name, door)) in records.iter().zip(&expected) {
        assert_eq!(record.door, Some(*door), "{name}: {record:?}");
    }
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, door) in &expected {
        *calls.entry(door.name()).or_default() += 1;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for counted in &counted {
        *counts.entry(counted.door.as_str()).or_default() += counted.count;
    }
    assert_eq!(counts, calls, "the metrics");
}
