//! A source that is a file: read anew every second, by its name, so that it does not
//! matter how it is replaced (written in place, renamed, a symbolic link that is turned).
//!
//! | name ends in | content |
//! |---|---|
//! | `.json` | a list, or an object with a list `backends` |
//! | `.toml` | a list `backends` |
//! | anything else | lines, see [`parse_lines`] |
//!
//! An entry of a list is `"HOST:PORT"`, or an object with `address`, and perhaps `weight`
//! and `id`.

use std::{
    fs::OpenOptions,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use lb_core::{
    discovery::{Found, Twins, parse_lines},
    model::{BackendId, Invalid, Reason, Weight, shorten},
};
use rustix::fs::OFlags;
use serde_json::Value;

/// Bytes of a file.
const SIZE_MAX: u64 = 1 << 20;

/// Reads and checks the file. Blocks.
pub(super) fn read(path: &str) -> Result<Vec<Found>, Reason> {
    let failed = |what: String| Reason::new("source_unreadable", format!("{path}: {what}"));
    let mut bytes = Vec::new();
    // Opening a pipe would wait for its writer, and its thread with it.
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = open.map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("this is no regular file; name one with a line per backend".to_owned()));
    }
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(failed(format!("the file has more than {SIZE_MAX} bytes")));
    }
    let is_public = metadata.mode() & 0o004 != 0;
    let malformed = |what: String| {
        let what = if is_public { what } else { without_text(&what) };
        Reason::new("source_malformed", format!("{path}: {what}"))
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        malformed(format!("line {line}: this is not UTF-8"))
    })?;
    let found = match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("json") => json(text).map_err(malformed)?,
        Some("toml") => toml(text).map_err(malformed)?,
        _ => parse_lines(text).map_err(|error| malformed(error.to_string()))?,
    };
    if found.is_empty() {
        let what = "the file names no backend; to have none, take the source from the pool";
        return Err(Reason::new("source_empty", format!("{path}: {what}")));
    }
    Ok(found)
}

/// Leaves out of a complaint what stands in the file: whoever may ask for a source need not be
/// somebody who may read every file that the control plane may.
fn without_text(what: &str) -> String {
    const RULE: &str = "write HOST:PORT, perhaps with weight and id; what is there is not told, \
                        because not everybody may read the file";
    match what.split_once(": ") {
        Some((place, _)) if place.starts_with("line ") || place.starts_with("backend ") => {
            format!("{place}: {RULE}")
        }
        _ => RULE.to_owned(),
    }
}

fn json(text: &str) -> Result<Vec<Found>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let (line, what) = (error.line(), error.to_string());
        format!("line {line}: {}", what.split(" at line ").next().unwrap_or(&what))
    })?;
    entries(&value)
}

fn toml(text: &str) -> Result<Vec<Found>, String> {
    let value: Value = toml::from_str(text).map_err(|error| {
        let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
        format!("line {}: {}", before.matches('\n').count() + 1, error.message())
    })?;
    entries(&value)
}

fn entries(value: &Value) -> Result<Vec<Found>, String> {
    let list = match value {
        Value::Array(list) => list,
        Value::Object(object) => {
            if let Some(unknown) = object.keys().find(|key| *key != "backends") {
                return Err(format!("unknown key {unknown:?}; there is only \"backends\""));
            }
            match object.get("backends") {
                Some(Value::Array(list)) => list,
                Some(_) => return Err("\"backends\" is not a list".to_owned()),
                None => return Ok(Vec::new()),
            }
        }
        _ => return Err("write a list of backends".to_owned()),
    };
    let mut found = Vec::new();
    let mut twins = Twins::default();
    for (at, value) in list.iter().enumerate() {
        let wrong = |what: String| format!("backend {}: {what}", at + 1);
        let one = entry(value).map_err(wrong)?;
        if let Some(twin) = twins.of(&one) {
            return Err(wrong(twin));
        }
        found.push(one);
    }
    Ok(found)
}

