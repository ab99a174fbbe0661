//! The figures of a ranking: recall@k, the reciprocal rank and nDCG@k. Nothing here asks anybody.

use std::collections::BTreeMap;

/// The figures of one answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    /// The share of the expected documents that came.
    pub(super) recall: f64,
    /// One divided by the rank of the first expected document; 0 if none came.
    pub(super) reciprocal_rank: f64,
    /// The gain of what came, each discounted by the logarithm of its rank, as a share of the most that is possible
    /// (Järvelin and Kekäläinen 2002, with the gains as they are).
    pub(super) ndcg: f64,
}

impl Figures {
    /// Compares the first `k` documents of a ranking with the gains of the expected ones. Returns `None` if nothing is
    /// expected.
    pub(super) fn of(ranking: &[String], gains: &BTreeMap<String, f64>, k: u32) -> Option<Self> {
        if gains.is_empty() {
            return None;
        }
        let (mut found, mut first, mut gained) = (0_u32, None, 0.0);
        for (rank, document_id) in (1..=k).zip(ranking) {
            if let Some(gain) = gains.get(document_id) {
                found += 1;
                first = first.or(Some(rank));
                gained += discounted(*gain, rank);
            }
        }
        let mut best: Vec<f64> = gains.values().copied().collect();
        best.sort_by(|a, b| b.total_cmp(a));
        let ideal: f64 = (1..=k).zip(best).map(|(rank, gain)| discounted(gain, rank)).sum();
        let expected = u32::try_from(gains.len()).unwrap_or(u32::MAX);
        Some(Self {
            recall: f64::from(found) / f64::from(expected),
            reciprocal_rank: first.map_or(0.0, |rank| 1.0 / f64::from(rank)),
            ndcg: gained / ideal,
        })
    }
}

fn discounted(gain: f64, rank: u32) -> f64 {
    gain / (1.0 + f64::from(rank)).log2()
}

/// The sums of the figures of some answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// The number of answers.
    pub(super) counted: u32,
    recall: f64,
    reciprocal_rank: f64,
    ndcg: f64,
}

impl Sums {
    pub(super) fn add(&mut self, figures: Figures) {
        self.counted += 1;
        self.recall += figures.recall;
        self.reciprocal_rank += figures.reciprocal_rank;
        self.ndcg += figures.ndcg;
    }

    /// Returns the means; `None` if nothing was counted.
    pub(super) fn means(&self) -> Option<Figures> {
        let mean = |sum: f64| sum / f64::from(self.counted);
        (self.counted > 0).then(|| Figures {
            recall: mean(self.recall),
            reciprocal_rank: mean(self.reciprocal_rank),
            ndcg: mean(self.ndcg),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row: its name, the ranking, the gains, k, and the figures.
    type Row<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, f64)], u32, Option<[f64; 3]>);

    /// Computed by hand: 1 / log2(2) = 1, 1 / log2(3) = 0.630930, 1 / log2(4) = 0.5.
    #[test]
    fn figures_are_those_computed_by_hand() {
        let rows: [Row<'_>; 11] = [
            ("nothing expected", &["a"], &[], 3, None),
            ("the only one, first", &["a", "x"], &[("a", 1.0)], 3, Some([1.0, 1.0, 1.0])),
            ("the only one, second", &["x", "a"], &[("a", 1.0)], 3, Some([1.0, 0.5, 0.630_930])),
            ("the only one, third", &["x", "y", "a"], &[("a", 1.0)], 3, Some([1.0, 1.0 / 3.0, 0.5])),
            ("the only one, too late", &["x", "y", "z", "a"], &[("a", 1.0)], 3, Some([0.0, 0.0, 0.0])),
            ("no answer", &[], &[("a", 1.0)], 3, Some([0.0, 0.0, 0.0])),
            // 1 / (1 + 0.630930)
            ("one of two", &["a", "x"], &[("a", 1.0), ("b", 1.0)], 3, Some([0.5, 1.0, 0.613_147])),
            // (0.630930 + 0.5) / (1 + 0.630930)
            ("both, late", &["x", "a", "b"], &[("a", 1.0), ("b", 1.0)], 3, Some([1.0, 0.5, 0.693_426])),
            // (1 + 3 · 0.630930) / (3 + 0.630930)
            ("the better one later", &["b", "a"], &[("a", 3.0), ("b", 1.0)], 3, Some([1.0, 1.0, 0.796_707])),
            ("the better one first", &["a", "b"], &[("a", 3.0), ("b", 1.0)], 3, Some([1.0, 1.0, 1.0])),
            // More are expected than one answer has, so the ideal has only one, too.
            ("more than k", &["a"], &[("a", 1.0), ("b", 1.0)], 1, Some([0.5, 1.0, 1.0])),
        ];
        for (row, ranking, gains, k, expected) in rows {
            let ranking: Vec<String> = ranking.iter().map(|id| (*id).to_owned()).collect();
            let gains: BTreeMap<String, f64> = gains.iter().map(|(id, gain)| ((*id).to_owned(), *gain)).collect();
            let figures = Figures::of(&ranking, &gains, k);
            assert_eq!(figures.is_some(), expected.is_some(), "{row}");
            if let (Some(found), Some([recall, reciprocal_rank, ndcg])) = (figures, expected) {
                let pairs = [(found.recall, recall), (found.reciprocal_rank, reciprocal_rank), (found.ndcg, ndcg)];
                assert!(pairs.iter().all(|(found, expected)| (found - expected).abs() < 1e-6), "{row}: {found:?}");
            }
        }
    }

    #[test]
    fn means_are_over_answers() {
        let figures = |recall, reciprocal_rank, ndcg| Figures { recall, reciprocal_rank, ndcg };
        let mut sums = Sums::default();
        assert_eq!(sums.means(), None, "nothing was counted");
        sums.add(figures(1.0, 0.5, 0.25));
        sums.add(figures(0.0, 0.0, 0.75));
        assert_eq!((sums.counted, sums.means()), (2, Some(figures(0.5, 0.25, 0.5))));
    }
}
