//! A strict reader of TOML tables: every key is asked for by name, what is left over is an error, and every
//! error knows its line.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place, nearest};
use super::value::Value;

/// The text that is read and where it came from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Source<'_> {
    fn place(self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Place { file: self.file.to_owned(), line: Some(before.matches('\n').count() + 1) }
    }
}

/// One table; `path` is its name in the document, with a dot at the end unless it is the root.
pub struct Section<'a> {
    source: Source<'a>,
    path: String,
    offset: usize,
    table: DeTable<'a>,
    known: Vec<&'static str>,
}

/// A value whose type is not decided yet.
pub struct Entry<'a> {
    source: Source<'a>,
    key: String,
    value: Spanned<DeValue<'a>>,
}

/// Reads a whole file; `None` if there is none.
pub fn read_file(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// The files of a directory that end in `.toml`, in order of their names; none if it does not exist.
pub fn toml_files(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl<'a> Section<'a> {
    pub fn parse(source: Source<'a>) -> Result<Self, ConfigError> {
        match DeTable::parse(source.text) {
            Ok(root) => {
                let table = root.into_inner();
                Ok(Self { source, path: String::new(), offset: 0, table, known: Vec::new() })
            }
            Err(error) => Err(ConfigError::Syntax {
                place: source.place(error.span().map_or(0, |span| span.start)),
                message: error.message().replace('\n', "; "),
            }),
        }
    }

    /// The value of a key, not yet typed.
    pub fn entry(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        Some(Entry { source: self.source, key: format!("{}{key}", self.path), value })
    }

    pub fn optional<T: Value>(&mut self, key: &'static str) -> Result<Option<T>, ConfigError> {
        self.entry(key).map(|entry| entry.read()).transpose()
    }

    pub fn required<T: Value>(&mut self, key: &'static str) -> Result<T, ConfigError> {
        self.optional(key)?.ok_or_else(|| self.missing(key, T::expected()))
    }

    pub fn section(&mut self, key: &'static str) -> Result<Option<Section<'a>>, ConfigError> {
        self.entry(key).map(Entry::section).transpose()
    }

    /// A key that had to be there.
    pub fn missing(&self, key: &str, expected: String) -> ConfigError {
        let place = if self.path.is_empty() {
            Place { file: self.source.file.to_owned(), line: None }
        } else {
            self.source.place(self.offset)
        };
        ConfigError::Missing { place, key: format!("{}{key}", self.path), expected }
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), ConfigError> {
        match self.table.iter().min_by_key(|(key, _)| key.span().start) {
            None => Ok(()),
            Some((key, _)) => {
                let name = key.get_ref().as_ref();
                Err(ConfigError::UnknownKey {
                    place: self.source.place(key.span().start),
                    key: format!("{}{name}", self.path),
                    suggestion: nearest(name, self.known.iter().copied()),
                    allowed: self.known,
                })
            }
        }
    }
}

impl<'a> Entry<'a> {
    pub fn read<T: Value>(&self) -> Result<T, ConfigError> {
        T::read(self.value.get_ref()).ok_or_else(|| self.bad(T::expected()))
    }

    pub fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    /// The value as it was written.
    pub fn text(&self) -> &'a str {
        self.source.text.get(self.value.span()).unwrap_or_default()
    }

    pub fn section(self) -> Result<Section<'a>, ConfigError> {
        let offset = self.value.span().start;
        let DeValue::Table(table) = self.value.get_ref() else {
            return Err(self.bad("expected a table".to_owned()));
        };
        let table = table.clone();
        Ok(Section { source: self.source, path: format!("{}.", self.key), offset, table, known: Vec::new() })
    }

    /// The elements of an array.
    pub fn elements(self, expected: &str) -> Result<Vec<Entry<'a>>, ConfigError> {
        let DeValue::Array(array) = self.value.get_ref() else {
            return Err(self.bad(expected.to_owned()));
        };
        let element =
            |value: &Spanned<_>| Entry { source: self.source, key: self.key.clone(), value: value.clone() };
        Ok(array.into_iter().map(element).collect())
    }

    /// This value is not what was expected.
    pub fn bad(&self, expected: String) -> ConfigError {
        const SHOWN: usize = 60;
        let mut found: String = self.text().lines().next().unwrap_or_default().chars().take(SHOWN).collect();
        if found.len() < self.text().len() {
            found.push('…');
        }
        ConfigError::BadValue {
            place: self.source.place(self.value.span().start),
            key: self.key.clone(),
            found,
            expected,
        }
    }
}
