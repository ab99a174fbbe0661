use serde_json::json;

use super::{check, refused};

#[test]
fn parts_of_a_date_are_in_utc() {
    let rows = [
        ("ten in Tokyo is one in UTC", "x.getHours()", "2024-05-06T10:00:00+09:00", "1"),
        ("the day before", "x.getDate()", "2024-05-06T01:00:00+09:00", "5"),
        ("the day of the month from zero", "x.getDayOfMonth()", "2024-05-06T01:00:00+09:00", "4"),
        ("the year before", "x.getFullYear()", "2024-01-01T00:30:00+01:00", "2023"),
        ("the month before, from zero", "x.getMonth()", "2024-05-01T00:30:00+01:00", "3"),
        ("a Sunday", "x.getDayOfWeek()", "2024-05-06T01:00:00+09:00", "0"),
        ("the last day of a leap year", "x.getDayOfYear()", "2024-12-31T23:00:00Z", "365"),
        ("half an hour off", "x.getMinutes()", "2024-05-06T10:15:00+05:30", "45"),
        ("seconds", "x.getSeconds()", "2024-05-06T10:00:07+09:00", "7"),
        ("milliseconds are cut", "x.getMilliseconds()", "2024-05-06T10:00:07.9999Z", "999"),
        ("the result of arithmetic", "(x + duration('1h')).getHours()", "2024-05-06T10:00:00+09:00", "2"),
        ("a literal", "timestamp('2024-05-06T10:00:00+09:00').getHours() + x.getHours()", "1970-01-01T00:00:00Z", "1"),
        ("before 1970", "x.getSeconds()", "1969-12-31T23:59:59.5Z", "59"),
    ];
    for (name, expression, x, expected) in rows {
        check(name, "timestamp", &format!("({expression}) == {expected}"), &json!(x), "true");
    }
    let office = "x.getHours() >= 9 && x.getHours() < 17";
    check("office hours are those of UTC", "timestamp", office, &json!("2024-05-06T10:00:00+09:00"), "false");
}

#[test]
fn parts_of_a_date_may_be_asked_for_a_zone() {
    let rows = [
        ("summer time", "Europe/Oslo", "2024-07-01T12:00:00Z", "14"),
        ("winter time", "Europe/Oslo", "2024-01-01T12:00:00Z", "13"),
        ("the hour that summer time leaves out", "Europe/Oslo", "2024-03-31T01:00:00Z", "3"),
        ("summer time in a year without a table", "Europe/Oslo", "2101-07-01T12:00:00Z", "14"),
        ("winter time in a year without a table", "Europe/Oslo", "2101-01-01T12:00:00Z", "13"),
        ("the far future", "America/New_York", "9999-07-01T12:00:00Z", "8"),
        ("a link", "US/Pacific", "2024-07-01T12:00:00Z", "5"),
        ("a quarter of an hour", "Asia/Kathmandu", "2024-07-01T12:00:00Z", "17"),
        ("signs of Etc are the other way around", "Etc/GMT+5", "2024-07-01T12:00:00Z", "7"),
        ("no name", "", "2024-07-01T12:00:00+09:00", "3"),
        ("an offset", "+09:00", "2024-07-01T12:00:00Z", "21"),
        ("an offset without a sign", "09:00", "2024-07-01T12:00:00Z", "21"),
        ("an offset with one digit", "+9:5", "2024-07-01T12:00:00Z", "21"),
        ("a negative offset of less than an hour", "-00:30", "2024-07-01T12:00:00Z", "11"),
    ];
    for (name, zone, x, expected) in rows {
        check(name, "timestamp", &format!("x.getHours('{zone}') == {expected}"), &json!(x), "true");
    }
    for zone in ["Nowhere/City", "europe/oslo", "+24:00", "+09:60", "9", "a:b", "01:02:03", "Europe", "Local", "../UTC"]
    {
        check(
            zone,
            "timestamp",
            &format!("x.getHours('{zone}') == 1"),
            &json!("2024-07-01T12:00:00Z"),
            "no such time zone",
        );
    }
}

#[test]
fn a_timestamp_keeps_its_offset_as_text() {
    let rows = [
        ("an offset", "string(x)", "2024-05-06T10:00:00+09:00", "2024-05-06T10:00:00+09:00"),
        ("a fraction without zeros at its end", "string(x)", "2024-05-06T10:00:00.120Z", "2024-05-06T10:00:00.12Z"),
        ("no offset", "string(x)", "2024-05-06T10:00:00+00:00", "2024-05-06T10:00:00Z"),
        ("after arithmetic", "string(x + duration('1h'))", "2024-05-06T23:00:00-02:00", "2024-05-07T00:00:00-02:00"),
        (
            "a literal",
            "string(timestamp('2024-05-06T10:00:00-00:30'))",
            "1970-01-01T00:00:00Z",
            "2024-05-06T10:00:00-00:30",
        ),
        ("from seconds", "string(timestamp(60))", "1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z"),
    ];
    for (name, expression, x, expected) in rows {
        check(name, "timestamp", &format!("{expression} == '{expected}'"), &json!(x), "true");
    }
}

