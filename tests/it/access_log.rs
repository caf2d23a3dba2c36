//! The access log: what a line says, and that lines are neither lost nor in the way.

use std::{fs, path::PathBuf, time::Duration};

use lb_proto::v1::Retries;
use lb_tests::{
    backend::{Action, Backend, ok},
    client::{Client, exchange, get},
    cluster::Cluster,
    eventually::eventually,
    load::Load,
    process::Process,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{one_proxy_with, program};

/// A proxy with a log in a file, before these backends.
async fn logging(backends: &[&Backend]) -> (Cluster, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let flag = format!("--access-log={}", path.display());
    (one_proxy_with(&[&flag], backends).await, path, directory)
}

/// Waits for this many lines.
async fn lines(path: &PathBuf, count: usize) -> Vec<Value> {
    eventually(&format!("{count} lines"), async || {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        if text.lines().count() >= count && text.ends_with('\n') {
            Ok(parse(&text))
        } else {
            Err(text)
        }
    })
    .await
}

fn parse(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
    text.lines().map(parse).collect()
}

/// The line without what is different every time, each of which is checked here.
#[track_caller]
fn golden(mut line: Value) -> Value {
    let whole = line.to_string();
    let members = line.as_object_mut().unwrap();
    let time = members.remove("time").unwrap();
    let time = time.as_str().unwrap();
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{whole}");
    let peer = members.remove("peer").unwrap();
    assert!(peer.as_str().unwrap().starts_with("127.0.0.1:"), "{whole}");
    assert!(members.remove("duration_ms").is_some_and(|value| value.is_f64()), "{whole}");
    if members.contains_key("request_id") {
        let id = members.remove("request_id").unwrap();
        assert_eq!(id.as_str().unwrap().len(), 32, "{whole}");
    }
    for attempt in members["attempts"].as_array_mut().unwrap() {
        let attempt = attempt.as_object_mut().unwrap();
        let duration = attempt.remove("duration_ms");
        assert!(duration.is_some_and(|value| value.is_f64()), "{whole}");
        let wait = attempt.remove("wait_ms");
        assert!(wait.is_none_or(|value| value.is_f64()), "{whole}");
    }
    assert_eq!(members.remove("proxy").unwrap(), "proxy-1", "{whole}");
    assert_eq!(members.remove("listener").unwrap(), "default", "{whole}");
    line
}

/// Of a request for a path that reached the pool, without what is usual.
#[track_caller]
fn asked(line: &Value, method: &str, path: &str) -> Value {
    let mut line = golden(line.clone());
    let usual = [
        ("client", "127.0.0.1"),
        ("host", "test"),
        ("protocol", "HTTP/1.1"),
        ("method", method),
        ("path", path),
    ];
    for (name, value) in usual {
        assert_eq!(line[name], value, "{line}");
        line.as_object_mut().unwrap().remove(name);
    }
    line
}

const GET_FIELDS: &str = "HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

fn various(request: &lb_tests::backend::Request) -> Vec<Action> {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
    match request.path() {
        "/cut" => {
            vec![Action::Send(cut.into()), Action::Pause(Duration::from_millis(50)), Action::Close]
        }
        "/hang" => vec![Action::Hang],
        _ if request.method() == "HEAD" => vec![Action::Send(head.into())],
        _ => vec![Action::ReadBody, Action::Send(ok("hello"))],
    }
}

#[tokio::test]
async fn a_line_says_who_asked_for_what_and_what_became_of_it() {
    let backend = Backend::scripted(various);
    let (cluster, path, _directory) = logging(&[&backend]).await;
    let request = "GET /a\"c\"?secret=1 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: test/1.0\r\n\
        X-Request-Id: given\r\nConnection: close\r\n\r\n";
    let response = exchange(cluster.address(), "GET", request).await.unwrap();
    let sent = response.head.len() + 4 + response.body.len();
    let received = backend.reached(1).await[0].request.head.len() + 4;
    let mut line = lines(&path, 1).await.remove(0);
    assert_eq!(line["request_id"], "given");
    line.as_object_mut().unwrap().remove("request_id");
    assert_eq!(
        golden(line),
        json!({
            "client": "127.0.0.1", "method": "GET", "host": "www.example.com",
            "path": "/a\"c\"", "protocol": "HTTP/1.1", "user_agent": "test/1.0",
            "pool": "default", "attempts": [{"backend": "backend1", "status": 200}],
            "status": 200, "bytes_to_backend": received, "bytes_to_client": sent,
        })
    );
    let post = "POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody";
    let mut client = Client::connect(cluster.address()).await;
    client.send(post).await;
    let response = client.response().await;
    let head = exchange(cluster.address(), "HEAD", format!("HEAD /h {GET_FIELDS}")).await.unwrap();
    let recorded = backend.recorded();
    // Each worker hands its lines over by itself, so their order says nothing.
    let lines = lines(&path, 3).await;
    let of = |path| lines.iter().find(|line| line["path"] == path).unwrap();
    let attempts = json!([{"backend": "backend1", "status": 200}]);
    assert_eq!(
        asked(of("/up"), "POST", "/up"),
        json!({
            "pool": "default", "attempts": attempts, "status": 200,
            "bytes_to_backend": recorded[1].request.head.len() + 4 + 4,
            "bytes_to_client": response.head.len() + 4 + 5,
        })
    );
    assert_eq!(
        asked(of("/h"), "HEAD", "/h"),
        json!({
            "pool": "default", "attempts": attempts, "status": 200,
            "bytes_to_backend": recorded[2].request.head.len() + 4,
            "bytes_to_client": head.head.len() + 4,
        })
    );
}

#[tokio::test]
async fn every_attempt_is_in_the_line_with_its_reason() {
    let (mut gone, here) = (Backend::saying("gone"), Backend::saying("here"));
    let (cluster, path, _directory) = logging(&[&gone, &here]).await;
    gone.stop().await;
    for _ in 0..2 {
        assert_eq!(get(cluster.address(), "/").await.text(), "here");
    }
    let lines = lines(&path, 2).await;
    let retried = lines.iter().find(|line| line["attempts"].as_array().unwrap().len() == 2);
    let line = asked(retried.expect("one of two goes to each backend first"), "GET", "/");
    assert_eq!(
        line["attempts"],
        json!([
            {"backend": "backend1", "reason": "backend_connect_refused"},
            {"backend": "backend2", "status": 200},
        ])
    );
    assert_eq!((&line["status"], line.get("reason")), (&json!(200), None));
}

#[tokio::test]
async fn answers_that_were_given_up_and_retries_that_were_not_made_are_in_the_line() {
    let unwell = || {
        let answer = b"HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n".to_vec();
        Backend::scripted(move |_| vec![Action::ReadBody, Action::Send(answer.clone())])
    };
    let (first, second) = (unwell(), unwell());
    let (cluster, path, _directory) = logging(&[&first, &second]).await;
    assert_eq!(get(cluster.address(), "/").await.status, 503);
    let line = lines(&path, 1).await.remove(0);
    let waits: Vec<bool> =
        line["attempts"].as_array().unwrap().iter().map(|it| it["wait_ms"].is_f64()).collect();
    assert_eq!(waits, [false, true], "{line}");
    let attempts = json!([
        {"backend": "backend1", "status": 503},
        {"backend": "backend2", "status": 503},
    ]);
    let told = asked(&line, "GET", "/");
    assert_eq!((&told["attempts"], &told["status"]), (&attempts, &json!(503)));
    assert_eq!((&told["not_retried"], told.get("reason")), (&json!("retries_exhausted"), None));

    let broke = Retries { budget_percent: Some(0), budget_floor: Some(0), ..Retries::default() };
    cluster.api.change_pool(|pool| pool.retries = Some(broke)).await;
    let mut asked = 1;
    let told = eventually("the budget is empty", async || {
        assert_eq!(get(cluster.address(), "/").await.status, 503);
        asked += 1;
        let line = golden(lines(&path, asked).await.pop().unwrap());
        if line["not_retried"] == "retry_budget_exhausted" { Ok(line) } else { Err(line) }
    })
    .await;
    assert_eq!(told["attempts"].as_array().unwrap().len(), 1, "{told}");
}

#[tokio::test]
async fn own_answers_have_their_reason_in_the_line() {
    let (cluster, path, _directory) = logging(&[]).await;
    let address = cluster.address();
    cluster
        .api
        .change_listener(|listener| {
            listener.header_timeout_ms = 300;
            listener.max_body_bytes = 10;
        })
        .await;
    get(address, "/none").await.expect(503, "no_healthy_backend");
    let large = "POST /large HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nhello world";
    exchange(address, "POST", large).await.unwrap().expect(413, "body_too_large");
    let malformed = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    exchange(address, "GET", malformed).await.unwrap().expect(400, "client_protocol_error");
    exchange(address, "GET", "GET / HT").await.unwrap().expect(408, "client_header_timeout");
    cluster.api.delete("route", "default").await;
    get(address, "/lost").await.expect(404, "no_route");

    let lines = lines(&path, 5).await;
    let of = |status: u16| lines.iter().find(|line| line["status"] == status).unwrap();
    let own = |method, path, pool: Option<&str>, status, reason| {
        let line = asked(of(status), method, path);
        assert!(line["bytes_to_client"].as_u64().unwrap() > 100, "{line}");
        assert_eq!(line.get("pool").and_then(Value::as_str), pool, "{line}");
        assert_eq!((&line["attempts"], &line["bytes_to_backend"]), (&json!([]), &json!(0)));
        assert_eq!(line["reason"], reason);
    };
    own("GET", "/none", Some("default"), 503, "no_healthy_backend");
    own("POST", "/large", None, 413, "body_too_large");
    own("GET", "/lost", None, 404, "no_route");
    // What was not understood is not told.
    for (status, reason) in [(400, "client_protocol_error"), (408, "client_header_timeout")] {
        let line = golden(of(status).clone());
        let sent = line["bytes_to_client"].as_u64().unwrap();
        assert_eq!(
            line,
            json!({
                "attempts": [], "status": status, "reason": reason,
                "bytes_to_backend": 0, "bytes_to_client": sent,
            })
        );
    }
}

#[tokio::test]
async fn what_was_cut_off_is_told_with_whose_fault_it_was() {
    let backend = Backend::scripted(various);
    let (cluster, path, _directory) = logging(&[&backend]).await;
    cluster.api.change_listener(|listener| listener.body_idle_timeout_ms = 300).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET /cut HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let seen = client.reset().await.len();
    let line = asked(&lines(&path, 1).await[0], "GET", "/cut");
    assert_eq!((&line["status"], &line["reason"]), (&json!(200), &json!("backend_reset")));
    assert_eq!(line["attempts"], json!([{"backend": "backend1", "status": 200}]));
    assert!(line["bytes_to_client"].as_u64().unwrap() >= seen as u64, "{line}");

    let mut client = Client::connect(cluster.address()).await;
    client.send("GET /hang HTTP/1.1\r\nHost: test\r\n\r\n").await;
    backend.reached(2).await;
    let stream = client.into_stream();
    stream.set_zero_linger().unwrap();
    drop(stream);
    let line = asked(&lines(&path, 2).await[1], "GET", "/hang");
    assert_eq!((&line["status"], &line["reason"]), (&json!(0), &json!("client_abort")));
    assert_eq!(line["attempts"], json!([{"backend": "backend1", "reason": "client_abort"}]));
    assert_eq!(line["bytes_to_client"], 0);
    assert!(line["bytes_to_backend"].as_u64().unwrap() > 20, "{line}");

    let stalled = "POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf";
    exchange(cluster.address(), "POST", stalled).await.unwrap().expect(408, "client_body_timeout");
    let line = asked(&lines(&path, 3).await[2], "POST", "/up");
    assert_eq!((&line["status"], &line["reason"]), (&json!(408), &json!("client_body_timeout")));
    assert_eq!(line["attempts"], json!([{"backend": "backend1", "reason": "client_body_timeout"}]));
}

#[tokio::test]
async fn an_upgraded_connection_is_told_at_its_end() {
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
    let answer = format!("{switching}down");
    let backend = Backend::scripted(move |_| vec![Action::Send(answer.clone().into())]);
    let (cluster, path, _directory) = logging(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    client
        .send("GET /w HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!(client.take(4).await.unwrap(), b"down");
    client.send("upwards").await;
    // One that ends later and is told earlier.
    get(cluster.address(), "/").await;
    assert_eq!(lines(&path, 1).await[0]["path"], "/");
    client.finish().await;
    assert_eq!(client.end().await.unwrap(), b"");
    let line = asked(&lines(&path, 2).await[1], "GET", "/w");
    assert_eq!(
        line,
        json!({
            "pool": "default", "attempts": [{"backend": "backend1", "status": 101}], "status": 101,
            "bytes_to_backend": backend.reached(1).await[0].request.head.len() + 4 + 7,
            "bytes_to_client": response.head.len() + 4 + 4,
        })
    );
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_opened_anew_and_no_line_is_lost() {
    let backend = Backend::saying("a");
    let (cluster, path, directory) = logging(&[&backend]).await;
    let load = Load::start(&[cluster.address()], 8);
    let mut moved = Vec::new();
    for number in 0..5 {
        load.answered(300).await;
        let target = directory.path().join(format!("access.log.{number}"));
        fs::rename(&path, &target).unwrap();
        moved.push(target);
        cluster.proxy(0).signal(Signal::HUP);
        eventually(
            "the log is there again",
            async || {
                if path.exists() { Ok(()) } else { Err("it is not") }
            },
        )
        .await;
    }
    let tally = load.stop().await;
    tally.assert_flawless();
    let before: usize = moved.iter().map(count).sum();
    let rest = usize::try_from(tally.answered).unwrap() - before;
    assert_eq!(lines(&path, rest).await.len(), rest);
    assert!(moved.iter().all(|path| count(path) > 0));
}

fn count(path: &PathBuf) -> usize {
    parse(&fs::read_to_string(path).unwrap()).len()
}

#[tokio::test]
async fn the_last_lines_are_written_before_the_end() {
    let backend = Backend::saying("a");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let flag = format!("--access-log={}", path.display());
    let mut cluster = Cluster::start_with(program(), 1, &[&flag, "--accept-grace=0s"]).await;
    cluster.add_backends(&[backend.address()]).await;
    for _ in 0..5 {
        get(cluster.address(), "/").await;
    }
    let mut proxy = cluster.take_proxy(0);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exited().await, 0);
    assert_eq!(count(&path), 5);
}

#[tokio::test]
async fn a_full_disk_disturbs_nobody_and_is_counted() {
    let backend = Backend::saying("a");
    let cluster = one_proxy_with(&["--access-log=/dev/full"], &[&backend]).await;
    let load = Load::start(&[cluster.address()], 4);
    load.answered(500).await;
    let tally = load.stop().await;
    tally.assert_flawless();
    eventually("all lines are counted as lost", async || {
        let process = cluster.api.proxy("proxy-1").await.process.unwrap_or_default();
        if process.access_log_dropped == tally.answered {
            Ok(())
        } else {
            Err(process.access_log_dropped)
        }
    })
    .await;
    let complaints = cluster.proxy(0).process().complaints(&[]);
    let about_it = complaints.iter().filter(|line| line.contains("access log cannot be written"));
    assert_eq!(about_it.count(), 1, "once, not for every line: {complaints:#?}");
}

#[tokio::test]
async fn sighup_without_a_log_is_no_reason_to_end() {
    let backend = Backend::saying("a");
    let cluster = one_proxy_with(&["--access-log=off"], &[&backend]).await;
    for _ in 0..3 {
        cluster.proxy(0).signal(Signal::HUP);
        assert_eq!(get(cluster.address(), "/").await.text(), "a");
    }
    cluster.proxy(0).process().complaint("SIGHUP").await;
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_is_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let start = ["data-plane", "--host=127.0.0.1", "--port=0", "--admin=127.0.0.1:0", &data_dir];
    for path in ["/nowhere/access.log", "/"] {
        let flag = format!("--access-log={path}");
        let refused = program().run(&[&start[..], &[&flag]].concat()).await.expect(78);
        let complaint: Vec<&str> =
            refused.stderr.lines().filter(|line| line.contains("--access-log")).collect();
        assert_eq!(complaint.len(), 1, "{refused:?}");
        assert!(complaint[0].contains(path), "{refused:?}");
        assert!(complaint[0].contains("cannot be written"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_dash_means_stdout() {
    let backend = Backend::saying("a");
    let cluster = one_proxy_with(&["--access-log=-"], &[&backend]).await;
    assert_eq!(get(cluster.address(), "/p").await.text(), "a");
    let process: &Process = cluster.proxy(0).process();
    let line = process.line("\"path\":\"/p\"").await;
    assert_eq!(asked(&parse(&line)[0], "GET", "/p")["status"], 200);
}

#[tokio::test]
async fn a_pipe_without_a_reader_does_not_hold_up_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let backend = Backend::saying("a");
    let cluster = one_proxy_with(&[&format!("--access-log={}", path.display())], &[&backend]).await;
    assert_eq!(get(cluster.address(), "/p").await.text(), "a");
}
