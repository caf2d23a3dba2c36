//! A pool among several of a route: as text, as flags have it, or as a table, as it is written.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, OneOfBuilder, RefOr, Schema, Type,
        schema::{AdditionalProperties, RefBuilder},
    },
};

use super::unit::Number;

/// A pool among several of a route.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct DeclaredShare {
    /// Its name.
    pub pool: String,
    /// Its share beside the others; 1 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Number>,
}

/// The table of keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    pool: String,
    weight: Option<Number>,
}

/// The pool that a text names, `NAME` or `NAME=WEIGHT`.
pub(super) fn pool_of(text: &str) -> &str {
    text.split_once('=').map_or(text, |(pool, _)| pool)
}

impl<'de> Deserialize<'de> for DeclaredShare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = DeclaredShare;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pool of a route; write \"NAME\", or with its weight \"NAME=90\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DeclaredShare, E> {
        let weight = match text.split_once('=') {
            None => None,
            Some((_, weight)) => Some(Number(weight.parse().map_err(|_| {
                E::custom(format!(
                    "{text:?} has no weight behind its =; write a whole number from 0 to 256, for \
                     example \"{}=90\"",
                    pool_of(text)
                ))
            })?)),
        };
        Ok(DeclaredShare { pool: pool_of(text).to_owned(), weight })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DeclaredShare, A::Error> {
        let Table { pool, weight } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(DeclaredShare { pool, weight })
    }
}

impl PartialSchema for DeclaredShare {
    fn schema() -> RefOr<Schema> {
        let text = |description| {
            ObjectBuilder::new().schema_type(Type::String).description(Some(description))
        };
        let form = text("`NAME`, or `NAME=WEIGHT` with a weight from 0 to 256.")
            .pattern(Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(=[0-9]+)?$"));
        let weight = RefBuilder::new().ref_location_from_schema_name("Number").description(Some(
            "Its share beside the others; 0 takes no requests. 1 unless given, at most 256.",
        ));
        let table = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("pool", text("Its name."))
            .property("weight", RefOr::<Schema>::Ref(weight.build()))
            .required("pool")
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
        let either = OneOfBuilder::new().item(form).item(table);
        Schema::OneOf(either.description(Some("A pool among several of a route.")).build()).into()
    }
}

impl ToSchema for DeclaredShare {
    fn name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }
}
