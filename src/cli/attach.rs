//! `ragward attach`: prepares a Qdrant collection that another program fills.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Failure, Output};
use crate::app;
use crate::config::{Config, Overrides, VectorStoreKind};
use crate::vector_store::qdrant::{Attach, Attached, GuardTemplate};

/// The time that a call may take. It is long because building an index of a large collection is slow.
const CALL_TIMEOUT: Duration = Duration::from_mins(10);

#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// The Qdrant collection. `[vector_store.qdrant.collections.NAME]` says which program fills it.
    collection: String,
    /// Write a guard into each point. This template makes the guard from a field of the point's payload:
    /// `document:{metadata.source}`. Without a template, the points must have their guards already.
    #[arg(long, value_name = "TEMPLATE")]
    guard: Option<String>,
    /// Replace guards that differ from the template's, and remove the guards of points for which the template makes
    /// none.
    #[arg(long, requires = "guard")]
    replace: bool,
    /// Give each point a vector of its text, so that the collection takes text queries. It needs Qdrant 1.18, and text queries
    /// need 1.19.
    #[arg(long)]
    texts: bool,
    /// Print what would be done, without doing it.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct AttachReport {
    collection: String,
    dry_run: bool,
    #[serde(flatten)]
    attached: Attached,
}

pub(super) async fn run(args: AttachArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let template = args.guard.as_deref().map(GuardTemplate::parse).transpose();
    let template = template.map_err(|e| Failure::usage(format!("`--guard`: {e}")))?;
    let config = Config::load(config.as_deref(), &Overrides::default())?;
    if config.vector_store.kind != VectorStoreKind::Qdrant {
        let text = "`vector_store.kind` is not `qdrant`; name the configuration of your Qdrant with `--config`";
        return Err(Failure::usage(text));
    }
    let store = app::open_qdrant(&config, CALL_TIMEOUT)?;
    let attach = Attach { template, replace: args.replace, dry_run: args.dry_run, texts: args.texts };
    let bar = progress();
    let attached = store
        .attach(&args.collection, &attach, |attached, points| {
            bar.set_length(points.max(attached.points));
            bar.set_position(attached.points);
        })
        .await;
    bar.finish_and_clear();
    let attached = attached.map_err(|e| Failure::coded(e.code(), e.to_string()))?;
    let report = AttachReport { collection: args.collection, dry_run: args.dry_run, attached };
    output.result(&report, || report.lines().join("\n"))
}

impl AttachReport {
    fn lines(&self) -> Vec<String> {
        let Self { collection, dry_run, attached } = self;
        let Attached { points, guarded, written, kept, cleared, unguarded, unsettled, later, indexes, .. } = attached;
        let (gets, makes, loses) =
            if *dry_run { ("would get", "would be made", "would lose") } else { ("got", "made", "lost") };
        let with_guards = |examples: &BTreeMap<String, String>| -> Vec<String> {
            examples.iter().map(|(point, guard)| format!("  {point}  {guard}")).collect()
        };
        let mut lines = vec![format!("collection `{collection}`: {points} points")];
        lines.extend(indexes.iter().map(|field| format!("an index on `{field}` {makes}")));
        lines.push(format!("{guarded} already have their guard, {written} {gets} one"));
        lines.extend(with_guards(&attached.examples));
        if *kept > 0 {
            lines.push(format!("{kept} keep a guard that differs from the template's; `--replace` changes these:"));
            lines.extend(with_guards(&attached.kept_examples));
        }
        if *cleared > 0 {
            lines.push(format!("{cleared} {loses} their guard because the template makes none; nobody can see these:"));
            lines.extend(with_guards(&attached.cleared_examples));
        }
        if *unguarded > 0 {
            lines.push(format!("{unguarded} have no guard, so nobody can see them; some of them:"));
            lines.extend(attached.unguarded_examples.iter().map(|point| format!("  {point}")));
        }
        if attached.texts > 0 {
            lines.push(format!("{} {gets} a vector of their text", attached.texts));
        }
        if *unsettled > 0 {
            lines.push(format!("{unsettled} changed during the run; run it again"));
        }
        if *later > 0 {
            lines.push(format!("{later} were added during the run and were not looked at; run it again"));
        }
        lines
    }
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} points {wide_bar} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
