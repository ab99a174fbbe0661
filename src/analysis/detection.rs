//! Finds the language of a text by its function words and by letters that few languages have.
//!
//! A wrong guess costs little: a query is stemmed for every language, so words are found by the same rules by which
//! they were indexed. Only their endings may be cut in a less fitting way.
//!
//! INVARIANT (the text alone): nothing but the text and the collection's setting decides. Chunks of one document may have
//! different guards, so the neighbours of a chunk have no say.

use std::collections::HashMap;

use super::function_words::FUNCTION_WORDS;
use super::language::{Language, Languages};
use super::script::Script;

/// How many words of a text are looked at. The language of a longer text is clear by then.
const WORDS_MAX: usize = 256;
/// After so many words, it is seen whether the language is clear already.
const WORDS_STEP: usize = 32;
/// How many words are searched for typical groups of letters, which takes longer.
const MARKED_WORDS_MAX: usize = 64;
/// The weight of a function word or a letter that one language has alone. It is shared by all that have it.
const WEIGHT: u32 = 24;
/// The weight of a typical group of letters, which other languages have in a few words, too.
const MARK_WEIGHT: u32 = 4;
/// The weight that a language needs before it is taken instead of the most likely one.
const WEIGHT_MIN: u32 = 2 * MARK_WEIGHT;
/// The fewest words that have to speak for it, unless one of them is a function word of no other language.
const HITS_MIN: u32 = 3;
/// A lead that more words do not turn over, nor groups of letters.
const CLEAR_LEAD: u32 = 2 * WEIGHT;

/// The languages of the function words. It takes long to make, so a thread makes one.
pub(super) struct Detector {
    languages: HashMap<&'static str, Vec<Language>>,
}

impl Detector {
    pub(super) fn new() -> Self {
        let mut languages: HashMap<&'static str, Vec<Language>> = HashMap::new();
        for (language, words) in FUNCTION_WORDS {
            for word in words.split_ascii_whitespace() {
                languages.entry(word).or_default().push(language);
            }
        }
        Self { languages }
    }

    /// Returns the language of the words, which are in lower case and all of one script.
    pub(super) fn language<'w>(
        &self,
        words: impl Iterator<Item = &'w str> + Clone,
        script: Script,
        languages: &Languages,
    ) -> Option<Language> {
        let mut scores: Vec<Score> =
            languages.of(script).into_iter().map(|language| Score { language, weight: 0, hits: 0 }).collect();
        if scores.len() > 1 {
            let mut seen: Vec<&str> = Vec::new();
            for (place, word) in words.clone().take(WORDS_MAX).enumerate() {
                if place % WORDS_STEP == WORDS_STEP - 1 && lead(&scores) >= CLEAR_LEAD {
                    break;
                }
                if let Some((word, known)) = self.languages.get_key_value(word)
                    && !seen.contains(word)
                {
                    // A subject such as `pod` may be a function word elsewhere, so repeating it says nothing.
                    seen.push(word);
                    add(&mut scores, known);
                }
                if !word.is_ascii() {
                    add(&mut scores, word.chars().find_map(languages_of_letter).unwrap_or_default());
                }
            }
            if lead(&scores) < CLEAR_LEAD {
                add_marks(&mut scores, words.take(MARKED_WORDS_MAX));
            }
        }
        // The first of the best, because the most likely language comes first.
        let best = scores.iter().rev().max_by_key(|Score { weight, .. }| *weight);
        let shown = best.filter(|score| score.is_enough()).or(scores.first());
        shown.map(|Score { language, .. }| *language)
    }
}

/// The evidence for one language.
struct Score {
    language: Language,
    weight: u32,
    /// The number of words that speak for the language.
    hits: u32,
}

impl Score {
    fn add(&mut self, weight: u32) {
        self.weight += weight;
        self.hits += 1;
    }

    /// Returns whether enough speaks for the language to take it instead of the most likely one.
    fn is_enough(&self) -> bool {
        self.weight >= WEIGHT || (self.weight >= WEIGHT_MIN && self.hits >= HITS_MIN)
    }
}

