//! What `init` writes for people: the configuration file, and what to run next.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;

use super::Plan;
use super::files::Layout;
use super::owner;
use crate::cli::term::shell_word;

/// The port that REST listens on.
pub const REST_PORT: u16 = 8443;
const GRPC_PORT: u16 = 9443;

/// A short `mcias.conf` with every section the instance needs.
pub fn config(plan: &Plan) -> String {
    let layout = &plan.layout;
    let listen = plan.listen;
    let grpc = match plan.grpc {
        Some(grpc) => format!("grpc_addr = \"{grpc}\""),
        None => format!(
            "# gRPC is off without an address of its own.\n# grpc_addr = \"{}\"",
            SocketAddr::new(listen.ip(), GRPC_PORT)
        ),
    };
    let master = match &plan.passphrase {
        Some((variable, _)) => {
            format!(
                "# The passphrase that opens the database is in this environment variable.\npassphrase_env = {}",
                quoted(variable)
            )
        }
        None => {
            format!(
                "# Opens the database. Keep a copy where the database's copies are not.\nkeyfile = {}",
                path(layout, &layout.master_key)
            )
        }
    };
    format!(
        "# The configuration of this MCIAS instance. Relative paths start from this file's folder.

[server]
listen_addr = \"{listen}\"
{grpc}
tls_cert = {cert}
tls_key = {key}

[database]
path = {database}

[tokens]
# Stands in every token; tokens of a former issuer are refused.
issuer = {issuer}

[master_key]
{master}
{more}",
        more = plan.more,
        cert = path(layout, &layout.server_cert),
        key = path(layout, &layout.server_key),
        database = path(layout, &layout.database),
        issuer = quoted(&plan.issuer),
    )
}

/// A path as the file has it. Those below the configuration's folder are ours and plain, and so are the system's.
fn path(layout: &Layout, path: &Path) -> String {
    let shown = if layout.owner.is_some() { path } else { path.strip_prefix(layout.folder()).unwrap_or(path) };
    quoted(&shown.to_string_lossy())
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What to run next, as lines for a shell; the rest are comments, so that all of it can be pasted.
/// `has_unit` is whether systemd runs here and has got the unit from `install.sh`, which is for a whole system.
pub fn next_steps(plan: &Plan, program: &OsStr, has_unit: bool) -> String {
    let layout = &plan.layout;
    let word = |path: &Path| shell_word(path.as_os_str());
    let mut out = format!("# A new instance is in {}.\n", word(layout.folder()));
    let by_unit = has_unit && layout.owner.is_some();
    if let Some((variable, _)) = &plan.passphrase
        && by_unit
    {
        out.push_str(&format!(
            "# The server needs the passphrase: {variable}=... in /etc/mcias/env, for root alone to read.\n"
        ));
    } else if let Some((variable, _)) = &plan.passphrase {
        out.push_str(&format!("# The server needs the passphrase in its environment:\nexport {variable}\n"));
    }
    let start = format!("{} server --config {}", shell_word(program), word(&layout.config));
    let start = match layout.owner {
        Some(_) if by_unit => "systemctl enable --now mcias".to_owned(),
        Some(_) => format!("su -s /bin/sh {} -c {}", owner::NAME, shell_word(OsStr::new(&start))),
        None => start,
    };
    let ctl = format!(
        "{} ctl --server https://localhost:{REST_PORT} --cacert {}",
        shell_word(program),
        word(&layout.ca_cert)
    );
    out.push_str(&format!(
        "\n# Start the server:\n{start}\n\n\
         # The password of '{admin}' is in {password}. Log in, from another terminal, and look around:\n\
         {ctl} login --username {admin} --password-stdin --save <{password}\n\
         {ctl} account list\n",
        admin = plan.admin,
        password = word(&layout.admin_password),
    ));
    out
}
