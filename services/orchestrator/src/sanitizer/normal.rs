//! The form in which texts are compared: letters in lower case and without accents, digits as `0`, nothing else.
//!
//! Spaces, punctuation, zero-width characters and soft hyphens are gone from it, compatibility characters are what
//! they stand for (NFKD). All digits are alike, so that today's date in a prompt is as good as any other.
use std::ops::Range;

use unicode_normalization::char::{decompose_compatible, is_combining_mark};

/// Longest HTML entity that is decoded, in bytes without `&` and `;`.
const ENTITY_BYTES: usize = 8;
/// Most digits of a character's number in `\u{…}`.
const CODE_DIGITS: usize = 6;
/// Letters of the Hangul script that are there to be invisible.
const FILLERS: [char; 4] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}'];

/// Gives the normal form of one character: mostly one character or none. No other character has a say in it, so a
/// text may be folded in any pieces.
pub fn fold(letter: char, mut each: impl FnMut(char)) {
    decompose_compatible(letter, |part| {
        for lower in part.to_lowercase() {
            if lower.is_numeric() {
                each('0');
            } else if lower.is_alphanumeric() && !FILLERS.contains(&lower) {
                each(lower);
            }
        }
    });
}

/// The normal form of a text.
pub fn normal(text: &str) -> String {
    let mut normal = String::new();
    text.chars().for_each(|letter| fold(letter, |part| normal.push(part)));
    normal
}

/// Whether a character only changes how the one before it looks, or is not seen at all.
pub fn is_invisible(letter: char) -> bool {
    is_combining_mark(letter)
        || FILLERS.contains(&letter)
        || matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// Reads `\n`, `\"`, `\x41`, `\u0041`, `\u{41}`, `&lt;`, `&#65;` and `%41` as what they stand for. What turns out to be none of them
/// is read as it is written.
#[derive(Clone, Default)]
pub struct Escapes {
    /// What may become an escape; ASCII, and beginning with `\`, `&` or `%`.
    written: String,
    /// Where that begins.
    start: usize,
}

/// What a begun escape is.
enum Escape {
    Open,
    Means(char),
    Nothing,
}

impl Escapes {
    /// Reads the character of this place; gives what is read, each with its own place.
    pub fn read(&mut self, letter: char, place: Range<usize>, mut each: impl FnMut(char, Range<usize>)) {
        if self.written.is_empty() {
            return self.begin(letter, place, each);
        }
        self.written.push(letter);
        match escape(&self.written) {
            Escape::Open => {}
            Escape::Means(begins @ ('\\' | '&' | '%')) => {
                // Escaped twice. It begins here, or a long chain of them would be held for ever.
                self.written.clear();
                self.begin(begins, place, each);
            }
            Escape::Means(meant) => {
                self.written.clear();
                each(meant, self.start..place.end);
            }
            Escape::Nothing => {
                self.written.pop();
                self.end(&mut each);
                self.begin(letter, place, each);
            }
        }
    }

    /// The text is at its end: what was begun is no escape.
    pub fn end(&mut self, mut each: impl FnMut(char, Range<usize>)) {
        let start = self.start;
        let written = std::mem::take(&mut self.written);
        written.char_indices().for_each(|(at, letter)| each(letter, start + at..start + at + letter.len_utf8()));
    }

    /// Where an escape begins that is not yet whole.
    pub fn open(&self) -> Option<usize> {
        (!self.written.is_empty()).then_some(self.start)
    }

    fn begin(&mut self, letter: char, place: Range<usize>, mut each: impl FnMut(char, Range<usize>)) {
        if matches!(letter, '\\' | '&' | '%') {
            self.written.push(letter);
            self.start = place.start;
        } else {
            each(letter, place);
        }
    }
}

fn escape(written: &str) -> Escape {
    if let Some(rest) = written.strip_prefix('\\') {
        return match rest.as_bytes() {
            [b'n' | b'r' | b't' | b'b' | b'f' | b'v'] => Escape::Means(' '),
            [b'u', b'{', hex @ .., b'}'] if !hex.is_empty() => code(hex, hex.len()),
            [b'u', b'{', hex @ ..] if hex.len() <= CODE_DIGITS && hex.iter().all(u8::is_ascii_hexdigit) => Escape::Open,
            [b'u', hex @ ..] => code(hex, 4),
            [b'x', hex @ ..] => code(hex, 2),
            _ => Escape::Nothing,
        };
    }
    if let Some(rest) = written.strip_prefix('%') {
        return match code(rest.as_bytes(), 2) {
            // One byte of several: no letter of its own.
            Escape::Means(part) if !part.is_ascii() => Escape::Means(' '),
            escape => escape,
        };
    }
    let rest = written.strip_prefix('&').unwrap_or_default();
    match rest.strip_suffix(';') {
        Some(name) => entity(name),
        None if rest.len() <= ENTITY_BYTES && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'#') => {
            Escape::Open
        }
        None => Escape::Nothing,
    }
}

