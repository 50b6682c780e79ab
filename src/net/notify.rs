//! Word to systemd (sd_notify(3)) and to whatever speaks its protocol. Without a socket every word goes nowhere.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A notification must not hold up the server if nobody reads.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager's ear.
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// # Errors
    /// What is wrong with the socket's name, or why there can be no socket.
    pub fn from_env() -> Result<Self, String> {
        Self::new(
            env::var_os("NOTIFY_SOCKET").as_deref(),
            env::var_os("WATCHDOG_USEC").as_deref(),
            env::var_os("WATCHDOG_PID"),
        )
    }

    /// From the values of the three variables.
    ///
    /// # Errors
    /// What is wrong with the socket's name, or why there can be no socket.
    pub fn new(
        socket: Option<&OsStr>,
        watchdog_usec: Option<&OsStr>,
        watchdog_pid: Option<OsString>,
    ) -> Result<Self, String> {
        let to = match socket {
            Some(name) if !name.is_empty() => Some(open(name).map_err(|e| format!("NOTIFY_SOCKET: {e}"))?),
            _ => None,
        };
        let ours = watchdog_pid.is_none_or(|pid| pid == *std::process::id().to_string());
        let usec = watchdog_usec.and_then(OsStr::to_str).and_then(|text| text.parse().ok()).filter(|usec| *usec > 0);
        let watchdog = usec.map(Duration::from_micros).filter(|_| ours && to.is_some());
        Ok(Self { to, watchdog })
    }

    /// How long the service manager waits for [`Notifier::watchdog`] before it thinks us dead; twice as often is
    /// right. None if it doesn't watch.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Started, or done reloading.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// Beginning to stop.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Beginning to reload; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000));
    }

    /// Alive.
    pub fn watchdog(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, words: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(e) = socket.send_to_addr(words.as_bytes(), to)
        {
            tracing::warn!(error = %e, "the service manager could not be notified");
        }
    }
}

/// A path, or `@` and an abstract name.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("neither a path nor an abstract socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(socket: Option<&str>, usec: Option<&str>, pid: Option<&str>) -> Notifier {
        Notifier::new(socket.map(OsStr::new), usec.map(OsStr::new), pid.map(OsString::from)).unwrap()
    }

    fn heard(ear: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = ear.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn says_everything(ear: &UnixDatagram, notifier: &Notifier) {
        notifier.ready();
        notifier.watchdog();
        notifier.reloading();
        notifier.stopping();
        assert_eq!(heard(ear), "READY=1");
        assert_eq!(heard(ear), "WATCHDOG=1");
        let reloading = heard(ear);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0);
        assert_eq!(heard(ear), "STOPPING=1");
    }

    #[test]
    fn words_arrive_at_a_path() {
        let folder = env::temp_dir().join(format!("mcias-notify-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("notify");
        let _ = std::fs::remove_file(&path);
        let ear = UnixDatagram::bind(&path).unwrap();
        says_everything(&ear, &notifier(path.to_str(), None, None));
        drop(ear);
        notifier(path.to_str(), None, None).ready();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn words_arrive_at_an_abstract_socket() {
        let name = format!("mcias-notify-{}", std::process::id());
        let ear = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        says_everything(&ear, &notifier(Some(&format!("@{name}")), None, None));
    }

    #[test]
    fn without_a_socket_nothing_happens() {
        for silent in [notifier(None, Some("1000000"), None), notifier(Some(""), None, None)] {
            silent.ready();
            silent.reloading();
            assert_eq!(silent.watchdog_period(), None);
        }
        assert!(Notifier::new(Some(OsStr::new("relative/path")), None, None).is_err());
    }

    #[test]
    fn the_watchdog_is_ours_or_nobodys() {
        let us = std::process::id().to_string();
        let period = |usec, pid| notifier(Some("@x"), usec, pid).watchdog_period();
        assert_eq!(period(Some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(period(Some("30000000"), Some(&us)), Some(Duration::from_secs(30)));
        assert_eq!(period(Some("30000000"), Some("1")), None);
        assert_eq!([period(Some("0"), None), period(Some("x"), None), period(None, None)], [None; 3]);
    }
}
