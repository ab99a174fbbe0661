//! Reads and writes `OpenFGA`'s store files (`.fga.yaml`), and runs the tests in them. A store file holds a model, tuples,
//! and tests of what the two mean.
//!
//! A file that `fga model test` refuses or fails does not pass here either. `tests/data/store_files.yaml` has a row for
//! each such case, and also for each case that only this module refuses, with the reason.
//!
//! Three keys are ours: `retrieval` in a test, `documents`, which it searches, and `store_file`, which takes model and tuples
//! from a file that has none of the three. `fga` refuses a file with one of them.
//!
//! Ids such as `1` or `true` occur, so every scalar is read as text, except in a context.

mod csv;
mod forms;
mod run;
#[cfg(test)]
mod tests;
mod write;
mod yaml;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::forms::{FormError, StoreForm, TestForm, TupleForm};
use crate::engine::snapshot::UserFilter;
use crate::language::dsl::modules::{self, ModelErrors, ModuleText};
use crate::language::dsl::{self, SourceErrors};
use crate::language::json;
use crate::language::tuple::{Object, Relation, RelationshipTuple, TypeName, User};
use crate::language::validate::ValidModel;

pub use run::{AssertionKind, AssertionOutcome, StoreOutcome, TestOutcome, run};
pub use write::{ModelForm, ModelPlace, StoreFileWriter};

/// The greatest size of a store file or tuple file, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The most assertions of a store file. A check asserts every combination of its users, objects and relations, so a small file
/// could ask for more outcomes than memory holds. So many take some hundred megabytes.
pub const ASSERTIONS_MAX: usize = 500_000;

/// A store file, together with the content of all files that it names.
#[derive(Debug)]
pub struct StoreFile {
    /// The name of the store; empty if the file gives none.
    pub name: String,
    /// The model, which is valid.
    pub model: ValidModel,
    /// The tuples that all tests share.
    pub tuples: Vec<RelationshipTuple>,
    /// The documents that searches are tested on: a folder with a catalog, or a file of chunks.
    pub documents: Option<PathBuf>,
    /// The tests, in the order of the file.
    pub tests: Vec<StoreTest>,
}

/// One test of a store file.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreTest {
    /// The name of the test; empty if the file gives none.
    pub name: String,
    /// The tuples that this test adds to the shared ones.
    pub tuples: Vec<RelationshipTuple>,
    /// Assertions about the outcomes of checks.
    pub checks: Vec<CheckTest>,
    /// Assertions about lists of objects.
    pub list_objects: Vec<ListObjectsTest>,
    /// Assertions about lists of users.
    pub list_users: Vec<ListUsersTest>,
    /// Assertions about searches. [`run`] passes over them, because they need documents.
    pub retrieval: Vec<RetrievalTest>,
}

impl StoreTest {
    /// Counts the assertions of this test: each combination of a check, each list and each search.
    fn assertions_total(&self) -> usize {
        let of_check = |check: &CheckTest| {
            let questions = check.users.len().saturating_mul(check.objects.len());
            questions.saturating_mul(check.assertions.len())
        };
        let checks = self.checks.iter().map(of_check);
        let lists = self.list_objects.iter().map(|list| list.assertions.len());
        let users = self.list_users.iter().map(|list| list.assertions.len());
        checks.chain(lists).chain(users).fold(self.retrieval.len(), usize::saturating_add)
    }
}

/// Asserts the outcome of a check for every combination of user, object and relation.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckTest {
    /// The users to check.
    pub users: Vec<User>,
    /// The objects to check.
    pub objects: Vec<Object>,
    /// Values for the parameters of conditions.
    pub context: Map<String, Value>,
    /// Whether the relation is expected to be held, for each relation.
    pub assertions: Vec<(Relation, bool)>,
}

/// Asserts which objects of a type a user holds a relation on.
#[derive(Clone, Debug, PartialEq)]
pub struct ListObjectsTest {
    /// The user whose objects are listed.
    pub user: User,
    /// The type of the listed objects.
    pub type_name: TypeName,
    /// Values for the parameters of conditions.
    pub context: Map<String, Value>,
    /// The expected objects for each relation, sorted.
    pub assertions: Vec<(Relation, Vec<Object>)>,
}

