//! Chunked bodies of requests.

use super::{
    case::{GET, Rule, post, rule},
    theatre::hold,
};

#[tokio::test]
async fn a_chunked_body_is_read_by_the_letter() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![sizes(), bad_sizes(), data(), extensions(), trailers(), incomplete(), bounds()]
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn sizes() -> Rule {
    let seen = chunked("4\r\nbody\r\n0\r\n\r\n");
    let long = "x".repeat(0x1ab);
    rule("9112, 7.1", "a size is hexadecimal digits")
        .forwards("as we write it", seen.clone(), seen.clone())
        .forwards("zeros in front", chunked("0004\r\nbody\r\n0\r\n\r\n"), seen.clone())
        .forwards("many zeros at the end", chunked("4\r\nbody\r\n0000\r\n\r\n"), seen.clone())
        .forwards("several", chunked("1\r\nb\r\n2\r\nod\r\n1\r\ny\r\n0\r\n\r\n"), seen.clone())
        .forwards(
            "digits in either case",
            chunked(&format!("1aB\r\n{long}\r\n0\r\n\r\n")),
            chunked(&format!("1ab\r\n{long}\r\n0\r\n\r\n")),
        )
        .forwards(
            "data that looks like the end",
            chunked("9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n"),
            chunked("9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n"),
        )
        .forwards(
            "data that looks like a request",
            chunked(&format!("{:x}\r\n{GET}\r\n0\r\n\r\n", GET.len())),
            chunked(&format!("{:x}\r\n{GET}\r\n0\r\n\r\n", GET.len())),
        )
        .forwards(
            "of any bytes",
            chunked("6\r\n\0\x7f\u{80}\u{ff}\r\n\r\n0\r\n\r\n"),
            chunked("6\r\n\0\x7f\u{80}\u{ff}\r\n\r\n0\r\n\r\n"),
        )
        .forwards("two in one packet", seen.repeat(2), seen.repeat(2))
}

fn bad_sizes() -> Rule {
    let mut rule = rule("9112, 7.1", "what is no size is no guess");
    for size in [
        "",
        "0x4",
        "+4",
        "-4",
        "4.",
        "g",
        "zz",
        "4g",
        "4 4",
        " 4",
        "\t4",
        "4 ",
        "4\t",
        "4\0",
        "\x004",
        "4,",
        "4:",
        "\"4\"",
        "4h",
        "4_0",
        "\u{b2}",
        "\u{a0}4",
        "four",
        "4\u{85}",
        "10000000000000004",
        "FFFFFFFFFFFFFFFFF",
        "ffffffffffffffff4",
        "100000000000000000004",
        "80000000000000000000000000000004",
    ] {
        rule =
            rule.breaks_off(format!("{size:?}"), chunked(&format!("{size}\r\nbody\r\n0\r\n\r\n")));
    }
    for (what, body) in [
        ("LF behind the size", "4\nbody\r\n0\r\n\r\n"),
        ("CR behind the size", "4\rbody\r\n0\r\n\r\n"),
        ("CR CR LF behind the size", "4\r\r\nbody\r\n0\r\n\r\n"),
        ("LF behind the last size", "4\r\nbody\r\n0\n\r\n"),
        ("LF as the last line", "4\r\nbody\r\n0\r\n\n"),
        ("LF only", "4\nbody\n0\n\n"),
        ("an empty line first", "\r\n4\r\nbody\r\n0\r\n\r\n"),
        ("a last size with a sign", "4\r\nbody\r\n-0\r\n\r\n"),
        ("a last size with a prefix", "4\r\nbody\r\n0x0\r\n\r\n"),
    ] {
        rule = rule.breaks_off(what, chunked(body));
    }
    rule
}

fn data() -> Rule {
    let mut rule = rule("9112, 7.1", "data ends where its size says, with CRLF");
    for (what, body) in [
        ("longer than its size", "2\r\nbody\r\n0\r\n\r\n"),
        ("shorter than its size", "6\r\nbody\r\n0\r\n\r\n"),
        ("nothing behind it", "4\r\nbody0\r\n\r\n"),
        ("LF behind it", "4\r\nbody\n0\r\n\r\n"),
        ("CR behind it", "4\r\nbody\r0\r\n\r\n"),
        ("LF CR behind it", "4\r\nbody\n\r0\r\n\r\n"),
        ("a space behind it", "4\r\nbody \r\n0\r\n\r\n"),
        ("other bytes behind it", "4\r\nbodyxx0\r\n\r\n"),
    ] {
        // What is too short takes what follows for data, and never ends.
        rule = match what {
            "shorter than its size" => rule.cut_short(what, chunked(body)),
            _ => rule.breaks_off(what, chunked(body)),
        };
    }
    rule
}

