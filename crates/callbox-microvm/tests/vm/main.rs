//! Real machines: QEMU, a real kernel, the real agent.
//!
//! One test that goes through a machine's life in order, because each step costs seconds and two
//! cores run one machine at a time. What each step proves is the name of its function.

#![allow(clippy::unwrap_used)]

mod cage;
mod reserve;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use callbox_link::Link;
use callbox_microvm::{Error, From, Host, HostConfig, Start, Started, Template, image::Image};
use callbox_protocol::agent::{AgentEventKind, Phase};
use futures::StreamExt;
use support::{prepare, session, shape, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn machines_live_and_leave_nothing() {
    if std::env::var(support::SKIP).is_ok_and(|value| value == "1") {
        eprintln!("\n*** REAL MACHINES ARE NOT TESTED: {}=1 ***\n", support::SKIP);
        return;
    }
    let lacking = support::lacking().join("; ");
    let skip = support::SKIP;
    assert!(lacking.is_empty(), "no real machines here: {lacking}; set {skip}=1 to go without");
    let log = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(log).with_test_writer().init();
    let data = tempfile::Builder::new().prefix("cbvm").tempdir().unwrap();
    let mut config = HostConfig::new(data.path(), support::agent());
    config.accelerator = support::accelerator();
    let host = Arc::new(Host::open(config.clone()).await.expect("the host can run machines"));
    eprintln!("accelerator: {}, kernel {}", host.accelerator(), host.kernel_release());
    let image = support::image(data.path(), &[]);

    // In a task of its own, so that a failed step cannot leave machines behind.
    let outcome = tokio::spawn(steps(Arc::clone(&host), config, image)).await;
    let left = host.list().await.unwrap();
    for machine in &left {
        host.destroy(&machine.name).await.unwrap();
    }
    if let Err(failed) = outcome {
        std::panic::resume_unwind(failed.into_panic());
    }
    assert!(left.is_empty(), "left over: {left:?}");
    assert_eq!(entries(&data.path().join("run")), [""; 0], "files left in run/");
    assert_eq!(processes_of(data.path()), [0; 0], "processes left over");
}

async fn steps(host: Arc<Host>, config: HostConfig, image: Image) {
    let step = |name: &str| eprintln!("--- {name}");
    step("a cold machine wakes and serves its session");
    a_cold_machine_wakes_and_serves(&host, &image).await;
    step("a template is baked once");
    let template = a_template_is_baked_once(&host, &image).await;
    step("two clones are different machines");
    two_clones_are_different_machines(&host, &image, &template).await;
    step("qemu is caged");
    cage::qemu_is_caged(&host, &image, &template).await;
    step("a parked machine is claimed once");
    reserve::a_parked_machine_is_claimed_once(&host, &image, &template).await;
    step("parked machines of a dead dispatcher are cleared");
    reserve::those_of_the_dead_are_cleared(&host, config.clone(), &image, &template).await;
    step("a machine outlives its dispatcher");
    a_machine_outlives_its_dispatcher(&host, config.clone(), &image, &template).await;
    step("the death of qemu is noticed");
    the_death_of_qemu_is_noticed(&host, &image, &template).await;
    step("a guest that panics is noticed");
    a_guest_that_panics_is_noticed(&host, &image).await;
    step("a machine without a dispatcher ends itself");
    a_machine_without_a_dispatcher_ends_itself(config.clone(), &image).await;
    step("templates of something else are refused, and used ones stay");
    templates_are_kept_apart(&host, &image, &template).await;
}

async fn a_cold_machine_wakes_and_serves(host: &Host, image: &Image) {
    let started = start(host, "cold", From::Cold, image).await;
    let names: Vec<_> = started.stages.iter().map(|(name, _)| *name).collect();
    assert!(names.ends_with(&["spawn", "boot", "prepare", "wake"]), "{names:?}");
    assert_eq!(started.link.health().await.unwrap().phase, Phase::Awake);
    let said = serve(&started.link, "s-cold").await;
    assert!(said.contains_key("uuid"), "{said:?}");

    let taken = host.start(what("cold", From::Cold, image)).await;
    assert!(matches!(taken, Err(Error::Exists(_))), "{taken:?}");
    host.destroy("cold").await.unwrap();
    soon("the link to end", started.link.closed()).await;
    host.destroy("cold").await.expect("destroying twice is fine");
    assert_eq!(processes_of(&host.data_dir().join("run/cold")), [0; 0]);
}

async fn a_template_is_baked_once(host: &Arc<Host>, image: &Image) -> Template {
    let (shape, bot) = (shape(), prepare());
    let both = tokio::join!(
        host.template(&shape, image, &bot, &()),
        host.template(&shape, image, &bot, &())
    );
    let (one, other) = (both.0.expect("baked"), both.1.expect("found"));
    assert_eq!(one.id(), other.id());
    assert_eq!(one.facts(), other.facts(), "baked twice");
    eprintln!("template: {} MiB in memory, {:?}", one.held_bytes() >> 20, one.facts().stages);
    let found = host.templates().unwrap();
    assert!(found[0].disk_bytes() < 200 << 20, "the memory file has no holes");
    let templates = entries(&host.data_dir().join("templates"));
    assert_eq!(templates, [one.id().to_owned(), format!("{}.lock", one.id())]);
    one
}

async fn two_clones_are_different_machines(host: &Host, image: &Image, template: &Template) {
    let from = || From::Clone(template.clone());
    let one = start(host, "clone-1", from(), image).await;
    let two = start(host, "clone-2", from(), image).await;
    let (one_said, two_said) = (serve(&one.link, "s-1").await, serve(&two.link, "s-2").await);
    for own in ["uuid", "machine"] {
        assert_ne!(one_said[own], two_said[own], "{own}: {one_said:?}");
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for said in [&one_said, &two_said] {
        let theirs: u64 = said["now"].parse().unwrap();
        assert!(now.abs_diff(theirs) <= 20, "the clock was not set: {theirs}, not {now}");
    }
    let listed = host.list().await.unwrap();
    assert_eq!(listed.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["clone-1", "clone-2"]);
    assert!(listed.iter().all(|m| m.alive && m.template.as_deref() == Some(template.id())));
    for name in ["clone-1", "clone-2"] {
        host.destroy(name).await.unwrap();
    }
    assert_eq!(entries(&host.data_dir().join("run")), [""; 0]);
}

async fn a_machine_outlives_its_dispatcher(
    host: &Host,
    config: HostConfig,
    image: &Image,
    template: &Template,
) {
    let started = start(host, "kept", From::Clone(template.clone()), image).await;
    // What is left when a dispatcher dies: the machine, and no connection to it.
    drop(started);
    let next = Host::open(config).await.expect("another dispatcher opens the same directory");
    let link = next.connect("kept").await.expect("the machine is still there");
    assert_eq!(link.health().await.unwrap().phase, Phase::Awake);
    serve(&link, "s-kept").await;
    next.destroy("kept").await.unwrap();
    assert!(matches!(next.connect("kept").await, Err(Error::NotFound(_))));
}

async fn the_death_of_qemu_is_noticed(host: &Host, image: &Image, template: &Template) {
    let started = start(host, "shot", From::Clone(template.clone()), image).await;
    let pids = processes_of(&host.data_dir().join("run/shot"));
    let [pid] = pids.as_slice() else { panic!("one qemu, not {pids:?}") };
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(*pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    soon("the link to end", started.link.closed()).await;
    let listed = host.list().await.unwrap();
    assert!(!listed[0].alive, "{listed:?}");
    host.destroy("shot").await.unwrap();
}

async fn a_guest_that_panics_is_noticed(host: &Host, image: &Image) {
    let mut panics = what("panics", From::Cold, image);
    // As root, or the kernel would not let it.
    (panics.prepare.uid, panics.prepare.gid) = (0, 0);
    let script = "echo c > /proc/sysrq-trigger";
    panics.prepare.argv = ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec();
    let started = host.start(panics).await.expect("it starts");
    // The answer may be lost with the machine.
    let _ = started.link.session(&session("s-panics")).await;
    soon("the link to end", started.link.closed()).await;
    let ended = async {
        while host.list().await.unwrap()[0].alive {
            tokio::task::yield_now().await;
        }
    };
    soon("qemu to end with its guest", ended).await;
    host.destroy("panics").await.unwrap();
}

async fn a_machine_without_a_dispatcher_ends_itself(mut config: HostConfig, image: &Image) {
    config.orphan_after = Duration::from_secs(1);
    let host = Host::open(config).await.unwrap();
    let started = start(&host, "orphan", From::Cold, image).await;
    let said = serve(&started.link, "s-orphan").await;
    assert!(!said["net"].contains("eth0"), "a network card without being asked: {said:?}");
    drop(started);
    let ended = async {
        while host.list().await.unwrap()[0].alive {
            tokio::task::yield_now().await;
        }
    };
    soon("the orphan to end itself", ended).await;
    host.destroy("orphan").await.unwrap();
}

async fn templates_are_kept_apart(host: &Host, image: &Image, template: &Template) {
    let mut other = what("other", From::Clone(template.clone()), image);
    other.shape.memory_mib += 64;
    let refused = host.start(other).await;
    assert!(
        matches!(&refused, Err(Error::Template { why, .. }) if why.contains("256")),
        "{refused:?}"
    );

    let user = start(host, "user", From::Clone(template.clone()), image).await;
    assert_eq!(host.clones_of(template.id()).unwrap(), 1);
    host.remove_template(template.id()).await.expect("files may go while clones live");
    assert_eq!(host.templates().unwrap().len(), 0);
    serve(&user.link, "s-user").await;
    host.destroy("user").await.unwrap();
}

fn what(name: &str, from: From, image: &Image) -> Start {
    Start { name: name.into(), from, shape: shape(), image: image.clone(), prepare: prepare() }
}

async fn start(host: &Host, name: &str, from: From, image: &Image) -> Started {
    let started = host.start(what(name, from, image)).await;
    let started = started.unwrap_or_else(|error| panic!("{name} does not start: {error:?}"));
    eprintln!("{name}: {:?}", started.stages);
    started
}

/// Hands the session over, waits until the bot is ready, fetches its page through a tunnel, and
/// returns what it said about itself.
async fn serve(link: &Link, id: &str) -> BTreeMap<String, String> {
    link.session(&session(id)).await.expect("accepted");
    let first = soon("an event", link.events(0).next()).await.expect("open").expect("an event");
    assert_eq!(first.kind, AgentEventKind::Ready);
    let page = soon("the page", fetch(link)).await;
    assert!(page.starts_with("HTTP/1") && page.contains(&format!("page of {id}")), "{page}");
    let mut said = BTreeMap::new();
    let mut logs = link.logs(0);
    while !["uuid", "machine", "now", "net"].iter().all(|word| said.contains_key(*word)) {
        let line = soon("the bot's lines", logs.next()).await.expect("open").expect("a line");
        if let Some((word, value)) = line.text.split_once('=') {
            said.insert(word.to_owned(), value.to_owned());
        }
    }
    said
}

async fn fetch(link: &Link) -> String {
    let mut tunnel = link.tunnel(8080).await.expect("the bot listens");
    tunnel.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = String::new();
    tunnel.read_to_string(&mut page).await.unwrap();
    page
}

/// Names in a directory, sorted.
fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// QEMUs whose command line names something under `directory`.
fn processes_of(directory: &Path) -> Vec<i32> {
    let mark = format!("guest={}", directory.display()).into_bytes();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            // Empty for a process that has ended, reaped or not.
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument.starts_with(&mark))
        })
        .collect()
}
