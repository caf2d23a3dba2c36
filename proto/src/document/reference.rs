//! The reference of all keys, as a page for people.

use std::fmt::Write as _;

use lb_core::model::Kind;
use serde_json::Value;

use super::{
    changes::keys_of,
    export::{DECLARED_KINDS, defaults, required},
    schema::{definitions, forms, range, type_name},
};

/// Tables of all keys in Markdown: meaning, default, range.
#[must_use]
pub fn reference() -> String {
    let definitions = definitions("");
    let mut page = String::new();
    for kind in DECLARED_KINDS {
        let schema = definitions.get(type_name(kind)).cloned().unwrap_or_default();
        let about = schema["description"].as_str().unwrap_or_default();
        let head = format!("### `[[{kind}s]]`\n\n{}\n\n", sentence(about));
        page += &head;
        page += "| key | meaning | default | values |\n|---|---|---|---|\n";
        let defaults = defaults(kind);
        for key in keys_of(kind) {
            let property = &schema["properties"][*key];
            let about = property["description"].as_str().unwrap_or_default();
            let about = about.split(" Range: ").next().unwrap_or_default();
            let default = if required(kind).contains(key) {
                "needed".to_owned()
            } else {
                defaults.get(*key).map_or_else(|| "none".to_owned(), default_text)
            };
            let values = values(kind, key, property, &definitions);
            writeln!(page, "| `{key}` | {} | {default} | {values} |", sentence(about))
                .expect("writing to a string cannot fail");
        }
        page.push('\n');
    }
    page
}

fn values(
    kind: Kind,
    key: &str,
    property: &Value,
    definitions: &serde_json::Map<String, Value>,
) -> String {
    let named = property["$ref"].as_str().unwrap_or_default();
    let words: Vec<&str> = match (forms(kind, key), definitions.get(named)) {
        (Some(forms), _) => forms.to_vec(),
        (None, Some(schema)) => {
            schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        }
        (None, None) => Vec::new(),
    };
    if !words.is_empty() {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    let of_type = match named {
        "Duration" => "duration",
        "Size" => "size",
        "SizeOrUnlimited" => "size, or `unlimited`",
        "Number" => "number",
        "NumberOrUnlimited" => "number, or `unlimited`",
        _ => match property["type"].as_str() {
            Some("array") if property["items"]["$ref"] == "Share" => {
                "list of `NAME` or `NAME=WEIGHT`"
            }
            Some("array") => "list of texts",
            Some("object") => "table of texts",
            Some("boolean") => "`true`, `false`",
            _ => "text",
        },
    };
    range(kind, key).map_or_else(|| of_type.to_owned(), |range| format!("{of_type}, {range}"))
}

/// On one line, as a cell of a table must be.
fn sentence(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn default_text(value: &Value) -> String {
    match value {
        Value::Array(items) if items.is_empty() => "`[]`".to_owned(),
        Value::Object(pairs) if pairs.is_empty() => "`{}`".to_owned(),
        Value::Number(number) => format!("`{number}`"),
        other => format!("`{}`", toml_text(other)),
    }
}

fn toml_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"))
}
