//! Declared state: files that say what there is to be, from the command line and at the
//! start of a control plane.

use std::{fs, path::PathBuf};

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::{cluster::Cluster, eventually::eventually, process::Process};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::program;

const WEB: &str = r#"
[[pools]]
name = "web"
algorithm = "least_connections"
health = "none"

[[backends]]
address = "10.0.0.1:80"
pool = "web"

[[backends]]
id = "two"
address = "10.0.0.2:80"
pool = "web"
weight = 2

[[routes]]
name = "api"
path_prefix = "/api"
pool = "web"
"#;

/// A file in a cluster's directory.
fn file(cluster: &Cluster, name: &str, text: &str) -> String {
    let path = cluster.path(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn what_is_applied_is_there_and_applied_again_changes_nothing() {
    let cluster = Cluster::start(program(), 1).await;
    let web = file(&cluster, "web.toml", WEB);
    let before = cluster.api.list("").await;

    let diff = cluster.lbctl(&["diff", "-f", &web]).await.expect(1);
    assert!(diff.stdout.contains("4 created"), "{diff:?}");
    let dry = cluster.lbctl(&["apply", "-f", &web, "--dry-run"]).await.expect(0);
    assert!(dry.stdout.contains("pool/web"), "{dry:?}");
    assert!(dry.stdout.contains("dry run: nothing was changed"), "{dry:?}");
    assert_eq!(cluster.api.list("").await, before);

    let applied = cluster.lbctl(&["apply", "-f", &web]).await.expect(0);
    for line in [
        "pool/web          created (algorithm: least_connections, health: none)",
        "backend/backend1  created (address: 10.0.0.1:80, pool: web)",
        "backend/two       created (address: 10.0.0.2:80, pool: web, weight: 2)",
        "route/api         created (path_prefix: /api, pool: web)",
        "applied 1/1 proxies",
    ] {
        assert!(applied.stdout.contains(line), "{line}: {applied:?}");
    }
    // All in one revision.
    let list = cluster.api.registry().list(pb::ListRequest::default()).await.unwrap().into_inner();
    let revisions = list.objects.iter().map(|object| object.revision);
    assert_eq!(revisions.filter(|revision| *revision > before.1).count(), 4, "{list:?}");
    let newest = list.objects.iter().map(|object| object.revision).max();
    let of_newest = list.objects.iter().filter(|object| Some(object.revision) == newest);
    assert_eq!(of_newest.count(), 4, "{list:?}");

    let again = cluster.lbctl(&["apply", "-f", &web, "-o", "json"]).await.expect(0).json();
    assert_eq!(again["changed"], false, "{again}");
    assert!(again["objects"].as_array().unwrap().iter().all(|o| o["action"] == "unchanged"));
    let after = cluster.api.registry().list(pb::ListRequest::default()).await.unwrap();
    assert_eq!(after.into_inner().objects, list.objects);
    drop(cluster.lbctl(&["diff", "-f", &web]).await.expect(0));

    // What somebody changed since is changed back, and said.
    drop(cluster.lbctl(&["set-backend", "two", "--weight", "9"]).await.expect(0));
    let back = cluster.lbctl(&["apply", "-f", &web]).await.expect(0);
    assert!(back.stdout.contains("changed (weight: 9 -> 2)"), "{back:?}");
}

#[tokio::test]
async fn what_is_exported_makes_another_control_plane_the_same() {
    let cluster = Cluster::start(program(), 0).await;
    let web = file(&cluster, "web.toml", WEB);
    drop(cluster.lbctl(&["apply", "-f", &web]).await.expect(0));
    drop(cluster.lbctl(&["set-listener", "default", "--max-body-bytes", "10M"]).await.expect(0));
    let exported = cluster.lbctl(&["export"]).await.expect(0).stdout;
    assert!(exported.contains("max_body_bytes = \"10MiB\""), "{exported}");
    assert!(!exported.contains("request_timeout"), "{exported}");
    let all = cluster.lbctl(&["export", "--all", "-o", "json"]).await.expect(0).json();
    assert_eq!(all["pools"][0]["request_timeout"], "30s", "{all}");

    let export = file(&cluster, "export.toml", &exported);
    drop(cluster.lbctl(&["diff", "--prune", "-f", &export]).await.expect(0));
    let other = Cluster::start(program(), 0).await;
    drop(other.lbctl(&["apply", "--prune", "-f", &export]).await.expect(0));
    let bare = |mut objects: Vec<Any>| {
        for object in &mut objects {
            if let Any::Backend(backend) = object {
                backend.incarnation = 0;
            }
        }
        objects
    };
    assert_eq!(bare(other.api.list("").await.0), bare(cluster.api.list("").await.0));
    assert_eq!(other.lbctl(&["export"]).await.expect(0).stdout, exported);
}

#[tokio::test]
async fn pruning_removes_what_no_file_names_but_not_half_a_pool_by_accident() {
    let cluster = Cluster::start(program(), 1).await;
    let web = file(&cluster, "web.toml", WEB);
    drop(cluster.lbctl(&["apply", "-f", &web]).await.expect(0));
    let empty = file(&cluster, "empty.toml", "");
    // Nothing is named, so nothing changes.
    drop(cluster.lbctl(&["apply", "-f", &empty]).await.expect(0));
    let before = cluster.api.list("").await;
    let refused = cluster.lbctl(&["apply", "--prune", "-f", &empty]).await.expect(4);
    assert!(refused.stderr.contains("2 of the 2 backends of pool web"), "{refused:?}");
    assert_eq!(cluster.api.list("").await, before);
    let shown = cluster.lbctl(&["diff", "--prune", "-f", &empty]).await.expect(1);
    assert!(shown.stdout.contains("4 removed"), "{shown:?}");
    let pruned = cluster.lbctl(&["apply", "--prune", "--force", "-f", &empty]).await.expect(0);
    for line in ["pool/web", "backend/two", "route/api"] {
        let line = pruned.stdout.lines().find(|text| text.starts_with(line));
        assert!(line.is_some_and(|text| text.ends_with("removed")), "{pruned:?}");
    }
    let left = cluster.lbctl(&["get", "routes", "-o", "name"]).await.expect(0);
    assert_eq!(left.stdout.trim(), "route/default");
}

#[tokio::test]
async fn faults_are_told_with_their_places_and_nothing_is_changed() {
    let cluster = Cluster::start(program(), 0).await;
    let text = "[[pools]]\nname = \"a\"\nhelth_path = \"/\"\nrise = 0\n\n[[backends]]\n\
                address = \"a:1\"\npool = \"b\"\n";
    let bad = file(&cluster, "bad.toml", text);
    let before = cluster.api.list("").await;
    for command in ["apply", "diff", "validate"] {
        let refused = cluster.lbctl(&[command, "-f", &bad]).await.expect(78);
        for words in [
            format!(
                "{bad}:3:1: unknown key \"helth_path\" of a pool; did you mean \"health_path\"?"
            ),
            format!("{bad}:4:8: pool.rise 0 is outside 1 to 100"),
            format!("{bad}:8:8: pool \"b\" does not exist"),
            "3 faults".to_owned(),
        ] {
            assert!(refused.stderr.contains(&words), "{words}: {refused:?}");
        }
    }
    assert_eq!(cluster.api.list("").await, before);
    let good = file(&cluster, "good.toml", WEB);
    // Checking needs nobody.
    let valid = program().run(&["validate", "-f", &good]).await.expect(0);
    assert_eq!(valid.stdout.trim(), "valid: 4 objects");
    let missing = program().run(&["validate", "-f", "/nowhere/lb.toml"]).await.expect(78);
    assert!(missing.stderr.contains("/nowhere/lb.toml"), "{missing:?}");
    let away = ["diff", "-f", &good, "--server", "127.0.0.1:9"];
    assert!(program().run(&away).await.code > 1);
}

#[tokio::test]
async fn several_files_are_one() {
    let cluster = Cluster::start(program(), 0).await;
    let directory = cluster.path("conf.d");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("1.toml"), "[[pools]]\nname = \"web\"\n").unwrap();
    let json = r#"{"routes": [{"name": "r", "pool": "web", "host": "*.example.com"}]}"#;
    fs::write(directory.join("2.json"), json).unwrap();
    fs::write(directory.join("README"), "not read").unwrap();
    let directory = directory.display().to_string();
    let extra = file(&cluster, "extra.toml", "[[pools]]\nname = \"extra\"\n");
    let applied = cluster.lbctl(&["apply", "-f", &directory, "-f", &extra]).await.expect(0);
    assert_eq!(applied.stdout.matches("created").count(), 3, "{applied:?}");
}

/// All compare with the same state at first, and only one of them can be in time.
#[tokio::test]
async fn an_application_that_comes_too_late_compares_again() {
    let cluster = Cluster::start(program(), 0).await;
    let files: Vec<String> = (0..8)
        .map(|n| file(&cluster, &format!("{n}.toml"), &format!("[[pools]]\nname = \"p{n}\"\n")))
        .collect();
    let apply = async |path: &String| cluster.lbctl(&["apply", "-f", path]).await.expect(0);
    let (a, b, c, d, e, f, g, h) = tokio::join!(
        apply(&files[0]),
        apply(&files[1]),
        apply(&files[2]),
        apply(&files[3]),
        apply(&files[4]),
        apply(&files[5]),
        apply(&files[6]),
        apply(&files[7]),
    );
    let revisions: std::collections::BTreeSet<String> =
        [a, b, c, d, e, f, g, h].map(|applied| applied.stdout).into();
    assert_eq!(revisions.len(), 8, "{revisions:?}");
    assert_eq!(cluster.api.list("pool").await.0.len(), 9);
}

/// A control plane with a file, on free ports.
struct Declared {
    directory: TempDir,
    process: Process,
}

impl Declared {
    async fn start(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("lb.toml"), text).unwrap();
        let process = start(&directory);
        process.listening().await;
        Self { directory, process }
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("lb.toml")
    }

    async fn restart(&mut self) {
        self.process.signal(Signal::TERM);
        assert_eq!(self.process.exited().await, 0);
        self.process = start(&self.directory);
    }

    async fn lbctl(&self, args: &[&str]) -> lb_tests::process::Finished {
        let server = format!("--server={}", self.process.listening().await.text("grpc"));
        program().run(&[args, &[&server]].concat()).await
    }

    async fn revision(&self) -> String {
        let listed = self.lbctl(&["get", "pools", "-o", "json"]).await.expect(0);
        let mut pools = listed.json();
        for pool in pools.as_array_mut().unwrap() {
            // It begins anew with the process.
            pool.as_object_mut().unwrap().remove("traffic");
        }
        pools.to_string()
    }
}

