//! Whom a client believes to be the server: the certificate authorities of the system, or those of one file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// Where distributions keep the certificates of the authorities they trust, in one file.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Why a certificate isn't believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// None of the authorities has signed it.
    UnknownIssuer,
    /// Its time is over.
    Ended,
    /// Its time hasn't come.
    NotYet,
    /// It is for other names.
    OtherNames,
    /// It is an authority's own.
    OfAnAuthority,
    /// In the library's words.
    Other(String),
}

impl From<&CertificateError> for Distrust {
    fn from(why: &CertificateError) -> Self {
        match why {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Ended,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYet,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherNames,
            // This one has no name in rustls.
            other => match other.to_string() {
                text if text.contains("CaUsedAsEndEntity") => Self::OfAnAuthority,
                text => Self::Other(text),
            },
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownIssuer => "nobody who is trusted here vouches for its certificate",
            Self::Ended => "its certificate has ended",
            Self::NotYet => "its certificate isn't valid yet",
            Self::OtherNames => "its certificate is for other names",
            Self::OfAnAuthority => "its certificate is a certificate authority's own, not a server's",
            Self::Other(text) => return write!(f, "its certificate can't be believed: {text}"),
        })
    }
}

/// Certificate authorities.
pub struct Trust(RootCertStore);

impl Trust {
    /// Those in one PEM file, and no others.
    ///
    /// # Errors
    /// Saying what is wrong with the file.
    pub fn file(path: &Path) -> Result<Self, String> {
        let failed = |why: String| format!("{}: {why}", path.display());
        let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| failed(format!("it is not PEM: {e}")))?;
            roots.add(certificate).map_err(|e| failed(format!("a certificate in it can't be used: {e}")))?;
        }
        if roots.is_empty() { Err(failed("there is no certificate in it".into())) } else { Ok(Self(roots)) }
    }

    /// The system's: those in the file that `SSL_CERT_FILE` names, else in the usual place. A system without any
    /// trusts nobody. `variable` is what `SSL_CERT_FILE` holds.
    ///
    /// # Errors
    /// Where a file is named that can't be read.
    pub fn system(variable: Option<PathBuf>) -> Result<Self, String> {
        if let Some(path) = variable {
            let pem = std::fs::read(&path).map_err(|e| format!("SSL_CERT_FILE {}: {e}", path.display()))?;
            return Ok(Self(usable(&pem)));
        }
        let pem = SYSTEM.iter().find_map(|path| std::fs::read(path).ok());
        Ok(Self(pem.map_or_else(RootCertStore::empty, |pem| usable(&pem))))
    }

    /// TLS for a client that speaks these protocols: 1.2 at least.
    ///
    /// # Errors
    /// Where the provider fails, for want of randomness.
    pub(super) fn config(&self, alpn: &[u8]) -> Result<Arc<ClientConfig>, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let mut config = builder.with_root_certificates(self.0.clone()).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(config))
    }
}

/// What of a bundle can be used: some systems have certificates in theirs that nobody can read.
fn usable(pem: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_certificate_is_not_believed_is_told_apart() {
        let of_ca = rustls::OtherError(Arc::new(std::io::Error::other("CaUsedAsEndEntity")));
        for (why, distrust) in [
            (CertificateError::UnknownIssuer, Distrust::UnknownIssuer),
            (CertificateError::Expired, Distrust::Ended),
            (CertificateError::NotValidYet, Distrust::NotYet),
            (CertificateError::NotValidForName, Distrust::OtherNames),
            (CertificateError::Other(of_ca), Distrust::OfAnAuthority),
        ] {
            assert_eq!(Distrust::from(&why), distrust);
        }
        assert!(matches!(Distrust::from(&CertificateError::Revoked), Distrust::Other(_)));
    }
}
