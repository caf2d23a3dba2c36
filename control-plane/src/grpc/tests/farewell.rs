//! Proxies that say goodbye and close their connection without waiting for anything.
//!
//! A client of the gRPC library resets a stream that it drops, and with it what has not left. So
//! these write their frames themselves (RFC 9113), and their end comes right behind the goodbye.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::grpc::PREFACE;

/// How many say goodbye, one after the other.
const GOODBYES: usize = 300;

/// Types of frames, and what ends a request's head.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// The head of a sync stream, in HPACK without a table (RFC 7541): names of the static one by
/// their index.
fn request() -> Vec<u8> {
    let (post, http) = (0x83, 0x86);
    let mut head = vec![post, http];
    let path = b"/lb.v1.Sync/Stream";
    for (name, value) in [
        (&[4][..], &path[..]),
        (&[1], b"lb"),
        (&[15, 16], b"application/grpc"),
        (b"\0\x02te", b"trailers"),
    ] {
        head.extend(name);
        head.push(u8::try_from(value.len()).unwrap());
        head.extend(value);
    }
    frame(HEADERS, END_HEADERS, 1, &head)
}

fn data(message: Up) -> Vec<u8> {
    use prost::Message as _;
    let message = wire::up(message).encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    frame(DATA, 0, 1, &[&[0][..], &length, &message].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_right_before_the_end_of_the_connection_is_heard() {
    let world = world().await;
    let address = world.running.url();
    let address = address.strip_prefix("http://").unwrap();
    for number in 0..GOODBYES {
        let mut proxy = TcpStream::connect(address).await.unwrap();
        let hello = data(Up::Hello(hello("p1")));
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &request(), &hello].concat();
        proxy.write_all(&begin).await.unwrap();
        let welcomed = async {
            while world.proxies().await.first().is_none_or(is_gone) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, welcomed).await.expect("it is welcomed");
        proxy.write_all(&data(Up::Farewell(pb::Farewell {}))).await.unwrap();
        proxy.shutdown().await.unwrap();
        proxy.read_to_end(&mut Vec::new()).await.unwrap();
        let state = async {
            loop {
                let listed = world.proxies().await.remove(0);
                if is_gone(&listed) {
                    return listed.state;
                }
                tokio::task::yield_now().await;
            }
        };
        let state = timeout(PATIENCE, state).await.expect("it is gone");
        assert_eq!(state, "stopped", "the {number}th time");
    }
}

fn is_gone(proxy: &pb::Proxy) -> bool {
    ["lost", "stopped"].contains(&&*proxy.state)
}
