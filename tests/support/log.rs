//! Everything a server wrote to standard error, line by line, as it comes.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::PATIENCE;

/// The log of an instance, over all its runs.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    writers: usize,
}

impl Log {
    /// Keeps every line of `from`, in a thread of its own.
    pub fn follow(self: &Arc<Self>, from: impl Read + Send + 'static) {
        self.lines.lock().unwrap().writers += 1;
        let log = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                log.lines.lock().unwrap().lines.push(text);
                log.changed.notify_all();
                line.clear();
            }
            log.lines.lock().unwrap().writers -= 1;
            log.changed.notify_all();
        });
    }

    /// How many lines there are: what to give to [`Log::since`] and [`Log::wait_since`] later.
    pub fn mark(&self) -> usize {
        self.lines.lock().unwrap().lines.len()
    }

    /// All lines.
    pub fn lines(&self) -> Vec<String> {
        self.since(0)
    }

    /// The lines after a mark.
    pub fn since(&self, mark: usize) -> Vec<String> {
        self.lines.lock().unwrap().lines[mark..].to_vec()
    }

    /// All lines as one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The last lines, for a failure's story.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Waits until a line after the mark has all of the words in it; none if nobody is left to write it.
    pub fn find_since(&self, mark: usize, words: &[&str]) -> Option<String> {
        let begun = Instant::now();
        let mut lines = self.lines.lock().unwrap();
        loop {
            let found = lines.lines[mark..].iter().find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(line) = found {
                return Some(line.clone());
            }
            let left = PATIENCE.checked_sub(begun.elapsed())?;
            if lines.writers == 0 {
                return None;
            }
            lines = self.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for such a line after the mark, and insists on it.
    #[track_caller]
    pub fn wait_since(&self, mark: usize, words: &[&str]) -> String {
        let found = self.find_since(mark, words);
        found.unwrap_or_else(|| panic!("no log line has {words:?}; the log's end:\n{}", self.tail()))
    }

    /// Waits for such a line, wherever in the log.
    #[track_caller]
    pub fn wait(&self, words: &[&str]) -> String {
        self.wait_since(0, words)
    }

    /// Waits until nobody is left to write: everything a process that ended has said is here then.
    pub fn wait_for_the_end(&self) {
        let begun = Instant::now();
        let mut lines = self.lines.lock().unwrap();
        while lines.writers > 0 {
            let left = PATIENCE.checked_sub(begun.elapsed()).expect("somebody still holds the log open");
            lines = self.changed.wait_timeout(lines, left).unwrap().0;
        }
    }
}
