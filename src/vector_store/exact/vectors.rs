//! The vectors of a collection.
//!
//! Each vector is kept twice: as f32, and as codes of one byte for each dimension. With 384 dimensions the codes take
//! 392 bytes beside 1,536. A scan computes an upper bound on the score from the codes, which is a quarter of the memory
//! to read. It computes the score itself only where the bound reaches the worst of the best hits so far. So the answer
//! has the same bytes as if every vector were scored.
//!
//! A vector x is `scale · codes` plus a rest of length `error`, and a query y is `step · codes` plus a rest of length
//! f. By Cauchy–Schwarz, x·y ≤ scale · step · (codes · codes) + error · (|y| + f) + |x| · f. The bound also adds what
//! the score may lose to the rounding of f32 (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1).
//!
//! `fearless_simd` compiles the two loops over numbers for each set of vector instructions and chooses the best set at
//! run time, without `unsafe` here; `roaring` brings the crate along anyway. No set rounds a multiplication and an
//! addition together, so all of them give the same bits.

use std::hint::black_box;
use std::ops::Range;

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, i8x32, i16x16, i32x8, u8x32};

/// How many sums are kept side by side. The order of additions is fixed, so the bits are the same on every machine. The
/// compiler can still use vector instructions.
const LANES: usize = 16;

/// The largest absolute value of a vector's code.
const CODE_MAX: u16 = i8::MAX.unsigned_abs() as u16;
/// The largest length of a vector that was scaled to length 1 and rounded.
const LENGTH_MAX: f64 = 1.000_001;
/// An amount that exceeds all rounding errors of the bound itself, which is computed in f64, and all underflows of a score.
const SLACK: f64 = 1e-12;
/// A run may hold one vector that was not asked for, for every `RUN_GAPS_PER` vectors that were.
const RUN_GAPS_PER: usize = 4;
/// The unit in which memory is fetched.
const CACHE_LINE_BYTES: usize = 64;

/// The vectors of a collection, by slot.
#[derive(Default)]
pub(super) struct Vectors {
    dimension: usize,
    len: usize,
    /// The vectors as they are, end to end.
    exact: Vec<f32>,
    /// The rows of all vectors, end to end. A row holds its [`RowHead`] and then the codes, so one vector is one run of
    /// memory.
    rows: Vec<u8>,
}

/// The two numbers that belong to the codes of a vector: their scale, and the length of what they leave out.
struct RowHead {
    scale: f32,
    error: f32,
}

/// The size of a [`RowHead`] in a row.
const ROW_HEAD_BYTES: usize = 2 * size_of::<f32>();

impl Vectors {
    /// Returns the number of vectors.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends a vector. All vectors have the same dimension.
    pub(super) fn push(&mut self, vector: &[f32]) {
        self.dimension = vector.len();
        self.len += 1;
        self.exact.extend_from_slice(vector);
        encode(vector, &mut self.rows);
    }

    /// Moves a vector to a lower slot.
    pub(super) fn relocate(&mut self, from: usize, to: usize) {
        self.exact.copy_within(range(from, self.dimension), to * self.dimension);
        let row_bytes = self.row_bytes();
        self.rows.copy_within(range(from, row_bytes), to * row_bytes);
    }

    /// Drops all but the first `len` vectors.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.exact.truncate(len * self.dimension);
        self.rows.truncate(len * self.row_bytes());
        self.exact.shrink_to_fit();
        self.rows.shrink_to_fit();
    }

    fn row_bytes(&self) -> usize {
        ROW_HEAD_BYTES + self.dimension
    }

    fn row(&self, slot: usize) -> Option<&[u8]> {
        self.rows.get(range(slot, self.row_bytes()))
    }
}

/// Returns the range of one item among items of the same size.
fn range(slot: usize, size: usize) -> Range<usize> {
    slot * size..(slot + 1) * size
}

/// A query that is compared with vectors.
pub(super) struct Probe<'a> {
    vectors: &'a Vectors,
    query: &'a [f32],
    codes: Vec<i16>,
    step: f64,
    /// The factor of `error` in a bound.
    error_weight: f64,
    /// The part of a bound that is the same for all vectors.
    margin: f64,
    level: Level,
}

impl<'a> Probe<'a> {
    /// Prepares a query, which has length 1 and the dimension of the vectors.
    pub(super) fn new(vectors: &'a Vectors, query: &'a [f32]) -> Self {
        let largest = query.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let step = f64::from(largest) / f64::from(query_code_max(query.len()));
        #[expect(clippy::cast_possible_truncation, reason = "no larger than the largest code, which is an i16")]
        let codes: Vec<i16> = query.iter().map(|x| (f64::from(*x) / step).round() as i16).collect();
        let rest = |(x, code): (&f32, &i16)| f64::from(*x) - step * f64::from(*code);
        let rest = length(query.iter().zip(&codes).map(rest));
        let query_length = length(query.iter().map(|x| f64::from(*x)));
        let rounding = rounding_max(query.len()) * LENGTH_MAX * query_length;
        let margin = LENGTH_MAX * rest + rounding + SLACK;
        Self { vectors, query, codes, step, error_weight: query_length + rest, margin, level: Level::new() }
    }

