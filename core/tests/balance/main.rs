//! Pickers held to the figures that they promise.
//!
//! Unit tests beside the code look into tables; these only pick, as a proxy does,
//! and compare with exact shares, with published bounds, or with a simulation.

mod hashing;
mod sinkhole;
mod support;
mod turns;