/// Asserts which users hold a relation on an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ListUsersTest {
    /// The object whose users are listed.
    pub object: Object,
    /// The kind of users to list.
    pub filter: UserFilter,
    /// Values for the parameters of conditions.
    pub context: Map<String, Value>,
    /// The expected users for each relation, sorted.
    pub assertions: Vec<(Relation, Vec<User>)>,
}

/// Asserts which documents a search finds for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrievalTest {
    /// The user who asks.
    pub user: Object,
    /// The text that is searched for.
    pub query: String,
    /// How many documents are asked for.
    pub documents_max: u32,
    /// The ids of the documents that must be among these.
    pub expect: Vec<String>,
    /// The ids of the documents that must not be among these.
    pub not: Vec<String>,
}

/// Says why a store file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreFileError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {detail}")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The system's own words.
        detail: String,
    },
    /// A file does not have the form that its kind demands. The detail names the line.
    #[error("`{path}`: {detail}")]
    Malformed {
        /// The path of the file.
        path: PathBuf,
        /// The mistake and its line.
        detail: String,
    },
    /// The file names another one that [`References::Beside`] does not allow.
    #[error("`{path}`: `{name}` is not in the folder of the store file or below it")]
    Elsewhere {
        /// The path of the file that names the other one.
        path: PathBuf,
        /// The other file, as it is named.
        name: String,
    },
    /// The modules of the model have mistakes.
    #[error("the model of `{path}` has mistakes:\n{errors}")]
    Modules {
        /// The path of the `fga.mod`.
        path: PathBuf,
        /// The mistakes, by module.
        errors: ModelErrors,
    },
    /// The model has mistakes.
    #[error("the model of `{path}` has mistakes{}:\n{errors}", .counted_from.note())]
    Model {
        /// The path of the file that holds the model.
        path: PathBuf,
        /// The text in which `errors` counts lines and columns.
        text: String,
        /// Whether `text` is the whole file or the model alone.
        counted_from: CountedFrom,
        /// The mistakes, each with its place in `text`.
        errors: SourceErrors,
    },
}

/// The text in which lines and columns are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedFrom {
    /// The whole file, from its first line.
    File,
    /// The model alone. Its lines do not stand in the file unchanged.
    Model,
}

impl CountedFrom {
    /// Returns a note on how lines are counted; empty if they are the lines of the file.
    #[must_use]
    pub fn note(self) -> &'static str {
        match self {
            Self::File => "",
            Self::Model => " (lines are counted from its first line)",
        }
    }
}

/// Says which files a store file may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum References {
    /// Only files in the store file's own folder and below. Whoever wrote the store file then cannot make the reader
    /// open its other files.
    #[default]
    Beside,
    /// Files in any folder.
    Anywhere,
}

/// Reads a store file and the files that it names, which must be in its folder or below.
///
/// # Errors
/// See [`StoreFileError`].
pub fn read(path: &Path) -> Result<StoreFile, StoreFileError> {
    read_with(path, References::Beside)
}

/// Like [`read`], and lets the caller choose where the named files may be.
///
/// # Errors
/// See [`StoreFileError`].
pub fn read_with(path: &Path, references: References) -> Result<StoreFile, StoreFileError> {
    let io = |e: std::io::Error| StoreFileError::Io { path: path.to_owned(), detail: e.to_string() };
    let bounds = match references {
        References::Beside => Some(folder_of(path).canonicalize().map_err(io)?),
        References::Anywhere => None,
    };
    Reader { path, bounds: bounds.as_deref() }.store()
}

/// Reads a model: an `fga.mod` with the modules that it names, OpenFGA's JSON if the name ends in `.json`, and the
/// modeling language otherwise.
///
/// # Errors
/// See [`StoreFileError`].
pub fn read_model(path: &Path) -> Result<ValidModel, StoreFileError> {
    Reader { path, bounds: None }.model_file()
}

/// Reads a tuple file in one of the forms of `OpenFGA`'s tools: `.yaml`, `.json`, `.jsonl` or `.csv`.
///
/// # Errors
/// See [`StoreFileError`]; also when the file names a tuple twice.
pub fn read_tuples(path: &Path) -> Result<Vec<RelationshipTuple>, StoreFileError> {
    let reader = Reader { path, bounds: None };
    let tuples = reader.tuple_file()?;
    reader.refuse_repeated(tuples.iter())?;
    Ok(tuples)
}

