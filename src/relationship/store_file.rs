//! `OpenFGA`'s store files (`.fga.yaml`), unchanged: a model, tuples, and tests of what they mean.
//!
//! Every scalar but those of a context is read as text, because ids such as `1` or `true` occur.

mod csv;
mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::dsl::{self, SourceErrors};
use super::snapshot::UserFilter;
use super::tuple::{Object, ParseError, Relation, RelationshipTuple, TupleCondition, TypeName, User};
use super::validate::ValidModel;

pub use run::{AssertionKind, AssertionOutcome, StoreOutcome, TestOutcome, run};

/// Longest store or tuple file, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A store file with everything that it refers to.
#[derive(Debug)]
pub struct StoreFile {
    /// The name of the store; may be empty.
    pub name: String,
    /// The model.
    pub model: ValidModel,
    /// The tuples of all tests.
    pub tuples: Vec<RelationshipTuple>,
    /// The tests.
    pub tests: Vec<StoreTest>,
}

/// One test of a store file.
#[derive(Debug)]
pub struct StoreTest {
    /// Its name.
    pub name: String,
    /// Tuples that only this test has.
    pub tuples: Vec<RelationshipTuple>,
    /// Who holds what.
    pub checks: Vec<CheckTest>,
    /// Which objects somebody holds a relation on.
    pub list_objects: Vec<ListObjectsTest>,
    /// Who holds a relation on an object.
    pub list_users: Vec<ListUsersTest>,
}

/// Every user of it is checked for every object and relation.
#[derive(Debug)]
pub struct CheckTest {
    /// The users.
    pub users: Vec<User>,
    /// The objects.
    pub objects: Vec<Object>,
    /// Values for the parameters of conditions.
    pub context: Map<String, Value>,
    /// By relation: whether it is held.
    pub assertions: Vec<(Relation, bool)>,
}

/// The objects of a type, by relation.
#[derive(Debug)]
pub struct ListObjectsTest {
    /// The user.
    pub user: User,
    /// The type.
    pub type_name: TypeName,
    /// Values for the parameters of conditions.
    pub context: Map<String, Value>,
    /// By relation: the objects, sorted.
    pub assertions: Vec<(Relation, Vec<Object>)>,
}

/// The users of an object, by relation.
#[derive(Debug)]
pub struct ListUsersTest {
    /// The object.
    pub object: Object,
    /// Which users are meant.
    pub filter: UserFilter,
    /// Values for the parameters of conditions.
    pub context: Map<String, Value>,
    /// By relation: the users, sorted.
    pub assertions: Vec<(Relation, Vec<User>)>,
}

/// Why a store file cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum StoreFileError {
    /// It uses what Ragward cannot evaluate yet.
    #[error("`{path}`: {what} are not supported yet")]
    NotSupported {
        /// The file.
        path: PathBuf,
        /// Modules.
        what: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read `{path}`: {detail}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// A file does not have the form of its kind; the detail names the line.
    #[error("`{path}`: {detail}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The model has mistakes.
    #[error("the model of `{path}` has mistakes:\n{errors}")]
    Model {
        /// The file with the model.
        path: PathBuf,
        /// The text that the places refer to.
        text: String,
        /// The mistakes.
        errors: SourceErrors,
    },
}

/// Reads a store file and the files that it names, which are looked up beside it.
///
/// # Errors
/// See [`StoreFileError`].
pub fn read(path: &Path) -> Result<StoreFile, StoreFileError> {
    Reader { path }.store()
}

