//! An HTTP probe: GET a path; a status of 200 to 399 passes, whatever the body.

use std::{error::Error, io, net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Request, StatusCode,
    client::conn::http1,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
    },
};
use hyper_util::rt::TokioIo;
use lb_core::model::{Address, Reason};
use lb_proto::duration::measured_text;
use tokio::time::{Instant, timeout_at};

use super::tcp;

const AGENT: &str = concat!("lb-health-check/", env!("CARGO_PKG_VERSION"));

/// Asks once. `limit` covers connecting and the head of the answer.
pub(super) async fn probe(
    address: SocketAddr,
    host: &Address,
    path: &str,
    limit: Duration,
) -> Result<Reason, Reason> {
    let start = Instant::now();
    let deadline = start + limit;
    let stream = tcp::connect(address, deadline, limit).await?;
    let request = Request::get(path)
        .header(HOST, host.to_string())
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| {
            let message = format!("the path {path} cannot be asked for: {error}");
            Reason::new("backend_protocol_error", message)
        })?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let (mut answer, mut connection) = (pin!(sender.send_request(request)), pin!(connection));
        tokio::select! {
            answer = &mut answer => answer,
            // The answer may have come with the end of the connection.
            _ = &mut connection => answer.await,
        }
    };
    match timeout_at(deadline, exchange).await {
        Ok(Ok(answer)) => {
            if let Some(fault) = framing_fault(answer.headers()) {
                let message = format!(
                    "what {address} answered to GET {path} is not HTTP/1.1 as proxies take it: \
                     {fault}"
                );
                return Err(Reason::new("backend_protocol_error", message));
            }
            judge(path, answer.status(), start.elapsed())
        }
        Ok(Err(error)) => Err(explain(path, address, &error)),
        Err(_) => {
            let message = format!("GET {path} was not answered by {address} within {limit:?}");
            Err(Reason::new("backend_timeout", message))
        }
    }
}

/// What proxies refuse in a response although this client is content with it.
fn framing_fault(fields: &HeaderMap) -> Option<&'static str> {
    let mut encodings = fields.get_all(TRANSFER_ENCODING).iter();
    let encoding = encodings.next();
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    if encoding.is_some() && lengths.next().is_some() {
        return Some("both Transfer-Encoding and Content-Length");
    }
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if encoding.is_some_and(|value| !is_chunked(value)) || encodings.next().is_some() {
        return Some("Transfer-Encoding is not chunked, once");
    }
    // Lists of the same number, and what no file can have.
    let is_length = |value: &HeaderValue| {
        let digits = value.as_bytes().iter().all(u8::is_ascii_digit);
        digits && value.to_str().is_ok_and(|text| text.parse::<i64>().is_ok())
    };
    let all = fields.get_all(CONTENT_LENGTH);
    (!all.iter().all(is_length)).then_some("Content-Length is not a number")
}

fn judge(path: &str, status: StatusCode, took: Duration) -> Result<Reason, Reason> {
    let code = status.as_u16();
    if (200..=399).contains(&code) {
        let message = format!("GET {path} answered {code} in {}", measured_text(took));
        return Ok(Reason::new("check_passed", message));
    }
    Err(Reason::new(
        "check_status",
        format!(
            "GET {path} answered {code}; a check passes with 200 to 399: let the backend answer \
             there, or set the pool's --health-path, or --health tcp"
        ),
    ))
}

fn explain(path: &str, address: SocketAddr, error: &hyper::Error) -> Reason {
    let reset = error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some();
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() || reset {
        let message = format!("{address} closed the connection before it answered GET {path}");
        return Reason::new("backend_reset", message);
    }
    let message = format!("what {address} answered to GET {path} is not HTTP/1.1: {error}");
    Reason::new("backend_protocol_error", message)
}
