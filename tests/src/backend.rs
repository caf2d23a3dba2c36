//! A scriptable HTTP server that records what reaches it.
//!
//! A test gives a function from a request's head to the actions that answer it, byte by
//! byte if it matters. `/health` answers by itself and is not recorded. A backend can be
//! taken off its port and put back on it.

use std::{
    fmt,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{PATIENCE, client, port::Port};

/// A server on a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Backend {
    port: Port,
    site: Arc<Site>,
    server: Option<JoinHandle<()>>,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counts the connections of this backend, from 1.
    pub connection: u64,
    /// Counts the requests of that connection, from 1.
    pub number: u64,
    /// Request line and fields, without the empty line.
    pub head: String,
}

/// What reached the backend.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its head.
    pub request: Request,
    /// Its body, with its framing as it was sent, as far as it was read.
    pub body: Vec<u8>,
}

/// One step of an answer.
#[derive(Clone, Debug)]
pub enum Action {
    /// Reads the whole body of the request.
    ReadBody,
    /// Reads at least so many bytes of the request's body.
    ReadSome(usize),
    /// Sends bytes as they are.
    Send(Vec<u8>),
    /// Does nothing for a while: the backend is slow.
    Pause(Duration),
    /// Does nothing until the gate opens.
    Await(Gate),
    /// Reads and says nothing more for ever.
    Hang,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// Holds back whoever waits for it, until it is opened once and for all.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

type Handler = Box<dyn Fn(&Request) -> Vec<Action> + Send + Sync>;

struct Site {
    handler: Handler,
    records: watch::Sender<Vec<Recorded>>,
    connections: AtomicU64,
    bytes: AtomicU64,
    unwell: AtomicBool,
}

impl Backend {
    /// Answers as the function says.
    #[must_use]
    pub fn scripted(handler: impl Fn(&Request) -> Vec<Action> + Send + Sync + 'static) -> Self {
        Self::at(Port::reserve(), handler)
    }

    /// The same, on a port that was chosen.
    #[must_use]
    pub fn at(
        port: Port,
        handler: impl Fn(&Request) -> Vec<Action> + Send + Sync + 'static,
    ) -> Self {
        let site = Arc::new(Site {
            handler: Box::new(handler),
            records: watch::Sender::default(),
            connections: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            unwell: AtomicBool::new(false),
        });
        let mut backend = Self { port, site, server: None };
        backend.resume();
        backend
    }

    /// Reads each request whole and answers 200 with this body.
    #[must_use]
    pub fn saying(body: &str) -> Self {
        let answer = ok(body);
        Self::scripted(move |_| vec![Action::ReadBody, Action::Send(answer.clone())])
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Leaves: new connections are refused, present ones reset or closed.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // Only when it has ended is the port not listened on.
            server.await.ok();
        }
    }

    /// Comes back to its port.
    pub fn resume(&mut self) {
        self.server = Some(tokio::spawn(serve(self.port.listen(), Arc::clone(&self.site))));
    }

    /// Makes health checks fail, or pass again.
    pub fn set_healthy(&self, healthy: bool) {
        self.site.unwell.store(!healthy, Ordering::SeqCst);
    }

    /// What reached it so far.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        self.site.records.borrow().clone()
    }

    /// How many requests reached it so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.site.records.borrow().len()
    }

    /// How many bytes reached it so far, those of health checks aside.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.site.bytes.load(Ordering::SeqCst)
    }

    /// How many connections reached it so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.site.connections.load(Ordering::SeqCst)
    }

    /// Waits until it was asked this often.
    pub async fn reached(&self, requests: usize) -> Vec<Recorded> {
        let mut receiver = self.site.records.subscribe();
        let enough = receiver.wait_for(|records| records.len() >= requests);
        match timeout(PATIENCE, enough).await {
            Ok(records) => records.expect("the sender lives").clone(),
            Err(_) => panic!("{requests} requests did not come; {} did", self.requests()),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl Request {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The target.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a field, whatever the case of its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        client::field(&self.head, name)
    }
}

impl Gate {
    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        self.0.subscribe().wait_for(|open| *open).await.expect("the sender is held here");
    }
}

