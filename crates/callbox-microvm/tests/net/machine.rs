//! Real machines on the stage: clones of one template, behind networks of their own.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use callbox_link::Link;
use callbox_microvm::net::leftovers;
use callbox_microvm::{From, Host, HostConfig, Network, Start, image::Image};
use callbox_protocol::agent::Prepare;
use futures::StreamExt;
use tempfile::TempDir;

use crate::stage::{FORBIDDEN, HOST, NAME, OPEN, play_with};
use crate::support::{self, prepare, session, shape, soon};

/// What a host with machines has, made before the stage is set: there are no packages to be had on
/// it.
pub fn set() -> (Image, HostConfig, TempDir) {
    let lacking = support::lacking().join("; ");
    let skip = support::SKIP;
    assert!(lacking.is_empty(), "no real machines here: {lacking}; set {skip}=1 to go without");
    let data = tempfile::Builder::new().prefix("cbnet").tempdir().unwrap();
    let mut config = HostConfig::new(data.path(), support::agent());
    config.accelerator = support::accelerator();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Host::open(config.clone())).expect("the host can run machines");
    let image = support::image(data.path(), &[("probe", &probe(data.path()))]);
    (image, config, data)
}

/// The bot that tries to reach all of `places`.
pub fn probing(places: &[Ipv4Addr]) -> Prepare {
    let places = places.iter().map(ToString::to_string).chain([NAME.to_owned()]);
    let argv = ["/probe".to_owned()].into_iter().chain(places).collect();
    Prepare { argv, ..prepare() }
}

#[test]
fn clones_reach_the_internet_and_nothing_else() {
    play_with(set, async |stage, (image, mut config, data)| {
        config.network = stage.config();
        let host = Host::open(config).await.unwrap();
        let places: Vec<_> = OPEN.into_iter().chain(FORBIDDEN).chain(HOST).collect();
        let all = clones(&host, &image, &places).await;
        assert_eq!(leftovers(data.path(), &[]).await.unwrap().len(), all.len() + 1);
        for (name, _) in &all {
            host.destroy(name).await.unwrap();
        }
        host.networks().tidy().await.unwrap();
        assert_eq!(leftovers(data.path(), &[]).await.unwrap(), []);
        assert!(std::fs::read_dir(data.path().join("run")).unwrap().next().is_none());
        assert_eq!(*stage.intruded.lock().unwrap(), [""; 0], "came to the host");
        for (name, said) in all {
            let heard = |word: &str| -> Vec<_> {
                let words = said.iter().filter_map(|line| line.split_once('='));
                words.filter(|(key, _)| *key == word).map(|(_, value)| value.to_owned()).collect()
            };
            let [one, other] = OPEN;
            let expected = match name.as_str() {
                // It was told the address of the name, and can ask nobody for it.
                "some" => {
                    vec![format!("tcp {one}"), format!("mapped {one}"), format!("name {NAME}")]
                }
                _ => [one, other]
                    .iter()
                    .flat_map(|place| ["tcp", "mapped", "udp"].map(|way| format!("{way} {place}")))
                    .collect(),
            };
            assert_eq!(heard("reached"), expected, "{name}");
            assert_eq!(heard("six"), [""; 0], "{name} has something of ipv6");
        }
    });
}

/// One template, and three clones of it at once: two that may reach the internet, one that may
/// reach a single address. What each of them said.
async fn clones(host: &Host, image: &Image, places: &[Ipv4Addr]) -> Vec<(String, Vec<String>)> {
    let prepare = probing(places);
    let all = Vec::new();
    let some = vec![format!("{NAME}:443").parse().unwrap()];
    let mut machines = Vec::new();
    for (name, allow) in [("all", all.clone()), ("more", all), ("some", some)] {
        let mut shape = shape();
        shape.network = Network::Internet { allow };
        let template = host.template(&shape, image, &prepare, &()).await.expect("baked");
        let from = From::Clone(template);
        let start = Start {
            name: name.into(),
            from,
            shape,
            image: image.clone(),
            prepare: prepare.clone(),
        };
        let started = host.start(start).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        eprintln!("{name}: {:?}", started.stages);
        machines.push((name, started.link));
    }
    assert_eq!(host.templates().unwrap().len(), 1, "one template serves all of them");
    let mut said = Vec::new();
    for (name, link) in &machines {
        link.session(&session(name)).await.expect("accepted");
    }
    for (name, link) in machines {
        said.push((name.to_owned(), soon("the probe", lines(&link)).await));
    }
    said
}

pub async fn lines(link: &Link) -> Vec<String> {
    let (mut said, mut logs) = (Vec::new(), link.logs(0));
    while !said.iter().any(|line| line == "done=yes") {
        said.push(logs.next().await.expect("open").expect("a line").text);
    }
    said
}

/// The probe, compiled for the guest.
fn probe(work: &Path) -> Vec<u8> {
    let binary = work.join("probe.bin");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/guest/probe.rs");
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-O", "--target", support::TARGET, "-o"])
        .args([&binary, &source])
        .status();
    assert!(compiled.expect("there is rustc").success(), "the probe does not compile");
    std::fs::read(binary).unwrap()
}