    /// Returns the score of the vector in a slot.
    pub(super) fn score(&self, slot: usize) -> Option<f32> {
        let vector = self.vectors.exact.get(range(slot, self.vectors.dimension))?;
        Some(similarity(self.level, self.query, vector))
    }

    /// Replaces `bounds` with an upper bound on the score of each vector in `slots`.
    pub(super) fn bound(&self, slots: &[usize], bounds: &mut Vec<f64>) {
        bounds.clear();
        // These are plain loops, because an iterator adapter around them would be compiled by itself, without the
        // vector instructions. Each vector instruction would then be a call, which was six times as slow in `cargo
        // bench --bench search`.
        if let Some(run) = run(slots) {
            let start = run.start;
            dispatch!(self.level, simd => simd.vectorize(
                #[inline(always)]
                || for slot in run {
                    bounds.push(self.bound_of(simd, slot));
                }
            ));
            // The slots ascend, so no bound is read after it was overwritten.
            for (place, slot) in slots.iter().enumerate() {
                let bound = bounds.get(slot - start).copied().unwrap_or(f64::INFINITY);
                if let Some(place) = bounds.get_mut(place) {
                    *place = bound;
                }
            }
            bounds.truncate(slots.len());
            return;
        }
        if is_scattered(slots) {
            self.fetch(slots);
        }
        dispatch!(self.level, simd => simd.vectorize(
            #[inline(always)]
            || for slot in slots {
                bounds.push(self.bound_of(simd, *slot));
            }
        ));
    }

    #[expect(clippy::inline_always, reason = "compiled for the instructions of its caller")]
    #[inline(always)]
    fn bound_of<S: Simd>(&self, simd: S, slot: usize) -> f64 {
        match self.vectors.row(slot).and_then(split) {
            Some((head, codes)) => self.of_product(head, product(simd, &self.codes, codes)),
            // A vector that does not exist has no score either.
            None => f64::INFINITY,
        }
    }

    #[inline]
    fn of_product(&self, RowHead { scale, error }: RowHead, product: i32) -> f64 {
        f64::from(scale) * self.step * f64::from(product) + f64::from(error) * self.error_weight + self.margin
    }

    /// Reads a byte of every cache line that the bounds of these vectors need. Otherwise each bound would wait for its
    /// own memory. This way, all of them wait together.
    fn fetch(&self, slots: &[usize]) {
        let of_row = |row: &[u8]| row.iter().step_by(CACHE_LINE_BYTES).fold(0, |all, byte| all ^ byte);
        let rows = slots.iter().filter_map(|slot| self.vectors.row(*slot));
        black_box(rows.fold(0, |all, row| all ^ of_row(row)));
    }
}

/// Returns the slots from the first to the last of `slots`, if these ascend and leave few out. At a million vectors it
/// is faster to read all memory in a row than to skip parts of it, because the processor fetches the next memory ahead.
fn run(slots: &[usize]) -> Option<Range<usize>> {
    let (first, last) = slots.first().zip(slots.last())?;
    let run = *first..last + 1;
    let few_between = slots.len() / RUN_GAPS_PER;
    (run.len() <= slots.len() + few_between && slots.is_sorted_by(|a, b| a < b)).then_some(run)
}

/// Returns whether vectors are so far apart that the processor does not fetch the next one ahead. Slots mostly ascend.
fn is_scattered(slots: &[usize]) -> bool {
    let span = slots.first().zip(slots.last()).map(|(first, last)| first.abs_diff(*last));
    span.is_some_and(|span| span > 2 * slots.len())
}

/// Splits a row into its parts.
fn split(row: &[u8]) -> Option<(RowHead, &[u8])> {
    let (scale, row) = row.split_first_chunk()?;
    let (error, codes) = row.split_first_chunk()?;
    Some((RowHead { scale: f32::from_le_bytes(*scale), error: f32::from_le_bytes(*error) }, codes))
}

