//! The end of a connection whose client may still be sending.
//!
//! A socket that is closed with bytes unread resets its connection, and a reset takes the answer
//! along that has not been read yet: a client that sends ten megabytes first and reads then
//! would see a broken pipe instead of the sentence that says how long a body may be.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// A client that has sent nothing for so long is not sending. That of nginx
/// (`lingering_timeout`) is 5 s; nobody uploads from far away here.
const QUIET: Duration = Duration::from_secs(2);
/// In all, as nginx has it (`lingering_time`).
const LONGEST: Duration = Duration::from_secs(30);
/// Read at a time, in bytes.
const PART: usize = 16 << 10;

/// Says that nothing more will be said, and reads what still comes, for the sake of the answer
/// that is on its way; at most `bytes_max` of it.
pub(crate) async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes_max: u64) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let discard = async {
        let (mut rest, mut part) = (stream.take(bytes_max), vec![0; PART]);
        while let Ok(Ok(1..)) = timeout(QUIET, rest.read(&mut part)).await {}
    };
    drop(timeout(LONGEST, discard).await);
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_is_read_until_the_client_is_done_or_quiet_or_it_takes_too_long() {
        let began = tokio::time::Instant::now();
        let lasted = |client: tokio::io::DuplexStream, server, pause: Option<Duration>| async move {
            let began = tokio::time::Instant::now();
            let (_reader, mut writer) = tokio::io::split(client);
            let sends = async {
                if let Some(pause) = pause {
                    while writer.write_all(&[0; 100]).await.is_ok() {
                        tokio::time::sleep(pause).await;
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! { () = linger(server, u64::MAX) => {}, () = sends => {} }
            began.elapsed()
        };
        let (client, server) = duplex(64);
        drop(client);
        linger(server, u64::MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);

        let (client, server) = duplex(64);
        assert_eq!(lasted(client, server, None).await, QUIET);
        let (client, server) = duplex(64);
        assert_eq!(lasted(client, server, Some(QUIET / 2)).await, LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_read_than_that() {
        let began = tokio::time::Instant::now();
        let (mut client, server) = duplex(PART);
        let sends = async {
            let mut sent = 0;
            while sent < 10 * PART && client.write_all(&[0; 1024]).await.is_ok() {
                sent += 1024;
            }
            sent
        };
        let ((), sent) = tokio::join!(linger(server, 3 * PART as u64), sends);
        assert_eq!(began.elapsed(), Duration::ZERO, "it was not waited for more");
        assert!((3 * PART..=4 * PART).contains(&sent), "{sent} bytes, one part of them on the way");
    }
}