/// So many hexadecimal digits.
fn code(hex: &[u8], digits: usize) -> Escape {
    if hex.len() > digits || !hex.iter().all(u8::is_ascii_hexdigit) {
        return Escape::Nothing;
    }
    let Some(text) = str::from_utf8(hex).ok().filter(|text| text.len() == digits) else { return Escape::Open };
    numbered(u32::from_str_radix(text, 16).ok())
}

fn entity(name: &str) -> Escape {
    if let Some(number) = name.strip_prefix('#') {
        let hex = number.strip_prefix(['x', 'X']);
        return numbered(hex.map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok()));
    }
    match name {
        "amp" => Escape::Means('&'),
        "bsol" => Escape::Means('\\'),
        "quot" | "apos" | "lt" | "gt" | "nbsp" | "shy" | "ensp" | "emsp" | "zwj" | "zwnj" => Escape::Means(' '),
        _ => Escape::Nothing,
    }
}

/// The character of this number; a half of a pair stands for nothing that a fingerprint has.
fn numbered(number: Option<u32>) -> Escape {
    number.map_or(Escape::Nothing, |number| Escape::Means(char::from_u32(number).unwrap_or(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> String {
        let (mut escapes, mut read) = (Escapes::default(), String::new());
        text.char_indices()
            .for_each(|(at, letter)| escapes.read(letter, at..at + letter.len_utf8(), |letter, _| read.push(letter)));
        escapes.end(|letter, _| read.push(letter));
        read
    }

    #[test]
    fn texts_that_look_alike_have_one_normal_form() {
        for text in [
            "Do NOT guess",
            "do\u{200b}not\u{ad}guess",
            "ｄｏ－ｎｏｔ　𝐠𝐮𝐞𝐬𝐬",
            "d.o.n.o.t.g.u.e.s.s",
            "Dó nöt gue\u{301}ss\u{3164}",
        ] {
            assert_eq!(normal(text), "donotguess", "{text}");
        }
        assert_eq!(normal("a 2026-11-20 ٣ ½ Ⅷ"), "a00000000000viii");
        assert_eq!(normal("Ωζ нет 日本"), "ωζнет日本");
    }

    #[test]
    fn escapes_are_read_as_what_they_stand_for() {
        for (written, read) in [
            (r"a\nb\tc", "a b c"),
            (r#"say \"hi\""#, r#"say "hi""#),
            (r"\u0041\u00e9\x41", "AéA"),
            (r"\\u0041 \\\\n", "A  "),
            (r"\ud835\udc00", "  "),
            ("&lt;b&gt; &#65;&#x41; &amp;#65; &nbsp;", " b  AA A  "),
            (r"\u0026#65;", "A"),
            (r"\u{41}\u{1d400}\u{000042}", "A𝐀B"),
            ("a%20b%41%2541%E2%80%94", "a bAA   "),
        ] {
            assert_eq!(decoded(written).replace('\\', ""), read, "{written}");
        }
    }

    #[test]
    fn what_is_no_escape_is_read_as_it_is_written() {
        for text in [
            "R&D & more",
            r"C:\users",
            r"\u00zz",
            "&;",
            "&nothing;",
            "&#;",
            "&#99999999999;",
            "a &am",
            r"\u00",
            "&é",
            "&&&",
            "x&averylongname;",
            "100% of %zz, 5%2",
            r"\u{} \u{xyz} \u{1234567}",
        ] {
            assert_eq!(decoded(text).replace('\\', ""), text.replace('\\', ""), "{text}");
        }
    }

    #[test]
    fn an_escape_is_open_only_until_it_is_one() {
        let mut escapes = Escapes::default();
        for (at, letter) in "&amp;amp;amp;amp;amp;".char_indices() {
            escapes.read(letter, at..at + 1, |_, _| ());
            assert!(escapes.open().is_none_or(|open| at - open <= ENTITY_BYTES));
        }
    }
}
