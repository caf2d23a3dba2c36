//! What the access log says of one request: a JSON object on a line of its own, written
//! while the request goes on, so that nothing of it needs to be kept.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_core::{affinity::Met, model::PoolName, stats::whole_us};

use crate::{
    access_log::Lines,
    h1::{
        Version,
        body::write_decimal,
        request::{RequestHead, request_id_text, write_ip},
    },
    live::BackendState,
    reason::Reason,
    worker::now,
};

/// A line of the access log on its way.
#[derive(Debug)]
pub(crate) struct Record {
    /// Begins with `{` and a first member.
    line: Vec<u8>,
    /// Where in it the pool stands.
    pool: Range<usize>,
    started: Instant,
    /// When the attempt at hand began.
    attempt_started: Instant,
    attempts: u32,
    /// How long the attempt at hand had to wait for its turn.
    waited: Duration,
    /// How long it had to wait for room.
    queued: Duration,
    status: u16,
    reason: Option<Reason>,
    /// Why a failed request was not sent again, although it could have been.
    not_retried: Option<Reason>,
    /// The limit by which it was refused.
    limit: Option<Arc<str>>,
    sent: u64,
    received: u64,
    /// When the client had its answer.
    answered: Option<Instant>,
    /// Where the line goes; nowhere once it is there.
    home: Option<Rc<Lines>>,
}

impl Record {
    /// Goes on with a line that has its first members.
    pub(crate) fn new(
        mut line: Vec<u8>,
        peer: SocketAddr,
        started: Instant,
        home: Option<Rc<Lines>>,
    ) -> Self {
        line.extend_from_slice(b",\"peer\":\"");
        write_ip(peer.ip(), &mut line);
        line.push(b':');
        write_decimal(u64::from(peer.port()), &mut line);
        line.push(b'"');
        Self {
            line,
            pool: 0..0,
            started,
            attempt_started: started,
            attempts: 0,
            waited: Duration::ZERO,
            queued: Duration::ZERO,
            status: 0,
            reason: None,
            not_retried: None,
            limit: None,
            sent: 0,
            received: 0,
            answered: None,
            home,
        }
    }

    /// Nothing happened that is worth a line.
    pub(crate) fn discard(mut self) {
        self.home = None;
    }

    /// Notes what was asked, and by whom. Queries are left out: people put secrets there.
    pub(crate) fn describe(&mut self, head: &RequestHead<'_, '_>, client: IpAddr, made_id: u128) {
        let line = &mut self.line;
        line.extend_from_slice(b",\"client\":\"");
        write_ip(client, line);
        line.extend_from_slice(b"\",\"request_id\":");
        match head.request_id() {
            Some(id) => write_string(id, line),
            None => write_string(&request_id_text(made_id), line),
        }
        line.extend_from_slice(b",\"method\":");
        write_string(head.method_name, line);
        line.extend_from_slice(b",\"host\":");
        write_string(head.host.unwrap_or_default(), line);
        line.extend_from_slice(b",\"path\":");
        let path = head.written_path();
        let end = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
        write_string(&path[..end], line);
        line.extend_from_slice(match head.version {
            Version::Http11 => b",\"protocol\":\"HTTP/1.1\"",
            Version::Http10 => b",\"protocol\":\"HTTP/1.0\"",
        });
        if let Some(agent) = head.field(b"user-agent") {
            line.extend_from_slice(b",\"user_agent\":");
            write_string(agent, line);
        }
    }

    /// Notes the pool in which a backend is picked.
    pub(crate) fn pool(&mut self, name: &PoolName) {
        let begin = self.line.len();
        self.line.extend_from_slice(b",\"pool\":");
        write_string(name.as_str().as_bytes(), &mut self.line);
        self.pool = begin..self.line.len();
    }

    /// Notes that another pool serves in place of the one that was noted.
    pub(crate) fn fell_back(&mut self, name: &PoolName) {
        let mut member = b",\"pool\":".to_vec();
        write_string(name.as_str().as_bytes(), &mut member);
        drop(self.line.splice(self.pool.clone(), member));
        self.reason = Some(Reason::PoolFallback);
    }

    /// Notes what became of the client's session.
    pub(crate) fn session(&mut self, met: Met) {
        self.line.extend_from_slice(b",\"session\":");
        write_string(met.name().as_bytes(), &mut self.line);
    }

    /// Notes that a backend answered.
    pub(crate) fn attempt_answered(&mut self, backend: &BackendState, status: u16, now: Instant) {
        self.begin_attempt(backend);
        self.line.extend_from_slice(b",\"status\":");
        write_decimal(u64::from(status), &mut self.line);
        self.end_attempt(now);
    }

