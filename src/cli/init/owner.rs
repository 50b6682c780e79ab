//! The user that the server runs as on an installed system.

use std::fs;

use crate::cli::term::Failure;

/// The user's and the group's name.
pub const NAME: &str = "mcias";

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The user and group `mcias`.
///
/// # Errors
/// Unless we are root and both exist.
pub fn of_system() -> Result<Owner, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("--system needs root"));
    }
    let read = |path: &str| fs::read_to_string(path).map_err(|e| Failure::new(format!("{path}: {e}")));
    find(&read("/etc/passwd")?, &read("/etc/group")?).ok_or_else(|| {
        Failure::new(format!("--system needs the user and the group '{NAME}', and this system has none"))
    })
}

/// Reads passwd(5) and group(5): only local users count, since the server must start without a directory service.
fn find(passwd: &str, group: &str) -> Option<Owner> {
    let number = |file: &str| {
        let line = file.lines().find_map(|line| line.strip_prefix(NAME)?.strip_prefix(':'))?;
        line.split(':').nth(1)?.parse().ok()
    };
    Some(Owner { uid: number(passwd)?, gid: number(group)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/:/bin/sh\nmcias2:x:7:7::/:/bin/sh\nmcias:x:998:997::/var/lib/mcias:/bin/false\n";
        let group = "root:x:0:\nmcias:x:996:bob\n";
        assert_eq!(find(passwd, group), Some(Owner { uid: 998, gid: 996 }));
        assert_eq!(find(passwd, "root:x:0:\n"), None);
        assert_eq!(find("", group), None);
        assert_eq!(find("mcias:x:many:1::\n", group), None);
    }
}
