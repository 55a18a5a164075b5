//! A chain as a file: one JSON object on each line. The first says whose it is and by which keys, the last signs the whole; between them
//! stand the lines as they were hashed, and the checkpoints.

use std::io::{self, BufRead, Read as _, Write};

use aws_lc_rs::digest::{Context, SHA256};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use tenant_store::{AuditCheckpoint, AuditPruned, AuditWriterId, Still, StoreError, TenantScope, Timestamp};

use super::heads::Heads;
use super::reader::{Piece, Reader};
use super::signer::{PublicKey, Signer};
use super::verify::{Found, Verifier};
use super::whole;
use super::wrong::{WRONG_MAX, Wrong};
use crate::{civil, hex};

/// Longest line that is read from a file, in bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a chain was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be written.
    #[error("cannot write the export")]
    Write(#[from] io::Error),
    /// It is not as it was written.
    #[error("the record of {name} is not exported, because that would sign it: {wrong}. See `mcp-mux audit verify`")]
    Wrong {
        /// Whose record.
        name: String,
        /// The first that is wrong with it.
        #[source]
        wrong: Wrong,
    },
    /// It could not be put into words.
    #[error("cannot write the export")]
    Json(#[from] serde_json::Error),
}

/// What a file says of itself, and whether that holds.
#[derive(Debug)]
pub struct FileReport {
    /// Whose it is.
    pub chain: String,
    /// What its owner is called.
    pub name: String,
    /// The keys that it was checked by.
    pub keys: Vec<PublicKey>,
    /// When it was written, which is signed with the whole.
    pub at: String,
    /// What is in it; or the lines where something is wrong, and what, if it is not too much.
    pub found: Result<Found, Vec<(usize, Wrong)>>,
}

/// One line of a file that is no event.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Frame {
    Export(Header),
    Pruned(Signed),
    Checkpoint(Signed),
    End(End),
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    v: u32,
    chain: String,
    name: String,
    at: String,
    keys: Vec<PublicKey>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    writer: AuditWriterId,
    seq: u64,
    hash: String,
    at_ms: i64,
    key: String,
    signature: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    lines: usize,
    hash: String,
    key: String,
    signature: String,
}

/// Writes what is summed up as it goes.
struct Summed<W> {
    out: W,
    sum: Context,
    lines: usize,
}

impl<W: Write> Summed<W> {
    fn line(&mut self, text: &str) -> io::Result<()> {
        for part in [text.as_bytes(), b"\n"] {
            self.sum.update(part);
            self.out.write_all(part)?;
        }
        self.lines += 1;
        Ok(())
    }
}

/// What is signed of a whole file.
fn of_whole(hash: &str) -> String {
    format!("mcp-mux audit export v1\n{hash}\n")
}

/// Writes a tenant's chain, or the platform's, as a file that can be checked without the database: as far as it is signed, and only if nothing
/// is wrong with it. Whatever is wrong would otherwise be signed by the last line. Tells how many events are not signed yet and left out.
pub async fn export(
    still: &Still,
    (scope, name): (Option<TenantScope>, &str),
    (signer, at): (&Signer, Timestamp),
    out: impl Write,
) -> Result<u64, ExportError> {
    let found = sound(still, (scope, name), (signer, at)).await?;
    let mut out = Summed { out, sum: Context::new(&SHA256), lines: 0 };
    let header = Header {
        v: super::line::VERSION,
        chain: scope.map_or_else(|| "platform".to_owned(), |scope| scope.tenant().to_string()),
        name: name.to_owned(),
        at: civil::rfc3339(at),
        keys: signer.all().to_vec(),
    };
    out.line(&serde_json::to_string(&Frame::Export(header))?)?;
    let mut reader = Reader::new(still, scope);
    loop {
        let pieces = reader.pieces().await?;
        if pieces.is_empty() {
            break;
        }
        for piece in pieces {
            match piece {
                Piece::Pruned(AuditPruned(pruned)) => {
                    out.line(&serde_json::to_string(&Frame::Pruned(pruned.into()))?)?;
                }
                Piece::Row(row) if !found.has_signed(&row) => {}
                Piece::Row(row) => out.line(&row.line)?,
                Piece::Checkpoint(checkpoint) => {
                    out.line(&serde_json::to_string(&Frame::Checkpoint(checkpoint.into()))?)?;
                }
            }
        }
    }
    let hash = hex::encode(out.sum.clone().finish().as_ref());
    let signature = BASE64_STANDARD.encode(signer.sign(&of_whole(&hash)));
    let end = End { lines: out.lines, hash, key: signer.public().id.clone(), signature };
    out.line(&serde_json::to_string(&Frame::End(end))?)?;
    out.out.flush()?;
    Ok(found.unsigned)
}

/// What is in a chain with which nothing is wrong, nor with the platform's, which says how far it should go.
async fn sound(
    still: &Still,
    (scope, name): (Option<TenantScope>, &str),
    by: (&Signer, Timestamp),
) -> Result<Found, ExportError> {
    let platform = whole::check_platform(still, by).await?;
    if let Some(wrong) = platform.wrong.into_iter().next() {
        return Err(ExportError::Wrong { name: platform.name, wrong });
    }
    let Some(scope) = scope else { return Ok(platform.found) };
    let checked = whole::check(still, (Some(scope), name.to_owned()), by, &platform.found.heads).await?;
    match checked.wrong.into_iter().next() {
        Some(wrong) => Err(ExportError::Wrong { name: checked.name, wrong }),
        None => Ok(checked.found),
    }
}

