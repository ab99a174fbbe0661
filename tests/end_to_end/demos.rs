//! The demos, as a newcomer runs them.

use serde_json::Value;

use crate::end_to_end::commands::{each, json, ragward, succeeds};

#[test]
fn the_demo_shows_two_answers_and_a_revocation() {
    let demo = json(&["demo"]);
    let (anne, bob, after) =
        (each(&demo["anne"], "guard"), each(&demo["bob"], "guard"), each(&demo["bob_after"], "guard"));
    assert!(anne.contains(&"document:on-call") && !bob.contains(&"document:on-call"));
    let of_hr = ["document:leave-casework", "document:parental-leave-old"];
    for page in of_hr {
        assert!(bob.contains(&page) && !anne.contains(&page) && !after.contains(&page), "{page}");
    }
    let hidden = ["document:parental-leave-draft", "document:board-minutes", "document:cover-budget"];
    assert!([anne, bob, after].concat().iter().all(|page| !hidden.contains(page)), "{demo}");
    let why = demo["why"].as_array().unwrap();
    assert!(why.iter().any(|row| row["page"] == "document:parental-leave-old" && row["anne"][1] == "withheld_from"));
    assert!(succeeds(&["demo"]).contains("ragward serve --data ragward-data --insecure-identity"));
}

#[test]
fn the_demo_shows_what_agents_get() {
    let demo = json(&["demo", "--agent"]);
    let [anne, helper, narrowed, stranger] = demo["answers"].as_array().unwrap().as_slice() else { panic!("{demo}") };
    let pages = |answer: &Value| each(&answer["chunks"], "guard").into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(pages(anne), each(&json(&["demo"])["anne"], "guard"), "with a token as when she is believed");
    assert_eq!(pages(helper), pages(anne));
    assert!(!pages(narrowed).is_empty());
    assert!(pages(narrowed).iter().all(|page| page == "document:parental-leave"), "{narrowed}");
    assert_eq!((pages(stranger).len(), &stranger["completion"]), (0, &Value::from("EXHAUSTED")));
    // Each answer has its record: for whom, through whom, and what was released.
    let records = demo["records"].as_array().unwrap();
    assert_eq!(records.len(), 4);
    for (record, answer) in records.iter().zip([anne, helper, narrowed, stranger]) {
        let subject = &record["principal"]["subject"];
        assert_eq!((&record["code"], subject), (&Value::from("OK"), &Value::from("user:anne")), "{record}");
        let actor = answer["claims"]["act"]["sub"].as_str().map(|actor| format!("agent:{actor}"));
        assert_eq!(record["principal"]["actors"][0].as_str(), actor.as_deref(), "{record}");
        let released = record["released"]["chunk_ids"].as_array().map_or(0, Vec::len);
        assert_eq!(released, pages(answer).len(), "{record}");
        assert!(!record.to_string().contains("parental leave do I get"), "no query: {record}");
    }
    // The tokens say who asks through whom.
    let actors = [anne, helper, narrowed, stranger].map(|answer| answer["claims"]["act"]["sub"].as_str());
    assert_eq!(actors, [None, Some("desk-helper"), Some("desk-helper"), Some("inbox-sorter")]);
    assert!([anne, helper, narrowed, stranger].iter().all(|answer| answer["claims"]["sub"] == "anne"), "{demo}");
    let shown = ragward(&["demo", "--agent"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("The four requests are the same and name nobody"));
    assert!(shown.stderr.is_empty(), "it ends in order: {}", String::from_utf8_lossy(&shown.stderr));
}

#[test]
fn the_demo_shows_what_a_person_approves() {
    let demo = json(&["demo", "--approval", "--answers", "yes,no"]);
    let [yes, no] = demo["rounds"].as_array().unwrap().as_slice() else { panic!("{demo}") };
    assert_eq!((&yes["required"], &yes["refused"]), (&Value::from("APPROVAL_REQUIRED"), &Value::from("")), "{demo}");
    assert_eq!(yes["chunks"][0]["title"], "The second mill", "{demo}");
    assert_eq!(
        (&no["refused"], no["chunks"].as_array().unwrap().len()),
        (&Value::from("APPROVAL_DENIED"), 0),
        "{demo}"
    );
    assert!(!yes["device"].to_string().contains("silence"), "the device shows no text: {demo}");
    let states: Vec<&str> =
        demo["records"].as_array().unwrap().iter().filter_map(|r| r["approval"]["state"].as_str()).collect();
    assert_eq!(states, ["required", "requested", "given", "required", "requested", "denied"], "{demo}");
    let shown = ragward(&["demo", "--approval", "--answers", "no"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(
        text.contains("APPROVAL_DENIED") && text.contains("(not asked)"),
        "nobody is asked just after a no: {text}"
    );
    assert!(shown.stderr.is_empty(), "nothing is wrong: {}", String::from_utf8_lossy(&shown.stderr));
}

#[test]
fn the_demo_shows_mcp_as_the_protocol_has_it() {
    let demo = json(&["demo", "--mcp"]);
    let (url, metadata_url) = (demo["url"].as_str().unwrap(), demo["metadata_url"].as_str().unwrap());
    let refused = &demo["refused"];
    let challenge = format!("Bearer scope=\"ragward:retrieve\", resource_metadata=\"{metadata_url}\"");
    assert_eq!((&refused["status"], &refused["www_authenticate"]), (&Value::from(401), &Value::from(challenge)));
    let metadata = &demo["metadata"];
    assert_eq!(
        (&metadata["resource"], &metadata["scopes_supported"][0]),
        (&demo["url"], &Value::from("ragward:retrieve"))
    );
    assert!(metadata["authorization_servers"][0].as_str().unwrap().starts_with("http://127.0.0.1:"), "{metadata}");

    let [anne, bob] = demo["answers"].as_array().unwrap().as_slice() else { panic!("{demo}") };
    for (answer, subject) in [(anne, "anne"), (bob, "bob")] {
        let claims = &answer["claims"];
        let said = (&claims["sub"], &claims["act"]["sub"], &claims["aud"]);
        assert_eq!(said, (&Value::from(subject), &Value::from("desk-helper"), &Value::from(url)), "{claims}");
    }
    let plain = json(&["demo"]);
    for (answer, found) in [(anne, &plain["anne"]), (bob, &plain["bob"])] {
        let titles = each(&answer["result"]["results"], "title");
        assert_eq!(titles, each(found, "title"), "through the agent as without it: {answer}");
    }
    assert_ne!(each(&anne["result"]["results"], "id"), each(&bob["result"]["results"], "id"));
    assert!(!demo["message"].to_string().contains("anne"), "the message names nobody: {}", demo["message"]);

    let shown = ragward(&["demo", "--mcp"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("www-authenticate: Bearer ") && text.contains("Both calls send the same message"), "{text}");
    assert!(!text.contains("eyJ"), "no token is shown: {text}");
    assert!(shown.stderr.is_empty(), "it ends in order: {}", String::from_utf8_lossy(&shown.stderr));
    assert_eq!(ragward(&["demo", "--mcp", "--agent"]).status.code(), Some(2), "one demo at a time");
}
