//! The control plane's gRPC services, as short calls.

use std::net::SocketAddr;

use lb_proto::v1::{
    self as pb, fleet_client::FleetClient, object::Object as Any, registry_client::RegistryClient,
};
use tonic::{
    Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{PATIENCE, eventually::eventually};

/// A client of one control plane; connects again when that comes back.
#[derive(Clone, Debug)]
pub struct Api {
    channel: Channel,
}

impl Api {
    /// A client of the control plane at an address, which need not be there yet.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .expect("an address makes a URL")
            .timeout(PATIENCE);
        Self { channel: endpoint.connect_lazy() }
    }

    /// The connection, for other services.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The registry service.
    #[must_use]
    pub fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel())
    }

    /// The fleet service.
    #[must_use]
    pub fn fleet(&self) -> FleetClient<Channel> {
        FleetClient::new(self.channel())
    }

    /// Creates or replaces an object.
    pub async fn put(
        &self,
        object: Any,
        options: pb::WriteOptions,
    ) -> Result<pb::WriteResponse, Status> {
        self.put_as(object, pb::PutMode::Upsert, options).await
    }

    /// Creates or replaces an object, as the mode says.
    pub async fn put_as(
        &self,
        object: Any,
        mode: pb::PutMode,
        options: pb::WriteOptions,
    ) -> Result<pb::WriteResponse, Status> {
        let object = Some(pb::Object { object: Some(object), revision: 0 });
        let request = pb::PutRequest { object, mode: mode.into(), options: Some(options) };
        self.registry().put(request).await.map(Response::into_inner)
    }

    /// Puts an object and waits until all live proxies have applied it.
    pub async fn put_applied(&self, object: Any) -> pb::WriteResponse {
        let written = self.put(object, waiting()).await.expect("the write is accepted");
        assert_applied(&written);
        written
    }

    /// Adds a backend to the pool `default`, without waiting for its checks.
    pub async fn add_backend(&self, address: SocketAddr, weight: u32) -> String {
        let backend = pb::Backend {
            address: address.to_string(),
            weight: Some(weight),
            ..pb::Backend::default()
        };
        let written = self.put_applied(Any::Backend(backend)).await;
        match written.objects.into_iter().next().and_then(|object| object.object) {
            Some(Any::Backend(backend)) => backend.id,
            other => panic!("a backend was put and {other:?} came back"),
        }
    }

    /// Removes an object and waits until all live proxies have applied that.
    pub async fn delete(&self, kind: &str, name: &str) -> pb::WriteResponse {
        let request = pb::DeleteRequest {
            kind: kind.to_owned(),
            name: name.to_owned(),
            options: Some(waiting()),
        };
        let written = self.registry().delete(request).await.expect("the removal is accepted");
        written.into_inner()
    }

    /// All objects of a kind; of all kinds for an empty one.
    pub async fn list(&self, kind: &str) -> (Vec<Any>, u64) {
        let request = pb::ListRequest { kind: kind.to_owned(), pool: String::new() };
        let answer = self.registry().list(request).await.expect("it can be listed").into_inner();
        let objects = answer.objects.into_iter().filter_map(|object| object.object);
        (objects.collect(), answer.store_revision)
    }

    /// The store's revision.
    pub async fn revision(&self) -> u64 {
        self.list("pool").await.1
    }

    /// The pool `default`.
    pub async fn pool(&self) -> pb::Pool {
        let pools = self.list("pool").await.0;
        let found = pools.into_iter().find_map(|object| match object {
            Any::Pool(pool) if pool.name == "default" => Some(pool),
            _ => None,
        });
        found.expect("the pool default is always there")
    }

    /// Changes the pool `default` and waits until that is applied.
    pub async fn change_pool(&self, change: impl FnOnce(&mut pb::Pool)) {
        let mut pool = self.pool().await;
        change(&mut pool);
        self.put_applied(Any::Pool(pool)).await;
    }

    /// Changes the listener `default` and waits until that is applied.
    pub async fn change_listener(&self, change: impl FnOnce(&mut pb::Listener)) {
        let listeners = self.list("listener").await.0;
        let Some(Any::Listener(mut listener)) = listeners.into_iter().next() else {
            panic!("the listener default is always there")
        };
        change(&mut listener);
        self.put_applied(Any::Listener(listener)).await;
    }

    /// All proxies that are listed, or why they cannot be.
    pub async fn try_proxies(&self) -> Result<(Vec<pb::Proxy>, u64), Status> {
        let answer = self.fleet().list_proxies(pb::ListProxiesRequest {}).await?.into_inner();
        Ok((answer.proxies, answer.store_revision))
    }

    /// One proxy.
    pub async fn proxy(&self, id: &str) -> pb::Proxy {
        let (proxies, _) = self.try_proxies().await.expect("proxies can be listed");
        let found = proxies.into_iter().find(|proxy| proxy.id == id);
        found.unwrap_or_else(|| panic!("no proxy {id} is listed"))
    }

    /// One backend with all that is known about it.
    pub async fn backend(&self, id: &str) -> pb::BackendView {
        let request = pb::ListBackendsRequest { id: id.to_owned(), ..Default::default() };
        let answer = self.fleet().list_backends(request).await.expect("backends can be listed");
        answer.into_inner().backends.remove(0)
    }

    /// Waits until a backend has this verdict.
    pub async fn verdict(&self, id: &str, health: pb::Health) -> pb::BackendView {
        eventually(&format!("{id} is {health:?}"), async || {
            let view = self.backend(id).await;
            let status = view.status.clone().unwrap_or_default();
            if status.health() == health { Ok(view) } else { Err(format!("{status:?}")) }
        })
        .await
    }

    /// Waits until this many proxies have applied the newest revision and all enabled
    /// backends are up.
    pub async fn settled(&self, proxies: usize) {
        eventually(&format!("{proxies} proxies in sync, all backends up"), async || {
            let request = pb::GetStatusRequest {};
            let status = self.fleet().get_status(request).await.map_err(|e| e.to_string())?;
            let status = status.into_inner();
            let revision = status.version.as_ref().map_or(0, |version| version.revision);
            let synced = |p: &&pb::Proxy| p.state == "synced" && p.applied_revision >= revision;
            let up = status.pools.iter().all(|pool| pool.down + pool.unknown == 0);
            if up && status.proxies.iter().filter(synced).count() == proxies {
                return Ok(());
            }
            Err(format!("revision {revision}: {:#?} {:#?}", status.pools, status.proxies))
        })
        .await;
    }

    /// Events from now on, after this many past ones.
    pub async fn watch(&self, past: u32) -> Streaming<pb::Event> {
        let mut client = self.fleet();
        client
            .watch(pb::WatchRequest { past, ..Default::default() })
            .await
            .expect("events can be watched")
            .into_inner()
    }
}

/// Options of a write that waits until it is applied.
#[must_use]
pub fn waiting() -> pb::WriteOptions {
    let timeout_ms = u32::try_from(PATIENCE.as_millis()).expect("it is short");
    pb::WriteOptions { wait: Some(pb::Wait { timeout_ms }), ..pb::WriteOptions::default() }
}

#[track_caller]
fn assert_applied(written: &pb::WriteResponse) {
    let progress = written.progress.as_ref().expect("a write that waits tells how far it got");
    assert!(progress.done && progress.rejections.is_empty(), "{progress:?}");
    assert_eq!(progress.applied, progress.proxies, "{progress:?}");
}

/// A backend that takes half a kilobyte in the store, and gets no requests.
#[must_use]
pub fn large_backend(number: usize) -> Any {
    let labels = (0..8).map(|n| (format!("l{n}"), "x".repeat(60))).collect();
    Any::Backend(pb::Backend {
        id: format!("b{number}"),
        pool: "default".to_owned(),
        address: format!("10.0.{}.{}:80", number >> 8, number & 255),
        admin_state: pb::AdminState::Disabled.into(),
        labels,
        ..pb::Backend::default()
    })
}
