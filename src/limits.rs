//! What the machine allows this process: memory, hashing slots, open files; and that it leaves no core dumps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Where cgroup v2 has its tree.
const CGROUP_V2: &str = "/sys/fs/cgroup";
/// Where cgroup v1 has the tree of its memory controller.
const CGROUP_V1: &str = "/sys/fs/cgroup/memory";

/// How much memory the process may use, in bytes: the least of its cgroup's limit and those above it, its resource
/// limits on address space and data, and the machine's memory. None if nothing of this can be told.
pub fn memory_limit() -> Option<u64> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_cgroups = limit_files(&cgroups)
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|text| parse_limit(&text));
    let of_process = [Resource::As, Resource::Data].into_iter().filter_map(|resource| getrlimit(resource).current);
    of_cgroups.chain(of_process).chain(total_memory()).min()
}

/// How many passwords to hash at once. `configured` counts unless it is 0; then it is as many as there are cores, at
/// most 4, and at most what a quarter of [`memory_limit`] holds at `memory_kib` KiB a hash; at least 1.
pub fn hashing_slots(configured: u32, memory_kib: u32) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    slots(configured, memory_kib, cores, memory_limit())
}

/// Raises the limit on open files as far as it goes and returns it.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Not to "unlimited": the kernel takes no such value here. A refusal shows in what is returned.
    if let Some(maximum) = limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: Some(maximum) });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Sees to it that a crash leaves no memory image, neither a core file (`RLIMIT_CORE`) nor one piped to a collector,
/// which knows no size limit (`PR_SET_DUMPABLE`). The latter also keeps other processes of the same user from tracing
/// this one and from reading its `/proc` entries.
///
/// # Errors
/// What the kernel says.
pub fn no_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn slots(configured: u32, memory_kib: u32, cores: usize, memory_limit: Option<u64>) -> usize {
    if configured > 0 {
        return usize::try_from(configured).unwrap_or(usize::MAX);
    }
    let hash = u64::from(memory_kib.max(1)) * 1024;
    let fitting = memory_limit.map_or(usize::MAX, |limit| usize::try_from(limit / 4 / hash).unwrap_or(usize::MAX));
    cores.min(4).min(fitting).max(1)
}

/// The files that hold the memory limits of the cgroups named in `/proc/self/cgroup` (cgroups(7)) and of all above.
fn limit_files(cgroups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        // hierarchy:controllers:path, and the path may have colons.
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match (hierarchy, controllers) {
            ("0", "") => (CGROUP_V2, "memory.max"),
            (_, names) if names.split(',').any(|name| name == "memory") => (CGROUP_V1, "memory.limit_in_bytes"),
            _ => continue,
        };
        // A path that leads out of our cgroup namespace can't be followed; the namespace's own root can.
        let path = if path.split('/').any(|part| part == "..") { "" } else { path.trim_start_matches('/') };
        files.extend(Path::new(path).ancestors().map(|folder| Path::new(root).join(folder).join(file)));
    }
    files
}

/// A cgroup's limit in bytes; none for `max`.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The machine's memory, from `/proc/meminfo`.
fn total_memory() -> Option<u64> {
    parse_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemTotal` (proc_meminfo(5)) in bytes.
fn parse_meminfo(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn files(cgroups: &str) -> Vec<String> {
        limit_files(cgroups).iter().map(|file| file.display().to_string()).collect()
    }

    #[test]
    fn cgroup_v2_is_walked_to_its_root() {
        assert_eq!(
            files("0::/system.slice/mcias.service\n"),
            [
                "/sys/fs/cgroup/system.slice/mcias.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(files("0::/../other\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(files("0::/a:b\n"), ["/sys/fs/cgroup/a:b/memory.max", "/sys/fs/cgroup/memory.max"]);
    }

    #[test]
    fn cgroup_v1_has_a_memory_controller_of_its_own() {
        assert_eq!(
            files("12:cpu,cpuacct:/docker/1\n9:memory:/docker/1\n1:name=systemd:/docker/1\n0::/docker/1\n"),
            [
                "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/docker/1/memory.max",
                "/sys/fs/cgroup/docker/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(files("4:hugetlb,memory:/\n"), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    }

    #[test]
    fn garbage_names_no_file() {
        for text in ["", "\n", "0", "0:", "memory", "3:memoryx:/\n", "1:cpu:/\n"] {
            assert!(limit_files(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn limits_are_bytes_or_none() {
        for (text, limit) in [
            ("536870912\n", Some(512 * MIB)),
            ("0\n", Some(0)),
            ("9223372036854771712\n", Some(9_223_372_036_854_771_712)),
            ("max\n", None),
            ("", None),
            ("-1\n", None),
            ("18446744073709551616\n", None),
        ] {
            assert_eq!(parse_limit(text), limit, "{text:?}");
        }
    }

    #[test]
    fn meminfo_is_in_kib() {
        assert_eq!(parse_meminfo("MemTotal:        2048 kB\nMemFree:  1 kB\n"), Some(2 * MIB));
        assert_eq!(parse_meminfo("MemFree: 1 kB\nMemTotal: 3 kB\n"), Some(3072));
        for bad in
            ["", "MemFree: 1 kB\n", "MemTotal: many kB\n", "MemTotal: 5\n", "MemTotal: 18446744073709551615 kB\n"]
        {
            assert_eq!(parse_meminfo(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn slots_follow_cores_and_memory() {
        const KIB: u32 = 65_536;
        for (configured, cores, limit, expected) in [
            (0, 2, None, 2),
            (0, 64, None, 4),
            (0, 1, Some(1 << 40), 1),
            (0, 4, Some(1024 * MIB), 4),
            (0, 4, Some(1024 * MIB - 1), 3),
            (0, 4, Some(512 * MIB), 2),
            (0, 4, Some(256 * MIB), 1),
            (0, 4, Some(1), 1),
            (0, 4, Some(0), 1),
            (7, 2, Some(256 * MIB), 7),
            (1, 64, None, 1),
        ] {
            assert_eq!(slots(configured, KIB, cores, limit), expected, "{configured} {cores} {limit:?}");
        }
        assert_eq!(slots(0, 0, 4, Some(MIB)), 4);
        assert_eq!(slots(0, u32::MAX, 4, Some(u64::MAX)), 4);
    }

    #[test]
    fn this_machine_answers() {
        let limit = memory_limit().unwrap();
        assert!(limit > 0 && limit <= total_memory().unwrap());
        assert!((1..=4).contains(&hashing_slots(0, 65_536)));
        assert_eq!(hashing_slots(9, 65_536), 9);
        let open_files = raise_open_files();
        assert_eq!(open_files, raise_open_files());
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
    }

    #[test]
    fn core_dumps_are_off() {
        no_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
