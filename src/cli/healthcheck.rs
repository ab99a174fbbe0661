//! `ragward healthcheck`: asks a server whether it is ready.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Failure, Output};
use crate::client::{Client, Health, Probe, RemoteServer};
use crate::config::{CalledServer, Config, Overrides};

const NOT_READY: &str = "the server cannot answer a retrieval now; its log says why, unless it is stopping";

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// The server's address. Without it, the variable `RAGWARD_SERVER` may hold the address; otherwise it is the address that
    /// the configuration listens on.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// A PEM file with the only authorities whose certificates are accepted from a server with an `https://` address. Without
    /// it, the variable `RAGWARD_CA_FILE` may name the file.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
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
    let flags = CalledServer { address: args.server.clone(), ca_file: args.ca_file.clone() };
    let CalledServer { address, ca_file } = flags.or_of_environment()?;
    let address = match address {
        Some(address) => address,
        None => format!("http://{}", Config::load(config, &Overrides::default())?.server.listen),
    };
    let probe = if args.live { Probe::Liveness } else { Probe::Readiness };
    let server = RemoteServer { address: address.clone(), ca_file, token: None };
    let client = Client::of_server(&server).map_err(|e| Failure::usage(e.to_string()))?;
    let health = client.health(probe).await.map_err(|e| Failure::from(e).context(&address))?;
    let Health { serving, consistency_token } = health;
    let told = if serving { "serving" } else { "not serving" };
    let people = format!("{told}\nconsistency token: {consistency_token}");
    output.result(&HealthReport { serving, consistency_token }, || people)?;
    if serving { Ok(()) } else { Err(Failure::unreachable(NOT_READY)) }
}
