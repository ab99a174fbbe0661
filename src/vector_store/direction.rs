//! Directions of vectors. The cosine similarity of two vectors is the dot product of their directions.

/// Scales a vector to length 1.
#[expect(clippy::cast_possible_truncation, reason = "vectors are stored as f32")]
pub(super) fn normalized(vector: &[f32]) -> Vec<f32> {
    // In f64, the square of every finite f32 is finite, and only the square of zero is zero.
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    vector.iter().map(|x| (f64::from(*x) / length) as f32).collect()
}
