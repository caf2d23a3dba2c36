//! The proxy's own answers: small JSON that says what happened and why.

use std::time::Duration;

use bytes::Bytes;
use lb_core::model::StaticAnswer;

use super::limited::OverLimit;
use crate::{
    h1::{Version, body::write_decimal, response::Delivery},
    reason::Reason,
};

/// An answer that the proxy gives instead of a backend's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OwnAnswer {
    pub(crate) status: u16,
    /// Of the reason vocabulary.
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// The value of a `Set-Cookie` field.
    pub(crate) set_cookie: Option<Box<[u8]>>,
    /// The limit by which the request is refused.
    pub(crate) over_limit: Option<Box<OverLimit>>,
    /// When the client may come again, if it may: for 429 and 503.
    pub(crate) retry_after_s: u64,
    /// What is said in place of the usual JSON.
    fixed: Option<Box<StaticAnswer>>,
}

impl OwnAnswer {
    pub(crate) fn new(status: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
            set_cookie: None,
            over_limit: None,
            retry_after_s: 1,
            fixed: None,
        }
    }

    /// The answer that was written down for when nobody can give one.
    pub(crate) fn fixed(answer: &StaticAnswer, reason: Reason) -> Self {
        Self { fixed: Some(Box::new(answer.clone())), ..Self::new(answer.status(), reason, "") }
    }

    /// The same for a client that may come again after this long, in whole seconds.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        let rounded_up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { retry_after_s: rounded_up.max(1), ..self }
    }

    /// What the proxy itself can do, to an OPTIONS that goes no further.
    pub(crate) fn options() -> Self {
        Self::new(200, Reason::MaxForwardsReached, "")
    }

    /// What is said. A client elsewhere is not told how it looks behind the proxy: the reason
    /// leads its operator there.
    pub(crate) fn body(&self, is_local: bool) -> Bytes {
        match &self.fixed {
            Some(fixed) => fixed.body().clone(),
            None if self.status == 200 => Bytes::new(),
            None => {
                let to_strangers = self.reason.told_to_strangers().filter(|_| !is_local);
                self.json(to_strangers.unwrap_or(&self.message)).into()
            }
        }
    }

    /// Writes the whole response. `with_body` is false for HEAD.
    pub(crate) fn encode(
        &self,
        delivery: Delivery,
        body: &[u8],
        with_body: bool,
        out: &mut Vec<u8>,
    ) {
        let content_type =
            self.fixed.as_ref().map_or("application/json", |fixed| fixed.content_type());
        out.extend_from_slice(b"HTTP/1.1 ");
        write_decimal(u64::from(self.status), out);
        out.push(b' ');
        out.extend_from_slice(phrase(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(date) = &delivery.date {
            out.extend_from_slice(date);
        }
        if !body.is_empty() {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(content_type.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        // These have none (RFC 9110, 8.6).
        if !matches!(self.status, 204 | 304) {
            out.extend_from_slice(b"Content-Length: ");
            write_decimal(body.len() as u64, out);
            out.extend_from_slice(b"\r\n");
        }
        match self.status {
            429 | 503 => {
                out.extend_from_slice(b"Retry-After: ");
                write_decimal(self.retry_after_s, out);
                out.extend_from_slice(b"\r\n");
                if let Some(over_limit) = &self.over_limit {
                    out.extend_from_slice(over_limit.fields.as_bytes());
                }
            }
            200 | 405 if self.fixed.is_none() => {
                out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n")
            }
            _ => {}
        }
        if let Some(value) = &self.set_cookie {
            out.extend_from_slice(b"Set-Cookie: ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        match (delivery.keep_alive, delivery.version) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, Version::Http11) => {}
        }
        out.extend_from_slice(b"\r\n");
        if with_body {
            out.extend_from_slice(body);
        }
    }

    fn json(&self, message: &str) -> String {
        let mut body = serde_json::json!({
            "error": phrase(self.status),
            "status": self.status,
            "reason": self.reason.name(),
            "message": message,
        })
        .to_string();
        body.push('\n');
        body
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        500 => "Internal Server Error",
        // Of an answer that was written down; a phrase may be empty (RFC 9112, 4).
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(answer: &OwnAnswer, keep_alive: bool, with_body: bool) -> String {
        let mut out = Vec::new();
        let date = Some(*b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        let delivery = Delivery { version: Version::Http11, keep_alive, trailers: false, date };
        answer.encode(delivery, &answer.body(true), with_body, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_says_what_and_why() {
        let answer = OwnAnswer::new(503, Reason::NoHealthyBackend, "pool \"x\" has no backend up");
        let text = encoded(&answer, true, true);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Retry-After: 1"));
        assert!(head.contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(body.contains(r#""reason":"no_healthy_backend""#));
        assert!(body.contains(r#"pool \"x\" has"#));
    }

    #[test]
    fn only_this_machine_is_told_what_is_behind_the_proxy() {
        let message = "backend b1 (10.0.0.1:80): refused";
        let answer = OwnAnswer::new(502, Reason::BackendConnectRefused, message);
        let told = |is_local| String::from_utf8(answer.body(is_local).into()).unwrap();
        assert!(told(true).contains(message));
        assert!(told(false).contains(r#""reason":"backend_connect_refused""#), "{}", told(false));
        assert!(!told(false).contains("10.0.0.1"), "{}", told(false));
        let limited = OwnAnswer::new(429, Reason::RateLimited, "limit a: wait for 2 s");
        assert_eq!(limited.body(true), limited.body(false));
    }

    #[test]
    fn clients_are_told_when_to_come_again() {
        for (wait_ms, seconds) in [(0, 1), (1000, 1), (1001, 2), (5000, 5)] {
            let answer = OwnAnswer::new(503, Reason::Overloaded, "later")
                .retry_after(Duration::from_millis(wait_ms));
            let text = encoded(&answer, false, true);
            assert!(text.contains(&format!("\r\nRetry-After: {seconds}\r\n")), "{text}");
        }
    }

    #[test]
    fn head_gets_the_length_and_no_body() {
        let text = encoded(&OwnAnswer::new(404, Reason::NoRoute, "no"), false, false);
        assert!(text.contains("Content-Length: ") && text.contains("Connection: close"));
        assert!(text.ends_with("\r\n\r\n"));
    }
}
