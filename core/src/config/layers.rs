//! Layers of entries, each of which knows where it came from.

use std::{collections::BTreeMap, path::Path};

use toml::{Table, Value, de::DeTable};

use super::{Config, ConfigError, ENV_PREFIX};

/// Entries by section and key; later ones replace earlier ones.
#[derive(Debug, Default)]
pub(super) struct Layers {
    entries: Table,
    /// What set each `section.key`.
    origins: BTreeMap<String, String>,
}

impl Layers {
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        let line_at = |place: usize| 1 + text[..place].matches('\n').count();
        let syntax = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_at(span.start));
            ConfigError::Syntax { path: path.to_owned(), line, reason: error.message().to_owned() }
        };
        let table: Table = toml::from_str(&text).map_err(syntax)?;
        // The same document again, for the places of its keys.
        let places = DeTable::parse(&text).map_err(syntax)?;
        let mut lines = BTreeMap::new();
        for (section, content) in places.get_ref() {
            let name = section.get_ref();
            lines.insert(name.to_string(), line_at(section.span().start));
            for (key, _) in content.get_ref().as_table().into_iter().flatten() {
                lines.insert(format!("{name}.{}", key.get_ref()), line_at(key.span().start));
            }
        }
        let origin = |key: &str| format!("{}:{}", path.display(), lines.get(key).copied().unwrap_or(1));
        for (section, content) in table {
            match content {
                Value::Table(keys) if !keys.is_empty() => {
                    for (key, value) in keys {
                        let path = format!("{section}.{key}");
                        self.add(&section, &key, &[value], origin(&path))?;
                    }
                }
                // An empty section has a right to be there; nothing else may stand beside the sections.
                other => {
                    let alone = Table::from_iter([(section.clone(), other)]);
                    let checked = alone.try_into::<Config>();
                    checked.map_err(|error| entry_error(origin(&section), &section, &error))?;
                }
            }
        }
        Ok(())
    }

    /// Takes `STAR_SECTION__KEY`, and passes over all other variables.
    pub(super) fn add_variable(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let Some((section, key)) = name.strip_prefix(ENV_PREFIX).and_then(|rest| rest.split_once("__")) else {
            return Ok(());
        };
        let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        self.add(&section, &key, &values(text), format!("environment variable {name}"))
    }

    pub(super) fn add_override(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let origin = "command line".to_owned();
        let Some((section, key)) = path.split_once('.') else {
            let reason = "a key is written as section.key, such as limits.key_bytes_max".to_owned();
            return Err(ConfigError::Entry { origin, key: path.to_owned(), reason });
        };
        self.add(section, key, &values(text), origin)
    }

    /// Sets an entry to the first of `values` that it can have.
    fn add(&mut self, section: &str, key: &str, values: &[Value], origin: String) -> Result<(), ConfigError> {
        let path = format!("{section}.{key}");
        let mut first_error = None;
        for value in values {
            let keys = Table::from_iter([(key.to_owned(), value.clone())]);
            let alone = Table::from_iter([(section.to_owned(), Value::Table(keys.clone()))]);
            match alone.try_into::<Config>() {
                Ok(_) => {
                    let content = self.entries.entry(section).or_insert_with(|| Value::Table(Table::new()));
                    content.as_table_mut().expect("only tables are put in").extend(keys);
                    self.origins.insert(path, origin);
                    return Ok(());
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(()), |error| Err(entry_error(origin, &path, &error)))
    }

    /// All layers as one.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        let all = self.entries.clone().try_into::<Config>();
        all.map_err(|error| entry_error("all layers together".to_owned(), "configuration", &error))
    }

    /// An error about a key, with what set it.
    pub(super) fn error(&self, key: &str, reason: String) -> ConfigError {
        let origin = self.origins.get(key).cloned().unwrap_or_else(|| "default value".to_owned());
        ConfigError::Entry { origin, key: key.to_owned(), reason }
    }
}

/// What a bare text can mean: a TOML value, or a string without its quotes.
fn values(text: &str) -> Vec<Value> {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
    let parsed = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    parsed.into_iter().chain([Value::String(text.to_owned())]).collect()
}

fn entry_error(origin: String, key: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Entry { origin, key: key.to_owned(), reason: error.message().to_owned() }
}
