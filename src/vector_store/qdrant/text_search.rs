//! Text and hybrid queries.
//!
//! INVARIANT (visible set alone): the corpus of a text query is one list of visible guards. A list of all but the hidden guards
//! would also hold guards that are newer than the list, and several parts would each have statistics of their own. So a
//! query whose visible guards are not known, or do not fit one filter, is refused.

use std::collections::HashMap;

use qdrant_client::qdrant::{Condition, Filter as QdrantFilter, ValuesCount};

use super::fields::TEXT_ANALYSIS;
use super::search::{Question, TextQuestion};
use super::sparse_text;
use super::{QdrantStore, filter};
use crate::chunk::Candidate;
use crate::vector_store::remote::server_search::NOTHING;
use crate::vector_store::remote::space_parts::SpacePart;
use crate::vector_store::remote::text_support::TextSupport;
use crate::vector_store::{HYBRID_DEPTH, Query, Rest, Search, SearchSpace, Searched, VectorStoreError, rank_share};

impl QdrantStore {
    pub(super) async fn find_by_text(&self, search: &Search, text: &str) -> Result<Searched, VectorStoreError> {
        let overview = self.overview(&search.collection).await?;
        let is_whole = match &overview.text {
            TextSupport::Whole => true,
            TextSupport::InParts => false,
            TextSupport::Absent => return Err(no_texts(search, "its points have no vectors of their texts")),
            TextSupport::Refused(why) => return Err(no_texts(search, why)),
        };
        let Some(question) = self.text_question(search, text)? else { return Ok(NOTHING) };
        let visible = question.visible.clone();
        if overview.has_unmarked_texts && Box::pin(self.count_unmarked(&search.collection, visible)).await? > 0 {
            let why = "some of its chunks were written without text search, or with another one; ingest them again";
            return Err(no_texts(search, why));
        }
        self.check_corpus_is_known().await?;
        let searched = self.find_by(search, Question::Text(&question)).await;
        // An older node that took over refuses the search itself. This says why.
        self.check_corpus_is_known().await?;
        let searched = searched?;
        Ok(Searched { exact: searched.exact && is_whole, ..searched })
    }

    /// Merges both rankings by reciprocal rank fusion. Qdrant could do that, too, but it would cut its rankings before.
    pub(super) async fn find_hybrid(
        &self,
        search: &Search,
        text: &str,
        vector: &[f32],
    ) -> Result<Searched, VectorStoreError> {
        let answer_max = self.limits(&search.collection).answer_max;
        let depth = HYBRID_DEPTH.min(answer_max);
        let ranking = |query: Query| Search {
            query,
            limit: depth,
            enough: depth,
            min_score: None,
            per_document_max: None,
            ..search.clone()
        };
        let by_text = self.find_by_text(&ranking(Query::Text(text.to_owned())), text).await?;
        let by_vector = self.find_by_vector(&ranking(Query::Vector(vector.to_vec())), vector).await?;
        let mut searched = fused(search, [by_text, by_vector]);
        searched.exact &= depth == HYBRID_DEPTH;
        Ok(searched)
    }

    /// Returns the question that a text query puts to Qdrant; `None` if nothing can match.
    ///
    /// # Errors
    /// [`VectorStoreError::Unsupported`] when the visible set is not known, or is not one list.
    pub(super) fn text_question(&self, search: &Search, text: &str) -> Result<Option<TextQuestion>, VectorStoreError> {
        let query = sparse_text::of_query(text, &self.languages.of(&search.collection))?;
        if search.narrowing.is_some() {
            return Err(no_texts(search, "Qdrant cannot count statistics over what the details of a token leave"));
        }
        let SearchSpace::Guards { table, positions } = &search.space else {
            return Err(no_texts(search, "it is not known what the user may see"));
        };
        let guards_max = self.config.guards_per_filter_max.min(self.limits(&search.collection).values_max);
        let Some(guards) = SpacePart::listed(table, positions, guards_max) else {
            let why =
                "the user may see more guards than one filter takes (`vector_store.qdrant.guards_per_filter_max`)";
            return Err(no_texts(search, why));
        };
        let Some(text) = query.filter(|_| !guards.is_empty()) else { return Ok(None) };
        let layout = self.layout(&search.collection);
        // A list of guards is no guard, and its point is never returned. Another program may have written one, so its point must
        // not count either.
        let one = ValuesCount { gte: Some(1), lte: Some(1), ..ValuesCount::default() };
        let only_one = Condition::values_count(layout.guard.key(), one);
        let visible = vec![filter::guard_in(layout, guards), only_one];
        let marked = filter::text(TEXT_ANALYSIS, self.text_form(&search.collection).name());
        let corpus = QdrantFilter::must(visible.iter().cloned().chain([marked]));
        Ok(Some(TextQuestion { text, visible, corpus }))
    }
}

