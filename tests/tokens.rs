//! Tokens that are no good: forged, altered, never issued, taken from somebody else, revoked, or for another audience.
//! Every test first shows that the token it starts from is good, so that nothing but the one change can be the reason.

mod support;

use std::sync::LazyLock;

use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use rcgen::{KeyPair, PKCS_RSA_SHA256, SigningKey as _};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{Client, Forge, Server, b64, claims_of, claims_text, now, parts_of, unb64};

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// Asks in all ways there are whether the token opens anything.
#[track_caller]
fn is_refused(server: &Server, what: &str, token: &str) {
    let anybody = server.client();
    let answer = anybody.post("/v1/token/validate").json(json!({"token": token})).ok(200);
    assert_eq!(*answer.json(), json!({"valid": false}), "{what}\n{}", answer.story());
    // Not everything can stand in a header, and what surrounds a header's value is no part of it.
    if token.bytes().any(|b| !(0x20..0x7f).contains(&b)) || token.trim() != token || token.len() > 12_000 {
        return;
    }
    let bearer = anybody.with_token(token);
    for (method, path) in [("POST", "/v1/token/validate"), ("GET", "/v1/token/validate"), ("GET", "/v1/auth/me")] {
        let answer = bearer.request(method, path).send();
        assert_eq!(answer.status, 401, "{what}\n{}", answer.story());
    }
}

/// Asks in all ways there are, and insists that it is good.
#[track_caller]
fn is_good(client: &Client) {
    assert!(client.is_good(), "the token isn't good to begin with");
    client.post("/v1/token/validate").ok(200);
    client.get("/v1/token/validate").ok(200);
    client.get("/v1/auth/me").ok(200);
}

