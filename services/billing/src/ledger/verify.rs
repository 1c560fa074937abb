//! Recomputes a ledger from its rows.
//!
//! Everything is read in one snapshot, page by page: what is written meanwhile is not seen, so that wallets, rows, holds
//! and totals belong together although nobody waits.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sha2::{Digest, Sha256};
use weft_db::{Db, DbError, Tx};

use crate::domain::ledger::{Bucket, HASH_BYTES, Kind};
use crate::domain::wallet::Wallet;
use crate::error::Error;
use crate::store::hold::{hold_sum, hold_sums};
use crate::store::ledger::{EntryRow, entry_page, entry_page_of, total_list};
use crate::store::spending::spending_recount;
use crate::store::wallet::{wallet_find, wallet_page};

/// Rows that are read at once.
const PAGE: i64 = 1000;
/// Faults that are told.
const MAX_FAULTS: usize = 100;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose wallet; empty if it is about the whole.
    pub user_id: String,
    /// Number of the movement in its wallet; 0 if it is about the whole wallet.
    pub sequence: i64,
    /// Id of the movement, if there is one.
    pub transaction_id: String,
    /// What is wrong, in a sentence.
    pub problem: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Wallets looked at.
    pub wallets: i64,
    /// Movements looked at.
    pub transactions: i64,
    /// The sum over all accounts in micro-credits: 0 if all is right, and for a single wallet.
    pub sum: i64,
    /// What is wrong, the first 100.
    pub faults: Vec<Fault>,
    /// What moved for whom, why and for what, whatever the order: SHA-256 sums, in hex.
    pub digest: String,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Verifies the ledger of a product, or one wallet of it.
///
/// # Errors
/// The database.
pub async fn verify(db: &Db, product: &str, user_id: Option<&str>) -> Result<Report, Error> {
    let verified = db.snapshot(async |tx: Tx| -> Result<Report, DbError> {
        let mut verifier = Verifier::new(product);
        match user_id {
            Some(user_id) => verifier.one(&tx, user_id).await?,
            None => verifier.all(&tx).await?,
        }
        Ok(verifier.report())
    });
    Ok(verified.await?)
}

/// A wallet's row and what its open holds add up to.
#[derive(Clone, Copy, Debug)]
struct Stored {
    wallet: Wallet,
    held: [i64; 3],
}

/// The rows of one wallet so far.
struct Chain {
    user_id: String,
    stored: Option<Stored>,
    seq: i64,
    /// The hash of the last row as it is stored, and as it should be: they differ if somebody has changed it.
    heads: [[u8; HASH_BYTES]; 2],
    /// What is there after the last row, as it is stored and as the amounts add up.
    balances: [i128; 2],
    /// Daily, bonus, purchased, debt.
    sums: [i128; 4],
    /// What moved, by a hash of kind, bucket and reference.
    groups: BTreeMap<[u8; HASH_BYTES], i128>,
}

impl Chain {
    fn new(user_id: &str, stored: Option<Stored>) -> Chain {
        Chain {
            user_id: user_id.to_owned(),
            stored,
            seq: 0,
            heads: [[0; HASH_BYTES]; 2],
            balances: [0; 2],
            sums: [0; 4],
            groups: BTreeMap::new(),
        }
    }
}

struct Verifier<'a> {
    product: &'a str,
    report: Report,
    digest: [u8; HASH_BYTES],
    /// What the rows say that each account has.
    accounts: BTreeMap<String, i128>,
    /// What all wallets have.
    balances: i128,
}

