//! Runs the blocks of a page as a reader pastes them, against the program that was just built.
//!
//! Each page has a fresh directory with copies of `clients`, `proto` and `schema` as a clone has them, and ports of its own: the
//! ports that the pages name may be in use on this machine.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;

use crate::docs::page::{Block, Kind, Page, Shell, is_shown};
use crate::support::held_port::HeldPort;

/// The most seconds that one block may take. Installing Python packages takes the longest.
const BLOCK_SECONDS_MAX: &str = "300";
/// The number of times that a server that listens is asked whether it is ready. Each question starts a process, which
/// is pause enough.
const READY_ATTEMPTS: usize = 500;
/// Copies the folders of a clone from one place to another, without what npm, pip and compilers put there.
const COPY: &str = r#"tar -C "$0" --exclude=node_modules --exclude=dist --exclude=build --exclude=.venv -c clients proto schema LICENSE |
    tar -C "$1" -x"#;
/// The addresses that the pages name.
const RAGWARD: &str = "127.0.0.1:8980";
pub(crate) const OPENFGA: &str = "127.0.0.1:8081";
pub(crate) const QDRANT: &str = "127.0.0.1:6334";
pub(crate) const MODELS: &str = "127.0.0.1:8090";
const METRICS: &str = "127.0.0.1:9464";
/// The commands that start a server, each with the text that it logs once it listens.
const SERVERS: [(&str, &str); 2] = [("ragward serve", "serving address="), ("openfga run", "starting gRPC server on")];

/// The environment in which pages are run.
pub(crate) struct Surroundings {
    /// Folders ahead of all others on the PATH, `:` between them.
    pub(crate) path: String,
    /// The tools that are installed; a block that needs another one is left out.
    pub(crate) tools: Vec<String>,
    /// Addresses that pages name, with those that stand for them.
    pub(crate) addresses: Vec<(&'static str, String)>,
}

/// A server that a block has started. It ends with the page.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs all blocks of a page. The error says which one failed, where, and what it printed.
pub(crate) fn run(page: &Page, root: &Path, surroundings: &Surroundings) -> Result<(), String> {
    let run = Run::new(root, surroundings).map_err(|e| format!("{}: {e}", page.path))?;
    let mut servers = Vec::new();
    for block in page.blocks() {
        let outcome = match &block.kind {
            Kind::Cargo | Kind::Rust | Kind::Other => Ok(()),
            Kind::File(name) => run.write(name, &block.text),
            Kind::Config => run.check_configuration(&block.text),
            Kind::Shell(shell) if shell.tools.iter().any(|tool| !surroundings.tools.contains(tool)) => Ok(()),
            Kind::Shell(shell) => run.shell(&block, shell, &mut servers),
        };
        outcome.map_err(|fault| format!("{}:{}: {fault}\n--- the block\n{}", page.path, block.line, block.text))?;
    }
    Ok(())
}

struct Run<'a> {
    directory: TempDir,
    surroundings: &'a Surroundings,
    /// The addresses that pages name, each with the one that replaces it in this run.
    addresses: Vec<(&'static str, String)>,
    _ports: Vec<HeldPort>,
}

impl<'a> Run<'a> {
    fn new(root: &Path, surroundings: &'a Surroundings) -> std::io::Result<Self> {
        let directory = TempDir::new()?;
        Command::new("bash").args(["-c", COPY]).args([root, directory.path()]).status()?;
        let (mut addresses, mut ports) = (surroundings.addresses.clone(), Vec::new());
        for address in [RAGWARD, OPENFGA, QDRANT, MODELS, METRICS] {
            if !addresses.iter().any(|(named, _)| *named == address) {
                let port = HeldPort::new();
                addresses.push((address, port.address.to_string()));
                ports.push(port);
            }
        }
        Ok(Self { directory, surroundings, addresses, _ports: ports })
    }

    /// Returns the text with the addresses of this run.
    fn here(&self, text: &str) -> String {
        self.addresses.iter().fold(text.to_owned(), |text, (named, used)| text.replace(named, used))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.directory.path().join(name);
        // The block that makes the folder of a file is left out where its tool is missing.
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        folder.and_then(|()| std::fs::write(path, self.here(text) + "\n")).map_err(|e| format!("`{name}`: {e}"))
    }

