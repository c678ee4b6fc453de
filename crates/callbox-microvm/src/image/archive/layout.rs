//! Understanding the two forms in which container images come as files: what `docker save`
//! writes, and the OCI image layout.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::blobs::Blobs;

/// What an archive says about the one image in it that fits this host.
#[derive(Debug)]
pub(super) struct Found {
    /// Names of the image.
    pub references: Vec<String>,
    /// `sha256:…` of the configuration.
    pub image_id: String,
    /// The configuration.
    pub config: ConfigFile,
    /// Paths of the layers, lowest first.
    pub layers: Vec<String>,
}

/// Why an image cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Something is damaged or missing.
    Broken(String, Option<io::Error>),
    /// It is for these platforms.
    Platform(String),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Unusable::Broken("it cannot be read".into(), Some(error))
    }
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub(super) struct ConfigFile {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: Option<Runtime>,
    pub rootfs: RootFs,
}

/// How a container is run.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Runtime {
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct OciManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// The platform that machines of this host run, as container images name it.
pub(super) fn wanted_platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{arch}")
}

/// Reads what the archive says.
pub(super) fn read(blobs: &Blobs) -> Result<Found, Unusable> {
    let found = if let Some(text) = blobs.document("manifest.json")? {
        docker(blobs, &text)?
    } else if let Some(text) = blobs.document("index.json")? {
        oci(blobs, &text)?
    } else {
        return Err(broken(
            "it has neither manifest.json (docker save) nor index.json (OCI layout)",
        ));
    };
    let platform = format!("{}/{}", found.config.os, found.config.architecture);
    if platform != wanted_platform() {
        return Err(Unusable::Platform(platform));
    }
    let (layers, ids) = (found.layers.len(), found.config.rootfs.diff_ids.len());
    if layers != ids {
        return Err(broken(format!("it has {layers} layers, its configuration names {ids}")));
    }
    Ok(found)
}

fn docker(blobs: &Blobs, text: &[u8]) -> Result<Found, Unusable> {
    let mut manifests: Vec<DockerManifest> = parse("manifest.json", text)?;
    let manifest = match (manifests.pop(), manifests.len()) {
        (Some(only), 0) => only,
        (Some(_), more) => {
            return Err(broken(format!("it has {} images, save one alone", more + 1)));
        }
        (None, _) => return Err(broken("its manifest.json names no image")),
    };
    let config = document(blobs, &manifest.config)?;
    Ok(Found {
        references: manifest.repo_tags.unwrap_or_default(),
        image_id: digest_of(&config),
        config: parse(&manifest.config, &config)?,
        layers: manifest.layers,
    })
}

fn oci(blobs: &Blobs, text: &[u8]) -> Result<Found, Unusable> {
    let mut seen = Vec::new();
    let mut candidates = Vec::new();
    collect(blobs, "index.json", text, &[], 0, &mut candidates, &mut seen)?;
    let (descriptor, references) = match (candidates.pop(), candidates.len()) {
        (Some(only), 0) => only,
        (Some(_), more) => {
            return Err(broken(format!("it has {} images, save one alone", more + 1)));
        }
        (None, _) if seen.is_empty() => return Err(broken("its index names no image")),
        (None, _) => return Err(Unusable::Platform(seen.join(", "))),
    };
    let manifest: OciManifest = parse(&descriptor.digest, &blob(blobs, &descriptor.digest)?)?;
    let config = blob(blobs, &manifest.config.digest)?;
    let layers =
        manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect::<Result<_, _>>()?;
    Ok(Found {
        references,
        image_id: manifest.config.digest.clone(),
        config: parse(&manifest.config.digest, &config)?,
        layers,
    })
}

/// Adds the image manifests of an index that fit this host to `candidates`, and the platforms
/// of those that do not to `seen`. An index may refer to further ones.
fn collect(
    blobs: &Blobs,
    name: &str,
    text: &[u8],
    inherited: &[String],
    depth: u8,
    candidates: &mut Vec<(Descriptor, Vec<String>)>,
    seen: &mut Vec<String>,
) -> Result<(), Unusable> {
    if depth > 4 {
        return Err(broken("its indexes refer to each other too deeply"));
    }
    let index: Index = parse(name, text)?;
    for descriptor in index.manifests {
        let own = references(&descriptor);
        let names = if own.is_empty() { inherited.to_vec() } else { own };
        if descriptor.media_type.contains("index")
            || descriptor.media_type.contains("manifest.list")
        {
            let inner = blob(blobs, &descriptor.digest)?;
            collect(blobs, &descriptor.digest, &inner, &names, depth + 1, candidates, seen)?;
            continue;
        }
        match &descriptor.platform {
            // What build tools attach (provenance) poses as an image for no platform.
            Some(platform) if platform.os == "unknown" => {}
            Some(platform) => {
                let platform = format!("{}/{}", platform.os, platform.architecture);
                if platform == wanted_platform() {
                    candidates.push((descriptor, names));
                } else {
                    seen.push(platform);
                }
            }
            // Then its configuration says, which is checked later.
            None => candidates.push((descriptor, names)),
        }
    }
    Ok(())
}

fn references(descriptor: &Descriptor) -> Vec<String> {
    // The first holds a whole name, the second often just the tag.
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .iter()
        .find_map(|key| descriptor.annotations.get(*key))
        .map(|name| if name.contains([':', '/']) { name.clone() } else { format!(":{name}") })
        .into_iter()
        .collect()
}

/// A blob that is a document, checked against its digest.
fn blob(blobs: &Blobs, digest: &str) -> Result<Vec<u8>, Unusable> {
    let bytes = document(blobs, &blob_path(digest)?)?;
    let found = digest_of(&bytes);
    if found != digest {
        return Err(broken(format!("blob {digest} is damaged: it has {found}")));
    }
    Ok(bytes)
}

fn document(blobs: &Blobs, path: &str) -> Result<Vec<u8>, Unusable> {
    blobs.document(path)?.ok_or_else(|| broken(format!("{path:?} is missing")))
}

fn blob_path(digest: &str) -> Result<String, Unusable> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(format!("blobs/sha256/{hex}"))
        }
        _ => Err(broken(format!("{digest:?} is not a sha256 digest"))),
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn parse<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T, Unusable> {
    serde_json::from_slice(text)
        .map_err(|error| broken(format!("{name} cannot be understood: {error}")))
}

fn broken(reason: impl Into<String>) -> Unusable {
    Unusable::Broken(reason.into(), None)
}