    /// Notes that a backend did not answer, or not well.
    pub(crate) fn attempt_failed(&mut self, backend: &BackendState, reason: Reason, now: Instant) {
        self.begin_attempt(backend);
        self.line.extend_from_slice(b",\"reason\":");
        write_string(reason.name().as_bytes(), &mut self.line);
        self.end_attempt(now);
    }

    /// Notes that the next attempt begins only now.
    pub(crate) fn waited(&mut self, now: Instant) {
        self.waited = now.saturating_duration_since(self.attempt_started);
        self.attempt_started = now;
    }

    /// Notes that there was no room for the next attempt until now.
    pub(crate) fn queued(&mut self, now: Instant) {
        self.queued = now.saturating_duration_since(self.attempt_started);
        self.attempt_started = now;
    }

    /// Notes why a failed request was not sent again, although it could have been.
    pub(crate) fn not_retried(&mut self, reason: Reason) {
        self.not_retried = Some(reason);
    }

    fn begin_attempt(&mut self, backend: &BackendState) {
        self.line.extend_from_slice(match self.attempts {
            0 => b",\"attempts\":[{\"backend\":",
            _ => &b",{\"backend\":"[..],
        });
        self.attempts += 1;
        write_string(backend.identity.id.as_str().as_bytes(), &mut self.line);
    }

    fn end_attempt(&mut self, now: Instant) {
        let since = std::mem::replace(&mut self.attempt_started, now);
        let waited = std::mem::take(&mut self.waited);
        if !waited.is_zero() {
            self.line.extend_from_slice(b",\"wait_ms\":");
            write_ms(waited, &mut self.line);
        }
        let queued = std::mem::take(&mut self.queued);
        if !queued.is_zero() {
            self.line.extend_from_slice(b",\"queue_ms\":");
            write_ms(queued, &mut self.line);
        }
        self.line.extend_from_slice(b",\"duration_ms\":");
        write_ms(now.saturating_duration_since(since), &mut self.line);
        self.line.push(b'}');
    }

    /// Notes what the client was answered, and how many bytes that took.
    pub(crate) fn answered(&mut self, status: u16, sent: u64, now: Instant) {
        self.status = status;
        self.answered = Some(now);
        self.sent += sent;
    }

    /// Notes how many bytes of the request went to the backend.
    pub(crate) fn received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Notes what passed through a tunnel.
    pub(crate) fn tunnelled(&mut self, up: u64, down: u64) {
        self.answered = None;
        self.received += up;
        self.sent += down;
    }

    /// Notes why it did not go as it should have, in a word of the reason vocabulary.
    pub(crate) fn reason(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// Notes the limit by which it was refused.
    pub(crate) fn over_limit(&mut self, limit: &Arc<str>) {
        self.limit = Some(Arc::clone(limit));
    }

    /// The complete line. `now` counts if the client was not answered before: waiting for
    /// it to close is not its waiting.
    pub(crate) fn end(&mut self, now: Instant) -> Vec<u8> {
        self.home = None;
        let line = &mut self.line;
        line.extend_from_slice(if self.attempts == 0 { b",\"attempts\":[]" } else { b"]" });
        line.extend_from_slice(b",\"status\":");
        write_decimal(u64::from(self.status), line);
        if let Some(reason) = self.reason {
            line.extend_from_slice(b",\"reason\":\"");
            line.extend_from_slice(reason.name().as_bytes());
            line.push(b'"');
        }
        if let Some(limit) = &self.limit {
            line.extend_from_slice(b",\"limit\":");
            write_string(limit.as_bytes(), line);
        }
        if let Some(reason) = self.not_retried {
            line.extend_from_slice(b",\"not_retried\":\"");
            line.extend_from_slice(reason.name().as_bytes());
            line.push(b'"');
        }
        line.extend_from_slice(b",\"bytes_to_backend\":");
        write_decimal(self.received, line);
        line.extend_from_slice(b",\"bytes_to_client\":");
        write_decimal(self.sent, line);
        line.extend_from_slice(b",\"duration_ms\":");
        let answered = self.answered.unwrap_or(now);
        write_ms(answered.saturating_duration_since(self.started), line);
        line.extend_from_slice(b"}\n");
        std::mem::take(line)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The process stops, and the request with it.
        if let Some(home) = self.home.take() {
            self.reason.get_or_insert(Reason::Draining);
            let line = self.end(now());
            home.add(line);
        }
    }
}

fn write_ms(duration: Duration, out: &mut Vec<u8>) {
    let us = whole_us(duration);
    write_decimal(us / 1000, out);
    out.push(b'.');
    for digit in [us / 100 % 10, us / 10 % 10, us % 10] {
        out.push(b"0123456789"[(digit % 10) as usize]);
    }
}

/// Writes a JSON string. What is not UTF-8 is taken for Latin-1, byte by byte: nothing is
/// lost, and a line is always JSON. Whatever would steer a terminal, or turn the order of what
/// it shows, is escaped.
pub(crate) fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let plain = |byte: &u8| (b' '..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\';
    if bytes.iter().all(plain) {
        out.extend_from_slice(bytes);
    } else {
        let text = match str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
        };
        let quoted = serde_json::Value::String(text).to_string();
        let mut unwritten = &quoted[1..quoted.len() - 1];
        while let Some((at, steers)) = unwritten.char_indices().find(|(_, c)| steers(*c)) {
            out.extend_from_slice(&unwritten.as_bytes()[..at]);
            // All of them are below U+10000.
            out.extend_from_slice(format!("\\u{:04x}", u32::from(steers)).as_bytes());
            unwritten = &unwritten[at + steers.len_utf8()..];
        }
        out.extend_from_slice(unwritten.as_bytes());
    }
    out.push(b'"');
}

