//! Tests of password hashing: vectors of RFC 9106 and of the reference implementation, PHC strings, slots.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use argon2::{AssociatedData, ParamsBuilder};

use super::*;
use crate::crypto::vectors::{array, bytes, cases, number, text};
use crate::error::Kind;

const CHEAP: Params = Params { time: 1, memory_kib: 64, lanes: 4 };

fn password(text: &str) -> Password {
    Password::new(text.to_owned())
}

fn blocks_in_use(memory: &Memory) -> bool {
    memory.blocks.iter().any(|block| block.as_ref().iter().any(|word| *word != 0))
}

#[test]
fn rfc_9106() {
    for case in cases(include_str!("../../../tests/vectors/argon2id_rfc9106.json")) {
        let (secret, associated) = (bytes(&case, "secret"), bytes(&case, "associated_data"));
        let mut params = ParamsBuilder::new();
        params.m_cost(number(&case, "memory_kib")).t_cost(number(&case, "time")).p_cost(number(&case, "lanes"));
        params.data(AssociatedData::new(&associated).unwrap()).output_len(TAG_LEN);
        let argon2 =
            Argon2::new_with_secret(&secret, Algorithm::Argon2id, Version::V0x13, params.build().unwrap()).unwrap();
        // Memory that something else was in must make no difference.
        let mut memory = vec![Block::new(); 32];
        argon2.fill_memory(b"something", b"else entirely", &mut memory).unwrap();
        let mut tag = [0; TAG_LEN];
        argon2
            .hash_password_into_with_memory(&bytes(&case, "password"), &bytes(&case, "salt"), &mut tag, &mut memory)
            .unwrap();
        assert_eq!(tag, array(&case, "tag"), "{case}");
    }
}

#[test]
fn reference_implementation() {
    let mut memory = Memory::default();
    for case in cases(include_str!("../../../tests/vectors/argon2id_reference.json")) {
        let params = Params {
            time: number(&case, "time"),
            memory_kib: number(&case, "memory_kib"),
            lanes: number(&case, "lanes"),
        };
        let mut tag = [0; TAG_LEN];
        let (password, salt) = (text(&case, "password").as_bytes(), text(&case, "salt").as_bytes());
        compute(&mut memory, password, salt, params, &mut tag).unwrap();
        assert_eq!(tag, array(&case, "tag"), "{case}");
    }
}

#[test]
fn a_hash_verifies_with_its_password_only() {
    let memory = &mut Memory::default();
    let phc = hash(memory, &password("correct horse"), CHEAP, [7; 16]).unwrap();
    let as_text = str::from_utf8(&phc).unwrap();
    assert!(as_text.starts_with("$argon2id$v=19$m=64,t=1,p=4$BwcHBwcHBwcHBwcHBwcHBw$"), "{as_text}");
    assert_eq!(as_text.rsplit_once('$').unwrap().1.len(), 43);
    assert_eq!(params_of(&phc).unwrap(), CHEAP);

    let verdict = verify(memory, &password("correct horse"), &phc).unwrap();
    assert!(verdict.matches && verdict.params == CHEAP);
    for wrong in ["correct hors", "correct horse ", "Correct horse", "", "correct horse\0"] {
        assert!(!verify(memory, &password(wrong), &phc).unwrap().matches, "{wrong:?}");
    }
    assert_ne!(*hash(memory, &password("correct horse"), CHEAP, [8; 16]).unwrap(), *phc);
}

#[test]
fn the_longest_phc_string_fits_its_buffer() {
    let longest = format!("$argon2id$v=19$m=4194304,t=64,p=16${}${}", "A".repeat(22), "A".repeat(43));
    assert!(params_of(longest.as_bytes()).is_ok() && longest.len() <= PHC_CAPACITY);
}

#[test]
fn a_phc_string_that_is_not_ours_is_refused() {
    let salt = "BwcHBwcHBwcHBwcHBwcHBw";
    let tag = "A".repeat(43);
    let good = format!("$argon2id$v=19$m=64,t=1,p=4${salt}${tag}");
    assert!(params_of(good.as_bytes()).is_ok());
    let bad = [
        String::new(),
        good.replace("argon2id", "argon2i"),
        good.replace("argon2id", "argon2d"),
        good.replace("v=19", "v=16"),
        good.replace("v=19$", ""),
        good.replace("m=64,t=1,p=4", "t=1,m=64,p=4"),
        good.replace("m=64,t=1,p=4", "m=64,t=1"),
        good.replace("p=4", "p=4,keyid=AA"),
        good.replace("p=4", "p=4,data=AA"),
        good.replace("m=64", "m=31"),
        good.replace("m=64", "m=4194305"),
        good.replace("m=64", "m=4294967296"),
        good.replace("m=64", "m=064"),
        good.replace("m=64", "m=+64"),
        good.replace("m=64", "m=-64"),
        good.replace("m=64", "m= 64"),
        good.replace("m=64", "m="),
        good.replace("t=1", "t=0"),
        good.replace("t=1", "t=65"),
        good.replace("p=4", "p=0"),
        good.replace("m=64,t=1,p=4", "m=1024,t=1,p=17"),
        good.replace(salt, &format!("{salt}AA")),
        good.replace(salt, &salt[..20]),
        good.replace(salt, "BwcHBwcHBwcHBwcHBwcHBx"),
        good.replace(salt, &format!("{salt}==")),
        good.replace(&tag, &"A".repeat(42)),
        good.replace(&tag, &"A".repeat(44)),
        good.replace(&tag, &format!("{}B", "A".repeat(42))),
        good.replace(&tag, &format!("{}=", tag)),
        good.replace(&tag, &format!("{}_", "A".repeat(42))),
        format!("{good}$"),
        format!("{good}\n"),
        format!(" {good}"),
    ];
    for phc in bad {
        assert_ne!(phc, good);
        assert_eq!(params_of(phc.as_bytes()).unwrap_err().kind(), Kind::Internal, "{phc}");
        let error = verify(&mut Memory::default(), &password("x"), phc.as_bytes()).err().unwrap();
        assert!(!error.to_string().contains('$'), "an error never shows the hash");
    }
    assert!(params_of(&[0xff; 100]).is_err());
}

