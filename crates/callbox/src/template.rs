//! `callbox template`: what clones are made of.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use callbox_machines::{BotVersion, Local, Progress, Provider as _};
use callbox_server::config::Config;
use serde::Serialize;

use crate::{
    context::Context,
    error::CliError,
    operator::{ConfigArgs, create_data_dir, host_config},
    output,
    stages::Stages,
};

/// List, bake and remove templates
///
/// A template is a machine in which the bot was prepared and that was frozen then; clones of it
/// start in a fraction of a second. A dispatcher bakes what its bots need when it starts. These
/// commands look at them, do it beforehand, and free their place; they work beside a running
/// dispatcher, too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  callbox template list
  callbox template bake                  for all bots of the configuration
  callbox template bake --bot parrot
  callbox template rm 4f1c9a2b
  callbox template rm --unused           all that no bot of the configuration needs")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List templates
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the templates that bots need, where they are not there
    Bake {
        /// Only of this bot
        #[arg(long)]
        bot: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove templates. Clones that live go on
    Rm {
        /// Its id, or how it begins
        #[arg(required_unless_present = "unused")]
        id: Option<String>,
        /// All that no bot of the configuration needs
        #[arg(long, conflicts_with = "id")]
        unused: bool,
    },
}

#[derive(Serialize)]
struct Shown {
    id: String,
    /// The bots of the configuration that start from it.
    bots: Vec<String>,
    /// Digest of the image that it is of.
    image: String,
    memory_mib: u64,
    disk_bytes: u64,
    baked_at_ms: u64,
    /// Machines that are clones of it now.
    clones: usize,
    /// Whether this host, as it is now, can clone it.
    usable: bool,
}

/// Does it.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let config = args.config.load()?.config;
    create_data_dir(&config.data_dir)?;
    let quiet = context.quiet()
        || matches!(args.command, Command::List { json: true } | Command::Bake { json: true, .. });
    let stages = Stages::new(quiet);
    stages.begin("opening this host");
    let local = Local::open(host_config(&config)).await;
    stages.finish();
    let local = local.map_err(|fault| CliError::Host(fault.detail))?;
    match args.command {
        Command::List { json } => {
            let shown = all(&local, &config).await?;
            if json { output::json(&shown) } else { output::text(&picture(&shown)) }
        }
        Command::Bake { bot, json } => bake(&local, &config, bot.as_deref(), json, &stages).await,
        Command::Rm { id, unused } => remove(&local, &config, id.as_deref(), unused).await,
    }
}

async fn all(local: &Local, config: &Config) -> Result<Vec<Shown>, CliError> {
    let mut bots: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for bot in config.bots.values().filter(|bot| bot.provider == "local") {
        // A bot whose image is not there has no template either.
        if let Ok(Some(id)) = local.template_of(&bot.machine, None).await {
            bots.entry(id).or_default().push(bot.name.clone());
        }
    }
    let host = local.host();
    let failed = |error: &dyn std::error::Error| CliError::Host(crate::error::chain(error));
    let found = host.templates().map_err(|e| failed(&e))?;
    let mut shown = Vec::new();
    for template in found {
        let clones = host.clones_of(template.id()).map_err(|e| failed(&e))?;
        shown.push(Shown {
            id: template.id().to_owned(),
            bots: bots.remove(template.id()).unwrap_or_default(),
            image: template.facts().manifest.image.clone(),
            memory_mib: template.disk_bytes() >> 20,
            disk_bytes: template.disk_bytes(),
            baked_at_ms: template.facts().baked_at_ms,
            clones,
            usable: host.can_clone(&template),
        });
    }
    Ok(shown)
}

fn picture(shown: &[Shown]) -> String {
    let mut text = format!("{:<14}{:<20}{:>9}{:>8}{:>8}  \n", "ID", "BOTS", "MIB", "AGE", "CLONES");
    for one in shown {
        let bots = if one.bots.is_empty() { "-".to_owned() } else { one.bots.join(",") };
        let note = if one.usable { "" } else { "of another qemu, kernel or agent" };
        let line = format!(
            "{:<14}{bots:<20}{:>9}{:>8}{:>8}  {note}",
            &one.id[..12.min(one.id.len())],
            one.memory_mib,
            age(one.baked_at_ms),
            one.clones
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if shown.is_empty() {
        text.push_str("no templates; `callbox template bake` makes those that the bots need\n");
    }
    text
}

fn age(baked_at_ms: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs().saturating_sub(baked_at_ms / 1000);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

async fn bake(
    local: &Local,
    config: &Config,
    only: Option<&str>,
    json: bool,
    stages: &Stages,
) -> Result<(), CliError> {
    if let Some(name) = only.filter(|name| !config.bots.contains_key(*name)) {
        let known: Vec<&str> = config.bots.keys().map(String::as_str).collect();
        return Err(CliError::Usage(format!(
            "there is no bot {name:?} in the configuration; it has {}",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        )));
    }
    let bots = config.bots.values().filter(|bot| bot.provider == "local");
    for bot in bots.filter(|bot| only.is_none_or(|name| name == bot.name)) {
        // Of the image as it is now.
        let now = BotVersion { bot: Arc::clone(&bot.machine), version: None };
        let baked = local.prepare(&now, &Baking { bot: &bot.name, stages }).await;
        stages.finish();
        baked.map_err(|error| CliError::Host(format!("bot {:?}: {error}", bot.name)))?;
    }
    let shown = all(local, config).await?;
    if json { output::json(&shown) } else { output::text(&picture(&shown)) }
}

async fn remove(
    local: &Local,
    config: &Config,
    id: Option<&str>,
    unused: bool,
) -> Result<(), CliError> {
    let shown = all(local, config).await?;
    let wanted: Vec<&Shown> = match id {
        Some(id) => shown.iter().filter(|one| one.id.starts_with(id)).collect(),
        None => shown.iter().filter(|one| unused && one.bots.is_empty()).collect(),
    };
    if let Some(id) = id {
        match wanted.len() {
            1 => {}
            0 => return Err(CliError::Usage(format!("there is no template {id:?}"))),
            count => {
                return Err(CliError::Usage(format!("{count} templates begin with {id:?}")));
            }
        }
    }
    for template in wanted {
        let removed = local.host().remove_template(&template.id).await;
        removed.map_err(|error| CliError::Host(crate::error::chain(&error)))?;
        output::text(&format!("removed {}\n", template.id))?;
    }
    Ok(())
}

struct Baking<'a> {
    bot: &'a str,
    stages: &'a Stages,
}

impl Progress for Baking<'_> {
    fn stage(&self, name: &str) {
        self.stages.begin(&format!("{}: {name}", self.bot));
    }
}
