//! The backends of all measurements: one thread that answers with as little work as it
//! can, since it shares the machine with what is measured.

use std::process::ExitCode;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::args::BackendArgs;

/// Of the body at `/1m`.
pub(crate) const LARGE: usize = 1 << 20;

const SMALL_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 128\r\n\r\n";
const SMALL_BODY: &str = concat!(
    r#"{"id":"b7a0f2","items":[{"name":"first","count":17},{"name":"second","count":42}],"#,
    r#""next":"/items?after=b7a0f2","total":12345678}"#
);
const LARGE_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1048576\r\n\r\n";

/// Allows a connection to stay idle for long.
const KEPT_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 128\r\nKeep-Alive: timeout=60\r\n\r\n";

static LARGE_BODY: [u8; LARGE] = [b'x'; LARGE];

/// Says `listening b1=ADDRESS b2=ADDRESS ...` and serves until it is killed.
pub(crate) async fn run(args: BackendArgs) -> Result<ExitCode, String> {
    let mut line = "listening".to_owned();
    let mut listeners = tokio::task::JoinSet::new();
    for number in 1..=args.ports {
        // All of 127.0.0.0/8 reaches it, so that one port can pose as many backends.
        let bound = TcpListener::bind("0.0.0.0:0").await;
        let listener = bound.map_err(|error| format!("cannot listen: {error}"))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        line.push_str(&format!(" b{number}=127.0.0.1:{port}"));
        listeners.spawn(accept(listener));
    }
    println!("{line}");
    listeners.join_all().await;
    Ok(ExitCode::SUCCESS)
}

async fn accept(listener: TcpListener) {
    let small: &'static [u8] = format!("{SMALL_HEAD}{SMALL_BODY}").leak().as_bytes();
    let kept: &'static [u8] = format!("{KEPT_HEAD}{SMALL_BODY}").leak().as_bytes();
    loop {
        // Out of descriptors: whoever holds them will give some back.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(serve(stream, small, kept));
    }
}

/// Requests have no bodies here, and nobody pipelines.
async fn serve(mut stream: TcpStream, small: &'static [u8], kept: &'static [u8]) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => filled += count,
        }
        let head = &buffer[..filled];
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let sent = if head.starts_with(b"GET /1m ") {
            match stream.write_all(LARGE_HEAD.as_bytes()).await {
                Ok(()) => stream.write_all(&LARGE_BODY).await,
                failed => failed,
            }
        } else if head.starts_with(b"GET /kept ") {
            stream.write_all(kept).await
        } else {
            stream.write_all(small).await
        };
        if sent.is_err()
            || head.windows(17).any(|part| part.eq_ignore_ascii_case(b"connection: close"))
        {
            return;
        }
        filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_body_has_the_length_that_its_head_says() {
        assert_eq!(SMALL_BODY.len(), 128);
        assert!(LARGE_HEAD.contains(&format!("Content-Length: {LARGE}\r\n")));
    }
}
