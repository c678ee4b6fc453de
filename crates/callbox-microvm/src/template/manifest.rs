//! What a template is of: everything that must be equal between it and its clones.

use callbox_protocol::agent::Prepare;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Raised when templates made by older code must not be cloned by this one.
const FORMAT: u32 = 2;

/// The identity of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this type and of how templates are made.
    pub format: u32,
    /// The exact build of QEMU.
    pub qemu: String,
    /// The machine's arguments, without paths.
    pub arguments: Vec<String>,
    /// Digest of the kernel.
    pub kernel: String,
    /// Digest of the initramfs, and with it of the agent.
    pub initramfs: String,
    /// Digest of the image.
    pub image: String,
    /// The host's processor, where the guest sees it (KVM).
    pub host_cpu: Option<String>,
    /// The bot.
    pub prepare: Prepare,
}

impl Manifest {
    /// The format of this version.
    pub(crate) const FORMAT: u32 = FORMAT;

    /// 32 hex digits that no two manifests share.
    #[must_use]
    pub fn id(&self) -> String {
        let text = serde_json::to_vec(self).expect("plain values are always json");
        hex::encode(&Sha256::digest(text)[..16])
    }

    /// Whether both are of the same host: all but the image, the shape and the bot is equal.
    #[must_use]
    pub fn same_host(&self, other: &Manifest) -> bool {
        let theirs = Manifest {
            arguments: self.arguments.clone(),
            image: self.image.clone(),
            prepare: self.prepare.clone(),
            ..other.clone()
        };
        *self == theirs
    }

    /// Why a template of this manifest does not do for `wanted`, in words; `None` if it does.
    #[must_use]
    pub fn difference(&self, wanted: &Manifest) -> Option<String> {
        // Field by field, so that a new field cannot be forgotten here.
        let Manifest { format, qemu, arguments, kernel, initramfs, image, host_cpu, prepare } =
            self;
        let differ = |what: &str, is: &str, should: &str| {
            Some(format!("its {what} is {is:?}, and {should:?} is needed"))
        };
        if *format != wanted.format {
            return differ("format", &format.to_string(), &wanted.format.to_string());
        }
        if *qemu != wanted.qemu {
            return differ("qemu", qemu, &wanted.qemu);
        }
        if *kernel != wanted.kernel {
            return differ("kernel", kernel, &wanted.kernel);
        }
        if *initramfs != wanted.initramfs {
            return differ("initramfs (agent)", initramfs, &wanted.initramfs);
        }
        if *image != wanted.image {
            return differ("image", image, &wanted.image);
        }
        if *host_cpu != wanted.host_cpu {
            return Some("it was made on another processor".to_owned());
        }
        if *arguments != wanted.arguments {
            let changed = arguments.iter().zip(&wanted.arguments).find(|(is, should)| is != should);
            return match changed {
                Some((is, should)) => differ("machine", is, should),
                None => Some("its machine has other devices".to_owned()),
            };
        }
        if *prepare != wanted.prepare {
            // Not spelt out: a bot's environment does not belong into messages.
            return Some("it was prepared for another bot".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use callbox_protocol::agent::{CommandReady, Contract};

    use super::*;

    fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            qemu: "7.2.22".into(),
            arguments: vec!["-smp".into(), "1".into()],
            kernel: "k".into(),
            initramfs: "i".into(),
            image: "sha256:x".into(),
            host_cpu: None,
            prepare: Prepare {
                contract: Contract::Command { ready: CommandReady::Started, warning_signal: None },
                argv: vec!["/bot".into()],
                env: BTreeMap::new(),
                cwd: "/".into(),
                uid: 1000,
                gid: 1000,
                port: 8080,
                ready_timeout_ms: 1000,
            },
        }
    }

    #[test]
    fn every_field_makes_another_template_and_is_named_when_it_differs() {
        let base = sample();
        assert_eq!(base.difference(&base), None);
        let mut prepared = base.prepare.clone();
        prepared.env.insert("SECRET".into(), "hush".into());
        let others = [
            ("format", Manifest { format: 0, ..base.clone() }),
            ("qemu", Manifest { qemu: "8.0".into(), ..base.clone() }),
            ("machine", Manifest { arguments: vec!["-smp".into(), "2".into()], ..base.clone() }),
            ("devices", Manifest { arguments: vec!["-smp".into()], ..base.clone() }),
            ("kernel", Manifest { kernel: "other".into(), ..base.clone() }),
            ("agent", Manifest { initramfs: "other".into(), ..base.clone() }),
            ("image", Manifest { image: "sha256:y".into(), ..base.clone() }),
            ("processor", Manifest { host_cpu: Some("z".into()), ..base.clone() }),
            ("bot", Manifest { prepare: prepared, ..base.clone() }),
        ];
        for (word, other) in others {
            assert_ne!(base.id(), other.id(), "{word}");
            let why = base.difference(&other).expect(word);
            assert!(why.contains(word), "{word}: {why}");
            assert!(!why.contains("hush"), "{why}");
        }
        assert!(base.same_host(&Manifest { image: "sha256:y".into(), ..base.clone() }));
        assert!(!base.same_host(&Manifest { qemu: "8.0".into(), ..base.clone() }));
        assert_eq!(base.id(), sample().id());
        assert_eq!(base.id().len(), 32);
    }
}
