//! A real Qdrant for a test: a server that runs already, or one that is started on free ports of loopback and ended
//! when the value is dropped.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::support::held_port::HeldPort;

const START_TIMEOUT: Duration = Duration::from_mins(1);
/// The line that the server logs just before it opens its gRPC port.
const LISTENING: &str = "gRPC listening on";
/// The pause between attempts to reach a port that is not open yet.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// A server that can be called. Dropping it kills the process if the test started it.
pub(crate) struct Qdrant {
    pub(crate) url: String,
    _process: Option<(Child, TempDir)>,
}

impl Qdrant {
    /// Finds or starts a server. If there is none on this machine, this says so and returns `None`.
    pub(crate) async fn find() -> Option<Self> {
        if let Some(url) = variable("QDRANT_URL") {
            return Some(Self { url, _process: None });
        }
        Self::start_own().await
    }

    /// Starts a server for one test alone. If its program is not on this machine, this says so and returns `None`.
    pub(crate) async fn start_own() -> Option<Self> {
        let path = variable("PATH").unwrap_or_default();
        let on_path =
            || std::env::split_paths(&path).map(|directory| directory.join("qdrant")).find(|file| file.is_file());
        let Some(binary) = variable("QDRANT_BIN").map(PathBuf::from).or_else(on_path) else {
            drop(writeln!(std::io::stderr(), "skipped with a real Qdrant: no `qdrant` on the PATH and no QDRANT_BIN"));
            return None;
        };
        Some(Self::start(binary).await)
    }

    async fn start(binary: PathBuf) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let (http, grpc) = (HeldPort::new(), HeldPort::new());
        let mut process = Command::new(binary)
            .current_dir(directory.path())
            .env("QDRANT__SERVICE__HOST", "127.0.0.1")
            .env("QDRANT__SERVICE__HTTP_PORT", http.address.port().to_string())
            .env("QDRANT__SERVICE__GRPC_PORT", grpc.address.port().to_string())
            .env("QDRANT__TELEMETRY_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the server's process");
        let mut log = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let listening = async {
            while let Some(line) = log.next_line().await.expect("the server's log") {
                if line.contains(LISTENING) {
                    let mut tries = interval(TRY_EVERY);
                    while TcpStream::connect(grpc.address).await.is_err() {
                        tries.tick().await;
                    }
                    return;
                }
            }
            panic!("Qdrant ended while it started");
        };
        timeout(START_TIMEOUT, listening).await.expect("a server that listens in time");
        // The log is read to its end, so that the server never waits for a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { url: format!("http://{}", grpc.address), _process: Some((process, directory)) }
    }
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test finds the server as its caller says")]
    let value = std::env::var(name);
    value.ok().filter(|value| !value.is_empty())
}
