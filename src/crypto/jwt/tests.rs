//! Tests of tokens: vectors of RFC 8032 and RFC 8037, and what forgers try. Every attack is shown beside the untouched
//! token passing.

use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, signature};
use serde_json::{Value, json};

use super::*;
use crate::crypto::vectors::{array, bytes, cases, text};
use crate::error::Kind;
use crate::model::account::{AccountId, RoleName};
use crate::model::token::{Amr, Audience, Jti};

const NOW: i64 = 1_795_262_400;
const ISSUER: &str = "https://auth.example.com";

fn now() -> Timestamp {
    Timestamp::new(NOW)
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32]).unwrap()
}

fn ring() -> KeyRing {
    KeyRing::new([SigningKey::from_seed(&[2; 32]).unwrap().public(), key().public()]).unwrap()
}

fn good_claims() -> Claims {
    Claims {
        issuer: ISSUER.to_owned(),
        subject: AccountId::parse("0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11").unwrap(),
        audience: Audience::parse("https://wiki.example.com").unwrap(),
        issued_at: Timestamp::new(NOW - 10),
        expires_at: Timestamp::new(NOW + 3600),
        jti: Jti::parse("7b0f4c52-93e4-4d8e-a3a6-1b0a1c9f5d10").unwrap(),
        roles: vec![RoleName::parse("admin").unwrap(), RoleName::parse("wiki:write").unwrap()],
        auth_time: Timestamp::new(NOW - 20),
        amr: vec![Amr::Pwd, Amr::Otp],
    }
}

/// The good claims as they stand in a token.
fn good_json() -> Value {
    serde_json::from_slice(&claims::write(&good_claims()).unwrap()).unwrap()
}

fn good_token() -> String {
    key().sign_claims(&good_claims()).unwrap().expose().to_owned()
}

/// A token with any header and payload, signed with the right key.
fn forge(header: &str, payload: &[u8]) -> String {
    sign_segments(&B64.encode(header), &B64.encode(payload))
}

fn sign_segments(header: &str, payload: &str) -> String {
    let message = format!("{header}.{payload}");
    let signature = B64.encode(key().sign_bytes(message.as_bytes()));
    format!("{message}.{signature}")
}

fn our_header() -> String {
    format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, key().kid())
}

fn check_at(token: &str, now: i64) -> std::result::Result<Claims, TokenFault> {
    let ring = ring();
    let checked = check(token, &ring, ISSUER, Timestamp::new(now), &SignatureCache::new())?;
    assert_eq!(checked.kid, key().kid());
    Ok(checked.claims)
}

fn fault(token: &str) -> TokenFault {
    check_at(token, NOW).unwrap_err()
}

/// The fault of these claims under the right header and a good signature.
fn fault_of_claims(payload: impl AsRef<[u8]>) -> TokenFault {
    fault(&forge(&our_header(), payload.as_ref()))
}

