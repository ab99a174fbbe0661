//! The flags that filter by metadata. They become the API's message `Filter`.

use clap::Args;
use prost_types::Timestamp;
use serde::Deserialize;

use super::Failure;
use crate::language::tuple::shown;
use crate::proto::metadata::{Value as ValueMessage, value::Kind as ValueKind};
use crate::proto::retrieval::{self as message, filter::Kind};
use crate::vector_store::Moment;

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Search only chunks that match this filter. It is the API's `Filter` as JSON, such as `{"range": {"key": "year",
    /// "low": 2024}}`, or `@FILE` to read it from a file.
    #[arg(long, value_name = "JSON|@FILE")]
    filter: Option<String>,
    /// Search only chunks with this value: `team=hr`, `year=2026`, `draft=false`; `year="2026"` is a text. May be given
    /// more than once; all must match.
    #[arg(long = "where", value_name = "KEY=VALUE")]
    wheres: Vec<String>,
}

/// The message `Filter` in protobuf's JSON. A list may be written without its `filters`, and a value without its type.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum FilterJson {
    #[serde(alias = "allOf")]
    AllOf(ListJson),
    #[serde(alias = "anyOf")]
    AnyOf(ListJson),
    Not(Box<FilterJson>),
    #[serde(alias = "oneOf")]
    OneOf {
        key: String,
        values: Vec<ValueJson>,
    },
    Range {
        key: String,
        low: Option<f64>,
        high: Option<f64>,
    },
    #[serde(alias = "timeRange")]
    TimeRange {
        key: String,
        earliest: Option<MomentJson>,
        latest: Option<MomentJson>,
    },
}

/// A date, or a time of RFC 3339.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct MomentJson(Moment);

impl TryFrom<String> for MomentJson {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = || format!("`{}` is no date and no time, such as 2026-11-30 or 2026-11-30T12:00:00Z", shown(&text));
        Moment::parse(&text).map(Self).ok_or_else(wrong)
    }
}

