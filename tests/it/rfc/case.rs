//! Rules and their cases, as the tables of the topics write them.

/// One rule of an RFC, or of ours.
pub(super) struct Rule {
    /// `9112, 3.2`: where it stands. Ours are named after the section that they sharpen.
    pub(super) section: &'static str,
    /// What it says, in short.
    pub(super) says: &'static str,
    pub(super) cases: Vec<Case>,
}

/// One exchange, and what must come of it.
pub(super) struct Case {
    pub(super) what: String,
    pub(super) play: Play,
}

pub(super) enum Play {
    Ask(Ask),
    Answer(Answer),
    Talk(Vec<Step>),
}

/// A client sends something; the backend answers every request that reaches it.
pub(super) struct Ask {
    pub(super) send: String,
    pub(super) outcome: Asked,
}

pub(super) enum Asked {
    /// Exactly these requests reach the backend, one behind the other, and each is answered.
    /// `{local}` is the proxy's address; what the proxy always adds need not be written.
    Forwarded { seen: String, closes: bool },
    /// One answer of this status, nothing reaches the backend, and the connection ends.
    Refused { status: u16 },
    /// The fault is in the body, which may be on its way: no complete request reaches the
    /// backend, and the client gets no answer but this. `finishes`: it says no more.
    BrokenOff { status: u16, finishes: bool },
}

/// The backend answers a request with these bytes.
pub(super) struct Answer {
    pub(super) ask: String,
    pub(super) answer: String,
    pub(super) then: Then,
    pub(super) outcome: Answered,
}

/// What the backend does behind its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Then {
    Keep,
    Close,
    Reset,
}

pub(super) enum Answered {
    /// Exactly these responses reach the client. `kept`: the next request of somebody else
    /// goes over the same connection to the backend.
    Passed { seen: String, kept: bool },
    /// The client gets a 502, and the backend's connection ends.
    Failed,
    /// The client gets a 502, or the beginning of the answer and a reset: never what looks
    /// complete.
    Cut,
}

/// Client and backend in turn.
#[derive(Clone, Debug)]
pub(super) enum Step {
    ClientSays(String),
    /// Says that nothing more comes.
    ClientFinishes,
    /// Complete responses.
    ClientHears(String),
    /// A response's head, whose body is not complete.
    ClientHearsHead(String),
    /// Bytes as they are.
    ClientHearsRaw(String),
    /// A response of the proxy's own.
    ClientHearsRefusal(u16),
    ClientHearsEnd,
    ClientHearsReset,
    BackendSays(String),
    BackendFinishes,
    BackendCloses,
    /// A complete request.
    BackendHears(String),
    /// A request's head, whose body is not complete.
    BackendHearsHead(String),
    BackendHearsRaw(String),
    /// The proxy ends the connection to the backend.
    BackendHearsEnd,
    /// The same, in the middle of a chunked body: whatever of it came, not its end.
    BackendHearsBreak,
    /// Neither side has heard anything yet that was not named.
    Silence,
}

pub(super) fn rule(section: &'static str, says: &'static str) -> Rule {
    Rule { section, says, cases: Vec::new() }
}

impl Rule {
    /// The request, or several, go on; the connection is kept.
    pub(super) fn forwards(
        self,
        what: impl Into<String>,
        send: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        self.ask(what, send, Asked::Forwarded { seen: seen.into(), closes: false })
    }

    /// The request goes on, and the client's connection ends with the answer.
    pub(super) fn forwards_last(
        self,
        what: impl Into<String>,
        send: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        self.ask(what, send, Asked::Forwarded { seen: seen.into(), closes: true })
    }

    pub(super) fn refuses(
        self,
        status: u16,
        what: impl Into<String>,
        send: impl Into<String>,
    ) -> Self {
        self.ask(what, send, Asked::Refused { status })
    }

    pub(super) fn breaks_off(self, what: impl Into<String>, send: impl Into<String>) -> Self {
        self.ask(what, send, Asked::BrokenOff { status: 400, finishes: false })
    }

    /// The same, with another status.
    pub(super) fn refuses_late(
        self,
        status: u16,
        what: impl Into<String>,
        send: impl Into<String>,
    ) -> Self {
        self.ask(what, send, Asked::BrokenOff { status, finishes: false })
    }

    /// The client leaves in the middle.
    pub(super) fn cut_short(self, what: impl Into<String>, send: impl Into<String>) -> Self {
        self.ask(what, send, Asked::BrokenOff { status: 400, finishes: true })
    }

    /// A GET's answer goes on, and both connections are kept.
    pub(super) fn passes(
        self,
        what: impl Into<String>,
        answer: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        self.passes_to(GET, what, answer, seen)
    }

    /// The answer to this request goes on, and the backend's connection is kept.
    pub(super) fn passes_to(
        self,
        ask: impl Into<String>,
        what: impl Into<String>,
        answer: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        let outcome = Answered::Passed { seen: seen.into(), kept: true };
        self.answer(ask, what, answer, Then::Keep, outcome)
    }

    /// The answer goes on, and the backend's connection is not used again.
    pub(super) fn passes_last(
        self,
        ask: impl Into<String>,
        what: impl Into<String>,
        answer: impl Into<String>,
        then: Then,
        seen: impl Into<String>,
    ) -> Self {
        let outcome = Answered::Passed { seen: seen.into(), kept: false };
        self.answer(ask, what, answer, then, outcome)
    }

    /// The backend has broken the protocol.
    pub(super) fn fails(self, what: impl Into<String>, answer: impl Into<String>) -> Self {
        self.answer(GET, what, answer, Then::Keep, Answered::Failed)
    }

    /// The same, with another request or end.
    pub(super) fn fails_for(
        self,
        ask: impl Into<String>,
        what: impl Into<String>,
        answer: impl Into<String>,
        then: Then,
    ) -> Self {
        self.answer(ask, what, answer, then, Answered::Failed)
    }

    /// The answer is not complete.
    pub(super) fn cuts(
        self,
        ask: impl Into<String>,
        what: impl Into<String>,
        answer: impl Into<String>,
        then: Then,
    ) -> Self {
        self.answer(ask, what, answer, then, Answered::Cut)
    }

    pub(super) fn talks(mut self, what: impl Into<String>, steps: Vec<Step>) -> Self {
        self.cases.push(Case { what: what.into(), play: Play::Talk(steps) });
        self
    }

    fn ask(mut self, what: impl Into<String>, send: impl Into<String>, outcome: Asked) -> Self {
        let play = Play::Ask(Ask { send: send.into(), outcome });
        self.cases.push(Case { what: what.into(), play });
        self
    }

    fn answer(
        mut self,
        ask: impl Into<String>,
        what: impl Into<String>,
        answer: impl Into<String>,
        then: Then,
        outcome: Answered,
    ) -> Self {
        let play = Play::Answer(Answer { ask: ask.into(), answer: answer.into(), then, outcome });
        self.cases.push(Case { what: what.into(), play });
        self
    }
}

/// What is asked when it does not matter.
pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// The same, of a client that knows neither chunks nor interim responses.
pub(super) const OLD_GET: &str = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
pub(super) const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
/// A request that is never sent twice.
pub(super) const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// A GET with these fields.
pub(super) fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// A POST with these fields and body.
pub(super) fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

/// A 200 with these fields and body.
pub(super) fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")
}
