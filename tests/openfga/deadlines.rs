//! A client that has given up leaves no work behind: its call of `OpenFGA`'s API ends at its deadline, however much
//! there is to examine.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::join_all;
use openfga_client::client::{self as api, OpenFgaServiceClient};
use ragward::app::App;
use ragward::config::{Config, Overrides};
use ragward::language::{RelationshipTuple, dsl};
use ragward::tuple_store::{OnConflict, RelationshipStores};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user, group#member]
type doc
  relations
    define blocked: [user, group#member]
    define viewer: [user, group#member]
    define can_read: viewer but not blocked
";
/// The number of groups that see one document, and of groups and documents that one user has.
const FAN_OUT: usize = 100_000;
/// The number of tuples in the circle.
const CIRCLE: usize = 300;
/// The number of calls of each kind that run at once.
const CALLS: usize = 40;
/// The time that each call may take.
const DEADLINE: Duration = Duration::from_millis(5);
/// Once everybody has given up, the remaining work must be less than the whole divided by this.
const SHARE: u32 = 4;
const GROWTH_MAX_MB: u64 = 300;
/// Tells the test that it has a process of its own. Other tests of this program take memory, too, some of them as much.
const ALONE: &str = "RAGWARD_TEST_ALONE";

fn tuples() -> Vec<RelationshipTuple> {
    let mut lines = Vec::new();
    for n in 0..FAN_OUT {
        lines.push((format!("group:wide{n}#member"), "viewer", "doc:wide".to_owned()));
        lines.push((format!("user:u{n}"), "member", format!("group:wide{n}")));
        lines.push(("user:many".to_owned(), "member", format!("group:of{n}")));
        lines.push((format!("group:of{n}#member"), "viewer", format!("doc:d{n}")));
    }
    for from in 0..CIRCLE {
        for to in 0..CIRCLE {
            if from != to {
                lines.push((format!("group:c{from}#member"), "member", format!("group:c{to}")));
            }
        }
    }
    lines.push(("group:c0#member".to_owned(), "viewer", "doc:circle".to_owned()));
    lines.iter().map(|(user, relation, object)| RelationshipTuple::parse(user, relation, object).unwrap()).collect()
}

/// Fills a data directory and returns the id of its store.
fn load(data: &Path) -> String {
    let store = RelationshipStores::open(data).unwrap().default_store_or_new().unwrap();
    store.write_model(dsl::load(MODEL).unwrap()).unwrap();
    store.write_all(tuples(), OnConflict::Refuse).unwrap();
    store.id().to_string()
}

async fn serve(data: &Path) -> Channel {
    let overrides = Overrides { data: Some(data.to_owned()), insecure_identity: true, ..Overrides::default() };
    let app = Arc::new(App::open(&Config::load(None, &overrides).unwrap()).await.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await.unwrap() });
    Endpoint::from_shared(address).unwrap().connect_lazy()
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn request<T>(message: T, deadline: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    request
}

/// Makes one call of each kind, in turn. Its answer does not matter here.
async fn call(channel: Channel, store: &str, kind: usize, deadline: Option<Duration>) -> Result<(), Status> {
    let mut client = OpenFgaServiceClient::new(channel);
    let store_id = store.to_owned();
    match kind {
        0 | 1 => {
            let (user, object) = if kind == 0 { ("user:many", "doc:wide") } else { ("user:nobody", "doc:circle") };
            let (user, relation, object) = (user.to_owned(), "can_read".to_owned(), object.to_owned());
            let tuple_key = Some(api::CheckRequestTupleKey { user, relation, object });
            let message = api::CheckRequest { store_id, tuple_key, ..api::CheckRequest::default() };
            client.check(request(message, deadline)).await.map(|_| ())
        }
        2 => {
            let (r#type, relation, user) = ("doc".to_owned(), "can_read".to_owned(), "user:u7".to_owned());
            let message = api::ListObjectsRequest { store_id, r#type, relation, user, ..Default::default() };
            client.list_objects(request(message, deadline)).await.map(|_| ())
        }
        3 => {
            let (r#type, relation, user) = ("doc".to_owned(), "can_read".to_owned(), "user:many".to_owned());
            let message = api::StreamedListObjectsRequest { store_id, r#type, relation, user, ..Default::default() };
            let found = client.streamed_list_objects(request(message, deadline)).await?;
            found.into_inner().try_for_each(|_| std::future::ready(Ok(()))).await
        }
        _ => {
            let object = Some(api::Object { r#type: "doc".to_owned(), id: "wide".to_owned() });
            let user_filters = vec![api::UserTypeFilter { r#type: "user".to_owned(), relation: String::new() }];
            let relation = "can_read".to_owned();
            let message = api::ListUsersRequest { store_id, object, relation, user_filters, ..Default::default() };
            client.list_users(request(message, deadline)).await.map(|_| ())
        }
    }
}

const KINDS: usize = 5;

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

#[test]
fn after_the_deadline_nothing_goes_on() {
    #[expect(clippy::disallowed_methods, reason = "how the process of the test is told apart from a test run")]
    let is_alone = std::env::var(ALONE).is_ok();
    if is_alone {
        measure();
        return;
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let name = "openfga::deadlines::after_the_deadline_nothing_goes_on";
    alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1");
    let Output { status, stdout, stderr } = alone.output().unwrap();
    let told = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    // A name that is no test's would end well, too.
    assert!(status.success() && told.contains("1 passed"), "{told}");
}

/// A runtime that is dropped waits for all work that it was given, so the wait measures the work that goes on.
fn measure() {
    let directory = tempfile::tempdir().unwrap();
    let store = load(directory.path());
    let runtime = runtime();
    let (channel, all_of_it) = runtime.block_on(async {
        let channel = serve(directory.path()).await;
        // The first call of each kind is not measured. One kind ends at the limit of steps, and that is work, too.
        for kind in 0..KINDS {
            drop(call(channel.clone(), &store, kind, None).await);
        }
        let started = Instant::now();
        for kind in 0..KINDS {
            drop(call(channel.clone(), &store, kind, None).await);
        }
        (channel, started.elapsed() * u32::try_from(CALLS).unwrap())
    });
    let before_mb = resident_mb();
    runtime.block_on(async {
        let calls = (0..CALLS * KINDS).map(|n| call(channel.clone(), &store, n % KINDS, Some(DEADLINE)));
        join_all(calls).await;
    });
    let growth_mb = resident_mb().saturating_sub(before_mb);
    let gave_up = Instant::now();
    drop((channel, runtime));
    let went_on = gave_up.elapsed();
    println!("{went_on:?} after the deadline of all, {all_of_it:?} without one, {growth_mb} MB more");
    assert!(went_on < all_of_it / SHARE, "{went_on:?} after the deadline, where all of the work takes {all_of_it:?}");
    assert!(growth_mb < GROWTH_MAX_MB, "{growth_mb} MB more");
}
