//! `ragward tuple`: writes, deletes and shows relationship tuples.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};

use super::contextual::read_context;
use super::model::store_file_failure;
use super::output;
use super::relationships::StoreArgs;
use super::{Failure, Output};
use crate::authz::openfga::Creation;
use crate::language::tuple::TupleCondition;
use crate::language::{ParseError, RelationshipTuple};
use crate::store_file;
use crate::tuple_store::{OnConflict, TupleFilter};

#[derive(Debug, Subcommand)]
pub(super) enum TupleCommand {
    /// Write one tuple, or all tuples of a file.
    Write(WriteArgs),
    /// Delete one tuple, or all tuples of a file.
    Delete(DeleteArgs),
    /// Show tuples, in the order of writing. With `--output json`, they have the form that `--file` takes.
    Read(ReadArgs),
}

/// The flags that name tuples.
#[derive(Debug, Args)]
struct TupleArgs {
    /// The user, such as `user:anne`, `group:eng#member` or `user:*`.
    #[arg(required_unless_present = "file", conflicts_with = "file", requires = "object")]
    user: Option<String>,
    /// The relation, such as `reader`.
    #[arg(requires = "object")]
    relation: Option<String>,
    /// The object, such as `document:handbook`.
    object: Option<String>,
    /// A file with a list of tuples: `.yaml`, `.json`, `.jsonl` or `.csv`, as `fga tuple write --file` takes them.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    #[command(flatten)]
    tuple: TupleArgs,
    /// The condition under which the tuple counts.
    #[arg(long, value_name = "NAME", requires = "object")]
    condition: Option<String>,
    /// Values to store for the condition's parameters, as a JSON object: `{"opens": 9}`, or `@FILE` to read it from a
    /// file.
    #[arg(long, value_name = "JSON|@FILE", requires = "condition")]
    context: Option<String>,
    /// Fail on a tuple that is already stored, or ignore it. A stored tuple with another condition is always an error.
    #[arg(long, value_enum, default_value_t = OnConflictArg::Error)]
    on_duplicate: OnConflictArg,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    tuple: TupleArgs,
    /// Fail on a tuple that is not stored, or ignore it.
    #[arg(long, value_enum, default_value_t = OnConflictArg::Error)]
    on_missing: OnConflictArg,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// Show tuples of this user. Needs `--object`, which may be a type alone: `document:`.
    #[arg(long, requires = "object")]
    user: Option<String>,
    /// Show tuples of this relation. Needs `--object`.
    #[arg(long, requires = "object")]
    relation: Option<String>,
    /// Show tuples of this object. With `--user`, it may be a type alone: `document:`.
    #[arg(long)]
    object: Option<String>,
    /// The most tuples to show. If there are more, the command fails after it showed these.
    #[arg(long, value_name = "N", default_value_t = TUPLES_SHOWN_MAX)]
    limit: usize,
    #[command(flatten)]
    store: StoreArgs,
}

/// The number of tuples that are shown unless a command asks for more. All of them are in memory, since the columns of a
/// table are as wide as their widest cell.
const TUPLES_SHOWN_MAX: usize = 10_000;

/// The values of `--on-duplicate` and `--on-missing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnConflictArg {
    /// Refuse it.
    Error,
    /// Pass over it.
    Ignore,
}

impl From<OnConflictArg> for OnConflict {
    fn from(argument: OnConflictArg) -> Self {
        match argument {
            OnConflictArg::Error => Self::Refuse,
            OnConflictArg::Ignore => Self::Ignore,
        }
    }
}

/// The number of tuples that were written or deleted, or were so already if that is no error.
#[derive(Serialize)]
struct ChangeReport {
    tuples: usize,
}

/// A tuple as tuple files have it.
#[derive(Serialize)]
struct ShownTuple {
    user: String,
    relation: String,
    object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<ShownCondition>,
}

#[derive(Serialize)]
struct ShownCondition {
    name: String,
    context: Map<String, Value>,
}

impl TupleArgs {
    fn read(&self) -> Result<Vec<RelationshipTuple>, Failure> {
        if let Some(file) = &self.file {
            return store_file::read_tuples(file).map_err(|error| store_file_failure(&error));
        }
        let [user, relation, object] =
            [&self.user, &self.relation, &self.object].map(|name| name.as_deref().unwrap_or_default());
        Ok(vec![RelationshipTuple::parse(user, relation, object).map_err(|error| malformed(&error))?])
    }
}

fn malformed(error: &ParseError) -> Failure {
    Failure::usage(error.to_string())
}

