//! The other proxies, with configurations that ask of them what ours does: round robin
//! over three backends, connections to them kept, two workers, no access log.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
    time::Duration,
};

use lb_tests::{
    client::try_get,
    process::{Descendant, Process, Program, children_of},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::args::Contender;

/// Until it answers its first request.
const START_MAX: Duration = Duration::from_secs(15);

/// One of our own programs or another proxy; killed with all its workers when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    process: Option<Process>,
    address: SocketAddr,
}

/// What an installed program calls itself.
pub(crate) fn version(contender: Contender, envoy: &Path) -> Option<String> {
    let (program, argument) = match contender {
        Contender::Nginx => (Path::new("nginx"), "-v"),
        Contender::Haproxy => (Path::new("haproxy"), "-v"),
        Contender::Envoy => (envoy, "--version"),
        _ => return None,
    };
    let output = Command::new(program).arg(argument).output().ok()?;
    // nginx tells it as an error, Envoy after an empty line.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let word = text.split([' ', '/', '\n']).find(|word| {
        word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit())
    })?;
    Some(word.to_owned())
}

/// Starts the backends; where they listen.
pub(crate) async fn backends() -> Result<(Process, Vec<SocketAddr>), String> {
    let process = this_program()?.start("backends", &["backend".to_owned()]);
    let listening = process.listening().await;
    let addresses = ["b1", "b2", "b3"].map(|name| listening.address(name));
    Ok((process, addresses.to_vec()))
}

/// This very program, to be run with a hidden subcommand.
pub(crate) fn this_program() -> Result<Program, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(Program::at(path.to_str().ok_or("this program's path is not UTF-8")?))
}

impl Peer {
    /// Starts the byte pump.
    pub(crate) async fn byte_pump(backends: &[SocketAddr]) -> Result<Self, String> {
        let list: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
        let args = ["byte-pump".to_owned(), format!("--backends={}", list.join(","))];
        let process = this_program()?.start("byte pump", &args);
        let address = process.listening().await.address("pump");
        Ok(Self { process: Some(process), address })
    }

    /// Starts another proxy and waits until it answers.
    pub(crate) async fn start(
        contender: Contender,
        envoy: &Path,
        directory: &Path,
        backends: &[SocketAddr],
    ) -> Result<Self, String> {
        let address = free_address()?;
        let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (template, name, command) = match contender {
            Contender::Nginx => {
                let (path, errors) = (file("nginx.conf"), file("nginx.log"));
                let command = ["nginx", "-c", &path, "-p", &file(""), "-e", &errors];
                (
                    include_str!("peers/nginx.conf"),
                    "nginx.conf",
                    command.map(str::to_owned).to_vec(),
                )
            }
            Contender::Haproxy => {
                let command = ["haproxy", "-db", "-f", &file("haproxy.cfg")];
                (
                    include_str!("peers/haproxy.cfg"),
                    "haproxy.cfg",
                    command.map(str::to_owned).to_vec(),
                )
            }
            Contender::Envoy => {
                let (program, path) = (envoy.to_string_lossy(), file("envoy.yaml"));
                let command = [&program, "-c", &path, "--concurrency", "2", "--log-level", "error"];
                let mut command = command.map(str::to_owned).to_vec();
                command.push("--disable-hot-restart".to_owned());
                (include_str!("peers/envoy.yaml"), "envoy.yaml", command)
            }
            _ => return Err(format!("{contender:?} has no configuration")),
        };
        let text = filled(template, directory, address, backends);
        fs::write(directory.join(name), text).map_err(|error| error.to_string())?;
        let args: Vec<String> =
            ["bound".to_owned(), "--".to_owned()].into_iter().chain(command).collect();
        let process = this_program()?.start(name, &args);
        let peer = Self { process: Some(process), address };
        peer.ready().await?;
        Ok(peer)
    }

    /// Where it takes traffic.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The processes that do the work: workers where there are any.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let workers: Vec<u32> = self.workers().iter().map(|worker| worker.id).collect();
        if workers.is_empty() { self.process.iter().map(Process::id).collect() } else { workers }
    }

    fn workers(&self) -> Vec<Descendant> {
        self.process.iter().flat_map(|process| children_of(process.id())).collect()
    }

    async fn ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let why = match try_get(self.address, "/").await {
                Ok(response) if response.status == 200 => break,
                Ok(response) => format!("{}", response.status),
                Err(why) => why,
            };
            let process = self.process.as_ref().ok_or("it was not started")?;
            if let Some(code) = process.exit_code() {
                return Err(format!("ended with {code}: {}", process.stderr()));
            }
            if Instant::now() >= deadline {
                return Err(format!("not ready within {START_MAX:?}: {why}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The main process first: it would replace its workers.
        let workers = self.workers();
        self.process = None;
        for worker in workers.iter().filter(|worker| worker.is_alive()) {
            if let Some(pid) = i32::try_from(worker.id).ok().and_then(Pid::from_raw) {
                // Gone already is as good.
                kill_process(pid, Signal::KILL).ok();
            }
        }
    }
}

fn filled(template: &str, directory: &Path, listen: SocketAddr, backends: &[SocketAddr]) -> String {
    let mut text = template
        .replace("{dir}", &directory.to_string_lossy())
        .replace("{listen}", &listen.to_string())
        .replace("{host}", &listen.ip().to_string())
        .replace("{port}", &listen.port().to_string());
    for (number, backend) in (1..).zip(backends) {
        text = text
            .replace(&format!("{{backend{number}}}"), &backend.to_string())
            .replace(&format!("{{backend{number}_port}}"), &backend.port().to_string());
    }
    text
}

/// A port that was free a moment ago: not all of the others take one that is bound.
fn free_address() -> Result<SocketAddr, String> {
    let found = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    found.map_err(|error| format!("no free port: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_every_configuration_is_filled() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 81));
        let backends = [address; 3];
        for template in [
            include_str!("peers/nginx.conf"),
            include_str!("peers/haproxy.cfg"),
            include_str!("peers/envoy.yaml"),
        ] {
            let text = filled(template, Path::new("/dir"), address, &backends);
            for name in ["{dir}", "{listen}", "{host}", "{port}", "{backend"] {
                assert!(!text.contains(name), "{name} in {text}");
            }
        }
    }
}
