//! A judge that sees nothing wrong anywhere is no judge: each reader falls for the
//! attack on its leniency, and only the strict one refuses them all.

use super::readers::{READERS, StreamEnd};

/// Behind each stream stands a request that only its victim sees as it is written here.
const ATTACKS: &[(&str, &str)] = &[
    ("LF ends lines", "X: y\nContent-Length: 1\r\n\r\nA"),
    ("CR ends lines", "X: y\rContent-Length: 1\r\n\r\nA"),
    ("LF or CR ends lines", "X: y\rA: b\nContent-Length: 1\r\n\r\nA"),
    (
        "coding over length",
        "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
    ),
    ("length over coding", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nA"),
    ("first length", "Content-Length: 1\r\nContent-Length: 2\r\n\r\nA"),
    ("last length", "Content-Length: 2\r\nContent-Length: 1\r\n\r\nA"),
    ("length as strtol", "Content-Length: +1, 2\r\n\r\nA"),
    ("blank before the colon", "Content-Length : 1\r\n\r\nA"),
    ("folded lines are joined", "Content-Length:\r\n 1\r\n\r\nA"),
    ("folded lines are fields", "X: y\r\n Content-Length: 1\r\n\r\nA"),
    ("controls are dropped", "Content-\0Length: 1\r\n\r\nA"),
    ("NUL ends a line", "Content-Length: 1\0, 9\r\n\r\nA"),
    ("sizes as strtol", "Transfer-Encoding: chunked\r\n\r\n 0x1 \r\nA\r\n0\r\n\r\n"),
    ("sizes of 32 bits", "Transfer-Encoding: chunked\r\n\r\n100000001\r\nA\r\n0\r\n\r\n"),
    ("sizes of 64 bits", "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nA\r\n0\r\n\r\n"),
    ("LF ends sizes", "Transfer-Encoding: chunked\r\n\r\n1;\nA\r\n0\r\n\r\n"),
    ("other codings are ignored", "Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\nA"),
    ("codings contain chunked", "Transfer-Encoding: xchunked\r\n\r\n1\r\nA\r\n0\r\n\r\n"),
    ("the last coding", "Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n"),
    ("_ is -", "Content_Length: 1\r\n\r\nA"),
    ("bad fields are skipped", "no field\r\nContent-Length: 1\r\n\r\nA"),
    ("everything", "X: y\n no field\r\nContent-Length : +1\r\n\r\nA"),
];

#[test]
fn each_reader_falls_for_the_attack_on_its_leniency() {
    for (name, rest) in ATTACKS {
        let stream = format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{rest}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let victim = READERS.iter().find(|reader| reader.name == *name).unwrap();
        let (seen, end) = victim.read(stream.as_bytes());
        let bodies: Vec<_> = seen.iter().map(|seen| seen.body.as_slice()).collect();
        assert_eq!((bodies, end), (vec![&b"A"[..], b""], StreamEnd::Clean), "{name}");
        let (seen, end) = READERS[0].read(stream.as_bytes());
        let is_fooled = end == StreamEnd::Clean && seen.len() == 2 && seen[0].body == b"A";
        assert!(!is_fooled, "the strict reader falls for {name}, too");
    }
}

#[test]
fn every_reader_reads_what_is_well_formed() {
    let stream = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
                   POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                   PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;x\r\nabc\r\na\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
    for reader in READERS {
        let (seen, end) = reader.read(stream);
        let bodies: Vec<_> = seen.iter().map(|seen| seen.body.as_slice()).collect();
        assert_eq!(bodies, [&b""[..], b"abc", b"abc0123456789"], "{}", reader.name);
        assert_eq!(end, StreamEnd::Clean, "{}", reader.name);
    }
}

#[test]
fn what_is_cut_short_is_never_whole() {
    let stream = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for reader in READERS {
        assert_eq!(reader.read(stream), (Vec::new(), StreamEnd::Partial), "{}", reader.name);
    }
}
