//! Stored names in the percent-encoding of older versions. Tokens no longer give such names, so a ban on an old name
//! bans nobody. A server looks for old names before it accepts tokens, and `ragward names rewrite` rewrites them.

use std::time::Duration;

use super::AppError;
use crate::authz::openfga::{OpenFgaSource, OpenFgaStore};
use crate::authz::replica::source::RelationshipSource;
use crate::config::{AuthorizerKind, Config};
use crate::identity::config::OldNamesPolicy;
use crate::identity::old_names::OldNames;
use crate::language::RelationshipTuple;
use crate::server::TokenAuthentication;
use crate::tuple_store::{OnConflict, RelationshipStore, RelationshipStores, TUPLES_PER_WRITE_MAX, TupleWrite};

/// The most tuples that are read from an `OpenFGA` server. At 100 tuples a call and 10 ms a call, this takes 100
/// seconds. The embedded store is always read to its end.
const TUPLES_READ_MAX: usize = 1_000_000;
/// The most tuples that one run rewrites; all of them are in memory at once.
const OLD_MAX: usize = 100_000;
/// The most tuples that an error names.
const EXAMPLES_MAX: usize = 5;
/// The first and the longest pause between two tries while a server is out of reach.
const RETRY_WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// A tuple with an old name.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OldTuple {
    /// The tuple as it is stored.
    pub stored: String,
    /// The tuple with the name of today.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<String>,
    /// The reason why it cannot be rewritten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The tuples with old names, and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct NamesReport {
    /// The number of tuples with old names.
    pub found: usize,
    /// The number of those that were rewritten.
    pub rewritten: usize,
    /// The tuples that still have old names.
    pub left: Vec<OldTuple>,
}

/// The tuples with old names in one store.
#[derive(Default)]
struct OldTuples {
    count: usize,
    /// The first of the tuples, at most [`OLD_MAX`].
    first: Vec<FoundTuple>,
}

/// A stored tuple with an old name.
struct FoundTuple {
    stored: RelationshipTuple,
    /// The tuple with the name of today, or the reason why there is none.
    rewritten: Result<RelationshipTuple, String>,
}

/// A stored tuple, and the one that takes its place.
#[derive(Clone, Copy)]
struct Replacement<'f> {
    stored: &'f RelationshipTuple,
    rewritten: &'f RelationshipTuple,
}

/// The treatment of tuples with old names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldNamesAction {
    /// Report the tuples, and change none.
    Report,
    /// Rewrite them with the names of today.
    Rewrite,
}

impl OldTuples {
    fn look_at(&mut self, names: &OldNames, tuple: RelationshipTuple) {
        let Some(new) = names.rewritten(&tuple) else { return };
        self.count += 1;
        if self.first.len() < OLD_MAX {
            self.first.push(FoundTuple { stored: tuple, rewritten: new.map_err(|e| e.to_string()) });
        }
    }

    /// Fails if any stored tuple has an old name.
    fn refuse(&self) -> Result<(), AppError> {
        if self.count == 0 {
            return Ok(());
        }
        let example = |FoundTuple { stored, rewritten }: &FoundTuple| match rewritten {
            Ok(new) => format!("`{stored}` (now `{new}`)"),
            Err(problem) => format!("`{stored}` ({problem})"),
        };
        let examples: Vec<String> = self.first.iter().take(EXAMPLES_MAX).map(example).collect();
        Err(AppError::OldNames(format!(
            "{} stored tuples have names in the percent-encoding of an older version, so they are about nobody, and bans in \
             them ban nobody: {}. Run `ragward names rewrite` with the same `--config`, or set `identity.old_names = \
             \"accept\"` if these names are meant",
            self.count,
            examples.join(", ")
        )))
    }
}

/// Looks for old names, unless the configuration accepts them, and lets tokens in if there are none. While the server
/// that holds the names is out of reach, this keeps trying and does not return.
///
/// # Errors
/// If there are old names, or the store cannot be read.
pub(super) async fn check(
    config: &Config,
    relationships: Option<&RelationshipStores>,
    tokens: &TokenAuthentication,
) -> Result<(), AppError> {
    if config.identity.old_names == OldNamesPolicy::Refuse {
        let names = OldNames::new(&config.identity)?;
        match relationships {
            Some(stores) => in_embedded(stores, &names).await?.refuse()?,
            None => in_server_once_there(config, &names).await?.refuse()?,
        }
    }
    tokens.open();
    Ok(())
}

