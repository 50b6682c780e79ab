//! TLS for both listeners: one configuration, and a certificate that can be replaced while the server runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::net::MinTls;

/// Reads a chain, leaf first, and the leaf's private key: PKCS#8, SEC1 or PKCS#1; EC, RSA or Ed25519.
///
/// # Errors
/// What is wrong with which of the two; never any of their content.
pub fn load(cert_pem: &[u8], key_pem: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert_pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the certificate file is not PEM: {e}"))?;
    let leaf = chain.first().ok_or("there is no certificate in the certificate file")?;
    X509Certificate::from_der(leaf).map_err(|_| "the first certificate in the file can't be read as X.509")?;

    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|e| match e {
        pem::Error::NoItemsFound if contains(key_pem, b"ENCRYPTED PRIVATE KEY") => {
            "the private key is encrypted; it must be stored in the clear".to_owned()
        }
        pem::Error::NoItemsFound => "there is no private key in the key file".to_owned(),
        _ => "the key file is not PEM".to_owned(),
    })?;
    // Keys of OpenSSL's older form are encrypted inside the section, which is named as if they weren't.
    if contains(key_pem, b"Proc-Type: 4,ENCRYPTED") {
        return Err("the private key is encrypted; it must be stored in the clear".to_owned());
    }
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| "the private key is damaged or of a kind that TLS has no use for")?;

    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown is a key that can't show its public half; none of aws-lc-rs is.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("the private key does not belong to the first certificate in the file".to_owned())
        }
        Err(e) => Err(format!("the first certificate in the file can't be used: {e}")),
    }
}

/// When the leaf certificate ends, in Unix seconds.
pub fn leaf_not_after(certified: &CertifiedKey) -> Option<i64> {
    let (_, leaf) = X509Certificate::from_der(certified.cert.first()?).ok()?;
    Some(leaf.validity().not_after.timestamp())
}

/// The certificate in use, shared by both listeners.
pub struct Certificates(RwLock<Arc<CertifiedKey>>);

