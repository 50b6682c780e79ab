//! Tokens made outside the server, with its real signing key: what somebody could do who has stolen it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use mcias::crypto::seal::{DataKeys, Place};
use mcias::secret::Sealed;
use mcias::secretfile::key_bytes;
use mcias::service::keys::{MasterSecret, unlock};
use mcias::store::{KeyPurpose, Store};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::instance::Instance;

/// The signing key of an instance, out of its database by way of its master key.
pub struct Forge {
    /// The key.
    pub key: SigningKey,
    /// Its id.
    pub kid: String,
}

impl Forge {
    /// Opens the database beside the server.
    pub fn of(instance: &Instance) -> Self {
        Self::with(instance, KeyPurpose::Token)
    }

    /// With the newest key of this purpose.
    pub fn with(instance: &Instance, purpose: KeyPurpose) -> Self {
        let (store, keys) = open(instance);
        let rows = store.read(|view| view.signing_keys()).unwrap();
        let row = rows.into_iter().rfind(|row| row.purpose == purpose).unwrap();
        let seed = keys.open(&Place::new("signing_keys", "private_key_enc", &row.kid), &row.private).unwrap();
        let key = SigningKey::from_bytes(seed.as_slice().try_into().unwrap());
        assert_eq!(key.verifying_key().to_bytes(), row.public);
        Self { key, kid: row.kid }
    }

    /// The header of the server's own tokens.
    pub fn header(&self) -> String {
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, self.kid)
    }

    /// A token with these claims, to the byte as the server would sign it.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_text(&self.header(), &claims_text(claims))
    }

    /// What the row of a token has to remember of it.
    pub fn digest(&self, token: &str) -> Vec<u8> {
        let digest = Sha256::new().chain_update(self.key.verifying_key().as_bytes()).chain_update(token).finalize();
        digest[..16].to_vec()
    }

    /// A token of these two texts.
    pub fn sign_text(&self, header: &str, payload: &str) -> String {
        self.sign_segments(&b64(header), &b64(payload))
    }

    /// A token of these two segments as they are.
    pub fn sign_segments(&self, header: &str, payload: &str) -> String {
        let message = format!("{header}.{payload}");
        let signature = self.key.sign(message.as_bytes()).to_bytes();
        format!("{message}.{}", b64(signature))
    }
}

/// The database and its keys, opened by the library beside the server.
fn open(instance: &Instance) -> (Store, DataKeys) {
    let store = Store::open(&instance.path("mcias.db")).unwrap();
    let master = MasterSecret::KeyFile(key_bytes(&instance.read("master.key")).unwrap());
    let (_, keys) = unlock(&store, &master).unwrap();
    (store, keys)
}

impl Instance {
    /// Turns one-time codes on for an account, behind the server's back; gives the secret.
    pub fn turn_totp_on(&self, account: &str) -> [u8; 20] {
        let secret = mcias::random::bytes().unwrap();
        let (_, keys) = open(self);
        let place = Place::new("accounts", "totp_secret_enc", account);
        let Sealed { nonce, ciphertext } = keys.seal(&place, mcias::random::bytes().unwrap(), &secret);
        let sql = "UPDATE accounts SET totp_required = 1, totp_secret_enc = ?2, totp_secret_nonce = ?3 WHERE uuid = ?1";
        assert_eq!(self.sql(sql, (account, ciphertext, nonce)), 1);
        secret
    }
}

/// The claims in the server's order, and after them what isn't the server's.
pub fn claims_text(claims: &Value) -> String {
    let order = ["iss", "sub", "aud", "iat", "exp", "jti", "roles", "auth_time", "amr"];
    let claims = claims.as_object().unwrap();
    let ours = order.iter().filter_map(|name| Some((*name, claims.get(*name)?)));
    let others = claims.iter().map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| !order.contains(name));
    let members: Vec<String> = ours.chain(others).map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// Base64url without padding.
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What base64url without padding stands for.
#[track_caller]
pub fn unb64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The three segments of a token.
#[track_caller]
pub fn parts_of(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().expect("three segments")
}

/// The claims of a token.
#[track_caller]
pub fn claims_of(token: &str) -> Value {
    serde_json::from_slice(&unb64(parts_of(token)[1])).unwrap()
}