/// The claims with some of them changed.
fn with(claims: &Value, changes: Value) -> Value {
    let mut claims = claims.clone();
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

#[test]
fn what_the_forge_signs_would_be_taken() {
    // Whatever the tests below refuse isn't refused because they sign badly.
    let server = &*SERVER;
    let user = server.human("sound");
    let forge = Forge::of(server);
    let [header, payload, _] = parts_of(user.token());
    assert_eq!(forge.sign_segments(header, payload), user.token());
    assert_eq!(forge.header(), String::from_utf8(unb64(header)).unwrap());
    assert_eq!(forge.sign(&user.claims()), user.token());
    is_good(&user);
}

#[test]
fn another_algorithm_is_refused() {
    let server = &*SERVER;
    let user = server.human("algorithms");
    is_good(&user);
    let forge = Forge::of(server);
    let [_, payload, signature] = parts_of(user.token());
    let public = forge.key.verifying_key().to_bytes();

    // HMAC under everything that is public of the key, as a verifier might hold it.
    let x = b64(public);
    let jwk = server.client().get("/v1/keys/public").ok(200).json().to_string();
    let jwks = server.client().get("/.well-known/jwks.json").ok(200).json().to_string();
    let spki = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], &public[..]].concat();
    let base64 = base64::engine::general_purpose::STANDARD;
    let spki64 = base64::Engine::encode(&base64, &spki);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki64}\n-----END PUBLIC KEY-----\n");
    let keys: [&[u8]; 9] = [
        &public,
        x.as_bytes(),
        jwk.as_bytes(),
        jwks.as_bytes(),
        &spki,
        spki64.as_bytes(),
        pem.as_bytes(),
        pem.trim_end().as_bytes(),
        b"",
    ];
    for key in keys {
        for alg in ["HS256", "EdDSA"] {
            let header = b64(format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"{}"}}"#, forge.kid));
            let message = format!("{header}.{payload}");
            let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(&message).finalize().into_bytes();
            is_refused(server, "HMAC under the public key", &format!("{message}.{}", b64(mac)));
        }
    }

    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    for header in
        [format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{}"}}"#, forge.kid), r#"{"alg":"RS256","typ":"JWT"}"#.to_owned()]
    {
        let message = format!("{}.{payload}", b64(header));
        let token = format!("{message}.{}", b64(rsa.sign(message.as_bytes()).unwrap()));
        is_refused(server, "RS256 under a key of the forger's", &token);
    }

    for alg in ["none", "None", "NONE", "nOnE", ""] {
        for kid in [format!(r#","kid":"{}""#, forge.kid), String::new()] {
            let header = b64(format!(r#"{{"alg":"{alg}","typ":"JWT"{kid}}}"#));
            for signature in ["", signature, &b64([0; 64])] {
                is_refused(server, alg, &format!("{header}.{payload}.{signature}"));
            }
            is_refused(server, alg, &format!("{header}.{payload}"));
        }
    }

    // Signed with the right key, over a header that says something else: what is not our header isn't read.
    for alg in [
        "HS256",
        "HS384",
        "HS512",
        "RS256",
        "ES256",
        "PS256",
        "Ed25519",
        "Ed448",
        "eddsa",
        "EDDSA",
        "Eddsa",
        "EdDSA ",
        " EdDSA",
        "EdDSA\\u0000",
        "none",
        "",
    ] {
        let header = format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"{}"}}"#, forge.kid);
        is_refused(server, alg, &forge.sign_text(&header, &claims_text(&user.claims())));
    }
    is_good(&user);
}

#[test]
fn another_header_is_refused_also_where_the_signature_is_right() {
    let server = &*SERVER;
    let user = server.human("headers");
    is_good(&user);
    let forge = Forge::of(server);
    let kid = &forge.kid;
    let stranger = SigningKey::from_bytes(&mcias::random::bytes().unwrap());
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, b64(stranger.verifying_key()));
    let audit = server.query_one::<String>("SELECT kid FROM signing_keys WHERE purpose = 'audit'", []);
    let shouted = kid.to_uppercase();
    let members = |members: &str| format!("{{{members}}}");
    let headers = [
        ("no alg", members(&format!(r#""typ":"JWT","kid":"{kid}""#))),
        ("alg is null", members(&format!(r#""alg":null,"typ":"JWT","kid":"{kid}""#))),
        ("alg is a list", members(&format!(r#""alg":["EdDSA"],"typ":"JWT","kid":"{kid}""#))),
        ("no kid", members(r#""alg":"EdDSA","typ":"JWT""#)),
        ("an empty kid", members(r#""alg":"EdDSA","typ":"JWT","kid":"""#)),
        ("kid is null", members(r#""alg":"EdDSA","typ":"JWT","kid":null"#)),
        ("a kid that leads elsewhere", members(r#""alg":"EdDSA","typ":"JWT","kid":"../../../dev/null""#)),
        ("a kid that is SQL", members(r#""alg":"EdDSA","typ":"JWT","kid":"x' OR '1'='1""#)),
        ("another kid", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{}""#, b64([7; 32])))),
        ("a kid in other case", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{shouted}""#))),
        ("a kid with a tail", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid} ""#))),
        ("the audit key's kid", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{audit}""#))),
        ("members in another order", members(&format!(r#""typ":"JWT","alg":"EdDSA","kid":"{kid}""#))),
        ("kid first", members(&format!(r#""kid":"{kid}","alg":"EdDSA","typ":"JWT""#))),
        ("no typ", members(&format!(r#""alg":"EdDSA","kid":"{kid}""#))),
        ("another typ", members(&format!(r#""alg":"EdDSA","typ":"at+jwt","kid":"{kid}""#))),
        ("typ in other case", members(&format!(r#""alg":"EdDSA","typ":"jwt","kid":"{kid}""#))),
        ("a space", members(&format!(r#""alg":"EdDSA", "typ":"JWT","kid":"{kid}""#))),
        ("a space before", format!(" {}", forge.header())),
        ("a line end after", format!("{}\n", forge.header())),
        ("a byte-order mark", format!("\u{feff}{}", forge.header())),
        ("an escape", members(&format!(r#""\u0061lg":"EdDSA","typ":"JWT","kid":"{kid}""#))),
        ("alg twice", members(&format!(r#""alg":"EdDSA","alg":"EdDSA","typ":"JWT","kid":"{kid}""#))),
        ("alg twice, none first", members(&format!(r#""alg":"none","alg":"EdDSA","typ":"JWT","kid":"{kid}""#))),
        ("alg twice, none last", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","alg":"none""#))),
        ("kid twice", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","kid":"{kid}""#))),
        ("jwk", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","jwk":{jwk}"#))),
        ("jku", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","jku":"https://evil.example/jwks""#))),
        ("x5u", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","x5u":"https://evil.example/x""#))),
        ("x5c", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","x5c":["AAAA"]"#))),
        ("crit", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","crit":["exp"]"#))),
        ("b64", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","b64":false,"crit":["b64"]"#))),
        ("zip", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","zip":"DEF""#))),
        ("cty", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{kid}","cty":"JWT""#))),
        ("a list", format!("[{}]", forge.header())),
        ("nothing", String::new()),
        ("null", "null".to_owned()),
    ];
    let claims = claims_text(&user.claims());
    for (what, header) in &headers {
        is_refused(server, what, &forge.sign_text(header, &claims));
    }

    // The forger's own key, by whatever header: its own kid, ours, embedded, or pointed at.
    let own_kid = mcias::crypto::jwt::kid_of(stranger.verifying_key().as_bytes());
    let more = [
        ("a stranger's key under our kid", forge.header()),
        ("a stranger's key under its own kid", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{own_kid}""#))),
        ("a stranger's key, embedded", members(&format!(r#""alg":"EdDSA","typ":"JWT","kid":"{own_kid}","jwk":{jwk}"#))),
    ];
    for (what, header) in headers.iter().chain(&more) {
        let message = format!("{}.{}", b64(header), b64(&claims));
        let signature = b64(stranger.sign(message.as_bytes()).to_bytes());
        is_refused(server, what, &format!("{message}.{signature}"));
    }
    is_good(&user);
}

#[test]
fn a_flipped_bit_is_refused_wherever_it_is() {
    let server = &*SERVER;
    let user = server.human("bits");
    is_good(&user);
    let parts = parts_of(user.token());
    let mut tried = 0;
    for part in 0..3 {
        let bytes = unb64(parts[part]);
        for bit in (0..bytes.len() * 8).step_by(7) {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = b64(bytes);
            let mut altered = parts;
            altered[part] = &flipped;
            is_refused(server, &format!("bit {bit} of part {part}"), &altered.join("."));
            tried += 1;
        }
    }
    assert!(tried > 300);
    is_good(&user);
}

#[test]
fn a_signature_has_one_spelling() {
    let server = &*SERVER;
    let user = server.human("spelling");
    is_good(&user);
    let [header, payload, signature] = parts_of(user.token());
    let token = |signature: &str| format!("{header}.{payload}.{signature}");
    // The last of 86 characters carries two bits of the signature, and four that mean nothing.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = |c: char| alphabet.find(c).unwrap();
    let last = value(signature.chars().last().unwrap());
    for c in alphabet.chars().filter(|c| value(*c) >> 4 == last >> 4 && value(*c) != last) {
        is_refused(server, "bits that mean nothing", &token(&format!("{}{c}", &signature[..85])));
    }
    // Another scalar for the same point: S + L, which a lax verifier takes (RFC 8032, 5.1.7).
    let l = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let l: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&l[2 * n..2 * n + 2], 16).unwrap()).collect();
    let mut bytes = unb64(signature);
    let mut carry = 0;
    for (byte, l) in bytes[32..].iter_mut().zip(l) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
    is_refused(server, "S + L", &token(&b64(&bytes)));
    is_refused(server, "no signature", &token(""));
    is_refused(server, "a short one", &token(&signature[..85]));
    is_refused(server, "half of one", &token(&signature[..43]));
    is_refused(server, "one of zeros", &token(&b64([0; 64])));
    is_refused(server, "a long one", &token(&format!("{signature}{signature}")));
    is_refused(server, "hexadecimal", &token(&unb64(signature).iter().map(|b| format!("{b:02x}")).collect::<String>()));
    is_good(&user);
}

#[test]
fn another_form_is_refused() {
    let server = &*SERVER;
    let user = server.human("forms");
    is_good(&user);
    let token = user.token();
    let forge = Forge::of(server);
    let parts @ [header, payload, signature] = parts_of(token);
    let other_alphabet = |part: &str| part.replace('-', "+").replace('_', "/");
    for (what, altered) in [
        ("nothing", String::new()),
        ("one segment", header.to_owned()),
        ("two segments", format!("{header}.{payload}")),
        ("four segments", format!("{token}.{signature}")),
        ("four segments, the last empty", format!("{token}.")),
        ("four segments, the first empty", format!(".{token}")),
        ("four segments, signed so", forge.sign_segments(header, &format!("{payload}.{payload}"))),
        ("five segments, like a JWE", format!("{header}.{payload}.{payload}.{payload}.{signature}")),
        ("an empty header", format!(".{payload}.{signature}")),
        ("an empty header, signed so", forge.sign_segments("", payload)),
        ("an empty payload", format!("{header}..{signature}")),
        ("an empty payload, signed so", forge.sign_segments(header, "")),
        ("only dots", "..".to_owned()),
        ("a byte after", format!("{token}A")),
        ("a NUL after", format!("{token}\0")),
        ("a line end after", format!("{token}\n")),
        ("a space after", format!("{token} ")),
        ("a space before", format!(" {token}")),
        ("a tab before", format!("\t{token}")),
        ("a scheme before", format!("Bearer {token}")),
        ("quotes", format!("\"{token}\"")),
        ("spaces around the dots", format!("{header} . {payload} . {signature}")),
        ("a line end within", format!("{header}.{payload}.\n{signature}")),
        ("a fold within", format!("{header}.{}\r\n{}.{signature}", &payload[..64], &payload[64..])),
        ("a byte-order mark", format!("\u{feff}{token}")),
        ("a padded header", format!("{header}=.{payload}.{signature}")),
        ("a padded header, signed so", forge.sign_segments(&format!("{header}="), payload)),
        ("a padded payload", format!("{header}.{payload}=.{signature}")),
        ("a padded payload, signed so", forge.sign_segments(header, &format!("{payload}="))),
        ("a twice padded payload, signed so", forge.sign_segments(header, &format!("{payload}=="))),
        ("a space in the payload, signed so", forge.sign_segments(header, &format!("{payload} "))),
        ("a line end in the payload, signed so", forge.sign_segments(header, &format!("{payload}\n"))),
        ("a padded signature", format!("{token}==")),
        ("once padded", format!("{token}=")),
        ("the other alphabet", other_alphabet(&format!("{header}.{payload}.{signature}+"))),
        ("percent-encoded dots", parts.join("%2E")),
        ("other dots", parts.join("\u{ff0e}")),
        ("in upper case", token.to_uppercase()),
        ("in lower case", token.to_lowercase()),
        ("twice", format!("{token},{token}")),
        ("JSON", json!({"payload": payload, "protected": header, "signature": signature}).to_string()),
    ] {
        is_refused(server, what, &altered);
    }
    // The bits that a payload's last character doesn't use: whatever they are, there is one spelling.
    let claims = claims_text(&user.claims());
    for spaces in 0..3 {
        let text = format!("{claims}{}", " ".repeat(spaces));
        let segment = b64(&text);
        if text.len() % 3 != 0 {
            let (rest, last) = segment.split_at(segment.len() - 1);
            let next = char::from(last.as_bytes()[0] + 1);
            is_refused(server, "bits that mean nothing", &forge.sign_segments(header, &format!("{rest}{next}")));
        }
    }
    is_good(&user);
}

#[test]
fn over_4096_bytes_is_refused() {
    let server = &*SERVER;
    let user = server.human("length");
    is_good(&user);
    let forge = Forge::of(server);
    // Everything about it is right but its length: JSON may have spaces after it.
    for length in [4097, 4100, 8192, 60_000] {
        let spaces = " ".repeat(length * 3 / 4);
        let token = forge.sign_text(&forge.header(), &format!("{}{spaces}", claims_text(&user.claims())));
        assert!(token.len() > length);
        is_refused(server, "too long", &token);
    }
    is_refused(server, "too long and nonsense", &"a.".repeat(5000));
    is_refused(server, "dots", &".".repeat(5000));
    is_good(&user);
}

#[test]
fn what_is_signed_but_was_never_issued_is_refused() {
    let server = &*SERVER;
    let (user, other) = (server.human("minted"), server.human("minted-from"));
    let admin = server.admin();
    let (mine, another) = (user.again(), user.again());
    for client in [&user, &other, &admin, &mine, &another] {
        is_good(client);
    }
    let forge = Forge::of(server);
    let claims = user.claims();
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    assert_eq!(forge.sign(&claims), user.token(), "unchanged, it is the very same");
    let random = || uuid::Uuid::from_bytes(mcias::random::bytes().unwrap()).to_string();

    let refused = |what: &str, changes: Value| is_refused(server, what, &forge.sign(&with(&claims, changes)));
    refused("a jti that was never issued", json!({"jti": random()}));
    refused("somebody else's live jti", json!({"jti": other.jti()}));
    refused("the admin's live jti", json!({"jti": admin.jti()}));
    refused("the admin's live jti and roles", json!({"jti": admin.jti(), "roles": ["admin"]}));
    refused("for the admin, under one's own jti", json!({"sub": admin.id(), "roles": ["admin"]}));
    refused("for nobody there is", json!({"sub": random()}));
    refused("a later end", json!({"exp": exp + 1}));
    refused("a much later end", json!({"exp": exp + 86_400}));
    refused("an earlier end", json!({"exp": exp - 1}));
    refused("the end of time", json!({"exp": i64::MAX}));
    refused("an end that overflows", json!({"exp": u64::MAX}));
    refused("an end before 1970", json!({"exp": -1}));
    refused("issued earlier", json!({"iat": iat - 1}));
    refused("issued later", json!({"iat": iat + 1}));
    refused("for another audience", json!({"aud": "files"}));
    refused("for another issuer", json!({"iss": "https://evil.example"}));
    refused("for the issuer with a slash", json!({"iss": "https://localhost:8443/"}));
    refused("a jti in other case", json!({"jti": user.jti().to_uppercase()}));
    refused("a sub in other case", json!({"sub": user.id().to_uppercase()}));
    if mine.claims()["iat"] != claims["iat"] || mine.claims()["exp"] != claims["exp"] {
        refused("one's own other jti", json!({"jti": mine.jti()}));
    }

    // Claims that have another shape, all else being right.
    for (what, changes) in [
        ("aud as a list", json!({"aud": [claims["aud"]]})),
        ("aud as a list of more", json!({"aud": [claims["aud"], "files"]})),
        ("exp as text", json!({"exp": exp.to_string()})),
        ("exp as a fraction", json!({"exp": exp as f64})),
        ("exp as null", json!({"exp": null})),
        ("iat as text", json!({"iat": iat.to_string()})),
        ("roles as text", json!({"roles": "admin"})),
        ("roles as null", json!({"roles": null})),
        ("sub as a number", json!({"sub": 1})),
        ("amr of another kind", json!({"amr": ["face"]})),
        ("a claim that isn't ours", json!({"nbf": iat})),
        ("another that isn't", json!({"admin": true})),
    ] {
        refused(what, changes);
    }
    for missing in ["iss", "sub", "aud", "iat", "exp", "jti", "roles", "auth_time", "amr"] {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(missing);
        is_refused(server, &format!("no {missing}"), &forge.sign(&claims));
        // Repeated, a reader could take the first or the last.
        let text = claims_text(&user.claims());
        let value = user.claims()[missing].to_string();
        for (what, text) in [
            ("first", format!("{{\"{missing}\":{value},{}", &text[1..])),
            ("last", format!("{},\"{missing}\":{value}}}", &text[..text.len() - 1])),
        ] {
            is_refused(server, &format!("{missing} twice, {what}"), &forge.sign_text(&forge.header(), &text));
        }
    }
    let text = claims_text(&claims);
    for (what, text) in [
        ("a list", format!("[{text}]")),
        ("two objects", format!("{text}{text}")),
        ("something after", format!("{text}x")),
        ("a byte-order mark", format!("\u{feff}{text}")),
        ("text", json!(text).to_string()),
        ("nothing", String::new()),
        ("null", "null".to_owned()),
        ("an empty object", "{}".to_owned()),
        ("a NUL after", format!("{text}\0")),
    ] {
        is_refused(server, what, &forge.sign_text(&forge.header(), &text));
    }
    is_refused(
        server,
        "not UTF-8",
        &forge.sign_segments(&b64(forge.header()), &b64([text.as_bytes(), b"\xff"].concat())),
    );
    is_good(&user);
}

#[test]
fn roles_that_a_forger_writes_in_come_to_nothing() {
    let server = &*SERVER;
    let user = server.human("roles");
    server.give_role(user.id(), "reader");
    let user = user.again();
    is_good(&user);
    let forge = Forge::of(server);
    let forged = user.with_token(&forge.sign(&with(&user.claims(), json!({"roles": ["admin", "reader"]}))));
    let validated = forged.without_token().post("/v1/token/validate").json(json!({"token": forged.token()})).ok(200);
    validated.is(json!({"valid": false}));
    is_refused(server, "a role that isn't held", forged.token());
    // Nor one that is held by now, and was not when the token was issued.
    server.give_role(user.id(), "editor");
    is_refused(
        server,
        "a role that is held",
        &forge.sign(&with(&user.claims(), json!({"roles": ["editor", "reader"]}))),
    );
    is_refused(server, "a role less", &forge.sign(&with(&user.claims(), json!({"roles": []}))));
    is_good(&user);
}

#[test]
fn what_was_got_during_an_overlap_ends_with_it() {
    let server = &*SERVER;
    let robot = server.system("overlapping");
    let exchange = |client: &Client, audience: &str| {
        let answer = client.post("/v1/auth/token").json(json!({"audience": audience})).ok(200);
        client.with_token(answer.text("token"))
    };
    let issuer = robot.claims()["iss"].as_str().unwrap().to_owned();
    let early = exchange(&exchange(&robot, &issuer), "files");
    let overlap = json!({"account_id": robot.id(), "overlap": 3600});
    let next = server.admin().post("/v1/token/issue").json(overlap).ok(201);
    let next = robot.with_token(next.text("token"));
    // The end that the former one has now is what it says, and what is got with it says so, too.
    let end = robot.get("/v1/auth/me").ok(200).text("expires_at").to_owned();
    assert!(end < support::rfc3339(now() + 3601) && end > support::rfc3339(now() + 3500), "{end}");
    let answer = robot.post("/v1/auth/token").json(json!({"audience": "files"})).ok(200);
    assert_eq!(answer.text("expires_at"), end);
    assert!(robot.with_token(answer.text("token")).claims()["exp"].as_i64() < Some(now() + 3601));
    let rows = robot.get(&format!("/v1/accounts/{}/tokens", robot.id())).ok(200).json().clone();
    let jti = robot.claims()["jti"].clone();
    let row = rows.as_array().unwrap().iter().find(|row| row["jti"] == jti).unwrap();
    assert_eq!(row["expires_at"], end.as_str());
    // Of the former token, while it lives on: what is got with it, and what is got with that.
    let child = exchange(&robot, &issuer);
    let grandchild = exchange(&child, "files");
    assert!(next.is_good() && early.is_good() && grandchild.is_good());
    // And the hour is over.
    let over = "UPDATE token_revocation SET dies_at = ?2 WHERE dies_at IS NOT NULL AND account_id =
        (SELECT id FROM accounts WHERE uuid = ?1)";
    assert!(server.sql(over, (robot.id(), now())) > 0);
    is_refused(server, "the former token", robot.token());
    for (what, token) in [("early", &early), ("child", &child), ("grandchild", &grandchild)] {
        is_refused(server, what, token.token());
    }
    assert!(next.is_good());
}

#[test]
fn when_and_how_somebody_logged_in_can_not_be_written_anew() {
    // With it a stolen key would turn one short session into one without an end, and a password into a one-time code.
    let server = &*SERVER;
    let user = server.human("history");
    is_good(&user);
    let forge = Forge::of(server);
    let claims = user.claims();
    let later = claims["auth_time"].as_i64().unwrap() + 60;
    is_refused(server, "a later auth_time", &forge.sign(&with(&claims, json!({"auth_time": later}))));
    is_refused(server, "a better amr", &forge.sign(&with(&claims, json!({"amr": ["pwd", "otp"]}))));
}

#[test]
fn a_role_that_wants_a_code_can_not_be_written_in() {
    let server = Server::with(|c| c.set("totp", "required_for", "[\"admin\"]"));
    let admin = server.admin();
    is_good(&admin);
    admin.get("/v1/accounts").expect(403, "forbidden");
    let forged = Forge::of(&server).sign(&with(&admin.claims(), json!({"roles": ["admin"], "amr": ["pwd", "otp"]})));
    let answer = admin.with_token(&forged).get("/v1/accounts").send();
    assert!(matches!(answer.status, 401 | 403), "held, but not granted by this login\n{}", answer.story());
}

#[test]
fn what_was_revoked_by_another_process_is_dead_at_once() {
    let server = &*SERVER;
    let (user, other) = (server.human("revoked"), server.human("not-revoked"));
    let child = user.post("/v1/auth/token").json(json!({"audience": "files"})).ok(200);
    let child = user.with_token(child.text("token"));
    // Both were checked before: nothing that the server remembers may outlive the row.
    is_good(&user);
    is_good(&other);
    assert!(child.is_good());
    let revoke = "UPDATE token_revocation SET revoked_at = ?2, revoke_reason = 'revoked' WHERE jti = ?1";
    assert_eq!(server.sql(revoke, (user.jti(), now())), 1);
    is_refused(server, "revoked", user.token());
    is_refused(server, "its parent was revoked", child.token());
    user.post("/v1/auth/renew").expect(401, "unauthorized");
    user.post("/v1/auth/logout").expect(401, "unauthorized");
    is_good(&other);

    // A row that is gone, as after its pruning, is no better than one that says no.
    is_good(&other);
    assert_eq!(server.sql("DELETE FROM token_revocation WHERE jti = ?1", [other.jti()]), 1);
    is_refused(server, "its row is gone", other.token());
}

#[test]
fn the_token_of_an_account_that_is_not_active_is_refused() {
    let server = &*SERVER;
    let user = server.human("status");
    is_good(&user);
    server.sql("UPDATE accounts SET status = 'suspended' WHERE uuid = ?1", [user.id()]);
    is_refused(server, "suspended", user.token());
    user.post("/v1/auth/logout").expect(401, "unauthorized");
    server.sql("UPDATE accounts SET status = 'active' WHERE uuid = ?1", [user.id()]);
    is_good(&user);
    server.sql("UPDATE accounts SET status = 'deleted', deleted_at = 1 WHERE uuid = ?1", [user.id()]);
    is_refused(server, "deleted", user.token());
}

#[test]
fn the_token_of_a_key_that_no_longer_verifies_is_refused() {
    let server = Server::start();
    let user = server.human("key");
    is_good(&user);
    let kid = Forge::of(&server).kid;
    server.sql("UPDATE signing_keys SET revoked_at = ?2 WHERE kid = ?1", (&kid, now()));
    is_refused(&server, "its key was revoked", user.token());
    server.sql("UPDATE signing_keys SET revoked_at = NULL, verify_until = ?2 WHERE kid = ?1", (&kid, now() - 1));
    is_refused(&server, "its key no longer verifies", user.token());
    server.sql("UPDATE signing_keys SET verify_until = ?2 WHERE kid = ?1", (&kid, now() + 3600));
    is_good(&user);
}

#[test]
fn a_revoked_key_takes_along_what_was_got_with_its_tokens_under_other_keys() {
    let server = Server::start();
    let keys = |args: &[&str]| {
        let output = server.run(&[&["db", "--config", "mcias.conf", "keys"], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let user = server.human("generations");
    let issuer = user.claims()["iss"].clone();
    let exchange = |client: &Client| {
        let answer = client.post("/v1/auth/token").json(json!({"audience": issuer})).ok(200);
        client.with_token(answer.text("token"))
    };
    let first_key = Forge::of(&server).kid;
    keys(&["rotate", "--now"]);
    let child = exchange(&user);
    let grandchild = exchange(&child);
    let renewed = grandchild.with_token(grandchild.post("/v1/auth/renew").ok(200).text("token"));
    let by_itself = user.again();
    for good in [&user, &child, &renewed, &by_itself] {
        is_good(good);
    }
    // The key alone, before the rows are marked: in no moment is any of them good.
    server.sql("UPDATE signing_keys SET revoked_at = ?2 WHERE kid = ?1", (&first_key, now()));
    for (what, bad) in [("the token", &user), ("child", &child), ("grandchild", &renewed)] {
        is_refused(&server, what, bad.token());
    }
    is_good(&by_itself);
    server.sql("UPDATE signing_keys SET revoked_at = NULL WHERE kid = ?1", [&first_key]);
    is_good(&renewed);

    // The admin's session of this server, the user's, and what was got with the latter.
    assert_eq!(keys(&["revoke", "--yes", "--kid", &first_key]).trim(), "4");
    for (what, bad) in [("the token", &user), ("child", &child), ("grandchild", &renewed)] {
        is_refused(&server, what, bad.token());
    }
    is_good(&by_itself);
    let live = "SELECT count(*) FROM token_revocation WHERE revoked_at IS NULL";
    assert_eq!(server.query_one::<i64>(live, []), 1, "every row says so");
}

#[test]
fn a_token_is_bound_to_each_part_of_its_row() {
    let server = &*SERVER;
    let (user, other) = (server.human("row"), server.human("another-row"));
    is_good(&user);
    let row = "UPDATE token_revocation SET";
    let whole = server.rows(
        "SELECT account_id, audience, issued_at, expires_at FROM token_revocation WHERE jti = ?1",
        [user.jti()],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?)),
    );
    let (account, audience, issued, expires) = whole[0].clone();
    let jti = user.jti();
    let someone = server.query_one::<i64>("SELECT id FROM accounts WHERE uuid = ?1", [other.id()]);
    for (what, column, altered, right) in [
        ("account", "account_id", someone, account),
        ("issue time", "issued_at", issued - 1, issued),
        ("expiry", "expires_at", expires + 1, expires),
    ] {
        server.sql(&format!("{row} {column} = ?2 WHERE jti = ?1"), (&jti, altered));
        is_refused(server, what, user.token());
        server.sql(&format!("{row} {column} = ?2 WHERE jti = ?1"), (&jti, right));
        is_good(&user);
    }
    server.sql(&format!("{row} audience = 'files' WHERE jti = ?1"), [&jti]);
    is_refused(server, "audience", user.token());
    server.sql(&format!("{row} audience = ?2 WHERE jti = ?1"), (&jti, &audience));
    is_good(&user);
    server.sql(&format!("{row} kid = (SELECT kid FROM signing_keys WHERE purpose = 'audit') WHERE jti = ?1"), [&jti]);
    is_refused(server, "key", user.token());
}

#[test]
fn a_token_from_the_future_or_the_past_is_refused() {
    let server = &*SERVER;
    let user = server.human("times");
    is_good(&user);
    let forge = Forge::of(server);
    // Row and token agree: only the times themselves can be wrong.
    let at = |iat: i64, exp: i64| {
        let token = forge.sign(&with(&user.claims(), json!({"iat": iat, "exp": exp})));
        let sql = "UPDATE token_revocation SET issued_at = ?2, expires_at = ?3, digest = ?4 WHERE jti = ?1";
        assert_eq!(server.sql(sql, (user.jti(), iat, exp, forge.digest(&token))), 1);
        user.with_token(&token)
    };
    let now = now();
    is_good(&at(now + 30, now + 3600));
    is_refused(server, "issued two minutes ahead", at(now + 150, now + 3600).token());
    is_refused(server, "ended a second ago", at(now - 3600, now - 1).token());
    is_refused(server, "ended right now", at(now - 3600, now).token());
    is_refused(server, "ended long ago", at(0, 1).token());
    is_good(&at(now - 3600, now + 3600));
}

#[test]
fn a_token_for_another_audience_opens_nothing_here() {
    let server = &*SERVER;
    let user = server.human("audience");
    is_good(&user);
    let issuer = user.claims()["aud"].as_str().unwrap().to_owned();
    let answer = user.post("/v1/auth/token").json(json!({"audience": "files"})).ok(200);
    let files = user.with_token(answer.text("token"));
    let ask = |client: &Client, audience: &str| {
        let body = json!({"token": client.token(), "audience": audience});
        let answer = client.without_token().post("/v1/token/validate").json(body).ok(200);
        let good = answer["valid"] == true;
        assert!(good || *answer.json() == json!({"valid": false}), "{}", answer.story());
        let header = client.post("/v1/token/validate").json(json!({"audience": audience})).send().status;
        let guard = client.get("/v1/token/validate").path(&format!("/v1/token/validate?audience={audience}")).send();
        assert_eq!((header, guard.status), if good { (200, 200) } else { (401, 401) }, "{}", guard.story());
        good
    };
    assert!(ask(&files, "files") && files.is_good() && ask(&user, &issuer));
    for wrong in ["file", "files2", "FILES", "files/", &issuer] {
        assert!(!ask(&files, wrong), "{wrong}");
    }
    assert!(!ask(&user, "files"));
    for (method, path) in [("GET", "/v1/auth/me"), ("POST", "/v1/auth/renew"), ("GET", "/v1/accounts")] {
        files.request(method, path).expect(401, "unauthorized");
    }
    files.post("/v1/auth/token").json(json!({"audience": issuer})).expect(401, "unauthorized");
    files.post("/v1/auth/logout").ok(204);
    assert!(!files.is_good() && user.is_good());
}

#[test]
fn the_token_in_the_body_is_the_one_that_is_asked_about() {
    let server = &*SERVER;
    let (user, other) = (server.human("in-body"), server.human("in-header"));
    let ask = |client: &Client, token: &str| client.post("/v1/token/validate").json(json!({"token": token})).ok(200);
    assert_eq!(ask(&other, user.token())["username"], "in-body");
    let bad = ask(&other, "nonsense");
    bad.is(json!({"valid": false}));
    assert_eq!(ask(&other.with_token("nonsense"), user.token())["username"], "in-body");
    server.client().post("/v1/token/validate").expect(401, "unauthorized");
    server.client().post("/v1/token/validate").json(json!({})).expect(401, "unauthorized");
    server.client().get("/v1/token/validate").expect(401, "unauthorized");
    assert_eq!(claims_of(user.token())["sub"], user.id());
}
