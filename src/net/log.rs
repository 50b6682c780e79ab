//! The log: one line an event to standard error, as text or JSON, at a level that can change while the server runs.
//!
//! A line is put together in memory and handed over in one `write`, so lines never mix, none is lost when the process
//! dies, and there is no thread or queue to flush. That is one system call of a microsecond or two for each request; a
//! reader that stops reading stops the server, which is what an operator who keeps logs asks for.
//!
//! Crates other than our own are heard only when they warn: what they write at the lower levels is theirs to choose,
//! and could be anything that came over the wire.

use std::fmt::{self, Display, Write as _};
use std::io::Write as _;
use std::net::IpAddr;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::error::{Error, Kind};
use crate::model::net::{LogFormat, LogLevel};
use crate::model::time::date_and_time;

/// The running log.
pub struct Log {
    level: Arc<AtomicU8>,
}

/// Starts the log of this process, once. Panics are logged from now on too, by place, and with their message only if
/// that is a fixed one: a made-up one may hold anything.
///
/// # Errors
/// If there is a log already.
pub fn start(format: LogFormat, level: LogLevel) -> Result<Log, String> {
    let (log, lines) = lines(format, level, |line: &[u8]| {
        // There is nobody to tell if standard error is gone.
        let _ = std::io::stderr().lock().write_all(line);
    });
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines)).map_err(|e| e.to_string())?;
    std::panic::set_hook(Box::new(panicked));
    Ok(log)
}

impl Log {
    /// From now on, this level.
    pub fn set_level(&self, level: LogLevel) {
        self.level.store(level as u8, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Writes the line of one request. Of the path, query excluded, everything that could be a token is left out; `status`
/// is HTTP's or gRPC's.
pub fn request(id: &str, method: &str, path: &str, status: u16, took: Duration, ip: IpAddr) {
    // Microseconds, as milliseconds with three places.
    let duration_ms = took.as_micros() as f64 / 1000.0;
    let method = if method.len() <= LONGEST_METHOD { method } else { "…" };
    tracing::info!(id, method, path = %LoggedPath(path), status, duration_ms, address = %ip, "request");
}

/// Writes what the client isn't told of a refusal.
pub fn refusal(id: &str, error: &Error) {
    match error.kind() {
        Kind::Internal => tracing::error!(id, cause = %error, "internal error"),
        Kind::Unavailable if error.log().is_some() => tracing::warn!(id, cause = %error, "unavailable"),
        _ => {}
    }
}

const LONGEST_METHOD: usize = 16;
const LONGEST_SEGMENT: usize = 64;
const LONGEST_PATH: usize = 512;

/// A path without what could be a secret: the query, segments that are too long, and what begins like a JWT.
struct LoggedPath<'a>(&'a str);

impl Display for LoggedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.split(['?', '#']).next().unwrap_or_default();
        let mut written = 0;
        for (n, segment) in path.split('/').enumerate() {
            if n > 0 {
                f.write_char('/')?;
            }
            let secret = segment.len() > LONGEST_SEGMENT || segment.starts_with("eyJ");
            written += segment.len() + 1;
            if written > LONGEST_PATH {
                return f.write_char('…');
            }
            f.write_str(if secret { "…" } else { segment })?;
        }
        Ok(())
    }
}

fn panicked(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
    tracing::error!(place, panic = message, "a thread panicked");
}

fn lines<W: Fn(&[u8])>(format: LogFormat, level: LogLevel, write: W) -> (Log, Lines<W>) {
    let level = Arc::new(AtomicU8::new(level as u8));
    (Log { level: level.clone() }, Lines { format, level, write })
}

struct Lines<W> {
    format: LogFormat,
    level: Arc<AtomicU8>,
    write: W,
}

impl<W> Lines<W> {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let ours =
            metadata.target().strip_prefix("mcias").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        metadata.is_event() && *metadata.level() <= self.filter() && (ours || *metadata.level() <= Level::WARN)
    }

    fn filter(&self) -> LevelFilter {
        match self.level.load(Ordering::Relaxed) {
            0 => LevelFilter::ERROR,
            1 => LevelFilter::WARN,
            2 => LevelFilter::INFO,
            3 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }
}

