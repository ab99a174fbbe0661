//! Tests that deleted documents leave nothing behind, and that a disk that fails loses nothing.

use super::*;
use crate::chunk::Metadata;
use crate::error_code::ErrorCode;
use crate::vector_store::SearchSpace;

const COLLECTION: &str = "chunks";

fn document(id: &str, text: &str, vector: &[f32]) -> Document {
    let chunk = Chunk {
        id: format!("{id}#0"),
        document_id: id.to_owned(),
        guard: Object::parse("doc:a").unwrap(),
        title: String::new(),
        heading_path: Vec::new(),
        text: text.to_owned(),
        metadata: Metadata::new(),
        vector: vector.to_vec(),
    };
    Document { id: id.to_owned(), title: String::new(), chunks: vec![chunk] }
}

/// Makes words that only this version of a document has.
fn words(version: usize, count: usize) -> String {
    (0..count).map(|word| format!("w{version}x{word}")).collect::<Vec<String>>().join(" ")
}

fn terms_len(store: &ExactStore) -> u32 {
    store.engine.read().unwrap().index(COLLECTION).unwrap().postings.terms_len()
}

fn search() -> Search {
    Search {
        collection: COLLECTION.to_owned(),
        query: Query::Text(String::new()),
        filter: None,
        space: SearchSpace::Everything,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit: 100,
        enough: usize::MAX,
    }
}

async fn found(store: &ExactStore, text: &str) -> Vec<String> {
    let search = Search { query: Query::Text(text.to_owned()), ..search() };
    store.search(&search).await.unwrap().candidates.into_iter().map(|candidate| candidate.chunk_id).collect()
}

#[tokio::test]
async fn a_dictionary_is_bounded_by_the_words_that_there_are() {
    const WORDS: usize = 50;
    let directory = tempfile::tempdir().unwrap();
    let mut store = ExactStore::open(directory.path()).unwrap();
    // Many chunks stay, so no chunk is numbered anew.
    let stay = (0..400).map(|number| document(&format!("stays{number}"), "it stays", &[]));
    store.upsert(COLLECTION, stay.collect()).await.unwrap();
    let living = 2 * 400 + WORDS;
    for version in 0..100 {
        let text = words(version, WORDS);
        store.upsert(COLLECTION, vec![document("changes", &text, &[])]).await.unwrap();
        let terms = terms_len(&store) as usize;
        assert!(terms <= 2 * living + WORDS, "{terms} terms after {version} versions");
        if version % 30 == 29 {
            drop(store);
            store = ExactStore::open(directory.path()).unwrap();
        }
        assert_eq!(found(&store, &text).await, ["changes#0"], "{version}");
        assert_eq!(found(&store, "stays").await.len(), 100);
        if let Some(before) = version.checked_sub(1) {
            assert!(found(&store, &words(before, WORDS)).await.is_empty(), "{before}");
        }
    }
}

/// Words have other stems in another version of the stemmer, and the file keeps stems.
#[tokio::test]
async fn texts_of_an_older_stemmer_are_found_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    let documents = vec![document("old", "organizations grow", &[1.0, 0.0]), document("other", "organic food", &[])];
    store.upsert(COLLECTION, documents).await.unwrap();
    store.engine.writer().unwrap().durable.age("ENorganiz", "ENorgan").unwrap();
    drop(store);
    // The first time the file is analyzed again, the second time it is left as it is.
    for opened in ["after another version", "after this version"] {
        let store = ExactStore::open(directory.path()).unwrap();
        assert_eq!(found(&store, "organization").await, ["old#0"], "{opened}");
        assert_eq!(found(&store, "organ").await, [""; 0], "{opened}");
        assert_eq!(found(&store, "food").await, ["other#0"], "{opened}");
        let by_vector = Search { query: Query::Vector(vec![1.0, 0.0]), ..search() };
        assert_eq!(store.search(&by_vector).await.unwrap().candidates.len(), 1, "{opened}");
    }
}

