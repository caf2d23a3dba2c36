//! What the demo backend answers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::{Value, json};

use crate::{clock, format};

/// One server with its manners.
#[derive(Debug)]
pub(super) struct Site {
    id: String,
    port: u16,
    delay: Duration,
    error_rate: f64,
}

type Answer = Response<Either<Full<Bytes>, Zeros>>;

impl Site {
    pub(super) fn new(port: u16, delay: Option<Duration>, error_rate: f64) -> Self {
        let delay = delay.unwrap_or_default();
        Self { id: format!("backend-{port}"), port, delay, error_rate }
    }

    /// Reads the whole request, then answers it.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if path == "/health" {
            return json_answer(StatusCode::OK, &json!({"status": "healthy", "server": self.id}));
        }
        let body_bytes = match discard(body).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("the request's body broke off: {error}");
                return self.error(StatusCode::BAD_REQUEST, &message);
            }
        };
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if fastrand::f64() < self.error_rate {
            let message = "this server was told to fail (--error-rate)";
            return self.error(StatusCode::INTERNAL_SERVER_ERROR, message);
        }
        if let Some(number) = path.strip_prefix("/bytes/") {
            return match number.parse() {
                Ok(length) => Response::new(Either::Right(Zeros { left: length })),
                Err(_) => self.error(StatusCode::BAD_REQUEST, "write /bytes/N with a number N"),
            };
        }
        let request = json!({
            "method": head.method.as_str(),
            "path": path,
            "query": head.uri.query().unwrap_or_default(),
            "headers": headers(&head.headers),
            "body_bytes": body_bytes,
            "peer": peer.to_string(),
        });
        let answer = json!({
            "server_info": {"id": self.id, "port": self.port},
            "message": format!("Hello from {}", self.id),
            "request": request,
            "timestamp": format::timestamp(clock::unix_ms()),
        });
        json_answer(StatusCode::OK, &answer)
    }

    fn error(&self, status: StatusCode, message: &str) -> Answer {
        json_answer(
            status,
            &json!({"error": message, "server_info": {"id": self.id, "port": self.port}}),
        )
    }
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(format!("{value}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Names in lower case; repeated fields joined as HTTP joins them.
fn headers(fields: &HeaderMap) -> BTreeMap<&str, String> {
    let mut map = BTreeMap::<&str, String>::new();
    for (name, value) in fields {
        let value = String::from_utf8_lossy(value.as_bytes());
        map.entry(name.as_str())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    map
}

async fn discard(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            bytes += data.len() as u64;
        }
    }
    Ok(bytes)
}

/// A body of zero bytes that needs no memory for its length.
#[derive(Debug)]
pub(super) struct Zeros {
    left: u64,
}

impl Zeros {
    const CHUNK: &[u8] = &[0; 64 * 1024];
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length =
            usize::try_from(self.left).map_or(Self::CHUNK.len(), |l| l.min(Self::CHUNK.len()));
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&Self::CHUNK[..length])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
