//! Runs the tests of a store file in memory.

use std::fmt::{self, Display};
use std::sync::Arc;

use super::{CheckTest, ListObjectsTest, ListUsersTest, StoreFile, StoreTest};
use crate::engine::evaluator::CheckError;
use crate::engine::snapshot::Snapshot;
use crate::language::program::MisfitTuple;

/// The outcome of all tests of a store file.
#[derive(Clone, Debug)]
pub struct StoreOutcome {
    /// One outcome for each test, in the order of the file.
    pub tests: Vec<TestOutcome>,
}

/// The outcome of one test.
#[derive(Clone, Debug)]
pub struct TestOutcome {
    /// The name of the test.
    pub name: String,
    /// One outcome for each assertion: checks first, each kind in the order of the file.
    pub assertions: Vec<AssertionOutcome>,
}

/// The kinds of questions that a test can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionKind {
    /// Asks whether the user holds the relation on the object.
    Check,
    /// Asks on which objects the user holds the relation.
    ListObjects,
    /// Asks which users hold the relation on the object.
    ListUsers,
}

/// A question, the answer that the file expects, and the answer that was given.
#[derive(Clone, Debug)]
pub struct AssertionOutcome {
    /// The kind of the question.
    pub kind: AssertionKind,
    /// The question as a person would read it.
    pub question: String,
    /// The answer that the file expects.
    pub expected: String,
    /// The answer that was given, or why there is none.
    pub got: Result<String, CheckError>,
}

impl StoreOutcome {
    /// Returns whether all assertions of all tests hold.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.tests.iter().all(TestOutcome::passed)
    }

    /// Returns how many assertions of a kind hold, and how many there are.
    #[must_use]
    pub fn count(&self, kind: AssertionKind) -> (usize, usize) {
        let of_kind = || self.tests.iter().flat_map(|test| &test.assertions).filter(|a| a.kind == kind);
        (of_kind().filter(|assertion| assertion.passed()).count(), of_kind().count())
    }
}

impl TestOutcome {
    /// Returns whether all assertions of this test hold.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.assertions.iter().all(AssertionOutcome::passed)
    }
}

impl AssertionOutcome {
    /// Returns whether the answer is the expected one.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.got.as_ref().is_ok_and(|got| *got == self.expected)
    }
}

impl Display for AssertionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::ListObjects => "list objects",
            Self::ListUsers => "list users",
        })
    }
}

/// Runs all tests of a store file.
///
/// # Errors
/// When a tuple does not fit the model.
pub fn run(store: StoreFile) -> Result<StoreOutcome, Box<MisfitTuple>> {
    let common = Snapshot::new("", Arc::new(store.model)).with_tuples(&store.tuples)?;
    let tests: Result<Vec<TestOutcome>, Box<MisfitTuple>> =
        store.tests.iter().map(|test| run_test(&common, test)).collect();
    Ok(StoreOutcome { tests: tests? })
}

fn run_test(common: &Snapshot, test: &StoreTest) -> Result<TestOutcome, Box<MisfitTuple>> {
    let snapshot = common.with_tuples(&test.tuples)?;
    let mut assertions = Vec::new();
    for check in &test.checks {
        run_check(&snapshot, check, &mut assertions);
    }
    for list in &test.list_objects {
        run_list_objects(&snapshot, list, &mut assertions);
    }
    for list in &test.list_users {
        run_list_users(&snapshot, list, &mut assertions);
    }
    Ok(TestOutcome { name: test.name.clone(), assertions })
}

fn run_check(snapshot: &Snapshot, test: &CheckTest, assertions: &mut Vec<AssertionOutcome>) {
    let snapshot = snapshot.with_context(test.context.clone());
    for user in &test.users {
        for object in &test.objects {
            for (relation, held) in &test.assertions {
                assertions.push(AssertionOutcome {
                    kind: AssertionKind::Check,
                    question: format!("user={user}, relation={relation}, object={object}"),
                    expected: held.to_string(),
                    got: snapshot.check(user, relation, object).map(|allowed| allowed.to_string()),
                });
            }
        }
    }
}

fn run_list_objects(snapshot: &Snapshot, test: &ListObjectsTest, assertions: &mut Vec<AssertionOutcome>) {
    let snapshot = snapshot.with_context(test.context.clone());
    for (relation, expected) in &test.assertions {
        let listed = snapshot.list_objects(&test.user, relation, &test.type_name);
        assertions.push(AssertionOutcome {
            kind: AssertionKind::ListObjects,
            question: format!("user={}, relation={relation}, type={}", test.user, test.type_name),
            expected: joined(expected),
            got: listed.map(|objects| joined(&objects)),
        });
    }
}

fn run_list_users(snapshot: &Snapshot, test: &ListUsersTest, assertions: &mut Vec<AssertionOutcome>) {
    let snapshot = snapshot.with_context(test.context.clone());
    for (relation, expected) in &test.assertions {
        let listed = snapshot.list_users(&test.object, relation, &test.filter);
        assertions.push(AssertionOutcome {
            kind: AssertionKind::ListUsers,
            question: format!("object={}, relation={relation}, user type={}", test.object, test.filter),
            expected: joined(expected),
            got: listed.map(|users| joined(&users)),
        });
    }
}

fn joined(items: &[impl Display]) -> String {
    let shown: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", shown.join(", "))
}
