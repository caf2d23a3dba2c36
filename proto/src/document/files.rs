//! Documents on disk: one file, or all of a directory.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{Format, SOURCE_BYTES_MAX, Source};

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {why}", path.display())]
pub struct Unreadable {
    /// As it was named.
    pub path: PathBuf,
    /// Why, and what to do.
    pub why: String,
}

/// Reads a file, or the `*.toml` and `*.json` files of a directory in order of their names.
/// Blocks.
pub fn load(path: &Path) -> Result<Vec<Source>, Unreadable> {
    let unreadable = |why: String| Unreadable { path: path.to_owned(), why };
    let failed = |error: io::Error| unreadable(error.to_string());
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return load_file(path).map(|source| vec![source]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let is_document = file.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            // Editors leave hidden copies behind.
            !name.starts_with('.') && Format::of_name(&name).is_some()
        });
        if is_document && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(unreadable("the directory has no *.toml or *.json file".to_owned()));
    }
    files.sort();
    files.iter().map(|file| load_file(file)).collect()
}

impl Source {
    /// Reads one from a stream, such as standard input; its format shows in its text,
    /// unless its name ends in one.
    pub fn read(name: &str, reader: impl Read) -> io::Result<Self> {
        let mut text = String::new();
        reader.take(SOURCE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > SOURCE_BYTES_MAX {
            let message = format!("it is longer than {} MiB", SOURCE_BYTES_MAX >> 20);
            return Err(io::Error::other(message));
        }
        // Some editors of other systems begin every file with a mark, which JSON does not know.
        if text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len_utf8());
        }
        let format = Format::of_name(name).unwrap_or_else(|| Format::of_text(&text));
        Ok(Self { name: name.to_owned(), text, format })
    }
}

fn load_file(path: &Path) -> Result<Source, Unreadable> {
    let name = path.display().to_string();
    if let Some(ending @ ("yaml" | "yml")) = path.extension().and_then(|ending| ending.to_str()) {
        let why = format!(".{ending} is not understood; write it as TOML or JSON");
        return Err(Unreadable { path: path.to_owned(), why });
    }
    File::open(path)
        .and_then(|file| Source::read(&name, file))
        .map_err(|error| Unreadable { path: path.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_shows_in_the_name_or_in_the_text() {
        for (name, text, format) in [
            ("a.toml", "", Format::Toml),
            ("a.json", "", Format::Json),
            ("-", "# pools\n", Format::Toml),
            ("-", "\n {}", Format::Json),
            ("-", "[\n  {\"id\": 1}]", Format::Json),
            ("-", "[]", Format::Json),
            ("-", "[[pools]]", Format::Toml),
            ("-", "[pools]", Format::Toml),
        ] {
            assert_eq!(Source::read(name, text.as_bytes()).unwrap().format, format, "{name}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_content() {
        for (text, format) in [("\u{feff}{}", Format::Json), ("\u{feff}# pools", Format::Toml)] {
            let source = Source::read("-", text.as_bytes()).unwrap();
            assert_eq!((source.format, &*source.text), (format, &text[3..]));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let missing = load(Path::new("/nowhere/lb.toml")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/lb.toml") && missing.contains("No such file"));
        let endless = Source::read("zeros", io::repeat(b'\n')).unwrap_err().to_string();
        assert!(endless.contains("16 MiB"), "{endless}");
    }
}