impl<'a> Verifier<'a> {
    fn new(product: &'a str) -> Verifier<'a> {
        let (accounts, report) = (BTreeMap::new(), Report::default());
        Verifier { product, report, digest: [0; HASH_BYTES], accounts, balances: 0 }
    }

    fn report(mut self) -> Report {
        self.report.digest = self.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.report
    }

    async fn one(&mut self, tx: &Tx, user_id: &str) -> Result<(), DbError> {
        let stored = match wallet_find(tx, self.product, user_id).await? {
            Some(wallet) => {
                let held = hold_sum(tx, self.product, user_id).await?;
                Some(Stored { wallet, held: held.map_or([0; 3], |row| [row.daily, row.bonus, row.purchased]) })
            }
            None => None,
        };
        self.keys(tx, user_id, user_id).await?;
        let mut chain = Chain::new(user_id, stored);
        loop {
            let rows = entry_page_of(tx, self.product, user_id, chain.seq, PAGE).await?;
            let Some(last) = rows.last().map(|row| row.seq) else { break };
            rows.iter().for_each(|row| self.row(&mut chain, row));
            chain.seq = last;
        }
        if chain.stored.is_some() || chain.seq > 0 {
            self.end(chain);
        }
        Ok(())
    }

    async fn all(&mut self, tx: &Tx) -> Result<(), DbError> {
        let mut chain: Option<Chain> = None;
        let mut after = (String::new(), 0);
        loop {
            let rows = entry_page(tx, self.product, (&after.0, after.1), PAGE).await?;
            let users: HashSet<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
            let to = rows.last().map(|row| row.user_id.as_str());
            let mut wallets = self.wallets(tx, &after.0, to, &users).await?;
            for row in &rows {
                if chain.as_ref().is_none_or(|chain| chain.user_id != row.user_id) {
                    let next = Chain::new(&row.user_id, wallets.remove(&row.user_id));
                    if let Some(ended) = chain.replace(next) {
                        self.end(ended);
                    }
                }
                if let Some(chain) = &mut chain {
                    self.row(chain, row);
                }
            }
            match rows.into_iter().next_back() {
                Some(last) => after = (last.user_id, last.seq),
                None => break,
            }
        }
        if let Some(chain) = chain {
            self.end(chain);
        }
        self.totals(tx).await
    }

    /// The wallets after `after`, up to and with `to`: those of `users`; the others have no rows and are checked here.
    async fn wallets(
        &mut self,
        tx: &Tx,
        after: &str,
        to: Option<&str>,
        users: &HashSet<&str>,
    ) -> Result<HashMap<String, Stored>, DbError> {
        let mut found = HashMap::new();
        let mut after = after.to_owned();
        loop {
            let page = wallet_page(tx, self.product, &after, to, PAGE).await?;
            let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(found) };
            self.keys(tx, &first.user_id, &last.user_id).await?;
            let sums = hold_sums(tx, self.product, &after, &last.user_id).await?;
            let held: HashMap<String, [i64; 3]> =
                sums.into_iter().map(|row| (row.user_id, [row.daily, row.bonus, row.purchased])).collect();
            after.clone_from(&last.user_id);
            for row in page {
                let held = held.get(&row.user_id).copied().unwrap_or_default();
                let stored = Stored { wallet: row.wallet(), held };
                if users.contains(row.user_id.as_str()) {
                    found.insert(row.user_id, stored);
                } else {
                    self.end(Chain::new(&row.user_id, Some(stored)));
                }
            }
        }
    }

    /// Compares what the API keys of these wallets have spent with their holds. Those that ended long ago are gone, so a
    /// key may have spent more than they say.
    async fn keys(&mut self, tx: &Tx, from: &str, to: &str) -> Result<(), DbError> {
        for row in spending_recount(tx, self.product, from, to).await? {
            let (spent, held) = (row.spent.unwrap_or(0), row.held.unwrap_or(0));
            let key_id = &row.key_id;
            if held != row.open {
                let problem = format!("of the api key {key_id} {held} is held, its open holds add up to {}", row.open);
                self.fault(&row.user_id, 0, "", problem);
            }
            if spent < row.charged {
                let problem = format!("the api key {key_id} has spent {spent}, its holds were charged {}", row.charged);
                self.fault(&row.user_id, 0, "", problem);
            }
        }
        Ok(())
    }

    fn row(&mut self, chain: &mut Chain, row: &EntryRow) {
        self.report.transactions += 1;
        let hashes = chain.heads.map(|head| row.entry(self.product).hash(&head));
        let amount = i128::from(row.amount);
        let after = chain.balances.map(|balance| balance + amount);
        let bucket = Bucket::ALL.iter().position(|bucket| bucket.as_str() == row.bucket);
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
        let problem = if row.seq != chain.seq + 1 {
            Some(format!("it comes after number {}: what was between them is gone", chain.seq))
        } else if !hashes.iter().any(|hash| row.hash == hash) {
            Some("its hash is not that of its columns and of the movement before it".to_owned())
        } else if !after.contains(&i128::from(row.balance_after)) {
            Some("its balance is not that of the movement before it and its amount".to_owned())
        } else if amount == 0 {
            Some("it moves nothing".to_owned())
        } else if bucket.is_none() || kind.is_none_or(|kind| kind.account() != row.account) {
            Some("its bucket, kind and account are none of ours".to_owned())
        } else {
            None
        };
        if let Some(problem) = problem {
            self.fault(&chain.user_id, row.seq, &row.id, problem);
        }
        chain.seq = row.seq;
        chain.heads = [<[u8; HASH_BYTES]>::try_from(row.hash.as_slice()).unwrap_or_default(), hashes[0]];
        if let Some(bucket) = bucket {
            chain.sums[bucket] += amount;
        }
        chain.balances = [i128::from(row.balance_after), after[1]];
        let mut group = Sha256::new();
        for text in [&row.kind, &row.bucket, &row.reference] {
            group.update((text.len() as u64).to_be_bytes());
            group.update(text.as_bytes());
        }
        *chain.groups.entry(group.finalize().into()).or_default() += amount;
        *self.accounts.entry(row.account.clone()).or_default() -= amount;
    }

