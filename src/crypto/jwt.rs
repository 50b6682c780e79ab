//! Tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037), signed and checked without ever asking a token how. Whether
//! a token was revoked is not known here.
//!
//! The `jsonwebtoken` crate only says, for the log, what was wrong with a foreign header. Its `encode` writes `typ`
//! before `alg`, builds the header anew and expands the key anew for every token, and finds its signer in a
//! process-wide variable; its `decode` parses the header before it knows whose it is.

use std::collections::HashMap;
use std::fmt;
use std::mem;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use jsonwebtoken::errors::ErrorKind;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::model::time::Timestamp;
use crate::model::token::Claims;
use crate::secret::BearerToken;

mod cache;
mod claims;

pub use cache::SignatureCache;

/// The longest token, in bytes, that is issued or looked at.
pub const MAX_TOKEN_LEN: usize = 4096;

/// How far ahead of our clock, in seconds, a token's `iat` may lie: another process of ours may have issued it.
const MAX_IAT_AHEAD: i64 = 60;

/// An Ed25519 key that signs tokens, or audit checkpoints.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    kid: String,
    header: String,
}

impl SigningKey {
    /// From the 32-byte seed (RFC 8032, section 5.1.5, its private key).
    ///
    /// # Errors
    /// `Internal` where it isn't 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self> {
        let seed = seed.try_into().map_err(|_| Error::internal("a private key is not 32 bytes"))?;
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let kid = kid_of(key.verifying_key().as_bytes());
        let header = header_segment(&kid);
        Ok(Self { key, kid, header })
    }

    /// The key's id, [`kid_of`] its public key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key (RFC 8032, section 5.1.5).
    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Issues a token (RFC 7515, section 7.1: the compact serialisation).
    ///
    /// # Errors
    /// `Conflict` where it would be longer than [`MAX_TOKEN_LEN`], since nobody could use it here.
    pub fn sign_claims(&self, claims: &Claims) -> Result<BearerToken> {
        let payload = claims::write(claims)?;
        let len = self.header.len() + 1 + payload.len().div_ceil(3) * 4 + 1 + SIGNATURE_CHARS;
        // Sized at once: a buffer that grew would leave parts of the token behind.
        let mut token = Zeroizing::new(String::with_capacity(len));
        token.push_str(&self.header);
        token.push('.');
        B64.encode_string(payload, &mut token);
        let signature = self.sign_bytes(token.as_bytes());
        token.push('.');
        B64.encode_string(signature, &mut token);
        if token.len() > MAX_TOKEN_LEN {
            return Err(Error::conflict("the token would be too long: too many or too long roles"));
        }
        Ok(BearerToken::new(mem::take(&mut *token)))
    }

    /// Signs a message that isn't a token.
    pub fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// A key's id: the RFC 7638 thumbprint, SHA-256 and base64url, of its JWK (RFC 8037, section 2 and appendix A.3).
pub fn kid_of(public: &[u8; 32]) -> String {
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, B64.encode(public));
    B64.encode(Sha256::digest(jwk))
}

/// Whether an Ed25519 signature is good, strictly: no point of small order, no second form of a signature
/// (RFC 8032, section 5.1.7).
pub fn verify_bytes(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .is_ok()
}

/// The first segment of every token that the key signs.
fn header_segment(kid: &str) -> String {
    B64.encode(format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}"}}"#))
}

/// The keys that tokens may be signed with today.
pub struct KeyRing {
    /// By the header segment: a token's is looked up as it is, byte for byte.
    keys: HashMap<String, RingKey>,
}

struct RingKey {
    kid: String,
    key: VerifyingKey,
}

impl KeyRing {
    /// From the public keys.
    ///
    /// # Errors
    /// `Internal` for bytes that are no point of the curve, or one of small order, under which anybody can sign.
    pub fn new(keys: impl IntoIterator<Item = [u8; 32]>) -> Result<Self> {
        let keys = keys.into_iter().map(|public| {
            let kid = kid_of(&public);
            let key = VerifyingKey::from_bytes(&public).ok().filter(|key| !key.is_weak());
            let key = key.ok_or_else(|| Error::internal(format!("the public key {kid} is not an Ed25519 key")))?;
            Ok((header_segment(&kid), RingKey { kid, key }))
        });
        Ok(Self { keys: keys.collect::<Result<_>>()? })
    }

    /// Whether the key is among them.
    pub fn contains_kid(&self, kid: &str) -> bool {
        self.keys.contains_key(&header_segment(kid))
    }
}

/// Why a token isn't good. For the log: it says nothing of what the token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// More than [`MAX_TOKEN_LEN`] bytes.
    TooLong,
    /// Not `header.payload.signature`.
    NotThreeSegments,
    /// The header isn't, byte for byte, one of ours; [`diagnose`] looks closer.
    UnknownHeader,
    /// The signature isn't base64url without padding, or isn't good.
    BadSignature,
    /// A good signature over claims that aren't ours: which one, and what about it.
    BadClaims(&'static str),
    /// `iss` is somebody else.
    WrongIssuer,
    /// `exp` has come.
    Expired,
    /// `iat` lies more than 60 s ahead.
    FromTheFuture,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {MAX_TOKEN_LEN} bytes"),
            Self::NotThreeSegments => f.write_str("not three segments"),
            Self::UnknownHeader => f.write_str("not the header of a key of ours"),
            Self::BadSignature => f.write_str("bad signature"),
            Self::BadClaims(what) => f.write_str(what),
            Self::WrongIssuer => f.write_str("another issuer"),
            Self::Expired => f.write_str("expired"),
            Self::FromTheFuture => write!(f, "issued more than {MAX_IAT_AHEAD} s in the future"),
        }
    }
}

