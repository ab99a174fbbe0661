//! A tuple that is deleted with `OpenFGA`'s own command line ends the sight of a chunk over HTTP.

use serde_json::{Value, json};

use crate::doors::world::{COLLECTION, World};
use crate::support::fga::Fga;
use crate::support::http::Call;

/// Returns the ids of the chunks that Anne sees, by a retrieval and by a re-check of the chunks that she knows.
async fn seen(world: &World, token: &str) -> (Vec<String>, Vec<String>) {
    let retrieve = json!({ "text": "leave", "topK": 10 });
    let known = json!({ "chunkIds": ["document:welcome#0", "document:welcome#1", "document:salaries#0"] });
    let [retrieved, rechecked] = [("retrieve", retrieve), ("recheck", known)]
        .map(|(name, body)| Call::json(&format!("/v1/collections/{COLLECTION}/{name}"), &body).bearer(token));
    let (retrieved, rechecked) = (world.send(&retrieved).await, world.send(&rechecked).await);
    assert_eq!((retrieved.status, rechecked.status), (200, 200), "{} {}", retrieved.text(), rechecked.text());
    let id = |value: &Value| value.as_str().expect("an id").to_owned();
    let chunks = retrieved.json()["chunks"].as_array().cloned().unwrap_or_default();
    let mut retrieved: Vec<String> = chunks.iter().map(|chunk| id(&chunk["id"])).collect();
    retrieved.sort_unstable();
    let rechecked = rechecked.json()["chunkIds"].as_array().cloned().unwrap_or_default();
    (retrieved, rechecked.iter().map(id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tuple_ends_the_sight_of_a_chunk() {
    let Some(fga) = Fga::find() else { return };
    let world = World::start().await;
    let (reader, operator) = (world.token("anne", "ragward:retrieve"), world.token("operator", "ragward:administer"));
    let stores = world.send(&Call::new("GET", "/stores").bearer(&operator)).await.json();
    let store = stores["stores"][0]["id"].as_str().expect("a store").to_owned();
    let home = tempfile::tempdir().unwrap();
    let tuple = async |verb: &str| {
        let mut command = fga.command(home.path());
        command.args(["--api-url", &format!("http://{}", world.address), "--api-token", &operator]);
        command.args(["tuple", verb, "--store-id", &store, "user:anne", "reader", "document:welcome"]);
        let ran = tokio::process::Command::from(command).output().await.expect("fga runs");
        assert!(ran.status.success(), "{verb}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    let both = || ["document:welcome#0", "document:welcome#1"].map(str::to_owned).to_vec();

    assert_eq!(seen(&world, &reader).await, (both(), both()));
    tuple("delete").await;
    assert_eq!(seen(&world, &reader).await, (Vec::new(), Vec::new()), "after the tuple was deleted");
    tuple("write").await;
    assert_eq!(seen(&world, &reader).await, (both(), both()), "after the tuple was written again");
}
