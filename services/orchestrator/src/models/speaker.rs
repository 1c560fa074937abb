//! Where a model's words go while it is still speaking.
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::models::{Meter, ModelError, Piece};

/// Collects what is said and passes it on if somebody listens. What was passed on, joined, is what was collected.
pub struct Speaker {
    listener: Listener,
    is_telling: bool,
    told: usize,
    left: CancellationToken,
    said: String,
    paused: bool,
    meter: Meter,
}

/// Who listens.
enum Listener {
    Nobody,
    /// Who reads the text.
    ToText(mpsc::Sender<String>),
    /// Who takes everything.
    ToAll(mpsc::Sender<Piece>),
}

impl Speaker {
    /// Nobody listens; the whole is wanted at the end.
    pub fn collecting() -> Speaker {
        Speaker {
            listener: Listener::Nobody,
            is_telling: false,
            told: 0,
            left: CancellationToken::new(),
            said: String::new(),
            paused: false,
            meter: Meter::default(),
        }
    }

    /// Passes every piece on; a listener that is slow slows the model down.
    pub fn telling(listener: mpsc::Sender<String>) -> Speaker {
        Speaker { listener: Listener::ToText(listener), is_telling: true, ..Speaker::collecting() }
    }

    /// The same with tool calls and refusals, and who says it all.
    pub fn telling_all(listener: mpsc::Sender<Piece>) -> Speaker {
        Speaker { listener: Listener::ToAll(listener), is_telling: true, ..Speaker::collecting() }
    }

    /// Stops when this happens: the caller has left.
    #[must_use]
    pub fn until(mut self, left: CancellationToken) -> Speaker {
        self.left = left;
        self
    }

    /// Whether what is said is passed on while it comes.
    pub fn is_telling(&self) -> bool {
        self.is_telling
    }

    /// Happens when the caller has left and nobody wants the rest.
    pub fn left(&self) -> CancellationToken {
        self.left.clone()
    }

    /// What is used for what is said.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A new call of a model begins, with a meter of its own.
    pub fn begin_call(&mut self) -> Meter {
        self.meter = Meter::default();
        self.meter.clone()
    }

    /// How many pieces were said or passed on: once there are more, an answer cannot be begun anew.
    pub fn told(&self) -> usize {
        self.told
    }

    /// Takes a piece of an answer: text is said, all else only passed on.
    ///
    /// # Errors
    /// [`ModelError::Left`] if the listener has gone.
    pub async fn tell(&mut self, piece: Piece) -> Result<(), ModelError> {
        match piece {
            Piece::Text(text) if text.is_empty() => Ok(()),
            Piece::Text(text) => {
                self.paragraph().await?;
                self.pass_on(text).await
            }
            Piece::By(_) => self.send(piece).await,
            Piece::Refusal(_) | Piece::Call { .. } | Piece::Arguments { .. } => {
                self.told += 1;
                self.send(piece).await
            }
        }
    }

    /// Says a piece; nothing is nothing.
    ///
    /// # Errors
    /// [`ModelError::Left`] if the listener has gone.
    pub async fn say(&mut self, piece: &str) -> Result<(), ModelError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.paragraph().await?;
        self.pass_on(piece.to_owned()).await
    }

    /// The next piece begins a new paragraph: between the rounds of an answer.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// All that was said.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// The same, for keeping.
    pub fn into_said(self) -> String {
        self.said
    }

    async fn paragraph(&mut self) -> Result<(), ModelError> {
        if std::mem::take(&mut self.paused) && !self.said.is_empty() {
            self.pass_on("\n\n".to_owned()).await?;
        }
        Ok(())
    }

    async fn pass_on(&mut self, text: String) -> Result<(), ModelError> {
        self.told += 1;
        self.said.push_str(&text);
        self.send(Piece::Text(text)).await
    }

    async fn send(&mut self, piece: Piece) -> Result<(), ModelError> {
        let is_sent = match (&self.listener, piece) {
            (Listener::ToText(listener), Piece::Text(text)) => listener.send(text).await.is_ok(),
            (Listener::ToAll(listener), piece) => listener.send(piece).await.is_ok(),
            (Listener::Nobody | Listener::ToText(_), _) => true,
        };
        if !is_sent {
            self.listener = Listener::Nobody;
        }
        if is_sent { Ok(()) } else { Err(ModelError::Left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_passed_on_is_what_was_said() {
        let (sender, mut pieces) = mpsc::channel(8);
        let mut speaker = Speaker::telling(sender);
        speaker.pause();
        for piece in ["one ", "", "two"] {
            speaker.say(piece).await.unwrap();
        }
        speaker.pause();
        speaker.say("three").await.unwrap();
        let said = speaker.into_said();
        let mut heard = String::new();
        while let Some(piece) = pieces.recv().await {
            heard.push_str(&piece);
        }
        assert_eq!(said, "one two\n\nthree");
        assert_eq!(heard, said);
    }

    #[tokio::test]
    async fn a_listener_that_has_gone_is_noticed() {
        let (sender, pieces) = mpsc::channel(1);
        drop(pieces);
        let mut speaker = Speaker::telling(sender);
        assert!(matches!(speaker.say("hello").await, Err(ModelError::Left)));
    }
}
