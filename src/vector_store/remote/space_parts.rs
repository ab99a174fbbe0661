//! Splits a search space into parts that one filter of a server can express.

use roaring::RoaringBitmap;

use crate::language::Object;
use crate::vector_store::{GuardTable, SearchSpace};

/// The longest list of guard names in one filter, in bytes. A gRPC server takes messages of 4 MiB unless configured
/// otherwise, and names may be long.
const NAME_BYTES_PER_FILTER_MAX: usize = 1 << 20;

/// A part of a search space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpacePart {
    /// Every chunk of the collection.
    Everything,
    /// The chunks of these guards.
    Guards(Vec<String>),
    /// The chunks of all other guards, even of those that are newer than the table. Enforcement decides about these.
    AllBut(Vec<String>),
}

impl SpacePart {
    /// Returns the parts that cover a search space, each with at most `guards_max` guards.
    ///
    /// One part is enough if the guards of the space fit one list, or if the guards outside of it do.
    ///
    /// INVARIANT (nothing visible, nothing found): an empty set of guards has no parts, so it never becomes a search of
    /// everything.
    pub(crate) fn of(space: &SearchSpace, guards_max: usize) -> Vec<Self> {
        let SearchSpace::Guards { table, positions } = space else { return vec![Self::Everything] };
        let guards_max = guards_max.max(1);
        let visible = lists(names(table, positions.iter()), guards_max);
        if visible.len() > 1 {
            let hidden = &*table.in_use - positions;
            let mut hidden = lists(names(table, hidden.iter()), guards_max);
            if hidden.len() <= 1 {
                return vec![hidden.pop().map_or(Self::Everything, Self::AllBut)];
            }
        }
        visible.into_iter().map(Self::Guards).collect()
    }

    /// Returns the guards at these positions; `None` if they do not fit one list. The search space of these guards then has one
    /// part at most, which is this list.
    pub(crate) fn listed(table: &GuardTable, positions: &RoaringBitmap, guards_max: usize) -> Option<Vec<String>> {
        let mut lists = lists(names(table, positions.iter()), guards_max.max(1));
        let first = lists.pop().unwrap_or_default();
        lists.is_empty().then_some(first)
    }
}

fn names(table: &GuardTable, positions: impl Iterator<Item = u32>) -> impl Iterator<Item = &Object> {
    positions.filter_map(|position| table.guards.get(usize::try_from(position).ok()?))
}

/// Returns the guards in lists that each fit one filter.
fn lists<'a>(guards: impl Iterator<Item = &'a Object>, guards_max: usize) -> Vec<Vec<String>> {
    let mut lists: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for guard in guards.map(ToString::to_string) {
        bytes += guard.len();
        match lists.last_mut() {
            Some(list) if list.len() < guards_max && bytes <= NAME_BYTES_PER_FILTER_MAX => list.push(guard),
            Some(_) | None => {
                bytes = guard.len();
                lists.push(vec![guard]);
            }
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row: its name, the visible positions, and their list.
    type ListedRow<'a> = (&'a str, &'a [u32], Option<Vec<String>>);

    #[test]
    fn guards_are_listed_in_parts_that_fit_a_message() {
        let rows = [(0, 10), (1, 10), (10_000, 10), (10_001, 10), (25_000, 40), (5_000, 240)];
        for (count, length) in rows {
            let guard = |number: usize| Object::parse(&format!("document:{number:0length$}")).expect("an object");
            let guards: Vec<Object> = (0..count).map(guard).collect();
            let lists = lists(guards.iter(), 10_000);
            let expected: Vec<String> = guards.iter().map(ToString::to_string).collect();
            assert_eq!(lists.concat(), expected, "{count} of {length}");
            for list in &lists {
                assert!((1..=10_000).contains(&list.len()), "{count} of {length}");
                assert!(list.concat().len() <= NAME_BYTES_PER_FILTER_MAX, "{count} of {length}");
            }
        }
    }

    #[test]
    fn a_space_is_listed_turned_round_or_split_and_never_widened() {
        let names = ["doc:a", "doc:b", "doc:c", "doc:d", "doc:e"];
        let guards = names.map(|name| Object::parse(name).expect("an object"));
        let table = GuardTable::new(guards.to_vec());
        let list = |places: &[usize]| places.iter().map(|place| names[*place].to_owned()).collect::<Vec<String>>();
        let rows: [(&str, &[u32], Vec<SpacePart>); 6] = [
            ("nothing visible", &[], vec![]),
            ("as many as fit", &[0, 3], vec![SpacePart::Guards(list(&[0, 3]))]),
            ("few hidden", &[0, 1, 2, 3], vec![SpacePart::AllBut(list(&[4]))]),
            ("nothing hidden", &[0, 1, 2, 3, 4], vec![SpacePart::Everything]),
            ("a guard that the table does not have", &[1, 9], vec![SpacePart::Guards(list(&[1]))]),
            ("two lists of visible guards and one of hidden ones", &[0, 1, 2], vec![SpacePart::AllBut(list(&[3, 4]))]),
        ];
        for (name, positions, expected) in rows {
            let positions = positions.iter().copied().collect();
            let space = SearchSpace::Guards { table: table.clone(), positions };
            assert_eq!(SpacePart::of(&space, 2), expected, "{name}");
        }
        let listed: [ListedRow<'_>; 4] = [
            ("nothing visible", &[], Some(Vec::new())),
            ("as many as fit", &[0, 3], Some(list(&[0, 3]))),
            ("one more, which is never turned round", &[0, 1, 2], None),
            ("nothing hidden, which is never everything", &[0, 1, 2, 3, 4], None),
        ];
        for (name, positions, expected) in listed {
            assert_eq!(SpacePart::listed(&table, &positions.iter().copied().collect(), 2), expected, "{name}");
        }
        let one_at_a_time = SpacePart::of(&SearchSpace::Guards { table, positions: [0, 2].into() }, 1);
        assert_eq!(one_at_a_time, [SpacePart::Guards(list(&[0])), SpacePart::Guards(list(&[2]))]);
    }
}
