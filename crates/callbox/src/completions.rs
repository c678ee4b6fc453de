//! `callbox completions`: for the shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::CliError;
use crate::output;

/// Print a shell's completion script
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  callbox completions bash > ~/.local/share/bash-completion/completions/callbox
  callbox completions zsh > \"${fpath[1]}/_callbox\"
  callbox completions fish > ~/.config/fish/completions/callbox.fish")]
pub struct Args {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Prints.
pub fn run(args: Args) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "callbox", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
