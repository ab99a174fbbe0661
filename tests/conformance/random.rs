//! Random worlds, asked of Ragward over `OpenFGA`'s API and of a real `OpenFGA`: checks, batches, lists of objects
//! (whole and streamed), lists of users, expansions. `RAGWARD_LIVE_SEED` (a number) sets the first seed,
//! `RAGWARD_LIVE_WORLDS` sets the number of worlds.
//!
//! `OpenFGA` evaluates in parallel and chooses among strategies by how fast they were, so some of its answers differ
//! from run to run. If the two answers differ, `OpenFGA` is asked again about the same world in a new store. There is a
//! difference only if it never gives Ragward's answer. Intended differences ([`exception`]) are counted apart; in each
//! of them Ragward grants less.

use std::collections::BTreeMap;

use ragward::language::model::{RestrictionKind, TypeRestriction};
use ragward::language::validate::ValidModel;
use ragward::language::{RelationshipTuple, dsl};
use serde_json::{Value, json};

use crate::conformance::answers::{Answers, Extra, Reply};
use crate::support::cases::{Condition, ListObjectsRequest, ListUsersRequest, Tuple};
use crate::support::dice::Dice;
use crate::support::openfga::OpenFga;
use crate::support::ragward_server;
use crate::support::random_world::shrink::{row, shrink};
use crate::support::random_world::{OBJECTS, SUBJECTS, Size, USER_FILTERS, World, relations_of};

const FIRST_SEED: u64 = 1;
const WORLDS: u64 = 300;
/// The size of a world. `OpenFGA` follows every path through a graph without a bound on memory, so dense worlds are
/// left to the oracle.
const SIZE: Size = Size { tuples_max: 14, rewrite_depth: 2 };
const QUESTIONS: usize = 30;
/// The number of times that `OpenFGA` is asked again before a difference counts.
const RETRIES: usize = 6;

/// A question about a world.
#[derive(Clone, Debug)]
enum Question {
    Check(Tuple),
    Objects(ListObjectsRequest),
    Users(ListUsersRequest),
    /// Expands a relation of an object.
    Expand(String, String),
}

impl Question {
    fn kind(&self) -> &'static str {
        match self {
            Self::Check(_) => "check",
            Self::Objects(_) => "list_objects",
            Self::Users(_) => "list_users",
            Self::Expand(..) => "expand",
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Check(tuple) => json!({ "tuple": tuple.json() }),
            Self::Objects(ListObjectsRequest { user, type_name, relation }) => {
                json!({ "request": { "user": user, "type": type_name, "relation": relation } })
            }
            Self::Users(ListUsersRequest { filters, object, relation }) => {
                json!({ "request": { "filters": filters, "object": object, "relation": relation } })
            }
            Self::Expand(object, relation) => json!({ "object": object, "relation": relation }),
        }
    }
}

fn tuple(tuple: &RelationshipTuple) -> Tuple {
    let condition = tuple
        .condition
        .as_ref()
        .map(|condition| Condition { name: condition.name().to_owned(), context: Some(condition.context()) });
    let (user, relation) = (tuple.user.to_string(), tuple.relation.to_string());
    Tuple { user, relation, object: tuple.object.to_string(), condition }
}

/// Returns the questions about a world. With `RAGWARD_LIVE_LISTS` set, they are all lists of users: of every relation
/// of every object, for every filter.
fn asked(seed: u64) -> Vec<Question> {
    if std::env::var_os("RAGWARD_LIVE_LISTS").is_none() {
        return questions(seed);
    }
    let mut lists = Vec::new();
    for object in OBJECTS {
        for relation in relations_of(object.split(':').next().unwrap_or_default()) {
            for filter in USER_FILTERS {
                let (filters, object) = (vec![filter.to_owned()], object.to_owned());
                lists.push(Question::Users(ListUsersRequest { filters, object, relation: (*relation).to_owned() }));
            }
        }
    }
    lists
}

