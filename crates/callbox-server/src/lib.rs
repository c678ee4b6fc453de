//! The dispatcher: HTTP API, store, driver.
