//! Random numbers that follow from a seed alone, on every machine.

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and good enough to choose test cases.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, the bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("64 bits");
        usize::try_from(self.next() % bound).expect("below a usize")
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Between so many of the items, each at most once, in their order.
    pub(crate) fn some<T: Clone>(&mut self, from: &[T], min: usize, max: usize) -> Vec<T> {
        let mut positions: Vec<usize> = (0..from.len()).collect();
        self.shuffle(&mut positions);
        positions.truncate(min + self.below(max + 1 - min));
        positions.sort_unstable();
        positions.into_iter().map(|position| from[position].clone()).collect()
    }
}
