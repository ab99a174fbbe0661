//! `ragward tune`: measures which settings answer checks fastest.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Failure, Output, output};
use crate::app::{open_authorizer, open_replica};
use crate::audit::{AuditEntry, Event};
use crate::authz::openfga::OpenFgaSource;
use crate::authz::replica::{ReplicaMode, ReplicaUse};
use crate::authz::{Authorizer, Consistency};
use crate::config::{AuthorizerKind, Config, Overrides};
use crate::language::Object;
use crate::settings::HumanDuration;
use crate::tune::{
    Advice, CHECKS_PER_REQUEST, Measurement, Recommendation, Settings, Workload, finalists, grid, measure, recommend,
};

/// The width of the longest bar in the plot, in characters.
const BAR_WIDTH: f64 = 30.0;
/// The time that a replica may take to be ready.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(30);
/// The limits of `--budget`: the shortest time in which every setting answers a few requests, and the longest that
/// somebody waits for the result.
const BUDGET_RANGE: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_hours(1);

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// The time for all measurements together, from `5s` to `1h`. It is divided among the settings.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = budget)]
    budget: Duration,
    /// The number of requests to send at the same time.
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    callers: u16,
    /// An exported audit log in JSON lines (`ragward audit export`). Its users ask as often as they did in the log.
    /// Without it, the users of the store's tuples ask.
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// Write the recommended settings into the configuration file (`--config`), if they differ from the present ones.
    #[arg(long)]
    write: bool,
}

#[derive(Serialize)]
struct TuneReport {
    users: usize,
    objects: usize,
    checks_per_request: usize,
    measurements: Vec<MeasurementJson>,
    recommended: Option<RecommendationJson>,
    /// The file that the recommended settings were written to.
    written_to: Option<PathBuf>,
}

#[derive(Serialize)]
struct MeasurementJson {
    checks_per_call: usize,
    calls_in_flight_max: u32,
    cache: bool,
    replica: ReplicaMode,
    checks_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    answered: usize,
    failed: usize,
}

#[derive(Serialize)]
struct RecommendationJson {
    advice: Advice,
    checks_per_call: usize,
    calls_in_flight_max: u32,
    reason: String,
}

/// Reads the value of `--budget`.
fn budget(text: &str) -> Result<Duration, String> {
    let budget = HumanDuration::parse(text)?;
    if BUDGET_RANGE.contains(&budget) { Ok(budget) } else { Err("it must be from `5s` to `1h`".to_owned()) }
}

/// Measures the configured `OpenFGA` server under different settings. It only reads.
pub(super) async fn run(args: TuneArgs, config_file: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let config = Config::load(config_file.as_deref(), &Overrides::default())?;
    if config.authorizer.kind == AuthorizerKind::Embedded {
        return Err(Failure::usage(
            "the embedded evaluator decides in this process and has no settings to tune; set `authorizer.kind = \"openfga\"` in the configuration to tune the calls to a server",
        ));
    }
    if args.write && config_file.is_none() {
        return Err(Failure::usage("`--write` needs the configuration file to write to: add `--config FILE`"));
    }
    let workload = Arc::new(workload(&args, &config).await?);
    let now = Settings::of(&config);
    let (measurements, finalists) = measure_all(&args, &config, now, &workload).await?;
    let recommended = recommend(&measurements, &finalists, now);
    let to_write = recommended.as_ref().filter(|recommended| recommended.advice == Advice::Change);
    let to_write = to_write.and_then(|recommended| measurements.get(recommended.position));
    // The measurements are shown, whether or not the file can be written.
    let written = match (to_write, &config_file) {
        (Some(best), Some(file)) if args.write => Some(write_settings(file, best.settings)),
        _ => None,
    };
    let written_to = config_file.as_deref().filter(|_| matches!(written, Some(Ok(()))));
    output.result(&tune_report(&workload, &measurements, recommended.as_ref(), written_to), || {
        picture(&args, &workload, &measurements, recommended.as_ref(), written_to)
    })?;
    if recommended.is_none() {
        return Err(Failure::failed(
            "no setting answered every request: the server cannot take that many `--callers` at once, or is shutting down; try fewer callers, or a longer `--budget`",
        ));
    }
    written.unwrap_or(Ok(()))
}

