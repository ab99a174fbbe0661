//! Finds circles of sibling modules: each module names the next, and the last names the first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Reference;

/// The most places that are shown for each arrow of a circle.
const PLACES_SHOWN: usize = 3;

/// The references between the children of one module.
#[derive(Default)]
struct Siblings<'a> {
    arrows: BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a Reference>>>,
}

/// Returns the arrows between the children of each module, if there are any.
fn siblings(references: &[Reference]) -> BTreeMap<&[String], Siblings<'_>> {
    let mut rooms: BTreeMap<&[String], Siblings<'_>> = BTreeMap::new();
    for reference in references {
        let (from, to) = (&reference.from, &reference.to);
        let shared = from.iter().zip(to).take_while(|(one, other)| one == other).count();
        // A module may use its own children, and they may use it.
        if let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) {
            let arrows = &mut rooms.entry(&from[..shared]).or_default().arrows;
            arrows.entry(one).or_default().entry(other).or_default().push(reference);
        }
    }
    rooms
}

impl<'a> Siblings<'a> {
    /// Returns the shortest way from `start` back to itself, `start` first.
    fn way_back(&self, start: &'a str) -> Option<Vec<&'a str>> {
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for next in self.arrows.get(at).into_iter().flat_map(BTreeMap::keys) {
                if *next == start {
                    let mut way = vec![at];
                    while let Some(previous) = before.get(way[way.len() - 1]) {
                        way.push(previous);
                    }
                    way.reverse();
                    return Some(way);
                }
                if !before.contains_key(next) {
                    before.insert(next, at);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Returns all siblings that can be reached from `start` over one or more arrows.
    fn reached(&self, start: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut queue = vec![start];
        while let Some(at) = queue.pop() {
            let next = self.arrows.get(at).into_iter().flat_map(BTreeMap::keys);
            queue.extend(next.copied().filter(|next| reached.insert(*next)));
        }
        reached
    }

    /// Returns the knots: the sets of siblings that all reach each other.
    fn knots(&self) -> BTreeSet<BTreeSet<&'a str>> {
        let knot = |start: &&'a str| -> BTreeSet<&'a str> {
            self.reached(start).into_iter().filter(|other| self.reached(other).contains(start)).collect()
        };
        self.arrows.keys().map(knot).filter(|knot| !knot.is_empty()).collect()
    }

    /// Returns some of the places that make each arrow of a circle.
    fn places(&self, circle: &[&'a str]) -> Vec<String> {
        let mut lines = Vec::new();
        for (one, other) in circle.iter().zip(circle.iter().cycle().skip(1)) {
            let places = &self.arrows[one][other];
            lines.push(format!("    {one} -> {other}, {} times:", places.len()));
            lines.extend(places.iter().take(PLACES_SHOWN).map(|place| format!("        {place}")));
        }
        lines
    }

    /// Returns the shortest circle of a knot.
    fn shortest(&self, knot: &BTreeSet<&'a str>) -> Vec<&'a str> {
        knot.iter().filter_map(|start| self.way_back(start)).min_by_key(Vec::len).unwrap_or_default()
    }
}

/// Returns each circle of siblings, with the places in the source that make its arrows.
pub(crate) fn circles(references: &[Reference]) -> Vec<String> {
    let mut found = Vec::new();
    for (room, siblings) in siblings(references) {
        for knot in siblings.knots() {
            let circle = siblings.shortest(&knot);
            found.push(format!("{}\n{}", title(room, &knot, &circle), siblings.places(&circle).join("\n")));
        }
    }
    found
}

fn title(room: &[String], knot: &BTreeSet<&str>, circle: &[&str]) -> String {
    let room = if room.is_empty() { "crate".to_owned() } else { room.join("::") };
    let circle_text = format!("in `{room}`: {} -> {}", circle.join(" -> "), circle[0]);
    if knot.len() == circle.len() {
        return circle_text;
    }
    let all: Vec<&str> = knot.iter().copied().collect();
    format!("{circle_text} (the shortest of the circles among {})", all.join(", "))
}
