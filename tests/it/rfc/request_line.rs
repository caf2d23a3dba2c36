//! Request lines: methods, targets, versions, and the ends of lines.

use super::{
    case::{GET, Rule, Step, rule},
    theatre::hold,
};

#[tokio::test]
async fn a_request_line_is_read_by_the_letter() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![
        methods(),
        refused_methods(),
        max_forwards(),
        origin_form(),
        absolute_form(),
        authority_form(),
        asterisk_form(),
        long_lines(),
        white_space(),
        versions(),
        line_ends(),
    ]
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

fn methods() -> Rule {
    let mut rule = rule("9110, 9.1", "a method is a token, and its case counts");
    for method in ["GET", "OPTIONS", "DELETE", "PUT"] {
        let send = line(&format!("{method} / HTTP/1.1"));
        rule = rule.forwards(format!("{method} without a body"), send.clone(), send);
    }
    for method in ["POST", "PATCH", "PROPFIND", "M-SEARCH", "get", "Post", "X", "QUERY", "connect"]
    {
        let send = line(&format!("{method} / HTTP/1.1"));
        let seen = send.replace("Host: a\r\n", "Host: a\r\nContent-Length: 0\r\n");
        rule = rule.forwards(format!("{method} without a body"), send, seen);
    }
    for method in ["a!#$%&'*+-.^_`|~9", "!a", "~", "_"] {
        let send = line(&format!("{method} / HTTP/1.1"));
        let seen = send.replace("Host: a\r\n", "Host: a\r\nContent-Length: 0\r\n");
        rule = rule.forwards(format!("every character of tokens, {method}"), send, seen);
    }
    for method in ["G@T", "GE(T", "GET,", "\"GET\"", "G\u{e9}T", "{GET}", "GE/T", "GET:"] {
        let send = line(&format!("{method} / HTTP/1.1"));
        rule = rule.refuses(400, format!("{method} is no token"), send);
    }
    rule.refuses(400, "no method", line(" / HTTP/1.1")).forwards(
        "HEAD",
        line("HEAD / HTTP/1.1"),
        line("HEAD / HTTP/1.1"),
    )
}

