//! A proxy that runs out of connections or memory gives things up in order, and says so.

mod siege;
