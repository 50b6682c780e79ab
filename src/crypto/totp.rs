//! One-time codes: TOTP (RFC 6238) with SHA-1, six digits and steps of 30 seconds, as authenticator apps expect it.
//! That a step is accepted only once is for the caller to see to.

use subtle::{ConditionallySelectable, ConstantTimeEq};
use totp_rs::{Builder, Secret};
use zeroize::Zeroizing;

use crate::model::credential::TotpCode;
use crate::model::time::Timestamp;

/// Bytes in a secret: 160 bits, as RFC 4226, section 4, recommends.
pub const SECRET_LEN: usize = 20;

/// Seconds in a step (RFC 6238, section 4.1: X).
const PERIOD: i64 = 30;

/// The step a point in time lies in, counted from the Unix epoch (RFC 6238, section 4.2: T).
pub fn step_at(now: Timestamp) -> i64 {
    now.seconds().div_euclid(PERIOD)
}

/// The step, among the one before, the current and the next, that the code is for; the latest if it is for several. All
/// three are computed and compared whatever the first says. None where the secret isn't [`SECRET_LEN`] bytes.
pub fn matching_step(secret: &[u8], code: &TotpCode, now: Timestamp) -> Option<i64> {
    /// No time is in this step.
    const NONE: i64 = i64::MIN;

    if secret.len() != SECRET_LEN {
        return None;
    }
    let current = step_at(now);
    let mut matching = NONE;
    for step in [current - 1, current, current + 1] {
        let matches = code_at(secret, step).as_bytes().ct_eq(code.as_bytes());
        matching.conditional_assign(&step, matches);
    }
    (matching != NONE).then_some(matching)
}

/// The code of a step (RFC 4226, section 5.3). A step before 1970 counts as the first.
pub fn code_at(secret: &[u8], step: i64) -> TotpCode {
    let seconds = u64::try_from(step.saturating_mul(PERIOD)).unwrap_or(0);
    // Not `build`: it refuses secrets it finds short, which whoever stores one has to do before.
    let totp = Builder::new().with_secret(Secret::from(secret)).build_noncompliant();
    let digits = Zeroizing::new(totp.generate(seconds).to_string());
    // Six digits, as the builder's default says; the RFC's vectors below would fail otherwise.
    TotpCode::parse(&digits).expect("a code of six digits")
}

/// What an authenticator app reads from a QR code (the Key Uri Format of Google Authenticator):
/// `otpauth://totp/<issuer>:<account>?secret=…&issuer=…&algorithm=SHA1&digits=6&period=30`.
pub fn uri(issuer_host: &str, username: &str, secret: &[u8]) -> Zeroizing<String> {
    let issuer = percent_encode(issuer_host);
    let account = percent_encode(username);
    let secret = base32(secret);
    let parts = [
        "otpauth://totp/",
        &issuer,
        ":",
        &account,
        "?secret=",
        &secret,
        "&issuer=",
        &issuer,
        "&algorithm=SHA1&digits=6&period=30",
    ];
    // Joined at once: a text that grew would leave the secret behind.
    Zeroizing::new(parts.concat())
}

/// Base32 without padding (RFC 4648, section 6), as people type it.
pub fn base32(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(Secret::from(secret).to_base32())
}

/// Leaves only what RFC 3986, section 2.3, calls unreserved.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors::{bytes, cases, text};

    const SECRET: &[u8; SECRET_LEN] = b"12345678901234567890";

    fn matching(code: TotpCode, now: i64) -> Option<i64> {
        matching_step(SECRET, &code, Timestamp::new(now))
    }

    #[test]
    fn rfc_6238_appendix_b() {
        for case in cases(include_str!("../../tests/vectors/totp_rfc6238_sha1.json")) {
            let now = Timestamp::new(case["time"].as_i64().unwrap());
            let secret = bytes(&case, "secret");
            let six = &text(&case, "totp")[2..];
            assert_eq!(code_at(&secret, step_at(now)).as_bytes(), six.as_bytes(), "{case}");
            assert_eq!(matching_step(&secret, &TotpCode::parse(six).unwrap(), now), Some(step_at(now)), "{case}");
        }
    }

    #[test]
    fn one_step_either_way_and_no_more() {
        let (now, step) = (1_795_262_415, 1_795_262_415 / 30);
        for (offset, expected) in [(-2, None), (-1, Some(step - 1)), (0, Some(step)), (1, Some(step + 1)), (2, None)] {
            assert_eq!(matching(code_at(SECRET, step + offset), now), expected, "{offset}");
        }
        assert_eq!(step_at(Timestamp::new(29)), 0);
        assert_eq!(step_at(Timestamp::new(30)), 1);
        assert_eq!(step_at(Timestamp::new(-1)), -1);
    }

    #[test]
    fn of_two_steps_with_one_code_the_later_matches() {
        // About one step in a million has its successor's code; for this secret 910,737 is the first.
        let twin = 910_737;
        assert!(code_at(SECRET, twin) == code_at(SECRET, twin + 1));
        assert_eq!(matching(code_at(SECRET, twin), twin * 30), Some(twin + 1));
    }

    #[test]
    fn a_secret_of_another_length_matches_nothing() {
        let code = code_at(SECRET, 100);
        assert_eq!(matching(code, 3000), Some(100));
        for secret in [b"".as_slice(), &SECRET[..19], b"123456789012345678901"] {
            assert_eq!(matching_step(secret, &code_at(secret, 100), Timestamp::new(3000)), None);
        }
        assert_eq!(code_at(SECRET, i64::MIN).as_bytes(), code_at(SECRET, 0).as_bytes());
        code_at(SECRET, i64::MAX);
    }

    #[test]
    fn rfc_4648_base32() {
        for (plain, expected) in
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foob", "MZXW6YQ"), ("fooba", "MZXW6YTB")]
        {
            assert_eq!(*base32(plain.as_bytes()), expected);
        }
        assert_eq!(*base32(SECRET), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn the_uri_is_encoded() {
        assert_eq!(
            *uri("auth.example.com", "alice+x@example.com", SECRET),
            "otpauth://totp/auth.example.com:alice%2Bx%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=auth.example.com&algorithm=SHA1&digits=6&period=30"
        );
        assert!(
            uri("[::1]:8443", "a b&c", SECRET).starts_with("otpauth://totp/%5B%3A%3A1%5D%3A8443:a%20b%26c?secret=")
        );
    }
}
