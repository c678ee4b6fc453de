//! A report about an image, with advice.

use serde::Serialize;

use super::{DebianPackage, Image, ImageConfig, PythonPackage, Source};

/// How many packages of each kind a report names.
const BIGGEST: usize = 15;
/// From this size on a Python package is worth a thought.
const HEAVY_BYTES: u64 = 20 << 20;
/// Tags that mean another image tomorrow.
const FLOATING: [&str; 8] =
    ["latest", "main", "master", "edge", "dev", "nightly", "stable", "current"];

/// What is in an image and what could be better.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the image.
    pub name: String,
    /// sha256 of its root file system.
    pub digest: String,
    /// What is in it and how its bot is started, as one hash.
    pub version: String,
    /// Where it comes from.
    pub source: Source,
    /// How its bot is started.
    pub config: ImageConfig,
    /// When it was made, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Size of the packed root file system in bytes.
    pub size: u64,
    /// Size of its files before packing.
    pub unpacked_bytes: u64,
    /// Number of files, directories and links.
    pub entries: u64,
    /// Biggest Python packages, biggest first.
    pub python_packages: Vec<PythonPackage>,
    /// Biggest Debian packages, biggest first.
    pub debian_packages: Vec<DebianPackage>,
    /// Python source files where Python looks for modules.
    pub python_sources: u64,
    /// How many of them have no byte code.
    pub missing_pyc: u64,
    /// What could be better.
    pub findings: Vec<Finding>,
}

/// Something that could be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing it is.
    pub kind: FindingKind,
    /// What it is about: a package, a tag, a requirement.
    pub subject: String,
    /// What to do, and why.
    pub advice: String,
}

/// Kinds of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The image was imported under a name that may mean another image tomorrow.
    FloatingTag,
    /// A requirement without an exact version.
    UnpinnedRequirement,
    /// Python source without byte code in a read-only root.
    MissingByteCode,
    /// A Python package that is big for what bots use it for.
    HeavyPackage,
    /// The bot would run as root.
    RunsAsRoot,
    /// The image does not say how its bot is started.
    NoCommand,
}

/// Reports on an image from what was counted when it was made. Touches no file.
pub fn inspect(image: &Image) -> Report {
    let facts = &image.facts;
    Report {
        name: image.name.clone(),
        digest: image.digest.clone(),
        version: image.version(),
        source: image.source.clone(),
        config: image.config.clone(),
        created_at_ms: image.created_at_ms,
        size: image.size,
        unpacked_bytes: facts.unpacked_bytes,
        entries: facts.entries,
        python_packages: facts.python_packages.iter().take(BIGGEST).cloned().collect(),
        debian_packages: facts.debian_packages.iter().take(BIGGEST).cloned().collect(),
        python_sources: facts.python_sources,
        missing_pyc: facts.missing_pyc,
        findings: findings(image),
    }
}

fn findings(image: &Image) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |kind, subject: &str, advice: String| {
        found.push(Finding { kind, subject: subject.into(), advice });
    };
    match &image.source {
        Source::Container { references, .. } => {
            for reference in references.iter().filter(|name| floating(name)) {
                add(
                    FindingKind::FloatingTag,
                    reference,
                    "this tag may mean another image tomorrow: give releases a tag of their own and refer to them by digest".into(),
                );
            }
        }
        Source::Recipe { unpinned, .. } => {
            for line in unpinned {
                add(
                    FindingKind::UnpinnedRequirement,
                    line,
                    "the next build may install another version: name one with `==`".into(),
                );
            }
        }
    }
    for package in &image.facts.python_packages {
        if let Some(advice) = heavy(package) {
            add(FindingKind::HeavyPackage, &package.name, advice);
        }
    }
    if image.facts.missing_pyc > 0 {
        add(
            FindingKind::MissingByteCode,
            &format!("{} of {} sources", image.facts.missing_pyc, image.facts.python_sources),
            "the root is read-only, so every machine that imports them compiles them again: run `python3 -m compileall` as the last step of the image's build".into(),
        );
    }
    if image.config.uid == 0 {
        add(
            FindingKind::RunsAsRoot,
            "user",
            "the bot runs as root inside its machine: name a user (`USER` in a Dockerfile, `config.user` in a recipe)".into(),
        );
    }
    if image.config.argv.is_empty() {
        add(
            FindingKind::NoCommand,
            "argv",
            "the image does not say how its bot is started: set a command in the image or in the bot's configuration".into(),
        );
    }
    found
}

/// Whether a container image's name may mean something else tomorrow.
fn floating(reference: &str) -> bool {
    if reference.contains('@') {
        return false;
    }
    let last = reference.rsplit('/').next().unwrap_or(reference);
    match last.split_once(':') {
        Some((_, tag)) => FLOATING.contains(&tag),
        None => true,
    }
}

fn heavy(package: &PythonPackage) -> Option<String> {
    let mebibytes = package.bytes >> 20;
    let why = match package.name.to_ascii_lowercase().replace('_', "-").as_str() {
        // Pipecat's own core imports them: there is nothing to be done about them.
        "pipecat-ai" | "numpy" | "pillow" => return None,
        "torch" | "tensorflow" => {
            "models are better asked over the network than carried into every machine"
        }
        "onnxruntime" => {
            "it runs Silero VAD; without hardware virtualisation that takes longer than the audio lasts: use it only where /dev/kvm works"
        }
        "llvmlite" | "numba" => {
            "they come with resampling code that has lighter ways (soxr); leave them out if nothing imports them"
        }
        "opencv-python" | "opencv-python-headless" => "only video needs it",
        "transformers" | "nltk" | "scipy" | "pandas" | "scikit-learn" => {
            "check that the bot imports it at all"
        }
        _ if package.bytes >= HEAVY_BYTES => "check that the bot needs all of it",
        _ => return None,
    };
    Some(format!("{mebibytes} MiB: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::Facts;
    use super::*;

    fn image(source: Source) -> Image {
        Image {
            name: "a".into(),
            digest: "0".into(),
            rootfs: "/r".into(),
            config: ImageConfig { argv: vec!["bot".into()], uid: 1000, ..ImageConfig::default() },
            source,
            created_at_ms: 0,
            size: 1,
            facts: Facts::default(),
            inputs: String::new(),
        }
    }

    fn recipe(unpinned: &[&str]) -> Source {
        Source::Recipe {
            recipe: "r.toml".into(),
            suite: "s".into(),
            unpinned: unpinned.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_good_image_has_no_findings() {
        assert_eq!(inspect(&image(recipe(&[]))).findings, []);
    }

    #[test]
    fn every_weakness_is_named_with_advice() {
        let mut weak = image(recipe(&["x>=1"]));
        weak.config = ImageConfig::default();
        weak.facts.missing_pyc = 3;
        weak.facts.python_packages = vec![PythonPackage {
            name: "onnxruntime".into(),
            version: "1".into(),
            bytes: 40 << 20,
        }];
        let report = inspect(&weak);
        let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
        use FindingKind::*;
        assert_eq!(
            kinds,
            [UnpinnedRequirement, HeavyPackage, MissingByteCode, RunsAsRoot, NoCommand]
        );
        assert!(report.findings.iter().all(|finding| finding.advice.len() > 20));
    }

    #[test]
    fn floating_tags_are_told_from_fixed_ones() {
        for name in ["bot", "bot:latest", "host:5000/team/bot", ":main"] {
            assert!(floating(name), "{name}");
        }
        for name in ["bot:1.2", "host:5000/bot:v3", "bot@sha256:0", "bot:latest@sha256:0"] {
            assert!(!floating(name), "{name}");
        }
    }
}
