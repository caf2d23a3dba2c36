//! The commands in README.md and docs/ parse with the command line as it is, so that neither
//! can go stale. Nothing is run.
//!
//! In blocks of code, whole commands are parsed. In running text, a command often stands with
//! a placeholder or in part, so only its verb and the names of its flags must exist.

use std::{fs, path::Path};

use clap::{CommandFactory as _, Parser as _};

use super::Cli;

/// One command and where it stands.
struct Found {
    place: String,
    words: Vec<String>,
    whole: bool,
}

#[test]
fn every_documented_command_parses() {
    let found = documented();
    let whole = found.iter().filter(|command| command.whole).count();
    assert!(whole > 30, "only {whole} commands were found: are they still recognised?");
    let faults: Vec<String> = found.iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_stale_command_is_noticed() {
    let stale = |text, whole| {
        let words = words(text).unwrap();
        fault(&Found { place: "here".to_owned(), words, whole }).is_some()
    };
    assert!(stale("lbctl add-backend localhost", true), "a port is missing");
    assert!(stale("lbctl status --colour", true));
    assert!(stale("lbctl inspect backend1", false));
    assert!(stale("lbctl set-pool NAME --helth-path /", false));
    assert!(!stale("lbctl set-pool NAME --health-path /", false));
    assert!(!stale("lbctl add-route tenants --host '*.example.com' --pool default", true));
}

fn fault(command: &Found) -> Option<String> {
    let Found { place, words, whole } = command;
    let problem = if *whole {
        match Cli::try_parse_from(words) {
            Ok(_) => return None,
            Err(answer) if !answer.use_stderr() => return None,
            Err(error) => error.to_string(),
        }
    } else {
        unknown_name(words)?
    };
    Some(format!("{place}: {}: {problem}", words.join(" ")))
}

/// The verb or a flag that the command line does not know.
fn unknown_name(words: &[String]) -> Option<String> {
    let mut root = Cli::command();
    root.build();
    let mut verbs = words[1..].iter().filter(|word| !word.starts_with('-'));
    let verb = verbs.next().filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    let command = match verb {
        // "lbctl --server", "lbctl remove-..."
        None => &root,
        Some(verb) if verb.ends_with("...") => return None,
        Some(verb) => match root.find_subcommand(verb) {
            Some(command) => command,
            None => return Some(format!("there is no command {verb}")),
        },
    };
    let known = |flag: &str| command.get_arguments().any(|arg| arg.get_long() == Some(flag));
    let flags = words.iter().filter_map(|word| word.strip_prefix("--"));
    let mut names = flags.map(|flag| flag.split('=').next().unwrap_or(flag));
    let unknown = names.find(|name| !name.is_empty() && *name != "help" && !known(name));
    unknown.map(|name| format!("there is no flag --{name}"))
}

fn documented() -> Vec<Found> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    let mut found = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        collect(&name, &text, &mut found);
    }
    found
}

fn collect(name: &str, text: &str, found: &mut Vec<Found>) {
    let mut in_block = false;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let place = format!("{name}:{}", number + 1);
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let mut command = line.trim().trim_start_matches("$ ").to_owned();
            while let Some(begun) = command.strip_suffix('\\') {
                let more = lines.next().map_or("", |(_, line)| line.trim());
                command = format!("{begun}{more}");
            }
            for part in pipeline(&command) {
                if let Some(words) = words(part).filter(|words| words[0] == "lbctl") {
                    // The first line of a table of versions is none.
                    let is_version = words.get(1).is_some_and(|word| word.starts_with("0."));
                    if !is_version {
                        found.push(Found { place: place.clone(), words, whole: true });
                    }
                }
            }
        } else {
            for code in line.split('`').skip(1).step_by(2) {
                if let Some(words) = words(code).filter(|words| words[0] == "lbctl") {
                    found.push(Found { place: place.clone(), words, whole: false });
                }
            }
        }
    }
}

/// What a shell runs one after the other or side by side, without where output goes.
fn pipeline(line: &str) -> Vec<&str> {
    line.split([';', '|', '&']).filter_map(|part| part.split(" >").next()).collect()
}

/// As a shell splits a line up to a comment; nothing for a line that ends within quotes.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (quote.is_none() && !words.is_empty()).then_some(words)
}
