//! The wallets that a lane has lately used, as its last commit left them.
use std::collections::HashMap;

use super::plan::Account;
use crate::store::wallet::WalletId;

/// Wallets of a generation: at most two of them are remembered.
const GENERATION: usize = 20_000;

/// Two generations: what is used moves to the young one; when that is full the old one is forgotten.
#[derive(Default)]
pub struct Memory {
    young: HashMap<WalletId, Account>,
    old: HashMap<WalletId, Account>,
}

impl Memory {
    /// Takes a wallet out: it is back with [`Memory::put`] once what happens to it is certain.
    pub fn take(&mut self, id: &WalletId) -> Option<Account> {
        self.young.remove(id).or_else(|| self.old.remove(id))
    }

    /// Remembers a wallet.
    pub fn put(&mut self, id: WalletId, account: Account) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_remembered_and_the_rest_is_bounded() {
        let mut memory = Memory::default();
        let id = |number: usize| ("p".to_owned(), number.to_string());
        memory.put(id(0), Account::default());
        for number in 1..=5 * GENERATION {
            memory.put(id(number), Account::default());
            let used = memory.take(&id(0)).unwrap();
            memory.put(id(0), used);
        }
        assert!(memory.young.len() + memory.old.len() <= 2 * GENERATION);
        assert!(memory.take(&id(1)).is_none());
    }
}
