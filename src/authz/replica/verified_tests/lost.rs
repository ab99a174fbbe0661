//! The copy does not decide any more, and everybody asks a server that is too small for that.

use tokio::sync::Semaphore;
use tokio::time::advance;

use super::world::{Setup, World, fact, named};
use super::*;
use crate::authz::ChecksConfig;
use crate::authz::batched::BatchedDecider;
use crate::authz::decider::{NumberedOutcome, Outcome, Question, Questions};
use crate::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, StoreSelector};
use crate::authz::stacked::StackedAuthorizer;

/// The number of users that ask for one page at a time.
const MODEST: usize = 10;
const REQUESTS: usize = 5;
const PAGE: usize = 10;
/// The number of requests that one user sends at the same time.
const GREEDY: usize = 16;
/// The number of checks in each of those requests.
const MUCH: usize = 500;

/// Works on two calls at a time, each for a second.
struct Slow {
    cores: Semaphore,
    world: World,
}

#[async_trait]
impl Decider for Slow {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let as_of = Instant::now();
        self.world.with(|state| state.calls.push(as_of));
        let _core = self.cores.acquire().await.expect("never closed");
        sleep(Duration::from_secs(1)).await;
        let answer = |(position, question): (usize, &Question)| {
            let allowed = self.world.with(|state| state.server.contains(&fact(&question.check)));
            NumberedOutcome { position, outcome: Outcome::Decided { allowed, as_of, source: Source::Authority } }
        };
        Ok(questions.list.iter().enumerate().map(answer).collect())
    }
}

fn stack(world: &World) -> Arc<dyn Authorizer> {
    let checks = ChecksConfig { calls_in_flight_max: 32, checks_waiting_max: 20_000, ..ChecksConfig::default() };
    // Store and model are named, so that no call is needed to find them.
    let config = OpenFgaConfig {
        checks_per_call: 50,
        timeout: Duration::from_secs(3),
        authorization_model_id: Some("m1".to_owned()),
        ..OpenFgaConfig::new("http://127.0.0.1:1".to_owned(), StoreSelector::Id("s1".to_owned()))
    };
    let openfga = Arc::new(OpenFgaAuthorizer::new(&config).expect("an address"));
    let slow = Arc::new(Slow { cores: Semaphore::new(2), world: world.clone() });
    Arc::new(StackedAuthorizer::new(
        openfga,
        Arc::new(BatchedDecider::new(slow, &config, &checks)),
        Arc::new(Validity::new(None)),
        None,
    ))
}

fn docs(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|doc| format!("doc:{doc}"))
}

#[tokio::test(start_paused = true)]
async fn losing_the_copy_sheds_by_caller_and_never_the_lone_one() {
    for lost_by in ["being found wrong", "being too far behind", "being made anew"] {
        let setup = Setup::new();
        let mut setup = if lost_by == "being found wrong" {
            let standing = serde_json::from_str(r#"{ "trust": "out", "falls": 2 }"#).expect("a standing");
            StandingDirectory::new(setup.directory.path()).write(&standing).expect("written");
            setup.restarted().await
        } else {
            setup
        };
        setup.authorizer.authority = stack(&setup.world);
        setup.world.with(|state| state.server.insert(named("user:modest0", "doc:1")));
        setup.poll();
        let calls = || setup.world.with(|state| state.calls.len());
        match lost_by {
            "being found wrong" => {}
            lost_by => {
                let before = calls();
                assert!(setup.allows("user:modest0", "doc:1").await);
                assert_eq!(calls(), before, "the copy decides before it is lost by {lost_by}");
                if lost_by == "being too far behind" {
                    advance(setup.authorizer.config.staleness_max * 2).await;
                } else {
                    setup.sender.send_modify(|progress| progress.fresh_as_of = None);
                }
            }
        }
        let authorizer = Arc::new(setup.authorizer);
        let ask = |user: String, checks: usize| {
            let authorizer = Arc::clone(&authorizer);
            async move { authorizer.check(&Setup::batch(&user, docs(checks))).await.map(|decisions| decisions.list.len()) }
        };
        let greedy: Vec<_> = (0..GREEDY).map(|_| tokio::spawn(ask("user:greedy".to_owned(), MUCH))).collect();
        // The greedy user comes first.
        tokio::task::yield_now().await;
        let modest: Vec<_> = (0..MODEST)
            .map(|user| {
                let ask = (0..REQUESTS).map(|_| ask(format!("user:modest{user}"), PAGE)).collect::<Vec<_>>();
                tokio::spawn(async move {
                    for asking in ask {
                        let answered = asking.await;
                        assert!(matches!(answered, Ok(PAGE)), "user {user} after {lost_by}: {answered:?}");
                    }
                })
            })
            .collect();
        for modest in modest {
            modest.await.expect("a task");
        }
        let mut shed = 0;
        for greedy in greedy {
            shed += usize::from(greedy.await.expect("a task").is_err());
        }
        assert!(shed > 0, "after {lost_by}: all of {} checks were answered, so nothing was lost", GREEDY * MUCH);

        // Nobody else asks now, so every request is tried, and those that can be in time are answered.
        let alone = ask("user:lone".to_owned(), MUCH).await;
        assert!(matches!(alone, Ok(MUCH)), "after {lost_by}: {alone:?}");
        let alone = ask("user:lone".to_owned(), 10 * MUCH).await;
        assert!(matches!(alone, Err(AuthzError::DeadlineExceeded)), "after {lost_by}: {alone:?}");
    }
}
