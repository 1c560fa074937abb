//! What a call used, as far as that is known.
use crate::models::{Meter, Usage};

/// More tokens than any model reads and writes in a call: what says more is wrong, and counts as this.
pub const TOKENS_MOST: i64 = 10_000_000;
/// Most micro-credits of a hold or a settlement; billing refuses more.
const CREDITS_MOST: i64 = 1_000_000_000_000_000;

/// Tokens of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Tokens read.
    pub prompt: i64,
    /// Tokens written.
    pub completion: i64,
    /// The provider did not say, or not all.
    pub estimated: bool,
}

impl Figures {
    /// What a meter shows; None: nothing was taken. Counts that the provider left out, or that no count can be, are
    /// estimated: the prompt is probably `likely` tokens, and of the answer counts what arrived.
    pub fn of(meter: &Meter, likely: i64) -> Option<Figures> {
        let Usage { prompt_tokens, completion_tokens, total_tokens } = meter.answers().last().copied()?;
        let count = |told: Option<i64>| told.filter(|tokens| *tokens >= 0).map(|tokens| tokens.min(TOKENS_MOST));
        let (prompt, completion, total) = (count(prompt_tokens), count(completion_tokens), count(total_tokens));
        let delivered = meter.delivered();
        if prompt.or(completion).or(total).is_none() && delivered == 0 {
            return None;
        }
        let rest = |known: i64| total.map(|total| total - known).filter(|rest| *rest >= 0);
        let read = prompt.or_else(|| rest(completion?)).unwrap_or(likely);
        let written = match (completion, rest(read)) {
            // Some count what was thought only in the sum.
            (Some(written), Some(rest)) => written.max(rest),
            (Some(known), None) | (None, Some(known)) => known,
            (None, None) => delivered,
        };
        let is_known = [prompt, completion, total].into_iter().flatten().count() >= 2;
        Some(Figures { prompt: read, completion: written, estimated: !is_known })
    }

    /// The same, but no more than so many together: what a call could not use is not booked as used.
    pub fn within(self, most: i64) -> Figures {
        let most = most.max(0);
        let prompt = self.prompt.clamp(0, most);
        Figures { prompt, completion: self.completion.clamp(0, most - prompt), ..self }
    }

    /// Both.
    pub fn total(&self) -> i64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// What so many tokens cost at this rate, in micro-credits.
pub fn price(tokens: i64, rate: i64) -> i64 {
    tokens.max(0).saturating_mul(rate.max(0)).min(CREDITS_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(told: [Option<i64>; 3], delivered: i64) -> Option<(i64, i64, bool)> {
        let [prompt_tokens, completion_tokens, total_tokens] = told;
        let meter = Meter::default();
        meter.begin();
        meter.set(Usage { prompt_tokens, completion_tokens, total_tokens });
        meter.deliver(delivered);
        Figures::of(&meter, 50).map(|figures| (figures.prompt, figures.completion, figures.estimated))
    }

    #[test]
    fn what_the_provider_says_counts() {
        assert_eq!(read([Some(7), Some(3), None], 4), Some((7, 3, false)));
        assert_eq!(read([Some(7), Some(3), Some(10)], 4), Some((7, 3, false)));
        assert_eq!(read([Some(7), Some(3), Some(30)], 4), Some((7, 23, false)));
        assert_eq!(read([Some(7), None, Some(30)], 4), Some((7, 23, false)));
        assert_eq!(read([None, Some(3), Some(30)], 4), Some((27, 3, false)));
        assert_eq!(read([Some(0), Some(0), Some(0)], 4), Some((0, 0, false)));
    }

    #[test]
    fn what_it_leaves_out_is_estimated_from_what_arrived() {
        assert_eq!(read([None, None, None], 4), Some((50, 4, true)));
        assert_eq!(read([Some(7), None, None], 4), Some((7, 4, true)));
        assert_eq!(read([Some(7), None, None], 0), Some((7, 0, true)));
        assert_eq!(read([None, Some(3), None], 0), Some((50, 3, true)));
    }

    #[test]
    fn where_nothing_came_nothing_was_taken() {
        assert_eq!(read([None, None, None], 0), None);
        assert_eq!(Figures::of(&Meter::default(), 50), None);
    }

    #[test]
    fn what_no_count_can_be_is_none() {
        assert_eq!(read([Some(-7), Some(-3), None], 4), Some((50, 4, true)));
        assert_eq!(read([Some(7), Some(i64::MAX), Some(i64::MAX)], 4), Some((7, TOKENS_MOST, false)));
        assert_eq!(read([Some(7), Some(3), Some(5)], 4), Some((7, 3, false)));
    }

    #[test]
    fn what_a_call_could_not_use_is_not_booked() {
        let within = |prompt, completion, most| {
            let figures = Figures { prompt, completion, estimated: false }.within(most);
            (figures.prompt, figures.completion)
        };
        assert_eq!(within(7, 3, 10), (7, 3));
        assert_eq!(within(7, i64::MAX, 10), (7, 3));
        assert_eq!(within(i64::MAX, i64::MAX, 10), (10, 0));
        assert_eq!(within(7, 3, -1), (0, 0));
    }

    #[test]
    fn a_price_does_not_overflow() {
        assert_eq!(price(1_000, 100), 100_000);
        assert_eq!(price(i64::MAX, i64::MAX), CREDITS_MOST);
        assert_eq!(price(-1, 100), 0);
    }
}
