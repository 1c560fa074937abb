//! A sealed value opens for its row, with its secret, whichever key is the current one.
use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use weft_core::Clock;
use weft_db::keyring::{self, Keyring, KeyringError, Sealed};
use weft_db::{Db, sql};
use weft_testing::eventually;

use super::{Place, on_both};

const NOW: i64 = 1_800_000_000_000;
const ROW: &[&str] = &["token", "adiuva", "ana"];
const PLAIN: &[u8] = b"sk-not-to-be-seen";

async fn migrated(place: &Place) -> Db {
    let db = place.open().await;
    db.migrate(&[keyring::migration(1)]).await.unwrap();
    db
}

fn secret() -> SecretString {
    "a secret of at least thirty-two bytes".into()
}

async fn ring(db: &Db) -> Keyring {
    Keyring::open(db, &secret(), Clock::manual(NOW)).await.unwrap()
}

async fn opened(ring: &Keyring, row: &[&str], sealed: &Sealed) -> Option<Vec<u8>> {
    match ring.unseal(row, &sealed.key_id, &sealed.bytes).await {
        Ok(plain) => Some(plain.expose_secret().to_vec()),
        Err(KeyringError::NotOurs) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn count(db: &Db) -> i64 {
    sql("SELECT COUNT(*) FROM data_keys").one(db).await.unwrap()
}

on_both! {
    async fn however_many_start_first_they_share_one_key(place: Place) {
        let db = migrated(&place).await;
        let starts = (0..8).map(|_| async {
            let db = place.open().await;
            let ring = ring(&db).await;
            (ring.current().await.unwrap(), ring.seal(ROW, PLAIN).await.unwrap())
        });
        let started = join_all(starts).await;
        assert_eq!(started.iter().map(|(current, _)| current).collect::<HashSet<_>>().len(), 1);
        assert_eq!(count(&db).await, 1);
        let ring = ring(&db).await;
        for (_, sealed) in &started {
            assert_eq!(opened(&ring, ROW, sealed).await.unwrap(), PLAIN);
        }
    }

    async fn a_value_opens_for_its_own_row_only(place: Place) {
        let ring = ring(&migrated(&place).await).await;
        let sealed = ring.seal(ROW, PLAIN).await.unwrap();
        assert_eq!(opened(&ring, ROW, &sealed).await.unwrap(), PLAIN);
        let others: [&[&str]; 5] =
            [&["token", "adiuva", "bob"], &["token", "adiuvaana", ""], &["token", "adiuva"], &[], &["token", "adiuva", "ana", ""]];
        for other in others {
            assert_eq!(opened(&ring, other, &sealed).await, None, "{other:?}");
        }
    }

    async fn a_changed_byte_a_cut_and_a_foreign_key_do_not_open(place: Place) {
        let ring = ring(&migrated(&place).await).await;
        let sealed = ring.seal(ROW, PLAIN).await.unwrap();
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert_eq!(opened(&ring, ROW, &changed).await, None, "byte {at}");
            changed.bytes = sealed.bytes[..at].to_vec();
            assert_eq!(opened(&ring, ROW, &changed).await, None, "{at} bytes");
        }
        ring.rotate().await.unwrap();
        let key_id = ring.current().await.unwrap();
        assert_eq!(opened(&ring, ROW, &Sealed { key_id, ..sealed.clone() }).await, None);
        assert_eq!(opened(&ring, ROW, &Sealed { key_id: "unknown".into(), ..sealed }).await, None);
    }

    async fn with_another_secret_nothing_opens(place: Place) {
        let db = migrated(&place).await;
        ring(&db).await;
        let other = Keyring::open(&db, &"another secret of thirty-two bytes".into(), Clock::manual(NOW)).await;
        assert!(matches!(other.err().unwrap(), KeyringError::WrongSecret));
    }

    async fn no_two_seals_of_a_value_look_alike_and_neither_shows_it(place: Place) {
        let db = migrated(&place).await;
        let ring = ring(&db).await;
        let (one, two) = (ring.seal(ROW, PLAIN).await.unwrap(), ring.seal(ROW, PLAIN).await.unwrap());
        assert_ne!(one.bytes, two.bytes);
        assert!(!one.bytes.windows(4).any(|part| PLAIN.windows(4).any(|plain| plain == part)));
        assert_eq!(opened(&ring, ROW, &ring.seal(ROW, b"").await.unwrap()).await.unwrap(), b"");
    }

    async fn after_a_rotation_others_seal_with_the_new_key_within_a_second(place: Place) {
        let db = migrated(&place).await;
        let (here, there) = (ring(&db).await, ring(&place.open().await).await);
        let old = there.seal(ROW, PLAIN).await.unwrap();
        let id = here.rotate().await.unwrap();
        assert_ne!(id, old.key_id);
        let new = here.seal(ROW, PLAIN).await.unwrap();
        assert_eq!(new.key_id, id);
        assert_eq!(opened(&there, ROW, &new).await.unwrap(), PLAIN, "an unknown key is looked up at once");
        eventually("the new key", Duration::from_secs(1), async || there.current().await.unwrap() == id).await;
        for ring in [&here, &there] {
            assert_eq!(opened(ring, ROW, &old).await.unwrap(), PLAIN);
        }
    }

    async fn parallel_rotations_leave_one_current_key(place: Place) {
        let db = migrated(&place).await;
        let rings = join_all((0..3).map(|_| async { ring(&place.open().await).await })).await;
        let ids: HashSet<String> =
            join_all(rings.iter().map(|ring| async { ring.rotate().await.unwrap() })).await.into_iter().collect();
        assert_eq!((ids.len(), count(&db).await), (3, 4));
        let newest = ring(&db).await.current().await.unwrap();
        assert!(ids.contains(&newest));
    }

    async fn a_renewed_value_is_under_the_current_key_and_its_old_key_can_go(place: Place) {
        let db = migrated(&place).await;
        let clock = Clock::manual(NOW);
        let ring = Keyring::open(&db, &secret(), clock.clone()).await.unwrap();
        let old = ring.seal(ROW, PLAIN).await.unwrap();
        assert!(ring.renew(ROW, &old).await.unwrap().is_none());
        let current = ring.rotate().await.unwrap();
        let new = ring.renew(ROW, &old).await.unwrap().unwrap();
        assert_eq!(new.key_id, current);
        let both = [old.key_id.clone(), current.clone()];
        assert_eq!(ring.forget(&both).await.unwrap(), 0, "somebody may not have heard of the new one");
        clock.advance(Duration::from_secs(60));
        assert_eq!(ring.replaced().await.unwrap(), std::slice::from_ref(&old.key_id));
        assert_eq!(ring.forget(std::slice::from_ref(&current)).await.unwrap(), 0, "the current key stays");
        assert_eq!(ring.forget(&both).await.unwrap(), 1);
        let later = Keyring::open(&db, &secret(), clock).await.unwrap();
        assert_eq!(opened(&later, ROW, &new).await.unwrap(), PLAIN);
        assert_eq!(opened(&later, ROW, &old).await, None);
    }
}