/// A token that is good as far as it can tell by itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked<'k> {
    /// What it says.
    pub claims: Claims,
    /// The key that signed it.
    pub kid: &'k str,
    /// Its [`row_digest`].
    pub digest: [u8; 16],
}

/// Base64url characters in a signature of 64 bytes.
const SIGNATURE_CHARS: usize = 86;

/// Checks everything about a token that needs no database, in the order that lets the least be done with a bad one:
/// length, segments, header, signature, claims.
///
/// # Errors
/// The first thing that is wrong.
pub fn check<'k>(
    token: &str,
    ring: &'k KeyRing,
    issuer: &str,
    now: Timestamp,
    cache: &SignatureCache,
) -> std::result::Result<Checked<'k>, TokenFault> {
    if token.len() > MAX_TOKEN_LEN {
        return Err(TokenFault::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenFault::NotThreeSegments)?;
    let (header, payload) = message.split_once('.').ok_or(TokenFault::NotThreeSegments)?;
    if payload.contains('.') {
        return Err(TokenFault::NotThreeSegments);
    }
    // Nothing of the token is parsed before this: `alg` can only be what we wrote, and the key only the one we meant.
    let key = ring.keys.get(header).ok_or(TokenFault::UnknownHeader)?;
    let digest = digest(key.key.as_bytes(), token);
    verify_once(&digest, message, signature, key, cache)?;

    let mut json = [0; MAX_TOKEN_LEN / 4 * 3];
    let len = B64.decode_slice(payload, &mut json).map_err(|_| TokenFault::BadClaims("payload is not base64url"))?;
    let claims = claims::read(&json[..len]).map_err(TokenFault::BadClaims)?;
    if claims.issuer != issuer {
        return Err(TokenFault::WrongIssuer);
    }
    if now >= claims.expires_at {
        return Err(TokenFault::Expired);
    }
    if claims.issued_at > now.plus(MAX_IAT_AHEAD) {
        return Err(TokenFault::FromTheFuture);
    }
    Ok(Checked { claims, kid: &key.kid, digest: shortened(&digest) })
}

/// Verifies the signature unless these very bytes were verified before, under this very key.
fn verify_once(
    digest: &[u8; 32],
    message: &str,
    signature: &str,
    key: &RingKey,
    cache: &SignatureCache,
) -> std::result::Result<(), TokenFault> {
    if cache.contains(digest) {
        return Ok(());
    }
    let mut bytes = [0; 64];
    // The engine refuses padding and unused bits that aren't zero, so a signature has one spelling only.
    let decoded = signature.len() == SIGNATURE_CHARS && B64.decode_slice(signature, &mut bytes) == Ok(bytes.len());
    if !decoded || key.key.verify_strict(message.as_bytes(), &Signature::from_bytes(&bytes)).is_err() {
        return Err(TokenFault::BadSignature);
    }
    cache.insert(*digest);
    Ok(())
}

/// What a token's row remembers of it, so that a stolen key can't sign other claims around a live `jti`: SHA-256 over
/// the key and the token, cut to 128 bits, for which nobody finds a second token. It tells nothing of the signature.
pub fn row_digest(public: &[u8; 32], token: &str) -> [u8; 16] {
    shortened(&digest(public, token))
}

fn digest(public: &[u8; 32], token: &str) -> [u8; 32] {
    Sha256::new().chain_update(public).chain_update(token).finalize().into()
}

fn shortened(digest: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|n| digest[n])
}

/// What is wrong with the header of a token whose fault is [`TokenFault::UnknownHeader`], for the debug log. Names only
/// what the JOSE standards name; nothing the token says is repeated.
pub fn diagnose(token: &str) -> String {
    if token.len() > MAX_TOKEN_LEN {
        return TokenFault::TooLong.to_string();
    }
    let header = match jsonwebtoken::decode_header(token) {
        Ok(header) => header,
        Err(error) => {
            let what = match error.kind() {
                ErrorKind::InvalidToken => "not three segments",
                ErrorKind::Base64(_) => "the header is not base64url",
                // The error itself quotes the token.
                _ => "the header is not a JOSE header with an algorithm we have heard of",
            };
            return what.to_owned();
        }
    };
    let kid = match &header.kid {
        None => "no kid",
        Some(kid) if kid.len() == 43 => "a kid shaped like ours",
        Some(_) => "a kid that is no thumbprint",
    };
    let typ = match header.typ.as_deref() {
        None => "no typ",
        Some("JWT") => "typ JWT",
        Some(_) => "another typ",
    };
    let mut text = format!("alg {:?}, {typ}, {kid}", header.alg);
    let members = [
        ("jwk", header.jwk.is_some()),
        ("jku", header.jku.is_some()),
        ("x5u", header.x5u.is_some()),
        ("x5c", header.x5c.is_some()),
        ("crit", header.crit.is_some()),
        ("members of its own", !header.extras.inner().is_empty()),
    ];
    for (name, _) in members.iter().filter(|(_, present)| *present) {
        text.push_str(", with ");
        text.push_str(name);
    }
    text
}

#[cfg(test)]
mod tests;
