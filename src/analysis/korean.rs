//! Korean words: a noun and the particles that follow it without a space.

/// Particles, the longer ones of an ending first.
const PARTICLES: [&str; 44] = [
    "으로부터",
    "에게서는",
    "이라도",
    "이라고",
    "이라는",
    "에서는",
    "에서도",
    "에게는",
    "에게서",
    "으로는",
    "까지는",
    "까지만",
    "입니다",
    "합니다",
    "됩니다",
    "에서",
    "에게",
    "에는",
    "에도",
    "으로",
    "로는",
    "부터",
    "까지",
    "보다",
    "처럼",
    "마다",
    "조차",
    "이나",
    "이란",
    "하고",
    "이며",
    "께서",
    "은",
    "는",
    "이",
    "가",
    "을",
    "를",
    "에",
    "의",
    "도",
    "만",
    "와",
    "과",
];

/// A particle that is also the last syllable of many nouns, so it goes only if two syllables stay.
const AMBIGUOUS: [&str; 2] = ["로", "들"];

/// Returns a word without its particle; at least one syllable stays.
pub(super) fn without_particle(word: &str) -> &str {
    let syllables_left = |rest: &str, least: usize| rest.chars().nth(least - 1).is_some();
    let stripped = PARTICLES.iter().find_map(|particle| word.strip_suffix(particle).filter(|rest| !rest.is_empty()));
    let ambiguous =
        || AMBIGUOUS.iter().find_map(|particle| word.strip_suffix(particle).filter(|rest| syllables_left(rest, 2)));
    stripped.or_else(ambiguous).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn particles_go_and_nouns_stay() {
        let rows = [
            ("휴가를", "휴가"),
            ("휴가", "휴"),
            ("집에서는", "집"),
            ("회사로", "회사"),
            ("도로", "도로"),
            ("가", "가"),
            ("승인합니다", "승인"),
        ];
        for (word, expected) in rows {
            assert_eq!(without_particle(word), expected, "{word}");
        }
    }
}
