//! Decides which documents a run of ingestion may remove, because their files are gone.
//!
//! A run that does not know all of its files removes nothing: a file that cannot be read looks like one that is gone, and so does
//! a folder whose disk is not mounted.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::EmptyFolder;

/// The largest share of a source's documents that a run removes unless it is told otherwise, in percent.
pub const SHARE_MAX: u8 = 20;

/// The facts that a decision rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneFacts {
    /// The documents of the source that the collection had before the run.
    pub before: BTreeSet<String>,
    /// The documents of the source that it has now. Another source may have taken one over meanwhile.
    pub now: BTreeSet<String>,
    /// The documents that this run read.
    pub read: BTreeSet<String>,
    /// The number of files, folders and lines that this run could not read or that had no text.
    pub skipped: u64,
    /// The folders of the source that hold no file. They are left out if the run may remove what came from them.
    pub empty_folders: Vec<EmptyFolder>,
}

/// The reason why a run removes nothing, although documents of its source seem to be gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PruneRefusal {
    /// A file was skipped, and its document may be one of those that seem to be gone.
    #[error(
        "nothing was removed, because {skipped} files or lines were skipped, and their documents may be among those"
    )]
    Skipped {
        /// The number of files, folders and lines that were skipped.
        skipped: u64,
    },
    /// The run read no document at all.
    #[error("nothing was removed, because nothing was read; is the folder the right one, and its disk mounted?")]
    NothingRead,
    /// A folder of which documents were read before is empty now.
    #[error(
        "nothing was removed, because `{}` is empty, and {gone} documents came from it; is its disk mounted? If they are to be removed, \
         add `--prune-empty-folders`", .folder.display()
    )]
    EmptyFolder {
        /// The folder that is empty.
        folder: PathBuf,
        /// The number of documents that came from it.
        gone: usize,
    },
    /// Too large a share of the documents seems to be gone.
    #[error(
        "nothing was removed: {gone} of the {stored} documents of this source are gone, which is more than {share_max} %; if that \
         is right, raise `--prune-max`"
    )]
    TooMany {
        /// The number of documents that seem to be gone.
        gone: usize,
        /// The number of documents of the source before the run.
        stored: usize,
        /// The largest share that the run may remove, in percent.
        share_max: u8,
    },
}

impl PruneFacts {
    /// Returns the documents to remove, at most `share_max` percent of those that the source had before the run.
    ///
    /// # Errors
    /// When documents seem to be gone, and the run cannot be sure of it.
    pub fn gone(&self, share_max: u8) -> Result<BTreeSet<String>, PruneRefusal> {
        let (stored, skipped) = (self.before.len(), self.skipped);
        let missing = self.before.difference(&self.read);
        let gone: BTreeSet<String> = missing.filter(|id| self.now.contains(*id)).cloned().collect();
        if gone.is_empty() {
            return Ok(gone);
        }
        if skipped > 0 {
            return Err(PruneRefusal::Skipped { skipped });
        }
        if self.read.is_empty() {
            return Err(PruneRefusal::NothingRead);
        }
        for EmptyFolder { path, ids_begin } in &self.empty_folders {
            let gone = gone.iter().filter(|id| id.starts_with(ids_begin)).count();
            if gone > 0 {
                return Err(PruneRefusal::EmptyFolder { folder: path.clone(), gone });
            }
        }
        if gone.len().saturating_mul(100) > stored.saturating_mul(usize::from(share_max)) {
            return Err(PruneRefusal::TooMany { gone: gone.len(), stored, share_max });
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_run_removes_only_what_it_knows_to_be_gone() {
        let five = "a b c d e";
        let skipped = |skipped| PruneRefusal::Skipped { skipped };
        let too_many = |gone, share_max| PruneRefusal::TooMany { gone, stored: 5, share_max };
        // Each row: before, now, read, skipped, the largest share, and what is removed.
        let rows = [
            ("nothing is gone", five, five, five, 0, 20, Ok("")),
            ("one of five", five, five, "a b c d", 0, 20, Ok("e")),
            ("two of five", five, five, "a b c", 0, 20, Err(too_many(2, 20))),
            ("two of five, if that may be", five, five, "a b c", 0, 40, Ok("d e")),
            ("no share at all", five, five, "a b c d", 0, 0, Err(too_many(1, 0))),
            (
                "new documents do not dilute the share",
                five,
                "a b c d e v w x y z",
                "a b c v w x y z",
                0,
                20,
                Err(too_many(2, 20)),
            ),
            ("a file was skipped", five, five, "a b c d", 1, 100, Err(skipped(1))),
            ("a file was skipped, and nothing is gone", five, five, five, 1, 20, Ok("")),
            ("an empty mount", five, five, "", 0, 100, Err(PruneRefusal::NothingRead)),
            ("another source took one over", five, "a b c d", "a b c d", 0, 20, Ok("")),
            ("the first run", "", "a b", "a b", 0, 20, Ok("")),
            ("written by another run meanwhile", "a b", "a b c", "a b", 0, 20, Ok("")),
        ];
        for (row, before, now, read, skipped, share_max, expected) in rows {
            let facts =
                PruneFacts { before: ids(before), now: ids(now), read: ids(read), skipped, ..PruneFacts::default() };
            assert_eq!(facts.gone(share_max), expected.map(ids), "{row}");
        }
    }

    #[test]
    fn a_folder_that_is_empty_now_may_be_a_disk_that_is_not_mounted() {
        let folder = |ids_begin: &str| EmptyFolder { path: PathBuf::from("/docs/a"), ids_begin: ids_begin.to_owned() };
        let refused = |gone| Err(PruneRefusal::EmptyFolder { folder: PathBuf::from("/docs/a"), gone });
        // Each row: the documents that were read of `a/1 a/2 ab/1 b/1 b/2`, the empty folders, and what is removed.
        let rows = [
            ("no folder is empty", "a/2 ab/1 b/1 b/2", vec![], Ok("a/1")),
            ("a folder of the documents", "ab/1 b/1 b/2", vec![folder("a/")], refused(2)),
            ("a folder that never had documents", "a/2 ab/1 b/1 b/2", vec![folder("c/")], Ok("a/1")),
            ("one of several", "ab/1 b/1 b/2", vec![folder("c/"), folder("a/")], refused(2)),
            ("a name that begins alike", "a/1 a/2 b/1 b/2", vec![folder("a/")], Ok("ab/1")),
            ("nothing is gone", "a/1 a/2 ab/1 b/1 b/2", vec![folder("a/")], Ok("")),
        ];
        for (row, read, empty_folders, expected) in rows {
            let all = || ids("a/1 a/2 ab/1 b/1 b/2");
            let facts = PruneFacts { before: all(), now: all(), read: ids(read), skipped: 0, empty_folders };
            assert_eq!(facts.gone(100), expected.map(ids), "{row}");
        }
    }
}
