//! Large bodies in bounded memory: each byte is compared with the one that was sent.

use std::net::SocketAddr;

use lb_tests::{cluster::Cluster, full_scale, port::Port};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::program;

/// Of the pattern: prime, so that no loss or repetition of a block goes unnoticed.
const PERIOD: usize = 1_048_573;
/// Of the proxy, ever. The lower one is the target; without optimization, code and data
/// of the executable alone are larger.
const RESIDENT_KB_MAX: u64 = if cfg!(debug_assertions) { 60_000 } else { 30_000 };

fn size() -> usize {
    if full_scale() { 1 << 30 } else { 64 << 20 }
}

/// A long body without memory of its own.
struct Pattern {
    block: Vec<u8>,
    position: usize,
}

impl Pattern {
    fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        Self { block: (0..PERIOD).map(|_| random.u8(..)).collect(), position: 0 }
    }

    /// The next piece, at most this long.
    fn next(&mut self, length: usize) -> &[u8] {
        let start = self.position % PERIOD;
        let end = (start + length).min(PERIOD);
        self.position += end - start;
        &self.block[start..end]
    }

    fn verify(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let position = self.position;
            let expected = self.next(bytes.len());
            let (here, rest) = bytes.split_at(expected.len());
            assert!(here == expected, "the body differs after {position} bytes");
            bytes = rest;
        }
    }
}

type Reader = BufReader<tokio::net::tcp::OwnedReadHalf>;
type Writer = tokio::net::tcp::OwnedWriteHalf;

fn split(stream: TcpStream) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    (BufReader::with_capacity(64 * 1024, read), write)
}

/// Lines up to the empty one.
async fn read_head(reader: &mut Reader) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
        if &head[before..] == "\r\n" {
            return Some(head);
        }
    }
}

async fn send_body(writer: &mut Writer, length: usize, chunked: bool) {
    let mut pattern = Pattern::new();
    while pattern.position < length {
        let left = length - pattern.position;
        let piece = pattern.next(left.min(fastrand::usize(1..100_000)));
        if chunked {
            let size = format!("{:x}\r\n", piece.len());
            writer.write_all(size.as_bytes()).await.unwrap();
            writer.write_all(piece).await.unwrap();
            writer.write_all(b"\r\n").await.unwrap();
        } else {
            writer.write_all(piece).await.unwrap();
        }
    }
    if chunked {
        writer.write_all(b"0\r\n\r\n").await.unwrap();
    }
}

/// Reads and compares a body of either framing, and returns its length.
async fn verify_body(reader: &mut Reader, head: &str) -> usize {
    let mut pattern = Pattern::new();
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1).map(|rest| {
        rest.split("\r\n").next().unwrap_or_default().parse::<usize>().expect("a length")
    });
    match length {
        Some(length) => verify_piece(reader, &mut pattern, length).await,
        None => {
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).await.unwrap();
                let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
                verify_piece(reader, &mut pattern, size).await;
                let mut end = [0; 2];
                reader.read_exact(&mut end).await.unwrap();
                assert_eq!(&end, b"\r\n");
                if size == 0 {
                    break;
                }
            }
        }
    }
    pattern.position
}

async fn verify_piece(reader: &mut Reader, pattern: &mut Pattern, mut length: usize) {
    while length > 0 {
        let bytes = reader.fill_buf().await.expect("the body goes on");
        assert!(!bytes.is_empty(), "the body is cut off, {length} bytes are missing");
        let count = bytes.len().min(length);
        pattern.verify(&bytes[..count]);
        reader.consume(count);
        length -= count;
    }
}

/// Takes what is sent to `/up`, and sends to whoever asks for `/down/length` or
/// `/down/chunked`.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // A failed comparison shows at the client, as a connection that ends.
        tokio::spawn(async move {
            let (mut reader, mut writer) = split(stream);
            while let Some(head) = read_head(&mut reader).await {
                let path = head.split(' ').nth(1).unwrap_or_default();
                if path == "/up" {
                    let length = verify_body(&mut reader, &head).await.to_string();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", length.len());
                    writer.write_all((answer + &length).as_bytes()).await.unwrap();
                    continue;
                }
                let chunked = path == "/down/chunked";
                let framing = match chunked {
                    true => "Transfer-Encoding: chunked".to_owned(),
                    false => format!("Content-Length: {}", size()),
                };
                let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
                writer.write_all(answer.as_bytes()).await.unwrap();
                send_body(&mut writer, size(), chunked).await;
            }
        });
    }
}

async fn with_server() -> (Cluster, Port, JoinHandle<()>) {
    let port = Port::reserve();
    let server = tokio::spawn(serve(port.listen()));
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(lb_tests::cluster::no_checks).await;
    cluster.add_backends(&[port.address()]).await;
    (cluster, port, server)
}

async fn upload(proxy: SocketAddr, chunked: bool) {
    let (mut reader, mut writer) = split(TcpStream::connect(proxy).await.unwrap());
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", size()),
    };
    let head = format!("POST /up HTTP/1.1\r\nHost: bulk\r\n{framing}\r\n\r\n");
    writer.write_all(head.as_bytes()).await.unwrap();
    send_body(&mut writer, size(), chunked).await;
    let head = read_head(&mut reader).await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut length = vec![0; size().to_string().len()];
    reader.read_exact(&mut length).await.unwrap();
    assert_eq!(String::from_utf8(length).unwrap(), size().to_string());
}

async fn download(proxy: SocketAddr, path: &str) {
    let (mut reader, mut writer) = split(TcpStream::connect(proxy).await.unwrap());
    let head = format!("GET {path} HTTP/1.1\r\nHost: bulk\r\n\r\n");
    writer.write_all(head.as_bytes()).await.unwrap();
    let head = read_head(&mut reader).await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(verify_body(&mut reader, &head).await, size());
}

#[track_caller]
fn assert_small(cluster: &Cluster, what: &str) {
    let peak = cluster.proxy(0).process().status_kb("VmHWM");
    println!("{what}: {} MiB, the proxy's peak resident set is {peak} kB", size() >> 20);
    assert!(peak < RESIDENT_KB_MAX, "{what}: {peak} kB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_any_size_take_little_memory() {
    let (cluster, _port, _server) = with_server().await;
    for chunked in [false, true] {
        upload(cluster.address(), chunked).await;
        assert_small(&cluster, if chunked { "chunked upload" } else { "upload" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_of_any_size_take_little_memory() {
    let (cluster, _port, _server) = with_server().await;
    for path in ["/down/length", "/down/chunked"] {
        download(cluster.address(), path).await;
        assert_small(&cluster, path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_holds_the_backend_back() {
    let (cluster, _port, _server) = with_server().await;
    let (mut reader, mut writer) = split(TcpStream::connect(cluster.address()).await.unwrap());
    writer.write_all(b"GET /down/length HTTP/1.1\r\nHost: bulk\r\n\r\n").await.unwrap();
    let head = read_head(&mut reader).await.expect("an answer");
    // Nothing is read here while others download all of theirs.
    download(cluster.address(), "/down/chunked").await;
    assert_small(&cluster, "beside a stalled reader");
    assert_eq!(verify_body(&mut reader, &head).await, size());
    assert_small(&cluster, "a slow reader");
}
