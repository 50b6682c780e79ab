//! Cryptography: sealing, password hashing, tokens and one-time codes. Keys, randomness and time come in as
//! arguments; nothing here reads a file, a clock or the database.

pub mod jwt;
pub mod password;
pub mod seal;
pub mod totp;

/// What the known-answer tests share.
#[cfg(test)]
mod vectors {
    use serde_json::Value;

    /// The cases of a file in `tests/vectors/`: its member `cases`.
    pub fn cases(file: &str) -> Vec<Value> {
        let mut file: Value = serde_json::from_str(file).unwrap();
        file["cases"].as_array_mut().unwrap().drain(..).collect()
    }

    /// The text of a member.
    pub fn text<'a>(case: &'a Value, member: &str) -> &'a str {
        case[member].as_str().unwrap_or_else(|| panic!("{member} in {case}"))
    }

    /// The bytes of a member in hex.
    pub fn bytes(case: &Value, member: &str) -> Vec<u8> {
        let digits = text(case, member).as_bytes();
        assert!(digits.len().is_multiple_of(2), "{member} in {case}");
        digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The bytes of a member in hex, of a known number.
    pub fn array<const N: usize>(case: &Value, member: &str) -> [u8; N] {
        bytes(case, member).try_into().unwrap()
    }

    /// The number of a member.
    pub fn number(case: &Value, member: &str) -> u32 {
        u32::try_from(case[member].as_u64().unwrap()).unwrap()
    }
}
