//! JSON values as YAML.
//!
//! Only block mappings, block lists and scalars are written; text that YAML could take for
//! anything but text is written as JSON writes it, which YAML reads as well.

use serde_json::Value;

/// The value, one line feed behind each line.
pub(super) fn render(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

fn write(value: &Value, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                *text += &format!("{margin}{}:", scalar(&Value::from(key.as_str())));
                nested(value, indent, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut lines = String::new();
                write(item, indent + 2, &mut lines);
                // The first line of the item follows the dash.
                *text += &format!("{margin}- {}", lines.trim_start_matches(' '));
            }
        }
        scalar_or_empty => *text += &format!("{margin}{}\n", scalar(scalar_or_empty)),
    }
}

fn nested(value: &Value, indent: usize, text: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if is_block {
        text.push('\n');
        write(value, indent + 2, text);
    } else {
        *text += &format!(" {}\n", scalar(value));
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Letters first, nothing that has a meaning in YAML, and no word that is a value.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "null", "nan"];
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_mappings_are_indented() {
        let value = json!([
            {"id": "backend1", "weight": 1, "labels": {}, "since": null, "addresses": ["[::1]:80"]},
            {"id": "true", "reason": {"code": "check_passed", "message": "it's: \"fine\"\n"}},
        ]);
        insta::assert_snapshot!(render(&value), @r#"
        - addresses:
            - "[::1]:80"
          id: backend1
          labels: {}
          since: null
          weight: 1
        - id: "true"
          reason:
            code: check_passed
            message: "it's: \"fine\"\n"
        "#);
    }
}
