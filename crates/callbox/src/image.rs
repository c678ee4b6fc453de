//! `callbox image`: what machines start from.

use std::path::PathBuf;

use callbox_machines::local::{
    HostProgress,
    image::{BuildOptions, Image, ImageError, ImageStore, Recipe, Report, inspect},
};
use serde::Serialize;

use crate::{
    context::Context,
    error::CliError,
    operator::{ConfigArgs, create_data_dir},
    output,
    stages::Stages,
};

/// Build, import, list and inspect images
///
/// An image is a read-only file system with a bot in it. It comes from a recipe, or from a
/// container image saved as a file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  callbox image build images/parrot.toml
  docker save my-bot:1.2 > my-bot.tar && callbox image build my-bot.tar --name my-bot
  callbox image list
  callbox image inspect parrot")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an image from a recipe (.toml), a docker-archive, or an OCI layout. Needs root
    Build {
        /// The recipe or the archive
        from: PathBuf,
        /// Name of the image; a recipe has its own
        #[arg(long)]
        name: Option<String>,
        /// Build even if nothing has changed, for newer packages
        #[arg(long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List images and their versions
    ///
    /// An image that is built anew gets another version; a bot gets it with the next `callbox
    /// serve`, or with `callbox drain --bot NAME`. The earlier version stays for the calls and
    /// the dispatcher that have it, and the dispatcher removes it after the last of them.
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what is in an image and what could be better
    Inspect {
        /// Name of the image
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an image
    Remove {
        /// Name of the image
        name: String,
    },
}

#[derive(Serialize)]
struct Shown {
    name: String,
    /// What is in it and how its bot is started, as one hash.
    version: String,
    /// Of the root file system.
    digest: String,
    size_bytes: u64,
    created_at_ms: u64,
    rootfs: PathBuf,
    kept: bool,
    /// Whether the name means this one; an earlier one is kept for those who run from it.
    current: bool,
}

impl Shown {
    fn of(image: Image, kept: bool, current: bool) -> Shown {
        let version = image.version();
        let Image { name, digest, rootfs, size: size_bytes, created_at_ms, .. } = image;
        Shown { name, version, digest, size_bytes, created_at_ms, rootfs, kept, current }
    }
}

fn failed(error: ImageError) -> CliError {
    CliError::Image { text: crate::error::chain(&error), hint: error.hint() }
}

/// Does it. Everything blocks, so it has a thread of its own.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let data_dir = args.config.load()?.config.data_dir;
    create_data_dir(&data_dir)?;
    let quiet = context.quiet();
    let work = tokio::task::spawn_blocking(move || {
        let store = ImageStore::open(&data_dir).map_err(failed)?;
        match args.command {
            Command::Build { from, name, force, json } => {
                build(&store, from, name, force, json, quiet)
            }
            Command::List { json } => list(&store, json),
            Command::Inspect { name, json } => {
                let report = inspect(&store.get(&name).map_err(failed)?);
                if json { output::json(&report) } else { output::text(&picture(&report)) }
            }
            Command::Remove { name } => store.remove(&name).map_err(failed),
        }
    });
    work.await.expect("image commands do not panic")
}

fn build(
    store: &ImageStore,
    from: PathBuf,
    name: Option<String>,
    force: bool,
    json: bool,
    quiet: bool,
) -> Result<(), CliError> {
    let stages = Stages::new(quiet);
    let recipe = from.extension().is_some_and(|extension| extension == "toml");
    let (image, kept) = if recipe {
        let recipe = Recipe::read(&from).map_err(failed)?;
        if name.is_some_and(|name| name != recipe.name()) {
            return Err(CliError::Usage("a recipe has its own name; leave --name out".into()));
        }
        let built = store.build(&recipe, BuildOptions { force }, &stages).map_err(failed)?;
        (built.image, built.kept)
    } else {
        let name =
            name.ok_or_else(|| CliError::Usage("give the image a name: --name NAME".into()))?;
        (store.import(&from, &name, &stages).map_err(failed)?, false)
    };
    stages.finish();
    if json {
        return output::json(&Shown::of(image, kept, true));
    }
    let how = if kept { "is current" } else { "is ready" };
    output::text(&format!(
        "image {} {how}: {}, {}\n",
        image.name,
        mib(image.size),
        &image.version()[..12]
    ))
}

fn list(store: &ImageStore, json: bool) -> Result<(), CliError> {
    let mut shown = Vec::new();
    for image in store.list().map_err(failed)? {
        let versions = store.versions(&image.name).map_err(failed)?.into_iter().enumerate();
        shown.extend(versions.map(|(place, version)| Shown::of(version, true, place == 0)));
    }
    if json {
        return output::json(&shown);
    }
    let mut text = String::new();
    for Shown { name, version, size_bytes, current, .. } in shown {
        let note = if current { "" } else { "  earlier" };
        text.push_str(&format!("{name:<24} {:>9}  {}{note}\n", mib(size_bytes), &version[..12]));
    }
    output::text(&text)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn picture(report: &Report) -> String {
    let mut text = format!(
        "image     {}\nversion   {}\ndigest    {}\nsize      {} packed, {} unpacked, {} entries\nbyte code {} of {} Python files lack it\ncommand   {}\n",
        report.name,
        report.version,
        report.digest,
        mib(report.size),
        mib(report.unpacked_bytes),
        report.entries,
        report.missing_pyc,
        report.python_sources,
        report.config.argv.join(" "),
    );
    text.push_str("\nbiggest Python packages\n");
    for package in &report.python_packages {
        text.push_str(&format!(
            "  {:>9}  {} {}\n",
            mib(package.bytes),
            package.name,
            package.version
        ));
    }
    text.push_str("\nbiggest Debian packages\n");
    for package in &report.debian_packages {
        text.push_str(&format!(
            "  {:>9}  {} {}\n",
            mib(package.bytes),
            package.name,
            package.version
        ));
    }
    text.push_str(if report.findings.is_empty() {
        "\nnothing to improve\n"
    } else {
        "\nwhat could be better\n"
    });
    for finding in &report.findings {
        text.push_str(&format!("  {}: {}\n", finding.subject, finding.advice));
    }
    text
}

impl HostProgress for Stages {
    fn stage(&self, name: &str) {
        self.begin(name);
    }
}
