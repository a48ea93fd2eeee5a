//! The recovery phrase: 24 words that are the library.

use std::fmt;

use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

/// Words of a phrase.
pub const PHRASE_WORDS: usize = 24;

/// The 24 words (BIP39, English) that a library's root is made from. Displaying it shows the words; debugging it
/// does not. It is wiped when dropped.
#[derive(Clone)]
pub struct RecoveryPhrase(Mnemonic);

/// Why text is not a recovery phrase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPhrase {
    /// Too few or too many words.
    #[error("a recovery phrase has 24 words, this has {found}; look for words that are missing or run together")]
    WordCount {
        /// Words found.
        found: usize,
    },
    /// A word that is in no phrase.
    #[error("word {position}, \"{word}\", is in no recovery phrase{}", suggest(.nearest))]
    UnknownWord {
        /// Counted from 1, as the sheet of paper does.
        position: usize,
        /// The word as it was given.
        word: String,
        /// The only word as near as this, if there is one.
        nearest: Option<&'static str>,
    },
    /// All words are possible, but not together.
    #[error(
        "the words do not belong together: one was mistaken for another, or two changed places; compare them with your copy"
    )]
    Checksum,
}

fn suggest(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(word) => format!("; did you mean \"{word}\"?"),
        None => "; compare it with your copy".to_owned(),
    }
}

impl RecoveryPhrase {
    /// The phrase of 256 random bits.
    ///
    /// # Panics
    /// Never: 32 bytes are a length that phrases have.
    #[must_use]
    #[expect(clippy::expect_used, reason = "32 bytes are a length that phrases have")]
    pub fn generate(entropy: &[u8; 32]) -> Self {
        Self(Mnemonic::from_entropy_in(Language::English, entropy).expect("32 bytes make 24 words"))
    }

    /// Reads a phrase as a person types it: any white space, any case, numbers before words ignored.
    ///
    /// # Errors
    /// When the words are not 24 words of the list with a matching checksum; the error says which is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidPhrase> {
        let words: Vec<Zeroizing<String>> = text
            .split(|c: char| c.is_whitespace() || c == ',')
            .map(|word| word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ')'))
            .filter(|word| !word.is_empty())
            .map(|word| Zeroizing::new(word.to_lowercase()))
            .collect();
        if let Some(index) = words.iter().position(|word| Language::English.find_word(word.as_str()).is_none()) {
            // A phrase of the wrong length with a strange word in it is most likely not a phrase at all, or has
            // two words run together; the strange word is the better hint in both cases.
            return Err(InvalidPhrase::UnknownWord {
                position: index + 1,
                word: words[index].to_string(),
                nearest: nearest_word(&words[index]),
            });
        }
        if words.len() != PHRASE_WORDS {
            return Err(InvalidPhrase::WordCount { found: words.len() });
        }
        let joined = Zeroizing::new(words.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" "));
        Mnemonic::parse_in_normalized(Language::English, &joined).map(Self).map_err(|_| InvalidPhrase::Checksum)
    }

    /// The words in order.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.words()
    }

    pub(crate) fn entropy(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.to_entropy())
    }
}

impl fmt::Display for RecoveryPhrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RecoveryPhrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryPhrase(secret)")
    }
}

/// Changed letters up to which a word may have been meant.
const DISTANCE_MAX: usize = 2;

/// The one word of the list with the fewest changed letters, at most [`DISTANCE_MAX`]; `None` when several are as
/// near.
fn nearest_word(word: &str) -> Option<&'static str> {
    let length = word.chars().count();
    let mut least = DISTANCE_MAX + 1;
    let mut nearest = None;
    for listed in Language::English.word_list() {
        if listed.len().abs_diff(length) > DISTANCE_MAX {
            continue;
        }
        let distance = edit_distance(word, listed);
        if distance < least {
            (least, nearest) = (distance, Some(*listed));
        } else if distance == least {
            nearest = None;
        }
    }
    nearest
}

/// Letters to insert, remove or replace to get from one word to the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::RootKey;

    /// The published phrase of 32 zero bytes.
    fn zeros() -> String {
        format!("{}art", "abandon ".repeat(23))
    }

    proptest! {
        #[test]
        fn phrases_round_trip_however_they_are_typed(entropy: [u8; 32]) {
            let phrase = RecoveryPhrase::generate(&entropy);
            prop_assert_eq!(phrase.words().count(), PHRASE_WORDS);
            let numbered: String =
                phrase.words().enumerate().map(|(index, word)| format!("{}. {}\n", index + 1, word.to_uppercase())).collect();
            for text in [phrase.to_string(), phrase.to_string().replace(' ', ",\t "), numbered] {
                let parsed = RecoveryPhrase::parse(&text);
                prop_assert_eq!(parsed.map(|parsed| parsed.to_string()), Ok(phrase.to_string()));
            }
        }

        #[test]
        fn any_text_is_refused_without_panic(text in ".{0,200}") {
            prop_assert!(RecoveryPhrase::parse(&text).is_err());
        }
    }

    #[test]
    fn the_published_phrase_is_read_and_makes_a_library() {
        assert_eq!(RecoveryPhrase::generate(&[0; 32]).to_string(), zeros());
        let phrase = RecoveryPhrase::parse(&zeros()).unwrap();
        let library = RootKey::from_phrase(&phrase).library_id();
        assert_eq!(RootKey::from_phrase(&RecoveryPhrase::generate(&[0; 32])).library_id(), library);
        assert_ne!(RootKey::from_phrase(&RecoveryPhrase::generate(&[1; 32])).library_id(), library);
        assert_eq!(format!("{phrase:?}"), "RecoveryPhrase(secret)");
    }

    #[test]
    fn a_wrong_word_is_named_with_the_nearest_one() {
        let text = zeros().replacen("abandon", "abandn", 1);
        let refused = RecoveryPhrase::parse(&text).unwrap_err();
        let expected = InvalidPhrase::UnknownWord { position: 1, word: "abandn".to_owned(), nearest: Some("abandon") };
        assert_eq!(refused, expected);
        assert_eq!(refused.to_string(), "word 1, \"abandn\", is in no recovery phrase; did you mean \"abandon\"?");

        let strange = zeros().replace("art", "Erdferkel");
        let Err(InvalidPhrase::UnknownWord { position: 24, nearest: None, .. }) = RecoveryPhrase::parse(&strange)
        else {
            panic!("a strange word was taken");
        };
    }

    #[test]
    fn missing_and_mistaken_words_are_told_apart() {
        assert_eq!(RecoveryPhrase::parse("").unwrap_err(), InvalidPhrase::WordCount { found: 0 });
        assert_eq!(RecoveryPhrase::parse("abandon art").unwrap_err(), InvalidPhrase::WordCount { found: 2 });
        // A valid phrase of 12 words is no recovery phrase of a library.
        let twelve = format!("{}about", "abandon ".repeat(11));
        assert_eq!(RecoveryPhrase::parse(&twelve).unwrap_err(), InvalidPhrase::WordCount { found: 12 });
        assert_eq!(RecoveryPhrase::parse(&zeros().replace("art", "zoo")).unwrap_err(), InvalidPhrase::Checksum);
    }

    #[test]
    fn edit_distance_counts_letters() {
        for (from, to, distance) in [("", "", 0), ("a", "", 1), ("abandn", "abandon", 1), ("kitten", "sitting", 3)] {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }
}
