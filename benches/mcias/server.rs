//! The server under the bench, as its users run it: its default configuration but for rate limits, and its log in a
//! file.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::Scale;
use crate::load::Target;
use crate::report::{self, Report, median};
use crate::support::{Connection, Instance, PATIENCE, program, trusting};

/// An instance as `mcias init` makes it, with no limit on the rate of anything.
pub fn instance() -> Instance {
    let mut instance = Instance::new();
    for key in ["time", "memory", "threads"] {
        instance.unset("argon2", key);
    }
    instance.unset("log", "level");
    instance
}

/// A running server. Dropped, it is stopped.
pub struct Server {
    child: Child,
    /// Where it is reached.
    pub target: Target,
    /// How long it took from its start to its first answer.
    pub took: Duration,
}

impl Server {
    /// Starts it, and waits for its first answer.
    pub fn start(instance: &Instance) -> Self {
        let log = instance.path("bench.log");
        let tls = tls_of(instance);
        let mut command = Command::new(program());
        command.arg("server").arg("--config").arg(instance.path("mcias.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        let address = loop {
            let text = fs::read_to_string(&log).unwrap();
            if let Some(address) = text.lines().find_map(address_of_rest) {
                break address;
            }
            assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE, "no server: {text}");
            std::thread::sleep(Duration::from_micros(100));
        };
        let target = Target { address, tls };
        let mut first = Connection::open(target.address, target.tls.clone()).unwrap();
        let answer = first.say("GET /v1/ready HTTP/1.1\r\nhost: localhost\r\n\r\n").answer();
        assert_eq!(answer.status, 200, "{answer:?}");
        Self { child, target, took: begun.elapsed() }
    }

    /// Processor time that its threads have used; what a thread that has ended used is forgotten.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanoseconds = tasks.map(|task| {
            // The first number (Documentation/scheduler/sched-stats.rst of the kernel).
            let stat = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            stat.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// A line of its `/proc/PID/status`, in bytes.
    pub fn memory(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A client's TLS that trusts the instance's CA, and begins anew each time: a session that is taken up again costs less.
pub fn tls_of(instance: &Instance) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&trusting(&instance.text("tls/ca.crt"), &[b"http/1.1"]));
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn address_of_rest(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening").filter(|(_, rest)| rest.contains("rest"))?;
    rest.split_once("address=")?.1.split(' ').next()?.parse().ok()
}

/// From start to answering, and the memory of a server that nobody asks anything.
pub fn start_and_idle(scale: &Scale, report: &mut Report) {
    let size = fs::metadata(program()).unwrap().len();
    let how = program().display().to_string();
    report.row("executable", size as f64, 0, " bytes", report::Target::AtMost(10_000_000.0), how);
    let instance = instance();
    drop(Server::start(&instance));
    let mut took = Vec::new();
    for _ in 0..scale.starts {
        took.push(Server::start(&instance).took.as_secs_f64() * 1000.0);
    }
    let slowest = took.iter().copied().fold(0.0, f64::max);
    let how = format!("to the first answer over TLS, key file; median of {}, slowest {slowest:.1} ms", took.len());
    report.row("start to answering", median(took), 1, " ms", report::Target::AtMost(50.0), how);
    let server = Server::start(&instance);
    std::thread::sleep(scale.window);
    let idle = server.memory("VmRSS") / 1e6;
    report.row("memory when idle", idle, 1, " MB", report::Target::AtMost(10.0), "VmRSS, both doors open");
}
