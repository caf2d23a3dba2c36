//! Bodies of responses: where they end, and what is told if they do not.

use super::{
    case::{
        GET, HEAD, OLD_GET, POST, Rule,
        Step::{BackendHears, BackendSays, ClientHears, ClientSays},
        Then, ok, rule,
    },
    theatre::hold,
};

#[tokio::test]
async fn a_response_body_ends_where_everybody_sees_it_end() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![
        bodiless(),
        statuses(),
        lengths(),
        bad_lengths(),
        encodings(),
        chunks(),
        bad_chunks(),
        truncated(),
        until_close(),
        old_clients(),
        surplus(),
    ]
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn bodiless() -> Rule {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    rule("9110, 9.3.2", "HEAD has no body, whatever the fields say")
        // The connections of those that announce one are not used again: it may still come.
        .passes_last(
            HEAD,
            "a length",
            head("Content-Length: 12\r\n"),
            Then::Keep,
            head("Content-Length: 12\r\n"),
        )
        .passes_to(HEAD, "no length", head("A: b\r\n"), head("A: b\r\n"))
        .passes_to(HEAD, "length 0", head("Content-Length: 0\r\n"), head("Content-Length: 0\r\n"))
        .passes_last(
            HEAD,
            "two lengths",
            head("Content-Length: 2\r\nContent-Length: 2\r\n"),
            Then::Keep,
            head("Content-Length: 2\r\n"),
        )
        .passes_last(
            HEAD,
            "with a body all the same",
            OK,
            Then::Keep,
            head("Content-Length: 2\r\n"),
        )
        .passes_last(
            HEAD,
            "a 404",
            "HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n",
            Then::Keep,
            "HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n",
        )
        .passes_last(HEAD, "until the close", head("Connection: close\r\n"), Then::Close, head(""))
        .fails_for(
            HEAD,
            "a doubtful length",
            head("Content-Length: 1\r\nContent-Length: 2\r\n"),
            Then::Keep,
        )
        .passes_last(HEAD, "chunks", head(CHUNKED), Then::Keep, head(""))
}

fn statuses() -> Rule {
    let with = |status: &str, fields: &str| format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
    rule("9112, 6.3", "204 and 304 have no body, whatever the fields say")
        .passes("204", with("204", ""), with("204", ""))
        .passes("204 with a length", with("204", "Content-Length: 0\r\n"), with("204", ""))
        // Their connections are not used again: the body may still come.
        .passes_last(
            GET,
            "204 with another length",
            with("204", "Content-Length: 5\r\n"),
            Then::Keep,
            with("204", ""),
        )
        .passes_last(GET, "204 with an encoding", with("204", CHUNKED), Then::Keep, with("204", ""))
        .passes_last(
            GET,
            "204 with a body",
            with("204", "Content-Length: 2\r\n") + "ok",
            Then::Keep,
            with("204", ""),
        )
        .passes_last(
            GET,
            "204 with chunks",
            with("204", CHUNKED) + "2\r\nok\r\n0\r\n\r\n",
            Then::Keep,
            with("204", ""),
        )
        .passes("304", with("304", "ETag: x\r\n"), with("304", "ETag: x\r\n"))
        .passes_last(
            GET,
            "304 with a length",
            with("304", "Content-Length: 12\r\n"),
            Then::Keep,
            with("304", "Content-Length: 12\r\n"),
        )
        .passes_last(
            GET,
            "304 with a body",
            with("304", "Content-Length: 2\r\n") + "ok",
            Then::Keep,
            with("304", "Content-Length: 2\r\n"),
        )
        .passes("205", with("205", "Content-Length: 0\r\n"), with("205", "Content-Length: 0\r\n"))
        .passes("204 is not open", with("204", ""), with("204", ""))
        .passes_to(
            OLD_GET,
            "204 to HTTP/1.0",
            with("204", ""),
            with("204", "Connection: close\r\n"),
        )
}

fn lengths() -> Rule {
    let long = "x".repeat(100_000);
    let large = ok("Content-Length: 100000\r\n", &long);
    rule("9112, 6.3", "a length is told anew")
        .passes("a length", OK, OK)
        .passes("0", ok("Content-Length: 0\r\n", ""), ok("Content-Length: 0\r\n", ""))
        .passes("in small letters", ok("content-length:2\r\n", "ok"), OK)
        .passes("zeros in front", ok("Content-Length: 0002\r\n", "ok"), OK)
        .passes("twice the same", ok("Content-Length: 2\r\nContent-Length: 2\r\n", "ok"), OK)
        .passes("100 KB", large.clone(), large)
        .passes(
            "any bytes",
            ok("Content-Length: 6\r\n", "\0\r\n\r\n\u{ff}"),
            ok("Content-Length: 6\r\n", "\0\r\n\r\n\u{ff}"),
        )
        .passes(
            "a body that looks like a response",
            ok("Content-Length: 40\r\n", OK),
            ok("Content-Length: 40\r\n", OK),
        )
}

