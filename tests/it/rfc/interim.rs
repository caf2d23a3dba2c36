//! Interim responses, and final ones that come early or with something behind them.

use super::{
    case::{
        GET, OLD_GET, POST, Rule,
        Step::{
            BackendCloses, BackendHears, BackendHearsEnd, BackendHearsHead, BackendHearsRaw,
            BackendSays, ClientFinishes, ClientHears, ClientHearsEnd, ClientHearsHead,
            ClientHearsRaw, ClientHearsRefusal, ClientHearsReset, ClientSays, Silence,
        },
        Then, ok, post, rule,
    },
    theatre::hold,
};

#[tokio::test]
async fn what_comes_before_its_time_is_passed_on_in_order() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![interims(), old_clients(), switching(), early_answers(), client_leaves()]
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn interim(status: u16, fields: &str) -> String {
    format!("HTTP/1.1 {status} x\r\n{fields}\r\n")
}

fn interims() -> Rule {
    let mut rule = rule("9110, 15.2", "interim responses go on, in their order");
    for head in [
        interim(100, ""),
        interim(100, "A: b\r\n"),
        interim(102, ""),
        interim(103, "Link: </a.css>\r\nLink: </b.css>\r\n"),
        interim(199, ""),
        interim(103, "A: 1\r\n") + &interim(103, "A: 2\r\n") + &interim(102, ""),
        interim(102, "").repeat(16),
    ] {
        rule = rule.passes(
            format!("{} bytes, {}", head.len(), &head[9..12]),
            head.clone() + OK,
            head + OK,
        );
    }
    rule.passes(
        "without what is for one hop, or framing",
        interim(103, "Connection: x\r\nX: y\r\nKeep-Alive: 5\r\nLink: z\r\nContent-Length: 0\r\n")
            + OK,
        interim(103, "Link: z\r\n") + OK,
    )
    .passes_to(POST, "to a POST", interim(103, "A: b\r\n") + OK, interim(103, "A: b\r\n") + OK)
    .fails_for(OLD_GET, "without end", interim(102, "").repeat(100), Then::Keep)
    .talks(
        "each at once",
        vec![
            ClientSays(GET.to_owned()),
            BackendHears(GET.to_owned()),
            BackendSays(interim(103, "A: 1\r\n")),
            ClientHears(interim(103, "A: 1\r\n")),
            BackendSays(interim(102, "")),
            ClientHears(interim(102, "")),
            BackendSays(OK.to_owned()),
            ClientHears(OK.to_owned()),
            ClientFinishes,
            ClientHearsEnd,
        ],
    )
    .talks(
        "and then an end",
        vec![
            ClientSays(POST.to_owned()),
            BackendHears(POST.to_owned()),
            BackendSays(interim(103, "A: 1\r\n")),
            ClientHears(interim(103, "A: 1\r\n")),
            BackendCloses,
            ClientHearsRefusal(502),
            ClientFinishes,
            ClientHearsEnd,
        ],
    )
}

fn old_clients() -> Rule {
    let seen = ok("Content-Length: 2\r\nConnection: close\r\n", "ok");
    rule("9110, 15.2", "HTTP/1.0 knows no interim responses")
        .passes_to(OLD_GET, "100", interim(100, "") + OK, seen.clone())
        .passes_to(
            OLD_GET,
            "102 and 103",
            interim(102, "") + &interim(103, "A: b\r\n") + OK,
            seen.clone(),
        )
        .passes_to(OLD_GET, "sixteen", interim(103, "").repeat(16) + OK, seen)
}

fn switching() -> Rule {
    let switch = |fields: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
    rule("9110, 15.2.2", "a 101 that nobody asked for is a 502")
        .fails("with Upgrade", switch("Connection: upgrade\r\nUpgrade: x\r\n"))
        .fails("without", switch(""))
        .fails_for(
            OLD_GET,
            "to HTTP/1.0",
            switch("Upgrade: x\r\nConnection: upgrade\r\n"),
            Then::Keep,
        )
        .fails_for(POST, "to a POST", switch("Upgrade: x\r\nConnection: upgrade\r\n"), Then::Keep)
        .fails("with an answer behind it", switch("Upgrade: x\r\n") + OK)
        .fails("to h2c", switch("Connection: upgrade\r\nUpgrade: h2c\r\n") + "\0\0\0\x04\0\0\0\0\0")
}

fn early_answers() -> Rule {
    let refusal = "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno";
    let closing = "HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    let fields = "Content-Length: 100\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let early = |fields: &str, sent: &str, heard: &str| {
        vec![
            ClientSays(post(fields, sent)),
            BackendHearsHead(post(fields, "")),
            BackendHearsRaw(heard.to_owned()),
            BackendSays(refusal.to_owned()),
            ClientHears(closing.to_owned()),
            ClientHearsEnd,
            // Until then the proxy reads on for a moment, so that the answer is not lost.
            ClientFinishes,
            BackendHearsEnd,
        ]
    };
    let followed = {
        let mut steps = early(fields, "half", "half");
        // The rest of the body looks like a request, and is none.
        steps.insert(5, ClientSays(GET.repeat(2)));
        // The backend reads on.
        steps.insert(6, BackendHearsRaw(GET.repeat(2)));
        steps
    };
    rule("9110, 9.3", "an answer may come before the request is complete; then the connection ends")
        .talks("with a length", early(fields, "half", "half"))
        .talks("before any of the body", early(fields, "", ""))
        .talks("with chunks", early(chunked, "4\r\nhalf\r\n", "4\r\nhalf\r\n"))
        .talks("what the client goes on sending is no request", followed)
        .talks(
            "nor is it behind an answer of our own",
            vec![
                ClientSays(post(fields, "half")),
                BackendHearsHead(post(fields, "")),
                BackendHearsRaw("half".to_owned()),
                BackendCloses,
                ClientHearsRefusal(502),
                ClientSays(GET.repeat(2)),
                ClientHearsEnd,
                Silence,
            ],
        )
}

fn client_leaves() -> Rule {
    let chunked = "Transfer-Encoding: chunked\r\n";
    rule("9112, 8", "a client hears of a broken answer by a reset")
        .talks(
            "a chunk breaks off",
            vec![
                ClientSays(GET.to_owned()),
                BackendHears(GET.to_owned()),
                BackendSays(ok(chunked, "2\r\nok\r\n")),
                ClientHearsHead(ok(chunked, "")),
                ClientHearsRaw("2\r\nok\r\n".to_owned()),
                BackendCloses,
                ClientHearsReset,
            ],
        )
        .talks(
            "a length breaks off",
            vec![
                ClientSays(GET.to_owned()),
                BackendHears(GET.to_owned()),
                BackendSays(ok("Content-Length: 5\r\n", "ok")),
                ClientHearsHead(ok("Content-Length: 5\r\n", "")),
                ClientHearsRaw("ok".to_owned()),
                BackendCloses,
                ClientHearsReset,
            ],
        )
        .talks(
            "a chunk is none",
            vec![
                ClientSays(GET.to_owned()),
                BackendHears(GET.to_owned()),
                BackendSays(ok(chunked, "2\r\nok\r\n")),
                ClientHearsHead(ok(chunked, "")),
                ClientHearsRaw("2\r\nok\r\n".to_owned()),
                Silence,
                BackendSays("x\r\n".to_owned()),
                ClientHearsReset,
                BackendHearsEnd,
            ],
        )
}
