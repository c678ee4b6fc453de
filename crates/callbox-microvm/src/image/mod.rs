//! Guest images: where they are kept, how they are built or imported, and what is in them.
//!
//! An image is a read-only EROFS file system plus `image.json`, which says how the bot in it is
//! started. It knows nothing of the agent: that comes with the initramfs, so any container
//! image runs unchanged.
//!
//! ```text
//! <data_dir>/images/<name>/<version>/{rootfs.erofs, image.json}
//! <data_dir>/images/<name>/current -> <version>     replaced by rename
//! <data_dir>/images/.scratch/                       builds under way; swept when a store opens
//! ```
//!
//! A version is named by the hash of what is in it, so it never changes: an image that is built
//! anew gets another one, and whoever runs from the earlier one goes on with it until
//! [`ImageStore::retain`] removes it.
//!
//! Everything here blocks (files, child processes): call it from a blocking thread.

mod apt;
mod archive;
mod build;
mod debian;
mod digest;
mod erofs;
mod error;
mod facts;
mod inspect;
mod manifest;
mod pip;
mod program;
mod python;
mod recipe;
mod recipe_inputs;
mod scratch;
mod store;
mod tree;
mod users;

pub use build::{BuildOptions, Built};
pub use error::ImageError;
pub use facts::{DebianPackage, Facts, PythonPackage};
pub use inspect::{Finding, FindingKind, Report, inspect};
pub use manifest::{Image, ImageConfig, Source};
pub use program::HOST_PACKAGES;
pub use recipe::Recipe;
pub use store::ImageStore;
