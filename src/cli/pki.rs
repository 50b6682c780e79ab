//! A local certification authority and the server certificates it issues (RFC 5280), all ECDSA P-256. Works on PEM
//! texts; which files they are in is for others to know.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{RootCertStore, crypto};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::model::time::Timestamp;
use crate::random;

const DAY: i64 = 24 * 60 * 60;

/// How long the authority lasts, in seconds.
pub const CA_LIFETIME: i64 = 3650 * DAY;
/// How long a server certificate lasts, in seconds.
pub const SERVER_LIFETIME: i64 = 730 * DAY;
/// How long before its making a certificate is valid already, in seconds: for clients whose clock is behind.
pub const BACKDATED: i64 = 5 * 60;

/// The longest common name (RFC 5280, appendix A.1: `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// A certificate and the private key that goes with it, both PEM.
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key, PKCS#8.
    pub key: Zeroizing<String>,
}

/// What a server is reached by: a DNS name, a wildcard, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Lower case; the first label may be `*`.
    Name(String),
    /// As clients connect to it.
    Address(IpAddr),
}

impl Host {
    /// Checks the form, and folds a name to lower case.
    ///
    /// # Errors
    /// `InvalidRequest` saying which rule is broken.
    pub fn parse(text: &str) -> Result<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            if address.is_unspecified() {
                return Err(Error::invalid("a host name must be one that clients connect to, not 0.0.0.0 or ::"));
            }
            return Ok(Self::Address(address));
        }
        let name = text.to_ascii_lowercase();
        let wildcard = name.starts_with("*.");
        let labels: Vec<&str> = name.strip_prefix("*.").unwrap_or(&name).split('.').collect();
        if name.len() > 253 || !labels.iter().all(|label| is_label(label)) {
            return Err(Error::invalid(
                "a host name must be a DNS name in ASCII or an IP address, without scheme, port or brackets",
            ));
        }
        if labels.last().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit())) {
            return Err(Error::invalid("a host name can't end in a number; an IPv4 address has four, up to 255"));
        }
        if wildcard && labels.len() < 2 {
            return Err(Error::invalid("a wildcard must stand before at least two labels, like *.example.com"));
        }
        Ok(Self::Name(name))
    }

    /// Whether it stands for any name of a domain.
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Name(name) if name.starts_with('*'))
    }

    /// A name that a client may ask for.
    fn server_name(&self) -> Result<ServerName<'static>> {
        match self {
            Self::Address(address) => Ok(ServerName::from(*address)),
            Self::Name(name) => ServerName::try_from(name.replace('*', "any"))
                .map_err(|_| Error::invalid("a host name that TLS clients don't take")),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// One label of a name (RFC 1035, 2.3.1; digits first as in RFC 1123, and the underscore that container names have).
fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

/// Makes a certification authority that may sign server certificates and nothing below itself.
///
/// # Errors
/// `Internal`.
pub fn make_ca(now: Timestamp) -> Result<Pair> {
    let key = new_key()?;
    let mut params = params(now, CA_LIFETIME)?;
    // The id tells two authorities of the same name apart in a browser's or a system's list.
    let id: String = random::bytes::<4>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("MCIAS local CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let cert = params.self_signed(&*key).map_err(|e| Error::internal(format!("making a CA: {e}")))?;
    Ok(Pair { cert: cert.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

/// Issues a server certificate with a fresh key, for `hosts` and, always, `localhost` and the loopback addresses. What
/// comes out has been verified as a client would, for every name.
///
/// # Errors
/// `InvalidRequest` where the authority's files can't be read, don't belong together, or it isn't valid `now`.
pub fn issue_server(ca_cert: &str, ca_key: &str, hosts: &[Host], now: Timestamp) -> Result<Pair> {
    let ca_key = KeyPair::from_pem(ca_key).map(Zeroizing::new);
    let ca_key = ca_key.map_err(|_| Error::invalid("the CA's key is no private key in PEM"))?;
    let ca_cert = CertificateDer::from_pem_slice(ca_cert.as_bytes()).map_err(|_| not_a_certificate())?;
    let ca_ends = ca_end(&ca_cert, now)?;
    let issuer = Issuer::from_ca_cert_der(&ca_cert, &*ca_key).map_err(|_| not_a_certificate())?;

    let hosts = with_loopback(hosts);
    // What outlives its authority is of no use.
    let mut params = params(now, SERVER_LIFETIME.min(ca_ends.seconds() - now.seconds()))?;
    // `localhost` is always among them, so there is one that fits.
    if let Some(name) = hosts.iter().map(Host::to_string).find(|name| name.len() <= MAX_COMMON_NAME) {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.subject_alt_names = hosts.iter().map(san).collect::<Result<_>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;

    let key = new_key()?;
    let cert =
        params.signed_by(&*key, &issuer).map_err(|e| Error::internal(format!("issuing a server certificate: {e}")))?;
    verify(&ca_cert, cert.der(), &hosts, now)?;
    Ok(Pair { cert: cert.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

/// The names and addresses that a server certificate is for (RFC 5280, 4.2.1.6).
///
/// # Errors
/// `InvalidRequest` for what is no certificate in PEM.
pub fn hosts_of(cert: &str) -> Result<Vec<Host>> {
    let unreadable = || Error::invalid("the server's certificate is no certificate in PEM");
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).map_err(|_| unreadable())?;
    let (_, cert) = parse_x509_certificate(&cert).map_err(|_| unreadable())?;
    let Some(names) = cert.subject_alternative_name().map_err(|_| unreadable())? else { return Ok(Vec::new()) };
    let hosts = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(Host::parse(name)),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| Ok(Host::Address(address))),
        _ => None,
    });
    hosts.collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The hosts, each once, and the ones that are always there.
fn with_loopback(hosts: &[Host]) -> Vec<Host> {
    let loopback = [
        Host::Name("localhost".into()),
        Host::Address(Ipv4Addr::LOCALHOST.into()),
        Host::Address(Ipv6Addr::LOCALHOST.into()),
    ];
    let mut all: Vec<Host> = Vec::with_capacity(hosts.len() + loopback.len());
    for host in hosts.iter().chain(&loopback) {
        if !all.contains(host) {
            all.push(host.clone());
        }
    }
    all
}

fn san(host: &Host) -> Result<SanType> {
    Ok(match host {
        Host::Address(address) => SanType::IpAddress(*address),
        Host::Name(name) => SanType::DnsName(
            name.as_str().try_into().map_err(|e| Error::internal(format!("a name for a certificate: {e}")))?,
        ),
    })
}

fn new_key() -> Result<Zeroizing<KeyPair>> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map(Zeroizing::new)
        .map_err(|e| Error::internal(format!("making a key: {e}")))
}

/// What all certificates have in common: the time they are valid, and a random serial number.
fn params(now: Timestamp, lifetime: i64) -> Result<CertificateParams> {
    let at = |seconds| {
        OffsetDateTime::from_unix_timestamp(now.plus(seconds).seconds())
            .map_err(|_| Error::internal("the clock is far from any time a certificate can have"))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = at(-BACKDATED)?;
    params.not_after = at(lifetime)?;
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// 126 random bits; the two highest are 0 and 1, so that it is positive and always 16 bytes (RFC 5280, 4.1.2.2).
fn serial() -> Result<SerialNumber> {
    let mut bytes = random::bytes::<16>()?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from(bytes.to_vec()))
}

/// When the authority ends, if it is one `now`. Verifiers don't ask this of what they are told to trust.
fn ca_end(ca_cert: &CertificateDer<'_>, now: Timestamp) -> Result<Timestamp> {
    let (_, cert) = parse_x509_certificate(ca_cert).map_err(|_| not_a_certificate())?;
    let signs = cert.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    if !cert.is_ca() || !signs {
        return Err(Error::invalid("the CA's certificate isn't one of a CA"));
    }
    let (begins, ends) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    if now.seconds() < begins {
        return Err(Error::invalid("the CA's certificate isn't valid yet; is the clock right?"));
    }
    if now.seconds() > ends {
        return Err(Error::invalid("the CA's certificate has expired"));
    }
    Ok(Timestamp::new(ends))
}

fn not_a_certificate() -> Error {
    Error::invalid("the CA's certificate is no certificate in PEM")
}

/// Looks at the certificate as a client would that trusts this authority.
fn verify(ca_cert: &CertificateDer<'_>, cert: &CertificateDer<'_>, hosts: &[Host], now: Timestamp) -> Result<()> {
    let unusable = |e: &dyn fmt::Display| {
        let client = "the CA's certificate and key don't belong together";
        Error::invalid(client).because(format!("{client}: {e}"))
    };
    let mut roots = RootCertStore::empty();
    roots.add(ca_cert.clone().into_owned()).map_err(|e| unusable(&e))?;
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| unusable(&e))?;
    let seconds = u64::try_from(now.seconds()).map_err(|_| Error::internal("the clock is before 1970"))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    for host in hosts {
        verifier.verify_server_cert(cert, &[], &host.server_name()?, &[], now).map_err(|e| unusable(&e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::clock::Clock;

    fn hosts(names: &[&str]) -> Vec<Host> {
        names.iter().map(|name| Host::parse(name).unwrap()).collect()
    }

    fn refusal<T>(result: Result<T>) -> String {
        result.err().expect("it was taken").client().to_owned()
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn hosts_are_names_wildcards_or_addresses() {
        for (text, shown) in [
            ("auth.example.com", "auth.example.com"),
            ("Auth.Example.COM", "auth.example.com"),
            ("mcias", "mcias"),
            ("mcias_server", "mcias_server"),
            ("3com.com", "3com.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("*.example.com", "*.example.com"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:DB8::0:1", "2001:db8::1"),
        ] {
            let host = Host::parse(text).unwrap();
            assert_eq!(host.to_string(), shown);
            assert!(host.server_name().is_ok() && san(&host).is_ok(), "{text}");
        }
        let label = "a".repeat(64);
        let long = format!("{}.com", vec!["a".repeat(49); 5].join("."));
        assert_eq!(long.len(), 253);
        assert!(Host::parse(&long).is_ok());
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a.b",
            "a-.b",
            "a b",
            "bücher.example",
            "https://a.b",
            "a.b:8443",
            "[::1]",
            "fe80::1%eth0",
            "*",
            "*.com",
            "**.a.b",
            "a.*.b",
            "*a.b.c",
            "1.2.3",
            "256.1.1.1",
            "1.2.3.4.5",
            "a/24",
            "0.0.0.0",
            "::",
            "a\n",
            "a\0b",
            &label,
            &format!("{long}x"),
        ] {
            assert!(Host::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_issued_verifies_for_every_name_and_no_other() {
        let now = Clock::System.now();
        let ca = make_ca(now).unwrap();
        let long = format!("{}.com", vec!["a".repeat(49); 5].join("."));
        let names = hosts(&[
            "auth.example.com",
            "mcias_server",
            &long,
            "*.lan.example",
            "192.0.2.7",
            "2001:db8::1",
            "localhost",
        ]);
        let server = issue_server(&ca.cert, &ca.key, &names, now).unwrap();
        assert!(server.key.starts_with("-----BEGIN PRIVATE KEY-----\n"), "PKCS#8");
        let all = hosts(&[
            "auth.example.com",
            "mcias_server",
            &long,
            "x.lan.example",
            "192.0.2.7",
            "2001:db8::1",
            "localhost",
            "127.0.0.1",
            "::1",
        ]);
        for at in [now, now.plus(-BACKDATED), now.plus(SERVER_LIFETIME)] {
            verify(&der(&ca.cert), &der(&server.cert), &all, at).unwrap();
        }
        for other in ["example.com", "a.auth.example.com", "lan.example", "192.0.2.8", "::2"] {
            assert!(verify(&der(&ca.cert), &der(&server.cert), &hosts(&[other]), now).is_err(), "{other}");
        }
        for at in [now.plus(-BACKDATED - 1), now.plus(SERVER_LIFETIME + 1)] {
            assert!(verify(&der(&ca.cert), &der(&server.cert), &all, at).is_err());
        }
    }

    #[test]
    fn renewal_needs_nothing_but_the_two_files_and_refuses_what_is_no_authority() {
        let now = Clock::System.now();
        let (ca, other) = (make_ca(now).unwrap(), make_ca(now).unwrap());
        let server = issue_server(&ca.cert, &ca.key, &[], now).unwrap();
        let last = now.plus(CA_LIFETIME - DAY);
        let renewed = der(&issue_server(&ca.cert, &ca.key, &[], last).unwrap().cert);
        let (_, renewed) = parse_x509_certificate(&renewed).unwrap();
        assert_eq!(renewed.validity().not_after.timestamp(), last.plus(DAY).seconds(), "not after the CA's end");
        let mixed = "the CA's certificate and key don't belong together";
        for (cert, key, at, message) in [
            (&ca.cert, &other.key, now, mixed),
            (&server.cert, &server.key, now, "the CA's certificate isn't one of a CA"),
            (&ca.cert, &ca.key, now.plus(CA_LIFETIME + 1), "the CA's certificate has expired"),
            (&ca.cert, &ca.key, now.plus(-DAY), "the CA's certificate isn't valid yet; is the clock right?"),
            (&String::new(), &ca.key, now, "the CA's certificate is no certificate in PEM"),
            (&ca.cert, &Zeroizing::new(ca.cert.clone()), now, "the CA's key is no private key in PEM"),
        ] {
            assert_eq!(refusal(issue_server(cert, key, &[], at)), message);
        }
    }

    #[test]
    fn a_real_handshake_goes_through() {
        let now = Clock::System.now();
        let ca = make_ca(now).unwrap();
        let pair = issue_server(&ca.cert, &ca.key, &hosts(&["auth.example.com"]), now).unwrap();
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der(&pair.cert)], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der(&ca.cert)).unwrap();
        let client = Arc::new(
            rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth(),
        );
        let server = Arc::new(server);
        for (name, good) in [("auth.example.com", true), ("127.0.0.1", true), ("::1", true), ("example.com", false)] {
            let mut client = rustls::ClientConnection::new(client.clone(), name.try_into().unwrap()).unwrap();
            let mut server = rustls::ServerConnection::new(server.clone()).unwrap();
            let mut failed = false;
            while !failed && (client.is_handshaking() || server.is_handshaking()) {
                let mut wire = vec![];
                while client.wants_write() {
                    client.write_tls(&mut wire).unwrap();
                }
                server.read_tls(&mut wire.as_slice()).unwrap();
                server.process_new_packets().unwrap();
                let mut wire = vec![];
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                let mut wire = wire.as_slice();
                while !failed && !wire.is_empty() {
                    client.read_tls(&mut wire).unwrap();
                    failed = client.process_new_packets().is_err();
                }
            }
            assert_eq!(!failed, good, "{name}");
        }
    }

    #[test]
    fn openssl_agrees_and_finds_every_extension() {
        if Command::new("openssl").arg("version").output().is_err() {
            return crate::testing::not_run("openssl_agrees_and_finds_every_extension", "there is no openssl");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
        let now = Clock::System.now();
        let ca = make_ca(now).unwrap();
        let long = format!("{}.example.com", "a".repeat(60));
        let server = issue_server(&ca.cert, &ca.key, &hosts(&[&long, "*.example.net", "192.0.2.7"]), now).unwrap();
        for (name, text) in [("ca.crt", &ca.cert), ("server.crt", &server.cert), ("server.key", &*server.key)] {
            std::fs::write(path(name), text).unwrap();
        }
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl").args(args).output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (ca_file, cert, key) = (path("ca.crt"), path("server.crt"), path("server.key"));
        for (kind, name, good) in [
            ("-verify_hostname", long.as_str(), true),
            ("-verify_hostname", "x.example.net", true),
            ("-verify_hostname", "localhost", true),
            ("-verify_hostname", "example.net", false),
            ("-verify_ip", "192.0.2.7", true),
            ("-verify_ip", "::1", true),
            ("-verify_ip", "192.0.2.8", false),
        ] {
            let args = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", &ca_file, kind, name, &cert];
            assert_eq!(openssl(&args).0, good, "{kind} {name}");
        }
        let text = openssl(&["x509", "-in", &ca_file, "-noout", "-text"]).1;
        for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "prime256v1", "CN = MCIAS local CA "] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let text = openssl(&["x509", "-in", &cert, "-noout", "-text"]).1;
        for part in [
            "CA:FALSE",
            "TLS Web Server Authentication",
            "Digital Signature",
            "Subject: CN = *.example.net",
            "prime256v1",
            "X509v3 Authority Key Identifier",
            "X509v3 Subject Key Identifier",
            "DNS:localhost",
            "IP Address:127.0.0.1",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let public = openssl(&["x509", "-in", &cert, "-noout", "-pubkey"]).1;
        assert_eq!(openssl(&["pkey", "-in", &key, "-pubout"]).1, public);
    }

    #[test]
    fn serial_numbers_and_names_of_authorities_differ() {
        let now = Clock::System.now();
        assert_ne!(make_ca(now).unwrap().cert, make_ca(now).unwrap().cert);
        assert_ne!(serial().unwrap(), serial().unwrap());
        assert!((0..64).all(|_| serial().unwrap().to_bytes()[0] & 0xc0 == 0x40));
    }
}
