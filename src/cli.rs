//! The command line. A command that needs a service speaks gRPC: to a server (`--server`), or to the same services
//! inside this process, over a data directory (`--data`). A command that needs no service (models, single checks,
//! files) calls the lower modules directly.

mod approval;
mod attach;
mod audit;
mod check;
mod chunks;
mod config;
mod consistency;
mod contextual;
mod demo;
mod documents;
mod eval;
mod explain;
mod failure;
mod fetch;
mod filter;
mod healthcheck;
mod ingest;
mod login;
mod mcp;
mod model;
mod names;
mod output;
mod ranking;
mod recheck;
mod relationships;
mod replica;
mod request_context;
mod retrieve;
mod serve;
mod store;
mod test;
mod tune;
mod tuple;
mod xml;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, FilterFn, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::app::{App, InProcessServer};
use crate::authz::replica::ReplicaMode;
use crate::blocking_pool;
use crate::client::{Client, RemoteServer};
use crate::config::{AuthorizerKind, CalledServer, Config, Overrides, VectorStoreKind, access_token};
use crate::telemetry::{self, LogLimit, SpanExport};
use failure::Failure;
use output::{Format, Output};

/// Answer RAG queries with only the chunks that a user may see.
#[derive(Debug, Parser)]
#[command(name = "ragward", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// The configuration file, in TOML.
    #[arg(long, global = true, value_name = "FILE", env = "RAGWARD_CONFIG")]
    config: Option<PathBuf>,
    /// The form in which results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success; 1 a check was denied, a test or verification failed, a model file is wrong, or a file was \
                          skipped; 2 the command, its other input or the configuration is wrong; 3 a server is out of reach.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how two people get different answers to the same question. It needs no setup.
    Demo(demo::DemoArgs),
    /// Serve the API.
    Serve(serve::ServeArgs),
    /// Add documents to a collection.
    Ingest(ingest::IngestArgs),
    /// List or delete documents.
    #[command(subcommand)]
    Documents(documents::DocumentsCommand),
    /// List collections.
    Collections(documents::CollectionsArgs),
    /// Prepare a Qdrant collection that another program fills.
    Attach(attach::AttachArgs),
    /// Load, show, list, convert, compare or validate authorization models.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Write, delete or show relationship tuples.
    #[command(subcommand)]
    Tuple(tuple::TupleCommand),
    /// Move a whole store to a file, or from a file: its model, tuples and tests.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Find and rewrite stored names in the percent-encoding of an older version.
    #[command(subcommand)]
    Names(names::NamesCommand),
    /// Run the tests in OpenFGA store files (`.fga.yaml`), and tests of searches.
    Test(test::TestArgs),
    /// Search for chunks as a user.
    Retrieve(retrieve::RetrieveArgs),
    /// Measure what comes for questions whose answers are known, user by user.
    Eval(eval::EvalArgs),
    /// Check which chunks a user may still see.
    Recheck(recheck::RecheckArgs),
    /// Read chunks, or all chunks of documents, as a user.
    Fetch(fetch::FetchArgs),
    /// Check whether a user holds a relation on an object.
    Check(check::CheckArgs),
    /// Verify, show, export or sum up the audit log.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Explain why a user may or may not see a chunk, or holds a relation on an object.
    Explain(explain::ExplainArgs),
    /// Measure which settings answer checks fastest with an OpenFGA server. It only reads.
    Tune(tune::TuneArgs),
    /// Show whether the copy of an OpenFGA server's relationships is trusted, or trust it again.
    #[command(subcommand)]
    Replica(replica::ReplicaCommand),
    /// Print, validate or describe the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Let a desktop client for MCP search and read as you.
    Mcp(mcp::McpArgs),
    /// Log in at a server. Commands with `--server` then ask as you.
    Login(login::LoginArgs),
    /// End the login at a server.
    Logout(login::ServerArgs),
    /// Show who is logged in at a server.
    Whoami(login::ServerArgs),
    /// Check that a server is ready to answer.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell to complete for.
        shell: Shell,
    },
}

/// The flags that say where a command finds the services.
#[derive(Debug, Args)]
struct Connection {
    /// The address of a running server, such as `http://127.0.0.1:8980`. Without it and `--data`, the variable
    /// `RAGWARD_SERVER` may hold the address.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "data")]
    server: Option<String>,
    /// A PEM file with the only authorities whose certificates are accepted from a server with an `https://` address. Without
    /// it, the variable `RAGWARD_CA_FILE` may name the file.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    ca_file: Option<PathBuf>,
    /// A file with the access token for the server. Without it, the variable `RAGWARD_TOKEN` may hold the token. Without both,
    /// the token of `ragward login` is sent.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    token_file: Option<PathBuf>,
    /// The data directory, which this command opens itself. No server may be using it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Connection {
    /// Connects to the server, or opens the backends in this process if there is none.
    async fn open(self, config_file: Option<PathBuf>) -> Result<CalledServices, Failure> {
        self.connect(config_file, |_config| Ok(())).await
    }