#[test]
fn rfc_8032() {
    for case in cases(include_str!("../../../tests/vectors/ed25519_rfc8032.json")) {
        let key = SigningKey::from_seed(&bytes(&case, "seed")).unwrap();
        let (public, message) = (array(&case, "public"), bytes(&case, "message"));
        let mut signature = array(&case, "signature");
        assert_eq!(key.public(), public, "{case}");
        assert_eq!(key.sign_bytes(&message), signature, "{case}");
        assert!(verify_bytes(&public, &message, &signature), "{case}");
        for bit in 0..512 {
            signature[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify_bytes(&public, &message, &signature), "{case} with bit {bit} flipped");
            signature[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(!verify_bytes(&public, &[message.as_slice(), b"x"].concat(), &signature), "{case}");
    }
    assert!(SigningKey::from_seed(&[0; 31]).is_err());
    assert!(SigningKey::from_seed(&[0; 33]).is_err());
}

/// A second form of a good signature. What stops it is `Scalar::from_canonical_bytes` in ed25519-dalek, which all its
/// ways of verifying go through as long as nobody turns `legacy_compatibility` on.
#[test]
fn a_malleable_signature_is_refused() {
    let original = &cases(include_str!("../../../tests/vectors/ed25519_rfc8032.json"))[1];
    for case in cases(include_str!("../../../tests/vectors/ed25519_bad_s_plus_l.json")) {
        let public = array(&case, "public");
        let message = bytes(&case, "message");
        assert_eq!(bytes(&case, "signature")[..32], bytes(original, "signature")[..32]);
        assert!(verify_bytes(&public, &message, &array(original, "signature")));
        assert!(!verify_bytes(&public, &message, &array(&case, "signature")), "{case}");
    }
}

/// Under a key of small order one signature fits every message, or every eighth. Lax verification lets it pass.
#[test]
fn a_small_order_key_is_refused() {
    let mut passed_laxly = 0;
    for case in cases(include_str!("../../../tests/vectors/ed25519_bad_small_order_key.json")) {
        let public = array(&case, "public");
        let signature = array(&case, "signature");
        let lax = VerifyingKey::from_bytes(&public).unwrap();
        for message in 0..32u8 {
            let lax_verdict = ed25519_dalek::Verifier::verify(&lax, &[message], &Signature::from_bytes(&signature));
            passed_laxly += usize::from(lax_verdict.is_ok());
            assert!(!verify_bytes(&public, &[message], &signature), "{case}");
        }
        assert!(KeyRing::new([key().public(), public]).is_err(), "{case}");
    }
    assert!(passed_laxly >= 64, "the attack is real: {passed_laxly}");
    assert!(KeyRing::new([[0x02; 32]]).is_err(), "no point of the curve");
    assert!(!verify_bytes(&[0x02; 32], b"", &[0; 64]));
}

/// The thumbprint's construction (RFC 7638, section 3) on the OKP key of RFC 8037, A.3. The example in RFC 7638, 3.1, is
/// an RSA key, and there are none here.
#[test]
fn rfc_8037() {
    for case in cases(include_str!("../../../tests/vectors/jose_rfc8037.json")) {
        let key = SigningKey::from_seed(&B64.decode(text(&case, "d")).unwrap()).unwrap();
        assert_eq!(B64.encode(key.public()), text(&case, "x"));
        assert_eq!(B64.encode(Sha256::digest(text(&case, "thumbprint_input"))), text(&case, "thumbprint"));
        assert_eq!(kid_of(&key.public()), text(&case, "thumbprint"));
        assert_eq!(key.kid(), text(&case, "thumbprint"));

        let message = format!("{}.{}", B64.encode(text(&case, "jws_header")), B64.encode(text(&case, "jws_payload")));
        let signature = key.sign_bytes(message.as_bytes());
        assert_eq!(format!("{message}.{}", B64.encode(signature)), text(&case, "jws"));
        assert!(verify_bytes(&key.public(), message.as_bytes(), &signature));
    }
}

#[test]
fn a_token_says_what_was_put_in_it() {
    let token = good_token();
    let segments: Vec<&str> = token.split('.').collect();
    assert_eq!(B64.decode(segments[0]).unwrap(), our_header().as_bytes());
    assert_eq!(
        String::from_utf8(B64.decode(segments[1]).unwrap()).unwrap(),
        r#"{"iss":"https://auth.example.com","sub":"0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11","aud":"https://wiki.example.com","iat":1795262390,"exp":1795266000,"jti":"7b0f4c52-93e4-4d8e-a3a6-1b0a1c9f5d10","roles":["admin","wiki:write"],"auth_time":1795262380,"amr":["pwd","otp"]}"#
    );
    assert_eq!(segments[2].len(), SIGNATURE_CHARS);
    assert_eq!(check_at(&token, NOW).unwrap(), good_claims());

    let bare = Claims { roles: vec![], amr: vec![], audience: Audience::parse(r#""\ "#).unwrap(), ..good_claims() };
    let token = key().sign_claims(&bare).unwrap();
    assert_eq!(check_at(token.expose(), NOW).unwrap(), bare);
}

/// Somebody else's verifier takes our tokens.
#[test]
fn jsonwebtoken_decodes_our_tokens() {
    struct Verifier([u8; 32]);
    impl signature::Verifier<Vec<u8>> for Verifier {
        fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
            let signature = signature.as_slice().try_into().map_err(|_| signature::Error::new())?;
            verify_bytes(&self.0, message, signature).then_some(()).ok_or_else(signature::Error::new)
        }
    }
    impl JwtVerifier for Verifier {
        fn algorithm(&self) -> Algorithm {
            Algorithm::EdDSA
        }
    }
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| unreachable!(),
        verifier_factory: |_, key| Ok(Box::new(Verifier(key.try_get_as_bytes()?.try_into().unwrap()))),
        key_utils: KeyUtils::new_unimplemented(),
    };
    PROVIDER.install_default().unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.validate_exp = false;
    validation.set_audience(&["https://wiki.example.com"]);
    validation.set_issuer(&[ISSUER]);
    let token = good_token();
    let decode = |public: [u8; 32]| {
        jsonwebtoken::decode::<serde_json::Map<String, Value>>(&token, &DecodingKey::from_ed_der(&public), &validation)
    };
    assert_eq!(Value::Object(decode(key().public()).unwrap().claims), good_json());
    assert!(decode(SigningKey::from_seed(&[2; 32]).unwrap().public()).is_err());
}

#[test]
fn a_token_nobody_could_use_is_not_issued() {
    let role = |n: usize| RoleName::parse(&format!("{n:064}")).unwrap();
    let with_roles = |n| Claims { roles: (0..n).map(role).collect(), ..good_claims() };
    let most = key().sign_claims(&with_roles(32)).unwrap();
    assert!(check_at(most.expose(), NOW).is_ok(), "an account's 32 longest roles fit");
    let refused = (33..60).filter_map(|n| key().sign_claims(&with_roles(n)).err()).collect::<Vec<_>>();
    assert!(!refused.is_empty() && refused.iter().all(|error| error.kind() == Kind::Conflict));
}

#[test]
fn every_bit_counts() {
    let token = good_token();
    let ring = ring();
    let cache = SignatureCache::new();
    assert!(check(&token, &ring, ISSUER, now(), &cache).is_ok());
    let header_len = token.find('.').unwrap();
    let mut tried = 0;
    for bit in 0..token.len() * 8 {
        let mut changed = token.clone().into_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        // What isn't UTF-8 can't be a &str, and never gets this far.
        let Ok(changed) = String::from_utf8(changed) else { continue };
        let fault = check(&changed, &ring, ISSUER, now(), &cache).unwrap_err();
        let expected = match changed.matches('.').count() {
            2 if bit / 8 < header_len => TokenFault::UnknownHeader,
            2 => TokenFault::BadSignature,
            _ => TokenFault::NotThreeSegments,
        };
        assert_eq!(fault, expected, "bit {bit}");
        tried += 1;
    }
    assert_eq!(tried, token.len() * 7);
    assert!(check(&token, &ring, ISSUER, now(), &cache).is_ok());
}

#[test]
fn a_header_of_another_kind_is_refused_before_the_signature() {
    let payload = good_json().to_string();
    let kid = key().kid().to_owned();
    assert!(check_at(&forge(&our_header(), payload.as_bytes()), NOW).is_ok());
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, B64.encode(key().public()));
    let other_kid = kid_of(&SigningKey::from_seed(&[3; 32]).unwrap().public());
    let headers = [
        format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"none","typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"None","typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"eddsa","typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"EDDSA","typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"Ed25519","typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"alg":["EdDSA"],"typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}","jwk":{jwk}}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"JWT","jwk":{jwk}}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}","jku":"https://evil.example/keys"}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}","crit":["exp"]}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}","b64":false}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{other_kid}"}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"../../{kid}"}}"#),
        r#"{"alg":"EdDSA","typ":"JWT","kid":""}"#.to_owned(),
        r#"{"alg":"EdDSA","typ":"JWT","kid":null}"#.to_owned(),
        r#"{"alg":"EdDSA","typ":"JWT"}"#.to_owned(),
        format!(r#"{{"typ":"JWT","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"kid":"{kid}","alg":"EdDSA","typ":"JWT"}}"#),
        format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"EdDSA","alg":"none","typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"alg": "EdDSA","typ":"JWT","kid":"{kid}"}}"#),
        format!("{} ", our_header()),
        String::new(),
        "{}".to_owned(),
        "null".to_owned(),
    ];
    for header in headers {
        let token = forge(&header, payload.as_bytes());
        assert_eq!(fault(&token), TokenFault::UnknownHeader, "{header}");
        let said = diagnose(&token);
        assert!(said.len() < 200 && !said.contains(&kid) && !said.contains("evil"), "{said}");
    }
    let padded = sign_segments(&format!("{}==", B64.encode(our_header())), &B64.encode(&payload));
    assert_eq!(fault(&padded), TokenFault::UnknownHeader);
}

