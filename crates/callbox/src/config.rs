//! `callbox config`: the whole effective configuration and where each value comes from.

use crate::{context::Context, error::CliError, operator::ConfigArgs, output, terminal::DIM};

/// Print the effective configuration
///
/// Every value with its source: the embedded defaults, the file, or the environment. Secrets are
/// never in it: a configuration only says where they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  callbox config
  callbox config --config callbox.toml --json
  callbox config --defaults > callbox.toml        the commented defaults, to start from")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the commented file of defaults instead
    #[arg(long, conflicts_with = "json")]
    defaults: bool,
}

/// Prints it; fails if the dispatcher would refuse it.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    if args.defaults {
        return output::text(callbox_server::config::DEFAULTS);
    }
    let lines = args.config.load()?.lines();
    if args.json {
        return output::json(&lines);
    }
    let width = lines.iter().map(|line| line.key.len() + line.value.len() + 3).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let value = format!("{} = {}", line.key, line.value);
        let source = context.look.paint(DIM, format!("# {}", line.source));
        text.push_str(&format!("{value:<width$}  {source}\n", width = width.min(60)));
    }
    output::text(&text)
}