    /// Like [`Connection::open`], for a command that only reads: the data directory must exist.
    async fn open_existing(self, config_file: Option<PathBuf>) -> Result<CalledServices, Failure> {
        self.connect(config_file, |config| data_is_there(config, Uses::RelationshipsAndChunks)).await
    }

    /// Returns the user to ask for, or an empty text if a server takes the user from the token.
    fn asker(&self, user: Option<String>) -> Result<String, Failure> {
        match user {
            Some(user) => Ok(user),
            None if self.remote_server()?.is_some() => Ok(String::new()),
            None => Err(Failure::usage(
                "name the user who asks with `--user`; only a server can take the user from a token",
            )),
        }
    }

    /// Returns the server to call; `None` if the backends are opened in this process. `--data` wins over variables.
    fn remote_server(&self) -> Result<Option<RemoteServer>, Failure> {
        let flags = CalledServer { address: self.server.clone(), ca_file: self.ca_file.clone() };
        let called = if self.data.is_some() { flags } else { flags.or_of_environment()? };
        match called {
            CalledServer { address: Some(address), ca_file } => {
                let token = access_token(self.token_file.as_deref())?;
                Ok(Some(RemoteServer { address, ca_file, token }))
            }
            CalledServer { address: None, .. } if self.token_file.is_some() => Err(Failure::usage(
                "`--token-file` is of use only with a server; name it with `--server` or `RAGWARD_SERVER`",
            )),
            CalledServer { address: None, .. } => Ok(None),
        }
    }

    /// Like [`Connection::remote_server`]. If neither a flag nor the environment gives a token, the server gets that of its login.
    async fn called_server(&self) -> Result<Option<RemoteServer>, Failure> {
        let Some(mut server) = self.remote_server()? else { return Ok(None) };
        if server.token.is_none() {
            server.token = login::stored_token(&server.address).await?;
        }
        Ok(Some(server))
    }

    /// Makes a client of the server to call; `None` if the backends are opened in this process.
    async fn named_server(&self) -> Result<Option<Client>, Failure> {
        self.called_server().await?.map(|server| client_of(&server)).transpose()
    }

    async fn connect(
        self,
        config_file: Option<PathBuf>,
        admit: impl FnOnce(&Config) -> Result<(), Failure>,
    ) -> Result<CalledServices, Failure> {
        if let Some(client) = self.named_server().await? {
            return Ok(CalledServices::OfServer(client));
        }
        let overrides = Overrides { data: self.data, ..Overrides::default() };
        let mut config = Config::load(config_file.as_deref(), &overrides)?;
        admit(&config)?;
        // The command would end before a replica has caught up.
        config.authorizer.replica.mode = ReplicaMode::Off;
        Ok(CalledServices::InProcess(App::open(&config).await?.in_process()?))
    }
}

fn client_of(server: &RemoteServer) -> Result<Client, Failure> {
    Client::of_server(server).map_err(|e| Failure::usage(format!("`--server` or `RAGWARD_SERVER`: {e}")))
}

/// The services that a command calls.
enum CalledServices {
    /// The services of a server.
    OfServer(Client),
    /// The services of this process.
    InProcess(InProcessServer),
}

impl CalledServices {
    /// Returns whether the services are those of a server, which goes on after this command.
    fn are_of_server(&self) -> bool {
        matches!(self, Self::OfServer(_))
    }

    fn client(&self) -> &Client {
        match self {
            Self::OfServer(client) => client,
            Self::InProcess(server) => server.client(),
        }
    }

    /// Waits until services of this process have ended.
    async fn close(self) {
        match self {
            Self::OfServer(_) => {}
            Self::InProcess(server) => server.close().await,
        }
    }
}

/// The part of the data directory that a command uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uses {
    /// The relationships. They are in the data directory unless an OpenFGA server decides.
    Relationships,
    /// The relationships and the chunks. The chunks are in the data directory unless a Qdrant server has them.
    RelationshipsAndChunks,
}