/// A version of Ragward that knows no headings replaces a text and leaves the headings of the old one in the file.
#[tokio::test]
async fn headings_belong_to_the_text_that_they_were_written_with() {
    let directory = tempfile::tempdir().unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    let headings = ["Leave", "Parental"].map(str::to_owned).to_vec();
    let mut made = document("a", "ask early", &[]);
    made.chunks[0].heading_path.clone_from(&headings);
    store.upsert(COLLECTION, vec![made]).await.unwrap();
    let read = async |store: &ExactStore| {
        let asked = Search { query: Query::Text("early".to_owned()), ..search() };
        let candidates = store.search(&asked).await.unwrap().candidates;
        store.read(COLLECTION, None, &candidates).await.unwrap().remove(0)
    };
    drop(store);
    let store = ExactStore::open(directory.path()).unwrap();
    assert_eq!(read(&store).await.heading_path, headings, "after a restart");
    assert_eq!(found(&store, "parental").await, ["a#0"], "a word of a heading");
    store.engine.writer().unwrap().durable.replace_text("a", "ask very early").unwrap();
    drop(store);
    let store = ExactStore::open(directory.path()).unwrap();
    let chunk = read(&store).await;
    assert_eq!((chunk.text.as_str(), chunk.heading_path), ("ask very early", Vec::new()), "after another version");
    store.upsert(COLLECTION, vec![document("a", "ask early", &[])]).await.unwrap();
    assert_eq!(read(&store).await.heading_path, [""; 0], "replaced by a text without headings");
}

/// A term that disappears and comes back gets another id than the one in the file.
#[tokio::test]
async fn a_term_that_comes_back_is_found_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    let put = async |id: &str, text: &str| store.upsert(COLLECTION, vec![document(id, text, &[])]).await.unwrap();
    put("a", "red fox hen").await;
    // All documents go, so all ids are free. Then the words come back in another order.
    store.delete(COLLECTION, &["a".to_owned()].into()).await.unwrap();
    put("b", "hen").await;
    put("c", "fox").await;
    drop(store);
    let store = ExactStore::open(directory.path()).unwrap();
    for (text, expected) in [("hen", &["b#0"][..]), ("fox", &["c#0"]), ("red", &[])] {
        assert_eq!(found(&store, text).await, expected, "{text}");
    }
    assert_eq!(terms_len(&store), 3);
    store.upsert(COLLECTION, vec![document("d", "red hen oak", &[])]).await.unwrap();
    for (text, expected) in [("hen", &["b#0", "d#0"][..]), ("fox", &["c#0"]), ("red", &["d#0"]), ("oak", &["d#0"])] {
        assert_eq!(found(&store, text).await, expected, "{text}");
    }
    assert_eq!(terms_len(&store), 4);
}

