//! A session and what a presented refresh token means for it.
//!
//! A session begins with a login and is the *family* of every token pair that refreshing gave since. Each
//! pair but the newest has been exchanged for its successor, so at any time one refresh token is usable.

/// How long an exchanged token still gives its successor again, in ms: parallel tabs and lost answers.
pub const GRACE_MS: i64 = 10_000;

/// One login.
#[derive(Clone, Debug)]
pub struct Session {
    /// Slug of the product.
    pub product: String,
    /// UUID v7 text; the claim `sid`.
    pub id: String,
    /// Whose it is.
    pub account_id: String,
    /// In ms since 1970.
    pub created_at: i64,
    /// Its absolute end in ms since 1970; refreshing never moves it.
    pub expires_at: i64,
    /// When it was ended before its time, in ms since 1970.
    pub ended_at: Option<i64>,
}

impl Session {
    /// Whether tokens of it may be used.
    pub fn is_alive(&self, now_ms: i64) -> bool {
        self.ended_at.is_none() && now_ms < self.expires_at
    }
}

/// Why a session ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its owner signed out.
    Logout,
    /// A refresh token was used twice.
    Replay,
    /// Its owner ended it from another one, or all at once.
    Ended,
    /// The password was changed or set anew.
    Password,
}

impl EndReason {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Logout => "logout",
            EndReason::Replay => "replay",
            EndReason::Ended => "ended",
            EndReason::Password => "password",
        }
    }
}

/// A presented refresh token as it stands in the database.
#[derive(Clone, Debug)]
pub struct Presented {
    /// When it expires by itself, in ms since 1970.
    pub expires_at: i64,
    /// When it was exchanged, in ms since 1970.
    pub consumed_at: Option<i64>,
    /// Whether it was withdrawn because its answer seemed lost.
    pub revoked: bool,
    /// Whether the pair that it was exchanged for is still kept, to be given again.
    pub sealed: bool,
    /// What it was exchanged for.
    pub successor: Option<Successor>,
}

/// The pair that a consumed token was exchanged for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The keyed hash of its refresh token.
    pub hash: String,
    /// The claim `jti` of its access token.
    pub access_id: String,
    /// When its access token expires, in s since 1970.
    pub access_exp: i64,
    /// Whether its refresh token was exchanged, or its access token used: then its answer did arrive.
    pub used: bool,
}

/// What to do about a presented refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to give: expired, or of a session that is over.
    Refuse,
    /// Exchange it.
    Rotate,
    /// Exchanged a moment ago: the same successor again.
    Repeat,
    /// Exchanged, but the answer was lost: withdraw this pair, give a new one.
    Reissue {
        /// What to withdraw.
        lost: Successor,
    },
    /// Exchanged a moment ago, but what for is not kept any more, because clocks differ, and is in use: nothing to
    /// give, and nobody to blame.
    Gone,
    /// Two parties hold it: the session ends.
    Replay,
}

/// Decides; the session's row must be locked from reading `presented` until the outcome is written.
///
/// A withdrawn token that turns up is a replay too: its answer was not lost after all, so somebody else holds
/// the pair that replaced it.
pub fn judge(session: &Session, presented: &Presented, now_ms: i64) -> Verdict {
    if !session.is_alive(now_ms) || presented.expires_at <= now_ms {
        return Verdict::Refuse;
    }
    if presented.revoked {
        return Verdict::Replay;
    }
    let Some(consumed_at) = presented.consumed_at else {
        return Verdict::Rotate;
    };
    let recent = now_ms - consumed_at <= GRACE_MS;
    if recent && presented.sealed {
        return Verdict::Repeat;
    }
    match &presented.successor {
        Some(successor) if !successor.used => Verdict::Reissue { lost: successor.clone() },
        _ if recent => Verdict::Gone,
        _ => Verdict::Replay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            product: "p".into(),
            id: "s".into(),
            account_id: "a".into(),
            created_at: 0,
            expires_at: 100_000,
            ended_at: None,
        }
    }

    fn fresh() -> Presented {
        Presented { expires_at: 50_000, consumed_at: None, revoked: false, sealed: false, successor: None }
    }

    fn consumed(used: bool) -> Presented {
        Presented { consumed_at: Some(1_000), sealed: true, successor: Some(successor(used)), ..fresh() }
    }

    fn successor(used: bool) -> Successor {
        Successor { hash: "next".into(), access_id: "access".into(), access_exp: 600, used }
    }

    #[test]
    fn an_unused_token_is_exchanged_until_it_expires() {
        assert_eq!(judge(&session(), &fresh(), 49_999), Verdict::Rotate);
        assert_eq!(judge(&session(), &fresh(), 50_000), Verdict::Refuse);
    }

    #[test]
    fn for_ten_seconds_the_same_successor_is_given_again_even_if_it_was_used() {
        assert_eq!(judge(&session(), &consumed(true), 11_000), Verdict::Repeat);
        assert_eq!(judge(&session(), &consumed(false), 11_000), Verdict::Repeat);
    }

    #[test]
    fn later_it_matters_whether_the_successor_was_ever_used() {
        assert_eq!(judge(&session(), &consumed(false), 11_001), Verdict::Reissue { lost: successor(false) });
        assert_eq!(judge(&session(), &consumed(true), 11_001), Verdict::Replay);
    }

    #[test]
    fn who_repeats_in_time_is_no_thief_though_the_pair_was_forgotten_by_a_clock_that_is_ahead() {
        let forgotten = |used| Presented { sealed: false, ..consumed(used) };
        assert_eq!(judge(&session(), &forgotten(false), 11_000), Verdict::Reissue { lost: successor(false) });
        assert_eq!(judge(&session(), &forgotten(true), 11_000), Verdict::Gone);
        assert_eq!(judge(&session(), &forgotten(true), 11_001), Verdict::Replay);
    }

    #[test]
    fn a_withdrawn_token_that_turns_up_is_a_replay() {
        assert_eq!(judge(&session(), &Presented { revoked: true, ..fresh() }, 1_000), Verdict::Replay);
    }

    #[test]
    fn nothing_of_a_session_that_is_over_is_of_use() {
        let ended = Session { ended_at: Some(500), ..session() };
        let past = Session { expires_at: 1_000, ..session() };
        for presented in [fresh(), consumed(true), consumed(false)] {
            assert_eq!(judge(&ended, &presented, 1_000), Verdict::Refuse);
            assert_eq!(judge(&past, &presented, 1_000), Verdict::Refuse);
        }
    }
}
