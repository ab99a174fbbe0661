//! The layers, and what is refused.

use serde_json::json;

use super::layers::unknown_variables;
use super::*;

fn load(toml: &str, environment: &[(&str, &str)], overrides: &Overrides) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("ragward.toml");
    std::fs::write(&file, toml).expect("written");
    let variables = environment.iter().map(|(key, value)| (OsString::from(key), OsString::from(value)));
    Config::load_from(Some(&file), variables, overrides)
}

#[test]
fn later_layers_win() {
    let toml = "[server]\nlisten = '127.0.0.1:1'\nrequest_timeout_ms = 1\n[retrieval]\ntop_k_max = 7";
    let environment = [("RAGWARD__SERVER__LISTEN", "127.0.0.1:2"), ("RAGWARD__SERVER__REQUEST_TIMEOUT_MS", "2")];
    let flags = Overrides { listen: Some(SocketAddr::from(([127, 0, 0, 1], 3))), ..Overrides::default() };
    let config = load(toml, &environment, &flags).expect("valid");
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.request_timeout_ms, 2);
    assert_eq!(config.retrieval.top_k_max, 7);
    assert_eq!(config.retrieval.relation, "can_read");
}

#[test]
fn what_is_wrong_is_told() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let rows: [Row; 13] = [
        ("[sever]\nlisten = '127.0.0.1:1'", &[], "unknown configuration key `sever`; did you mean `server`?"),
        ("[server]\nlisten_adress = 1", &[], "did you mean `server.listen`?"),
        ("", &[("RAGWARD__RETRIEVAL__TOP_MAX", "3")], "did you mean `retrieval.top_k_max`?"),
        ("[server]\nlisten = 'here'", &[], "listen"),
        ("[server]\nlisten = 'localhost:8980'", &[], "`localhost:8980` must be an IP address and a port"),
        (
            "[server]\nlisten = '8980'",
            &[],
            "must be an IP address and a port, such as `127.0.0.1:8980` in `server.listen`",
        ),
        ("[server]\nlisten = '127.0.0.1'", &[], "must be an IP address and a port"),
        ("[server]\nlisten = 8980", &[], "server.listen"),
        ("", &[("RAGWARD__SERVER__LISTEN", ":8980")], "`:8980` must be an IP address and a port"),
        ("[telemetry]\nmetrics_listen = 'localhost:1'", &[], "`telemetry.metrics_listen`: `localhost:1` must be an IP"),
        ("[retrieval]\ntop_k_max = 'ten'", &[], "top_k_max"),
        ("[retrieval]\ntop_k_max = 0", &[], "`retrieval.top_k_max` must be at least 1"),
        ("[server\n", &[], "TOML"),
    ];
    for (toml, environment, expected) in rows {
        let error = load(toml, environment, &Overrides::default()).expect_err(toml).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Both servers are chosen, so that their settings count.
const SERVERS: &str = "[authorizer]\nkind = 'openfga'\n[vector_store]\nkind = 'qdrant'\n";

/// What only a server uses must not be passed over in silence: the embedded engine would be used in its place.
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
        ("checks", "[authorizer.checks]\ncache_ttl_ms = 5000", &[], "authorizer.kind"),
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
        ("cache_bytes_max = 0", ["checks.cache_bytes_max", "checks.cache_ttl_ms"]),
        ("changelog_poll_ms = 2000", ["checks.changelog_age_max_ms", "checks.changelog_poll_ms"]),
        ("changelog_age_max_ms = 0", ["checks.changelog_age_max_ms", "checks.changelog_poll_ms"]),
        ("cache_ttl_ms = 499", ["checks.cache_ttl_ms", "checks.changelog_poll_ms"]),
        ("checks_waiting_max = 199", ["checks.checks_waiting_max", "openfga.checks_per_call"]),
    ];
    for (line, keys) in rows {
        let toml = format!("[authorizer]\nkind = 'openfga'\n[authorizer.checks]\n{line}");
        let error = load(&toml, &[], &Overrides::default()).expect_err(&toml).to_string();
        assert!(keys.iter().all(|key| error.contains(&format!("`authorizer.{key}`"))), "{error}");
    }
    for (line, keys) in [
        ("poll_interval_ms = 2000", ["replica.poll_interval_ms", "checks.changelog_age_max_ms"]),
        ("staleness_max_ms = 500", ["replica.poll_interval_ms", "replica.staleness_max_ms"]),
    ] {
        let toml = format!("[authorizer]\nkind = 'openfga'\n[authorizer.replica]\n{line}");
        let error = load(&toml, &[], &Overrides::default()).expect_err(&toml).to_string();
        assert!(keys.iter().all(|key| error.contains(&format!("`authorizer.{key}`"))), "{error}");
        let without = format!("{toml}\nmode = 'off'");
        assert!(load(&without, &[], &Overrides::default()).is_ok(), "{line}");
    }
    for line in ["cache_ttl_ms = 0\ncache_bytes_max = 0", "changelog_poll_ms = 0\nchangelog_age_max_ms = 0"] {
        let toml = format!("[authorizer]\nkind = 'openfga'\n[authorizer.checks]\n{line}");
        assert!(load(&toml, &[], &Overrides::default()).is_ok(), "{line}");
    }
}

