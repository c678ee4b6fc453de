//! `callbox keys`: who may start sessions.

use callbox_server::{
    clock_text,
    keys::{self, KeyKind},
    store::KeyRecord,
};
use serde::Serialize;

use crate::{
    error::CliError,
    operator::{ConfigArgs, create_data_dir},
    output,
};

/// Make, list and revoke API keys
///
/// Works on the store directly, so it runs where the dispatcher's data is. A running dispatcher
/// knows a new key at once. While no key exists, a dispatcher serves on loopback without one;
/// the first key locks the door.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  callbox keys create --name page                    may only start sessions
  callbox keys create --private --name operations    may all
  callbox keys list
  callbox keys revoke 1a2b3c4d5e6f")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key; it is printed this once, only its hash is kept
    Create {
        /// What to call it
        #[arg(long, default_value = "")]
        name: String,
        /// A key that may all; without, one that may only start sessions
        #[arg(long)]
        private: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List keys
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key stop working
    Revoke {
        /// Its id: the third part of the key, and the first column of `callbox keys list`
        id: String,
    },
}

#[derive(Serialize)]
struct Shown {
    id: String,
    kind: String,
    name: String,
    created_at: String,
    revoked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Shown {
    fn of(record: KeyRecord) -> Shown {
        Shown {
            id: record.id,
            kind: record.kind,
            name: record.name,
            created_at: clock_text(record.created_at),
            revoked_at: record.revoked_at.map(clock_text),
            key: None,
        }
    }
}

/// Does it.
pub async fn run(args: Args) -> Result<(), CliError> {
    let config = args.config.load()?.config;
    let failed =
        |error: callbox_server::store::StoreError| CliError::Serve(crate::error::chain(&error));
    create_data_dir(&config.data_dir)?;
    let store = config.store.open(&config.data_dir).await.map_err(failed)?;
    match args.command {
        Command::Create { name, private, json } => {
            let kind = if private { KeyKind::Private } else { KeyKind::Public };
            let made = keys::create(&*store, kind, &name, callbox_server::now()).await;
            let (record, secret) = made.map_err(failed)?;
            if json {
                let key = Some(secret.reveal().to_owned());
                return output::json(&Shown { key, ..Shown::of(record) });
            }
            output::text(&format!("{}\n", secret.reveal()))
        }
        Command::List { json } => {
            let keys: Vec<Shown> =
                store.keys().await.map_err(failed)?.into_iter().map(Shown::of).collect();
            if json {
                return output::json(&keys);
            }
            let mut text = String::new();
            for key in keys {
                let revoked = if key.revoked_at.is_some() { "revoked" } else { "" };
                let Shown { id, kind, name, created_at, .. } = key;
                text.push_str(
                    format!("{id}  {kind:<7}  {created_at}  {name}  {revoked}").trim_end(),
                );
                text.push('\n');
            }
            output::text(&text)
        }
        Command::Revoke { id } => {
            if store.revoke_key(&id, callbox_server::now()).await.map_err(failed)? {
                return output::text(&format!("key {id} no longer works\n"));
            }
            Err(CliError::Usage(format!("there is no key {id:?} that works")))
        }
    }
}
