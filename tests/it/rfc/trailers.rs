//! Trailers: fields behind a chunked body.

use super::{
    case::{GET, OLD_GET, Rule, Then, get, ok, post, rule},
    theatre::hold,
};

#[tokio::test]
async fn trailers_are_passed_on_and_never_merged() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![of_requests(), forbidden_in_requests(), of_responses(), forbidden_in_responses()]
}

/// What changes how a message is framed, routed, authenticated or understood.
const FORBIDDEN: [&str; 34] = [
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Host: evil",
    "Connection: close",
    "Keep-Alive: 5",
    "Upgrade: x",
    "Trailer: X",
    "TE: gzip",
    "Authorization: Basic x",
    "Proxy-Authorization: x",
    "Cookie: a=b",
    "Set-Cookie: a=b",
    "Content-Type: a/b",
    "Content-Encoding: gzip",
    "Content-Range: bytes 0-1/2",
    "Cache-Control: no-store",
    "Expect: 100-continue",
    "Max-Forwards: 1",
    "Range: bytes=0-1",
    "If-Match: *",
    "If-None-Match: *",
    "If-Modified-Since: today",
    "If-Unmodified-Since: today",
    "If-Range: x",
    "Age: 1",
    "Date: today",
    "Expires: today",
    "Location: /",
    "Retry-After: 1",
    "Vary: *",
    "Warning: x",
    "WWW-Authenticate: x",
    "X-Forwarded-For: 192.0.2.1",
    "X-Request-Id: x",
];

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn sent(trailers: &str) -> String {
    post(CHUNKED, &format!("2\r\nok\r\n0\r\n{trailers}\r\n"))
}

fn of_requests() -> Rule {
    let announced = |name: &str, trailers: &str| {
        post(&format!("Trailer: {name}\r\n{CHUNKED}"), &format!("2\r\nok\r\n0\r\n{trailers}\r\n"))
    };
    let mut rule = rule("9110, 6.5", "trailers of a request go on behind its chunks");
    for trailers in [
        "X: y\r\n",
        "X: 1\r\nY: 2\r\nx: 3\r\n",
        "X: \u{e9}\t\"z\"\r\n",
        "ETag: \"1\"\r\n",
        "Server-Timing: a\r\n",
    ] {
        rule = rule.forwards(format!("{trailers:?}"), sent(trailers), sent(trailers));
    }
    rule.forwards("white space", sent("X:  y \t\r\nZ:w\r\n"), sent("X: y\r\nZ: w\r\n"))
        .forwards("no value", sent("X:\r\n"), sent("X: \r\n"))
        .forwards(
            "behind no data",
            post(CHUNKED, "0\r\nX: y\r\n\r\n"),
            post(CHUNKED, "0\r\nX: y\r\n\r\n"),
        )
        .forwards("announced", announced("X", "X: y\r\n"), announced("X", "X: y\r\n"))
        .forwards("announced, and not there", announced("X, Y", ""), announced("X, Y", ""))
}

fn forbidden_in_requests() -> Rule {
    let mut rule = rule("9110, 6.5.1", "what must not be a trailer is dropped");
    for field in FORBIDDEN {
        let trailers = format!("A: 1\r\n{field}\r\nB: 2\r\n");
        rule = rule.forwards(field, sent(&trailers), sent("A: 1\r\nB: 2\r\n"));
    }
    rule.forwards("nothing else is there", sent("Host: evil\r\n"), sent("")).forwards(
        "in small letters",
        sent("content-LENGTH: 5\r\n"),
        sent(""),
    )
}

fn answered(trailers: &str) -> String {
    ok(CHUNKED, &format!("2\r\nok\r\n0\r\n{trailers}\r\n"))
}

fn asking() -> String {
    get("TE: trailers\r\nConnection: TE\r\n")
}

fn of_responses() -> Rule {
    let announced = |trailer: &str, trailers: &str| {
        ok(&format!("{trailer}{CHUNKED}"), &format!("2\r\nok\r\n0\r\n{trailers}\r\n"))
    };
    let old = "GET / HTTP/1.0\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n";
    let grpc = "grpc-status: 0\r\ngrpc-message: \r\n";
    rule("9110, 6.5", "trailers of a response go to who asked for them")
        .passes_to(asking(), "one", answered("X: y\r\n"), answered("X: y\r\n"))
        .passes_to(asking(), "several", answered(grpc), answered(grpc))
        .passes_to(asking(), "none", answered(""), answered(""))
        .passes_to(
            asking(),
            "announced",
            announced("Trailer: X\r\n", "X: y\r\n"),
            announced("Trailer: X\r\n", "X: y\r\n"),
        )
        .passes("who did not ask gets none", answered("X: y\r\n"), answered(""))
        .passes("nor an announcement", announced("Trailer: X\r\n", "X: y\r\n"), answered(""))
        .passes_to(
            get("TE: gzip\r\nConnection: TE\r\n"),
            "who asked for something else gets none",
            answered("X: y\r\n"),
            answered(""),
        )
        .passes_to(
            OLD_GET,
            "HTTP/1.0 gets none",
            answered("X: y\r\n"),
            ok("Connection: close\r\n", "ok"),
        )
        .passes_to(
            old,
            "not even if it asks",
            answered("X: y\r\n"),
            ok("Connection: close\r\n", "ok"),
        )
        .passes_to(
            asking(),
            "nothing is announced without chunks",
            ok("Trailer: X\r\nContent-Length: 2\r\n", "ok"),
            ok("Content-Length: 2\r\n", "ok"),
        )
}

fn forbidden_in_responses() -> Rule {
    let mut rule = rule("9110, 6.5.1", "what must not be a trailer is dropped from responses");
    for field in FORBIDDEN {
        let trailers = format!("A: 1\r\n{field}\r\nB: 2\r\n");
        rule = rule.passes_to(asking(), field, answered(&trailers), answered("A: 1\r\nB: 2\r\n"));
    }
    rule.passes_last(
        GET,
        "a second response behind the trailers",
        answered("X: y\r\n") + &ok("Content-Length: 6\r\n", "poison"),
        Then::Keep,
        answered(""),
    )
}
