//! `ragward eval`: asks questions whose answers are known, and measures what comes, user by user.

mod metrics;
mod picture;
mod questions;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use self::metrics::{Figures, Sums};
use self::picture::Group;
use self::questions::Question;
use super::output::table;
use super::ranking::{Asked, Asker, By};
use super::{Connection, Failure, Output};

/// The largest number of documents of an answer. `retrieval.top_k_max` allows 100 unless it is raised.
const K_MAX: i64 = 1_000;
/// The name of the row over all users.
const ALL: &str = "all";

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// The file of questions, in TOML, or in JSON Lines (`.jsonl`).
    file: PathBuf,
    /// The collection to search. Without it, the file must name one.
    #[arg(long)]
    collection: Option<String>,
    /// The user who asks the questions that name no user. It may be left out if an access token names the user.
    #[arg(long)]
    user: Option<String>,
    /// How many documents of each answer count.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=K_MAX))]
    k: u32,
    /// Compare the questions by their words, by their meaning, or by both. Meaning needs a model (`embedding`) for the collection.
    /// A question with a vector is compared by that.
    #[arg(long, value_enum, default_value_t = By::Words)]
    by: By,
    /// Write a picture of the figures, in SVG.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Fail if the recall over all questions is lower, as in `0.9`.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    min_recall: Option<f64>,
    /// Fail if the mean reciprocal rank over all questions is lower.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    min_mrr: Option<f64>,
    /// Fail if nDCG over all questions is lower.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    min_ndcg: Option<f64>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct EvalReport {
    collection: String,
    k: u32,
    all: Means,
    users: Vec<UserMeans>,
    answers: Vec<Answer>,
}

#[derive(Serialize)]
struct UserMeans {
    user: String,
    #[serde(flatten)]
    means: Means,
}

/// The means over the questions that count.
#[derive(Serialize)]
struct Means {
    /// The number of questions that were asked, once for each user.
    asked: u32,
    /// The number of these that count: those of which the user may see an expected document.
    counted: u32,
    recall: Option<f64>,
    mrr: Option<f64>,
    ndcg: Option<f64>,
}

/// One question of one user.
#[derive(Serialize)]
struct Answer {
    question: String,
    user: String,
    /// The documents that came, best first.
    found: Vec<String>,
    /// The rank of each document that should come and that the user may see; none if it did not come.
    ranks: BTreeMap<String, Option<u32>>,
    /// The documents that should come, and that the user may not see or that are not there. They count for nothing.
    not_visible: Vec<String>,
    /// The documents that came and must not.
    unwanted: Vec<String>,
    recall: Option<f64>,
    reciprocal_rank: Option<f64>,
    ndcg: Option<f64>,
}

/// The sums of one user's answers, or of all.
#[derive(Default)]
struct Tally {
    asked: u32,
    sums: Sums,
}

impl Tally {
    fn add(&mut self, figures: Option<Figures>) {
        self.asked += 1;
        if let Some(figures) = figures {
            self.sums.add(figures);
        }
    }

    fn means(&self) -> Means {
        let means = self.sums.means();
        Means {
            asked: self.asked,
            counted: self.sums.counted,
            recall: means.map(|means| means.recall),
            mrr: means.map(|means| means.reciprocal_rank),
            ndcg: means.map(|means| means.ndcg),
        }
    }

    fn group<'a>(&self, name: &'a str) -> Group<'a> {
        Group { name, counted: self.sums.counted, figures: self.sums.means() }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err("it must be a number from 0 to 1".to_owned()),
    }
}

/// Fails if a document came that must not, or if a figure is below what is demanded.
pub(super) async fn run(args: EvalArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let questions = questions::read(&args.file)?;
    let Some(collection) = args.collection.or(questions.collection) else {
        return Err(Failure::usage(
            "name the collection with `--collection`, or as `collection` at the top of the file",
        ));
    };
    let names_nobody = questions.list.iter().any(|question| question.users.is_empty());
    let unnamed = if names_nobody { args.connection.asker(args.user)? } else { String::new() };
    let services = args.connection.open_existing(config).await?;
    let mut asker = Asker::new(services.client(), &collection, args.by);
    let answered = ask_all(&mut asker, &questions.list, &unnamed, args.k).await;
    services.close().await;
    let Answered { answers, all, users } = answered?;
    if let Some(file) = &args.picture {
        let groups: Vec<Group<'_>> =
            [all.group(ALL)].into_iter().chain(users.iter().map(|(user, tally)| tally.group(shown(user)))).collect();
        let title = format!("Retrieval from collection {collection}, by user");
        std::fs::write(file, picture::svg(&title, args.k, &groups))
            .map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
    }
    let users = users.into_iter().map(|(user, tally)| UserMeans { means: tally.means(), user }).collect();
    let report = EvalReport { collection, k: args.k, all: all.means(), users, answers };
    output.result(&report, || people(&report))?;
    let demands = [
        Demand { name: "recall", figure: report.all.recall, least: args.min_recall },
        Demand { name: "mrr", figure: report.all.mrr, least: args.min_mrr },
        Demand { name: "ndcg", figure: report.all.ndcg, least: args.min_ndcg },
    ];
    let faults = faults(&report, &demands);
    if faults.is_empty() { Ok(()) } else { Err(Failure::failed(faults.join("; "))) }
}