impl<S: Subscriber, W: Fn(&[u8]) + 'static> Layer<S> for Lines<W> {
    /// Asked again whenever the level changes, so that an event that isn't wanted costs one load and no call.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line { format: self.format, text: String::with_capacity(256) };
        line.begin(*event.metadata().level(), SystemTime::now());
        event.record(&mut line);
        line.end();
        (self.write)(line.text.as_bytes());
    }
}

/// One line in the making. Formatting into a `String` can't fail, but for a `Display` of somebody else's that gives
/// up; what it wrote until then stands.
struct Line {
    format: LogFormat,
    text: String,
}

impl Line {
    fn begin(&mut self, level: Level, now: SystemTime) {
        let time = OffsetDateTime::from(now);
        if self.format == LogFormat::Json {
            self.text.push_str(r#"{"time":""#);
        }
        self.text.push_str(str::from_utf8(&date_and_time(time)).unwrap_or_default());
        let _ = write!(self.text, ".{:03}Z", time.millisecond());
        let (text, json) = match level {
            Level::ERROR => ("ERROR", "error"),
            Level::WARN => ("WARN ", "warn"),
            Level::INFO => ("INFO ", "info"),
            Level::DEBUG => ("DEBUG", "debug"),
            Level::TRACE => ("TRACE", "trace"),
        };
        let _ = match self.format {
            LogFormat::Text => write!(self.text, " {text}"),
            LogFormat::Json => write!(self.text, r#"","level":"{json}""#),
        };
    }

    fn end(&mut self) {
        self.text.push_str(match self.format {
            LogFormat::Text => "\n",
            LogFormat::Json => "}\n",
        });
    }

    fn name(&mut self, field: &Field) {
        let (before, name, after) = match self.format {
            LogFormat::Text if field.name() == MESSAGE => (" ", "", ""),
            LogFormat::Text => (" ", field.name(), "="),
            LogFormat::Json => (",\"", field.name(), "\":"),
        };
        for part in [before, name, after] {
            self.text.push_str(part);
        }
    }

    /// A value that is a word as it stands: a number or a boolean.
    fn word(&mut self, field: &Field, value: impl Display) {
        self.name(field);
        let _ = write!(self.text, "{value}");
    }

    fn string(&mut self, field: &Field, value: &str) {
        self.name(field);
        let quoted = match self.format {
            LogFormat::Json => true,
            LogFormat::Text => field.name() != MESSAGE && !is_plain(value),
        };
        if quoted {
            self.text.push('"');
        }
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
            self.text.push_str(value);
        } else {
            value.chars().for_each(|c| self.escaped(c, quoted));
        }
        if quoted {
            self.text.push('"');
        }
    }

    fn escaped(&mut self, c: char, quoted: bool) {
        let _ = match c {
            '"' | '\\' if quoted => write!(self.text, "\\{c}"),
            '\n' => write!(self.text, "\\n"),
            '\r' => write!(self.text, "\\r"),
            '\t' => write!(self.text, "\\t"),
            c if is_hidden(c) && self.format == LogFormat::Json => write!(self.text, "\\u{:04x}", u32::from(c)),
            c if is_hidden(c) => write!(self.text, "\\u{{{:x}}}", u32::from(c)),
            c => self.text.write_char(c),
        };
    }
}

const MESSAGE: &str = "message";

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.word(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.word(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.word(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match self.format {
            LogFormat::Json if !value.is_finite() => self.word(field, "null"),
            _ => self.word(field, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.string(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.string(field, &text);
    }
}

/// Whether the value of a field can be read without quotes around it.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(|c| c.is_whitespace() || is_hidden(c) || matches!(c, '"' | '\\' | '='))
}

/// Control characters (C0, DEL, C1), line separators, and what turns the direction of writing.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What `say` logs at `level`, without the times.
    fn logged(format: LogFormat, level: LogLevel, say: impl FnOnce(&Log)) -> Vec<String> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = written.clone();
        let write = move |line: &[u8]| sink.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
        let (log, lines) = lines(format, level, write);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || say(&log));
        let lines = std::mem::take(&mut *written.lock().unwrap());
        let skipped = if format == LogFormat::Json { 33 } else { 24 };
        lines.iter().map(|line| line.strip_suffix('\n').unwrap()[skipped..].to_owned()).collect()
    }

    fn ip() -> IpAddr {
        "2001:db8::1".parse().unwrap()
    }

    #[test]
    fn a_request_is_one_line() {
        let say = |_: &Log| request("7", "GET", "/v1/accounts?x=1", 200, Duration::from_micros(1234), ip());
        assert_eq!(
            logged(LogFormat::Text, LogLevel::Info, say),
            [" INFO  request id=7 method=GET path=/v1/accounts status=200 duration_ms=1.234 address=2001:db8::1"]
        );
        assert_eq!(
            logged(LogFormat::Json, LogLevel::Info, say),
            [
                r#"","level":"info","message":"request","id":"7","method":"GET","path":"/v1/accounts","status":200,"duration_ms":1.234,"address":"2001:db8::1"}"#
            ]
        );
    }

    #[test]
    fn what_could_be_a_token_is_not_in_the_path() {
        let path = |text: &str| LoggedPath(text).to_string();
        assert_eq!(
            path("/v1/token/0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11"),
            "/v1/token/0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11"
        );
        assert_eq!(path("/v1/token/eyJhbGciOiJFZERTQSJ9.e30.x/y?eyJ"), "/v1/token/…/y");
        assert_eq!(path(&format!("/{}/{}", "a".repeat(64), "a".repeat(65))), format!("/{}/…", "a".repeat(64)));
        assert!(path(&"/a".repeat(8000)).len() < 600);
        assert_eq!(path("*"), "*");
        let odd = logged(LogFormat::Text, LogLevel::Info, |_| {
            request("1", &"EYJ".repeat(30), "/", 405, Duration::ZERO, ip());
        });
        assert!(odd[0].contains("method=… "));
    }

    #[test]
    fn nobody_can_write_a_line_of_their_own() {
        let nasty = "a\nb\r\t\u{1b}[31m\u{9b}\u{202e}\"\\ ä";
        let say = |_: &Log| tracing::warn!(field = nasty, word = "plain", empty = "", "{nasty}");
        assert_eq!(
            logged(LogFormat::Text, LogLevel::Info, say),
            [concat!(
                r#" WARN  a\nb\r\t\u{1b}[31m\u{9b}\u{202e}"\ ä"#,
                r#" field="a\nb\r\t\u{1b}[31m\u{9b}\u{202e}\"\\ ä" word=plain empty="""#
            )]
        );
        let json = logged(LogFormat::Json, LogLevel::Info, say);
        let read: serde_json::Value = serde_json::from_str(&format!("{{\"x\":\"{}", json[0])).unwrap();
        assert_eq!((read["message"].as_str(), read["field"].as_str()), (Some(nasty), Some(nasty)));
        assert!(!json[0].contains(|c: char| c.is_control()));
    }

    #[test]
    fn the_level_changes_at_run_time() {
        let lines = logged(LogFormat::Text, LogLevel::Warn, |log| {
            for level in [LogLevel::Warn, LogLevel::Debug, LogLevel::Error] {
                log.set_level(level);
                tracing::error!("one");
                tracing::warn!("two");
                tracing::debug!("three");
                tracing::trace!("four");
            }
        });
        let words: Vec<&str> = lines.iter().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(words, ["one", "two", "one", "two", "three", "one"]);
    }

    #[test]
    fn other_crates_are_heard_only_when_they_warn() {
        let lines = logged(LogFormat::Text, LogLevel::Trace, |_| {
            tracing::warn!(target: "h2", "a");
            tracing::info!(target: "h2::codec", "b");
            tracing::info!(target: "mciasx", "c");
            tracing::trace!(target: "mcias::rest", "d");
            tracing::trace_span!("e").in_scope(|| ());
        });
        assert_eq!(lines, [" WARN  a", " TRACE d"]);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let mut line = Line { format: LogFormat::Text, text: String::new() };
        line.begin(Level::INFO, SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_262_400_007));
        assert_eq!(line.text, "2026-11-21T12:00:00.007Z INFO ");
    }
}
