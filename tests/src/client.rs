//! An HTTP/1 client that sends exactly what it is told and shows exactly what it gets.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::PATIENCE;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A complete response, or an interim one.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Status line and fields, without the empty line.
    pub head: String,
    /// Without its framing.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address)
            .await
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Connects, or says why not.
    pub async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = within(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// A client on a connection that was made elsewhere.
    #[must_use]
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the connection takes bytes");
    }

    /// Sends bytes, or says why not.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(self.stream.write_all(bytes.as_ref())).await
    }

    /// Sends bytes one by one, and waits so long before each: a slow client.
    pub async fn drip(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) {
        for byte in bytes.as_ref() {
            sleep(pause).await;
            self.send([*byte]).await;
        }
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the connection can be half closed");
    }

    /// The next response to a request that was not HEAD.
    pub async fn response(&mut self) -> Response {
        self.try_response("GET").await.unwrap_or_else(|why| panic!("no response: {why}"))
    }

    /// The next response to a request of this method, or why there is none: what is cut
    /// off is never taken for complete.
    pub async fn try_response(&mut self, method: &str) -> Result<Response, String> {
        let head = self.head().await?;
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| format!("not a status line: {head:?}"))?;
        let mut response = Response { status, head, body: Vec::new() };
        if method == "HEAD" || status < 200 || matches!(status, 204 | 304) {
            return Ok(response);
        }
        response.body = if response.field("Transfer-Encoding") == Some("chunked") {
            self.chunked().await?
        } else if let Some(length) = response.field("Content-Length") {
            let length = length.parse().map_err(|_| format!("bad length {length:?}"))?;
            self.take(length).await?
        } else if response.field("Connection") == Some("close") {
            self.until_closed().await?
        } else {
            return Err(format!("neither length nor end: {:?}", response.head));
        };
        Ok(response)
    }

    /// The bytes up to the end of the connection; an error is an end, too.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await.is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.unread)
    }

    /// The bytes up to the end, if the connection was closed and not reset.
    pub async fn end(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Waits for the reset that ends the connection; what came before it.
    pub async fn reset(&mut self) -> Vec<u8> {
        let error = loop {
            match self.fill().await {
                Ok(0) => panic!("the connection was closed and not reset"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        std::mem::take(&mut self.unread)
    }

    /// The socket, for what this client does not do.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Status line and fields of the next response, without the empty line.
    pub async fn head(&mut self) -> Result<String, String> {
        let end = self.find(b"\r\n\r\n").await?;
        let head = self.take(end + 4).await?;
        String::from_utf8(head[..end].to_vec()).map_err(|error| error.to_string())
    }

    /// Exactly this many bytes.
    pub async fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < length {
            self.more().await?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    async fn chunked(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let end = self.find(b"\r\n").await?;
            let line = self.take(end + 2).await?;
            let digits = str::from_utf8(&line[..end]).map_err(|error| error.to_string())?;
            let length = usize::from_str_radix(digits, 16)
                .map_err(|_| format!("bad chunk size {digits:?}"))?;
            let mut chunk = self.take(length + 2).await?;
            if !chunk.ends_with(b"\r\n") {
                return Err("a chunk does not end where it should".to_owned());
            }
            if length == 0 {
                return Ok(body);
            }
            chunk.truncate(length);
            body.append(&mut chunk);
        }
    }

    async fn until_closed(&mut self) -> Result<Vec<u8>, String> {
        while self.fill().await.map_err(|error| error.to_string())? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    async fn find(&mut self, wanted: &[u8]) -> Result<usize, String> {
        loop {
            let windows = &mut self.unread.windows(wanted.len());
            if let Some(position) = windows.position(|window| window == wanted) {
                return Ok(position);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), String> {
        match self.fill().await {
            Ok(0) => {
                let seen = String::from_utf8_lossy(&self.unread[..self.unread.len().min(200)]);
                Err(format!("the connection ended after {seen:?}"))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the connection failed: {error}")),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        within(self.stream.read_buf(&mut self.unread)).await
    }
}

impl Response {
    /// The value of a field, whatever the case of its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Checks the status, and the reason that the proxy's own answers give.
    #[track_caller]
    pub fn expect(&self, status: u16, reason: &str) {
        let text = self.text();
        assert_eq!(self.status, status, "{self:?} {text}");
        assert_eq!(self.json()["reason"], reason, "{text}");
        assert!(self.json()["message"].as_str().is_some_and(|why| !why.is_empty()), "{text}");
    }
}

/// The value of a field in a head, whatever the case of its name.
#[must_use]
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Response {
    try_get(address, path).await.unwrap_or_else(|why| panic!("GET {path}: {why}"))
}

/// One GET on a connection of its own, or why there is no complete answer.
pub async fn try_get(address: SocketAddr, path: &str) -> Result<Response, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    exchange(address, "GET", &request).await
}

/// Sends a whole request on a connection of its own.
pub async fn exchange(
    address: SocketAddr,
    method: &str,
    request: impl AsRef<[u8]>,
) -> Result<Response, String> {
    let told = |error: io::Error| error.to_string();
    let mut client = Client::try_connect(address).await.map_err(told)?;
    client.try_send(request).await.map_err(told)?;
    client.try_response(method).await
}

/// Whatever takes longer than the patience of the tests hangs.
async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
