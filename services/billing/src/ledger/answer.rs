//! What operations answer, and how an answer is kept under its key.
use prost::Message;
use weft_proto::billing::v1;

use super::Done;
use crate::domain::day::begins_at;
use crate::domain::hold::{Hold, State};
use crate::domain::wallet::Wallet;
use crate::store::wallet::WalletId;

/// As it is stored; fields are only ever added.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(string, tag = "1")]
    transaction_id: String,
    #[prost(message, optional, tag = "2")]
    balance: Option<v1::Balance>,
    #[prost(message, optional, tag = "3")]
    hold: Option<v1::Hold>,
}

impl Done {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Done { transaction_id, balance, hold } = self.clone();
        Stored { transaction_id, balance: Some(balance), hold }.encode_to_vec()
    }

    /// None: nobody of ours has stored this.
    pub(super) fn decode(bytes: &[u8]) -> Option<Done> {
        let Stored { transaction_id, balance, hold } = Stored::decode(bytes).ok()?;
        Some(Done { transaction_id, balance: balance?, hold })
    }
}

/// A wallet as callers see it on a day.
pub(super) fn balance(wallet: &Wallet, today: i64) -> v1::Balance {
    let [daily, bonus, purchased] = wallet.free();
    v1::Balance {
        total: daily + bonus + purchased,
        daily,
        bonus,
        purchased,
        held: wallet.held(),
        debt: wallet.debt,
        daily_resets_at: begins_at(today + 1),
    }
}

pub(super) fn hold((product, user_id): &WalletId, hold: &Hold) -> v1::Hold {
    let state = match hold.state {
        State::Open => v1::HoldState::Open,
        State::Settled => v1::HoldState::Settled,
        State::Voided => v1::HoldState::Voided,
        State::Expired => v1::HoldState::Expired,
    };
    v1::Hold {
        id: hold.id.clone(),
        product: product.clone(),
        user_id: user_id.clone(),
        amount: hold.amount(),
        state: state.into(),
        charged: hold.charged,
        progress: hold.progress,
        created_at: hold.created_at,
        expires_at: hold.expires_at,
        reference: hold.reference.clone(),
        capped: hold.capped,
    }
}
