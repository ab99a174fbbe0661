//! Stored names in the percent-encoding of older versions. No token gives such a name any more, so a ban under one bans nobody.
//! A server looks for them before it accepts tokens, and `ragward names rewrite` rewrites them.

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
struct Found {
    count: usize,
    /// The first tuples with old names, each with its new form or the reason why it has none.
    old: Vec<(RelationshipTuple, Result<RelationshipTuple, String>)>,
}

impl Found {
    fn look_at(&mut self, names: &OldNames, tuple: RelationshipTuple) {
        let Some(new) = names.rewritten(&tuple) else { return };
        self.count += 1;
        if self.old.len() < OLD_MAX {
            self.old.push((tuple, new.map_err(|e| e.to_string())));
        }
    }

    /// Fails if any stored tuple has an old name.
    fn refuse(&self) -> Result<(), AppError> {
        if self.count == 0 {
            return Ok(());
        }
        let example = |(tuple, new): &(RelationshipTuple, Result<RelationshipTuple, String>)| match new {
            Ok(new) => format!("`{tuple}` (now `{new}`)"),
            Err(problem) => format!("`{tuple}` ({problem})"),
        };
        let examples: Vec<String> = self.old.iter().take(EXAMPLES_MAX).map(example).collect();
        Err(AppError::OldNames(format!(
            "{} stored tuples have names in the percent-encoding of an older version, so they are about nobody, and bans in \
             them ban nobody: {}. Run `ragward names rewrite` with the same `--config`, or set `identity.old_names = \
             \"accept\"` if these names are meant",
            self.count,
            examples.join(", ")
        )))
    }
}

/// Looks for old names and lets tokens in once there are none. It does not return while a server is out of reach.
///
/// # Errors
/// If there are old names, or that cannot be found out.
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

/// Finds the tuples with old names, and with `rewrites` puts those of today in their place.
///
/// # Errors
/// If the store cannot be read.
pub async fn rewrite_names(config: &Config, rewrites: bool) -> Result<NamesReport, AppError> {
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
            for (old, new) in found.rewritable() {
                // For a moment both are stored, so that a ban never lapses.
                let written = store.write_tuples(std::slice::from_ref(new)).await;
                let replaced = match written {
                    Ok(()) => store.delete_tuples(std::slice::from_ref(old)).await,
                    Err(error) => Err(error),
                };
                problems.push(replaced.err().map(|error| error.to_string()));
            }
            Ok(found.report(problems))
        }
    }
}

impl Found {
    /// Returns the tuples that have a name of today, each with the new one.
    fn rewritable(&self) -> impl Iterator<Item = (&RelationshipTuple, &RelationshipTuple)> {
        self.old.iter().filter_map(|(old, new)| Some((old, new.as_ref().ok()?)))
    }

    /// Makes the report. `problems` has an entry for each rewritable tuple, in order: `None` if it was rewritten. It is empty if
    /// nothing was tried.
    fn report(&self, problems: Vec<Option<String>>) -> NamesReport {
        let mut report = NamesReport { found: self.count, ..NamesReport::default() };
        let mut problems = problems.into_iter();
        for (old, new) in &self.old {
            let (rewritten, problem) = match new {
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
            report.left.push(OldTuple { stored: old.to_string(), rewritten, problem });
        }
        report
    }
}

async fn in_embedded(stores: &RelationshipStores, names: &OldNames) -> Result<Found, AppError> {
    let Some(store) = stores.default_store() else { return Ok(Found::default()) };
    let names = names.clone();
    let looking = move || {
        let mut found = Found::default();
        store.each_tuple(|tuple| found.look_at(&names, tuple))?;
        Ok(found)
    };
    tokio::task::spawn_blocking(looking).await?
}

async fn in_server_once_there(config: &Config, names: &OldNames) -> Result<Found, AppError> {
    let source = OpenFgaSource::new(&config.authorizer.openfga)?;
    let [mut wait, longest] = RETRY_WAITS;
    loop {
        match in_server(&source, names).await {
            Err(AppError::Names(error)) => {
                tracing::warn!(%error, "stored names are not checked yet, so no token is taken");
                tokio::time::sleep(wait).await;
                wait = longest.min(wait * 2);
            }
            ended => return ended,
        }
    }
}

async fn in_server(source: &OpenFgaSource, names: &OldNames) -> Result<Found, AppError> {
    let mut found = Found::default();
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
fn rewrite_embedded(store: &RelationshipStore, found: &Found) -> Vec<Option<String>> {
    let pairs: Vec<(&RelationshipTuple, &RelationshipTuple)> = found.rewritable().collect();
    let write = |pairs: &[(&RelationshipTuple, &RelationshipTuple)]| {
        store.write(&TupleWrite {
            writes: pairs.iter().map(|(_, new)| (*new).clone()).collect(),
            deletes: pairs.iter().map(|(old, _)| (*old).clone()).collect(),
            on_duplicate: OnConflict::Ignore,
            on_missing: OnConflict::Ignore,
        })
    };
    let one_by_one = |pairs: &[(&RelationshipTuple, &RelationshipTuple)]| {
        let problem = |pair| write(std::slice::from_ref(pair)).err().map(|error| error.to_string());
        pairs.iter().map(problem).collect::<Vec<_>>()
    };
    let each = |pairs: &[(&RelationshipTuple, &RelationshipTuple)]| match write(pairs) {
        Ok(_) => vec![None; pairs.len()],
        // One of them cannot be written, so each is written by itself.
        Err(_) => one_by_one(pairs),
    };
    pairs.chunks(TUPLES_PER_WRITE_MAX / 2).flat_map(each).collect()
}
