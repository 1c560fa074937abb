//! Vectors of texts, paid like any call.
use super::asker::Asker;
use super::figures::Figures;
use super::settle::Running;
use crate::domain::model::OFFLINE;
use crate::error::Error;
use crate::models::Meter;
use crate::models::embedding::{Texts, offline};
use crate::models::usage::about;

/// Who such calls are for, where usage is listed.
const ROLE: &str = "embedding";
/// What a text is wrapped in, at most, in tokens.
const WRAPPING: usize = 16;

/// Vectors, and who made them of how much.
pub struct Embedded {
    /// One a text, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// The model that made them.
    pub model: String,
    /// Tokens read.
    pub tokens: i64,
}

impl Asker {
    /// Makes vectors of texts.
    ///
    /// # Errors
    /// As [`Asker::ask`].
    pub async fn embed(&self, model: &str, texts: Texts<'_>) -> Result<Embedded, Error> {
        let likely = texts.texts.iter().fold(0_i64, |sum, text| sum.saturating_add(about(text)));
        let read = |meter: &Meter| Figures::of(meter, likely).map_or(0, |used| used.prompt);
        let meter = Meter::default();
        if let Some((keys, key)) = self.own_key(model).await? {
            let using = keys.using(&key, model, meter.clone());
            let outcome = self.models.embed_over(&key, model, texts, &meter).await;
            using.end(&outcome);
            return Ok(Embedded { vectors: outcome?, model: model.to_owned(), tokens: read(&meter) });
        }
        let model = self.models.answering(model)?.to_owned();
        if model == OFFLINE {
            let tokens = texts.texts.iter().fold(0_i64, |sum, text| sum.saturating_add(offline::tokens(text)));
            let vectors = self.models.embed(&model, texts, &meter).await?;
            return Ok(Embedded { vectors, model, tokens });
        }
        let most = most(texts);
        let opened = self.books.open(&self.payer, most, &self.reference).await?;
        let running = Running {
            payer: self.payer.clone(),
            opened,
            session_id: String::new(),
            role: ROLE.to_owned(),
            model: model.clone(),
            meter: meter.clone(),
            likely,
            most,
        };
        let guard = running.follow(&self.books, &self.tab);
        let vectors = self.models.embed(&model, texts, &meter).await?;
        guard.succeed();
        Ok(Embedded { vectors, model, tokens: read(&meter) })
    }
}

/// The most tokens that these texts can be: no tokenizer makes more tokens than bytes.
fn most(texts: Texts<'_>) -> i64 {
    let tokens = texts.texts.iter().map(|text| text.len() + WRAPPING).sum::<usize>();
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
