//! What must hold of the HTTP/1 code for any bytes at all.
//!
//! Each target takes bytes as the network could bring them and panics when a property is
//! violated. Properties are judged by code of its own, written from the RFCs and slow:
//! `message` (heads), `reference` (chunked bodies) and `readers` (requests as strict
//! and lenient servers take them). A judge that shared code with the judged would share
//! its mistakes.
//!
//! Fuzzers call the targets with what they invent (`fuzz/`), tests with the seeds in
//! `fuzz/corpus/` and with requests that are almost valid. Only `adapter` calls `h1`.

mod adapter;
mod chunked_body;
mod differential;
mod message;
mod readers;
mod reference;
mod request_head;
mod response_head;
mod upgrade;

#[cfg(test)]
mod almost_valid;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod replay;

pub use self::{
    chunked_body::chunked_body, differential::differential, request_head::request_head,
    response_head::response_head, upgrade::upgrade,
};
