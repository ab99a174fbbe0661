//! Makes guards from values of a payload, by a template such as `document:{metadata.source}`.

use std::borrow::Cow;

use qdrant_client::qdrant::Condition;
use qdrant_client::qdrant::value::Kind;

use super::fields::{Fields, scalar};
use super::filter;
use super::path::{Path, PathError};
use crate::language::tuple::{encoded_id, shown};
use crate::language::{Object, ParseError};

/// A template of guards: a type, and an id with one field of the payload in it.
///
/// The type is a literal, so no value chooses it. There is only one field. Characters that an id cannot hold are
/// written as `%` and hexadecimal digits, as is `%` itself. So two values never give the same guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardTemplate {
    before: String,
    path: Path,
    after: String,
}

/// The reason why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not a type followed by an id with one pair of braces.
    #[error("`{}` must be a type, a colon and an id with one field in braces: `document:{{metadata.source}}`", shown(.0))]
    Form(String),
    /// The braces do not name a field.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The guard would be no object, whatever the value is.
    #[error(transparent)]
    Object(#[from] ParseError),
}

/// The value that a guard is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GuardValue {
    Text(String),
    Number(i64),
}

impl GuardTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// When the text does not have the form, or no value would make an object of it.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let form = || TemplateError::Form(text.to_owned());
        let (before, rest) = text.split_once('{').ok_or_else(form)?;
        let (path, after) = rest.split_once('}').ok_or_else(form)?;
        // The braces must come after the colon, so that the type is a literal.
        if !before.contains(':') || after.contains(['{', '}']) || before.contains('}') || path.contains('{') {
            return Err(form());
        }
        Object::parse(&format!("{before}x{after}"))?;
        Ok(Self { before: before.to_owned(), path: Path::parse(path)?, after: after.to_owned() })
    }

    /// Returns the field whose value is taken.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the guard of a point. `None` when the field has no text or whole number, or the guard would be too long.
    pub(super) fn guard(&self, payload: &Fields) -> Option<Object> {
        let value = scalar(self.path.find(payload)?).filter(|value| !value.is_empty())?;
        let Self { before, after, .. } = self;
        let id: Cow<'_, str> = encoded_id(&value).into();
        Object::parse(&format!("{before}{id}{after}")).ok()
    }

    /// Returns the value that the guard of a point is made of; `None` when no guard can be made. A text and a number
    /// are two values, even if they make the same guard.
    pub(super) fn source(&self, payload: &Fields) -> Option<GuardValue> {
        match self.path.find(payload)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(GuardValue::Text(text.clone())),
            Kind::IntegerValue(number) => Some(GuardValue::Number(*number)),
            Kind::NullValue(_)
            | Kind::DoubleValue(_)
            | Kind::BoolValue(_)
            | Kind::StructValue(_)
            | Kind::ListValue(_) => None,
        }
    }

    /// Matches the points that have this value.
    pub(super) fn with_source(&self, source: GuardValue) -> Condition {
        match source {
            GuardValue::Text(text) => filter::text(self.path.key(), text),
            GuardValue::Number(number) => filter::number(self.path.key(), number),
        }
    }
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::Value as Payload;

    use super::*;

    fn guard(template: &str, value: impl Into<Payload>) -> Option<String> {
        let template = GuardTemplate::parse(template).expect("a template");
        let payload = Fields::from([("source".to_owned(), value.into())]);
        template.guard(&payload).map(|guard| guard.to_string())
    }

    #[test]
    fn a_value_becomes_the_id() {
        let rows = [
            ("document:{source}", "docs/a.md", Some("document:docs/a.md")),
            ("document:kb/{source}", "7", Some("document:kb/7")),
            ("document:{source}@v1", "a", Some("document:a@v1")),
            ("document:{source}", "*", Some("document:%2A")),
            ("document:{source}", "a:b#c d%\n", Some("document:a%3Ab%23c%20d%25%0A")),
            ("document:{source}", "caf\u{e9}", Some("document:caf\u{e9}")),
            ("document:{source}", "", None),
        ];
        for (template, value, expected) in rows {
            assert_eq!(guard(template, value).as_deref(), expected, "{template} {value:?}");
        }
        assert_eq!(guard("document:{source}", 42_i64).as_deref(), Some("document:42"));
        for none in
            [Payload::from(1.5), Payload::from(true), Payload { kind: None }, Payload::from(vec![Payload::from("a")])]
        {
            assert_eq!(guard("document:{source}", none), None);
        }
        assert_eq!(guard("document:{source}", "x".repeat(300)), None);
        assert_eq!(guard("document:{elsewhere}", "a"), None);
    }

    #[test]
    fn a_template_has_a_type_and_one_field() {
        let bad = [
            "",
            "document",
            "document:a",
            "{source}",
            "{type}:{id}",
            "{a}:x",
            "document:{a}{b}",
            "document:{a}/{b}",
            "document:{}",
            "document:{a",
            "document:a}",
            "document:{a[0]}",
            "document:x#{a}",
            ":{a}",
            "doc ument:{a}",
            "document:}{a}",
            "document:{{a}}",
        ];
        for template in bad {
            assert!(GuardTemplate::parse(template).is_err(), "{template}");
        }
    }
}
