//! `ragward serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::app::{self, App};
use crate::config::{Config, Overrides};
use crate::relationship::store::RelationshipStores;
use crate::telemetry;

/// What `serve` takes from the command line; `config validate` takes the same.
#[derive(Clone, Debug, Args)]
pub(super) struct ServeArgs {
    /// The data directory of the embedded engines.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address to listen on; port 0 takes a free one, which the log names.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Believe the user that a request names, in place of asking for access tokens (`[identity]`). For trying out.
    #[arg(long)]
    insecure_identity: bool,
}

impl ServeArgs {
    /// The configuration that a server would be started with.
    pub(super) fn config(self, file: Option<&Path>) -> Result<Config, Failure> {
        let overrides = Overrides { data: self.data, listen: self.listen, insecure_identity: self.insecure_identity };
        let config = Config::load(file, &overrides)?;
        app::check(&config)?;
        Ok(config)
    }
}

pub(super) async fn run(args: ServeArgs, config_file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.config(config_file.as_deref())?;
    if let Some(address) = config.telemetry.metrics_address()? {
        telemetry::serve_metrics(address).map_err(|e| Failure::usage(e.to_string()))?;
        tracing::info!(%address, "serving metrics");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the address of the metrics is not loopback: whoever reaches it can read them");
        }
    }
    let app = App::open(&config).await?;
    match app.authorizer().model_id().await {
        Ok(model_id) => {
            tracing::info!(model_id, "authorization model");
            warn_of_a_missing_relation(&app, &config.retrieval.relation);
        }
        Err(error) => tracing::warn!(%error, "no decision can be made yet"),
    }
    let server = app.prepare().await?;
    let listen = config.server.listen;
    let listener = TcpListener::bind(listen).await;
    let listener = listener.map_err(|e| Failure::usage(format!("cannot listen on {listen}: {e}")))?;
    let address = listener.local_addr()?;
    if config.server.insecure_identity {
        tracing::warn!("insecure identity: every caller is believed to be the user that it names");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the address is not loopback: whoever reaches it can read as anyone");
        }
    }
    server.serve(listener, stop_signal()?).await?;
    tracing::info!("stopped");
    Ok(())
}

/// With a relation that no type has, everything is denied: right, and not what anybody wants.
fn warn_of_a_missing_relation(app: &App, relation: &str) {
    let store = app.relationships().and_then(RelationshipStores::default_store);
    let snapshot = store.and_then(|store| store.snapshot().ok().flatten());
    let Some(snapshot) = snapshot else { return };
    let types = &snapshot.model().source().types;
    if !types.iter().any(|definition| definition.relation(relation).is_some()) {
        tracing::warn!(
            relation,
            "no type of the model has the relation `retrieval.relation`: nobody will see anything"
        );
    }
}

/// Ready once the process is asked to stop.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping; running requests may end");
    })
}
