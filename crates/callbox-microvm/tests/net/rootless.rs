//! Without root: passt. What it keeps from a machine, and what it does not: this is where the
//! words of `callbox doctor` are checked against the truth.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use callbox_microvm::image::ImageStore;
use callbox_microvm::net::NetConfig;
use callbox_microvm::{AcceleratorChoice, From, Host, HostConfig, Network, Start};

use crate::machine::{lines, probing, set};
use crate::stage::{FORBIDDEN, HOST, OPEN, RESOLVER, play_with};
use crate::support::{session, shape, soon};

/// Tells [`one_without_root`] where.
const DATA: &str = "CALLBOX_TEST_ROOTLESS_DATA";
const AGENT: &str = "CALLBOX_TEST_ROOTLESS_AGENT";
const NOBODY: u32 = 65_534;

#[test]
fn passt_keeps_the_hosts_loopback_from_a_machine_and_its_words_are_true() {
    play_with(set, async |stage, (_, config, data)| {
        // Copies, as nobody may not be let into the directory where this was built.
        let (test, agent) = (data.path().join("test"), data.path().join("agent"));
        std::fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
        std::fs::copy(&config.agent, &agent).unwrap();
        let owned =
            Command::new("chown").arg("-R").arg(NOBODY.to_string()).arg(data.path()).status();
        assert!(owned.unwrap().success());
        let child = Command::new(test)
            .current_dir("/")
            .args(["--exact", "rootless::one_without_root", "--ignored", "--nocapture"])
            .env(DATA, data.path())
            .env(AGENT, agent)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
        let intruded = stage.intruded.lock().unwrap().clone();
        // The name was asked for, of the resolver that is configured and of nobody else.
        let asked = format!("udp 192.0.2.2 -> {RESOLVER}:53");
        assert!(stage.came.lock().unwrap().contains(&asked), "{:?}", stage.came);
        assert!(
            intruded.iter().all(|one| !one.contains("-> 127.")),
            "came to the host: {intruded:?}"
        );
        let reached =
            |way: &str, place: Ipv4Addr| said.contains(&format!("reached={way} {place}\n"));
        for place in OPEN {
            assert!(reached("tcp", place) && reached("udp", place), "{place}: {said}");
        }
        // Not kept out, and so named.
        for place in [FORBIDDEN[0], HOST[0]] {
            assert!(reached("tcp", place), "{place}: then doctor should not say so: {said}");
        }
        let gateway = Ipv4Addr::new(10, 0, 2, 2);
        assert!(!reached("tcp", gateway) && !reached("udp", gateway), "{said}");
    });
}

#[test]
#[ignore = "a part of passt_keeps_the_hosts_loopback_from_a_machine_and_its_words_are_true"]
fn one_without_root() {
    let [data, agent] =
        [DATA, AGENT].map(|name| std::env::var_os(name).expect("started by the other"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = HostConfig::new(data, agent);
        config.accelerator = AcceleratorChoice::Tcg;
        config.network = NetConfig { dns: vec![RESOLVER], ..NetConfig::default() };
        let host = Host::open(config.clone()).await.unwrap();
        let all = Network::Internet { allow: Vec::new() };
        let missing = host.not_enforced_with(&all);
        assert!(missing.iter().any(|one| one.contains("private ranges")), "{missing:?}");
        let list = Network::Internet { allow: vec!["203.0.113.7".parse().unwrap()] };
        let refused = host.networks().make(&list).await.unwrap_err().to_string();
        assert!(refused.contains("allow-list takes root"), "{refused}");
        let image = ImageStore::open(&config.data_dir).unwrap().get("busybox").unwrap();
        let gateway = Ipv4Addr::new(10, 0, 2, 2);
        let places = [OPEN[0], OPEN[1], FORBIDDEN[0], HOST[0], gateway];
        let (prepare, mut shape) = (probing(&places), shape());
        shape.network = Network::Internet { allow: Vec::new() };
        let template = host.template(&shape, &image, &prepare, &()).await.expect("baked");
        let start =
            Start { name: "one".into(), from: From::Clone(template), shape, image, prepare };
        let started = host.start(start).await.expect("it starts");
        started.link.session(&session("one")).await.expect("accepted");
        for line in soon("the probe", lines(&started.link)).await {
            println!("{line}");
        }
        let passts = || processes("passt");
        assert_eq!(passts().len(), 1, "one for the machine; the template's is gone");
        host.destroy("one").await.unwrap();
        let ended = async {
            while !passts().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        soon("passt to end", ended).await;
    });
}

/// Children of this process of this name.
fn processes(name: &str) -> Vec<String> {
    let ours = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(')')?;
        let parent = after.split_whitespace().nth(1)?;
        (before.contains(&format!("({name}")) && parent == ours).then(|| before.to_owned())
    });
    all.collect()
}
