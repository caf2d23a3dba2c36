//! What keeps a pool's trouble from growing.

pub mod concurrency;
