//! docs/automation.md: every example runs as it stands, in the order of the page.

use std::process::Output;

use lb_tests::cluster::Cluster;
use tokio::process::Command;

use crate::program;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// All blocks of a language as one program.
fn examples(language: &str) -> String {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/automation.md")).unwrap();
    let opening = format!("```{language}\n");
    let blocks: Vec<&str> =
        page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 5, "{} blocks of {language}", blocks.len());
    blocks.join("\n")
}

/// What was printed by a program that must have succeeded.
fn printed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test]
async fn the_examples_for_shells_run() {
    let cluster = Cluster::start(program(), 1).await;
    if Command::new("curl").arg("--version").output().await.is_err() {
        eprintln!("there is no curl here, so its examples are not run");
        return;
    }
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &examples("sh")])
        .env("LB", format!("http://{}", cluster.http()))
        .output()
        .await
        .unwrap();
    let printed = printed(&output);
    for words in ["\"applied\":1", "\"weight\":5", "\"dry_run\":true", "event: object_changed"] {
        assert!(printed.contains(words), "{words:?} is not in {printed}");
    }
    assert!(cluster.api.list("backend").await.0.is_empty(), "the last example takes all out");
}

/// Needs the packages of tests/python/requirements.txt: `LB_TEST_PYTHON` names a Python that
/// has them, as the one that `.ci/run` makes.
#[tokio::test]
async fn the_examples_in_python_run() {
    let cluster = Cluster::start(program(), 1).await;
    let python = std::env::var("LB_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let stubs = tempfile::tempdir().unwrap();
    let folder = stubs.path().display();
    let generate = Command::new(&python)
        .args(["-m", "grpc_tools.protoc", "-I", &format!("{ROOT}/proto")])
        .args([format!("--python_out={folder}"), format!("--grpc_python_out={folder}")])
        .args(
            ["config", "sync", "stats", "registry", "fleet"]
                .map(|name| format!("lb/v1/{name}.proto")),
        )
        .output()
        .await;
    if !generate.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("{python} has no grpcio-tools, so the examples for it are not run: {generate:?}");
        assert!(std::env::var_os("LB_TEST_PYTHON").is_none(), "it was said to have them");
        return;
    }
    let output = Command::new(&python)
        .args(["-c", &examples("python")])
        .env("PYTHONPATH", stubs.path())
        .env("LB_GRPC", cluster.grpc().to_string())
        .output()
        .await
        .unwrap();
    let printed = printed(&output);
    for words in [
        "applied by 1 of 1 proxies",
        "auto-2 has weight 1",
        "would change something: True",
        "object_changed backend auto-2",
        "INVALID_ARGUMENT - ",
    ] {
        assert!(printed.contains(words), "{words:?} is not in {printed}");
    }
    assert!(cluster.api.list("backend").await.0.is_empty(), "the last example takes all out");
}
