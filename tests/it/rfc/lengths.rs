//! Where a request's body ends: Content-Length and Transfer-Encoding.

use super::{
    case::{GET, Rule, get, post, rule},
    theatre::hold,
};

#[tokio::test]
async fn a_body_ends_where_everybody_sees_it_end() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![both(), encodings(), old_encodings(), several_lengths(), digits(), own_framing(), empty()]
}

const CHUNKS: &str = "4\r\nbody\r\n0\r\n\r\n";

fn both() -> Rule {
    let mut rule = rule("9112, 6.3", "never both a length and an encoding");
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 4\r\n",
        "Transfer-Encoding:\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: x\r\nContent-Length: 4\r\n",
        "content-length: 4\r\nX: y\r\nTRANSFER-ENCODING: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    ] {
        rule = rule.refuses(400, format!("{fields:?}"), post(fields, CHUNKS));
    }
    rule.refuses(400, "of a GET", get("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"))
}

fn encodings() -> Rule {
    let mut rule = rule("9112, 6.1", "a request's encoding is chunked, once, and nothing else");
    for value in [
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "xchunked",
        "chunkedx",
        "chunke",
        "\"chunked\"",
        "'chunked'",
        "chunked;a=b",
        "chunked; q=1",
        "chunked chunked",
        "chun ked",
        "\x0bchunked",
        "\x0cchunked",
        "chunked\0",
        "\u{a0}chunked",
        "chunked\u{85}",
        "",
        "trailers",
        "=chunked",
        "chunked\\",
        "{chunked}",
        "(chunked)",
        "chunked:",
    ] {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        rule = rule.refuses(400, format!("{value:?}"), post(&fields, CHUNKS));
    }
    for second in ["chunked", "identity", "gzip", ""] {
        let fields = format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {second}\r\n");
        rule = rule.refuses(400, format!("chunked and {second:?}"), post(&fields, CHUNKS));
        let fields = format!("Transfer-Encoding: {second}\r\nTransfer-Encoding: chunked\r\n");
        rule = rule.refuses(400, format!("{second:?} and chunked"), post(&fields, CHUNKS));
    }
    let seen = post("Transfer-Encoding: chunked\r\n", CHUNKS);
    for fields in [
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding: CHUNKED\r\n",
        "TRANSFER-ENCODING:ChUnKeD\r\n",
        "Transfer-Encoding: \t chunked \t \r\n",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
    ] {
        rule = rule.forwards(format!("{fields:?}"), post(fields, CHUNKS), seen.clone());
    }
    let fields = "Transfer-Encoding: chunked\r\n";
    rule.forwards("of a GET", get(fields) + CHUNKS, get(fields) + CHUNKS)
}

fn old_encodings() -> Rule {
    let old = |fields: &str| format!("POST / HTTP/1.0\r\nHost: a\r\n{fields}\r\n{CHUNKS}");
    rule("9112, 6.1", "HTTP/1.0 has no Transfer-Encoding")
        .refuses(400, "chunked", old("Transfer-Encoding: chunked\r\n"))
        .refuses(400, "kept", old("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"))
        .refuses(400, "with a length", old("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"))
        .refuses(400, "identity", old("Transfer-Encoding: identity\r\n"))
        .refuses(400, "nothing", old("Transfer-Encoding:\r\n"))
}

fn several_lengths() -> Rule {
    let seen = post("Content-Length: 4\r\n", "body");
    let mut rule = rule("9112, 6.3", "lengths that differ are refused")
        .forwards(
            "the same twice",
            post("Content-Length: 4\r\nContent-Length: 4\r\n", "body"),
            seen.clone(),
        )
        .forwards(
            "the same three times",
            post("Content-Length: 4\r\nX: y\r\ncontent-length:4\r\nContent-Length: 4\r\n", "body"),
            post("X: y\r\nContent-Length: 4\r\n", "body"),
        )
        .forwards(
            "the same number",
            post("Content-Length: 4\r\nContent-Length: 04\r\n", "body"),
            seen,
        );
    for fields in [
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 4\r\n",
        "Content-Length: 0\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length:\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: 4,\r\n",
        "Content-Length: ,4\r\n",
        "Content-Length: 4;4\r\n",
    ] {
        rule = rule.refuses(400, format!("{fields:?}"), post(fields, "body"));
    }
    rule
}

fn digits() -> Rule {
    let mut rule = rule("9110, 8.6", "a length is digits and nothing else");
    for value in [
        "+4",
        "-4",
        "-0",
        "0x4",
        "4.0",
        "4e0",
        "1 0",
        "4 4",
        "4b",
        "b",
        "four",
        "\"4\"",
        "4\0",
        "\x0b4",
        "4\x0c",
        "\u{a0}4",
        "\u{b2}",
        "",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551620",
        "99999999999999999999999999",
        "4_0",
        "0b1",
    ] {
        let fields = format!("Content-Length: {value}\r\n");
        rule = rule.refuses(400, format!("{value:?}"), post(&fields, "body"));
    }
    let seen = post("Content-Length: 4\r\n", "body");
    for value in ["4", "0004", " \t4\t "] {
        let fields = format!("Content-Length: {value}\r\n");
        rule = rule.forwards(format!("{value:?}"), post(&fields, "body"), seen.clone());
    }
    rule.cut_short("2^63 - 1", post("Content-Length: 9223372036854775807\r\n", "body"))
        .cut_short("2^32 + 4", post("Content-Length: 4294967300\r\n", "body"))
}

fn own_framing() -> Rule {
    let with_length = |version: &str| {
        format!("POST / HTTP/{version}\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    };
    rule("9112, 6.3", "the body is what its length says, whatever the method")
        .forwards("POST", with_length("1.1"), with_length("1.1"))
        .forwards_last("POST in HTTP/1.0", with_length("1.0"), with_length("1.1"))
        .forwards_last(
            "no length in HTTP/1.0 is no body",
            "POST / HTTP/1.0\r\nHost: a\r\n\r\n".to_owned(),
            post("Content-Length: 0\r\n", ""),
        )
        .forwards(
            "GET",
            get("Content-Length: 4\r\n") + "body",
            get("Content-Length: 4\r\n") + "body",
        )
        .forwards(
            "DELETE",
            "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
            "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        )
        .forwards(
            "a body that looks like a request",
            post(&format!("Content-Length: {}\r\n", GET.len()), GET),
            post(&format!("Content-Length: {}\r\n", GET.len()), GET),
        )
        .forwards(
            "chunks behind a length are a body",
            post("Content-Length: 14\r\n", CHUNKS),
            post("Content-Length: 14\r\n", CHUNKS),
        )
        .refuses(400, "no length, and yet a body", "{\"a\": 1}\r\n\r\n")
        .cut_short("the client leaves in the middle", post("Content-Length: 10\r\n", "body"))
        .cut_short("the client leaves before it", post("Content-Length: 10\r\n", ""))
}

fn empty() -> Rule {
    let empty =
        |method: &str| format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let without = |method: &str| format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
    rule("9110, 8.6", "a method that may have a body says that it has none")
        .forwards("POST", empty("POST"), empty("POST"))
        .forwards("POST without a length", without("POST"), empty("POST"))
        .forwards("PUT", empty("PUT"), empty("PUT"))
        .forwards("PATCH", empty("PATCH"), empty("PATCH"))
        .forwards("GET needs none", empty("GET"), without("GET"))
        .forwards(
            "no chunks",
            post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        )
}
