//! Directories that push users and groups: each proves itself by its own token, which is good for nothing else.

use std::collections::HashMap;

use http::header::HeaderMap;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tenant_store::IssuerName;
use tokio::sync::Semaphore;

use crate::config::{Config, ConfigError, DirectoryAccess, DirectoryNames};

/// How many requests of one directory are worked on at once: providers send a few.
const PLACES: usize = 8;
/// What no token is known by: a text whose SHA-256 this is, nobody has.
const NO_DIGEST: [u8; 32] = [0; 32];

/// All configured directories.
#[derive(Debug, Default)]
pub struct Directories(HashMap<IssuerName, Known>);

struct Known {
    digest: [u8; 32],
    names: DirectoryNames,
    places: Semaphore,
}

/// A directory that has proved itself.
#[derive(Debug)]
pub struct Proved<'d> {
    /// Whose it is.
    pub issuer: &'d IssuerName,
    /// Which attributes are names.
    pub names: &'d DirectoryNames,
    /// How many of its requests may be worked on at once.
    pub places: &'d Semaphore,
}

/// Why somebody is no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproved {
    /// No token was shown.
    Missing,
    /// Not the token of that directory.
    Wrong,
}

// By hand: what proves somebody stays out of logs, though it is a digest.
impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Directories {
    /// Those of `config`.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let known = |DirectoryAccess { issuer, token, names }| {
            let digest = Sha256::digest(token.expose_secret()).into();
            (issuer, Known { digest, names, places: Semaphore::new(PLACES) })
        };
        let directories = config.directories.iter().map(|directory| directory.resolve().map(known));
        directories.collect::<Result<_, _>>().map(Self)
    }

    /// The directory of `issuer`, if a request shows its token. Whether there is such an issuer, or it has a directory, shows neither in
    /// the answer nor in the time that it takes: digests are compared in any case.
    /// What is wrong is told apart by whether a token was shown at all.
    pub fn proved(&self, issuer: &str, headers: &HeaderMap) -> Result<Proved<'_>, Unproved> {
        let known = self.0.get_key_value(issuer);
        let digest = known.map_or(&NO_DIGEST, |(_, known)| &known.digest);
        let token = super::bearer(headers).ok().flatten();
        let unproved = if token.is_some() { Unproved::Wrong } else { Unproved::Missing };
        let shown = token.unwrap_or_default();
        let shown: [u8; 32] = Sha256::digest(shown).into();
        let is_same: bool = shown.ct_eq(digest).into();
        let (issuer, Known { names, places, .. }) = known.filter(|_| is_same).ok_or(unproved)?;
        Ok(Proved { issuer, names, places })
    }
}