/// Reads a file of tuples: `.yaml`, `.json`, `.jsonl` or `.csv`, as `OpenFGA`'s tools write them.
///
/// # Errors
/// See [`StoreFileError`].
pub fn read_tuples(path: &Path) -> Result<Vec<RelationshipTuple>, StoreFileError> {
    Reader { path }.tuple_file()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreYaml {
    #[serde(default)]
    name: Option<String>,
    model: Option<String>,
    model_file: Option<String>,
    #[serde(default)]
    tuples: Option<Vec<TupleYaml>>,
    tuple_file: Option<String>,
    #[serde(default)]
    tuple_files: Option<Vec<String>>,
    #[serde(default)]
    tests: Option<Vec<TestYaml>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestYaml {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    tuples: Option<Vec<TupleYaml>>,
    tuple_file: Option<String>,
    #[serde(default)]
    tuple_files: Option<Vec<String>>,
    #[serde(default)]
    check: Option<Vec<CheckYaml>>,
    #[serde(default)]
    list_objects: Option<Vec<ListObjectsYaml>>,
    #[serde(default)]
    list_users: Option<Vec<ListUsersYaml>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TupleYaml {
    user: String,
    relation: String,
    object: String,
    #[serde(default)]
    condition: Option<ConditionYaml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionYaml {
    name: String,
    #[serde(default)]
    context: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckYaml {
    user: Option<String>,
    #[serde(default)]
    users: Option<Vec<String>>,
    object: Option<String>,
    #[serde(default)]
    objects: Option<Vec<String>>,
    #[serde(default)]
    context: Option<Map<String, Value>>,
    assertions: BTreeMap<String, bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListObjectsYaml {
    user: String,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default)]
    context: Option<Map<String, Value>>,
    assertions: BTreeMap<String, Option<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListUsersYaml {
    object: String,
    user_filter: Vec<UserFilterYaml>,
    #[serde(default)]
    context: Option<Map<String, Value>>,
    assertions: BTreeMap<String, UsersYaml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserFilterYaml {
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default)]
    relation: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersYaml {
    #[serde(default)]
    users: Option<Vec<String>>,
}

/// Reads one file; the path is for the errors.
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn store(&self) -> Result<StoreFile, StoreFileError> {
        let store: StoreYaml = self.yaml(&self.text()?)?;
        let model = self.model(store.model, store.model_file)?;
        let tuples = self.tuples(store.tuples, store.tuple_file, store.tuple_files)?;
        let tests = store.tests.into_iter().flatten().map(|test| self.test(test));
        Ok(StoreFile { name: store.name.unwrap_or_default(), model, tuples, tests: tests.collect::<Result<_, _>>()? })
    }

    fn model(&self, inline: Option<String>, file: Option<String>) -> Result<ValidModel, StoreFileError> {
        let (path, text) = match (inline, file) {
            (Some(text), None) => (self.path.to_owned(), text),
            (None, Some(file)) => {
                let path = self.beside(&file);
                if path.file_name().is_some_and(|name| name == "fga.mod") {
                    return Err(StoreFileError::NotSupported { path: self.path.to_owned(), what: "modules" });
                }
                let text = Reader { path: &path }.text()?;
                (path, text)
            }
            (Some(_), Some(_)) => return Err(self.malformed("it has both `model` and `model_file`")),
            (None, None) => return Err(self.malformed("it has neither `model` nor `model_file`")),
        };
        dsl::load(&text).map_err(|errors| match errors.unsupported() {
            Some(what) => StoreFileError::NotSupported { path: self.path.to_owned(), what },
            None => StoreFileError::Model { path, text, errors },
        })
    }

    fn tuples(
        &self,
        inline: Option<Vec<TupleYaml>>,
        file: Option<String>,
        files: Option<Vec<String>>,
    ) -> Result<Vec<RelationshipTuple>, StoreFileError> {
        let mut tuples = self.parse_tuples(inline.into_iter().flatten())?;
        for file in file.into_iter().chain(files.into_iter().flatten()) {
            tuples.extend(read_tuples(&self.beside(&file))?);
        }
        Ok(tuples)
    }

    fn tuple_file(&self) -> Result<Vec<RelationshipTuple>, StoreFileError> {
        let text = self.text()?;
        let extension = self.path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        match extension.as_str() {
            "yaml" | "yml" => self.parse_tuples(self.yaml::<Vec<TupleYaml>>(&text)?),
            "json" => {
                let tuples = serde_json::from_str::<Vec<TupleYaml>>(&text);
                self.parse_tuples(tuples.map_err(|e| self.malformed(e.to_string()))?)
            }
            "jsonl" => {
                let mut tuples = Vec::new();
                for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
                    let tuple = serde_json::from_str::<TupleYaml>(line);
                    tuples.push(tuple.map_err(|e| self.malformed(format!("line {number}: {e}")))?);
                }
                self.parse_tuples(tuples)
            }
            "csv" => self.parse_tuples(csv::tuples(&text).map_err(|detail| self.malformed(detail))?),
            _ => Err(self.malformed("a tuple file must end in `.yaml`, `.json`, `.jsonl` or `.csv`")),
        }
    }

    fn parse_tuples(
        &self,
        tuples: impl IntoIterator<Item = TupleYaml>,
    ) -> Result<Vec<RelationshipTuple>, StoreFileError> {
        let mut parsed = Vec::new();
        for (tuple, number) in tuples.into_iter().zip(1..) {
            parsed.push(parse_tuple(tuple).map_err(|e| self.malformed(format!("tuple {number}: {e}")))?);
        }
        Ok(parsed)
    }

    fn test(&self, test: TestYaml) -> Result<StoreTest, StoreFileError> {
        let name = test.name.unwrap_or_default();
        let in_test = |e: ParseError| self.malformed(format!("test `{name}`: {e}"));
        let checks = test.check.into_iter().flatten().map(check);
        let list_objects = test.list_objects.into_iter().flatten().map(list_objects);
        let list_users: Result<Vec<Vec<ListUsersTest>>, ParseError> =
            test.list_users.into_iter().flatten().map(list_users).collect();
        Ok(StoreTest {
            tuples: self.tuples(test.tuples, test.tuple_file, test.tuple_files)?,
            checks: checks.collect::<Result<_, _>>().map_err(in_test)?,
            list_objects: list_objects.collect::<Result<_, _>>().map_err(in_test)?,
            list_users: list_users.map_err(in_test)?.into_iter().flatten().collect(),
            name: name.clone(),
        })
    }

    fn text(&self) -> Result<String, StoreFileError> {
        let io = |detail: String| StoreFileError::Io { path: self.path.to_owned(), detail };
        let bytes = std::fs::metadata(self.path).map_err(|e| io(e.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(io(format!("it has {bytes} bytes, at most {FILE_BYTES_MAX} are allowed")));
        }
        std::fs::read_to_string(self.path).map_err(|e| io(e.to_string()))
    }

    fn yaml<T: DeserializeOwned>(&self, text: &str) -> Result<T, StoreFileError> {
        // The bounds on nesting and aliases stay; those on the size are given by `FILE_BYTES_MAX`.
        let options = serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! {
                max_events: usize::MAX,
                max_nodes: usize::MAX,
                max_total_scalar_bytes: usize::MAX,
            },
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|e| self.malformed(e.to_string()))
    }

    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    fn malformed(&self, detail: impl Into<String>) -> StoreFileError {
        StoreFileError::Malformed { path: self.path.to_owned(), detail: detail.into() }
    }
}

fn parse_tuple(tuple: TupleYaml) -> Result<RelationshipTuple, ParseError> {
    let parsed = RelationshipTuple::parse(&tuple.user, &tuple.relation, &tuple.object)?;
    match tuple.condition {
        None => Ok(parsed),
        Some(ConditionYaml { name, context }) => {
            Ok(parsed.with_condition(TupleCondition::new(&name, context.unwrap_or_default())?))
        }
    }
}

fn check(test: CheckYaml) -> Result<CheckTest, ParseError> {
    let users = test.user.into_iter().chain(test.users.into_iter().flatten());
    let objects = test.object.into_iter().chain(test.objects.into_iter().flatten());
    let assertions = test.assertions.into_iter().map(|(relation, held)| Ok((Relation::parse(&relation)?, held)));
    Ok(CheckTest {
        users: users.map(|user| User::parse(&user)).collect::<Result<_, _>>()?,
        objects: objects.map(|object| Object::parse(&object)).collect::<Result<_, _>>()?,
        context: test.context.unwrap_or_default(),
        assertions: assertions.collect::<Result<_, _>>()?,
    })
}

fn list_objects(test: ListObjectsYaml) -> Result<ListObjectsTest, ParseError> {
    let mut assertions = Vec::new();
    for (relation, objects) in test.assertions {
        let objects: Result<Vec<Object>, ParseError> =
            objects.into_iter().flatten().map(|object| Object::parse(&object)).collect();
        let mut objects = objects?;
        objects.sort_unstable();
        assertions.push((Relation::parse(&relation)?, objects));
    }
    Ok(ListObjectsTest {
        user: User::parse(&test.user)?,
        type_name: TypeName::parse(&test.type_name)?,
        context: test.context.unwrap_or_default(),
        assertions,
    })
}

/// One test for each filter.
fn list_users(test: ListUsersYaml) -> Result<Vec<ListUsersTest>, ParseError> {
    let object = Object::parse(&test.object)?;
    let context = test.context.unwrap_or_default();
    let mut tests = Vec::new();
    for filter in test.user_filter {
        let relation = filter.relation.filter(|relation| !relation.is_empty());
        let filter = UserFilter {
            type_name: TypeName::parse(&filter.type_name)?,
            relation: relation.map(|relation| Relation::parse(&relation)).transpose()?,
        };
        let mut assertions = Vec::new();
        for (relation, users) in &test.assertions {
            let users: Result<Vec<User>, ParseError> =
                users.users.iter().flatten().map(|user| User::parse(user)).collect();
            let mut users = users?;
            users.sort_unstable();
            assertions.push((Relation::parse(relation)?, users));
        }
        tests.push(ListUsersTest { object: object.clone(), filter, context: context.clone(), assertions });
    }
    Ok(tests)
}
