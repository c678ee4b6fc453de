//! What the host's kernel says of a machine's QEMU.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use callbox_microvm::{From, Host, Template, image::Image};

use super::{processes_of, start};

/// All of it as root, on a host with cgroups: what is missing is said by the host itself.
pub async fn qemu_is_caged(host: &Host, image: &Image, template: &Template) {
    assert_eq!(host.not_enforced(), [""; 0], "this host cannot cage its machines");
    // As whoever starts a dispatcher may leave it one: open in every child.
    let (stray, _stray) = rustix::pipe::pipe().unwrap();
    let stray = rustix::fs::fstat(&stray).unwrap().st_ino;
    let _one = start(host, "caged-1", From::Clone(template.clone()), image).await;
    let _two = start(host, "caged-2", From::Clone(template.clone()), image).await;
    let (one, two) = (Process::of(host, "caged-1"), Process::of(host, "caged-2"));
    let ours = Process { pid: std::process::id().cast_signed() };
    for process in [&one, &two] {
        assert_ne!(process.status("Uid"), ours.status("Uid"), "it runs as the dispatcher's user");
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(process.status(set), "0000000000000000", "{set}");
        }
        assert_eq!(process.status("NoNewPrivs"), "1");
        assert_eq!(process.status("Seccomp"), "2", "it has no system call filter");
        for kind in ["mnt", "net", "ipc", "uts"] {
            assert_ne!(process.namespace(kind), ours.namespace(kind), "the host's {kind}");
        }
        assert_eq!(process.sees("/"), ["dev", "lib", "lib64", "m", "proc", "usr"]);
        assert_eq!(process.sees("/m"), ["initramfs", "kernel", "rootfs"]);
        assert!(process.limit("Max core file size").starts_with('0'));
        assert_eq!(process.devices(), ["lo"]);
        let stray = format!("pipe:[{stray}]");
        assert!(!process.descriptors().contains(&stray), "it inherited {stray}");
    }
    assert_ne!(one.status("Uid"), two.status("Uid"), "two machines share a user");
    let cgroups = one.cgroups();
    assert!(!cgroups.is_empty(), "it is in no cgroup of ours");
    assert_ne!(cgroups, two.cgroups(), "two machines share a cgroup");
    assert!(cgroups.iter().all(|path| path.exists()), "{cgroups:?}");

    for name in ["caged-1", "caged-2"] {
        host.destroy(name).await.unwrap();
    }
    assert!(cgroups.iter().all(|path| !path.exists()), "cgroups are left: {cgroups:?}");
}

struct Process {
    pid: i32,
}

impl Process {
    fn of(host: &Host, name: &str) -> Process {
        let found = processes_of(&host.data_dir().join("run").join(name));
        let [pid] = found.as_slice() else { panic!("one qemu, not {found:?}") };
        Process { pid: *pid }
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    fn status(&self, field: &str) -> String {
        let text = fs::read_to_string(self.file("status")).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        value.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
    }

    fn limit(&self, name: &str) -> String {
        let text = fs::read_to_string(self.file("limits")).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    }

    fn namespace(&self, kind: &str) -> u64 {
        fs::metadata(self.file("ns").join(kind)).unwrap().ino()
    }

    fn sees(&self, directory: &str) -> Vec<String> {
        super::entries(&self.file("root").join(directory.trim_start_matches('/')))
    }

    /// What is behind its open descriptors.
    fn descriptors(&self) -> Vec<String> {
        let entries = fs::read_dir(self.file("fd")).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| fs::read_link(path).unwrap().to_string_lossy().into_owned()).collect()
    }

    fn devices(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("net/dev")).unwrap();
        text.lines()
            .skip(2)
            .filter_map(|line| Some(line.split_once(':')?.0.trim().into()))
            .collect()
    }

    /// Where it is among our cgroups, in every hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string(self.file("cgroup")).unwrap();
        let ours = text.lines().filter_map(|line| {
            let path = line.rsplit_once(':')?.1;
            path.starts_with("/callbox/").then(|| path.trim_start_matches('/').to_owned())
        });
        let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let mut roots: Vec<PathBuf> = mounts.filter(|path| path.is_dir()).collect();
        roots.push(Path::new("/sys/fs/cgroup").to_path_buf());
        let ours: Vec<String> = ours.collect();
        let mut found: Vec<PathBuf> = roots
            .iter()
            .flat_map(|root| ours.iter().map(|path| root.join(path)))
            .filter(|path| path.exists())
            .collect();
        found.sort();
        found
    }
}
