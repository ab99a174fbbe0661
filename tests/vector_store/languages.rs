//! What people type finds what they mean, in many languages and in code; and a hidden chunk in another language changes
//! nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use ragward::analysis::Language;
use ragward::chunk::{Document, LANGUAGE_KEY, Value};
use ragward::language::Object;
use ragward::vector_store::exact::{ExactStore, FILE_NAME};
use ragward::vector_store::validation::QUERY_BYTES_MAX;
use ragward::vector_store::{CollectionLanguages, DocumentStore, Query, Search, SearchSpace, VectorStore};

use crate::support::language_rows::{ChunkRow, LanguageRows, held_out_rows, language_rows};

const COLLECTION: &str = "texts";
const VISIBLE: &str = "doc:visible";
const HIDDEN: &str = "doc:hidden";
/// How many chunks an answer has at most.
const LIMIT: usize = 10;
/// The least share of the wanted chunks that is among the first ten.
const RECALL_MIN: f64 = 0.95;
/// The same for each language.
const RECALL_OF_LANGUAGE_MIN: f64 = 0.9;
/// The least share for queries that no rule was made for. They are in the languages whose words change most, and the rules that are
/// missing for them are named in `docs/src/languages.md`.
const RECALL_HELD_OUT_MIN: f64 = 0.85;

/// The languages that are set for some collections.
type Setting<'a> = &'a [(&'a str, &'a [Language])];

/// A chunk of an answer, with the bits of its score.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    id: String,
    score: u32,
}

fn document(row: &ChunkRow, guard: &str) -> Document {
    Document::of_text(&row.id(), Object::parse(guard).expect("an object"), &row.text)
}

fn opened(directory: &Path, languages: Setting<'_>) -> ExactStore {
    let languages = languages.iter().map(|(name, languages)| ((*name).to_owned(), languages.to_vec()));
    ExactStore::open_configured(directory, CollectionLanguages(languages.collect())).expect("opened")
}

/// Returns the best chunks for a query. Without a guard, everything is searched.
async fn found_in(store: &ExactStore, collection: &str, text: &str, guard: Option<&str>) -> Vec<Found> {
    let space = match guard {
        None => SearchSpace::Everything,
        Some(guard) => {
            let table = store.guards(collection).await.expect("a collection").expect("guards");
            let positions = (0..).zip(table.guards.iter()).filter(|(_, known)| known.as_str() == guard);
            SearchSpace::Guards { positions: positions.map(|(position, _)| position).collect(), table }
        }
    };
    let search = Search {
        collection: collection.to_owned(),
        query: Query::Text(text.to_owned()),
        filter: None,
        space,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit: LIMIT,
        enough: LIMIT,
    };
    let searched = store.search(&search).await.unwrap_or_else(|error| panic!("`{text}`: {error}"));
    let found = searched.candidates.into_iter();
    found.map(|found| Found { id: found.chunk_id, score: found.score.to_bits() }).collect()
}

async fn ids_in(store: &ExactStore, collection: &str, text: &str) -> Vec<String> {
    found_in(store, collection, text, None).await.into_iter().map(|found| found.id).collect()
}

/// How much of what was wanted was found.
#[derive(Default)]
struct Recall {
    wanted: u32,
    found: u32,
}

impl Recall {
    fn share(&self) -> f64 {
        f64::from(self.found) / f64::from(self.wanted)
    }
}

#[tokio::test]
async fn obvious_queries_find_what_people_mean() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path(), &[]);
    let LanguageRows { chunks, queries } = language_rows();
    let documents = chunks.iter().map(|row| document(row, VISIBLE)).collect();
    store.upsert(COLLECTION, documents).await.expect("taken in");
    let (mut all, mut of_language) = (Recall::default(), BTreeMap::<&str, Recall>::new());
    let mut missed = Vec::new();
    for query in &queries {
        let ids = ids_in(&store, COLLECTION, &query.text).await;
        for wanted in &query.ids {
            assert!(chunks.iter().any(|row| row.id() == *wanted), "`{}`: there is no chunk {wanted}", query.text);
            let is_found = ids.contains(wanted);
            for recall in [&mut all, of_language.entry(&query.language).or_default()] {
                recall.wanted += 1;
                recall.found += u32::from(is_found);
            }
            if !is_found {
                missed.push(format!("{wanted}: `{}`", query.text));
            }
        }
    }
    let missed = missed.join("\n");
    assert!(all.wanted >= 300 && of_language.len() >= 21, "{} queries, {} languages", all.wanted, of_language.len());
    assert!(all.share() >= RECALL_MIN, "{} of {}:\n{missed}", all.found, all.wanted);
    for (language, recall) in &of_language {
        assert!(
            recall.share() >= RECALL_OF_LANGUAGE_MIN,
            "{language}: {} of {}:\n{missed}",
            recall.found,
            recall.wanted
        );
    }
}

