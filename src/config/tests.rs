//! What the configuration takes and refuses, key by key, and where it says so.

use super::*;

const REFERENCE: &str = include_str!("../../tests/vectors/config/reference.toml");

/// What no configuration can do without.
const LEAST: &str = r#"[server]
listen_addr = "0.0.0.0:8443"
tls_cert = "/etc/mcias/server.crt"
tls_key = "/etc/mcias/server.key"
[database]
path = "/var/lib/mcias/mcias.db"
[tokens]
issuer = "https://auth.example.com"
[master_key]
passphrase_env = "MCIAS_MASTER_PASSPHRASE"
"#;

/// Every key: a value it takes that isn't its default, one of the wrong type, and ones it doesn't take.
const KEYS: &[(&str, &str, &str, &str, &[&str])] = &[
    (
        "server",
        "listen_addr",
        r#""[::1]:0""#,
        "8443",
        &[
            r#""""#,
            r#"":8443""#,
            r#""localhost:8443""#,
            r#""0.0.0.0""#,
            r#""0.0.0.0:65536""#,
            r#""0.0.0.0:-1""#,
            r#""::1:8443""#,
            r#"" 0.0.0.0:8443""#,
        ],
    ),
    ("server", "grpc_addr", r#""0.0.0.0:9443""#, "true", &[r#""""#, r#"":9443""#, r#""0.0.0.0:8443""#]),
    ("server", "tls_cert", r#""c.pem""#, "[]", &[r#""""#, r#""/etc/""#, r#""..""#, r#""a\u0000b""#]),
    ("server", "tls_key", r#""k.pem""#, "{}", &[r#""""#, r#"".""#]),
    ("server", "min_tls", r#""1.3""#, "1.2", &[r#""""#, r#""1.1""#, r#""TLS1.2""#, r#""1.2 ""#]),
    ("server", "drain", r#""24h""#, "30", &[r#""""#, r#""0s""#, r#""24h1s""#, r#""30""#]),
    (
        "server",
        "trusted_proxies",
        r#"["10.0.0.0/8", "fd00::/8", "192.0.2.1"]"#,
        r#""10.0.0.0/8""#,
        &[r#"["10.0.0.1/8"]"#, r#"["0.0.0.0/0"]"#, r#"["::/0"]"#, r#"["::ffff:0:0/96"]"#, r#"[""]"#, "[10]", "[[]]"],
    ),
    ("server", "max_connections", "1", r#""4096""#, &["0", "-1", "1_000_001", "4294967297", "99999999999999999999999"]),
    ("server", "max_connections_per_client", "4096", "256.0", &["0", "-1", "4097", "1_000_001"]),
    ("database", "path", r#""db/mcias.db""#, "1", &[r#""""#, r#""/var/lib/mcias/""#]),
    (
        "tokens",
        "issuer",
        r#""https://auth.example.org:8443/a""#,
        "false",
        &[
            r#""""#,
            r#""auth.example.com""#,
            r#""http://auth.example.com""#,
            r#""HTTPS://auth.example.com""#,
            r#""https://""#,
            r#""https:///path""#,
        ],
    ),
    ("tokens", "default_expiry", r#""1s""#, "86400", &[r#""""#, r#""0h""#, r#""-1h""#, r#""36500d1s""#]),
    ("tokens", "admin_expiry", r#""90m""#, "3600.0", &[r#""0s""#, r#""1.5h""#]),
    ("tokens", "service_expiry", r#""36500d""#, "1979-05-27", &[r#""0d""#, r#""1y""#]),
    ("tokens", "max_session", r#""1d12h""#, "[]", &[r#""0s""#, r#""forever""#]),
    ("passwords", "min_length", "8", r#""15""#, &["7", "129", "0", "-15"]),
    ("passwords", "blocklist_file", r#""words""#, "[]", &[r#""""#, r#""words/""#]),
    (
        "totp",
        "required_for",
        r#"["admin", "ops:db"]"#,
        r#""admin""#,
        &[r#"["Admin"]"#, r#"[""]"#, r#"["a b"]"#, "[1]", r#"["admin", true]"#],
    ),
    ("argon2", "time", "64", "3.0", &["1", "65", "0"]),
    ("argon2", "memory", "0x400000", r#""64 MiB""#, &["65535", "4194305", "0"]),
    ("argon2", "threads", "16", "true", &["0", "17"]),
    ("argon2", "slots", "256", r#""auto""#, &["-1", "257"]),
    ("argon2", "queue", "65_536", "[64]", &["0", "65537"]),
    (
        "rate_limit",
        "rps",
        "0.5",
        r#""10""#,
        &["0", "0.0", "-0.0", "-1", "-0.5", "inf", "nan", "0.0009", "1000001", "1e300", "99999999999999999999"],
    ),
    ("rate_limit", "burst", "1", "10.0", &["0", "-1", "1000001"]),
    ("rate_limit", "validate_rps", "0", r#""none""#, &["-1", "inf", "nan", "0.0001", "1e7"]),
    ("rate_limit", "validate_burst", "1000000", "4e3", &["0", "-1", "1000001"]),
    ("rate_limit", "validate_exempt", r#"["0.0.0.0/0"]"#, "{}", &[r#"["10.0.0.1/8"]"#, r#"["app"]"#]),
    ("rate_limit", "api_rps", "1_000_000", "[200]", &["-200", "1000000.5"]),
    ("rate_limit", "api_burst", "7", "false", &["0", "1000001"]),
    (
        "master_key",
        "passphrase_env",
        r#""_M1""#,
        "1",
        &[r#""""#, r#""1M""#, r#""A=B""#, r#""A-B""#, r#""A B""#, r#""\u0000""#, r#""É""#],
    ),
    ("master_key", "passphrase_file", r#""pass""#, "true", &[r#""""#, r#""/run/""#]),
    ("master_key", "keyfile", r#""master.key""#, "[1]", &[r#""""#, r#""/""#]),
    ("log", "format", r#""json""#, "1", &[r#""""#, r#""JSON""#, r#""logfmt""#]),
    ("log", "level", r#""trace""#, "true", &[r#""""#, r#""warning""#, r#""INFO""#]),
];

fn read(text: &str) -> Result<Config, String> {
    parse(text, Path::new("/etc/mcias/mcias.conf")).map_err(|e| e.to_string())
}

fn refusal(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("was taken:\n{text}"),
        Err(message) => message,
    }
}

/// [`LEAST`] with the table's key set to the value, and the line on which it is.
fn with(table: &str, key: &str, value: &str) -> (String, usize) {
    let stands = |line: &&str| line.split(" =").next() != Some(key);
    let replaces_source =
        table == "master_key" && key != "passphrase_env" && SCHEMA.iter().any(|(_, keys)| keys.contains(&key));
    let mut lines: Vec<_> =
        LEAST.lines().filter(stands).filter(|line| !(replaces_source && line.starts_with("passphrase_env"))).collect();
    let entry = format!("{key} = {value}");
    let header = format!("[{table}]");
    let at = match lines.iter().position(|line| *line == header) {
        Some(at) => at + 1,
        None => {
            lines.push(&header);
            lines.len()
        }
    };
    lines.insert(at, &entry);
    (lines.join("\n"), at + 1)
}

#[test]
fn the_reference_says_every_default() {
    let reference = read(REFERENCE).unwrap();
    let least = LEAST.replace("[database]", "grpc_addr = \"0.0.0.0:9443\"\n[database]");
    assert_eq!(reference, read(&least).unwrap());
    assert_eq!(read(LEAST).unwrap().server.grpc_addr, None);
}

#[test]
fn the_reference_in_numbers() {
    let config = read(REFERENCE).unwrap();
    let hours = |n: u64| Duration::from_secs(n * 3600);
    assert_eq!(config.file, Path::new("/etc/mcias/mcias.conf"));
    assert_eq!(config.server.listen_addr.to_string(), "0.0.0.0:8443");
    assert_eq!(config.server.min_tls, MinTls::V1_2);
    assert_eq!(config.server.drain, Duration::from_secs(30));
    assert_eq!((config.server.max_connections, config.server.max_connections_per_client), (4096, 256));
    assert_eq!(config.tokens.issuer_host(), "auth.example.com");
    assert_eq!((config.tokens.default_expiry, config.tokens.admin_expiry), (hours(24), hours(8)));
    assert_eq!((config.tokens.service_expiry, config.tokens.max_session), (hours(8760), hours(720)));
    assert_eq!(config.passwords, Passwords { min_length: 15, blocklist_file: None });
    assert_eq!(config.argon2, Argon2 { time: 3, memory_kib: 65_536, threads: 4, slots: 0, queue: 64 });
    assert_eq!((config.rate_limit.rps, config.rate_limit.burst), (10.0, 10));
    assert_eq!((config.rate_limit.validate_rps, config.rate_limit.validate_burst), (2000.0, 4000));
    assert_eq!((config.rate_limit.api_rps, config.rate_limit.api_burst), (200.0, 400));
    assert_eq!(config.master_key, MasterKeySource::PassphraseEnv("MCIAS_MASTER_PASSPHRASE".into()));
    assert_eq!(config.log, Log { format: LogFormat::Text, level: LogLevel::Info });
}

#[test]
fn the_tests_table_is_the_schema() {
    let tested: Vec<_> = KEYS.iter().map(|(table, key, ..)| (*table, *key)).collect();
    let schema: Vec<_> = SCHEMA.iter().flat_map(|(table, keys)| keys.iter().map(|key| (*table, *key))).collect();
    assert_eq!(tested, schema);
    for key in schema.iter().map(|(_, key)| key) {
        assert!(REFERENCE.contains(&format!("{key} ")), "{key} is not in the reference");
    }
}

#[test]
fn every_key_is_read() {
    let least = read(LEAST).unwrap();
    for (table, key, value, ..) in KEYS {
        let config = read(&with(table, key, value).0).unwrap_or_else(|e| panic!("{e}"));
        assert_ne!(config, least, "[{table}] {key} = {value} changes nothing");
    }
}

#[test]
fn every_key_refuses_the_wrong_type_and_the_impossible_and_says_where() {
    for (table, key, _, wrong, impossible) in KEYS {
        for value in std::iter::once(wrong).chain(*impossible) {
            let (text, line) = with(table, key, value);
            let message = refusal(&text);
            let place = format!("/etc/mcias/mcias.conf:{line}: [{table}] {key}: ");
            assert!(message.starts_with(&place), "{value}: {message}\n{text}");
            assert!(!message.contains('\n'), "{message}");
        }
        // A table in place of the value is the wrong type as well, whatever the type.
        let message = refusal(&with(table, key, "{ sub = 1 }").0);
        assert!(message.contains(&format!("[{table}] {key}: must be ")), "{message}");
    }
}

#[test]
fn every_table_refuses_unknown_keys_and_keys_set_twice() {
    for (table, key, value, ..) in KEYS {
        for unknown in [format!("{key}x"), key.to_uppercase(), format!("\"{key} \"")] {
            let (text, line) = with(table, &unknown, value);
            let message = refusal(&text);
            let place = format!("/etc/mcias/mcias.conf:{line}: [{table}] {unknown}: unknown key; [{table}] has ");
            assert!(message.starts_with(&place), "{message}\n{text}");
        }
        let (text, line) = with(table, key, &format!("{value}\n{key} = {value}"));
        let message = refusal(&text);
        let place = format!("/etc/mcias/mcias.conf:{}: [{table}] {key}: ", line + 1);
        assert!(message.starts_with(&place) && message.contains("duplicate key"), "{message}\n{text}");
    }
}

#[test]
fn required_keys_are_missed_at_their_table() {
    for (table, key) in [
        ("server", "listen_addr"),
        ("server", "tls_cert"),
        ("server", "tls_key"),
        ("database", "path"),
        ("tokens", "issuer"),
    ] {
        let text: String =
            LEAST.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        let header = text.lines().position(|line| line == format!("[{table}]")).unwrap() + 1;
        assert_eq!(refusal(&text), format!("/etc/mcias/mcias.conf:{header}: [{table}] {key}: is required"));
    }
    assert_eq!(refusal(""), "/etc/mcias/mcias.conf:1: [server] listen_addr: is required");
    assert_eq!(refusal("\n\n[log]\n"), "/etc/mcias/mcias.conf:3: [server] listen_addr: is required");
}

#[test]
fn the_master_key_has_exactly_one_source() {
    let none = LEAST.replace("passphrase_env = \"MCIAS_MASTER_PASSPHRASE\"\n", "");
    let choice = "must have exactly one of passphrase_env, passphrase_file and keyfile";
    assert_eq!(refusal(&none), format!("/etc/mcias/mcias.conf:9: [master_key]: {choice}"));
    let no_table = none.replace("[master_key]\n", "");
    assert_eq!(refusal(&no_table), format!("/etc/mcias/mcias.conf:8: [master_key]: {choice}"));
    let two = format!("{LEAST}\nkeyfile = \"k\"\n");
    let complaint = "passphrase_env is there too; [master_key]";
    assert_eq!(refusal(&two), format!("/etc/mcias/mcias.conf:12: [master_key] keyfile: {complaint} {choice}"));
    assert!(read(&none.replace("[master_key]", "[master_key]\npassphrase_file = \"p\"\nkeyfile = \"k\"")).is_err());
}

#[test]
fn a_passphrase_in_the_wrong_place_is_not_repeated() {
    for line in [
        "passphrase_env = \"correct horse battery staple\"",
        "passphrase_env = correct horse battery staple",
        "passphrase = \"correct horse battery staple\"",
        "passphrase_env = \"correct horse battery staple",
        "passphrase_file = \"correct horse battery staple/\"",
    ] {
        let message = refusal(&LEAST.replace("passphrase_env = \"MCIAS_MASTER_PASSPHRASE\"", line));
        assert!(message.starts_with("/etc/mcias/mcias.conf:10: [master_key] passphrase"), "{message}");
        assert!(!message.contains("horse"), "{message}");
    }
}

#[test]
fn tables_are_the_known_ones_and_tables() {
    for (text, start) in [
        ("[servers]\n", "1: [servers]: unknown table"),
        ("\n[server.extra]\n", "2: [server] extra: unknown key"),
        ("[Server]\n", "1: [Server]: unknown table"),
        ("[[server]]\n", "1: [server]: must be a table, not an array"),
        ("\nserver = 1\n", "2: [server]: must be a table, not an integer"),
        ("listen_addr = \"0.0.0.0:1\"\n", "1: listen_addr: unknown key outside any table"),
        ("\"a\\nb\" = 1\n", "1: \"a\\nb\": unknown key outside any table"),
        ("[\"a\\nb\"]\n", "1: [\"a\\nb\"]: unknown table"),
        ("[log]\n[log]\n", "2: [log]: not valid TOML: duplicate key"),
        ("[log]\nlevel = \"info\"\n[log.level]\n", "3: [log.level]: not valid TOML: duplicate key"),
    ] {
        let message = refusal(text);
        assert!(message.starts_with(&format!("/etc/mcias/mcias.conf:{start}")), "{text:?}: {message}");
    }
}

#[test]
fn any_way_to_write_the_same_toml_will_do() {
    let written = r#"
database.path = "/var/lib/mcias/mcias.db"
"tokens"."issuer" = "https://auth.example.com"
master_key = { passphrase_env = 'MCIAS_MASTER_PASSPHRASE' }
[server]
listen_addr = """0.0.0.0:8443"""
tls_cert = "/etc/mcias/server.crt"
"tls_key" = "/etc/mcias/server\u002ekey"
"#;
    assert_eq!(read(written), read(LEAST));
    assert_eq!(read(&written.replace('\n', "\r\n")), read(LEAST));
    assert_eq!(read(&format!("\u{feff}{LEAST}")), read(LEAST));
    let message = refusal(&written.replace("{ p", "{ drain = 1, p"));
    assert!(message.starts_with("/etc/mcias/mcias.conf:4: [master_key] drain: unknown key"), "{message}");
}

#[test]
fn broken_toml_names_its_place() {
    for (text, start) in [
        ("[server]\ndrain = 30s\n", "2: [server] drain: not valid TOML: "),
        ("[server]\ndrain \"30s\"\n", "2: [server] drain: not valid TOML: "),
        ("[server]\ndrain =\n", "2: [server] drain: not valid TOML: "),
        ("[server]\ndrain = \"30s\n[log]\n", "2: [server] drain: not valid TOML: "),
        ("[server\ndrain = \"30s\"\n", "1: [server]: not valid TOML: "),
        ("[log]\n[server]\n= 1\n", "3: [server]: not valid TOML: "),
        ("[totp]\nrequired_for = [\"a\",\n\"b\" \"c\"]\n", "3: [totp] required_for: not valid TOML: "),
        ("[server]\r\n\r\ndrain = \"\u{7}\"\r\n", "3: [server] drain: not valid TOML: "),
        ("\0", "1: not valid TOML: "),
        ("{", "1: not valid TOML: "),
    ] {
        let message = refusal(text);
        assert!(message.starts_with(&format!("/etc/mcias/mcias.conf:{start}")), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    // Deep nesting is an error, not a stack that runs out.
    assert!(refusal(&format!("a = {}", "[".repeat(100_000))).contains(":1: a: not valid TOML"));
}

#[test]
fn a_list_is_wrong_on_its_elements_line() {
    let (text, line) = with("server", "trusted_proxies", "[\n  \"10.0.0.0/8\",\n  # that one:\n  \"10.0.0.1/8\",\n]");
    let complaint = "\"10.0.0.1/8\" has host bits set; the network is 10.0.0.0/8";
    assert_eq!(refusal(&text), format!("/etc/mcias/mcias.conf:{}: [server] trusted_proxies: {complaint}", line + 3));
}

#[test]
fn both_doors_cannot_have_one_address() {
    for (rest, grpc, clashes) in [
        ("127.0.0.1:443", "127.0.0.1:443", true),
        ("0.0.0.0:443", "127.0.0.1:443", true),
        ("127.0.0.1:443", "0.0.0.0:443", true),
        ("[::]:443", "[::1]:443", true),
        ("127.0.0.1:443", "127.0.0.2:443", false),
        ("127.0.0.1:443", "127.0.0.1:444", false),
        ("127.0.0.1:443", "[::1]:443", false),
        ("0.0.0.0:0", "0.0.0.0:0", false),
    ] {
        let text = LEAST.replace("0.0.0.0:8443\"", &format!("{rest}\"\ngrpc_addr = \"{grpc}\""));
        match read(&text) {
            Ok(_) => assert!(!clashes, "{rest} {grpc}"),
            Err(message) => {
                let place = "/etc/mcias/mcias.conf:3: [server] grpc_addr: can't be";
                assert!(clashes && message.starts_with(place), "{rest} {grpc}: {message}");
            }
        }
    }
}

#[test]
fn keys_that_lean_on_others() {
    // Few connections in all need no word about the share of one client.
    let few = read(&with("server", "max_connections", "100").0).unwrap();
    assert_eq!(few.server.max_connections_per_client, 100);
    // Where there is no limit, a burst of nothing is no contradiction.
    let unlimited = "validate_rps = 0\nvalidate_burst = 0\napi_rps = 0.0\napi_burst = 0";
    let config = read(&format!("{LEAST}[rate_limit]\n{unlimited}\n")).unwrap();
    assert_eq!((config.rate_limit.validate_rps, config.rate_limit.api_burst), (0.0, 0));
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let text = LEAST
        .replace("/etc/mcias/server.crt", "tls/server.crt")
        .replace("/var/lib/mcias/mcias.db", ":memory:")
        .replace("passphrase_env = \"MCIAS_MASTER_PASSPHRASE\"", "keyfile = \"../master.key\"")
        + "[passwords]\nblocklist_file = \"words\"\n";
    for (file, folder) in [("/etc/mcias/mcias.conf", "/etc/mcias"), ("a/mcias.conf", "a"), ("mcias.conf", ".")] {
        let config = parse(&text, Path::new(file)).unwrap();
        let folder = Path::new(folder);
        assert_eq!(config.file, Path::new(file));
        assert_eq!(config.server.tls_cert, folder.join("tls/server.crt"));
        assert_eq!(config.server.tls_key, Path::new("/etc/mcias/server.key"));
        assert_eq!(config.database.path.as_os_str(), folder.join(":memory:").as_os_str());
        assert_eq!(config.passwords.blocklist_file, Some(folder.join("words")));
        assert_eq!(config.master_key, MasterKeySource::KeyFile(folder.join("../master.key")));
    }
}

#[test]
fn load_reads_the_file_or_says_why_not() {
    let folder = std::env::temp_dir().join(format!("mcias-config-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("mcias.conf");
    let load_bytes = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        load(&file).map_err(|e| e.to_string())
    };
    let text = LEAST.replace("/etc/mcias/server.crt", "server.crt");
    let read = load_bytes(text.as_bytes()).unwrap();
    assert_eq!(read.server.tls_cert, folder.join("server.crt"));

    let shown = file.display();
    let message = load_bytes(b"[server]\ndrain = \"3\xff0s\"\n").unwrap_err();
    assert_eq!(message, format!("{shown}:2: [server] drain: not valid TOML: not UTF-8"));
    let message = load_bytes(&vec![b'\n'; MAX_FILE as usize + 1]).unwrap_err();
    assert_eq!(message, format!("{shown}: the config file is over 1 MiB"));
    std::fs::remove_file(&file).unwrap();
    let message = load(&file).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{shown}: the config file can't be read: No such file")), "{message}");
    assert!(load(&folder).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn durations() {
    for (text, seconds) in [
        ("1s", 1),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("720h", 2_592_000),
        ("30d", 2_592_000),
        ("1d2h3m4s", 93_784),
        ("1d1s", 86_401),
        ("0h30m", 1800),
        ("007s", 7),
        ("36500d", 3_153_600_000),
        ("3153600000s", 3_153_600_000),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for text in [
        "",
        "s",
        "1",
        "90",
        "1h30",
        "h1",
        "1x",
        "1S",
        "1 h",
        " 1h",
        "1h ",
        "+1h",
        "-1h",
        "1.5h",
        "1ms",
        "1w",
        "30m1h",
        "1h1h",
        "1s1m",
        "0s",
        "0d0h0m0s",
        "1hm",
        "１h",
        "1ｈ",
        "é",
        "36500d1s",
        "3153600001s",
        "18446744073709551615s",
        "18446744073709551616s",
        "999999999999999999999999999999d",
        "213503982334602d",
        "1d18446744073709551615s",
    ] {
        let message = parse_duration(text).unwrap_err();
        assert!(message.contains(text), "{text}: {message}");
    }
}

#[test]
fn issuers() {
    for (issuer, host) in [
        ("https://auth.example.com", "auth.example.com"),
        ("https://auth.example.com/", "auth.example.com"),
        ("https://auth.example.com:8443", "auth.example.com"),
        ("https://auth.example.com:65535/realms/a%20b/~x;y=1:@", "auth.example.com"),
        ("https://localhost", "localhost"),
        ("https://my_host", "my_host"),
        ("https://192.0.2.1:1", "192.0.2.1"),
        ("https://[2001:db8::1]", "2001:db8::1"),
        ("https://[::1]:8443/a", "::1"),
    ] {
        assert_eq!(check_issuer(issuer), Ok(()), "{issuer}");
        assert_eq!(value::issuer_host(issuer), host, "{issuer}");
    }
    let long = |length: usize| format!("https://a.example/{}", "x".repeat(length - 18));
    assert_eq!(check_issuer(&long(256)), Ok(()));
    for issuer in [
        long(257).as_str(),
        "",
        "https://",
        "https:///",
        "https://:8443",
        "http://localhost",
        "Https://a.example",
        "https:/a.example",
        " https://a.example",
        "https://a.example ",
        "https://a.example/a b",
        "https://a.example/\t",
        "https://a.example/\n",
        "https://a.example/\u{7f}",
        "https://ä.example",
        "https://a.example?q=1",
        "https://a.example/#f",
        "https://user@a.example",
        "https://user:pass@a.example",
        "https://a.example:",
        "https://a.example:0",
        "https://a.example:65536",
        "https://a.example:+1",
        "https://a.example:1:2",
        "https://a..example",
        "https://.example",
        "https://a.example.",
        "https://-a.example",
        "https://a-.example",
        "https://a%2eexample",
        "https://[::1",
        "https://::1",
        "https://[]",
        "https://[1.2.3.4]",
        "https://[::1]x",
        "https://x[::1]",
        "https://a.example/[]",
        "https://a.example\\b",
        "https://a.example/\"",
    ] {
        assert!(check_issuer(issuer).is_err(), "{issuer}");
    }
    let label = "a".repeat(63);
    assert_eq!(check_issuer(&format!("https://{label}.example")), Ok(()));
    assert!(check_issuer(&format!("https://a{label}.example")).is_err());
}