    /// Compares the wallet with its rows.
    fn end(&mut self, chain: Chain) {
        let Chain { user_id, stored, seq, heads, sums, groups, .. } = chain;
        self.add_to_digest(&user_id, &groups);
        let Some(Stored { wallet, held }) = stored else {
            self.fault(&user_id, 0, "", "there are movements, but no wallet".to_owned());
            return;
        };
        self.report.wallets += 1;
        self.balances += i128::from(wallet.balance());
        if wallet.seq != seq {
            let problem = format!("the wallet has {} movements, the last that is there is number {seq}", wallet.seq);
            self.fault(&user_id, seq.min(wallet.seq) + 1, "", problem);
        } else if !heads.contains(&wallet.head) {
            self.fault(&user_id, 0, "", "the wallet's hash is not that of its last movement".to_owned());
        }
        let [daily, bonus, purchased] = wallet.buckets;
        let buckets = [daily, bonus, purchased, -wallet.debt];
        for ((bucket, stored), sum) in Bucket::ALL.into_iter().zip(buckets).zip(sums) {
            if i128::from(stored) != sum {
                let problem = format!("the {} bucket is {stored}, its movements add up to {sum}", bucket.as_str());
                self.fault(&user_id, 0, "", problem);
            }
        }
        if !wallet.is_sound() {
            self.fault(&user_id, 0, "", "the wallet is below 0, or holds more than it has".to_owned());
        }
        for ((bucket, stored), sum) in Bucket::ALL.into_iter().zip(wallet.held).zip(held) {
            if stored != sum {
                let problem =
                    format!("of the {} bucket {stored} is held, its open holds add up to {sum}", bucket.as_str());
                self.fault(&user_id, 0, "", problem);
            }
        }
    }

    async fn totals(&mut self, tx: &Tx) -> Result<(), DbError> {
        let mut stored: BTreeMap<String, i128> = BTreeMap::new();
        for (account, balance) in total_list(tx, self.product).await? {
            *stored.entry(account).or_default() += i128::from(balance);
        }
        let sum = self.balances + stored.values().sum::<i128>();
        self.report.sum = i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
        if sum != 0 {
            self.fault("", 0, "", format!("all accounts together are {sum}, not 0"));
        }
        let accounts = std::mem::take(&mut self.accounts);
        let names: BTreeSet<&String> = stored.keys().chain(accounts.keys()).collect();
        for name in names {
            let of = |totals: &BTreeMap<String, i128>| totals.get(name).copied().unwrap_or(0);
            let (total, rows) = (of(&stored), of(&accounts));
            if total != rows {
                self.fault("", 0, "", format!("the account {name} is {total}, its movements add up to {rows}"));
            }
        }
        Ok(())
    }

    fn fault(&mut self, user_id: &str, sequence: i64, transaction_id: &str, problem: String) {
        if self.report.faults.len() < MAX_FAULTS {
            let (user_id, transaction_id) = (user_id.to_owned(), transaction_id.to_owned());
            self.report.faults.push(Fault { user_id, sequence, transaction_id, problem });
        }
    }

    /// Adds a wallet's hash as a number, so that the order of wallets does not matter either.
    fn add_to_digest(&mut self, user_id: &str, groups: &BTreeMap<[u8; HASH_BYTES], i128>) {
        let mut hasher = Sha256::new();
        for text in [self.product, user_id] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        let moved: Vec<_> = groups.iter().filter(|(_, sum)| **sum != 0).collect();
        if moved.is_empty() {
            return;
        }
        for (group, sum) in moved {
            hasher.update(group);
            hasher.update(sum.to_be_bytes());
        }
        let hash: [u8; HASH_BYTES] = hasher.finalize().into();
        let mut carry = 0;
        for (digit, added) in self.digest.iter_mut().zip(hash).rev() {
            let sum = u16::from(*digit) + u16::from(added) + carry;
            *digit = sum.to_be_bytes()[1];
            carry = sum >> 8;
        }
    }
}