/// The classic: the public key, which everybody has, as the secret of an HMAC.
#[test]
fn the_public_key_is_no_hmac_secret() {
    let payload = good_json().to_string();
    for alg in ["HS256", "EdDSA"] {
        let header = format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"{}"}}"#, key().kid());
        assert!(alg != "EdDSA" || check_at(&forge(&header, payload.as_bytes()), NOW).is_ok());
        let message = format!("{}.{}", B64.encode(header), B64.encode(&payload));
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key().public()).unwrap();
        mac.update(message.as_bytes());
        let mac = B64.encode(mac.finalize().into_bytes());
        let expected = if alg == "EdDSA" { TokenFault::BadSignature } else { TokenFault::UnknownHeader };
        assert_eq!(fault(&format!("{message}.{mac}")), expected);
    }
}

#[test]
fn another_keys_signature_is_no_good() {
    let token = good_token();
    let message = token.rsplit_once('.').unwrap().0;
    let other = SigningKey::from_seed(&[2; 32]).unwrap();
    assert!(ring().contains_kid(other.kid()) && ring().contains_kid(key().kid()));
    assert!(!ring().contains_kid("") && !ring().contains_kid(&key().kid().to_lowercase()));
    let signed = format!("{message}.{}", B64.encode(other.sign_bytes(message.as_bytes())));
    assert_eq!(fault(&signed), TokenFault::BadSignature, "a good signature by another key of ours");
    let without = KeyRing::new([other.public()]).unwrap();
    let cache = SignatureCache::new();
    assert_eq!(check(&token, &without, ISSUER, now(), &cache), Err(TokenFault::UnknownHeader));
}

