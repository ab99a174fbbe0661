//! The commands of the README, as a user types them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs a command in the project's folder, without the environment's settings.
pub(super) fn ragward(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ragward"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

#[track_caller]
pub(super) fn succeeds(arguments: &[&str]) -> String {
    let output = ragward(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(super) fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[arguments, &["--output", "json"]].concat())).unwrap()
}

/// Returns the values of a field, one for each entry of a list.
pub(super) fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap()).collect()
}

#[test]
fn the_readme_works_on_a_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let loaded = json(&["model", "load", "schema/handbook/store.fga.yaml", "--data", data]);
    assert_eq!((&loaded["tuples"], &loaded["types"]), (&Value::from(48), &Value::from(5)));
    let written = json(&["ingest", "schema/handbook", "--collection", "handbook", "--data", data]);
    assert_eq!(written["documents"], 16);
    let retrieve = ["retrieve", "--user", "user:anne", "--collection", "handbook", "--data", data, "--top-k", "3"];
    let found = json(&[&retrieve[..], &["parental leave"]].concat());
    assert_eq!((found["completion"].as_str(), found["recall"].as_str()), (Some("COMPLETE"), Some("EXACT")));
    assert_eq!(each(&found["chunks"], "id").first(), Some(&"document:parental-leave#0"));
    assert!(succeeds(&[&retrieve[..], &["parental leave"]].concat()).contains("Parental leave"));

    let recheck = ["recheck", "--user", "user:anne", "--collection", "handbook", "--data", data];
    assert!(succeeds(&[&recheck[..], &["document:on-call#0"]].concat()).contains("permitted"));
    let withheld = ragward(&[&recheck[..], &["document:on-call#0", "document:pay-bands#0"]].concat());
    assert_eq!(withheld.status.code(), Some(1));
    let fetch = ["fetch", "--user", "user:anne", "--data", data, "handbook"];
    let documents = ["--document", "document:pay-bands", "--document", "document:on-call"];
    let fetched = json(&[&fetch[..], &["document:parental-leave#0", "document:no-such#0"], &documents].concat());
    let ids = each(&fetched["chunks"], "id");
    assert_eq!(ids[..2], ["document:parental-leave#0", "document:on-call#0"]);
    assert!(ids[2..].iter().all(|id| id.starts_with("document:on-call#")), "{ids:?}");
    assert_eq!(fetched["completion"], "EXHAUSTED");
    assert!(fetched["chunks"][0].get("score").is_none(), "{fetched}");
    assert!(succeeds(&[&fetch[..], &documents].concat()).contains("On call"));
    assert_eq!(ragward(&fetch).status.code(), Some(2), "nothing is named");
    let check = |user| ragward(&["check", user, "can_read", "document:pay-bands", "--data", data]).status.code();
    assert_eq!((check("user:bob"), check("user:anne")), (Some(0), Some(1)));
    let model = json(&["model", "show", "--data", data]);
    assert_eq!(model["schema_version"], "1.1");
    assert_eq!(
        ragward(&["retrieve", "--user", "user:anne", "--collection", "none", "--data", data, "x"]).status.code(),
        Some(2)
    );
}

#[test]
fn documents_come_in_by_guard_by_type_and_with_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", &data]);
    std::fs::create_dir(directory.path().join("notes")).unwrap();
    std::fs::write(directory.path().join("notes/welcome.md"), "# Hello\n\nA note of welcome.\n").unwrap();
    std::fs::write(directory.path().join("notes/empty.txt"), "").unwrap();
    let ingest = ["ingest", &path("notes"), "--data", &data];
    let by_type = json(&[&ingest[..], &["--collection", "typed", "--guard-type", "document"]].concat());
    assert_eq!((&by_type["documents"], by_type["empty"].as_array().unwrap().len()), (&Value::from(1), 1));
    let readable = json(&[&ingest[..], &["--collection", "guarded", "--guard", "document:pay-bands"]].concat());
    assert_eq!(readable["warnings"], serde_json::json!([]));
    for (guard, expected) in [
        (
            "folder:hr",
            "nobody will see what a `folder` guards: type `folder` of the authorization model has no relation `can_read`",
        ),
        (
            "documnt:a",
            "nobody will see what a `documnt` guards: the authorization model has no type `documnt`; did you mean `document`?",
        ),
    ] {
        let told = succeeds(&[&ingest[..], &["--collection", "unseen", "--guard", guard]].concat());
        assert!(told.starts_with("put 1 documents (1 chunks) into collection `unseen`\n"), "{guard}: {told}");
        assert!(told.contains(&format!("warning: {expected}\n")), "{guard}: {told}");
    }
    let chunk = r#"{"id":"v#0","document_id":"v","guard":"document:welcome","text":"A vector","vector":[1.0,0.0]}"#;
    std::fs::write(directory.path().join("chunks.jsonl"), chunk).unwrap();
    json(&["ingest", &path("chunks.jsonl"), "--collection", "vectors", "--data", &data]);
    std::fs::write(directory.path().join("query.json"), "[2.0, 0.5]").unwrap();

    let asked = |collection: &str, user: &str, query: &[&str]| {
        let found = json(&[&["retrieve", "--user", user, "--collection", collection, "--data", &data], query].concat());
        each(&found["chunks"], "id").into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(asked("typed", "user:fay", &["welcome"]), ["document:welcome#0"]);
    assert_eq!(asked("guarded", "user:bob", &["welcome"]).len(), 1);
    assert_eq!(asked("guarded", "user:fay", &["welcome"]).len(), 0);
    assert_eq!(asked("vectors", "user:fay", &["--vector", &path("query.json")]), ["v#0"]);
    let unguarded = ragward(&[&ingest[..], &["--collection", "none"]].concat());
    assert_eq!(unguarded.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unguarded.stderr).contains("--guard-type"), "{unguarded:?}");
}

