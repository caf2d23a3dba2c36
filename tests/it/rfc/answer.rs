//! What backends answer, and what of it must reach the client.

use lb_tests::{
    stage::{End, Id},
    wire::{self, Message},
};

use super::{
    case::{Answer, Answered, Then},
    compare::{self, shown},
    theatre::{Delivery, Served, Theatre},
};

/// A request that may be repeated is sent this often at most.
const SENT_MAX: usize = 2;

impl Theatre {
    pub(super) async fn answer(
        &mut self,
        case: &Answer,
        delivery: Delivery,
    ) -> Result<Served, String> {
        let client = self.connect().await;
        self.stage.say(client, &wire::bytes(&case.ask)).await;
        let to_head = case.ask.starts_with("HEAD ");
        let mut sent = 0;
        let mut served = None;
        match &case.outcome {
            Answered::Passed { seen, kept } => {
                let expected = compare::responses(seen, to_head);
                let mut closes = false;
                for wanted in &expected {
                    let found =
                        self.next_response(case, client, delivery, &mut sent, &mut served).await?;
                    let found = found.ok_or_else(|| "the answer is not complete".to_owned())?;
                    closes = found.values("Connection").any(|value| value == "close");
                    compare::same_response(found, wanted)?;
                }
                if !closes {
                    self.stage.finish(client).await;
                }
                self.ended_in_silence(client).await?;
                return Ok(served.map(|id| (id, *kept)));
            }
            Answered::Failed => {
                let found =
                    self.next_response(case, client, delivery, &mut sent, &mut served).await?;
                self.failed(&case.ask, client, found).await?;
            }
            Answered::Cut => {
                let found =
                    self.next_response(case, client, delivery, &mut sent, &mut served).await?;
                match found {
                    Some(found) if found.status() == 200 => {
                        return Err(format!("TRUNCATED, and yet complete: {}", shown(&found)));
                    }
                    Some(found) => self.failed(&case.ask, client, Some(found)).await?,
                    None => self.stage.close(client).await,
                }
            }
        }
        let id = served.ok_or_else(|| "the backend was not asked".to_owned())?;
        self.ended(id).await;
        Ok(Some((id, false)))
    }

    /// A complete answer to the client, or none when the connection ends before; the
    /// backend plays its part meanwhile.
    async fn next_response(
        &mut self,
        case: &Answer,
        client: Id,
        delivery: Delivery,
        sent: &mut usize,
        served: &mut Option<Id>,
    ) -> Result<Option<Message>, String> {
        loop {
            if let Some((id, request)) = self.arrived()? {
                *sent += 1;
                let once = request.method() == "POST";
                if *sent > if once { 1 } else { SENT_MAX } {
                    return Err(format!("sent {sent} times: {}", shown(&request)));
                }
                *served = Some(id);
                self.perform(case, id, client, delivery).await;
            }
            let to_head = case.ask.starts_with("HEAD ");
            if let Some(found) = self.heard_response(client, to_head)? {
                return Ok(Some(found));
            }
            if self.stage.end(client).is_some() {
                return Ok(None);
            }
            self.stage.next().await;
        }
    }

    async fn perform(&mut self, case: &Answer, id: Id, client: Id, delivery: Delivery) {
        let bytes = wire::bytes(&case.answer);
        if delivery == Delivery::HeadFirst {
            let head = case.answer.find("\r\n\r\n").map_or(bytes.len(), |end| end + 4);
            self.stage.say(id, &bytes[..head]).await;
            while self.stage.unread(client).is_empty() && self.stage.end(client).is_none() {
                self.stage.next().await;
            }
            self.stage.say(id, &bytes[head..]).await;
        } else {
            self.deliver(id, &bytes, delivery).await;
        }
        match case.then {
            Then::Keep => {}
            Then::Close => self.stage.finish(id).await,
            Then::Reset => self.stage.reset(id).await,
        }
    }

    /// Checks that the client was told of the backend's fault, and keeps its connection.
    async fn failed(
        &mut self,
        ask: &str,
        client: Id,
        found: Option<Message>,
    ) -> Result<(), String> {
        let found = found.ok_or_else(|| "the client got no answer".to_owned())?;
        if ask.starts_with("HEAD ") && found.status() == 502 {
            // There is no body that could tell more.
        } else {
            Self::own(&found, 502)?;
        }
        if ask.contains("HTTP/1.1") {
            if found.values("Connection").next().is_some() {
                return Err(format!("the client did nothing wrong: {}", shown(&found)));
            }
            self.stage.finish(client).await;
        }
        if self.ended(client).await != End::Closed {
            return Err("the client's connection was reset".to_owned());
        }
        self.ended_in_silence(client).await
    }
}