#[test]
fn a_token_has_three_segments_and_nothing_around_them() {
    let token = good_token();
    assert!(check_at(&token, NOW).is_ok());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    for bad in [
        String::new(),
        header.to_owned(),
        message.to_owned(),
        format!("{token}."),
        format!("{token}.{signature}"),
        format!("{header}.{payload}.{payload}.{signature}"),
        format!("{header}..{payload}.{signature}"),
    ] {
        assert_eq!(fault(&bad), TokenFault::NotThreeSegments, "{bad}");
    }
    for bad in [format!(".{payload}.{signature}"), format!(" {token}"), format!("Bearer {token}"), "..".to_owned()] {
        assert_eq!(fault(&bad), TokenFault::UnknownHeader, "{bad}");
    }
    for end in ["=", "==", " ", "\n", "\0", "A", "AA", "A=", "%3D"] {
        assert_eq!(fault(&format!("{token}{end}")), TokenFault::BadSignature, "{end:?}");
    }
    for cut in [&token[..token.len() - 1], &token[..token.len() - 2], &format!("{message}.")] {
        assert_eq!(fault(cut), TokenFault::BadSignature);
    }
    assert_eq!(fault(&format!("{header}.{}.{signature}", B64.encode("{}"))), TokenFault::BadSignature);
}

