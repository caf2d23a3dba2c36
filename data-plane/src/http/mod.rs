//! HTTP on a client's connection: one request after the other.
//!
//! | module | does |
//! |---|---|
//! | [`connection`] | waits for requests without holding buffers |
//! | [`exchange`] | answers one request: picks a backend, and another if need be |
//! | [`prepare`] | reads, routes and rewrites a request's head, without I/O |
//! | [`converse`] | sends a request to one backend, up to the head of its response |
//! | [`deliver`] | brings the response to the client, while the upload goes on |
//! | [`failure`] | how an attempt can end, and what clients are told of it |
//! | [`relay`] | moves a body from one connection to another |
//! | [`respond`] | the proxy's own answers |

mod connection;
mod converse;
mod deliver;
mod exchange;
mod failure;
mod prepare;
mod relay;
mod respond;
mod stream;

pub(crate) use self::connection::serve;
