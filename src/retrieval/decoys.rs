//! Decoys are objects that guard no chunk. A re-check checks them in place of guards that do not exist.
//!
//! A check takes time, up to some milliseconds where a server decides. If only chunks that exist were checked, the time
//! of a re-check would tell its caller which hidden chunks exist.
//!
//! The guards of other chunks would make even better decoys, since their checks take more similar times. But then logs
//! of checks would show objects that nobody asked about.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::request::RecheckRequest;
use crate::authz::enforce::Enforcer;
use crate::chunk::Candidate;
use crate::language::Object;
use crate::vector_store::GuardTable;

/// The id of each decoy begins with this, so that whoever reads a log of checks recognizes it.
const PREFIX: &str = "ragward-decoy-";
/// The type of decoys if no guard of the collection is known. The reference models use this type.
const TYPE_OF_LAST_RESORT: &str = "document";

/// Makes decoys.
///
/// An id keeps its decoy for as long as the process runs, so a cache remembers a decision about a decoy as it remembers
/// one about a hidden chunk. The names are random, so nobody can write tuples for them ahead.
#[derive(Debug, Default)]
pub(super) struct Decoys(RandomState);

impl Decoys {
    /// Makes one decoy for each distinct id of a re-check that causes no check of its own. The chunk of such an id does
    /// not exist, has the same guard as another one, or has a guard that the token's details deny without a check.
    pub(super) fn beside(
        &self,
        request: &RecheckRequest,
        found: &[Candidate],
        table: Option<&GuardTable>,
        enforcer: &Enforcer<'_>,
    ) -> Vec<Object> {
        let mut guards = HashSet::new();
        let checked: HashSet<&str> = found
            .iter()
            .filter(|candidate| enforcer.known(&candidate.guard).is_none() && guards.insert(&candidate.guard))
            .map(|candidate| candidate.chunk_id.as_str())
            .collect();
        let mut ids = HashSet::new();
        let chunk_ids = request.chunk_ids.iter().map(String::as_str);
        let unchecked = chunk_ids.filter(|id| !checked.contains(id) && ids.insert(*id));
        unchecked.filter_map(|id| self.decoy(&request.collection, id, found, table)).collect()
    }

    /// Makes the decoy of one id. It has the type of some guard of the collection, so its check takes the same way
    /// through the model.
    fn decoy(
        &self,
        collection: &str,
        chunk_id: &str,
        found: &[Candidate],
        table: Option<&GuardTable>,
    ) -> Option<Object> {
        let digest = self.0.hash_one((collection, chunk_id));
        let listed = table.and_then(|table| {
            let place = digest.checked_rem(u64::try_from(table.guards.len()).ok()?)?;
            table.guards.get(usize::try_from(place).ok()?)
        });
        let alike = listed.or_else(|| found.first().map(|candidate| &candidate.guard));
        let named = |type_name: &str| Object::parse(&format!("{type_name}:{PREFIX}{digest:016x}")).ok();
        // A very long type leaves no room for the id.
        alike.and_then(|guard| named(guard.type_name())).or_else(|| named(TYPE_OF_LAST_RESORT))
    }
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
    use crate::retrieval::NamedPrincipal;
    use crate::tuple_store::RelationshipStores;

    fn guard(text: &str) -> Object {
        Object::parse(text).unwrap()
    }

    fn found(chunk_id: &str, object: &str) -> Candidate {
        let (chunk_id, guard) = (chunk_id.to_owned(), guard(object));
        Candidate { chunk_id, guard, score: 0.0, version: None, written: Written::Unknown }
    }

    fn asked(ids: &[&str]) -> RecheckRequest {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        RecheckRequest::new(NamedPrincipal::stated("user:anne"), "handbook".to_owned(), ids, Consistency::default())
            .unwrap()
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
                let made = Decoys::default().beside(&asked(ids), &found, None, &enforcer);
                let distinct: HashSet<&Object> = made.iter().collect();
                assert_eq!((made.len(), distinct.len()), (expected, expected), "{row}: {made:?}");
                assert!(made.iter().all(|decoy| decoy.id().starts_with(PREFIX)), "{row}: {made:?}");
            }
        }
    }

    #[test]
    fn a_decoy_is_like_a_guard_and_stays_the_same() {
        let decoys = Decoys::default();
        let table = GuardTable::new(vec![guard("page:1")]);
        let none = GuardTable::new(Vec::new());
        let of = |found: &[Candidate], table| decoys.decoy("handbook", "1", found, table).unwrap();
        let long = format!("{}:1", "t".repeat(254));
        let rows: [(&str, Object, &str); 5] = [
            ("of a listed guard", of(&[], Some(&table)), "page"),
            ("of a found guard", of(&[found("2", "folder:1")], None), "folder"),
            ("of a found guard beside an empty list", of(&[found("2", "folder:1")], Some(&none)), "folder"),
            ("where no guard is known", of(&[], None), TYPE_OF_LAST_RESORT),
            ("where the type is too long", of(&[found("2", &long)], None), TYPE_OF_LAST_RESORT),
        ];
        for (row, decoy, type_name) in rows {
            assert_eq!(decoy.type_name(), type_name, "{row}");
        }
        assert_eq!(of(&[], Some(&table)), of(&[], Some(&table)));
        assert_ne!(of(&[], None), decoys.decoy("other", "1", &[], None).unwrap(), "of another collection");
        assert_ne!(of(&[], None), Decoys::default().decoy("handbook", "1", &[], None).unwrap(), "of another process");
    }
}