async fn workload(args: &TuneArgs, config: &Config) -> Result<Workload, Failure> {
    let relation = config.retrieval.relation.clone();
    let source = OpenFgaSource::new(&config.authorizer.openfga).map_err(|e| Failure::usage(e.to_string()))?;
    let generated = Workload::generated(&source, &relation, config.identity.user_type.as_str()).await;
    let generated = generated.map_err(|e| Failure::usage(format!("there is nothing to measure with: {e}")))?;
    let Some(file) = &args.workload else { return Ok(generated) };
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("`{}`: {e}", file.display())))?;
    let users = recorded_users(&text).map_err(|e| Failure::usage(format!("`{}`: {e}", file.display())))?;
    generated.asked_by(&users).map_err(|e| Failure::usage(format!("`{}`: {e}", file.display())))
}

/// Returns the users of an exported audit log, one for each retrieval or re-check. Other calls check no chunks. A call
/// without a user is left out.
fn recorded_users(text: &str) -> Result<Vec<Object>, String> {
    let mut users = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let entry: AuditEntry =
            serde_json::from_str(line).map_err(|e| format!("line {number} is no audit entry: {e}"))?;
        let Event::Record(record) = entry.event else { continue };
        let asks = ["/Retrieve", "/Recheck"].iter().any(|method| record.call.ends_with(method));
        let Some(subject) = record.principal.and_then(|principal| principal.subject).filter(|_| asks) else { continue };
        users.push(Object::parse(&subject).map_err(|e| format!("line {number}: {e}"))?);
    }
    Ok(users)
}

