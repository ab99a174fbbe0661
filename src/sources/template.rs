//! The URL of a document: a literal address with one field, which stands for one segment of the path. This module is pure.
//!
//! INVARIANT (one address): whatever the value of the field is, the URL leads to the host of the template and differs from it
//! in that one segment alone.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::chunk::{Metadata, Value};
use crate::client_tls::keeps_secrets;
use crate::language::Object;

/// The longest value of a field, in bytes.
const VALUE_BYTES_MAX: usize = 256;
/// The characters of a value that are encoded: all but the unreserved ones of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The characters that a template has beside letters and digits, without its field. Others could end the path, or stand for a
/// character that could.
const PUNCTUATION: &[u8] = b"-._~!$&'()*+,;=:/[]";

/// A template of URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UrlTemplate {
    before: String,
    field: Field,
    after: String,
    /// The template with a value in it, to compare with.
    sample: Url,
}

/// The field of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The id of the guard.
    GuardId,
    /// The value under a metadata key.
    Metadata(String),
}

impl UrlTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// Returns the rule that the template breaks.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const ONE_FIELD: &str = "it must have one field, `{id}` or `{metadata.KEY}`";
        let (before, rest) = text.split_once('{').ok_or(ONE_FIELD)?;
        let (name, after) = rest.split_once('}').ok_or(ONE_FIELD)?;
        if [before, name, after].iter().any(|part| part.contains(['{', '}'])) {
            return Err(ONE_FIELD);
        }
        let field = match name.strip_prefix("metadata.") {
            Some(key) if !key.is_empty() => Field::Metadata(key.to_owned()),
            None if name == "id" => Field::GuardId,
            Some(_) | None => return Err(ONE_FIELD),
        };
        let is_plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || PUNCTUATION.contains(&b));
        if !is_plain(before) || !is_plain(after) {
            return Err("it must be a plain address: without user, query, fragment, `%`, spaces and other letters");
        }
        if !before.ends_with('/') || !(after.is_empty() || after.starts_with('/')) {
            return Err("its field must be a whole segment of the path");
        }
        // The text before the field has a host already, so the field cannot be a part of one.
        let whole =
            Url::parse(before).map_err(|_malformed| "it must be an address such as `https://host/pages/{id}`")?;
        let sample = Url::parse(&format!("{before}x{after}")).map_err(|_malformed| "it must be an address")?;
        if !keeps_secrets(&sample) {
            return Err("it must be an `https` URL; `http` is for loopback alone");
        }
        if sample.origin() != whole.origin() || sample.as_str() != format!("{before}x{after}") {
            return Err("it must be in its normal form: small letters, no default port, no `.` or `..` in the path");
        }
        Ok(Self { before: before.to_owned(), field, after: after.to_owned(), sample })
    }

    /// Returns whether the field is in the metadata of a chunk.
    pub(super) fn needs_metadata(&self) -> bool {
        matches!(self.field, Field::Metadata(_))
    }

    /// Returns an address of this template. All of its addresses have this host.
    pub(super) fn sample(&self) -> &Url {
        &self.sample
    }

    /// Returns the value of the field for a chunk; `None` if it has none that can be one segment of a path.
    pub(super) fn value(&self, guard: &Object, metadata: Option<&Metadata>) -> Option<String> {
        let value = match &self.field {
            Field::GuardId => guard.id().to_owned(),
            Field::Metadata(key) => match metadata?.get(key)? {
                Value::Text(text) => text.clone(),
                Value::Int(number) => number.to_string(),
                Value::Bool(_) | Value::Float(_) | Value::List(_) => return None,
            },
        };
        let is_segment = !value.is_empty()
            && value.len() <= VALUE_BYTES_MAX
            && value != "."
            && value != ".."
            && !value.chars().any(char::is_control);
        is_segment.then_some(value)
    }

    /// Returns the address for a value.
    pub(super) fn url(&self, value: &str) -> Option<Url> {
        let text = format!("{}{}{}", self.before, utf8_percent_encode(value, ENCODED), self.after);
        let url = Url::parse(&text).ok()?;
        // Nothing was left for the parser to change.
        (url.as_str() == text && url.origin() == self.sample.origin()).then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGES: &str = "https://wiki.example/api/pages/{id}";

    fn guard(id: &str) -> Object {
        Object::parse(&format!("document:{id}")).unwrap()
    }

    #[test]
    fn a_template_is_a_literal_address_with_one_field() {
        let rows = [
            ("the id", PAGES, true),
            ("a key", "https://wiki.example/pages/{metadata.page_id}/raw", true),
            ("a port", "https://wiki.example:8443/{id}", true),
            ("this machine", "http://127.0.0.1:1/{id}", true),
            ("this machine, IPv6", "http://[::1]:1/{id}", true),
            ("this machine by name", "http://localhost/{id}", true),
            ("no field", "https://wiki.example/pages", false),
            ("two fields", "https://wiki.example/{id}/{id}", false),
            ("two kinds of fields", "https://wiki.example/{id}/{metadata.b}", false),
            ("a field in a field", "https://wiki.example/{{id}}", false),
            ("an unknown field", "https://wiki.example/{guard}", false),
            ("a key without a name", "https://wiki.example/{metadata.}", false),
            ("half a segment", "https://wiki.example/page-{id}", false),
            ("half a segment after it", "https://wiki.example/{id}.html", false),
            ("in the host", "https://{id}/pages", false),
            ("a part of the host", "https://wiki.{id}/pages", false),
            ("a part of the host, with a path", "https://wiki.example{id}/pages", false),
            ("in the port", "https://wiki.example:{id}/", false),
            ("in the query", "https://wiki.example/pages?id={id}", false),
            ("a query", "https://wiki.example/{id}?full=1", false),
            ("a fragment", "https://wiki.example/{id}#top", false),
            ("a user", "https://anne@wiki.example/{id}", false),
            ("a user who looks like a host", "https://wiki.example@evil.example/{id}", false),
            ("a user with a field", "https://wiki.example/@{id}", false),
            ("a parent", "https://wiki.example/pages/../{id}", false),
            ("a parent after it", "https://wiki.example/pages/{id}/..", false),
            ("this folder", "https://wiki.example/./{id}", false),
            ("an encoded parent", "https://wiki.example/%2e%2e/{id}", false),
            ("a backslash", "https://wiki.example\\{id}", false),
            ("a space", "https://wiki.example/a b/{id}", false),
            ("a line end that a parser drops", "https://wiki\n.example/{id}", false),
            ("letters that look like others", "https://wik\u{456}.example/{id}", false),
            ("another machine without TLS", "http://wiki.example/{id}", false),
            ("a name that begins like this machine", "http://127.0.0.1.example/{id}", false),
            ("another scheme", "file:///etc/{id}", false),
            ("capital letters in the host", "https://WIKI.example/{id}", false),
            ("the default port", "https://wiki.example:443/{id}", false),
            ("a number for an address", "http://2130706433/{id}", false),
            ("no scheme", "wiki.example/{id}", false),
            ("nothing", "", false),
        ];
        for (row, text, expected) in rows {
            let read = UrlTemplate::parse(text);
            assert_eq!(read.is_ok(), expected, "{row}: {read:?}");
        }
    }

    #[test]
    fn a_value_that_is_no_segment_names_no_document() {
        let template = UrlTemplate::parse("https://wiki.example/{metadata.page}/raw").unwrap();
        let long = "x".repeat(VALUE_BYTES_MAX);
        let rows = [
            ("a text", Value::Text("a".to_owned()), Some("https://wiki.example/a/raw")),
            ("a number", Value::Int(-7), Some("https://wiki.example/-7/raw")),
            ("a path", Value::Text("a/../b".to_owned()), Some("https://wiki.example/a%2F..%2Fb/raw")),
            ("an encoded parent", Value::Text("%2e%2e".to_owned()), Some("https://wiki.example/%252e%252e/raw")),
            ("a query", Value::Text("a?b#c".to_owned()), Some("https://wiki.example/a%3Fb%23c/raw")),
            ("a host", Value::Text("//evil.example".to_owned()), Some("https://wiki.example/%2F%2Fevil.example/raw")),
            ("a backslash", Value::Text("..\\".to_owned()), Some("https://wiki.example/..%5C/raw")),
            ("three dots", Value::Text("...".to_owned()), Some("https://wiki.example/.../raw")),
            ("another script", Value::Text("é".to_owned()), Some("https://wiki.example/%C3%A9/raw")),
            ("nothing", Value::Text(String::new()), None),
            ("this folder", Value::Text(".".to_owned()), None),
            ("the parent", Value::Text("..".to_owned()), None),
            ("a line end", Value::Text("a\r\nb".to_owned()), None),
            ("a zero", Value::Text("a\0".to_owned()), None),
            ("a truth value", Value::Bool(true), None),
            ("a fraction", Value::Float(0.5), None),
            ("too long", Value::Text(format!("{long}x")), None),
        ];
        for (row, value, expected) in rows {
            let metadata = Metadata::from([("page".to_owned(), value)]);
            let value = template.value(&guard("1"), Some(&metadata));
            let url = value.and_then(|value| template.url(&value));
            assert_eq!(url.as_ref().map(Url::as_str), expected, "{row}");
        }
        let longest = Metadata::from([("page".to_owned(), Value::Text(long))]);
        assert!(template.value(&guard("1"), Some(&longest)).is_some(), "the longest");
        assert_eq!(template.value(&guard("1"), Some(&Metadata::new())), None, "no such key");
        assert_eq!(template.value(&guard("1"), None), None, "no metadata");
        assert_eq!(UrlTemplate::parse(PAGES).unwrap().value(&guard(".."), None), None, "a guard like a parent");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Values are made of what parsers of URLs treat in their own ways.
        #[test]
        fn no_value_leads_elsewhere(value in r"([%./\\?#@:;&\u{ff0e}\u{2028} é]|2e|%2f|a|\PC){0,40}") {
            let template = UrlTemplate::parse("https://wiki.example:8443/api/{metadata.page}/raw").unwrap();
            let metadata = Metadata::from([("page".to_owned(), Value::Text(value.clone()))]);
            let Some(found) = template.value(&guard("1"), Some(&metadata)) else { return Ok(()) };
            let url = template.url(&found).expect("a segment");
            let host = (url.scheme(), url.host_str(), url.port(), url.query(), url.fragment(), url.username());
            prop_assert_eq!(host, ("https", Some("wiki.example"), Some(8443), None, None, ""));
            let segments: Vec<&str> = url.path_segments().expect("a path").collect();
            prop_assert_eq!(segments.len(), 3);
            let decoded = percent_encoding::percent_decode_str(segments[1]).decode_utf8().expect("UTF-8");
            prop_assert_eq!((segments[0], &*decoded, segments[2]), ("api", value.as_str(), "raw"));
        }
    }
}
