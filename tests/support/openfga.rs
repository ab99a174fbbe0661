//! A real `OpenFGA` server for a test: in memory, on a free port of loopback, ended when the value is dropped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ragward::authz::openfga::{OpenFgaConfig, StoreSelector};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::held_port::HeldPort;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The line that the server logs once it listens.
const LISTENING: &str = "starting gRPC server on";
/// The flag that turns its HTTP server on, and the line that this logs once it listens.
pub(crate) const WITH_HTTP: &str = "--http-enabled=true";
const LISTENING_TO_HTTP: &str = "starting HTTP server on";

/// A running server. Dropping it kills the process.
pub(crate) struct OpenFga {
    port: HeldPort,
    _process: Child,
}

impl OpenFga {
    /// Starts a server. If there is none on this machine, this says so and returns `None`; with `CI` set, it panics.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Like [`Self::start`], with more flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Option<Self> {
        let Some(binary) = binary() else {
            assert!(!set("CI"), "CI must run the live tests: put `openfga` on the PATH or its path into OPENFGA_BIN");
            drop(writeln!(std::io::stderr(), "skipped: no `openfga` on the PATH and no OPENFGA_BIN"));
            return None;
        };
        Some(Self::start_program(&binary, flags).await)
    }

    /// Returns the configuration that reaches a store of this server.
    pub(crate) fn config(&self, store_name: &str) -> OpenFgaConfig {
        let store = StoreSelector::Name(store_name.to_owned());
        OpenFgaConfig::new(format!("http://{}", self.port.address), store)
    }

    async fn start_program(binary: &Path, flags: &[&str]) -> Self {
        let port = HeldPort::new();
        let mut process = Command::new(binary)
            .args(["run", "--datastore-engine=memory", "--http-enabled=false", "--playground-enabled=false"])
            .args([
                "--metrics-enabled=false",
                "--request-timeout=60s",
                "--log-format=json",
                &format!("--grpc-addr={}", port.address),
            ])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the server's process");
        let last_line = if flags.contains(&WITH_HTTP) { LISTENING_TO_HTTP } else { LISTENING };
        let mut log = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let listening = async {
            while let Ok(Some(line)) = log.next_line().await {
                if line.contains(last_line) {
                    return true;
                }
            }
            false
        };
        let started = timeout(START_TIMEOUT, listening).await.expect("a server that listens in time");
        assert!(started, "`{}` did not start", binary.display());
        // The log is read to its end, so that the server never waits for a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { port, _process: process }
    }
}

/// Returns the program of the server: what `OPENFGA_BIN` names, or `openfga` on the PATH.
pub(crate) fn binary() -> Option<PathBuf> {
    if let Some(named) = variable("OPENFGA_BIN") {
        return Some(PathBuf::from(named));
    }
    let path = variable("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("openfga")).find(|candidate| candidate.is_file())
}

fn set(name: &str) -> bool {
    variable(name).is_some()
}

pub(crate) fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test finds the server's binary as its caller says")]
    let value = std::env::var(name);
    value.ok().filter(|value| !value.is_empty())
}