#[tokio::test]
async fn a_dimension_goes_with_the_last_vector() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = ExactStore::open(directory.path()).unwrap();
    let dimension = async |store: &ExactStore| store.collection(COLLECTION).await.unwrap().dimension;
    let texts = document("text", "words", &[]);
    store.upsert(COLLECTION, vec![texts, document("short", "", &[1.0])]).await.unwrap();
    let long = document("long", "", &[0.6, 0.8, 0.0]);
    let refused = store.upsert(COLLECTION, vec![long.clone()]).await;
    assert!(matches!(refused, Err(VectorStoreError::Dimension { expected: 1, found: 3, .. })), "{refused:?}");
    // The last vector goes in three ways: replaced in the same call, by a document without one, and deleted.
    let goes: [(Vec<Document>, &[&str]); 3] = [
        (vec![document("short", "", &[0.0, 1.0, 0.0]), long.clone()], &[]),
        (vec![document("short", "words", &[])], &[]),
        (Vec::new(), &["short"]),
    ];
    for (documents, deleted) in goes {
        let ids: BTreeSet<String> = deleted.iter().map(|id| (*id).to_owned()).collect();
        store.upsert(COLLECTION, documents).await.unwrap();
        store.delete(COLLECTION, &ids).await.unwrap();
        for reopened in [false, true] {
            if reopened {
                drop(store);
                store = ExactStore::open(directory.path()).unwrap();
            }
            store.upsert(COLLECTION, vec![long.clone()]).await.unwrap();
            assert_eq!(dimension(&store).await, Some(3), "reopened: {reopened}");
            let near = Search { query: Query::Vector(vec![0.6, 0.8, 0.0]), ..search() };
            assert_eq!(store.search(&near).await.unwrap().candidates[0].chunk_id, "long#0", "reopened: {reopened}");
        }
        // The next row begins where this one did.
        let ids = ["short", "long"].map(str::to_owned).into();
        store.delete(COLLECTION, &ids).await.unwrap();
        assert_eq!(dimension(&store).await, None);
        store.upsert(COLLECTION, vec![document("short", "", &[1.0])]).await.unwrap();
        assert_eq!(dimension(&store).await, Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_into_another_file_that_stands_there_after_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let [path, older, newer] = ["chunks.redb", "older", "newer"].map(|name| directory.path().join(name));
    drop(ExactStore::open(directory.path()).unwrap());
    std::fs::copy(&path, &older).unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    store.upsert(COLLECTION, vec![document("first", "one", &[])]).await.unwrap();
    store.upsert(COLLECTION, vec![document("second", "two", &[])]).await.unwrap();
    let fill_disk = || store.engine.writer.lock().unwrap().durable.fill_disk();
    let free_disk = || store.engine.writer.lock().unwrap().durable.free_disk();
    fill_disk();
    store.upsert(COLLECTION, vec![document("third", "three", &[])]).await.unwrap_err();
    free_disk();
    std::fs::rename(&path, &newer).unwrap();
    std::fs::rename(&older, &path).unwrap();
    for attempt in 0..3 {
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        let refused = store.upsert(COLLECTION, vec![document("third", "three", &[])]).await;
        assert_eq!(refused.unwrap_err().code(), ErrorCode::DataLoss, "attempt {attempt}");
    }
    std::fs::rename(&newer, &path).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    store.upsert(COLLECTION, vec![document("third", "three", &[])]).await.unwrap();
    drop(store);
    let again = ExactStore::open(directory.path()).unwrap();
    let ids = ["first", "second", "third"].map(str::to_owned);
    assert_eq!(again.documents(COLLECTION, &ids).await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_that_has_room_again_is_written_and_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    let fill_disk = || store.engine.writer.lock().unwrap().durable.fill_disk();
    let free_disk = || store.engine.writer.lock().unwrap().durable.free_disk();
    let text_of = async |id: &str| {
        let found = store.find(COLLECTION, &[format!("{id}#0")]).await?;
        let found: Vec<Candidate> = found.into_iter().map(|found| found.candidate).collect();
        let read = store.read(COLLECTION, None, &found).await?;
        Ok::<_, VectorStoreError>(read.into_iter().map(|chunk| chunk.text).collect::<Vec<String>>())
    };
    store.upsert(COLLECTION, vec![document("old", "the first text", &[])]).await.unwrap();
    for round in 0..3 {
        let text = format!("text of round {round}");
        fill_disk();
        let refused = store.upsert(COLLECTION, vec![document("old", &text, &[])]).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Unavailable, "{refused}");
        let refused = store.delete(COLLECTION, &BTreeSet::from(["old".to_owned()])).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Unavailable, "{refused}");
        free_disk();
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        // A read alone opens the file again, and the writes that were refused changed nothing.
        let before = if round == 0 { "the first text".to_owned() } else { format!("text of round {}", round - 1) };
        assert_eq!(text_of("old").await.unwrap(), [before], "round {round}");
        store.upsert(COLLECTION, vec![document("old", &text, &[])]).await.unwrap();
        assert_eq!(text_of("old").await.unwrap(), [text.as_str()], "round {round}");
        assert_eq!(found(&store, &format!("{round}")).await, ["old#0"], "round {round}");
    }
    // The file has what was in memory.
    let held = store.documents(COLLECTION, &["old".to_owned()]).await.unwrap();
    drop(store);
    let again = ExactStore::open(directory.path()).unwrap();
    assert_eq!(again.documents(COLLECTION, &["old".to_owned()]).await.unwrap(), held);
    assert_eq!(found(&again, "2").await, ["old#0"]);
}
