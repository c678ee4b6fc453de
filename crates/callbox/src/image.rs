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
    /// List images
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
    digest: String,
    size_bytes: u64,
    rootfs: PathBuf,
    kept: bool,
}

impl Shown {
    fn of(image: Image, kept: bool) -> Shown {
        let Image { name, digest, rootfs, size: size_bytes, .. } = image;
        Shown { name, digest, size_bytes, rootfs, kept }
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
        return output::json(&Shown::of(image, kept));
    }
    let how = if kept { "is current" } else { "is ready" };
    output::text(&format!(
        "image {} {how}: {}, {}\n",
        image.name,
        mib(image.size),
        &image.digest[..12]
    ))
}

fn list(store: &ImageStore, json: bool) -> Result<(), CliError> {
    let images = store.list().map_err(failed)?;
    if json {
        let shown: Vec<Shown> = images.into_iter().map(|image| Shown::of(image, true)).collect();
        return output::json(&shown);
    }
    let mut text = String::new();
    for image in images {
        text.push_str(&format!(
            "{:<24} {:>9}  {}\n",
            image.name,
            mib(image.size),
            &image.digest[..12]
        ));
    }
    output::text(&text)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn picture(report: &Report) -> String {
    let mut text = format!(
        "image     {}\ndigest    {}\nsize      {} packed, {} unpacked, {} entries\nbyte code {} of {} Python files lack it\ncommand   {}\n",
        report.name,
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
