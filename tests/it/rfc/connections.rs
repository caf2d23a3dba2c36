//! Connections of clients: how long they last, and what is said when.

use super::{
    case::{
        GET, Rule,
        Step::{
            BackendFinishes, BackendHears, BackendHearsEnd, BackendHearsHead, BackendHearsRaw,
            BackendSays, ClientFinishes, ClientHears, ClientHearsEnd, ClientHearsHead,
            ClientHearsRaw, ClientHearsRefusal, ClientSays, Silence,
        },
        get, ok, post, rule,
    },
    theatre::hold,
};

#[tokio::test]
async fn a_connection_lasts_as_long_as_it_should() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![persistence(), pipelining(), after_errors(), half_close(), expect(), expect_waits()]
}

/// The most ordinary answer.
fn answer() -> String {
    ok("Content-Length: 2\r\n", "ok")
}

fn persistence() -> Rule {
    let old =
        |connection: &str| format!("GET / HTTP/1.0\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
    rule("9112, 9.3", "HTTP/1.1 persists unless it says close, HTTP/1.0 only if it asks")
        .forwards("1.1", GET, GET)
        .forwards("1.1, keep-alive", get("Connection: keep-alive\r\n"), GET)
        .forwards_last("1.1, close", get("Connection: close\r\n"), GET)
        .forwards_last("1.1, CLOSE among others", get("Connection: a, CLOSE\r\n"), GET)
        .forwards_last("1.1, close and keep-alive", get("Connection: keep-alive, close\r\n"), GET)
        .forwards_last(
            "1.1, close in a second field",
            get("Connection: a\r\nConnection: close\r\n"),
            GET,
        )
        .forwards_last("1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", GET)
        .forwards("1.0, keep-alive", old("keep-alive"), GET)
        .forwards("1.0, Keep-Alive", old("Keep-Alive"), GET)
        .forwards_last("1.0, close", old("close"), GET)
        .forwards_last("1.0, keep-alive and close", old("keep-alive, close"), GET)
        .forwards_last(
            "1.0, Proxy-Connection",
            "GET / HTTP/1.0\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n",
            GET,
        )
        .forwards("1.0 and 1.1 in turn", old("keep-alive").repeat(2) + GET, GET.repeat(3))
        .forwards(
            "HEAD and GET",
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + GET,
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + GET,
        )
}

fn pipelining() -> Rule {
    let numbered: String = (0..40).map(|n| GET.replace("/ ", &format!("/{n} "))).collect();
    let mixed = [
        GET,
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        "HEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "GET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n..",
        "DELETE /6 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .concat();
    let last = get("Connection: close\r\n");
    rule("9112, 9.3.2", "requests in one packet are answered in their order")
        .forwards("two", GET.repeat(2), GET.repeat(2))
        .forwards("forty", numbered.clone(), numbered)
        .forwards("with and without bodies", mixed.clone(), mixed)
        .forwards_last("nothing behind close", format!("{GET}{last}{GET}"), GET.repeat(2))
        .forwards_last(
            "nothing behind HTTP/1.0",
            format!("{GET}GET / HTTP/1.0\r\nHost: a\r\n\r\n{GET}"),
            GET.repeat(2),
        )
}

fn after_errors() -> Rule {
    let bad = "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n";
    let both = post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n");
    let talk = |second: &str| {
        vec![
            ClientSays(format!("{GET}{second}{GET}")),
            BackendHears(GET.to_owned()),
            BackendSays(answer()),
            ClientHears(answer()),
            ClientHearsRefusal(400),
            ClientHearsEnd,
            Silence,
        ]
    };
    rule("9112, 9.6", "behind an error nothing is read any more")
        .talks("a bad field", talk(bad))
        .talks("a doubtful length", talk(&both))
        .talks("a bad chunk", talk(&post("Transfer-Encoding: chunked\r\n", "x\r\n0\r\n\r\n")))
        .talks("no request at all", talk("\0\r\n\r\n"))
        .talks("an unknown version", {
            let mut steps = talk("GET / HTTP/2.0\r\nHost: a\r\n\r\n");
            steps[4] = ClientHearsRefusal(505);
            steps
        })
}

fn half_close() -> Rule {
    let whole = post("Content-Length: 4\r\n", "body");
    let chunks = post("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n");
    let talk = |request: &str| {
        vec![
            ClientSays(request.to_owned()),
            ClientFinishes,
            BackendHears(request.to_owned()),
            Silence,
            BackendSays(answer()),
            ClientHears(answer()),
            ClientHearsEnd,
        ]
    };
    rule("9112, 9.6", "who says no more still listens")
        .talks("GET", talk(GET))
        .talks("a body", talk(&whole))
        .talks("chunks", talk(&chunks))
        .talks(
            "several requests",
            vec![
                ClientSays(GET.repeat(2)),
                ClientFinishes,
                BackendHears(GET.to_owned()),
                BackendSays(answer()),
                BackendHears(GET.to_owned()),
                BackendSays(answer()),
                ClientHears(answer().repeat(2)),
                ClientHearsEnd,
            ],
        )
        .talks("before a request", vec![ClientFinishes, ClientHearsEnd, Silence])
        .talks(
            "in the middle of a head",
            vec![ClientSays("GET / HT".to_owned()), ClientFinishes, ClientHearsEnd, Silence],
        )
        .talks(
            "while an answer comes in, until its end",
            vec![
                ClientSays(GET.to_owned()),
                BackendHears(GET.to_owned()),
                BackendSays(ok("", "o")),
                ClientHearsHead(ok("Transfer-Encoding: chunked\r\n", "")),
                ClientHearsRaw("1\r\no\r\n".to_owned()),
                ClientFinishes,
                Silence,
                BackendSays("k".to_owned()),
                BackendFinishes,
                ClientHearsRaw("1\r\nk\r\n0\r\n\r\n".to_owned()),
                ClientHearsEnd,
            ],
        )
}

fn expect() -> Rule {
    let with = |value: &str| post(&format!("Expect: {value}\r\nContent-Length: 4\r\n"), "body");
    let seen = post("Content-Length: 4\r\n", "body");
    rule("9110, 10.1.1", "the only expectation is 100-continue")
        .forwards("the body is there", with("100-continue"), seen.clone())
        .forwards("in another case", with("100-Continue"), seen.clone())
        .forwards("nothing", with(""), seen.clone())
        .forwards("twice", with("100-continue, 100-continue"), seen.clone())
        .forwards("without a body", get("Expect: 100-continue\r\n"), GET)
        .forwards_last(
            "HTTP/1.0 does not wait",
            "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
            seen,
        )
        .refuses(417, "another one", with("200-ok"))
        .refuses(417, "two", with("100-continue, x"))
        .refuses(417, "with a parameter", with("100-continue;a=b"))
}

fn expect_waits() -> Rule {
    let head = |fields: &str| post(&format!("Expect: 100-continue\r\n{fields}"), "");
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".to_owned();
    let talk = |fields: &str, body: &str| {
        vec![
            ClientSays(head(fields)),
            ClientHears(interim.clone()),
            ClientSays(body.to_owned()),
            BackendHears(post(fields, body)),
            BackendSays(answer()),
            ClientHears(answer()),
            ClientFinishes,
            ClientHearsEnd,
        ]
    };
    rule("9110, 10.1.1", "who waits to send a body is told to")
        .talks("with a length", talk("Content-Length: 4\r\n", "body"))
        .talks("with chunks", talk("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n"))
        .talks(
            "HTTP/1.0 is not",
            vec![
                ClientSays("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n".to_owned()),
                BackendHearsHead(post("Content-Length: 4\r\n", "")),
                Silence,
                ClientSays("body".to_owned()),
                BackendHearsRaw("body".to_owned()),
                BackendSays(answer()),
                ClientHears(ok("Connection: close\r\nContent-Length: 2\r\n", "ok")),
                ClientHearsEnd,
            ],
        )
        .talks(
            "who leaves then is not forwarded as complete",
            vec![
                ClientSays(head("Content-Length: 4\r\n")),
                ClientHears(interim),
                ClientFinishes,
                ClientHearsEnd,
                BackendHearsHead(post("Content-Length: 4\r\n", "")),
                BackendHearsEnd,
            ],
        )
}
