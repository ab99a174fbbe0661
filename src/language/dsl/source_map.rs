//! Where the parts of a model were written.

use std::collections::HashMap;

use crate::language::validate::{Place, RelationPlace};

/// A place in a text, both counted from 1; columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Some characters of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first of them.
    pub start: Position,
    /// How many.
    pub characters: usize,
}

impl Span {
    /// The beginning of the text.
    pub const START: Self = Self { start: Position { line: 1, column: 1 }, characters: 1 };

    /// From the start of `self` to the end of `last`, if that is on the same line.
    #[must_use]
    pub(super) fn to(self, last: Self) -> Self {
        if self.start.line != last.start.line {
            return self;
        }
        let end = last.start.column + last.characters;
        Self { start: self.start, characters: end.saturating_sub(self.start.column) }
    }
}

/// The span of each [`Place`] of a model.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    spans: HashMap<Place, Span>,
}

impl SourceMap {
    pub(super) fn insert(&mut self, place: Place, span: Span) {
        self.spans.insert(place, span);
    }

    /// The parts of a relation.
    pub(super) fn of_relation(&self, relation: RelationPlace) -> impl Iterator<Item = (Place, Span)> {
        let parts = self.spans.iter().filter(move |(place, _)| place.relation() == Some(relation));
        parts.map(|(place, span)| (*place, *span))
    }

    /// Where a part of the model was written; of a part that was not written (a default), the part around it.
    #[must_use]
    pub fn span(&self, place: Place) -> Span {
        let mut place = Some(place);
        while let Some(looked_up) = place {
            if let Some(span) = self.spans.get(&looked_up) {
                return *span;
            }
            place = looked_up.around();
        }
        Span::START
    }
}