fn questions(seed: u64) -> Vec<Question> {
    let mut dice = Dice::new(seed ^ 0xA5A5);
    (0..QUESTIONS)
        .map(|number| {
            let object = OBJECTS[dice.below(OBJECTS.len())];
            let type_name = object.split(':').next().unwrap_or_default();
            let relations = relations_of(type_name);
            let relation = relations[dice.below(relations.len())].to_owned();
            // Half of the questions are about users whom most tuples name.
            let subjects = if dice.below(2) == 0 { &SUBJECTS[..3] } else { &SUBJECTS[..] };
            let user = subjects[dice.below(subjects.len())].to_owned();
            match number % 6 {
                5 => Question::Expand(object.to_owned(), relation),
                3 => Question::Objects(ListObjectsRequest { user, type_name: type_name.to_owned(), relation }),
                4 => {
                    let filters = vec![USER_FILTERS[dice.below(USER_FILTERS.len())].to_owned()];
                    Question::Users(ListUsersRequest { filters, object: object.to_owned(), relation })
                }
                _ => Question::Check(Tuple { user, relation, object: object.to_owned(), condition: None }),
            }
        })
        .collect()
}

/// Makes a new store that holds the world.
async fn store(address: &str, world: &World) -> Answers {
    let made = try_store(address, world).await;
    made.unwrap_or_else(|error| panic!("{error}\n{}", row("refused", world, "check", &json!({}))))
}

async fn try_store(address: &str, world: &World) -> Result<Answers, String> {
    let valid = ValidModel::new(world.model.clone()).map_err(|errors| format!("{errors:?}"))?;
    let mut answers = Answers::api(address).await;
    answers.write_parsed_model(&world.model).await?;
    answers.write(&world.fitting(&valid).iter().map(tuple).collect::<Vec<_>>()).await?;
    Ok(answers)
}

/// The two servers.
struct Both {
    theirs: String,
    ours: String,
}

impl Both {
    /// Returns the answers of both, if `OpenFGA` never answers as Ragward does.
    async fn differ(&self, world: &World, question: &Question) -> Option<(Reply, Vec<Reply>)> {
        let found = ask(&mut store(&self.ours, world).await, world, question).await;
        let mut seen = Vec::new();
        self.ask_again(world, question, &found, &mut seen).await;
        (!seen.contains(&found)).then_some((found, seen))
    }

    async fn ask_again(&self, world: &World, question: &Question, found: &Reply, seen: &mut Vec<Reply>) {
        while !seen.contains(found) && seen.len() <= RETRIES {
            seen.push(ask(&mut store(&self.theirs, world).await, world, question).await);
        }
    }
}

async fn ask(answers: &mut Answers, world: &World, question: &Question) -> Reply {
    let extra = &Extra { contextual: world.contextual.iter().map(tuple).collect(), context: world.context.clone() };
    let found = match question {
        Question::Check(tuple) => {
            let alone = answers.check(tuple, extra).await;
            let batch = answers.batch(&[(tuple, extra.clone())]).await;
            if without_text(alone.clone()) != without_text(batch[0].clone()) {
                eprintln!("{question:?}: alone {alone:?}, in a batch {batch:?}");
            }
            alone
        }
        Question::Objects(request) => answers.list_objects(request, extra).await,
        Question::Users(request) => answers.list_users(request, extra).await,
        Question::Expand(object, relation) => answers.expand(object, relation, extra).await,
    };
    without_text(found)
}

fn without_text(reply: Reply) -> Reply {
    match reply {
        Reply::Refused(number, _) => Reply::Refused(number, String::new()),
        other @ (Reply::Allowed(_) | Reply::Listed(_) | Reply::Tree(_)) => other,
    }
}

const LISTS_DENIED: &str = "`OpenFGA` lists users whom its own check denies";
/// If a `but not` ends some of several paths to a user, `OpenFGA` takes the result of the path that it hears of last.
const LEAVES_OUT_ALLOWED: &str = "`OpenFGA` leaves out users whom its own check allows";