fn bad_lengths() -> Rule {
    let mut rule = rule("9112, 6.3", "a response of doubtful length is a 502");
    for fields in [
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 2\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: 2, 3\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: 2.0\r\n",
        "Content-Length:\r\n",
        "Content-Length: two\r\n",
        "Content-Length: 2 2\r\n",
        "Content-Length: 18446744073709551618\r\n",
    ] {
        rule = rule.fails(format!("{fields:?}"), ok(fields, "ok"));
    }
    // Each of these would be complete in one reading or the other.
    for fields in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 12\r\n",
    ] {
        rule = rule.fails(format!("{fields:?}"), ok(fields, "2\r\nok\r\n0\r\n\r\n"));
    }
    rule
}

fn encodings() -> Rule {
    let body = "2\r\nok\r\n0\r\n\r\n";
    let mut rule = rule("9112, 6.1", "a response's encoding is chunked, once, in HTTP/1.1");
    for value in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "xchunked",
        "",
        "chunked;a=b",
        "\"chunked\"",
        "\x0bchunked",
        "chunked,",
    ] {
        rule =
            rule.fails(format!("{value:?}"), ok(&format!("Transfer-Encoding: {value}\r\n"), body));
    }
    rule.fails("in two fields", ok(&format!("{CHUNKED}{CHUNKED}"), body))
        .fails("in HTTP/1.0", format!("HTTP/1.0 200 OK\r\n{CHUNKED}\r\n{body}"))
        .passes("in any case", ok("transfer-ENCODING:\tChUnKeD \r\n", body), ok(CHUNKED, body))
}

fn chunks() -> Rule {
    let seen = ok(CHUNKED, "2\r\nok\r\n0\r\n\r\n");
    let mut rule = rule("9112, 7.1", "chunks of responses are written anew");
    for body in [
        "2\r\nok\r\n0\r\n\r\n",
        "0002\r\nok\r\n000\r\n\r\n",
        "1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        "2  \r\nok\r\n0 \r\n\r\n",
        "2;a=b\r\nok\r\n0;c=\"d e\"\r\n\r\n",
    ] {
        rule = rule.passes(format!("{body:?}"), ok(CHUNKED, body), seen.clone());
    }
    let empty = ok(CHUNKED, "0\r\n\r\n");
    let trick = ok(CHUNKED, "7\r\n0\r\n\r\nok\r\n0\r\n\r\n");
    rule.passes("none", empty.clone(), empty)
        .passes("data that looks like the end", trick.clone(), trick)
        .passes_last(
            GET,
            "a trailer that the client did not ask for, and something more",
            ok(CHUNKED, "2\r\nok\r\n0\r\nX: y\r\n\r\nmore"),
            Then::Keep,
            seen,
        )
}

fn bad_chunks() -> Rule {
    let mut rule = rule("9112, 7.1", "what is no chunk is never a complete answer");
    for body in [
        "x\r\nok\r\n0\r\n\r\n",
        "\r\n",
        "-1\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "2 2\r\nok\r\n0\r\n\r\n",
        " 2\r\nok\r\n0\r\n\r\n",
        "2\nok\r\n0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "2\r\nokay\r\n0\r\n\r\n",
        "2\r\nok\r\n0\n\n",
        "2\r\nok\r\n0\r\n\n",
        "2\r\nok\r\n0\r\nX: a\0\r\n\r\n",
        "2\r\nok\r\n0\r\nX : a\r\n\r\n",
        "2\r\nok\r\n0\r\nHTTP/1.1 200 OK\r\n\r\n",
        "10000000000000002\r\nok\r\n0\r\n\r\n",
        "2;a\nb\r\nok\r\n0\r\n\r\n",
    ] {
        rule = rule.cuts(GET, format!("{body:?}"), ok(CHUNKED, body), Then::Keep);
    }
    rule.cuts(OLD_GET, "to HTTP/1.0", ok(CHUNKED, "2\r\nok\r\nx\r\n"), Then::Keep)
}

fn truncated() -> Rule {
    let mut rule = rule("9112, 8", "what is cut off never looks complete");
    let answers = [
        ("no byte of the length", ok("Content-Length: 5\r\n", "")),
        ("half the length", ok("Content-Length: 5\r\n", "hal")),
        ("all but one", ok("Content-Length: 100000\r\n", &"x".repeat(99_999))),
        ("no chunk", ok(CHUNKED, "")),
        ("half a size", ok(CHUNKED, "5")),
        ("half a chunk", ok(CHUNKED, "5\r\nhal")),
        ("a chunk without its end", ok(CHUNKED, "5\r\nwhole")),
        ("a chunk and nothing", ok(CHUNKED, "5\r\nwhole\r\n")),
        ("the last size without the end", ok(CHUNKED, "5\r\nwhole\r\n0\r\n")),
        ("half the end", ok(CHUNKED, "5\r\nwhole\r\n0\r\n\r")),
        ("half a trailer", ok(CHUNKED, "5\r\nwhole\r\n0\r\nX: y\r\n")),
    ];
    for (what, answer) in answers {
        for (ask, client) in [(GET, "1.1"), (OLD_GET, "1.0"), (POST, "POST")] {
            for then in [Then::Close, Then::Reset] {
                rule = rule.cuts(ask, format!("{what}, {then:?}, {client}"), answer.clone(), then);
            }
        }
    }
    rule.cuts(GET, "until a reset", ok("", "hal"), Then::Reset)
        .cuts(OLD_GET, "until a reset, 1.0", ok("", "hal"), Then::Reset)
        .cuts(GET, "HTTP/1.0 until a reset", "HTTP/1.0 200 OK\r\n\r\nhal", Then::Reset)
}

