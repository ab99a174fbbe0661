//! A server that is killed under a load of `Write` calls: every acknowledged call is there, and no call is there in
//! part.

use std::collections::BTreeMap;
use std::path::Path;

use openfga_client::client as api;
use ragward::language::RelationshipTuple;
use ragward::language::dsl;
use ragward::tuple_store::{ChangeFilter, Operation, RelationshipStore, RelationshipStores, TupleFilter};
use tokio::sync::mpsc;

use crate::end_to_end::process::Served;

const MODEL: &str = "model
  schema 1.1
type user
type doc
  relations
    define viewer: [user]
";
const WRITERS: usize = 4;
/// The number of tuples in one call. The next call of the same writer deletes as many.
const TUPLES: usize = 10;
const ROUNDS: usize = 6;

/// Returns the tuples of a writer's call.
fn tuples(round: usize, writer: usize, call: usize) -> impl Iterator<Item = (String, String)> {
    (0..TUPLES).map(move |n| (format!("user:{round}-{writer}"), format!("doc:{n}-of-call-{call}")))
}

fn request(store: &str, round: usize, writer: usize, call: usize) -> api::WriteRequest {
    let added = tuples(round, writer, call).map(|(user, object)| api::TupleKey {
        user,
        relation: "viewer".to_owned(),
        object,
        condition: None,
    });
    let put_in = api::WriteRequestWrites { tuple_keys: added.collect(), ..Default::default() };
    let before = call.checked_sub(1).map(|before| tuples(round, writer, before)).into_iter().flatten();
    let removed: Vec<api::TupleKeyWithoutCondition> = before
        .map(|(user, object)| api::TupleKeyWithoutCondition { user, relation: "viewer".to_owned(), object })
        .collect();
    let taken_out =
        (!removed.is_empty()).then(|| api::WriteRequestDeletes { tuple_keys: removed, ..Default::default() });
    api::WriteRequest { store_id: store.to_owned(), writes: Some(put_in), deletes: taken_out, ..Default::default() }
}

fn open(data: &Path) -> RelationshipStore {
    RelationshipStores::open(data).unwrap().default_store_or_new().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_is_whole_after_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path());
    store.write_model(dsl::load(MODEL).unwrap()).unwrap();
    let id = store.id().to_string();
    drop(store);
    // The number of acknowledged calls, by round and writer.
    let mut acknowledged: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut served = Served::start(data.path());
        let (send, mut acknowledgements) = mpsc::unbounded_channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (send, id, address) = (send.clone(), id.clone(), served.address.clone());
                tokio::spawn(async move {
                    let mut client = api::OpenFgaServiceClient::connect(address).await.unwrap();
                    for call in 0.. {
                        if client.write(request(&id, round, writer, call)).await.is_err() {
                            return;
                        }
                        send.send(writer).unwrap();
                    }
                })
            })
            .collect();
        drop(send);
        // When one call is acknowledged, other writers are in the middle of theirs. The server is killed after more
        // calls in each round.
        for _ in 0..=round * 7 {
            *acknowledged.entry((round, acknowledgements.recv().await.unwrap())).or_default() += 1;
        }
        served.kill();
        while let Some(writer) = acknowledgements.recv().await {
            *acknowledged.entry((round, writer)).or_default() += 1;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        check(&open(data.path()), &acknowledged, round);
    }
}

/// Checks that the store has exactly the tuples of each writer's last acknowledged call, or of the call that was under
/// way.
fn check(store: &RelationshipStore, acknowledged: &BTreeMap<(usize, usize), usize>, rounds: usize) {
    let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let stored = store.tuples(&TupleFilter::default(), 0, usize::MAX).unwrap();
    for stored in &stored {
        there.entry(stored.tuple.user.to_string()).or_default().push(stored.tuple.object.to_string());
    }
    for (round, writer) in (0..=rounds).flat_map(|round| (0..WRITERS).map(move |writer| (round, writer))) {
        let calls = acknowledged.get(&(round, writer)).copied().unwrap_or_default();
        let of_call = |call: usize| tuples(round, writer, call).map(|(_, object)| object).collect::<Vec<String>>();
        let last = calls.checked_sub(1).map_or_else(Vec::new, of_call);
        let found = there.remove(&format!("user:{round}-{writer}")).unwrap_or_default();
        assert!(found == last || found == of_call(calls), "round {round}, writer {writer}, {calls} calls: {found:?}");
    }
    assert!(there.is_empty(), "round {rounds}: {there:?}");

    // The log has no gap, and replaying it gives the stored tuples.
    let mut replayed: Vec<RelationshipTuple> = Vec::new();
    for (change, sequence) in store.changes(&ChangeFilter::default(), usize::MAX).unwrap().into_iter().zip(1..) {
        assert_eq!(change.sequence, sequence, "round {rounds}");
        match change.operation {
            Operation::Write => replayed.push(change.tuple),
            Operation::Delete => replayed.retain(|tuple| *tuple != change.tuple),
        }
    }
    let stored: Vec<RelationshipTuple> = stored.into_iter().map(|stored| stored.tuple).collect();
    assert_eq!(replayed, stored, "round {rounds}");
    assert_eq!(store.snapshot().unwrap().unwrap().tuple_count(), stored.len(), "round {rounds}");
}