fn refused_methods() -> Rule {
    rule("9110, 9.3.6 and 9.3.8", "CONNECT and TRACE are not served")
        .refuses(405, "CONNECT", line("CONNECT b:80 HTTP/1.1"))
        .refuses(405, "CONNECT in HTTP/1.0", line("CONNECT b:80 HTTP/1.0"))
        .refuses(405, "CONNECT with a path", line("CONNECT / HTTP/1.1"))
        .refuses(405, "TRACE", line("TRACE / HTTP/1.1"))
        .refuses(405, "TRACE of somebody", line("TRACE http://b/ HTTP/1.1"))
        .refuses(
            405,
            "TRACE with a body",
            "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        )
}

fn max_forwards() -> Rule {
    let options =
        |value: &str| format!("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
    let get = "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
    let own = "HTTP/1.1 200 OK\r\nDate: {now}\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n\
        Content-Length: 0\r\n\r\n";
    rule("9110, 7.6.2", "Max-Forwards of OPTIONS counts the proxies")
        .forwards("another one", options("5"), options("4"))
        .forwards("the last one", options("1"), options("0"))
        .forwards("other methods do not count", get, get)
        .talks(
            "none is left",
            vec![Step::ClientSays(options("0")), Step::ClientHears(own.to_owned()), Step::Silence],
        )
}

fn origin_form() -> Rule {
    let mut rule = rule("9112, 3.2.1", "a path goes on as it is");
    for target in [
        "/",
        "/a?b=c&d",
        "/?",
        "//a//b",
        "/a/../b/./c",
        "/%00%zz%2e%2E/%",
        "/a:80",
        "/@b",
        "/http://b/",
        "/*",
        "/a;b=c,d",
        "/a|b^c`d{e}f\"g<h>i\\j[k]",
        "/?a?b/c",
        "/~!$&'()*+=",
    ] {
        let send = line(&format!("GET {target} HTTP/1.1"));
        rule = rule.forwards(target, send.clone(), send);
    }
    for target in
        ["a", "a/b", "?a", "/a#b", "#", "/?a#b", "\\", "/a\0b", "/a\x01", "/a\x7f", "/\u{e9}"]
    {
        rule = rule.refuses(400, format!("{target:?}"), line(&format!("GET {target} HTTP/1.1")));
    }
    rule.refuses(400, "no target", line("GET  HTTP/1.1"))
}

fn absolute_form() -> Rule {
    let mut rule = rule("9112, 3.2.2", "a URL beats Host, which is rewritten");
    for (url, target, host) in [
        ("http://b/", "/", "b"),
        ("http://b/p?q", "/p?q", "b"),
        ("http://b", "/", "b"),
        ("http://b?y", "/?y", "b"),
        ("http://b?y=/z", "/?y=/z", "b"),
        ("http://b:81/", "/", "b:81"),
        ("http://b:81?y", "/?y", "b:81"),
        ("HTTP://b/", "/", "b"),
        ("hTTp://B.c/D", "/D", "B.c"),
        ("http://[::1]/", "/", "[::1]"),
        ("http://[::1]:81/p", "/p", "[::1]:81"),
        ("http://b//p", "//p", "b"),
        ("http://b/http://c/", "/http://c/", "b"),
        ("http://b/@c", "/@c", "b"),
    ] {
        let seen = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        rule = rule.forwards(url, line(&format!("GET {url} HTTP/1.1")), seen);
    }
    for url in [
        "http://",
        "http:///p",
        "http://:80/",
        "http://?y",
        "http:/b/",
        "http:b",
        "http://u@b/",
        "http://u:p@b/",
        "http://b@/",
        "http://b#f",
        "http://b/#f",
        "http://b:x/",
        "http://b:80:80/",
        "http://[::1/",
        "http://b\\c/",
        "ftp://b/",
        "file:///etc/passwd",
        "://b/",
        "b.example/",
    ] {
        rule = rule.refuses(400, url, line(&format!("GET {url} HTTP/1.1")));
    }
    rule.forwards(
        "Host is empty",
        "GET http://b/ HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    )
    .forwards_last(
        "HTTP/1.0 without Host",
        "GET http://b/ HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    )
    .refuses(400, "no Host all the same", "GET http://b/ HTTP/1.1\r\n\r\n")
    .refuses(400, "two Hosts", "GET http://b/ HTTP/1.1\r\nHost: b\r\nHost: b\r\n\r\n")
    .refuses(400, "a bad Host", "GET http://b/ HTTP/1.1\r\nHost: u@b\r\n\r\n")
}

fn authority_form() -> Rule {
    rule("9112, 3.2.3", "only CONNECT may name an authority")
        .refuses(400, "GET", line("GET b:80 HTTP/1.1"))
        .refuses(400, "POST", line("POST b:80 HTTP/1.1"))
        .refuses(400, "OPTIONS", line("OPTIONS b:80 HTTP/1.1"))
        .refuses(400, "an address", line("GET 127.0.0.1 HTTP/1.1"))
        .refuses(400, "an IPv6 address", line("GET [::1]:80 HTTP/1.1"))
}

fn asterisk_form() -> Rule {
    let options = line("OPTIONS * HTTP/1.1");
    let mut rule = rule("9112, 3.2.4", "an asterisk is for OPTIONS only")
        .forwards("OPTIONS *", options.clone(), options)
        .forwards(
            "OPTIONS of a server",
            line("OPTIONS http://b HTTP/1.1"),
            "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n",
        )
        .forwards(
            "OPTIONS of a root",
            line("OPTIONS http://b/ HTTP/1.1"),
            "OPTIONS / HTTP/1.1\r\nHost: b\r\n\r\n",
        )
        .forwards(
            "OPTIONS of a query",
            line("OPTIONS http://b?y HTTP/1.1"),
            "OPTIONS /?y HTTP/1.1\r\nHost: b\r\n\r\n",
        );
    for bad in ["GET *", "POST *", "HEAD *", "OPTIONS **", "OPTIONS */", "OPTIONS *?a"] {
        rule = rule.refuses(400, bad, line(&format!("{bad} HTTP/1.1")));
    }
    rule
}

fn long_lines() -> Rule {
    let target = |length: usize| line(&format!("GET /{} HTTP/1.1", "x".repeat(length)));
    rule("9112, 3", "8000 octets of a request line at least; 414 beyond ours")
        .forwards("8000", target(8000 - 14), target(8000 - 14))
        .forwards("8 KiB", target(8192 - 16), target(8192 - 16))
        .refuses(414, "8 KiB and more", target(8192 - 13))
        .refuses(414, "very long", target(40_000))
        .refuses(414, "a long method", line(&format!("{} / HTTP/1.1", "G".repeat(9000))))
        .refuses(414, "no end in sight", "GET /".to_owned() + &"x".repeat(9000))
}

fn white_space() -> Rule {
    let mut rule = rule("9112, 3", "single spaces, and nowhere else");
    for bad in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "\tGET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1\t",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET\x0b/ HTTP/1.1",
        "GET\x0c/\x0cHTTP/1.1",
        "GET\u{a0}/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET / HTTP/1.1 HTTP/1.1",
        "GET / HTTP /1.1",
        "GET\r/ HTTP/1.1",
        "GET /\rHTTP/1.1",
    ] {
        rule = rule.refuses(400, format!("{bad:?}"), line(bad));
    }
    rule
}

fn versions() -> Rule {
    let mut rule = rule("9112, 2.3", "HTTP/1.1 and HTTP/1.0 are spoken")
        .forwards("HTTP/1.1", GET, GET)
        .forwards_last("HTTP/1.0", line("GET / HTTP/1.0"), GET)
        .refuses(400, "HTTP/0.9", "GET /\r\n\r\n")
        .refuses(400, "HTTP/0.9 with a space", "GET / \r\n\r\n")
        .refuses(505, "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\n")
        .refuses(400, "TLS", "\x16\x03\x01\x02\0\x01\0");
    for version in ["HTTP/1.2", "HTTP/1.9"] {
        // 9110, 2.5: a later minor version is taken for the last one that is known.
        rule = rule.forwards(version, line(&format!("GET / {version}")), GET);
    }
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/2.1", "HTTP/9.9"] {
        rule = rule.refuses(505, version, line(&format!("GET / {version}")));
    }
    for version in [
        "HTTP/1",
        "HTTP/11",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.1.1",
        "HTTP/1,1",
        "HTTP/.1",
        "HTTP/x.1",
        "http/1.1",
        "Http/1.1",
        "HTTP1.1",
        "HTTPS/1.1",
        "HTTP/-1.1",
        "HTTP/+1.1",
        "/1.1",
        "1.1",
        "HTTP\\1.1",
    ] {
        rule = rule.refuses(400, version, line(&format!("GET / {version}")));
    }
    rule
}

fn line_ends() -> Rule {
    let end = |end: &str| GET.replace("\r\n", end);
    rule("9112, 2.2", "lines end with CRLF; empty ones before a request are skipped")
        .forwards("an empty line before", format!("\r\n{GET}"), GET)
        .forwards("several", format!("\r\n\r\n\r\n{GET}"), GET)
        .forwards("between two", format!("{GET}\r\n\r\n{GET}"), format!("{GET}{GET}"))
        .forwards(
            "behind a body",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n".to_owned() + GET,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx".to_owned() + GET,
        )
        .refuses(400, "LF everywhere", end("\n"))
        .refuses(400, "CR everywhere", end("\r") + "\r\n\r\n")
        .refuses(400, "LF CR", end("\n\r"))
        .refuses(400, "CR CR LF", end("\r\r\n") + "\r\n\r\n")
        .refuses(400, "an LF before", format!("\n{GET}"))
        .refuses(400, "a CR before", format!("\r{GET}"))
        .refuses(400, "an LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n")
        .refuses(400, "an LF behind a field", "GET / HTTP/1.1\r\nHost: a\n\r\n")
        .refuses(400, "an LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n")
        .refuses(400, "space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n")
        .refuses(400, "tab before the first field", "GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n")
        .refuses(400, "a line of spaces", "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n")
}
