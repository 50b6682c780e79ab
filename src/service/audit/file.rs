//! Verifies an export, with nothing at hand but the file and the audit key's public half.

use std::io::{BufRead, Read};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::Value;

use super::chain::{Archiving, AuditKey, Chain, signed};
use crate::crypto::jwt::kid_of;
use crate::model::audit::Checkpoint;
use crate::model::chain::Line;
use crate::model::strict;
use crate::model::token::PublicKey;

/// The longest line that is read, in bytes; an event has a few hundred.
const MAX_LINE: u64 = 1 << 20;

/// What a file that fits holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// How many events come before its first, in an archive of their own.
    pub archived: i64,
    /// How many events it holds.
    pub events: u64,
    /// What closes it.
    pub checkpoint: Checkpoint,
}

/// Reads the file to its end: the anchor, if it begins with one, the chain of its events, and the checkpoint that
/// closes it.
///
/// # Errors
/// The first thing that doesn't fit, with its line.
pub fn verify_file(mut file: impl BufRead, keys: &[PublicKey]) -> Result<FileReport, String> {
    let keys: Vec<_> = keys.iter().map(|key| AuditKey { public: key.clone(), revoked_at: None }).collect();
    let mut seen = Seen { keys: &keys, chain: Chain::from(None), archiving: None, archived: 0, events: 0, end: None };
    let mut number = 0u64;
    while let Some(line) = read_line(&mut file).map_err(|e| format!("line {}: {e}", number + 1))? {
        number += 1;
        let text = str::from_utf8(&line).map_err(|_| format!("line {number}: not UTF-8"))?;
        let line = Line::parse(text).map_err(|what| format!("line {number}: {what}"))?;
        seen.take(line, number == 1).map_err(|what| format!("line {number}: {what}"))?;
    }
    let checkpoint = seen.end.ok_or_else(|| match number {
        0 => "the file is empty".to_owned(),
        _ => format!("line {number}: the file ends without a checkpoint: it was cut short"),
    })?;
    if seen.archiving.is_some_and(|archiving| archiving.event().is_none() && !archiving.all_before()) {
        return Err("line 1: the anchor wasn't made by archiving: the events before it are missing".into());
    }
    Ok(FileReport { archived: seen.archived, events: seen.events, checkpoint })
}

/// What has been read so far.
struct Seen<'k> {
    keys: &'k [AuditKey],
    chain: Chain,
    archiving: Option<Archiving>,
    archived: i64,
    events: u64,
    end: Option<Checkpoint>,
}

impl Seen<'_> {
    fn take(&mut self, line: Line, first: bool) -> Result<(), String> {
        if self.end.is_some() {
            return Err("stands after the checkpoint, which is the last line".into());
        }
        match line {
            Line::Anchor(anchor) if first => {
                signed(&anchor, self.keys).map_err(|what| format!("the anchor {what}"))?;
                self.chain = Chain::from(Some(&anchor));
                self.archiving = Some(Archiving::of(&anchor));
                self.archived = anchor.count;
            }
            Line::Anchor(_) => return Err("an anchor can only be the first line".into()),
            Line::Event(link) => {
                self.chain.follow(&link)?;
                self.events += 1;
                if let Some(archiving) = &mut self.archiving {
                    archiving.see(&link);
                }
            }
            Line::Checkpoint(checkpoint) => {
                let checked = self.chain.fits(&checkpoint).and_then(|()| signed(&checkpoint, self.keys));
                checked.map_err(|what| format!("the checkpoint {what}"))?;
                self.end = Some(checkpoint);
            }
        }
        Ok(())
    }
}

/// The next line without its end; none at the end of the file.
fn read_line(file: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let read = file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(|e| format!("can't be read: {e}"))?;
    match line.pop_if(|last| *last == b'\n') {
        _ if read == 0 => Ok(None),
        None if read as u64 == MAX_LINE => Err("is longer than any event".into()),
        _ => Ok(Some(line)),
    }
}

/// Reads what `mciasdb audit key` prints: a JWK (RFC 8037, section 2), or a JWK Set (RFC 7517, section 5).
///
/// # Errors
/// It is neither, or a `kid` isn't that of its key.
pub fn read_keys(text: &str) -> Result<Vec<PublicKey>, String> {
    let value = strict::parse(text)?;
    match value.get("keys") {
        None => read_key(&value).map(|key| vec![key]),
        Some(Value::Array(keys)) if !keys.is_empty() => keys.iter().map(read_key).collect(),
        Some(_) => Err("keys must be a list with a JWK in it".into()),
    }
}

fn read_key(jwk: &Value) -> Result<PublicKey, String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if (text("kty"), text("crv")) != (Some("OKP"), Some("Ed25519")) {
        return Err("not the JWK of an Ed25519 key".into());
    }
    let bytes = text("x").and_then(|x| B64.decode(x).ok()).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes = bytes.ok_or("x must be 32 bytes in base64url")?;
    let kid = kid_of(&bytes);
    match jwk.get("kid") {
        Some(named) if named.as_str() != Some(kid.as_str()) => Err("kid isn't the thumbprint of the key".into()),
        _ => Ok(PublicKey { kid, bytes }),
    }
}
