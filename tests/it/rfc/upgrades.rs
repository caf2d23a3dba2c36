//! Upgrades: the backend's 101, and nothing else, makes a tunnel of a connection.

use super::{
    case::{
        GET, Rule,
        Step::{
            self, BackendCloses, BackendFinishes, BackendHears, BackendHearsEnd, BackendHearsRaw,
            BackendSays, ClientFinishes, ClientHears, ClientHearsEnd, ClientHearsRaw,
            ClientHearsRefusal, ClientSays, Silence,
        },
        get, ok, rule,
    },
    theatre::hold,
};

#[tokio::test]
async fn only_a_101_makes_a_tunnel() {
    hold(rules()).await;
}

pub(super) fn rules() -> Vec<Rule> {
    vec![forwarded(), tunnels(), other_answers(), h2c(), wrong_answers()]
}

const FIELDS: &str = "Connection: upgrade\r\nUpgrade: x\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn switch(fields: &str) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n")
}

/// The request with these fields reaches the backend with those, and is an ordinary one
/// in the end.
fn asked(fields: &str, seen: &str) -> Vec<Step> {
    vec![
        ClientSays(get(fields)),
        BackendHears(get(seen)),
        BackendSays(OK.to_owned()),
        ClientHears(OK.to_owned()),
        ClientSays(GET.to_owned()),
        BackendHears(GET.to_owned()),
        BackendSays(OK.to_owned()),
        ClientHears(OK.to_owned()),
        ClientFinishes,
        ClientHearsEnd,
    ]
}

/// A tunnel is made, and then this happens.
fn tunnel(then: Vec<Step>) -> Vec<Step> {
    let mut steps = vec![
        ClientSays(get(FIELDS)),
        BackendHears(get(FIELDS)),
        BackendSays(switch(FIELDS)),
        ClientHears(switch(FIELDS)),
    ];
    steps.extend(then);
    steps
}

fn forwarded() -> Rule {
    rule("9110, 7.8", "Upgrade goes on when Connection names it")
        .talks("as it should be", asked(FIELDS, FIELDS))
        .talks(
            "in other cases, among others",
            asked(
                "A: b\r\nUPGRADE: WebSocket\r\nConnection: keep-alive, X, UpGrade\r\nX: y\r\n",
                "A: b\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n",
            ),
        )
        .talks(
            "with what belongs to it",
            asked(
                &format!("{FIELDS}Sec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n"),
                &format!("{FIELDS}Sec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n"),
            ),
        )
        .talks("not named", asked("Upgrade: x\r\n", ""))
        .talks("empty", asked("Connection: upgrade\r\nUpgrade:\r\n", ""))
}

fn tunnels() -> Rule {
    rule("9110, 15.2.2", "behind a 101 bytes go both ways as they are")
        .talks(
            "in turn",
            tunnel(vec![
                ClientSays("ping\0\r\n\r\n".to_owned()),
                BackendHearsRaw("ping\0\r\n\r\n".to_owned()),
                BackendSays("\u{ff}pong".to_owned()),
                ClientHearsRaw("\u{ff}pong".to_owned()),
                ClientFinishes,
                BackendHearsEnd,
                BackendSays("bye".to_owned()),
                ClientHearsRaw("bye".to_owned()),
                BackendFinishes,
                ClientHearsEnd,
            ]),
        )
        .talks(
            "what looks like HTTP is none",
            tunnel(vec![
                ClientSays(GET.to_owned()),
                BackendHearsRaw(GET.to_owned()),
                BackendSays(OK.to_owned()),
                ClientHearsRaw(OK.to_owned()),
                BackendCloses,
                ClientHearsEnd,
            ]),
        )
        .talks(
            "the backend's first bytes come with the 101",
            vec![
                ClientSays(get(FIELDS)),
                BackendHears(get(FIELDS)),
                BackendSays(switch(FIELDS) + "first"),
                ClientHears(switch(FIELDS)),
                ClientHearsRaw("first".to_owned()),
                BackendCloses,
                ClientHearsEnd,
            ],
        )
        .talks(
            "the client's early bytes wait for it",
            vec![
                ClientSays(get(FIELDS) + "early"),
                BackendHears(get(FIELDS)),
                ClientSays(GET.to_owned()),
                Silence,
                BackendSays(switch(FIELDS)),
                ClientHears(switch(FIELDS)),
                BackendHearsRaw(format!("early{GET}")),
                BackendCloses,
                ClientHearsEnd,
            ],
        )
        .talks(
            "behind a 103",
            vec![
                ClientSays(get(FIELDS)),
                BackendHears(get(FIELDS)),
                BackendSays("HTTP/1.1 103 x\r\nA: b\r\n\r\n".to_owned() + &switch(FIELDS)),
                ClientHears("HTTP/1.1 103 x\r\nA: b\r\n\r\n".to_owned() + &switch(FIELDS)),
                BackendSays("raw".to_owned()),
                ClientHearsRaw("raw".to_owned()),
                BackendCloses,
                ClientHearsEnd,
            ],
        )
        .talks(
            "its other fields go on, those for one hop do not",
            vec![
                ClientSays(get(FIELDS)),
                BackendHears(get(FIELDS)),
                BackendSays(switch(
                    "Upgrade: x\r\nConnection: Upgrade, A\r\nA: 1\r\nB: 2\r\nKeep-Alive: 5\r\n",
                )),
                ClientHears(switch(&format!("B: 2\r\n{FIELDS}"))),
                BackendCloses,
                ClientHearsEnd,
            ],
        )
}