#[test]
fn files_that_cannot_be_taken_are_passed_over_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", &data]);
    std::fs::create_dir(directory.path().join("notes")).unwrap();
    std::fs::write(directory.path().join("notes/a.md"), "A note of welcome.").unwrap();
    std::fs::write(directory.path().join("notes/latin1.md"), b"un caf\xe9 noir, d\xe9j\xe0 servi").unwrap();
    std::fs::write(directory.path().join("notes/binary.md"), b"\0\x01\xff").unwrap();
    std::fs::write(directory.path().join("notes/paper.PDF"), b"%PDF-1.7").unwrap();
    std::fs::write(directory.path().join("notes/z.md"), "Another one.").unwrap();
    std::os::unix::fs::symlink("gone.md", directory.path().join("notes/dangling.md")).unwrap();
    let ingest = ["ingest", &path("notes"), "--collection", "c", "--guard-type", "document", "--data", &data];
    let passed = ragward(&[&ingest[..], &["--output", "json"]].concat());
    assert_eq!(passed.status.code(), Some(1), "{passed:?}");
    let told: Value = serde_json::from_slice(&passed.stdout).unwrap();
    assert_eq!((&told["documents"], &told["passed_over_total"]), (&Value::from(3), &Value::from(2)));
    let named = told["passed_over"].to_string();
    assert!(named.contains("dangling.md") && named.contains("binary.md"), "{named}");
    assert_eq!(told["decoded"][0]["encoding"], "windows-1252", "{told}");
    assert!(told["not_read"].to_string().contains("paper.PDF") && told["not_read_total"] == 1, "{told}");
    assert_eq!(String::from_utf8_lossy(&passed.stderr), "error: 2 files or lines were passed over\n");
    let strict = ragward(&[&ingest[..], &["--strict"]].concat());
    assert_eq!(strict.status.code(), Some(2), "{strict:?}");
    assert!(String::from_utf8_lossy(&strict.stderr).contains("dangling.md"), "{strict:?}");
    // A second cutting changes what is there, and puts nothing else in.
    std::fs::write(directory.path().join("notes/new.md"), "A new one.").unwrap();
    std::fs::remove_file(directory.path().join("notes/z.md")).unwrap();
    let recut = ragward(&[&ingest[..], &["--recut", "--output", "json"]].concat());
    let told: Value = serde_json::from_slice(&recut.stdout).unwrap();
    assert_eq!((&told["documents"], &told["not_recut"]), (&Value::from(2), &Value::from(1)), "{told}");
}

/// Texts from others (names of files and tests, texts, titles) are shown with every character visible.
#[test]
fn nothing_invisible_reaches_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let hidden = "x\u{202e}y\u{200b}z\u{1b}[31m";
    let data = path("data");
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", &data]);
    let line = serde_json::json!({
        "id": "c\u{202e}1", "document_id": "d", "guard": "document:welcome", "title": "t\u{202e}", "text": format!("leave {hidden}"),
    });
    std::fs::write(directory.path().join("chunks.jsonl"), line.to_string()).unwrap();
    succeeds(&["ingest", &path("chunks.jsonl"), "--collection", "c", "--data", &data]);
    let store = format!(
        "{}tests:\n- name: \"t\\u202e\"\n  check:\n  - {{user: \"user:a\\u202e\", object: 'doc:1', assertions: {{viewer: true}}}}\n",
        "model: |\n  model\n    schema 1.1\n  type user\n  type doc\n    relations\n      define viewer: [user]\n"
    );
    std::fs::write(directory.path().join("s.fga.yaml"), store).unwrap();
    let odd = path(&format!("{hidden}.fga.yaml"));
    std::fs::write(&odd, "name: x\u{202e}\nmodel: nothing").unwrap();
    let rows: [&[&str]; 7] = [
        &["retrieve", "--user", "user:fay", "--collection", "c", "--data", &data, "leave"],
        &["recheck", "--user", "user:fay", "--collection", "c", "--data", &data, "c\u{202e}1"],
        &["explain", "--user", "user:a\u{202e}", "--object", "document:welcome", "--data", &data],
        &["test", &path("s.fga.yaml")],
        &["test", &odd],
        &["model", "validate", &odd],
        &["check", "user:a\u{202e}", "can_read", "document\u{202e}:x", "--data", &data],
    ];
    for arguments in rows {
        for format in ["table", "json"] {
            let output = ragward(&[arguments, &["--output", format]].concat());
            let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(told.contains("202e"), "{arguments:?}, {format}: {told}");
            let unseen = told.chars().find(|c| *c != '\n' && c.is_control() || ['\u{202e}', '\u{200b}'].contains(c));
            assert_eq!(unseen, None, "{arguments:?}, {format}: {told}");
        }
    }
}

