//! Reads the text of a regular expression.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Dot, Hir, Look, Repetition};

use super::class;

/// The number of times that a part may be repeated, by all repetitions around it together.
const REPEAT_MAX: u32 = 1_000;
/// The deepest nesting of groups.
const NESTING_MAX: usize = 1_000;

/// Reads a pattern, or says what is wrong with it.
pub(super) fn read(text: &str) -> Result<Hir, String> {
    let mut reader = Reader { rest: text, flags: Flags::default(), nesting: 0 };
    let part = reader.alternatives()?;
    // Only a closing parenthesis ends the alternatives early.
    if reader.rest.is_empty() { Ok(part.meaning) } else { Err(refused("unexpected )", ")")) }
}

fn refused(what: &str, part: &str) -> String {
    format!("a regular expression has {what}: `{part}`")
}

#[derive(Clone, Copy, Default)]
struct Flags {
    /// `i`: matching ignores case.
    fold_case: bool,
    /// `m`: `^` and `$` match at the ends of lines.
    lines: bool,
    /// `s`: `.` also matches the end of a line.
    dot_newline: bool,
}

/// A part of a pattern.
struct PatternPart {
    meaning: Hir,
    /// The number of times that its most repeated part is repeated.
    repeats: u32,
}

impl PatternPart {
    fn once(meaning: Hir) -> Self {
        Self { meaning, repeats: 1 }
    }
}

struct Reader<'a> {
    rest: &'a str,
    flags: Flags,
    nesting: usize,
}

