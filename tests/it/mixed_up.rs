//! Mistakes of the first hour when processes are started: another's directory, a file with a
//! fault, a directory in which nobody runs. Each is refused in one sentence and leaves no trace.

use std::{fs, net::TcpListener, path::Path};

use crate::program;

const CONTROL_PLANE: [&str; 3] = ["control-plane", "--grpc=127.0.0.1:0", "--http=127.0.0.1:0"];
const PROXY: [&str; 4] = [
    "data-plane",
    "--host=127.0.0.1",
    "--admin=127.0.0.1:0",
    // Nobody listens on port 9 (discard) in a test's world.
    "--control-plane=http://127.0.0.1:9",
];

fn data_dir(path: &Path) -> String {
    format!("--data-dir={}", path.display())
}

#[tokio::test]
async fn neither_plane_starts_in_the_directory_of_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let (control, edge) = (directory.path().join("cp"), directory.path().join("edge"));
    let (of_control, of_edge) = (data_dir(&control), data_dir(&edge));
    for (plane, path) in
        [(&CONTROL_PLANE[..], &of_control), (&[&PROXY[..], &["--port=0"]].concat(), &of_edge)]
    {
        let args: Vec<String> =
            plane.iter().copied().chain([path.as_str()]).map(str::to_owned).collect();
        program().start("a process", &args).listening().await;
    }
    let names = |path: &Path| {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    };
    let before = (names(&control), names(&edge));
    let proxy = [&PROXY[..], &["--port=0", &of_control]].concat();
    let refused = program().run(&proxy).await.expect(78);
    assert!(refused.stderr.contains("it is that of a control plane"), "{refused:?}");
    let plane = [&CONTROL_PLANE[..], &[&of_edge]].concat();
    let refused = program().run(&plane).await.expect(78);
    assert!(refused.stderr.contains("is that of a proxy"), "{refused:?}");
    assert_eq!((names(&control), names(&edge)), before);
}

#[tokio::test]
async fn a_file_with_a_fault_leaves_no_store_behind_that_was_made_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let (file, state) = (directory.path().join("lb.toml"), directory.path().join("state"));
    let (config, path) = (format!("--config={}", file.display()), data_dir(&state));
    let args = [&CONTROL_PLANE[..], &[&config, &path]].concat();
    let store = state.join("control-plane.redb");
    fs::write(&file, "[[backends]]\nadress = \"a:1\"\n").unwrap();
    drop(program().run(&args).await.expect(78));
    assert!(!store.exists());
    fs::write(&file, "[[backends]]\naddress = \"127.0.0.1:1\"\n").unwrap();
    let owned: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let process = program().start("control plane", &owned);
    process.listening().await;
    drop(process);
    // One that was there stays.
    fs::write(&file, "nonsense").unwrap();
    drop(program().run(&args).await.expect(78));
    assert!(store.exists());
}

#[tokio::test]
async fn a_takeover_that_finds_nobody_says_where_it_looked() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = format!("--port={}", taken.local_addr().unwrap().port());
    let path = data_dir(directory.path());
    let args = [&PROXY[..], &[&number, &path, "--takeover"]].concat();
    let refused = program().run(&args).await.expect(9);
    let told = format!("--takeover found no process in {}", directory.path().display());
    assert!(refused.stderr.contains(&told), "{refused:?}");
    assert!(!refused.stderr.contains("replace it with --takeover"), "{refused:?}");
}
