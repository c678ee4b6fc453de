//! The client commands end to end: the program itself against a dispatcher in miniature.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod call;
mod commands;
mod daily;
mod host;
mod load;
mod machines;
mod operate;
mod support;
