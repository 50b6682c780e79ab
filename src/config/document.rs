//! A TOML text that remembers where everything stands: tables and keys are looked up here, and every complaint names
//! the key, the file and the line.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Every table there may be, with every key it may have.
pub(super) type Schema = [(&'static str, &'static [&'static str])];

/// A text in which only tables and keys of the schema occur.
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    root: DeTable<'a>,
    schema: &'static Schema,
}

impl<'a> Document<'a> {
    /// Reads the text.
    ///
    /// # Errors
    /// Not TOML, a key set twice, a table or key that isn't in the schema.
    pub fn parse(text: &'a str, file: &'a Path, schema: &'static Schema) -> Result<Self, ConfigError> {
        let root = DeTable::parse(text).map_err(|e| {
            // Only the message: the rest of the error quotes the text.
            let at = e.span().map_or(text.len(), |span| span.start);
            broken(text, file, at, e.message())
        })?;
        let document = Self { file, text, root: root.into_inner(), schema };
        document.refuse_the_unknown()?;
        Ok(document)
    }

    /// The table of that name, there or not.
    pub fn table(&self, name: &'static str) -> Table<'_> {
        let found = self.root.get_key_value(name);
        let entries = found.and_then(|(_, value)| value.get_ref().as_table());
        // A table that isn't there would be added at the end.
        let line = found.map_or_else(|| self.text.lines().count().max(1), |(key, _)| self.line(key.span().start));
        Table { document: self, name, entries, line }
    }

    fn refuse_the_unknown(&self) -> Result<(), ConfigError> {
        for (name, table) in &self.root {
            let line = self.line(name.span().start);
            let known = self.schema.iter().find(|(known, _)| known == name.get_ref());
            let Some((table_name, keys)) = known else {
                let (place, what) = match table.get_ref() {
                    DeValue::Table(_) => (format!("[{}]", plain(name.get_ref())), "table"),
                    _ => (plain(name.get_ref()), "key outside any table"),
                };
                let tables: Vec<_> = self.schema.iter().map(|(name, _)| format!("[{name}]")).collect();
                let complaint = format!("unknown {what}; the tables are {}", tables.join(" "));
                return Err(ConfigError::at(self.file, line, &place, &complaint));
            };
            let Some(entries) = table.get_ref().as_table() else {
                let complaint = format!("must be a table, not {}", kind(table.get_ref()));
                return Err(ConfigError::at(self.file, line, &format!("[{table_name}]"), &complaint));
            };
            if let Some((key, _)) = entries.iter().find(|(key, _)| !keys.contains(&key.get_ref().as_ref())) {
                let place = format!("[{table_name}] {}", plain(key.get_ref()));
                let complaint = format!("unknown key; [{table_name}] has {}", keys.join(", "));
                return Err(ConfigError::at(self.file, self.line(key.span().start), &place, &complaint));
            }
        }
        Ok(())
    }

    fn line(&self, offset: usize) -> usize {
        line_of(self.text, offset)
    }
}

/// One table of a [`Document`].
pub(super) struct Table<'d> {
    document: &'d Document<'d>,
    name: &'static str,
    entries: Option<&'d DeTable<'d>>,
    line: usize,
}

impl<'d> Table<'d> {
    /// The key's value, read by `read`, or none if the key isn't there.
    ///
    /// # Errors
    /// What `read` complains about.
    pub fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.entry(key)
            .map(|value| read(value.get_ref()).map_err(|complaint| self.wrong_at(key, value, &complaint)))
            .transpose()
    }

    /// The key's value, read by `read`.
    ///
    /// # Errors
    /// The key isn't there, or what `read` complains about.
    pub fn required<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.optional(key, read)?.ok_or_else(|| self.wrong(key, "is required"))
    }

    /// The key's list, each element read by `read`; empty if the key isn't there.
    ///
    /// # Errors
    /// Not an array, or what `read` complains about, on the element's own line.
    pub fn list<T>(
        &self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(value) = self.entry(key) else { return Ok(Vec::new()) };
        let Some(elements) = value.get_ref().as_array() else {
            let complaint = format!("must be an array of strings, not {}", kind(value.get_ref()));
            return Err(self.wrong_at(key, value, &complaint));
        };
        elements
            .iter()
            .map(|element| read(element.get_ref()).map_err(|complaint| self.wrong_at(key, element, &complaint)))
            .collect()
    }

    /// A complaint about a key in its relation to others, on the key's line, or the table's if the key isn't there.
    pub fn wrong(&self, key: &str, complaint: &str) -> ConfigError {
        let line = match self.entries.and_then(|entries| entries.get_key_value(key)) {
            Some((key, _)) => self.document.line(key.span().start),
            None => self.line,
        };
        ConfigError::at(self.document.file, line, &format!("[{}] {key}", self.name), complaint)
    }

    /// A complaint about the table as a whole.
    pub fn wrong_table(&self, complaint: &str) -> ConfigError {
        ConfigError::at(self.document.file, self.line, &format!("[{}]", self.name), complaint)
    }

    fn wrong_at(&self, key: &str, value: &Spanned<DeValue<'_>>, complaint: &str) -> ConfigError {
        let line = self.document.line(value.span().start);
        ConfigError::at(self.document.file, line, &format!("[{}] {key}", self.name), complaint)
    }

    fn entry(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.entries.and_then(|entries| entries.get(key))
    }
}

/// A value's TOML type with its article, as in "must be a string, not an integer".
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A complaint about text that isn't TOML, naming the table and key that the place seems to belong to.
pub(super) fn broken(text: &str, file: &Path, offset: usize, complaint: &str) -> ConfigError {
    let complaint = format!("not valid TOML: {complaint}");
    ConfigError::at(file, line_of(text, offset), &neighbourhood(text, offset), &complaint)
}

/// Lines are counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// `[table] key` for a place in text that doesn't parse, as well as it can be told line by line; empty if it can't.
fn neighbourhood(text: &str, offset: usize) -> String {
    let (mut table, mut key) = (None, None);
    let last = line_of(text, offset);
    for (number, line) in (1..=last).zip(text.lines()) {
        let line = line.trim();
        if let Some(name) = header(line) {
            (table, key) = (Some(name), None);
        } else if let Some((name, _)) = line.split_once('=')
            && is_bare(name.trim())
        {
            key = Some(name.trim());
        } else if number == last {
            let word = line.split(|c: char| !is_bare_char(c)).next().unwrap_or_default();
            key = Some(word).filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())).or(key);
        }
    }
    let table = table.map(|name| format!("[{name}]"));
    [table.as_deref(), key].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The name in a line that is a table's header, closed or not.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim_start_matches('[');
    let end = inner.find([']', '#']).unwrap_or(inner.len());
    let name = inner.get(..end)?.trim();
    (inner.len() < line.len() && is_bare(name)).then_some(name)
}

fn is_bare(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_bare_char)
}

fn is_bare_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}

/// A key's name as it can stand in one line of a message.
fn plain(name: &str) -> String {
    if is_bare(name) { name.to_owned() } else { format!("{name:?}") }
}
