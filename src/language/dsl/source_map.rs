//! The positions in the text of a model's parts.

use std::collections::HashMap;

use crate::language::validate::{ModelPart, RelationPlace};

/// A position in a text. Line and column are counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

/// A run of characters on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The position of the first character.
    pub start: Position,
    /// The number of characters.
    pub characters: usize,
}

impl Span {
    /// The first character of a text.
    pub const START: Self = Self { start: Position { line: 1, column: 1 }, characters: 1 };

    /// Extends the span to the end of `last` if that is on the same line.
    #[must_use]
    pub(super) fn to(self, last: Self) -> Self {
        if self.start.line != last.start.line {
            return self;
        }
        let end = last.start.column + last.characters;
        Self { start: self.start, characters: end.saturating_sub(self.start.column) }
    }
}

/// The span of each [`ModelPart`] of a model.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    spans: HashMap<ModelPart, Span>,
}

impl SourceMap {
    pub(super) fn insert(&mut self, place: ModelPart, span: Span) {
        self.spans.insert(place, span);
    }

    /// Returns the parts of a relation with their spans.
    pub(super) fn of_relation(&self, relation: RelationPlace) -> impl Iterator<Item = (ModelPart, Span)> {
        let parts = self.spans.iter().filter(move |(place, _)| place.relation() == Some(relation));
        parts.map(|(place, span)| (*place, *span))
    }

    /// Returns the span of a part of the model. For a part that was not written, such as a default, it is the span of
    /// the enclosing part.
    #[must_use]
    pub fn span(&self, place: ModelPart) -> Span {
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
