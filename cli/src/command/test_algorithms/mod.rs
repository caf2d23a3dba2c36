//! `test-algorithms`: sends requests under each algorithm and compares who answered with
//! what it promises.

mod existing;
mod judge;
mod visitor;

use std::{net::SocketAddr, process::ExitCode};

use lb_core::model::Algorithm;
use lb_proto::v1::{self as pb, object::Object as Wire};
use serde_json::{Value, json};

use self::{
    judge::{Finding, Member},
    visitor::Visitor,
};
use super::{runtime, until_interrupted};
use crate::{
    args::{Global, TestAlgorithms},
    dev::Trial,
    exit::{Exit, Failure},
    output::{Cell, Screen, Table, note},
    signal::StopSignals,
};

/// Clients at the same time for `least_connections`, for each backend.
const CROWD_PER_BACKEND: usize = 4;
/// How often a rough share is looked at: with backends that answer at once, requests may hardly
/// overlap on a busy machine, and chance decides. What does not balance fails each time.
const ROUGH_TRIES: u32 = 4;
/// Clients of `ip_hash`, as their X-Forwarded-For says.
const CLIENTS: u8 = 24;
/// Requests of each of them.
const VISITS: usize = 5;

/// Runs the test; exit code 1 when a promise was not kept.
pub(super) fn run(args: &TestAlgorithms, global: &Global) -> Result<ExitCode, Failure> {
    let screen = Screen::new(global.output);
    if let Some(url) = &args.url {
        let found = until_interrupted(async {
            let finding = existing::examine(url, args.requests, global).await?;
            tell(&[finding], screen)
        });
        return runtime()?.block_on(found).map(|()| ExitCode::SUCCESS);
    }
    runtime()?.block_on(async {
        let mut signals = StopSignals::catch().map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot catch signals: {error}"))
        })?;
        note("starting a control plane, a proxy and what it needs ...");
        let trial = tokio::select! {
            trial = Trial::start(&args.backends) => trial?,
            () = signals.next() => return Err(Failure::new(Exit::Interrupted, "interrupted")),
        };
        let found = tokio::select! {
            found = examine(&trial, args.requests) => found,
            () = signals.next() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        };
        trial.stop().await;
        tell(&found?, screen).map(|()| ExitCode::SUCCESS)
    })
}

fn tell(findings: &[Finding], screen: Screen) -> Result<(), Failure> {
    screen.answer(&to_json(findings), || names(findings), || page(findings, screen))?;
    let kept = findings.iter().all(|finding| finding.broken.is_empty());
    // The answer says it all.
    if kept { Ok(()) } else { Err(Failure::new(Exit::Failed, "")) }
}

async fn examine(trial: &Trial, requests: u32) -> Result<Vec<Finding>, Failure> {
    let at = trial.traffic;
    let members = members(trial).await?;
    let weights: u32 = members.iter().map(|member| member.weight).sum();
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let mut findings = Vec::new();
    for algorithm in Algorithm::NAMES {
        choose(trial, algorithm).await?;
        findings.push(match algorithm {
            "round_robin" => {
                let answers = in_turn(at, judge::rounded(requests, count)).await?;
                let promise = "every backend the same number, exactly";
                judge::exact(algorithm, promise, &members, &answers, |_| 1)
            }
            "weighted_round_robin" => {
                let answers = in_turn(at, judge::rounded(requests, weights)).await?;
                let promise = "in proportion to the weights, exactly";
                judge::exact(algorithm, promise, &members, &answers, |member| member.weight)
            }
            "ip_hash" => {
                let promise = "each client its backend, and not all the same";
                judge::sticky(algorithm, promise, &members, &by_client(at).await?)
            }
            _ => {
                let crowd = members.len() * CROWD_PER_BACKEND;
                // A rough share needs enough requests to be one.
                let requests = judge::rounded(requests.max(weights * 40), weights);
                let promise = "in proportion to the weights, give or take half";
                let mut tries = ROUGH_TRIES;
                loop {
                    let answers = at_once(at, requests, crowd).await?;
                    let finding = judge::rough(algorithm, promise, &members, &answers);
                    tries -= 1;
                    if finding.broken.is_empty() || tries == 0 {
                        break finding;
                    }
                }
            }
        });
    }
    Ok(findings)
}

