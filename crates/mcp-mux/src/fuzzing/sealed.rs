//! Sealed values, as somebody could have changed them in the database.

use crypto::{Key, KeyRing, OpenError, Place, key_id_of, open, seal};

const PLACE: Place<'static> =
    Place { tenant: "acme", table: "credential", column: "sealed", row: "r1", kind: "secret", version: 1 };
const OTHER_PLACE: Place<'static> = Place { tenant: "globex", ..PLACE };

/// What the values among the seeds hold: they were sealed for [`PLACE`] under the key of [`ring`].
const SEALED_IN_SEEDS: &[u8] = b"sealed in a seed";

fn ring() -> KeyRing {
    KeyRing::new(Key::from_bytes(&[7; 32]), vec![Key::from_bytes(&[8; 32])])
}

/// Only what was sealed opens, and not where a byte of it was changed.
pub fn sealed(bytes: &[u8]) {
    opens_only_if_it_was_sealed(bytes);
    if let Some((at, rest)) = bytes.split_first_chunk::<2>()
        && let Some((change, plaintext)) = rest.split_first()
    {
        opens_only_unchanged(plaintext, u16::from_be_bytes(*at).into(), *change);
    }
}

fn opens_only_if_it_was_sealed(bytes: &[u8]) {
    let ring = ring();
    let id = key_id_of(bytes);
    match open(&ring, &PLACE, bytes) {
        Ok(opened) => assert_eq!(**opened, *SEALED_IN_SEEDS, "a value opens that nobody sealed"),
        Err(OpenError::Malformed) => assert_eq!(id, Err(OpenError::Malformed)),
        Err(OpenError::UnknownKey) => assert!(id.is_ok_and(|id| !ring.contains(id))),
        Err(OpenError::Refused) => assert!(id.is_ok_and(|id| ring.contains(id))),
    }
    assert!(open(&ring, &OTHER_PLACE, bytes).is_err(), "a value opens in another place");
    if let Ok(id) = id {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}

fn opens_only_unchanged(plaintext: &[u8], at: usize, change: u8) {
    let ring = ring();
    let mut sealed = seal(&ring, &PLACE, plaintext).expect("the system gives random numbers, and the value is short");
    assert_eq!(key_id_of(&sealed), Ok(ring.primary()));
    assert_eq!(**open(&ring, &PLACE, &sealed).expect("what was sealed opens"), *plaintext);
    assert_eq!(open(&ring, &OTHER_PLACE, &sealed), Err(OpenError::Refused));
    let at = at % sealed.len();
    let (head, _) = sealed.split_at_checked(at).expect("it is within the value");
    assert!(open(&ring, &PLACE, head).is_err(), "a value opens that was cut off at {at}");
    let byte = sealed.get_mut(at).expect("it is within the value");
    *byte ^= change.max(1);
    assert!(open(&ring, &PLACE, &sealed).is_err(), "a value opens that was changed at {at}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_seeds_hold_what_opens_under_both_keys() {
        for seed in [
            include_bytes!("../../../../fuzz/seeds/sealed/primary.bin"),
            include_bytes!("../../../../fuzz/seeds/sealed/retired.bin"),
        ] {
            assert_eq!(**open(&ring(), &PLACE, seed).unwrap(), *SEALED_IN_SEEDS);
        }
    }
}
