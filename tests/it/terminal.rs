//! `lbctl top` in a terminal: what is seen of a control plane that goes and comes, and that the
//! terminal is given back however it ends.

use std::process::{Command, Output};

use lb_tests::{cluster::Cluster, eventually::eventually};

use crate::program;

/// A terminal that a script can look at, in a tmux of its own.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Opens one with a shell; nothing, and a word about it, where there is no tmux.
    fn open(name: &str) -> Option<Self> {
        let terminal = Self { socket: format!("lb-test-{name}-{}", std::process::id()) };
        let shell = "env -i PATH=/usr/bin:/bin TERM=screen PS1='ready>' bash --norc --noprofile";
        let open = ["-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "30", shell];
        match terminal.tmux(&open) {
            Some(output) => {
                assert!(output.status.success(), "{output:?}");
                Some(terminal)
            }
            None => {
                eprintln!("there is no tmux here, so lbctl top is not tried in a terminal");
                None
            }
        }
    }

    fn tmux(&self, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket]).args(arguments).output().ok()
    }

    fn press(&self, keys: &[&str]) {
        let output = self.tmux(&[&["send-keys"], keys].concat()).unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn shows(&self, text: &str) {
        eventually(&format!("the terminal shows {text}"), async || {
            let screen = self.screen();
            if screen.contains(text) { Ok(()) } else { Err(screen) }
        })
        .await;
    }

    /// Types a command line; what it prints follows the echo.
    fn run(&self, line: &str) {
        self.press(&["-l", line]);
        self.press(&["Enter"]);
    }

    /// Whether what is typed is shown, line by line, on the screen of the shell.
    async fn is_given_back(&self, code: u8) {
        // Until then what is typed is read by whoever ends.
        self.shows("ready>").await;
        self.run("echo \"code=$? $(stty -a | grep -ow -e '-\\?icanon' -e '-\\?echo' | xargs)\"");
        self.shows(&format!("code={code} icanon echo")).await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[tokio::test]
async fn top_shows_a_control_plane_that_goes_and_comes_and_gives_the_terminal_back() {
    let Some(terminal) = Terminal::open("top") else { return };
    let mut cluster = Cluster::start(program(), 1).await;
    let binary = env!("CARGO_BIN_EXE_lbctl-under-test");
    let server = format!("http://{}", cluster.grpc());
    terminal.shows("ready>").await;
    terminal.run(&format!("lbctl() {{ '{binary}' --server {server} \"$@\"; }}"));
    terminal.run("lbctl top --interval 200ms");
    terminal.shows("1/1 proxies in sync").await;
    cluster.kill_control_plane().await;
    terminal.shows("CONTROL PLANE AWAY").await;
    terminal.shows("1/1 proxies in sync").await;
    cluster.start_control_plane().await;
    eventually("it is seen again", async || {
        let screen = terminal.screen();
        let seen = screen.contains("1/1 proxies in sync") && !screen.contains("AWAY");
        if seen { Ok(()) } else { Err(screen) }
    })
    .await;
    terminal.press(&["q"]);
    terminal.is_given_back(0).await;
    terminal.run("clear; lbctl top");
    terminal.shows("1/1 proxies in sync").await;
    terminal.press(&["C-c"]);
    terminal.is_given_back(130).await;
}