/// Users whom `OpenFGA` names although a `but not` within a `but not` takes them away.
const NAMES_MORE: &str = "beside everybody `OpenFGA` names some who are among them";

/// Returns the reason why Ragward does not answer as `OpenFGA` does, if that was decided on (see the docs of `ragward::engine`).
async fn exception(
    at_theirs: &mut Answers,
    world: &World,
    question: &Question,
    (found, seen): (&Reply, &[Reply]),
) -> Option<&'static str> {
    match (found, seen) {
        (Reply::Refused(Some(2000), _), [Reply::Allowed(_), ..]) => {
            Some("a failed condition that is passed over does not let in under `but not`")
        }
        (Reply::Allowed(false), [Reply::Allowed(true), ..]) => Some("a cycle under `but not` denies"),
        (Reply::Listed(ours), [Reply::Listed(theirs), ..]) => {
            let Question::Users(ListUsersRequest { object, relation, .. }) = question else { return None };
            let is_covered = |user: &String| {
                let everybody = user.split_once(':').map(|(of, _)| format!("{of}:*"));
                !user.contains('#') && everybody.is_some_and(|everybody| ours.contains(&everybody))
            };
            let mut names_more = false;
            for user in theirs.symmetric_difference(ours) {
                let (user, object, relation) = (user.clone(), object.clone(), relation.clone());
                let check = Question::Check(Tuple { user: user.clone(), relation, object, condition: None });
                let is_allowed = ask(at_theirs, world, &check).await == Reply::Allowed(true);
                match (is_allowed, ours.contains(&user)) {
                    (true, false) if is_covered(&user) => names_more = true,
                    (true, false) | (false, true) => return None,
                    (true, true) | (false, false) => {}
                }
            }
            if !ours.is_subset(theirs) {
                return Some(LEAVES_OUT_ALLOWED);
            }
            Some(if names_more { NAMES_MORE } else { LISTS_DENIED })
        }
        _ => None,
    }
}

#[expect(clippy::disallowed_methods, reason = "a test may read the environment")]
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// The outcome of comparing worlds.
#[derive(Default)]
struct Compared {
    answers: u64,
    unsteady: u64,
    refused: u64,
    differences: Vec<String>,
    by_kind: BTreeMap<String, u64>,
    decided: BTreeMap<&'static str, u64>,
}

impl Both {
    async fn compare(&self, origin: u64, world: &World, questions: Vec<Question>, compared: &mut Compared) {
        let mut at_ours = store(&self.ours, world).await;
        let mut at_theirs = match try_store(&self.theirs, world).await {
            Ok(at_theirs) => at_theirs,
            // `OpenFGA`'s search for entry points shares what it has seen between operands, so it refuses some models
            // that name a relation twice. These models are possible, and Ragward takes them.
            Err(error) if error.contains("no entrypoints defined") || error.contains("potential loop") => {
                compared.refused += 1;
                return;
            }
            Err(error) => {
                compared.differences.push(format!("seed {origin}: only OpenFGA refuses it: {error}"));
                return;
            }
        };
        for question in questions {
            compared.answers += 1;
            let found = ask(&mut at_ours, world, &question).await;
            let mut seen = vec![ask(&mut at_theirs, world, &question).await];
            self.ask_again(world, &question, &found, &mut seen).await;
            if seen.contains(&found) {
                compared.unsteady += u64::from(seen.len() > 1);
                continue;
            }
            if let Some(reason) = exception(&mut at_theirs, world, &question, (&found, &seen)).await {
                *compared.decided.entry(reason).or_default() += 1;
                continue;
            }
            let small =
                shrink(world.clone(), async |candidate| self.differ(candidate, &question).await.is_some()).await;
            let (found, seen) = self.differ(&small, &question).await.unwrap_or((found, seen));
            let steady = seen.iter().all(|other| *other == seen[0]);
            let kind = format!("{} steady {steady}: {found:?} / {:?}", question.kind(), seen[0]);
            *compared.by_kind.entry(kind).or_default() += 1;
            let row = row(&format!("seed_{origin}"), &small, question.kind(), &question.json());
            compared.differences.push(format!("Ragward {found:?}\nOpenFGA {seen:?}\n{row}"));
        }
    }
}

