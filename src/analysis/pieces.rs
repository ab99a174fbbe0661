//! Cuts a text in normal form into pieces: words, names of several words, and runs of scripts without spaces.
//!
//! The time is linear in the length of the text, whatever the text is. What is data and not language is left out: data
//! URIs, base64, and words that are too long for a word.

use std::borrow::Cow;

use super::normal::lower;
use super::script::{Class, class};

/// The longest word or name that counts, in bytes. A longer one is data (a hash, base64), not language.
pub(super) const WORD_BYTES_MAX: usize = 128;
/// The mean length of the parts of a long name, in bytes. If it is greater, the name is data: paths have shorter parts.
const DATA_PART_BYTES_MIN: usize = 17;
/// The longest word in which upper case shows parts. In a longer one, it is random.
const CAMEL_BYTES_MAX: usize = 64;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// A word of letters, in lower case.
    Word(Cow<'t, str>),
    /// A number, or a name with signs or digits in it, in lower case. It is compared as it is.
    Literal(Cow<'t, str>),
    /// Chinese or Japanese text without spaces or signs.
    HanOrKana(&'t str),
    /// A Korean word.
    Hangul(&'t str),
    /// Thai, Lao, Khmer or Burmese text without spaces or signs.
    Unspaced(&'t str),
}

/// Returns the pieces of a text in normal form, in its order. A name comes before its parts.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::with_capacity(text.len() / 6);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match class(first) {
            Class::Word => {
                let run = rest.get(..run_len(rest)).unwrap_or(rest);
                let data = data_uri_len(rest, run);
                if data == 0 {
                    push_run(&mut pieces, run);
                }
                run.len().max(data)
            }
            Class::HanOrKana => {
                let run = of_class(rest, Class::HanOrKana);
                pieces.push(Piece::HanOrKana(run));
                run.len()
            }
            Class::Hangul => {
                let run = of_class(rest, Class::Hangul);
                pieces.push(Piece::Hangul(run));
                run.len()
            }
            Class::Unspaced => {
                let run = of_class(rest, Class::Unspaced);
                pieces.push(Piece::Unspaced(run));
                run.len()
            }
            Class::Apostrophe | Class::Connector | Class::Other => first.len_utf8(),
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    pieces
}

/// Returns the beginning of a text whose characters are all of one class.
fn of_class(text: &str, wanted: Class) -> &str {
    let end = text.find(|c| class(c) != wanted).unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// Returns the length of the run that a text begins with: words that single signs hold together.
fn run_len(text: &str) -> usize {
    let mut end = 0;
    loop {
        let rest = text.get(end..).unwrap_or_default();
        end += rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let rest = text.get(end..).unwrap_or_default();
        if !rest.starts_with(|c: char| c.is_ascii()) {
            end += of_class(rest, Class::Word).len();
        }
        let rest = text.get(end..).unwrap_or_default();
        let sign = sign_len(rest);
        let after = rest.get(sign..).and_then(|rest| rest.chars().next());
        if sign == 0 || after.is_none_or(|after| class(after) != Class::Word) {
            return end + suffix_len(text, end);
        }
        end += sign;
    }
}

/// Returns the length of the sign that a text begins with, if it may stand inside a name.
fn sign_len(text: &str) -> usize {
    if text.starts_with("://") {
        return "://".len();
    }
    if text.starts_with("::") {
        return "::".len();
    }
    // Every one of these signs is one byte long.
    text.chars().next().map_or(0, |c| usize::from(matches!(class(c), Class::Connector | Class::Apostrophe)))
}

/// Returns the length of the signs that belong to the name before them: `C++`, `F#`.
fn suffix_len(text: &str, end: usize) -> usize {
    if end != 1 {
        return 0;
    }
    let rest = text.get(end..).unwrap_or_default();
    let suffix = ["++", "#"].into_iter().find(|suffix| rest.starts_with(suffix)).unwrap_or_default();
    let is_whole =
        rest.get(suffix.len()..).and_then(|rest| rest.chars().next()).is_none_or(|c| class(c) != Class::Word);
    if is_whole { suffix.len() } else { 0 }
}

/// Returns the length of the data URI that a text begins with; 0 if it begins with something else.
fn data_uri_len(text: &str, run: &str) -> usize {
    let is_data = run.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    let follows = text.get(run.len()..).is_some_and(|rest| rest.starts_with([';', ',']));
    if !(is_data && follows) {
        return 0;
    }
    text.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '(' | ')' | '<' | '>')).unwrap_or(text.len())
}

fn push_run<'t>(pieces: &mut Vec<Piece<'t>>, run: &'t str) {
    // Most runs are one word.
    if run.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return push_segment(pieces, run);
    }
    let is_sign = |c| matches!(class(c), Class::Connector | Class::Apostrophe);
    let Some(sign) = run.find(is_sign) else { return push_segment(pieces, run) };
    if run.ends_with(['+', '#']) {
        pieces.push(Piece::Literal(lower(run)));
        return push_segment(pieces, run.get(..sign).unwrap_or_default());
    }
    // Hyphens and underscores join words to one name, and the other signs join names.
    let is_joint = |c: char| matches!(c, '-' | '_');
    let is_connector = |c: char| class(c) == Class::Connector && !is_joint(c);
    let names = || run.split(is_connector).filter(|name| !name.is_empty());
    if run.len() > WORD_BYTES_MAX {
        let parts = run.split(is_sign).filter(|part| !part.is_empty()).count();
        if run.len() / parts.max(1) >= DATA_PART_BYTES_MIN {
            return;
        }
    } else if run.contains(is_connector) {
        if let Some(number) = grouped_number(run) {
            return pieces.push(Piece::Literal(Cow::Owned(number)));
        }
        pieces.push(Piece::Literal(lower(run)));
    }
    for name in names() {
        if name.contains(is_joint) && name.len() <= WORD_BYTES_MAX {
            push_joined(pieces, name);
        }
        for part in name.split(is_joint).filter(|part| !part.is_empty()) {
            if part.contains('\'') { push_with_apostrophe(pieces, part) } else { push_segment(pieces, part) }
        }
    }
}

