//! Telling a machine with a network how to find the addresses of names.

use std::fs;
use std::io;

use callbox_protocol::agent::Hosts;

use crate::machine::Machine;
use crate::refusal::Refusal;

const FILE: &str = "/etc/hosts";
const RESOLVERS: &str = "/etc/resolv.conf";
/// Ends each line of ours: a template's lines are replaced by those of its clone.
const OURS: &str = "# callbox";

/// Replaces what was told before.
pub(crate) fn tell(machine: &Machine, hosts: &Hosts) -> Result<(), Refusal> {
    if !machine.place.is_init() {
        return Ok(());
    }
    if !hosts.resolvers.is_empty() {
        let text: String =
            hosts.resolvers.iter().map(|address| format!("nameserver {address}\n")).collect();
        fs::write(RESOLVERS, text).map_err(|error| {
            Refusal::internal(format!("{RESOLVERS} cannot be written: {error}"))
        })?;
    }
    let told = fs::read_to_string(FILE).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(String::new()),
        _ => Err(error),
    });
    let written = told.and_then(|before| fs::write(FILE, with(&before, hosts)));
    written.map_err(|error| Refusal::internal(format!("{FILE} cannot be written: {error}")))
}

fn with(before: &str, hosts: &Hosts) -> String {
    let kept = before.lines().filter(|line| !line.ends_with(OURS)).map(str::to_owned);
    let ours = hosts.hosts.iter().flat_map(|(name, addresses)| {
        addresses.iter().map(move |address| format!("{address} {name} {OURS}"))
    });
    kept.chain(ours).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clones_names_take_the_place_of_its_templates() {
        let hosts = |address: [u8; 4]| Hosts {
            hosts: [("api.example.com".to_owned(), vec![address.into()])].into(),
            resolvers: Vec::new(),
        };
        let first = with("127.0.0.1 localhost", &hosts([203, 0, 113, 7]));
        assert_eq!(first, "127.0.0.1 localhost\n203.0.113.7 api.example.com # callbox\n");
        let second = with(&first, &hosts([203, 0, 113, 8]));
        assert_eq!(second, "127.0.0.1 localhost\n203.0.113.8 api.example.com # callbox\n");
    }
}
