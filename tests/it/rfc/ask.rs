//! What clients ask, and what of it must reach the backend.

use lb_tests::{stage::Side, wire};

use super::{
    case::{Ask, Asked},
    compare::{self, shown},
    theatre::{Delivery, Served, Theatre},
};

/// What an attacker wants a backend to take for a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

impl Theatre {
    pub(super) async fn ask(&mut self, ask: &Ask, delivery: Delivery) -> Result<Served, String> {
        let mut send = ask.send.clone();
        match &ask.outcome {
            Asked::Forwarded { seen, closes } => {
                let mut seen = seen.replace("{local}", &self.local());
                if delivery == Delivery::Followed {
                    send += SMUGGLED;
                    if !closes {
                        seen += SMUGGLED;
                    }
                }
                self.forwarded(&send, &seen, *closes, delivery).await?;
            }
            Asked::Refused { status } => {
                if delivery == Delivery::Followed {
                    send = format!("{send}0\r\n\r\n{SMUGGLED}");
                }
                self.refused(&send, *status, delivery).await?;
            }
            Asked::BrokenOff { status, finishes } => {
                if delivery == Delivery::Followed {
                    send += SMUGGLED;
                }
                self.never_complete(&send, *status, *finishes, delivery).await?;
            }
        }
        Ok(None)
    }

    async fn forwarded(
        &mut self,
        send: &str,
        seen: &str,
        closes: bool,
        delivery: Delivery,
    ) -> Result<(), String> {
        let expected = compare::requests(seen);
        let client = self.connect().await;
        self.deliver(client, &wire::bytes(send), delivery).await;
        let waits = send.to_ascii_lowercase().contains("100-continue");
        let (mut reached, mut answered) = (0, 0);
        while answered < expected.len() {
            while let Some((id, request)) = self.arrived()? {
                let Some(wanted) = expected.get(reached) else {
                    return Err(format!("the backend was asked for {}, too", shown(&request)));
                };
                compare::same_request(&request, wanted)?;
                self.echo(id, &request).await;
                reached += 1;
            }
            let wanted = &expected[answered];
            if let Some(answer) = self.heard_response(client, wanted.method() == "HEAD")? {
                // Who sends the body a moment later may be told to.
                if waits && answer.status() == 100 && answer.fields.is_empty() {
                    continue;
                }
                let body = if wanted.method() == "HEAD" { "" } else { &wanted.start };
                if answer.status() != 200 || answer.body != body {
                    return Err(format!("{} was answered {}", wanted.start, shown(&answer)));
                }
                answered += 1;
                let says_close = answer.values("Connection").any(|value| value == "close");
                if says_close != (closes && answered == expected.len()) {
                    return Err(format!("whether it closes: {}", shown(&answer)));
                }
                continue;
            }
            if self.stage.end(client).is_some() {
                return Err(format!("{answered} of {} were answered", expected.len()));
            }
            self.stage.next().await;
        }
        if !closes {
            self.stage.finish(client).await;
        }
        self.ended_in_silence(client).await
    }

    async fn refused(&mut self, send: &str, status: u16, delivery: Delivery) -> Result<(), String> {
        let client = self.connect().await;
        self.deliver(client, &wire::bytes(send), delivery).await;
        let to_head = send.starts_with("HEAD ");
        let answer = loop {
            if let Some((_, request)) = self.arrived()? {
                return Err(format!("the backend was asked for {}", shown(&request)));
            }
            if let Some(answer) = self.heard_response(client, to_head)? {
                break answer;
            }
            if self.stage.end(client).is_some() {
                return Err("no answer".to_owned());
            }
            self.stage.next().await;
        };
        if to_head && answer.status() == status {
            // There is no body that could tell more.
        } else {
            Self::own(&answer, status)?;
        }
        if !answer.values("Connection").eq(["close"]) {
            return Err(format!("it does not say that it closes: {}", shown(&answer)));
        }
        self.ended_in_silence(client).await?;
        for id in self.stage.all(Side::Backend) {
            if !self.stage.unread(id).is_empty() {
                return Err("the backend got something".to_owned());
            }
        }
        Ok(())
    }

    async fn never_complete(
        &mut self,
        send: &str,
        status: u16,
        finishes: bool,
        delivery: Delivery,
    ) -> Result<(), String> {
        let client = self.connect().await;
        let bytes = wire::bytes(send);
        if delivery == Delivery::HeadFirst {
            let head = send.find("\r\n\r\n").map_or(bytes.len(), |end| end + 4);
            self.stage.say(client, &bytes[..head]).await;
            let unread = |stage: &lb_tests::stage::Stage| {
                stage.all(Side::Backend).into_iter().any(|id| !stage.unread(id).is_empty())
            };
            while !unread(&self.stage) {
                self.stage.next().await;
            }
            self.stage.say(client, &bytes[head..]).await;
        } else {
            self.deliver(client, &bytes, delivery).await;
        }
        if finishes {
            self.stage.finish(client).await;
        }
        while self.stage.end(client).is_none() {
            if let Some((_, request)) = self.arrived()? {
                return Err(format!("the backend was asked for {}", shown(&request)));
            }
            self.stage.next().await;
        }
        if let Some(answer) = self.heard_response(client, false)? {
            Self::own(&answer, status)?;
        }
        let unread = wire::text(self.stage.unread(client));
        if !unread.is_empty() {
            return Err(format!("the client got {unread:?}"));
        }
        self.stage.close(client).await;
        self.broken_off().await
    }
}