#[test]
fn parameters_out_of_range_are_refused() {
    let tried = |time, memory_kib, lanes| {
        hash(&mut Memory::default(), &password("x"), Params { time, memory_kib, lanes }, [0; 16]).map(|_| ())
    };
    assert!(tried(1, 8, 1).is_ok());
    for (time, memory_kib, lanes) in [(0, 8, 1), (65, 8, 1), (1, 7, 1), (1, 8, 2), (1, 4_194_305, 1), (1, 1024, 17)] {
        assert_eq!(tried(time, memory_kib, lanes).unwrap_err().kind(), Kind::Internal);
    }
}

#[test]
fn a_decoy_does_the_work_of_a_verification() {
    let memory = &mut Memory::default();
    decoy(memory, &password("x"), CHEAP).unwrap();
    assert_eq!(memory.dirty, 64);
    assert!(blocks_in_use(memory));
}

#[test]
fn slots_keep_their_memory_and_wipe_it() {
    let slots = Slots::new(1);
    let address = |slots: &Slots, params| {
        slots.run(|memory| {
            assert!(!blocks_in_use(memory), "wiped since");
            decoy(memory, &password("x"), params).unwrap();
            assert!(blocks_in_use(memory));
            memory.blocks.as_ptr().addr()
        })
    };
    let first = address(&slots, CHEAP);
    assert_eq!(address(&slots, CHEAP), first);
    assert_eq!(address(&slots, Params { memory_kib: 32, ..CHEAP }), first, "a smaller hash uses a part");
    address(&slots, Params { memory_kib: 128, ..CHEAP });
    slots.run(|memory| assert_eq!(memory.blocks.len(), 128, "grown to the largest"));
}

#[test]
fn no_more_hashes_run_at_once_than_there_are_slots() {
    let slots = Slots::new(2);
    let (running, most, runs) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    slots.run(|_| {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        runs.fetch_add(1, Ordering::SeqCst);
                    });
                }
            });
        }
    });
    assert_eq!((runs.into_inner(), slots.count()), (400, 2));
    assert!(most.into_inner() <= 2);
}

#[test]
fn a_slot_comes_back_from_a_panic_wiped() {
    let slots = Slots::new(1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        slots.run(|memory| {
            decoy(memory, &password("x"), CHEAP).unwrap();
            panic!("in the middle of a hash");
        })
    }));
    assert!(panicked.is_err());
    slots.run(|memory| assert!(!blocks_in_use(memory)));
    assert_eq!(Slots::new(0).count(), 1);
}

#[test]
fn kdf_parameters_are_read_as_they_were_written() {
    let kdf = Kdf { salt: [0xab; 16], params: Params { time: 3, memory_kib: 131_072, lanes: 4 } };
    let json = kdf.to_json();
    assert_eq!(json, r#"{"m":131072,"p":4,"salt":"abababababababababababababababab","t":3}"#);
    assert_eq!(Kdf::from_json(&json).unwrap(), kdf);
    let zeros = Kdf { salt: [0; 16], ..kdf };
    assert_eq!(Kdf::from_json(&zeros.to_json()).unwrap(), zeros);
    let bad = [
        String::new(),
        "null".into(),
        json.replace("131072", "131071"),
        json.replace("131072", "4194305"),
        json.replace("131072", "4295098368"),
        json.replace("131072", "131072.0"),
        json.replace("131072", "\"131072\""),
        json.replace("131072", "-131072"),
        json.replace("\"t\":3", "\"t\":2"),
        json.replace("\"t\":3", "\"t\":65"),
        json.replace("\"t\":3", "\"t\":3,\"t\":3"),
        json.replace("\"t\":3", "\"t\":3,\"v\":19"),
        json.replace("\"p\":4", "\"p\":0"),
        json.replace("\"p\":4", "\"p\":17"),
        json.replace("\"p\":4,", ""),
        json.replace("abab", "ABAB"),
        json.replace("abab", "ab"),
        json.replace("abab", "+bab"),
        json.replace("abab", "ababab"),
        format!("{json} "),
        json.replace(':', ": "),
    ];
    for text in bad {
        assert!(Kdf::from_json(&text).is_err(), "{text}");
    }
}

#[test]
fn the_master_key_is_argon2id_of_the_passphrase() {
    let kdf = Kdf { salt: [5; 16], params: Params { time: 3, memory_kib: 131_072, lanes: 1 } };
    let key = derive_master_key(&password("a long passphrase"), &kdf).unwrap();
    let mut memory = Memory::default();
    let phc = hash(&mut memory, &password("a long passphrase"), kdf.params, kdf.salt).unwrap();
    assert_eq!(key.expose(), &*Phc::parse(&phc).unwrap().tag);

    let weak = Kdf { params: Params { memory_kib: 65_536, ..kdf.params }, ..kdf };
    assert!(derive_master_key(&password("a long passphrase"), &weak).is_err());
}