/// A reader that has seen enough closes the pipe. That does not fail the command, and its exit code stays that of its
/// answer.
#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").to_str().unwrap().to_owned();
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", &data]);
    let denied = ["check", "user:anne", "can_read", "document:pay-bands", "--data", &data];
    let rows: [(&[&str], i32); 6] = [
        (&["completions", "bash"], 0),
        (&["config", "schema"], 0),
        (&["config", "print"], 0),
        (&["model", "show", "--data", &data], 0),
        (&["test", "schema/handbook/store.fga.yaml"], 0),
        (&denied, 1),
    ];
    for (arguments, code) in rows {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
        let output = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_store_file_names_files_in_its_own_folder() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("store")).unwrap();
    std::fs::write(directory.path().join("m.fga"), "model\n  schema 1.1\ntype user\n").unwrap();
    let file = directory.path().join("store/s.fga.yaml");
    let absolute = format!("model_file: {}/m.fga\n", directory.path().display());
    for text in ["model_file: ../m.fga\n", &absolute] {
        std::fs::write(&file, text).unwrap();
        for command in [["test"].as_slice(), &["model", "validate"], &["model", "convert"]] {
            let run = |flags: &[&str]| ragward(&[command, &[file.to_str().unwrap()], flags].concat());
            let refused = run(&[]);
            let told = String::from_utf8([refused.stdout, refused.stderr].concat()).unwrap();
            assert_eq!(refused.status.code(), Some(1), "{command:?} {text}: {told}");
            assert!(told.contains("`--allow-external-files` allows that"), "{command:?} {text}: {told}");
            assert!(run(&["--allow-external-files"]).status.success(), "{command:?} {text}");
        }
    }
}

#[test]
fn an_error_begins_a_line_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broken.fga.yaml");
    std::fs::write(&file, "model: nothing").unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    let mut running = command
        .args(["test", file.to_str().unwrap()])
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    drop(command);
    let mut told = String::new();
    std::io::Read::read_to_string(&mut reader, &mut told).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1));
    assert!(told.ends_with("ListUsers 0/0 passing\nerror: 1 of 1 files did not pass\n"), "{told}");
}

#[test]
fn the_rest_of_the_commands_say_what_they_should() {
    let tested = json(&["test", "schema/handbook/store.fga.yaml", "schema/models/workspace.fga.yaml"]);
    assert_eq!(tested["tests"]["passed"], tested["tests"]["total"]);
    assert!(succeeds(&["test", "schema/handbook/store.fga.yaml"]).contains("# Test Summary #\nTests 6/6 passing"));
    assert!(succeeds(&["model", "validate", "schema/handbook/model.fga"]).contains("is valid"));
    assert!(succeeds(&["config", "print"]).contains("relation = \"can_read\""));
    assert!(succeeds(&["config", "validate", "--insecure-identity"]).contains("valid"));
    let schema: Value = serde_json::from_str(&succeeds(&["config", "schema"])).unwrap();
    assert!(schema["properties"]["retrieval"].is_object());
    assert!(succeeds(&["completions", "bash"]).contains("ragward"));
}

#[test]
fn a_failing_store_file_fails_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.fga.yaml");
    let text = "model: |\n  model\n    schema 1.1\n  type user\n  type doc\n    relations\n      define reader: [user]\ntuples:\n- \
                {user: 'user:anne', relation: reader, object: 'doc:1'}\ntests:\n- name: wrong\n  check:\n  - user: user:anne\n    \
                object: doc:1\n    assertions:\n      reader: false\n";
    std::fs::write(&file, text).unwrap();
    let output = ragward(&["test", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains("(FAILING)") && told.contains("Tests 0/1 passing") && told.contains("Checks 0/1 passing"),
        "{told}"
    );
}