/// A 200 with its length.
#[must_use]
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn serve(listener: TcpListener, site: Arc<Site>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(converse(stream, Arc::clone(&site)));
            }
            Some(ended) = connections.join_next() => drop(ended),
        }
    }
}

/// One connection on the backend's side.
struct Conversation {
    stream: TcpStream,
    unread: Vec<u8>,
    site: Arc<Site>,
}

async fn converse(stream: TcpStream, site: Arc<Site>) {
    stream.set_nodelay(true).ok();
    let mut conversation = Conversation { stream, unread: Vec::new(), site };
    let mut connection = 0;
    for number in 1.. {
        let Some(head) = conversation.head().await else { return };
        let request = Request { connection, number, head };
        if request.path() == "/health" {
            let answer = match conversation.site.unwell.load(Ordering::SeqCst) {
                false => ok("well"),
                true => b"HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            if conversation.stream.write_all(&answer).await.is_err() {
                return;
            }
            continue;
        }
        if connection == 0 {
            connection = conversation.site.connections.fetch_add(1, Ordering::SeqCst) + 1;
        }
        let request = Request { connection, ..request };
        if conversation.answer(request).await.is_none() {
            return;
        }
    }
}

impl Conversation {
    /// `None` when the connection is over.
    async fn answer(&mut self, request: Request) -> Option<()> {
        let actions = (self.site.handler)(&request);
        self.count(request.head.len() as u64 + 4);
        let mut index = 0;
        self.site.records.send_modify(|records| {
            index = records.len();
            records.push(Recorded { request: request.clone(), body: Vec::new() });
        });
        for action in actions {
            match action {
                Action::ReadBody => {
                    let body = self.body(&request.head).await;
                    let complete = body.is_ok();
                    let body = body.unwrap_or_else(|partial| partial);
                    self.count(body.len() as u64);
                    self.site.records.send_modify(|records| records[index].body = body);
                    if !complete {
                        return None;
                    }
                }
                Action::ReadSome(count) => {
                    while self.unread.len() < count {
                        if !self.fill().await {
                            return None;
                        }
                    }
                }
                Action::Send(bytes) => self.stream.write_all(&bytes).await.ok()?,
                Action::Pause(pause) => sleep(pause).await,
                Action::Await(gate) => gate.opened().await,
                Action::Hang => pending().await,
                Action::Close => {
                    self.stream.shutdown().await.ok();
                    return None;
                }
                Action::Reset => {
                    self.stream.set_zero_linger().ok();
                    return None;
                }
            }
        }
        Some(())
    }

    async fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await {
                self.count(self.unread.len() as u64);
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        self.unread.drain(..end + 4);
        Some(head)
    }

    /// The body with its framing; what there is of it when it is cut off.
    async fn body(&mut self, head: &str) -> Result<Vec<u8>, Vec<u8>> {
        if client::field(head, "Transfer-Encoding").is_some() {
            while !(self.unread.starts_with(b"0\r\n\r\n")
                || self.unread.windows(7).any(|window| window == b"\r\n0\r\n\r\n"))
            {
                if !self.fill().await {
                    return Err(std::mem::take(&mut self.unread));
                }
            }
            return Ok(std::mem::take(&mut self.unread));
        }
        let length = client::field(head, "Content-Length").map_or(Ok(0), str::parse::<usize>);
        let length = length.expect("the proxy writes a number");
        while self.unread.len() < length {
            if !self.fill().await {
                return Err(std::mem::take(&mut self.unread));
            }
        }
        Ok(self.unread.drain(..length).collect())
    }

    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.unread).await.is_ok_and(|count| count > 0)
    }

    fn count(&self, bytes: u64) {
        self.site.bytes.fetch_add(bytes, Ordering::SeqCst);
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("records", &self.records).finish_non_exhaustive()
    }
}
