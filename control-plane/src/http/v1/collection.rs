//! The five kinds that are written, and how they are called in paths, bodies and schemas.

use lb_core::model::Kind;
use lb_proto::document::schema::keys;

/// One kind's face.
#[derive(Clone, Copy, Debug)]
pub(super) struct Collection {
    pub(super) kind: Kind,
    /// In paths and documents.
    pub(super) plural: &'static str,
    /// The key that holds the name.
    pub(super) name_key: &'static str,
    /// What is sent.
    pub(super) schema: &'static str,
    /// What is answered.
    pub(super) stored_schema: &'static str,
}

pub(super) const POOLS: Collection = Collection {
    kind: Kind::Pool,
    plural: "pools",
    name_key: "name",
    schema: "Pool",
    stored_schema: "StoredPool",
};

pub(super) const BACKENDS: Collection = Collection {
    kind: Kind::Backend,
    plural: "backends",
    name_key: "id",
    schema: "Backend",
    stored_schema: "StoredBackend",
};

pub(super) const LISTENERS: Collection = Collection {
    kind: Kind::Listener,
    plural: "listeners",
    name_key: "name",
    schema: "Listener",
    stored_schema: "StoredListener",
};

pub(super) const ROUTES: Collection = Collection {
    kind: Kind::Route,
    plural: "routes",
    name_key: "name",
    schema: "Route",
    stored_schema: "StoredRoute",
};

pub(super) const LIMITS: Collection = Collection {
    kind: Kind::Limit,
    plural: "limits",
    name_key: "name",
    schema: "Limit",
    stored_schema: "StoredLimit",
};

/// All of them.
pub(super) const COLLECTIONS: [Collection; 5] = [POOLS, BACKENDS, LISTENERS, ROUTES, LIMITS];

impl Collection {
    /// The keys that can be declared.
    pub(super) fn keys(&self) -> &'static [&'static str] {
        keys(self.kind)
    }
}