impl Certificates {
    /// Starts with this one.
    pub fn new(first: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(first)))
    }

    /// From the next hand-shake on, this one is shown.
    pub fn replace(&self, next: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// The one in use.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

/// A listener's TLS: aws-lc-rs with X25519MLKEM768 first, session tickets under keys that live and rotate in memory
/// only, no early data, no client certificates. `alpn` is in order of preference.
///
/// # Errors
/// Where the provider fails, for want of randomness.
pub fn server_config(
    certificates: Arc<Certificates>,
    min_tls: MinTls,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, String> {
    let versions: &[_] = match min_tls {
        MinTls::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinTls::V1_3 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(|e| format!("TLS can't be set up: {e}"))?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|e| format!("TLS session tickets can't be set up: {e}"))?;
    // Tickets carry the sessions; nothing of a client is kept here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::client::{ClientConnection, danger};
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, NamedGroup, ProtocolVersion, ServerConnection, SignatureScheme};

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
    }

    fn key_of(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
        KeyPair::generate_for(algorithm).unwrap()
    }

    fn certificate(key: &KeyPair) -> String {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        params.self_signed(key).unwrap().pem()
    }

    /// The content of a PKCS#8 key's OCTET STRING, which is PKCS#1 or SEC1: the last element of the version 1 form.
    fn inner(key: &KeyPair) -> Vec<u8> {
        let der = key.serialize_der();
        let starts = (0..der.len()).find(|&at| match der[at..] {
            [0x04, 0x82, high, low, 0x30, ..] => at + 4 + usize::from(u16::from_be_bytes([high, low])) == der.len(),
            [0x04, 0x81, length, 0x30, ..] => at + 3 + usize::from(length) == der.len(),
            [0x04, length, 0x30, ..] => at + 2 + usize::from(length) == der.len(),
            _ => false,
        });
        let at = starts.unwrap();
        let header = match der[at + 1] {
            0x82 => 4,
            0x81 => 3,
            _ => 2,
        };
        der[at + header..].to_vec()
    }

    #[test]
    fn every_kind_of_key_is_read_in_every_form() {
        let kinds = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some("EC PRIVATE KEY")),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some("EC PRIVATE KEY")),
            (&rcgen::PKCS_RSA_SHA256, Some("RSA PRIVATE KEY")),
            (&rcgen::PKCS_ED25519, None),
        ];
        for (algorithm, older_form) in kinds {
            let key = key_of(algorithm);
            let cert = certificate(&key);
            load(cert.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
            if let Some(label) = older_form {
                let older = pem(label, &inner(&key));
                load(cert.as_bytes(), older.as_bytes()).unwrap();
                let parameters = pem("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7]);
                load(cert.as_bytes(), format!("{parameters}{older}").as_bytes()).unwrap();
            }
        }
    }

    #[test]
    fn errors_say_which_file_and_what() {
        let key = key_of(&rcgen::PKCS_ED25519);
        let (cert, key) = (certificate(&key), key.serialize_pem());
        let error = |cert: &str, key: &str| load(cert.as_bytes(), key.as_bytes()).err().unwrap();
        assert_eq!(error("", &key), "there is no certificate in the certificate file");
        assert_eq!(error(&key, &key), "there is no certificate in the certificate file");
        assert_eq!(error(&cert, ""), "there is no private key in the key file");
        assert_eq!(error(&cert, &cert), "there is no private key in the key file");
        assert_eq!(error(&pem("CERTIFICATE", b"x"), &key), "the first certificate in the file can't be read as X.509");
        assert!(error("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", &key).contains("not PEM"));
        assert!(error(&cert, &pem("PRIVATE KEY", b"x")).contains("damaged"));
        assert!(error(&cert, &pem("ENCRYPTED PRIVATE KEY", b"x")).contains("encrypted"));
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: A,B\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert!(error(&cert, legacy).contains("encrypted") || error(&cert, legacy).contains("not PEM"));
        let other = key_of(&rcgen::PKCS_ED25519).serialize_pem();
        assert_eq!(error(&cert, &other), "the private key does not belong to the first certificate in the file");
    }

    #[test]
    fn the_end_of_the_leaf_is_read() {
        let key = key_of(&rcgen::PKCS_ED25519);
        let certified = load(certificate(&key).as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert_eq!(leaf_not_after(&certified), Some(1_927_843_200));
    }

    /// Takes any certificate.
    #[derive(Debug)]
    struct Trusting;

    impl danger::ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<danger::ServerCertVerified, rustls::Error> {
            Ok(danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
            Ok(danger::HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
            Ok(danger::HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    /// A hand-shake in memory.
    fn shake(
        server: &Arc<ServerConfig>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Result<ClientConnection, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        let mut wire = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            wire.clear();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(client)
    }

    #[test]
    fn versions_groups_alpn_and_a_new_certificate() {
        let make = || {
            let key = key_of(&rcgen::PKCS_ECDSA_P256_SHA256);
            load(certificate(&key).as_bytes(), key.serialize_pem().as_bytes()).unwrap()
        };
        let first = make();
        let certificates = Certificates::new(first.clone());
        let both = server_config(certificates.clone(), MinTls::V1_2, &[b"h2", b"http/1.1"]).unwrap();
        let new_only = server_config(certificates.clone(), MinTls::V1_3, &[b"h2"]).unwrap();
        let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);

        let client = shake(&both, &[tls12, tls13], &[b"http/1.1", b"h2"]).unwrap();
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]), "ours is the preference that counts");
        assert_eq!(client.peer_certificates().unwrap(), first.cert);

        assert!(shake(&both, &[tls12], &[]).unwrap().alpn_protocol().is_none());
        assert!(shake(&new_only, &[tls12], &[]).is_err());
        assert!(shake(&new_only, &[tls13], &[b"http/1.1"]).is_err(), "no protocol in common");

        let second = make();
        certificates.replace(second.clone());
        assert_eq!(shake(&both, &[tls13], &[]).unwrap().peer_certificates().unwrap(), second.cert);
        assert_eq!(shake(&new_only, &[tls13], &[]).unwrap().peer_certificates().unwrap(), second.cert);
    }
}