fn entry(value: &Value) -> Result<Found, String> {
    const FORM: &str = "write \"HOST:PORT\", or address = \"HOST:PORT\" with weight and id";
    let message = |error: Invalid| error.message;
    let object = match value {
        Value::String(address) => return Ok(Found::new(address.parse().map_err(message)?)),
        Value::Object(object) => object,
        _ => return Err(FORM.to_owned()),
    };
    let address = object.get("address").and_then(Value::as_str).ok_or(FORM)?;
    let mut found = Found::new(address.parse().map_err(message)?);
    for (key, value) in object {
        match (key.as_str(), value) {
            ("address", _) => {}
            ("weight", value) => {
                let weight = value.as_u64().and_then(|weight| u32::try_from(weight).ok());
                let weight = weight.ok_or_else(|| format!("weight {value} is outside 0 to 256"))?;
                found.weight = Some(Weight::new(weight).map_err(message)?);
            }
            ("id", Value::String(id)) => found.id = Some(BackendId::new(id).map_err(message)?),
            ("id", _) => return Err("id is not text".to_owned()),
            (key, _) => {
                let shown = shorten(key);
                return Err(format!("unknown key {shown:?}; known are address, weight and id"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read_as(name: &str, text: &str) -> Result<Vec<Found>, Reason> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(path.to_str().unwrap())
    }

    #[test]
    fn the_three_forms_say_the_same() {
        let lines = read_as("web.txt", "10.0.0.1:80\n[::1]:81 weight=3 id=six\n").unwrap();
        let json = r#"["10.0.0.1:80", {"address": "[::1]:81", "weight": 3, "id": "six"}]"#;
        assert_eq!(read_as("web.json", json).unwrap(), lines);
        assert_eq!(read_as("web.json", &format!("{{\"backends\": {json}}}")).unwrap(), lines);
        let tables = "[[backends]]\naddress = \"10.0.0.1:80\"\n\n[[backends]]\n\
                      address = \"[::1]:81\"\nweight = 3\nid = \"six\"\n";
        assert_eq!(read_as("web.toml", tables).unwrap(), lines);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (name, text, hint) in [
            ("a.txt", "10.0.0.1:80\nnonsense\n", "line 2: "),
            ("a.json", "[\n\"10.0.0.1:80\",\n]", "line 3: trailing comma"),
            ("a.json", "[\"10.0.0.1:80\", {\"adress\": 1}]", "backend 2: write"),
            ("a.json", "[{\"address\": \"a:80\", \"weight\": -1}]", "weight -1 is outside"),
            ("a.json", "[\"a:80\", \"a:80\"]", "backend 2: a:80 is there twice"),
            ("a.toml", "backends = [\n\"a:80\"\nx", "line 3: "),
            ("a.toml", "backend = []", "unknown key \"backend\""),
            ("a.txt", "# none\n", "names no backend"),
        ] {
            let reason = read_as(name, text).unwrap_err();
            assert!(reason.message.contains(hint), "{text}: {}", reason.message);
        }
    }

    #[test]
    fn what_stands_in_a_private_file_is_not_told() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text, place) in [
            ("a.txt", "10.0.0.1:80\nsecret\n", "line 2: "),
            ("a.json", "[\"a:80\", \"secret\"]", "backend 2: "),
            ("a.json", "{\"secret\": 1}", ""),
            ("a.toml", "secret", "line 1: "),
        ] {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            let message = read(path.to_str().unwrap()).unwrap_err().message;
            assert!(!message.contains("secret"), "{message}");
            assert!(message.contains(&format!("{place}write HOST:PORT")), "{message}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [directory.path(), &pipe] {
            let path = path.to_str().unwrap().to_owned();
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || tell.send(read(&path)));
            let reason = told.recv_timeout(std::time::Duration::from_secs(5)).unwrap().unwrap_err();
            assert_eq!(reason.code, "source_unreadable");
            assert!(reason.message.contains("no regular file"), "{}", reason.message);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_unreadable() {
        let reason = read("/does/not/exist").unwrap_err();
        assert_eq!(reason.code, "source_unreadable");
        assert!(reason.message.contains("/does/not/exist"), "{}", reason.message);
    }
}
