//! What a ledger is made of: movements between a bucket of a wallet and a counter account, chained by hashes.
use sha2::{Digest, Sha256};

/// Length of a hash, in bytes.
pub const HASH_BYTES: usize = 32;

/// Where credits of a wallet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// The plan's, for one UTC day.
    Daily,
    /// Given.
    Bonus,
    /// Paid for.
    Purchased,
    /// Owed: never above 0.
    Debt,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Bucket; 4] = [Bucket::Daily, Bucket::Bonus, Bucket::Purchased, Bucket::Debt];

    /// The name in the table and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Bucket::Daily => "daily",
            Bucket::Bonus => "bonus",
            Bucket::Purchased => "purchased",
            Bucket::Debt => "debt",
        }
    }
}

/// Why credits moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The daily bucket was set to the plan's number.
    DailyRefresh,
    /// What was set aside of an earlier day's bucket came back too late.
    DailyExpiry,
    /// Given.
    Grant,
    /// Bought.
    Purchase,
    /// Came with an invoice.
    SubscriptionBonus,
    /// A call has cost it.
    Usage,
    /// The user has spent it.
    Spend,
    /// Taken because the money went back, or given back because it did not after all.
    Refund,
    /// From another account.
    TransferIn,
    /// To another account.
    TransferOut,
    /// An administrator's doing.
    Adjustment,
    /// A purchase has paid for what was owed.
    DebtRepaid,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 12] = [
        Kind::DailyRefresh,
        Kind::DailyExpiry,
        Kind::Grant,
        Kind::Purchase,
        Kind::SubscriptionBonus,
        Kind::Usage,
        Kind::Spend,
        Kind::Refund,
        Kind::TransferIn,
        Kind::TransferOut,
        Kind::Adjustment,
        Kind::DebtRepaid,
    ];

    /// The name in the table and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::DailyRefresh => "daily_refresh",
            Kind::DailyExpiry => "daily_expiry",
            Kind::Grant => "grant",
            Kind::Purchase => "purchase",
            Kind::SubscriptionBonus => "subscription_bonus",
            Kind::Usage => "usage",
            Kind::Spend => "spend",
            Kind::Refund => "refund",
            Kind::TransferIn => "transfer_in",
            Kind::TransferOut => "transfer_out",
            Kind::Adjustment => "adjustment",
            Kind::DebtRepaid => "debt_repaid",
        }
    }

    /// The account on the other side of the movement.
    pub fn account(self) -> &'static str {
        match self {
            Kind::DailyRefresh | Kind::Grant | Kind::SubscriptionBonus => "issued",
            Kind::DailyExpiry => "expired",
            Kind::Purchase => "paid",
            Kind::Usage | Kind::Spend => "spent",
            Kind::Refund => "refunded",
            Kind::TransferIn | Kind::TransferOut => "transfer",
            Kind::Adjustment => "adjusted",
            Kind::DebtRepaid => "debt",
        }
    }
}

/// One movement: `amount` came into `bucket` from `account`, or left it to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Whose wallet.
    pub user_id: &'a str,
    /// From 1, without gaps, per wallet.
    pub seq: i64,
    /// Unique within the product.
    pub id: &'a str,
    /// As [`Bucket::as_str`].
    pub bucket: &'a str,
    /// As [`Kind::as_str`].
    pub kind: &'a str,
    /// As [`Kind::account`].
    pub account: &'a str,
    /// Micro-credits; negative when they left the wallet.
    pub amount: i64,
    /// The buckets together after it, in micro-credits.
    pub balance_after: i64,
    /// What for.
    pub reference: &'a str,
    /// ms since 1970; never before the movement before it.
    pub created_at: i64,
}

impl Entry<'_> {
    /// SHA-256 of the hash of the wallet's movement before (zeros for the first) and every column. Texts carry their
    /// length, so that no two rows have the same bytes.
    pub fn hash(&self, before: &[u8]) -> [u8; HASH_BYTES] {
        let mut hasher = Sha256::new();
        hasher.update(before);
        let texts = [self.product, self.user_id, self.id, self.bucket, self.kind, self.account, self.reference];
        for text in texts {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        for number in [self.seq, self.amount, self.balance_after, self.created_at] {
            hasher.update(number.to_be_bytes());
        }
        hasher.finalize().into()
    }
}
