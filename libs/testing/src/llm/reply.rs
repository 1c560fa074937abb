//! What the stub answers.
use std::time::Duration;

use serde_json::Value;

/// What to answer to one request.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) says: Says,
    usage: Reported,
    fragment: usize,
    pub(super) ends: Ends,
    pub(super) delay: Duration,
    finish: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) enum Says {
    Text(Vec<String>),
    Tools { before: String, calls: Vec<(String, String)> },
    Status { code: u16, body: Option<Value>, retry_after: Option<u32> },
    Raw(String),
}

/// The tokens that an answer reports.
#[derive(Clone, Copy, Debug)]
enum Reported {
    Counted,
    Tokens(i64, i64),
    Nothing,
}

/// How an answer ends. The number counts chunks that are sent before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    Well,
    Cut(usize),
    Error(usize),
    Hang(usize),
}

impl Reply {
    /// A text, streamed word by word.
    pub fn text(text: &str) -> Reply {
        let words = text.split_inclusive(' ').map(str::to_owned).collect();
        Reply::new(Says::Text(words))
    }

    /// A text, streamed in exactly these chunks.
    pub fn chunks(chunks: impl IntoIterator<Item = impl Into<String>>) -> Reply {
        Reply::new(Says::Text(chunks.into_iter().map(Into::into).collect()))
    }

    /// One call of a tool.
    pub fn tool(name: &str, arguments: &Value) -> Reply {
        Reply::tools([(name, arguments.clone())])
    }

    /// Several calls of tools in one answer.
    pub fn tools<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Reply {
        let calls = calls.into_iter().map(|(name, arguments)| (name.to_owned(), arguments.to_string())).collect();
        Reply::new(Says::Tools { before: String::new(), calls })
    }

    /// One call of a tool whose arguments are this text, JSON or not.
    pub fn tool_raw(name: &str, arguments: &str) -> Reply {
        Reply::new(Says::Tools { before: String::new(), calls: vec![(name.to_owned(), arguments.to_owned())] })
    }

    /// An HTTP error with a body as the dialect has it.
    pub fn status(code: u16) -> Reply {
        Reply::new(Says::Status { code, body: None, retry_after: None })
    }

    /// An HTTP error with this body.
    pub fn status_with(code: u16, body: Value) -> Reply {
        Reply::new(Says::Status { code, body: Some(body), retry_after: None })
    }

    /// A 200 with exactly this body, whatever it is.
    pub fn raw(body: &str) -> Reply {
        Reply::new(Says::Raw(body.to_owned()))
    }

    /// Says this text before the tool calls.
    #[must_use]
    pub fn after_saying(mut self, text: &str) -> Reply {
        if let Says::Tools { before, .. } = &mut self.says {
            text.clone_into(before);
        }
        self
    }

    /// Adds `retry-after` in seconds to an error.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Reply {
        if let Says::Status { retry_after, .. } = &mut self.says {
            *retry_after = Some(seconds);
        }
        self
    }

    /// Reports these prompt and completion tokens, however absurd, instead of counting words.
    #[must_use]
    pub fn usage(mut self, prompt: i64, completion: i64) -> Reply {
        self.usage = Reported::Tokens(prompt, completion);
        self
    }

    /// Reports no tokens at all.
    #[must_use]
    pub fn without_usage(mut self) -> Reply {
        self.usage = Reported::Nothing;
        self
    }

    /// Streams tool arguments in fragments of this many bytes (default 5).
    #[must_use]
    pub fn fragments(mut self, bytes: usize) -> Reply {
        self.fragment = bytes.max(1);
        self
    }

    /// Ends with another reason, in the dialect's own word, than that all was said or tools are wanted.
    #[must_use]
    pub fn finish(mut self, reason: &'static str) -> Reply {
        self.finish = Some(reason);
        self
    }

    /// Breaks the connection after this many chunks (a plain answer: in the middle of its body).
    #[must_use]
    pub fn cut_after(mut self, chunks: usize) -> Reply {
        self.ends = Ends::Cut(chunks);
        self
    }

    /// Tells of an error of the dialect's own after this many chunks, and ends.
    #[must_use]
    pub fn error_after(mut self, chunks: usize) -> Reply {
        self.ends = Ends::Error(chunks);
        self
    }

    /// Says nothing more after this many chunks, and never ends.
    #[must_use]
    pub fn hang_after(mut self, chunks: usize) -> Reply {
        self.ends = Ends::Hang(chunks);
        self
    }

    /// Waits this long before each chunk.
    #[must_use]
    pub fn delay(mut self, each: Duration) -> Reply {
        self.delay = each;
        self
    }

    fn new(says: Says) -> Reply {
        Reply { says, usage: Reported::Counted, fragment: 5, ends: Ends::Well, delay: Duration::ZERO, finish: None }
    }

    /// `stub-p-c`: `p` prompt tokens, `c` words.
    pub(super) fn of_name(model: &str) -> Option<Reply> {
        let (prompt, completion) = model.strip_prefix("stub-")?.split_once('-')?;
        let (prompt, completion): (i64, i64) = (prompt.parse().ok()?, completion.parse().ok()?);
        let words = (0..completion).map(|at| if at == 0 { "w0".to_owned() } else { format!(" w{at}") }).collect();
        Some(Reply::new(Says::Text(words)).usage(prompt, completion))
    }

    /// The tokens to report, a word being one; the prompt has so many words.
    pub(super) fn tokens(&self, words: usize) -> Option<(i64, i64)> {
        match self.usage {
            Reported::Counted => Some((words as i64, self.spoken())),
            Reported::Tokens(prompt, completion) => Some((prompt, completion)),
            Reported::Nothing => None,
        }
    }

    /// Tokens of the answer, a word being one.
    pub(super) fn spoken(&self) -> i64 {
        let chunks = match &self.says {
            Says::Text(words) => words.len(),
            Says::Tools { calls, .. } => calls.len() * 10,
            Says::Status { .. } | Says::Raw(_) => 0,
        };
        chunks as i64
    }

    /// Why it ends: in the words of a dialect.
    pub(super) fn reason(&self, of_text: &'static str, of_tools: &'static str) -> &'static str {
        let usual = if matches!(self.says, Says::Tools { .. }) { of_tools } else { of_text };
        self.finish.unwrap_or(usual)
    }

    /// The text as it is streamed, and the tool calls after it.
    pub(super) fn parts(&self) -> (Vec<String>, &[(String, String)]) {
        match &self.says {
            Says::Text(words) => (words.clone(), &[]),
            Says::Tools { before, calls } if before.is_empty() => (Vec::new(), calls),
            Says::Tools { before, calls } => (vec![before.clone()], calls),
            Says::Status { .. } | Says::Raw(_) => (Vec::new(), &[]),
        }
    }

    /// Tool arguments in the fragments in which they are streamed.
    pub(super) fn fragments_of(&self, arguments: &str) -> impl Iterator<Item = String> {
        pieces(arguments, self.fragment)
    }
}

/// Pieces of about `bytes` bytes, never splitting a character.
fn pieces(text: &str, bytes: usize) -> impl Iterator<Item = String> {
    let mut rest = text.to_owned();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = (bytes..rest.len()).find(|&at| rest.is_char_boundary(at)).unwrap_or(rest.len());
        let tail = rest.split_off(end);
        Some(std::mem::replace(&mut rest, tail))
    })
}