#[tokio::test]
async fn queries_that_no_rule_was_made_for_find_most_of_what_people_mean() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path(), &[]);
    let LanguageRows { chunks, .. } = language_rows();
    let documents = chunks.iter().map(|row| document(row, VISIBLE)).collect();
    store.upsert(COLLECTION, documents).await.expect("taken in");
    let (mut recall, mut missed) = (Recall::default(), Vec::new());
    for query in &held_out_rows().queries {
        let ids = ids_in(&store, COLLECTION, &query.text).await;
        for wanted in &query.ids {
            assert!(chunks.iter().any(|row| row.id() == *wanted), "`{}`: there is no chunk {wanted}", query.text);
            let is_found = ids.contains(wanted);
            recall.wanted += 1;
            recall.found += u32::from(is_found);
            if !is_found {
                missed.push(format!("{wanted}: `{}`", query.text));
            }
        }
    }
    let missed = missed.join("\n");
    assert!(recall.wanted >= 100, "{} queries", recall.wanted);
    assert!(recall.share() >= RECALL_HELD_OUT_MIN, "{} of {}:\n{missed}", recall.found, recall.wanted);
}

/// The languages of hidden chunks change neither how a query is read nor a score.
#[tokio::test]
async fn hidden_chunks_in_other_languages_change_no_bit() {
    let rows = language_rows();
    for language in ["en", "de", "fi", "sr", "ar", "ja", "th", "code"] {
        let (own, others): (Vec<&ChunkRow>, Vec<&ChunkRow>) =
            rows.chunks.iter().partition(|row| row.language == language);
        let visible: Vec<Document> = own.iter().map(|row| document(row, VISIBLE)).collect();
        let hidden: Vec<Document> = others.iter().map(|row| document(row, HIDDEN)).collect();
        let directories = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let [alone, among] = [0, 1].map(|world: usize| opened(directories[world].path(), &[]));
        alone.upsert(COLLECTION, visible.clone()).await.expect("taken in");
        among.upsert(COLLECTION, hidden).await.expect("taken in");
        among.upsert(COLLECTION, visible).await.expect("taken in");
        for query in &rows.queries {
            let expected = found_in(&alone, COLLECTION, &query.text, Some(VISIBLE)).await;
            let found = found_in(&among, COLLECTION, &query.text, Some(VISIBLE)).await;
            assert_eq!(found, expected, "{language}: `{}`", query.text);
        }
    }
}

/// Chunks of a document may have different guards, so one has no say in how another one is read.
#[tokio::test]
async fn a_hidden_chunk_of_the_same_document_changes_no_bit() {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let stores = [0, 1].map(|world: usize| opened(directories[world].path(), &[]));
    for (world, store) in stores.iter().enumerate() {
        let mut document = Document::of_text("plan", Object::parse(VISIBLE).expect("an object"), "Elternzeiten 2026");
        if world == 1 {
            let german = "Für jedes Kind können die Eltern bis zu drei Jahre Elternzeit nehmen.";
            let hidden = Document::of_text("other", Object::parse(HIDDEN).expect("an object"), german);
            document.chunks.extend(hidden.chunks.into_iter().map(|mut chunk| {
                document.id.clone_into(&mut chunk.document_id);
                chunk
            }));
        }
        store.upsert(COLLECTION, vec![document]).await.expect("taken in");
    }
    for query in ["Elternzeit", "Elternzeiten", "2026", "Kind"] {
        let [expected, found] = [&stores[0], &stores[1]].map(|store| found_in(store, COLLECTION, query, Some(VISIBLE)));
        assert_eq!(found.await, expected.await, "{query}");
    }
}

