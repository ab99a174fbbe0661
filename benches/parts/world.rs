//! An invented company: people in nested groups, documents in nested folders.

use ragward::language::{Object, RelationshipTuple};

pub(crate) const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user, group#member]
type folder
  relations
    define parent: [folder]
    define viewer: [user, group#member] or viewer from parent
type document
  relations
    define parent: [folder]
    define viewer: [user, user:*, group#member]
    define blocked: [user]
    define can_read: (viewer or viewer from parent) but not blocked
";

/// The tuples of the company.
pub(crate) struct World {
    pub(crate) tuples: Vec<RelationshipTuple>,
    users: u64,
    documents: u64,
}

/// A linear congruential generator with the constants of Knuth's MMIX, which gives the same world in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(u64::try_from(from.len()).unwrap())).unwrap()]
    }
}

impl World {
    /// Returns a world. At a million tuples it has 50,000 people in five groups each, 5,000 nested groups, 20,000
    /// nested folders, and 300,000 documents in a folder each, which take the rest.
    pub(crate) fn new(count: usize) -> Self {
        let unit = u64::try_from(count).unwrap() / 1_000;
        let (users, groups, folders, documents) = (50 * unit, 5 * unit, 20 * unit, 300 * unit);
        let mut random = Random(1);
        let mut lines = std::collections::BTreeSet::new();
        let mut put = |user: String, relation: &'static str, object: String| lines.insert((object, relation, user));
        for user in 0..users {
            for _ in 0..5 {
                put(format!("user:{user}"), "member", format!("group:{}", random.below(groups)));
            }
        }
        // A group is in the group with a quarter of its number, and so on, for about six levels.
        for group in 4..groups {
            put(format!("group:{group}#member"), "member", format!("group:{}", group / 4));
        }
        for folder in 1..folders {
            put(format!("folder:{}", folder / 5), "parent", format!("folder:{folder}"));
        }
        for folder in 0..folders {
            put(format!("group:{}#member", random.below(groups)), "viewer", format!("folder:{folder}"));
            put(format!("user:{}", random.below(users)), "viewer", format!("folder:{folder}"));
        }
        for document in 0..documents {
            put(format!("folder:{}", random.below(folders)), "parent", format!("document:{document}"));
            if document % 100 == 0 {
                put("user:*".to_owned(), "viewer", format!("document:{document}"));
            }
            if document % 50 == 0 {
                put(format!("user:{}", random.below(users)), "blocked", format!("document:{document}"));
            }
        }
        while lines.len() < count {
            let document = format!("document:{}", random.below(documents));
            let user = match random.below(4) {
                0 => format!("group:{}#member", random.below(groups)),
                _ => format!("user:{}", random.below(users)),
            };
            lines.insert((document, "viewer", user));
        }
        let parse = |(object, relation, user): &(String, &str, String)| {
            RelationshipTuple::parse(user, relation, object).unwrap()
        };
        let mut tuples: Vec<RelationshipTuple> = lines.iter().map(parse).collect();
        // The tuples are shuffled, since nobody writes them in the order of their names.
        for place in (1..tuples.len()).rev() {
            let other = random.below(u64::try_from(place).unwrap() + 1);
            tuples.swap(place, usize::try_from(other).unwrap());
        }
        Self { tuples, users, documents }
    }

    pub(crate) fn user(&self, random: &mut Random) -> Object {
        Object::parse(&format!("user:{}", random.below(self.users))).unwrap()
    }

    pub(crate) fn document(&self, random: &mut Random) -> Object {
        Object::parse(&format!("document:{}", random.below(self.documents))).unwrap()
    }
}