/// All answers, with the figures over all and by user.
#[derive(Default)]
struct Answered {
    answers: Vec<Answer>,
    all: Tally,
    users: BTreeMap<String, Tally>,
}

/// Asks one question after the other, so that no answer waits for another one.
async fn ask_all(asker: &mut Asker<'_>, questions: &[Question], unnamed: &str, k: u32) -> Result<Answered, Failure> {
    let mut answered = Answered::default();
    for question in questions {
        let mut users: Vec<&str> = question.users.iter().map(String::as_str).collect();
        if users.is_empty() {
            users.push(unnamed);
        }
        for user in users {
            let named = |failure: Failure| failure.context(format_args!("question `{}`", question.name));
            let (answer, figures) = ask(asker, question, user, k).await.map_err(named)?;
            answered.all.add(figures);
            answered.users.entry(user.to_owned()).or_default().add(figures);
            answered.answers.push(answer);
        }
    }
    Ok(answered)
}

async fn ask(
    asker: &mut Asker<'_>,
    question: &Question,
    user: &str,
    k: u32,
) -> Result<(Answer, Option<Figures>), Failure> {
    let found = asker.ranking(Asked { user, query: &question.query, vector: &question.vector, documents: k }).await?;
    let rank_of: BTreeMap<&str, u32> = found.iter().map(String::as_str).zip(1..).collect();
    let (mut gains, mut ranks, mut not_visible) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (document_id, gain) in &question.expect {
        let rank = rank_of.get(document_id.as_str()).copied();
        // A document that the user may not see does not count as missed.
        if rank.is_none() && !asker.sees(user, document_id).await? {
            not_visible.push(document_id.clone());
            continue;
        }
        gains.insert(document_id.clone(), *gain);
        ranks.insert(document_id.clone(), rank);
    }
    let figures = Figures::of(&found, &gains, k);
    let unwanted = found.iter().filter(|id| question.not.contains(*id)).cloned().collect();
    let answer = Answer {
        question: question.name.clone(),
        user: user.to_owned(),
        found,
        ranks,
        not_visible,
        unwanted,
        recall: figures.map(|figures| figures.recall),
        reciprocal_rank: figures.map(|figures| figures.reciprocal_rank),
        ndcg: figures.map(|figures| figures.ndcg),
    };
    Ok((answer, figures))
}

/// A figure over all questions.
struct Demand {
    name: &'static str,
    figure: Option<f64>,
    /// The least that it may be.
    least: Option<f64>,
}

/// Returns the reasons why the command fails.
fn faults(report: &EvalReport, demands: &[Demand]) -> Vec<String> {
    let unwanted: usize = report.answers.iter().map(|answer| answer.unwanted.len()).sum();
    let mut faults = Vec::new();
    if unwanted > 0 {
        faults.push(format!("{unwanted} documents came that must not"));
    }
    for Demand { name, figure, least } in demands {
        let Some(least) = least else { continue };
        match figure {
            Some(figure) if figure >= least => {}
            Some(figure) => faults.push(format!("{name} is {figure:.3}, below {least}")),
            None => faults.push(format!("{name} is unknown, because no question counts")),
        }
    }
    faults
}

fn shown(user: &str) -> &str {
    if user.is_empty() { "(the access token's)" } else { user }
}

fn people(report: &EvalReport) -> String {
    let k = report.k;
    let row = |name: &str, means: &Means| {
        let figure = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.3}"));
        let Means { asked, counted, recall, mrr, ndcg } = means;
        vec![name.to_owned(), format!("{counted} of {asked}"), figure(*recall), figure(*mrr), figure(*ndcg)]
    };
    let rows = report.users.iter().map(|UserMeans { user, means }| row(shown(user), means));
    let (recall, ndcg) = (format!("recall@{k}"), format!("nDCG@{k}"));
    let header = ["user", "counted", recall.as_str(), "MRR", ndcg.as_str()];
    let mut lines = vec![table(&header, rows.chain([row(ALL, &report.all)]))];
    for Answer { question, user, ranks, not_visible, unwanted, .. } in &report.answers {
        let asked = format!("{} asked `{question}`", shown(user));
        let missed = ranks.iter().filter(|(_, rank)| rank.is_none());
        lines.extend(missed.map(|(id, _)| format!("missed: {asked}: `{id}` is not among the first {k}")));
        let counts = if ranks.is_empty() && !not_visible.is_empty() { "not counted" } else { "not visible" };
        lines.extend(
            not_visible.iter().map(|id| format!("{counts}: {asked}: `{id}` is hidden from this user, or not there")),
        );
        lines.extend(unwanted.iter().map(|id| format!("unwanted: {asked}: `{id}` came and must not")));
    }
    lines.join("\n")
}
