//! Discovery with a real registry, a file as the source, and virtual time.

use std::path::Path;

use lb_core::model::{Pool, Resource};
use tokio::time::timeout;

use super::*;
use crate::{
    registry::{Item, PutMode, WriteRequest},
    store::faulty::{Fault, Faulty},
};

/// More than any number of attempts takes; time is virtual.
const PATIENCE: Duration = Duration::from_secs(600);

struct World {
    faulty: Faulty,
    registry: Registry,
    directory: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    /// A pool that follows a file.
    async fn new() -> Self {
        let (faulty, events) = (Faulty::new(), Arc::new(EventLog::new()));
        let registry = Registry::start(Box::new(faulty.clone()), Arc::clone(&events)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let world = Self { faulty, registry, directory, _stop: stop.clone().drop_guard() };
        world.tell(&[]);
        let path: Arc<Path> = world.path().into();
        let mut pool = Pool::new(PoolName::default_pool());
        pool.sources = vec![Source::File { path: path.to_str().unwrap().into() }];
        let resource = Box::new(Resource::Pool(pool));
        let item = Item::Put { resource, mode: PutMode::Upsert, assign_id: false };
        let request = WriteRequest { items: vec![item], ..WriteRequest::default() };
        world.registry.write(request).await.unwrap();
        let resolver = Arc::new(Resolver::new(&[]));
        tokio::spawn(run(world.registry.clone(), events, Arc::default(), resolver, stop));
        world
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("backends")
    }

    /// Has the file name these.
    fn tell(&self, addresses: &[&str]) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, addresses.join("\n")).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    /// Waits until the pool has so many backends.
    async fn until(&self, count: usize) {
        let mut revisions = self.registry.revisions();
        let found = async {
            while self.registry.read(|view| view.catalog.backends().len()) != count {
                revisions.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{count} backends"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_is_tried_again_though_the_source_tells_nothing_new() {
    let world = World::new().await;
    // As often as the same answer is looked at.
    world.faulty.will(&[Fault::Commit, Fault::Commit]);
    world.tell(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    world.until(3).await;
    assert!(world.faulty.has_met_all());
    world.faulty.will(&[Fault::Commit, Fault::Commit]);
    world.tell(&["10.0.0.1:80", "10.0.0.2:80"]);
    world.until(2).await;
    assert!(world.faulty.has_met_all());
}
