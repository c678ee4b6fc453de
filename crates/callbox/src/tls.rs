//! TLS for HTTP and websockets alike.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore};

static CONFIG: LazyLock<Option<Arc<ClientConfig>>> = LazyLock::new(build);

/// The configuration that trusts what this host trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are
/// honoured). `None` only if the compiled-in ciphers do not fit the protocol versions.
pub fn config() -> Option<Arc<ClientConfig>> {
    CONFIG.clone()
}

fn build() -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    // A host without certificates must still reach a dispatcher on loopback, so an empty store
    // is no error here: https then fails with "unknown issuer", http works.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(Arc::new(config))
}
