//! Takes out what a model thinks aloud in the middle of its answer: not every server tells it apart.

/// How a thought begins, at the beginning of a line, and how it ends.
const TAGS: [(&str, &str); 3] =
    [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>")];

/// What a whole answer says aloud.
pub fn without_thoughts(answer: &str) -> String {
    let mut thoughts = Thoughts::new();
    let mut spoken = thoughts.push(answer);
    spoken.push_str(&thoughts.finish());
    spoken
}

/// One answer on its way. Joined, what it lets go is the same however the answer was cut into pieces.
#[derive(Clone)]
pub struct Thoughts {
    /// What may become a tag; outside of a thought it is not let go yet.
    held: String,
    /// The tag that ends the thought.
    until: Option<&'static str>,
    /// Whether nothing but blanks has come in this line.
    at_start: bool,
    /// Whether the blanks after a thought go with it.
    is_after: bool,
    removed: u64,
}

impl Thoughts {
    /// An answer that has not begun.
    pub fn new() -> Thoughts {
        Thoughts { held: String::new(), until: None, at_start: true, is_after: false, removed: 0 }
    }

    /// Takes a further piece; gives what is no thought.
    pub fn push(&mut self, piece: &str) -> String {
        let mut spoken = String::new();
        for letter in piece.chars() {
            match self.until {
                Some(end) => self.think(letter, end),
                None => self.speak(letter, &mut spoken),
            }
        }
        spoken
    }

    /// The answer is at its end. A thought without one is none of it.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.held);
        if self.until.is_some() { String::new() } else { rest }
    }

    /// How many thoughts were removed so far.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    fn think(&mut self, letter: char, end: &'static str) {
        self.held.push(letter.to_ascii_lowercase());
        if self.held == end {
            self.held.clear();
            (self.until, self.at_start, self.is_after) = (None, true, true);
        } else if !end.starts_with(&self.held) {
            self.held.clear();
            if letter == '<' {
                self.held.push(letter);
            }
        }
    }

    fn speak(&mut self, letter: char, spoken: &mut String) {
        if !self.held.is_empty() || (self.at_start && letter == '<') {
            self.held.push(letter);
            let so_far = self.held.to_ascii_lowercase();
            if let Some((_, end)) = TAGS.iter().find(|(tag, _)| *tag == so_far) {
                self.held.clear();
                self.until = Some(end);
                self.removed += 1;
                return;
            }
            if TAGS.iter().any(|(tag, _)| tag.starts_with(&so_far)) {
                return;
            }
            self.held.pop();
            spoken.push_str(&std::mem::take(&mut self.held));
            (self.at_start, self.is_after) = (false, false);
        }
        if self.is_after && letter.is_whitespace() {
            return;
        }
        self.is_after = false;
        self.at_start = letter == '\n' || (self.at_start && letter.is_whitespace());
        spoken.push(letter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken<'a>(pieces: impl IntoIterator<Item = &'a str>) -> String {
        let mut thoughts = Thoughts::new();
        let mut spoken: String = pieces.into_iter().map(|piece| thoughts.push(piece)).collect();
        spoken.push_str(&thoughts.finish());
        spoken
    }

    #[test]
    fn a_thought_is_removed_however_it_is_cut() {
        for (text, left) in [
            ("<think>The user wants milk.</think>\n\nI added milk.", "I added milk."),
            ("\n <THINK>a < b </thin </think>Yes — «ação».", "\n Yes — «ação»."),
            ("One moment.\n\n<thinking>hm\nhm</thinking>\nDone.", "One moment.\n\nDone."),
            ("<reasoning></reasoning><think>x</think> Two.", "Two."),
            ("<think>never ends <</think", ""),
            ("<think><</think>é", "é"),
        ] {
            assert_eq!(spoken([text]), left, "{text}");
            assert_eq!(spoken(text.split_inclusive(|_: char| true)), left, "{text}");
            for at in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
                assert_eq!(spoken([&text[..at], &text[at..]]), left, "{text} split at {at}");
            }
        }
    }

    #[test]
    fn what_is_no_thought_is_left_alone() {
        for text in [
            "I think <think> is a tag.",
            "<b>Milk</b>\n<thin",
            "<",
            "<thinker>x</thinker>",
            "a\n<th<think>",
            "</think> is how one ends",
        ] {
            assert_eq!(spoken([text]), text);
            assert_eq!(spoken(text.split_inclusive(|_: char| true)), text);
        }
    }
}
