//! Heads of responses: status lines and fields.

use super::{
    case::{GET, HEAD, OLD_GET, POST, Rule, Then, ok, rule},
    theatre::hold,
};

#[tokio::test]
async fn a_response_head_is_read_by_the_letter() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![
        lines(),
        bad_lines(),
        versions(),
        early_ends(),
        fields(),
        bad_fields(),
        sizes(),
        splitting(),
    ]
}

const LENGTH: &str = "Content-Length: 2\r\n";

/// A response with this status line.
fn with(line: &str) -> String {
    format!("{line}\r\n{LENGTH}\r\nok")
}

fn lines() -> Rule {
    let mut rule = rule("9112, 4", "version, three digits, and whatever reason there is");
    for line in [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 ",
        "HTTP/1.1 200 Very well, indeed: \"yes\"\t(1)",
        "HTTP/1.1 200 200",
        "HTTP/1.1 201 Created",
        "HTTP/1.1 206 Partial Content",
        "HTTP/1.1 299 x",
        "HTTP/1.1 302 Found",
        "HTTP/1.1 404 Not Found",
        "HTTP/1.1 418 I'm a teapot",
        "HTTP/1.1 499 x",
        "HTTP/1.1 500 Internal Server Error",
        "HTTP/1.1 503 Service Unavailable",
        "HTTP/1.1 599 x",
        "HTTP/1.1 600 x",
        "HTTP/1.1 999 Request Denied",
    ] {
        rule = rule.passes(line, with(line), with(line));
    }
    rule.passes("no space behind the status", with("HTTP/1.1 200"), with("HTTP/1.1 200 "))
}

fn bad_lines() -> Rule {
    let mut rule = rule("9112, 4", "what is no status line is a 502");
    for line in [
        "",
        "200 OK",
        "OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 2OO OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 0x2 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200,OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 200 O\x01K",
        "HTTP/1.1 200 O\x7fK",
        "GET / HTTP/1.1",
        "\x16\x03\x01\x02\0\x01\0",
        "\0",
        "<html>",
        "SSH-2.0-x",
    ] {
        rule = rule.fails(format!("{line:?}"), with(line));
    }
    rule
}

fn versions() -> Rule {
    let old = |fields: &str| format!("HTTP/1.0 200 OK\r\n{fields}{LENGTH}\r\nok");
    let seen = ok(LENGTH, "ok");
    let mut rule = rule("9112, 2.3", "a backend may speak HTTP/1.0; the client hears HTTP/1.1")
        .passes_last(GET, "HTTP/1.0", old(""), Then::Close, seen.clone())
        .passes_last(GET, "HTTP/1.0 that stays", old(""), Then::Keep, seen.clone())
        .passes(
            "HTTP/1.0 that keeps the connection",
            old("Connection: keep-alive\r\n"),
            seen.clone(),
        )
        .passes_last(GET, "HTTP/1.0, close", old("Connection: close\r\n"), Then::Keep, seen.clone())
        .passes("HTTP/1.2 is HTTP/1.1", with("HTTP/1.2 200 OK"), with("HTTP/1.1 200 OK"))
        .passes_to(
            OLD_GET,
            "an HTTP/1.0 client hears HTTP/1.1, too",
            seen,
            ok(&format!("{LENGTH}Connection: close\r\n"), "ok"),
        );
    for version in [
        "HTTP/2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1", "HTTP/11", "HTTP/1.x", "HTP/1.1",
        "ICY",
    ] {
        rule = rule.fails(version, with(&format!("{version} 200 OK")));
    }
    rule
}

fn early_ends() -> Rule {
    let mut rule = rule("9112, 8", "a head that does not end is a 502, and a POST is sent once");
    for head in [
        "",
        "H",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n",
    ] {
        let ask = if head.contains("103") { OLD_GET } else { POST };
        rule = rule
            .fails_for(ask, format!("a close behind {head:?}"), head, Then::Close)
            .fails_for(ask, format!("a reset behind {head:?}"), head, Then::Reset);
    }
    rule.fails_for(GET, "a GET is sent twice at most", "", Then::Close).fails_for(
        HEAD,
        "HEAD is told without a body",
        "",
        Then::Close,
    )
}

