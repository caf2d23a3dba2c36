//! What the workers serve from: compiled from what is held, and handed to all of them.
//!
//! What is held changes when a control plane says so. What is made of it may change in between:
//! a backend that fails for this proxy is left out, one that recovers comes back, and a
//! control plane that is lost leaves decisions to this proxy. So there are two who compile, and
//! one at a time does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::{balance::Phase, model::ListenerName, sync::Subscriber};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    live::{Compiler, Config, Trouble},
    worker::Fleet,
};

/// Between two looks at backends that fail: compiling a large pool takes long.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// The configuration in use, and how it comes about.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Shared with those who keep it on disk.
    held: Arc<Mutex<Subscriber>>,
    /// Held until all workers serve from what was compiled, so that configurations come to
    /// them in order.
    compiler: tokio::sync::Mutex<Compiler>,
    trouble: Arc<Trouble>,
    fleet: Arc<Fleet>,
    /// For those who report on it.
    config: watch::Sender<Arc<Config>>,
}

impl Serving {
    pub(crate) fn new(
        subscriber: Subscriber,
        compiler: Compiler,
        fleet: Arc<Fleet>,
        config: watch::Sender<Arc<Config>>,
    ) -> Self {
        Self {
            held: Arc::new(Mutex::new(subscriber)),
            trouble: compiler.trouble(),
            compiler: tokio::sync::Mutex::new(compiler),
            fleet,
            config,
        }
    }

    /// What is held, for those who keep it on disk.
    pub(crate) fn held(&self) -> Arc<Mutex<Subscriber>> {
        Arc::clone(&self.held)
    }

    pub(crate) fn subscriber(&self) -> MutexGuard<'_, Subscriber> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles what is held and waits until all workers serve from it.
    pub(crate) async fn apply(&self) {
        let mut compiler = self.compiler.lock().await;
        self.compile(&mut compiler).await;
    }

    /// Looks at backends that fail whenever one does, for as long as it is polled.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            self.trouble.look.notified().await;
            self.apply().await;
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// A control plane is heard, whose clock tells `now_unix_ms`; 0 when it does not say.
    pub(crate) async fn hear(&self, now_unix_ms: u64) {
        let mut compiler = self.compiler.lock().await;
        if compiler.hear(now_unix_ms) {
            self.compile(&mut compiler).await;
        }
    }

    /// No control plane is heard any more.
    pub(crate) async fn lose(&self) {
        let mut compiler = self.compiler.lock().await;
        if compiler.lose() {
            self.compile(&mut compiler).await;
        }
    }

    /// Where this proxy stands among the others.
    pub(crate) async fn set_phase(&self, phase: Phase) {
        self.compiler.lock().await.set_phase(phase);
    }

    /// Whether `/lb/...` is management.
    pub(crate) async fn exposes_management(&self) -> bool {
        self.compiler.lock().await.exposes_management()
    }

    /// Takes note of where the control plane's HTTP is, or why it cannot be reached. Without a
    /// configuration nothing is served yet, and the first one brings this along.
    pub(crate) async fn set_management(&self, told: Result<Vec<SocketAddr>, String>) {
        let mut compiler = self.compiler.lock().await;
        let is_serving = self.subscriber().held().is_some();
        if compiler.set_management(told) && is_serving {
            self.compile(&mut compiler).await;
        }
    }

    async fn compile(&self, compiler: &mut Compiler) {
        let (snapshot, version) = {
            let subscriber = self.subscriber();
            (Arc::clone(subscriber.snapshot()), subscriber.held().map(|held| held.version))
        };
        let config = Arc::new(compiler.compile(&snapshot, version));
        self.fleet.apply(Arc::clone(&config)).await;
        let known_before = |name: &ListenerName| {
            let before = self.config.borrow();
            before.version.is_none() || before.unknown_listeners().all(|unknown| unknown != name)
        };
        for name in config.unknown_listeners().filter(|name| known_before(name)) {
            warn!(
                listener = %name,
                "this process accepts for a listener that the control plane does not know, and \
                 answers 503; add it with lbctl add-listener {name}, or start the process without it"
            );
        }
        compiler.bury(self.config.send_replace(config));
    }
}
