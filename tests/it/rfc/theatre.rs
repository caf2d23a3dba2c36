//! Plays the cases of a topic one after the other before one proxy, and judges each.

use std::time::Duration;

use lb_tests::{
    cluster::Cluster,
    stage::{End, Id, Side, Stage},
    wire::{self, Message},
};
use tokio::time::timeout;

use super::{
    case::{Case, Play, Rule},
    compare::{self, brief, shown, unambiguous},
};
use crate::program;

/// No exchange takes longer; most take a millisecond.
const CASE_LIMIT: Duration = Duration::from_secs(5);
/// What is said of an exchange that does not end.
const HUNG: &str = "HUNG";
/// Pieces of a long message that is sent in pieces; a short one is sent byte by byte.
const PIECE_BYTES: usize = 700;

/// The proxy and both of its sides.
pub(super) struct Theatre {
    cluster: Cluster,
    pub(super) stage: Stage,
    probes: u32,
}

/// How bytes come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Delivery {
    /// In one packet.
    Whole,
    /// Byte by byte.
    Pieces,
    /// In one packet with a further request.
    Followed,
    /// The head, and what is behind it when the head has come out at the other end.
    HeadFirst,
}

/// Where the backend answered, and whether it may be asked there again.
pub(super) type Served = Option<(Id, bool)>;

/// Holds a proxy to rules.
pub(super) async fn hold(rules: Vec<Rule>) {
    hold_with(rules, async |_| {}).await;
}

/// The same, once the proxy is configured.
pub(super) async fn hold_with(rules: Vec<Rule>, configure: impl AsyncFnOnce(&Cluster)) {
    let mut theatre = Theatre::open(configure).await;
    let (mut failures, mut played) = (Vec::new(), 0);
    for rule in &rules {
        for case in &rule.cases {
            for delivery in deliveries(case) {
                played += 1;
                if let Err(why) = theatre.judge(case, delivery).await {
                    let hung = why == HUNG;
                    let told = theatre.heard();
                    let Rule { section, says, .. } = rule;
                    let what = &case.what;
                    failures.push(format!("{section} ({says}): {what}, {delivery:?}: {why}{told}"));
                    theatre.recover().await;
                    if hung {
                        break;
                    }
                }
            }
        }
    }
    match timeout(CASE_LIMIT, theatre.audit()).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => failures.push(why),
        Err(_) => failures.push("the last probe hung".to_owned()),
    }
    let count = failures.len();
    assert!(failures.is_empty(), "{count} of {played} failed\n- {}", failures.join("\n- "));
}

fn deliveries(case: &Case) -> Vec<Delivery> {
    use Delivery::{Followed, HeadFirst, Pieces, Whole};
    match &case.play {
        Play::Ask(ask) => match ask.outcome {
            super::case::Asked::BrokenOff { finishes: true, .. } => vec![Whole, Pieces, HeadFirst],
            super::case::Asked::BrokenOff { finishes: false, .. } => {
                vec![Whole, Pieces, HeadFirst, Followed]
            }
            // Nothing can follow on what has no end.
            _ if !ask.send.contains("\r\n") => vec![Whole, Pieces],
            _ => vec![Whole, Pieces, Followed],
        },
        Play::Answer(answer) => match answer.outcome {
            super::case::Answered::Cut => vec![Whole, Pieces, HeadFirst],
            _ => vec![Whole, Pieces],
        },
        Play::Talk(_) => vec![Whole],
    }
}

impl Theatre {
    async fn open(configure: impl AsyncFnOnce(&Cluster)) -> Self {
        let stage = Stage::open();
        // One worker: who comes second meets what the first one left behind.
        let cluster = Cluster::start_with(program(), 1, &["--workers=1"]).await;
        cluster.api.change_pool(lb_tests::cluster::no_checks).await;
        cluster.add_backends(&[stage.address()]).await;
        configure(&cluster).await;
        Self { cluster, stage, probes: 0 }
    }

