//! The analysis of text: it turns texts and queries into terms, for languages that put spaces between words and for
//! those that do not.
//!
//! A chunk's words are stemmed by the rules of one language for each script, which the chunk's own text tells. A query is
//! too short for that. So a word of a query stands for its stems in all languages of its script, and it finds a word of
//! a chunk whose stem, by the rules of the chunk's language, is the same. Terms of words carry their language, so the
//! stem of one language never meets that of another.
//!
//! Nothing here does I/O, and nothing depends on other texts. So what a principal may not see cannot change how what it
//! sees is analyzed.

mod arabic;
mod detection;
mod function_words;
mod hebrew;
mod korean;
mod language;
mod normal;
mod pieces;
mod script;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use frostem::Stemmer;
use icu_segmenter::options::WordBreakInvariantOptions;
use icu_segmenter::{WordSegmenter, WordSegmenterBorrowed};
use unicode_normalization::char::is_combining_mark;

use self::detection::Detector;
pub use self::language::{Language, Languages, UnknownLanguage};
use self::normal::{folded, normalized, persian};
use self::pieces::{Piece, WORD_BYTES_MAX, pieces};
use self::script::{Script, script};

/// The version of the analysis: the date of the stemmers' definitions, which is the minor version of `frostem`, and a digit
/// for changes of this module. An index with the terms of another version is made anew when it is opened. So a change
/// that changes terms must change this number, too. So must another version of the segmenter's data.
pub const ANALYSIS_VERSION: u32 = 202_610_161;

/// How many words, or how many terms, are remembered before all are forgotten. Stemming is most of the cost of ingesting.
const TERMS_REMEMBERED_MAX: usize = 262_144;

/// The fewest syllables of a word that the dictionary finds and the pairs of syllables do not show.
const SYLLABLES_MIN: usize = 3;

/// A term and how often it occurs in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermCount {
    /// The term. Its form may change with [`ANALYSIS_VERSION`].
    pub term: Arc<str>,
    /// The number of its occurrences, at least 1.
    pub count: u32,
}

/// A word of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryWord {
    /// The terms that the word stands for. A chunk has the word if it has one of them.
    pub terms: Vec<Arc<str>>,
    /// How often the query has the word, at least 1.
    pub count: u32,
}

/// Turns texts into terms. It remembers stems, so each thread makes one and keeps it for a batch.
pub struct Analyzer {
    /// Made for the first chunk, because a query needs none.
    detector: Option<Detector>,
    stems: BTreeMap<Language, Stems>,
    counter: Counter,
    /// The segmenter of Thai, Lao, Khmer and Burmese; made when it is first needed.
    segmenter: Option<WordSegmenterBorrowed<'static>>,
}

/// The number of a term among those that are remembered.
type TermNumber = usize;

/// The stems of one language that are remembered.
struct Stems {
    language: Language,
    stemmer: Option<Stemmer>,
    /// The places of the words in `terms`.
    remembered: HashMap<Box<str>, usize>,
    /// The terms of each word.
    terms: Vec<Box<[TermNumber]>>,
}

impl Default for Analyzer {
    fn default() -> Self {
        Self::new()
    }
}

