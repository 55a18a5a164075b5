//! Signatures (Ed25519, RFC 8032): who holds the database alone cannot make one, because what signs lies there sealed.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use crypto::{Key, KeyRing};
use serde::{Deserialize, Serialize};
use tenant_store::{AuditChain, AuditCheckpoint, AuditPruned, AuditRow, AuditWriterId, Store, StoreError, Timestamp};

use super::event::sha256;
use super::line;

/// How many digits of the public key's digest name it.
const ID_DIGITS: usize = 16;

/// Signs. What it signs with is wiped when it is dropped.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
    /// All keys that ever signed, the present one last.
    all: Vec<PublicKey>,
}

/// What signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// What it is called: the beginning of its digest.
    pub id: String,
    /// The key, as base64 of 32 bytes.
    pub public: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Signer {
    /// The signer of that database, whose platform's keys those are.
    pub async fn of(store: &Store, platform: &KeyRing) -> Result<Self, StoreError> {
        let seeds = store.audit_seeds(platform).await?;
        let pairs: Option<Vec<Ed25519KeyPair>> = seeds.iter().map(pair).collect();
        let mut pairs = pairs.ok_or(StoreError::AuditKey(crypto::OpenError::Malformed))?;
        let all = pairs.iter().map(PublicKey::of).collect();
        let pair = pairs.pop().ok_or(StoreError::AuditKey(crypto::OpenError::Malformed))?;
        Ok(Self { public: PublicKey::of(&pair), pair, all })
    }

    /// The key with which its signatures are checked.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// That one, and those that signed before it.
    pub fn all(&self) -> &[PublicKey] {
        &self.all
    }

    /// Signs that a writer's part of a chain ends with that event.
    pub(super) fn checkpoint(
        &self,
        chain: AuditChain,
        writer: AuditWriterId,
        (seq, hash): (u64, &str),
        at: Timestamp,
    ) -> AuditCheckpoint {
        let unsigned = AuditCheckpoint {
            writer,
            seq,
            at,
            hash: hash.to_owned(),
            key_id: self.public.id.clone(),
            signature: Vec::new(),
        };
        let signature = self.sign(&message(&chain.to_string(), &unsigned));
        AuditCheckpoint { signature, ..unsigned }
    }

    /// Signs for a writer that is gone that its part of a chain ended with that event when it was looked at.
    pub(super) fn vouch(&self, chain: AuditChain, row: &AuditRow, at: Timestamp) -> AuditCheckpoint {
        let unsigned = AuditCheckpoint {
            writer: row.writer,
            seq: row.seq,
            at,
            hash: line::hash(&row.line),
            key_id: self.public.id.clone(),
            signature: Vec::new(),
        };
        let signature = self.sign(&message_of_another(&chain.to_string(), &unsigned));
        AuditCheckpoint { signature, ..unsigned }
    }

    /// Signs that a writer's part of a chain is gone up to what that checkpoint covers, because its time was over.
    pub(super) fn prune(&self, chain: AuditChain, up_to: &AuditCheckpoint, at: Timestamp) -> AuditPruned {
        let unsigned = AuditCheckpoint { at, key_id: self.public.id.clone(), signature: Vec::new(), ..up_to.clone() };
        let signature = self.sign(&message_of_pruned(&chain.to_string(), &unsigned));
        AuditPruned(AuditCheckpoint { signature, ..unsigned })
    }

    /// Whether a key of this database has signed that for its writer or another one, in that chain.
    pub(super) fn has_signed(&self, chain: &str, checkpoint: &AuditCheckpoint) -> bool {
        let messages = [message(chain, checkpoint), message_of_another(chain, checkpoint)];
        let mut keys = self.all.iter().filter(|key| key.id == checkpoint.key_id);
        keys.any(|key| messages.iter().any(|message| key.has_signed(message, &checkpoint.signature)))
    }

    pub(super) fn sign(&self, message: &str) -> Vec<u8> {
        self.pair.sign(message.as_bytes()).as_ref().to_vec()
    }
}

impl PublicKey {
    fn of(pair: &Ed25519KeyPair) -> Self {
        Self::of_bytes(pair.public_key().as_ref())
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let id = format!("akey_{}", sha256(bytes).get(..ID_DIGITS).unwrap_or_default());
        Self { id, public: BASE64_STANDARD.encode(bytes) }
    }

    /// Reads what `mcp-mux audit key` prints.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.trim()).ok().filter(|bytes| bytes.len() == 32)?;
        Some(Self::of_bytes(&bytes))
    }

    /// Whether it is called what it should be.
    pub(super) fn is_sound(&self) -> bool {
        Self::parse(&self.public).as_ref() == Some(self)
    }

    pub(super) fn has_signed(&self, message: &str, signature: &[u8]) -> bool {
        let Ok(bytes) = BASE64_STANDARD.decode(&self.public) else { return false };
        UnparsedPublicKey::new(&ED25519, bytes).verify(message.as_bytes(), signature).is_ok()
    }
}

fn pair(seed: &Key) -> Option<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(seed.bytes()).ok()
}

/// What a writer signs of its own part of a chain.
pub(super) fn message(chain: &str, checkpoint: &AuditCheckpoint) -> String {
    text("checkpoint", chain, checkpoint)
}

/// What another writer signs of it, which only saw it.
pub(super) fn message_of_another(chain: &str, checkpoint: &AuditCheckpoint) -> String {
    text("found", chain, checkpoint)
}

/// What is signed where the beginning of a part is deleted.
pub(super) fn message_of_pruned(chain: &str, pruned: &AuditCheckpoint) -> String {
    text("pruned", chain, pruned)
}

fn text(kind: &str, chain: &str, checkpoint: &AuditCheckpoint) -> String {
    let AuditCheckpoint { writer, seq, at, hash, .. } = checkpoint;
    format!("mcp-mux audit {kind} v1\n{chain}\n{writer}\n{seq}\n{hash}\n{}\n", at.as_millis())
}
