//! Where a model's words go while it is still speaking.
use tokio::sync::mpsc;

use crate::models::{Meter, ModelError};

/// Collects what is said and passes it on if somebody listens. What was passed on, joined, is what was collected.
pub struct Speaker {
    listener: Option<mpsc::Sender<String>>,
    said: String,
    paused: bool,
    meter: Meter,
}

impl Speaker {
    /// Nobody listens; the whole is wanted at the end.
    pub fn collecting() -> Speaker {
        Speaker { listener: None, said: String::new(), paused: false, meter: Meter::default() }
    }

    /// Passes every piece on; a listener that is slow slows the model down.
    pub fn telling(listener: mpsc::Sender<String>) -> Speaker {
        Speaker { listener: Some(listener), said: String::new(), paused: false, meter: Meter::default() }
    }

    /// Whether somebody listens.
    pub fn is_telling(&self) -> bool {
        self.listener.is_some()
    }

    /// What was used for what is said.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Says a piece; nothing is nothing.
    ///
    /// # Errors
    /// [`ModelError::Left`] if the listener has gone.
    pub async fn say(&mut self, piece: &str) -> Result<(), ModelError> {
        if piece.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.paused) && !self.said.is_empty() {
            self.pass_on("\n\n").await?;
        }
        self.pass_on(piece).await
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

    async fn pass_on(&mut self, piece: &str) -> Result<(), ModelError> {
        self.said.push_str(piece);
        match &self.listener {
            Some(listener) => listener.send(piece.to_owned()).await.map_err(|_| ModelError::Left),
            None => Ok(()),
        }
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
        assert!(matches!(Speaker::telling(sender).say("hello").await, Err(ModelError::Left)));
    }
}