#[test]
fn a_signature_has_one_spelling() {
    let lenient = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let token = good_token();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let bytes = B64.decode(signature).unwrap();
    let mut spellings = 0;
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
        let spelled = format!("{}{last}", &signature[..SIGNATURE_CHARS - 1]);
        if lenient.decode(&spelled).unwrap() != bytes {
            continue;
        }
        spellings += 1;
        let verdict = check_at(&format!("{message}.{spelled}"), NOW);
        assert_eq!(verdict.is_ok(), spelled == signature, "{last}");
    }
    assert_eq!(spellings, 16, "a lenient decoder takes sixteen");
    let standard = signature.replace('-', "+").replace('_', "/");
    assert_ne!(standard, signature);
    assert_eq!(fault(&format!("{message}.{standard}")), TokenFault::BadSignature);
}

#[test]
fn a_payload_has_one_spelling() {
    let mut payload = good_json().to_string();
    // Padded with white space until the last character has bits to spare.
    while payload.len() % 3 != 1 {
        payload.push(' ');
    }
    let encoded = B64.encode(&payload);
    let header = B64.encode(our_header());
    assert!(check_at(&sign_segments(&header, &encoded), NOW).is_ok());
    let last = char::from(encoded.as_bytes()[encoded.len() - 1] + 1);
    for bad in [format!("{encoded}=="), format!("{}{last}", &encoded[..encoded.len() - 1]), format!("{encoded} ")] {
        let expected = TokenFault::BadClaims("payload is not base64url");
        assert_eq!(fault(&sign_segments(&header, &bad)), expected, "{bad}");
    }
}

#[test]
fn length_is_looked_at_first() {
    let token = good_token();
    let filled = format!("{token}{}", "A".repeat(MAX_TOKEN_LEN - token.len()));
    assert_eq!((filled.len(), fault(&filled)), (4096, TokenFault::BadSignature));
    assert_eq!(fault(&format!("{filled}A")), TokenFault::TooLong);
    assert_eq!(fault(&".".repeat(4097)), TokenFault::TooLong);
    assert_eq!(diagnose(&format!("{filled}A")), "longer than 4096 bytes");

    // The longest payload there can be, so that the buffer it is decoded into is seen to hold it.
    let room = MAX_TOKEN_LEN - B64.encode(our_header()).len() - SIGNATURE_CHARS - 2;
    let mut payload = good_json().to_string();
    payload.push_str(&" ".repeat(room / 4 * 3 + room % 4 / 2 - payload.len()));
    let longest = forge(&our_header(), payload.as_bytes());
    assert!((MAX_TOKEN_LEN - 2..=MAX_TOKEN_LEN).contains(&longest.len()), "{}", longest.len());
    assert!(check_at(&longest, NOW).is_ok());
}

