//! The text that a person reads, and the page that they may open, when their agent asks for an approval.

use url::Url;

use crate::client_tls::keeps_secrets;
use crate::identity::approvable::{ApprovableRequest, Grant};
use crate::identity::approval::ShownFacts;
use crate::visible::is_visible;

/// The longest text of others, such as a query, that a person reads, in characters.
const SHOWN_CHARACTERS_MAX: usize = 256;

/// Returns whether people may be asked to open a URL.
pub(super) fn is_page(text: &str) -> bool {
    let is_safe = |url: Url| keeps_secrets(&url) && url.username().is_empty() && url.password().is_none();
    Url::parse(text).is_ok_and(is_safe)
}

/// Describes a request to the person who approves it, for whom their agent asks.
pub(super) fn described(code: &str, request: &ApprovableRequest, grant: &Grant, shown: &ShownFacts) -> String {
    let ShownFacts { purpose, requested_by, query } = shown;
    let asking = requested_by.join(" through ");
    let part = |before: &str, text: Option<&str>| text.map(|text| format!("{before}{text}")).unwrap_or_default();
    let ceiling = request.classification_max.as_deref().map(legible);
    let ceiling = part(" up to ", ceiling.as_deref());
    let (purpose, query) = (part(", to ", purpose.as_deref()), part(": ", query.as_deref()));
    let (chunks_max, collection) = (grant.chunks_max, legible(&request.collection));
    format!("{code}: {asking} asks for {chunks_max} chunks of {collection}{ceiling}{purpose}{query}")
}

/// Returns a text of others as a person can read it: one line without invisible characters, cut to
/// [`SHOWN_CHARACTERS_MAX`]. Otherwise its writer could hide a part of the question.
pub(super) fn legible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => ' ',
        c if is_visible(c) => c,
        _ => char::REPLACEMENT_CHARACTER,
    };
    let mut legible: String = text.chars().take(SHOWN_CHARACTERS_MAX).map(shown).collect();
    if text.chars().nth(SHOWN_CHARACTERS_MAX).is_some() {
        legible.push('…');
    }
    legible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_that_browsers_open_safely() {
        let rows = [
            ("a page", "https://login.example/requests", true),
            ("loopback", "http://127.0.0.1:8080/requests", true),
            ("loopback of IPv6", "http://[::1]:8080/requests", true),
            ("no TLS", "http://login.example/requests", false),
            ("a name that begins like localhost", "http://localhost.attacker.example/", false),
            ("a user", "https://anne@login.example/requests", false),
            ("a script", "javascript:alert(1)", false),
            ("a path", "/requests", false),
            ("nothing", "", false),
        ];
        for (row, page, expected) in rows {
            assert_eq!(is_page(page), expected, "{row}");
        }
    }
}