fn start(directory: &TempDir) -> Process {
    let args = [
        "control-plane".to_owned(),
        "--grpc=127.0.0.1:0".to_owned(),
        "--http=127.0.0.1:0".to_owned(),
        format!("--data-dir={}", directory.path().join("state").display()),
        format!("--config={}", directory.path().join("lb.toml").display()),
    ];
    program().start("control-plane", &args)
}

#[tokio::test]
async fn a_control_plane_starts_with_what_its_file_declares() {
    let mut declared = Declared::start(WEB).await;
    let ids = declared.lbctl(&["get", "backends", "-o", "name"]).await.expect(0).stdout;
    assert_eq!(ids.trim(), "backend/backend1\nbackend/two");
    drop(declared.lbctl(&["diff", "-f", declared.config().to_str().unwrap()]).await.expect(0));
    // Nothing differs, so a restart writes nothing.
    let before = declared.revision().await;
    declared.restart().await;
    assert_eq!(declared.revision().await, before);
    // What it names is changed back and told; what it does not name stays.
    drop(declared.lbctl(&["set-backend", "two", "--weight", "9"]).await.expect(0));
    drop(
        declared
            .lbctl(&["add-backend", "10.0.0.9:80", "--id", "nine", "--pool", "web"])
            .await
            .expect(0),
    );
    declared.restart().await;
    declared.process.complaint("weight: 9 -> 2").await;
    let ids = declared.lbctl(&["get", "backends", "-o", "name"]).await.expect(0).stdout;
    assert_eq!(ids.trim(), "backend/backend1\nbackend/nine\nbackend/two");
}

