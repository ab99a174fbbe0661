//! A Ragward server for a test, on a free port of loopback, in this process.

use std::path::Path;
use std::sync::Arc;

use ragward::app::App;
use ragward::config::{Config, Overrides};
use tokio::net::TcpListener;

/// Starts a server over a data directory and returns its address. It runs until the runtime of the test ends.
pub(crate) async fn serve(data: &Path) -> String {
    let overrides = Overrides { data: Some(data.to_owned()), insecure_identity: true, ..Overrides::default() };
    let app = Arc::new(App::open(&Config::load(None, &overrides).expect("a configuration")).await.expect("opened"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await.expect("served") });
    address
}
