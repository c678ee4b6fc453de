//! Secrets: never shown, never written where others can read them.

use std::fmt;

use figment::value::Value;
use serde::{Deserialize, Deserializer, de::Error as _};

/// A text that must not be seen. Its only way out is [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps this text from view.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where the configuration says that a secret is. It never holds the secret itself, so that a
/// configuration file can be shown and shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// Path of a file whose content it is (a trailing newline is not part of it).
    File(std::path::PathBuf),
    /// Name of an environment variable of the dispatcher.
    Env(String),
}

impl<'de> Deserialize<'de> for SecretSource {
    /// By hand, because serde quotes what it cannot take, and that may be the secret itself.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretSource, D::Error> {
        let wrong = || {
            D::Error::custom(
                "a secret is written as { file = \"path\" } or { env = \"NAME\" }, never as itself",
            )
        };
        let value = <Value as Deserialize>::deserialize(deserializer).map_err(|_| wrong())?;
        let mut entries = value.into_dict().ok_or_else(wrong)?.into_iter();
        match (entries.next(), entries.next()) {
            (Some((key, Value::String(_, text))), None) if key == "file" => {
                Ok(SecretSource::File(text.into()))
            }
            (Some((key, Value::String(_, text))), None) if key == "env" => {
                Ok(SecretSource::Env(text))
            }
            _ => Err(wrong()),
        }
    }
}

impl SecretSource {
    /// Reads it.
    ///
    /// # Errors
    /// What could not be read, without the content.
    pub fn read(&self) -> Result<Secret, String> {
        let text = match self {
            SecretSource::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read the file {}: {error}", path.display()))?,
            SecretSource::Env(name) => std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set"))?,
        };
        Ok(Secret::new(text.strip_suffix('\n').unwrap_or(&text)))
    }
}
