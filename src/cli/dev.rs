//! `mcias dev`: a throw-away server for trying out and for client tests, on loopback only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use super::command::{Command, Flag};
use super::init;
use super::parse::Parsed;
use super::server::run::{self, Besides};
use super::term::{self, Failure};
use crate::config;
use crate::random;

/// The command's row.
pub const COMMAND: Command = Command {
    name: "dev",
    about: "run a throw-away server, on loopback only",
    notes: &[
        "Makes an instance in a temporary folder, without rate limits, and serves it. Once it listens it prints one line \
         of JSON: url, grpc_addr, ca_file, admin_username, admin_password, config. It ends with its standard input or \
         a signal, and leaves nothing behind.",
    ],
    flags: &[
        Flag::value("listen", "ADDR", "where to listen, as IP:port; without it, 127.0.0.1 and a free port"),
        Flag::value("grpc", "ADDR", "the same for gRPC"),
        Flag::switch("forever", "end with a signal only, not with standard input"),
    ],
    args: &[],
    example: "dev --listen 127.0.0.1:8443 --forever",
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let address = |flag: &str| match parsed.text(flag)? {
        None => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        Some(text) => {
            loopback(text).ok_or_else(|| parsed.usage(format!("--{flag} must be a loopback address and a port")))
        }
    };
    let (listen, grpc) = (address("listen")?, address("grpc")?);
    let folder = Folder::new()?;
    let made = init::throw_away(&folder.0, listen, grpc)?;
    let config = config::load(&made.config).map_err(|e| Failure::new(e.to_string()))?;
    let password = std::fs::read_to_string(&made.admin_password).map(Zeroizing::new);
    let password = password.map_err(|e| Failure::new(format!("{}: {e}", made.admin_password.display())))?;
    let announce = move |rest: SocketAddr, grpc: Option<SocketAddr>| {
        let named = |address: SocketAddr| match address.ip() {
            IpAddr::V4(_) => format!("localhost:{}", address.port()),
            IpAddr::V6(_) => address.to_string(),
        };
        let line = json!({
            "url": format!("https://{}", named(rest)),
            "grpc_addr": grpc.map(named),
            "ca_file": made.ca_cert,
            "admin_username": made.admin.as_str(),
            "admin_password": password.trim_end(),
            "config": made.config,
        });
        term::out(&format!("{line}\n"))
    };
    let besides = Besides { listening: Some(Box::new(announce)), ends_with_stdin: !parsed.switch("forever") };
    run::run(&config, besides)
}

/// An address that nobody but this machine reaches.
fn loopback(text: &str) -> Option<SocketAddr> {
    text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback())
}

/// A temporary folder, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let name: String = random::bytes::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("mcias-dev-{name}"));
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.0) {
            term::err(&format!("mcias: {} is left behind: {e}\n", self.0.display()));
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_taken() {
        assert!(
            loopback("127.0.0.1:0").is_some() && loopback("[::1]:8443").is_some() && loopback("127.9.9.9:1").is_some()
        );
        for bad in ["0.0.0.0:0", "192.0.2.1:1", "[::]:0", "localhost:0", "127.0.0.1", ""] {
            assert!(loopback(bad).is_none(), "{bad}");
        }
    }
}
