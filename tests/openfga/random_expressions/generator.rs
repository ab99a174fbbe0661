//! Makes random CEL expressions, most of them well typed, and values for their parameters.

use serde_json::{Map, Value, json};

use crate::support::dice::Dice;

/// The length of the longest expression that `OpenFGA` takes.
const LENGTH_MAX: usize = 512;
const DEPTH_MAX: usize = 5;

/// The type of a part of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Time,
    Address,
    Ints,
    Texts,
    Anys,
    TextMap,
    AnyMap,
    Any,
}

const KINDS: [Kind; 15] = [
    Kind::Bool,
    Kind::Int,
    Kind::Uint,
    Kind::Double,
    Kind::Text,
    Kind::Bytes,
    Kind::Duration,
    Kind::Time,
    Kind::Address,
    Kind::Ints,
    Kind::Texts,
    Kind::Anys,
    Kind::TextMap,
    Kind::AnyMap,
    Kind::Any,
];

const PARTS: [&str; 10] = [
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];
/// Zones whose history is the same in every release of the database. `Europe/Oslo` and `EST5EDT` are left out, since
/// they have two histories from before 1970.
const ZONES: [&str; 16] = [
    "UTC",
    "",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "US/Pacific",
    "Etc/GMT+5",
    "+09:00",
    "-00:30",
    "-08:00",
    "05:45",
    "+24:00",
    "Nowhere/City",
    "+9:5",
    "europe/oslo",
    "Pacific/Auckland",
];
const TIMES: [&str; 18] = [
    "2024-05-06T10:00:00+09:00",
    "2024-02-29T23:59:59.999999999Z",
    "2024-12-31T20:30:00-05:30",
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59.5Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+01:00",
    "2024-07-01T12:00:00.120Z",
    "2101-07-01T12:00:00Z",
    "2023-02-29T00:00:00Z",
    "2024-01-01T24:00:00Z",
    "2024-01-01t00:00:00z",
    "2024-01-01T00:00:60Z",
    "2024-01-01T00:00:00+24:00",
    "2024-01-01T00:00:00.Z",
    "2024-01-01",
    "2024-03-31T01:30:00+00:00",
];
const DURATIONS: [&str; 14] = [
    "1h30m",
    "-1.5h",
    "300ms",
    "0",
    "0s",
    "1ns",
    "-1ns",
    "2562047h47m16.854775807s",
    "-2562047h47m16.854775808s",
    "1d",
    "1.000000001s",
    ".5m",
    "90",
    "100us",
];
const TEXTS: [&str; 30] = [
    "",
    "a",
    "abc",
    "josé",
    "ſtraße",
    "K",
    "10",
    "-7",
    "1.5",
    "1e400",
    "true",
    "T",
    "NaN",
    "0x1p-2",
    "+5",
    "a b\tc",
    "Ω",
    "日本語",
    "a-b",
    "a&&b",
    "[x]",
    "{",
    "x\ny",
    "1_0",
    "infinity",
    "0x_1p4",
    "10.1.2.3",
    "2024-01-01T00:00:00Z",
    "5s",
    "a.b",
];
const PATTERNS: [&str; 46] = [
    "^a",
    "b$",
    "^\\\\w+$",
    "\\\\d+",
    "\\\\s",
    "\\\\W",
    "\\\\D",
    "\\\\S",
    "[\\\\w-.]",
    "[a-z&&[b]]",
    "[a--]",
    "[a~~b]",
    "[^\\\\d]",
    "[[:word:]]+$",
    "[[:^alpha:]]",
    "(?i)STRASSE",
    "(?i)k",
    "(?i)^[k-l]",
    "(?s)x.y",
    "x.y",
    "(?m)^y$",
    "^y",
    "a|*",
    "x**",
    "a{1001}",
    "(a{100}){11}",
    "a{2,1}",
    "a{,2}",
    "\\\\Qa.b\\\\E",
    "\\\\pL+",
    "\\\\p{Greek}",
    "\\\\p{Old_Italic}",
    "\\\\P{Lu}",
    "\\\\bJ?j",
    "\\\\Bb",
    "\\\\A\\\\z",
    "\\\\C",
    "\\\\12",
    "\\\\1",
    "(?P<n>a)",
    "(?<n>b)",
    "(?x) a",
    "{",
    "[]a]",
    "[^]a]",
    "(",
];
const NETWORKS: [&str; 8] = [
    "10.0.0.0/8",
    "0.0.0.0/0",
    "10.1.2.3/32",
    "::/0",
    "::ffff:10.0.0.0/104",
    "10.0.0.0/33",
    "10.0.0.0",
    "2001:db8::/32",
];
const INTS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "10",
    "60",
    "9223372036854775807",
    "-9223372036854775808",
    "9007199254740993",
    "1700000000",
];
const DOUBLES: [&str; 14] = [
    "0.0",
    "1.0",
    "-1.0",
    "0.5",
    "1e6",
    "1e-5",
    "123456.7",
    "1e21",
    "1e300",
    "-0.0",
    "9007199254740992.0",
    "1.5e-7",
    "18446744073709551616.0",
    "9223372036854775808.0",
];