pub(super) async fn run(command: TupleCommand, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    match command {
        TupleCommand::Write(args) => write(args, config, output).await,
        TupleCommand::Delete(args) => delete(args, config, output).await,
        TupleCommand::Read(args) => read(args, config, output).await,
    }
}

async fn write(args: WriteArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let mut tuples = args.tuple.read()?;
    if let Some(name) = &args.condition {
        let context = args.context.as_deref().map(read_context).transpose()?;
        let condition = TupleCondition::new(name, context.unwrap_or_default()).map_err(|error| malformed(&error))?;
        tuples = tuples.into_iter().map(|tuple| tuple.with_condition(condition.clone())).collect();
    }
    let count = tuples.len();
    let store = args.store.open(config, Creation::Never).await?;
    store.write(tuples, args.on_duplicate.into()).await?;
    let people = match args.on_duplicate {
        OnConflictArg::Error => format!("{} written", counted(count)),
        OnConflictArg::Ignore => format!("{} written, or already there", counted(count)),
    };
    output.result(&ChangeReport { tuples: count }, || people)
}

async fn delete(args: DeleteArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let tuples = args.tuple.read()?;
    let count = tuples.len();
    let store = args.store.open(config, Creation::Never).await?;
    store.delete(tuples, args.on_missing.into()).await?;
    let people = match args.on_missing {
        OnConflictArg::Error => format!("{} deleted", counted(count)),
        OnConflictArg::Ignore => format!("{} deleted, or not there", counted(count)),
    };
    output.result(&ChangeReport { tuples: count }, || people)
}

fn counted(tuples: usize) -> String {
    if tuples == 1 { "1 tuple".to_owned() } else { format!("{tuples} tuples") }
}

async fn read(args: ReadArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let filter = filter(&args)?;
    let store = args.store.open(config, Creation::Never).await?;
    let mut pages = store.tuples(filter);
    let mut tuples = Vec::new();
    // INVARIANT (it ends): the pages of a store end, and one tuple past the limit ends this as well.
    while tuples.len() <= args.limit {
        let Some(page) = pages.next().await? else { break };
        tuples.extend(page);
    }
    let is_cut = tuples.len() > args.limit;
    tuples.truncate(args.limit);
    let shown: Vec<ShownTuple> = tuples.iter().map(ShownTuple::of).collect();
    output.result(&shown, || table(&shown))?;
    if is_cut {
        let text =
            format!("there are more than {}; raise `--limit`, or use `ragward store export`", counted(args.limit));
        return Err(Failure::failed(text));
    }
    Ok(())
}

/// Makes the filter of `tuple read`. The rules are those of OpenFGA's `Read`, whichever store is read.
fn filter(args: &ReadArgs) -> Result<TupleFilter, Failure> {
    let [user, relation, object] =
        [&args.user, &args.relation, &args.object].map(|part| part.clone().unwrap_or_default());
    let has_type = object.split_once(':').is_some_and(|(type_name, _)| !type_name.is_empty());
    if args.object.is_some() && !has_type {
        return Err(Failure::usage(format!(
            "`--object {object}` must have the form `type:id`, or `type:` with `--user`"
        )));
    }
    if object.ends_with(':') && user.is_empty() {
        let text =
            format!("`--object {object}` is a type alone, which needs `--user`; without both, all tuples are shown");
        return Err(Failure::usage(text));
    }
    Ok(TupleFilter { object, relation, user })
}

impl ShownTuple {
    fn of(tuple: &RelationshipTuple) -> Self {
        let condition = |condition: &TupleCondition| ShownCondition {
            name: condition.name().to_owned(),
            context: condition.context(),
        };
        Self {
            user: tuple.user.to_string(),
            relation: tuple.relation.to_string(),
            object: tuple.object.to_string(),
            condition: tuple.condition.as_ref().map(condition),
        }
    }
}

fn table(tuples: &[ShownTuple]) -> String {
    if tuples.is_empty() {
        return "no tuples".to_owned();
    }
    let condition = |tuple: &ShownTuple| match &tuple.condition {
        Some(ShownCondition { name, context }) if context.is_empty() => name.clone(),
        Some(ShownCondition { name, context }) => format!("{name} {}", Value::Object(context.clone())),
        None => String::new(),
    };
    let rows = tuples
        .iter()
        .map(|tuple| vec![tuple.user.clone(), tuple.relation.clone(), tuple.object.clone(), condition(tuple)]);
    output::table(&["user", "relation", "object", "condition"], rows)
}
