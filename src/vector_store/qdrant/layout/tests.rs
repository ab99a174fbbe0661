use std::collections::BTreeMap;
use std::time::Duration;

use super::super::payload::{PointForm, to_point};
use super::*;
use crate::vector_store::qdrant::WrittenBy;
use crate::vector_store::remote::own_writes::Stamp;

fn text(text: &str) -> Payload {
    Payload::from(text)
}

fn object(fields: &[(&str, Payload)]) -> Payload {
    let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Payload { kind: Some(Kind::StructValue(Struct { fields })) }
}

fn guard(name: &str) -> Object {
    Object::parse(name).expect("an object")
}

/// Reads the chunk of a point, if it is one.
fn read_chunk(layout: &Layout, id: Option<&PointId>, payload: &Fields) -> Option<Chunk> {
    layout.chunk_metadata(id, payload).map(|chunk| layout.with_text(chunk, payload))
}

#[test]
fn a_chunk_survives_the_way_there_and_back() {
    let metadata = Metadata::from([
        ("year".to_owned(), Value::Int(i64::MAX)),
        ("ratio".to_owned(), Value::Float(2.0)),
        ("draft".to_owned(), Value::Bool(false)),
        ("a.b c".to_owned(), Value::Text("2".to_owned())),
    ]);
    let chunk = Chunk {
        id: "handbook#3".to_owned(),
        document_id: "handbook".to_owned(),
        guard: guard("document:handbook"),
        title: "Handbook".to_owned(),
        heading_path: vec!["Welcome".to_owned(), "On the first day".to_owned()],
        text: "Welcome.".to_owned(),
        metadata,
        vector: vec![1.0, 0.5],
    };
    let stamp = Stamp { version: Version(7), written_at: 1_700_000_000_000 };
    let point = to_point(PointForm { stamp, vector_name: None }, "Handbook", 3, chunk.clone(), None);
    let read = read_chunk(&Layout::default(), point.id.as_ref(), &point.payload);
    assert_eq!(read, Some(Chunk { vector: Vec::new(), ..chunk }));
    let found = Layout::default().candidate(point.id.as_ref(), &point.payload, 1.0).expect("a candidate");
    let written = Written::AtWallTime(Duration::from_secs(1_700_000_000));
    assert_eq!((found.version, found.written), (Some(Version(7)), written));
}

#[test]
fn a_point_that_is_not_ours_is_no_candidate() {
    let layout = Layout::default();
    let id = point_of("c1");
    let good = Fields::from([(CHUNK_ID.to_owned(), text("c1")), (GUARD.to_owned(), text("document:1"))]);
    assert!(layout.candidate(Some(&id), &good, 1.0).is_some());

    let with = |field: &str, value: Option<Payload>| {
        let mut payload = good.clone();
        payload.remove(field);
        payload.extend(value.map(|value| (field.to_owned(), value)));
        payload
    };
    let malformed = ["", "document", "document:", "document:*", "user:a b", "group:eng#member"];
    let mut cases: Vec<Fields> = malformed.iter().map(|guard| with(GUARD, Some(text(guard)))).collect();
    cases.push(with(GUARD, None));
    cases.push(with(GUARD, Some(Payload { kind: None })));
    cases.push(with(GUARD, Some(Payload::from(7_i64))));
    cases.push(with(GUARD, Some(Payload::from(vec![text("document:1")]))));
    cases.push(with(CHUNK_ID, None));
    cases.push(with(CHUNK_ID, Some(text("c2"))));
    for payload in cases {
        assert_eq!(layout.candidate(Some(&id), &payload, 1.0), None, "{payload:?}");
    }
    let number = PointId::from(1_u64);
    for foreign in [None, Some(&number), Some(&PointId::default()), Some(&point_of("c2"))] {
        assert_eq!(layout.candidate(foreign, &good, 1.0), None, "{foreign:?}");
    }
}

fn langchain() -> Layout {
    Layout::foreign(&PayloadConfig::of(WrittenBy::Langchain)).expect("a layout")
}

