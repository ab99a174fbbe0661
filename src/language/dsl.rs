//! `OpenFGA`'s modeling language. Reads text into an [`AuthorizationModel`] with the position of every mistake, and
//! writes a model back as text.
//!
//! The reader is a recursive descent with a bound on nesting, so any input ends in a model or in errors.

mod condition_body;
mod lexer;
pub mod modules;
mod parser;
mod printer;
mod sayable;
mod source_map;
#[cfg(test)]
mod tests;

use std::fmt;

use super::limits::MODEL_BYTES_MAX;
use super::model::AuthorizationModel;
use super::validate::{ModelError, ValidModel};

pub(crate) use printer::print_rewrite;
pub use printer::{print, print_condition, print_relation, print_with_sources};
pub use sayable::{Unsayable, text};
pub use source_map::{Position, SourceMap, Span};

/// The longest model text, in bytes. Comments and blanks are not a part of the model, so a text may be longer than the
/// model's own limit, [`MODEL_BYTES_MAX`].
pub const TEXT_BYTES_MAX: usize = 4 * MODEL_BYTES_MAX;

/// A model together with the positions of its parts in the text.
#[derive(Clone, Debug)]
pub struct Document {
    /// The model. It is syntactically right, but not validated yet.
    pub model: AuthorizationModel,
    /// The positions of the model's parts in the text.
    pub source_map: SourceMap,
    /// The module's name, if the text is a module: a part of a model.
    pub module: Option<String>,
    /// The positions of those types that extend a type of another module.
    pub extensions: Vec<usize>,
}

/// A mistake in a model's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// The part of the text that is wrong.
    pub span: Span,
    /// A sentence that says what is wrong.
    pub message: String,
}

/// The mistakes in one text, in the order of the text. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceErrors(Vec<SourceError>);

impl std::error::Error for SourceErrors {}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.span.start.line, self.span.start.column, self.message)
    }
}

impl fmt::Display for SourceErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl SourceError {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }

    /// Shows the error with its line of the text and a mark under the mistake.
    #[must_use]
    pub fn picture(&self, text: &str) -> String {
        let Position { line, column } = self.span.start;
        let shown: String = text
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(column.saturating_sub(1));
        let mark = "^".repeat(self.span.characters.max(1));
        format!("{self}\n{margin} |\n{number} | {shown}\n{margin} | {indent}{mark}")
    }
}

impl SourceErrors {
    /// Returns the mistakes, in the order of the text.
    #[must_use]
    pub fn errors(&self) -> &[SourceError] {
        &self.0
    }

    /// Moves all positions down by `lines` lines and right by `columns` columns, for a text that was cut out of a
    /// larger one.
    #[must_use]
    pub fn moved(mut self, lines: usize, columns: usize) -> Self {
        for SourceError { span: Span { start, .. }, .. } in &mut self.0 {
            start.line = start.line.saturating_add(lines);
            start.column = start.column.saturating_add(columns);
        }
        self
    }

    /// Shows all mistakes, each with its line of the text and a mark under it.
    #[must_use]
    pub fn picture(&self, text: &str) -> String {
        let pictures: Vec<String> = self.0.iter().map(|e| e.picture(text)).collect();
        pictures.join("\n\n")
    }
}

/// Reads a model's text.
///
/// # Errors
/// The mistakes of syntax, with their positions.
pub fn parse(text: &str) -> Result<Document, SourceErrors> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the text has {} bytes, at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(SourceErrors(vec![SourceError::new(Span::START, message)]));
    }
    parser::parse(text).map_err(SourceErrors)
}

/// Reads a model's text and validates the model.
///
/// # Errors
/// The mistakes of syntax. If there are none, the mistakes of the model, each with its position in the text.
pub fn load(text: &str) -> Result<ValidModel, SourceErrors> {
    let Document { model, source_map, module, .. } = parse(text)?;
    if module.is_some() {
        let message = "this is one module of a model; load the `fga.mod` that names it";
        return Err(SourceErrors(vec![SourceError::new(Span::START, message)]));
    }
    ValidModel::new(model).map_err(|errors| {
        let mut located: Vec<SourceError> = errors
            .into_iter()
            .map(|ModelError { place, message, slip: _ }| SourceError::new(source_map.span(place), message))
            .collect();
        located.sort_by_key(|e| e.span.start);
        SourceErrors(located)
    })
}
