//! `ragward model`: loads, shows, converts, compares and validates authorization models.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::relationships::{LoadOutcome, StoreArgs};
use super::{Failure, Output};
use crate::authz::openfga::Creation;
use crate::language::model::AuthorizationModel;
use crate::language::validate::ValidModel;
use crate::language::{RelationshipTuple, dsl, json};
use crate::store_file::{self, References, StoreFileError};

/// The most versions of a model that are listed.
const VERSIONS_MAX: usize = 100;

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// Load a model and, from a store file (`.fga.yaml`), its tuples into the data directory, a running server, or the
    /// configured OpenFGA server.
    Load(LoadArgs),
    /// Print the current model. With `--output json`, print it as OpenFGA's JSON.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// List the ids of the model's versions, newest first.
    List(StoreArgs),
    /// Convert a model to the other form: `.json` to text, all others to OpenFGA's JSON.
    Convert(FileArgs),
    /// Show what changes from one model to another, by type and relation.
    Diff {
        /// The file of the earlier model.
        before: PathBuf,
        /// The file of the later model.
        after: PathBuf,
        #[command(flatten)]
        store_file: StoreFileArgs,
    },
    /// Check that the model in a file can be loaded.
    Validate(FileArgs),
}

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// A model (`.fga`, `fga.mod` or `.json`), or a store file (`.fga.yaml`).
    file: PathBuf,
    #[command(flatten)]
    store_file: StoreFileArgs,
}

/// The flags for reading store files.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct StoreFileArgs {
    /// Let a store file name files outside of its folder. Use this only for store files whose authors you trust.
    #[arg(long)]
    allow_external_files: bool,
}

impl StoreFileArgs {
    pub(super) fn references(self) -> References {
        if self.allow_external_files { References::Anywhere } else { References::Beside }
    }
}

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Create the store if there are other stores but not this one. The first store is always created.
    #[arg(long)]
    create_store: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The id of the version to print, in place of the one that decides.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

#[derive(Serialize)]
struct LoadReport {
    model_id: String,
    types: usize,
    tuples: usize,
}

#[derive(Serialize)]
struct ValidationReport {
    types: usize,
    relations: usize,
    tuples: usize,
}

impl FileArgs {
    fn read(&self) -> Result<Contents, Failure> {
        read(&self.file, self.store_file.references())
    }
}

/// The contents of a file.
struct Contents {
    model: ValidModel,
    tuples: Vec<RelationshipTuple>,
}

impl Contents {
    /// Checks that the model and all tuples can be loaded. A model without some of its tuples could grant what the file
    /// denies.
    fn check(&self, file: &Path) -> Result<(), Failure> {
        let refused = |detail: String| Failure::failed(format!("{}: {detail}", file.display()));
        self.model.stores_all(&self.tuples).map_err(|misfit| refused(misfit.to_string()))
    }
}

pub(super) async fn run(command: ModelCommand, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    match command {
        ModelCommand::Load(args) => load(args, config.as_deref(), output).await,
        ModelCommand::Show(args) => show(args, config.as_deref(), output).await,
        ModelCommand::List(args) => list(args, config.as_deref(), output).await,
        ModelCommand::Convert(args) => convert(&args, output),
        ModelCommand::Diff { before, after, store_file } => diff(&before, &after, store_file.references(), output),
        ModelCommand::Validate(args) => validate(&args, output),
    }
}

async fn load(args: LoadArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let contents = args.file.read()?;
    contents.check(&args.file.file)?;
    let Contents { model, tuples } = contents;
    let (types, count) = (model.source().types.len(), tuples.len());
    let creation = if args.create_store { Creation::Always } else { Creation::First };
    let store = args.store.open(config, creation).await?;
    let LoadOutcome { model_id, decides, told } = store.load(model, tuples).await?;
    let decides = if decides { "decides now" } else { "decides once `authorization_model_id` names it" };
    let people = format!("model {model_id} with {types} types {decides}; {told}");
    output.result(&LoadReport { model_id, types, tuples: count }, || people)
}

async fn show(args: ShowArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let store = args.store.open(config, Creation::Never).await?;
    let (model_id, model) = store.model(args.id.as_deref()).await?;
    let json = json_value(&model)?;
    // A model that the language cannot express is shown as JSON.
    let people = dsl::text(&model).unwrap_or_else(|unsayable| format!("# {unsayable}\n{json:#}"));
    output.source(&json, || format!("# {model_id}\n{people}"))
}

async fn list(store: StoreArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let ids = store.open(config, Creation::Never).await?.model_ids(VERSIONS_MAX).await?;
    output.result(&ids, || if ids.is_empty() { "the store has no model".to_owned() } else { ids.join("\n") })
}

