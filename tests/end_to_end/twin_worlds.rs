//! Twin worlds: the same request is asked in world A and in world B, which differs from A only in things that the asker
//! may not see: text, vectors, number and names of documents, groups, tuples. The answers must be the same bytes,
//! errors included.
//!
//! Two servers run over the embedded engines, and two over Qdrant's API. Each pair of worlds has a corpus and tuples of its
//! own. This test decides what the asker may see by looking at every tuple, and compares that before and after a change.
//! So if the asker may see a change, the test fails because of that, and not because of a supposed leak.
//!
//! In every third world, a model makes the vectors of documents, and of queries by meaning.
//!
//! A search may span pages. In world B the change comes after the first page, so that its token is used in the changed
//! world. Page tokens and consistency tokens hold the time, so only their lengths are compared.
//!
//! In the last world B, every question is asked once more at each door that takes JSON, page by page. The answers are the same
//! bytes as those of world A over gRPC.
#![expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "counts of a test are small")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use futures::future::join_all;
use prost::Message;
use ragward::config::{Config, VectorStoreKind};
use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::ingest::{Chunk, DeleteDocumentsRequest, Document};
use ragward::proto::metadata::{Value, value};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{
    self as message, FetchRequest, FetchResponse, Filter, FilterList, Hybrid, OneOf, Purpose, RecheckRequest,
    RecheckResponse, RetrieveRequest, RetrieveResponse, Semantic, Vector, filter,
};
use serde_json::json;
use tonic::{Code, Status};

use crate::support::dice::Dice;
use crate::support::json_door::{Door, JsonDoor};
use crate::support::model_server::ModelServer;
use crate::support::qdrant_server::QdrantServer;
use crate::support::running::{Running, config};
use crate::support::untimed::Untimed;

const WORLDS: u64 = 100;
/// Every call to Qdrant crosses the loopback, so fewer worlds do.
const QDRANT_WORLDS: u64 = 12;
/// One world of so many has a model.
const WITH_MODEL_EVERY: u64 = 3;
const CHANGES: usize = 5;
const QUESTIONS: usize = 20;
const SEED: u64 = 0x0005_ca1e;

const MODEL: &str = "
model
  schema 1.1

type user