    /// Leaves a failed case behind, and answers what the proxy still tries because of it.
    async fn recover(&mut self) {
        self.stage.clear().await;
        let probed = timeout(CASE_LIMIT, self.probe_among(true)).await;
        // If the proxy does not recover, the next case fails, too.
        drop(probed);
        self.stage.clear().await;
    }

    async fn judge(&mut self, case: &Case, delivery: Delivery) -> Result<(), String> {
        let played = match &case.play {
            Play::Ask(ask) => timeout(CASE_LIMIT, self.ask(ask, delivery)).await,
            Play::Answer(answer) => timeout(CASE_LIMIT, self.answer(answer, delivery)).await,
            Play::Talk(steps) => timeout(CASE_LIMIT, self.talk(steps)).await,
        };
        let served = played.unwrap_or_else(|_| Err(HUNG.to_owned()))?;
        let probed = timeout(CASE_LIMIT, self.probe()).await;
        let probed = probed.unwrap_or_else(|_| Err("hung".to_owned()));
        let probed = probed.map_err(|why| format!("POISONED: {why}"))?;
        match served {
            Some((id, true)) if id != probed => Err("the backend's connection was not kept".into()),
            Some((id, false)) if id == probed => Err("the backend's connection was kept".into()),
            _ => Ok(()),
        }
    }

    /// Asks something as another client, who must get the answer that is meant for it.
    pub(super) async fn probe(&mut self) -> Result<Id, String> {
        self.probe_among(false).await
    }

    /// The same, among requests of others or not.
    async fn probe_among(&mut self, others: bool) -> Result<Id, String> {
        self.probes += 1;
        let start = format!("GET /probe/{} HTTP/1.1", self.probes);
        let client = self.connect().await;
        let request = format!("{start}\r\nHost: probe\r\nConnection: close\r\n\r\n");
        self.stage.say(client, request.as_bytes()).await;
        let mut served = None;
        loop {
            while let Some((id, request)) = self.arrived()? {
                if request.start != start && !others {
                    return Err(format!("the backend was asked for {}", shown(&request)));
                }
                self.echo(id, &request).await;
                served = Some(id);
            }
            if let Some(answer) = self.heard_response(client, false)? {
                if answer.status() != 200 || answer.body != start {
                    return Err(format!("{start} was answered {}", shown(&answer)));
                }
                self.stage.close(client).await;
                return served.ok_or_else(|| "nobody was asked".to_owned());
            }
            if self.stage.end(client).is_some() {
                return Err(format!("no answer to {start}"));
            }
            self.stage.next().await;
        }
    }

    /// At the end of it all the backend has got nothing that nobody has looked at, and
    /// careless readers see the same requests in everything that it got.
    async fn audit(&mut self) -> Result<(), String> {
        self.probe().await?;
        for id in self.stage.all(Side::Backend) {
            let unread = wire::text(self.stage.unread(id));
            if !unread.is_empty() {
                return Err(format!("bytes came late: {:?}", brief(&unread)));
            }
        }
        Ok(())
    }

    pub(super) async fn connect(&mut self) -> Id {
        self.stage.connect(self.cluster.address()).await
    }

    /// The proxy's address, as it tells it.
    pub(super) fn local(&self) -> String {
        self.cluster.address().to_string()
    }

    /// Sends bytes in one of the ways.
    pub(super) async fn deliver(&mut self, id: Id, bytes: &[u8], delivery: Delivery) {
        if delivery == Delivery::Pieces {
            let size = if bytes.len() > 1500 { PIECE_BYTES } else { 1 };
            for piece in bytes.chunks(size) {
                self.stage.say(id, piece).await;
                tokio::task::yield_now().await;
            }
        } else {
            self.stage.say(id, bytes).await;
        }
    }

    /// Takes a complete request that has reached the backend.
    pub(super) fn arrived(&mut self) -> Result<Option<(Id, Message)>, String> {
        self.stage.catch_up();
        for id in self.stage.all(Side::Backend) {
            let bytes = self.stage.unread(id);
            let found = wire::request(bytes)
                .map_err(|why| format!("the backend got what is no request: {why}"))?;
            if let Some(message) = found.filter(|message| message.whole) {
                let starts = [message.start.clone()];
                unambiguous(&bytes[..message.length], &starts, true)?;
                self.stage.take(id, message.length);
                return Ok(Some((id, message)));
            }
        }
        Ok(None)
    }

