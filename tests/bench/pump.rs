//! The floor of all figures: each connection gets one to a backend, and bytes are copied
//! between the two, four system calls a request. No HTTP, no pools, no balancing of
//! requests.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    process::ExitCode,
    task::{Poll, ready},
    thread,
};

use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use crate::args::BytePumpArgs;

thread_local! {
    /// Shared by all connections of a thread: what cannot be written at once is copied.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 128 * 1024]);
}

/// Says `listening pump=ADDRESS` and pumps until it is killed.
pub(crate) fn run(args: &BytePumpArgs) -> Result<ExitCode, String> {
    // The first socket finds the port and keeps it; it never listens.
    let keeper = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = keeper.local_addr().map_err(|error| error.to_string())?;
    let workers: Vec<_> = (0..args.workers)
        .map(|_| {
            let backends = args.backends.clone();
            thread::spawn(move || worker(address, &backends))
        })
        .collect();
    println!("listening pump={address}");
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked".to_owned())??;
    }
    Ok(ExitCode::SUCCESS)
}

fn socket(address: SocketAddr) -> Result<TcpSocket, String> {
    let made = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        Ok(socket)
    });
    made.map_err(|error| format!("cannot bind {address}: {error}"))
}

fn worker(address: SocketAddr, backends: &[SocketAddr]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let listener = socket(address)?.listen(4096).map_err(|error| error.to_string())?;
        accept(&listener, backends).await;
        Ok(())
    })
}

async fn accept(listener: &TcpListener, backends: &[SocketAddr]) {
    for backend in backends.iter().cycle() {
        // Out of descriptors: whoever holds them will give some back.
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(pump(client, *backend));
    }
}

/// An end of either side, clean or not, is the end of this pair.
async fn pump(mut client: TcpStream, backend: SocketAddr) -> io::Result<()> {
    let mut upstream = TcpStream::connect(backend).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_backend, to_backend) = upstream.split();
    tokio::select! {
        end = forward(from_client, to_backend) => end,
        end = forward(from_backend, to_client) => end,
    }
}

async fn forward(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    loop {
        let unsent = poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut from).poll_read(context, &mut read))?;
                let bytes = read.filled();
                if bytes.is_empty() {
                    return Poll::Ready(Ok(None));
                }
                let sent = match Pin::new(&mut to).poll_write(context, bytes) {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => 0,
                };
                Poll::Ready(Ok::<_, io::Error>(Some(bytes[sent..].to_vec())))
            })
        });
        let Some(unsent) = unsent.await? else { return Ok(()) };
        to.write_all(&unsent).await?;
    }
}
