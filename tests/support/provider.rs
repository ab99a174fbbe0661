//! A provider that others wrote: npm's `oidc-provider`, in a process of its own.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The provider and its clients. The process ends with the value.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Provider {
    /// Starts the provider. If it cannot run here, this says so and returns `None`; with `CI` set, it panics.
    pub(crate) async fn start() -> Option<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/identity/provider");
        let node = Command::new("node").arg("--version").stdout(Stdio::null()).status().await;
        let missing = match (node, directory.join("node_modules").is_dir()) {
            (Ok(version), true) if version.success() => None,
            (Ok(_), _) => Some("its packages: run `npm ci` in tests/identity/provider"),
            (Err(_), _) => Some("`node` on the PATH"),
        };
        if let Some(missing) = missing {
            let in_ci = std::env::var_os("CI").is_some();
            assert!(!in_ci, "CI must run the test with a provider; it lacks {missing}");
            drop(writeln!(std::io::stderr(), "skipped: the test with a provider lacks {missing}"));
            return None;
        }
        let mut process = Command::new("node")
            .arg("main.mjs")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let issuer = output.next_line().await.unwrap().expect("the provider ended before it began");
        Some(Self { issuer, input: process.stdin.take().unwrap(), output, _process: process })
    }

    /// Sends a request of a flow, and returns what came of it: a token, or the status of the last page.
    pub(crate) async fn token(&mut self, request: Value) -> String {
        self.input.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let line = self.output.next_line().await.unwrap().expect("the provider ended");
        let answer: Value = serde_json::from_str(&line).unwrap();
        answer["token"].as_str().unwrap_or_else(|| panic!("{request}: {answer}")).to_owned()
    }
}
