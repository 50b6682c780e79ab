//! The server's certificate while it runs: loaded, reloaded when asked or when the files change, and the warnings
//! before it ends.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tracing::{error, info, warn};

use crate::cli::secrets;
use crate::cli::term::Failure;
use crate::config::Config;
use crate::model::time::Timestamp;
use crate::net::tls::{self, Certificates};

/// Days before the end at which to warn, the last first.
const WARN_DAYS: [i64; 3] = [1, 7, 30];
const DAY: i64 = 86_400;

/// The certificate in use and what is known of its files.
pub struct Watched {
    config: Config,
    pub certificates: Arc<Certificates>,
    seen: [u8; 32],
    warned: Option<i64>,
}

impl Watched {
    /// Loads the certificate for the first time.
    ///
    /// # Errors
    /// A failure that names the file and what is wrong with it.
    pub fn load(config: &Config) -> Result<Self, Failure> {
        let (certified, seen) = read(config)?;
        let certificates = Certificates::new(certified);
        Ok(Self { config: config.clone(), certificates, seen, warned: None })
    }

    /// Looks at the files again; takes what is in them if it changed, or keeps the old with an error in the log.
    pub fn look(&mut self, asked: bool) {
        match read(&self.config) {
            Ok((_, seen)) if seen == self.seen && !asked => {}
            Ok((certified, seen)) => {
                self.certificates.replace(certified);
                (self.seen, self.warned) = (seen, None);
                info!("the certificate was read again");
            }
            Err(failure) => error!(cause = failure.message, "the certificate can't be read again; the old one stays"),
        }
    }

    /// Warns 30, 7 and 1 days before the certificate ends, and once it has ended.
    pub fn warn_of_end(&mut self, now: Timestamp) {
        let Some(end) = tls::leaf_not_after(&self.certificates.current()) else { return };
        let left = end - now.seconds();
        let Some(days) = WARN_DAYS.into_iter().find(|days| left <= days * DAY) else { return };
        let step = if left <= 0 { 0 } else { days };
        if self.warned.is_none_or(|warned| step < warned) {
            self.warned = Some(step);
            let ends = Timestamp::new(end);
            if left <= 0 {
                error!(%ends, "the server's certificate has ended: no client will connect");
            } else {
                warn!(%ends, days_left = left / DAY, "the server's certificate ends soon");
            }
        }
    }
}

fn read(config: &Config) -> Result<(Arc<CertifiedKey>, [u8; 32]), Failure> {
    let path = &config.server.tls_cert;
    let named = |why: String| Failure::new(format!("[server] tls_cert {}: {why}", path.display()));
    let certificate = std::fs::read(path).map_err(|e| named(e.to_string()))?;
    let key = secrets::tls_key(config)?;
    let certified = tls::load(&certificate, &key).map_err(named)?;
    let seen = Sha256::new().chain_update(Sha256::digest(&certificate)).chain_update(Sha256::digest(&*key)).finalize();
    Ok((certified, seen.into()))
}
