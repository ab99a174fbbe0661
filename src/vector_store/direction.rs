//! A cosine is a product of directions.

/// The vector's direction: the same vector with length 1.
#[expect(clippy::cast_possible_truncation, reason = "vectors are stored as f32")]
pub(super) fn normalized(vector: &[f32]) -> Vec<f32> {
    // In f64 the squares of the largest and of the smallest f32 are still finite and not zero.
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    vector.iter().map(|x| (f64::from(*x) / length) as f32).collect()
}
