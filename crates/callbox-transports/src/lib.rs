//! How client and bot meet: one trait, a module per transport, one fake.