type group
  relations
    define member: [user, group#member]

type folder
  relations
    define viewer: [user, group#member]

type document
  relations
    define parent: [folder]
    define blocked: [user]
    define reader: [user, user:*, group#member]
    define can_read: (reader or viewer from parent) but not blocked
";

/// The users who ask. No tuple names the stranger, who sees only what everybody sees.
const ASKERS: [&str; 2] = ["anne", "stranger"];
const OTHERS: [&str; 3] = ["bob", "carl", "dora"];
const WORDS: [&str; 10] = ["red", "fox", "hen", "barn", "the", "moon", "salt", "oak", "river", "stone"];
const DIMENSION: usize = 4;

impl Dice {
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    fn text(&mut self) -> String {
        let words: Vec<&str> = (0..=self.below(9)).map(|_| self.pick(&WORDS)).collect();
        words.join(" ")
    }

    /// Returns one of few directions, so that scores tie.
    fn vector(&mut self) -> Vec<f32> {
        loop {
            let vector: Vec<f32> = (0..DIMENSION).map(|_| [-1.0, 0.0, 0.0, 0.5, 1.0][self.below(5)]).collect();
            if vector.iter().any(|x| *x != 0.0) {
                return vector;
            }
        }
    }
}

/// User, relation, object.
type Tuple = (String, String, String);

/// The content of one server for one pair.
#[derive(Clone, Debug, Default)]
struct World {
    tuples: BTreeSet<Tuple>,
    documents: BTreeMap<String, Document>,
}

impl World {
    /// Decides in the slow and obvious way; there are no cycles.
    fn holds(&self, user: &str, relation: &str, object: &str) -> bool {
        let relations = if relation == "can_read" { ["reader", "parent"].as_slice() } else { &[relation] };
        let direct = self.tuples.iter().filter(|(_, r, o)| o == object && relations.contains(&r.as_str()));
        let granted = direct.clone().any(|(subject, r, _)| {
            subject == user
                || subject == "user:*"
                || (r == "parent" && self.holds(user, "viewer", subject))
                || subject.split_once('#').is_some_and(|(group, relation)| self.holds(user, relation, group))
        });
        let blocked = (user.to_owned(), "blocked".to_owned(), object.to_owned());
        granted && !self.tuples.contains(&blocked)
    }

    /// Returns the documents with the chunks that a user may see, and nothing else of them.
    fn seen_by(&self, user: &str) -> Vec<Document> {
        let seen = |document: &Document| {
            let chunks = document.chunks.iter().filter(|chunk| self.holds(user, "can_read", &chunk.guard));
            Document { chunks: chunks.cloned().collect(), ..document.clone() }
        };
        self.documents.values().map(seen).filter(|document| !document.chunks.is_empty()).collect()
    }
}

/// The names of one pair, which no other pair uses.
struct Names(u64);

impl Names {
    fn collection(&self) -> String {
        format!("world-{}", self.0)
    }

    fn user(&self, name: &str) -> String {
        format!("user:{name}-{}", self.0)
    }

    fn object(&self, kind: &str, number: usize) -> String {
        format!("{kind}:{}-{number}", self.0)
    }

    /// Returns whether a model makes the vectors of the collection.
    fn has_model(&self) -> bool {
        self.0.is_multiple_of(WITH_MODEL_EVERY)
    }

    /// Returns a document as its writer sends it: without vectors, if a model makes them.
    fn sent(&self, document: &Document) -> Document {
        let mut sent = document.clone();
        if self.has_model() {
            for chunk in &mut sent.chunks {
                chunk.vector.clear();
            }
        }
        sent
    }
}

const DOCUMENTS: usize = 10;
const GROUPS: usize = 4;
const FOLDERS: usize = 3;

fn tuple(names: &Names, dice: &mut Dice, users: &[&str]) -> Tuple {
    let user = names.user(dice.pick(users));
    let group = dice.below(GROUPS);
    let member = |group| format!("{}#member", names.object("group", group));
    let document = names.object("document", dice.below(DOCUMENTS));
    let folder = names.object("folder", dice.below(FOLDERS));
    let (user, relation, object) = match dice.below(8) {
        0 => (user, "member", names.object("group", group)),
        // Groups nest towards higher numbers, so that there is no cycle.
        1 if group + 1 < GROUPS => (member(group), "member", names.object("group", group + 1)),
        1 | 2 => (user, "viewer", folder),
        3 => (member(group), "viewer", folder),
        4 => (folder, "parent", document),
        5 => (member(group), "reader", document),
        6 => (user, "blocked", document),
        _ => (user, "reader", document),
    };
    (user, relation.to_owned(), object)
}

fn document(names: &Names, dice: &mut Dice, id: &str) -> Document {
    let chunk = |place| Chunk {
        id: format!("{id}#{place}"),
        // The guard is mostly the document's own, and sometimes that of another document, so that parts of a document
        // are hidden.
        guard: names.object("document", dice.below(DOCUMENTS)),
        heading_path: vec![dice.text()],
        text: dice.text(),
        vector: dice.vector(),
        metadata: [("n".to_owned(), Value { kind: Some(value::Kind::IntValue(dice.below(4) as i64)) })].into(),
    };
    let chunks: Vec<Chunk> = (0..4).map(chunk).collect();
    let shared = dice.one_in(4);
    let (guard, count) = (chunks[0].guard.clone(), 1 + dice.below(4));
    let chunks = chunks.into_iter().take(count);
    let guarded = chunks.map(|chunk| if shared { chunk } else { Chunk { guard: guard.clone(), ..chunk } });
    Document { id: id.to_owned(), title: dice.text(), chunks: guarded.collect() }
}

fn world(names: &Names, dice: &mut Dice) -> World {
    let users: Vec<&str> = [ASKERS[0]; 3].iter().chain(&OTHERS).copied().collect();
    let mut tuples: BTreeSet<Tuple> = (0..24).map(|_| tuple(names, dice, &users)).collect();
    if dice.one_in(2) {
        let document = names.object("document", dice.below(DOCUMENTS));
        tuples.insert(("user:*".to_owned(), "reader".to_owned(), document));
    }
    let documents = (0..3 + dice.below(8)).map(|number| {
        let id = format!("d{number}");
        let made = document(names, dice, &id);
        (id, made)
    });
    World { documents: documents.collect(), tuples }
}

/// Changes something that no asker sees. It tries changes until it finds such a change.
fn changed(names: &Names, dice: &mut Dice, before: &World) -> World {
    for _ in 0..200 {
        let mut after = before.clone();
        for _ in 0..=dice.below(4) {
            change(names, dice, &mut after);
        }
        let same = |asker: &&str| before.seen_by(&names.user(asker)) == after.seen_by(&names.user(asker));
        if ASKERS.iter().all(same) && !after.documents.is_empty() {
            return after;
        }
    }
    before.clone()
}

fn change(names: &Names, dice: &mut Dice, world: &mut World) {
    // An earlier change may have deleted the last document.
    let ids: Vec<String> = world.documents.keys().cloned().collect();
    let id = if ids.is_empty() { "d0".to_owned() } else { ids[dice.below(ids.len())].clone() };
    match dice.below(6) {
        0 | 1 => {
            // The new name comes before, between or after the existing ones.
            let id = format!("{}{}", dice.pick(&["A", "d0a", "d5", "d9z", "z"]), dice.below(3));
            world.documents.insert(id.clone(), document(names, dice, &id));
        }
        2 => drop(world.documents.remove(&id)),
        3 => {
            if let Some(chunk) = world.documents.get_mut(&id).and_then(|document| document.chunks.first_mut()) {
                (chunk.text, chunk.vector) = (dice.text(), dice.vector());
            }
        }
        4 => drop(world.tuples.insert(tuple(names, dice, &OTHERS))),
        _ => {
            let tuples: Vec<&Tuple> = world.tuples.iter().collect();
            let gone = tuples[dice.below(tuples.len())].clone();
            world.tuples.remove(&gone);
        }
    }
}

/// Changes a server's content from `before` to `after`.
async fn apply(running: &Running, names: &Names, before: &World, after: &World) {
    let parsed = |(user, relation, object): &Tuple| RelationshipTuple::parse(user, relation, object).expect("a tuple");
    let added: Vec<RelationshipTuple> = after.tuples.difference(&before.tuples).map(parsed).collect();
    if !added.is_empty() {
        running.write(added);
    }
    for gone in before.tuples.difference(&after.tuples) {
        running.delete(parsed(gone));
    }
    let gone: Vec<String> = before.documents.keys().filter(|id| !after.documents.contains_key(*id)).cloned().collect();
    if !gone.is_empty() {
        let request = DeleteDocumentsRequest { collection: names.collection(), document_ids: gone };
        running.client.ingest().delete_documents(request).await.expect("deleted");
    }
    let is_new = |(id, document): &(&String, &Document)| before.documents.get(*id) != Some(*document);
    let new: Vec<Document> = after.documents.iter().filter(is_new).map(|(_, document)| names.sent(document)).collect();
    running.upsert(&names.collection(), new).await.expect("taken in");
}

#[derive(Clone, Debug)]
enum Question {
    Retrieve(RetrieveRequest),
    /// A search in pages. Each further page is asked for with the token of the page before it.
    Pages(RetrieveRequest),
    Recheck(RecheckRequest),
    Fetch(FetchRequest),
}

impl Question {
    /// Returns whether a model makes the vector of the query.
    fn is_by_meaning(&self) -> bool {
        match self {
            Self::Retrieve(request) | Self::Pages(request) => {
                matches!(request.query, Some(Query::Semantic(_) | Query::Hybrid(Hybrid { vector: None, .. })))
            }
            Self::Recheck(_) | Self::Fetch(_) => false,
        }
    }
}

/// The number of pages of one search that are read after the first.
const PAGES: usize = 3;

fn question(names: &Names, dice: &mut Dice, world: &World) -> Question {
    let user = names.user(ASKERS[usize::from(dice.one_in(4))]);
    let chunk_ids: Vec<String> =
        world.documents.values().flat_map(|document| &document.chunks).map(|chunk| chunk.id.clone()).collect();
    if dice.one_in(8) {
        let ids = (0..=dice.below(8)).map(|_| chunk_ids[dice.below(chunk_ids.len())].clone());
        let chunk_ids: Vec<String> = ids.chain(["A0#0", "absent"].map(str::to_owned)).collect();
        let observes = chunk_ids.len().is_multiple_of(2);
        let purpose = if observes { Purpose::Observe } else { Purpose::Unspecified };
        return Question::Recheck(RecheckRequest {
            user,
            collection: names.collection(),
            chunk_ids,
            purpose: purpose.into(),
            ..RecheckRequest::default()
        });
    }
    if dice.one_in(8) {
        let documents: Vec<&String> = world.documents.keys().collect();
        let chunks = (0..dice.below(6)).map(|_| chunk_ids[dice.below(chunk_ids.len())].clone());
        let chunk_ids = chunks.chain(["A0#0", "absent"].map(str::to_owned)).collect();
        let documents = (0..dice.below(4)).map(|_| documents[dice.below(documents.len())].clone());
        let document_ids = documents.chain(["A0", "absent"].map(str::to_owned)).collect();
        let collection = if dice.one_in(20) { "absent".to_owned() } else { names.collection() };
        return Question::Fetch(FetchRequest { user, collection, chunk_ids, document_ids, ..FetchRequest::default() });
    }
    let vector = |dice: &mut Dice| {
        let mut values = dice.vector();
        if dice.one_in(12) {
            values.pop();
        }
        Vector { values }
    };
    let query = match dice.below(3) {
        0 => Query::Text(dice.text()),
        1 if names.has_model() && !dice.one_in(4) => Query::Semantic(Semantic { text: dice.text() }),
        1 => Query::Vector(vector(dice)),
        _ if names.has_model() && dice.one_in(2) => Query::Hybrid(Hybrid { text: dice.text(), vector: None }),
        _ => Query::Hybrid(Hybrid { text: dice.text(), vector: Some(vector(dice)) }),
    };
    let collection = if dice.one_in(20) { "absent".to_owned() } else { names.collection() };
    let scores = [-0.5, 0.0, 0.01, f64::from(1.0 / 61.0_f32), 0.5, 1.0];
    let request = RetrieveRequest {
        user,
        collection,
        query: Some(query).filter(|_| !dice.one_in(30)),
        top_k: [0, 1, 2, 3, 5, 10, 50, 101][1 + dice.below(6) + usize::from(dice.one_in(15))],
        filter: dice.one_in(3).then(|| some_filter(dice, 0)),
        min_score: dice.one_in(3).then(|| scores[dice.below(scores.len())]),
        per_document_max: if dice.one_in(3) { 1 + dice.below(3) as u32 } else { 0 },
        ..RetrieveRequest::default()
    };
    if dice.one_in(4) {
        // A page has few chunks, of whatever the user may see. Now and then, the request has an option that pages do
        // not support.
        let per_document_max = u32::from(dice.one_in(12));
        let top_k = 1 + dice.below(3) as u32;
        let page_token = Some(String::new());
        return Question::Pages(RetrieveRequest { top_k, min_score: None, per_document_max, page_token, ..request });
    }
    Question::Retrieve(request)
}

fn some_filter(dice: &mut Dice, depth: usize) -> Filter {
    let number = |dice: &mut Dice| Value { kind: Some(value::Kind::IntValue(dice.below(5) as i64)) };
    let kind = match dice.below(if depth < 2 { 5 } else { 2 }) {
        0 => {
            let values = (0..=dice.below(3)).map(|_| number(dice)).collect();
            filter::Kind::OneOf(OneOf { key: dice.pick(&["n", "n", "n", "m"]).to_owned(), values })
        }
        1 => filter::Kind::Range(message::Range {
            key: "n".to_owned(),
            low: Some(1.0),
            high: dice.one_in(2).then_some(2.0),
        }),
        2 => filter::Kind::Not(Box::new(some_filter(dice, depth + 1))),
        kind => {
            let filters = (0..dice.below(3)).map(|_| some_filter(dice, depth + 1)).collect();
            let list = FilterList { filters };
            if kind == 3 { filter::Kind::AllOf(list) } else { filter::Kind::AnyOf(list) }
        }
    };
    Filter { kind: Some(kind) }
}

/// An answer to the last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Message(Vec<u8>),
    Refusal(Code, String, Vec<u8>),
}

impl Answer {
    fn of<T: Message + Untimed>(answer: Result<tonic::Response<T>, Status>) -> Self {
        match answer {
            Ok(response) => Self::Message(response.into_inner().untimed().encode_to_vec()),
            Err(status) => Self::Refusal(status.code(), status.message().to_owned(), status.details().to_vec()),
        }
    }
}

/// Returns the first answer to a question, and the token of the page after it.
async fn answer(running: &Running, question: &Question) -> (Answer, Option<String>) {
    let mut client = running.client.retrieval();
    match question.clone() {
        Question::Retrieve(request) => (Answer::of(client.retrieve(request).await), None),
        Question::Pages(request) => page(running, request).await,
        Question::Recheck(request) => (Answer::of(client.recheck(request).await), None),
        Question::Fetch(request) => (Answer::of(client.fetch(request).await), None),
    }
}

async fn page(running: &Running, request: RetrieveRequest) -> (Answer, Option<String>) {
    page_and_token(running.client.retrieval().retrieve(request).await)
}

/// Takes the token of the next page out of a page.
fn page_and_token(mut answer: Result<tonic::Response<RetrieveResponse>, Status>) -> (Answer, Option<String>) {
    let token = answer.as_mut().ok().map(|response| std::mem::take(&mut response.get_mut().next_page_token));
    let token = token.filter(|token| !token.is_empty());
    if let (Ok(response), Some(token)) = (&mut answer, &token) {
        response.get_mut().next_page_token = "x".repeat(token.len());
    }
    (Answer::of(answer), token)
}

/// Returns the pages after the first answer.
async fn further(running: &Running, question: &Question, mut token: Option<String>) -> Vec<Answer> {
    let mut pages = Vec::new();
    while let (Question::Pages(request), Some(page_token), true) = (question, token.take(), pages.len() < PAGES) {
        let (answer, next) = page(running, RetrieveRequest { page_token: Some(page_token), ..request.clone() }).await;
        pages.push(answer);
        token = next;
    }
    pages
}

/// Returns all answers to a question at a door that takes JSON.
async fn answers_in_json(at: &JsonDoor, door: Door, question: &Question) -> Vec<Answer> {
    let mut retrieval = match question.clone() {
        Question::Retrieve(request) | Question::Pages(request) => request,
        Question::Recheck(request) => {
            let answer = at.ask::<_, RecheckResponse>(door, "Recheck", &request).await;
            return vec![Answer::of(answer.map(tonic::Response::new))];
        }
        Question::Fetch(request) => {
            let answer = at.ask::<_, FetchResponse>(door, "Fetch", &request).await;
            return vec![Answer::of(answer.map(tonic::Response::new))];
        }
    };
    let mut pages = Vec::new();
    while pages.len() <= PAGES {
        let answer = at.ask::<_, RetrieveResponse>(door, "Retrieve", &retrieval).await;
        let (page, token) = page_and_token(answer.map(tonic::Response::new));
        pages.push(page);
        if token.is_none() {
            break;
        }
        retrieval.page_token = token;
    }
    pages
}

/// Returns all answers to a question, given the first.
async fn finished(running: &Running, question: &Question, first: (Answer, Option<String>)) -> Vec<Answer> {
    let (answer, token) = first;
    [answer].into_iter().chain(further(running, question, token).await).collect()
}

/// Counts of what was asked and answered, so that a test that asks nothing worth asking is noticed.
#[derive(Debug, Default)]
struct Tally {
    pairs: usize,
    with_chunks: usize,
    /// The answers with chunks to queries by meaning.
    by_meaning: usize,
    without: usize,
    refused: usize,
    further_pages: usize,
    changes_in_vain: usize,
    in_json: usize,
}

impl Tally {
    fn count(&mut self, world: u64, question: &Question, answers: &[Answer]) {
        self.pairs += 1;
        let (first, further) = answers.split_first().expect("an answer");
        self.further_pages += further.len();
        // A further page is never refused: hidden documents do not end a paging.
        assert!(further.iter().all(|page| matches!(page, Answer::Message(_))), "world {world}: {further:?}");
        match first {
            Answer::Refusal(..) => self.refused += 1,
            Answer::Message(bytes) => match RetrieveResponse::decode(bytes.as_slice()) {
                Ok(response) if !response.chunks.is_empty() => {
                    self.with_chunks += 1;
                    self.by_meaning += usize::from(question.is_by_meaning());
                }
                Ok(_) | Err(_) => self.without += 1,
            },
        }
    }
}

/// Returns the default configuration, with a model for the collections that have one.
fn with_model(data: &Path, models: &ModelServer) -> Config {
    let mut config = config(data);
    let collections: Vec<String> =
        (0..WORLDS).map(Names).filter(Names::has_model).map(|names| names.collection()).collect();
    let embedding = json!([{ "collections": collections, "url": models.url, "model": "small", "timeout": "60s" }]);
    config.embedding = serde_json::from_value(embedding).expect("settings");
    config
}

/// Asks every question of these worlds at both servers, and compares the answers. The model answers both.
async fn compare([a, b]: [&Running; 2], models: &ModelServer, worlds: Range<u64>) -> Tally {
    for running in [a, b] {
        running.load(dsl::load(MODEL).expect("a model"), Vec::new());
    }
    let mut tally = Tally::default();
    let json = JsonDoor::at(&b.address.to_string());
    for number in worlds {
        let (names, mut dice) = (Names(number), Dice::new(SEED ^ number));
        let in_a = world(&names, &mut dice);
        let questions: Vec<Question> = (0..QUESTIONS).map(|_| question(&names, &mut dice, &in_a)).collect();
        // World A gets the documents in one call. World B gets them one after the other, the last one first.
        apply(a, &names, &World::default(), &in_a).await;
        let answers = join_all(questions.iter().map(async |question| {
            let first = answer(a, question).await;
            finished(a, question, first).await
        }));
        let answers = answers.await;
        let mut in_b = World { documents: BTreeMap::new(), ..in_a.clone() };
        apply(b, &names, &World::default(), &in_b).await;
        for (id, document) in in_a.documents.iter().rev() {
            let mut next = in_b.clone();
            next.documents.insert(id.clone(), document.clone());
            apply(b, &names, &in_b, &next).await;
            in_b = next;
        }
        for _ in 0..CHANGES {
            let next = changed(&names, &mut dice, &in_b);
            let is_same = next.documents == in_b.documents && next.tuples == in_b.tuples;
            tally.changes_in_vain += usize::from(is_same);
            let first_pages = join_all(questions.iter().map(|question| answer(b, question))).await;
            apply(b, &names, &in_b, &next).await;
            in_b = next;
            let twins = join_all(questions.iter().zip(first_pages).map(async |(question, first_page)| {
                let first = match question {
                    Question::Pages(_) => first_page,
                    Question::Retrieve(_) | Question::Recheck(_) | Question::Fetch(_) => answer(b, question).await,
                };
                finished(b, question, first).await
            }));
            for ((question, answers), twins) in questions.iter().zip(&answers).zip(&twins.await) {
                tally.count(number, question, twins);
                assert_eq!(
                    answers, twins,
                    "seed {SEED}, world {number}: {question:#?}\n\nworld A: {in_a:#?}\n\nworld B: {in_b:#?}"
                );
            }
        }
        for (question, answers) in questions.iter().zip(&answers) {
            for door in [Door::Connect, Door::Rest] {
                let in_json = answers_in_json(&json, door, question).await;
                assert_eq!(&in_json, answers, "seed {SEED}, world {number}, {door:?}: {question:#?}");
                tally.in_json += in_json.len();
            }
        }
        // Nothing looks at what the model was sent here, and all of it would take much memory.
        let was_asked = !models.take().is_empty();
        assert_eq!(was_asked, names.has_model(), "world {number}");
    }
    println!("{tally:?}");
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_changes_no_byte_of_an_answer() {
    println!("seed {SEED}");
    let directories = [tempfile::tempdir(), tempfile::tempdir()].map(|made| made.expect("a temporary directory"));
    let models = ModelServer::start().await;
    let a = Running::start(&with_model(directories[0].path(), &models)).await;
    let b = Running::start(&with_model(directories[1].path(), &models)).await;
    let tally = Box::pin(compare([&a, &b], &models, 0..WORLDS)).await;
    assert_eq!(tally.pairs, 10_000);
    assert!(tally.in_json > 4_500, "{tally:?}");
    assert!(tally.with_chunks > 4_000 && tally.without > 500 && tally.refused > 500, "{tally:?}");
    assert!(tally.by_meaning > 200, "{tally:?}");
    assert!(tally.further_pages > 1_000, "{tally:?}");
    assert!(tally.changes_in_vain < 50, "{tally:?}");
}

/// Each world has a Qdrant of its own. Both scan: an index may miss something in one world that it finds in the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_changes_no_byte_of_an_answer_from_qdrant() {
    println!("seed {SEED}");
    let directories = [tempfile::tempdir(), tempfile::tempdir()].map(|made| made.expect("a temporary directory"));
    let models = ModelServer::start().await;
    let qdrants = [QdrantServer::start().await, QdrantServer::start().await];
    let settings = |world: usize| {
        let mut config = with_model(directories[world].path(), &models);
        config.vector_store.kind = VectorStoreKind::Qdrant;
        config.vector_store.qdrant.url.clone_from(&qdrants[world].address);
        config.vector_store.qdrant.exact = true;
        config
    };
    let a = Running::start(&settings(0)).await;
    let b = Running::start(&settings(1)).await;
    let tally = Box::pin(compare([&a, &b], &models, 0..QDRANT_WORLDS)).await;
    assert_eq!(tally.pairs, 1_200);
    assert!(tally.with_chunks > 400 && tally.by_meaning > 20, "{tally:?}");
}