/// A configuration: its name, its text, whether everybody is believed, and the message; no message if it is valid.
type ConfigurationRow<'a> = (&'a str, String, bool, &'a str);

/// Asserts that the command finds what a server would refuse, and makes nothing.
fn assert_validated(directory: &Path, rows: &[ConfigurationRow<'_>]) {
    let (file, new) = (directory.join("ragward.toml"), directory.join("new"));
    for (name, toml, believed, expected) in rows {
        let toml = if toml.contains("[data]") {
            toml.clone()
        } else {
            format!("{toml}\n[data]\ndirectory = '{}'\n", new.display())
        };
        std::fs::write(&file, &toml).unwrap();
        let flags: &[&str] = if *believed { &["--insecure-identity"] } else { &[] };
        let run = |command: &[&str]| {
            let output = ragward(&[command, &["--config", file.to_str().unwrap()], flags].concat());
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, told) = run(&["config", "validate"]);
        assert_eq!(code == Some(0), expected.is_empty(), "{name}: {told}");
        assert!(told.contains(expected), "{name}: {told}");
        if !expected.is_empty() {
            assert_eq!(run(&["serve", "--listen", "127.0.0.1:0"]), (code, told), "{name}");
        }
    }
    assert!(!new.exists(), "nothing is made");
}

/// The command finds what a server would refuse, without starting one. A row has a file and the message.
#[test]
fn a_configuration_is_valid_only_if_a_server_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(directory.path().join("short"), "too short").unwrap();
    std::fs::write(directory.path().join("secret"), "s".repeat(32)).unwrap();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    std::fs::write(directory.path().join("data/audit.key"), "no key").unwrap();
    let (gone, short, secret) = (path("gone"), path("short"), path("secret"));
    let issuer = "[identity]\naudience = 'https://r.example'\n[[identity.issuers]]\nissuer = 'https://i.example'\n";
    let oauth = "[authorizer]\nkind = 'openfga'\n[authorizer.openfga.client_credentials]\n\
                 token_url = 'https://login.example/token'\nclient_id = 'ragward'\n";
    let approval = "[approval]\nissuer = 'https://i.example'\nclient_id = 'ragward'\n";
    let rows: Vec<ConfigurationRow<'_>> = vec![
        ("nothing", String::new(), true, ""),
        ("nobody says who is asking", String::new(), false, "--insecure-identity"),
        ("an issuer", issuer.to_owned(), false, ""),
        ("an issuer, and everybody is believed", issuer.to_owned(), true, "choose one"),
        ("an issuer without an audience", issuer.replace("audience", "user_type").replace("https://r.example", "user"), false, "identity.audience"),
        ("agents that are named as people", issuer.replace("[[", "actor_type = 'user'\n[["), false, "identity.actor_type"),
        ("clients that are named as people", issuer.replace("[[", "machine_type = 'user'\n[["), false, "identity.machine_type"),
        ("an issuer that is no URL", issuer.replace("https://i.example", "i"), false, "identity.issuers"),
        ("an unknown algorithm", format!("{issuer}algorithms = ['HS256']"), false, "HS256"),
        ("a short name with a slash", format!("{issuer}name = 'a/b'"), false, "`a/b` is not a short name"),
        ("an empty claim of people", format!("{issuer}people = {{ claim = '', clients = ['desk'] }}"), false, "`clients_alone = true`"),
        ("people by their clients alone", format!("{issuer}people = {{ clients_alone = true, clients = ['desk'] }}"), false, ""),
        ("machines by any subject", format!("{issuer}people = {{ machines = ['*'] }}"), false, "`*` is not a pattern for subjects"),
        ("a provider", format!("{issuer}profile = 'auth0'"), false, ""),
        ("a provider that is not known", format!("{issuer}profile = 'google'"), false, "google"),
        ("a provider that names no actor", format!("{issuer}profile = 'okta'"), false, "needs `direct_clients`"),
        ("a provider that names no actor, without front ends", format!("{issuer}profile = 'okta'\ndirect_clients = []"), false, ""),
        ("tokens without audience from everybody", format!("{issuer}profile = 'keycloak'\ndirect_clients = []"), false, "`clients` must name"),
        ("tokens without audience", format!("{issuer}profile = 'keycloak'\nclients = ['desk']\ndirect_clients = ['desk']"), false, ""),
        ("a front end that is not let in", format!("{issuer}clients = ['desk']\ndirect_clients = ['wiki']"), false, "names `wiki` in `direct_clients`"),
        ("all tenants of Entra", format!("{issuer}profile = 'entra'\ndirect_clients = []").replace("https://i.example", "https://login.example/common/v2.0"), false, "names no tenant"),
        ("nothing keeps ID tokens out", format!("{issuer}tokens = {{ types = ['JWT'] }}"), false, "no mark that keeps ID tokens out"),
        ("a mark that ID tokens have", format!("{issuer}tokens = {{ access = [{{ claim = 'email' }}] }}"), false, "`email` in `tokens.access`"),
        ("a subject that can change", format!("{issuer}tokens = {{ subject = 'email' }}"), false, "email"),
        ("a row that does not exist", format!("{issuer}tokens = {{ audiences = ['x'] }}"), false, "audience"),
        ("a proxy", format!("{issuer}proxy_url = 'http://egress.example:8080'"), false, ""),
        ("a proxy with a password", format!("{issuer}proxy_url = 'http://a:secret@egress.example:8080'"), false, "`proxy_url` must have the form"),
        ("a proxy to this machine", format!("{issuer}proxy_url = 'http://egress.example:8080'").replace("https://i.example", "http://127.0.0.1:1"), false, "`proxy_url` is set, and"),
        ("pages may call, with tokens", format!("{issuer}[server]\ncors_origins = ['https://app.example', 'http://localhost:3000']"), false, ""),
        ("pages may call, and everybody is believed", "[server]\ncors_origins = ['https://app.example']".to_owned(), true, "`server.cors_origins` lets web pages call"),
        ("any page may call", format!("{issuer}[server]\ncors_origins = ['*']"), false, "`*` is no origin"),
        ("an origin with a path", format!("{issuer}[server]\ncors_origins = ['https://app.example/']"), false, "`https://app.example/` is no origin"),
        ("a name of the server", "[server]\nhosts = ['rag.example']".to_owned(), true, ""),
        ("a name of the server with its port", "[server]\nhosts = ['rag.example:8980']".to_owned(), true, "`rag.example:8980` is no host name"),
        ("a relation of two words", "[retrieval]\nrelation = 'can read'".to_owned(), true, "retrieval.relation"),
        ("no relation", "[retrieval]\nrelation = ''".to_owned(), true, "retrieval.relation"),
        ("a page token key that is not there", format!("[retrieval]\npage_token_key_file = '{gone}'"), true, &gone),
        ("a short page token key", format!("[retrieval]\npage_token_key_file = '{short}'"), true, "page_token_key_file"),
        ("a page token key", format!("[retrieval]\npage_token_key_file = '{secret}'"), true, ""),
        ("a public URL", format!("{issuer}[server]\npublic_url = 'https://rag.example'"), false, ""),
        ("a public URL with a slash at the end", format!("{issuer}[server]\npublic_url = 'https://rag.example/'"), false, "`https://rag.example/` is no URL of a server"),
        ("a public URL without TLS", format!("{issuer}[server]\npublic_url = 'http://rag.example'"), false, "`http://rag.example` is no URL of a server"),
        ("a key of nonces", format!("{issuer}[identity.dpop]\nnonce_key_file = '{secret}'"), false, ""),
        ("a short key of nonces", format!("{issuer}[identity.dpop]\nnonce_key_file = '{short}'"), false, "identity.dpop.nonce_key_file"),
        ("a key of nonces that is not there", format!("{issuer}[identity.dpop]\nnonce_key_file = '{gone}'"), false, &gone),
        ("a key of nonces that nobody looks at", format!("{issuer}[identity.dpop]\nnonces = 'unused'\nnonce_key_file = '{secret}'"), false, "has no effect"),
        ("a client with a secret", format!("{oauth}client_secret_file = '{secret}'"), true, ""),
        ("a client with a secret that is not there", format!("{oauth}client_secret_file = '{gone}'"), true, &gone),
        ("a client without a credential", oauth.to_owned(), true, "authorizer.openfga.client_credentials.client_secret_file"),
        ("a client with a key that is none", format!("{oauth}private_key_file = '{secret}'"), true, "no private key in PEM form"),
        ("a token endpoint without TLS", format!("{oauth}client_secret_file = '{secret}'").replace("https", "http"), true, "client_credentials.token_url"),
        ("approvals by a client with a secret", format!("{issuer}{approval}client_secret_file = '{secret}'"), false, ""),
        ("approvals by a client with a key that is none", format!("{issuer}{approval}private_key_file = '{secret}'"), false, "`approval.private_key_file`"),
        ("approvals by a client without a credential", format!("{issuer}{approval}"), false, "`approval.client_secret_file` or `private_key_file` has to be set"),
        ("a client and a pre-shared key", format!("{oauth}client_secret_file = '{secret}'\n[authorizer.openfga]\napi_token_file = '{secret}'"), true, "are both set"),
        ("OpenFGA without its kind", "[authorizer.openfga]\nstore_name = 'x'".to_owned(), true, "add `kind = \"openfga\"` to `[authorizer]`"),
        ("Qdrant without its kind", "[vector_store.qdrant]\nexact = true".to_owned(), true, "add `kind = \"qdrant\"` to `[vector_store]`"),
        ("an address of OpenFGA", "[authorizer]\nkind = 'openfga'\nopenfga.address = 'nowhere at all'".to_owned(), true, "`authorizer.openfga.address` is `nowhere at all`"),
        ("an address of OpenFGA without a scheme", "[authorizer]\nkind = 'openfga'\nopenfga.address = '127.0.0.1:8081'".to_owned(), true, "`authorizer.openfga.address` is `127.0.0.1:8081`; it must have the form `http://host:port`"),
        ("an address of Qdrant without a scheme", "[vector_store]\nkind = 'qdrant'\nqdrant.url = '127.0.0.1:6334'".to_owned(), true, "`vector_store.qdrant.url` is `127.0.0.1:6334`; it must have the form `http://host:port`"),
        ("a token of OpenFGA that is not there", format!("[authorizer]\nkind = 'openfga'\nopenfga.api_token_file = '{gone}'"), true, &gone),
        ("a key of Qdrant that is not there", format!("[vector_store]\nkind = 'qdrant'\nqdrant.api_key_file = '{gone}'"), true, &gone),
        ("certificates of OpenFGA that are not there", format!("[authorizer]\nkind = 'openfga'\nopenfga.address = 'https://localhost:1'\nopenfga.ca_file = '{gone}'"), true, &gone),
        ("certificates of Qdrant that are none", format!("[vector_store]\nkind = 'qdrant'\nqdrant.url = 'https://localhost:1'\nqdrant.ca_file = '{short}'"), true, "holds no certificate in PEM form"),
        ("certificates of an issuer that are not there", format!("{issuer}ca_file = '{gone}'"), false, &gone),
        ("certificates of a collector that are not there", format!("[telemetry]\notlp_endpoint = 'https://localhost:1'\notlp_ca_file = '{gone}'"), true, &gone),
        ("certificates without a collector", format!("[telemetry]\notlp_ca_file = '{short}'"), true, "names no collector"),
        ("a layout", "[vector_store]\nkind = 'qdrant'\n[vector_store.qdrant.collections.docs]\nwritten_by = 'other'\nguard = 'a..b'".to_owned(), true, "collections.docs"),
        ("an address of metrics", "[telemetry]\nmetrics_listen = 'here'".to_owned(), true, "metrics_listen"),
        ("an address of spans", "[telemetry]\notlp_endpoint = 'not an address'".to_owned(), true, "not an address"),
        ("a file as the data directory", format!("[data]\ndirectory = '{short}'"), true, "data.directory"),
        ("a data directory below a file", format!("[data]\ndirectory = '{short}/data'"), true, "data.directory"),
        ("a file as the audit directory", format!("[audit]\ndirectory = '{short}'"), true, "audit.directory"),
        ("an audit key that is none", format!("[audit]\nkey_file = '{}'", path("data/audit.key")), true, "audit.key"),
        ("an audit key below a file", format!("[audit]\nkey_file = '{short}/key'"), true, "audit.key_file"),
    ];
    assert_validated(directory.path(), &rows);
}