#[test]
fn timestamps_are_read_as_go_reads_them() {
    let accepted = [
        ("one digit for the hour", "2024-01-01T5:00:00Z"),
        ("a comma before the fraction", "2024-01-01T00:00:00,5Z"),
        ("the year 0", "0000-01-01T00:00:00Z"),
        ("an offset of more than a day", "2024-01-01T00:00:00+24:60"),
        ("a long fraction", "2024-01-01T00:00:00.1234567891234Z"),
    ];
    for (name, x) in accepted {
        check(name, "timestamp", "x == x", &json!(x), "true");
        if !name.contains("fraction") || name.contains("comma") {
            refused(name, "timestamp", &format!("timestamp('{x}') == x"));
        }
    }
    let not = [
        "2024-01-01",
        "2024-01-01t00:00:00Z",
        "2024-01-01T00:00:00z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T24:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00",
        "2024-1-01T00:00:00Z",
        "2024-01-01T00:0:00Z",
        "2024-01-01T00:00:00+25:00",
        "2024-01-01T00:00:00+0100",
        " 2024-01-01T00:00:00Z",
        "2024-01-01T00:00:00Z ",
    ];
    for x in not {
        check(x, "timestamp", "x == x", &json!(x), "expected a timestamp");
        refused(x, "timestamp", &format!("timestamp('{x}') == x"));
    }
    let outside =
        [("before the year 1", "0001-01-01T00:00:00+01:00"), ("after the year 9999", "9999-12-31T23:59:59-01:00")];
    for (name, x) in outside {
        refused(name, "timestamp", &format!("timestamp('{x}') == x"));
        check(name, "timestamp", &format!("x == x && string(x) == '{x}'"), &json!(x), "true");
    }
}

#[test]
fn durations_are_counted_as_go_counts_them() {
    let rows = [
        ("seconds as text", "string(x) == '5400s'", "1h30m"),
        ("a fraction as text", "string(x) == '-0.3s'", "-300ms"),
        ("the longest", "int(x) == 9223372036854775807", "2562047h47m16.854775807s"),
        ("the longest negative one", "int(x) == -9223372036854775807 - 1", "-2562047h47m16.854775808s"),
        ("hours are cut", "x.getHours() == 1", "1h59m59.9s"),
        ("minutes are of the whole", "x.getMinutes() == 90", "1h30m"),
        ("milliseconds are of the whole", "x.getMilliseconds() == 5400000", "1h30m"),
        ("a part of a minute", "x == duration('30s')", ".5m"),
        ("zero needs no unit", "x == duration('0h')", "0"),
    ];
    for (name, expression, x) in rows {
        check(name, "duration", expression, &json!(x), "true");
    }
    check("a sum that is too long", "duration", "x + x > x", &json!("2562047h"), "out of range");
    check(
        "the opposite of the longest",
        "duration",
        "duration('0s') - x > x",
        &json!("-2562047h47m16.854775808s"),
        "out of range",
    );
    for x in ["1d", "90", "", "h", "1.h.", "--1h", "2562047h47m16.854775808s", "1h ", "1H"] {
        check(x, "duration", "x == x", &json!(x), "expected a duration");
    }
}

#[test]
fn arithmetic_with_time_ends_at_the_years_1_and_9999() {
    let rows = [
        ("past the end", "x + duration('1s') > x", "9999-12-31T23:59:59Z", "out of range"),
        ("before the begin", "x - duration('1ns') < x", "0001-01-01T00:00:00Z", "out of range"),
        ("to the end", "x + duration('999999999ns') > x", "9999-12-31T23:59:59Z", "true"),
        (
            "too far apart",
            "x - timestamp('1700-01-01T00:00:00Z') > duration('0s')",
            "2024-01-01T00:00:00Z",
            "out of range",
        ),
        ("not too far apart", "x - timestamp('1750-01-01T00:00:00Z') > duration('0s')", "2024-01-01T00:00:00Z", "true"),
        ("offsets do not matter", "x == timestamp('2024-01-01T01:00:00+01:00')", "2024-01-01T00:00:00Z", "true"),
    ];
    for (name, expression, x, expected) in rows {
        check(name, "timestamp", expression, &json!(x), expected);
    }
}
