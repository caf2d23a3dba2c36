//! Drains: what a backend has is finished, its end is seen, and nobody needs to wait for it.

use lb_proto::v1 as pb;
use lb_tests::{
    api::large_backend,
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::Cluster,
    eventually::eventually,
    load::Load,
    process::{Process, Program},
};
use rustix::process::Signal;
use tokio_stream::StreamExt as _;

use crate::program;

const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";

/// Says its name. A chat is an upgraded connection that ends with the gate of its number, and
/// so does the second half of `/long`.
fn busy(name: &'static str) -> (Backend, [Gate; 2]) {
    let gates = [Gate::default(), Gate::default()];
    let [first, second] = gates.clone();
    let backend = Backend::scripted(move |request| {
        let chat = |gate: &Gate| {
            vec![Action::Send(SWITCHING.to_vec()), Action::Await(gate.clone()), Action::Close]
        };
        match request.path() {
            "/chat/0" => chat(&first),
            "/chat/1" => chat(&second),
            "/long" => {
                let half = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf".to_vec();
                let wait = Action::Await(first.clone());
                vec![Action::Send(half), wait, Action::Send(b"done".to_vec())]
            }
            "/wait" => vec![Action::Await(first.clone()), Action::Send(ok(name))],
            _ => vec![Action::Send(ok(name))],
        }
    });
    (backend, gates)
}

/// A backend that has one upgraded connection through each proxy, and another one that has
/// nothing.
struct Scene {
    cluster: Cluster,
    id: String,
    gates: [Gate; 2],
    chats: Vec<Client>,
    backends: Vec<Backend>,
}

impl Scene {
    /// With another backend beside it.
    async fn set(proxies: usize, control_plane_args: &[&str]) -> Self {
        let mut scene = Self::alone(proxies, control_plane_args).await;
        scene.add_second().await;
        scene
    }

    async fn alone(proxies: usize, control_plane_args: &[&str]) -> Self {
        Self::of(program(), proxies, control_plane_args).await
    }

    async fn of(program: Program, proxies: usize, control_plane_args: &[&str]) -> Self {
        let (first, gates) = busy("first");
        let cluster = Cluster::start_as(program, proxies, &[], control_plane_args).await;
        let id = cluster.add_backends(&[first.address()]).await.remove(0);
        let mut chats = Vec::new();
        for (number, address) in cluster.addresses().into_iter().enumerate() {
            let mut chat = Client::connect(address).await;
            let asked = format!(
                "GET /chat/{number} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
            );
            chat.send(asked).await;
            assert_eq!(chat.response().await.status, 101);
            chats.push(chat);
        }
        Self { cluster, id, gates, chats, backends: vec![first] }
    }

    /// Adds a backend that keeps nobody waiting.
    async fn add_second(&mut self) {
        let (second, gates) = busy("second");
        gates.iter().for_each(Gate::open);
        self.cluster.add_backends(&[second.address()]).await;
        self.backends.push(second);
    }

    /// The backend ends the last chat, and so does the client.
    async fn end_chat(&mut self) {
        let mut chat = self.chats.pop().unwrap();
        self.gates[self.chats.len()].open();
        chat.rest().await;
    }

    /// Waits until every live proxy has told what it has, and it is this many.
    async fn left(&self, upgraded: u32) -> pb::DrainReport {
        eventually(&format!("{upgraded} upgraded connections are left"), async || {
            let drain = self.cluster.api.backend(&self.id).await.drain.unwrap_or_default();
            let live = || drain.proxies.iter().filter(|share| share.state != "lost");
            let sum: u32 = live().map(|share| share.upgraded).sum();
            let complete = !drain.awaits_proxies && live().all(|share| share.state == "told");
            if complete && sum == upgraded { Ok(drain) } else { Err(format!("{drain:?}")) }
        })
        .await
    }

    /// Waits until the backend is not there any more.
    async fn removed(&self) {
        let id = &self.id;
        let args = ["wait", &format!("backend/{id}"), "--for", "removed", "--timeout", "20s"];
        drop(self.cluster.lbctl(&args).await.expect(0));
    }

    /// A command of lbctl that goes on while the test does something else.
    fn lbctl_beside(&self, args: &[&str]) -> Process {
        let server = format!("http://{}", self.cluster.grpc());
        let args = ["--server", &server].into_iter().chain(args.iter().copied());
        self.cluster.program().start("lbctl", &args.map(str::to_owned).collect::<Vec<_>>())
    }
}

