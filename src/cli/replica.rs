//! `ragward replica`: the copy of an `OpenFGA` server's relationships, and whether it is trusted.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, Output};
use crate::app::replica_directory;
use crate::authz::replica::ReplicaMode;
use crate::authz::verification::StandingDirectory;
use crate::authz::verification::standing::{Standing, Trust};
use crate::config::{AuthorizerKind, Config, Overrides};

#[derive(Debug, Subcommand)]
pub(super) enum ReplicaCommand {
    /// Show what the replica is used for, and whether it was found wrong. The server's log says whether it is up to
    /// date.
    Status(ReplicaArgs),
    /// Use the replica again after it was found wrong. A new copy is made, and used once it agrees with the server.
    Trust(ReplicaArgs),
}

#[derive(Debug, Args)]
pub(super) struct ReplicaArgs {
    /// The data directory. A server may be using it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Serialize)]
struct ReplicaReport {
    /// The mode that the configuration sets. `off` if no `OpenFGA` server decides.
    mode: ReplicaMode,
    #[serde(flatten)]
    standing: Standing,
}

pub(super) fn run(command: &ReplicaCommand, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let (ReplicaCommand::Status(args) | ReplicaCommand::Trust(args)) = command;
    let overrides = Overrides { data: args.data.clone(), ..Overrides::default() };
    let config = Config::load(config, &overrides)?;
    let directory = replica_directory(&config);
    if !directory.is_dir() {
        return Err(Failure::usage(format!("there is no replica at `{}`", directory.display())));
    }
    let kept = StandingDirectory::new(&directory);
    if let ReplicaCommand::Trust(_) = command {
        kept.trust_again().map_err(|e| Failure::failed(e.to_string()))?;
    }
    let mode = match config.authorizer.kind {
        AuthorizerKind::Embedded => ReplicaMode::Off,
        AuthorizerKind::Openfga => config.authorizer.replica.mode,
    };
    let report = ReplicaReport { mode, standing: kept.read() };
    output.result(&report, || {
        let asked = match command {
            ReplicaCommand::Trust(_) => {
                "\nA running server makes a new copy within a second, and uses it once it agrees with OpenFGA."
            }
            ReplicaCommand::Status(_) => "",
        };
        format!("{}{asked}", report.lines(config.authorizer.kind))
    })
}

impl ReplicaReport {
    /// Returns a text about the configured mode and the stored standing. No server is asked, so the text does not tell
    /// the age of the copy.
    fn lines(&self, kind: AuthorizerKind) -> String {
        let Standing { trust, falls, cause, .. } = &self.standing;
        let used = match (kind, self.mode) {
            (AuthorizerKind::Embedded, _) => "not used: the embedded evaluator decides (`authorizer.kind`)",
            (AuthorizerKind::Openfga, ReplicaMode::Off) => "not used: `authorizer.replica.mode` is `off`",
            (AuthorizerKind::Openfga, ReplicaMode::Plan) => "mode `plan`",
            (AuthorizerKind::Openfga, ReplicaMode::Decide) => "mode `decide`",
        };
        let cause = cause.as_ref().map(|cause| format!("; wrong about {cause}")).unwrap_or_default();
        let known = match (trust, falls) {
            (Trust::Trusted, 0) => "no fault of the copy is known".to_owned(),
            (_, 1) => format!("{trust}, found wrong once"),
            (_, falls) => format!("{trust}, found wrong {falls} times"),
        };
        format!("{used}\n{known}{cause}; the server's log says whether the copy exists and is up to date")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_says_whether_the_copy_is_used() {
        use AuthorizerKind::{Embedded, Openfga};
        let fresh = r#"{ "trust": "trusted", "falls": 0 }"#;
        let back = r#"{ "trust": "trusted", "falls": 1 }"#;
        let out = r#"{ "trust": "out", "falls": 2 }"#;
        let rows = [
            ("no server", Embedded, ReplicaMode::Off, fresh, "not used: the embedded", "no fault of the copy is known"),
            (
                "off",
                Openfga,
                ReplicaMode::Off,
                fresh,
                "`authorizer.replica.mode` is `off`",
                "no fault of the copy is known",
            ),
            (
                "off, and out",
                Openfga,
                ReplicaMode::Off,
                out,
                "is `off`",
                "until `ragward replica trust`, found wrong 2 times",
            ),
            ("plan", Openfga, ReplicaMode::Plan, fresh, "mode `plan`", "no fault of the copy is known"),
            ("decide", Openfga, ReplicaMode::Decide, fresh, "mode `decide`", "no fault of the copy is known"),
            ("proven again", Openfga, ReplicaMode::Decide, back, "mode `decide`", "trusted, found wrong once"),
            (
                "out",
                Openfga,
                ReplicaMode::Decide,
                out,
                "mode `decide`",
                "not used until `ragward replica trust`, found",
            ),
        ];
        for (name, kind, mode, standing, used, known) in rows {
            let report = ReplicaReport { mode, standing: serde_json::from_str(standing).expect("a standing") };
            let text = report.lines(kind);
            assert!(text.contains(used) && text.contains(known), "{name}: {text}");
            assert_eq!(text.contains("trusted"), standing == back, "{name}: {text}");
        }
    }
}
