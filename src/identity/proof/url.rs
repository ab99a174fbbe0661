//! Compares the URL of a proof (`htu`) with that of its request.

/// Returns whether two URLs name the same resource, whatever their queries and fragments (RFC 9449, section 4.3). Upper and lower
/// case of scheme and host do not count, nor do a default port and the case of percent-encoding (RFC 3986, section 6.2.2). A text
/// that is no URL equals none.
pub(super) fn are_equal(one: &str, other: &str) -> bool {
    match (normalized(one), normalized(other)) {
        (Some(one), Some(other)) => one == other,
        (Some(_) | None, _) => false,
    }
}

/// Returns the URL without query and fragment, in the form in which it is compared.
fn normalized(url: &str) -> Option<String> {
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let url = url.split(['?', '#']).next()?;
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, path),
        None => (rest, ""),
    };
    // A user before the name could make it look like another one.
    if authority.is_empty() || authority.contains(['@', '\\']) {
        return None;
    }
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    Some(format!("{scheme}://{authority}/{}", with_capital_escapes(path)))
}

fn with_capital_escapes(path: &str) -> String {
    let mut parts = path.split('%');
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        written.push('%');
        // The text is ASCII.
        let (escape, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        written.push_str(&escape.to_ascii_uppercase());
        written.push_str(rest);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_urls_are_equal_if_they_name_one_resource() {
        let url = "https://rag.example/v1/collections/a%2Fb/retrieve";
        let rows = [
            ("itself", url, true),
            ("with a query", "https://rag.example/v1/collections/a%2Fb/retrieve?x=1", true),
            ("with a fragment", "https://rag.example/v1/collections/a%2Fb/retrieve#x", true),
            ("the scheme in capitals", "HTTPS://rag.example/v1/collections/a%2Fb/retrieve", true),
            ("the host in capitals", "https://RAG.example/v1/collections/a%2Fb/retrieve", true),
            ("the default port", "https://rag.example:443/v1/collections/a%2Fb/retrieve", true),
            ("an escape in small letters", "https://rag.example/v1/collections/a%2fb/retrieve", true),
            ("another port", "https://rag.example:8443/v1/collections/a%2Fb/retrieve", false),
            ("the default port of another scheme", "https://rag.example:80/v1/collections/a%2Fb/retrieve", false),
            ("no TLS", "http://rag.example/v1/collections/a%2Fb/retrieve", false),
            ("another host", "https://rag.example.attacker.example/v1/collections/a%2Fb/retrieve", false),
            ("a user", "https://rag.example@attacker.example/v1/collections/a%2Fb/retrieve", false),
            ("a user before the host", "https://a@rag.example/v1/collections/a%2Fb/retrieve", false),
            ("the path in capitals", "https://rag.example/v1/Collections/a%2Fb/retrieve", false),
            ("an escape that is written out", "https://rag.example/v1/collections/a/b/retrieve", false),
            ("a slash at the end", "https://rag.example/v1/collections/a%2Fb/retrieve/", false),
            ("a longer path", "https://rag.example/v1/collections/a%2Fb/retrieve/x", false),
            ("the origin alone", "https://rag.example", false),
            ("no scheme", "rag.example/v1/collections/a%2Fb/retrieve", false),
            ("the path alone", "/v1/collections/a%2Fb/retrieve", false),
            ("a space", "https://rag.example/v1/collections/a%2Fb/retrieve ", false),
            ("nothing", "", false),
        ];
        for (row, other, expected) in rows {
            assert_eq!(are_equal(url, other), expected, "{row}");
            assert_eq!(are_equal(other, url), expected, "{row}, the other way round");
        }
        assert!(are_equal("https://rag.example", "https://rag.example/"), "an empty path");
        assert!(!are_equal("", ""), "no URL equals none");
        assert!(are_equal("http://localhost:80/%", "http://localhost/%"), "a cut escape");
    }
}
