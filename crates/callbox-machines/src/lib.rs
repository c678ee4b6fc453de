//! Where a session runs: one trait, a module per provider, one scriptable fake.
