//! The graph of the top-level modules as text for Mermaid.

use std::collections::{BTreeMap, BTreeSet};

use super::Reference;

/// Draws the top-level modules with their lines of code. An arrow that follows from two others is left out, so that the
/// layers can be seen.
pub(crate) fn picture(references: &[Reference], lines: &BTreeMap<&str, usize>) -> String {
    let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for reference in references {
        if let (Some(from), Some(to)) = (reference.from.first(), reference.to.first())
            && from != to
        {
            used.entry(from).or_default().insert(to);
        }
    }
    let mut text = vec!["graph TD".to_owned()];
    text.extend(lines.iter().map(|(module, lines)| format!("    {module}[\"{module}<br>{lines} lines\"]")));
    for (from, all) in &used {
        let is_implied = |to: &str| all.iter().any(|other| *other != to && reaches(&used, other, to));
        text.extend(all.iter().filter(|to| !is_implied(to)).map(|to| format!("    {from} --> {to}")));
    }
    text.join("\n") + "\n"
}

/// Returns whether arrows lead from one module to another, directly or over others.
fn reaches(used: &BTreeMap<&str, BTreeSet<&str>>, from: &str, wanted: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut queue = vec![from];
    while let Some(at) = queue.pop() {
        for next in used.get(at).into_iter().flatten() {
            if *next == wanted {
                return true;
            }
            if seen.insert(*next) {
                queue.push(next);
            }
        }
    }
    false
}
