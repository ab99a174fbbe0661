//! `ragward config`: prints, validates or describes the configuration.

use std::path::Path;

use clap::Subcommand;

use super::output::print;
use super::serve::ServeArgs;
use super::{Failure, Output};
use crate::config::{Config, Overrides};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the configuration in force: defaults, file and environment together. Secrets are hidden.
    Print,
    /// Check that `ragward serve` would start with this configuration and the same flags. It contacts no server.
    Validate(ServeArgs),
    /// Print the JSON Schema of the file.
    Schema,
}

pub(super) fn run(command: ConfigCommand, file: Option<&Path>, output: &Output) -> Result<(), Failure> {
    match command {
        ConfigCommand::Print => {
            let config = Config::load(file, &Overrides::default())?;
            let printed = toml::to_string(&config).map_err(|e| Failure::failed(e.to_string()))?;
            output.result(&config, || printed)
        }
        ConfigCommand::Validate(args) => {
            let config = args.config(file)?;
            output.result(&config, || "the configuration is valid".to_owned())
        }
        ConfigCommand::Schema => {
            let schema = serde_json::to_string_pretty(&Config::schema()).map_err(|e| Failure::failed(e.to_string()))?;
            print(&schema)
        }
    }
}
