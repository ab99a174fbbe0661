//! `ragward store`: moves a whole store to a file, or from a file. The file is a store file (`.fga.yaml`), so a store moves
//! between a data directory, a Ragward server and an OpenFGA server, in each direction.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::model::{StoreFileArgs, store_file_failure};
use super::relationships::{LoadOutcome, Relationships, StoreArgs};
use super::test::failing_lines;
use super::{Failure, Output};
use crate::authz::openfga::{Assertion, Creation};
use crate::engine::Contextual;
use crate::language::limits::{ASSERTIONS_MAX, CONTEXTUAL_TUPLES_OF_ASSERTION_MAX};
use crate::language::model::AuthorizationModel;
use crate::language::validate::ValidModel;
use crate::language::{Object, Relation, RelationshipTuple, TupleCondition, User};
use crate::store_file::{self, CheckTest, ModelForm, ModelPlace, References, StoreFile, StoreFileWriter, StoreTest};
use crate::tuple_store::TupleFilter;

/// The name of the exported tests.
const TESTS_NAME: &str = "assertions";

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Write a store file with the store's model, its tuples and, as tests, its assertions.
    Export(ExportArgs),
    /// Load a store file: its model and tuples and, as assertions, the checks of its tests. Nothing is deleted.
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The file to write, such as `store.fga.yaml`. Without it, the store file is printed.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The store file (`.fga.yaml`).
    file: PathBuf,
    /// Run the tests of the file first, and load nothing if one fails.
    #[arg(long)]
    test: bool,
    #[command(flatten)]
    store_file: StoreFileArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Create the store if there are other stores but not this one. The first store is always created.
    #[arg(long)]
    create_store: bool,
}

#[derive(Serialize)]
struct ExportReport {
    /// The files that were written.
    files: Vec<PathBuf>,
    #[serde(flatten)]
    exported: Exported,
}

/// The number of parts of an exported store.
#[derive(Clone, Copy, Default, Serialize)]
struct Exported {
    tuples: u64,
    assertions: usize,
    /// The assertions that a store file cannot express.
    assertions_left_out: usize,
}

#[derive(Serialize)]
struct ImportReport {
    model_id: String,
    types: usize,
    tuples: usize,
    assertions: usize,
    /// The expectations of the file's tests that a store does not keep.
    expectations_left_out: usize,
}

pub(super) async fn run(command: StoreCommand, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    match command {
        StoreCommand::Export(args) => export(args, config, output).await,
        StoreCommand::Import(args) => import(args, config, output).await,
    }
}

/// The reason why an export stopped.
enum Stopped {
    /// The store could not be read.
    Reading(Failure),
    /// The file could not be written.
    Writing(io::Error),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Reading(failure)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Writing(error)
    }
}

async fn export(args: ExportArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let store = args.store.open(config, Creation::Never).await?;
    let (model_id, model) = store.model(None).await?;
    let form = ModelForm::of(&model).map_err(|e| Failure::failed(e.to_string()))?;
    let Some(out) = args.out else { return print(&store, &model_id, &model, form).await };
    let beside = model_file(&out);
    // Both files take their names at the end. Until then an older store file keeps the model that it was written for.
    let model_json = match &form {
        ModelForm::Text(_) => None,
        ModelForm::Json(json) => Some(Unfinished::new(&beside, |sink| sink.write_all(json.as_bytes()))?),
    };
    let place = match &form {
        ModelForm::Text(text) => ModelPlace::Inline(text),
        ModelForm::Json(_) => {
            let name = beside.file_name().and_then(|name| name.to_str());
            ModelPlace::File(name.ok_or_else(|| Failure::usage("the name of the file must be UTF-8"))?)
        }
    };
    let unfinished = Unfinished::new(&out, |_sink| Ok(()))?;
    let exported = match export_to(&store, &model_id, place, BufWriter::new(&unfinished.sink)).await {
        Ok(exported) => exported,
        Err(Stopped::Reading(failure)) => return Err(failure),
        Err(Stopped::Writing(error)) => return Err(unfinished.failed(&error)),
    };
    let mut files = vec![out.clone()];
    if let Some(model_json) = model_json {
        model_json.finish()?;
        files.push(beside);
    }
    unfinished.finish()?;
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let left_out = left_out(exported.assertions_left_out, "assertions, which a store file cannot express");
    let Exported { tuples, assertions, .. } = exported;
    let people =
        format!("wrote {}: model {model_id}, {tuples} tuples, {assertions} assertions{left_out}", names.join(" and "));
    output.result(&ExportReport { files, exported }, || people)
}

