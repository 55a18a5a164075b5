//! Sealing and opening.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::Zeroizing;

use crate::error::{OpenError, SealError};
use crate::format::{self, NONCE_BYTES, Sealed};
use crate::key::{Key, KeyId, KeyRing};

const DOMAIN: &[u8] = b"mcp-mux.sealed.v2";

/// Where a sealed value is kept. It opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'p> {
    /// Whose it is.
    pub tenant: &'p str,
    /// The table.
    pub table: &'p str,
    /// The column.
    pub column: &'p str,
    /// The row.
    pub row: &'p str,
    /// What kind of thing it is, so that one kind is never taken for another.
    pub kind: &'p str,
    /// The row's version, so that an old value cannot be put back under a new version.
    pub version: u64,
}

impl Place<'_> {
    /// The associated data (RFC 5116 §2.1): every field behind its length, so that no two places are the same bytes.
    fn associated_data(&self, key_id: KeyId) -> Vec<u8> {
        let version = self.version.to_be_bytes();
        let fields = [
            DOMAIN,
            self.tenant.as_bytes(),
            self.table.as_bytes(),
            self.column.as_bytes(),
            self.row.as_bytes(),
            self.kind.as_bytes(),
            &version,
        ];
        let mut data = Vec::new();
        for field in fields {
            data.extend_from_slice(&(field.len() as u64).to_be_bytes());
            data.extend_from_slice(field);
        }
        data.push(format::VERSION);
        data.extend_from_slice(&key_id.0);
        data
    }
}

