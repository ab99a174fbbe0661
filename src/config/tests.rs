//! Tests which layer wins, and which settings are refused.

mod oauth_clients;

use std::time::Duration;

use serde_json::json;

use super::layers::unknown_variables;
use super::*;
use crate::server_config::TlsConfig;

fn load(toml: &str, environment: &[(&str, &str)], overrides: &Overrides) -> Result<Config, ConfigError> {
    let (file, variables) = sources(toml, environment);
    Config::load_from(Some(file.path()), variables.into_iter(), overrides)
}

/// Like [`load`], but does not check that the settings fit together.
fn read(toml: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let (file, variables) = sources(toml, environment);
    layers::read(Some(file.path()), variables.into_iter())
}

fn sources(toml: &str, environment: &[(&str, &str)]) -> (tempfile::NamedTempFile, Vec<(OsString, OsString)>) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), toml).expect("written");
    let variables = environment.iter().map(|(key, value)| (OsString::from(key), OsString::from(value)));
    (file, variables.collect())
}

#[test]
fn later_layers_win() {
    let toml = "[server]\nlisten = '127.0.0.1:1'\nrequest_timeout = '1ms'\n[retrieval]\ntop_k_max = 7";
    let environment = [("RAGWARD__SERVER__LISTEN", "127.0.0.1:2"), ("RAGWARD__SERVER__REQUEST_TIMEOUT", "2m")];
    let flags = Overrides { listen: Some(SocketAddr::from(([127, 0, 0, 1], 3))), ..Overrides::default() };
    let config = load(toml, &environment, &flags).expect("valid");
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.request_timeout, Duration::from_mins(2));
    assert_eq!(config.retrieval.top_k_max, 7);
    assert_eq!(config.retrieval.relation.as_str(), "can_read");
}