/// Control characters, and marks that turn the direction of writing.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_json_whatever_is_in_them() {
        for bytes in [&b"plain"[..], b"q\"b\\", b"\x00\x1f\x7f", "\u{fc}\u{1f600}".as_bytes()] {
            let mut out = Vec::new();
            write_string(bytes, &mut out);
            let read: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(read.as_bytes(), bytes);
        }
        let mut out = Vec::new();
        write_string(b"\xff", &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "\u{ff}");
    }

    #[test]
    fn nothing_in_a_string_steers_a_terminal() {
        let text = "a\u{9b}31m\u{7f}\u{202e}b\u{2066}\u{fc}";
        let mut out = Vec::new();
        write_string(text.as_bytes(), &mut out);
        let written = str::from_utf8(&out).unwrap();
        assert_eq!(written, "\"a\\u009b31m\\u007f\\u202eb\\u2066\u{fc}\"");
        assert_eq!(serde_json::from_str::<String>(written).unwrap(), text);
    }

    #[test]
    fn of_a_request_that_fell_back_the_pool_that_served_is_told_once() {
        let (now, peer) = (now(), "192.0.2.7:1234".parse().unwrap());
        let mut record = Record::new(b"{\"listener\":\"default\"".to_vec(), peer, now, None);
        record.pool(&PoolName::new("web").unwrap());
        record.session(Met::Kept);
        record.fell_back(&PoolName::new("a-spare-one").unwrap());
        let line = String::from_utf8(record.end(now)).unwrap();
        assert_eq!(line.matches("\"pool\"").count(), 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["pool"], "a-spare-one");
        assert_eq!(read["session"], Met::Kept.name());
        assert_eq!(read["reason"], "pool_fallback");
    }

    #[test]
    fn a_line_is_an_object_whatever_happened() {
        let now = now();
        let peer = "[::ffff:192.0.2.7]:1234".parse().unwrap();
        let mut record = Record::new(b"{\"listener\":\"default\"".to_vec(), peer, now, None);
        let answered = now + Duration::from_micros(1_234_567);
        record.answered(400, 120, answered);
        record.reason(Reason::ClientProtocolError);
        let line = record.end(now + Duration::from_secs(9));
        let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(read["peer"], "192.0.2.7:1234");
        assert_eq!(read["attempts"], serde_json::json!([]));
        assert_eq!(read["duration_ms"], 1234.567);
        assert_eq!(read["reason"], "client_protocol_error");
        assert_eq!(read.get("not_retried"), None);
    }

    #[test]
    fn a_wait_before_an_attempt_is_not_the_attempts_own_time() {
        let started = now();
        let ms = |ms| started + Duration::from_millis(ms);
        let peer = "192.0.2.7:1234".parse().unwrap();
        let mut record = Record::new(b"{\"listener\":\"default\"".to_vec(), peer, started, None);
        let identity = crate::live::Identity {
            id: lb_core::model::BackendId::new("b1").unwrap(),
            incarnation: lb_core::model::Incarnation(1),
            address: "127.0.0.1:1".parse().unwrap(),
        };
        let (pool, trouble) = (PoolName::default_pool(), Arc::new(crate::live::Trouble::new()));
        let backend = BackendState::new(identity, pool, 1, Box::new([]), 1, &trouble);
        record.attempt_answered(&backend, 503, ms(10));
        record.waited(ms(27));
        record.attempt_failed(&backend, Reason::BackendReset, ms(30));
        record.not_retried(Reason::RetriesExhausted);
        let read: serde_json::Value = serde_json::from_slice(&record.end(ms(31))).unwrap();
        assert_eq!(
            read["attempts"],
            serde_json::json!([
                {"backend": "b1", "status": 503, "duration_ms": 10.0},
                {"backend": "b1", "reason": "backend_reset", "wait_ms": 17.0, "duration_ms": 3.0},
            ])
        );
        assert_eq!(read["not_retried"], "retries_exhausted");
    }
}
