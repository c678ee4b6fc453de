//! Tests of the pure core: the whole table, and what holds after any sequence of events.

mod properties;
mod restart;
mod table;
mod warning;
mod world;
