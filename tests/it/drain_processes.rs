//! Drains, and processes that were taken over: those nobody follows any more, and that have
//! something left.

use lb_proto::v1 as pb;
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::Client,
    cluster::Cluster,
    eventually::eventually,
    process::Process,
};
use rustix::process::Signal;

use crate::program;

/// Each start takes over if there is somebody to take over from.
const ARGS: [&str; 3] = ["--takeover", "--accept-grace=200ms", "--workers=1"];
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";

/// A process that was taken over with an upgraded connection to a backend.
struct Scene {
    cluster: Cluster,
    id: String,
    former: Process,
    chat: Client,
    gate: Gate,
    _backends: [Backend; 2],
}

impl Scene {
    /// If the control plane is away while the proxy is taken over, then it is back, and so is the
    /// new process; the former one stands still.
    async fn set(is_away: bool) -> Self {
        let gate = Gate::default();
        let held = gate.clone();
        let backend = Backend::scripted(move |request| match request.path() {
            "/chat" => {
                let wait = Action::Await(held.clone());
                vec![Action::Send(SWITCHING.to_vec()), wait, Action::Close]
            }
            _ => vec![Action::Send(ok("drained"))],
        });
        let other = Backend::saying("other");
        let mut cluster = Cluster::start_with(program(), 1, &ARGS).await;
        let id = cluster.add_backends(&[backend.address()]).await.remove(0);
        let mut chat = Client::connect(cluster.address()).await;
        let asked =
            "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
        chat.send(asked).await;
        assert_eq!(chat.response().await.status, 101);
        cluster.add_backends(&[other.address()]).await;
        if is_away {
            cluster.kill_control_plane().await;
        }
        let former = cluster.take_proxy(0);
        cluster.start_proxy(0).await;
        if is_away {
            former.signal(Signal::STOP);
            cluster.start_control_plane().await;
        }
        cluster.settled().await;
        Self { cluster, id, former, chat, gate, _backends: [backend, other] }
    }

    /// A drain waits for what the former process has left, and ends with it.
    async fn drains_with_the_former(self) {
        drop(self.cluster.lbctl(&["drain-backend", &self.id]).await.expect(0));
        let told = eventually("it is known what the former process has", async || {
            let view = self.cluster.api.backend(&self.id).await;
            let wish = view.backend.and_then(|backend| backend.drain).unwrap_or_default();
            assert!(!wish.ended, "it has ended: {:?}", view.drain);
            let drain = view.drain.unwrap_or_default();
            let left: u32 = drain.proxies.iter().map(|share| share.upgraded).sum();
            if left == 1 && !drain.awaits_proxies { Ok(drain) } else { Err(format!("{drain:?}")) }
        })
        .await;
        assert!(told.proxies.iter().all(|share: &pb::DrainShare| share.proxy_id == "proxy-1"));
        let Self { cluster, mut former, mut chat, .. } = self;
        assert_eq!(former.exit_code(), None);
        // The backend ends it, and so does the client.
        self.gate.open();
        chat.rest().await;
        drop(chat);
        let wait = ["wait", &format!("backend/{}", self.id), "--for", "drained", "--timeout=20s"];
        drop(cluster.lbctl(&wait).await.expect(0));
        assert_eq!(former.exited().await, 0);
    }
}

#[tokio::test]
async fn a_process_that_was_taken_over_while_the_control_plane_was_away_holds_a_drain_up() {
    let scene = Scene::set(true).await;
    drop(scene.cluster.lbctl(&["drain-backend", &scene.id]).await.expect(0));
    eventually("the new process has nothing, and the former one is waited for", async || {
        let view = scene.cluster.api.backend(&scene.id).await;
        assert!(!view.backend.and_then(|backend| backend.drain).unwrap_or_default().ended);
        let drain = view.drain.unwrap_or_default();
        let has_told = drain.proxies.iter().any(|share| share.state == "told");
        if has_told && drain.awaits_proxies { Ok(()) } else { Err(format!("{drain:?}")) }
    })
    .await;
    scene.former.signal(Signal::CONT);
    scene.drains_with_the_former().await;
}

#[tokio::test]
async fn a_process_that_goes_on_when_its_proxy_has_stopped_holds_a_drain_up() {
    let mut scene = Scene::set(false).await;
    let mut last = scene.cluster.take_proxy(0);
    last.signal(Signal::TERM);
    assert_eq!(last.exited().await, 0);
    assert_eq!(scene.cluster.api.proxy("proxy-1").await.state, "stopped");
    scene.drains_with_the_former().await;
}

#[tokio::test]
async fn it_does_so_after_a_restart_of_the_control_plane_to_which_no_proxy_is_connected() {
    let mut scene = Scene::set(false).await;
    let mut last = scene.cluster.take_proxy(0);
    last.signal(Signal::TERM);
    assert_eq!(last.exited().await, 0);
    scene.cluster.kill_control_plane().await;
    scene.cluster.start_control_plane().await;
    scene.drains_with_the_former().await;
}