impl Analyzer {
    /// Makes an analyzer that remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { detector: None, stems: BTreeMap::new(), counter: Counter::default(), segmenter: None }
    }

    /// Finds the distinct terms of a chunk's text, in the order of their first occurrence.
    pub fn terms(&mut self, text: &str, languages: &Languages) -> Vec<TermCount> {
        let words: usize = self.stems.values().map(|stems| stems.terms.len()).sum();
        if words.max(self.counter.terms.len()) >= TERMS_REMEMBERED_MAX {
            self.stems.clear();
            self.counter = Counter::default();
        }
        let text = normalized(text);
        let pieces = pieces(&text);
        let detector = self.detector.get_or_insert_with(Detector::new);
        let mut spoken = Spoken { words: &pieces, languages, found: Vec::new() };
        for piece in &pieces {
            match piece {
                Piece::Word(word) => match word.chars().find_map(script) {
                    Some(script) => {
                        if let Some(language) = spoken.language(script, detector) {
                            let stems = self.stems.entry(language).or_insert_with(|| Stems::new(language));
                            for term in stems.of(word, &mut self.counter) {
                                self.counter.count(*term);
                            }
                        }
                    }
                    None => self.counter.count_term(&folded(word)),
                },
                Piece::Literal(literal) => self.counter.count_term(&folded(literal)),
                Piece::HanOrKana(run) => {
                    characters(run).chain(pairs(run)).for_each(|term| self.counter.count_term(term));
                }
                Piece::Hangul(word) => hangul_terms(word).into_iter().for_each(|term| self.counter.count_term(term)),
                Piece::Unspaced(run) => {
                    let syllables = syllables(run);
                    let words = words_of(self.segmenter.get_or_insert_with(segmenter), run);
                    let terms = syllables.iter().copied().chain(joined_pairs(run, &syllables)).chain(words);
                    terms.for_each(|term| self.counter.count_term(term));
                }
            }
        }
        self.counter.take()
    }

    /// Finds the distinct words of a query, in the order of their first occurrence.
    pub fn query(&mut self, text: &str, languages: &Languages) -> Vec<QueryWord> {
        let text = normalized(text);
        let mut words: Vec<QueryWord> = Vec::new();
        let mut places: HashMap<Vec<Arc<str>>, usize> = HashMap::new();
        for piece in pieces(&text) {
            for terms in self.query_terms(&piece, languages) {
                match places.entry(terms) {
                    Entry::Occupied(place) => {
                        if let Some(known) = words.get_mut(*place.get()) {
                            known.count += 1;
                        }
                    }
                    Entry::Vacant(place) => {
                        words.push(QueryWord { terms: place.key().clone(), count: 1 });
                        place.insert(words.len() - 1);
                    }
                }
            }
        }
        words
    }

    /// Returns the words of a piece of a query, each as the terms that it stands for.
    fn query_terms(&mut self, piece: &Piece<'_>, languages: &Languages) -> Vec<Vec<Arc<str>>> {
        let alone = |term: &str| vec![Arc::from(term)];
        match piece {
            Piece::Word(word) => match word.chars().find_map(script) {
                Some(script) => {
                    let languages = languages.of(script).into_iter();
                    let stemmers = languages.map(|language| (language, language.stemmer()));
                    vec![stemmers.flat_map(|(language, stemmer)| forms(language, stemmer, word)).collect()]
                }
                None => vec![alone(&folded(word))],
            },
            Piece::Literal(literal) => vec![alone(&folded(literal))],
            // A single character finds every word that it is in, and a word of two finds only itself.
            Piece::HanOrKana(run) if run.chars().nth(1).is_none() => vec![alone(run)],
            Piece::HanOrKana(run) => pairs(run).map(alone).collect(),
            Piece::Hangul(word) => hangul_terms(word).into_iter().map(alone).collect(),
            Piece::Unspaced(run) => {
                let syllables = syllables(run);
                if syllables.len() == 1 {
                    return vec![alone(run)];
                }
                let words = words_of(self.segmenter.get_or_insert_with(segmenter), run);
                joined_pairs(run, &syllables).chain(words).map(alone).collect()
            }
        }
    }
}

impl Stems {
    fn new(language: Language) -> Self {
        Self { language, stemmer: language.stemmer(), remembered: HashMap::new(), terms: Vec::new() }
    }

    /// Returns the terms of a word in lower case.
    fn of(&mut self, word: &str, counter: &mut Counter) -> &[TermNumber] {
        let place = self.remembered.get(word).copied().unwrap_or_else(|| {
            let forms = forms(self.language, self.stemmer, word);
            self.terms.push(forms.into_iter().map(|term| counter.number(term)).collect());
            self.remembered.insert(word.into(), self.terms.len() - 1);
            self.terms.len() - 1
        });
        self.terms.get(place).map(|terms| &**terms).unwrap_or_default()
    }
}

/// Returns the terms of a word in lower case: its stem with the code of the language, and others that it may have.
fn forms(language: Language, stemmer: Option<Stemmer>, word: &str) -> Vec<Arc<str>> {
    let stem = |word: &str| match (&stemmer, language) {
        (Some(stemmer), Language::Persian) => stemmer.stem(&persian(word)).into_owned(),
        (Some(stemmer), Language::Arabic) => stemmer.stem(&arabic::with_article_alone(word)).into_owned(),
        (Some(stemmer), Language::Finnish | Language::Swedish | Language::Danish | Language::Norwegian) => {
            // One pass leaves some endings that it takes off a shorter form of the same word.
            stemmer.stem(&stemmer.stem(word)).into_owned()
        }
        (Some(stemmer), _) => stemmer.stem(word).into_owned(),
        (None, _) => word.to_owned(),
    };
    let plain = folded(word);
    let mut forms = if language == Language::Hebrew {
        hebrew::forms(&plain)
    } else if word.is_ascii() {
        vec![folded(&stem(word)).into_owned()]
    } else {
        // People leave accents out, and then a stemmer may find another stem.
        vec![folded(&stem(word)).into_owned(), folded(&stem(&plain)).into_owned()]
    };
    forms.retain(|form| !form.is_empty());
    if forms.is_empty() {
        // A stemmer may leave nothing of a short word.
        forms.push(plain.into_owned());
    }
    forms.dedup();
    forms.into_iter().map(|form| format!("{}{form}", language.tag()).into()).collect()
}

/// Returns a term without the mark of its language, for an index that weighs the stem of a word as one, whatever language a
/// chunk was taken for.
#[must_use]
pub fn unmarked(term: &str) -> &str {
    term.trim_start_matches(|c: char| c.is_ascii_uppercase())
}