impl MomentJson {
    fn timestamp(self) -> Timestamp {
        let microseconds = self.0.microseconds();
        let nanos = i32::try_from(microseconds.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
        Timestamp { seconds: microseconds.div_euclid(1_000_000), nanos }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ListJson {
    Plain(Vec<FilterJson>),
    Message { filters: Vec<FilterJson> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ValueJson {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Message(TypedJson),
}

#[derive(Deserialize)]
enum TypedJson {
    #[serde(rename = "bool_value", alias = "boolValue")]
    Bool(bool),
    #[serde(rename = "int_value", alias = "intValue")]
    Int(i64),
    #[serde(rename = "double_value", alias = "doubleValue")]
    Double(f64),
    #[serde(rename = "string_value", alias = "stringValue")]
    Text(String),
}

impl FilterArgs {
    pub(super) fn read(&self) -> Result<Option<message::Filter>, Failure> {
        let mut filters: Vec<message::Filter> = Vec::new();
        if let Some(filter) = &self.filter {
            filters.push(read_filter(filter)?);
        }
        for condition in &self.wheres {
            filters.push(read_where(condition)?);
        }
        Ok(match filters.len() {
            0 | 1 => filters.pop(),
            _ => Some(filter(Kind::AllOf(message::FilterList { filters }))),
        })
    }
}

fn read_filter(argument: &str) -> Result<message::Filter, Failure> {
    let text = match argument.strip_prefix('@') {
        None => argument.to_owned(),
        Some(file) => std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("`--filter @{file}`: {e}")))?,
    };
    let read: FilterJson = serde_json::from_str(&text).map_err(|e| {
        let what = "write one of all_of, any_of, not, one_of, range or time_range";
        Failure::usage(format!(
            "`--filter`: {e}; {what}, as in `{{\"one_of\": {{\"key\": \"year\", \"values\": [2026]}}}}`"
        ))
    })?;
    Ok(filter_message(read))
}

fn read_where(condition: &str) -> Result<message::Filter, Failure> {
    let Some((key, value)) = condition.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        let text = format!("`--where {}`: write a key and a value, `team=hr`", shown(condition));
        return Err(Failure::usage(text));
    };
    let kind = match serde_json::from_str(value) {
        Ok(ValueJson::Message(_)) | Err(_) => ValueKind::StringValue(value.to_owned()),
        Ok(scalar) => value_kind(scalar),
    };
    let values = vec![ValueMessage { kind: Some(kind) }];
    Ok(filter(Kind::OneOf(message::OneOf { key: key.to_owned(), values })))
}

fn filter(kind: Kind) -> message::Filter {
    message::Filter { kind: Some(kind) }
}

/// Makes the message. The recursion is bounded because `serde_json` bounds nesting.
fn filter_message(read: FilterJson) -> message::Filter {
    let list = |list: ListJson| {
        let (ListJson::Plain(filters) | ListJson::Message { filters }) = list;
        message::FilterList { filters: filters.into_iter().map(filter_message).collect() }
    };
    filter(match read {
        FilterJson::AllOf(filters) => Kind::AllOf(list(filters)),
        FilterJson::AnyOf(filters) => Kind::AnyOf(list(filters)),
        FilterJson::Not(inner) => Kind::Not(Box::new(filter_message(*inner))),
        FilterJson::OneOf { key, values } => {
            let values = values.into_iter().map(|value| ValueMessage { kind: Some(value_kind(value)) });
            Kind::OneOf(message::OneOf { key, values: values.collect() })
        }
        FilterJson::Range { key, low, high } => Kind::Range(message::Range { key, low, high }),
        FilterJson::TimeRange { key, earliest, latest } => {
            let [earliest, latest] = [earliest, latest].map(|bound| bound.map(MomentJson::timestamp));
            Kind::TimeRange(message::TimeRange { key, earliest, latest })
        }
    })
}

fn value_kind(value: ValueJson) -> ValueKind {
    match value {
        ValueJson::Bool(value) | ValueJson::Message(TypedJson::Bool(value)) => ValueKind::BoolValue(value),
        ValueJson::Int(value) | ValueJson::Message(TypedJson::Int(value)) => ValueKind::IntValue(value),
        ValueJson::Double(value) | ValueJson::Message(TypedJson::Double(value)) => ValueKind::DoubleValue(value),
        ValueJson::Text(value) | ValueJson::Message(TypedJson::Text(value)) => ValueKind::StringValue(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(filter: Option<&str>, wheres: &[&str]) -> Result<Option<message::Filter>, Failure> {
        let wheres = wheres.iter().map(|text| (*text).to_owned()).collect();
        FilterArgs { filter: filter.map(str::to_owned), wheres }.read()
    }

    fn one_of(key: &str, kind: ValueKind) -> message::Filter {
        let values = vec![ValueMessage { kind: Some(kind) }];
        filter(Kind::OneOf(message::OneOf { key: key.to_owned(), values }))
    }

    /// A row has the values of `--filter` and `--where`, and the expected message.
    type Row<'a> = (Option<&'a str>, &'a [&'a str], Option<message::Filter>);

    #[test]
    fn flags_become_the_message() {
        let year = || one_of("year", ValueKind::IntValue(2026));
        let team = || one_of("team", ValueKind::StringValue("hr".to_owned()));
        let both = |filters| filter(Kind::AllOf(message::FilterList { filters }));
        let range = filter(Kind::Range(message::Range { key: "year".to_owned(), low: Some(2024.0), high: None }));
        let days = filter(Kind::TimeRange(message::TimeRange {
            key: "day".to_owned(),
            earliest: Some(Timestamp { seconds: 86_400, nanos: 500_000_000 }),
            latest: None,
        }));
        let rows: [Row<'_>; 13] = [
            (None, &[], None),
            (None, &["year=2026"], Some(year())),
            (None, &["team=hr", "year=2026"], Some(both(vec![team(), year()]))),
            (None, &["year=\"2026\""], Some(one_of("year", ValueKind::StringValue("2026".to_owned())))),
            (None, &["share=0.5"], Some(one_of("share", ValueKind::DoubleValue(0.5)))),
            (None, &["draft=false"], Some(one_of("draft", ValueKind::BoolValue(false)))),
            (None, &["path=a=b"], Some(one_of("path", ValueKind::StringValue("a=b".to_owned())))),
            (Some(r#"{"one_of": {"key": "year", "values": [2026]}}"#), &[], Some(year())),
            (Some(r#"{"oneOf": {"key": "year", "values": [{"int_value": 2026}]}}"#), &[], Some(year())),
            (Some(r#"{"range": {"key": "year", "low": 2024}}"#), &[], Some(range)),
            (Some(r#"{"time_range": {"key": "day", "earliest": "1970-01-02T00:00:00.5Z"}}"#), &[], Some(days)),
            (
                Some(r#"{"all_of": {"filters": [{"not": {"any_of": []}}]}}"#),
                &["team=hr"],
                Some(both(vec![
                    both(vec![filter(Kind::Not(Box::new(filter(Kind::AnyOf(message::FilterList::default())))))]),
                    team(),
                ])),
            ),
            (Some(r#"{"all_of": [{"one_of": {"key": "year", "values": [2026]}}]}"#), &[], Some(both(vec![year()]))),
        ];
        for (json, wheres, expected) in rows {
            assert_eq!(read(json, wheres).expect("read"), expected, "{json:?} {wheres:?}");
        }
        for wrong in [
            "{}",
            "[]",
            "{\"none_of\": []}",
            "{\"one_of\": {\"key\": \"a\", \"value\": 1}}",
            "x",
            "@/nowhere",
            "{\"time_range\": {\"key\": \"day\", \"latest\": \"soon\"}}",
        ] {
            assert!(read(Some(wrong), &[]).is_err(), "{wrong}");
        }
        assert!(read(None, &["team"]).is_err() && read(None, &["=hr"]).is_err());
    }
}
