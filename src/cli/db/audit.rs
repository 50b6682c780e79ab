//! `mciasdb audit …`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::newfile::NewFile;
use super::progress::Progress;
use super::{CONFIG, Command, Failure, Flag, JSON, Opened, Parsed, command};
use crate::cli::{given, show, term};
use crate::model::account::{AccountId, Page, Username};
use crate::model::audit::EventFilter;
use crate::model::time::Timestamp;
use crate::service::audit::{self, Out};
use crate::store::EventRow;
use crate::wire::json::Answer;

const N: Flag = Flag::value("n", "N", "how many at most; 50 without it");

pub(super) const TAIL: Command = Command {
    notes: &["The newest event comes last."],
    flags: &[N, JSON],
    ..command("audit tail", "show the newest events", "--config mcias.conf audit tail --n 20", tail)
};

pub(super) const QUERY: Command = Command {
    notes: &["Of the events that fit all that is given, the newest; the newest of them comes last."],
    flags: &[
        Flag::value("account", "A", "with this account as actor or target, by UUID or username"),
        Flag::value("type", "T", "of this type, e.g. login_fail"),
        Flag::value("since", "TIME", "not older than this, e.g. 2026-11-21T12:00:00Z"),
        N,
        JSON,
    ],
    ..command(
        "audit query",
        "show the events of an account, a type or a time",
        "--config mcias.conf audit query --account alice --type login_fail",
        query,
    )
};

pub(super) const VERIFY: Command = Command {
    notes: &[
        "Walks all events and checkpoints, and names the first thing that doesn't fit; exit code 1 then. Events after \
         the last checkpoint are counted as not yet anchored.",
        "With --file and --jwk it verifies an export or an archive, and needs neither --config nor a database.",
    ],
    flags: &[
        Flag { required: false, ..CONFIG },
        Flag::value("file", "FILE", "verify this export, not the database"),
        Flag::value("jwk", "FILE", "what 'audit key' has printed: a file of it, or the JSON itself"),
    ],
    ..command(
        "audit verify",
        "verify the log, or an export of it",
        "audit verify --file audit.jsonl --jwk audit.jwk",
        verify,
    )
};

pub(super) const EXPORT: Command = Command {
    notes: &["An event a line, and last a checkpoint that is signed now; 'audit verify --file' verifies it. After an \
         archive the first line is its anchor. With --out it prints the number of events. A log that doesn't verify \
         isn't exported."],
    flags: &[Flag::value("out", "FILE", "write to this file, which must not be there; else to standard output")],
    ..command(
        "audit export",
        "write out all events, signed",
        "--config mcias.conf audit export --out audit.jsonl",
        export,
    )
};

pub(super) const ARCHIVE: Command = Command {
    notes: &[
        "Takes the events before the first one that isn't older than --before. Once they are safely in the file they \
         leave the database, and an anchor stands for them: keep the file. Prints their number. Interrupted, it leaves \
         all events where they are, or the anchor and the whole file. While the events leave, what a running server \
         writes has to wait.",
    ],
    flags: &[
        Flag::value("before", "TIME", "what is older goes, e.g. 2026-01-01T00:00:00Z").required(),
        Flag::value("out", "FILE", "write to this file, which must not be there").required(),
    ],
    ..command(
        "audit archive",
        "move old events to a signed file",
        "--config F audit archive --before 2026-01-01T00:00:00Z --out F",
        archive,
    )
};

pub(super) const KEY: Command = Command {
    notes: &[
        "As a JWK. Where the audit key was rotated it is a JWK Set, the one that signs now first, since older files \
         are signed by older keys; a revoked key isn't in it. 'audit verify --jwk' takes either.",
    ],
    ..command("audit key", "print the audit public key", "--config mcias.conf audit key", key)
};

fn tail(parsed: &Parsed) -> Result<(), Failure> {
    let n = given::count(parsed, "n", 50)?;
    let opened = Opened::open(parsed)?;
    show(newest(&opened, &EventFilter::default(), n)?, parsed.switch("json"))
}

/// Shows what can be read, and names the first that can't.
fn show(rows: Vec<EventRow>, json: bool) -> Result<(), Failure> {
    let bad = rows.iter().find(|row| row.event.is_none()).map(|row| row.id);
    show::events(&rows.into_iter().filter_map(|row| row.event).collect::<Vec<_>>(), json)?;
    match bad {
        None => Ok(()),
        Some(id) => Err(Failure::new(format!("{}: 'mciasdb audit verify'", audit::unreadable(id)))),
    }
}

fn query(parsed: &Parsed) -> Result<(), Failure> {
    let n = given::count(parsed, "n", 50)?;
    let mut filter = EventFilter {
        event_type: given::event_type(parsed, "type")?,
        since: given::time(parsed, "since")?,
        ..EventFilter::default()
    };
    let opened = Opened::open(parsed)?;
    filter.account = parsed.text("account")?.map(|named| account(&opened, named)).transpose()?;
    // One more, to be able to say so.
    let mut events = newest(&opened, &filter, n.saturating_add(1))?;
    if events.len() > n {
        events.remove(0);
        term::err(&format!("mciasdb: there are more that fit; these are the newest {n}, --n shows more\n"));
    }
    show(events, parsed.switch("json"))
}

/// The account of that UUID or name, deleted ones among them: the log remembers them.
fn account(opened: &Opened, named: &str) -> Result<AccountId, Failure> {
    let found = opened.service.store().snapshot(|view| {
        if let Some(id) = AccountId::parse(&named.to_ascii_lowercase()) {
            return view.account(id);
        }
        let Ok(name) = Username::parse(named) else { return Ok(None) };
        match view.account_named(&name)? {
            None => view.deleted_account_named(&name),
            found => Ok(found),
        }
    })?;
    let none = || Failure::new("no such account; 'mciasdb account list --all' shows those there are");
    found.map(|account| account.id).ok_or_else(none)
}

