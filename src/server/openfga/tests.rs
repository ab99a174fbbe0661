//! Writes whose callers are gone.

use std::sync::mpsc::channel;

use super::*;
use crate::server::audit::sample::{call, first_records, open_log, records};

#[test]
fn a_write_that_nobody_waits_for_is_recorded_as_it_ended() {
    // A single thread for blocking work, so that the test can keep it busy.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    for (is_taken, expected) in [(true, "OK"), (false, "INVALID_ARGUMENT")] {
        let directory = tempfile::tempdir().unwrap();
        let stores = RelationshipStores::open(directory.path()).unwrap();
        let api = OpenFgaApi::new(stores.clone(), Duration::from_secs(10));
        let audit = open_log(directory.path());
        let (running, record) = call(Some(audit.clone()), "/openfga.v1.OpenFGAService/CreateStore");
        runtime.block_on(async {
            let (let_on, held) = channel::<()>();
            let busy = tokio::task::spawn_blocking(move || held.recv());
            let work = move |stores: &RelationshipStores| {
                if !is_taken {
                    return Err(OpenFgaError::new(ErrorNumber::ValidationError, "no".to_owned()));
                }
                stores::create(stores, &api::CreateStoreRequest { name: "store".to_owned() })
            };
            let mut answering = Box::pin(api.change(&record, work));
            // The caller goes away while its write waits for the thread.
            for _ in 0..10 {
                assert!(futures::poll!(&mut answering).is_pending());
                tokio::task::yield_now().await;
            }
            drop(answering);
            drop((running, record));
            assert!(records(directory.path()).is_empty());
            let_on.send(()).unwrap();
            busy.await.unwrap().unwrap();
            let codes: Vec<String> =
                first_records(directory.path()).await.into_iter().map(|record| record.code).collect();
            assert_eq!(codes, [expected]);
            assert_eq!(stores.list(None, None, 10).unwrap().len(), usize::from(is_taken));
        });
    }
}
