//! The size of chunks, which is a setting of a collection.

/// The shortest chunk that can be asked for, in characters: a sentence or two.
pub const CHARACTERS_MIN: usize = 100;
/// The longest chunk that can be asked for, in characters. Every chunk of this length keeps within the bytes that a store takes.
pub const CHARACTERS_MAX: usize = 16_000;

/// The length of chunks, and how much of a chunk the next one repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize {
    characters: usize,
    overlap: usize,
}

impl ChunkSize {
    /// Makes a size: the longest chunk, and the most that a chunk repeats of the one before, in characters. Returns `None` unless
    /// the length is within [`CHARACTERS_MIN`] and [`CHARACTERS_MAX`] and the overlap is at most half of it.
    #[must_use]
    pub fn new(characters: usize, overlap: usize) -> Option<Self> {
        let fits = (CHARACTERS_MIN..=CHARACTERS_MAX).contains(&characters) && overlap <= characters / 2;
        fits.then_some(Self { characters, overlap })
    }

    /// Returns the longest chunk, in characters.
    #[must_use]
    pub fn characters(self) -> usize {
        self.characters
    }

    /// Returns the most characters of a chunk that the next one repeats.
    #[must_use]
    pub fn overlap(self) -> usize {
        self.overlap
    }
}

impl Default for ChunkSize {
    /// Returns a few paragraphs without overlap. Ten chunks of this size fit into any prompt.
    fn default() -> Self {
        Self { characters: 1_000, overlap: 0 }
    }
}
