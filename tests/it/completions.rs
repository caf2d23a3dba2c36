//! Completions, as bash asks for them.

use std::{fs, os::unix::fs::symlink};

use lb_tests::{
    cluster::Cluster,
    process::{Finished, Program},
};

use crate::program;

/// What bash offers for the last word of a line. The script is sourced and its function
/// called with the variables that bash sets, as `complete -F` has it.
async fn offered(server: &str, line: &[&str]) -> Vec<String> {
    let bin = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_lbctl-under-test"), bin.path().join("lbctl")).unwrap();
    let words: String = line.iter().map(|word| format!(" '{word}'")).collect();
    let script = format!(
        r#"
        set -eu
        export PATH='{bin}':"$PATH" LBCTL_SERVER='{server}'
        lbctl completions bash > '{bin}/script'
        source '{bin}/script'
        complete -p lbctl | grep -q _clap_complete_lbctl
        COMP_WORDS=(lbctl{words}); COMP_CWORD={last}; COMP_TYPE=9
        _clap_complete_lbctl lbctl "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        [ "${{#COMPREPLY[@]}}" = 0 ] || printf '%s\n' "${{COMPREPLY[@]}}"
        "#,
        bin = bin.path().display(),
        last = line.len(),
    );
    let path = bin.path().join("complete.sh");
    fs::write(&path, script).unwrap();
    let ran: Finished = Program::at("bash").run(&[path.to_str().unwrap()]).await.expect(0);
    ran.stdout.lines().map(str::to_owned).collect()
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
