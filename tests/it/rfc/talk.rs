//! Client and backend in turn, step by step.

use lb_tests::{
    stage::{End, Id, Side},
    wire::{self, Message},
};

use super::{
    case::Step,
    compare::{self, brief},
    theatre::{Served, Theatre},
};

/// Who is on stage.
struct Cast {
    client: Id,
    /// The backend's connection on which the proxy spoke last.
    backend: Option<Id>,
    to_head: bool,
}

impl Theatre {
    pub(super) async fn talk(&mut self, steps: &[Step]) -> Result<Served, String> {
        let client = self.connect().await;
        let mut cast = Cast { client, backend: None, to_head: false };
        for (index, step) in steps.iter().enumerate() {
            let told = |why| format!("step {index}, {step:?}: {why}");
            self.step(step, &mut cast).await.map_err(told)?;
        }
        self.stage.catch_up();
        for id in [Some(client), cast.backend].into_iter().flatten() {
            let unread = wire::text(self.stage.unread(id));
            if !unread.is_empty() {
                return Err(format!("more than was expected: {:?}", brief(&unread)));
            }
        }
        self.stage.close(client).await;
        Ok(None)
    }

    async fn step(&mut self, step: &Step, cast: &mut Cast) -> Result<(), String> {
        let client = cast.client;
        match step {
            Step::ClientSays(words) => {
                cast.to_head |= words.starts_with("HEAD ");
                self.stage.say(client, &wire::bytes(words)).await;
            }
            Step::ClientFinishes => self.stage.finish(client).await,
            Step::ClientHears(seen) => {
                for wanted in compare::responses(seen, cast.to_head) {
                    let found = self.client_hears(client, cast.to_head).await?;
                    compare::same_response(found, &wanted)?;
                }
            }
            Step::ClientHearsHead(seen) => {
                let wanted = head_of(&wire::bytes(seen), Side::Client)?;
                let found = self.head(client, Side::Client).await?;
                compare::same_response(found, &wanted)?;
            }
            Step::ClientHearsRaw(seen) => self.raw(client, seen).await?,
            Step::ClientHearsRefusal(status) => {
                let found = self.client_hears(client, cast.to_head).await?;
                Self::own(&found, *status)?;
            }
            Step::ClientHearsEnd => self.over(client, End::Closed).await?,
            Step::ClientHearsReset => self.over(client, End::Reset).await?,
            Step::BackendSays(words) => {
                let id = cast.backend()?;
                self.stage.say(id, &wire::bytes(words)).await;
            }
            Step::BackendFinishes => self.stage.finish(cast.backend()?).await,
            Step::BackendCloses => self.stage.close(cast.backend()?).await,
            Step::BackendHears(seen) => {
                for wanted in compare::requests(seen) {
                    let (id, found) = self.backend_hears().await?;
                    cast.backend = Some(id);
                    compare::same_request(&found, &wanted)?;
                }
            }
            Step::BackendHearsHead(seen) => {
                let wanted = head_of(&wire::bytes(seen), Side::Backend)?;
                let id = self.speaking().await;
                cast.backend = Some(id);
                let found = self.head(id, Side::Backend).await?;
                compare::same_request(&found, &wanted)?;
            }
            Step::BackendHearsRaw(seen) => self.raw(cast.backend()?, seen).await?,
            Step::BackendHearsEnd => {
                self.ended(cast.backend()?).await;
            }
            Step::BackendHearsBreak => {
                let id = cast.backend()?;
                self.ended(id).await;
                let unread = wire::text(self.stage.unread(id));
                if unread.contains("0\r\n") {
                    return Err(format!("it looks complete: {unread:?}"));
                }
                self.stage.take(id, unread.chars().count());
            }
            Step::Silence => {
                // Two round trips through the same worker: what was said has been seen.
                for _ in 0..2 {
                    self.probe().await?;
                }
                for id in [Some(client), cast.backend].into_iter().flatten() {
                    let unread = wire::text(self.stage.unread(id));
                    if !unread.is_empty() {
                        return Err(format!("it was heard too early: {:?}", brief(&unread)));
                    }
                }
            }
        }
        Ok(())
    }

    async fn client_hears(&mut self, client: Id, to_head: bool) -> Result<Message, String> {
        loop {
            if let Some(found) = self.heard_response(client, to_head)? {
                return Ok(found);
            }
            if let Some(end) = self.stage.end(client) {
                return Err(format!("no complete answer, {end:?}"));
            }
            self.stage.next().await;
        }
    }

    async fn backend_hears(&mut self) -> Result<(Id, Message), String> {
        loop {
            if let Some(found) = self.arrived()? {
                return Ok(found);
            }
            self.stage.next().await;
        }
    }

    /// The backend's connection on which something is to be read.
    async fn speaking(&mut self) -> Id {
        loop {
            let all = self.stage.all(Side::Backend);
            let found = all.into_iter().find(|id| !self.stage.unread(*id).is_empty());
            if let Some(id) = found {
                return id;
            }
            self.stage.next().await;
        }
    }

    /// Takes a head, and leaves what is behind it.
    async fn head(&mut self, id: Id, side: Side) -> Result<Message, String> {
        loop {
            let unread = self.stage.unread(id);
            if let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = head_of(&unread[..end + 4], side)?;
                self.stage.take(id, end + 4);
                return Ok(head);
            }
            if let Some(end) = self.stage.end(id) {
                return Err(format!("no head, {end:?}"));
            }
            self.stage.next().await;
        }
    }

    async fn raw(&mut self, id: Id, seen: &str) -> Result<(), String> {
        let wanted = wire::bytes(seen);
        loop {
            let unread = self.stage.unread(id);
            let length = unread.len().min(wanted.len());
            if unread[..length] != wanted[..length] {
                return Err(format!("found {:?}", brief(&wire::text(unread))));
            }
            if length == wanted.len() {
                self.stage.take(id, length);
                return Ok(());
            }
            if let Some(end) = self.stage.end(id) {
                return Err(format!("found {:?}, {end:?}", brief(&wire::text(unread))));
            }
            self.stage.next().await;
        }
    }

    async fn over(&mut self, client: Id, wanted: End) -> Result<(), String> {
        let end = self.ended(client).await;
        let unread = wire::text(self.stage.unread(client));
        if end != wanted || !unread.is_empty() {
            return Err(format!("found {end:?} after {:?}", brief(&unread)));
        }
        Ok(())
    }
}

impl Cast {
    fn backend(&self) -> Result<Id, String> {
        self.backend.ok_or_else(|| "the backend was not asked".to_owned())
    }
}

/// A head without regard to its body.
fn head_of(bytes: &[u8], side: Side) -> Result<Message, String> {
    let found = match side {
        Side::Backend => wire::request(bytes)?,
        Side::Client => wire::response(bytes, true, false)?,
    };
    let mut head = found.ok_or_else(|| "half a head".to_owned())?;
    (head.body, head.trailers) = (String::new(), Vec::new());
    Ok(head)
}