fn fields() -> Rule {
    let mut rule = rule("9110, 5.3", "fields of responses stay as they are");
    for fields in [
        "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nset-cookie: c=3\r\n",
        "B: 1\r\nA: 1\r\nB: 2\r\n",
        "X: \u{80}\u{e9}\u{ff}\r\n",
        "X: a\tb  c\r\n",
        "X_y: 1\r\nx.z: 2\r\n!#$%&'*+-.^_`|~: 3\r\n",
        "Content-Type: a/b\r\nCache-Control: x\r\nVary: *\r\nETag: \"1\"\r\nLocation: /\r\n",
        "X-Forwarded-For: 1\r\nX-Request-Id: 2\r\nHost: 3\r\nExpect: 4\r\n",
    ] {
        let answer = ok(&format!("{fields}{LENGTH}"), "ok");
        rule = rule.passes(format!("{fields:?}"), answer.clone(), answer);
    }
    rule.passes(
        "white space around a value",
        ok(&format!("X:  y \t\r\nZ:w\r\nE:\r\n{LENGTH}"), "ok"),
        ok(&format!("X: y\r\nZ: w\r\nE: \r\n{LENGTH}"), "ok"),
    )
}

fn bad_fields() -> Rule {
    let mut rule = rule("9112, 5", "malformed fields of a response are a 502, folds too");
    for fields in [
        "X : y\r\n",
        "X\t: y\r\n",
        " X: y\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X\r\n",
        ": y\r\n",
        "X Y: z\r\n",
        "X\0: y\r\n",
        "(X): y\r\n",
        "X\u{e9}: y\r\n",
        "X: \0\r\n",
        "X: a\x01b\r\n",
        "X: a\x7f\r\n",
        "X: a\rb\r\n",
        "X: a\nb: c\r\n",
        "X: a\r\r\n",
        "X: a\n",
    ] {
        rule = rule.fails(format!("{fields:?}"), ok(&format!("{fields}{LENGTH}"), "ok"));
    }
    rule.fails("LF everywhere", ok(LENGTH, "ok").replace("\r\n", "\n"))
        .fails("an empty line before", format!("\r\n{}", ok(LENGTH, "ok")))
}

fn sizes() -> Rule {
    let many = |count: usize| (0..count).map(|n| format!("X{n}: y\r\n")).collect::<String>();
    let large = |length: usize| format!("X: {}\r\n", "y".repeat(length));
    let whole = |fields: String| ok(&format!("{fields}{LENGTH}"), "ok");
    rule("9110, 5.4", "a response head beyond our limits is a 502")
        .passes("ninety fields", whole(many(90)), whole(many(90)))
        .fails("three hundred fields", whole(many(300)))
        .passes("60 KB", whole(large(60_000)), whole(large(60_000)))
        .fails("70 KB", whole(large(70_000)))
        .fails("no end in sight", "HTTP/1.1 200 OK\r\nX: ".to_owned() + &"y".repeat(80_000))
        .fails("a status line without end", "HTTP/1.1 200 ".to_owned() + &"y".repeat(80_000))
}

fn splitting() -> Rule {
    let second = ok("Content-Length: 6\r\n", "poison");
    rule("9112, 11.1", "a response cannot be split into two")
        .fails("by a CR", ok(&format!("X: a\rContent-Length: 0\r\n{LENGTH}"), "ok"))
        .fails("by an LF", ok(&format!("X: a\n\n{second}{LENGTH}"), "ok"))
        .fails("in the status line", format!("HTTP/1.1 200 a\rX: y\r\n{LENGTH}\r\nok"))
        .passes_last(
            GET,
            "by its own length",
            ok(&format!("X: a\r\n{LENGTH}"), &format!("ok{second}")),
            Then::Keep,
            ok(&format!("X: a\r\n{LENGTH}"), "ok"),
        )
}
