//! `lb-bench gates`: instructions and system calls of a request, which noise hardly
//! touches, against the saved ones.
//!
//! Each figure is the difference of two runs of different lengths, so that start-up,
//! connecting and stopping cancel.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, ExitCode},
};

use lb_proto::v1 as pb;

use crate::{
    args::GatesArgs,
    baseline::{self, Figures, Verdict},
    counts, measure,
    ours::{Binary, Ours, Setup},
    peer,
};

/// Time for one load, also under valgrind on a slow machine.
const LOAD_MS: u32 = 20_000;

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Gate {
    Instructions,
    InstructionsManyBackends,
    InstructionsLimited,
    InstructionsLimitedByClient,
    InstructionsClose,
    CallsKeepAlive,
    CallsClose,
}

/// What every request must cost at most, whatever was saved.
#[derive(Clone, Copy, Debug)]
struct Budget(f64);

impl Gate {
    fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions_keep_alive",
            Self::InstructionsManyBackends => "instructions_keep_alive_many_backends",
            Self::InstructionsLimited => "instructions_keep_alive_limited",
            Self::InstructionsLimitedByClient => "instructions_keep_alive_limited_by_client",
            Self::InstructionsClose => "instructions_new_connection",
            Self::CallsKeepAlive => "system_calls_keep_alive",
            Self::CallsClose => "system_calls_new_connection",
        }
    }

    fn tool(self) -> &'static str {
        match self {
            Self::Instructions
            | Self::InstructionsManyBackends
            | Self::InstructionsLimited
            | Self::InstructionsLimitedByClient
            | Self::InstructionsClose => "valgrind",
            Self::CallsKeepAlive | Self::CallsClose => "strace",
        }
    }

    /// What requests are limited by, if they are.
    fn limit_key(self) -> Option<&'static str> {
        match self {
            Self::InstructionsLimited => Some("all"),
            Self::InstructionsLimitedByClient => Some("client_address"),
            _ => None,
        }
    }

    fn budget(self) -> Budget {
        match self {
            Self::Instructions | Self::InstructionsManyBackends => Budget(12_000.0),
            Self::InstructionsLimited | Self::InstructionsLimitedByClient => Budget(12_200.0),
            Self::InstructionsClose => Budget(18_000.0),
            Self::CallsKeepAlive => Budget(4.4),
            Self::CallsClose => Budget(10.0),
        }
    }

    /// Requests of the shorter and of the longer run; either one asks every backend at
    /// least once, which connects.
    fn requests(self, backends: u32) -> [u64; 2] {
        match self {
            Self::Instructions
            | Self::InstructionsLimited
            | Self::InstructionsLimitedByClient
            | Self::InstructionsClose => [1_000, 5_000],
            Self::InstructionsManyBackends => {
                [1_000, 5_000].map(|count| count + u64::from(backends))
            }
            Self::CallsKeepAlive => [2_000, 12_000],
            Self::CallsClose => [1_000, 5_000],
        }
    }

    fn load(self) -> &'static [&'static str] {
        match self {
            Self::Instructions | Self::InstructionsLimited | Self::InstructionsLimitedByClient => {
                &["--connections=8"]
            }
            // It takes a while until it is a backend's turn again.
            Self::InstructionsManyBackends => &["--connections=8", "--path=/kept"],
            Self::CallsKeepAlive => &["--connections=64"],
            Self::InstructionsClose => &["--connections=8", "--close"],
            Self::CallsClose => &["--connections=64", "--close"],
        }
    }
}