#[test]
fn what_is_wrong_is_told() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let rows: [Row; 17] = [
        ("[sever]\nlisten = '127.0.0.1:1'", &[], "unknown configuration key `sever`; did you mean `server`?"),
        ("[server]\nlisten_adress = 1", &[], "did you mean `server.listen`?"),
        ("", &[("RAGWARD__RETRIEVAL__TOP_MAX", "3")], "did you mean `retrieval.top_k_max`?"),
        ("[identity]\nprofile = 'keycloak'", &[], "did you mean `identity.issuers.profile`?"),
        ("[exchange]\ntoken_url = 'x'", &[], "did you mean `sources.exchange`?"),
        ("[identity.approval]\ncollection = 'hr'", &[], "write each one under `[[identity.approval]]`"),
        ("[[approval]]\ncollection = 'hr'", &[], "`approval` is one table; write it under `[approval]`"),
        ("[server]\nlisten = 'here'", &[], "listen"),
        ("[server]\nlisten = 'localhost:8980'", &[], "`localhost:8980` must be an IP address and a port"),
        (
            "[server]\nlisten = '8980'",
            &[],
            "`server.listen`: `8980` must be an IP address and a port, such as `127.0.0.1:8980`",
        ),
        ("[server]\nlisten = '127.0.0.1'", &[], "must be an IP address and a port"),
        ("[server]\nlisten = 8980", &[], "server.listen"),
        ("", &[("RAGWARD__SERVER__LISTEN", ":8980")], "`:8980` must be an IP address and a port"),
        ("[telemetry]\nmetrics_listen = 'localhost:1'", &[], "`telemetry.metrics_listen`: `localhost:1` must be an IP"),
        ("[retrieval]\ntop_k_max = 'ten'", &[], "top_k_max"),
        ("[retrieval]\ntop_k_max = 0", &[], "`retrieval.top_k_max`: it must be at least 1"),
        ("[server\n", &[], "TOML"),
    ];
    for (toml, environment, expected) in rows {
        let error = load(toml, environment, &Overrides::default()).expect_err(toml).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Both servers are chosen, so that their settings count.
const SERVERS: &str = "[authorizer]\nkind = 'openfga'\n[vector_store]\nkind = 'qdrant'\n";

/// Settings of a server need its `kind`. If they were ignored without it, the embedded engine would decide instead.
#[test]
fn settings_of_a_server_need_its_kind() {
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let rows: [Row; 15] = [
        ("OpenFGA by file", "[authorizer.openfga]\nstore_name = 'x'", &[], "authorizer.kind"),
        ("with the default's value", "[authorizer.openfga]\nstore_name = 'ragward'", &[], "authorizer.kind"),
        ("an empty table", "[authorizer.openfga]", &[], "authorizer.kind"),
        ("a dotted key", "authorizer.openfga.store_name = 'x'", &[], "authorizer.kind"),
        ("OpenFGA by variable", "", &[("RAGWARD__AUTHORIZER__OPENFGA__ADDRESS", "http://a:1")], "authorizer.kind"),
        ("OpenFGA by a table as a variable", "", &[("RAGWARD__AUTHORIZER__OPENFGA", "{}")], "authorizer.kind"),
        ("checks", "[authorizer.checks]\ncache_ttl = '5s'", &[], "authorizer.kind"),
        ("the replica", "[authorizer.replica]\nmode = 'plan'", &[], "authorizer.kind"),
        ("Qdrant by file", "[vector_store.qdrant]\nexact = true", &[], "vector_store.kind"),
        ("Qdrant by variable", "", &[("RAGWARD__VECTOR_STORE__QDRANT__URL", "http://a:1")], "vector_store.kind"),
        ("the kind of the other", "[authorizer.openfga]\n[vector_store]\nkind = 'qdrant'", &[], "authorizer.kind"),
        ("both kinds", SERVERS, &[("RAGWARD__VECTOR_STORE__QDRANT__URL", "http://a:1")], ""),
        ("the kind by variable", "[authorizer.openfga]", &[("RAGWARD__AUTHORIZER__KIND", "openfga")], ""),
        ("embedded, as is said", "[authorizer]\nkind = 'embedded'\n[authorizer.openfga]", &[], ""),
        ("a kind alone", "[authorizer]\nkind = 'openfga'", &[], ""),
    ];
    for (name, toml, environment, expected) in rows {
        let error = load(toml, environment, &Overrides::default()).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{name}: {error}");
    }
}

#[test]
fn contradictions_name_both_keys() {
    let rows = [
        ("cache_size_max = 0", ["checks.cache_size_max", "checks.cache_ttl"]),
        ("changelog_poll = '2s'", ["checks.changelog_age_max", "checks.changelog_poll"]),
        ("changelog_age_max = '0s'", ["checks.changelog_age_max", "checks.changelog_poll"]),
        ("cache_ttl = '499ms'", ["checks.cache_ttl", "checks.changelog_poll"]),
        ("checks_waiting_max = 199", ["checks.checks_waiting_max", "openfga.checks_per_call"]),
    ];
    for (line, keys) in rows {
        let toml = format!("[authorizer]\nkind = 'openfga'\n[authorizer.checks]\n{line}");
        let error = load(&toml, &[], &Overrides::default()).expect_err(&toml).to_string();
        assert!(keys.iter().all(|key| error.contains(&format!("`authorizer.{key}`"))), "{error}");
    }
    for (line, keys) in [
        ("poll_interval = '2s'", ["replica.poll_interval", "checks.changelog_age_max"]),
        ("staleness_max = '500ms'", ["replica.poll_interval", "replica.staleness_max"]),
    ] {
        let toml = format!("[authorizer]\nkind = 'openfga'\n[authorizer.replica]\n{line}");
        let error = load(&toml, &[], &Overrides::default()).expect_err(&toml).to_string();
        assert!(keys.iter().all(|key| error.contains(&format!("`authorizer.{key}`"))), "{error}");
        let without = format!("{toml}\nmode = 'off'");
        assert!(load(&without, &[], &Overrides::default()).is_ok(), "{line}");
    }
    for line in ["cache_ttl = '0s'\ncache_size_max = 0", "changelog_poll = '0s'\nchangelog_age_max = '0s'"] {
        let toml = format!("[authorizer]\nkind = 'openfga'\n[authorizer.checks]\n{line}");
        assert!(load(&toml, &[], &Overrides::default()).is_ok(), "{line}");
    }
}

/// A setting that is not a table of other settings, as the schema describes it.
struct Leaf {
    key: String,
    /// The name of its type: `string`, `integer`, `Duration` and so on.
    kind: String,
    is_optional: bool,
}

impl Leaf {
    fn variable(&self) -> String {
        format!("RAGWARD__{}", self.key.to_uppercase().replace('.', "__"))
    }
}

fn leaves() -> Vec<Leaf> {
    fn add(node: &Value, root: &Value, path: &str, found: &mut Vec<Leaf>) {
        let either = node["anyOf"].as_array().map(Vec::as_slice).unwrap_or_default();
        let value = either.iter().find(|schema| schema["type"] != "null").unwrap_or(node);
        let reference = value["$ref"].as_str().and_then(|r| r.strip_prefix('#'));
        let schema = reference.map_or(value, |pointer| root.pointer(pointer).expect("a definition"));
        if let Some(fields) = schema["properties"].as_object() {
            for (name, field) in fields {
                add(field, root, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
            }
            return;
        }
        let types = schema["type"].as_array().map(Vec::as_slice).unwrap_or_default();
        let only = types.iter().find(|name| *name != "null").and_then(Value::as_str);
        let definition = reference.and_then(|r| r.rsplit('/').next());
        let kind = match definition.filter(|name| matches!(*name, "Duration" | "ByteSize")) {
            Some(name) => name,
            None => only.or(schema["type"].as_str()).unwrap_or("enum"),
        };
        let is_optional = !either.is_empty() || types.iter().any(|name| name == "null");
        found.push(Leaf { key: path.to_owned(), kind: kind.to_owned(), is_optional });
    }
    let (schema, mut found) = (Config::schema(), Vec::new());
    add(&schema, &schema, "", &mut found);
    assert!(found.len() > 50, "{}", found.len());
    found
}

#[test]
fn a_variable_has_the_type_of_its_key() {
    // Each text looks like a value of some type. A text that does not fit its key is refused, and the error names the
    // variable or the key.
    let texts = ["007", "1e3", "true", "null", "0x10", "", " x", "[1]", "2024-01-01", "1_000", "-1", "yes"];
    // The values of these keys must be texts of a special form.
    let has_a_form =
        ["server.listen", "server.public_url", "telemetry.metrics_listen", "retrieval.relation", "identity.user_type"];
    let has_a_form_too =
        ["identity.machine_type", "identity.actor_type", "identity.write_relation", "identity.delegation.relation"];
    // Each of these settings needs others in its table.
    let pairs = ["server.tls.", "server.mcp.", "approval.", "authorizer.openfga.client_credentials."];
    let is_a_pair = |key: &str| pairs.iter().any(|table| key.starts_with(table));
    let is_free = |key: &str| !has_a_form.contains(&key) && !has_a_form_too.contains(&key) && !is_a_pair(key);
    for leaf in leaves() {
        let (key, variable) = (&leaf.key, leaf.variable());
        for text in texts {
            let row = format!("{variable}={text}");
            let loaded = load(SERVERS, &[(&variable, text)], &Overrides::default());
            let printed = loaded.as_ref().map(|config| serde_json::to_value(config).expect("JSON"));
            let at = format!("/{}", key.replace('.', "/"));
            let value = printed.as_ref().ok().and_then(|config| config.pointer(&at));
            let refused = loaded.as_ref().err().map(ToString::to_string);
            let is_refused_by = |name: &str| refused.as_ref().is_some_and(|error| error.contains(&format!("`{name}`")));
            match leaf.kind.as_str() {
                "string" | "enum" if leaf.is_optional && text.is_empty() => {
                    assert!(loaded.is_ok() && value.is_none_or(Value::is_null), "{row}: {value:?}");
                }
                "string" if is_free(key) => assert_eq!(value, Some(&json!(text)), "{row}"),
                "integer" => {
                    let number = text.parse::<i64>().ok();
                    assert!(value.is_none() || value.and_then(Value::as_i64) == number, "{row}: {value:?}");
                    assert!(number.is_some() || is_refused_by(&variable), "{row}: {refused:?}");
                }
                "number" => {
                    let number = text.parse::<f64>().ok();
                    assert!(value.is_none() || value.and_then(Value::as_f64) == number, "{row}: {value:?}");
                    assert!(number.is_some() || is_refused_by(&variable), "{row}: {refused:?}");
                }
                // None of these texts has a unit, and only some are numbers.
                "Duration" => assert!(is_refused_by(key), "{row}: {refused:?}"),
                "ByteSize" => match text {
                    "007" => assert_eq!(value, Some(&json!("7B")), "{row}"),
                    _ => assert!(is_refused_by(key), "{row}: {refused:?}"),
                },
                "boolean" if text == "true" && is_free(key) => assert_eq!(value, Some(&json!(true)), "{row}"),
                "boolean" if text == "true" => assert!(refused.is_some(), "{row}"),
                "array" if text == "[1]" => assert!(refused.is_some_and(|e| e.contains(key)), "{row}"),
                "boolean" | "object" | "array" => assert!(is_refused_by(&variable), "{row}: {refused:?}"),
                _ => assert!(value.is_none_or(|value| value == text), "{row}: {value:?}"),
            }
        }
    }
}

/// The former keys of settings, which named their units, with the keys of today.
const FORMER: [(&str, &str); 24] = [
    ("server.request_timeout_ms", "server.request_timeout"),
    ("server.shutdown_timeout_ms", "server.shutdown_timeout"),
    ("authorizer.openfga.timeout_ms", "authorizer.openfga.timeout"),
    ("authorizer.openfga.list_deadline_ms", "authorizer.openfga.list_deadline"),
    ("authorizer.openfga.cache_age_max_ms", "authorizer.openfga.cache_age_max"),
    ("authorizer.checks.cache_ttl_ms", "authorizer.checks.cache_ttl"),
    ("authorizer.checks.cache_bytes_max", "authorizer.checks.cache_size_max"),
    ("authorizer.checks.changelog_poll_ms", "authorizer.checks.changelog_poll"),
    ("authorizer.checks.changelog_age_max_ms", "authorizer.checks.changelog_age_max"),
    ("authorizer.replica.poll_interval_ms", "authorizer.replica.poll_interval"),
    ("authorizer.replica.staleness_max_ms", "authorizer.replica.staleness_max"),
    ("authorizer.replica.overlap_ms", "authorizer.replica.overlap"),
    ("authorizer.replica.sweep_interval_ms", "authorizer.replica.sweep_interval"),
    ("vector_store.qdrant.timeout_ms", "vector_store.qdrant.timeout"),
    ("vector_store.qdrant.overview_age_max_ms", "vector_store.qdrant.overview_age_max"),
    ("retrieval.page_token_lifetime_ms", "retrieval.page_token_lifetime"),
    ("identity.leeway_seconds", "identity.leeway"),
    ("audit.fsync_interval_ms", "audit.fsync_interval"),
    ("audit.segment_bytes_max", "audit.segment_size_max"),
    // No version had these keys, but somebody who knows the others may write them.
    ("server.request_timeout_seconds", "server.request_timeout"),
    ("identity.leeway_ms", "identity.leeway"),
    ("authorizer.replica.overlap_seconds", "authorizer.replica.overlap"),
    ("approval.expiry_seconds", "approval.expiry"),
    ("audit.fsync_interval_seconds", "audit.fsync_interval"),
];

#[test]
fn a_former_key_is_refused_with_the_key_and_form_of_today() {
    let leaves = leaves();
    for (former, today) in FORMER {
        let leaf = leaves.iter().find(|leaf| leaf.key == today).expect(today);
        let form = match leaf.kind.as_str() {
            "Duration" => "a duration such as \"500ms\"",
            "ByteSize" => "a size such as \"64MiB\"",
            kind => panic!("{today} is a {kind}"),
        };
        let by_file = load(&format!("{former} = 1"), &[], &Overrides::default()).expect_err(former).to_string();
        assert_eq!(by_file, format!("`{former}` is now `{today}`, {form}"), "{former} in the file");
        let variable = format!("RAGWARD__{}", former.to_uppercase().replace('.', "__"));
        let misspelt = variable.replace("__", "_");
        for name in [&variable, &misspelt, &variable.to_lowercase()] {
            let by_variable = load("", &[(name, "1")], &Overrides::default()).expect_err(name).to_string();
            assert_eq!(by_variable, format!("`{name}` is now `{}`, {form}", leaf.variable()), "{former} as a variable");
        }
    }
    // The list has every setting whose value includes a unit, and no former key is the key of a setting today.
    for leaf in &leaves {
        let named = FORMER.iter().any(|(_, today)| *today == leaf.key);
        assert_eq!(named, matches!(leaf.kind.as_str(), "Duration" | "ByteSize"), "{}", leaf.key);
        assert!(FORMER.iter().all(|(former, _)| *former != leaf.key), "{}", leaf.key);
        assert!(!["_ms", "_seconds", "_bytes"].iter().any(|unit| leaf.key.contains(unit)), "{}", leaf.key);
    }
    // Former keys are also refused below a list, and in a table that a variable holds.
    let step_up = "[[identity.step_up]]\ncollection = 'a'\nmax_age_seconds = 300";
    let tables = [
        (
            "a list in the file",
            step_up,
            ("RAGWARD_X", ""),
            "`identity.step_up.max_age_seconds` is now `identity.step_up.max_age`",
        ),
        (
            "a list in a variable",
            "",
            ("RAGWARD__IDENTITY__STEP_UP", "[{ collection = 'a', max_age_seconds = 300 }]"),
            "`identity.step_up.max_age_seconds` is now `identity.step_up.max_age`",
        ),
        (
            "a table in a variable",
            "",
            ("RAGWARD__SERVER", "{ request_timeout_ms = 1 }"),
            "`server.request_timeout_ms` is now `server.request_timeout`",
        ),
    ];
    for (name, toml, variable, expected) in tables {
        let error = load(toml, &[variable], &Overrides::default()).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn settings_that_carry_their_unit_come_from_file_and_environment() {
    for leaf in leaves() {
        // Each row writes one value three times: in the file, in a variable, and as `config print` shows it.
        let forms = match leaf.kind.as_str() {
            "Duration" => [("'90s'", "90s", "1m 30s"), ("'1m 30s'", "1m 30s", "1m 30s"), ("'500ms'", "500ms", "500ms")],
            "ByteSize" => [("'16MiB'", "16MiB", "16MiB"), ("16777216", "16777216", "16MiB"), ("'1KB'", "1KB", "1000B")],
            _ => continue,
        };
        for (written, text, expected) in forms {
            // Approvals need a client of the issuer.
            let client =
                "approval.issuer = 'https://a.example'\napproval.client_id = 'a'\napproval.client_secret_file = 'a'";
            let client = if leaf.key.starts_with("approval.") { client } else { "" };
            let kinds = &format!("authorizer.kind = 'openfga'\nvector_store.kind = 'qdrant'\n{client}");
            let (toml, variable) = (format!("{kinds}\n{} = {written}", leaf.key), leaf.variable());
            let sources: [(&str, &[(&str, &str)]); 2] = [(&toml, &[]), (kinds, &[(&variable, text)])];
            for (toml, environment) in sources {
                let config = read(toml, environment).expect(toml);
                let printed = serde_json::to_value(config).expect("JSON");
                let at = format!("/{}", leaf.key.replace('.', "/"));
                assert_eq!(printed.pointer(&at), Some(&json!(expected)), "{toml} {environment:?}");
            }
        }
    }
}

#[test]
fn an_empty_text_unsets_nothing_in_the_file_and_a_setting_in_a_variable() {
    for leaf in leaves().iter().filter(|leaf| leaf.is_optional) {
        let key = &leaf.key;
        let error = load(&format!("{key} = ''"), &[], &Overrides::default()).expect_err(key).to_string();
        assert_eq!(error, format!("`{key}` is empty; leave the key out if it is to be unset"));
    }
    let toml = "[telemetry]\notlp_endpoint = 'http://127.0.0.1:4317'";
    let unset = [("RAGWARD__TELEMETRY__OTLP_ENDPOINT", "")];
    assert_eq!(load(toml, &unset, &Overrides::default()).expect("valid").telemetry.otlp_endpoint, None);
    let kept = load(toml, &[], &Overrides::default()).expect("valid").telemetry.otlp_endpoint;
    assert_eq!(kept.as_deref(), Some("http://127.0.0.1:4317"));
    let issuer = "[[identity.issuers]]\nissuer = 'https://a.example'\njwks_url = ''";
    let error = load(issuer, &[], &Overrides::default()).expect_err("empty").to_string();
    assert!(error.contains("`identity.issuers.jwks_url` is empty"), "{error}");
}

/// Every setting that cannot be zero says so.
#[test]
fn zero_is_refused_where_it_makes_no_sense() {
    let positive = [
        ("server.request_timeout", "'0s'"),
        ("server.connections_max", "0"),
        ("server.shutdown_timeout", "'0s'"),
        ("authorizer.openfga.checks_per_call", "0"),
        ("authorizer.openfga.timeout", "'0s'"),
        ("authorizer.openfga.list_results_max", "0"),
        ("authorizer.openfga.list_deadline", "'0s'"),
        ("authorizer.checks.calls_in_flight_max", "0"),
        ("authorizer.replica.poll_interval", "'0s'"),
        ("authorizer.replica.sweep_interval", "'0s'"),
        ("authorizer.replica.types_max", "0"),
        ("vector_store.qdrant.timeout", "'0s'"),
        ("vector_store.qdrant.guards_max", "0"),
        ("vector_store.qdrant.guards_per_filter_max", "0"),
        ("vector_store.qdrant.text_average_length", "0"),
        ("retrieval.top_k_max", "0"),
        ("retrieval.candidates_max", "0"),
        ("retrieval.guards_checked_max", "0"),
        ("retrieval.page_token_lifetime", "'0s'"),
        ("audit.fsync_interval", "'0s'"),
        ("audit.segment_size_max", "0"),
    ];
    for (key, zero) in positive {
        let toml = format!("authorizer.kind = 'openfga'\nvector_store.kind = 'qdrant'\n{key} = {zero}");
        let error = load(&toml, &[], &Overrides::default()).expect_err(key).to_string();
        assert!(error.contains(&format!("`{key}`: it must be at least")), "{key}: {error}");
    }
}

#[test]
fn lists_and_tables_come_from_the_environment() {
    let rows: [(&str, &str, &str, Value); 7] = [
        (
            "RAGWARD__VECTOR_STORE__QDRANT__VECTOR_NAMES",
            "{ Docs = 'text', wiki = '' }",
            "/vector_store/qdrant/vector_names",
            json!({"Docs": "text", "wiki": ""}),
        ),
        (
            "RAGWARD__IDENTITY__DETAILS__CLASSIFICATIONS",
            "['public', \"secret\"]",
            "/identity/details/classifications",
            json!(["public", "secret"]),
        ),
        ("RAGWARD__IDENTITY__DETAILS__CLASSIFICATIONS", "[]", "/identity/details/classifications", json!([])),
        (
            "RAGWARD__IDENTITY__ISSUERS",
            "[{ issuer = 'https://a.example', name = '007' }]",
            "/identity/issuers/0/name",
            json!("007"),
        ),
        (
            "RAGWARD__VECTOR_STORE__QDRANT__COLLECTIONS",
            "{ Docs = { written_by = 'other', guard = 'g' } }",
            "/vector_store/qdrant/collections/Docs/guard",
            json!("g"),
        ),
        (
            "RAGWARD__VECTOR_STORE__QDRANT__COLLECTIONS__DOCS",
            "{ written_by = 'other' }",
            "/vector_store/qdrant/collections/docs/written_by",
            json!("other"),
        ),
        ("RAGWARD__AUTHORIZER__OPENFGA__STORE_NAME", "007", "/authorizer/openfga/store_name", json!("007")),
    ];
    for (variable, text, at, expected) in rows {
        let config = load(SERVERS, &[(variable, text)], &Overrides::default()).expect(variable);
        let printed = serde_json::to_value(&config).expect("JSON");
        assert_eq!(printed.pointer(at), Some(&expected), "{variable}={text}");
    }
    for (variable, text, expected) in [
        ("RAGWARD__IDENTITY__DETAILS__CLASSIFICATIONS", "public,secret", "['a', 'b']"),
        ("RAGWARD__IDENTITY__DETAILS__CLASSIFICATIONS", "[]\nx = 1", "['a', 'b']"),
        ("RAGWARD__IDENTITY__ISSUERS", "[{ isuer = 'x' }]", "isuer"),
        ("RAGWARD__IDENTITY", "{ audiense = 'x' }", "did you mean `identity.audience`?"),
        ("RAGWARD__SERVER__LISTEN__PORT", "1", "server.listen.port"),
    ] {
        let error = load("", &[(variable, text)], &Overrides::default()).expect_err(variable).to_string();
        assert!(error.contains(expected), "{variable}={text}: {error}");
    }
    let twice = [("RAGWARD__SERVER__LISTEN", "127.0.0.1:1"), ("ragward__server__listen", "127.0.0.1:2")];
    assert!(load("", &twice, &Overrides::default()).expect_err("twice").to_string().contains("the same key"));
}

/// The outcome of a load, for the tests of `server.tls`: its certificate, the word, or the error.
fn tls(toml: &str, environment: &[(&str, &str)]) -> Result<Option<String>, String> {
    let config = load(toml, environment, &Overrides::default()).map_err(|e| e.to_string())?;
    Ok(config.server.tls.map(|tls| match tls {
        TlsConfig::Files(files) => {
            let client_ca = files.client_ca_file.map(|path| path.display().to_string()).unwrap_or_default();
            format!("{} {} {client_ca}", files.cert_file.display(), files.key_file.path().display())
        }
        TlsConfig::Elsewhere => "elsewhere".to_owned(),
    }))
}

#[test]
fn tls_is_files_or_a_word() {
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Result<Option<&'a str>, &'a str>);
    let files = "[server.tls]\ncert_file = 'c'\nkey_file = 'k'";
    let (cert, key) = ("RAGWARD__SERVER__TLS__CERT_FILE", "RAGWARD__SERVER__TLS__KEY_FILE");
    let (word, client_ca) = ("RAGWARD__SERVER__TLS", "RAGWARD__SERVER__TLS__CLIENT_CA_FILE");
    let rows: [Row; 20] = [
        ("nothing", "", &[], Ok(None)),
        ("files", files, &[], Ok(Some("c k "))),
        ("files and authorities", files, &[(client_ca, "a")], Ok(Some("c k a"))),
        ("the word", "server.tls = 'elsewhere'", &[], Ok(Some("elsewhere"))),
        ("files as variables", "", &[(cert, "c"), (key, "k")], Ok(Some("c k "))),
        ("the word as a variable", "", &[(word, "elsewhere")], Ok(Some("elsewhere"))),
        ("the word as a variable in place of files", files, &[(word, "elsewhere")], Ok(Some("elsewhere"))),
        ("unset as a variable", files, &[(word, "")], Ok(None)),
        ("a part that is unset", files, &[(client_ca, "")], Ok(Some("c k "))),
        ("a part of nothing that is unset", "", &[(client_ca, "")], Ok(None)),
        ("one file", "[server.tls]\ncert_file = 'c'", &[], Err("missing field `key_file`")),
        ("an empty table", "[server.tls]", &[], Err("missing field `cert_file`")),
        ("authorities alone", "", &[(client_ca, "a")], Err("missing field `cert_file`")),
        ("another word", "server.tls = 'off'", &[], Err("`server.tls`: `off` must be a table with `cert_file`")),
        ("the word in capitals", "", &[(word, "ELSEWHERE")], Err("or the word \"elsewhere\"")),
        ("a truth value", "server.tls = true", &[], Err("or the word \"elsewhere\"")),
        ("an unknown key", "server.tls.cert_fil = 'c'", &[], Err("did you mean `server.tls.cert_file`?")),
        ("files beside the word", "server.tls = 'elsewhere'", &[(cert, "c")], Err("sets a part of `server.tls`")),
        ("both as variables", "", &[(word, "elsewhere"), (cert, "c")], Err("set the same key")),
        ("both as variables, the other way", "", &[(cert, "c"), (word, "elsewhere")], Err("set the same key")),
    ];
    for (row, toml, environment, expected) in rows {
        let found = tls(toml, environment);
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{row}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{row}: {error}"),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("{row}: {found:?}"),
        }
    }
    for printed in [files, "[server]\ntls = 'elsewhere'"] {
        let config = load(printed, &[], &Overrides::default()).expect(printed);
        let printed = toml::to_string(&config).expect("printed");
        assert_eq!(load(&printed, &[], &Overrides::default()).expect("read"), config);
    }
    let misspelt = tls("", &[("RAGWARD_SERVER_TLS", "elsewhere")]).expect_err("sets nothing");
    assert!(misspelt.contains("`RAGWARD__SERVER__TLS`"), "{misspelt}");
}

#[test]
fn variables_that_mean_nothing_are_found() {
    let rows = [
        ("not ours", "PATH", None),
        ("without an underscore", "RAGWARDX", None),
        ("the file", "RAGWARD_CONFIG", None),
        ("the token", "RAGWARD_TOKEN", None),
        ("the server to call", "RAGWARD_SERVER", None),
        ("the authorities to trust", "RAGWARD_CA_FILE", None),
        ("a setting", "RAGWARD__SERVER__LISTEN", None),
        ("a setting in lower case", "ragward__server__listen", None),
        ("what is refused", "RAGWARD_SERVER_LISTEN", None),
        ("a section", "RAGWARD_DATA", Some(None)),
        ("a key without its section", "RAGWARD_TOP_K", Some(None)),
        ("in lower case", "ragward_top_k", Some(None)),
        ("of Kubernetes", "RAGWARD_SERVICE_HOST", Some(None)),
        ("of Kubernetes, for a port", "RAGWARD_PORT_8980_TCP", Some(None)),
        ("a slip of a letter", "RAGWARD_RETRIVAL__TOP_K_MAX", Some(Some("RAGWARD__RETRIEVAL__TOP_K_MAX"))),
        ("a word that lacks", "RAGWARD_RETRIEVAL_TOP_K", Some(Some("RAGWARD__RETRIEVAL__TOP_K_MAX"))),
        ("the file in lower case", "ragward_config", Some(Some("RAGWARD_CONFIG"))),
    ];
    for (row, name, expected) in rows {
        let found = unknown_variables(std::iter::once(name.to_owned()));
        let found: Vec<(&str, Option<&str>)> =
            found.iter().map(|(n, nearest)| (n.as_str(), nearest.as_deref())).collect();
        assert_eq!(found, expected.map(|nearest| (name, nearest)).into_iter().collect::<Vec<_>>(), "{row}");
    }
}

/// Whatever stands between the letters of a setting, the error names the right variable, and that variable works.
#[test]
fn a_misspelt_variable_is_refused_with_its_right_name() {
    let right = "RAGWARD__RETRIEVAL__TOP_K_MAX";
    for name in [
        "RAGWARD_RETRIEVAL__TOP_K_MAX",
        "RAGWARD_RETRIEVAL_TOP_K_MAX",
        "RAGWARD__RETRIEVAL_TOP_K_MAX",
        "RAGWARD___RETRIEVAL__TOP_K_MAX",
        "RAGWARD__RETRIEVAL___TOP_K_MAX",
        "RAGWARD__RETRIEVAL__TOP__K_MAX",
        "RAGWARD__RETRIEVAL__TOP_K__MAX",
        "RAGWARD__RETRIEVAL__TOPK_MAX",
        "RAGWARD__RETRIEVAL__TOP_K_MAX_",
        "RAGWARD__RETRIEVAL__TOP_K_MAX__",
        "RAGWARDRETRIEVALTOPKMAX",
        "ragward_retrieval__top_k_max",
        "ragward__retrieval_top_k_max",
        "Ragward_Retrieval_Top_K_Max",
        "RAGWARD__RETRIEVAL__TOP-K-MAX",
        "RAGWARD.RETRIEVAL.TOP_K_MAX",
    ] {
        let error = load("", &[(name, "7")], &Overrides::default()).expect_err(name).to_string();
        assert!(error.contains(&format!("`{name}`")) && error.contains(&format!("`{right}`")), "{name}: {error}");
    }
    for (name, right) in [
        ("RAGWARD__CONFIG", "`RAGWARD_CONFIG`"),
        ("RAGWARD__TOKEN", "`RAGWARD_TOKEN`"),
        ("RAGWARD__CA_FILE", "`RAGWARD_CA_FILE`"),
    ] {
        let error = load("", &[(name, "x")], &Overrides::default()).expect_err(name).to_string();
        assert!(error.contains(right), "{name}: {error}");
    }
    for name in [right, "ragward__retrieval__top_k_max"] {
        assert_eq!(load("", &[(name, "7")], &Overrides::default()).expect(name).retrieval.top_k_max, 7, "{name}");
    }
    // The letters identify every setting: no two settings have the same letters.
    for Leaf { key, .. } in leaves() {
        let [name, right] = ["_", "__"].map(|dot| format!("RAGWARD{dot}{}", key.to_uppercase().replace('.', dot)));
        let error = load("", &[(&name, "x")], &Overrides::default()).expect_err(&name).to_string();
        assert!(error.contains(&format!("`{right}`")), "{name}: {error}");
    }
}

#[test]
fn what_is_printed_can_be_read_back() {
    let printed = toml::to_string(&Config::default()).expect("printed");
    assert_eq!(load(&printed, &[], &Overrides::default()).expect("read"), Config::default());
}
