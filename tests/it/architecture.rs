//! Which crate may depend on which: the arrows of the design, read from the manifests.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

/// Our packages, and which of ours each may use. `lbctl` runs both planes; the planes
/// never know of each other.
const ARROWS: [(&str, &[&str]); 6] = [
    ("lb-core", &[]),
    ("lb-proto", &["lb-core"]),
    ("lb-control-plane", &["lb-core", "lb-proto"]),
    ("lb-data-plane", &["lb-core", "lb-proto"]),
    ("lbctl", &["lb-core", "lb-proto", "lb-control-plane", "lb-data-plane"]),
    ("lb-tests", &["lb-core", "lb-proto", "lb-control-plane", "lb-data-plane", "lbctl"]),
];

/// Whatever reads a clock, does I/O or knows the wire has no place in pure decisions.
const IMPURE: [&str; 14] = [
    "bytes-utils",
    "futures",
    "hyper",
    "hyper-util",
    "mio",
    "prost",
    "rand",
    "redb",
    "rustix",
    "socket2",
    "tokio",
    "tokio-util",
    "tonic",
    "tracing",
];

#[test]
fn the_arrows_between_the_crates_are_those_of_the_design() {
    let packages = packages();
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<String> = packages.iter().map(name_of).collect();
    let expected: BTreeSet<String> = ours.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, expected, "a new package needs its arrows here");
    for package in &packages {
        let name = name_of(package);
        let (_, allowed) = ARROWS.iter().find(|(known, _)| *known == name).unwrap();
        for (dependency, kind) in dependencies(package) {
            let is_ours = ours.contains(dependency.as_str());
            assert!(
                !is_ours || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency} ({kind})"
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    let packages = packages();
    let core = packages.iter().find(|package| name_of(package) == "lb-core").unwrap();
    for (dependency, kind) in dependencies(core) {
        // Its tests may measure.
        let pure = kind == "dev" || !IMPURE.contains(&dependency.as_str());
        assert!(pure, "lb-core must not depend on {dependency}");
    }
}

#[test]
fn the_contract_does_not_bring_a_transport() {
    let packages = packages();
    let proto = packages.iter().find(|package| name_of(package) == "lb-proto").unwrap();
    for (dependency, kind) in dependencies(proto) {
        assert!(
            kind != "normal" || !["hyper", "tokio", "h2"].contains(&dependency.as_str()),
            "lb-proto must not depend on {dependency}"
        );
    }
}

#[test]
fn only_three_files_of_lbctl_know_the_planes() {
    // `run` functions of both planes, in the files of their subcommands; the command line
    // flattens their arguments.
    let allowed = ["args/mod.rs", "command/control_plane.rs", "command/data_plane.rs"];
    let root = workspace().join("cli/src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
            let knows = text.contains("lb_control_plane::") || text.contains("lb_data_plane::");
            assert!(!knows || allowed.contains(&name), "{name} uses a plane");
        }
    }
}

#[test]
fn every_crate_inherits_the_lints() {
    for (package, _) in ARROWS {
        let folder = package.strip_prefix("lb-").unwrap_or("cli");
        let manifest = workspace().join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{}", manifest.display());
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--no-deps"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name_of(package: &Value) -> String {
    package["name"].as_str().unwrap_or_default().to_owned()
}

/// Names and kinds (normal, build, dev).
fn dependencies(package: &Value) -> Vec<(String, String)> {
    let all = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .map(|dependency| {
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            (name_of(dependency), kind.to_owned())
        })
        .collect()
}
