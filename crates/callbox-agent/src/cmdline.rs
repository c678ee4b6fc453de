use std::net::Ipv4Addr;
use std::time::Duration;

/// What the host asks for on the kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cmdline {
    /// `callbox.disk_mib`: how much the machine may write, in MiB of its memory.
    pub disk_mib: u32,
    /// `callbox.orphan_s`: how long an awake machine lives without a host.
    pub orphan_after: Duration,
    /// `callbox.probe`: say that this kernel runs, and end.
    pub probe: bool,
    /// `callbox.ip`, `callbox.gateway`, `callbox.dns`: the first network card, if the machine
    /// has one that nobody else configures.
    pub network: Option<Network>,
}

/// Addresses of the first network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Option<Ipv4Addr>,
}

impl Default for Cmdline {
    fn default() -> Self {
        Self { disk_mib: 512, orphan_after: Duration::from_secs(120), probe: false, network: None }
    }
}

impl Cmdline {
    /// Reads the words that are for the agent. What cannot be read keeps its default: a machine
    /// that boots with a default can be asked what is wrong, one that does not boot cannot.
    pub(crate) fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let mut words = text.split_ascii_whitespace().rev();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name: &str| value(name).and_then(|value| value.parse().ok());
        let address = |name: &str| value(name).and_then(|value| value.parse().ok());
        let network = value("callbox.ip").and_then(|ip| {
            let (ip, prefix) = ip.split_once('/')?;
            Some(Network {
                address: ip.parse().ok()?,
                prefix: prefix.parse().ok().filter(|bits| *bits <= 32)?,
                gateway: address("callbox.gateway"),
                dns: address("callbox.dns"),
            })
        });
        let default = Self::default();
        Self {
            disk_mib: number("callbox.disk_mib").unwrap_or(default.disk_mib),
            orphan_after: number("callbox.orphan_s")
                .map_or(default.orphan_after, |seconds| Duration::from_secs(seconds.into())),
            probe: text.split_ascii_whitespace().any(|word| word == "callbox.probe"),
            network,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_words_are_found_among_the_kernels() {
        let cmdline = Cmdline::parse(
            "console=ttyS0 quiet callbox.disk_mib=64 rdinit=/init callbox.orphan_s=5 \
             callbox.ip=10.0.2.15/24 callbox.gateway=10.0.2.2\n",
        );
        assert_eq!(cmdline.disk_mib, 64);
        assert_eq!(cmdline.orphan_after, Duration::from_secs(5));
        assert!(!cmdline.probe);
        let network = cmdline.network.expect("a network");
        assert_eq!((network.prefix, network.dns), (24, None));
        assert!(Cmdline::parse("callbox.probe").probe);
    }

    #[test]
    fn nonsense_keeps_the_defaults() {
        let nonsense = "callbox.disk_mib=lots callbox.orphan_s= callbox.ip=1.2.3/40 callbox.prob";
        assert_eq!(Cmdline::parse(nonsense), Cmdline::default());
    }
}