/// Counts the terms of a text, in the order of their first occurrence.
#[derive(Default)]
struct Counter {
    terms: Vec<RememberedTerm>,
    numbers: HashMap<Arc<str>, TermNumber>,
    /// The terms that were counted.
    counted: Vec<TermNumber>,
}

struct RememberedTerm {
    term: Arc<str>,
    /// How often it was counted in this text.
    count: u32,
}

impl Counter {
    fn number(&mut self, term: Arc<str>) -> TermNumber {
        if let Some(number) = self.numbers.get(&term) {
            return *number;
        }
        self.terms.push(RememberedTerm { term: Arc::clone(&term), count: 0 });
        self.numbers.insert(term, self.terms.len() - 1);
        self.terms.len() - 1
    }

    fn count(&mut self, number: TermNumber) {
        let Some(term) = self.terms.get_mut(number) else { return };
        if term.count == 0 {
            self.counted.push(number);
        }
        term.count += 1;
    }

    fn count_term(&mut self, term: &str) {
        let number = self.numbers.get(term).copied();
        let number = number.unwrap_or_else(|| self.number(term.into()));
        self.count(number);
    }

    /// Returns the counts, and begins anew.
    fn take(&mut self) -> Vec<TermCount> {
        let mut counts = Vec::with_capacity(self.counted.len());
        for number in self.counted.drain(..) {
            if let Some(RememberedTerm { term, count }) = self.terms.get_mut(number) {
                counts.push(TermCount { term: Arc::clone(term), count: std::mem::take(count) });
            }
        }
        counts
    }
}

/// The languages that a text is in, by script. They are found when the first word of the script needs its one.
struct Spoken<'a> {
    words: &'a [Piece<'a>],
    languages: &'a Languages,
    found: Vec<(Script, Option<Language>)>,
}

impl Spoken<'_> {
    fn language(&mut self, wanted: Script, detector: &Detector) -> Option<Language> {
        if let Some((_, language)) = self.found.iter().find(|(script, _)| *script == wanted) {
            return *language;
        }
        let words = self.words.iter().filter_map(|piece| match piece {
            Piece::Word(word) => Some(&**word).filter(|word| word.chars().find_map(script) == Some(wanted)),
            Piece::Literal(_) | Piece::HanOrKana(_) | Piece::Hangul(_) | Piece::Unspaced(_) => None,
        });
        let language = detector.language(words, wanted, self.languages);
        self.found.push((wanted, language));
        language
    }
}

/// Returns the characters of a text, one by one.
fn characters(run: &str) -> impl Iterator<Item = &str> {
    run.char_indices().filter_map(|(place, c)| run.get(place..place + c.len_utf8()))
}

/// Returns each two neighbouring characters of a text.
fn pairs(run: &str) -> impl Iterator<Item = &str> {
    let ends = run.char_indices().skip(1).map(|(place, c)| place + c.len_utf8());
    run.char_indices().zip(ends).filter_map(|((start, _), end)| run.get(start..end))
}

/// Returns the syllables of a text in a script without spaces: each letter with its marks.
fn syllables(run: &str) -> Vec<&str> {
    let mut syllables = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (place, c) in run.char_indices() {
        if place > start && !is_combining_mark(c) && !last.is_some_and(script::binds_next) {
            syllables.extend(run.get(start..place));
            start = place;
        }
        last = Some(c);
    }
    syllables.extend(run.get(start..));
    syllables
}

/// Returns each two neighbouring syllables of a text.
fn joined_pairs<'t>(run: &'t str, syllables: &[&'t str]) -> impl Iterator<Item = &'t str> {
    let mut start = 0;
    syllables.iter().zip(syllables.iter().skip(1)).filter_map(move |(first, second)| {
        let pair = run.get(start..start + first.len() + second.len());
        start += first.len();
        pair
    })
}

fn segmenter() -> WordSegmenterBorrowed<'static> {
    WordSegmenter::new_dictionary(WordBreakInvariantOptions::default())
}

/// Returns the words of a text in a script without spaces that are longer than a pair of syllables. The dictionary may
/// cut a word in one place and leave it joined to its neighbour in another. Then the pairs of syllables still meet.
fn words_of<'t>(segmenter: &WordSegmenterBorrowed<'static>, run: &'t str) -> Vec<&'t str> {
    let mut start = 0;
    let words = segmenter.segment_str(run).filter_map(|end| {
        let word = run.get(start..end);
        start = end;
        word
    });
    words.filter(|word| word.len() <= WORD_BYTES_MAX && syllables(word).len() >= SYLLABLES_MIN).collect()
}

/// Returns the terms of a Korean word: the word without its particle, and the pairs of its syllables if it is longer
/// than a pair. So a noun is found inside a longer one.
fn hangul_terms(word: &str) -> Vec<&str> {
    let stem = korean::without_particle(word);
    let mut terms = vec![stem];
    if word.len() <= WORD_BYTES_MAX {
        terms.extend(pairs(word).filter(|pair| *pair != stem));
    } else {
        terms = pairs(word).collect();
    }
    terms
}

#[cfg(test)]
mod tests;
