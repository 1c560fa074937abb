//! Seals what other replicas are to read, so that who reads Redis reads nothing: the key is made of the answer's id, and
//! the id is with its reader only.
use bytes::Bytes;
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::error::Error;
use crate::telling::id::RunId;

/// What the key is for, so that no other use of the same id makes the same key.
const PURPOSE: &[u8] = b"weft chat events v1";
const NONCE_BYTES: usize = 12;

/// Seals the entries of one answer, by the only one who makes it.
pub struct Sealer {
    cipher: ChaCha20Poly1305,
    /// How many were sealed: no nonce is used twice.
    count: u64,
}

impl Sealer {
    /// For an answer that begins.
    pub fn new(run: &RunId) -> Sealer {
        Sealer { cipher: cipher(run), count: 0 }
    }

    /// Seals an entry.
    ///
    /// # Errors
    /// [`Error::Sealing`] if it is too long, which none is.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Bytes, Error> {
        let mut nonce = [0; NONCE_BYTES];
        let (_, number) = nonce.split_at_mut(NONCE_BYTES - size_of::<u64>());
        number.copy_from_slice(&self.count.to_be_bytes());
        self.count = self.count.checked_add(1).ok_or(Error::Sealing)?;
        let sealed = self.cipher.encrypt(Nonce::from_slice(&nonce), plain).map_err(|_| Error::Sealing)?;
        Ok([nonce.as_slice(), &sealed].concat().into())
    }
}

/// Opens the entries of one answer.
pub struct Opener(ChaCha20Poly1305);

impl Opener {
    /// For who knows the id.
    pub fn new(run: &RunId) -> Opener {
        Opener(cipher(run))
    }

    /// What was sealed. None: it was not, or not of this answer.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES)?;
        self.0.decrypt(Nonce::from_slice(nonce), ciphertext).ok()
    }
}

fn cipher(run: &RunId) -> ChaCha20Poly1305 {
    let mut key = [0; 32];
    let derived = Hkdf::<Sha256>::new(None, run.secret()).expand(PURPOSE, &mut key);
    derived.unwrap_or_else(|error| unreachable!("a key is shorter than HKDF can make: {error}"));
    ChaCha20Poly1305::new(Key::from_slice(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_id_opens_it() {
        let run = RunId::new().unwrap();
        let mut sealer = Sealer::new(&run);
        let (first, second) = (sealer.seal(b"a secret").unwrap(), sealer.seal(b"a secret").unwrap());
        assert_ne!(first, second);
        assert_eq!(Opener::new(&run).open(&first).unwrap(), b"a secret");
        assert_eq!(Opener::new(&run).open(&second).unwrap(), b"a secret");
        assert!(Opener::new(&RunId::new().unwrap()).open(&first).is_none());
        let mut changed = first.to_vec();
        changed[20] ^= 1;
        assert!(Opener::new(&run).open(&changed).is_none());
        assert!(Opener::new(&run).open(&first[..5]).is_none());
    }
}
