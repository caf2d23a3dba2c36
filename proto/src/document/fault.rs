//! What is wrong with a value that is not of its type, in words of those who write it.

/// How much of a value is quoted.
const QUOTED: usize = 40;

/// The message alone, without the place, which may be that of another text.
#[must_use]
pub fn in_words(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "it ends too early".to_owned();
    }
    let text = error.to_string();
    let text = match text.rfind(" at line ") {
        Some(end) if error.line() > 0 => &text[..end],
        _ => &text,
    };
    let of_type =
        text.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "));
    let Some((given, expected)) = of_type else { return text.to_owned() };
    let given = value(given);
    match expected {
        "a boolean" => {
            format!("{given} is neither true nor false; write one of them, without quotes")
        }
        "a string" => format!("{given} is no text; write it in quotes"),
        "a sequence" => format!("{given} is no list; write one in [ ]"),
        expected => format!("{given} is not {expected}"),
    }
}

/// A value as it was written, from how the reader describes it.
fn value(described: &str) -> String {
    match described {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        "null" | "unit value" => "null".to_owned(),
        described => {
            let kinds = ["string ", "integer ", "floating point ", "boolean "];
            let bare = kinds.iter().find_map(|kind| described.strip_prefix(kind));
            let bare = bare.unwrap_or(described).trim_matches('`');
            match bare.chars().count() {
                0..=QUOTED => bare.to_owned(),
                _ => format!("{}...", bare.chars().take(QUOTED).collect::<String>()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn told<T: DeserializeOwned>(json: &str) -> String {
        in_words(&serde_json::from_str::<T>(json).err().expect("it is of another type"))
    }

    #[test]
    fn a_value_of_another_type_is_told_without_words_of_the_reader() {
        let no = told::<bool>("\"no\"");
        assert_eq!(no, "\"no\" is neither true nor false; write one of them, without quotes");
        assert_eq!(told::<String>("5"), "5 is no text; write it in quotes");
        assert_eq!(told::<u32>("1.5"), "1.5 is not u32");
        assert_eq!(told::<Vec<u8>>("{}"), "a table is no list; write one in [ ]");
        assert_eq!(told::<Vec<u8>>("[1"), "it ends too early");
        assert_eq!(told::<bool>("[]").split(' ').nth(1), Some("list"));
        let long = told::<bool>(&format!("\"{}\"", "a".repeat(1 << 20)));
        assert!(long.len() < 200, "{}", long.len());
    }
}