/// Seals `plaintext` for `place` under the ring's primary key: 37 bytes longer than what it holds.
pub fn seal(keys: &KeyRing, place: &Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let key = keys.primary_key();
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
    let ciphertext = encrypt(key, nonce, &place.associated_data(key.id()), plaintext).ok_or(SealError::TooLong)?;
    let mut sealed = format::header(key.id(), nonce);
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

/// Opens a value that was sealed for `place` under any key of the ring. What it held is wiped when dropped.
pub fn open(keys: &KeyRing, place: &Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let sealed = Sealed::parse(sealed)?;
    let key = keys.find(sealed.key_id).ok_or(OpenError::UnknownKey)?;
    let data = place.associated_data(key.id());
    decrypt(key, *sealed.nonce, &data, sealed.ciphertext).map(Zeroizing::new).ok_or(OpenError::Refused)
}

/// The id of the key under which a value was sealed.
pub fn key_id_of(sealed: &[u8]) -> Result<KeyId, OpenError> {
    Sealed::parse(sealed).map(|sealed| sealed.key_id)
}

fn encrypt(key: &Key, nonce: [u8; NONCE_BYTES], aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
    Aes256Gcm::new(key.bytes().into()).encrypt(&Nonce::from(nonce), Payload { msg, aad }).ok()
}

fn decrypt(key: &Key, nonce: [u8; NONCE_BYTES], aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
    Aes256Gcm::new(key.bytes().into()).decrypt(&Nonce::from(nonce), Payload { msg, aad }).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    const PLACE: Place<'static> =
        Place { tenant: "acme", table: "credential", column: "sealed", row: "r1", kind: "secret", version: 1 };

    fn ring() -> KeyRing {
        KeyRing::new(Key::from_bytes(&[7; 32]), vec![])
    }

    #[test]
    fn a_value_sealed_under_a_retired_key_still_opens_and_new_ones_use_the_primary() {
        let old = seal(&ring(), &PLACE, b"secret").unwrap();
        let turned = KeyRing::new(Key::from_bytes(&[8; 32]), vec![Key::from_bytes(&[7; 32])]);
        assert_eq!(**open(&turned, &PLACE, &old).unwrap(), *b"secret");
        let new = seal(&turned, &PLACE, b"secret").unwrap();
        assert_eq!(key_id_of(&new), Ok(turned.primary()));
        assert_eq!(open(&ring(), &PLACE, &new), Err(OpenError::UnknownKey));
    }

    #[test]
    fn bytes_cannot_move_between_neighbouring_fields() {
        let sealed = seal(&ring(), &Place { tenant: "acme", table: "sec", ..PLACE }, b"x").unwrap();
        for place in [
            Place { tenant: "acmes", table: "ec", ..PLACE },
            Place { tenant: "acm", table: "esec", ..PLACE },
            Place { tenant: "acme", table: "secsealed", column: "", ..PLACE },
            Place { tenant: "acme", table: "sec", column: "sealedr1", row: "", ..PLACE },
            Place { tenant: "", table: "acmesec", ..PLACE },
            Place { tenant: "acme", table: "sec", row: "r1secret", kind: "", ..PLACE },
            Place { tenant: "acme", table: "sec", row: "r", kind: "1secret", ..PLACE },
        ] {
            assert_eq!(open(&ring(), &place, &sealed), Err(OpenError::Refused), "{place:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again(plaintext in prop::collection::vec(any::<u8>(), 0..200)) {
            let sealed = seal(&ring(), &PLACE, &plaintext).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + 37);
            prop_assert_eq!(&**open(&ring(), &PLACE, &sealed).unwrap(), &plaintext);
        }

        #[test]
        fn any_flipped_bit_is_refused(plaintext in prop::collection::vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut sealed = seal(&ring(), &PLACE, &plaintext).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(open(&ring(), &PLACE, &sealed).is_err());
        }

        #[test]
        fn any_truncation_or_extension_is_refused(length in 0_usize..60, extra in 1_usize..20) {
            let sealed = seal(&ring(), &PLACE, b"some secret").unwrap();
            prop_assert!(open(&ring(), &PLACE, &sealed[..length.min(sealed.len() - 1)]).is_err());
            prop_assert!(open(&ring(), &PLACE, &[&sealed[..], &vec![0; extra]].concat()).is_err());
        }

        #[test]
        fn any_other_place_is_refused(fields in prop::array::uniform5("[a-z0-9]{0,6}"), version in any::<u64>()) {
            let [tenant, table, column, row, kind] = &fields;
            let place = Place { tenant, table, column, row, kind, version };
            prop_assume!(place != PLACE);
            let sealed = seal(&ring(), &PLACE, b"secret").unwrap();
            prop_assert_eq!(open(&ring(), &place, &sealed), Err(OpenError::Refused));
        }

        #[test]
        fn each_field_of_a_place_counts(other in "[a-z]{1,8}", version in 2_u64..) {
            prop_assume!(!["acme", "credential", "sealed", "secret"].contains(&other.as_str()));
            let sealed = seal(&ring(), &PLACE, b"secret").unwrap();
            for place in [
                Place { tenant: &other, ..PLACE }, Place { table: &other, ..PLACE }, Place { column: &other, ..PLACE },
                Place { row: &other, ..PLACE }, Place { kind: &other, ..PLACE }, Place { version, ..PLACE },
            ] {
                prop_assert_eq!(open(&ring(), &place, &sealed), Err(OpenError::Refused));
            }
        }

        #[test]
        fn any_other_key_is_refused(bytes in any::<[u8; 32]>()) {
            prop_assume!(bytes != [7; 32]);
            let sealed = seal(&ring(), &PLACE, b"secret").unwrap();
            let other = Key::from_bytes(&bytes);
            prop_assert_eq!(open(&KeyRing::new(other, vec![]), &PLACE, &sealed), Err(OpenError::UnknownKey));
            // The same, should somebody rewrite the key id in the header.
            let forged = [&[1][..], &Key::from_bytes(&bytes).id().0, &sealed[9..]].concat();
            prop_assert_eq!(open(&KeyRing::new(Key::from_bytes(&bytes), vec![]), &PLACE, &forged), Err(OpenError::Refused));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(open(&ring(), &PLACE, &bytes).is_err());
            let versioned = [&[1][..], &bytes].concat();
            prop_assert!(open(&ring(), &PLACE, &versioned).is_err());
        }
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Vectors {
        test_groups: Vec<Group>,
    }

    #[derive(Deserialize)]
    struct Group {
        tests: Vec<Vector>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Vector {
        tc_id: u32,
        key: String,
        iv: String,
        aad: String,
        msg: String,
        ct: String,
        tag: String,
        result: String,
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
    }

    #[test]
    fn the_cipher_agrees_with_wycheproof() {
        let vectors: Vectors = serde_json::from_str(include_str!("../tests/wycheproof/aes_256_gcm.json")).unwrap();
        let tests: Vec<Vector> = vectors.test_groups.into_iter().flat_map(|group| group.tests).collect();
        assert!(tests.len() > 40, "only {} vectors were found", tests.len());
        for test in tests {
            let key = Key::from_bytes(bytes(&test.key).as_slice().try_into().unwrap());
            let nonce = bytes(&test.iv).as_slice().try_into().unwrap();
            let (aad, msg) = (bytes(&test.aad), bytes(&test.msg));
            let ciphertext = [bytes(&test.ct), bytes(&test.tag)].concat();
            let valid = test.result == "valid";
            assert_eq!(decrypt(&key, nonce, &aad, &ciphertext) == Some(msg.clone()), valid, "test {}", test.tc_id);
            if valid {
                assert_eq!(encrypt(&key, nonce, &aad, &msg).unwrap(), ciphertext, "test {}", test.tc_id);
            }
        }
    }
}