fn validate(args: &FileArgs, output: &Output) -> Result<(), Failure> {
    let contents = args.read()?;
    let file = &args.file;
    contents.check(file)?;
    let Contents { model, tuples } = contents;
    let types = &model.source().types;
    let relations = types.iter().map(|definition| definition.relations.len()).sum();
    let valid = ValidationReport { types: types.len(), relations, tuples: tuples.len() };
    let people =
        format!("{} is valid: {} types, {relations} relations, {} tuples", file.display(), valid.types, valid.tuples);
    output.result(&valid, || people)
}

fn convert(args: &FileArgs, output: &Output) -> Result<(), Failure> {
    let Contents { model, .. } = args.read()?;
    let file = &args.file;
    let json = json_value(model.source())?;
    if file.extension().is_some_and(|extension| extension == "json") {
        let text = dsl::text(model.source()).map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
        return output.source(&json, || text);
    }
    output.source(&json, || format!("{json:#}"))
}

fn diff(before: &Path, after: &Path, references: References, output: &Output) -> Result<(), Failure> {
    let (before, after) = (read(before, references)?, read(after, references)?);
    let differences = differences(before.model.source(), after.model.source());
    let people = if differences.is_empty() { "the models are the same".to_owned() } else { differences.join("\n") };
    output.result(&differences, || people)
}

/// Returns a line for each difference: `+` is new, `-` is gone, `~` is changed.
fn differences(before: &AuthorizationModel, after: &AuthorizationModel) -> Vec<String> {
    let (before, after) = (parts(before), parts(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (before.get(name), after.get(name)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(old), Some(new)) => Some(format!("~ {name}{old} → {}", new.trim_start_matches(": "))),
            (Some(old), None) => Some(format!("- {name}{old}")),
            (None, Some(new)) => Some(format!("+ {name}{new}")),
            (None, None) => None,
        })
        .collect()
}

/// Returns the types, relations and conditions of a model as the language writes them.
fn parts(model: &AuthorizationModel) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    for definition in &model.types {
        parts.insert(format!("type {}", definition.name), String::new());
        for relation in &definition.relations {
            let expression = format!(": {}", dsl::print_relation(relation));
            parts.insert(format!("{}#{}", definition.name, relation.name), expression);
        }
    }
    for (name, condition) in &model.conditions {
        parts.insert(format!("condition {name}"), dsl::print_condition(condition));
    }
    parts
}

fn read(file: &Path, references: References) -> Result<Contents, Failure> {
    let read = if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        store_file::read_with(file, references).map(|store| Contents { model: store.model, tuples: store.tuples })
    } else {
        store_file::read_model(file).map(|model| Contents { model, tuples: Vec::new() })
    };
    read.map_err(|error| store_file_failure(&error))
}

/// Returns the failure of a store file that cannot be read or run, with a picture of the mistake if it has a position.
pub(super) fn store_file_failure(error: &StoreFileError) -> Failure {
    match error {
        StoreFileError::Model { path, text, counted_from, errors } => Failure::failed(format!(
            "{}: the model has mistakes{}\n\n{}",
            path.display(),
            counted_from.note(),
            errors.picture(text)
        )),
        StoreFileError::Io { .. } => Failure::usage(error.to_string()),
        StoreFileError::Modules { path, errors } => {
            Failure::failed(format!("{}: the model has mistakes\n\n{}", path.display(), errors.picture()))
        }
        StoreFileError::Malformed { .. } | StoreFileError::Elsewhere { .. } => Failure::failed(store_file_text(error)),
    }
}

/// Returns the text of an error of a store file, with the option that may help.
pub(super) fn store_file_text(error: &StoreFileError) -> String {
    match error {
        StoreFileError::Elsewhere { .. } => format!("{error}; `--allow-external-files` allows that"),
        StoreFileError::Io { .. }
        | StoreFileError::Malformed { .. }
        | StoreFileError::Modules { .. }
        | StoreFileError::Model { .. } => error.to_string(),
    }
}

