use serde_json::json;

use super::{check, refused};
use crate::language::condition::pattern::Pattern;

#[test]
fn patterns_match_as_in_re2() {
    let rows = [
        ("word characters are of ASCII", r"^\w+$", "josé", false),
        ("and so are others", r"^\W$", "é", true),
        ("digits are of ASCII", r"\d", "٣", false),
        ("and so are others", r"^\D$", "٣", true),
        ("white space is of ASCII", r"\s", "\u{a0}", false),
        ("a vertical tab is no white space", r"\s", "\x0b", false),
        ("but it is in a named class", r"[[:space:]]", "\x0b", true),
        ("boundaries are of ASCII", r"\bé", "aé", true),
        ("in brackets", r"^[\w]+$", "josé", false),
        ("negated in brackets", r"^[^\w]$", "é", true),
        ("and in brackets a dash after a class", r"^[\w-.]+$", "a-b.c", true),
        ("two ampersands", "^[a-z&&b]$", "&", true),
        ("two ampersands do not intersect", "^[a-z&&b]$", "x", true),
        ("two dashes begin a range", "^[--a]$", "A", true),
        ("two tildes", "^[a~~b]$", "~", true),
        ("a bracket in brackets", "^[[x]$", "[", true),
        ("a bracket that comes first", "^[]a]$", "]", true),
        ("a negated bracket that comes first", "^[^]a]$", "b", true),
        ("a quoted text", r"^\Qa.b\E$", "a.b", true),
        ("a quoted text is not read", r"^\Qa.b\E$", "axb", false),
        ("a quoted text to the end", r"\Qa+", "a+", true),
        ("a brace that counts nothing", "^a{,2}$", "a{,2}", true),
        ("a lone brace", "{", "{", true),
        ("a count with a leading zero", "^a{02}$", "a{02}", true),
        ("without case, beyond ASCII", "(?i)STRAẞE", "straße", true),
        ("without case, the Kelvin sign", "(?i)k", "\u{212a}", true),
        ("without case, in brackets", "(?i)^[^k]$", "\u{212a}", false),
        ("without case, a class", r"(?i)^\w$", "ſ", true),
        ("the end of a text alone", "^a$", "a\n", false),
        ("lines", "(?m)^b$", "a\nb\nc", true),
        ("a dot does not match the end of a line", "a.b", "a\nb", false),
        ("unless it is asked to", "(?s)a.b", "a\nb", true),
        ("flags end with their group", "((?i)a)b", "AB", false),
        ("flags of a group", "(?i:a)b", "Ab", true),
        ("flags go on after a bar", "(?i)x|a", "A", true),
        ("flags may be taken back", "(?i)(?-i)a", "A", false),
        ("flags are not repeated", "^ab(?i)*$", "abbb", true),
        ("octal", r"\101\0", "A\0", true),
        ("hexadecimal", r"\x41\x{1F600}", "A😀", true),
        ("a category of one letter", r"^\pN$", "٣", true),
        ("a category", r"^\p{Lu}$", "É", true),
        ("no such category", r"^\P{Lu}$", "é", true),
        ("a script", r"^\p{Greek}+$", "Ωμ", true),
        ("no such script", r"^\p{^Greek}$", "a", true),
        ("a category by its long name", r"^\p{uppercase_letter}$", "É", true),
        ("a named class", "^[[:word:]]+$", "a_1", true),
        ("not a named class", "^[[:^alpha:]]$", "é", true),
        ("the begin and the end", r"\A\z", "", true),
        ("ungreedy", "(?U)^a*?b$", "aab", true),
        ("a named group", "(?P<n>a)(?<m>b)", "ab", true),
        ("nothing", "", "abc", true),
        ("or nothing", "x|", "abc", true),
        ("part of the text", "b", "abc", true),
        ("as often as may be", "^(a{100}){10}$", &"a".repeat(1_000), true),
    ];
    for (name, pattern, text, expected) in rows {
        let compiled = Pattern::compile(pattern).unwrap_or_else(|e| panic!("{name}: {pattern}: {e}"));
        assert_eq!(compiled.matches(text), expected, "{name}: {pattern} with {text:?}");
    }
}

#[test]
fn what_go_refuses_is_refused() {
    let rows = [
        "x**",
        "x++",
        "a?+",
        "x*??",
        "x{2}{3}",
        "(a|b)*+",
        "*",
        "a|*",
        "(?i)*",
        "{2}",
        r"\Q\E*",
        "a{1001}",
        "(a{100}){11}",
        "((a{1000})*){2}",
        "a{2,1}",
        "a{99999999999}",
        "(?x)a",
        "(?u)a",
        "(?--i)",
        "(?i-)",
        "(?-)",
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        "(?P=n)",
        "(?'n'a)",
        "(?P<>a)",
        "(?P<é>a)",
        "(?P<n>",
        "(?<n",
        "(?",
        "(?i",
        r"\1",
        r"\8",
        r"\C",
        r"\Z",
        r"\q",
        r"\é",
        r"\e",
        r"\x4",
        r"\xg",
        r"\x{}",
        r"\x{110000}",
        r"\",
        "(",
        ")",
        "a)b",
        "[",
        "[]",
        "[a",
        "[z-a]",
        r"[a-\d]",
        r"[\b]",
        r"[\A]",
        r"[\Qa\E]",
        r"[\]",
        "[[:foo:]]",
        "[[:word:]",
        r"\p",
        r"\p{",
        r"\p{}",
        r"\p{^}",
        r"\p{Foo}",
        r"\p{Grek}",
        r"\p{Old_Italic}",
        r"\p{Alphabetic}",
        r"[\p{N",
        r"(?i)a{1001}",
    ];
    for pattern in rows {
        assert!(Pattern::compile(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn what_go_takes_is_taken() {
    let taken = [
        "^*",
        "$+",
        r"\b*",
        "a*(?i)*",
        r"a\Q\E*",
        "(?)",
        "(?:)",
        "()",
        "|",
        "||",
        "x*?",
        "a{1,1000}",
        "(a{100}){10}",
        "(a{0,}){1000}",
        "((a{0})){1000}",
        r"\_",
        r"\-",
        r"\12",
        "(?P<n>a)(?P<n>b)",
        "(?P<1>a)",
        "[a-]",
        "[-a]",
        "[a-b-c]",
        r"[\--a]",
        "[[.a.]]",
        r"\pZz",
        r"\p{Cs}",
    ];
    for pattern in taken {
        if let Err(e) = Pattern::compile(pattern) {
            panic!("{pattern}: {e}");
        }
    }
}

#[test]
fn a_literal_pattern_is_refused_with_the_model() {
    for pattern in ["x++", "(?x)a", "a{1001}", "("] {
        refused(pattern, "string", &format!("x.matches('{pattern}')"));
        refused(pattern, "string", &format!("matches(x, '{pattern}')"));
        refused(pattern, "string", &format!("x.matches(string('{pattern}'))"));
        let absorbed = "x.matches(x) || true";
        check(pattern, "string", absorbed, &json!(pattern), "true");
        check(pattern, "string", "x.matches(x)", &json!(pattern), "regular expression");
    }
}

/// Go takes this pattern.
#[test]
fn a_pattern_that_takes_too_much_memory_is_refused() {
    let refused = Pattern::compile(r"\p{L}{1000}").expect_err("too large");
    assert!(refused.contains("too large"), "{refused}");
}
