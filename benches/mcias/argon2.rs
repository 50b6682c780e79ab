//! What a hash costs without a server around it: the same crate on memory that is kept, and the reference in C.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use mcias::crypto::password::{Memory, Params, hash};
use mcias::secret::Password;
use rustix::time::{ClockId, clock_gettime};

/// The server's defaults.
pub const PARAMS: Params = Params { time: 3, memory_kib: 65_536, lanes: 4 };

/// Hashes on memory that is there already.
#[derive(Default)]
pub struct Reused(Memory);

impl Reused {
    /// Processor time of so many hashes.
    pub fn hash(&mut self, times: u32) -> Duration {
        let password = Password::new("correct horse battery staple".to_owned());
        let begun = thread_time();
        for n in 0..times {
            hash(&mut self.0, &password, PARAMS, [n as u8; 16]).unwrap();
        }
        thread_time() - begun
    }
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Processor time of so many hashes by the `argon2` command, which is the reference library's.
///
/// # Errors
/// Where there is no such command, or it does something else.
pub fn reference(times: u32) -> Result<Duration, String> {
    let begun = time_of_children();
    for _ in 0..times {
        let mut command = Command::new("argon2");
        command.args(["a salt of sixteen", "-id", "-r", "-l", "32"]);
        command.args(["-t", &PARAMS.time.to_string(), "-k", &PARAMS.memory_kib.to_string()]);
        command.args(["-p", &PARAMS.lanes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("the command argon2 (Debian: argon2): {e}"))?;
        child.stdin.take().unwrap().write_all(b"correct horse battery staple").map_err(|e| e.to_string())?;
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if !output.status.success() || output.stdout.trim_ascii_end().len() != 64 {
            return Err(format!("argon2 ended with {}", output.status));
        }
    }
    Ok(time_of_children() - begun)
}

/// User and system time of the processes that have ended (proc_pid_stat(5)), in ticks of 10 ms.
fn time_of_children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name in parentheses may have anything in it; after it comes the third field, and wanted are the sixteenth and
    // the seventeenth.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(13).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