/// The client of approvals is one whose tokens count as a person's own, and the issuer can reach whom it is to notify.
#[test]
fn approvals_need_settings_by_which_they_can_be_given() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "s".repeat(32)).unwrap();
    let issuer = "[identity]\naudience = 'https://r.example'\n[[identity.issuers]]\nissuer = 'https://i.example'\n";
    let approval = format!(
        "[approval]\nissuer = 'https://i.example'\nclient_id = 'ragward'\nclient_secret_file = '{}'\n",
        secret.display()
    );
    let rows: Vec<ConfigurationRow<'_>> = vec![
        (
            "approvals by a client that is let in",
            format!("{issuer}clients = ['desk', 'ragward']\n{approval}"),
            false,
            "",
        ),
        (
            "approvals by a client that is not let in",
            format!("{issuer}clients = ['desk']\n{approval}"),
            false,
            "add `ragward` to `clients` of the issuer",
        ),
        (
            "approvals by a client that is an actor",
            format!("{issuer}direct_clients = ['desk']\n{approval}"),
            false,
            "add `ragward` to `direct_clients` of the issuer",
        ),
        (
            "approvals by a client that no person uses",
            format!("{issuer}people = {{ clients = ['desk'] }}\n{approval}"),
            false,
            "add `ragward` to `people.clients` of the issuer",
        ),
        (
            "approvals on a page without TLS",
            format!("{issuer}{approval}page_url = 'http://i.example/'"),
            false,
            "`approval.page_url` is `http://i.example/`",
        ),
        (
            "answers that the issuer notifies of",
            format!("{issuer}{approval}delivery = 'ping'\n[server]\npublic_url = 'https://r.example'\n"),
            false,
            "",
        ),
        (
            "answers that the issuer notifies nobody of",
            format!("{issuer}{approval}delivery = 'ping'\n"),
            false,
            "`approval.delivery = \"ping\"` needs `server.public_url`",
        ),
        ("answers that the issuer brings", format!("{issuer}{approval}delivery = 'push'\n"), false, "push"),
        (
            "a query that nobody sees",
            format!("{issuer}{approval}show_query = true\ndetails = 'unsupported'\n"),
            false,
            "`approval.show_query` needs",
        ),
    ];
    assert_validated(directory.path(), &rows);
}

