//! The servers in the test's internet, stopped when they are dropped.

use std::{
    fs::File,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::stage::{HOST, INTERNET};
use crate::{place::Place, steps::text};

/// The dispatcher's port; its host is its own, so nobody else has it.
pub const DISPATCHER: u16 = 7860;
pub const LIVEKIT: u16 = 7880;
pub const KEY: &str = "callbox-test";
pub const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";

const BEGIN: Duration = Duration::from_secs(30);

/// A server that listens.
pub struct Server {
    process: Child,
    log: PathBuf,
}

impl Server {
    /// LiveKit, with its own key, telling the dispatcher what it sees.
    pub fn livekit(internet: &Place, program: &Path, dir: &Path) -> anyhow::Result<Server> {
        let config = format!(
            "port: {LIVEKIT}\nbind_addresses: [{INTERNET}]\nkeys: {{ {KEY}: {SECRET} }}\n\
             rtc: {{ tcp_port: 7881, udp_port: 7882, node_ip: {INTERNET} }}\n\
             webhook: {{ api_key: {KEY}, \
             urls: [\"http://{HOST}:{DISPATCHER}/v1/webhooks/livekit\"] }}\n"
        );
        let mut command = Command::new(program);
        command.env("LIVEKIT_CONFIG", config);
        Server::start(internet, command, dir.join("livekit.log"), LIVEKIT)
    }

    fn start(
        place: &Place,
        mut command: Command,
        log: PathBuf,
        port: u16,
    ) -> anyhow::Result<Server> {
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        place.run(|| {
            let process = command.spawn().context("cannot start a server")?;
            let mut server = Server { process, log };
            let began = Instant::now();
            while TcpStream::connect((INTERNET, port)).is_err() {
                if server.process.try_wait()?.is_some() || began.elapsed() > BEGIN {
                    bail!("a server does not start; see {}", text(&server.log));
                }
                sleep(Duration::from_millis(20));
            }
            Ok(server)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