/// Checks a file, by the keys that it brings or by that one alone.
pub fn verify_file(file: impl BufRead, trusted: Option<&PublicKey>) -> io::Result<FileReport> {
    let mut lines = Lines { file, sum: Context::new(&SHA256), number: 0 };
    let header = lines.next()?.and_then(|text| match serde_json::from_str(&text.text) {
        Ok(Frame::Export(header)) if header.v == super::line::VERSION => Some(header),
        _ => None,
    });
    let Some(Header { chain, name, at, keys, .. }) = header else {
        let (chain, name, at, keys) = (String::new(), String::new(), String::new(), Vec::new());
        return Ok(FileReport { chain, name, at, keys, found: Err(vec![(1, Wrong::Header)]) });
    };
    let keys = trusted.map_or(keys, |key| vec![key.clone()]);
    // A file holds only what was signed.
    let verifier = Verifier::new(&chain, &keys, &Heads::default(), None);
    let found = verify_lines(&mut lines, verifier, &keys)?;
    Ok(FileReport { chain, name, keys, at, found })
}

fn verify_lines(
    lines: &mut Lines<impl BufRead>,
    mut verifier: Verifier,
    keys: &[PublicKey],
) -> io::Result<Result<Found, Vec<(usize, Wrong)>>> {
    let (mut end, mut wrong) = (false, Vec::new());
    while let Some(Text { text, hash_before }) = lines.next()? {
        let number = lines.number;
        let checked = match serde_json::from_str(&text) {
            _ if end => Err(Wrong::BehindTheEnd),
            Ok(Frame::End(signed)) => {
                end = true;
                check_end(&signed, (number, &hash_before), keys)
            }
            Ok(Frame::Pruned(signed)) => {
                AuditCheckpoint::try_from(signed).and_then(|pruned| verifier.pruned(&AuditPruned(pruned)))
            }
            Ok(Frame::Checkpoint(signed)) => {
                AuditCheckpoint::try_from(signed).and_then(|checkpoint| verifier.checkpoint(&checkpoint))
            }
            Ok(Frame::Export(_)) => Err(Wrong::NotALine),
            Err(_) => verifier.text(&text),
        };
        wrong.extend(checked.err().map(|wrong| (number, wrong)).filter(|_| wrong.len() < WRONG_MAX));
    }
    let number = lines.number;
    let (found, of_parts) = verifier.finish();
    wrong.extend(of_parts.into_iter().map(|wrong| (number, wrong)));
    if !end {
        wrong.push((number, Wrong::End));
    }
    Ok(if wrong.is_empty() { Ok(found) } else { Err(wrong) })
}

fn check_end(end: &End, (number, hash): (usize, &str), keys: &[PublicKey]) -> Result<(), Wrong> {
    let key = keys.iter().find(|key| key.id == end.key && key.is_sound());
    let key = key.ok_or_else(|| Wrong::Key { id: end.key.clone() })?;
    let signature = BASE64_STANDARD.decode(&end.signature).map_err(|_| Wrong::End)?;
    let is_good =
        end.lines.checked_add(1) == Some(number) && end.hash == hash && key.has_signed(&of_whole(hash), &signature);
    if is_good { Ok(()) } else { Err(Wrong::End) }
}

/// A file by its lines, and a sum of those before each.
struct Lines<R> {
    file: R,
    sum: Context,
    number: usize,
}

struct Text {
    text: String,
    hash_before: String,
}

impl<R: BufRead> Lines<R> {
    /// The next line, without its end. One that is too long, or is no text, is cut short and then no line of ours.
    fn next(&mut self) -> io::Result<Option<Text>> {
        let mut line = Vec::new();
        let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let hash_before = hex::encode(self.sum.clone().finish().as_ref());
        self.sum.update(&line);
        // Without its end it is no whole line.
        let text = line.strip_suffix(b"\n").and_then(|line| String::from_utf8(line.to_vec()).ok());
        Ok(Some(Text { text: text.unwrap_or_default(), hash_before }))
    }
}

impl From<AuditCheckpoint> for Signed {
    fn from(checkpoint: AuditCheckpoint) -> Self {
        Self {
            writer: checkpoint.writer,
            seq: checkpoint.seq,
            hash: checkpoint.hash,
            at_ms: checkpoint.at.as_millis(),
            key: checkpoint.key_id,
            signature: BASE64_STANDARD.encode(checkpoint.signature),
        }
    }
}

impl TryFrom<Signed> for AuditCheckpoint {
    type Error = Wrong;

    fn try_from(signed: Signed) -> Result<Self, Wrong> {
        let Signed { writer, seq, hash, at_ms, key: key_id, signature } = signed;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_| Wrong::NotALine)?;
        Ok(Self { writer, seq, hash, at: Timestamp::from_millis(at_ms), key_id, signature })
    }
}