/// The limit is OpenFGA's: 256 KiB of the model as a message, whatever the length of its text.
#[test]
fn the_size_of_a_model_is_that_of_its_message() {
    let directory = tempfile::tempdir().unwrap();
    let model = |relations: usize, comment: usize| {
        let relation = |number: usize| format!("    define relation_with_a_long_name_{number:05}: [user]\n");
        let relations: String = (0..relations).map(relation).collect();
        format!("model\n  schema 1.1\ntype user\ntype doc\n  relations\n{relations}# {}\n", "x".repeat(comment))
    };
    // On the wire, a relation takes 84 bytes: its name, a definition, its name again, and the type that it takes.
    for (name, text, valid) in [
        ("short on the wire, long as a text", model(1, 300_000), true),
        ("just short enough", model(3_000, 0), true),
        ("too long on the wire, short as a text", model(3_200, 0), false),
    ] {
        let file = directory.path().join("m.fga");
        std::fs::write(&file, &text).unwrap();
        let store = directory.path().join("s.fga.yaml");
        std::fs::write(&store, "model_file: m.fga\n").unwrap();
        for (command, file) in [(["model", "validate"].as_slice(), &file), (&["test"], &store)] {
            let output = ragward(&[command, &[file.to_str().unwrap()]].concat());
            let told = [output.stdout, output.stderr].concat();
            let told = String::from_utf8_lossy(&told);
            assert_eq!(output.status.success(), valid, "{name}, {} bytes: {told}", text.len());
            assert!(valid || told.contains("262144"), "{name}: {told}");
        }
    }
    assert!(model(3_200, 0).len() < 262_144);
}