/// The newest `n` that fit, oldest first.
fn newest(opened: &Opened, filter: &EventFilter, n: usize) -> Result<Vec<EventRow>, Failure> {
    let mut events = Vec::new();
    let mut cursor = None;
    while events.len() < n {
        let limit = u32::try_from(n - events.len()).map_or(Page::MAX_LIMIT, |left| left.min(Page::MAX_LIMIT));
        let filter = EventFilter { page: Page { limit, cursor }, ..filter.clone() };
        let listing = audit::list_rows(&opened.service, &opened.call(), &opened.admin(), filter)?;
        events.extend(listing.rows);
        cursor = listing.next;
        if cursor.is_none() {
            break;
        }
    }
    events.reverse();
    Ok(events)
}

fn verify(parsed: &Parsed) -> Result<(), Failure> {
    match (parsed.value("file"), parsed.value("jwk")) {
        (Some(file), Some(jwk)) => return verify_file(Path::new(file), Path::new(jwk)),
        (Some(_), None) => return Err(parsed.usage("--jwk FILE is missing: --file needs the audit key").into()),
        (None, Some(_)) => return Err(parsed.usage("--file FILE is missing: --jwk is for verifying a file").into()),
        (None, None) if !parsed.switch(CONFIG.name) => {
            return Err(parsed.usage(format!("{} is missing", CONFIG.shown())).into());
        }
        (None, None) => {}
    }
    let opened = Opened::open(parsed)?;
    let mut progress = Progress::of("verifying");
    let report = audit::verify_log(&opened.service, &mut |done, total| progress.tell(done, total))?;
    drop(progress);
    if let Some(fault) = report.fault {
        return Err(Failure::new(format!("the audit log doesn't verify: {fault}")));
    }
    let mut text = format!("{} and {} fit\n", count(report.rows, "event"), count(report.checkpoints, "checkpoint"));
    if report.not_anchored > 0 {
        text.push_str(&format!("{} not yet anchored\n", count(report.not_anchored, "event")));
    }
    term::out(&text)
}

pub(super) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// More than any set of keys takes, in bytes.
const MAX_KEYS: u64 = 64 * 1024;

fn verify_file(file: &Path, jwk: &Path) -> Result<(), Failure> {
    let inline = jwk.to_str().filter(|text| text.trim_start().starts_with('{'));
    let keys = match inline {
        Some(text) => audit::read_keys(text).map_err(|e| Failure::new(format!("--jwk: {e}")))?,
        None => {
            let mut text = String::new();
            let read = File::open(jwk).and_then(|opened| opened.take(MAX_KEYS + 1).read_to_string(&mut text));
            match read {
                Err(e) => return Err(at(jwk, &e.to_string())),
                Ok(length) if length as u64 > MAX_KEYS => return Err(at(jwk, "is over 64 KiB")),
                Ok(_) => {}
            }
            audit::read_keys(&text).map_err(|e| at(jwk, &e))?
        }
    };
    let opened = File::open(file).map_err(|e| at(file, &e.to_string()))?;
    let report = audit::verify_file(BufReader::new(opened), &keys).map_err(|e| at(file, &e))?;
    let mut text = format!("{} fit", count(report.events, "event"));
    if report.archived > 0 {
        text.push_str(&format!(", after {} that were archived before", report.archived));
    }
    term::out(&format!("{text}; signed {}\n", Timestamp::new(report.checkpoint.time)))
}

fn at(path: &Path, what: &str) -> Failure {
    Failure::new(format!("{}: {what}", path.display()))
}

fn export(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let Some(path) = parsed.value("out") else { return export_to_stdout(&opened) };
    let mut progress = Progress::of("exporting");
    let mut file = NewFile::begin(Path::new(path), opened.folder())?;
    let events = audit::export(
        &opened.service,
        &mut Out { line: &mut |line| file.line(line), progress: &mut |done, total| progress.tell(done, total) },
    )?;
    drop(progress);
    file.put()?;
    term::out(&format!("{events}\n"))
}

fn export_to_stdout(opened: &Opened) -> Result<(), Failure> {
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
        if text.len() < 1 << 16 { Ok(()) } else { term::out(&std::mem::take(&mut text)) }
    };
    // No progress: it may be one terminal for both.
    audit::export(&opened.service, &mut Out { line: &mut line, progress: &mut |_, _| {} })?;
    term::out(&text)
}

fn archive(parsed: &Parsed) -> Result<(), Failure> {
    let before = given::required(parsed, "before", given::time)?;
    let path = Path::new(parsed.value("out").unwrap_or_default());
    let opened = Opened::open(parsed)?;
    let mut progress = Progress::of("archiving");
    let mut file = NewFile::begin(path, opened.folder())?;
    let draft = audit::write_archive(
        &opened.service,
        before,
        &mut Out { line: &mut |line| file.line(line), progress: &mut |done, total| progress.tell(done, total) },
    )?;
    drop(progress);
    let events = draft.events();
    file.put()?;
    audit::replace_archived(&opened.service, &opened.call(), &opened.admin(), draft).map_err(|e| {
        // The file stays: whether a transaction that ended in trouble counts isn't always known.
        Failure::new(format!("{e}; {} is complete, but its events may still be in the database, too", path.display()))
    })?;
    term::out(&format!("{events}\n"))
}

fn key(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let mut keys = audit::public_keys(&opened.service)?;
    let reply = match keys.0.len() {
        1 => keys.0.remove(0).reply(),
        _ => keys.reply(),
    };
    term::out(&format!("{}\n", reply.into_text().unwrap_or_default()))
}