/// Adds a name whose parts only hyphens or underscores hold together. It is the same as without them: `e-mail` is
/// `email`, and `get_user` is `getUser`. Numbers keep them.
fn push_joined<'t>(pieces: &mut Vec<Piece<'t>>, name: &'t str) {
    if !name.contains(char::is_alphabetic) {
        return pieces.push(Piece::Literal(Cow::Borrowed(name)));
    }
    let joined: Cow<'t, str> = Cow::Owned(lower(&name.replace(['-', '_', '\''], "")).into_owned());
    pieces.push(if joined.contains(char::is_numeric) { Piece::Literal(joined) } else { Piece::Word(joined) });
}

/// Returns a whole number whose thousands are set apart, such as `12,500`, without the signs.
fn grouped_number(run: &str) -> Option<String> {
    let mut groups = run.split([',', '.', '\'']);
    let is_digits = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
    let first = groups.next().filter(|first| (1..=3).contains(&first.len()) && is_digits(first))?;
    let mut number = first.to_owned();
    for group in groups {
        if group.len() != 3 || !is_digits(group) {
            return None;
        }
        number.push_str(group);
    }
    Some(number)
}

/// French, Italian and Catalan shorten an article or a preposition to one of these before an apostrophe.
const ELISIONS: [&str; 34] = [
    "l", "d", "j", "m", "t", "s", "n", "c", "qu", "jusqu", "lorsqu", "puisqu", "quoiqu", "quelqu", "presqu", "un",
    "gl", "dell", "nell", "sull", "all", "dall", "coll", "agl", "degl", "dagl", "negl", "sugl", "quell", "quest",
    "bell", "sant", "com", "tutt",
];

/// English shortens a word to one of these after an apostrophe, or ends a word with it.
const ENGLISH_ENDINGS: [&str; 6] = ["s", "re", "ve", "ll", "d", "m"];

