//! The languages whose words have stemmers or lists of function words, and the choice among them.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use frostem::{Algorithm, Stemmer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::script::Script;

/// A language of texts. Languages whose script says it all, such as Thai and Japanese, are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Language {
    /// Arabic, with a stemmer.
    Arabic,
    /// Armenian, with a stemmer.
    Armenian,
    /// Basque, with a stemmer.
    Basque,
    /// Bulgarian, without a stemmer.
    Bulgarian,
    /// Catalan, with a stemmer.
    Catalan,
    /// Czech, with a stemmer; it serves Slovak, too.
    Czech,
    /// Danish, with a stemmer.
    Danish,
    /// Dutch, with a stemmer.
    Dutch,
    /// English, with a stemmer.
    English,
    /// Estonian, with a stemmer.
    Estonian,
    /// Finnish, with a stemmer.
    Finnish,
    /// French, with a stemmer.
    French,
    /// German, with a stemmer.
    German,
    /// Greek, with a stemmer.
    Greek,
    /// Hebrew, with a list of prefixes and endings.
    Hebrew,
    /// Hindi, with a stemmer.
    Hindi,
    /// Hungarian, with a stemmer.
    Hungarian,
    /// Indonesian, with a stemmer; it serves Malay, too.
    Indonesian,
    /// Irish, with a stemmer.
    Irish,
    /// Italian, with a stemmer.
    Italian,
    /// Lithuanian, with a stemmer.
    Lithuanian,
    /// Nepali, with a stemmer.
    Nepali,
    /// Norwegian, with a stemmer.
    Norwegian,
    /// Persian, with a stemmer.
    Persian,
    /// Polish, with a stemmer.
    Polish,
    /// Portuguese, with a stemmer.
    Portuguese,
    /// Romanian, with a stemmer.
    Romanian,
    /// Russian, with a stemmer.
    Russian,
    /// Serbian in both scripts, with a stemmer; it serves Croatian and Bosnian, too.
    Serbian,
    /// Spanish, with a stemmer.
    Spanish,
    /// Swedish, with a stemmer.
    Swedish,
    /// Tamil, with a stemmer.
    Tamil,
    /// Turkish, with a stemmer.
    Turkish,
    /// Ukrainian, with a stemmer.
    Ukrainian,
    /// Urdu, without a stemmer.
    Urdu,
    /// Vietnamese, without a stemmer, because its words have no endings.
    Vietnamese,
}

/// A language as the tables of this module know it.
struct Row {
    language: Language,
    /// The code of ISO 639-1.
    code: &'static str,
    scripts: &'static [Script],
    /// The stemmer, if there is one.
    algorithm: Option<Algorithm>,
}

const fn row(language: Language, code: &'static str, scripts: &'static [Script], algorithm: Option<Algorithm>) -> Row {
    Row { language, code, scripts, algorithm }
}

const LATIN: &[Script] = &[Script::Latin];
const CYRILLIC: &[Script] = &[Script::Cyrillic];
const ARABIC: &[Script] = &[Script::Arabic];
const DEVANAGARI: &[Script] = &[Script::Devanagari];

/// All languages. The first one of a script is taken for a text that shows no other.
const ROWS: [Row; 36] = [
    row(Language::English, "en", LATIN, Some(Algorithm::English)),
    row(Language::German, "de", LATIN, Some(Algorithm::German)),
    row(Language::French, "fr", LATIN, Some(Algorithm::French)),
    row(Language::Spanish, "es", LATIN, Some(Algorithm::Spanish)),
    row(Language::Portuguese, "pt", LATIN, Some(Algorithm::Portuguese)),
    row(Language::Italian, "it", LATIN, Some(Algorithm::Italian)),
    row(Language::Dutch, "nl", LATIN, Some(Algorithm::Dutch)),
    row(Language::Swedish, "sv", LATIN, Some(Algorithm::Swedish)),
    row(Language::Danish, "da", LATIN, Some(Algorithm::Danish)),
    row(Language::Norwegian, "no", LATIN, Some(Algorithm::Norwegian)),
    row(Language::Finnish, "fi", LATIN, Some(Algorithm::Finnish)),
    row(Language::Polish, "pl", LATIN, Some(Algorithm::Polish)),
    row(Language::Czech, "cs", LATIN, Some(Algorithm::Czech)),
    row(Language::Hungarian, "hu", LATIN, Some(Algorithm::Hungarian)),
    row(Language::Romanian, "ro", LATIN, Some(Algorithm::Romanian)),
    row(Language::Turkish, "tr", LATIN, Some(Algorithm::Turkish)),
    row(Language::Catalan, "ca", LATIN, Some(Algorithm::Catalan)),
    row(Language::Indonesian, "id", LATIN, Some(Algorithm::Indonesian)),
    row(Language::Estonian, "et", LATIN, Some(Algorithm::Estonian)),
    row(Language::Lithuanian, "lt", LATIN, Some(Algorithm::Lithuanian)),
    row(Language::Irish, "ga", LATIN, Some(Algorithm::Irish)),
    row(Language::Basque, "eu", LATIN, Some(Algorithm::Basque)),
    row(Language::Vietnamese, "vi", LATIN, None),
    row(Language::Russian, "ru", CYRILLIC, Some(Algorithm::Russian)),
    row(Language::Ukrainian, "uk", CYRILLIC, Some(Algorithm::Ukrainian)),
    row(Language::Bulgarian, "bg", CYRILLIC, None),
    row(Language::Serbian, "sr", &[Script::Latin, Script::Cyrillic], Some(Algorithm::Serbian)),
    row(Language::Greek, "el", &[Script::Greek], Some(Algorithm::Greek)),
    row(Language::Armenian, "hy", &[Script::Armenian], Some(Algorithm::Armenian)),
    row(Language::Hebrew, "he", &[Script::Hebrew], None),
    row(Language::Arabic, "ar", ARABIC, Some(Algorithm::Arabic)),
    row(Language::Persian, "fa", ARABIC, Some(Algorithm::Persian)),
    row(Language::Urdu, "ur", ARABIC, None),
    row(Language::Hindi, "hi", DEVANAGARI, Some(Algorithm::Hindi)),
    row(Language::Nepali, "ne", DEVANAGARI, Some(Algorithm::Nepali)),
    row(Language::Tamil, "ta", &[Script::Tamil], Some(Algorithm::Tamil)),
];

