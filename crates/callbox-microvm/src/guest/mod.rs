//! What every machine boots: a kernel, its modules and the agent.
//!
//! ```text
//! Debian's kernel package ─┐                    ┌ vmlinuz
//! or the host's own kernel ┴─ kernel::obtain ──►│ modules (in the order to load them)
//!                                               └──────┬─────────────
//! the agent's static binary ───────────────────────────┴─ initramfs::write ──► initramfs.cpio
//! ```
//!
//! Everything is made once, under `<data_dir>/kernel`, and then only read: templates name the
//! digests of both files in their manifests.

pub mod cpio;
pub mod initramfs;
pub mod kernel;
pub mod modules;
pub mod tsc;

pub use initramfs::BootFiles;
pub use kernel::Kernel;
