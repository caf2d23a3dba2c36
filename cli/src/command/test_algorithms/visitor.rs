//! A client that asks and notes who answered.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use crate::exit::{Exit, Failure, root_cause};

/// For one request and its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// One client, with a connection that is made when it is needed.
#[derive(Debug)]
pub(super) struct Visitor {
    address: SocketAddr,
    host: String,
    target: String,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Visitor {
    /// Who asks for `/`.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self::of(address, &address.to_string(), "/")
    }

    /// Who asks for this target of this host.
    pub(super) fn of(address: SocketAddr, host: &str, target: &str) -> Self {
        let (host, target) = (host.to_owned(), target.to_owned());
        Self { address, host, target, sender: None }
    }

    /// Who answers; `client` is whom X-Forwarded-For names.
    pub(super) async fn ask(&mut self, client: Option<&str>) -> Result<String, Failure> {
        let (_, answer) = self.visit(client).await?;
        read(&answer).map_err(|why| self.failed(&why))
    }

    /// The answer's status and body.
    pub(super) async fn visit(
        &mut self,
        client: Option<&str>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        match timeout(PATIENCE, self.try_visit(client)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(&root_cause(&*error))),
            Err(_) => Err(self.failed("no answer in time")),
        }
    }

    fn failed(&self, why: &str) -> Failure {
        let Self { address, target, .. } = self;
        Failure::new(Exit::Failed, format!("GET http://{address}{target} failed: {why}"))
    }

    async fn try_visit(&mut self, client: Option<&str>) -> Result<(StatusCode, Bytes), BoxError> {
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::get(&self.target).header(HOST, &self.host);
        if let Some(client) = client {
            request = request.header("X-Forwarded-For", client);
        }
        let response = sender.send_request(request.body(Empty::new())?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok((status, body))
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, BoxError> {
        let stream = TcpStream::connect(self.address).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its failure is told by the sender, too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn read(answer: &[u8]) -> Result<String, String> {
    let json: Value = serde_json::from_slice(answer).unwrap_or_default();
    json["server_info"]["id"].as_str().map(str::to_owned).ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(answer).chars().take(120).collect();
        format!(
            "the answer has no server_info.id, by which servers are told apart: {shown:?}; use \
             backends such as 'lbctl demo-backend'"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_id() {
        assert_eq!(read(br#"{"server_info":{"id":"backend-8001"}}"#).unwrap(), "backend-8001");
        assert!(read(b"<html>").unwrap_err().contains("demo-backend"));
    }
}
