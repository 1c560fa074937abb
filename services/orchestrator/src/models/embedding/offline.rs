//! The built-in vectors: words and pieces of words, hashed into places. They know that two texts have words in common,
//! and nothing of what the words mean. The same text gives the same vector everywhere and always.
use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Numbers a vector has if nobody says.
pub const DIMENSIONS: u32 = 256;
/// Letters of a piece of a word.
const PIECE: usize = 3;
/// How much a whole word counts, and a piece of one.
const WEIGHTS: (f64, f64) = (1.0, 0.35);
/// Words with at most so many letters mostly hold others together, so they count only this part. A letter that is a word
/// counts in full.
const SHORT: (usize, f64) = (3, 0.25);
/// FNV-1a, 64 bits: the offset and the prime.
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0000_0100_0000_01b3);

/// The vector of a text: of length 1, or of zeros where there is no word in it.
pub fn embed(text: &str, dimensions: u32) -> Vec<f32> {
    let mut features: BTreeMap<String, (f64, u32)> = BTreeMap::new();
    let mut count = |feature: String, weight: f64| {
        let (most, times) = features.entry(feature).or_insert((weight, 0));
        (*most, *times) = (most.max(weight), *times + 1);
    };
    for word in words(text) {
        let part = share(&word);
        let framed: Vec<char> = format!("<{word}>").chars().collect();
        framed.windows(PIECE).for_each(|piece| count(piece.iter().collect(), WEIGHTS.1 * part));
        count(format!("w{word}"), WEIGHTS.0 * part);
    }
    let mut sums = vec![0.0_f64; usize::try_from(dimensions).unwrap_or(1).max(1)];
    for (feature, (weight, times)) in features {
        // What is repeated counts more, but not as often as it is there.
        add(&mut sums, &feature, weight * (1.0 + f64::from(times).ln()));
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    sums.iter().map(|sum| (sum * scale) as f32).collect()
}

/// How much of a word counts.
fn share(word: &str) -> f64 {
    let is_short = word.chars().count() <= SHORT.0 && !word.chars().any(is_a_word);
    if is_short { SHORT.1 } else { 1.0 }
}

/// How many tokens that counts as: its words.
pub fn tokens(text: &str) -> i64 {
    i64::try_from(words(text).count()).unwrap_or(i64::MAX)
}

/// Letters and digits in a row, in lower case and without accents. Scripts without spaces give one letter a word.
fn words(text: &str) -> impl Iterator<Item = String> {
    let folded: String =
        text.nfkd().filter(|letter| !is_combining_mark(*letter)).flat_map(char::to_lowercase).collect();
    let mut words = Vec::new();
    for run in folded.split(|letter: char| !letter.is_alphanumeric()).filter(|run| !run.is_empty()) {
        let mut word = String::new();
        for letter in run.chars() {
            if is_a_word(letter) {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                words.push(letter.to_string());
            } else {
                word.push(letter);
            }
        }
        words.extend((!word.is_empty()).then_some(word));
    }
    words.into_iter()
}

/// Chinese characters and kana stand for themselves.
fn is_a_word(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{3134f}')
}

/// Adds or takes away at the place that a feature has; both by its hash, so that what meets by chance evens out.
fn add(sums: &mut [f64], feature: &str, weight: f64) {
    let hash = feature.bytes().fold(FNV.0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV.1));
    // The low bits of FNV alone are not even enough.
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let places = u64::try_from(sums.len()).unwrap_or(1);
    let place = usize::try_from((hash >> 1) % places).unwrap_or(0);
    let sign = if hash & 1 == 0 { 1.0 } else { -1.0 };
    if let Some(sum) = sums.get_mut(place) {
        *sum += sign * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(one: &str, other: &str) -> f32 {
        let (one, other) = (embed(one, DIMENSIONS), embed(other, DIMENSIONS));
        one.iter().zip(&other).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn a_vector_has_length_one_and_is_always_the_same() {
        for (text, dimensions) in
            [("Buy milk tomorrow", 256), ("日本語のテキスト", 64), ("x", 1), ("many words here", 3072)]
        {
            let vector = embed(text, dimensions);
            assert_eq!(vector.len(), usize::try_from(dimensions).unwrap());
            let length: f32 = vector.iter().map(|number| number * number).sum();
            assert!((length - 1.0).abs() < 1e-5, "{text}: {length}");
            assert_eq!(vector, embed(text, dimensions));
        }
        assert!(embed("… !", 256).iter().all(|number| *number == 0.0));
    }

    #[test]
    fn texts_that_share_words_are_nearer_than_others() {
        for (text, near, far) in [
            ("the quarterly invoice for the client", "send the client an invoice", "a walk along the beach at dawn"),
            ("how do I reset my password", "password reset does not work", "recipe for lentil soup"),
            ("café crème", "CAFE creme", "train to Lisbon"),
            ("running tests in parallel", "the tests run in parallel", "buy flowers for mother"),
            ("東京の天気", "東京の天気予報", "会議の議事録"),
            ("send the invoice to the client", "an invoice for a client", "a walk on the beach"),
        ] {
            assert!(
                cosine(text, near) > cosine(text, far) + 0.1,
                "{text}: {} {}",
                cosine(text, near),
                cosine(text, far)
            );
        }
        assert!((cosine("Buy milk", "buy, MILK!") - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_word_is_a_token() {
        assert_eq!((tokens("Buy milk, please."), tokens(""), tokens("東京 ok")), (3, 0, 3));
    }
}