#[test]
fn the_handbook_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", data]);
    succeeds(&["ingest", "schema/handbook", "--collection", "handbook", "--data", data]);
    let explain = |arguments: &[&str]| ragward(&[&["explain", "--data", data], arguments].concat());

    let shown = explain(&["--user", "user:bob", "--object", "document:pay-bands"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let picture = String::from_utf8(shown.stdout).unwrap();
    let (tree, basis) = picture.split_once("\nmodel ").unwrap();
    let (model, as_of) = basis.split_once("\nas of ").unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(as_of.trim()).is_ok(), "{picture}");
    let expected = "allowed: user:bob can_read document:pay-bands

✓ can_read of document:pay-bands = author or (reader but not withheld_from)
├─ ✓ (reader but not withheld_from)
│  ├─ ✓ reader = [user, user:*, group#member] or reader from parent
│  │  ├─ ✓ folder:hr parent document:pay-bands → reader of folder:hr = [user, group#member] or owner or reader from parent
│  │  │  ├─ ✓ group:hr#member reader folder:hr → member of group:hr
│  │  │  │  └─ ✓ user:bob member group:hr
│  │  │  └─ · without say: ✗ owner, ✗ reader from parent
│  │  └─ · without say: ✗ [user, user:*, group#member]
│  └─ ✓ but not withheld_from: it does not hold
└─ · without say: ✗ author
";
    assert_eq!((tree, model.trim().len()), (expected, 26), "{picture}");

    let withheld =
        explain(&["--user", "user:anne", "--chunk", "document:parental-leave-old#0", "--collection", "handbook"]);
    assert_eq!(withheld.status.code(), Some(1), "{withheld:?}");
    let picture = String::from_utf8(withheld.stdout).unwrap();
    assert!(picture.starts_with("denied: user:anne can_read document:parental-leave-old\n"), "{picture}");
    assert!(picture.contains("✗ but not withheld_from: it holds, and takes the user out"), "{picture}");
    assert!(picture.contains("✓ user:anne member group:platform"), "{picture}");
    assert!(picture.contains("✗ no tuple: user:anne author document:parental-leave-old"), "{picture}");

    let json = json(&["explain", "--data", data, "--user", "user:bob", "--object", "document:pay-bands"]);
    assert_eq!((&json["allowed"], &json["root"]["outcome"]), (&Value::Bool(true), &Value::from("HOLDS")));
    assert_eq!(json["root"]["relation"]["definition"], "author or (reader but not withheld_from)");
    assert!(json["as_of"].as_str().is_some_and(|as_of| as_of.ends_with('Z')), "{json}");

    let tuple = ["--contextual-tuple", "user:zoe author document:pay-bands"];
    let question = ["--user", "user:zoe", "--object", "document:pay-bands"];
    assert_eq!(explain(&question).status.code(), Some(1));
    assert_eq!(explain(&[&question[..], &tuple[..]].concat()).status.code(), Some(0));
    let check = ["check", "user:zoe", "can_read", "document:pay-bands", "--data", data];
    assert_eq!(ragward(&check).status.code(), Some(1));
    assert_eq!(ragward(&[&check[..], &tuple[..]].concat()).status.code(), Some(0));

    let wrong: [(&[&str], &str); 9] = [
        (&["--user", "user:anne"], "--object"),
        (&["--object", "document:pay-bands"], "with `--user`; only a server can take the user from a token"),
        (&["--user", "user:anne", "--chunk", "x"], "--collection"),
        (&["--user", "user:anne", "--chunk", "gone#0", "--collection", "handbook"], "no chunk `gone#0`"),
        (&["--user", "user:anne", "--chunk", "gone#0", "--collection", "none"], "no collection `none`"),
        (&["--user", "anne", "--object", "document:a"], "user: "),
        (&["--user", "user:anne", "--object", "page:a"], "object: type `page`"),
        (&["--user", "user:anne", "--object", "document:a", "--relation", "sees"], "relation: type `document`"),
        (&["--user", "user:anne", "--object", "document:a", "--context", "[]"], "a JSON object"),
    ];
    for (arguments, expected) in wrong {
        let output = explain(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}

#[test]
fn conditions_are_explained_with_their_values() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    let store = "model: |
  model
    schema 1.1
  type user
  type doc
    relations
      define viewer: [user with in_hours]
  condition in_hours(hour: int, opens: int) {
    hour >= opens
  }
tuples:
- user: user:anne
  relation: viewer
  object: doc:1
  condition: {name: in_hours, context: {opens: 9}}
";
    std::fs::write(directory.path().join("store.fga.yaml"), store).unwrap();
    std::fs::write(directory.path().join("context.json"), "{\"hour\": 10}").unwrap();
    succeeds(&["model", "load", &path("store.fga.yaml"), "--data", &data]);
    let question = ["explain", "--user", "user:anne", "--object", "doc:1", "--relation", "viewer", "--data", &data];
    let file = format!("@{}", path("context.json"));
    let rows: [(&[&str], i32, &str); 3] = [
        (
            &["--context", &file],
            0,
            "✓ user:anne viewer doc:1 with in_hours, met: hour >= opens; hour = 10 (request), opens = 9 (tuple)",
        ),
        (&["--context", "{\"hour\": 8}"], 1, "✗ user:anne viewer doc:1 with in_hours, not met: "),
        (
            &[],
            1,
            "! user:anne viewer doc:1 with in_hours, cannot be evaluated: hour >= opens; hour is missing, opens = 9 (tuple)",
        ),
    ];
    for (context, code, expected) in rows {
        let output = ragward(&[&question[..], context].concat());
        let picture = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{context:?}: {output:?}");
        assert!(picture.contains(expected), "{context:?}: {picture}");
        let check = ragward(&[&["check", "user:anne", "viewer", "doc:1", "--data", &data][..], context].concat());
        assert_eq!(check.status.code(), Some(code), "{context:?}: {check:?}");
    }
}

#[test]
fn a_filter_is_given_on_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", &data]);
    let chunk = |number: u32| {
        format!(
            "{{\"id\":\"c{number}\",\"document_id\":\"d{number}\",\"guard\":\"document:welcome\",\"text\":\"leave\",\
             \"metadata\":{{\"year\":{number},\"team\":\"hr\"}}}}\n"
        )
    };
    std::fs::write(directory.path().join("chunks.jsonl"), [chunk(2025), chunk(2026)].concat()).unwrap();
    succeeds(&["ingest", &path("chunks.jsonl"), "--collection", "c", "--data", &data]);
    let retrieve = ["retrieve", "--user", "user:fay", "--collection", "c", "--data", &data, "leave"];
    let rows: [(&[&str], &[&str]); 4] = [
        (&["--where", "year=2026"], &["c2026"]),
        (&["--where", "team=hr", "--where", "year=2025"], &["c2025"]),
        (&["--filter", "{\"range\": {\"key\": \"year\", \"high\": 2025}}"], &["c2025"]),
        (&["--where", "year=\"2026\""], &[]),
    ];
    for (filter, expected) in rows {
        let found = json(&[&retrieve[..], filter].concat());
        assert_eq!(each(&found["chunks"], "id"), expected, "{filter:?}");
    }
    let found = json(&[&retrieve[..], &["--where", "year=2026"]].concat());
    assert_eq!(found["chunks"][0]["metadata"], serde_json::json!({ "year": 2026, "team": "hr" }));
}