/// Every key of the schema that holds no others, with its type.
fn leaves(schema: &Value, root: &Value, path: &str, found: &mut Vec<(String, String)>) {
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    let schema = reference.map_or(schema, |pointer| root.pointer(pointer).expect("a definition"));
    match schema.get("properties").and_then(Value::as_object) {
        None => found.push((path.to_owned(), schema.get("type").and_then(Value::as_str).unwrap_or("enum").to_owned())),
        Some(fields) => {
            for (name, field) in fields {
                leaves(field, root, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
            }
        }
    }
}

#[test]
fn a_variable_has_the_type_of_its_key() {
    let schema = Config::schema();
    let mut keys = Vec::new();
    leaves(&schema, &schema, "", &mut keys);
    assert!(keys.len() > 50, "{keys:?}");
    // Texts that look like something else. What a key cannot be is refused with the variable's name.
    let texts = ["007", "1e3", "true", "null", "0x10", "", " x", "[1]", "2024-01-01", "1_000", "-1", "yes"];
    // What another rule says of such a text, too.
    let free = |key: &str| !matches!(key, "server.listen" | "telemetry.metrics_listen" | "telemetry.otlp_endpoint");
    for (key, kind) in &keys {
        let variable = format!("RAGWARD__{}", key.to_uppercase().replace('.', "__"));
        for text in texts {
            let row = format!("{variable}={text}");
            let loaded = load(SERVERS, &[(&variable, text)], &Overrides::default());
            let printed = loaded.as_ref().map(|config| serde_json::to_value(config).expect("JSON"));
            let at = format!("/{}", key.replace('.', "/"));
            let value = printed.as_ref().ok().and_then(|config| config.pointer(&at));
            match kind.as_str() {
                "string" if free(key) => assert_eq!(value, Some(&json!(text)), "{row}"),
                "integer" => {
                    let number = text.parse::<i64>().ok();
                    assert!(value.is_none() || value.and_then(Value::as_i64) == number, "{row}: {value:?}");
                    assert!(number.is_some() || loaded.is_err_and(|e| e.to_string().contains(&variable)), "{row}");
                }
                "number" => {
                    let number = text.parse::<f64>().ok();
                    assert!(value.is_none() || value.and_then(Value::as_f64) == number, "{row}: {value:?}");
                    assert!(number.is_some() || loaded.is_err_and(|e| e.to_string().contains(&variable)), "{row}");
                }
                "boolean" if text == "true" => assert_eq!(value, Some(&json!(true)), "{row}"),
                "boolean" | "object" => assert!(loaded.is_err_and(|e| e.to_string().contains(&variable)), "{row}"),
                "array" if text == "[1]" => assert!(loaded.is_err_and(|e| e.to_string().contains(key)), "{row}"),
                "array" => assert!(loaded.is_err_and(|e| e.to_string().contains(&variable)), "{row}"),
                _ => assert!(value.is_none_or(|value| value == text), "{row}: {value:?}"),
            }
        }
    }
}

#[test]
fn lists_and_tables_come_from_the_environment() {
    let rows: [(&str, &str, &str, Value); 6] = [
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

#[test]
fn variables_that_mean_nothing_are_found() {
    let rows = [
        ("not ours", "PATH", None),
        ("without an underscore", "RAGWARDX", None),
        ("the file", "RAGWARD_CONFIG", None),
        ("the token", "RAGWARD_TOKEN", None),
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

/// Whatever stands between the letters of a setting, its right name is told, and that is taken.
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
    for (name, right) in [("RAGWARD__CONFIG", "`RAGWARD_CONFIG`"), ("RAGWARD__TOKEN", "`RAGWARD_TOKEN`")] {
        let error = load("", &[(name, "x")], &Overrides::default()).expect_err(name).to_string();
        assert!(error.contains(right), "{name}: {error}");
    }
    for name in [right, "ragward__retrieval__top_k_max"] {
        assert_eq!(load("", &[(name, "7")], &Overrides::default()).expect(name).retrieval.top_k_max, 7, "{name}");
    }
    // Every setting is found by its letters: no two have the same ones.
    let schema = Config::schema();
    let mut keys = Vec::new();
    leaves(&schema, &schema, "", &mut keys);
    for (key, _) in keys {
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