impl Language {
    /// Returns the code of ISO 639-1.
    #[must_use]
    pub fn code(self) -> &'static str {
        ROWS.iter().find(|row| row.language == self).map_or("", |row| row.code)
    }

    /// Returns what marks the terms of the language: its code in upper case, which no word in lower case holds.
    pub(super) fn tag(self) -> String {
        self.code().to_ascii_uppercase()
    }

    pub(super) fn stemmer(self) -> Option<Stemmer> {
        ROWS.iter().find(|row| row.language == self)?.algorithm.map(Stemmer::new)
    }
}

impl Display for Language {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl TryFrom<String> for Language {
    type Error = UnknownLanguage;

    fn try_from(tag: String) -> Result<Self, UnknownLanguage> {
        tag.parse()
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.code().to_owned()
    }
}

/// A code that stands for no language of [`Language`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no language with rules of its own; leave it out, or take one of: {known}", known = known_codes())]
pub struct UnknownLanguage(String);

fn known_codes() -> String {
    ROWS.iter().map(|row| row.code).collect::<Vec<&str>>().join(", ")
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    /// Reads a language tag. Regions and scripts do not matter: `pt-BR` is `pt`.
    fn from_str(tag: &str) -> Result<Self, UnknownLanguage> {
        let code = tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
        // The codes of languages that another one's rules serve.
        let code = match code.as_str() {
            "nb" | "nn" => "no",
            "hr" | "bs" => "sr",
            "sk" => "cs",
            "ms" => "id",
            other => other,
        };
        let found = ROWS.iter().find(|row| row.code == code).map(|row| row.language);
        found.ok_or_else(|| UnknownLanguage(tag.to_owned()))
    }
}

/// The languages that the texts of a collection may be in. By default these are all.
///
/// They matter where the script leaves a choice. A script of which none is named has all of its languages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Languages(Vec<Language>);

impl Languages {
    /// Makes a choice of languages; without one, it is all of them.
    #[must_use]
    pub fn new(mut languages: Vec<Language>) -> Self {
        languages.sort_unstable();
        languages.dedup();
        Self(languages)
    }

    /// Returns these languages for a text that states its own. That one goes before all others in its scripts. A language
    /// that is not one of these does not count, because no query looks for its words.
    #[must_use]
    pub fn of_text_in(&self, language: Language) -> Self {
        let scripts = ROWS.iter().find(|row| row.language == language).map(|row| row.scripts).unwrap_or_default();
        if !scripts.iter().all(|script| self.of(*script).contains(&language)) {
            return self.clone();
        }
        let shares = |row: &&Row| row.scripts.iter().any(|script| scripts.contains(script));
        let rivals: Vec<Language> = ROWS.iter().filter(shares).map(|row| row.language).collect();
        let others = self.0.iter().copied().filter(|other| !rivals.contains(other));
        Self::new(others.chain([language]).collect())
    }

    /// Returns the languages that a word of a script may be in, the most likely first.
    pub(super) fn of(&self, script: Script) -> Vec<Language> {
        let all = || ROWS.iter().filter(|row| row.scripts.contains(&script)).map(|row| row.language);
        let chosen: Vec<Language> = all().filter(|language| self.0.contains(language)).collect();
        if chosen.is_empty() { all().collect() } else { chosen }
    }
}

/// The codes, separated by spaces, as a file keeps them.
impl Display for Languages {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let codes: Vec<&str> = self.0.iter().map(|language| language.code()).collect();
        f.write_str(&codes.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_languages() {
        let rows = [
            ("de", Some(Language::German)),
            ("pt-BR", Some(Language::Portuguese)),
            ("EN_us", Some(Language::English)),
            ("nb", Some(Language::Norwegian)),
            ("hr", Some(Language::Serbian)),
            ("ja", None),
            ("", None),
        ];
        for (tag, expected) in rows {
            assert_eq!(tag.parse::<Language>().ok(), expected, "{tag}");
        }
        for row in &ROWS {
            assert_eq!(row.code.parse(), Ok(row.language), "{}", row.code);
        }
    }

    #[test]
    fn a_choice_leaves_the_other_scripts_alone() {
        let chosen = Languages::new(vec![Language::French, Language::German]);
        assert_eq!(chosen.of(Script::Latin), [Language::German, Language::French]);
        assert_eq!(chosen.of(Script::Greek), [Language::Greek]);
        assert_eq!(chosen.of(Script::Devanagari), [Language::Hindi, Language::Nepali]);
        assert_eq!(chosen.of_text_in(Language::French).of(Script::Latin), [Language::French]);
        assert_eq!(chosen.of_text_in(Language::Swedish), chosen, "no query would look for Swedish words");
        assert_eq!(chosen.of_text_in(Language::Nepali).of(Script::Devanagari), [Language::Nepali]);
        assert_eq!(Languages::default().of(Script::Latin).first(), Some(&Language::English));
        assert_eq!(chosen.to_string(), "fr de");
    }
}