/// Asks every backend for its name by itself, so that answers can be told apart.
async fn members(trial: &Trial) -> Result<Vec<Member>, Failure> {
    let mut members: Vec<Member> = Vec::new();
    for backend in trial.backends().await? {
        let address = backend
            .resolved_addresses
            .first()
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!(
                    "{} ({}) has no address yet; see whether its name resolves",
                    backend.id, backend.address
                ),
            )
        })?;
        let server = Visitor::new(address).ask(None).await?;
        if let Some(twin) = members.iter().find(|member| member.server == server) {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "two backends call themselves {:?} (server_info.id), so their answers cannot \
                     be told apart; test with others",
                    twin.server
                ),
            ));
        }
        members.push(Member { server, weight: backend.weight });
    }
    Ok(members)
}

async fn choose(trial: &Trial, algorithm: &str) -> Result<(), Failure> {
    let client = &trial.session.client;
    let request = pb::GetRequest { kind: "pool".to_owned(), name: "default".to_owned() };
    let held = client.call(client.registry().get(request)).await?.object;
    let Some(Wire::Pool(mut pool)) = held.and_then(|object| object.object) else {
        return Err(Failure::new(Exit::Failed, "the control plane has no pool default"));
    };
    algorithm.clone_into(&mut pool.algorithm);
    let options = pb::WriteOptions { wait: Some(pb::Wait::default()), ..Default::default() };
    let object = pb::Object { object: Some(Wire::Pool(pool)), revision: 0 };
    let request =
        pb::PutRequest { object: Some(object), options: Some(options), ..Default::default() };
    let written = client.call(client.registry().put(request)).await?;
    if written.progress.is_some_and(|progress| progress.applied < progress.proxies) {
        return Err(Failure::new(
            Exit::TimedOut,
            format!("the proxy has not applied {algorithm} in time; try again on a calmer machine"),
        ));
    }
    Ok(())
}

/// One after the other, on one connection.
async fn in_turn(at: SocketAddr, requests: usize) -> Result<Vec<String>, Failure> {
    let mut visitor = Visitor::new(at);
    let mut answers = Vec::with_capacity(requests);
    for _ in 0..requests {
        answers.push(visitor.ask(None).await?);
    }
    Ok(answers)
}

async fn by_client(at: SocketAddr) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let mut visitor = Visitor::new(at);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = format!("192.168.1.{}", 100 + number);
        let mut answers = Vec::with_capacity(VISITS);
        for _ in 0..VISITS {
            answers.push(visitor.ask(Some(&client)).await?);
        }
        clients.push((client, answers));
    }
    Ok(clients)
}

/// With so many requests under way at any time.
async fn at_once(at: SocketAddr, requests: usize, crowd: usize) -> Result<Vec<String>, Failure> {
    let shares = (0..crowd).map(|index| requests / crowd + usize::from(index < requests % crowd));
    let visits: Vec<_> = shares.map(|share| tokio::spawn(in_turn(at, share))).collect();
    let mut answers = Vec::with_capacity(requests);
    for visit in visits {
        answers.extend(visit.await.map_err(|error| {
            Failure::new(Exit::Failed, format!("a client of the test failed: {error}"))
        })??);
    }
    Ok(answers)
}

fn page(findings: &[Finding], screen: Screen) -> String {
    let mut text = String::new();
    for finding in findings {
        let requests: usize = finding.rows.iter().map(|row| row.answers).sum();
        text += &format!("{}: {} ({requests} requests)\n", finding.algorithm, finding.promise);
        let mut table = Table::new(&["SERVER", "ANSWERS", "EXPECTED"]).indented(2);
        for row in &finding.rows {
            let expected = row.expected.map_or_else(|| "-".to_owned(), |n| n.to_string());
            table.row([row.server.as_str().into(), row.answers.into(), Cell::from(expected)]);
        }
        text += &screen.render(&table);
        text += &match finding.broken.as_slice() {
            [] => "  kept\n\n".to_owned(),
            broken => format!("  NOT KEPT: {}\n\n", broken.join("; ")),
        };
    }
    text
}

fn names(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("algorithm/{}", finding.algorithm)).collect()
}

fn to_json(findings: &[Finding]) -> Value {
    let row = |row: &judge::Row| json!({"server": row.server, "answers": row.answers, "expected": row.expected});
    let finding = |finding: &Finding| {
        json!({
            "algorithm": finding.algorithm,
            "promise": finding.promise,
            "kept": finding.broken.is_empty(),
            "broken": finding.broken,
            "servers": finding.rows.iter().map(row).collect::<Vec<_>>(),
        })
    };
    findings.iter().map(finding).collect()
}
