//! Host: whom a request is meant for.

use super::{
    case::{GET, Rule, get, rule},
    theatre::hold,
};

#[tokio::test]
async fn a_request_names_one_host() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![exactly_one(), syntax(), looks()]
}

fn with(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn exactly_one() -> Rule {
    rule("9112, 3.2", "exactly one Host in HTTP/1.1, at most one in HTTP/1.0")
        .refuses(400, "none", "GET / HTTP/1.1\r\n\r\n")
        .refuses(400, "none, but others", "GET / HTTP/1.1\r\nX: y\r\n\r\n")
        .refuses(400, "none for HEAD", "HEAD / HTTP/1.1\r\n\r\n")
        .refuses(400, "two", get("Host: b\r\n"))
        .refuses(400, "the same twice", get("Host: a\r\n"))
        .refuses(400, "the second is empty", get("Host:\r\n"))
        .refuses(400, "the first is empty", "GET / HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n")
        .refuses(400, "in another case", get("hOST: a\r\n"))
        .refuses(400, "far apart", get("X: y\r\nZ: y\r\nHost: b\r\n"))
        .refuses(400, "two in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n")
        .refuses(400, "a list", with("a, b"))
        .forwards_last(
            "none in HTTP/1.0",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: {local}\r\n\r\n",
        )
        .forwards_last("one in HTTP/1.0", "GET / HTTP/1.0\r\nHost: b\r\n\r\n", with("b"))
}

fn syntax() -> Rule {
    let mut rule = rule("9110, 7.2", "uri-host [ \":\" port ]");
    for good in [
        "",
        "a",
        "A.Example",
        "a.example.",
        "a:80",
        "a:",
        "a:0",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:8080",
        "[::ffff:127.0.0.1]",
        "a-b_c~d",
        "a%20b",
        "xn--bcher-kva.example",
    ] {
        rule = rule.forwards(format!("{good:?}"), with(good), with(good));
    }
    for bad in [
        "u@a", "u:p@a", "http://a", "a/", "a/b", "a?b", "a#b", "a\\b", "a b", "a\tb", "a:b",
        "a:80b", "a:-1", "a:80:80", "a:123456", "[::1", "::1", "[]", "[::g]", "[::1]x", "[::1]:x",
        "a]", "a[", "<a>", "\"a\"", "a|b", "a^b", "{a}", "\u{e9}", "a\0", "a\x01", "a\x7f", "a,b",
        "*:*:*",
    ] {
        rule = rule.refuses(400, format!("{bad:?}"), with(bad));
    }
    rule
}

fn looks() -> Rule {
    rule("9110, 7.2", "Host goes on, once, whatever it looked like")
        .forwards("in small letters", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", GET)
        .forwards("behind others", "GET / HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n", get("X: y\r\n"))
        .forwards("in white space", "GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n", GET)
        .forwards("without a space", "GET / HTTP/1.1\r\nHost:a\r\n\r\n", GET)
        .forwards("named in Connection", get("Connection: host\r\n"), GET)
}
