//! MicroVMs on this host: images, templates, clones. Knows nothing of sessions.