/// Measures all settings for half of the time, and the finalists again for the other half. Also returns the positions
/// of the finalists.
async fn measure_all(
    args: &TuneArgs,
    config: &Config,
    now: Settings,
    workload: &Arc<Workload>,
) -> Result<(Vec<Measurement>, Vec<usize>), Failure> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} settings [{bar:30}] {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let half = args.budget / 2;
    let mut measurements = Vec::new();
    let grid = grid(now);
    bar.inc_length(length(&grid));
    for settings in &grid {
        bar.set_message(name(*settings));
        measurements.push(measure_one(args, config, *settings, workload, share(half, &grid)).await?);
        bar.inc(1);
    }
    let finalists = finalists(&measurements, now);
    bar.inc_length(length(&finalists));
    for position in &finalists {
        let Some(measurement) = measurements.get_mut(*position) else { continue };
        bar.set_message(format!("again, longer: {}", name(measurement.settings)));
        *measurement = measure_one(args, config, measurement.settings, workload, share(half, &finalists)).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((measurements, finalists))
}

async fn measure_one(
    args: &TuneArgs,
    config: &Config,
    settings: Settings,
    workload: &Arc<Workload>,
    duration: Duration,
) -> Result<Measurement, Failure> {
    let tuned = settings.apply(config);
    let scratch = tempfile::tempdir().map_err(|e| Failure::failed(format!("a temporary directory: {e}")))?;
    let authorizer = authorizer(&tuned, scratch.path()).await?;
    let callers = usize::from(args.callers);
    // The first quarter of the time is not counted: in it, connections are made, caches fill, and the limits adapt.
    measure(&authorizer, settings, workload, callers, duration / 4).await;
    Ok(measure(&authorizer, settings, workload, callers, duration * 3 / 4).await)
}

fn length<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

fn share<T>(time: Duration, items: &[T]) -> Duration {
    time / u32::try_from(items.len()).unwrap_or(u32::MAX).max(1)
}

async fn authorizer(config: &Config, scratch: &Path) -> Result<Arc<dyn Authorizer>, Failure> {
    if config.authorizer.replica.mode != ReplicaMode::Decide {
        return Ok(open_authorizer(config).await?);
    }
    let mut config = config.clone();
    config.data.directory = scratch.to_owned();
    let replica = open_replica(&config, ReplicaUse::Decide).await?;
    let ready = async {
        while replica.abilities(Consistency::MinimizeLatency).lag.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(REPLICA_TIMEOUT, ready).await {
        Ok(()) => Ok(replica),
        Err(_elapsed) => Err(Failure::unreachable("the replica did not catch up with the server in 30 s")),
    }
}

fn name(settings: Settings) -> String {
    let Settings { checks_per_call, calls_in_flight_max, cache, mode } = settings;
    if mode == ReplicaMode::Decide {
        return "replica decides".to_owned();
    }
    let cache = if cache { "cache" } else { "no cache" };
    format!("{checks_per_call} checks × {calls_in_flight_max} calls, {cache}")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn tune_report(
    workload: &Workload,
    measurements: &[Measurement],
    recommended: Option<&Recommendation>,
    written_to: Option<&Path>,
) -> TuneReport {
    let measurement = |m: &Measurement| MeasurementJson {
        checks_per_call: m.settings.checks_per_call,
        calls_in_flight_max: m.settings.calls_in_flight_max,
        cache: m.settings.cache,
        replica: m.settings.mode,
        checks_per_second: m.checks_per_second,
        p50_ms: milliseconds(m.p50),
        p99_ms: milliseconds(m.p99),
        answered: m.answered,
        failed: m.failed,
    };
    let recommended = recommended.and_then(|recommended| {
        let best = measurements.get(recommended.position)?.settings;
        Some(RecommendationJson {
            advice: recommended.advice,
            checks_per_call: best.checks_per_call,
            calls_in_flight_max: best.calls_in_flight_max,
            reason: recommended.reason.clone(),
        })
    });
    TuneReport {
        users: workload.users(),
        objects: workload.objects(),
        checks_per_request: CHECKS_PER_REQUEST,
        measurements: measurements.iter().map(measurement).collect(),
        recommended,
        written_to: written_to.map(Path::to_owned),
    }
}

fn picture(
    args: &TuneArgs,
    workload: &Workload,
    measurements: &[Measurement],
    recommended: Option<&Recommendation>,
    written_to: Option<&Path>,
) -> String {
    let most = measurements.iter().map(|m| m.checks_per_second).fold(f64::MIN_POSITIVE, f64::max);
    let to_set = recommended.filter(|recommended| recommended.advice == Advice::Change);
    let to_set = to_set.map(|recommended| recommended.position);
    let is_kept = recommended.is_some() && to_set.is_none();
    let rows = measurements.iter().enumerate().map(|(position, m)| {
        // The bars are logarithmic. A replica is so much faster that linear bars would show nothing else.
        let share = (m.checks_per_second.max(1.0).ln() / most.max(2.0).ln()).clamp(0.0, 1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width")]
        let bar = "█".repeat((share * BAR_WIDTH) as usize);
        let mark = match position {
            0 if is_kept => "◀ now, keep",
            0 => "◀ now",
            _ if Some(position) == to_set => "◀ recommended",
            _ => "",
        };
        vec![
            name(m.settings),
            format!("{:.0}", m.checks_per_second),
            latency(m, m.p50),
            latency(m, m.p99),
            m.answered.to_string(),
            m.failed.to_string(),
            format!("{bar} {mark}"),
        ]
    });
    let header = ["settings", "checks/s", "p50 ms", "p99 ms", "requests", "failed", "checks/s (logarithmic)"];
    let mut text = format!(
        "{} callers at once ask for {} users about {} objects, {CHECKS_PER_REQUEST} checks a request.\n\
         Settings: the most checks in one call to the server × the most calls at a time. A call leaves as soon as it may, so\n\
         there is no waiting time to set. The most promising settings and the current ones were measured again, for longer.\n\
         With a cache, the time includes filling it.\n\n",
        args.callers,
        workload.users(),
        workload.objects()
    );
    text.push_str(&output::table(&header, rows));
    if let Some((recommended, best)) = recommended.and_then(|r| Some((r, measurements.get(r.position)?))) {
        text.push_str(&advice(args, recommended, best.settings, written_to));
    }
    let decides = |m: &&Measurement| m.settings.mode == ReplicaMode::Decide;
    // The first measurement is that of the current settings.
    let decides_now = measurements.first().is_some_and(|now| decides(&now));
    if let Some(deciding) = measurements.iter().find(decides).filter(|_| !decides_now) {
        write!(
            text,
            "\n\nNot recommended, because it changes who decides: a deciding replica (`authorizer.replica.mode = \"decide\"`)\n\
             does {:.0} checks/s, but a revoked permission may then count for up to `authorizer.replica.staleness_max`.",
            deciding.checks_per_second
        )
        .unwrap_or_default();
    }
    text
}

/// Returns the advice as text, with the values and what became of the file.
fn advice(args: &TuneArgs, recommended: &Recommendation, settings: Settings, written_to: Option<&Path>) -> String {
    let (reason, values) = (&recommended.reason, toml_of(settings));
    match (recommended.advice, written_to) {
        (Advice::Keep, _) => {
            let file = if args.write { " `--write` had nothing to write." } else { "" };
            format!("\n\nRecommended: keep the present values, because {reason}.{file}\n\n{values}")
        }
        (Advice::Change, Some(file)) => format!(
            "\n\nRecommended: {}: {reason}.\n\n{values}\n\nWritten into `{}`; restart `ragward serve` with it.",
            name(settings),
            file.display()
        ),
        (Advice::Change, None) => format!(
            "\n\nRecommended: {}: {reason}.\n\n{values}\n\n`--write` puts that into the file of `--config`.",
            name(settings)
        ),
    }
}

/// Returns the latency of the requests that were answered, or `-` if none was.
fn latency(measurement: &Measurement, latency: Duration) -> String {
    if measurement.answered == 0 { "-".to_owned() } else { format!("{:.1}", milliseconds(latency)) }
}

fn toml_of(settings: Settings) -> String {
    format!(
        "[authorizer.openfga]\nchecks_per_call = {}\n\n[authorizer.checks]\ncalls_in_flight_max = {}",
        settings.checks_per_call, settings.calls_in_flight_max
    )
}

/// Sets the two keys in the file and leaves everything else, including comments, as it is.
fn write_settings(file: &Path, settings: Settings) -> Result<(), Failure> {
    let failed = |detail: String| Failure::failed(format!("cannot write `{}`: {detail}", file.display()));
    // If the path is a link, its target is changed and keeps its permissions.
    let file = &file.canonicalize().map_err(|e| failed(e.to_string()))?;
    let text = std::fs::read_to_string(file).map_err(|e| failed(e.to_string()))?;
    let changed = set_keys(&text, settings).map_err(failed)?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let written = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))
        .and_then(|mut new| {
            std::io::Write::write_all(&mut new, changed.as_bytes())?;
            new.as_file().set_permissions(std::fs::metadata(file)?.permissions())?;
            Ok(new)
        })
        .map_err(|e| failed(e.to_string()))?;
    written.persist(file).map_err(|e| failed(e.to_string()))?;
    Ok(())
}

fn set_keys(text: &str, settings: Settings) -> Result<String, String> {
    let mut document: toml_edit::DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
    let per_call = i64::try_from(settings.checks_per_call).map_err(|e| e.to_string())?;
    let keys = [
        ("openfga", "checks_per_call", per_call),
        ("checks", "calls_in_flight_max", i64::from(settings.calls_in_flight_max)),
    ];
    for (section, key, value) in keys {
        let authorizer = document.entry("authorizer").or_insert_with(implicit_table);
        let authorizer = authorizer.as_table_like_mut().ok_or("`authorizer` is not a table")?;
        let section_item = authorizer.entry(section).or_insert_with(|| toml_edit::Item::Table(toml_edit::Table::new()));
        let section =
            section_item.as_table_like_mut().ok_or_else(|| format!("`authorizer.{section}` is not a table"))?;
        match section.get_mut(key).and_then(toml_edit::Item::as_value_mut) {
            Some(known) => {
                // This keeps the surroundings of the value, such as a comment behind it.
                let around = known.decor().clone();
                *known = value.into();
                *known.decor_mut() = around;
            }
            None => {
                section.insert(key, toml_edit::value(value));
            }
        }
    }
    Ok(document.to_string())
}

fn implicit_table() -> toml_edit::Item {
    let mut table = toml_edit::Table::new();
    table.set_implicit(true);
    toml_edit::Item::Table(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditedPrincipal, Door, Latencies, Record};

    const SETTINGS: Settings =
        Settings { checks_per_call: 25, calls_in_flight_max: 16, cache: false, mode: ReplicaMode::Plan };

    #[test]
    fn a_written_file_keeps_what_else_is_in_it() {
        let before = "# ours\n[authorizer]\nkind = \"openfga\" # remote\n\n[authorizer.openfga]\nstore_name = \"x\"\nchecks_per_call = 50 # theirs\n";
        let expected = "# ours\n[authorizer]\nkind = \"openfga\" # remote\n\n[authorizer.openfga]\nstore_name = \"x\"\nchecks_per_call = 25 # theirs\n\n[authorizer.checks]\ncalls_in_flight_max = 16\n";
        assert_eq!(set_keys(before, SETTINGS).as_deref(), Ok(expected));
        let from_nothing = set_keys("", SETTINGS).expect("written");
        assert_eq!(from_nothing.trim(), toml_of(SETTINGS));
    }

    #[test]
    fn the_advice_says_whether_values_change() {
        let file = Path::new("ragward.toml");
        let rows = [
            ("kept", Advice::Keep, false, None, "keep the present values, because it is faster.\n"),
            (
                "kept, with nothing to write",
                Advice::Keep,
                true,
                None,
                "it is faster. `--write` had nothing to write.\n",
            ),
            ("to change", Advice::Change, false, None, "25 checks × 16 calls, no cache: it is faster.\n"),
            ("how to write it", Advice::Change, false, None, "`--write` puts that into the file"),
            ("changed", Advice::Change, true, Some(file), "Written into `ragward.toml`"),
        ];
        for (row, given, write, written_to, expected) in rows {
            let args = TuneArgs { budget: Duration::from_secs(5), callers: 4, workload: None, write };
            let recommended = Recommendation { position: 0, advice: given, reason: "it is faster".to_owned() };
            let told = advice(&args, &recommended, SETTINGS, written_to);
            assert!(told.contains(expected) && told.contains("checks_per_call = 25"), "{row}: {told}");
        }
    }

    #[test]
    fn recorded_users_ask_as_often_as_they_did() {
        let record = |call: &str, subject: Option<&str>| {
            let principal = AuditedPrincipal { subject: subject.map(str::to_owned), ..AuditedPrincipal::default() };
            let call = format!("ragward.{call}");
            Event::Record(Box::new(Record {
                call,
                door: Some(Door::Grpc),
                code: "OK".to_owned(),
                trace_id: "0".repeat(32),
                refusal: None,
                principal: Some(principal),
                request: None,
                decision: None,
                observed: None,
                released: None,
                approval: None,
                models: Vec::new(),
                latency_us: Latencies::default(),
            }))
        };
        let events = [
            Event::Begin { log: "a".to_owned(), segment: 1 },
            record("retrieval.v1.RetrievalService/Retrieve", Some("user:anne")),
            record("retrieval.v1.RetrievalService/Recheck", Some("user:anne")),
            record("retrieval.v1.RetrievalService/Retrieve", None),
            record("ingest.v1.IngestService/DeleteDocuments", Some("user:bob")),
        ];
        let line = |(seq, event): (u64, Event)| {
            let entry = AuditEntry {
                seq,
                prev: serde_json::from_value("0".repeat(64).into()).expect("a MAC"),
                time: "2026-11-25T08:00:00Z".to_owned(),
                event,
            };
            format!("{}\n", serde_json::to_string(&entry).expect("JSON"))
        };
        let log = &(1..).zip(events).map(line).collect::<Vec<String>>().concat();
        let users = recorded_users(log).expect("users");
        assert_eq!(users.iter().map(ToString::to_string).collect::<Vec<_>>(), ["user:anne", "user:anne"]);
        assert!(recorded_users("not a record").is_err_and(|e| e.contains("line 1")));
    }
}