fn other_answers() -> Rule {
    let denied = "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno";
    rule("9110, 7.8", "any other answer is an ordinary one")
        .talks(
            "a request behind it is one",
            vec![
                ClientSays(get(FIELDS) + GET),
                BackendHears(get(FIELDS)),
                Silence,
                BackendSays(denied.to_owned()),
                ClientHears(denied.to_owned()),
                BackendHears(GET.to_owned()),
                BackendSays(OK.to_owned()),
                ClientHears(OK.to_owned()),
                ClientFinishes,
                ClientHearsEnd,
            ],
        )
        .talks(
            "what is no request behind it is refused",
            vec![
                ClientSays(get(FIELDS) + "\0\x01\x02\r\n\r\n"),
                BackendHears(get(FIELDS)),
                BackendSays(denied.to_owned()),
                ClientHears(denied.to_owned()),
                ClientHearsRefusal(400),
                ClientHearsEnd,
                Silence,
            ],
        )
        .talks(
            "a 426 tells what it wants",
            vec![
                ClientSays(GET.to_owned()),
                BackendHears(GET.to_owned()),
                BackendSays(
                    "HTTP/1.1 426 x\r\nUpgrade: y\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n"
                        .to_owned(),
                ),
                ClientHears(
                    "HTTP/1.1 426 x\r\nConnection: upgrade\r\nUpgrade: y\r\nContent-Length: 0\r\n\r\n"
                        .to_owned(),
                ),
                ClientFinishes,
                ClientHearsEnd,
            ],
        )
}

fn h2c() -> Rule {
    let settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    rule("9113, 3.1", "what may end as h2c is not forwarded: nobody here could speak it")
        .talks(
            "as it was once meant",
            asked(
                &format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{settings}"),
                "",
            ),
        )
        .talks("settings that nobody names", asked(settings, ""))
        .talks("in capitals", asked("Connection: upgrade\r\nUpgrade: H2C\r\n", ""))
        .talks(
            "among others",
            asked(&format!("Connection: upgrade\r\nUpgrade: h2c, x\r\n{settings}"), FIELDS),
        )
        .talks(
            "in a second field",
            asked("Connection: upgrade\r\nUpgrade: x\r\nUpgrade: h2c\r\n", ""),
        )
}

fn wrong_answers() -> Rule {
    let talk = |answer: String| {
        vec![
            ClientSays(get(FIELDS)),
            BackendHears(get(FIELDS)),
            BackendSays(answer),
            ClientHearsRefusal(502),
            BackendHearsEnd,
            ClientFinishes,
            ClientHearsEnd,
        ]
    };
    rule("9110, 15.2.2", "a 101 that does not say to what, or to what nobody asked for, is a 502")
        .talks("no Upgrade", talk(switch("Connection: upgrade\r\n")))
        .talks("another protocol", talk(switch("Connection: upgrade\r\nUpgrade: y\r\n")))
        .talks("in HTTP/1.0", talk(switch(FIELDS).replace("HTTP/1.1", "HTTP/1.0")))
        .talks(
            "not asked",
            vec![
                ClientSays(GET.to_owned()),
                BackendHears(GET.to_owned()),
                BackendSays(switch(FIELDS) + &ok("Content-Length: 0\r\n", "")),
                ClientHearsRefusal(502),
                BackendHearsEnd,
                ClientFinishes,
                ClientHearsEnd,
            ],
        )
}
