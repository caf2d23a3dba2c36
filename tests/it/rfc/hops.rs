//! Fields that are for one hop only, and those that a proxy adds.

use super::{
    case::{GET, Rule, Then, get, ok, rule},
    theatre::{hold, hold_with},
};

#[tokio::test]
async fn what_is_for_one_hop_goes_no_further() {
    hold(rules()).await;
}

#[tokio::test]
async fn a_trusted_peer_tells_of_earlier_hops() {
    hold_with(rules_of_trusted_peers(), async |cluster| {
        let trusted = vec!["127.0.0.0/8".to_owned()];
        cluster.api.change_listener(|listener| listener.trusted_proxies = trusted).await;
    })
    .await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![
        named(),
        bad_connections(),
        known(),
        te(),
        upgrade(),
        named_in_responses(),
        known_in_responses(),
        via(),
        forwarded(),
        request_ids(),
    ]
}

pub(super) fn rules_of_trusted_peers() -> Vec<Rule> {
    let with = |fields: &str, seen: &str| (get(fields), get(seen));
    let (one, one_seen) =
        with("X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n");
    let (two, two_seen) = with(
        "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nA: b\r\nx-forwarded-for: ::1\r\n",
        "A: b\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2, ::1, 127.0.0.1\r\n",
    );
    let (empty, empty_seen) = with("X-Forwarded-For:\r\n", "X-Forwarded-For: 127.0.0.1\r\n");
    let others = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n";
    let rule = rule("ours, forwarded", "a trusted peer's X-Forwarded-* are kept and continued")
        .forwards("one address", one, one_seen)
        .forwards("several, in two fields", two, two_seen)
        .forwards("none", empty, empty_seen)
        .forwards("scheme and host", get(others), get(others))
        .forwards("nothing", GET, GET);
    vec![rule]
}