#[tokio::test]
async fn odd_queries_find_nothing_and_break_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path(), &[]);
    let documents = language_rows().chunks.iter().map(|row| document(row, VISIBLE)).collect();
    store.upsert(COLLECTION, documents).await.expect("taken in");
    let rows = [
        ("nothing", String::new()),
        ("spaces", " \n\t\u{3000}".to_owned()),
        ("signs", "?!… -- ''' \"\" ::: //".to_owned()),
        ("emoji", "👩‍👩‍👧‍👦🏳️‍🌈❤️".to_owned()),
        ("invisible characters", "\u{200b}\u{200f}\u{feff}\u{ad}\u{202e}".to_owned()),
        ("marks without a letter", "\u{301}\u{301}\u{94d}".to_owned()),
        ("an endless word", "a".repeat(QUERY_BYTES_MAX)),
        ("an endless chain", "'-".repeat(QUERY_BYTES_MAX / 2)),
        ("characters of no script", "\u{e000}\u{10ffff}".to_owned()),
    ];
    for (name, query) in rows {
        assert_eq!(ids_in(&store, COLLECTION, &query).await, [""; 0], "{name}");
    }
    let mixed = "\u{202b}إجازة\u{202c} Elternzeit 育児休業 \u{1f389}";
    let ids = ids_in(&store, COLLECTION, mixed).await;
    for wanted in ["ar/leave", "de/leave", "ja/leave"] {
        assert!(ids.iter().any(|id| id == wanted), "{wanted}: {ids:?}");
    }
}

/// A text too short to show its language takes that of its collection, or the one that it states. After a change of the
/// setting, the texts are indexed anew.
#[tokio::test]
async fn a_short_text_takes_the_language_of_its_collection_or_its_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let guard = Object::parse(VISIBLE).expect("an object");
    let plain = Document::of_text("plain", guard.clone(), "Elternzeiten");
    let mut stating = Document::of_text("stating", guard, "Elternzeiten");
    stating.chunks[0].metadata.insert(LANGUAGE_KEY.to_owned(), Value::Text("de-AT".to_owned()));
    let store = opened(directory.path(), &[]);
    for collection in [COLLECTION, "other"] {
        store.upsert(collection, vec![plain.clone(), stating.clone()]).await.expect("taken in");
    }
    drop(store);
    let rows: [(&str, Setting<'_>, &[&str]); 4] = [
        ("no setting", &[], &["stating"]),
        ("a setting", &[(COLLECTION, &[Language::German])], &["plain", "stating"]),
        ("the same setting again", &[(COLLECTION, &[Language::German])], &["plain", "stating"]),
        ("no setting any more", &[], &["stating"]),
    ];
    for (name, languages, expected) in rows {
        let store = opened(directory.path(), languages);
        assert_eq!(ids_in(&store, COLLECTION, "Elternzeit").await, expected, "{name}");
        assert_eq!(ids_in(&store, "other", "Elternzeit").await, ["stating"], "{name}");
        assert_eq!(ids_in(&store, "other", "Elternzeiten").await, ["plain", "stating"], "{name}");
    }
}

/// The file is of a program that knew only English. It has four documents in each of two collections.
#[tokio::test]
async fn a_data_directory_of_before_is_indexed_anew() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chunks_of_0_1_0.redb.gz");
    let packed = std::fs::File::open(packed).expect("the file");
    let mut file = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut file).expect("a gzip file");
    std::fs::write(directory.path().join(FILE_NAME), file).expect("written");
    let rows = [
        ("conge parental", "a.md"),
        ("abonnement", "a.md"),
        ("access token", "b.md"),
        ("12500", "b.md"),
        ("天気", "c.md"),
        ("Elternzeit", "d.md"),
    ];
    for opening in ["the first time", "the second time"] {
        let store = opened(directory.path(), &[]);
        for collection in ["handbook", "other"] {
            assert_eq!(store.collection(collection).await.expect("a collection").documents, 4, "{opening}");
            for (query, document) in rows {
                let ids = ids_in(&store, collection, query).await;
                assert!(ids.first().is_some_and(|id| id.starts_with(document)), "{opening}: `{query}`: {ids:?}");
            }
        }
    }
}