/// Prints a store file. Standard output holds one file, so the model must be a text.
async fn print(
    store: &Relationships,
    model_id: &str,
    model: &AuthorizationModel,
    form: ModelForm,
) -> Result<(), Failure> {
    let text = match form {
        ModelForm::Text(text) => text,
        ModelForm::Json(_) => {
            let why = match crate::language::dsl::text(model) {
                Ok(_) => "the model was joined from modules".to_owned(),
                Err(unsayable) => unsayable.to_string(),
            };
            return Err(Failure::usage(format!(
                "{why}, so it needs a file of its own; name the store file with `--out`"
            )));
        }
    };
    match export_to(store, model_id, ModelPlace::Inline(&text), BufWriter::new(io::stdout())).await {
        Ok(exported) if exported.assertions_left_out > 0 => {
            let count = exported.assertions_left_out;
            Err(Failure::failed(format!("{count} assertions were left out, which a store file cannot express")))
        }
        Ok(_) => Ok(()),
        // Its reader has seen enough.
        Err(Stopped::Writing(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(Stopped::Writing(error)) => Err(error.into()),
        Err(Stopped::Reading(failure)) => Err(failure),
    }
}

/// Returns the name for the model beside a store file: `store.model.json` beside `store.fga.yaml`.
fn model_file(out: &Path) -> PathBuf {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let endings = [".fga.yaml", ".fga.yml", ".yaml", ".yml"];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    out.with_file_name(format!("{stem}.model.json"))
}

/// A file that is not whole yet. It lies beside its place under another name, and is removed unless it is finished.
struct Unfinished {
    path: PathBuf,
    place: PathBuf,
    sink: File,
}

impl Unfinished {
    /// Makes the file, and writes its beginning.
    fn new(place: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<Self, Failure> {
        let path = unfinished(place);
        // A killed process with this number may have left the file behind.
        drop(std::fs::remove_file(&path));
        // A link that somebody has put there is not followed.
        let made = File::options().write(true).create_new(true).open(&path);
        let failed = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
        let sink = made.map_err(failed)?;
        let mut file = Self { path, place: place.to_owned(), sink };
        match write(&mut file.sink) {
            Ok(()) => Ok(file),
            Err(error) => Err(file.failed(&error)),
        }
    }

    /// Gives the file its name.
    fn finish(self) -> Result<(), Failure> {
        std::fs::rename(&self.path, &self.place).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::failed(format!("{}: {error}", self.path.display()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A finished file has left this name.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Returns the name under which a file is written until it is whole. Two exports at a time do not share it.
fn unfinished(file: &Path) -> PathBuf {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    file.with_file_name(format!(".{name}.{}.unfinished", std::process::id()))
}

/// Writes a store page by page, so a store of any size takes the same memory.
async fn export_to<W: Write>(
    store: &Relationships,
    model_id: &str,
    model: ModelPlace<'_>,
    sink: W,
) -> Result<Exported, Stopped> {
    let assertions = store.assertions(model_id).await?;
    // A store file must not repeat a stored tuple in a test.
    let named: HashSet<Key> = assertions.iter().flat_map(|assertion| &assertion.contextual.tuples).map(key).collect();
    let mut stored = HashMap::new();
    let mut writer = StoreFileWriter::begin(sink, &store.name().await?, model)?;
    let mut pages = store.tuples(TupleFilter::default());
    // INVARIANT (it ends): the pages of a store end.
    while let Some(page) = pages.next().await? {
        for tuple in page {
            writer.tuple(&tuple)?;
            if !named.is_empty() {
                let key = key(&tuple);
                if named.contains(&key) {
                    stored.insert(key, tuple.condition);
                }
            }
        }
    }
    let (model_now, _) = store.model(None).await?;
    if model_now != model_id {
        // The tuples of the new model under the old one could grant what neither grants.
        let text = format!("the store got another model meanwhile: {model_now} after {model_id}; export it again");
        return Err(Failure::failed(text).into());
    }
    let of = assertions.len();
    let tests = tests_of(assertions, &stored);
    let kept: usize = tests.iter().map(|test| test.checks.len()).sum();
    let tuples = writer.tuples();
    writer.finish(&tests)?;
    Ok(Exported { tuples, assertions: kept, assertions_left_out: of.saturating_sub(kept) })
}

/// The names that identify a tuple.
type Key = (Object, Relation, User);

fn key(tuple: &RelationshipTuple) -> Key {
    (tuple.object.clone(), tuple.relation.clone(), tuple.user.clone())
}

/// Makes tests of assertions, in their order. Assertions that follow each other and have the same contextual tuples are one
/// test.
///
/// An assertion is left out if one of its contextual tuples is stored with another condition, or is there twice. A store file
/// takes neither, and without that tuple the assertion would ask something else.
fn tests_of(assertions: Vec<Assertion>, stored: &HashMap<Key, Option<TupleCondition>>) -> Vec<StoreTest> {
    let mut tests: Vec<StoreTest> = Vec::new();
    for assertion in assertions {
        let Assertion { user, relation, object, expected, contextual: Contextual { mut tuples, context } } = assertion;
        let mut seen = HashSet::new();
        let differs = |tuple: &RelationshipTuple| {
            !seen.insert(key(tuple)) || stored.get(&key(tuple)).is_some_and(|condition| *condition != tuple.condition)
        };
        if tuples.iter().any(differs) {
            continue;
        }
        tuples.retain(|tuple| !stored.contains_key(&key(tuple)));
        let check =
            CheckTest { users: vec![user], objects: vec![object], context, assertions: vec![(relation, expected)] };
        match tests.last_mut() {
            Some(last) if last.tuples == tuples => last.checks.push(check),
            Some(_) | None => {
                let name =
                    if tests.is_empty() { TESTS_NAME.to_owned() } else { format!("{TESTS_NAME} {}", tests.len() + 1) };
                let (list_objects, list_users, retrieval) = (Vec::new(), Vec::new(), Vec::new());
                tests.push(StoreTest { name, tuples, checks: vec![check], list_objects, list_users, retrieval });
            }
        }
    }
    tests
}

/// The expectations of tests, as a store keeps them.
struct Kept {
    assertions: Vec<Assertion>,
    left_out: usize,
}

/// Makes assertions of the checks in tests. A store keeps no lists and no searches, only checks that name what the model has, and of both
/// assertions and their contextual tuples a limited number.
fn assertions_of(tests: &[StoreTest], model: &ValidModel) -> Kept {
    let mut kept = Kept { assertions: Vec::new(), left_out: 0 };
    for test in tests {
        let of_lists = test.list_objects.iter().map(|list| list.assertions.len()).sum::<usize>()
            + test.list_users.iter().map(|list| list.assertions.len()).sum::<usize>();
        kept.left_out += of_lists + test.retrieval.len();
        for check in &test.checks {
            let expected = expectations(check);
            // A check of long lists stands for their product, which may be more than memory holds. So it is only counted.
            if expected > EXPECTATIONS_MAX {
                kept.left_out = kept.left_out.saturating_add(expected);
                continue;
            }
            for assertion in each_assertion(test, check) {
                let is_known = model.knows(&assertion.user, &assertion.relation, assertion.object.type_name()).is_ok();
                let fits = assertion.contextual.tuples.len() <= CONTEXTUAL_TUPLES_OF_ASSERTION_MAX
                    && kept.assertions.len() < ASSERTIONS_MAX;
                if is_known && fits && model.admits_all(&assertion.contextual.tuples).is_ok() {
                    kept.assertions.push(assertion);
                } else {
                    kept.left_out += 1;
                }
            }
        }
    }
    kept
}

/// The most expectations of one check that are looked at. A store keeps [`ASSERTIONS_MAX`] of all.
const EXPECTATIONS_MAX: usize = 100 * ASSERTIONS_MAX;

/// Returns the number of combinations of user, object and relation.
fn expectations(check: &CheckTest) -> usize {
    check.users.len().saturating_mul(check.objects.len()).saturating_mul(check.assertions.len())
}

/// Returns an assertion for each combination of user, object and relation.
fn each_assertion(test: &StoreTest, check: &CheckTest) -> Vec<Assertion> {
    let contextual = Contextual { tuples: test.tuples.clone(), context: check.context.clone() };
    let mut assertions = Vec::new();
    for user in &check.users {
        for object in &check.objects {
            for (relation, expected) in &check.assertions {
                assertions.push(Assertion {
                    user: user.clone(),
                    relation: relation.clone(),
                    object: object.clone(),
                    expected: *expected,
                    contextual: contextual.clone(),
                });
            }
        }
    }
    assertions
}

async fn import(args: ImportArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let references = args.store_file.references();
    let StoreFile { model, tuples, tests, .. } = read(&args.file, references)?;
    // A model without some of its tuples could grant what the file denies, so all are checked first.
    let misfit = |detail: String| Failure::failed(format!("{}: {detail}", args.file.display()));
    model.stores_all(&tuples).map_err(|error| misfit(error.to_string()))?;
    if args.test {
        run_tests(&args.file, references)?;
    }
    let Kept { assertions, left_out: expectations_left_out } = assertions_of(&tests, &model);
    let (types, count) = (model.source().types.len(), tuples.len());
    let creation = if args.create_store { Creation::Always } else { Creation::First };
    let store = args.store.open(config, creation).await?;
    let LoadOutcome { model_id, decides, told } = store.load(model, tuples).await?;
    if !assertions.is_empty() {
        let written = store.write_assertions(&model_id, &assertions).await;
        written.map_err(|failure| failure.context("the model and its tuples are in, but not the assertions"))?;
    }
    let decides = if decides { "decides now" } else { "decides once `authorization_model_id` names it" };
    let kept = assertions.len();
    let left_out = left_out(expectations_left_out, "expectations of tests, which a store does not keep");
    let people = format!("model {model_id} with {types} types {decides}; {told}; {kept} assertions{left_out}");
    let report = ImportReport { model_id, types, tuples: count, assertions: kept, expectations_left_out };
    output.result(&report, || people)
}

fn left_out(count: usize, what: &str) -> String {
    if count == 0 { String::new() } else { format!("; left out {count} {what}") }
}

fn read(file: &Path, references: References) -> Result<StoreFile, Failure> {
    store_file::read_with(file, references).map_err(|error| store_file_failure(&error))
}

/// Runs the tests of a store file. They use up what was read, so the file is read once more.
fn run_tests(file: &Path, references: References) -> Result<(), Failure> {
    let outcome = store_file::run(read(file, references)?);
    let outcome = outcome.map_err(|misfit| Failure::failed(format!("{}: {misfit}", file.display())))?;
    if outcome.passed() {
        return Ok(());
    }
    let lines = failing_lines(file, &outcome).join("\n");
    Err(Failure::failed(format!("nothing was loaded, because tests of the file fail\n{lines}")))
}

#[cfg(test)]
mod tests;