fn json_value(model: &AuthorizationModel) -> Result<serde_json::Value, Failure> {
    let text = json::print(model).map_err(|e| Failure::failed(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| Failure::failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    const BEFORE: &str = "model
  schema 1.1
type user
type team
type doc
  relations
    define owner: [user]
    define reader: [user, user with recent] or owner
condition recent(age: int) {
  age < 10
}
";

    fn parsed(text: &str) -> AuthorizationModel {
        dsl::parse(text).unwrap_or_else(|e| panic!("{}", e.picture(text))).model
    }

    #[test]
    fn a_difference_is_one_line() {
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let rows: [Row<'_>; 6] = [
            (&[], &[]),
            (&[("type team\n", "")], &["- type team"]),
            (&[("type team\n", "type team\ntype bot\n")], &["+ type bot"]),
            (
                &[("define owner: [user]", "define owner: [user, team]"), ("    define reader", "    define viewer")],
                &[
                    "~ doc#owner: [user] → [user, team]",
                    "- doc#reader: [user, user with recent] or owner",
                    "+ doc#viewer: [user, user with recent] or owner",
                ],
            ),
            (
                &[("age < 10", "age < 20")],
                &["~ condition recent(age: int) {\n  age < 10\n} → (age: int) {\n  age < 20\n}"],
            ),
            (&[("type team", "# A comment.\ntype team")], &[]),
        ];
        for (edits, expected) in rows {
            let edited = edits.iter().fold(BEFORE.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
            assert_eq!(differences(&parsed(BEFORE), &parsed(&edited)), expected, "{edits:?}");
        }
    }

    #[test]
    fn a_model_is_converted_there_and_back() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (text_file, json_file) = (directory.path().join("model.fga"), directory.path().join("model.json"));
        std::fs::write(&text_file, BEFORE).expect("written");
        let from_text = read(&text_file, References::Beside).expect("a model").model;
        std::fs::write(&json_file, json_value(from_text.source()).expect("JSON").to_string()).expect("written");
        let from_json = read(&json_file, References::Beside).expect("a model").model;
        assert_eq!(from_json.source(), from_text.source());
        assert_eq!(parsed(&dsl::print_with_sources(from_json.source())), parsed(BEFORE));
    }

    #[test]
    fn what_the_language_cannot_say_is_not_converted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("model.json");
        let user = r#"{"directly_related_user_types": [{"type": "user"}]}"#;
        let subtracted =
            r#"{"difference": {"base": {"computedUserset": {"relation": "a"}}, "subtract": {"this": {}}}}"#;
        let text = format!(
            r#"{{"schema_version": "1.1", "type_definitions": [{{"type": "user"}}, {{"type": "doc",
            "relations": {{"a": {{"this": {{}}}}, "b": {subtracted}}},
            "metadata": {{"relations": {{"a": {user}, "b": {user}}}}}}}]}}"#
        );
        std::fs::write(&file, text).expect("written");
        let refused = convert(&of(&file), &Output::new(Format::Table)).expect_err("refused");
        let words = "cannot say relation `b` of type `doc`: a but not [user]";
        assert!(format!("{refused:?}").contains(words), "{refused:?}");
    }

    fn of(file: &Path) -> FileArgs {
        FileArgs { file: file.to_owned(), store_file: StoreFileArgs { allow_external_files: false } }
    }

    /// OpenFGA's limits hold for every command that reads a model or tuples.
    #[test]
    fn what_an_openfga_server_would_refuse_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let conditions: Vec<String> = (0..26).map(|n| format!("condition c{n}(x: int) {{ x < {n} }}\n")).collect();
        let with: Vec<String> = (0..26).map(|n| format!("user with c{n}")).collect();
        let with = with.join(", ");
        let model = format!(
            "model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define a: [{with}]\n{}",
            conditions.concat()
        );
        let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<Vec<_>>().concat();
        let long = "x".repeat(33_000);
        let tuple = format!(
            "model: |\n{}tuples:\n  - user: user:anne\n    relation: reader\n    object: doc:1\n    \
             condition: {{name: recent, context: {{age: 1, note: {long}}}}}\n",
            indented(&BEFORE.replace("age: int", "age: int, note: string"))
        );
        let rows = [
            ("a.fga", model.clone(), "26 conditions, at most 25"),
            ("a.fga.yaml", format!("model: |\n{}", indented(&model)), "26 conditions, at most 25"),
            ("b.fga.yaml", tuple, "at most 32768 are allowed"),
        ];
        for (name, text, words) in rows {
            let file = directory.path().join(name);
            std::fs::write(&file, text).expect("written");
            let refused = validate(&of(&file), &Output::new(Format::Table)).err().map(|failure| format!("{failure:?}"));
            assert!(refused.as_ref().is_some_and(|refused| refused.contains(words)), "{name}: {refused:?}");
        }
    }

    #[test]
    fn what_is_no_model_is_told_with_the_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, text, expected) in [
            ("a.fga", "model\n  schema 1.1\ntype doc\n  relations\n    define a: b\n", "a.fga"),
            ("a.json", "{\"schema_version\": \"1.1\", \"types\": []}", "unknown field"),
            ("a.fga.yaml", "tuples: []", "a.fga.yaml"),
        ] {
            let file = directory.path().join(name);
            std::fs::write(&file, text).expect("written");
            let failure =
                read(&file, References::Beside).err().map(|failure| format!("{failure:?}")).unwrap_or_default();
            assert!(failure.contains(expected), "{name}: {failure}");
        }
    }
}
