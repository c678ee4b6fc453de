//! Where the store is, as the configuration says it.

use std::{path::Path, str::FromStr as _, sync::Arc};

use sqlx::postgres::PgConnectOptions;

use super::{Postgres, Sqlite, Store, StoreError, types::doing};
use crate::config::secret::Secret;

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// In an SQLite file in the data directory.
    DataDir,
    /// In a PostgreSQL database, at this URL. It may hold a password.
    Postgres(Secret),
}

impl Address {
    /// What the key `store` says.
    ///
    /// # Errors
    /// What is wrong with it, without the text itself.
    pub(crate) fn parse(text: &str) -> Result<Address, String> {
        const FORM: &str = "leave it empty for SQLite in data_dir, or write \
                            postgres://user:password@host/database";
        if text.is_empty() {
            return Ok(Address::DataDir);
        }
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                PgConnectOptions::from_str(text).map_err(|error| {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    let cause = cause.unwrap_or_else(|| "it is no URL".to_owned());
                    format!(
                        "{cause}; {FORM} (in the password, characters like / @ # are written \
                         %2F %40 %23)"
                    )
                })?;
                Ok(Address::Postgres(Secret::new(text)))
            }
            Some((scheme, _)) => Err(format!("there is no store {scheme:?}; {FORM}")),
            None => Err(format!("it has no scheme; {FORM}")),
        }
    }

    /// Whether there is anything to open yet, as far as can be known without asking.
    pub fn may_be_there(&self, data_dir: &Path) -> bool {
        match self {
            Address::DataDir => file(data_dir).exists(),
            Address::Postgres(_) => true,
        }
    }

    /// Opens the store, and makes it if it is not there.
    ///
    /// # Errors
    /// When it cannot be reached or opened, or was used by a newer version.
    pub async fn open(&self, data_dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Address::DataDir => Arc::new(Sqlite::open(&file(data_dir)).await?),
            Address::Postgres(url) => {
                let options = PgConnectOptions::from_str(url.reveal());
                let options = options.map_err(doing("be found by its address"))?;
                Arc::new(Postgres::open(options).await?)
            }
        })
    }
}

fn file(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("callbox.db")
}

/// An address as it may be shown: without what may be a password.
pub(crate) fn shown(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://…"),
        None if text.is_empty() => String::new(),
        None => "…".to_owned(),
    }
}
