//! Both ends of a proxy in one hand: clients that a test opens, and every connection that
//! the proxy opens to its backend, each with all bytes that came and how it ended.
//!
//! What happens anywhere comes in as one sequence of events, so that a test can play the
//! client and the backend in turn and look at both after each step.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
};

use crate::port::Port;

/// The test's ends of all connections.
#[derive(Debug)]
pub struct Stage {
    port: Port,
    acceptor: JoinHandle<()>,
    sender: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    actors: Vec<Actor>,
    /// Something was applied that [`Self::next`] has not told of.
    news: bool,
}

/// Names one connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Id(usize);

/// On which side of the proxy a connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The test is the client.
    Client,
    /// The test is the backend.
    Backend,
}

/// How the proxy ended its side of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It says no more.
    Closed,
    /// It aborted.
    Reset,
}

#[derive(Debug)]
struct Actor {
    side: Side,
    writer: Option<OwnedWriteHalf>,
    reader: Option<JoinHandle<()>>,
    heard: Vec<u8>,
    /// How much of it the test has looked at.
    accounted: usize,
    end: Option<End>,
}

#[derive(Debug)]
enum Event {
    Accepted(TcpStream),
    Heard(Id, Vec<u8>),
    Ended(Id, End),
}

impl Stage {
    /// Listens where the proxy's backend should be.
    #[must_use]
    pub fn open() -> Self {
        let port = Port::reserve();
        let (sender, events) = mpsc::unbounded_channel();
        let acceptor = tokio::spawn(accept(port.listen(), sender.clone()));
        Self { port, acceptor, sender, events, actors: Vec::new(), news: false }
    }

    /// The backend's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// A new client.
    pub async fn connect(&mut self, address: SocketAddr) -> Id {
        let stream = TcpStream::connect(address).await.expect("the proxy takes connections");
        self.add(stream, Side::Client)
    }

    /// Sends bytes. That the proxy takes no more is no failure here: what it says shows why.
    pub async fn say(&mut self, id: Id, bytes: &[u8]) {
        if let Some(writer) = &mut self.actors[id.0].writer {
            writer.write_all(bytes).await.ok();
        }
    }

    /// Says that nothing more comes.
    pub async fn finish(&mut self, id: Id) {
        if let Some(writer) = &mut self.actors[id.0].writer {
            writer.shutdown().await.ok();
        }
    }

    /// Closes the connection, without waiting for anything.
    pub async fn close(&mut self, id: Id) {
        let actor = &mut self.actors[id.0];
        if let Some(reader) = actor.reader.take() {
            reader.abort();
            // The other half of the socket is dropped when the task has ended.
            reader.await.ok();
        }
        actor.writer = None;
        actor.end.get_or_insert(End::Closed);
    }

    /// Aborts the connection.
    pub async fn reset(&mut self, id: Id) {
        if let Some(writer) = self.actors[id.0].writer.take() {
            writer.as_ref().set_zero_linger().ok();
            // Dropped as usual it would say first that nothing more comes.
            writer.forget();
        }
        self.close(id).await;
    }

    /// Waits until something has happened since it was last called.
    pub async fn next(&mut self) {
        if !self.news {
            let event = self.events.recv().await.expect("a sender is held here");
            self.apply(event);
        }
        self.news = false;
    }

    /// Takes note of what has happened, without waiting.
    pub fn catch_up(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.apply(event);
        }
    }

    /// What a connection has heard that was not accounted for.
    #[must_use]
    pub fn unread(&self, id: Id) -> &[u8] {
        let actor = &self.actors[id.0];
        &actor.heard[actor.accounted..]
    }

    /// Everything that a connection has heard.
    #[must_use]
    pub fn heard(&self, id: Id) -> &[u8] {
        &self.actors[id.0].heard
    }

    /// Accounts for bytes, and returns them.
    pub fn take(&mut self, id: Id, count: usize) -> Vec<u8> {
        let actor = &mut self.actors[id.0];
        let from = actor.accounted;
        actor.accounted += count;
        actor.heard[from..from + count].to_vec()
    }

    /// How the proxy ended it, if it did.
    #[must_use]
    pub fn end(&self, id: Id) -> Option<End> {
        self.actors[id.0].end
    }

    /// All connections of one side so far.
    #[must_use]
    pub fn all(&self, side: Side) -> Vec<Id> {
        let ids = (0..self.actors.len()).map(Id);
        ids.filter(|id| self.actors[id.0].side == side).collect()
    }

    /// Closes all connections and forgets what they heard.
    pub async fn clear(&mut self) {
        for id in (0..self.actors.len()).map(Id) {
            self.close(id).await;
            let actor = &mut self.actors[id.0];
            actor.heard.clear();
            actor.accounted = 0;
        }
    }

    fn apply(&mut self, event: Event) {
        self.news = true;
        match event {
            Event::Accepted(stream) => {
                self.add(stream, Side::Backend);
            }
            // What was closed hears no more.
            Event::Heard(id, _) if self.actors[id.0].writer.is_none() => {}
            Event::Heard(id, bytes) => self.actors[id.0].heard.extend_from_slice(&bytes),
            Event::Ended(id, end) => {
                self.actors[id.0].end.get_or_insert(end);
            }
        }
    }

    fn add(&mut self, stream: TcpStream, side: Side) -> Id {
        stream.set_nodelay(true).ok();
        let (reader, writer) = stream.into_split();
        let id = Id(self.actors.len());
        let reader = tokio::spawn(listen(id, reader, self.sender.clone()));
        self.actors.push(Actor {
            side,
            writer: Some(writer),
            reader: Some(reader),
            heard: Vec::new(),
            accounted: 0,
            end: None,
        });
        id
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.acceptor.abort();
        for reader in self.actors.iter().filter_map(|actor| actor.reader.as_ref()) {
            reader.abort();
        }
    }
}

async fn accept(listener: TcpListener, events: mpsc::UnboundedSender<Event>) {
    while let Ok((stream, _)) = listener.accept().await {
        if events.send(Event::Accepted(stream)).is_err() {
            return;
        }
    }
}

async fn listen(id: Id, mut reader: OwnedReadHalf, events: mpsc::UnboundedSender<Event>) {
    loop {
        let mut bytes = Vec::with_capacity(16 * 1024);
        let event = match reader.read_buf(&mut bytes).await {
            Ok(0) => Event::Ended(id, End::Closed),
            Ok(_) => Event::Heard(id, bytes),
            Err(_) => Event::Ended(id, End::Reset),
        };
        let over = matches!(event, Event::Ended(..));
        if events.send(event).is_err() || over {
            return;
        }
    }
}
