//! The fields of a store file, and what they mean. As in Go, a field that is missing or null counts as empty.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{CheckTest, ListObjectsTest, ListUsersTest, RetrievalTest};
use crate::engine::snapshot::UserFilter;
use crate::language::limits::TUPLE_CONDITION_CHARS_MIN;
use crate::language::tuple::{Object, ParseError, Relation, RelationshipTuple, TupleCondition, TypeName, User};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StoreForm {
    pub(super) name: Option<String>,
    /// Ours: another store file, whose model and tuples this one takes.
    pub(super) store_file: Option<String>,
    pub(super) model: Option<String>,
    pub(super) model_file: Option<String>,
    pub(super) tuples: Option<Vec<TupleForm>>,
    pub(super) tuple_file: Option<String>,
    pub(super) tuple_files: Option<Vec<String>>,
    /// Ours: the documents that `retrieval` searches.
    pub(super) documents: Option<String>,
    pub(super) tests: Option<Vec<TestForm>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TestForm {
    pub(super) name: Option<String>,
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    pub(super) tuples: Option<Vec<TupleForm>>,
    pub(super) tuple_file: Option<String>,
    pub(super) check: Option<Vec<CheckForm>>,
    pub(super) list_objects: Option<Vec<ListObjectsForm>>,
    pub(super) list_users: Option<Vec<ListUsersForm>>,
    /// Ours: searches, and the documents that they find.
    pub(super) retrieval: Option<Vec<RetrievalForm>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TupleForm {
    pub(super) user: Option<String>,
    pub(super) relation: Option<String>,
    pub(super) object: Option<String>,
    pub(super) condition: Option<ConditionForm>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConditionForm {
    pub(super) name: Option<String>,
    pub(super) context: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CheckForm {
    user: Option<String>,
    users: Option<Vec<String>>,
    object: Option<String>,
    objects: Option<Vec<String>>,
    context: Option<Map<String, Value>>,
    assertions: Option<BTreeMap<String, Option<bool>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListObjectsForm {
    user: Option<String>,
    #[serde(rename = "type")]
    type_name: Option<String>,
    context: Option<Map<String, Value>>,
    assertions: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListUsersForm {
    object: Option<String>,
    user_filter: Option<Vec<UserFilterForm>>,
    context: Option<Map<String, Value>>,
    assertions: Option<BTreeMap<String, UsersForm>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UserFilterForm {
    #[serde(rename = "type")]
    type_name: Option<String>,
    relation: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UsersForm {
    users: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetrievalForm {
    user: Option<String>,
    query: Option<String>,
    top_k: Option<u32>,
    expect: Option<Vec<String>>,
    not: Option<Vec<String>>,
}

/// How many documents a search asks for unless the test says it.
const TOP_K: u32 = 10;

/// Says why a question cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormError {
    #[error(transparent)]
    Name(#[from] ParseError),
    #[error("it has neither `{0}` nor `{0}s`, so it asks nothing")]
    Missing(&'static str),
    #[error("it has both `{0}` and `{0}s`")]
    Both(&'static str),
    #[error("`user_filter` must be a list of one filter, as it is for OpenFGA; it has {0}")]
    Filters(usize),
    #[error("it has no `query`")]
    NoQuery,
    #[error("it has neither `expect` nor `not`, so every answer would be right")]
    NothingExpected,
    #[error("`{0}` is in both `expect` and `not`")]
    Contradiction(String),
    #[error("`top_k` must be at least 1 and at least the number of documents in `expect`")]
    TopK,
    #[error(
        "the name of the condition `{0}` must have at least {TUPLE_CONDITION_CHARS_MIN} characters, as it must for OpenFGA"
    )]
    ConditionName(String),
}

impl TupleForm {
    pub(super) fn tuple(self) -> Result<RelationshipTuple, FormError> {
        let [user, relation, object] = [self.user, self.relation, self.object].map(Option::unwrap_or_default);
        let parsed = RelationshipTuple::parse(&user, &relation, &object)?;
        let Some(ConditionForm { name, context }) = self.condition else { return Ok(parsed) };
        let name = name.unwrap_or_default();
        if name.chars().count() < TUPLE_CONDITION_CHARS_MIN {
            return Err(FormError::ConditionName(name));
        }
        Ok(parsed.with_condition(TupleCondition::new(&name, context.unwrap_or_default())?))
    }
}

impl CheckForm {
    pub(super) fn test(self) -> Result<CheckTest, FormError> {
        let mut assertions = Vec::new();
        for (relation, held) in self.assertions.unwrap_or_default() {
            assertions.push((Relation::parse(&relation)?, held.unwrap_or_default()));
        }
        let users = one_or_many("user", self.user, self.users)?;
        let objects = one_or_many("object", self.object, self.objects)?;
        Ok(CheckTest {
            users: parsed(&users, User::parse)?,
            objects: parsed(&objects, Object::parse)?,
            context: self.context.unwrap_or_default(),
            assertions,
        })
    }
}

impl ListObjectsForm {
    pub(super) fn test(self) -> Result<ListObjectsTest, FormError> {
        let mut assertions = Vec::new();
        for (relation, objects) in self.assertions.unwrap_or_default() {
            let mut objects = parsed(&objects.unwrap_or_default(), Object::parse)?;
            objects.sort_unstable();
            assertions.push((Relation::parse(&relation)?, objects));
        }
        Ok(ListObjectsTest {
            user: User::parse(&self.user.unwrap_or_default())?,
            type_name: TypeName::parse(&self.type_name.unwrap_or_default())?,
            context: self.context.unwrap_or_default(),
            assertions,
        })
    }
}

impl ListUsersForm {
    pub(super) fn test(self) -> Result<ListUsersTest, FormError> {
        let filters = self.user_filter.unwrap_or_default();
        let [filter] = <[UserFilterForm; 1]>::try_from(filters).map_err(|filters| FormError::Filters(filters.len()))?;
        let relation = filter.relation.filter(|relation| !relation.is_empty());
        let filter = UserFilter {
            type_name: TypeName::parse(&filter.type_name.unwrap_or_default())?,
            relation: relation.map(|relation| Relation::parse(&relation)).transpose()?,
        };
        let mut assertions = Vec::new();
        for (relation, users) in self.assertions.unwrap_or_default() {
            let mut users = parsed(&users.users.unwrap_or_default(), User::parse)?;
            users.sort_unstable();
            assertions.push((Relation::parse(&relation)?, users));
        }
        Ok(ListUsersTest {
            object: Object::parse(&self.object.unwrap_or_default())?,
            filter,
            context: self.context.unwrap_or_default(),
            assertions,
        })
    }
}

impl RetrievalForm {
    pub(super) fn test(self) -> Result<RetrievalTest, FormError> {
        let query = self.query.filter(|query| !query.trim().is_empty()).ok_or(FormError::NoQuery)?;
        let (expect, not) = (self.expect.unwrap_or_default(), self.not.unwrap_or_default());
        if expect.is_empty() && not.is_empty() {
            return Err(FormError::NothingExpected);
        }
        if let Some(id) = expect.iter().find(|id| not.contains(id)) {
            return Err(FormError::Contradiction(id.clone()));
        }
        let documents_max = self.top_k.unwrap_or(TOP_K);
        if documents_max == 0 || usize::try_from(documents_max).is_ok_and(|max| max < expect.len()) {
            return Err(FormError::TopK);
        }
        Ok(RetrievalTest { user: Object::parse(&self.user.unwrap_or_default())?, query, documents_max, expect, not })
    }
}

/// Returns the values of the one field that is set, out of a field for one value and a field for many. One of them must
/// be set: a check of nobody would pass under any model.
fn one_or_many(field: &'static str, one: Option<String>, many: Option<Vec<String>>) -> Result<Vec<String>, FormError> {
    let (one, many) = (one.unwrap_or_default(), many.unwrap_or_default());
    match (one.is_empty(), many.is_empty()) {
        (false, false) => Err(FormError::Both(field)),
        (true, true) => Err(FormError::Missing(field)),
        (false, true) => Ok(vec![one]),
        (true, false) => Ok(many),
    }
}

fn parsed<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, ParseError>) -> Result<Vec<T>, FormError> {
    texts.iter().map(|text| parse(text).map_err(FormError::Name)).collect()
}
