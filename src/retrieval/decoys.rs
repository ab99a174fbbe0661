//! Decoys are objects that guard no chunk. A re-check and a fetch check them in place of guards that do not exist.
//!
//! A check takes time, up to some milliseconds where a server decides. If only chunks that exist were checked, the time
//! of an answer would tell its caller which hidden chunks and documents exist.
//!
//! The guards of other chunks would make even better decoys, since their checks take more similar times. But then logs
//! of checks would show objects that nobody asked about.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::authz::enforce::Enforcer;
use crate::chunk::Candidate;
use crate::language::Object;
use crate::vector_store::GuardTable;

/// The id of each decoy begins with this, so that whoever reads a log of checks recognizes it.
const PREFIX: &str = "ragward-decoy-";
/// The type of decoys if no guard of the collection is known. The reference models use this type.
const TYPE_OF_LAST_RESORT: &str = "document";
/// The fewest checks that each document of a fetch costs. The chunks of a document have one guard, or a few if its sections
/// have rights of their own. One call to an `OpenFGA` server holds the checks of six documents.
///
/// Two cheaper designs were weighed and left out:
/// - Documents of one request could share a smaller number of checks. But a caller could fill that number with guards of its
///   own documents, and then one more check would tell that the document beside them exists. So each id has its own.
/// - All guards of a document could be left unchecked past a number. But a user who may see a later part would not get it.
///
/// So a request of 1,000 absent ids costs 8,000 checks, and a document with more guards than this costs a check each, which tells
/// that it exists (`SECURITY.md`). Checks are bounded by the ids of a request and the guards of its documents, and an id keeps
/// its decoys, so a cache answers them the next time.
const CHECKS_PER_DOCUMENT: usize = 8;

/// The kind of thing that an id names. A chunk and a document of the same id have decoys of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum IdKind {
    Chunk,
    Document,
}

impl IdKind {
    /// Returns how many checks an id costs at least, whatever is found under it.
    const fn checks_min(self) -> usize {
        match self {
            Self::Chunk => 1,
            Self::Document => CHECKS_PER_DOCUMENT,
        }
    }
}

/// An id of a request, with the distinct guards of the chunks that were found under it.
#[derive(Debug)]
pub(super) struct NamedId<'a> {
    id: &'a str,
    guards: Vec<&'a Object>,
}

/// Returns the distinct ids of chunks, with the guards of those that were found.
pub(super) fn named_chunks<'a>(chunk_ids: &'a [String], found: &'a [Candidate]) -> Vec<NamedId<'a>> {
    let guards: HashMap<&str, &Object> =
        found.iter().map(|candidate| (candidate.chunk_id.as_str(), &candidate.guard)).collect();
    let mut seen = HashSet::new();
    let distinct = chunk_ids.iter().map(String::as_str).filter(|id| seen.insert(*id));
    distinct.map(|id| NamedId { id, guards: guards.get(id).copied().into_iter().collect() }).collect()
}

/// Pairs the distinct ids of documents with the guards of each, which are in the same order.
pub(super) fn named_documents<'a>(document_ids: &'a [String], guards: &'a [Vec<Object>]) -> Vec<NamedId<'a>> {
    let named = document_ids.iter().zip(guards);
    named.map(|(id, guards)| NamedId { id, guards: guards.iter().collect() }).collect()
}

/// Makes decoys.
///
/// An id keeps its decoy for as long as the process runs, so a cache remembers a decision about a decoy as it remembers
/// one about a hidden chunk. The names are random, so nobody can write tuples for them ahead.
#[derive(Debug, Default)]
pub(super) struct Decoys(RandomState);