#[tokio::test]
async fn a_control_plane_does_not_start_with_a_faulty_file() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[pools]]\nname = \"a\"\nrise = 0\nfal = 3\n";
    fs::write(directory.path().join("lb.toml"), text).unwrap();
    let mut process = start(&directory);
    assert_eq!(process.exited().await, 78);
    let told = process.stderr();
    assert!(told.contains("lb.toml:3:8: pool.rise 0"), "{told}");
    assert!(told.contains("lb.toml:4:1: unknown key \"fal\""), "{told}");
    assert!(!process.stdout().contains("listening"), "{}", process.stdout());
}

#[tokio::test]
async fn a_hangup_reads_the_file_again_and_a_faulty_one_changes_nothing() {
    let declared = Declared::start(WEB).await;
    fs::write(declared.config(), WEB.replace("weight = 2", "weight = 7")).unwrap();
    declared.process.signal(Signal::HUP);
    declared.process.complaint("weight: 2 -> 7").await;
    let weight = async || {
        let json = declared.lbctl(&["get", "backend", "two", "-o", "json"]).await.expect(0).json();
        json["weight"].clone()
    };
    assert_eq!(weight().await, 7);

    fs::write(declared.config(), WEB.replace("weight = 2", "weigth = 3")).unwrap();
    declared.process.signal(Signal::HUP);
    declared.process.complaint("did you mean \"weight\"?").await;
    // On the line of the event, so that who looks for the one finds the other.
    let file = declared.config().display().to_string();
    declared.process.complaint(&format!("nothing of it was applied: {file}:")).await;
    assert_eq!(weight().await, 7);
    let server = declared.process.listening().await.address("grpc");
    let mut events = lb_tests::api::Api::new(server).watch(100).await;
    eventually("an event says so", async || {
        let event = events.message().await.unwrap().unwrap();
        let reason = event.reason.unwrap_or_default();
        let told = event.r#type == "config_rejected" && reason.message.contains("weigth");
        assert!(!told || !reason.message.contains('\n'), "an event is one line: {reason:?}");
        if told { Ok(()) } else { Err(event.r#type) }
    })
    .await;
    let status = declared.lbctl(&["status"]).await.expect(0).stdout;
    let told = status.lines().find(|line| line.starts_with("! --config ")).unwrap_or(&status);
    assert!(told.contains("refused, what was in force stays: "), "{told}");
    assert!(told.contains("did you mean \"weight\"?"), "{told}");
    drop(declared.lbctl(&["check"]).await.expect(1));

    // It goes on, and the next good file counts again.
    fs::write(declared.config(), WEB.replace("weight = 2", "weight = 4")).unwrap();
    declared.process.signal(Signal::HUP);
    declared.process.complaint("weight: 7 -> 4").await;
    assert_eq!(weight().await, 4);
    eventually("nothing is refused any more", async || {
        let status = declared.lbctl(&["status"]).await.expect(0).stdout;
        if status.contains("--config") { Err(status) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn what_a_file_names_no_longer_goes_on_and_is_told() {
    let declared = Declared::start(WEB).await;
    let told = async || declared.lbctl(&["check"]).await.stdout;
    assert!(!told().await.contains("not in --config"), "all of it is named");
    let shorter = WEB.replace("[[backends]]\naddress = \"10.0.0.1:80\"\npool = \"web\"\n", "");
    fs::write(declared.config(), shorter).unwrap();
    declared.process.signal(Signal::HUP);
    declared.process.complaint("not in the configuration file, and they go on serving").await;
    let told = told().await;
    assert!(told.contains("1 object is not in --config "), "{told}");
    assert!(told.contains("goes on serving: backend/backend1"), "{told}");
    drop(declared.lbctl(&["remove-backend", "backend1"]).await.expect(0));
    let told = declared.lbctl(&["check"]).await.stdout;
    assert!(!told.contains("not in --config"), "{told}");
}

#[tokio::test]
async fn a_file_that_became_a_pipe_does_not_keep_the_process_from_stopping() {
    let mut declared = Declared::start(WEB).await;
    fs::remove_file(declared.config()).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let (at, kind) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
    rustix::fs::mknodat(at, declared.config(), kind, mode, 0).unwrap();
    declared.process.signal(Signal::HUP);
    declared.process.signal(Signal::TERM);
    assert_eq!(declared.process.exited().await, 0);
}

#[tokio::test]
async fn a_hangup_without_a_file_ends_nothing() {
    let cluster = Cluster::start(program(), 0).await;
    cluster.control_plane().signal(Signal::HUP);
    cluster.control_plane().complaint("nothing to read again").await;
    drop(cluster.lbctl(&["get", "pools"]).await.expect(0));
}