/// The kind of an opening parenthesis.
enum Opening {
    Group,
    /// `(?i)` and the like, which set flags and open no group.
    Flags,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next()?;
        self.rest = characters.as_str();
        Some(next)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(text) else { return false };
        self.rest = rest;
        true
    }

    /// Reads up to the end, or to the parenthesis that closes the group. The recursion is bounded because nesting is.
    fn alternatives(&mut self) -> Result<PatternPart, String> {
        let (mut alternatives, mut repeats) = (Vec::new(), 1);
        loop {
            let part = self.sequence()?;
            repeats = repeats.max(part.repeats);
            alternatives.push(part.meaning);
            if !self.skip("|") {
                return Ok(PatternPart { meaning: Hir::alternation(alternatives), repeats });
            }
        }
    }

    /// Reads up to the end, a closing parenthesis or a `|`.
    fn sequence(&mut self) -> Result<PatternPart, String> {
        let mut parts: Vec<PatternPart> = Vec::new();
        let mut after_repetition = false;
        while let Some(next) = self.peek().filter(|c| !matches!(c, '|' | ')')) {
            let before = self.rest;
            let repeated = if let Some((least, most)) = self.repetition()? {
                // An ungreedy repetition matches the same texts.
                self.skip("?");
                let shown = before.get(..before.len() - self.rest.len()).unwrap_or_default();
                if after_repetition {
                    return Err(refused("a repetition of a repetition", shown));
                }
                let part = parts.pop().ok_or_else(|| refused("nothing to repeat", shown))?;
                parts.push(repeat(part, least, most, shown)?);
                true
            } else {
                self.next();
                self.part(next, &mut parts)?;
                false
            };
            after_repetition = repeated;
        }
        let repeats = parts.iter().map(|part| part.repeats).max().unwrap_or(1);
        Ok(PatternPart { meaning: Hir::concat(parts.into_iter().map(|part| part.meaning).collect()), repeats })
    }

    /// Reads `*`, `+`, `?` or `{…}`, if one is next, and returns the smallest and the largest number of repetitions. A
    /// `{` that does not begin a count is a character.
    fn repetition(&mut self) -> Result<Option<(u32, Option<u32>)>, String> {
        let simple = match self.peek() {
            Some('*') => Some((0, None)),
            Some('+') => Some((1, None)),
            Some('?') => Some((0, Some(1))),
            Some('{') => None,
            _ => return Ok(None),
        };
        if simple.is_some() {
            self.next();
            return Ok(simple);
        }
        let Some((counts, rest)) = self.rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            return Ok(None);
        };
        let (least, most) = match counts.split_once(',') {
            None => (count(counts), count(counts).map(Some)),
            Some((least, "")) => (count(least), Some(None)),
            Some((least, most)) => (count(least), count(most).map(Some)),
        };
        let (Some(least), Some(most)) = (least, most) else { return Ok(None) };
        let fits = least <= REPEAT_MAX && most.is_none_or(|most| most <= REPEAT_MAX && least <= most);
        if !fits {
            return Err(refused("an invalid repeat count", counts));
        }
        self.rest = rest;
        Ok(Some((least, most)))
    }

    /// Reads the part that begins with `first`, which was just read.
    fn part(&mut self, first: char, parts: &mut Vec<PatternPart>) -> Result<(), String> {
        let meaning = match first {
            '(' => {
                let outside = self.flags;
                if let Opening::Group = self.opening()? {
                    self.nesting += 1;
                    if self.nesting > NESTING_MAX {
                        return Err(refused("groups that are nested too deep", "("));
                    }
                    parts.push(self.alternatives()?);
                    if !self.skip(")") {
                        return Err(refused("no closing )", self.rest));
                    }
                    self.nesting -= 1;
                    self.flags = outside;
                }
                return Ok(());
            }
            '^' => Hir::look(if self.flags.lines { Look::StartLF } else { Look::Start }),
            '$' => Hir::look(if self.flags.lines { Look::EndLF } else { Look::End }),
            '.' => Hir::dot(if self.flags.dot_newline { Dot::AnyChar } else { Dot::AnyCharExceptLF }),
            '[' => Hir::class(Class::Unicode(self.class()?)),
            '\\' => return self.escaped(parts),
            other => self.literal(other),
        };
        parts.push(PatternPart::once(meaning));
        Ok(())
    }

    fn literal(&self, c: char) -> Hir {
        let mut class = class::of_ranges(&[(c, c)]);
        if self.flags.fold_case {
            class::fold(&mut class);
        }
        Hir::class(Class::Unicode(class))
    }

    /// Reads what follows a `(`.
    fn opening(&mut self) -> Result<Opening, String> {
        if !self.skip("?") {
            return Ok(Opening::Group);
        }
        if self.skip("P<") || self.skip("<") {
            let (name, rest) =
                self.rest.split_once('>').ok_or_else(|| refused("an invalid name of a group", self.rest))?;
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return Err(refused("an invalid name of a group", name));
            }
            self.rest = rest;
            return Ok(Opening::Group);
        }
        let unsupported = || refused("unsupported syntax", "(?");
        let (mut flags, mut sets, mut saw_flag) = (self.flags, true, false);
        loop {
            match self.next().ok_or_else(unsupported)? {
                'i' => (flags.fold_case, saw_flag) = (sets, true),
                'm' => (flags.lines, saw_flag) = (sets, true),
                's' => (flags.dot_newline, saw_flag) = (sets, true),
                // `U` makes repetitions ungreedy, which matches the same texts.
                'U' => saw_flag = true,
                '-' if sets => (sets, saw_flag) = (false, false),
                end @ (':' | ')') if sets || saw_flag => {
                    self.flags = flags;
                    return Ok(if end == ':' { Opening::Group } else { Opening::Flags });
                }
                _ => return Err(unsupported()),
            }
        }
    }

    /// Reads what follows a `\` outside of brackets.
    fn escaped(&mut self, parts: &mut Vec<PatternPart>) -> Result<(), String> {
        let meaning = match self.peek() {
            Some('A') => Some(Hir::look(Look::Start)),
            Some('z') => Some(Hir::look(Look::End)),
            Some('b') => Some(Hir::look(Look::WordAscii)),
            Some('B') => Some(Hir::look(Look::WordAsciiNegate)),
            Some('Q') => {
                self.next();
                let (literal, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                parts.extend(literal.chars().map(|c| PatternPart::once(self.literal(c))));
                self.rest = rest;
                return Ok(());
            }
            _ => None,
        };
        let meaning = if let Some(meaning) = meaning {
            self.next();
            meaning
        } else if let Some(class) = self.escaped_class()? {
            Hir::class(Class::Unicode(class))
        } else {
            let c = self.escaped_character()?;
            c.map_or_else(Hir::fail, |c| self.literal(c))
        };
        parts.push(PatternPart::once(meaning));
        Ok(())
    }

    /// Reads what follows a `\`, if it is a class: `\d` and the like, or `\p{…}`.
    fn escaped_class(&mut self) -> Result<Option<ClassUnicode>, String> {
        let Some(letter) = self.peek() else { return Ok(None) };
        let mut negated = letter.is_ascii_uppercase();
        let mut class = if let Some(class) = class::perl(letter) {
            self.next();
            class
        } else if matches!(letter, 'p' | 'P') {
            self.next();
            let invalid = || refused("an invalid class", r"\p");
            let mut name = if self.skip("{") {
                let (name, rest) = self.rest.split_once('}').ok_or_else(invalid)?;
                self.rest = rest;
                name.to_owned()
            } else {
                self.next().ok_or_else(invalid)?.to_string()
            };
            if let Some(positive) = name.strip_prefix('^') {
                negated = !negated;
                name = positive.to_owned();
            }
            class::unicode(&name).ok_or_else(|| refused("an unknown class", &name))?
        } else {
            return Ok(None);
        };
        if self.flags.fold_case {
            class::fold(&mut class);
        }
        if negated {
            class.negate();
        }
        Ok(Some(class))
    }

    /// Reads the single character that follows a `\`. Returns `None` for a character that no text can have.
    fn escaped_character(&mut self) -> Result<Option<char>, String> {
        let before = self.rest;
        let invalid = || refused("an invalid escape", &before.chars().take(4).collect::<String>());
        let first = self.next().ok_or_else(|| refused("a backslash at its end", r"\"))?;
        let is_octal = |c: Option<char>| c.is_some_and(|c| c.is_digit(8));
        let character = match first {
            // A digit alone would refer to a group, which RE2 does not support.
            '1'..='7' if !is_octal(self.peek()) => return Err(invalid()),
            '0'..='7' => {
                let mut code = first.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    self.next();
                    code = code * 8 + digit;
                }
                char::from_u32(code)
            }
            'x' => {
                let code = if self.skip("{") {
                    let (digits, rest) = self.rest.split_once('}').ok_or_else(invalid)?;
                    self.rest = rest;
                    let zeros = digits.trim_start_matches('0');
                    let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
                    valid.then(|| u32::from_str_radix(if zeros.is_empty() { "0" } else { zeros }, 16).ok()).flatten()
                } else {
                    let digits = (self.next().and_then(|c| c.to_digit(16)), self.next().and_then(|c| c.to_digit(16)));
                    if let (Some(high), Some(low)) = digits { Some(high * 16 + low) } else { None }
                };
                let code = code.filter(|code| *code <= u32::from(char::MAX)).ok_or_else(invalid)?;
                char::from_u32(code)
            }
            'a' => Some('\x07'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => Some(other),
            _ => return Err(invalid()),
        };
        Ok(character)
    }

    /// Reads what follows a `[`, up to its `]`.
    fn class(&mut self) -> Result<ClassUnicode, String> {
        let negated = self.skip("^");
        let mut class = ClassUnicode::empty();
        // A `]` that comes first is a character.
        let mut first = true;
        while first || !self.skip("]") {
            first = false;
            let members = match self.named_class()? {
                Some(named) => Some(named),
                None if self.skip(r"\") => {
                    if let Some(escaped) = self.escaped_class()? {
                        Some(escaped)
                    } else {
                        let low = self.escaped_character()?;
                        self.range(low)?
                    }
                }
                None => {
                    let low = self.next().ok_or_else(|| refused("no closing ]", "["))?;
                    self.range(Some(low))?
                }
            };
            if let Some(members) = members {
                class.union(&members);
            }
        }
        if negated {
            class.negate();
        }
        Ok(class)
    }

    /// Reads `[:name:]`, if it is next.
    fn named_class(&mut self) -> Result<Option<ClassUnicode>, String> {
        let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) else {
            return Ok(None);
        };
        let (negated, bare) = name.strip_prefix('^').map_or((false, name), |bare| (true, bare));
        let mut class = class::posix(bare).ok_or_else(|| refused("an unknown class", name))?;
        if self.flags.fold_case {
            class::fold(&mut class);
        }
        if negated {
            class.negate();
        }
        self.rest = rest;
        Ok(Some(class))
    }

    /// Reads the characters from `low` to the one after a `-`, or `low` alone. A `-` before the `]` is a character.
    fn range(&mut self, low: Option<char>) -> Result<Option<ClassUnicode>, String> {
        let after = self.rest.strip_prefix('-').filter(|after| !after.is_empty() && !after.starts_with(']'));
        let high = match after {
            None => low,
            Some(after) => {
                self.rest = after;
                if self.skip(r"\") { self.escaped_character()? } else { self.next() }
            }
        };
        let (Some(low), Some(high)) = (low, high) else { return Ok(None) };
        if high < low {
            return Err(refused("an invalid range", &format!("{low}-{high}")));
        }
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(low, high)]);
        if self.flags.fold_case {
            class::fold(&mut class);
        }
        Ok(Some(class))
    }
}

/// Reads a count in braces. A count that does not fit becomes the largest number, which is too large as well. Digits
/// with a leading zero are not a count.
fn count(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    (plain && !leading_zero).then(|| digits.parse().unwrap_or(u32::MAX))
}

fn repeat(part: PatternPart, least: u32, most: Option<u32>, shown: &str) -> Result<PatternPart, String> {
    let times = most.unwrap_or(least);
    let repeats = if most == Some(0) { 1 } else { part.repeats.saturating_mul(times.max(1)) };
    if (least >= 2 || most.is_some_and(|most| most >= 2)) && repeats > REPEAT_MAX {
        return Err(refused("an invalid repeat count", shown));
    }
    let repetition = Repetition { min: least, max: most, greedy: true, sub: Box::new(part.meaning) };
    Ok(PatternPart { meaning: Hir::repetition(repetition), repeats })
}