/// Returns the cosine similarity of two vectors of length 1.
fn similarity(level: Level, query: &[f32], vector: &[f32]) -> f32 {
    dispatch!(level, simd => simd.vectorize(
        #[inline(always)]
        || {
            let (query, query_rest) = query.as_chunks::<LANES>();
            let (vector, vector_rest) = vector.as_chunks::<LANES>();
            let mut sums = [0.0; LANES];
            for (query, vector) in query.iter().zip(vector) {
                for ((sum, x), y) in sums.iter_mut().zip(query).zip(vector) {
                    *sum += x * y;
                }
            }
            let rest: f32 = query_rest.iter().zip(vector_rest).map(|(x, y)| x * y).sum();
            // Adding zero turns -0.0 into 0.0. Equal scores must have equal bits, or they would not tie.
            sums.iter().sum::<f32>() + rest + 0.0
        }
    ))
}

/// Returns the largest relative error of [`similarity`]. Each product is rounded at most `roundings` times.
fn rounding_max(dimension: usize) -> f64 {
    let roundings = u32::try_from(dimension / LANES + 2 * LANES + 4).unwrap_or(u32::MAX);
    let all = f64::from(roundings) * f64::from(f32::EPSILON) / 2.0;
    all / (1.0 - all)
}

/// Returns the largest absolute value of a query's code, so that no sum of products overflows an i32.
fn query_code_max(dimension: usize) -> i16 {
    let room = i32::MAX.unsigned_abs() / u32::from(CODE_MAX) / u32::try_from(dimension).unwrap_or(u32::MAX).max(1);
    i16::try_from(room).unwrap_or(i16::MAX)
}

/// Returns the dot product of the codes of a query and of a vector. They are whole numbers, so the order of additions
/// does not matter.
#[expect(clippy::inline_always, reason = "compiled for the instructions of its caller")]
#[inline(always)]
fn product<S: Simd>(simd: S, query: &[i16], vector: &[u8]) -> i32 {
    let (query, query_rest) = query.as_chunks::<{ 2 * LANES }>();
    let (vector, vector_rest) = vector.as_chunks::<{ 2 * LANES }>();
    let mut sums = i32x8::splat(simd, 0);
    for (query, vector) in query.iter().zip(vector) {
        let (low_query, high_query) = query.split_at(LANES);
        let codes: i8x32<S> = u8x32::from_slice(simd, vector).bitcast();
        let (low, high) = codes.widen();
        sums += low.pairwise_dot_product(i16x16::from_slice(simd, low_query));
        sums += high.pairwise_dot_product(i16x16::from_slice(simd, high_query));
    }
    let sums: [i32; 8] = sums.into();
    let rest = query_rest.iter().zip(vector_rest).map(|(x, y)| i32::from(*x) * i32::from(y.cast_signed()));
    sums.into_iter().chain(rest).sum()
}

/// Appends the row of a vector to `rows`.
fn encode(vector: &[f32], rows: &mut Vec<u8>) {
    let largest = vector.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let code_max = f32::from(CODE_MAX);
    let scale = largest / code_max;
    #[expect(clippy::cast_possible_truncation, reason = "no larger than the largest code")]
    let codes: Vec<i8> = vector.iter().map(|x| (x / scale).round().clamp(-code_max, code_max) as i8).collect();
    let rest = |(x, code): (&f32, &i8)| f64::from(*x) - f64::from(scale) * f64::from(*code);
    let rest = length(vector.iter().zip(&codes).map(rest));
    let is_long = length(vector.iter().map(|x| f64::from(*x))) > LENGTH_MAX;
    // The bound does not hold for a vector that is too long, nor for NaN, so such a vector is always scored.
    let error = if is_long || rest.is_nan() { f32::INFINITY } else { above(rest) };
    rows.extend(scale.to_le_bytes());
    rows.extend(error.to_le_bytes());
    rows.extend(codes.iter().map(|code| code.cast_unsigned()));
}

/// Rounds up to an f32.
fn above(number: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounded up")]
    (number as f32).next_up()
}

