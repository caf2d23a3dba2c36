//! RFC 9110 and 9112 by the letter, as far as they bind an intermediary, and our own rules
//! where we are stricter. Each rule is named by its section, with the cases that hold the
//! proxy to it: `grep -rn '"9110, 7.6.1"'` in this folder tells what covers Connection.
//!
//! | file | rules about |
//! |---|---|
//! | `request_line` | methods, targets, versions, ends of lines |
//! | `host` | Host, and targets that beat it |
//! | `fields` | names, values, order, sizes |
//! | `lengths` | Content-Length and Transfer-Encoding of requests |
//! | `chunks` | chunked bodies of requests |
//! | `hops` | fields for one hop, and those that a proxy adds |
//! | `connections` | persistence, pipelining, half-close, Expect |
//! | `status_line`, `response_bodies` | heads and bodies of responses |
//! | `interim` | 1xx, early answers, what follows a response |
//! | `upgrades`, `trailers`, `limits` | what their names say |
//!
//! A case is judged by the bytes at both ends ([`theatre`]): the backend has got exactly
//! the requests that the client was entitled to send, in the eyes of nine careless readers
//! as well; the client has got exactly the answers; everything has ended within seconds;
//! and the next request of somebody else gets the answer that was meant for it.

mod answer;
mod ask;
mod case;
mod compare;
mod talk;
mod theatre;

mod chunks;
mod connections;
mod fields;
mod hops;
mod host;
mod interim;
mod lengths;
mod limits;
mod request_line;
mod response_bodies;
mod status_line;
mod trailers;
mod upgrades;

use std::collections::BTreeMap;

use case::{Play, Rule};

/// The rules of each topic.
fn topics() -> Vec<Rule> {
    let topics = [
        request_line::rules(),
        host::rules(),
        fields::rules(),
        lengths::rules(),
        chunks::rules(),
        hops::rules(),
        hops::rules_of_trusted_peers(),
        connections::rules(),
        status_line::rules(),
        response_bodies::rules(),
        interim::rules(),
        upgrades::rules(),
        trailers::rules(),
        limits::rules(),
    ];
    topics.into_iter().flatten().collect()
}

#[test]
fn every_rule_has_three_cases_at_least() {
    let mut sections: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for rule in topics() {
        let counts = sections.entry(rule.section).or_default();
        for case in &rule.cases {
            let column = match case.play {
                Play::Ask(_) => 0,
                Play::Answer(_) => 1,
                Play::Talk(_) => 2,
            };
            counts[column] += 1;
        }
    }
    let mut sums = [0; 3];
    println!("rule | requests | responses | conversations");
    for (section, counts) in &sections {
        println!("{section} | {} | {} | {}", counts[0], counts[1], counts[2]);
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
        assert!(counts.iter().sum::<usize>() >= 3, "{section}: {counts:?}");
    }
    println!("all | {} | {} | {}", sums[0], sums[1], sums[2]);
}
