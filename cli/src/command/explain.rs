//! `explain`: what a setting means, from the schema of declared state.

use lb_proto::document::{nearest, schema};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    args::{Explain, Global},
    exit::{Exit, Failure},
    output::{Screen, Table},
};

/// The kinds, and the types of the schema that tell their keys.
const KINDS: [(&str, &str); 5] = [
    ("pool", "Pool"),
    ("backend", "Backend"),
    ("listener", "Listener"),
    ("route", "Route"),
    ("limit", "Limit"),
];

/// One key.
#[derive(Debug, Serialize)]
struct FieldView {
    field: String,
    meaning: String,
    r#type: String,
    default: Value,
    range: Option<String>,
    values: Vec<String>,
}

/// Explains a kind or one of its keys; needs no control plane.
pub(super) fn run(args: &Explain, global: &Global) -> Result<(), Failure> {
    let screen = Screen::new(global.output);
    let (kind, key) = match args.field.split_once('.') {
        Some((kind, key)) => (kind, Some(key)),
        None => (args.field.as_str(), None),
    };
    let singular = kind.strip_suffix('s').unwrap_or(kind);
    let Some((kind, type_name)) = KINDS.into_iter().find(|(name, _)| *name == singular) else {
        let names = KINDS.map(|(name, _)| name);
        return Err(unknown("kind", kind, &names));
    };
    let fields = fields(kind, &schema::definitions("")[type_name]);
    let Some(key) = key else {
        let names = || fields.iter().map(|field| field.field.clone()).collect();
        return screen.answer(&fields, names, || overview(kind, &fields, screen));
    };
    // Flags are written with dashes, keys with underscores.
    let wanted = format!("{kind}.{}", key.trim_start_matches('-').replace('-', "_"));
    let Some(field) = fields.iter().find(|field| field.field == wanted) else {
        let names: Vec<&str> = fields.iter().map(|field| &field.field[kind.len() + 1..]).collect();
        return Err(unknown(&format!("key of a {kind}"), key, &names));
    };
    screen.answer(field, || vec![field.field.clone()], || page(field))
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("there are {}", known.join(", ")),
    };
    Failure::new(Exit::NotFound, format!("there is no {what} {name:?}; {hint}"))
}

fn fields(kind: &str, schema: &Value) -> Vec<FieldView> {
    let nothing = Map::new();
    let keys = schema["properties"].as_object().unwrap_or(&nothing);
    keys.iter().map(|(key, schema)| FieldView::read(format!("{kind}.{key}"), schema)).collect()
}

impl FieldView {
    fn read(field: String, schema: &Value) -> Self {
        let text = schema["description"].as_str().unwrap_or_default();
        let (meaning, in_text) = match text.rsplit_once(" Range: ") {
            Some((meaning, range)) => (meaning, Some(range.trim_end_matches('.').to_owned())),
            None => (text, None),
        };
        let of_numbers = match (&schema["minimum"], &schema["maximum"]) {
            (Value::Null, _) | (_, Value::Null) => None,
            (least, most) if most.as_u64() == Some(u32::MAX.into()) => {
                Some(format!("at least {least}"))
            }
            (least, most) => Some(format!("{least} to {most}")),
        };
        let values = ["enum", "examples"].into_iter().find_map(|key| schema[key].as_array());
        Self {
            field,
            meaning: meaning.to_owned(),
            r#type: type_of(schema),
            default: schema["default"].clone(),
            range: in_text.or(of_numbers),
            values: values.into_iter().flatten().map(shown).collect(),
        }
    }
}

fn type_of(schema: &Value) -> String {
    let named = schema["$ref"].as_str().unwrap_or_default();
    match named.rsplit('/').next() {
        Some("Duration") => return "duration".to_owned(),
        Some("Size" | "SizeOrUnlimited") => return "size".to_owned(),
        Some("Number" | "NumberOrUnlimited") => return "number".to_owned(),
        _ => {}
    }
    match &schema["type"] {
        Value::String(name) if name == "boolean" => "true or false".to_owned(),
        Value::String(name) if name == "array" && schema["items"]["$ref"] == "Share" => {
            "list of NAME or NAME=WEIGHT".to_owned()
        }
        Value::String(name) if name == "array" => "list of texts".to_owned(),
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().map(shown).collect::<Vec<_>>().join(" or "),
        // One of several types: those with bounds are numbers.
        _ if schema["minimum"].is_number() => "integer".to_owned(),
        _ => "text".to_owned(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

fn overview(kind: &str, fields: &[FieldView], screen: Screen) -> String {
    let mut table = Table::new(&["FIELD", "DEFAULT", "RANGE", "MEANING"]);
    for field in fields {
        let first = field.meaning.split_inclusive(". ").next().unwrap_or_default();
        table.row([
            (&field.field).into(),
            shown(&field.default).into(),
            field.range.as_deref().unwrap_or("-").into(),
            first.trim_end().into(),
        ]);
    }
    format!("{}\nnext: 'lbctl explain {kind}.KEY' tells all about one\n", screen.render(&table))
}

fn page(field: &FieldView) -> String {
    let mut text = format!("{}\n  {}\n", field.field, field.meaning);
    let mut row = |label: &str, value: &str| text += &format!("  {label:<9}{value}\n");
    row("type", &field.r#type);
    row("default", &shown(&field.default));
    if let Some(range) = &field.range {
        row("range", range);
    }
    if !field.values.is_empty() {
        row("values", &field.values.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, type_name: &str) -> Vec<FieldView> {
        fields(kind, &schema::definitions("")[type_name])
    }

    #[test]
    fn a_timeout_is_told_with_default_and_range() {
        let fields = of("pool", "Pool");
        let field = fields.iter().find(|field| field.field == "pool.request_timeout").unwrap();
        let text = page(field);
        assert!(text.contains("default  30s"), "{text}");
        assert!(text.contains("range    1ms to 24h"), "{text}");
        assert!(!text.contains("Range:"), "{text}");
    }

    #[test]
    fn the_pools_of_a_route_are_told_as_they_are_written() {
        let fields = of("route", "Route");
        let field = fields.iter().find(|field| field.field == "route.pools").unwrap();
        let text = page(field);
        assert!(text.contains("list of NAME or NAME=WEIGHT") && text.contains("web=90"), "{text}");
    }

    #[test]
    fn every_key_of_every_kind_has_a_meaning() {
        for (kind, type_name) in KINDS {
            let fields = of(kind, type_name);
            assert!(fields.len() >= 3, "{kind}");
            for field in fields {
                assert!(!field.meaning.is_empty(), "{}", field.field);
            }
        }
    }

    #[test]
    fn a_mistyped_key_gets_a_suggestion() {
        let failure = unknown("key of a pool", "request_timout", &["choices", "request_timeout"]);
        assert_eq!(failure.exit, Exit::NotFound);
        insta::assert_snapshot!(failure.message, @r#"there is no key of a pool "request_timout"; did you mean "request_timeout"?"#);
    }
}