    fn check_configuration(&self, text: &str) -> Result<(), String> {
        self.write(".part.toml", text)?;
        let part = Block { line: 0, kind: Kind::Other, text: "ragward config print --config .part.toml".to_owned() };
        self.foreground(&part.text, &Shell::default())
    }

    fn shell(&self, block: &Block, shell: &Shell, servers: &mut Vec<Server>) -> Result<(), String> {
        let last = block.text.lines().last().unwrap_or_default();
        let Some((_, listening)) = SERVERS.iter().find(|(command, _)| last.starts_with(command)) else {
            return self.foreground(&block.text, shell);
        };
        let before = block.text.strip_suffix(last).unwrap_or_default();
        if !before.is_empty() {
            self.foreground(before, shell)?;
        }
        servers.push(self.background(last, listening)?);
        if last.starts_with("ragward") { self.wait_until_ready() } else { Ok(()) }
    }

    fn foreground(&self, script: &str, shell: &Shell) -> Result<(), String> {
        let script = self.here(script);
        let output = self.command(&format!("exec 2>&1\n{script}")).output().map_err(|e| e.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if output.status.code() != Some(shell.exit_code) {
            return Err(format!(
                "it ended with {} in place of {}\n--- it printed\n{printed}",
                output.status, shell.exit_code
            ));
        }
        match &shell.output {
            Some(shown) if !is_shown(&printed, &self.here(shown)) => {
                Err(format!("it printed\n{printed}\n--- in place of\n{shown}"))
            }
            _ => Ok(()),
        }
    }

    /// Starts a server and waits until it says that it listens.
    fn background(&self, command: &str, listening: &str) -> Result<Server, String> {
        let script = self.here(command);
        let mut process = self.bash(Command::new("bash"), &format!("exec 2>&1\nexec {script}"));
        let mut process = process.spawn().map(Server).map_err(|e| e.to_string())?;
        let log = process.0.stdout.take().ok_or("it has no output")?;
        let (told, listens) = mpsc::channel();
        let listening = listening.to_owned();
        // The log is read to its end, so that the server never waits for its reader.
        std::thread::spawn(move || {
            let mut log = BufReader::new(log);
            let mut read = String::new();
            while log.read_line(&mut read).is_ok_and(|bytes| bytes > 0) {
                if read.contains(&listening) {
                    // The test that waited may have failed meanwhile.
                    drop(told.send(Ok(())));
                    drop(log.read_to_end(&mut Vec::new()));
                    return;
                }
            }
            drop(told.send(Err(read)));
        });
        let ended = |log: String| format!("the server ended; it printed\n{log}");
        listens.recv().map_err(|e| e.to_string())?.map_err(ended)?;
        Ok(process)
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let mut told = String::new();
        for _ in 0..READY_ATTEMPTS {
            let script = self.here(&format!("ragward healthcheck --server http://{RAGWARD} 2>&1"));
            let output = self.command(&script).output().map_err(|e| e.to_string())?;
            if output.status.success() {
                return Ok(());
            }
            told = String::from_utf8_lossy(&output.stdout).into_owned();
        }
        Err(format!("the server does not get ready: {told}"))
    }

    /// Returns a command that ends by itself, or is ended when its time is over.
    fn command(&self, script: &str) -> Command {
        let mut bounded = Command::new("timeout");
        bounded.args([BLOCK_SECONDS_MAX, "bash"]);
        self.bash(bounded, script)
    }

    /// Returns bash as a reader's terminal runs it, without the settings of this machine.
    fn bash(&self, mut command: Command, script: &str) -> Command {
        let path = &self.surroundings.path;
        command
            .args(["-euo", "pipefail", "-c"])
            .arg(format!("export PATH=\"{path}:$PATH\"\n{script}"))
            .current_dir(self.directory.path())
            .env("RAGWARD__SERVER__LISTEN", self.here(RAGWARD))
            .env_remove("RAGWARD_CONFIG")
            .env_remove("RAGWARD_TOKEN")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }
}

/// Returns a folder that has `ragward`, and `openfga` where its program is known.
pub(crate) fn programs(openfga: Option<&Path>) -> std::io::Result<TempDir> {
    let folder = TempDir::new()?;
    let ragward = PathBuf::from(env!("CARGO_BIN_EXE_ragward"));
    std::os::unix::fs::symlink(ragward, folder.path().join("ragward"))?;
    if let Some(openfga) = openfga {
        std::os::unix::fs::symlink(openfga, folder.path().join("openfga"))?;
    }
    Ok(folder)
}
