//! A running server: started, asked, stopped, killed, started again.

use std::io::Write;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::client::{Client, Door};
use super::connection::{Connection, trusting};
use super::instance::Instance;
use super::{Log, PATIENCE};

/// A running server and its instance. Dropped, it is killed and its folder removed.
pub struct Server {
    process: Process,
    instance: Instance,
    door: Arc<Door>,
    grpc: Option<SocketAddr>,
    admin: Mutex<Option<Client>>,
}

impl Deref for Server {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.instance
    }
}

impl Server {
    /// A new instance's.
    #[track_caller]
    pub fn start() -> Self {
        Instance::new().start()
    }

    /// A new instance's, with a configuration of its own.
    #[track_caller]
    pub fn with(configure: impl FnOnce(&mut Instance)) -> Self {
        let mut instance = Instance::new();
        configure(&mut instance);
        instance.start()
    }

    #[track_caller]
    pub(super) fn of(instance: Instance) -> Self {
        let tls = trusting(&instance.text("tls/ca.crt"), &[b"http/1.1"]);
        let door = Arc::new(Door::new(tls, instance.log().clone()));
        let process = Process { child: None, guard: instance.guard.clone() };
        let mut server = Self { instance, process, door, grpc: None, admin: Mutex::default() };
        server.start_again();
        server
    }

    /// Starts it after it has ended; clients find it at its new port.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.child.is_none(), "the server is running");
        let mark = self.log().mark();
        let child = self.instance.launch(self.log());
        self.instance.guard.now_runs(Some(child.id()));
        self.process.child = Some(child);
        self.door.moved_to(address_in(&self.log().wait_since(mark, &["listening", "rest"])));
        let has_grpc = self.instance.config().contains("\ngrpc_addr = ");
        self.grpc = has_grpc.then(|| address_in(&self.log().wait_since(mark, &["listening", "grpc"])));
    }

    /// Where it speaks gRPC.
    #[track_caller]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.expect("the server speaks gRPC")
    }

    /// Sends SIGTERM, and insists on exit code 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.ends_well();
    }

    /// Waits for its end, and insists on exit code 0.
    #[track_caller]
    pub fn ends_well(&mut self) {
        let status = self.ends();
        assert!(status.success(), "the server ended with {status}:\n{}", self.log().tail());
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let mut child = self.process.child.take().expect("the server isn't running");
        let status = wait(&mut child);
        self.instance.guard.now_runs(None);
        self.log().wait_for_the_end();
        self.door.gone();
        status.unwrap_or_else(|| panic!("the server doesn't end:\n{}", self.log().tail()))
    }

    /// Kills it: nothing of what it had in mind is written any more.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ends();
    }

    /// Stops it and starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Gives the instance back, killing the server if it runs.
    pub fn into_instance(self) -> Instance {
        self.instance
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Its process.
    #[track_caller]
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.child.as_ref().expect("the server isn't running"))
    }

    /// A line of `/proc/PID/status`, such as `VmHWM`, in KiB.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Where it is reached.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// A client without a token.
    pub fn client(&self) -> Client {
        Client::new(self.door.clone())
    }

    /// The admin's session, one for all who ask; who wants to log it out takes one of their own from
    /// [`Server::login`].
    #[track_caller]
    pub fn admin(&self) -> Client {
        let mut admin = self.admin.lock().unwrap();
        admin.get_or_insert_with(|| self.login("admin", &self.admin_password())).clone()
    }

    /// A new session of an account's.
    #[track_caller]
    pub fn login(&self, username: &str, password: &str) -> Client {
        self.client().login(username, password)
    }

    /// A new account of a person, logged in.
    #[track_caller]
    pub fn human(&self, username: &str) -> Client {
        let password = format!("the passphrase of {username}");
        let account = json!({"username": username, "account_type": "human", "password": password});
        self.admin().post("/v1/accounts").json(account).ok(201);
        self.login(username, &password)
    }

    /// A new system account with a token for MCIAS itself that the admin issued.
    #[track_caller]
    pub fn system(&self, username: &str) -> Client {
        let account = json!({"username": username, "account_type": "system"});
        let account = self.admin().post("/v1/accounts").json(account).ok(201);
        let issued = self.admin().post("/v1/token/issue").json(json!({"account_id": account["id"]})).ok(201);
        self.client().with_token(issued.text("token")).known_as(account.text("id"), username, "")
    }

    /// Gives a role behind the server's back.
    pub fn give_role(&self, account: &str, role: &str) {
        let sql =
            "INSERT INTO account_roles (account_id, role, granted_at) SELECT id, ?2, 0 FROM accounts WHERE uuid = ?1";
        assert_eq!(self.sql(sql, [account, role]), 1);
    }

    /// Takes a role behind the server's back.
    pub fn take_role(&self, account: &str, role: &str) {
        let sql =
            "DELETE FROM account_roles WHERE role = ?2 AND account_id = (SELECT id FROM accounts WHERE uuid = ?1)";
        assert_eq!(self.sql(sql, [account, role]), 1);
    }

    /// A TLS connection, HTTP/1.1 agreed on, to say over it whatever a test wants to.
    #[track_caller]
    pub fn raw(&self) -> Connection {
        self.door.connect().unwrap_or_else(|e| panic!("no connection: {e}\n{}", self.log().tail()))
    }
}

/// The address in a line of the log that says where the server listens.
fn address_in(line: &str) -> SocketAddr {
    let address = ["address=", "\"address\":\""].iter().find_map(|before| line.split_once(before));
    let (_, address) = address.unwrap_or_else(|| panic!("no address in {line:?}"));
    let end = address.find([' ', '"']).unwrap_or(address.len());
    address[..end].parse().unwrap()
}

/// The process, if it runs.
struct Process {
    child: Option<Child>,
    guard: Arc<Guard>,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            self.guard.now_runs(None);
        }
    }
}

/// Waits for a process to end by itself; one that doesn't is killed.
pub(super) fn wait(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// A process that outlives the test by a moment: once the test is gone, however it went, it kills the server and
/// removes the folder.
pub(super) struct Guard(Mutex<Child>);

impl Guard {
    pub(super) fn new(folder: &Path) -> Arc<Self> {
        let script = r#"while read -r line; do pid=$line; done; [ -z "$pid" ] || kill -KILL "$pid"; rm -rf -- "$1""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "guard"]).arg(folder).process_group(0);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Arc::new(Self(Mutex::new(shell.spawn().unwrap())))
    }

    /// Tells it which process there is to kill.
    pub(super) fn now_runs(&self, pid: Option<u32>) {
        let line = pid.map_or(String::new(), |pid| pid.to_string());
        writeln!(self.0.lock().unwrap().stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let shell = self.0.get_mut().unwrap();
        drop(shell.stdin.take());
        let _ = shell.wait();
    }
}
