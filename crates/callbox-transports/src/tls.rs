//! TLS for the client.

use rustls::{ClientConfig, RootCertStore};

/// The configuration that trusts what this host trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are
/// honoured). `None` only if the compiled-in ciphers do not fit the protocol versions.
///
/// A host without certificates must still reach a stand-in on loopback, so an empty store is no
/// error here: https then fails with "unknown issuer", http works.
pub fn config() -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(config)
}