/// A model and its tuples.
struct World {
    model: ValidModel,
    tuples: Vec<RelationshipTuple>,
}

/// Reads one file, and through [`Reader::other`] the files that it names.
struct Reader<'a> {
    path: &'a Path,
    /// The folder that all named files must be in; `None` allows every folder.
    bounds: Option<&'a Path>,
}

impl Reader<'_> {
    fn store(&self) -> Result<StoreFile, StoreFileError> {
        let text = self.text()?;
        let mut store: StoreForm = self.yaml(&text)?;
        let World { model, tuples } = match store.store_file.take().filter(|file| !file.is_empty()) {
            None => self.world(&text, &mut store)?,
            Some(file) => self.world_of(&file, &mut store)?,
        };
        let documents = store.documents.filter(|name| !name.is_empty());
        let documents = documents.map(|name| self.documents(&name)).transpose()?;
        let mut tests = Vec::new();
        for test in store.tests.into_iter().flatten() {
            tests.push(self.test(test)?);
        }
        if documents.is_none() && tests.iter().any(|test| !test.retrieval.is_empty()) {
            return Err(self.malformed("it has `retrieval` and no `documents` to search"));
        }
        for test in &tests {
            self.refuse_repeated(tuples.iter().chain(&test.tuples))?;
        }
        self.refuse_repeated(tuples.iter())?;
        let assertions = tests.iter().fold(0_usize, |sum, test| sum.saturating_add(test.assertions_total()));
        if assertions > ASSERTIONS_MAX {
            return Err(self.malformed(format!(
                "its tests have {assertions} assertions, at most {ASSERTIONS_MAX} are allowed; a check asserts every combination of \
                 its users, objects and relations"
            )));
        }
        Ok(StoreFile { name: store.name.unwrap_or_default(), model, tuples, documents, tests })
    }

    /// Takes the model and the tuples out of a form.
    fn world(&self, text: &str, store: &mut StoreForm) -> Result<World, StoreFileError> {
        let model = self.model(text, store.model.take(), store.model_file.take())?;
        let files = store.tuple_file.take().into_iter().chain(store.tuple_files.take().into_iter().flatten());
        Ok(World { model, tuples: self.tuples(store.tuples.take(), files)? })
    }

    /// Takes the model and the tuples of another store file, and adds the form's own tuples.
    fn world_of(&self, file: &str, store: &mut StoreForm) -> Result<World, StoreFileError> {
        if store.model.is_some() || store.model_file.is_some() {
            return Err(self.malformed("it has both `store_file` and a model"));
        }
        let path = self.beside(file)?;
        let other = self.other(&path);
        let text = other.text()?;
        let mut form: StoreForm = other.yaml(&text)?;
        if form.store_file.is_some() {
            return Err(other.malformed("another file names it as `store_file`, so it cannot name one itself"));
        }
        let World { model, mut tuples } = other.world(&text, &mut form)?;
        let files = store.tuple_file.take().into_iter().chain(store.tuple_files.take().into_iter().flatten());
        tuples.extend(self.tuples(store.tuples.take(), files)?);
        Ok(World { model, tuples })
    }

    fn model(&self, store: &str, inline: Option<String>, file: Option<String>) -> Result<ValidModel, StoreFileError> {
        let given = |text: &String| !text.is_empty();
        match (inline.filter(given), file.filter(given)) {
            (Some(text), None) => self.inline_model(store, text),
            (None, Some(file)) => self.other(&self.beside(&file)?).model_file(),
            (Some(_), Some(_)) => Err(self.malformed("it has both `model` and `model_file`")),
            (None, None) => Err(self.malformed("it has neither `model` nor `model_file`")),
        }
    }

    fn model_file(&self) -> Result<ValidModel, StoreFileError> {
        if is_manifest(self.path) {
            return self.modules();
        }
        let text = self.text()?;
        if self.extension() != "json" {
            return self.model_text(text);
        }
        let model = json::parse(&text).map_err(|e| self.malformed(e.to_string()))?;
        ValidModel::new(model).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            self.malformed(lines.join("\n"))
        })
    }

    fn model_text(&self, text: String) -> Result<ValidModel, StoreFileError> {
        dsl::load(&text).map_err(|errors| self.model_error(text, errors, CountedFrom::File))
    }

    /// Parses a model that stands inside a store file. If its lines stand in the file unchanged, mistakes are reported
    /// with their places in the file.
    fn inline_model(&self, store: &str, text: String) -> Result<ValidModel, StoreFileError> {
        dsl::load(&text).map_err(|errors| match place_of_model(store, &text) {
            Some((lines, columns)) => {
                self.model_error(store.to_owned(), errors.moved(lines, columns), CountedFrom::File)
            }
            None => self.model_error(text, errors, CountedFrom::Model),
        })
    }

    fn model_error(&self, text: String, errors: SourceErrors, counted_from: CountedFrom) -> StoreFileError {
        StoreFileError::Model { path: self.path.to_owned(), text, counted_from, errors }
    }

    fn modules(&self) -> Result<ValidModel, StoreFileError> {
        let text = self.text()?;
        let files =
            modules::parse_manifest(&text).map_err(|errors| self.model_error(text, errors, CountedFrom::File))?;
        let mut parts = Vec::new();
        for file in files {
            let text = self.other(&self.beside(&file)?).text()?;
            parts.push(ModuleText { file, text });
        }
        modules::load(&parts).map_err(|errors| StoreFileError::Modules { path: self.path.to_owned(), errors })
    }

    fn tuples(
        &self,
        inline: Option<Vec<TupleForm>>,
        files: impl Iterator<Item = String>,
    ) -> Result<Vec<RelationshipTuple>, StoreFileError> {
        let mut tuples = self.parse_tuples(inline.into_iter().flatten())?;
        for file in files.filter(|file| !file.is_empty()) {
            tuples.extend(self.other(&self.beside(&file)?).tuple_file()?);
        }
        Ok(tuples)
    }

    /// Reads a tuple file in one of the forms of `OpenFGA`'s tools: `.yaml`, `.json`, `.jsonl` or `.csv`.
    fn tuple_file(&self) -> Result<Vec<RelationshipTuple>, StoreFileError> {
        let text = self.text()?;
        let forms = match self.extension().as_str() {
            "yaml" | "yml" => self.yaml::<Option<Vec<TupleForm>>>(&text)?.unwrap_or_default(),
            "json" => serde_json::from_str::<Vec<TupleForm>>(&text).map_err(|e| self.malformed(e.to_string()))?,
            "jsonl" => {
                let mut forms = Vec::new();
                for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
                    let form = serde_json::from_str::<TupleForm>(line);
                    forms.push(form.map_err(|e| self.malformed(format!("line {number}: {e}")))?);
                }
                forms
            }
            // Unlike the other forms, a table may have no rows.
            "csv" => return self.parse_tuples(csv::tuples(&text).map_err(|detail| self.malformed(detail))?),
            _ => return Err(self.malformed("a tuple file must end in `.yaml`, `.json`, `.jsonl` or `.csv`")),
        };
        if forms.is_empty() {
            return Err(self.malformed("it holds no tuples"));
        }
        self.parse_tuples(forms)
    }

    fn parse_tuples(
        &self,
        tuples: impl IntoIterator<Item = TupleForm>,
    ) -> Result<Vec<RelationshipTuple>, StoreFileError> {
        let mut parsed = Vec::new();
        for (form, number) in tuples.into_iter().zip(1..) {
            parsed.push(form.tuple().map_err(|e| self.malformed(format!("tuple {number}: {e}")))?);
        }
        Ok(parsed)
    }

    fn test(&self, test: TestForm) -> Result<StoreTest, StoreFileError> {
        let name = test.name.unwrap_or_default();
        let in_test =
            |kind: &str, number: usize, e: &FormError| self.malformed(format!("test `{name}`: {kind} {number}: {e}"));
        let mut checks = Vec::new();
        for (form, number) in test.check.into_iter().flatten().zip(1..) {
            checks.push(form.test().map_err(|e| in_test("check", number, &e))?);
        }
        let mut list_objects = Vec::new();
        for (form, number) in test.list_objects.into_iter().flatten().zip(1..) {
            list_objects.push(form.test().map_err(|e| in_test("list_objects", number, &e))?);
        }
        let mut list_users = Vec::new();
        for (form, number) in test.list_users.into_iter().flatten().zip(1..) {
            list_users.push(form.test().map_err(|e| in_test("list_users", number, &e))?);
        }
        let mut retrieval = Vec::new();
        for (form, number) in test.retrieval.into_iter().flatten().zip(1..) {
            retrieval.push(form.test().map_err(|e| in_test("retrieval", number, &e))?);
        }
        let tuples = self.tuples(test.tuples, test.tuple_file.into_iter())?;
        Ok(StoreTest { name, tuples, checks, list_objects, list_users, retrieval })
    }

    /// Refuses tuples that occur twice. `OpenFGA` refuses to write them, so a test with such a tuple could not run
    /// there.
    fn refuse_repeated<'t>(&self, tuples: impl Iterator<Item = &'t RelationshipTuple>) -> Result<(), StoreFileError> {
        let mut seen = HashSet::new();
        for tuple in tuples {
            if !seen.insert(tuple.key()) {
                return Err(self.malformed(format!("tuple `{tuple}` occurs more than once")));
            }
        }
        Ok(())
    }

    fn text(&self) -> Result<String, StoreFileError> {
        let io = |detail: String| StoreFileError::Io { path: self.path.to_owned(), detail };
        let bytes = std::fs::metadata(self.path).map_err(|e| io(e.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(io(format!("it has {bytes} bytes, at most {FILE_BYTES_MAX} are allowed")));
        }
        let text = std::fs::read_to_string(self.path).map_err(|e| io(e.to_string()))?;
        // Some editors and spreadsheets begin a file with a byte order mark.
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }

    fn yaml<T: DeserializeOwned>(&self, text: &str) -> Result<T, StoreFileError> {
        yaml::from_str(text).map_err(|e| self.malformed(e.to_string()))
    }

    fn extension(&self) -> String {
        self.path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase()
    }

    /// Returns a reader for a file that this one names.
    fn other<'p>(&'p self, path: &'p Path) -> Reader<'p> {
        Reader { path, bounds: self.bounds }
    }

    /// Returns the path of a file that this one names.
    fn beside(&self, name: &str) -> Result<PathBuf, StoreFileError> {
        let path = self.allowed(name)?;
        // Reading a pipe or a device might never end.
        if path.is_file() { Ok(path) } else { Err(self.malformed(format!("`{name}` is not a file"))) }
    }

    /// Returns the path of the documents that this file names.
    fn documents(&self, name: &str) -> Result<PathBuf, StoreFileError> {
        let path = self.allowed(name)?;
        if path.is_dir() || path.is_file() {
            Ok(path)
        } else {
            Err(self.malformed(format!("`{name}` is neither a folder nor a file")))
        }
    }

    /// Returns the path that a name in this file leads to, if the file may name it.
    fn allowed(&self, name: &str) -> Result<PathBuf, StoreFileError> {
        let path = folder_of(self.path).join(name);
        let target = path.canonicalize();
        let target = target.map_err(|e| StoreFileError::Io { path: path.clone(), detail: e.to_string() })?;
        if self.bounds.is_some_and(|bounds| Path::new(name).is_absolute() || !target.starts_with(bounds)) {
            return Err(StoreFileError::Elsewhere { path: self.path.to_owned(), name: name.to_owned() });
        }
        Ok(path)
    }

    fn malformed(&self, detail: impl Into<String>) -> StoreFileError {
        StoreFileError::Malformed { path: self.path.to_owned(), detail: detail.into() }
    }
}

/// Finds the model in the text of a store file: how many lines stand before it, and by how many columns it is indented.
/// Returns `None` unless every line of the model stands in the file as it is, as it does in a block that begins with
/// `|`.
fn place_of_model(store: &str, model: &str) -> Option<(usize, usize)> {
    let first = model.lines().position(|line| !line.trim().is_empty())?;
    let lines_ahead = yaml::line_of(store, "model")?.checked_sub(first.saturating_add(1))?;
    let block = || store.lines().skip(lines_ahead).map(|line| line.trim_end_matches('\r'));
    let columns = block().nth(first)?.len().checked_sub(model.lines().nth(first)?.len())?;
    let indent = " ".repeat(columns);
    let mut written = block();
    let stands = |line: &str, written: &str| {
        written.strip_prefix(&indent) == Some(line) || line.trim().is_empty() && written.trim().is_empty()
    };
    model
        .lines()
        .all(|line| written.next().is_some_and(|written| stands(line, written)))
        .then_some((lines_ahead, columns))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns whether a file lists the modules of a model.
fn is_manifest(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with("fga.mod"))
}
