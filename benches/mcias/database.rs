//! Databases of any size, filled from outside, and tokens out of them that are good.

use std::sync::Arc;

use rusqlite::params;
use serde_json::json;

use crate::server;
use crate::support::{Forge, Instance, now};

/// An instance with many accounts and tokens, and the requests that ask about some of them.
pub struct Filled {
    /// The instance.
    pub instance: Instance,
    /// One request to check a token for each token that was drawn, uniformly over all of them.
    pub checks: Arc<[Vec<u8>]>,
}

/// Fills a new instance's database with so many `accounts` and `tokens`, as the server would have over the years, and
/// draws `drawn` of the tokens.
pub fn filled(accounts: usize, tokens: usize, drawn: usize) -> Filled {
    let instance = server::instance();
    // The first start makes the signing key.
    drop(server::Server::start(&instance));
    let forge = Forge::of(&instance);
    let issuer = issuer(&instance);
    let db = instance.database();
    // Nobody needs what is there if this is interrupted.
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF").unwrap();
    db.execute_batch("PRAGMA cache_size = -1000000; BEGIN; DROP INDEX token_revocation_account").unwrap();
    let base: i64 = db.query_row("SELECT max(id) + 1 FROM accounts", [], |row| row.get(0)).unwrap();
    let mut add_account = db
        .prepare(
            "INSERT INTO accounts (id, uuid, username, account_type, status, created_at, updated_at)
             VALUES (?1, ?2, ?3, 'human', 'active', ?4, ?4)",
        )
        .unwrap();
    let now = now();
    for n in 0..accounts {
        add_account.execute(params![base + n as i64, uuid(n, accounts), format!("person-{n:08}"), now]).unwrap();
    }
    let mut add_token = db
        .prepare(
            "INSERT INTO token_revocation (jti, account_id, kid, audience, issued_at, expires_at, auth_time, digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, ?7)",
        )
        .unwrap();
    let mut checks = Vec::with_capacity(drawn);
    for n in 0..tokens {
        let jti = uuid(n, tokens);
        // Any order but that of the tokens: whose tokens come one after the other are strangers.
        let account = n.wrapping_mul(7_368_787) % accounts;
        let mut digest = scattered(n).to_be_bytes().repeat(2);
        // The n-th of `drawn` equal stretches gives one token.
        if (n + 1) * drawn / tokens > n * drawn / tokens {
            let claims = json!({
                "iss": issuer, "sub": uuid(account, accounts), "aud": issuer, "iat": now, "exp": now + 86_400,
                "jti": jti, "roles": [], "auth_time": now, "amr": ["pwd"],
            });
            let token = forge.sign(&claims);
            digest = forge.digest(&token);
            checks.push(request(&token));
        }
        let account = base + account as i64;
        add_token.execute(params![jti, account, forge.kid, issuer, now, now + 86_400, digest]).unwrap();
    }
    drop((add_account, add_token));
    let index = "COMMIT; CREATE INDEX token_revocation_account ON token_revocation (account_id, id)";
    db.execute_batch(index).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    db.close().map_err(|(_, e)| e).unwrap();
    // Neighbours in the list are no neighbours in the database.
    checks.sort_by_key(|request| scattered(request.iter().fold(0, |sum, byte| sum * 31 % 1_000_003 + *byte as usize)));
    Filled { instance, checks: checks.into() }
}

/// A request to check a token.
fn request(token: &str) -> Vec<u8> {
    let body = json!({ "token": token }).to_string();
    let length = body.len();
    format!(
        "POST /v1/token/validate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The issuer that `init` has written.
fn issuer(instance: &Instance) -> String {
    let text = instance.config();
    let (_, rest) = text.split_once("issuer = \"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// The n-th of `all` random UUIDs (version 4), which ascend: an index that is filled in order is filled fast.
fn uuid(n: usize, all: usize) -> String {
    let first = (n as u64) * ((1 << 48) / all as u64) + scattered(n) % 1000;
    let rest = scattered(n + all);
    let (high, low) = (first >> 16, first & 0xffff);
    format!("{high:08x}-{low:04x}-4{:03x}-8{:03x}-{:012x}", rest & 0xfff, (rest >> 12) & 0xfff, rest >> 16)
}

/// A number that tells nothing of `n` to the eye (SplitMix64).
fn scattered(n: usize) -> u64 {
    let mut z = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
