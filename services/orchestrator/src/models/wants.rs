//! What a client asks for besides an answer.
use serde_json::Value;

/// A client's options of a completion, checked. It has no `Debug`: schemas and stops are what users write.
#[derive(Default)]
pub struct Wants {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// Above 0, up to 1.
    pub top_p: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Texts that end the answer, none empty.
    pub stop: Vec<String>,
    /// For answers that can be had again.
    pub seed: Option<i64>,
    /// Which tools may be called, or have to be.
    pub choice: ToolChoice,
    /// Whether several may be called at once; None: as the provider usually does.
    pub parallel: Option<bool>,
    /// What the answer's text has to be.
    pub format: Format,
    /// How much is to be thought.
    pub effort: Option<Effort>,
}

/// Which tools may be called, or have to be.
#[derive(Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// What an answer's text has to be.
#[derive(Default)]
pub enum Format {
    /// Anything.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// JSON that fits a schema.
    Schema(Schema),
}

/// The schema of an answer.
pub struct Schema {
    /// Its name.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// JSON schema.
    pub schema: Value,
    /// Whether the answer has to fit it; None: as the provider usually does.
    pub strict: Option<bool>,
}

/// How much is to be thought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// As little as can be.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

impl Wants {
    /// Bytes of what a model is told because of them.
    pub fn bytes(&self) -> usize {
        match &self.format {
            Format::Text | Format::Json => 0,
            Format::Schema(Schema { name, description, schema, .. }) => {
                name.len() + description.len() + schema.to_string().len()
            }
        }
    }
}

impl Format {
    /// Whether it may be anything.
    pub fn is_text(&self) -> bool {
        matches!(self, Format::Text)
    }
}

impl Effort {
    /// The level of this name.
    pub fn named(name: &str) -> Option<Effort> {
        [Effort::Minimal, Effort::Low, Effort::Medium, Effort::High].into_iter().find(|level| level.name() == name)
    }

    /// As OpenAI's, Anthropic's and Gemini's dialects call it.
    pub fn name(self) -> &'static str {
        match self {
            Effort::Minimal => "minimal",
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High => "high",
        }
    }
}
