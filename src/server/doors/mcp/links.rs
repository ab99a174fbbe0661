//! The URLs of results that stand in the metadata of chunks. Whoever wrote a document may have written them, so a URL is shown
//! only if it leads to a site that the server's operator listed.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use crate::visible::is_visible;

/// The longest URL in bytes. Browsers and proxies take this much, and not all of them take more.
const URL_BYTES_MAX: usize = 2_048;
/// The characters with which markup ends a URL. Clients write URLs into Markdown and HTML, so these are encoded.
const MARKUP: &AsciiSet = &CONTROLS
    .add(b'(')
    .add(b')')
    .add(b'[')
    .add(b']')
    .add(b'<')
    .add(b'>')
    .add(b'"')
    .add(b'\'')
    .add(b'`')
    .add(b'\\')
    .add(b'|');

/// The rules by which the metadata of a chunk gives the URL of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// The key of the metadata; `None` if no metadata gives a URL.
    key: Option<String>,
    /// The hosts to which a URL may lead.
    hosts: Vec<String>,
}

impl Links {
    pub(super) const fn new(key: Option<String>, hosts: Vec<String>) -> Self {
        Self { key, hosts }
    }

    /// Returns the URL of a chunk, whose metadata `text_of` returns by its key; `None` if there is none that may be shown.
    pub(super) fn url<'m>(&self, text_of: impl FnOnce(&str) -> Option<&'m str>) -> Option<String> {
        let text = text_of(self.key.as_deref()?)?;
        if text.len() > URL_BYTES_MAX || text.chars().any(|c| c.is_whitespace() || !is_visible(c)) {
            return None;
        }
        let url = Url::parse(text).ok()?;
        let is_of_web = ["http", "https"].contains(&url.scheme());
        let names_nobody = url.username().is_empty() && url.password().is_none();
        let is_listed = url.host_str().is_some_and(|host| self.hosts.iter().any(|listed| listed == host));
        if !is_of_web || !names_nobody || !is_listed {
            return None;
        }
        // INVARIANT (one reading): what is shown is what was checked, written anew and in ASCII. Another reader of the original
        // text might find another host in it.
        let shown = utf8_percent_encode(url.as_str(), MARKUP).to_string();
        (shown.len() <= URL_BYTES_MAX).then_some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        let links =
            Links::new(Some("url".to_owned()), vec!["wiki.example".to_owned(), "xn--bcher-kva.example".to_owned()]);
        links.url(|key| (key == "url").then_some(text))
    }

    #[test]
    fn a_url_leads_to_a_listed_site() {
        let rows = [
            ("https", "https://wiki.example/a?b=c#d", "https://wiki.example/a?b=c#d"),
            ("http", "http://wiki.example/", "http://wiki.example/"),
            ("a port", "https://wiki.example:8443/a", "https://wiki.example:8443/a"),
            ("capitals", "HTTPS://WIKI.example/A", "https://wiki.example/A"),
            ("no path", "https://wiki.example", "https://wiki.example/"),
            ("letters of others", "https://wiki.example/ä", "https://wiki.example/%C3%A4"),
            ("a name of others", "https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("an encoded dot in the name", "https://wiki%2eexample/a", "https://wiki.example/a"),
            ("wide letters in the name", "https://ｗｉｋｉ.example/a", "https://wiki.example/a"),
            ("a backslash", "https://wiki.example\\@attacker.example", "https://wiki.example/@attacker.example"),
            ("no user before the sign", "https://@wiki.example/a", "https://wiki.example/a"),
            ("steps up", "https://wiki.example/a/../../b", "https://wiki.example/b"),
            (
                "Markdown",
                "https://wiki.example/a)[b](https://attacker.example",
                "https://wiki.example/a%29%5Bb%5D%28https://attacker.example",
            ),
            ("tags", "https://wiki.example/<b>?<i>#<u>", "https://wiki.example/%3Cb%3E?%3Ci%3E#%3Cu%3E"),
            ("a quotation mark", "https://wiki.example/\"'?\"'", "https://wiki.example/%22%27?%22%27"),
            ("an escape is kept", "https://wiki.example/%2F%29", "https://wiki.example/%2F%29"),
        ];
        for (row, text, expected) in rows {
            assert_eq!(shown(text).as_deref(), Some(expected), "{row}");
        }
    }

    #[test]
    fn any_other_text_is_no_url() {
        let long = format!("https://wiki.example/{}", "a".repeat(URL_BYTES_MAX));
        let grows = format!("https://wiki.example/{}", "ä".repeat(800));
        let rows = [
            ("nothing", ""),
            ("a path", "/a"),
            ("no scheme", "//wiki.example/a"),
            ("a script", "javascript:alert(1)//wiki.example"),
            ("a script in capitals", "JaVaScRiPt:alert(1)"),
            ("data", "data:text/html,<script>alert(1)</script>"),
            ("a file", "file://wiki.example/etc/passwd"),
            ("another protocol", "ftp://wiki.example/a"),
            ("a page's own data", "blob:https://wiki.example/a"),
            ("a page's source", "view-source:https://wiki.example/a"),
            ("our own scheme", "ragward://wiki.example/a"),
            ("another host", "https://attacker.example/"),
            ("a host below", "https://a.wiki.example/"),
            ("a host above", "https://example/"),
            ("a name that begins alike", "https://wiki.example.attacker.example/"),
            ("a name that ends alike", "https://attackerwiki.example/"),
            ("a dot at the end", "https://wiki.example./"),
            ("a user", "https://wiki.example@attacker.example/"),
            ("a user at the listed host", "https://anne@wiki.example/"),
            ("a password", "https://:secret@wiki.example/"),
            ("an encoded slash in front of a user", "https://wiki.example%2F@attacker.example/"),
            ("an encoded sign in the name", "https://wiki.example%40attacker.example/"),
            ("an encoded zero in the name", "https://wiki.example%00.attacker.example/"),
            ("a letter that looks alike", "https://wіki.example/"),
            ("a right-to-left sign", "https://wiki.example/\u{202e}gnp.exe"),
            ("a sign without a picture", "https://wiki\u{200b}.example/"),
            ("a soft hyphen in the name", "https://wiki\u{ad}.example/"),
            ("a tag character", "https://wiki.example/\u{e0041}"),
            ("a line", "https://wiki.example/a\nhttps://attacker.example"),
            ("a tab in the scheme", "java\tscript:alert(1)"),
            ("a space", "https://wiki.example/a b"),
            ("a space in front", " https://wiki.example/a"),
            ("a colour", "https://wiki.example/\u{1b}[31m"),
            ("a zero", "https://wiki.example/\0"),
            ("a huge one", long.as_str()),
            ("one that becomes huge", grows.as_str()),
        ];
        for (row, text) in rows {
            assert_eq!(shown(text), None, "{row}");
        }
    }

    #[test]
    fn without_a_rule_no_metadata_gives_a_url() {
        let url = |links: &Links| links.url(|_key| Some("https://wiki.example/a"));
        assert_eq!(url(&Links::default()), None, "no key");
        assert_eq!(url(&Links::new(Some("url".to_owned()), Vec::new())), None, "no host");
        assert_eq!(
            Links::new(Some("url".to_owned()), vec!["wiki.example".to_owned()]).url(|_key| None),
            None,
            "no text"
        );
    }
}