/// Returns the length of a vector, enlarged by more than any rounding error.
fn length(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|x| x * x).sum::<f64>().sqrt() * (1.0 + SLACK)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::vector_store::direction::normalized;

    /// Makes numbers of very different sizes, many of them equal.
    fn numbers() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -1.0_f32..1.0,
            2 => prop::sample::select([-1.0_f32, 0.0, 1.0, 0.5].as_slice()),
            1 => prop::sample::select([1e-30_f32, -1e-20, 1e20, 1e-45, f32::MAX].as_slice()),
        ]
    }

    fn vectors(dimension: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(numbers(), dimension).prop_filter("a direction", |v| v.iter().any(|x| *x != 0.0))
    }

    fn check(query: &[f32], stored: &[Vec<f32>]) {
        let query = normalized(query);
        let mut vectors = Vectors::default();
        for vector in stored {
            vectors.push(&normalized(vector));
        }
        let probe = Probe::new(&vectors, &query);
        let slots: Vec<usize> = (0..vectors.len()).collect();
        let mut bounds = Vec::new();
        probe.bound(&slots, &mut bounds);
        assert_eq!(bounds.len(), stored.len());
        for ((slot, vector), bound) in slots.into_iter().zip(stored).zip(bounds) {
            let score = probe.score(slot).unwrap();
            assert!(f64::from(score) <= bound, "{score} is above {bound}: {query:?} and {vector:?}");
            // A bound that excludes nothing would be correct as well, but useless.
            let loose = 0.02 * (f64::from(u32::try_from(query.len()).unwrap())).sqrt();
            assert!(bound - f64::from(score) < loose, "{bound} is far above {score}");
        }
    }

    proptest! {
        #[test]
        fn no_score_is_above_its_bound(
            (query, stored) in prop::sample::select([1_usize, 2, 15, 16, 33, 384, 4_096].as_slice())
                .prop_flat_map(|dimension| (vectors(dimension), prop::collection::vec(vectors(dimension), 1..6)))
        ) {
            // Also store the query itself, and the vector that is farthest from it.
            let opposite: Vec<f32> = query.iter().map(|x| -x).collect();
            let stored: Vec<Vec<f32>> = stored.into_iter().chain([query.clone(), opposite]).collect();
            check(&query, &stored);
        }
    }

    #[test]
    fn a_bound_is_the_same_whatever_else_is_asked_for() {
        let mut vectors = Vectors::default();
        for number in 0..40_u8 {
            vectors.push(&normalized(&[1.0, f32::from(number), 0.5]));
        }
        let probe = Probe::new(&vectors, &[1.0, 0.0, 0.0]);
        let bounds_of = |slots: &[usize]| {
            // The bounds of an earlier call must not remain.
            let mut bounds = vec![0.0; 3];
            probe.bound(slots, &mut bounds);
            bounds
        };
        let alone: Vec<f64> = (0..40).flat_map(|slot| bounds_of(&[slot])).collect();
        let distinct: HashSet<u64> = alone.iter().map(|bound| bound.to_bits()).collect();
        assert_eq!(distinct.len(), 40, "a wrong one would not show: {alone:?}");
        let ascending = |step: usize| (0..40).filter(|slot| slot % step != 2).collect::<Vec<usize>>();
        let descending = (0..40).rev().collect();
        let out_of_order = vec![0, 2, 1, 3, 4, 5, 6, 7];
        // The last slot does not exist.
        let past_the_end = (30..41).collect();
        let doubled = vec![0, 1, 2, 2, 3, 4, 5];
        let all = [ascending(3), ascending(6), ascending(100), descending, out_of_order, past_the_end, doubled, vec![]];
        for slots in all {
            let expected: Vec<f64> =
                slots.iter().map(|slot| alone.get(*slot).copied().unwrap_or(f64::INFINITY)).collect();
            assert_eq!(bounds_of(&slots), expected, "{slots:?}");
        }
    }

    #[test]
    fn a_product_is_the_plain_sum() {
        for dimension in [0, 1, 31, 32, 33, 100, 384] {
            let query: Vec<i16> = (0..dimension).map(|place| place * 7 % 301 - 150).collect();
            let vector: Vec<i8> = (0..dimension).map(|place| i8::try_from(place * 11 % 255 - 127).unwrap()).collect();
            let plain: i32 = query.iter().zip(&vector).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum();
            let codes: Vec<u8> = vector.iter().map(|code| code.cast_unsigned()).collect();
            assert_eq!(dispatch!(Level::new(), simd => product(simd, &query, &codes)), plain, "{dimension}");
        }
    }

    #[test]
    fn the_largest_codes_do_not_overflow() {
        for dimension in [1, 384, 4_096, 65_536] {
            let codes = vec![query_code_max(dimension); dimension];
            let expected =
                i64::from(query_code_max(dimension)) * i64::from(CODE_MAX) * i64::try_from(dimension).unwrap();
            let largest = vec![i8::MAX.cast_unsigned(); dimension];
            let product = dispatch!(Level::new(), simd => product(simd, &codes, &largest));
            assert_eq!(i64::from(product), expected, "{dimension}");
        }
    }

    #[test]
    fn what_is_no_vector_of_length_1_is_never_skipped() {
        let mut vectors = Vectors::default();
        vectors.push(&[2.0, 0.0]);
        vectors.push(&[f32::NAN, 0.0]);
        let query = [1.0, 0.0];
        let probe = Probe::new(&vectors, &query);
        let mut bounds = Vec::new();
        probe.bound(&[0, 1], &mut bounds);
        assert!(bounds.len() == 2 && bounds.iter().all(|bound| !bound.is_finite()), "{bounds:?}");
    }
}