impl Compared {
    /// Fails if anything differs, or if more than one answer in this many is an exception.
    fn assert_alike(&self, one_exception_in: u64) {
        let Self { answers, unsteady, refused, differences, by_kind, decided } = self;
        eprintln!("{answers} answers compared, {unsteady} not the same each time; {refused} models refused");
        eprintln!("{decided:#?}");
        assert!(refused * 10 < *answers, "{refused} models were refused");
        let count = differences.len();
        assert!(differences.is_empty(), "{count} differ\n{}\n{by_kind:#?}", differences.join("\n"));
        assert!(decided.values().sum::<u64>() * one_exception_in < *answers, "{decided:#?}");
        let left_out = decided.get(LEAVES_OUT_ALLOWED).copied().unwrap_or_default();
        assert!(left_out * 500 < *answers, "{decided:#?}");
    }
}

#[tokio::test]
async fn both_answer_alike_about_random_worlds() {
    let Some(server) = OpenFga::start().await else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let both = Both { theirs: server.config("any").address, ours: ragward_server::serve(directory.path()).await };
    let first = number("RAGWARD_LIVE_SEED", FIRST_SEED);
    let mut compared = Compared::default();
    for seed in first..first + number("RAGWARD_LIVE_WORLDS", WORLDS) {
        both.compare(seed, &World::random(seed, SIZE), asked(seed), &mut compared).await;
    }
    eprintln!("seed {first}");
    compared.assert_alike(50);
}