    /// Answers a request with its own first line.
    pub(super) async fn echo(&mut self, id: Id, request: &Message) {
        let body = if request.method() == "HEAD" { "" } else { &request.start };
        let length = request.start.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stage.say(id, &wire::bytes(&answer)).await;
    }

    /// Takes a complete response that has reached a client.
    pub(super) fn heard_response(
        &mut self,
        id: Id,
        to_head: bool,
    ) -> Result<Option<Message>, String> {
        self.stage.catch_up();
        let ended = self.stage.end(id) == Some(End::Closed);
        let found = wire::response(self.stage.unread(id), to_head, ended)
            .map_err(|why| format!("the client got what is no response: {why}"))?;
        let found = found.filter(|message| message.whole);
        if let Some(message) = &found {
            self.stage.take(id, message.length);
        }
        Ok(found)
    }

    /// Waits until the proxy has ended a connection.
    pub(super) async fn ended(&mut self, id: Id) -> End {
        loop {
            if let Some(end) = self.stage.end(id) {
                return end;
            }
            self.stage.next().await;
        }
    }

    /// Waits until the proxy has said no more to a client, having said nothing that was
    /// not expected.
    pub(super) async fn ended_in_silence(&mut self, client: Id) -> Result<(), String> {
        let end = self.ended(client).await;
        let unread = wire::text(self.stage.unread(client));
        if !unread.is_empty() || end != End::Closed {
            return Err(format!("the client got more: {:?}, {end:?}", brief(&unread)));
        }
        self.stage.close(client).await;
        Ok(())
    }

    /// Breaks off what has reached the backend incomplete: no reader may see a complete
    /// request in it, and the proxy must end the connection.
    pub(super) async fn broken_off(&mut self) -> Result<(), String> {
        for id in self.stage.all(Side::Backend) {
            if self.stage.unread(id).is_empty() {
                continue;
            }
            self.ended(id).await;
            let bytes = self.stage.unread(id);
            let found = wire::request(bytes)
                .map_err(|why| format!("the backend got what is no request: {why}"))?;
            if found.as_ref().is_some_and(|message| message.whole) {
                return Err("the backend got a complete request".to_owned());
            }
            let starts = [found.unwrap_or_default().start];
            unambiguous(bytes, &starts, false)?;
            let count = bytes.len();
            self.stage.take(id, count);
        }
        Ok(())
    }

    /// Checks an answer of the proxy's own.
    pub(super) fn own(answer: &Message, status: u16) -> Result<(), String> {
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let reason = body["reason"].as_str().unwrap_or_default();
        let reasons: &[&str] = match status {
            413 => &["body_too_large"],
            414 | 431 => &["header_too_large"],
            400..=499 | 505 => &["client_protocol_error"],
            _ => &["backend_protocol_error", "backend_reset"],
        };
        if answer.status() != status || !reasons.contains(&reason) {
            return Err(format!("expected {status} for {reasons:?}, found {}", shown(answer)));
        }
        // RFC 9110, 6.6.1.
        let dates: Vec<&str> = answer.values("date").collect();
        if !matches!(dates[..], [date] if compare::is_date(date)) {
            return Err(format!("one date is due, found {}", shown(answer)));
        }
        Ok(())
    }

    /// What the last client and the backends have heard, for a failure's story.
    fn heard(&mut self) -> String {
        self.stage.catch_up();
        let mut story = String::new();
        // The probe's client is not the one of the case.
        for id in self.stage.all(Side::Client).into_iter().rev().take(2) {
            let text = wire::text(self.stage.heard(id));
            story += &format!("\n    client: {:?} {:?}", brief(&text), self.stage.end(id));
        }
        for id in self.stage.all(Side::Backend) {
            let text = wire::text(self.stage.unread(id));
            if !text.is_empty() {
                story += &format!("\n    backend: {:?} {:?}", brief(&text), self.stage.end(id));
            }
        }
        story
    }
}