fn named() -> Rule {
    let fields = "Connection: x-a, X-B\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n";
    let several = "Connection: close2\r\nX-A: 1\r\nConnection: x-a\r\nX-A: 2\r\nclose2: 3\r\n";
    let own = "Connection: Host, Content-Length, Transfer-Encoding, X-Forwarded-For, \
        X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id, Expect\r\n";
    let all: Vec<String> = (0..16).map(|n| format!("X{n}")).collect();
    let lines: String = all.iter().map(|name| format!("{name}: y\r\n")).collect();
    let options = "Connection: Authorization, Cookie\r\nAuthorization: x\r\nCookie: y\r\nA: b\r\n";
    rule("9110, 7.6.1", "fields that Connection names are removed, and Connection with them")
        .forwards("two of three", get(fields), get("X-C: 3\r\n"))
        .forwards("in several fields", get(several), GET)
        .forwards("named behind the field", get("X-A: 1\r\nConnection: x-a\r\n"), GET)
        .forwards("what is not there", get("Connection: x-a\r\n"), GET)
        .forwards("nothing", get("Connection:\r\n"), GET)
        .forwards("empty members", get("Connection: , ,x-a,,\r\nX-A: 1\r\n"), GET)
        .forwards("keep-alive", get("Connection: keep-alive\r\nKeep-Alive: 300\r\n"), GET)
        .forwards_last("close", get("Connection: close\r\n"), GET)
        .forwards_last("close and others", get("Connection: X-A,Close\r\nX-A: 1\r\n"), GET)
        .forwards("what the proxy needs itself stays", get(own), GET)
        .forwards("whatever the client calls its own", get(options), get("A: b\r\n"))
        .forwards("sixteen", get(&format!("Connection: {}\r\n{lines}", all.join(","))), GET)
        .forwards(
            "a body's length stays",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 4\r\n\r\nbody",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        )
        .forwards_last(
            "in HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: X-A\r\nX-A: 1\r\nB: 1\r\n\r\n",
            get("B: 1\r\n"),
        )
}

fn bad_connections() -> Rule {
    let names: Vec<String> = (0..17).map(|n| format!("X{n}")).collect();
    rule("9110, 7.6.1", "a Connection that cannot be understood is refused")
        .refuses(400, "two words", get("Connection: close keep-alive\r\n"))
        .refuses(400, "a parameter", get("Connection: close;a=b\r\n"))
        .refuses(400, "in quotes", get("Connection: \"close\"\r\n"))
        .refuses(400, "obs-text", get("Connection: cl\u{f6}se\r\n"))
        .refuses(
            400,
            "more names than anybody needs",
            get(&format!("Connection: {}\r\n", names.join(","))),
        )
}

fn known() -> Rule {
    let mut rule = rule("9110, 7.6.1", "fields for one hop are removed even if nobody names them");
    for field in [
        "Keep-Alive: timeout=5",
        "keep-alive: 300",
        "Proxy-Connection: keep-alive",
        "Proxy-Connection: close",
        "Proxy-Authorization: Basic x",
        "Proxy-Authenticate: Basic",
        "Proxy-Authentication-Info: x",
        "Proxy-Anything: x",
        "Proxy: http://evil/",
        "TE: gzip",
        "Trailer: X",
        "Upgrade: x",
    ] {
        rule = rule.forwards(
            field,
            get(&format!("A: 1\r\n{field}\r\nB: 2\r\n")),
            get("A: 1\r\nB: 2\r\n"),
        );
    }
    rule
}

fn te() -> Rule {
    let seen = get("TE: trailers\r\nConnection: TE\r\n");
    let mut rule = rule("9110, 10.1.4", "of TE only trailers goes on, named in Connection");
    for value in
        ["trailers", "Trailers", "trailers, deflate;q=0.5", "gzip, trailers", " trailers ,"]
    {
        let fields = format!("Connection: TE\r\nTE: {value}\r\n");
        rule = rule.forwards(format!("{value:?}"), get(&fields), seen.clone());
    }
    for value in ["gzip", "chunked", "trailersx", "trailers;q=0", "", "\"trailers\"", "x-trailers"]
    {
        let fields = format!("Connection: TE\r\nTE: {value}\r\n");
        rule = rule.forwards(format!("{value:?}"), get(&fields), GET);
    }
    let old = |te: &str| format!("GET / HTTP/1.0\r\nHost: a\r\nConnection: TE\r\nTE: {te}\r\n\r\n");
    rule.forwards_last("HTTP/1.0 knows no trailers", old("trailers"), GET)
}

fn upgrade() -> Rule {
    rule("9110, 7.8", "an Upgrade that cannot be is not forwarded")
        .forwards("not named in Connection", get("Upgrade: x\r\n"), GET)
        .forwards("named, and not there", get("Connection: upgrade\r\n"), GET)
        .forwards("h2c", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"), GET)
        .forwards("h2c without Connection", get("Upgrade: h2c\r\nHTTP2-Settings: x\r\n"), GET)
        .forwards_last(
            "in HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            GET,
        )
        .forwards(
            "with a body",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 4\r\n\r\nbody",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        )
        .forwards(
            "with chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\
             Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        )
}

const LENGTH: &str = "Content-Length: 2\r\n";

/// A response whose connection is kept, as the backend says it and as the client hears it.
fn both(fields: &str, seen: &str) -> (String, String) {
    (ok(&format!("{fields}{LENGTH}"), "ok"), ok(&format!("{seen}{LENGTH}"), "ok"))
}

fn named_in_responses() -> Rule {
    let mut rule = rule("9110, 7.6.1", "the same holds for responses");
    for (fields, seen) in [
        ("Connection: x-a\r\nX-A: 1\r\nX-B: 2\r\n", "X-B: 2\r\n"),
        ("X-A: 1\r\nConnection: keep-alive, X-a\r\n", ""),
        ("Connection: content-length, date\r\nDate: today\r\n", ""),
        ("Connection: , ,\r\n", ""),
        ("Connection: a\r\nConnection: b\r\nA: 1\r\nB: 2\r\nC: 3\r\n", "C: 3\r\n"),
    ] {
        let (answer, seen) = both(fields, seen);
        rule = rule.passes(format!("{fields:?}"), answer, seen);
    }
    let (answer, seen) = both("Connection: close\r\n", "");
    rule.passes_last(GET, "close is between the backend and us", answer, Then::Close, seen.clone())
        .passes_last(
            GET,
            "close, and yet it stays",
            both("Connection: X, Close\r\nX: y\r\n", "").0,
            Then::Keep,
            seen,
        )
        .fails("malformed", both("Connection: a b\r\n", "").0)
}

fn known_in_responses() -> Rule {
    let mut rule = rule("9110, 7.6.1", "fields for one hop are removed from responses");
    for field in [
        "Keep-Alive: timeout=60",
        "Proxy-Authenticate: Basic",
        "Proxy-Connection: keep-alive",
        "Proxy-Anything: x",
        "Upgrade: h2c",
        "TE: trailers",
    ] {
        let (answer, seen) = both(&format!("A: 1\r\n{field}\r\nB: 2\r\n"), "A: 1\r\nB: 2\r\n");
        rule = rule.passes(field, answer, seen);
    }
    rule
}

fn via() -> Rule {
    let (date, seen) = both(
        "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\nServer: b/1 (c)\r\nVia: 1.1 d\r\n",
        "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\nServer: b/1 (c)\r\nVia: 1.1 d\r\n",
    );
    let (none, none_seen) = both("", "");
    let (odd, odd_seen) = both("Server:\r\nDate: whenever\r\n", "Server: \r\nDate: whenever\r\n");
    rule("9110, 6.6.1 and 7.6.3", "Date, Server and Via are the backend's; a Date is added")
        .passes("all there", date, seen)
        .passes("none there", none, none_seen)
        .passes("whatever they say", odd, odd_seen)
        .forwards("a client's Via", get("Via: 1.1 c, 1.0 d\r\n"), get("Via: 1.1 c, 1.0 d\r\n"))
        .forwards("no Via", GET, GET)
}

fn forwarded() -> Rule {
    let mut rule = rule("ours, forwarded", "who is not trusted says nothing of earlier hops");
    for fields in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "X-Forwarded-For: 192.0.2.1\r\nx-forwarded-FOR: 192.0.2.2\r\n",
        "X-Forwarded-For:\r\n",
        "X-Forwarded-Proto: https\r\n",
        "Forwarded: for=192.0.2.1\r\n",
        "X-Real-IP: 192.0.2.1\r\nx-real-ip:192.0.2.2\r\nX_Real_IP: ::1\r\n",
        "X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: ::1\r\n",
        "Connection: X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto\r\n",
    ] {
        rule = rule.forwards(format!("{fields:?}"), get(fields), GET);
    }
    rule.forwards("they are added", GET, GET)
}

fn request_ids() -> Rule {
    let id = "X-Request-Id: given by/the client\r\n";
    rule("ours, request id", "every request has an X-Request-Id")
        .forwards("a new one", GET, GET)
        .forwards("the client's", get(id), get(id))
        .forwards(
            "the client's in small letters",
            get("x-request-id: a\r\n"),
            get("x-request-id: a\r\n"),
        )
        .forwards("an empty one is none", get("X-Request-Id:\r\n"), GET)
        .forwards("it cannot be named away", get("Connection: X-Request-Id\r\n"), GET)
}