/// Fails if a data directory that is needed does not exist. A command that only reads must not create one: if a
/// directory is missing, its name is most likely misspelt.
fn data_is_there(config: &Config, uses: Uses) -> Result<(), Failure> {
    let embedded = config.authorizer.kind == AuthorizerKind::Embedded
        || uses == Uses::RelationshipsAndChunks && config.vector_store.kind == VectorStoreKind::Embedded;
    let directory = &config.data.directory;
    if !embedded || directory.is_dir() {
        return Ok(());
    }
    let shown = directory.display();
    Err(Failure::usage(format!(
        "there is no data directory at `{shown}`; `ragward model load` and `ragward ingest` create one; to use another, name it \
         with `--data`"
    )))
}

/// The time after which an idle thread ends. It is longer than the pauses between the requests of a busy server, and
/// short enough that a quiet server soon frees the memory that it needed while it was busy.
const IDLE_THREADS_KEPT: Duration = Duration::from_secs(5);

/// Returns whether an event may be logged, whatever level `RUST_LOG` asks for. Below info, the libraries for HTTP log the bytes on
/// the wire: texts, queries and keys. This program's own events hold none.
fn shows_no_texts(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next();
    *metadata.level() <= Level::INFO || library == Some("ragward")
}

/// Runs one command and returns its exit code.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let output = Output::new(cli.output);
    let filter = if matches!(cli.command, Command::Serve(_)) {
        "info"
    } else if matches!(cli.command, Command::Tune(_)) {
        // Some of the measured settings overload the server. The result says so, and warnings would only repeat that.
        "error"
    } else {
        "warn"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let log = tracing_subscriber::fmt::layer()
        .event_format(LogLimit::new(tracing_subscriber::fmt::format()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter.and(FilterFn::new(shows_no_texts).with_max_level_hint(LevelFilter::TRACE)));

    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .enable_all()
        .max_blocking_threads(blocking_pool::blocking_threads_max())
        .thread_keep_alive(IDLE_THREADS_KEPT);
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(e) => return Failure::failed(format!("cannot start the runtime: {e}")).tell(),
    };
    let spans = {
        let _entered = runtime.enter();
        match span_export(&cli) {
            Ok(spans) => spans,
            Err(failure) => return failure.tell(),
        }
    };
    tracing_subscriber::registry().with(log).with(spans.as_ref().map(SpanExport::layer)).init();
    telemetry::log_panics();

    match runtime.block_on(dispatch(cli, &output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// Opens the exporter of a server's spans. Its settings are read before everything else, so that all work is
/// traced; a mistake in the configuration is reported when it is read again.
fn span_export(cli: &Cli) -> Result<Option<SpanExport>, Failure> {
    let Command::Serve(_) = cli.command else { return Ok(None) };
    let config = Config::load(cli.config.as_deref(), &Overrides::default()).unwrap_or_default();
    SpanExport::open(&config.telemetry).map_err(|e| Failure::usage(e.to_string()))
}

async fn dispatch(cli: Cli, output: &Output) -> Result<(), Failure> {
    let config = cli.config;
    match cli.command {
        Command::Demo(args) => demo::run(&args, output).await,
        Command::Serve(args) => serve::run(args, config).await,
        Command::Ingest(args) => ingest::run(args, config, output).await,
        Command::Documents(command) => documents::run(command, config, output).await,
        Command::Collections(args) => documents::collections(args, config, output).await,
        Command::Attach(args) => attach::run(args, config, output).await,
        Command::Model(command) => model::run(command, config, output).await,
        Command::Tuple(command) => tuple::run(command, config.as_deref(), output).await,
        Command::Store(command) => store::run(command, config.as_deref(), output).await,
        Command::Names(command) => names::run(command, config.as_deref(), output).await,
        Command::Test(args) => test::run(&args, config.as_deref(), output).await,
        Command::Retrieve(args) => retrieve::run(args, config, output).await,
        Command::Eval(args) => eval::run(args, config, output).await,
        Command::Recheck(args) => recheck::run(args, config, output).await,
        Command::Fetch(args) => fetch::run(args, config, output).await,
        Command::Check(args) => check::run(args, config, output).await,
        Command::Audit(command) => audit::run(command, config.as_deref(), output),
        Command::Explain(args) => explain::run(args, config, output).await,
        Command::Tune(args) => tune::run(args, config, output).await,
        Command::Replica(command) => replica::run(&command, config.as_deref(), output),
        Command::Config(command) => config::run(command, config.as_deref(), output),
        Command::Mcp(args) => mcp::run(args, config).await,
        Command::Login(args) => login::log_in(args, output).await,
        Command::Logout(args) => login::log_out(args, output).await,
        Command::Whoami(args) => login::who_am_i(args, output),
        Command::Healthcheck(args) => healthcheck::run(&args, config.as_deref(), output).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ragward", &mut script);
            output::write(&String::from_utf8_lossy(&script))
        }
    }
}
