//! The ceiling of an endpoint: chunks of a higher classification are not sent there.

use std::collections::BTreeSet;

use super::InferenceSetupError;
use crate::chunk::{Metadata, Value};
use crate::identity::details::DetailsConfig;

/// Says which chunks may be sent to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// All of them: the server knows no classifications.
    None,
    /// Those with one of some classifications.
    Of {
        /// The metadata key that holds a chunk's classification.
        key: String,
        /// The classifications that may be sent.
        admitted: BTreeSet<String>,
    },
}

impl Ceiling {
    /// Makes the ceiling of a table of settings. `details` has the classifications of the server.
    ///
    /// # Errors
    /// When the server knows classifications and the table names none of them, or the other way round.
    pub fn new(
        table: &str,
        classification_max: Option<&str>,
        details: &DetailsConfig,
    ) -> Result<Self, InferenceSetupError> {
        let wrong = |rule: &str| InferenceSetupError(format!("`{table}.classification_max` {rule}"));
        match (classification_max, &details.classification_key) {
            (None, None) => Ok(Self::None),
            (None, Some(_)) => Err(wrong(
                "is missing: chunks have classifications (`identity.details.classification_key`), so name the highest one whose \
                 texts may be sent",
            )),
            (Some(_), None) => Err(wrong("needs `identity.details.classification_key`")),
            (Some(max), Some(key)) => {
                let rank = details.classifications.iter().position(|known| known == max);
                let rank = rank.ok_or_else(|| wrong("is not among `identity.details.classifications`"))?;
                let admitted = details.classifications.iter().take(rank.saturating_add(1)).cloned().collect();
                Ok(Self::Of { key: key.clone(), admitted })
            }
        }
    }

    /// Returns whether a chunk with this metadata may be sent. One without a classification is above every ceiling.
    #[must_use]
    pub fn admits(&self, metadata: &Metadata) -> bool {
        match self {
            Self::None => true,
            Self::Of { key, admitted } => {
                matches!(metadata.get(key), Some(Value::Text(classification)) if admitted.contains(classification))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(key: Option<&str>) -> DetailsConfig {
        let classifications = ["open", "internal", "secret"].map(str::to_owned).to_vec();
        DetailsConfig { classification_key: key.map(str::to_owned), classifications, ..DetailsConfig::default() }
    }

    fn of(value: Option<Value>) -> Metadata {
        value.map(|value| ("class".to_owned(), value)).into_iter().collect()
    }

    #[test]
    fn chunks_above_the_ceiling_are_not_sent() {
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        let ceiling = Ceiling::new("embedding", Some("internal"), &details(Some("class"))).unwrap();
        let rows = [
            ("below", of(text("open")), true),
            ("the ceiling itself", of(text("internal")), true),
            ("above", of(text("secret")), false),
            ("unknown", of(text("sealed")), false),
            ("another spelling", of(text("Internal")), false),
            ("no text", of(Some(Value::Int(0))), false),
            ("none", of(None), false),
        ];
        for (row, metadata, expected) in rows {
            assert_eq!(ceiling.admits(&metadata), expected, "{row}");
        }
        assert!(Ceiling::None.admits(&of(None)), "a server without classifications");
    }

    #[test]
    fn a_ceiling_fits_the_classifications_of_the_server() {
        let rows = [
            ("neither", None, None, None),
            ("both", Some("open"), Some("class"), None),
            ("no ceiling", None, Some("class"), Some("is missing")),
            ("no classifications", Some("open"), None, Some("needs `identity.details")),
            ("an unknown one", Some("sealed"), Some("class"), Some("is not among")),
        ];
        for (row, max, key, expected) in rows {
            let refused = Ceiling::new("embedding", max, &details(key)).err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), expected.is_some(), "{row}: {refused:?}");
            assert!(refused.unwrap_or_default().contains(expected.unwrap_or_default()), "{row}");
        }
    }
}
