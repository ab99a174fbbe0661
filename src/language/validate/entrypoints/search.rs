//! Repeats `OpenFGA`'s own search for an entrypoint. It goes through a definition depth first and notes every relation
//! on its way, so that it ends. Operands of one set operation share their notes, so the second may find a relation
//! noted and not look at it again. For `x` in `x: c`, `c: d and d`, `d: e`, `e: [user]` it finds no entrypoint,
//! although there is one.

use std::collections::HashMap;

use super::Analysis;
use crate::language::model::{RestrictionKind, Rewrite};

/// The number of steps for all relations of a model together. `OpenFGA`'s search has no bound; past this one, no
/// entrypoint counts as missed.
const STEPS_MAX: usize = 1_000_000;
/// The depth of nested steps, since each is a recursive call.
const DEPTH_MAX: usize = 250;

/// The relations of one type that were seen, and whether each is known to have an entrypoint.
type Notes = HashMap<usize, bool>;
/// The notes that count for each type. Everything below the first relation of a type shares the notes of that type.
type Seen<'a> = HashMap<&'a str, usize>;

pub(super) struct Search<'a> {
    analysis: &'a Analysis<'a>,
    notes: Vec<Notes>,
    steps_left: usize,
}

/// The search reached one of its bounds.
struct GivenUp;

impl<'a> Search<'a> {
    pub(super) fn new(analysis: &'a Analysis<'a>) -> Self {
        Self { analysis, notes: Vec::new(), steps_left: STEPS_MAX }
    }

    /// Returns whether the search finds no entrypoint of a relation that has one.
    pub(super) fn misses(&mut self, relation: usize) -> bool {
        self.notes.clear();
        let Some((_, definition)) = self.analysis.relations.get(relation) else { return false };
        matches!(self.finds(relation, &definition.rewrite, &Seen::new(), 0), Ok(false))
    }

    fn finds(&mut self, index: usize, rewrite: &'a Rewrite, before: &Seen<'a>, depth: usize) -> Result<bool, GivenUp> {
        self.steps_left = self.steps_left.checked_sub(1).filter(|_| depth < DEPTH_MAX).ok_or(GivenUp)?;
        let analysis = self.analysis;
        let Some((type_name, definition)) = analysis.relations.get(index).copied() else { return Err(GivenUp) };
        let mut seen = before.clone();
        let own = *seen.entry(type_name).or_insert(self.notes.len());
        if own == self.notes.len() {
            self.notes.push(Notes::new());
        }
        self.note_visited(own, index);
        match rewrite {
            Rewrite::Direct => {
                for restriction in &definition.directly_related {
                    let RestrictionKind::Userset(userset) = &restriction.kind else {
                        self.note_found(own, index);
                        return Ok(true);
                    };
                    let next = analysis.index_of(&restriction.type_name, userset).ok_or(GivenUp)?;
                    if self.noted(&seen, &restriction.type_name, next).is_none()
                        && self.finds_below(next, &seen, depth)?
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Rewrite::Computed(computed) => {
                let next = analysis.index_of(type_name, computed).ok_or(GivenUp)?;
                match self.noted(&seen, type_name, next) {
                    Some(known) => Ok(known),
                    None => self.finds_below(next, &seen, depth),
                }
            }
            Rewrite::TupleToUserset { tupleset, computed } => {
                for parent in analysis.parents(type_name, tupleset) {
                    let Some(next) = analysis.index_of(parent, computed) else { continue };
                    let found = match self.noted(&seen, parent, next) {
                        Some(known) => known,
                        None => self.finds_below(next, &seen, depth)?,
                    };
                    if found {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            // Each operand starts from the notes of the relation that led here, and adds its own to them.
            Rewrite::Union(operands) => {
                for operand in operands {
                    if self.finds(index, operand, before, depth + 1)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Rewrite::Intersection(operands) => {
                for operand in operands {
                    if !self.finds(index, operand, before, depth + 1)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Rewrite::Difference { base, subtract } => {
                Ok(self.finds(index, base, before, depth + 1)? && self.finds(index, subtract, before, depth + 1)?)
            }
        }
    }

    fn finds_below(&mut self, next: usize, seen: &Seen<'a>, depth: usize) -> Result<bool, GivenUp> {
        let (_, definition) = self.analysis.relations.get(next).copied().ok_or(GivenUp)?;
        self.finds(next, &definition.rewrite, seen, depth + 1)
    }

    fn note_visited(&mut self, notes: usize, relation: usize) {
        if let Some(notes) = self.notes.get_mut(notes) {
            notes.insert(relation, false);
        }
    }

    fn note_found(&mut self, notes: usize, relation: usize) {
        if let Some(notes) = self.notes.get_mut(notes) {
            notes.insert(relation, true);
        }
    }

    fn noted(&self, seen: &Seen<'a>, type_name: &str, relation: usize) -> Option<bool> {
        self.notes.get(*seen.get(type_name)?)?.get(&relation).copied()
    }
}
