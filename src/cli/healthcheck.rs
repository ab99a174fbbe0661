//! `ragward healthcheck`: asks a server whether it is ready.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{Failure, Output};
use crate::client::{Client, Health, Probe};
use crate::config::{Config, Overrides};

const NOT_READY: &str = "the server cannot answer a retrieval now; its log says why, unless it is stopping";

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// The server's address. The default is the address that the configuration listens on.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// Check only that the server is alive, not that it could answer a retrieval.
    #[arg(long)]
    live: bool,
}

#[derive(Serialize)]
struct HealthReport {
    serving: bool,
    consistency_token: String,
}

pub(super) async fn run(args: &HealthcheckArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let address = match &args.server {
        Some(address) => address.clone(),
        None => format!("http://{}", Config::load(config, &Overrides::default())?.server.listen),
    };
    let probe = if args.live { Probe::Liveness } else { Probe::Readiness };
    let client = Client::at(&address).map_err(|e| Failure::usage(e.to_string()))?;
    let health = client.health(probe).await.map_err(|e| Failure::from(e).context(&address))?;
    let Health { serving, consistency_token } = health;
    let told = if serving { "serving" } else { "not serving" };
    let people = format!("{told}\nconsistency token: {consistency_token}");
    output.result(&HealthReport { serving, consistency_token }, || people)?;
    if serving { Ok(()) } else { Err(Failure::unreachable(NOT_READY)) }
}
