//! `ragward test`: runs the tests in OpenFGA store files, unchanged, and those of searches.

mod junit;
mod searches;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::model::{StoreFileArgs, store_file_text};
use super::{Failure, Output};
use crate::config::{Config, Overrides};
use crate::retrieval::RetrievalConfig;
use crate::store_file::{self, StoreFile, StoreFileError};
use crate::store_file::{AssertionKind, AssertionOutcome, References, StoreOutcome, TestOutcome};

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The store files (`.fga.yaml`).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the outcome of each test as `JUnit`'s XML, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    store_file: StoreFileArgs,
}

#[derive(Serialize)]
struct TestReport {
    tests: Count,
    checks: Count,
    list_objects: Count,
    list_users: Count,
    retrieval: Count,
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
    #[serde(skip)]
    cases: Vec<Case>,
}

/// A test of a file, with what is wrong.
struct Case {
    name: String,
    faults: Vec<String>,
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

impl FailedAssertion {
    /// Returns what was asked, what was expected and what came, on one line.
    fn line(&self) -> String {
        let Self { test: _, kind, question, expected, got } = self;
        format!("{kind} {question}: expected {expected}, got {got}")
    }
}

/// Fails if an assertion fails or a file cannot be run, because tests that did not run have not passed.
pub(super) async fn run(args: &TestArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let mut summary = TestReport {
        tests: Count::default(),
        checks: Count::default(),
        list_objects: Count::default(),
        list_users: Count::default(),
        retrieval: Count::default(),
        files: Vec::new(),
    };
    for path in &args.files {
        let file = test_file(path, args.store_file.references(), config, &mut summary).await?;
        summary.files.push(file);
    }
    if let Some(file) = &args.junit {
        let written = std::fs::write(file, junit::xml(&summary.files));
        written.map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
    }
    output.result(&summary, || people(&summary))?;
    let failed = summary.files.iter().filter(|file| file.not_run.is_some() || !file.failures.is_empty()).count();
    if failed > 0 {
        Err(Failure::failed(format!("{failed} of {} files did not pass", args.files.len())))
    } else {
        Ok(())
    }
}

async fn test_file(
    path: &Path,
    references: References,
    config: Option<&Path>,
    summary: &mut TestReport,
) -> Result<FileReport, Failure> {
    if path.extension().is_some_and(|extension| extension == "fga" || extension == "json" || extension == "mod") {
        let path = path.display();
        return Err(Failure::usage(format!(
            "`{path}` is a model; tests are in store files (`.fga.yaml`), which name a model, tuples and what should follow \
             from them; `ragward model validate {path}` checks a model"
        )));
    }
    let not_run = |reason: String| FileReport {
        path: path.to_owned(),
        not_run: Some(reason),
        failures: Vec::new(),
        cases: Vec::new(),
    };
    let store = match store_file::read_with(path, references) {
        Ok(store) => store,
        Err(error @ StoreFileError::Io { .. }) => return Err(Failure::usage(error.to_string())),
        Err(error) => return Ok(not_run(store_file_text(&error))),
    };
    let has_searches = searches::are_in(&store);
    let outcome = match store_file::run(store) {
        Ok(outcome) => outcome,
        Err(misfit) => return Ok(not_run(misfit.to_string())),
    };
    let mut failures: Vec<Vec<FailedAssertion>> = outcome.tests.iter().map(failures_of).collect();
    if has_searches {
        // The tests have used up what was read, so the file is read once more.
        let store = match store_file::read_with(path, references) {
            Ok(store) => store,
            Err(error) => return Ok(not_run(store_file_text(&error))),
        };
        let searched = match searches_of(store, config).await {
            Ok(searched) => searched,
            Err(failure) => return Ok(not_run(failure.text().to_owned())),
        };
        for (of_test, searches) in failures.iter_mut().zip(searched) {
            summary.retrieval.add(searches.total.saturating_sub(searches.failures.len()), searches.total);
            of_test.extend(searches.failures);
        }
    }
    summary.tests.add(failures.iter().filter(|of_test| of_test.is_empty()).count(), outcome.tests.len());
    for (count, kind) in [
        (&mut summary.checks, AssertionKind::Check),
        (&mut summary.list_objects, AssertionKind::ListObjects),
        (&mut summary.list_users, AssertionKind::ListUsers),
    ] {
        let (passed, total) = outcome.count(kind);
        count.add(passed, total);
    }
    let cases = outcome.tests.iter().zip(&failures).map(|(test, of_test)| Case {
        name: test.name.clone(),
        faults: of_test.iter().map(FailedAssertion::line).collect(),
    });
    let cases = cases.collect();
    Ok(FileReport { path: path.to_owned(), not_run: None, failures: failures.into_iter().flatten().collect(), cases })
}

/// Runs the searches of a store file. Of the configuration, only the relation counts that decides what a user sees.
async fn searches_of(store: StoreFile, config: Option<&Path>) -> Result<Vec<searches::TestSearches>, Failure> {
    let relation = Config::load(config, &Overrides::default())?.retrieval.relation;
    Box::pin(searches::run(store, RetrievalConfig { relation, ..RetrievalConfig::default() })).await
}

fn failures_of(test: &TestOutcome) -> Vec<FailedAssertion> {
    let mut failures = Vec::new();
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
    failures
}

/// Returns the lines that tell a person which assertions of a store file do not hold.
pub(super) fn failing_lines(path: &Path, outcome: &StoreOutcome) -> Vec<String> {
    let failures: Vec<FailedAssertion> = outcome.tests.iter().flat_map(failures_of).collect();
    lines_of(path, &failures)
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
    // The first four are those of `fga`, which knows no searches.
    let searches = [("Retrieval", summary.retrieval)].into_iter().filter(|(_, count)| count.total > 0);
    let counts = counts.into_iter().chain(searches);
    lines.extend(counts.map(|(name, Count { passed, total })| format!("{name} {passed}/{total} passing")));
    lines.join("\n")
}
