//! Real proxies before a scripted control plane, which tells them of backends whatever a test
//! wants them to believe.

use std::{
    net::SocketAddr,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use lb_proto::v1::{self as pb, Health, object::Object as Any, proxy_message::Message as Up};
use tempfile::TempDir;

use crate::{
    backend::Backend,
    process::{Process, Program},
    scripted::{ControlPlane, Draft, Session},
};

/// Proxies `proxy-1`, `proxy-2`, ... that serve what they were told last.
#[derive(Debug)]
pub struct Scene {
    /// Nobody, once it was lost.
    pub control_plane: Option<ControlPlane>,
    proxies: Vec<Proxy>,
    directory: TempDir,
}

#[derive(Debug)]
struct Proxy {
    /// Ended, once the control plane was lost.
    session: Option<Session>,
    process: Process,
    traffic: SocketAddr,
    admin: SocketAddr,
}

impl Scene {
    /// Starts one proxy, and tells it of the pool and of these backends.
    pub async fn start(program: Program, pool: pb::Pool, backends: Vec<Draft>) -> Self {
        Self::start_as(program, ControlPlane::start().await, 1, &[], pool, backends).await
    }

    /// The same with this control plane, so many proxies, and further arguments for them.
    pub async fn start_as(
        program: Program,
        mut control_plane: ControlPlane,
        proxies: usize,
        args: &[&str],
        pool: pb::Pool,
        backends: Vec<Draft>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut scene = Self { control_plane: None, proxies: Vec::new(), directory };
        for number in 1..=proxies {
            let id = format!("proxy-{number}");
            let mut all = vec![
                "data-plane".to_owned(),
                format!("--id={id}"),
                format!("--control-plane={}", control_plane.url()),
                "--host=127.0.0.1".to_owned(),
                "--port=0".to_owned(),
                "--admin=127.0.0.1:0".to_owned(),
                format!("--data-dir={}", scene.path().join(&id).display()),
                "--exit-with-parent".to_owned(),
            ];
            all.extend(args.iter().map(|arg| (*arg).to_owned()));
            let process = program.start(&id, &all);
            let listening = process.listening().await;
            let (traffic, admin) = (listening.address("default"), listening.address("admin"));
            let mut session = control_plane.session().await;
            let objects = [basics(pool.clone()), backends.clone()].concat();
            let answer = session.snapshot(objects).await;
            assert!(matches!(answer, Up::Ack(_)), "{answer:?}");
            scene.proxies.push(Proxy { session: Some(session), process, traffic, admin });
        }
        scene.control_plane = Some(control_plane);
        scene
    }

    /// A directory of the test's own.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Tells all proxies of changes, which they serve from when it returns.
    ///
    /// # Panics
    ///
    /// Once the control plane was lost.
    pub async fn tell(&mut self, objects: Vec<Draft>) {
        for proxy in &mut self.proxies {
            let session = proxy.session.as_mut().expect("the control plane was not lost");
            let answer = session.delta(objects.clone()).await;
            assert!(matches!(answer, Up::Ack(_)), "{answer:?}");
        }
    }

    /// Where the proxies take traffic.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.proxies.iter().map(|proxy| proxy.traffic).collect()
    }

    /// Where the first one does.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.proxies[0].traffic
    }

    /// The first one's admin address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.proxies[0].admin
    }

    /// The first one's process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.proxies[0].process
    }

    /// The control plane.
    ///
    /// # Panics
    ///
    /// Once it was lost.
    pub fn control_plane(&mut self) -> &mut ControlPlane {
        self.control_plane.as_mut().expect("it was not lost")
    }

    /// Takes the control plane away.
    pub fn lose_control_plane(&mut self) {
        self.control_plane = None;
        // Connections outlive the server that accepted them.
        for proxy in &mut self.proxies {
            proxy.session = None;
        }
    }
}

/// What every proxy needs in order to serve from this pool.
#[must_use]
pub fn basics(pool: pb::Pool) -> Vec<Draft> {
    let route = pb::Route {
        name: "default".to_owned(),
        listener: "default".to_owned(),
        pool: pool.name.clone(),
        ..pb::Route::default()
    };
    let listener = pb::Listener { name: "default".to_owned(), ..pb::Listener::default() };
    vec![Any::Pool(pool).into(), Any::Listener(listener).into(), Any::Route(route).into()]
}

/// The pool `default`.
#[must_use]
pub fn pool(algorithm: &str) -> pb::Pool {
    let (name, algorithm) = ("default".to_owned(), algorithm.to_owned());
    pb::Pool { name, algorithm, ..pb::Pool::default() }
}

/// A backend of the pool `default`, and a status.
#[must_use]
pub fn backend(backend: &Backend, status: pb::BackendStatus) -> [Draft; 2] {
    let wire = pb::Backend {
        id: status.backend.clone(),
        pool: "default".to_owned(),
        address: backend.address().to_string(),
        incarnation: status.incarnation,
        ..pb::Backend::default()
    };
    [Any::Backend(wire).into(), status.into()]
}

/// The status of a backend that is up.
#[must_use]
pub fn up(id: &str, backend: &Backend) -> pb::BackendStatus {
    pb::BackendStatus {
        backend: id.to_owned(),
        incarnation: 1,
        health: Health::Up.into(),
        addresses: vec![backend.address().to_string()],
        ..pb::BackendStatus::default()
    }
}

/// The status of a backend that was up once, and is down for this reason.
#[must_use]
pub fn down(id: &str, backend: &Backend, code: &str) -> pb::BackendStatus {
    pb::BackendStatus {
        health: Health::Down.into(),
        reason: Some(pb::Reason { code: code.to_owned(), message: String::new() }),
        was_up: true,
        ..up(id, backend)
    }
}

/// The status of a backend whose breaker is open since now.
#[must_use]
pub fn open(id: &str, backend: &Backend, open_for_ms: u32) -> pb::BackendStatus {
    let ejection = pb::Ejection {
        by: "breaker".to_owned(),
        open_for_ms,
        times: 1,
        since_unix_ms: unix_ms(),
        ..pb::Ejection::default()
    };
    pb::BackendStatus { ejection: Some(ejection), ..up(id, backend) }
}

/// The status of a backend whose breaker is half-open.
#[must_use]
pub fn half_open(id: &str, backend: &Backend) -> pb::BackendStatus {
    let mut status = open(id, backend, 5000);
    if let Some(ejection) = &mut status.ejection {
        ejection.half_open = true;
    }
    status
}

/// The wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where tests read the wall clock")]
pub fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
