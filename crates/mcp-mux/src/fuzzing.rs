//! What must hold whatever bytes come from outside: one function for each kind, which panics where it does not hold.
//!
//! `fuzz/` calls these functions with bytes that a fuzzer invents, and the tests below with those of `fuzz/seeds`. Nothing that
//! serves a request uses them: they are there in tests and with the feature `fuzzing` only.

mod envelope;
mod events;
mod manifests;
mod names;
mod sealed;

pub use envelope::envelope;
pub use events::events;
pub use manifests::manifests;
pub use names::names;
pub use sealed::sealed;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// Runs `check` with each file of the folder `name`, of which there are some.
    fn with_seeds(name: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
        let seeds: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        assert!(seeds.len() >= 4, "only {} seeds in {}", seeds.len(), folder.display());
        for bytes in &seeds {
            check(bytes);
        }
    }

    #[test]
    fn fuzz_seeds_of_envelopes_hold() {
        with_seeds("envelope", envelope);
    }

    #[test]
    fn fuzz_seeds_of_events_hold() {
        with_seeds("events", events);
    }

    #[test]
    fn fuzz_seeds_of_manifests_hold() {
        with_seeds("manifests", manifests);
    }

    #[test]
    fn fuzz_seeds_of_names_hold() {
        with_seeds("names", names);
    }

    #[test]
    fn fuzz_seeds_of_sealed_values_hold() {
        with_seeds("sealed", sealed);
    }

    proptest! {
        #[test]
        fn fuzz_functions_take_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for check in [envelope, events, manifests, names, sealed] {
                check(&bytes);
            }
        }
    }
}
