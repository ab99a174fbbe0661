//! `ragward serve` as a process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use ragward::client::Client;

/// The number of times that a server is started while its files are still in use.
const ATTEMPTS_MAX: usize = 50;

/// A `ragward serve` whose log is kept. It is killed when the value is dropped.
pub(crate) struct Served {
    pub(crate) process: Child,
    pub(crate) client: Client,
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
    reading: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    pub(crate) fn start(mut command: Command) -> Self {
        let after = |read: &str, mark: &str| Some(read.split_once(mark)?.1.lines().next()?.trim().to_owned());
        // A server that ran in this process releases its files only when its last call is gone.
        let mut attempts = 0;
        let (process, mut stderr, read, address) = 'started: loop {
            let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
            let mut stderr = BufReader::new(process.stderr.take().unwrap());
            let mut read = String::new();
            while stderr.read_line(&mut read).unwrap() > 0 {
                if let Some(address) = after(&read, "serving address=") {
                    break 'started (process, stderr, read, address);
                }
            }
            process.wait().unwrap();
            attempts += 1;
            assert!(
                attempts < ATTEMPTS_MAX && read.contains("is in use by another process"),
                "the server ended:\n{read}"
            );
        };
        let log = Arc::new(Mutex::new(read));
        let kept = Arc::clone(&log);
        let reading = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                kept.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let client = Client::at(&format!("http://{address}")).unwrap();
        Self { process, client, address, log, reading: Some(reading) }
    }

    /// Ends the process, and returns everything that it logged.
    pub(crate) async fn stop(mut self) -> String {
        let terminate = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(terminate.success());
        // Another thread waits for the process, so that the client can close its connection meanwhile.
        let stopped = tokio::task::spawn_blocking(move || {
            assert!(self.process.wait().unwrap().success());
            self.reading.take().unwrap().join().unwrap();
            std::mem::take(&mut *self.log.lock().unwrap())
        });
        stopped.await.unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