fn extensions() -> Rule {
    let seen = chunked("4\r\nbody\r\n0\r\n\r\n");
    let mut rule = rule("9112, 7.1.1", "extensions are skipped");
    for extension in [
        ";a",
        ";a=b",
        ";a=b;c=d",
        ";a=\"b\"",
        ";a=\"b c\"",
        ";a=\"0;1\"",
        ";a=\"\\\"\"",
        "; a = b",
        ";\ta",
        ";a=\"\u{e9}\"",
        " ;a=b",
    ] {
        rule = rule
            .forwards(
                format!("{extension:?}"),
                chunked(&format!("4{extension}\r\nbody\r\n0\r\n\r\n")),
                seen.clone(),
            )
            .forwards(
                format!("{extension:?} at the end"),
                chunked(&format!("4\r\nbody\r\n0{extension}\r\n\r\n")),
                seen.clone(),
            );
    }
    for extension in
        [";a\n", ";a\nb", ";a\rb", ";a\r", ";a\0", ";\x01", ";a=\"\n\"", ";a=\"\x7f\"", ";a\x0b"]
    {
        rule = rule.breaks_off(
            format!("{extension:?}"),
            chunked(&format!("4{extension}\r\nbody\r\n0\r\n\r\n")),
        );
    }
    let long = |length: usize| format!("4;{}\r\nbody\r\n0\r\n\r\n", "a".repeat(length));
    rule.forwards("256 bytes", chunked(&long(254)), seen)
        .breaks_off("more than 256", chunked(&long(257)))
        .breaks_off("100 KB", chunked(&long(100_000)))
        .breaks_off(
            "more than 256 at the end",
            chunked(&format!("4\r\nbody\r\n0;{}\r\n\r\n", "a".repeat(257))),
        )
}

fn trailers() -> Rule {
    let mut rule = rule("9112, 7.1.2", "trailers are fields, as strictly read as others");
    for trailer in [
        "X: a\nb",
        "X: a\rb",
        "X: \0",
        "X : a",
        " X: a",
        "X",
        ": a",
        "X: a\r\n b",
        "X\0: a",
        "X: a\n",
        "X\u{e9}: a",
        "X: a\r",
        "\tX: a",
        "X: \x7f",
        "(X): a",
    ] {
        let body = format!("4\r\nbody\r\n0\r\n{trailer}\r\n\r\n");
        rule = rule.breaks_off(format!("{trailer:?}"), chunked(&body));
    }
    let ends = "4\r\nbody\r\n0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    rule.breaks_off("a request in the place of a trailer", chunked(ends))
}

fn incomplete() -> Rule {
    let mut rule = rule("9112, 8", "what is incomplete does not become complete");
    for (what, body) in [
        ("before the first size", ""),
        ("in a size", "4"),
        ("behind a size", "4\r\n"),
        ("in the data", "4\r\nbo"),
        ("behind the data", "4\r\nbody"),
        ("behind a chunk", "4\r\nbody\r\n"),
        ("in the last size", "4\r\nbody\r\n0"),
        ("behind the last size", "4\r\nbody\r\n0\r\n"),
        ("in the last line", "4\r\nbody\r\n0\r\n\r"),
        ("in a trailer", "4\r\nbody\r\n0\r\nX: y"),
        ("behind a trailer", "4\r\nbody\r\n0\r\nX: y\r\n"),
        ("in a chunk of 2^63", "8000000000000000\r\nbody"),
        ("in a chunk of 2^64 - 1", "ffffffffffffffff\r\nbody\r\n0\r\n\r\n"),
        ("in a chunk of 2^32 + 4", "100000004\r\nbody\r\n0\r\n\r\n"),
    ] {
        rule = rule.cut_short(what, chunked(body));
    }
    rule
}

fn bounds() -> Rule {
    let trailers = |count: usize| {
        let trailers: String = (0..count).map(|_| "X: 34567\r\n".to_owned()).collect();
        chunked(&format!("4\r\nbody\r\n0\r\n{trailers}\r\n"))
    };
    rule("ours, 7", "nothing of the framing is without a bound")
        .breaks_off(
            "zeros in front of a size",
            chunked(&format!("{}4\r\nbody\r\n0\r\n\r\n", "0".repeat(10_000))),
        )
        .breaks_off(
            "zeros at the end",
            chunked(&format!("4\r\nbody\r\n{}\r\n\r\n", "0".repeat(10_000))),
        )
        .refuses_late(431, "trailers of 10 KB", trailers(1024))
        .refuses_late(
            431,
            "a trailer without end",
            chunked(&format!("0\r\nX: {}", "y".repeat(9000))),
        )
}