/// Finds the tuples with old names and, if asked to, rewrites them.
///
/// # Errors
/// If the store cannot be read.
pub async fn rewrite_names(config: &Config, action: OldNamesAction) -> Result<NamesReport, AppError> {
    let rewrites = action == OldNamesAction::Rewrite;
    let names = OldNames::new(&config.identity)?;
    match config.authorizer.kind {
        AuthorizerKind::Embedded => {
            let directory = config.data.directory.clone();
            let stores = tokio::task::spawn_blocking(move || RelationshipStores::open(&directory)).await??;
            let found = in_embedded(&stores, &names).await?;
            let Some(store) = stores.default_store().filter(|_| rewrites) else { return Ok(found.report(Vec::new())) };
            let rewriting = move || {
                let problems = rewrite_embedded(&store, &found);
                found.report(problems)
            };
            Ok(tokio::task::spawn_blocking(rewriting).await?)
        }
        AuthorizerKind::Openfga => {
            let source = OpenFgaSource::new(&config.authorizer.openfga)?;
            let found = in_server(&source, &names).await?;
            if !rewrites || found.count == 0 {
                return Ok(found.report(Vec::new()));
            }
            let store =
                OpenFgaStore::open(&config.authorizer.openfga).await.map_err(|e| AppError::OldNames(e.to_string()))?;
            let mut problems = Vec::new();
            for Replacement { stored, rewritten } in found.rewritable() {
                // The new tuple is written before the old one is deleted, so that a ban never lapses.
                let written = store.write_tuples(std::slice::from_ref(rewritten)).await;
                let replaced = match written {
                    Ok(()) => store.delete_tuples(std::slice::from_ref(stored)).await,
                    Err(error) => Err(error),
                };
                problems.push(replaced.err().map(|error| error.to_string()));
            }
            Ok(found.report(problems))
        }
    }
}

impl OldTuples {
    /// Returns each tuple with an old name that can be rewritten, together with its rewritten form.
    fn rewritable(&self) -> impl Iterator<Item = Replacement<'_>> {
        self.first.iter().filter_map(|FoundTuple { stored, rewritten }| {
            let rewritten = rewritten.as_ref().ok()?;
            Some(Replacement { stored, rewritten })
        })
    }

    /// Makes the report. `problems` has one entry for each rewritable tuple, in order: `None` if the tuple was
    /// rewritten, otherwise the problem. `problems` is empty if no tuple was to be rewritten.
    fn report(&self, problems: Vec<Option<String>>) -> NamesReport {
        let mut report = NamesReport { found: self.count, ..NamesReport::default() };
        let mut problems = problems.into_iter();
        for FoundTuple { stored, rewritten } in &self.first {
            let (rewritten, problem) = match rewritten {
                Err(problem) => (None, Some(problem.clone())),
                Ok(new) => match problems.next() {
                    Some(None) => {
                        report.rewritten += 1;
                        continue;
                    }
                    Some(problem) => (Some(new.to_string()), problem),
                    None => (Some(new.to_string()), None),
                },
            };
            report.left.push(OldTuple { stored: stored.to_string(), rewritten, problem });
        }
        report
    }
}

async fn in_embedded(stores: &RelationshipStores, names: &OldNames) -> Result<OldTuples, AppError> {
    let Some(store) = stores.default_store() else { return Ok(OldTuples::default()) };
    let names = names.clone();
    let looking = move || {
        let mut found = OldTuples::default();
        store.each_tuple(|tuple| found.look_at(&names, tuple))?;
        Ok(found)
    };
    tokio::task::spawn_blocking(looking).await?
}

async fn in_server_once_there(config: &Config, names: &OldNames) -> Result<OldTuples, AppError> {
    let source = OpenFgaSource::new(&config.authorizer.openfga)?;
    let [mut wait, longest] = RETRY_WAITS;
    loop {
        match in_server(&source, names).await {
            Err(AppError::Names(error)) => {
                tracing::warn!(%error, "stored names are not checked yet, so no token is accepted");
                tokio::time::sleep(wait).await;
                wait = longest.min(wait * 2);
            }
            ended => return ended,
        }
    }
}

async fn in_server(source: &OpenFgaSource, names: &OldNames) -> Result<OldTuples, AppError> {
    let mut found = OldTuples::default();
    let Some(store_id) = source.store_id().await.map_err(AppError::Names)? else { return Ok(found) };
    let (mut token, mut read) = (String::new(), 0);
    loop {
        let page = source.tuples(&store_id, &token).await.map_err(AppError::Names)?;
        read += page.items.len();
        for tuple in page.items {
            found.look_at(names, tuple);
        }
        if page.next.is_empty() {
            return Ok(found);
        }
        if read >= TUPLES_READ_MAX {
            return Err(AppError::OldNames(format!(
                "the store has more than {TUPLES_READ_MAX} tuples, which are too many to look for names in the \
                 percent-encoding of an older version; see that there are none, and set `identity.old_names = \"accept\"`"
            )));
        }
        token = page.next;
    }
}

/// Rewrites the rewritable tuples of the embedded store. Returns the problem of each, in order.
fn rewrite_embedded(store: &RelationshipStore, found: &OldTuples) -> Vec<Option<String>> {
    let all: Vec<Replacement<'_>> = found.rewritable().collect();
    let write = |some: &[Replacement<'_>]| {
        store.write(&TupleWrite {
            writes: some.iter().map(|one| one.rewritten.clone()).collect(),
            deletes: some.iter().map(|one| one.stored.clone()).collect(),
            on_duplicate: OnConflict::Ignore,
            on_missing: OnConflict::Ignore,
        })
    };
    let one_by_one = |some: &[Replacement<'_>]| {
        let problem = |one| write(std::slice::from_ref(one)).err().map(|error| error.to_string());
        some.iter().map(problem).collect::<Vec<_>>()
    };
    let each = |some: &[Replacement<'_>]| match write(some) {
        Ok(_) => vec![None; some.len()],
        // One of the tuples cannot be written, so each tuple is written by itself.
        Err(_) => one_by_one(some),
    };
    all.chunks(TUPLES_PER_WRITE_MAX / 2).flat_map(each).collect()
}
