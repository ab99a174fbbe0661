//! Remembers the things that were used, for as long as they could be used again.
//!
//! INVARIANT (bounded memory): nothing is forgotten to make room. A thing for which there is no room is refused, and no owner can
//! take the room of another.

use std::collections::HashMap;

/// The digest of a thing that can be used once, or of its owner.
pub(super) type Digest = [u8; 32];

/// The most entries that are remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnceLimits {
    /// For all owners together.
    pub(super) entries_max: usize,
    /// For one owner.
    pub(super) entries_per_owner_max: usize,
}

/// Things that were used, each with the time from which it cannot be used anyway.
#[derive(Debug)]
pub(super) struct OnceOnly {
    limits: OnceLimits,
    owners: HashMap<Digest, HashMap<Digest, u64>>,
    len: usize,
    /// The time of the last search for entries that have ended, in seconds since 1970.
    swept_at: u64,
}

/// The reason why a thing cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOnce {
    /// It was used before.
    Used,
    /// There is no room to remember it.
    Full,
}

impl OnceOnly {
    pub(super) fn new(limits: OnceLimits) -> Self {
        Self { limits, owners: HashMap::new(), len: 0, swept_at: 0 }
    }

    /// Uses the thing `entry` of `owner`, which could be used until the time `until`.
    ///
    /// # Errors
    /// When it was used before, or there is no room to remember it.
    pub(super) fn begin(&mut self, owner: Digest, entry: Digest, until: u64, now: u64) -> Result<(), NotOnce> {
        if self.owners.get(&owner).is_some_and(|entries| entries.contains_key(&entry)) {
            return Err(NotOnce::Used);
        }
        // While the memory is full, a search at each call would be too much work. So there is one in each second.
        if self.is_full(&owner) && self.swept_at < now {
            self.sweep(now);
        }
        if self.is_full(&owner) {
            return Err(NotOnce::Full);
        }
        self.owners.entry(owner).or_default().insert(entry, until);
        self.len += 1;
        Ok(())
    }

    fn is_full(&self, owner: &Digest) -> bool {
        let of_owner = self.owners.get(owner).map_or(0, HashMap::len);
        self.len >= self.limits.entries_max || of_owner >= self.limits.entries_per_owner_max
    }

    fn sweep(&mut self, now: u64) {
        self.owners.retain(|_, entries| {
            entries.retain(|_, until| now < *until);
            !entries.is_empty()
        });
        self.len = self.owners.values().map(HashMap::len).sum();
        self.swept_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OnceLimits = OnceLimits { entries_max: 5, entries_per_owner_max: 3 };
    const NOW: u64 = 1_000;

    fn id(number: u8) -> Digest {
        [number; 32]
    }

    #[test]
    fn a_thing_is_used_once_and_no_owner_takes_the_room_of_another() {
        let mut used = OnceOnly::new(LIMITS);
        let rows = [
            ("the first", 1, 1, NOW, Ok(())),
            ("again", 1, 1, NOW, Err(NotOnce::Used)),
            ("another owner's of the same name", 2, 1, NOW, Ok(())),
            ("a second", 1, 2, NOW, Ok(())),
            ("a third", 1, 3, NOW, Ok(())),
            ("past the owner's room", 1, 4, NOW, Err(NotOnce::Full)),
            ("again, with no room", 1, 3, NOW, Err(NotOnce::Used)),
            ("the last room of all", 2, 2, NOW, Ok(())),
            ("past all room", 2, 3, NOW, Err(NotOnce::Full)),
            ("past all room, for a new owner", 3, 1, NOW, Err(NotOnce::Full)),
            ("a moment before the others end", 1, 4, NOW + 9, Err(NotOnce::Full)),
            ("after the others have ended", 1, 4, NOW + 10, Ok(())),
            ("what has ended is forgotten", 1, 1, NOW + 10, Ok(())),
        ];
        for (row, owner, entry, now, expected) in rows {
            assert_eq!(used.begin(id(owner), id(entry), NOW + 10, now), expected, "{row}");
        }
    }

    /// The count is that of the entries, in whatever order entries are used and end.
    #[test]
    fn the_count_stays_right() {
        let mut used = OnceOnly::new(LIMITS);
        for step in 0..200_u8 {
            let (owner, entry) = (id(step % 3), id(step % 7));
            let until = NOW + u64::from(step % 4);
            let is_new = used.begin(owner, entry, until, NOW + u64::from(step / 20)).is_ok();
            assert!(!is_new || used.owners[&owner].contains_key(&entry), "step {step}");
            assert_eq!(used.len, used.owners.values().map(HashMap::len).sum::<usize>(), "step {step}");
            assert!(used.len <= LIMITS.entries_max, "step {step}");
        }
    }
}