pub(super) fn parameters() -> Value {
    let plain = |name: &str| json!({ "type_name": format!("TYPE_NAME_{name}") });
    let of =
        |name: &str, element: Value| json!({ "type_name": format!("TYPE_NAME_{name}"), "generic_types": [element] });
    json!({
        "b": plain("BOOL"), "s": plain("STRING"), "s2": plain("STRING"), "x": plain("INT"), "y": plain("INT"),
        "u": plain("UINT"), "f": plain("DOUBLE"), "d": plain("DURATION"), "t": plain("TIMESTAMP"),
        "t2": plain("TIMESTAMP"), "ip": plain("IPADDRESS"), "a": plain("ANY"), "a2": plain("ANY"),
        "l": of("LIST", plain("INT")), "ls": of("LIST", plain("STRING")), "la": of("LIST", plain("ANY")),
        "m": of("MAP", plain("STRING")), "ma": of("MAP", plain("ANY")),
    })
}

/// Returns the values of the parameters that an expression names.
pub(super) fn relevant(expression: &str, context: &Map<String, Value>) -> Value {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: Vec<&str> = expression.split(|c| !is_word(c)).collect();
    Value::Object(
        context
            .iter()
            .filter(|(name, _)| words.contains(&name.as_str()))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect(),
    )
}

