//! `ragward test`: runs the tests in OpenFGA store files, unchanged.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::model::{StoreFileArgs, store_file_text};
use super::{Failure, Output};
use crate::store_file::{self, StoreFileError};
use crate::store_file::{AssertionKind, AssertionOutcome, References, StoreOutcome};

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The store files (`.fga.yaml`).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    store_file: StoreFileArgs,
}

#[derive(Serialize)]
struct TestReport {
    tests: Count,
    checks: Count,
    list_objects: Count,
    list_users: Count,
    files: Vec<FileReport>,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Count {
    passed: usize,
    total: usize,
}

#[derive(Serialize)]
struct FileReport {
    path: PathBuf,
    /// The reason why the file was not run.
    not_run: Option<String>,
    failures: Vec<FailedAssertion>,
}

#[derive(Serialize)]
struct FailedAssertion {
    test: String,
    kind: String,
    question: String,
    expected: String,
    got: String,
}

impl Count {
    fn add(&mut self, passed: usize, total: usize) {
        self.passed += passed;
        self.total += total;
    }
}

/// Fails if an assertion fails or a file cannot be run, because tests that did not run have not passed.
pub(super) fn run(args: &TestArgs, output: &Output) -> Result<(), Failure> {
    let mut summary = TestReport {
        tests: Count::default(),
        checks: Count::default(),
        list_objects: Count::default(),
        list_users: Count::default(),
        files: Vec::new(),
    };
    for path in &args.files {
        let file = test_file(path, args.store_file.references(), &mut summary)?;
        summary.files.push(file);
    }
    output.result(&summary, || people(&summary))?;
    let failed = summary.files.iter().filter(|file| file.not_run.is_some() || !file.failures.is_empty()).count();
    if failed > 0 {
        Err(Failure::failed(format!("{failed} of {} files did not pass", args.files.len())))
    } else {
        Ok(())
    }
}

fn test_file(path: &Path, references: References, summary: &mut TestReport) -> Result<FileReport, Failure> {
    if path.extension().is_some_and(|extension| extension == "fga" || extension == "json" || extension == "mod") {
        let path = path.display();
        return Err(Failure::usage(format!(
            "`{path}` is a model; tests are in store files (`.fga.yaml`), which name a model, tuples and what should follow \
             from them; `ragward model validate {path}` checks a model"
        )));
    }
    let not_run = |reason: String| FileReport { path: path.to_owned(), not_run: Some(reason), failures: Vec::new() };
    let store = match store_file::read_with(path, references) {
        Ok(store) => store,
        Err(error @ StoreFileError::Io { .. }) => return Err(Failure::usage(error.to_string())),
        Err(error) => return Ok(not_run(store_file_text(&error))),
    };
    let outcome = match store_file::run(store) {
        Ok(outcome) => outcome,
        Err(misfit) => return Ok(not_run(misfit.to_string())),
    };
    summary.tests.add(outcome.tests.iter().filter(|test| test.passed()).count(), outcome.tests.len());
    for (count, kind) in [
        (&mut summary.checks, AssertionKind::Check),
        (&mut summary.list_objects, AssertionKind::ListObjects),
        (&mut summary.list_users, AssertionKind::ListUsers),
    ] {
        let (passed, total) = outcome.count(kind);
        count.add(passed, total);
    }
    Ok(FileReport { path: path.to_owned(), not_run: None, failures: failures(&outcome) })
}

fn failures(outcome: &StoreOutcome) -> Vec<FailedAssertion> {
    let mut failures = Vec::new();
    for test in &outcome.tests {
        for AssertionOutcome { kind, question, expected, got } in test.assertions.iter().filter(|a| !a.passed()) {
            let got = got.clone().unwrap_or_else(|error| error.to_string());
            failures.push(FailedAssertion {
                test: test.name.clone(),
                kind: kind.to_string(),
                question: question.clone(),
                expected: expected.clone(),
                got,
            });
        }
    }
    failures
}

/// Returns the lines that tell a person which assertions of a store file do not hold.
pub(super) fn failing_lines(path: &Path, outcome: &StoreOutcome) -> Vec<String> {
    lines_of(path, &failures(outcome))
}

fn lines_of(path: &Path, failures: &[FailedAssertion]) -> Vec<String> {
    let mut lines = Vec::new();
    for FailedAssertion { test, kind, question, expected, got } in failures {
        lines.push(format!("(FAILING) {}: {test}: {kind} {question}", path.display()));
        lines.push(format!("          expected {expected}, got {got}"));
    }
    lines
}

fn people(summary: &TestReport) -> String {
    let mut lines: Vec<String> = Vec::new();
    for file in &summary.files {
        if let Some(reason) = &file.not_run {
            lines.push(format!("not run: {reason}"));
        }
        lines.extend(lines_of(&file.path, &file.failures));
    }
    lines.push("# Test Summary #".to_owned());
    let counts = [
        ("Tests", summary.tests),
        ("Checks", summary.checks),
        ("ListObjects", summary.list_objects),
        ("ListUsers", summary.list_users),
    ];
    lines.extend(counts.map(|(name, Count { passed, total })| format!("{name} {passed}/{total} passing")));
    lines.join("\n")
}