/// Adds what speaks for some languages alike: the fewer they are, the more it says.
fn add(scores: &mut [Score], known: &[Language]) {
    let Some(weight) = u32::try_from(known.len()).ok().and_then(|known| WEIGHT.checked_div(known)) else { return };
    for score in scores.iter_mut().filter(|score| known.contains(&score.language)) {
        score.add(weight);
    }
}

/// Returns how far the best language is before the next one.
fn lead(scores: &[Score]) -> u32 {
    let (mut best, mut second) = (0, 0);
    for Score { weight, .. } in scores {
        if *weight > best {
            (best, second) = (*weight, best);
        } else {
            second = second.max(*weight);
        }
    }
    best - second
}

fn add_marks<'w>(scores: &mut [Score], words: impl Iterator<Item = &'w str>) {
    let mut words: Vec<&str> = words.collect();
    words.sort_unstable();
    words.dedup();
    for score in scores {
        let Some((_, marks)) = MARKS.iter().find(|(language, _)| *language == score.language) else { continue };
        for word in &words {
            if marks.iter().any(|mark| word.contains(mark)) {
                score.add(MARK_WEIGHT);
            }
        }
    }
}

/// Groups of letters that many words of a language have.
const MARKS: [(Language, &[&str]); 23] = [
    (Language::English, &["th", "wh", "ing", "tion", "ough", "ee", "oo", "ck"]),
    (Language::German, &["sch", "ung", "eit", "ck", "ei", "pf", "lich", "tz"]),
    (Language::French, &["eau", "eux", "oi", "ement", "aire", "tion", "elle", "eur"]),
    (Language::Spanish, &["ción", "ado", "ando", "ll", "ue", "ero", "idad"]),
    (Language::Portuguese, &["ção", "ções", "lh", "nh", "ão", "ado", "ei"]),
    (Language::Italian, &["zion", "gli", "cch", "ggi", "tto", "tta", "zz", "ell", "rno"]),
    (Language::Dutch, &["ij", "aa", "oe", "ee", "uu", "sch", "ui", "gen"]),
    (Language::Swedish, &["ning", "arna", "erna", "orna", "ck", "lig", "å", "ä"]),
    (Language::Danish, &["erne", "else", "lig", "hed", "ø", "gade", "kode"]),
    (Language::Norwegian, &["ene", "else", "lig", "het", "ø", "kk", "ett"]),
    (Language::Finnish, &["aa", "ää", "uu", "ii", "kk", "tt", "ssa", "lle", "uo", "yö"]),
    (Language::Polish, &["sz", "cz", "rz", "dz", "ów", "owa", "ach", "ek"]),
    (Language::Czech, &["ou", "ov", "ní", "ost", "ých", "st", "ck"]),
    (Language::Hungarian, &["sz", "gy", "ny", "cs", "ék", "ok", "ek", "tt"]),
    (Language::Romanian, &["ul", "lor", "ii", "ea", "ești", "ție", "at"]),
    (Language::Turkish, &["lar", "ler", "mak", "mek", "yor", "ilir", "nde", "nda", "ki", "ığ", "eri"]),
    (Language::Catalan, &["ció", "ny", "ix", "tge", "eu", "nça", "als", "é"]),
    (Language::Indonesian, &["kan", "ng", "men", "ber", "per", "nya"]),
    (Language::Estonian, &["aa", "ee", "öö", "ud", "ks", "mine", "sse"]),
    (Language::Lithuanian, &["ai", "uo", "as", "os", "ij", "ų"]),
    (Language::Irish, &["bh", "mh", "ch", "dh", "ao", "ai"]),
    (Language::Basque, &["tz", "tx", "ak", "ko", "rr", "ik"]),
    (Language::Serbian, &["lj", "nj", "ij", "ju", "ova", "ice", "ima", "og"]),
];

