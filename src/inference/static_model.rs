//! A model in a folder: a table with a vector for each token, as `Model2Vec` and `WordLlama` make them. The vector of a text is the
//! mean of those of its tokens. Nothing leaves this machine, and nothing is downloaded.
//!
//! The folder holds `tokenizer.json` and `model.safetensors`, which has one table. Both are read whole when the server starts.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use safetensors::{Dtype, SafeTensors};
use tokenizers::Tokenizer;

use super::{Embedder, InferenceSetupError, ModelFault};
use crate::blocking_pool::BlockingPool;

/// The largest file of a tokenizer in bytes. That of a vocabulary of 250,000 tokens has 20 MiB.
const TOKENIZER_BYTES_MAX: u64 = 64 * 1_024 * 1_024;
/// The largest file of a table in bytes: 500,000 tokens with 512 numbers of 32 bits each.
const TABLE_BYTES_MAX: u64 = 1_024 * 1_024 * 1_024;
/// The widest vectors of a table, as wide as those that stores take.
const DIMENSION_MAX: usize = 4_096;

/// A model in a folder, and the threads that it computes on.
pub(super) struct StaticEmbedder {
    model: Arc<StaticModel>,
    pool: BlockingPool,
}

struct StaticModel {
    tokenizer: Tokenizer,
    /// The vectors of all tokens, one after the other.
    table: Vec<f32>,
    dimension: usize,
}

impl StaticEmbedder {
    /// Reads the model of a folder.
    ///
    /// # Errors
    /// When a file cannot be read, is damaged, or does not fit the other one. The text names the file.
    pub(super) fn open(folder: &Path) -> Result<Self, InferenceSetupError> {
        let model = StaticModel::open(folder)
            .map_err(|fault| InferenceSetupError(format!("`embedding.folder` `{}`: {fault}", folder.display())))?;
        Ok(Self { model: Arc::new(model), pool: BlockingPool::cpu_bound() })
    }
}

#[async_trait]
impl Embedder for StaticEmbedder {
    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ModelFault> {
        let (model, texts) = (Arc::clone(&self.model), texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let embedding = self.pool.run(move || texts.iter().map(|text| model.vector(text)).collect());
        embedding.await.map_err(|_lost| ModelFault::Unreachable)?
    }
}

impl StaticModel {
    fn open(folder: &Path) -> Result<Self, String> {
        let bytes = read(folder, "tokenizer.json", TOKENIZER_BYTES_MAX)?;
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|_damaged| "`tokenizer.json` is no tokenizer")?;
        // Some tokenizers cut texts, or fill them up for batches of a fixed length.
        tokenizer.with_padding(None);
        if tokenizer.with_truncation(None).is_err() {
            return Err("`tokenizer.json` cannot be used for whole texts".to_owned());
        }
        let bytes = read(folder, "model.safetensors", TABLE_BYTES_MAX)?;
        let table = Table::of(&bytes)?;
        let tokens = tokenizer.get_vocab_size(true);
        if table.rows < tokens {
            let rows = table.rows;
            return Err(format!("`model.safetensors` has {rows} vectors, and `tokenizer.json` {tokens} tokens"));
        }
        Ok(Self { tokenizer, table: table.numbers, dimension: table.dimension })
    }

    /// Returns the mean of the vectors of the tokens, with the length 1. It is empty if there are no tokens, or if they cancel each
    /// other out.
    fn vector(&self, text: &str) -> Result<Vec<f32>, ModelFault> {
        let tokens = self.tokenizer.encode_fast(text, false).map_err(|_untokenized| ModelFault::Form)?;
        let mut sum = vec![0.0_f64; self.dimension];
        for token in tokens.get_ids() {
            let place = usize::try_from(*token).ok().and_then(|token| token.checked_mul(self.dimension));
            let row = place.and_then(|place| self.table.get(place..place.checked_add(self.dimension)?));
            // A tokenizer may number its added tokens beyond the table.
            for (sum, number) in sum.iter_mut().zip(row.unwrap_or_default()) {
                *sum += f64::from(*number);
            }
        }
        let length = sum.iter().map(|number| number * number).sum::<f64>().sqrt();
        if !length.is_normal() {
            return Ok(Vec::new());
        }
        #[expect(clippy::cast_possible_truncation, reason = "a number of at most 1 loses digits alone")]
        let vector = sum.into_iter().map(|number| (number / length) as f32).collect();
        Ok(vector)
    }
}

/// The one table of a file.
struct Table {
    rows: usize,
    dimension: usize,
    numbers: Vec<f32>,
}

impl Table {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        let wrong = |rule: &str| format!("`model.safetensors` {rule}");
        let tensors = SafeTensors::deserialize(bytes).map_err(|_damaged| wrong("is damaged"))?;
        // Beside the table, a file may hold weights of tokens, or say which tokens share a vector. Without them, vectors would be
        // others than those of the model.
        let mut tables = tensors.iter();
        let (Some((_, table)), None) = (tables.next(), tables.next()) else {
            return Err(wrong("does not hold one table and nothing else"));
        };
        let [rows, dimension] = *table.shape() else { return Err(wrong("does not hold one table")) };
        if rows == 0 || dimension == 0 || dimension > DIMENSION_MAX {
            return Err(wrong(&format!(
                "has {rows} vectors of {dimension} numbers; at most {DIMENSION_MAX} are allowed"
            )));
        }
        let data = table.data();
        let numbers: Vec<f32> = if table.dtype() == Dtype::F32 {
            data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        } else if table.dtype() == Dtype::F16 {
            data.as_chunks().0.iter().map(|bytes| of_half(u16::from_le_bytes(*bytes))).collect()
        } else {
            return Err(wrong("has numbers of another type than 32-bit or 16-bit floats"));
        };
        if rows.checked_mul(dimension) != Some(numbers.len()) {
            return Err(wrong("is damaged"));
        }
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(wrong("has a number that is not finite"));
        }
        Ok(Self { rows, dimension, numbers })
    }
}

/// Reads a file of a folder, unless it is too large. Links are followed, because caches of models are made of them; a device or a
/// pipe at their end is no file, and could be read for ever.
fn read(folder: &Path, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    let path = folder.join(name);
    let unreadable = |error: std::io::Error| format!("cannot read `{name}`: {error}");
    if !std::fs::metadata(&path).map_err(unreadable)?.is_file() {
        return Err(format!("`{name}` is no file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(unreadable)?;
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read <= bytes_max) {
        Ok(bytes)
    } else {
        Err(format!("`{name}` has more than {bytes_max} bytes"))
    }
}

/// Returns the value of a 16-bit float (IEEE 754 binary16), which a 32-bit one holds exactly.
fn of_half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x03ff);
    match exponent {
        0 => sign * fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        exponent => sign * (1.0 + fraction / 1_024.0) * 2.0_f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests;