impl Decoys {
    /// Makes the decoys of a re-check: one for each distinct id that causes no check of its own. The chunk of such an
    /// id does not exist, has the same guard as another one, or has a guard that the token's details deny without a
    /// check.
    pub(super) fn beside(
        &self,
        collection: &str,
        kind: IdKind,
        ids: &[NamedId<'_>],
        table: Option<&GuardTable>,
        enforcer: &Enforcer<'_>,
    ) -> Vec<Object> {
        let alike = ids.iter().flat_map(|named| &named.guards).next().copied();
        let mut checked: HashSet<&Object> = HashSet::new();
        let mut decoys = Vec::new();
        for NamedId { id, guards } in ids {
            let mut checks = 0;
            for &guard in guards {
                if enforcer.known(guard).is_none() && checked.insert(guard) {
                    checks += 1;
                }
            }
            let digests = (checks..kind.checks_min()).map(|number| self.0.hash_one((collection, kind, id, number)));
            decoys.extend(digests.filter_map(|digest| decoy(digest, alike, table)));
        }
        decoys
    }
}

/// Makes the decoy of a digest. It has the type of some guard of the collection, so its check takes the same way through
/// the model. `alike` is a guard for a collection whose guards are not listed.
fn decoy(digest: u64, alike: Option<&Object>, table: Option<&GuardTable>) -> Option<Object> {
    let listed = table.and_then(|table| {
        let place = digest.checked_rem(u64::try_from(table.guards.len()).ok()?)?;
        table.guards.get(usize::try_from(place).ok()?)
    });
    let named = |type_name: &str| Object::parse(&format!("{type_name}:{PREFIX}{digest:016x}")).ok();
    // A very long type leaves no room for the id.
    listed.or(alike).and_then(|guard| named(guard.type_name())).or_else(|| named(TYPE_OF_LAST_RESORT))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::authz::Consistency;
    use crate::authz::embedded::EmbeddedAuthorizer;
    use crate::chunk::Written;
    use crate::identity::Principal;
    use crate::identity::details::OneOf;
    use crate::language::Relation;
    use crate::tuple_store::RelationshipStores;

    fn guard(text: &str) -> Object {
        Object::parse(text).unwrap()
    }

    fn found(chunk_id: &str, object: &str) -> Candidate {
        let (chunk_id, guard) = (chunk_id.to_owned(), guard(object));
        Candidate { chunk_id, guard, score: 0.0, version: None, written: Written::Unknown }
    }

    fn strings(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    /// The name of the row, the requested ids, the chunks that exist, and two numbers of decoys. The first is for a
    /// user whose guards are all checked, the second for one whose details deny every guard.
    type Row = (&'static str, &'static [&'static str], Vec<Candidate>, usize, usize);

    #[tokio::test]
    async fn each_id_brings_one_check_or_one_decoy() {
        let data = tempfile::tempdir().unwrap();
        let authorizer = EmbeddedAuthorizer::new(RelationshipStores::open(data.path()).unwrap());
        let relation = Relation::parse("can_read").unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let anne = Principal::stated("user:anne").unwrap();
        // Details that were not compared with the request fit no guard.
        let condition = OneOf { key: "kind".to_owned(), values: ["public".to_owned()].into() };
        let narrowed = anne.clone().on_condition(&condition);
        let one = || vec![found("1", "document:a")];
        let two = || vec![found("1", "document:a"), found("2", "document:b")];
        let alike = || vec![found("1", "document:a"), found("2", "document:a")];
        let rows: [Row; 8] = [
            ("nothing is asked", &[], vec![], 0, 0),
            ("nothing is there", &["1", "2"], vec![], 2, 2),
            ("one is there", &["1", "2"], one(), 1, 2),
            ("both are there", &["1", "2"], two(), 0, 2),
            ("both have one guard", &["1", "2"], alike(), 1, 2),
            (
                "one is asked twice",
                &["1", "1", "2", "2"],
                vec![found("1", "document:a"), found("1", "document:a")],
                1,
                2,
            ),
            ("one that is not there is asked twice", &["1", "1"], vec![], 1, 1),
            ("one is there after the others", &["3", "2", "1"], one(), 2, 3),
        ];
        for (row, ids, found, decoys, decoys_if_shut) in rows {
            for (principal, expected) in [(&anne, decoys), (&narrowed, decoys_if_shut)] {
                let enforcer = Enforcer::new(&authorizer, principal, &relation, Consistency::default(), deadline);
                let ids = strings(ids);
                let named = named_chunks(&ids, &found);
                let made = Decoys::default().beside("handbook", IdKind::Chunk, &named, None, &enforcer);
                let distinct: HashSet<&Object> = made.iter().collect();
                assert_eq!((made.len(), distinct.len()), (expected, expected), "{row}: {made:?}");
                assert!(made.iter().all(|decoy| decoy.id().starts_with(PREFIX)), "{row}: {made:?}");
            }
        }
    }

    #[tokio::test]
    async fn each_document_costs_as_many_checks_as_one_of_few_guards() {
        let data = tempfile::tempdir().unwrap();
        let authorizer = EmbeddedAuthorizer::new(RelationshipStores::open(data.path()).unwrap());
        let (relation, deadline) = (Relation::parse("can_read").unwrap(), Instant::now() + Duration::from_secs(5));
        let anne = Principal::stated("user:anne").unwrap();
        let of = |numbers: std::ops::Range<usize>| numbers.map(|number| guard(&format!("document:{number}"))).collect();
        // The name of the row, the guards of each document, and the number of decoys.
        let rows: [(&str, Vec<Vec<Object>>, usize); 6] = [
            ("absent", vec![of(0..0)], CHECKS_PER_DOCUMENT),
            ("one guard", vec![of(0..1)], CHECKS_PER_DOCUMENT - 1),
            ("just as many guards", vec![of(0..CHECKS_PER_DOCUMENT)], 0),
            ("more guards", vec![of(0..CHECKS_PER_DOCUMENT + 1)], 0),
            ("two of one guard", vec![of(0..1), of(0..1)], 2 * CHECKS_PER_DOCUMENT - 1),
            ("one of many guards and an absent one", vec![of(0..20), of(0..0)], CHECKS_PER_DOCUMENT),
        ];
        for (row, guards, expected) in rows {
            let enforcer = Enforcer::new(&authorizer, &anne, &relation, Consistency::default(), deadline);
            let ids: Vec<String> = (0..guards.len()).map(|number| number.to_string()).collect();
            let named = named_documents(&ids, &guards);
            let made = Decoys::default().beside("handbook", IdKind::Document, &named, None, &enforcer);
            let distinct: HashSet<&Object> = made.iter().collect();
            assert_eq!((made.len(), distinct.len()), (expected, expected), "{row}: {made:?}");
        }
    }

    #[tokio::test]
    async fn an_id_keeps_its_decoy() {
        let data = tempfile::tempdir().unwrap();
        let authorizer = EmbeddedAuthorizer::new(RelationshipStores::open(data.path()).unwrap());
        let (relation, deadline) = (Relation::parse("can_read").unwrap(), Instant::now() + Duration::from_secs(5));
        let anne = Principal::stated("user:anne").unwrap();
        let enforcer = Enforcer::new(&authorizer, &anne, &relation, Consistency::default(), deadline);
        let decoys = Decoys::default();
        let ids = strings(&["1"]);
        let first = |decoys: &Decoys, collection: &str, kind: IdKind| {
            decoys.beside(collection, kind, &named_chunks(&ids, &[]), None, &enforcer).swap_remove(0)
        };
        let own = first(&decoys, "handbook", IdKind::Chunk);
        assert_eq!(own, first(&decoys, "handbook", IdKind::Chunk));
        let others = [
            ("of another collection", first(&decoys, "other", IdKind::Chunk)),
            ("of a document", first(&decoys, "handbook", IdKind::Document)),
            ("of another process", first(&Decoys::default(), "handbook", IdKind::Chunk)),
        ];
        for (row, other) in others {
            assert_ne!(own, other, "{row}");
        }
    }

    #[test]
    fn a_decoy_is_like_a_guard() {
        let table = GuardTable::new(vec![guard("page:1")]);
        let none = GuardTable::new(Vec::new());
        let (folder, long) = (guard("folder:1"), guard(&format!("{}:1", "t".repeat(254))));
        let rows: [(&str, Option<&Object>, Option<&GuardTable>, &str); 5] = [
            ("of a listed guard", None, Some(&table), "page"),
            ("of a found guard", Some(&folder), None, "folder"),
            ("of a found guard beside an empty list", Some(&folder), Some(&none), "folder"),
            ("where no guard is known", None, None, TYPE_OF_LAST_RESORT),
            ("where the type is too long", Some(&long), None, TYPE_OF_LAST_RESORT),
        ];
        for (row, alike, table, type_name) in rows {
            assert_eq!(decoy(7, alike, table).unwrap().type_name(), type_name, "{row}");
        }
    }
}
