//! Tests of the pure core: the whole table, and what holds in any life of a session.

mod properties;
mod restart;
mod table;
mod walk;
mod warning;
mod world;
