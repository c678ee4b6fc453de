//! Machines that wait for their session.

use callbox_microvm::{Error, From, Host, HostConfig, Template, image::Image};
use callbox_protocol::agent::Phase;

use super::support::soon;
use super::{entries, processes_of, serve, what};

pub async fn a_parked_machine_is_claimed_once(host: &Host, image: &Image, template: &Template) {
    let what = what("unused", From::Clone(template.clone()), image);
    let one = host.park(&what).await.expect("parked");
    eprintln!("parked in {:?}: {:?}", one.took(), one.stages());
    let two = host.park(&what).await.expect("parked");
    assert_eq!(host.list().await.unwrap(), [], "a reserve is nobody's machine");
    assert_eq!(one.template(), Some(template.id()));

    let started = host.claim(one, "claimed").await.expect("claimed");
    eprintln!("claimed: {:?}", started.stages);
    let names: Vec<_> = started.stages.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["claim", "resume", "wake"]);
    assert_eq!(started.link.health().await.unwrap().phase, Phase::Awake);
    let said = serve(&started.link, "s-claimed").await;
    let listed = host.list().await.unwrap();
    assert!(listed[0].alive && listed[0].name == "claimed", "{listed:?}");
    // Found again by its new name, as after a restart.
    drop(started);
    let link = host.connect("claimed").await.expect("it has moved with its sockets");
    assert_eq!(link.health().await.unwrap().phase, Phase::InSession);

    let taken = host.claim(two, "claimed").await;
    assert!(matches!(taken, Err(Error::Exists(_))), "{taken:?}");
    host.destroy("claimed").await.unwrap();
    assert_eq!(entries(&host.data_dir().join("run")), [""; 0], "what was not claimed is gone, too");

    let three = host.park(&what).await.expect("parked");
    let other = host.claim(three, "claimed-2").await.expect("claimed");
    let other_said = serve(&other.link, "s-claimed-2").await;
    assert_ne!((&said["uuid"], &said["machine"]), (&other_said["uuid"], &other_said["machine"]));
    host.destroy("claimed-2").await.unwrap();
}

pub async fn those_of_the_dead_are_cleared(
    host: &Host,
    config: HostConfig,
    image: &Image,
    template: &Template,
) {
    let what = what("unused", From::Clone(template.clone()), image);
    let parked = host.park(&what).await.expect("parked");
    let run = host.data_dir().join("run");
    assert_eq!(processes_of(&run).len(), 1);
    // As the next dispatcher finds it: with its process, and nobody to hold it.
    let next = Host::open(config).await.unwrap();
    assert_eq!(next.clear_reserves().await.unwrap(), 1);
    assert_eq!((processes_of(&run), entries(&run)), (Vec::new(), Vec::new()));
    let lost = async {
        while !parked.is_lost() {
            tokio::task::yield_now().await;
        }
    };
    soon("its loss to be seen", lost).await;
    let gone = host.claim(parked, "late").await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
}
