//! Credits set aside for a call that is running.

/// How a hold stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Set aside.
    #[default]
    Open,
    /// Charged, in part or in full.
    Settled,
    /// Given back.
    Voided,
    /// Ended by the sweeper at its progress mark.
    Expired,
}

impl State {
    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Settled => "settled",
            State::Voided => "voided",
            State::Expired => "expired",
        }
    }

    /// The state with this name; what no version of ours has written is taken for an end.
    pub fn of(name: &str) -> State {
        match name {
            "open" => State::Open,
            "settled" => State::Settled,
            "voided" => State::Voided,
            _ => State::Expired,
        }
    }
}

/// A hold. Amounts are micro-credits, times ms since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Unique within the product.
    pub id: String,
    /// How it stands.
    pub state: State,
    /// What it took of the daily bucket …
    pub daily: i64,
    /// … of the bonus bucket …
    pub bonus: i64,
    /// … and of the purchased one.
    pub purchased: i64,
    /// The UTC day whose daily bucket it took from.
    pub day: i64,
    /// What was charged; 0 while it is open.
    pub charged: i64,
    /// What was delivered so far.
    pub progress: i64,
    /// How long it lives without a sign of life, in ms.
    pub ttl_ms: i64,
    /// When it was made.
    pub created_at: i64,
    /// When the sweeper ends it.
    pub expires_at: i64,
    /// What it is for.
    pub reference: String,
    /// The API key that it was made for; empty: none.
    pub key_id: String,
    /// The call has cost more than it covers.
    pub capped: bool,
    /// What was reported as the cost, also if only the hold could be charged.
    pub reported: i64,
}

impl Hold {
    /// What it set aside.
    pub fn amount(&self) -> i64 {
        self.daily + self.bonus + self.purchased
    }

    /// Whether it can be: nothing is charged that was not set aside, and nothing is below 0.
    pub fn is_sound(&self) -> bool {
        let covered = 0..=self.amount();
        covered.contains(&self.charged) && covered.contains(&self.progress)
    }
}