fn no_texts(search: &Search, why: &str) -> VectorStoreError {
    VectorStoreError::Unsupported(format!("collection `{}` takes no text query here: {why}", search.collection))
}

/// A chunk of at least one ranking.
struct Fused {
    score: f64,
    candidate: Candidate,
}

/// Merges two rankings, each best first.
fn fused(search: &Search, rankings: [Searched; 2]) -> Searched {
    let exact = rankings.iter().all(|ranking| ranking.exact);
    let gave_up = rankings.iter().any(|ranking| ranking.rest == Rest::Unknown);
    let mut merged: HashMap<String, Fused> = HashMap::new();
    for ranking in rankings {
        for (rank, candidate) in (1_u32..).zip(ranking.candidates) {
            let chunk = merged.entry(candidate.chunk_id.clone()).or_insert(Fused { score: 0.0, candidate });
            chunk.score += rank_share(rank);
        }
    }
    let mut candidates: Vec<Candidate> = Vec::with_capacity(merged.len());
    for Fused { score, candidate } in merged.into_values() {
        #[expect(clippy::cast_possible_truncation, reason = "the score's type is f32; rounded here, once")]
        let score = score as f32;
        candidates.push(Candidate { score, ..candidate });
    }
    candidates.retain(|found| search.min_score.is_none_or(|least| f64::from(found.score) >= least));
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.chunk_id.cmp(&b.chunk_id)));
    let rest = match (candidates.len() > search.limit, gave_up) {
        (true, _) => Rest::Further,
        (false, true) => Rest::Unknown,
        (false, false) => Rest::Nothing,
    };
    candidates.truncate(search.limit);
    Searched { candidates, exact, rest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Written;
    use crate::language::Object;

    fn ranking(ids: &[&str], rest: Rest) -> Searched {
        let candidate = |id: &&str| Candidate {
            chunk_id: (*id).to_owned(),
            guard: Object::parse("document:a").expect("an object"),
            score: 1.0,
            version: None,
            written: Written::Unknown,
        };
        Searched { candidates: ids.iter().map(candidate).collect(), exact: true, rest }
    }

    /// A row: its name, both rankings, the least score, the limit, and what is found.
    type Row<'a> = (&'a str, [Searched; 2], Option<f64>, usize, &'a [&'a str], Rest);

    #[test]
    fn two_rankings_become_one() {
        let (nothing, further) = (Rest::Nothing, Rest::Further);
        let both = || [ranking(&["a", "b"], nothing), ranking(&["b", "c"], nothing)];
        let rows: [Row<'_>; 7] = [
            ("nothing", [ranking(&[], nothing), ranking(&[], nothing)], None, 10, &[], nothing),
            // b: 1/62 + 1/61, a: 1/61, c: 1/62
            ("in both", both(), None, 10, &["b", "a", "c"], nothing),
            ("as many as are wanted", both(), None, 3, &["b", "a", "c"], nothing),
            ("more than are wanted", both(), None, 2, &["b", "a"], further),
            ("above a score", both(), Some(1.0 / 61.5), 10, &["b", "a"], nothing),
            ("equal ranks", [ranking(&["y"], nothing), ranking(&["x"], nothing)], None, 10, &["x", "y"], nothing),
            ("one gave up", [ranking(&["a"], Rest::Unknown), ranking(&[], further)], None, 10, &["a"], Rest::Unknown),
        ];
        for (row, rankings, min_score, limit, expected, rest) in rows {
            let search = Search {
                collection: "c".to_owned(),
                query: Query::Text("a".to_owned()),
                filter: None,
                space: SearchSpace::Everything,
                narrowing: None,
                min_score,
                per_document_max: None,
                limit,
                enough: limit,
            };
            let found = super::fused(&search, rankings);
            let ids: Vec<&str> = found.candidates.iter().map(|candidate| candidate.chunk_id.as_str()).collect();
            assert_eq!((ids.as_slice(), found.rest, found.exact), (expected, rest, true), "{row}");
        }
    }
}