fn push_with_apostrophe<'t>(pieces: &mut Vec<Piece<'t>>, part: &'t str) {
    if part.len() > WORD_BYTES_MAX {
        return part.split('\'').for_each(|piece| push_segment(pieces, piece));
    }
    let joined = || Piece::Word(Cow::Owned(lower(&part.replace('\'', "")).into_owned()));
    let Some((before, after)) = part.split_once('\'') else { return };
    let (first, second) = (lower(before), lower(after));
    if second.contains('\'') {
        pieces.push(joined());
        return part.split('\'').for_each(|piece| push_segment(pieces, piece));
    }
    if ENGLISH_ENDINGS.contains(&&*second) {
        return push_segment(pieces, before);
    }
    if ELISIONS.contains(&&*first) {
        return push_segment(pieces, after);
    }
    if part.contains(|c: char| c.is_numeric()) {
        push_segment(pieces, before);
        return push_segment(pieces, after);
    }
    pieces.push(joined());
    // In Ukrainian and Hebrew the sign belongs to the word, and so does the `n't` of English.
    if part.is_ascii() && &*second != "t" {
        for piece in [before, after].into_iter().filter(|piece| piece.len() > 1) {
            push_segment(pieces, piece);
        }
    }
}

/// Adds a word without signs, and its parts if upper case or digits show any.
fn push_segment<'t>(pieces: &mut Vec<Piece<'t>>, segment: &'t str) {
    if segment.len() > WORD_BYTES_MAX {
        return;
    }
    // Most words are like this.
    if segment.starts_with(|c: char| c.is_ascii_alphabetic()) && segment.bytes().skip(1).all(|b| b.is_ascii_lowercase())
    {
        return pieces.push(Piece::Word(lower(segment)));
    }
    if !segment.contains(char::is_alphanumeric) {
        return;
    }
    if segment.contains(char::is_numeric) {
        pieces.push(Piece::Literal(lower(segment)));
        return push_halves(pieces, segment);
    }
    pieces.push(Piece::Word(lower(segment)));
    if segment.len() > CAMEL_BYTES_MAX {
        return;
    }
    let humps = humps(segment);
    // In random letters every second one would begin a part.
    if humps.len() > 1 && segment.len() > 2 * humps.len() {
        pieces.extend(humps.into_iter().map(|hump| Piece::Word(lower(hump))));
    }
}

/// Adds the two parts of a word that changes once between digits and letters, such as `30kg` or `python3`.
fn push_halves<'t>(pieces: &mut Vec<Piece<'t>>, segment: &'t str) {
    let starts_with_digit = segment.starts_with(char::is_numeric);
    let Some(change) = segment.find(|c: char| c.is_numeric() != starts_with_digit) else { return };
    let (Some(first), Some(second)) = (segment.get(..change), segment.get(change..)) else { return };
    if second.contains(|c: char| c.is_numeric() == starts_with_digit) {
        return;
    }
    let (number, word) = if starts_with_digit { (first, second) } else { (second, first) };
    pieces.push(Piece::Word(lower(word)));
    pieces.push(Piece::Literal(Cow::Borrowed(number)));
}