/// The types of the events of one backend, up to the last of these.
async fn events_of(events: tonic::Streaming<pb::Event>, id: &str, last: &str) -> Vec<String> {
    let mut types = Vec::new();
    let mut events = events.filter_map(Result::ok).filter(|e| e.kind == "backend" && e.name == id);
    while let Some(event) = events.next().await {
        types.push(event.r#type);
        if types.last().is_some_and(|seen| seen == last) {
            break;
        }
    }
    types
}

#[tokio::test]
async fn a_drain_under_load_fails_nothing_and_the_backend_goes_with_its_last_connection() {
    let mut scene = Scene::set(2, &[]).await;
    let events = scene.cluster.api.watch(0).await;
    let load = Load::start(&scene.cluster.addresses(), 2);
    load.answered_by("first").await;
    let drain = ["drain-backend", &scene.id, "--remove"];
    let told = scene.cluster.lbctl(&drain).await.expect(0);
    assert!(told.stdout.contains("finishes what it has, and is then removed"), "{}", told.stdout);
    scene.left(2).await;
    let before = load.bodies().get("first").copied();
    load.answered(200).await;
    assert_eq!(load.bodies().get("first").copied(), before, "it gets nothing new");
    let listed = scene.cluster.lbctl(&["get", "backends"]).await.expect(0);
    assert!(listed.stdout.contains("draining (2 left)"), "{}", listed.stdout);
    // One of two is not the end.
    scene.end_chat().await;
    scene.left(1).await;
    scene.end_chat().await;
    let types = events_of(events, &scene.id, "object_removed").await;
    assert_eq!(
        types,
        ["object_changed", "drain_started", "object_changed", "drained", "object_removed"]
    );
    load.answered(50).await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_cut_and_counted() {
    let mut scene = Scene::alone(1, &[]).await;
    let mut long = Client::connect(scene.cluster.address()).await;
    long.send("GET /long HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let head = long.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(long.take(4).await.unwrap(), b"half");
    scene.add_second().await;
    let events = scene.cluster.api.watch(0).await;
    let drain = ["drain-backend", &scene.id, "--timeout", "1s", "--wait"];
    let told = scene.cluster.lbctl(&drain).await.expect(0);
    let expected = format!("{} is drained: 2 cut at the deadline", scene.id);
    assert!(told.stdout.contains(&expected), "{}", told.stdout);
    assert!(told.stderr.contains("left: proxy-1 1 request, 1 upgraded"), "{}", told.stderr);
    assert_eq!(long.reset().await, b"", "it must not look complete");
    assert_eq!(scene.chats.remove(0).reset().await, b"");
    let types = events_of(events, &scene.id, "drained").await;
    assert!(types.contains(&"drain_deadline".to_owned()), "{types:?}");
    let listed = scene.cluster.lbctl(&["get", "backends"]).await.expect(0);
    assert!(listed.stdout.contains("drained"), "it stays: {}", listed.stdout);
    let metrics = get(scene.cluster.proxy(0).admin(), "/metrics").await.text();
    let counted = metrics.lines().any(|l| l.contains("\"drain_deadline\"") && l.ends_with(" 2"));
    assert!(counted, "{metrics}");
}

#[tokio::test]
async fn a_request_without_an_answer_goes_elsewhere_at_the_deadline_if_it_may() {
    let scene = Scene::set(1, &[]).await;
    let mut answers = Vec::new();
    for (reached, head) in
        [([2, 1], "GET /wait HTTP/1.1"), ([3, 2], "POST /wait HTTP/1.1\r\nContent-Length: 0")]
    {
        // Round robin: one of two goes to the backend that is to drain, and waits there.
        for _ in 0..2 {
            let mut client = Client::connect(scene.cluster.address()).await;
            client.send(format!("{head}\r\nHost: test\r\n\r\n")).await;
            answers.push(client);
        }
        // Both have taken their turns before the next two are sent.
        for (backend, reached) in scene.backends.iter().zip(reached) {
            backend.reached(reached).await;
        }
    }
    let drain = ["drain-backend", &scene.id, "--timeout", "100ms"];
    drop(scene.cluster.lbctl(&drain).await.expect(0));
    let mut texts = Vec::new();
    for mut client in answers {
        texts.push(client.response().await.text());
    }
    texts[2..].sort();
    assert_eq!((&*texts[0], &*texts[1], &*texts[2]), ("second", "second", "second"));
    assert!(texts[3].contains("drain_deadline"), "{texts:?}");
}

#[tokio::test]
async fn a_drain_goes_on_when_the_control_plane_comes_back() {
    let args = ["--heartbeat=200ms", "--lease=1s"];
    let mut scene = Scene::set(2, &args).await;
    drop(scene.cluster.lbctl(&["drain-backend", &scene.id, "--remove"]).await.expect(0));
    let before = scene.left(2).await;
    let since = scene.cluster.api.backend(&scene.id).await.backend.unwrap().drain.unwrap();
    scene.cluster.kill_control_plane().await;
    // Nothing is cut, and nothing new comes, while it is away.
    for address in scene.cluster.addresses() {
        assert_eq!(get(address, "/").await.text(), "second");
    }
    scene.cluster.start_control_plane().await;
    let after = scene.left(2).await;
    assert!(after.left_ms < before.left_ms, "the time goes on: {before:?} {after:?}");
    let drain = scene.cluster.api.backend(&scene.id).await.backend.unwrap().drain;
    assert_eq!(drain, Some(since));
    scene.end_chat().await;
    scene.end_chat().await;
    scene.removed().await;
}

#[tokio::test]
async fn a_deadline_holds_over_a_restart_of_the_control_plane() {
    let args = ["--heartbeat=200ms", "--lease=1s"];
    let mut scene = Scene::set(1, &args).await;
    drop(scene.cluster.lbctl(&["drain-backend", &scene.id, "--timeout", "2s"]).await.expect(0));
    // In order: who has come within a tenth of a second is noted then, too.
    let mut former = scene.cluster.take_control_plane();
    former.signal(Signal::TERM);
    assert_eq!(former.exited().await, 0);
    scene.cluster.start_control_plane().await;
    assert_eq!(scene.chats.remove(0).reset().await, b"");
}

#[tokio::test]
async fn whoever_watches_a_drain_may_leave_and_somebody_else_may_end_it() {
    let scene = Scene::set(1, &[]).await;
    let drain = ["drain-backend", &scene.id, "--wait"];
    let mut watching = scene.lbctl_beside(&drain);
    watching.complaint("left: proxy-1 0 requests, 1 upgraded").await;
    watching.signal(Signal::INT);
    assert_eq!(watching.exited().await, 130);
    assert!(watching.stderr().contains("goes on in the control plane"), "{}", watching.stderr());
    scene.left(1).await;
    let described = scene.cluster.lbctl(&["describe", "backend", &scene.id]).await.expect(0);
    for part in ["draining (1 left)", "proxy-1 0 requests, 1 upgraded", "--for drained"] {
        assert!(described.stdout.contains(part), "{part}: {}", described.stdout);
    }

    let mut watching = scene.lbctl_beside(&drain);
    watching.complaint("left: proxy-1 0 requests, 1 upgraded").await;
    drop(scene.cluster.lbctl(&["enable-backend", &scene.id]).await.expect(0));
    assert_eq!(watching.exited().await, 5);
    assert!(watching.stderr().contains("it is enabled again"), "{}", watching.stderr());
    assert_eq!(scene.cluster.api.backend(&scene.id).await.drain, None);
}

#[tokio::test]
async fn a_lost_proxy_is_named_and_does_not_hold_a_drain_up() {
    let mut scene = Scene::set(2, &[]).await;
    let mut watching = scene.lbctl_beside(&["drain-backend", &scene.id, "--wait"]);
    scene.left(2).await;
    scene.end_chat().await;
    scene.left(1).await;
    scene.cluster.kill_proxy(0).await;
    assert_eq!(watching.exited().await, 0);
    let told = watching.stdout();
    assert!(told.contains("is drained") && told.contains("what proxy-1 had is unknown"), "{told}");
}

#[tokio::test]
async fn whoever_drains_the_only_backend_is_warned() {
    let (backend, _) = busy("only");
    let cluster = Cluster::start(program(), 1).await;
    let id = cluster.add_backends(&[backend.address()]).await.remove(0);
    let told = cluster.lbctl(&["drain-backend", &id, "--wait"]).await.expect(0);
    assert!(told.stderr.contains("has no other backend that serves"), "{}", told.stderr);
    assert!(told.stdout.contains(&format!("{id} is drained: nothing was cut")), "{}", told.stdout);
    assert_eq!(get(cluster.address(), "/").await.status, 503);
    drop(cluster.lbctl(&["wait", &format!("backend/{id}"), "--for", "drained"]).await.expect(0));
}

/// The disk fills up while the backend drains.
#[tokio::test]
async fn a_drain_whose_end_is_refused_says_why_and_ends_when_there_is_room() {
    let mut scene = Scene::of(program().with_file_size(256), 1, &[]).await;
    scene.add_second().await;
    let mut events = scene.cluster.api.watch(0).await;
    drop(scene.cluster.lbctl(&["drain-backend", &scene.id, "--remove"]).await.expect(0));
    scene.left(1).await;
    for number in 0.. {
        let object = large_backend(number);
        if scene.cluster.api.put(object, pb::WriteOptions::default()).await.is_err() {
            break;
        }
    }
    scene.end_chat().await;
    let reason = loop {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type == "drain_held_up" {
            break event.reason.unwrap();
        }
    };
    assert_eq!(reason.code, "write_refused");
    assert!(reason.message.contains("as soon as the store does"), "{reason:?}");
    for (args, told) in [
        (&["describe", "backend", &scene.id][..], "held up"),
        (&["status"], "it cannot go on: the write did not take effect"),
    ] {
        let text = scene.cluster.lbctl(args).await.expect(0).stdout;
        assert!(text.contains(told), "{told}: {text}");
    }
    scene.cluster.control_plane().lift_file_size();
    loop {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type == "object_removed" && event.name == scene.id {
            break;
        }
    }
}
