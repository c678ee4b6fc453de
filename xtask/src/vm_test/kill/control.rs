//! Whether it would be noticed: something of most kinds is left on purpose.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::super::scene::host::{Looker, Owners};

/// A session that never was.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";
/// The kinds that are left, if there are cgroups on this host.
const LEFT: [&str; 5] = ["run-directory", "machine-process", "relay-file", "cgroup", "file"];
/// A process shows its arguments a moment after it was started.
const SOON: Duration = Duration::from_secs(10);

/// Leaves things, has them looked for, and removes them again: the kinds that were overlooked.
/// Nothing else may be there.
pub fn overlooked(looker: &mut Looker, home: &Path) -> anyhow::Result<Vec<&'static str>> {
    let machine = format!("cb-{}-1", NOBODY.replace('-', ""));
    let directory = home.join("d/run").join(&machine);
    let (file, socket) =
        (home.join("tmp/left"), home.join("d/relays").join(format!("{NOBODY}.sock")));
    fs::create_dir(&directory)?;
    fs::write(&file, "")?;
    let listener = UnixListener::bind(&socket)?;
    let cgroup = looker.hierarchy().map(|path| path.join(&machine));
    // With the last machine, its hierarchy may have gone.
    cgroup.as_ref().map_or(Ok(()), fs::create_dir_all)?;
    // Waits for input that never comes, with the mark of a machine.
    let mut process = Command::new("sh")
        .args(["-c", "read line", "sh", &format!("guest={}", directory.display())])
        .stdin(Stdio::piped())
        .spawn()?;
    let began = Instant::now();
    let overlooked = loop {
        let leaks = looker.look().leaks(&Owners::default());
        let missed = |kind: &&str| {
            !leaks.iter().any(|leak| leak.kind == *kind) && (*kind != "cgroup" || cgroup.is_some())
        };
        let missed: Vec<&str> = LEFT.into_iter().filter(missed).collect();
        if missed.is_empty() || began.elapsed() > SOON {
            break missed;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    process.kill()?;
    process.wait()?;
    drop(listener);
    fs::remove_file(socket)?;
    fs::remove_file(file)?;
    fs::remove_dir(directory)?;
    cgroup.map_or(Ok(()), fs::remove_dir)?;
    Ok(overlooked)
}
