//! Field lines: names, values, order and sizes.

use super::{
    case::{GET, Rule, get, post, rule},
    theatre::hold,
};

#[tokio::test]
async fn a_field_is_read_by_the_letter_and_goes_on_unchanged() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![colons(), names(), look_alikes(), values(), white_space(), folds(), order(), sizes()]
}

fn colons() -> Rule {
    rule("9112, 5.1", "nothing stands between a name and its colon")
        .refuses(400, "a space", get("X : y\r\n"))
        .refuses(400, "a tab", get("X\t: y\r\n"))
        .refuses(400, "a space behind Host", "GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        .refuses(400, "a space behind Content-Length", post("Content-Length : 4\r\n", "body"))
        .refuses(
            400,
            "a tab behind Transfer-Encoding",
            post("Transfer-Encoding\t: chunked\r\n", ""),
        )
        .refuses(400, "a space in HTTP/1.0", "GET / HTTP/1.0\r\nX : y\r\n\r\n")
        .refuses(400, "a vertical tab", get("X\x0b: y\r\n"))
        .refuses(400, "a CR", get("X\r: y\r\n"))
        .refuses(400, "no colon", get("Content-Length 4\r\n"))
        .refuses(400, "no colon at the end", get("X\r\n"))
        .refuses(400, "no name", get(": y\r\n"))
        .refuses(400, "only a colon", get(":\r\n"))
        .forwards("a second colon is of the value", get("X:: y:\r\n"), get("X: : y:\r\n"))
}

fn names() -> Rule {
    let mut rule = rule("9110, 5.1", "a name is a token, and goes on in its case");
    for name in ["X", "x-y", "X_y", "x.Y", "!#$%&'*+-.^_`|~09azAZ", "0"] {
        let fields = format!("{name}: y\r\n");
        rule = rule.forwards(name, get(&fields), get(&fields));
    }
    for other in "\"(),/;<=>?@[\\]{} \t\0\x01\x1f\x7f\u{80}\u{e9}\u{ff}".chars() {
        let fields = format!("X{other}y: z\r\n");
        rule = rule.refuses(400, format!("{other:?} in a name"), get(&fields));
    }
    rule
}

fn look_alikes() -> Rule {
    rule("ours, 1", "what a careless backend takes for a framing field does not go on")
        .forwards("a length with an underscore", get("Content_Length: 38\r\n"), GET)
        .forwards("an encoding with an underscore", get("Transfer_Encoding: chunked\r\n"), GET)
        .forwards("both, in other cases", get("content_LENGTH: 3\r\nTRANSFER_encoding: x\r\n"), GET)
        .forwards("an underscore elsewhere", get("X_Length: 38\r\n"), get("X_Length: 38\r\n"))
        .refuses(400, "a length with a NUL", get("Content-Length\0: 38\r\n"))
        .refuses(400, "a length in quotes", get("\"Content-Length\": 38\r\n"))
}

fn values() -> Rule {
    let mut rule = rule("9110, 5.5", "a value is visible characters, spaces, tabs and obs-text");
    for value in [
        "y",
        "",
        "a\tb  c",
        "\"a\\\"b\"",
        "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
        "\u{80}\u{e9}\u{ff}",
        "caf\u{c3}\u{a9}",
        "a, b,, c,",
        "\u{a0}y\u{a0}",
        "\u{85}",
    ] {
        let fields = format!("X: {value}\r\n");
        rule = rule.forwards(format!("{value:?}"), get(&fields), get(&fields));
    }
    let all: String = ('\u{80}'..='\u{ff}').collect();
    let fields = format!("X: {all}\r\n");
    rule = rule.forwards("all obs-text", get(&fields), get(&fields));
    for control in (0..0x20).chain([0x7f]).map(char::from) {
        if matches!(control, '\t' | '\n' | '\r') {
            continue;
        }
        let fields = format!("X: a{control}b\r\n");
        rule = rule.refuses(400, format!("{control:?} in a value"), get(&fields));
    }
    rule.refuses(400, "NUL at the end", get("X: a\0\r\n"))
        .refuses(400, "NUL alone", get("X: \0\r\n"))
        .refuses(400, "LF in a value", get("X: a\nContent-Length: 38\r\n"))
        .refuses(400, "CR in a value", get("X: a\rContent-Length: 38\r\n"))
        .refuses(400, "CR at the end", get("X: a\r\r\n"))
        .refuses(400, "CR at the start", get("X: \ra\r\n"))
        .refuses(400, "LF in the last value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\n\r\n\r\n")
}

fn white_space() -> Rule {
    rule("9112, 5", "white space around a value is not of it")
        .forwards("none", get("X:y\r\n"), get("X: y\r\n"))
        .forwards("much", get("X:  \t y \t \r\n"), get("X: y\r\n"))
        .forwards("inside it stays", get("X: a \t b\r\n"), get("X: a \t b\r\n"))
        .forwards("nothing else", get("X: \t \r\n"), get("X: \r\n"))
        .forwards("no value at all", get("X:\r\n"), get("X: \r\n"))
}

fn folds() -> Rule {
    rule("9112, 5.2", "folded lines are refused")
        .refuses(400, "by a space", get("X: a\r\n b\r\n"))
        .refuses(400, "by a tab", get("X: a\r\n\tb\r\n"))
        .refuses(
            400,
            "an encoding in the fold",
            post("X: a\r\n Transfer-Encoding: chunked\r\n", ""),
        )
        .refuses(400, "the value in the fold", post("Transfer-Encoding:\r\n chunked\r\n", ""))
        .refuses(400, "of Host", "GET / HTTP/1.1\r\nHost: a\r\n .b\r\n\r\n")
        .refuses(400, "of a length", post("Content-Length: 1\r\n 0\r\n", "0123456789"))
        .refuses(400, "of nothing", get("X: a\r\n \r\n"))
        .refuses(400, "of the last line", get("X: a\r\n b: c\r\n"))
        .refuses(400, "in HTTP/1.0", "GET / HTTP/1.0\r\nX: a\r\n b\r\n\r\n")
}

fn order() -> Rule {
    let mut rule = rule("9110, 5.3", "order and repetition stay as they are");
    for fields in [
        "A: 1\r\nB: 2\r\nA: 3\r\n",
        "B: 1\r\nA: 1\r\n",
        "A: 1\r\na: 1\r\nA: 1\r\n",
        "Cookie: a=1\r\nCookie: b=2\r\n",
        "Accept: a\r\nAccept:  \r\nAccept: b, c\r\n",
        "Authorization: Basic x\r\nCookie: a=1; b=2\r\nContent-Type: a/b\r\nVia: 1.1 c\r\n",
        "Cache-Control: no-cache\r\nIf-None-Match: \"a\"\r\nRange: bytes=0-1\r\nDate: today\r\n",
        "Via: 1.0 x\r\nX-Forward: b\r\nMax-Forwards: 3\r\nPragma: y\r\nHTTP2: z\r\n",
    ] {
        let seen = get(&fields.replace("Accept:  \r\n", "Accept: \r\n"));
        rule = rule.forwards(format!("{fields:?}"), get(fields), seen);
    }
    rule
}

fn sizes() -> Rule {
    let fields = |count: usize| (0..count).map(|n| format!("X{n}: y\r\n")).collect::<String>();
    let long = |length: usize| format!("X: {}\r\n", "y".repeat(length));
    let room = 65_536 - GET.len() - "X: \r\n".len();
    rule("9110, 5.4", "fields that are too many or too large are 431")
        .forwards("a hundred with Host", get(&fields(99)), get(&fields(99)))
        .refuses(431, "one more", get(&fields(100)))
        .refuses(431, "many more", get(&fields(1000)))
        .forwards("one of 8 KiB", get(&long(8192)), get(&long(8192)))
        .forwards("64 KiB in all", get(&long(room)), get(&long(room)))
        .refuses(431, "one byte more", get(&long(room + 1)))
        .refuses(431, "100 KB", get(&long(100_000)))
        .refuses(431, "a long name", get(&format!("{}: y\r\n", "X".repeat(70_000))))
        .refuses(431, "no end in sight", GET.replace("\r\n\r\n", "\r\nX: ") + &"y".repeat(66_000))
}