/// Returns the parts of a word that upper case shows: `getUserById`, `HTTPServer`. A plural such as `PDFs` has none.
fn humps(word: &str) -> Vec<&str> {
    let mut humps = Vec::new();
    let mut start = 0;
    let mut last: Option<char> = None;
    let mut letters = word.char_indices().peekable();
    while let Some((place, c)) = letters.next() {
        let next = letters.peek().map(|(_, next)| *next);
        let ends_in_plural = || word.get(place + c.len_utf8()..) == Some("s");
        let begins = c.is_uppercase()
            && last.is_some_and(|last| {
                last.is_lowercase()
                    || (last.is_uppercase() && next.is_some_and(char::is_lowercase) && !ends_in_plural())
            });
        if begins {
            humps.extend(word.get(start..place));
            start = place;
        }
        last = Some(c);
    }
    humps.extend(word.get(start..));
    humps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows pieces: a word as it is, a literal in brackets, and a run between bars.
    fn shown(text: &str) -> String {
        let shown = |piece: &Piece<'_>| match piece {
            Piece::Word(word) => word.to_string(),
            Piece::Literal(literal) => format!("[{literal}]"),
            Piece::HanOrKana(run) | Piece::Hangul(run) | Piece::Unspaced(run) => format!("|{run}|"),
        };
        pieces(text).iter().map(shown).collect::<Vec<String>>().join(" ")
    }

    #[test]
    fn texts_are_cut_into_words_and_names() {
        let rows = [
            ("nothing", "", ""),
            ("signs only", "?! -- \u{2026} ... :: ''", ""),
            ("a sentence", "The pods, scheduled. Twice", "the pods scheduled twice"),
            ("snake case", "get_access_token", "getaccesstoken get access token"),
            ("camel case", "getUserById", "getuserbyid get user by id"),
            ("upper case before a word", "HTTPServer", "httpserver http server"),
            ("upper case in the plural", "PDFs", "pdfs"),
            ("a hyphen", "e-mail", "email e mail"),
            ("a file", "deploy.yaml", "[deploy.yaml] deploy yaml"),
            ("a path", "/etc/ragward/x.toml", "[etc/ragward/x.toml] etc ragward x toml"),
            ("a pair", "Owner:marketing", "[owner:marketing] owner marketing"),
            ("a path of Rust", "std::fs", "[std::fs] std fs"),
            ("an address", "a.b@example.com", "[a.b@example.com] a b example com"),
            ("a URL", "https://example.com/a", "[https://example.com/a] https example com a"),
            ("thousands", "12,500 and 1.234.567", "[12500] and [1234567]"),
            ("a version", "v1.22.1", "[v1.22.1] [v1] v [1] [22] [1]"),
            ("a number of a case", "AB-1234/9", "[ab-1234/9] [ab1234] ab [1234] [9]"),
            ("a date", "2026-03-31", "[2026-03-31] [2026] [03] [31]"),
            ("a unit", "30kg", "[30kg] kg [30]"),
            ("a name with digits inside", "w1x0", "[w1x0]"),
            ("languages of programs", "C++ and C#, F#.", "[c++] c and [c#] c [f#] f"),
            ("a possessive", "the user's pods'", "the user pods"),
            ("a contraction", "don't", "dont"),
            ("elisions", "l'abonnement dell'assegno", "abonnement assegno"),
            ("a name with an apostrophe", "O'Brien", "obrien brien"),
            ("an apostrophe in Cyrillic", "\u{43f}'\u{44f}\u{442}\u{44c}", "\u{43f}\u{44f}\u{442}\u{44c}"),
            (
                "scripts beside each other",
                "K8s\u{30af}\u{30e9}\u{3092}14\u{65e5}",
                "[k8s] |\u{30af}\u{30e9}\u{3092}| [14] |\u{65e5}|",
            ),
            (
                "Korean and Thai",
                "\u{d734}\u{ac00}\u{b97c} \u{e25}\u{e32}",
                "|\u{d734}\u{ac00}\u{b97c}| |\u{e25}\u{e32}|",
            ),
            ("a data URI", "see (data:image/png;base64,iVBORw0KGgo=) there", "see there"),
        ];
        for (name, text, expected) in rows {
            assert_eq!(shown(text), expected, "{name}");
        }
    }

    #[test]
    fn data_is_left_out() {
        let rows = [
            ("an endless word", "a".repeat(WORD_BYTES_MAX + 1)),
            ("base64", "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42r/".repeat(4)),
        ];
        for (name, text) in rows {
            assert_eq!(shown(&text), "", "{name}");
        }
        let path = "some/long/path/".repeat(20);
        assert!(shown(&path).starts_with("some long path some"), "the parts of a long path count");
    }
}
