//! `ragward healthcheck`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{Failure, Output};
use crate::client::Client;
use crate::config::{Config, Overrides};

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// The server; where it is configured to listen when not given.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    serving: bool,
}

pub(super) async fn run(args: &HealthcheckArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let address = match &args.server {
        Some(address) => address.clone(),
        None => format!("http://{}", Config::load(config, &Overrides::default())?.server.listen),
    };
    let client = Client::at(&address).map_err(|e| Failure::usage(e.to_string()))?;
    let serving = client.is_serving().await.map_err(|e| Failure::from(e).context(&address))?;
    output.result(&Shown { serving }, || if serving { "serving" } else { "not serving" }.to_owned())?;
    if serving { Ok(()) } else { Err(Failure::unreachable("the server is stopping")) }
}
