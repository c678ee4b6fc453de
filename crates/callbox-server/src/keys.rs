//! API keys: `cbk_pub_<id>_<secret>` may only start, `cbk_prv_<id>_<secret>` may all.
//!
//! Only the SHA-256 of the secret part is kept. A plain hash is enough, because the secret is
//! 256 random bits: there is nothing to guess, so nothing to slow down.

use callbox_core::Time;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    config::secret::Secret,
    random,
    store::{KeyRecord, Store, StoreError},
};

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Start sessions. May be shipped in a page or an app.
    Public,
    /// Everything.
    Private,
}

impl KeyKind {
    /// As it is kept and said.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::Public => "public",
            KeyKind::Private => "private",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            KeyKind::Public => "cbk_pub_",
            KeyKind::Private => "cbk_prv_",
        }
    }
}

/// Makes a key and keeps its hash. The key itself is shown this once.
///
/// # Errors
/// When it cannot be kept.
pub async fn create(
    store: &dyn Store,
    kind: KeyKind,
    name: &str,
    now: Time,
) -> Result<(KeyRecord, Secret), StoreError> {
    let id = hex::encode(&random::bytes()[..6]);
    let secret = hex::encode(random::bytes());
    let record = KeyRecord {
        id: id.clone(),
        kind: kind.as_str().into(),
        name: name.into(),
        hash: Sha256::digest(&secret).to_vec(),
        created_at: now,
        revoked_at: None,
    };
    store.add_key(&record).await?;
    Ok((record, Secret::new(format!("{}{id}_{secret}", kind.prefix()))))
}

/// Whose key this is, if it is one that works.
///
/// # Errors
/// When the store does not answer.
pub async fn check(
    store: &dyn Store,
    text: &str,
) -> Result<Option<(KeyRecord, KeyKind)>, StoreError> {
    let parts = [KeyKind::Public, KeyKind::Private].into_iter().find_map(|kind| {
        let (id, secret) = text.strip_prefix(kind.prefix())?.split_once('_')?;
        Some((kind, id, secret))
    });
    let Some((kind, id, secret)) = parts else { return Ok(None) };
    let Some(record) = store.key(id).await? else { return Ok(None) };
    let same: bool = Sha256::digest(secret).as_slice().ct_eq(&record.hash).into();
    let works = same && record.works() && record.kind == kind.as_str();
    Ok(works.then_some((record, kind)))
}
