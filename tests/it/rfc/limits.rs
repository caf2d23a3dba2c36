//! The limits of a listener, at their exact bounds.

use lb_tests::cluster::Cluster;

use super::{
    case::{
        GET, Rule,
        Step::{
            BackendHearsBreak, BackendHearsHead, BackendHearsRaw, ClientHearsEnd,
            ClientHearsRefusal, ClientSays, Silence,
        },
        get, post, rule,
    },
    theatre::hold_with,
};

#[tokio::test]
async fn each_limit_has_its_status_and_its_exact_bound() {
    hold_with(rules(), set_limits).await;
}

async fn set_limits(cluster: &Cluster) {
    let change = |listener: &mut lb_proto::v1::Listener| {
        listener.max_request_line_bytes = LINE;
        listener.max_head_bytes = HEAD;
        listener.max_fields = FIELDS;
        listener.max_trailer_bytes = TRAILERS;
        listener.max_chunk_extension_bytes = EXTENSION;
        listener.max_body_bytes = u64::from(BODY);
    };
    cluster.api.change_listener(change).await;
}

const LINE: u32 = 100;
const HEAD: u32 = 400;
const FIELDS: u32 = 5;
const TRAILERS: u32 = 40;
const EXTENSION: u32 = 8;
const BODY: u32 = 10;

pub(super) fn rules() -> Vec<Rule> {
    vec![lines(), heads(), counts(), bodies(), late_bodies(), chunks()]
}

fn size(limit: u32) -> usize {
    limit as usize
}

fn lines() -> Rule {
    // Whether the end of the line counts is left open.
    let line = |length: usize| {
        let target = "x".repeat(length - "GET / HTTP/1.1".len());
        format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n")
    };
    rule("ours, 7", "a request line that is too long is 414")
        .forwards("just short enough", line(size(LINE) - 2), line(size(LINE) - 2))
        .refuses(414, "too long", line(size(LINE) + 1))
        .refuses(414, "no end in sight", "GET /".to_owned() + &"x".repeat(size(LINE)))
}

fn heads() -> Rule {
    let head = |length: usize| get(&format!("X: {}\r\n", "y".repeat(length - GET.len() - 5)));
    rule("ours, 7", "a head that is too long is 431")
        .forwards("just short enough", head(size(HEAD)), head(size(HEAD)))
        .refuses(431, "one byte more", head(size(HEAD) + 1))
        .refuses(
            431,
            "no end in sight",
            "GET / HTTP/1.1\r\nX: ".to_owned() + &"y".repeat(size(HEAD)),
        )
}

fn counts() -> Rule {
    let fields =
        |count: usize| get(&(1..count).map(|n| format!("X{n}: y\r\n")).collect::<String>());
    rule("ours, 7", "fields that are too many are 431")
        .forwards("just few enough", fields(size(FIELDS)), fields(size(FIELDS)))
        .refuses(431, "one more", fields(size(FIELDS) + 1))
        .refuses(431, "many more", fields(size(FIELDS) + 20))
}

fn bodies() -> Rule {
    let with = |length: usize| post(&format!("Content-Length: {length}\r\n"), &"x".repeat(length));
    let chunked = |length: usize| {
        let data = "x".repeat(length);
        post("Transfer-Encoding: chunked\r\n", &format!("{length:x}\r\n{data}\r\n0\r\n\r\n"))
    };
    rule("ours, 7", "a body that is too long is 413, and told so before it is read")
        .forwards("just short enough", with(size(BODY)), with(size(BODY)))
        .refuses(413, "one byte more", with(size(BODY) + 1))
        .refuses(413, "none of it is there", post("Content-Length: 11\r\n", ""))
        .refuses(413, "2^63 - 1", post("Content-Length: 9223372036854775807\r\n", ""))
        .refuses(
            413,
            "nobody is told to send it",
            post("Expect: 100-continue\r\nContent-Length: 11\r\n", ""),
        )
        .forwards("chunks, just short enough", chunked(size(BODY)), chunked(size(BODY)))
        .refuses_late(413, "chunks, one byte more", chunked(size(BODY) + 1))
        .refuses_late(
            413,
            "many chunks",
            post("Transfer-Encoding: chunked\r\n", &("1\r\nx\r\n".repeat(11) + "0\r\n\r\n")),
        )
        .refuses_late(
            413,
            "a large chunk that is announced",
            post("Transfer-Encoding: chunked\r\n", "ffffffff\r\nx"),
        )
}

fn late_bodies() -> Rule {
    let fields = "Transfer-Encoding: chunked\r\n";
    rule("ours, 7", "chunks beyond the limit are aborted")
        .talks(
            "when they come",
            vec![
                ClientSays(post(fields, "")),
                BackendHearsHead(post(fields, "")),
                ClientSays("8\r\n12345678\r\n".to_owned()),
                BackendHearsRaw("8\r\n12345678\r\n".to_owned()),
                ClientSays("8\r\n12345678\r\n0\r\n\r\n".to_owned()),
                ClientHearsRefusal(413),
                ClientHearsEnd,
                BackendHearsBreak,
            ],
        )
        .talks(
            "other requests are not",
            vec![
                ClientSays(post("Content-Length: 11\r\n", "")),
                ClientHearsRefusal(413),
                ClientHearsEnd,
                Silence,
            ],
        )
}

fn chunks() -> Rule {
    let chunked = |extension: &str, trailers: &str| {
        post(
            "Transfer-Encoding: chunked\r\n",
            &format!("2{extension}\r\nok\r\n0\r\n{trailers}\r\n"),
        )
    };
    let trailer = |length: usize| format!("X: {}\r\n", "y".repeat(length));
    rule("ours, 7", "extensions beyond the limit are 400, trailers 431")
        .forwards("an extension that is short enough", chunked(";a=b", ""), chunked("", ""))
        .breaks_off("one that is not", chunked(";a=4567890", ""))
        .forwards(
            "trailers that are short enough",
            chunked("", &trailer(30)),
            chunked("", &trailer(30)),
        )
        .refuses_late(431, "a trailer that is not", chunked("", &trailer(size(TRAILERS) + 1)))
        .refuses_late(431, "many of them", chunked("", &trailer(1).repeat(20)))
}