pub(super) struct Generator {
    dice: Dice,
    /// The variables of the comprehensions that enclose the current part.
    locals: Vec<(String, Kind)>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), locals: Vec::new() }
    }

    pub(super) fn expression(&mut self) -> String {
        loop {
            self.locals.clear();
            let depth = 1 + self.dice.below(DEPTH_MAX);
            let text = self.part(Kind::Bool, depth);
            if text.len() <= LENGTH_MAX {
                return text;
            }
        }
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.dice.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.dice.below(100) < percent
    }

    fn part(&mut self, kind: Kind, depth: usize) -> String {
        // Now and then the type does not fit.
        let kind = if self.dice.below(400) == 0 { KINDS[self.dice.below(KINDS.len())] } else { kind };
        if depth == 0 || self.chance(12) {
            return self.leaf(kind);
        }
        let depth = depth - 1;
        // Expressions of these forms exist for every type.
        match self.dice.below(100) {
            0..6 => {
                let (c, a, b) = (self.part(Kind::Bool, depth), self.part(kind, depth), self.part(kind, depth));
                return format!("({c} ? {a} : {b})");
            }
            6..9 => {
                let list = self.some(kind, depth);
                let index = self.part(Kind::Int, depth.min(1));
                return format!("[{list}][{index}]");
            }
            9..12 => {
                let value = self.part(kind, depth);
                let field = self.one(&["a", "b"]);
                return format!("{{'a': {value}}}.{field}");
            }
            12..15 => return self.part(Kind::Any, depth),
            15..17 => return format!("dyn({})", self.part(kind, depth)),
            _ => {}
        }
        match kind {
            Kind::Bool => self.truth(depth),
            Kind::Int => self.whole(depth),
            Kind::Uint => match self.dice.below(4) {
                0 => format!("uint({})", self.number(depth)),
                1 => format!("uint({})", self.part(Kind::Text, depth)),
                _ => self.infix(Kind::Uint, &["+", "-", "*", "/", "%"], depth),
            },
            Kind::Double => match self.dice.below(5) {
                0 => format!("double({})", self.number(depth)),
                1 => format!("double({})", self.part(Kind::Text, depth)),
                2 => format!("-{}", self.part(Kind::Double, depth)),
                _ => self.infix(Kind::Double, &["+", "-", "*", "/"], depth),
            },
            Kind::Text => {
                if self.dice.below(7) < 3 {
                    self.infix(Kind::Text, &["+"], depth)
                } else {
                    let from = [
                        Kind::Bool,
                        Kind::Int,
                        Kind::Uint,
                        Kind::Double,
                        Kind::Bytes,
                        Kind::Duration,
                        Kind::Time,
                        Kind::Double,
                        Kind::Time,
                        Kind::Text,
                    ];
                    let from = from[self.dice.below(from.len())];
                    format!("string({})", self.part(from, depth))
                }
            }
            Kind::Bytes => match self.dice.below(3) {
                0 => self.infix(Kind::Bytes, &["+"], depth),
                _ => format!("bytes({})", self.part(Kind::Text, depth)),
            },
            Kind::Duration => match self.dice.below(4) {
                0 => format!("({} - {})", self.part(Kind::Time, depth), self.part(Kind::Time, depth)),
                1 => format!("duration({})", self.part(Kind::Text, depth)),
                _ => self.infix(Kind::Duration, &["+", "-"], depth),
            },
            Kind::Time => match self.dice.below(5) {
                0 => format!("({} + {})", self.part(Kind::Duration, depth), self.part(Kind::Time, depth)),
                1 => format!("timestamp({})", self.part(Kind::Text, depth)),
                2 => format!("timestamp({})", self.part(Kind::Int, depth)),
                _ => {
                    let operator = self.one(&["+", "-"]);
                    format!("({} {operator} {})", self.part(Kind::Time, depth), self.part(Kind::Duration, depth))
                }
            },
            Kind::Address => format!("ipaddress({})", self.part(Kind::Text, depth)),
            Kind::Ints => self.list(Kind::Int, Kind::Ints, depth),
            Kind::Texts => self.list(Kind::Text, Kind::Texts, depth),
            Kind::Anys => self.list(Kind::Any, Kind::Anys, depth),
            Kind::TextMap | Kind::AnyMap => {
                let element = if kind == Kind::TextMap { Kind::Text } else { Kind::Any };
                let key = self.one(&["'a'", "'b'", "s", "s2", "'k'"]);
                format!("{{{key}: {}, 'c': {}}}", self.part(element, depth), self.part(element, depth))
            }
            Kind::Any => {
                let of = KINDS[self.dice.below(KINDS.len() - 1)];
                format!("dyn({})", self.part(of, depth))
            }
        }
    }

    fn number(&mut self, depth: usize) -> String {
        let kind = [Kind::Int, Kind::Uint, Kind::Double][self.dice.below(3)];
        self.part(kind, depth)
    }

    fn infix(&mut self, kind: Kind, operators: &[&str], depth: usize) -> String {
        let operator = self.one(operators);
        format!("({} {operator} {})", self.part(kind, depth), self.part(kind, depth))
    }

    fn some(&mut self, kind: Kind, depth: usize) -> String {
        let count = self.dice.below(4);
        (0..count).map(|_| self.part(kind, depth)).collect::<Vec<_>>().join(", ")
    }

    fn list(&mut self, element: Kind, kind: Kind, depth: usize) -> String {
        match self.dice.below(6) {
            0 => self.infix(kind, &["+"], depth),
            1 => self.over(kind, element, "filter", Kind::Bool, depth),
            2 => {
                let from = [(Kind::Ints, Kind::Int), (Kind::Texts, Kind::Text), (Kind::Anys, Kind::Any)];
                let (list, item) = from[self.dice.below(from.len())];
                self.over(list, item, "map", element, depth)
            }
            _ => format!("[{}]", self.some(element, depth)),
        }
    }

    /// Makes `list.name(i, …)`.
    fn over(&mut self, list: Kind, item: Kind, name: &str, body: Kind, depth: usize) -> String {
        let range = self.part(list, depth);
        let variable = self.one(&["i", "j", "s", "x"]).to_owned();
        self.locals.push((variable.clone(), item));
        let body = self.part(body, depth);
        self.locals.pop();
        format!("{range}.{name}({variable}, {body})")
    }

    fn truth(&mut self, depth: usize) -> String {
        match self.dice.below(24) {
            0 => format!("!{}", self.part(Kind::Bool, depth)),
            1..4 => self.infix(Kind::Bool, &["&&", "||"], depth),
            4..9 => {
                let kind = KINDS[self.dice.below(KINDS.len())];
                self.infix(kind, &["==", "==", "!=", "<", "<=", ">", ">="], depth)
            }
            9 => {
                let (element, list) =
                    [(Kind::Int, Kind::Ints), (Kind::Text, Kind::Texts), (Kind::Any, Kind::Anys)][self.dice.below(3)];
                format!("({} in {})", self.part(element, depth), self.part(list, depth))
            }
            10 => {
                let map = [Kind::TextMap, Kind::AnyMap][self.dice.below(2)];
                format!("({} in {})", self.part(Kind::Text, depth), self.part(map, depth))
            }
            11..14 => {
                let (list, item) = [
                    (Kind::Ints, Kind::Int),
                    (Kind::Texts, Kind::Text),
                    (Kind::Anys, Kind::Any),
                    (Kind::Any, Kind::Any),
                ][self.dice.below(4)];
                let name = self.one(&["exists", "all", "exists_one", "exists_one", "exists", "all"]);
                self.over(list, item, name, Kind::Bool, depth)
            }
            14..16 => {
                let name = self.one(&["contains", "startsWith", "endsWith"]);
                format!("{}.{name}({})", self.part(Kind::Text, depth), self.part(Kind::Text, depth))
            }
            16..19 => {
                let text = self.part(Kind::Text, depth);
                let pattern =
                    if self.chance(80) { format!("'{}'", self.one(&PATTERNS)) } else { self.part(Kind::Text, depth) };
                if self.chance(20) {
                    format!("matches({text}, {pattern})")
                } else {
                    format!("{text}.matches({pattern})")
                }
            }
            19 => {
                let network = self.one(&NETWORKS);
                format!("{}.in_cidr('{network}')", self.part(Kind::Address, depth))
            }
            20 => {
                let map = [Kind::TextMap, Kind::AnyMap, Kind::Any][self.dice.below(3)];
                let field = self.one(&["a", "b", "k"]);
                format!("has({}.{field})", self.part(map, depth))
            }
            21 => {
                let kind = KINDS[self.dice.below(KINDS.len())];
                let name =
                    self.one(&["int", "string", "list", "map", "google.protobuf.Timestamp", "double", "null_type"]);
                format!("(type({}) == {name})", self.part(kind, depth))
            }
            22 => format!("bool({})", self.part(Kind::Text, depth)),
            _ => format!("({} == null)", self.part(Kind::Any, depth)),
        }
    }

    fn whole(&mut self, depth: usize) -> String {
        match self.dice.below(12) {
            0 => {
                let kind =
                    [Kind::Text, Kind::Bytes, Kind::Ints, Kind::Texts, Kind::TextMap, Kind::Any][self.dice.below(6)];
                let value = self.part(kind, depth);
                if self.chance(50) { format!("size({value})") } else { format!("{value}.size()") }
            }
            1..4 => {
                let part = self.one(&PARTS);
                let zone = if self.chance(50) { format!("'{}'", self.one(&ZONES)) } else { String::new() };
                format!("{}.{part}({zone})", self.part(Kind::Time, depth))
            }
            4 => {
                let part = self.one(&["getHours", "getMinutes", "getSeconds", "getMilliseconds"]);
                format!("{}.{part}()", self.part(Kind::Duration, depth))
            }
            5 => format!("-{}", self.part(Kind::Int, depth)),
            6..8 => {
                let from = [Kind::Uint, Kind::Double, Kind::Text, Kind::Time, Kind::Duration][self.dice.below(5)];
                format!("int({})", self.part(from, depth))
            }
            _ => self.infix(Kind::Int, &["+", "-", "*", "/", "%"], depth),
        }
    }

    fn leaf(&mut self, kind: Kind) -> String {
        let fitting: Vec<String> =
            self.locals.iter().filter(|(_, of)| *of == kind).map(|(name, _)| name.clone()).collect();
        if !fitting.is_empty() && self.chance(60) {
            return fitting[self.dice.below(fitting.len())].clone();
        }
        let named = self.chance(60);
        match kind {
            Kind::Bool => self.one(if named { &["b", "b"] } else { &["true", "false"] }).to_owned(),
            Kind::Int if named => self.one(&["x", "y"]).to_owned(),
            Kind::Int => self.one(&INTS).to_owned(),
            Kind::Uint if named => "u".to_owned(),
            Kind::Uint => self.one(&["0u", "1u", "3u", "18446744073709551615u"]).to_owned(),
            Kind::Double if named => "f".to_owned(),
            Kind::Double => self.one(&DOUBLES).to_owned(),
            Kind::Text if named => self.one(&["s", "s2"]).to_owned(),
            Kind::Text => quoted(self.text()),
            Kind::Bytes => self.one(&["b'abc'", "b''", "b'\\xff'", "b'jos\\303\\251'"]).to_owned(),
            Kind::Duration if named => "d".to_owned(),
            Kind::Duration => format!("duration('{}')", self.one(&DURATIONS[..8])),
            Kind::Time if named => self.one(&["t", "t2"]).to_owned(),
            Kind::Time => format!("timestamp('{}')", self.one(&TIMES[..7])),
            Kind::Address => self.one(&["ip", "ip", "ipaddress('10.1.2.3')", "ipaddress('::1')"]).to_owned(),
            Kind::Ints => self.one(&["l", "l", "[1, 2, 3]", "[]"]).to_owned(),
            Kind::Texts => self.one(&["ls", "ls", "['a', 'abc']", "[]"]).to_owned(),
            Kind::Anys => self.one(&["la", "la", "[1, 'a', null]", "[1.0, 2u, 3]", "[[1], {'a': 1}]"]).to_owned(),
            Kind::TextMap => self.one(&["m", "m", "{'a': 'x'}", "{}"]).to_owned(),
            Kind::AnyMap => self.one(&["ma", "ma", "{'a': 1, 'b': 'x'}", "{1: 'a', 2u: 'b', 'k': true}"]).to_owned(),
            Kind::Any => self
                .one(&[
                    "a",
                    "a2",
                    "a",
                    "ma.a",
                    "ma.k",
                    "la[0]",
                    "la[1]",
                    "a.b",
                    "a.k",
                    "a['k']",
                    "a[0]",
                    "dyn(1)",
                    "dyn('a')",
                    "dyn(2u)",
                    "dyn([1, 2])",
                ])
                .to_owned(),
        }
    }

    /// Returns a text for a context, without control characters.
    fn plain_text(&mut self) -> String {
        self.text().replace(char::is_control, " ")
    }

    /// Returns a text. Now and then it can be read as a value of another type.
    fn text(&mut self) -> &'static str {
        match self.dice.below(5) {
            0 => self.one(&TIMES),
            1 => self.one(&DURATIONS),
            _ => self.one(&TEXTS),
        }
    }

    pub(super) fn context(&mut self) -> Map<String, Value> {
        let mut context = Map::new();
        for (name, of) in parameters().as_object().expect("an object") {
            let element = of["generic_types"][0]["type_name"].as_str().unwrap_or_default();
            let value = match of["type_name"].as_str().expect("a name") {
                "TYPE_NAME_LIST" => {
                    let count = self.length();
                    Value::Array((0..count).map(|_| self.value(element)).collect())
                }
                "TYPE_NAME_MAP" => {
                    let names = ["a", "b", "k", "c"];
                    let kept: Vec<&str> = names.into_iter().filter(|_| self.dice.below(2) == 0).collect();
                    Value::Object(kept.into_iter().map(|name| (name.to_owned(), self.value(element))).collect())
                }
                plain => self.value(plain),
            };
            context.insert(name.clone(), value);
        }
        context
    }

    /// Returns a length that is mostly short, and at times about as long as the cost allows.
    fn length(&mut self) -> usize {
        match self.dice.below(10) {
            0 => 12 + self.dice.below(100),
            1 => 900 + self.dice.below(200),
            _ => self.dice.below(5),
        }
    }

    fn value(&mut self, kind: &str) -> Value {
        match kind {
            "TYPE_NAME_BOOL" => json!(self.dice.below(2) == 0),
            "TYPE_NAME_STRING" => match self.dice.below(8) {
                0 => json!(self.one(&["a", "é", "ab "]).repeat(5 + self.dice.below(110))),
                1 => json!("a".repeat(900 + self.dice.below(300))),
                _ => json!(self.plain_text()),
            },
            "TYPE_NAME_INT" => match self.dice.below(4) {
                0 => json!(self.one(&INTS)),
                _ => json!(i64::try_from(self.dice.below(20)).expect("small") - 5),
            },
            "TYPE_NAME_UINT" => json!(self.dice.below(10)),
            "TYPE_NAME_DOUBLE" => {
                let number: f64 = self.one(&DOUBLES).parse().expect("a number");
                json!(number)
            }
            "TYPE_NAME_DURATION" => json!(self.one(&DURATIONS[..8])),
            "TYPE_NAME_TIMESTAMP" => match self.dice.below(20) {
                0 => json!(self.one(&TIMES)),
                1 => json!(self.one(&[
                    "2024-01-01T5:00:00Z",
                    "2024-01-01T00:00:00,5Z",
                    "0000-01-01T00:00:00Z",
                    "2024-01-01T00:00:00+24:60"
                ])),
                _ => json!(self.one(&TIMES[..7])),
            },
            "TYPE_NAME_IPADDRESS" => {
                json!(self.one(&["10.1.2.3", "::1", "::ffff:10.1.2.3", "2001:db8::1", "192.168.0.1"]))
            }
            _ => self.any(2),
        }
    }

    fn any(&mut self, depth: usize) -> Value {
        match self.dice.below(if depth == 0 { 5 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.dice.below(2) == 0),
            2 => json!(self.dice.below(6)),
            3 => self.value("TYPE_NAME_DOUBLE"),
            4 => json!(self.plain_text()),
            5 => Value::Array((0..self.dice.below(4)).map(|_| self.any(depth - 1)).collect()),
            _ => {
                let names = ["a", "b", "k"];
                Value::Object(names.into_iter().map(|name| (name.to_owned(), self.any(depth - 1))).collect())
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t");
    format!("'{escaped}'")
}
