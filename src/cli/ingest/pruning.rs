//! `ragward ingest --prune`: removes the documents of a source whose files are gone.

use std::collections::BTreeSet;
use std::io::Write;

use super::{Failure, SendOutcome};
use crate::cli::documents;
use crate::client::Client;
use crate::ingest::prune::{PruneFacts, PruneRefusal};
use crate::ingest::{EmptyFolder, SourceLabel};
use crate::visible::visible;

/// A run that removes documents at its end.
pub(super) struct Pruning {
    collection: String,
    label: SourceLabel,
    share_max: u8,
    /// The documents of the source before the run.
    before: BTreeSet<String>,
    /// The empty folders whose documents stay.
    empty_folders: Vec<EmptyFolder>,
}

/// The documents that were removed, or the reason why none was.
pub(super) type Pruned = Result<BTreeSet<String>, PruneRefusal>;

impl Pruning {
    /// Looks up which documents of the source there are before the run.
    pub(super) async fn begin(
        client: &Client,
        collection: &str,
        label: SourceLabel,
        share_max: u8,
        empty_folders: Vec<EmptyFolder>,
    ) -> Result<Self, Failure> {
        let before = of_source(client, collection, &label).await?;
        Ok(Self { collection: collection.to_owned(), label, share_max, before, empty_folders })
    }

    /// Lists the documents that a run would remove.
    pub(super) fn only_list(self, read: &SendOutcome) -> Pruned {
        let now = self.before.clone();
        let gone = self.gone(now, read)?;
        tell(&gone);
        Ok(gone)
    }

    /// Lists the documents that are gone, and then removes them.
    pub(super) async fn finish(self, client: &Client, read: &SendOutcome) -> Result<Pruned, Failure> {
        let now = of_source(client, &self.collection, &self.label).await?;
        let collection = self.collection.clone();
        let gone = match self.gone(now, read) {
            Ok(gone) => gone,
            Err(refused) => return Ok(Err(refused)),
        };
        tell(&gone);
        documents::delete(client, &collection, gone.iter().cloned().collect()).await?;
        Ok(Ok(gone))
    }

    fn gone(self, now: BTreeSet<String>, read: &SendOutcome) -> Pruned {
        // The old text of a file that is empty now stays, so an empty file counts as one that was not read.
        let skipped = read.passed_over_total.saturating_add(read.empty.len()) as u64;
        let Self { before, empty_folders, share_max, .. } = self;
        PruneFacts { before, now, read: read.ids.clone(), skipped, empty_folders }.gone(share_max)
    }
}

/// Returns the ids of the documents in a collection that came from this source; none if there is no such collection.
async fn of_source(client: &Client, collection: &str, label: &SourceLabel) -> Result<BTreeSet<String>, Failure> {
    let listed = documents::all(client, collection).await?;
    Ok(listed
        .into_iter()
        .filter(|document| document.source == label.as_str())
        .map(|document| document.document_id)
        .collect())
}

/// Names the documents that are about to be removed. Standard output holds the result alone, so this goes beside it.
fn tell(gone: &BTreeSet<String>) {
    let mut stderr = std::io::stderr().lock();
    for id in gone {
        // If standard error is closed, the result still names them.
        drop(writeln!(stderr, "remove: {}", visible(id)));
    }
}
