//! Stores many short lists in three arrays ("compressed sparse rows"). A list is found by number, without a hash table,
//! and no list needs an allocation of its own.

use super::at;

/// Lists that are found by a pair of numbers. First numbers should be dense, because each one up to the greatest takes
/// four bytes. A list takes eight bytes in addition to its values.
#[derive(Clone, Debug)]
pub(super) struct Lists<T> {
    /// The position in `heads` at which the lists of each first number begin.
    starts: Vec<u32>,
    /// The second number of each list, and the position in `values` at which the list begins.
    heads: Vec<(u32, u32)>,
    values: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { starts: Vec::new(), heads: Vec::new(), values: Vec::new() }
    }
}

impl<T> Lists<T> {
    /// Builds lists from values that are sorted by their pair of numbers. As with names, there can be at most four
    /// billion of them.
    pub(super) fn from_sorted(count: usize, sorted: impl Iterator<Item = (u32, u32, T)>) -> Self {
        let mut made = Self { values: Vec::with_capacity(count), ..Self::default() };
        let mut last = None;
        for (first, second, value) in sorted {
            if last != Some((first, second)) {
                debug_assert!(last < Some((first, second)), "not sorted");
                last = Some((first, second));
                // First numbers in between, which have no lists, begin here too, so their range is empty.
                made.starts.resize(at(first) + 1, position(made.heads.len()));
                made.heads.push((second, position(made.values.len())));
            }
            made.values.push(value);
        }
        made.starts.shrink_to_fit();
        made.heads.shrink_to_fit();
        made.values.shrink_to_fit();
        made
    }

    pub(super) fn get(&self, first: u32, second: u32) -> &[T] {
        self.find(first, second).unwrap_or_default()
    }

    /// Returns all values with their pairs of numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32, &T)> {
        let lists = (0..self.starts.len()).filter_map(|first| {
            let first = position(first);
            Some((first, self.lists_of(first)?))
        });
        let lists = lists.flat_map(|(first, lists)| lists.clone().map(move |list| (first, list)));
        lists.flat_map(|(first, list)| {
            let second = self.heads.get(list).map_or(0, |(second, _)| *second);
            self.values_of(list).iter().map(move |value| (first, second, value))
        })
    }

    fn find(&self, first: u32, second: u32) -> Option<&[T]> {
        let lists = self.lists_of(first)?;
        let position = self.heads.get(lists.clone())?.binary_search_by_key(&second, |(second, _)| *second).ok()?;
        Some(self.values_of(lists.start + position))
    }

    fn lists_of(&self, first: u32) -> Option<std::ops::Range<usize>> {
        let start = at(*self.starts.get(at(first))?);
        let end = self.starts.get(at(first) + 1).map_or(self.heads.len(), |end| at(*end));
        Some(start..end)
    }

    fn values_of(&self, list: usize) -> &[T] {
        let start = self.heads.get(list).map_or(self.values.len(), |(_, start)| at(*start));
        let end = self.heads.get(list + 1).map_or(self.values.len(), |(_, start)| at(*start));
        self.values.get(start..end).unwrap_or_default()
    }
}

fn position(length: usize) -> u32 {
    debug_assert!(u32::try_from(length).is_ok(), "four billion tuples do not fit into memory");
    u32::try_from(length).unwrap_or(u32::MAX)
}