fn until_close() -> Rule {
    let chunked = |body: &str| ok(CHUNKED, body);
    rule("9112, 6.3", "a body until the close ends for HTTP/1.1 with the last chunk")
        .passes_last(GET, "HTTP/1.1", ok("", "ok"), Then::Close, chunked("2\r\nok\r\n0\r\n\r\n"))
        .passes_last(
            GET,
            "HTTP/1.0",
            "HTTP/1.0 200 OK\r\n\r\nok",
            Then::Close,
            chunked("2\r\nok\r\n0\r\n\r\n"),
        )
        .passes_last(GET, "nothing", ok("", ""), Then::Close, chunked("0\r\n\r\n"))
        .passes_last(
            GET,
            "said so",
            ok("Connection: close\r\n", "ok"),
            Then::Close,
            chunked("2\r\nok\r\n0\r\n\r\n"),
        )
        .passes_last(
            GET,
            "it lied",
            ok("Connection: keep-alive\r\n", "ok"),
            Then::Close,
            chunked("2\r\nok\r\n0\r\n\r\n"),
        )
        .passes_last(
            OLD_GET,
            "to HTTP/1.0",
            ok("", "ok"),
            Then::Close,
            ok("Connection: close\r\n", "ok"),
        )
        .passes_last(
            POST,
            "to a POST",
            ok("", OK),
            Then::Close,
            chunked(&format!("{:x}\r\n{OK}\r\n0\r\n\r\n", OK.len())),
        )
}

fn old_clients() -> Rule {
    let seen = ok("Connection: close\r\n", "ok");
    let kept = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    rule("9112, 6.1", "HTTP/1.0 gets no chunks")
        .passes_to(OLD_GET, "chunks", ok(CHUNKED, "2\r\nok\r\n0\r\n\r\n"), seen.clone())
        .passes_to(OLD_GET, "no chunk", ok(CHUNKED, "0\r\n\r\n"), ok("Connection: close\r\n", ""))
        .passes_to(kept, "chunks, kept", ok(CHUNKED, "1\r\no\r\n1\r\nk\r\n0\r\n\r\n"), seen)
        .passes_to(
            kept,
            "a length, kept",
            OK,
            ok("Content-Length: 2\r\nConnection: keep-alive\r\n", "ok"),
        )
        .passes_to(
            kept,
            "a 204, kept",
            "HTTP/1.1 204 x\r\n\r\n",
            "HTTP/1.1 204 x\r\nConnection: keep-alive\r\n\r\n",
        )
}

fn surplus() -> Rule {
    let poison = ok("Content-Length: 6\r\n", "poison");
    let mut rule =
        rule("9112, 9.3", "a connection on which more came than announced is not used again");
    for (what, more) in [("a response", &*poison), ("a byte", "x"), ("an empty line", "\r\n")] {
        for ask in [GET, POST] {
            // The next one to ask comes when this is there already.
            let steps = vec![
                ClientSays(ask.to_owned()),
                BackendHears(ask.to_owned()),
                BackendSays(OK.to_owned()),
                ClientHears(OK.to_owned()),
                BackendSays(more.to_owned()),
            ];
            let method = &ask[..4];
            rule = rule.talks(format!("{what} that comes later, {method}"), steps);
        }
        rule = rule
            .passes_last(
                GET,
                format!("{what} behind a length"),
                format!("{OK}{more}"),
                Then::Keep,
                OK,
            )
            .passes_last(
                POST,
                format!("{what} behind chunks"),
                ok(CHUNKED, &format!("2\r\nok\r\n0\r\n\r\n{more}")),
                Then::Keep,
                ok(CHUNKED, "2\r\nok\r\n0\r\n\r\n"),
            )
            .passes_last(
                GET,
                format!("{what} behind a 204"),
                format!("HTTP/1.1 204 x\r\n\r\n{more}"),
                Then::Keep,
                "HTTP/1.1 204 x\r\n\r\n",
            )
            .passes_last(
                GET,
                format!("{what} behind no body"),
                ok("Content-Length: 0\r\n", more),
                Then::Keep,
                ok("Content-Length: 0\r\n", ""),
            );
    }
    rule
}