#[test]
fn each_claim_is_there_once_and_of_its_type() {
    let good = good_json();
    assert!(check_at(&forge(&our_header(), good.to_string().as_bytes()), NOW).is_ok());
    let members = good.as_object().unwrap();
    let text: &[Value] = &[json!(null), json!(1), json!(true), json!([]), json!({}), json!(["a"])];
    let id: &[Value] = &[json!(""), json!("x"), json!("0194E2F0-7D3A-7C1E-9B52-2F6D0A4C8E11"), json!(7)];
    let audience: &[Value] = &[json!(""), json!("a\n"), json!("é"), json!(["https://wiki.example.com"]), json!(null)];
    let integer: &[Value] = &[
        json!(null),
        json!("1795266000"),
        json!(1_795_266_000.0),
        json!(1_795_266_000.5),
        json!(true),
        json!([1_795_266_000]),
        json!(u64::MAX),
    ];
    let words: &[Value] = &[
        json!(null),
        json!("pwd"),
        json!({}),
        json!(["Pwd"]),
        json!([""]),
        json!([1]),
        json!([["pwd"]]),
        json!([null]),
    ];
    let wrong = [
        ("iss", text),
        ("sub", id),
        ("aud", audience),
        ("iat", integer),
        ("exp", integer),
        ("jti", id),
        ("roles", words),
        ("auth_time", integer),
        ("amr", words),
    ];
    assert_eq!(wrong.len(), members.len());
    for (name, values) in wrong {
        let mut without = members.clone();
        without.remove(name).unwrap();
        let without = Value::Object(without);
        let expected = [format!("no {name}"), format!("malformed {name}"), format!("{name} twice")];
        assert_eq!(fault_of_claims(without.to_string()).to_string(), expected[0]);
        for value in values {
            let mut changed = members.clone();
            changed[name] = value.clone();
            let changed = Value::Object(changed).to_string();
            assert_eq!(fault_of_claims(&changed).to_string(), expected[1], "{changed}");
        }
        // Twice: the same, another value, and the name with an escape in it.
        let all = good.to_string();
        let escaped = format!("\\u{:04x}{}", u32::from(name.as_bytes()[0]), &name[1..]);
        for again in [format!(r#""{name}":{}"#, members[name]), format!(r#""{escaped}":{}"#, members[name])] {
            assert_eq!(fault_of_claims(all.replacen('{', &format!("{{{again},"), 1)).to_string(), expected[2]);
            assert_eq!(fault_of_claims(format!("{},{again}}}", &all[..all.len() - 1])).to_string(), expected[2]);
        }
    }
    for spelled in ["1e9", "1.0", "-0", "01", "+1", "0x10", "1795266000.0", "99999999999999999999", "Infinity"] {
        let payload = good.to_string().replace("1795266000", spelled);
        assert!(matches!(fault_of_claims(&payload), TokenFault::BadClaims(_)), "{spelled}");
    }
}

#[test]
fn claims_are_one_json_object_and_nothing_else() {
    let good = good_json().to_string();
    assert!(check_at(&forge(&our_header(), good.as_bytes()), NOW).is_ok());
    let not_json: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        format!("[{good}]").into(),
        b"{".to_vec(),
        good[..good.len() - 1].into(),
        format!("\u{feff}{good}").into(),
        good.replace("wiki", "wi\nki").into(),
        good.replace(':', "=").into(),
        good.replace("{", "{,").into(),
        good.replace("}", ",}").into(),
        good.replace("iss", "is\\x73").into(),
        [b"{\"\xff\":1,", &good.as_bytes()[1..]].concat(),
        "[".repeat(2000).into(),
        b"{\"a\":".repeat(500),
    ];
    for payload in not_json {
        assert!(matches!(fault_of_claims(&payload), TokenFault::BadClaims(_)), "{}", payload.escape_ascii());
    }
    let in_issuer = good.find("https://auth").unwrap();
    let invalid_utf8 = [&good.as_bytes()[..in_issuer], b"\xff", &good.as_bytes()[in_issuer..]].concat();
    assert_eq!(fault_of_claims(invalid_utf8), TokenFault::BadClaims("malformed iss"));
    for after in ["x", "{}", ",", "}", "\0", "1"] {
        assert_eq!(fault_of_claims(format!("{good}{after}")), TokenFault::BadClaims("something after the claims"));
    }
    for unknown in ["nbf", "Exp", "exp ", "scope", "", "__proto__"] {
        let payload = good.replacen('{', &format!(r#"{{"{unknown}":1,"#), 1);
        assert_eq!(fault_of_claims(payload), TokenFault::BadClaims("a claim that we don't issue"), "{unknown}");
    }
}

#[test]
fn the_issuer_is_compared_whole() {
    for issuer in ["", "https://auth.example.co", "https://auth.example.com/", "https://AUTH.example.com"] {
        let mut claims = good_json();
        claims["iss"] = json!(issuer);
        assert_eq!(fault_of_claims(claims.to_string()), TokenFault::WrongIssuer, "{issuer}");
    }
}

#[test]
fn there_is_no_leeway() {
    let token = good_token();
    assert!(check_at(&token, NOW + 3599).is_ok());
    assert_eq!(check_at(&token, NOW + 3600), Err(TokenFault::Expired), "exp itself is too late");
    assert_eq!(check_at(&token, i64::MAX), Err(TokenFault::Expired));
    assert!(check_at(&token, NOW - 10 - 60).is_ok(), "60 s ahead");
    assert_eq!(check_at(&token, NOW - 10 - 61), Err(TokenFault::FromTheFuture));
    assert_eq!(check_at(&token, i64::MIN), Err(TokenFault::FromTheFuture));
}

#[test]
fn a_cached_signature_lets_nothing_else_through() {
    let ring = ring();
    let cache = SignatureCache::new();
    let check = |token: &str, ring| check(token, ring, ISSUER, now(), &cache).map(|checked| checked.claims);
    let token = good_token();
    assert!(check(&token, &ring).is_ok());
    assert!(check(&token, &ring).is_ok(), "from the cache");
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let mut other = good_json();
    other["sub"] = json!("0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e12");
    let other = B64.encode(other.to_string());
    assert_eq!(check(&format!("{header}.{other}.{signature}"), &ring), Err(TokenFault::BadSignature));
    assert_eq!(check(&format!("{message}.{}", "A".repeat(SIGNATURE_CHARS)), &ring), Err(TokenFault::BadSignature));
    assert_eq!(check(&format!("{token}="), &ring), Err(TokenFault::BadSignature));

    // A key that left the ring takes its tokens along, remembered or not.
    let without = KeyRing::new([SigningKey::from_seed(&[2; 32]).unwrap().public()]).unwrap();
    assert_eq!(check(&token, &without), Err(TokenFault::UnknownHeader));

    // Nor does it keep an expired token alive, or remember a bad one.
    assert_eq!(super::check(&token, &ring, ISSUER, Timestamp::new(NOW + 3600), &cache), Err(TokenFault::Expired));
    for _ in 0..2 {
        assert_eq!(check(&format!("{message}.{}", "A".repeat(SIGNATURE_CHARS)), &ring), Err(TokenFault::BadSignature));
    }
}

#[test]
fn a_diagnosis_names_what_the_standards_name_and_repeats_nothing() {
    let header = |json: &str| diagnose(&forge(json, b"{}"));
    assert_eq!(header(r#"{"alg":"HS256","typ":"JWT"}"#), "alg HS256, typ JWT, no kid");
    assert_eq!(
        header(r#"{"alg":"EdDSA","kid":"x","jku":"s3cret"}"#),
        "alg EdDSA, no typ, a kid that is no thumbprint, with jku"
    );
    let said = header(r#"{"alg":"EdDSA","typ":"s3cret","crit":["s3cret"],"s3cret":1}"#);
    assert_eq!(said, "alg EdDSA, another typ, no kid, with crit, with members of its own");
    for json in [r#"{"alg":"s3cret"}"#, r#"{"typ":"s3cret"}"#, "s3cret", "[]"] {
        assert_eq!(header(json), "the header is not a JOSE header with an algorithm we have heard of");
    }
    assert_eq!(diagnose("s3cret"), "not three segments");
    assert_eq!(diagnose("s3=cret.a.b"), "the header is not base64url");
}