/// Returns the languages that a letter is typical of.
fn languages_of_letter(c: char) -> Option<&'static [Language]> {
    use Language::{
        Catalan, Czech, Danish, Estonian, Finnish, French, German, Hungarian, Italian, Lithuanian, Norwegian, Persian,
        Polish, Portuguese, Romanian, Russian, Serbian, Spanish, Swedish, Turkish, Ukrainian, Urdu, Vietnamese,
    };
    let languages: &'static [Language] = match c {
        '\u{df}' => &[German],
        '\u{e4}' => &[German, Swedish, Finnish, Estonian],
        '\u{f6}' => &[German, Swedish, Finnish, Estonian, Hungarian, Turkish],
        '\u{fc}' => &[German, Estonian, Hungarian, Turkish, Spanish, Catalan],
        '\u{e5}' => &[Swedish, Danish, Norwegian],
        '\u{e6}' | '\u{f8}' => &[Danish, Norwegian],
        '\u{f1}' => &[Spanish],
        '\u{e3}' | '\u{f5}' => &[Portuguese, Vietnamese, Estonian],
        '\u{ea}' => &[French, Portuguese, Vietnamese],
        '\u{e7}' => &[French, Portuguese, Turkish, Catalan],
        '\u{e8}' => &[French, Italian, Catalan],
        '\u{f9}' | '\u{ec}' => &[Italian],
        '\u{e0}' => &[French, Italian, Catalan, Portuguese],
        '\u{f2}' => &[Italian, Catalan],
        '\u{153}' | '\u{ee}' | '\u{fb}' => &[French, Romanian],
        '\u{103}' => &[Romanian, Vietnamese],
        '\u{219}' | '\u{21b}' | '\u{163}' => &[Romanian],
        '\u{15f}' => &[Turkish, Romanian],
        '\u{11f}' | '\u{131}' => &[Turkish],
        '\u{151}' | '\u{171}' => &[Hungarian],
        '\u{142}' | '\u{144}' | '\u{15b}' | '\u{17a}' | '\u{17c}' => &[Polish],
        '\u{105}' | '\u{119}' => &[Polish, Lithuanian],
        '\u{117}' | '\u{12f}' | '\u{173}' | '\u{16b}' => &[Lithuanian],
        '\u{159}' | '\u{11b}' | '\u{16f}' | '\u{148}' | '\u{165}' | '\u{10f}' => &[Czech],
        '\u{10d}' | '\u{161}' | '\u{17e}' => &[Czech, Serbian, Lithuanian],
        '\u{107}' => &[Serbian, Polish],
        '\u{111}' => &[Vietnamese, Serbian],
        '\u{1a1}' | '\u{1b0}' | '\u{1ea0}'..='\u{1ef9}' => &[Vietnamese],
        '\u{456}' | '\u{457}' | '\u{454}' | '\u{491}' => &[Ukrainian],
        '\u{44b}' | '\u{44d}' | '\u{451}' => &[Russian],
        '\u{452}' | '\u{458}' | '\u{459}' | '\u{45a}' | '\u{45b}' | '\u{45f}' => &[Serbian],
        '\u{67e}' | '\u{686}' | '\u{698}' | '\u{6af}' => &[Persian, Urdu],
        '\u{679}' | '\u{688}' | '\u{691}' | '\u{6ba}' | '\u{6be}' | '\u{6c1}' | '\u{6d2}' => &[Urdu],
        _ => return None,
    };
    Some(languages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_found_in_short_texts() {
        let rows = [
            ("every member of the team may apply", Script::Latin, Language::English),
            ("die rechnung wird an den kunden geschickt", Script::Latin, Language::German),
            ("la facture est envoy\u{e9}e au client", Script::Latin, Language::French),
            ("la factura se env\u{ed}a al cliente", Script::Latin, Language::Spanish),
            ("a fatura n\u{e3}o \u{e9} enviada ao cliente", Script::Latin, Language::Portuguese),
            ("fakturan skickas till kunden och inte", Script::Latin, Language::Swedish),
            (
                "\u{441}\u{447}\u{435}\u{442} \u{43d}\u{435} \u{43f}\u{440}\u{438}\u{448}\u{435}\u{43b} \u{43a} \u{43d}\u{430}\u{43c}",
                Script::Cyrillic,
                Language::Russian,
            ),
            ("nothing", Script::Latin, Language::English),
        ];
        let detector = Detector::new();
        for (text, script, expected) in rows {
            let found = detector.language(text.split(' '), script, &Languages::default());
            assert_eq!(found, Some(expected), "{text}");
        }
        let chosen = Languages::new(vec![Language::Danish]);
        assert_eq!(detector.language("the team".split(' '), Script::Latin, &chosen), Some(Language::Danish));
    }
}
