//! `ragward serve`: runs the server until the process is asked to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::app::{self, App};
use crate::authz::{Authorizer, AuthzError};
use crate::config::{Config, Overrides};
use crate::language::Relation;
use crate::server::Tls;
use crate::settings::socket_address;
use crate::telemetry;

/// The pause between two attempts to find a model while there is none. A model is noticed soon after it was loaded, and
/// the attempts are no burden to a server without a model.
const MODEL_INTERVAL: Duration = Duration::from_secs(5);

/// The flags of `serve`, which `config validate` shares.
#[derive(Clone, Debug, Args)]
pub(super) struct ServeArgs {
    /// The data directory of the embedded engines.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address to listen on. Port 0 takes a free port, which the log names.
    #[arg(long, value_name = "ADDRESS", value_parser = socket_address)]
    listen: Option<SocketAddr>,
    /// Believe the user that a request names, without access tokens (`[identity]`). Use this only to try Ragward out.
    #[arg(long)]
    insecure_identity: bool,
}

impl ServeArgs {
    /// Returns the configuration that a server would start with.
    pub(super) fn config(self, file: Option<&Path>) -> Result<Config, Failure> {
        let overrides = Overrides { data: self.data, listen: self.listen, insecure_identity: self.insecure_identity };
        let config = Config::load(file, &overrides)?;
        app::check(&config)?;
        Ok(config)
    }
}

pub(super) async fn run(args: ServeArgs, config_file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.config(config_file.as_deref())?;
    if let Some(address) = config.telemetry.metrics_listen {
        telemetry::serve_metrics(address).map_err(|e| Failure::usage(e.to_string()))?;
        tracing::info!(%address, "serving metrics");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the address of the metrics is not loopback: whoever reaches it can read them");
        }
    }
    let app = App::open(&config).await?;
    let relation = &config.retrieval.relation;
    let told = tell_model(app.authorizer(), relation).await;
    if let Err(error) = &told {
        tracing::warn!(%error, "no decision can be made yet");
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
    let looking = look_on_hangup(server.tls().cloned())?;
    let telling = async {
        if told.is_err() {
            tell_model_once_known(app.authorizer(), relation).await;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        ended = server.serve(listener, stop_signal()?) => ended?,
        never = telling => match never {},
        never = looking => match never {},
    }
    tracing::info!("stopped");
    Ok(())
}

/// Logs which model decides, and warns if it lacks the relation that retrieval asks for. Without that relation,
/// everything is denied, which is safe but not what anybody wants.
async fn tell_model(authorizer: &dyn Authorizer, relation: &Relation) -> Result<Option<String>, AuthzError> {
    let model_id = authorizer.readiness().await?;
    let lack = authorizer.lack(None, Some(relation)).await?;
    tracing::info!(%model_id, "authorization model");
    if let Some(lack) = &lack {
        tracing::warn!("`retrieval.relation`: {lack}: nobody will see anything");
    }
    Ok(lack)
}

/// Calls [`tell_model`] until a model is known. The server that holds the model may start later, or the model may be
/// loaded later.
async fn tell_model_once_known(authorizer: &dyn Authorizer, relation: &Relation) -> Option<String> {
    loop {
        tokio::time::sleep(MODEL_INTERVAL).await;
        if let Ok(lack) = tell_model(authorizer, relation).await {
            return lack;
        }
    }
}

/// Returns a future that looks at the files of the port's TLS whenever the process gets SIGHUP. Without TLS, the signal keeps its
/// meaning, and ends the process.
fn look_on_hangup(tls: Option<Tls>) -> Result<impl Future<Output = Infallible>, Failure> {
    let mut hangup = if tls.is_some() { Some(signal(SignalKind::hangup())?) } else { None };
    Ok(async move {
        if let (Some(tls), Some(hangup)) = (&tls, &mut hangup) {
            while hangup.recv().await.is_some() {
                tls.look_again().await;
            }
        }
        std::future::pending().await
    })
}

/// Returns a future that is ready once the process is asked to stop.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping; running requests may finish");
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::authz::{CheckBatch, DecidingModel, Decisions, SubtractedBy};
    use crate::language::dsl;

    /// An authorizer that knows its model after this many questions.
    struct Late(AtomicUsize);

    #[async_trait]
    impl Authorizer for Late {
        async fn check(&self, _batch: &CheckBatch) -> Result<Decisions, AuthzError> {
            Err(AuthzError::NoModel)
        }

        async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
            let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            left.map_or_else(|_none_left| Ok("m".into()), |_left| Err(AuthzError::NoModel))
        }

        fn model(&self) -> Option<&dyn DecidingModel> {
            Some(self)
        }
    }

    #[async_trait]
    impl DecidingModel for Late {
        async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
            Err(AuthzError::NoModel)
        }

        async fn lack(
            &self,
            type_name: Option<&str>,
            relation: Option<&Relation>,
        ) -> Result<Option<String>, AuthzError> {
            let text = "model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define can_read: [user]\n";
            Ok(dsl::parse(text).expect("a model").model.lack(type_name, relation))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_relation_is_told_once_the_model_is_known() {
        for (relation, looks, expected) in [
            ("can_read", 0, None),
            ("can_read", 3, None),
            ("viewer", 0, Some("no type of the authorization model has the relation `viewer`")),
            ("viewer", 3, Some("no type of the authorization model has the relation `viewer`")),
        ] {
            let authorizer = Late(AtomicUsize::new(looks));
            let relation = Relation::parse(relation).expect("a relation");
            let lack = tell_model_once_known(&authorizer, &relation).await;
            assert_eq!(lack.as_deref(), expected, "{relation:?} after {looks} looks");
        }
    }
}
