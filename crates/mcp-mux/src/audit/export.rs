//! A chain as a file: one JSON object on each line. The first says whose it is and by which keys, the last signs the whole; between them
//! stand the lines as they were hashed, and the checkpoints.

use std::io::{self, BufRead, Read as _, Write};

use aws_lc_rs::digest::{Context, SHA256};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use tenant_store::{
    AUDIT_PAGE_ROWS, AuditCheckpoint, AuditRow, AuditWriterId, Still, StoreError, TenantScope, Timestamp,
};

use super::signer::{PublicKey, Signer};
use super::verify::{Found, Verifier, Wrong};
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
    /// What is in it; or the line where something is wrong, and what.
    pub found: Result<Found, (usize, Wrong)>,
}

/// One line of a file that is no event.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Frame {
    Export(Header),
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

/// Reads a chain by writer and number, each checkpoint behind the line that it covers.
pub(crate) struct Reader<'s> {
    still: &'s Still,
    scope: Option<TenantScope>,
    checkpoints: std::vec::IntoIter<AuditCheckpoint>,
    next: Option<AuditCheckpoint>,
    after: Option<(AuditWriterId, u64)>,
}

/// One of what is read.
#[derive(Debug)]
pub(crate) enum Piece {
    Row(AuditRow),
    Checkpoint(AuditCheckpoint),
}

impl<'s> Reader<'s> {
    /// Of a tenant, or of the platform.
    pub(crate) async fn new(still: &'s Still, scope: Option<TenantScope>) -> Result<Self, StoreError> {
        let checkpoints = match scope {
            Some(scope) => still.tenant(scope).audit_checkpoints().await?,
            None => still.platform_audit_checkpoints().await?,
        };
        let mut checkpoints = checkpoints.into_iter();
        let next = checkpoints.next();
        Ok(Self { still, scope, checkpoints, next, after: None })
    }

    /// The next pieces; none at the end.
    pub(crate) async fn pieces(&mut self) -> Result<Vec<Piece>, StoreError> {
        let rows = match self.scope {
            Some(scope) => self.still.tenant(scope).audit_rows(self.after).await?,
            None => self.still.platform_audit_rows(self.after).await?,
        };
        let mut pieces = Vec::with_capacity(rows.len());
        let is_end = (rows.len() as u64) < AUDIT_PAGE_ROWS;
        for row in rows {
            let place = (row.writer, row.seq);
            // One whose line is not there stands where it would be.
            self.checkpoints_before(place, &mut pieces);
            pieces.push(Piece::Row(row));
            self.after = Some(place);
        }
        if is_end {
            self.checkpoints_before((AuditWriterId::last(), u64::MAX), &mut pieces);
        }
        Ok(pieces)
    }

    fn checkpoints_before(&mut self, place: (AuditWriterId, u64), pieces: &mut Vec<Piece>) {
        while let Some(checkpoint) = self.next.take_if(|next| (next.writer, next.seq) < place) {
            pieces.push(Piece::Checkpoint(checkpoint));
            self.next = self.checkpoints.next();
        }
    }
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
fn whole(hash: &str) -> String {
    format!("mcp-mux audit export v1\n{hash}\n")
}

/// Writes a tenant's chain, or the platform's, as a file that can be checked without the database.
pub async fn export(
    still: &Still,
    (scope, name): (Option<TenantScope>, &str),
    (signer, at): (&Signer, Timestamp),
    out: impl Write,
) -> Result<(), ExportError> {
    let mut out = Summed { out, sum: Context::new(&SHA256), lines: 0 };
    let header = Header {
        v: super::line::VERSION,
        chain: scope.map_or_else(|| "platform".to_owned(), |scope| scope.tenant().to_string()),
        name: name.to_owned(),
        at: civil::rfc3339(at),
        keys: signer.all().to_vec(),
    };
    out.line(&serde_json::to_string(&Frame::Export(header))?)?;
    let mut reader = Reader::new(still, scope).await?;
    loop {
        let pieces = reader.pieces().await?;
        if pieces.is_empty() {
            break;
        }
        for piece in pieces {
            match piece {
                Piece::Row(row) => out.line(&row.line)?,
                Piece::Checkpoint(checkpoint) => {
                    out.line(&serde_json::to_string(&Frame::Checkpoint(checkpoint.into()))?)?;
                }
            }
        }
    }
    let hash = hex::encode(out.sum.clone().finish().as_ref());
    let signature = BASE64_STANDARD.encode(signer.sign(&whole(&hash)));
    let end = End { lines: out.lines, hash, key: signer.public().id.clone(), signature };
    out.line(&serde_json::to_string(&Frame::End(end))?)?;
    Ok(out.out.flush()?)
}

/// Checks a file, by the keys that it brings or by that one alone.
pub fn verify_file(file: impl BufRead, trusted: Option<&PublicKey>) -> io::Result<FileReport> {
    let mut lines = Lines { file, sum: Context::new(&SHA256), number: 0 };
    let header = lines.next()?.and_then(|text| match serde_json::from_str(&text.text) {
        Ok(Frame::Export(header)) if header.v == super::line::VERSION => Some(header),
        _ => None,
    });
    let Some(header) = header else {
        let (chain, name, keys) = (String::new(), String::new(), Vec::new());
        return Ok(FileReport { chain, name, keys, found: Err((1, Wrong::Header)) });
    };
    let keys = trusted.map_or(header.keys, |key| vec![key.clone()]);
    let verifier = Verifier::new(&header.chain, &keys, &[]);
    let found = verify_lines(&mut lines, verifier, &keys)?;
    Ok(FileReport { chain: header.chain, name: header.name, keys, found })
}

fn verify_lines(
    lines: &mut Lines<impl BufRead>,
    mut verifier: Verifier,
    keys: &[PublicKey],
) -> io::Result<Result<Found, (usize, Wrong)>> {
    let mut end = false;
    while let Some(Text { text, hash_before }) = lines.next()? {
        let number = lines.number;
        let checked = match serde_json::from_str(&text) {
            _ if end => Err(Wrong::BehindTheEnd),
            Ok(Frame::End(signed)) => {
                end = true;
                check_end(&signed, (number, &hash_before), keys)
            }
            Ok(Frame::Checkpoint(signed)) => {
                AuditCheckpoint::try_from(signed).and_then(|checkpoint| verifier.checkpoint(&checkpoint))
            }
            Ok(Frame::Export(_)) => Err(Wrong::NotALine),
            Err(_) => verifier.text(&text),
        };
        if let Err(wrong) = checked {
            return Ok(Err((number, wrong)));
        }
    }
    let number = lines.number;
    if !end {
        return Ok(Err((number, Wrong::End)));
    }
    Ok(verifier.finish().map_err(|wrong| (number, wrong)))
}

fn check_end(end: &End, (number, hash): (usize, &str), keys: &[PublicKey]) -> Result<(), Wrong> {
    let key = keys.iter().find(|key| key.id == end.key && key.is_sound());
    let key = key.ok_or_else(|| Wrong::Key { id: end.key.clone() })?;
    let signature = BASE64_STANDARD.decode(&end.signature).map_err(|_| Wrong::End)?;
    let is_good = end.lines + 1 == number && end.hash == hash && key.has_signed(&whole(hash), &signature);
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
