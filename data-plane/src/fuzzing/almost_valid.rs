//! Requests that are nearly right, of the kinds that attacks are made of: random bytes
//! rarely get past the first line.

use proptest::{prelude::*, sample::select};

use super::{differential, request_head, upgrade};

/// Fields that matter for framing, in forms that some server accepts.
const FIELDS: &[&str] = &[
    "Content-Length: 5",
    "Content-Length: 05",
    "Content-Length: 6",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: 5\0",
    "Content-Length : 5",
    "Content-Length:\t5 ",
    "content-length: 18446744073709551621",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: identity",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X:\r\n chunked",
    "Connection: close",
    "Connection: keep-alive, Content-Length",
    "Connection: Transfer-Encoding, Host",
    "Connection: upgrade",
    "Connection: a b",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "TE: trailers",
    "Trailer: Content-Length",
    "Host: other",
    "Keep-Alive: 5",
    "Proxy-Connection: keep-alive",
    "X-Forwarded-For: 1.2.3.4",
    "Accept: */*",
    "Cookie: a=b",
];

const BODIES: &[&str] = &[
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "005\r\nhello\r\n00\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5;\nhello\r\n0\r\n\r\n",
    "100000005\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    "0\r\n",
];

/// A change to one byte of a request.
#[derive(Clone, Copy, Debug)]
enum Change {
    None,
    Drop,
    Double,
    Replace(u8),
    Insert(u8),
    End,
}

fn change() -> impl Strategy<Value = Change> {
    let byte = || select(b"\r\n\0\t :;,_-0x5a\x0b\x7f\xa0".to_vec());
    prop_oneof![
        4 => Just(Change::None),
        1 => Just(Change::Drop),
        1 => Just(Change::Double),
        2 => byte().prop_map(Change::Replace),
        2 => byte().prop_map(Change::Insert),
        1 => Just(Change::End),
    ]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = (
        select(vec!["GET", "POST", "HEAD", "OPTIONS", "PUT", "get", "CONNECT"]),
        select(vec!["/", "/a?b=c", "*", "http://b/c", "//b/c", "a", "/%0d%0a", "/a#b"]),
        select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"]),
    );
    let fields = prop::collection::vec(select(FIELDS), 0..4);
    (line, fields, select(BODIES), any::<prop::sample::Index>(), change()).prop_map(
        |((method, target, version), fields, body, at, change)| {
            let mut text = format!("{method} {target} {version}\r\nHost: a\r\n");
            for field in fields {
                text.push_str(field);
                text.push_str("\r\n");
            }
            let mut bytes = (text + "\r\n" + body).into_bytes();
            let at = at.index(bytes.len());
            match change {
                Change::None => {}
                Change::Drop => drop(bytes.remove(at)),
                Change::Double => bytes.insert(at, bytes[at]),
                Change::Replace(byte) => bytes[at] = byte,
                Change::Insert(byte) => bytes.insert(at, byte),
                Change::End => bytes.truncate(at),
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn requests_that_are_almost_valid_are_refused_or_mean_one_thing(
        requests in prop::collection::vec(request(), 1..4),
    ) {
        let stream = requests.concat();
        request_head(&stream);
        upgrade(&stream);
        differential(&stream);
    }
}