/// Models in which groups, folders or relations lead back to themselves below `but not` or `and`.
const CYCLIC_MODELS: [(&str, &str); 9] = [
    (
        "usersets beside parents",
        "type team
  relations
    define member: [user, team#member]
type doc
  relations
    define parent: [doc]
    define viewer: [user, user:*]
    define blocked: [team#member] or blocked from parent
    define can_read: viewer but not blocked",
    ),
    (
        "usersets alone",
        "type team
  relations
    define member: [user, user:*, team#member]
type doc
  relations
    define viewer: [user, team#member]
    define blocked: [team#member]
    define barred: blocked
    define can_read: viewer but not barred
    define can_write: can_read but not blocked
    define cannot_read: viewer but not can_read",
    ),
    (
        "parents alone",
        "type folder
  relations
    define parent: [folder]
    define hidden: [user] or hidden from parent
    define viewer: ([user, user:*] or viewer from parent) but not hidden
type doc
  relations
    define folder: [folder]
    define viewer: [user] or viewer from folder
    define can_read: viewer but not hidden_above
    define hidden_above: hidden from folder",
    ),
    (
        "several relations",
        "type team
  relations
    define member: [user, team#lead]
    define lead: [user, team#member]
type doc
  relations
    define viewer: [user, team#lead]
    define blocked: [team#member]
    define banned: [team#lead] or blocked
    define can_read: viewer but not blocked
    define can_write: viewer but not banned",
    ),
    (
        "below `and`",
        "type team
  relations
    define active: [user, user:*]
    define asked: [user, team#member]
    define member: asked and active
type doc
  relations
    define viewer: [user, team#member]
    define blocked: [team#member]
    define either: blocked or viewer
    define can_read: viewer but not blocked
    define both: either and blocked",
    ),
    (
        "who is pardoned",
        "type team
  relations
    define member: [user, team#member]
type doc
  relations
    define parent: [doc]
    define viewer: [user, user:*]
    define pardoned: [user, team#member] or pardoned from parent
    define blocked: [user, team#member]
    define barred: blocked but not pardoned
    define can_read: viewer but not barred",
    ),
    (
        "groups that ban",
        "type team
  relations
    define banned: [user, team#member]
    define asked: [user, team#member]
    define member: asked but not banned
type doc
  relations
    define viewer: [team#member, user]
    define blocked: [team#member]
    define can_read: viewer but not blocked",
    ),
    (
        "usersets, objects and everybody of a type",
        "type team
  relations
    define member: [user, team, team#member]
type doc
  relations
    define viewer: [team, team:*, team#member]
    define blocked: [team, team#member]
    define everybody: [team:*]
    define can_read: viewer but not blocked
    define both: viewer and blocked
    define either: blocked or everybody",
    ),
    (
        "with conditions",
        "type team
  relations
    define member: [user, team#member, team#member with small]
type doc
  relations
    define parent: [doc, doc with enabled]
    define viewer: [user, user with small]
    define blocked: [team#member, user with enabled] or blocked from parent
    define can_read: viewer but not blocked
condition small(x: int) {
  x < 3
}
condition enabled(b: bool) {
  b
}",
    ),
];
/// The number of worlds for each of them.
const CYCLIC_WORLDS: u64 = 8;
const CYCLIC_TUPLES_MAX: usize = 24;

/// Returns every list of users, and a check of every user, for every relation of every object.
fn all_questions(world: &World) -> Vec<Question> {
    let mut filters: Vec<String> = vec!["user".to_owned()];
    for restriction in world.model.types.iter().flat_map(|t| &t.relations).flat_map(|r| &r.directly_related) {
        let filter = TypeRestriction { condition: None, ..restriction.clone() }.to_string();
        if restriction.kind != RestrictionKind::Wildcard && !filters.contains(&filter) {
            filters.push(filter);
        }
    }
    let mut questions = Vec::new();
    for definition in &world.model.types {
        for (relation, number) in
            definition.relations.iter().flat_map(|r| (0..2).map(|number| (r.name.clone(), number)))
        {
            let object = format!("{}:{number}", definition.name);
            for filter in &filters {
                let (filters, object, relation) = (vec![filter.clone()], object.clone(), relation.clone());
                questions.push(Question::Users(ListUsersRequest { filters, object, relation }));
            }
            for user in ["user:0", "user:1", "user:stranger", "user:*"] {
                let (user, object, relation) = (user.to_owned(), object.clone(), relation.clone());
                questions.push(Question::Check(Tuple { user, relation, object, condition: None }));
            }
        }
    }
    questions
}

#[tokio::test]
async fn both_answer_alike_where_groups_are_in_each_other() {
    let Some(server) = OpenFga::start().await else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let both = Both { theirs: server.config("any").address, ours: ragward_server::serve(directory.path()).await };
    let first = number("RAGWARD_LIVE_SEED", FIRST_SEED);
    let mut all = Compared::default();
    for (name, types) in CYCLIC_MODELS {
        let model = dsl::load(&format!("model\n  schema 1.1\ntype user\n{types}\n")).expect(name);
        let mut compared = Compared::default();
        for seed in first..first + number("RAGWARD_LIVE_CYCLIC_WORLDS", CYCLIC_WORLDS) {
            let world = World::around(&mut Dice::new(seed), model.source().clone(), &model, CYCLIC_TUPLES_MAX);
            let questions = all_questions(&world);
            both.compare(seed, &world, questions, &mut compared).await;
        }
        eprintln!(
            "{name}: {} answers, {} differ, {:?}",
            compared.answers,
            compared.differences.len(),
            compared.decided
        );
        all.answers += compared.answers;
        all.unsteady += compared.unsteady;
        all.differences.extend(compared.differences.into_iter().map(|difference| format!("{name}: {difference}")));
        all.by_kind.extend(compared.by_kind);
        compared.decided.into_iter().for_each(|(reason, count)| *all.decided.entry(reason).or_default() += count);
    }
    eprintln!("seed {first}");
    all.assert_alike(5);
}
