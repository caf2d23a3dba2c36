//! Completions, as shells ask for them.

use std::{fs, os::unix::fs::symlink, process::Command};

use lb_tests::{
    cluster::Cluster,
    process::{Finished, Program},
};

use crate::program;

/// Runs a script in a shell that finds lbctl and its control plane; the lines that it prints.
async fn run(shell: &str, before: &str, server: &str, body: &str) -> Vec<String> {
    let bin = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_lbctl-under-test"), bin.path().join("lbctl")).unwrap();
    let set_out = format!(
        "export PATH='{bin}':\"$PATH\" LBCTL_SERVER='{server}'\n\
         lbctl completions {shell} > '{bin}/script'\n\
         source '{bin}/script'\n",
        bin = bin.path().display(),
    );
    let path = bin.path().join("complete");
    fs::write(&path, [before, &set_out, body].concat()).unwrap();
    let ran: Finished = Program::at(shell).run(&[path.to_str().unwrap()]).await.expect(0);
    ran.stdout.lines().map(str::to_owned).collect()
}

/// Whether a shell is installed; says so if not.
fn is_there(shell: &str) -> bool {
    let there = Command::new(shell).arg("--version").output().is_ok();
    if !there {
        eprintln!("there is no {shell} here, so its completions are not tried");
    }
    there
}

/// What bash offers for the last word of a line. The script's function is called with the
/// variables that bash sets, as `complete -F` has it.
async fn offered(server: &str, line: &[&str]) -> Vec<String> {
    let words: String = line.iter().map(|word| format!(" '{word}'")).collect();
    let body = format!(
        r#"
        set -eu
        complete -p lbctl | grep -q _clap_complete_lbctl
        COMP_WORDS=(lbctl{words}); COMP_CWORD={last}; COMP_TYPE=9
        _clap_complete_lbctl lbctl "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        [ "${{#COMPREPLY[@]}}" = 0 ] || printf '%s\n' "${{COMPREPLY[@]}}"
        "#,
        last = line.len(),
    );
    run("bash", "", server, &body).await
}

/// What zsh offers: its completion system calls the function with the words of the line, and is
/// given the matches by `_describe`.
async fn offered_by_zsh(server: &str, line: &[&str]) -> Vec<String> {
    let words: String = line.iter().map(|word| format!(" '{word}'")).collect();
    let define = "compdef() { registered=\"$*\"; }\n\
                  _describe() { local last=\"${@[-1]}\"; print -rl -- \"${(@P)last}\"; }\n";
    let body = format!(
        "[ \"$registered\" = '_clap_dynamic_completer_lbctl lbctl' ] || exit 1\n\
         words=(lbctl{words}); CURRENT={last}\n\
         _clap_dynamic_completer_lbctl\nexit 0\n",
        last = line.len() + 1,
    );
    // The script calls the one as it is read.
    run("zsh", define, server, &body).await
}

/// What fish offers; it can be asked itself.
async fn offered_by_fish(server: &str, line: &[&str]) -> Vec<String> {
    let body = format!("complete -C 'lbctl {}'\n", line.join(" "));
    let offered = run("fish", "", server, &body).await;
    // Behind a tab is what it means.
    offered.iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn bash_completes_commands_flags_and_the_names_of_what_there_is() {
    let cluster = Cluster::start(program(), 1).await;
    drop(cluster.lbctl(&["add-pool", "web"]).await.expect(0));
    let added =
        cluster.lbctl(&["add-backend", "127.0.0.1:1", "--id", "one", "--pool", "web"]).await;
    drop(added.expect(0));
    let server = format!("http://{}", cluster.grpc());
    for (line, expected) in [
        (&["enable-b"][..], &["enable-backend"][..]),
        (&["describe", "backend", ""], &["one"]),
        (&["get", "pools", "w"], &["web"]),
        (&["describe", "proxy", ""], &["proxy-1"]),
        (&["enable-backend", ""], &["one"]),
        (&["get", "backends", "--pool", ""], &["default", "web"]),
        (&["wait", "backend/"], &["backend/one"]),
        (&["set-algorithm", "web", "weighted"], &["weighted_round_robin"]),
        (&["get", "backends", "--out"], &["--output"]),
    ] {
        // Where nothing is typed yet, flags follow the names.
        let offered = offered(&server, line).await;
        let names: Vec<&String> = offered
            .iter()
            .filter(|word| line.last() != Some(&"") || !word.starts_with('-'))
            .collect();
        assert_eq!(names, expected, "{line:?}");
    }
    // A control plane that is away costs names and nothing else.
    let nobody = "http://127.0.0.1:9";
    assert_eq!(offered(nobody, &["enable-backend", "x"]).await, [""; 0]);
    assert_eq!(offered(nobody, &["enable-b"]).await, ["enable-backend"]);
}

#[tokio::test]
async fn zsh_and_fish_complete_them_too() {
    let cluster = Cluster::start(program(), 1).await;
    for command in
        [&["add-pool", "web"][..], &["add-backend", "127.0.0.1:1", "--id", "one", "--pool", "web"]]
    {
        drop(cluster.lbctl(command).await.expect(0));
    }
    let server = format!("http://{}", cluster.grpc());
    let (zsh, fish) = (is_there("zsh"), is_there("fish"));
    for (line, expected) in [
        (&["enable-b"][..], "enable-backend"),
        (&["describe", "backend", "o"], "one"),
        (&["get", "pools", "w"], "web"),
        (&["wait", "backend/"], "backend/one"),
        (&["set-algorithm", "web", "weighted"], "weighted_round_robin"),
        (&["get", "backends", "--out"], "--output"),
    ] {
        if zsh {
            let offered = offered_by_zsh(&server, line).await;
            // Behind a colon is what it means.
            let words = offered.iter().map(|line| line.split(':').next().unwrap_or_default());
            assert_eq!(words.collect::<Vec<_>>(), [expected], "zsh, {line:?}");
        }
        if fish {
            assert_eq!(offered_by_fish(&server, line).await, [expected], "fish, {line:?}");
        }
    }
}
