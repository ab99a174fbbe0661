//! Tests that nothing leaks when hints are wrong in every way and relationships change while a request runs. A hint
//! that shows too much must cost the answer no chunk either.

use super::*;

#[tokio::test]
async fn a_stale_pre_filter_leaks_nothing_and_is_refilled() {
    let mixed = mixed();
    let guards: Vec<&str> = mixed.iter().map(String::as_str).collect();
    for lie in Lie::ALL {
        for (local, query) in plans() {
            let shelf = shelf(&guards, Fault::None);
            let authorizer = Arc::new(OpenOnly { local, hint: Some(lie) });
            let retriever =
                Retriever::new(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
            let retrieval = ask(&retriever, parts(query, 10)).await.unwrap();
            assert_no_shut_text_was_read(&shelf);
            assert!(retrieval.chunks.iter().all(|r| r.chunk.item().guard.id() != "shut"), "{lie:?}");
            // A chunk that a hint hides is not looked for. Where a hint shows too much, the answer is filled up.
            if matches!(lie, Lie::Truth | Lie::Everything) {
                let all = (0..60).filter(|number| number % 3 != 0).map(|number| format!("{number:04}"));
                assert_eq!(ids(&retrieval), all.take(10).collect::<Vec<_>>(), "{lie:?}");
                assert_eq!(retrieval.completion, Completion::Complete);
            }
            if matches!(lie, Lie::Nothing | Lie::Inverted | Lie::Elsewhere) {
                assert_eq!((retrieval.chunks.len(), retrieval.completion), (0, Completion::Exhausted), "{lie:?}");
            }
        }
    }
}

#[tokio::test]
async fn guards_that_all_changed_are_not_released_and_are_refilled() {
    let mixed = mixed();
    let guards: Vec<&str> = mixed.iter().map(String::as_str).collect();
    for fault in [Fault::GuardsSwapped, Fault::GuardsSwappedOnce] {
        for hint in [None, Some(Lie::Truth), Some(Lie::Everything)] {
            for (local, query) in plans() {
                let authorizer = Arc::new(OpenOnly { local, hint });
                let retriever = Retriever::new(authorizer, shelf(&guards, fault), configured(), pages());
                let retrieval = ask(&retriever, parts(query.clone(), 10)).await.unwrap();
                let all = (0..60).filter(|number| number % 3 != 0).map(|number| format!("{number:04}"));
                let expected: Vec<String> = all.take(if fault == Fault::GuardsSwapped { 0 } else { 10 }).collect();
                assert_eq!(ids(&retrieval), expected, "{fault:?}, {hint:?}, {query:?}");
            }
        }
    }
}

/// Revokes `open1` between two calls that a request makes.
struct Revoking {
    shelf: Arc<Shelf>,
    authorizer: OpenOnly,
    /// How many calls were made so far.
    calls: AtomicUsize,
    /// The first call that finds it revoked.
    revoked_from: usize,
    /// The last call that checked it.
    checked_in: AtomicUsize,
}

impl Revoking {
    fn call(&self) -> usize {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[async_trait]
impl Authorizer for Revoking {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let call = self.call();
        let mut decisions = self.authorizer.check(batch).await?;
        for (decision, check) in decisions.list.iter_mut().zip(&batch.checks) {
            if check.object.id() == "open1" {
                self.checked_in.store(call, Ordering::Relaxed);
                decision.allowed = call < self.revoked_from;
            }
        }
        Ok(decisions)
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let call = self.call();
        let Some(VisiblePositions { positions, by }) = self.authorizer.visible_set(query).await? else {
            return Ok(None);
        };
        let revoked = |at: u32| query.guards[at as usize].id() == "open1" && call >= self.revoked_from;
        let positions = Arc::new(positions.iter().filter(|at| !revoked(*at)).collect());
        Ok(Some(VisiblePositions { positions, by }))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        self.authorizer.readiness().await
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { checks_are_local: self.authorizer.local, ..Abilities::default() }
    }
}

#[async_trait]
impl VectorStore for Revoking {
    async fn collection(&self, name: &str) -> Result<CollectionInfo, VectorStoreError> {
        self.call();
        self.shelf.collection(name).await
    }

    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        self.call();
        self.shelf.guards(collection).await
    }

    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        self.call();
        self.shelf.search(search).await
    }

    async fn find(&self, collection: &str, ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError> {
        self.call();
        self.shelf.find(collection, ids).await
    }

    async fn read_metadata(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError> {
        self.call();
        self.shelf.read_metadata(collection, search, found).await
    }

    async fn read(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        self.call();
        self.shelf.read(collection, search, found).await
    }
}

#[tokio::test]
async fn a_revocation_between_any_two_steps_counts_from_the_next_check() {
    let (mut released, mut withheld) = (0, 0);
    for hint in [None, Some(Lie::Truth)] {
        for (local, query) in plans() {
            for revoked_from in 1.. {
                let revoking = Arc::new(Revoking {
                    shelf: shelf(&["open1", "shut", "open2", "open1", "open3"], Fault::None),
                    authorizer: OpenOnly { local, hint },
                    calls: AtomicUsize::new(0),
                    revoked_from,
                    checked_in: AtomicUsize::new(0),
                });
                let authorizer = Arc::clone(&revoking) as Arc<dyn Authorizer>;
                let store = Arc::clone(&revoking) as Arc<dyn VectorStore>;
                let retriever = Retriever::new(authorizer, store, configured(), pages());
                let retrieval = ask(&retriever, parts(query.clone(), 3)).await.unwrap();
                let calls = revoking.calls.load(Ordering::Relaxed);
                let is_seen = revoking.checked_in.load(Ordering::Relaxed);
                let expected: &[&str] =
                    if (1..revoked_from).contains(&is_seen) { &["0000", "0002", "0003"] } else { &["0002", "0004"] };
                assert_eq!(ids(&retrieval), expected, "{hint:?}, {query:?}, revoked from call {revoked_from}");
                if expected.len() == 3 {
                    released += 1;
                } else {
                    withheld += 1;
                }

                // A re-check tells only what may still be seen.
                let held = ["0000", "0002"].map(str::to_owned).to_vec();
                let (anne, handbook) = (NamedPrincipal::stated("user:anne"), "handbook".to_owned());
                let request = RecheckRequest::new(anne, handbook, held, Consistency::default()).unwrap();
                let left = retriever.recheck(&request, Instant::now() + PATIENCE).await.unwrap();
                let left: Vec<String> =
                    left.candidates.into_iter().map(|candidate| candidate.into_item().chunk_id).collect();
                if revoked_from <= calls {
                    assert_eq!(left, ["0002"], "revoked from call {revoked_from}");
                } else {
                    break;
                }
            }
        }
    }
    assert!(released > 6 && withheld > 6, "{released} released, {withheld} withheld");
}

/// Decides each check, and fails to tell a visible set.
struct ListsFail {
    error: AuthzError,
    lists: AtomicUsize,
}

#[async_trait]
impl Authorizer for ListsFail {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        OpenOnly { local: false, hint: None }.check(batch).await
    }

    async fn visible_set(&self, _query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        Err(self.error.clone())
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { lists_by_call: true, ..Abilities::default() }
    }
}

#[tokio::test]
async fn a_list_that_fails_is_done_without_and_seldom_tried_again() {
    let mixed = mixed();
    let guards: Vec<&str> = mixed.iter().map(String::as_str).collect();
    let errors = [
        AuthzError::Unavailable("timeout due to throttling on complex request".to_owned()),
        AuthzError::BadAnswer("a name that is none".to_owned()),
        AuthzError::Overloaded { retry_after: Duration::from_secs(1) },
    ];
    for error in errors {
        let authorizer = Arc::new(ListsFail { error: error.clone(), lists: AtomicUsize::new(0) });
        let shelf = shelf(&guards, Fault::None);
        let asking = Arc::clone(&authorizer) as Arc<dyn Authorizer>;
        let retriever = Retriever::new(asking, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
        for _ in 0..100 {
            let retrieval = ask(&retriever, parts(Query::Vector(vec![1.0, 0.0]), 10)).await.unwrap();
            let all = (0..60).filter(|number| number % 3 != 0).map(|number| format!("{number:04}"));
            assert_eq!(ids(&retrieval), all.take(10).collect::<Vec<_>>(), "{error}");
        }
        assert_no_shut_text_was_read(&shelf);
        let lists = authorizer.lists.load(Ordering::Relaxed);
        assert!((1..=2).contains(&lists), "{error}: {lists} lists");
    }
}

/// Decides checks locally, but sends them to a server where higher consistency is asked for.
struct CopyOfServer {
    asked: AtomicUsize,
}

#[async_trait]
impl Authorizer for CopyOfServer {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        if !self.abilities(batch.consistency).checks_are_local {
            self.asked.fetch_add(batch.checks.len(), Ordering::Relaxed);
        }
        OpenOnly { local: false, hint: None }.check(batch).await
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }

    fn abilities(&self, consistency: Consistency) -> Abilities {
        Abilities { checks_are_local: consistency != Consistency::HigherConsistency, ..Abilities::default() }
    }
}

/// A copy makes checks cheap only for the requests that it decides.
#[tokio::test]
async fn a_server_is_not_asked_about_every_guard_for_a_copy_beside_it() {
    let mixed = mixed();
    let guards: Vec<&str> = mixed.iter().map(String::as_str).collect();
    let authorizer = Arc::new(CopyOfServer { asked: AtomicUsize::new(0) });
    let retriever = Retriever::new(
        Arc::clone(&authorizer) as Arc<dyn Authorizer>,
        shelf(&guards, Fault::None),
        configured(),
        pages(),
    );
    let parts = parts(Query::Vector(vec![1.0, 0.0]), 2);
    let parts = RetrievalParts { consistency: Consistency::HigherConsistency, ..parts };
    assert_eq!(ids(&ask(&retriever, parts).await.unwrap()), ["0001", "0002"]);
    let asked = authorizer.asked.load(Ordering::Relaxed);
    assert!((2..=6).contains(&asked), "{asked} checks of 41 guards for 2 chunks");
}

#[tokio::test]
async fn an_empty_visible_set_is_an_empty_answer_in_every_plan() {
    for hint in [None, Some(Lie::Truth)] {
        for fault in [Fault::None, Fault::NoTable, Fault::OneScore] {
            for (local, query) in plans() {
                let needs_table = matches!(query, Query::Text(_));
                let authorizer = Arc::new(OpenOnly { local, hint });
                let retriever = Retriever::new(authorizer, shelf(&["shut"; 30], fault), configured(), pages());
                let retrieval = ask(&retriever, parts(query, 10)).await;
                if fault == Fault::NoTable && needs_table {
                    assert!(matches!(retrieval, Err(RetrievalError::Unsupported(_))));
                    continue;
                }
                let retrieval = retrieval.unwrap();
                assert_eq!((retrieval.chunks.len(), retrieval.completion), (0, Completion::Exhausted));
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_pass_rate_costs_rounds_and_changes_no_answer() {
    let mixed = mixed();
    let guards: Vec<&str> = mixed.iter().map(String::as_str).collect();
    let vector = || Query::Vector(vec![1.0, 0.0]);
    for learned_from in ["open", "shut"] {
        let shelf = shelf(&[learned_from; 90], Fault::NoTable);
        let authorizer = Arc::new(OpenOnly { local: false, hint: None });
        let retriever = Retriever::new(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
        for _ in 0..5 {
            ask(&retriever, parts(vector(), 10)).await.unwrap();
        }
        // Now other chunks are open.
        let other = super::shelf(&guards, Fault::NoTable);
        *shelf.chunks.lock().unwrap() = other.chunks.lock().unwrap().clone();
        let retrieval = ask(&retriever, parts(vector(), 10)).await.unwrap();
        let all = (0..60).filter(|number| number % 3 != 0).map(|number| format!("{number:04}"));
        assert_eq!(ids(&retrieval), all.take(10).collect::<Vec<_>>(), "learned from {learned_from}");
        assert_eq!(retrieval.completion, Completion::Complete);
    }
}
