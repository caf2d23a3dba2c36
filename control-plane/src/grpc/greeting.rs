//! Whether a new connection speaks HTTP/2, and what others are told.
//!
//! The commonest mistake is a browser or curl on the port of gRPC. What is not HTTP/2 would get
//! frames that it cannot read, and nobody would learn why.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tracing::debug;

use crate::{
    connections::{Watched, linger},
    listen::Endpoint,
};

/// With what HTTP/2 begins (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long whoever is told something may take to read it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How much more of what it sends is read meanwhile, so that its answer is not lost with it.
const FAREWELL_BYTES: u64 = 64 << 10;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Beginning {
    Http2,
    Http1,
    Tls,
    Unknown,
}

/// Reads how a connection begins. Gives back those that speak HTTP/2, and tells others where
/// they are; `http` is where this process speaks HTTP/1.
pub(super) async fn greet(mut connection: Watched, http: &Endpoint) -> Option<Watched> {
    let mut read = Vec::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        let lacking = (PREFACE.len() - read.len()) as u64;
        match (&mut connection).take(lacking).read_buf(&mut read).await {
            Ok(0) if !read.is_empty() => break,
            // It has nothing to say, or not in time.
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
    let beginning = beginning(&read);
    match beginning {
        Beginning::Http2 => {
            connection.unread(read);
            return Some(connection);
        }
        Beginning::Http1 => {
            debug!(%http, "HTTP/1 on the port of gRPC: the client is told where HTTP is spoken");
            // Whether it still reads is its own affair.
            drop(timeout(FAREWELL, direct(connection, http)).await);
        }
        Beginning::Tls => debug!("TLS on the port of gRPC, which is not spoken there: closed"),
        Beginning::Unknown => debug!("neither HTTP/2 nor HTTP/1 on the port of gRPC: closed"),
    }
    None
}

fn beginning(read: &[u8]) -> Beginning {
    let method = read.split(|byte| *byte == b' ').next().unwrap_or_default();
    if read == PREFACE {
        Beginning::Http2
    } else if read.starts_with(&[0x16, 0x03]) {
        Beginning::Tls
    } else if method.len() < read.len()
        && !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
    {
        Beginning::Http1
    } else {
        Beginning::Unknown
    }
}

async fn direct(mut connection: Watched, http: &Endpoint) {
    let sentence = format!(
        "this port speaks gRPC (HTTP/2 without TLS), as lbctl and proxies do; REST and /metrics \
         are at {http} (--http)\n"
    );
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: \
         {}\r\nconnection: close\r\n\r\n{sentence}",
        sentence.len()
    );
    if connection.write_all(answer.as_bytes()).await.is_ok() {
        linger(connection, FAREWELL_BYTES).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_speaks_is_told_by_its_first_bytes() {
        for (read, expected) in [
            (PREFACE, Beginning::Http2),
            (b"GET / HTTP/1.1", Beginning::Http1),
            (b"POST /lb/backends/add HTT", Beginning::Http1),
            (b"PRI * HTTP/1.1", Beginning::Http1),
            (&[0x16, 0x03, 0x01, 2, 0], Beginning::Tls),
            (b"what is this?", Beginning::Unknown),
            (b"GET", Beginning::Unknown),
            (b" ", Beginning::Unknown),
        ] {
            assert_eq!(beginning(read), expected, "{read:?}");
        }
    }
}