/// Counts, prints, and compares or saves.
pub(crate) async fn run(args: GatesArgs) -> Result<ExitCode, String> {
    let binary = Binary::find(args.proxy_binary.clone())?;
    let saved = baseline::read(&args.baseline)?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (_backends, backends) = peer::backends().await?;
    let mut gates = vec![
        Gate::Instructions,
        Gate::InstructionsLimited,
        Gate::InstructionsLimitedByClient,
        Gate::InstructionsClose,
        Gate::CallsKeepAlive,
        Gate::CallsClose,
    ];
    if args.backends.is_some() {
        gates.insert(1, Gate::InstructionsManyBackends);
    }
    let mut measured = Figures::new();
    let mut worse = Vec::new();
    for gate in gates {
        if !installed(gate.tool()) {
            println!("{}: skipped, {} is not installed", gate.name(), gate.tool());
            continue;
        }
        let many = args.backends.filter(|_| gate == Gate::InstructionsManyBackends);
        let further = many.map_or(0, |all| all - 3);
        let figure = count(gate, further, &binary, &backends, directory.path()).await?;
        let verdict = baseline::judge(figure, saved.get(gate.name()).copied());
        println!("{}", line(gate, figure, verdict));
        if let Verdict::Worse(change) = verdict {
            worse.push(format!("{} is {:.1} % above the saved one", gate.name(), change * 100.0));
        }
        measured.insert(gate.name().to_owned(), figure);
    }
    if args.save {
        baseline::save(&args.baseline, &measured)?;
        println!("saved in {}", args.baseline.display());
    } else if !worse.is_empty() {
        let reasons = worse.join("; ");
        return Err(format!(
            "{reasons}. If that is what the change is worth, accept it: lb-bench gates --save"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A limit over the fleet that counts all requests by this key, and refuses none.
fn limit_by(key: &str) -> pb::Limit {
    pb::Limit {
        name: "wide".to_owned(),
        key: key.to_owned(),
        rate: "10000000/s".to_owned(),
        ..pb::Limit::default()
    }
}

fn installed(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn line(gate: Gate, figure: f64, verdict: Verdict) -> String {
    let Budget(most) = gate.budget();
    let budget = if figure <= most { "within" } else { "MISSES" };
    let against = match verdict {
        Verdict::New => "nothing saved".to_owned(),
        Verdict::Kept(change) => format!("{:+.1} % against the saved one", change * 100.0),
        Verdict::Worse(change) => format!("{:+.1} %: WORSE THAN SAVED", change * 100.0),
    };
    let digits = if most > 100.0 { 0 } else { 2 };
    format!("{}: {figure:.digits$}, {against}, {budget} the budget of {most}", gate.name())
}

/// The difference of two runs, a request.
async fn count(
    gate: Gate,
    further_backends: u32,
    binary: &Binary,
    backends: &[SocketAddr],
    directory: &Path,
) -> Result<f64, String> {
    let output = directory.join("counts");
    let path = output.to_string_lossy();
    let under = match gate.tool() {
        "valgrind" => vec![
            "valgrind".to_owned(),
            "--tool=callgrind".to_owned(),
            format!("--callgrind-out-file={path}"),
        ],
        _ => ["strace", "-f", "-c", "-o", &path].map(str::to_owned).to_vec(),
    };
    let mut texts = Vec::new();
    for requests in gate.requests(further_backends) {
        let limit = gate.limit_key().map(limit_by);
        let setup =
            Setup { workers: 1, under: &under, further_backends, limit, ..Setup::default() };
        let ours = Ours::start(binary, backends, &setup).await?;
        let exactly = format!("--requests={requests}");
        let args = [gate.load(), &[&exactly]].concat();
        let outcome = measure::run_load(ours.address(), &args, LOAD_MS).await?;
        if outcome["requests"] != requests {
            let (name, log) = (gate.name(), ours.log());
            return Err(format!("{name}: not all requests were answered: {outcome}\n{log}"));
        }
        ours.stop().await?;
        texts.push(fs::read_to_string(&output).map_err(|error| format!("{path}: {error}"))?);
    }
    let [fewer, more] = gate.requests(further_backends);
    let requests = more - fewer;
    if gate.tool() == "valgrind" {
        let total =
            |text: &str| counts::callgrind_total(text).ok_or_else(|| format!("no total in {path}"));
        let (first, second) = (total(&texts[0])?, total(&texts[1])?);
        return Ok((second as f64 - first as f64) / requests as f64);
    }
    let (first, second) = (counts::strace_calls(&texts[0]), counts::strace_calls(&texts[1]));
    let calls = counts::calls_per_request(&first, &second, requests);
    let list: Vec<String> = calls.iter().map(|(name, each)| format!("{name} {each:.2}")).collect();
    println!("  {}", list.join(", "));
    Ok(calls.iter().map(|(_, each)| each).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_says_what_it_found_and_against_what() {
        let text = line(Gate::CallsKeepAlive, 4.41, Verdict::Kept(0.01));
        assert_eq!(
            text,
            "system_calls_keep_alive: 4.41, +1.0 % against the saved one, MISSES the budget of 4.4"
        );
        let text = line(Gate::Instructions, 11_000.4, Verdict::New);
        assert!(text.contains("11000, nothing saved, within the budget of 12000"), "{text}");
    }
}