fn llama_index() -> Layout {
    Layout::foreign(&PayloadConfig::of(WrittenBy::LlamaIndex)).expect("a layout")
}

#[test]
fn chunks_of_other_programs_are_read_as_they_are() {
    let uuid = "0b0e7a4c-8f01-4fea-8141-40de5dae2223";
    let of_langchain = Fields::from([
        ("page_content".to_owned(), text("Welcome.")),
        ("metadata".to_owned(), object(&[("source", text("docs/a.md")), ("page", Payload::from(3_i64))])),
        ("guard".to_owned(), text("document:docs/a.md")),
    ]);
    let of_llama_index = Fields::from([
        ("_node_content".to_owned(), text(r#"{"id_": "x", "text": "Welcome."}"#)),
        ("_node_type".to_owned(), text("TextNode")),
        ("ref_doc_id".to_owned(), text("docs/a.md")),
        ("page".to_owned(), Payload::from(3_i64)),
        ("guard".to_owned(), text("document:docs/a.md")),
    ]);
    let metadata = |id_key: &str| -> Metadata {
        [(id_key.to_owned(), Value::Text("docs/a.md".to_owned())), ("page".to_owned(), Value::Int(3))].into()
    };
    let rows =
        [(langchain(), of_langchain, metadata("source")), (llama_index(), of_llama_index, metadata("ref_doc_id"))];
    for (layout, payload, metadata) in rows {
        for id in [PointId::from(uuid), PointId::from(42_u64)] {
            let chunk = read_chunk(&layout, Some(&id), &payload).expect("a chunk");
            let expected = Chunk {
                id: id_text(Some(&id)).expect("an id"),
                document_id: "docs/a.md".to_owned(),
                guard: guard("document:docs/a.md"),
                title: String::new(),
                heading_path: Vec::new(),
                text: "Welcome.".to_owned(),
                metadata: metadata.clone(),
                vector: Vec::new(),
            };
            assert_eq!(chunk, expected);
            assert_eq!(layout.point_of(&chunk.id), Some(id));
        }
        let without: Fields = payload.into_iter().filter(|(key, _)| key != "guard").collect();
        assert_eq!(read_chunk(&layout, Some(&PointId::from(42_u64)), &without), None);
    }
}

/// When only metadata is read, Qdrant leaves out the text, but nothing that the metadata is read from.
#[test]
fn a_text_is_left_out_and_nothing_that_metadata_is_read_from() {
    let layout = |document_id: &str, text: &str, metadata: Option<&str>| {
        let (document_id, text) = (Some(document_id.to_owned()), Some(text.to_owned()));
        let config = PayloadConfig { document_id, text, ..PayloadConfig::of(WrittenBy::Other) };
        let metadata = metadata.map(|key| Path::parse(key).expect("a path"));
        Layout { metadata, ..Layout::foreign(&config).expect("a layout") }
    };
    let rows = [
        ("our own", Layout::default(), "text"),
        ("LangChain's", langchain(), "page_content"),
        ("a JSON text", llama_index(), "_node_content"),
        ("an object that holds the metadata too", layout("source", "chunk.text", Some("chunk.metadata")), "chunk.text"),
        ("an object that holds the document's id too", layout("node.source", "node.text", None), "node.text"),
        ("a name that needs quotes", layout("source", "page content", Some("metadata")), "\"page content\""),
    ];
    for (name, layout, expected) in rows {
        let SelectorOptions::Exclude(selector) = layout.all_but_text() else { panic!("{name}") };
        assert_eq!(selector.fields, [expected], "{name}");
    }
    let inside = layout("source", "metadata.text", Some("metadata"));
    assert_eq!(inside.all_but_text(), SelectorOptions::Enable(true), "a text inside the metadata is metadata, too");
}

#[test]
fn a_point_has_one_name() {
    let layout = langchain();
    let names = [
        "",
        "042",
        "+42",
        "18446744073709551616",
        "0B0E7A4C-8F01-4FEA-8141-40DE5DAE2223",
        "0b0e7a4c8f014fea814140de5dae2223",
        "{0b0e7a4c-8f01-4fea-8141-40de5dae2223}",
        "0b0e7a4c-8f01-4fea-8141-40de5dae222g",
    ];
    for name in names {
        assert_eq!(layout.point_of(name), None, "{name}");
    }
}

#[test]
fn a_filter_key_names_metadata_and_nothing_else() {
    for key in ["guard", "a.b", "a[0]", "", "guard OR", "metadata"] {
        assert_eq!(Layout::default().metadata_key(key), Some(format!("metadata.\"{key}\"")), "{key}");
    }
    for layout in [Layout::default(), langchain(), llama_index()] {
        assert_eq!(layout.metadata_key("\".guard.\""), None);
        assert_eq!(layout.metadata_key("a\\"), None);
    }
    let rows: BTreeMap<&str, Option<&str>> =
        [("page", Some("\"page\"")), ("a.b", Some("\"a.b\"")), ("guard", None), ("_node_content", None)].into();
    for (key, expected) in rows {
        assert_eq!(llama_index().metadata_key(key).as_deref(), expected, "{key}");
    }
}

#[test]
fn a_path_is_names_with_dots() {
    for bad in ["", ".", "a.", ".a", "a..b", "a[0]", "a.\"b\"", "a\\b", "a\nb"] {
        assert!(Path::parse(bad).is_err(), "{bad}");
    }
    let rows = [("a", "a"), ("a.b-c.d_e", "a.b-c.d_e"), ("meta data.s\u{f6}urce", "\"meta data\".s\u{f6}urce")];
    for (text, key) in rows {
        assert_eq!(Path::parse(text).expect("a path").key(), key, "{text}");
    }
}

/// A row: its name, the layout, a payload, the fields that are asked for, and the document that is found.
type LookupRow<'a> = (&'a str, Layout, Fields, &'a [&'a str], Option<&'a str>);

/// A chunk is looked up before anybody knows who may see it, so nothing is asked for that could bring its text along.
#[test]
fn the_document_of_a_chunk_is_looked_up_only_apart_from_the_text() {
    let layout = |document_id: &str, text: &str| {
        let (document_id, text) = (Some(document_id.to_owned()), Some(text.to_owned()));
        let config = PayloadConfig { document_id, text, ..PayloadConfig::of(WrittenBy::Other) };
        Layout::foreign(&config).expect("a layout")
    };
    let uuid = "0b0e7a4c-8f01-4fea-8141-40de5dae2223";
    let node = r#"{"source": "docs/a.md", "text": "Welcome."}"#;
    let payload = |own: &[(&str, Payload)]| -> Fields {
        let guard = ("guard".to_owned(), text("document:docs/a.md"));
        own.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).chain([guard]).collect()
    };
    let apart = payload(&[("source", text("docs/a.md"))]);
    let together = payload(&[("node", text(node))]);
    let rows: [LookupRow<'_>; 5] = [
        ("apart", layout("source", "text"), apart, &["guard", "source"], Some("docs/a.md")),
        ("a document of its own", layout("source", "text"), payload(&[]), &["guard", "source"], Some(uuid)),
        ("in one JSON text", layout("node.source", "node.text"), together, &["guard"], None),
        ("within the text", layout("text.source", "text"), payload(&[]), &["guard"], None),
        ("LlamaIndex's", llama_index(), payload(&[("ref_doc_id", text("7"))]), &["guard", "ref_doc_id"], Some("7")),
    ];
    for (name, layout, payload, keys, document_id) in rows {
        let mut asked = layout.found_keys();
        asked.sort_unstable();
        assert_eq!(asked, keys, "{name}");
        let found = layout.found(Some(&PointId::from(uuid)), &payload).expect("a chunk");
        assert_eq!(found.document_id.as_deref(), document_id, "{name}");
    }
    let own = Layout::default().found_keys();
    assert!(own.contains(&DOCUMENT_ID.to_owned()) && !own.contains(&TEXT.to_owned()), "our own: {own:?}");
}
